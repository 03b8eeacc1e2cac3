//! What a restored cluster becomes.

/// What a restored cluster becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecoveryMode {
    /// Replays the archive up to the target, or its end, then serves.
    #[default]
    Recover,
    /// Stays a standby that replays what comes into the archive.
    Standby,
    /// No recovery settings at all: the data as restored, for an expert's use.
    None,
}
