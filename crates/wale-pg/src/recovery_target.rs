//! How far a recovery goes, and along which timeline.
//!
//! Names of settings are those of all versions from 10 on: up to 11 in `recovery.conf`, later in the configuration.

use crate::lsn::Lsn;
use crate::major_version::MajorVersion;
use crate::timeline::TimelineId;

/// The settings of which at most one may have a value; from 12 on a server refuses to start with two.
pub const TARGET_SETTINGS: [&str; 5] = [
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
];

/// Where a recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryTargetKind {
    /// At the end of the archive.
    Latest,
    /// As soon as the data is consistent: at the end of the base backup.
    Immediate,
    /// At a time, in any form PostgreSQL reads; without a zone it is the server's.
    Time(String),
    /// At the end of a transaction.
    Xid(u64),
    /// At a position.
    Lsn(Lsn),
    /// At a point that `pg_create_restore_point` named.
    Name(String),
}

/// The timeline a recovery follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryTargetTimeline {
    /// The youngest that grew out of the backup's, as far as the archive knows.
    #[default]
    Latest,
    /// The backup's own.
    Current,
    /// A certain one.
    Id(TimelineId),
}

/// Where a recovery ends, and on the way of which timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryTarget {
    /// Where it ends.
    pub kind: RecoveryTargetKind,
    /// Whether what happened at the target itself is still recovered. It means something for time, transaction and
    /// position only.
    pub inclusive: bool,
    /// The timeline.
    pub timeline: RecoveryTargetTimeline,
}

impl Default for RecoveryTarget {
    fn default() -> Self {
        Self { kind: RecoveryTargetKind::Latest, inclusive: true, timeline: RecoveryTargetTimeline::Latest }
    }
}

impl RecoveryTarget {
    /// The setting and the plain value that say where recovery ends; `None` for the end of the archive.
    pub fn setting(&self) -> Option<(&'static str, String)> {
        match &self.kind {
            RecoveryTargetKind::Latest => None,
            RecoveryTargetKind::Immediate => Some(("recovery_target", "immediate".to_owned())),
            RecoveryTargetKind::Time(time) => Some(("recovery_target_time", time.clone())),
            RecoveryTargetKind::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
            RecoveryTargetKind::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
            RecoveryTargetKind::Name(name) => Some(("recovery_target_name", name.clone())),
        }
    }

    /// The value of `recovery_target_timeline`; `None` where it must be left unset: up to 11 no word means the
    /// backup's own timeline, and it is the default.
    pub fn timeline_setting(&self, major: MajorVersion) -> Option<String> {
        match self.timeline {
            RecoveryTargetTimeline::Latest => Some("latest".to_owned()),
            RecoveryTargetTimeline::Current if major.has_recovery_signal() => Some("current".to_owned()),
            RecoveryTargetTimeline::Current => None,
            RecoveryTargetTimeline::Id(timeline) => Some(timeline.to_string()),
        }
    }

    /// Whether it can be named beforehand which part of the log recovery will read: everything.
    pub const fn is_latest(&self) -> bool {
        matches!(self.kind, RecoveryTargetKind::Latest)
    }

    /// Every setting of the target with its plain value, not yet quoted for a configuration file.
    pub fn settings(&self, major: MajorVersion) -> Vec<(&'static str, String)> {
        let mut settings: Vec<(&'static str, String)> = Vec::new();
        let selective = matches!(
            self.kind,
            RecoveryTargetKind::Time(_) | RecoveryTargetKind::Xid(_) | RecoveryTargetKind::Lsn(_)
        );
        settings.extend(self.setting());
        if selective {
            let inclusive = if self.inclusive { "on" } else { "off" };
            settings.push(("recovery_target_inclusive", inclusive.to_owned()));
        }
        settings.extend(self.timeline_setting(major).map(|timeline| ("recovery_target_timeline", timeline)));
        settings
    }
}
