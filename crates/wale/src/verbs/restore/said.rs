//! Where a recovery ends, as flags say it.

use crate::config::TargetAction;
use crate::goal::GoalItem;

/// What flags say of the end of a recovery.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::verbs) struct Said<'a> {
    /// `--to-time`
    pub(in crate::verbs) time: Option<&'a str>,
    /// `--to-lsn`
    pub(in crate::verbs) lsn: Option<&'a str>,
    /// `--to-name`
    pub(in crate::verbs) name: Option<&'a str>,
    /// `--to-xid`
    pub(in crate::verbs) xid: Option<&'a str>,
    /// `--timeline`
    pub(in crate::verbs) timeline: Option<&'a str>,
    /// `--immediate`
    pub(in crate::verbs) immediate: bool,
    /// `--latest`
    pub(in crate::verbs) latest: bool,
    /// `--exclusive`
    pub(in crate::verbs) exclusive: bool,
    /// `--action`
    pub(in crate::verbs) action: Option<TargetAction>,
}

impl Said<'_> {
    /// The same as PostgreSQL's settings.
    pub(in crate::verbs) fn items(self) -> Vec<GoalItem> {
        let mut said = Vec::new();
        for (flag, name, value) in [
            ("--to-time", "recovery_target_time", self.time),
            ("--to-lsn", "recovery_target_lsn", self.lsn),
            ("--to-name", "recovery_target_name", self.name),
            ("--to-xid", "recovery_target_xid", self.xid),
            ("--timeline", "recovery_target_timeline", self.timeline),
        ] {
            if let Some(value) = value {
                said.push(GoalItem::new(flag, name, value));
            }
        }
        if self.immediate {
            said.push(GoalItem::new("--immediate", "recovery_target", "immediate"));
        }
        if self.latest {
            said.push(GoalItem::latest("--latest"));
        }
        if self.exclusive {
            said.push(GoalItem::new(
                "--exclusive",
                "recovery_target_inclusive",
                "off",
            ));
        }
        if let Some(action) = self.action {
            said.push(GoalItem::new(
                "--action",
                "recovery_target_action",
                action.name(),
            ));
        }
        said
    }
}
