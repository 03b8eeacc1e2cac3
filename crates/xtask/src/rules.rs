//! The rules, as tables. Each says why.

/// Longest file, in lines.
pub(crate) const FILE_LINES_MAX: usize = 1000;

/// Longest function, in lines, that may be known.
pub(crate) const FUNCTION_LINES_MAX: usize = 100;

/// Longest function, in lines: a page of a screen. Longer ones are known, and get fewer.
pub(crate) const FUNCTION_LINES_AIM: usize = 70;

/// The operations of wale-ops, which stand side by side. Everything else there stands below them.
pub(crate) const OPERATIONS: [&str; 12] = [
    "backup_fetch",
    "backup_list",
    "backup_mark",
    "backup_push",
    "ownership",
    "promotion",
    "recoverable",
    "retention",
    "unknown_server",
    "unreadable_wal",
    "wal_fetch",
    "wal_push",
];

/// Which rooms a room may depend on: arrows point down only.
pub(crate) const MAY_USE: [(&str, &[&str]); 10] = [
    ("wale-pg", &[]),
    ("wale-storage", &[]),
    ("wale-format", &["wale-pg"]),
    ("wale-cluster", &["wale-pg"]),
    ("wale-pipeline", &["wale-format", "wale-pg"]),
    (
        "wale-ops",
        &[
            "wale-pg",
            "wale-format",
            "wale-storage",
            "wale-cluster",
            "wale-pipeline",
        ],
    ),
    ("wale-service", &["wale-pg", "wale-ops"]),
    (
        "wale",
        &[
            "wale-pg",
            "wale-format",
            "wale-storage",
            "wale-cluster",
            "wale-pipeline",
            "wale-ops",
            "wale-service",
        ],
    ),
    ("wale-testkit", &["wale-pg", "wale-format", "wale-storage"]),
    ("xtask", &[]),
];

/// Words that no line of shipped code may hold.
pub(crate) struct Ban {
    /// The words.
    pub(crate) words: &'static [&'static str],
    /// Paths in which they are allowed, by prefix.
    pub(crate) except: &'static [&'static str],
    /// Why they are banned.
    pub(crate) why: &'static str,
}

/// Rooms that are not shipped.
const DEV: [&str; 2] = ["crates/wale-testkit/", "crates/xtask/"];

/// The bans.
pub(crate) const BANS: &[Ban] = &[
    Ban {
        words: &["todo!(", "unimplemented!(", "dbg!("],
        except: &[DEV[1]],
        why: "unfinished code is not merged",
    },
    Ban {
        words: &["env::var(", "env::var_os(", "env::vars(", "env::vars_os("],
        except: &["crates/wale/src/config/", DEV[0], DEV[1]],
        why: "only wale/src/config reads the environment",
    },
    Ban {
        words: &["println!(", "eprintln!(", "print!(", "eprint!("],
        except: &["crates/wale/src/", DEV[0], DEV[1]],
        why: "only the command prints; the rooms report or log",
    },
    Ban {
        words: &["Seal::new(", "Seal::from("],
        // A program's settings become a seal; `testing.rs` is compiled for tests only.
        except: &[
            "crates/wale-format/src/seal.rs",
            "crates/wale/src/assemble.rs",
            "crates/wale-ops/src/testing.rs",
            DEV[0],
            DEV[1],
        ],
        why: "only the archive seals and opens objects: Archive::sealed_body, seal_small, decode, decode_partition",
    },
    Ban {
        words: &[
            "fs::write(",
            "fs::rename(",
            "File::create(",
            "File::create_new(",
            "fs::copy(",
            "fs::remove_file(",
        ],
        except: &[
            "crates/wale-cluster/src/durable.rs",
            // A restore writes a whole tree and flushes it once, at its end.
            "crates/wale-cluster/src/restore_tree.rs",
            "crates/wale-storage/src/file/",
            DEV[0],
            DEV[1],
        ],
        why: "files appear durably or not at all: use wale_cluster::durable",
    },
];

/// Words that no `plan.rs` may hold: a plan is a pure value.
pub(crate) const IMPURE: [&str; 6] = [
    "async fn",
    ".await",
    "tokio::",
    "wale_storage",
    "wale_cluster",
    "std::fs",
];

/// The folder of the integration tests.
pub(crate) const INTEGRATION: &str = "crates/wale/tests/it/";

/// A test that asks for the majors runs on each of them.
pub(crate) const ASKS_FOR_MAJORS: [&str; 2] = ["in majors()", "on_every_major(|"];

/// How its name ends: `make test-matrix` runs what has this in its name.
pub(crate) const EVERY_MAJOR: &str = "_on_every_major";
