//! The settings of a primary that recovery enforces, as the control file and every WAL stream record them.

/// The settings of the primary that a standby or a recovery must reach, or recovery stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnforcedSettings {
    /// `max_connections`.
    pub max_connections: i32,
    /// `max_worker_processes`.
    pub max_worker_processes: i32,
    /// `max_wal_senders`, enforced and recorded from 12 on.
    pub max_wal_senders: Option<i32>,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: i32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: i32,
    /// `wal_level`, which must not be minimal.
    pub wal_level: WalLevel,
}

impl EnforcedSettings {
    /// The larger of each value; `wal_level` is the other's.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        Self {
            max_connections: self.max_connections.max(other.max_connections),
            max_worker_processes: self.max_worker_processes.max(other.max_worker_processes),
            max_wal_senders: self.max_wal_senders.max(other.max_wal_senders),
            max_prepared_transactions: self
                .max_prepared_transactions
                .max(other.max_prepared_transactions),
            max_locks_per_transaction: self
                .max_locks_per_transaction
                .max(other.max_locks_per_transaction),
            wal_level: other.wal_level,
        }
    }

    /// The numbers under the names that PostgreSQL's configuration knows them by.
    pub fn minimums(&self) -> impl Iterator<Item = (&'static str, i32)> {
        [
            ("max_connections", Some(self.max_connections)),
            ("max_worker_processes", Some(self.max_worker_processes)),
            ("max_wal_senders", self.max_wal_senders),
            (
                "max_prepared_transactions",
                Some(self.max_prepared_transactions),
            ),
            (
                "max_locks_per_transaction",
                Some(self.max_locks_per_transaction),
            ),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// `wal_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalLevel {
    /// Only what crash recovery needs: no archiving, no base backups.
    Minimal,
    /// Enough for archives and standbys.
    Replica,
    /// Also for logical decoding.
    Logical,
}

impl WalLevel {
    /// The value as configuration spells it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Replica => "replica",
            Self::Logical => "logical",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minimums_carry_the_names_of_settings() {
        let before_12 = EnforcedSettings {
            max_connections: 123,
            max_worker_processes: 17,
            max_wal_senders: None,
            max_prepared_transactions: 29,
            max_locks_per_transaction: 71,
            wal_level: WalLevel::Replica,
        };
        let expected = [
            ("max_connections", 123),
            ("max_worker_processes", 17),
            ("max_prepared_transactions", 29),
            ("max_locks_per_transaction", 71),
        ];
        assert_eq!(before_12.minimums().collect::<Vec<_>>(), expected);
        let from_12 = EnforcedSettings {
            max_wal_senders: Some(13),
            ..before_12
        };
        assert_eq!(from_12.minimums().count(), 5);
        assert!(
            from_12
                .minimums()
                .any(|minimum| minimum == ("max_wal_senders", 13))
        );
    }
}
