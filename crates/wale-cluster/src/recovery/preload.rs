//! Libraries that a server loads at its start.
//!
//! A cluster with TimescaleDB that is started without its library answers wrongly: compressed rows are invisible, and an
//! UPDATE changes half of the rows. So the libraries that the primary had are written where the restored configuration
//! lacks them.

use super::configuration::Configured;

pub(super) const SETTING: &str = "shared_preload_libraries";

/// The setting that holds TimescaleDB's background jobs, at 0. It needs a restart to be changed.
pub const TIMESCALEDB_WORKERS: &str = "timescaledb.max_background_workers";

/// The libraries of a list as `shared_preload_libraries` holds them, in order. Quotes around a name are taken off.
pub fn libraries(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(|name| name.trim().trim_matches('"'))
        .filter(|name| !name.is_empty())
}

/// The value to write: the primary's libraries, then what the configuration has besides; `None` where nothing is missing.
pub(super) fn missing(configured: &Configured, recorded: Option<&str>) -> Option<String> {
    let here = configured.get(SETTING).unwrap_or_default();
    let recorded = recorded.unwrap_or_default();
    if libraries(recorded).all(|name| holds(here, name)) {
        return None;
    }
    let besides = libraries(here).filter(|name| !holds(recorded, name));
    let all: Vec<String> = libraries(recorded).chain(besides).map(quoted).collect();
    Some(all.join(", "))
}

/// Whether the server will load TimescaleDB.
pub(super) fn has_timescaledb(configured: &Configured, recorded: Option<&str>) -> bool {
    [configured.get(SETTING), recorded]
        .into_iter()
        .flatten()
        .any(|list| holds(list, "timescaledb"))
}

fn holds(list: &str, name: &str) -> bool {
    libraries(list).any(|known| base(known) == base(name))
}

/// `$libdir/timescaledb` and `timescaledb` are one library.
pub(super) fn base(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    name.strip_suffix(".so").unwrap_or(name)
}

/// A name that is more than a word needs quotes in a list.
fn quoted(name: &str) -> String {
    let is_word = name
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if is_word {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::configuration::configured;

    #[test]
    fn fault_84_libraries_that_the_configuration_lacks_are_written_and_none_is_taken_away() {
        let cases = [
            ("", None, None),
            ("", Some(""), None),
            ("", Some("timescaledb"), Some("timescaledb")),
            ("timescaledb", Some("timescaledb"), None),
            ("'$libdir/timescaledb'", Some("timescaledb"), None),
            (
                "pg_cron",
                Some("timescaledb, pg_stat_statements"),
                Some("timescaledb, pg_stat_statements, pg_cron"),
            ),
            ("'pg_cron, timescaledb'", Some("timescaledb"), None),
            ("", Some("$libdir/My-Lib"), Some("\"$libdir/My-Lib\"")),
        ];
        for (here, recorded, expected) in cases {
            let folder = tempfile::tempdir().unwrap();
            let line = if here.is_empty() {
                String::new()
            } else {
                format!("{SETTING} = {here}\n")
            };
            std::fs::write(folder.path().join("postgresql.conf"), line).unwrap();
            let configured = configured(folder.path(), &[SETTING]).unwrap();
            assert_eq!(
                missing(&configured, recorded).as_deref(),
                expected,
                "{here} {recorded:?}"
            );
        }
    }
}
