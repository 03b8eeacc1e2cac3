//! Where a recovery ends, from settings and flags to the lines that PostgreSQL knows. A target that is said twice is refused:
//! nobody can tell which one was meant.

use wale_cluster::recovery;
use wale_ops::{Kind, OpError};
use wale_pg::TARGET_SETTINGS;

use crate::config::declared;
use crate::config::{RestoreTo, Settings};

/// One thing that was said of the end of a recovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GoalItem {
    /// The flag or the setting that says it.
    pub(crate) said: &'static str,
    /// PostgreSQL's name for it.
    pub(crate) name: &'static str,
    /// Its value; nothing for the end of the archive, which is what PostgreSQL does by itself.
    pub(crate) value: Option<String>,
}

impl GoalItem {
    /// What this flag or setting says.
    pub(crate) fn new(said: &'static str, name: &'static str, value: impl Into<String>) -> Self {
        Self {
            said,
            name,
            value: Some(value.into()),
        }
    }

    /// This flag or setting says: to the end of the archive.
    pub(crate) fn latest(said: &'static str) -> Self {
        Self {
            said,
            name: "recovery_target",
            value: None,
        }
    }

    fn is_target(&self) -> bool {
        TARGET_SETTINGS.contains(&self.name)
    }
}

/// What the settings say.
pub(crate) fn of_settings(settings: &Settings) -> Vec<GoalItem> {
    let mut items = Vec::new();
    if settings.get(&declared::WALE_RESTORE_TO) == RestoreTo::Immediate {
        let said = declared::WALE_RESTORE_TO.name();
        items.push(GoalItem::new(said, "recovery_target", "immediate"));
    }
    for (setting, name) in [
        (&declared::WALE_RESTORE_TO_TIME, "recovery_target_time"),
        (&declared::WALE_RESTORE_TO_LSN, "recovery_target_lsn"),
        (&declared::WALE_RESTORE_TO_NAME, "recovery_target_name"),
        (&declared::WALE_RESTORE_TO_XID, "recovery_target_xid"),
        (&declared::WALE_RESTORE_TIMELINE, "recovery_target_timeline"),
    ] {
        if let Some(value) = settings.get(setting) {
            items.push(GoalItem::new(setting.name(), name, value));
        }
    }
    if settings.get(&declared::WALE_RESTORE_EXCLUSIVE) {
        let said = declared::WALE_RESTORE_EXCLUSIVE.name();
        items.push(GoalItem::new(said, "recovery_target_inclusive", "off"));
    }
    if let Some(action) = settings.get(&declared::WALE_RESTORE_ACTION) {
        let said = declared::WALE_RESTORE_ACTION.name();
        items.push(GoalItem::new(said, "recovery_target_action", action.name()));
    }
    items
}

/// What flags say, and of what they do not say, the settings. A target on the command line takes the place of every target in
/// the settings.
pub(crate) fn with_flags(flags: Vec<GoalItem>, settings: Vec<GoalItem>) -> Vec<GoalItem> {
    let is_free = |item: &GoalItem| {
        !flags
            .iter()
            .any(|flag| flag.name == item.name || flag.is_target() && item.is_target())
    };
    let others: Vec<GoalItem> = settings.into_iter().filter(is_free).collect();
    flags.into_iter().chain(others).collect()
}

/// The lines for PostgreSQL: what was said, and `RECOVERY_ADDITION` after it.
///
/// # Errors
/// `Configuration` when a target, or anything else, is said twice.
pub(crate) fn lines(items: &[GoalItem], addition: &str) -> Result<String, OpError> {
    let added: Vec<String> = recovery::read_addition(addition)
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, _)| name)
        .collect();
    for (index, item) in items.iter().enumerate() {
        let same =
            |name: &str| name == item.name || item.is_target() && TARGET_SETTINGS.contains(&name);
        if let Some(other) = items[index + 1..].iter().find(|other| same(other.name)) {
            return Err(twice(item.said, other.said));
        }
        if let Some(other) = added.iter().find(|other| same(other)) {
            return Err(twice(item.said, &format!("{other} in RECOVERY_ADDITION")));
        }
    }
    let line = |item: &GoalItem| {
        let value = recovery::quote(item.value.as_deref()?);
        Some(format!("{} = {value}", item.name))
    };
    let mut lines: Vec<String> = items.iter().filter_map(line).collect();
    if !addition.is_empty() {
        lines.push(addition.to_owned());
    }
    Ok(lines.join("\n"))
}

fn twice(one: &str, other: &str) -> OpError {
    OpError::new(
        Kind::Configuration,
        format!("the end of the recovery is said twice: by {one} and by {other}"),
    )
    .hint("keep one of them")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(said: &'static str) -> GoalItem {
        GoalItem::new(said, "recovery_target_time", "2026-11-23 14:00:00+00")
    }

    #[test]
    fn what_is_said_becomes_lines_and_the_addition_stays() {
        let items = [
            time("--to-time"),
            GoalItem::new("--timeline", "recovery_target_timeline", "1"),
        ];
        assert_eq!(
            lines(&items, "primary_conninfo = 'host=p'").unwrap(),
            "recovery_target_time = '2026-11-23 14:00:00+00'\nrecovery_target_timeline = '1'\nprimary_conninfo = 'host=p'"
        );
        assert_eq!(lines(&[GoalItem::latest("--latest")], "").unwrap(), "");
        let name = [GoalItem::new("--to-name", "recovery_target_name", "it's")];
        assert_eq!(lines(&name, "").unwrap(), "recovery_target_name = 'it''s'");
    }

    #[test]
    fn a_target_that_is_said_twice_is_refused_by_both_names() {
        let xid = || GoalItem::new("WALE_RESTORE_TO_XID", "recovery_target_xid", "7");
        let cases = [
            (
                vec![time("--to-time")],
                "recovery_target_lsn = '0/5'",
                "recovery_target_lsn",
            ),
            (
                vec![GoalItem::latest("--latest")],
                "recovery_target_xid = '7'",
                "--latest",
            ),
            (
                vec![time("WALE_RESTORE_TO_TIME"), xid()],
                "",
                "WALE_RESTORE_TO_XID",
            ),
        ];
        for (items, addition, named) in cases {
            let error = lines(&items, addition).unwrap_err();
            assert_eq!(error.kind, Kind::Configuration);
            assert!(error.message.contains(named), "{error:?}");
        }
        // The command line comes before the settings, and an empty value is no target.
        let items = with_flags(vec![time("--to-time")], vec![xid()]);
        assert_eq!(items.len(), 1);
        assert!(lines(&items, "recovery_target_xid = ''").is_ok());
    }
}
