//! WAL-G's settings that mean something here under another name or in other words, and those that mean nothing: an operator
//! who comes from WAL-G keeps the environment, and hears of each setting that does not do what it did.
//!
//! Names that are the same as ours in other words are aliases in [`super::declared`]. Those that would weaken something
//! without a word are refused there.

use std::borrow::Cow;

/// A value of one of WAL-G's settings in the words of the setting that it is an alias of.
pub(super) fn in_our_words<'t>(name: &str, text: &'t str) -> Cow<'t, str> {
    let ours = match (name, text.trim()) {
        ("WALG_COMPRESSION_METHOD", word) if READ_ONLY.contains(&word) => "zstd",
        ("WALG_ZSTD_LEVEL", "fastest") => "1",
        ("WALG_ZSTD_LEVEL", "default") => "3",
        ("WALG_ZSTD_LEVEL", "better") => "7",
        ("WALG_ZSTD_LEVEL", "best") => "11",
        ("WALG_LOG_LEVEL", "ERROR") => "error",
        ("WALG_LOG_LEVEL", "NORMAL") => "info",
        ("WALG_LOG_LEVEL", "DEVEL") => "debug",
        ("WALG_UPLOAD_DISK_CONCURRENCY" | "WALG_DOWNLOAD_CONCURRENCY", number) => {
            return match number.parse::<u64>() {
                Ok(number) => Cow::Owned(number.clamp(1, 64).to_string()),
                Err(_) => Cow::Borrowed(text),
            };
        }
        _ => return Cow::Borrowed(text),
    };
    Cow::Borrowed(ours)
}

/// Codecs of WAL-G's that are read here and not written.
const READ_ONLY: [&str; 2] = ["lzma", "brotli"];

/// What a user should know of a setting of WAL-G's that has this value, where it does not do what it did.
pub(super) fn warning(name: &str, text: &str) -> Option<String> {
    let text = text.trim();
    if name == "WALG_COMPRESSION_METHOD" {
        return READ_ONLY.contains(&text).then(|| {
            format!("{name}={text}: wale reads {text} and does not write it; what is new is written as zstd")
        });
    }
    // What only says what is so anyway is no news.
    let off = ["false", "0", ""];
    let is_news = match name {
        "WALG_PREVENT_WAL_OVERWRITE" => off.contains(&text),
        "PG_READY_RENAME"
        | "WALG_USE_WAL_DELTA"
        | "WALG_FORCE_WAL_DELTA"
        | "WALG_DELTA_MAX_STEPS"
        | "WALG_WITHOUT_FILES_METADATA" => !off.contains(&text),
        _ => true,
    };
    let (_, why) = WITHOUT_EFFECT.iter().find(|(known, _)| *known == name)?;
    is_news.then(|| format!("{name} has no effect: {why}"))
}

/// Whether it is one of WAL-G's that nobody misses here: what it sets is done otherwise, and better left alone.
pub(super) fn is_needless(name: &str) -> bool {
    NEEDLESS.contains(&name)
}

const WITHOUT_EFFECT: &[(&str, &str)] = &[
    (
        "WALG_CONFIG_PATH",
        "WAL-G's configuration file is not read; give its settings in the environment or in wale's file",
    ),
    (
        "WALG_DELTA_MAX_STEPS",
        "wale takes full backups; WAL-G's deltas are read",
    ),
    (
        "WALG_DELTA_ORIGIN",
        "wale takes full backups; WAL-G's deltas are read",
    ),
    (
        "WALG_USE_WAL_DELTA",
        "wale takes full backups; WAL-G's deltas are read",
    ),
    (
        "WALG_FORCE_WAL_DELTA",
        "wale takes full backups; WAL-G's deltas are read",
    ),
    (
        "WALG_PREVENT_WAL_OVERWRITE",
        "wale never overwrites a segment",
    ),
    (
        "PG_READY_RENAME",
        "only PostgreSQL renames what is in archive_status",
    ),
    (
        "HTTP_LISTEN",
        "the sidecar answers on WALE_LISTEN_ADDRESS and WALE_LISTEN_PORT",
    ),
    (
        "WALG_STATSD_ADDRESS",
        "the sidecar has /metrics for Prometheus",
    ),
    (
        "WALG_SENTINEL_USER_DATA",
        "wale stores no user data with a backup",
    ),
    (
        "WALG_FETCH_TARGET_USER_DATA",
        "name the backup, as backup-list shows it",
    ),
    (
        "WALG_WITHOUT_FILES_METADATA",
        "a backup of wale's always has its manifest",
    ),
    (
        "WALG_FAILOVER_STORAGES",
        "further archives are set with WALE_PREFIX_2 and so on",
    ),
    (
        "WALG_SSH_PREFIX",
        "there is no store over SSH; mount the directory and set WALE_FILE_PREFIX",
    ),
    (
        "WALG_OSS_PREFIX",
        "reach it by its endpoint for S3, with WALE_S3_PREFIX and AWS_ENDPOINT",
    ),
    ("S3_ENDPOINT_SOURCE", "give the endpoint in AWS_ENDPOINT"),
    ("S3_USE_YC_SESSION_TOKEN", "give keys, or a role"),
];

/// Their work is done otherwise here, and nobody has to know how.
const NEEDLESS: &[&str] = &[
    "WALG_UPLOAD_CONCURRENCY",
    "WALG_UPLOAD_QUEUE",
    "WALG_UPLOAD_WAL_METADATA",
    "WALG_DOWNLOAD_FILE_RETRIES",
    "WALG_TAR_SIZE_THRESHOLD",
    "WALG_TAR_DISABLE_FSYNC",
    "WALG_DIRECT_IO",
    "WALG_DIRECT_IO_BLOCK_COUNT",
    "WALG_SERIALIZER_TYPE",
    "WALG_STATSD_EXTRA_TAGS",
    "WALG_PG_WAL_SIZE",
    "WALG_PG_BLOCK_SIZE",
    "WALG_PG_WAL_PAGE_SIZE",
    "WALG_SLOTNAME",
    "WALG_PREFETCH_DIR",
    "WALG_ALIVE_CHECK_INTERVAL",
    "WALG_STOP_BACKUP_TIMEOUT",
    "WALG_INTEGRITY_MAX_DELAYED_WALS",
    "WALG_DAEMON_WAL_UPLOAD_TIMEOUT",
    "WALG_DELTA_FROM_NAME",
    "WALG_DELTA_FROM_USER_DATA",
    "WALG_VERIFY_PAGE_CHECKSUMS",
    "WALG_STORE_ALL_CORRUPT_BLOCKS",
    "WALG_DISABLE_PARTIAL_RESTORE",
    "WALG_USE_RATING_COMPOSER",
    "WALG_USE_COPY_COMPOSER",
    "WALG_USE_DATABASE_COMPOSER",
    "WALG_USE_REVERSE_UNPACK",
    "WALG_SKIP_REDUNDANT_TARS",
    "WALG_FAILOVER_STORAGES_CHECK",
    "WALG_FAILOVER_STORAGES_CHECK_TIMEOUT",
    "WALG_FAILOVER_STORAGES_CHECK_SIZE",
    "WALG_FAILOVER_STORAGES_CACHE_LIFETIME",
    "WALG_DISABLE_S3_SSE",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_wal_g_become_ours_and_others_stay() {
        for (name, text, ours) in [
            ("WALG_COMPRESSION_METHOD", "lz4", "lz4"),
            ("WALG_COMPRESSION_METHOD", "brotli", "zstd"),
            ("WALG_COMPRESSION_METHOD", "zip", "zip"),
            ("WALG_ZSTD_LEVEL", "better", "7"),
            ("WALG_ZSTD_LEVEL", "9", "9"),
            ("WALG_LOG_LEVEL", "DEVEL", "debug"),
            ("WALG_DOWNLOAD_CONCURRENCY", "100", "64"),
            ("WALG_DOWNLOAD_CONCURRENCY", "x", "x"),
            ("WALE_COMPRESSION", "brotli", "brotli"),
        ] {
            assert_eq!(in_our_words(name, text), ours, "{name}={text}");
        }
    }

    #[test]
    fn only_what_does_something_else_is_told() {
        for (name, text, told) in [
            ("WALG_COMPRESSION_METHOD", "lzma", true),
            ("WALG_COMPRESSION_METHOD", "zstd", false),
            ("WALG_PREVENT_WAL_OVERWRITE", "true", false),
            ("WALG_PREVENT_WAL_OVERWRITE", "false", true),
            ("WALG_DELTA_MAX_STEPS", "0", false),
            ("WALG_DELTA_MAX_STEPS", "6", true),
            ("WALG_NETWORK_RATE_LIMIT", "1000", false),
            ("WALG_UPLOAD_QUEUE", "2", false),
        ] {
            assert_eq!(warning(name, text).is_some(), told, "{name}={text}");
        }
        assert!(is_needless("WALG_UPLOAD_QUEUE") && !is_needless("WALG_S3_PREFIX"));
        assert!(WITHOUT_EFFECT.iter().all(|(name, _)| !is_needless(name)));
    }
}
