//! The files by which a server is told to recover, and how.

/// The configuration file that `ALTER SYSTEM` writes; it is read last.
pub(super) const AUTO_CONF: &str = "postgresql.auto.conf";
/// The settings of a recovery, up to PostgreSQL 11.
pub(super) const RECOVERY_CONF: &str = "recovery.conf";
/// What PostgreSQL 10 and 11 make of it at the end of the recovery.
pub(super) const RECOVERY_DONE: &str = "recovery.done";
/// Asks for a recovery that ends, from PostgreSQL 12 on.
pub(super) const RECOVERY_SIGNAL: &str = "recovery.signal";
/// Asks for a standby, from PostgreSQL 12 on.
pub(super) const STANDBY_SIGNAL: &str = "standby.signal";

/// The mode of a file that holds a secret.
pub(super) const FILE_MODE: u32 = 0o600;
