//! The names of recovery settings, and which major versions know them.
//!
//! Follows the documentation's chapters "Recovery Configuration" (10, 11) and "Archive Recovery", "Recovery
//! Target", "Standby Servers" (12 and later).

use wale_pg::MajorVersion;

/// How the values of a setting look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Boolean,
    /// A time, or with a unit a duration; left to PostgreSQL.
    Delay,
    Immediate,
    TargetTime,
    TransactionId,
    Position,
    Timeline,
    Action,
}

/// One recovery setting.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    /// First and last major version that know it as a recovery setting.
    versions: (u32, u32),
}

const ALWAYS: (u32, u32) = (10, u32::MAX);

/// All of them.
const KNOWN: [Known; 18] = [
    known("restore_command", Shape::Text, ALWAYS),
    known("archive_cleanup_command", Shape::Text, ALWAYS),
    known("recovery_end_command", Shape::Text, ALWAYS),
    known("recovery_target", Shape::Immediate, ALWAYS),
    known("recovery_target_name", Shape::Text, ALWAYS),
    known("recovery_target_time", Shape::TargetTime, ALWAYS),
    known("recovery_target_xid", Shape::TransactionId, ALWAYS),
    known("recovery_target_lsn", Shape::Position, ALWAYS),
    known("recovery_target_inclusive", Shape::Boolean, ALWAYS),
    known("recovery_target_timeline", Shape::Timeline, ALWAYS),
    known("recovery_target_action", Shape::Action, ALWAYS),
    known("recovery_min_apply_delay", Shape::Delay, ALWAYS),
    known("primary_conninfo", Shape::Text, ALWAYS),
    known("primary_slot_name", Shape::Text, ALWAYS),
    known("standby_mode", Shape::Boolean, (10, 11)),
    known("trigger_file", Shape::Text, (10, 11)),
    known("promote_trigger_file", Shape::Text, (12, 15)),
    known("recovery_prefetch", Shape::Text, (15, u32::MAX)),
];

const fn known(name: &'static str, shape: Shape, versions: (u32, u32)) -> Known {
    Known {
        name,
        shape,
        versions,
    }
}

impl Known {
    /// Whether this major version knows it.
    pub(super) fn is_in(&self, major: MajorVersion) -> bool {
        (self.versions.0..=self.versions.1).contains(&major.get())
    }
}

/// Finds a setting by name, as PostgreSQL does without regard to case.
pub(super) fn find(name: &str) -> Option<&'static Known> {
    KNOWN
        .iter()
        .find(|known| known.name.eq_ignore_ascii_case(name))
}

/// The names that this major version knows.
pub(super) fn all(major: MajorVersion) -> impl Iterator<Item = &'static str> {
    KNOWN
        .iter()
        .filter(move |known| known.is_in(major))
        .map(|known| known.name)
}

#[cfg(test)]
mod tests {
    use wale_pg::TARGET_SETTINGS;

    use super::*;

    #[test]
    fn names_have_no_case_and_belong_to_versions() {
        let major = |number| MajorVersion::new(number).unwrap();
        assert!(find("Recovery_Target_XID").unwrap().is_in(major(10)));
        assert!(find("recovery_init_sync_method").is_none());
        let standby_mode = find("standby_mode").unwrap();
        assert!(standby_mode.is_in(major(11)) && !standby_mode.is_in(major(12)));
        let prefetch = find("recovery_prefetch").unwrap();
        assert!(prefetch.is_in(major(15)) && !prefetch.is_in(major(14)));
        let trigger = find("promote_trigger_file").unwrap();
        assert!(trigger.is_in(major(15)) && !trigger.is_in(major(16)));
        for name in TARGET_SETTINGS {
            assert!(all(major(18)).any(|known| known == name));
        }
    }
}
