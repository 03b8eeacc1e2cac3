//! The rules, as tables. Each says why.

/// Longest file, in lines.
pub(crate) const FILE_LINES_MAX: usize = 1000;

/// Longest function, in lines, that may be known.
pub(crate) const FUNCTION_LINES_MAX: usize = 100;

/// Longest function, in lines: a page of a screen. Longer ones are known, and get fewer.
pub(crate) const FUNCTION_LINES_AIM: usize = 70;

/// The operations of wale-ops, which stand side by side. Everything else there stands below them.
pub(crate) const OPERATIONS: [&str; 14] = [
    "archive_copy",
    "backup_fetch",
    "backup_list",
    "backup_mark",
    "backup_push",
    "ownership",
    "promotion",
    "recoverable",
    "rehearse",
    "retention",
    "unknown_server",
    "unreadable_wal",
    "wal_fetch",
    "wal_push",
];

/// Which rooms a room may depend on: arrows point down only.
pub(crate) const MAY_USE: [(&str, &[&str]); 11] = [
    ("wale-pg", &[]),
    ("wale-storage", &[]),
    ("wale-format", &["wale-pg"]),
    ("wale-cluster", &["wale-pg"]),
    ("wale-pipeline", &["wale-format", "wale-pg"]),
    (
        "wale-archive",
        &[
            "wale-pg",
            "wale-format",
            "wale-storage",
            "wale-cluster",
            "wale-pipeline",
        ],
    ),
    (
        "wale-ops",
        &[
            "wale-pg",
            "wale-archive",
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

/// The rooms that know no settings: what an operator is to change is a `Remedy` there, and the service and the program
/// put it into words.
pub(crate) const WITHOUT_SETTINGS: [&str; 7] = [
    "wale-pg",
    "wale-format",
    "wale-storage",
    "wale-cluster",
    "wale-pipeline",
    "wale-archive",
    "wale-ops",
];

/// How the name of a setting begins.
pub(crate) const SETTING: &str = "WALE_";

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
