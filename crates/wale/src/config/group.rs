//! The groups of settings.

/// The heading under which a setting is listed, and the unit in which mistakes are held against a
/// verb: a verb fails on a mistake only in a group that it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// Where the archive is and how it is written.
    Archive,
    /// An archive in S3.
    S3,
    /// An archive in Google Cloud Storage.
    Gcs,
    /// An archive in Azure Blob Storage.
    Azure,
    /// An archive in OpenStack Swift.
    Swift,
    /// Proxies, for every store behind HTTP.
    Proxies,
    /// The data directory and the WAL directory.
    Cluster,
    /// The control connection, libpq's variables.
    Server,
    /// The name, address and token under which the sidecar is reached.
    Endpoint,
    /// The sidecar: mode, schedule, lock, shutdown.
    Sidecar,
    /// Archiving and fetching of WAL.
    Wal,
    /// Base backups.
    Backup,
    /// What is kept, and what may be deleted.
    Retention,
    /// Further archives: what is said of them together, and every mistake in their own settings.
    Several,
    /// Restores and the recovery settings that they write.
    Restore,
    /// The program itself: log and configuration file.
    Program,
}

impl Group {
    /// Every group, in the order of the reference page.
    pub(crate) const ALL: [Group; 16] = [
        Group::Archive,
        Group::S3,
        Group::Gcs,
        Group::Azure,
        Group::Swift,
        Group::Proxies,
        Group::Cluster,
        Group::Server,
        Group::Endpoint,
        Group::Sidecar,
        Group::Wal,
        Group::Backup,
        Group::Retention,
        Group::Several,
        Group::Restore,
        Group::Program,
    ];

    /// The heading.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Group::Archive => "Archive",
            Group::S3 => "Archive in S3",
            Group::Gcs => "Archive in Google Cloud Storage",
            Group::Swift => "Archive in Swift",
            Group::Azure => "Archive in Azure",
            Group::Proxies => "Proxies",
            Group::Cluster => "Database cluster",
            Group::Server => "Connection to the server",
            Group::Endpoint => "Endpoint",
            Group::Sidecar => "Sidecar",
            Group::Wal => "WAL",
            Group::Backup => "Base backups",
            Group::Retention => "Retention",
            Group::Several => "Several archives",
            Group::Restore => "Restore",
            Group::Program => "Program",
        }
    }

    /// Whether its settings belong to some kinds of store. They are read only when the archive is in such a store, and
    /// count as the archive's.
    pub(crate) const fn is_of_a_store(self) -> bool {
        matches!(
            self,
            Group::S3 | Group::Gcs | Group::Azure | Group::Swift | Group::Proxies
        )
    }
}
