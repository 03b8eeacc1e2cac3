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
        Self {
            kind: RecoveryTargetKind::Latest,
            inclusive: true,
            timeline: RecoveryTargetTimeline::Latest,
        }
    }
}

impl RecoveryTarget {
    /// The setting and its plain value that say where recovery ends; `None` for the end of the archive.
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
            RecoveryTargetTimeline::Current if major.has_recovery_signal() => {
                Some("current".to_owned())
            }
            RecoveryTargetTimeline::Current => None,
            RecoveryTargetTimeline::Id(timeline) => Some(timeline.to_string()),
        }
    }

    /// Whether recovery ends where the archive ends.
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
        settings.extend(
            self.timeline_setting(major)
                .map(|timeline| ("recovery_target_timeline", timeline)),
        );
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(target: &RecoveryTarget, major: u32) -> Vec<(&'static str, String)> {
        target.settings(MajorVersion::new(major).unwrap())
    }

    #[test]
    fn each_target_is_one_setting() {
        for (kind, expected, selective) in [
            (
                RecoveryTargetKind::Immediate,
                ("recovery_target", "immediate"),
                false,
            ),
            (
                RecoveryTargetKind::Time("2026-01-01 00:00+00".into()),
                ("recovery_target_time", "2026-01-01 00:00+00"),
                true,
            ),
            (
                RecoveryTargetKind::Xid(731),
                ("recovery_target_xid", "731"),
                true,
            ),
            (
                RecoveryTargetKind::Lsn(Lsn::new(0x200_0028)),
                ("recovery_target_lsn", "0/2000028"),
                true,
            ),
            (
                RecoveryTargetKind::Name("before".into()),
                ("recovery_target_name", "before"),
                false,
            ),
        ] {
            let target = RecoveryTarget {
                kind,
                inclusive: false,
                ..RecoveryTarget::default()
            };
            let mut all = vec![(expected.0, expected.1.to_owned())];
            if selective {
                all.push(("recovery_target_inclusive", "off".to_owned()));
            }
            all.push(("recovery_target_timeline", "latest".to_owned()));
            assert_eq!(settings(&target, 15), all);
            assert!(TARGET_SETTINGS.contains(&expected.0));
        }
        assert_eq!(RecoveryTarget::default().setting(), None);
        assert!(RecoveryTarget::default().is_latest());
    }

    #[test]
    fn the_timeline_is_named_where_the_version_has_a_word() {
        let with = |timeline| RecoveryTarget {
            timeline,
            ..RecoveryTarget::default()
        };
        let named = |value: &str| vec![("recovery_target_timeline", value.to_owned())];
        assert_eq!(
            settings(&with(RecoveryTargetTimeline::Latest), 10),
            named("latest")
        );
        assert_eq!(settings(&with(RecoveryTargetTimeline::Current), 11), []);
        assert_eq!(
            settings(&with(RecoveryTargetTimeline::Current), 12),
            named("current")
        );
        let tenth = RecoveryTargetTimeline::Id(TimelineId::new(10).unwrap());
        assert_eq!(settings(&with(tenth), 18), named("10"));
    }
}
