//! The one error of this room, and the one table that says what each kind of error means.
//!
//! A lower room's error is a situation; here it becomes three voices for the operator (message, detail, hint) and a
//! [`Kind`]. The kind decides everything else: exit status, HTTP status, whether a retry can help and how loudly it
//! is logged. Nobody else may map an error to a status.
//!
//! Invariants: no exit status is above 125, because PostgreSQL's archiver aborts on those and does not count the
//! failure; `Display` prints the message only, the chain is printed once, by the top.

use std::error::Error;
use std::fmt;

use wale_cluster::{ClusterError, Situation};
use wale_pipeline::Panicked;
use wale_storage::{Misconfiguration, StoreError};

use crate::remedy::Remedy;

/// What kind of failure it is, from the caller's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The archive does not have it, or the file to push does not exist.
    NotFound,
    /// The request makes no sense as it was given.
    Usage,
    /// A name is none of the forms that PostgreSQL archives.
    InvalidName,
    /// Stored or local bytes are damaged: wrong size, wrong header, broken checksum, a gap.
    CorruptData,
    /// The data belongs to another cluster, version or timeline than the archive.
    ArchiveMismatch,
    /// A bug in wale.
    Internal,
    /// It would overwrite, or contradict, what is already in the archive.
    ArchiveConflict,
    /// The target already holds something.
    NotEmpty,
    /// A local file or folder could not be read or written.
    LocalIo,
    /// The local disk or the store is full.
    DiskFull,
    /// The store cannot answer now.
    StorageUnavailable,
    /// The PostgreSQL server cannot answer now.
    PostgresUnavailable,
    /// Another operation of the same kind is running.
    Busy,
    /// wale is shutting down and starts nothing new.
    Draining,
    /// A local file or the store refuses access.
    PermissionDenied,
    /// A setting is wrong, or names something this version cannot do.
    Configuration,
    /// The operation was cancelled before its end.
    Cancelled,
}

/// Whether doing the same again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request will fail the same way.
    No,
    /// The same request may succeed later, without anybody's help.
    Yes,
    /// The same request may succeed after the operator repaired something.
    Operator,
}

/// How loudly a failure is logged where it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Normal in daily work.
    Info,
    /// Worth a look; an error once the retry budget is spent.
    Warn,
    /// Somebody must act.
    Error,
}

/// What a failure means to PostgreSQL's recovery, which ran the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InRecovery {
    /// The archive does not have the file. Recovery ends, and the server promotes.
    Absent,
    /// It is not known whether the archive has it. Recovery stops, with its files intact.
    Stop,
}

impl InRecovery {
    /// The exit status that says so: `PostgreSQL` takes 1 to 125 for absence (observed on 11 to 18). Above that,
    /// `wal-fetch` does not use what shells use (126, 127, 128 plus a signal).
    #[must_use]
    pub const fn of_wal_fetch(self) -> u8 {
        match self {
            Self::Absent => 1,
            Self::Stop => 250,
        }
    }

    /// The same where the sidecar is asked: by `wale client`, and by the line of shell that a restore writes. The two
    /// numbers mean the same, and both stay, because scripts test for them.
    #[must_use]
    pub const fn of_client(self) -> u8 {
        match self {
            Self::Absent => 1,
            Self::Stop => wale_cluster::recovery::STOP_STATUS,
        }
    }
}

/// One row of the error table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The kind that the row describes.
    pub kind: Kind,
    /// The stable name of the kind, as in metrics, JSON and the documentation.
    pub name: &'static str,
    /// Whether a retry helps.
    pub retry: Retry,
    /// The exit status as `wale`, from sysexits(3), never above 125.
    pub exit_status: u8,
    /// The exit status as `wal-e`: WAL-E knows a failure (1) and a bug (2).
    pub wal_e_status: u8,
    /// What it means where a recovery that is no standby's asked for WAL.
    pub in_recovery: InRecovery,
    /// The HTTP status.
    pub http_status: u16,
    /// The log level.
    pub level: Level,
}

#[rustfmt::skip]
#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
const fn row(
    kind: Kind, name: &'static str, retry: Retry, exit_status: u8, wal_e_status: u8, in_recovery: InRecovery,
    http_status: u16, level: Level,
) -> Row {
    Row { kind, name, retry, exit_status, wal_e_status, in_recovery, http_status, level }
}

/// The error table, in the order of [`Kind`]. The errors page is generated from it.
#[rustfmt::skip]
pub const TABLE: [Row; 17] = {
    use InRecovery::{Absent, Stop};
    use Level::{Error, Info, Warn};
    use Retry::{No, Operator, Yes};
    [
        //                                                             wale wal-e recovery http
        row(Kind::NotFound,            "not-found",            No,         1, 1, Absent, 404, Info),
        row(Kind::Usage,               "usage",                No,        64, 1, Stop,   400, Error),
        row(Kind::InvalidName,         "invalid-name",         No,        64, 1, Stop,   400, Error),
        row(Kind::CorruptData,         "corrupt-data",         No,        65, 1, Stop,   500, Error),
        row(Kind::ArchiveMismatch,     "archive-mismatch",     No,        65, 1, Stop,   409, Error),
        row(Kind::Internal,            "internal",             No,        70, 2, Stop,   500, Error),
        row(Kind::ArchiveConflict,     "archive-conflict",     No,        73, 1, Stop,   409, Error),
        row(Kind::NotEmpty,            "not-empty",            No,        73, 1, Stop,   409, Error),
        row(Kind::LocalIo,             "local-io",             Operator,  74, 1, Stop,   500, Error),
        row(Kind::DiskFull,            "disk-full",            Operator,  74, 1, Stop,   507, Error),
        row(Kind::StorageUnavailable,  "storage-unavailable",  Yes,       75, 1, Stop,   503, Warn),
        row(Kind::PostgresUnavailable, "postgres-unavailable", Yes,       75, 1, Stop,   503, Warn),
        row(Kind::Busy,                "busy",                 Yes,       75, 1, Stop,   503, Warn),
        row(Kind::Draining,            "draining",             Yes,       75, 1, Stop,   503, Warn),
        row(Kind::PermissionDenied,    "permission-denied",    Operator,  77, 1, Stop,   500, Error),
        row(Kind::Configuration,       "configuration",        Operator,  78, 1, Stop,   500, Error),
        row(Kind::Cancelled,           "cancelled",            Yes,       75, 1, Stop,   503, Warn),
    ]
};

impl Kind {
    /// The row of this kind in [`TABLE`].
    #[must_use]
    pub const fn row(self) -> &'static Row {
        // The order of the table is the order of the enum; a test holds it.
        &TABLE[self as usize]
    }

    /// The exit status of a command that fails with this kind, 1 to 125.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        self.row().exit_status
    }

    /// The exit status of the same command that was called as `wal-e`.
    #[must_use]
    pub const fn wal_e_status(self) -> u8 {
        self.row().wal_e_status
    }

    /// What it means where a recovery that is no standby's asked for WAL.
    #[must_use]
    pub const fn in_recovery(self) -> InRecovery {
        self.row().in_recovery
    }

    /// The HTTP status of a reply that reports this kind.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        self.row().http_status
    }

    /// The kind behind the HTTP status of a reply, as far as it is known; several kinds share one.
    #[must_use]
    pub const fn of_http_status(status: u16) -> Self {
        match status {
            400 => Self::InvalidName,
            // No kind's status: the endpoint refuses by it who shows no token, or comes under a strange name.
            401 | 403 => Self::PermissionDenied,
            404 => Self::NotFound,
            409 => Self::ArchiveConflict,
            500 => Self::CorruptData,
            507 => Self::DiskFull,
            _ => Self::StorageUnavailable,
        }
    }

    /// The stable name, in lower case with hyphens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether the same request may succeed later without anybody's help.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self.row().retry, Retry::Yes)
    }

    /// How loudly to log it.
    #[must_use]
    pub const fn level(self) -> Level {
        self.row().level
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a base backup was not taken although nothing failed on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// The archive has this very backup.
    Exists,
    /// Another sidecar or command writes one now.
    Elsewhere,
    /// A backup has begun since the slot of the schedule came.
    Served,
    /// Scheduled backups are not taken of a server in this role.
    Role,
    /// The server recovers, and is no standby.
    Recovering,
    /// Nothing listens where the server should be, or it is not up yet.
    ServerDown,
    /// The WAL and the timelines that the archives show together lead to no such restore. One of them alone, which lags, knows
    /// no better.
    Unreachable,
}

impl Declined {
    /// The name in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exists => "exists",
            Self::Elsewhere => "elsewhere",
            Self::Served => "served",
            Self::Role => "role",
            Self::Recovering => "recovering",
            Self::ServerDown => "server-down",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A failed operation, in the three voices of PostgreSQL's own messages.
#[derive(Debug)]
pub struct OpError {
    /// What kind of failure it is; decides statuses and level.
    pub kind: Kind,
    /// Lower case, one line, no full stop, names the object.
    pub message: String,
    /// Facts, as a sentence.
    pub detail: Option<String>,
    /// What to do, in the imperative, without the name of any setting.
    pub hint: Option<String>,
    /// What is to be changed for that; the top puts it into words after the hint. Boxed: few errors have one.
    pub remedy: Option<Box<Remedy>>,
    /// Set where a base backup was not taken and that is no failure of this node.
    pub declined: Option<Declined>,
    /// The lower room's error.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl From<Panicked> for OpError {
    fn from(error: Panicked) -> Self {
        Self::internal("a thread that reads or writes panicked").source(error)
    }
}

/// The result of an operation.
pub type Result<T, E = OpError> = std::result::Result<T, E>;

impl OpError {
    /// An error of `kind` with its message.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            detail: None,
            hint: None,
            remedy: None,
            declined: None,
            source: None,
        }
    }

    /// Adds the facts.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what is to be changed.
    #[must_use]
    pub fn remedy(mut self, remedy: Remedy) -> Self {
        self.remedy = Some(Box::new(remedy));
        self
    }

    /// Says that no base backup was taken, and that nothing failed on this node.
    #[must_use]
    pub fn declined(mut self, reason: Declined) -> Self {
        self.declined = Some(reason);
        self
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The error of work that was told to stop.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled")
    }

    /// A bug: something that cannot happen did.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
            .hint("report this as a bug of wale, with the log around it")
    }

    /// The message followed by the messages of all causes, separated by `: `. For the top, which prints it once.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|e| e as &dyn Error);
        while let Some(error) = cause {
            let line = error.to_string();
            // Some libraries repeat their cause in their own text: once is enough.
            if !text.ends_with(&line) {
                text.push_str(": ");
                text.push_str(&line);
            }
            cause = error.source();
        }
        text
    }

    /// The same error once more, for several callers that share one result. The causes survive as text only, since
    /// boxed errors cannot be cloned.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let causes = self.chain();
        let causes = causes
            .strip_prefix(&self.message)
            .unwrap_or_default()
            .trim_start_matches(": ");
        Self {
            kind: self.kind,
            message: self.message.clone(),
            detail: self.detail.clone(),
            hint: self.hint.clone(),
            remedy: self.remedy.clone(),
            declined: self.declined,
            source: (!causes.is_empty()).then(|| causes.to_owned().into()),
        }
    }

    /// The error for a failure of the store while doing `what` (for example `read wal_005/….zst`).
    #[must_use]
    pub fn from_store(error: StoreError, what: impl fmt::Display) -> Self {
        let kind = store_kind(&error);
        let hint = match kind {
            Kind::StorageUnavailable => {
                Some("check that the store can be reached; the request may be repeated")
            }
            Kind::DiskFull => Some("free space in the store, then repeat the request"),
            Kind::PermissionDenied => {
                Some("check the credentials or the owner and mode of the archive")
            }
            Kind::CorruptData => {
                Some("check the store's medium; take a new base backup if the object is lost")
            }
            _ => None,
        };
        let hint = error.hint().or(hint);
        let remedy = store_remedy(&error);
        let mut result = Self::new(kind, format!("could not {what}")).source(error);
        result.hint = hint.map(str::to_owned);
        result.remedy = remedy.map(Box::new);
        result
    }

    /// The error for a failure of the cluster's files or server while doing `what`.
    #[must_use]
    pub fn from_cluster(error: ClusterError, what: impl fmt::Display) -> Self {
        let mut result = Self::new(cluster_kind(&error), format!("could not {what}"));
        result.hint = error.hint();
        match &error {
            // The system's words are the cause, which is reported already.
            ClusterError::Io { source, .. } => {
                result.hint = result.hint.or(io_hint(source).map(str::to_owned));
            }
            _ => result.detail = error.detail(),
        }
        result.source(error)
    }

    /// The error for a failed local file operation while doing `what`.
    #[must_use]
    pub fn from_io(error: std::io::Error, what: impl fmt::Display) -> Self {
        let mut result = Self::new(io_kind(&error), format!("could not {what}"));
        result.hint = io_hint(&error).map(str::to_owned);
        result.source(error)
    }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for OpError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn Error + 'static))
    }
}

/// What is to be changed where the store cannot be used as it is configured.
fn store_remedy(error: &StoreError) -> Option<Remedy> {
    match error {
        StoreError::Misconfigured { problem, .. } => match problem {
            Misconfiguration::UnknownChecksum => Some(Remedy::StoreChecksum),
            Misconfiguration::OtherNames => Some(Remedy::StoreNames),
            _ => None,
        },
        _ => None,
    }
}

/// What to do about a failed local file operation, where its own words do not say it.
fn io_hint(error: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::PermissionDenied => Some(
            "check its owner and mode, and those of the folders above: the user that wale runs as needs access",
        ),
        E::ReadOnlyFilesystem => Some("mount the file system so that wale may write there"),
        E::StorageFull | E::QuotaExceeded => Some("free space there, then try again"),
        _ => None,
    }
}

/// The kind of a failed local file operation. A missing file is [`Kind::LocalIo`] here: `NotFound` means "not in the
/// archive", and a missing folder must never be taken for that.
#[must_use]
pub fn io_kind(error: &std::io::Error) -> Kind {
    use std::io::ErrorKind as E;
    match error.kind() {
        E::PermissionDenied | E::ReadOnlyFilesystem => Kind::PermissionDenied,
        E::StorageFull | E::QuotaExceeded | E::FileTooLarge => Kind::DiskFull,
        _ => Kind::LocalIo,
    }
}

/// The kind of a failure of the store.
#[must_use]
pub fn store_kind(error: &StoreError) -> Kind {
    match error {
        StoreError::NotFound { .. } => Kind::NotFound,
        StoreError::Full { .. } => Kind::DiskFull,
        StoreError::PermissionDenied { .. } | StoreError::Retained { .. } => Kind::PermissionDenied,
        StoreError::Misconfigured { .. } => Kind::Configuration,
        StoreError::Damaged { .. } => Kind::CorruptData,
        StoreError::Unavailable { .. } => Kind::StorageUnavailable,
        StoreError::InvalidKey { .. } => Kind::Internal,
        other if other.is_transient() => Kind::StorageUnavailable,
        _ => Kind::LocalIo,
    }
}

/// The kind of a failure of the cluster's files or server. A missing file is [`Kind::LocalIo`], as in [`io_kind`];
/// `wal-push`, whose caller named the file, says `NotFound` itself.
#[must_use]
fn cluster_kind(error: &ClusterError) -> Kind {
    match error.situation() {
        Situation::NotFound | Situation::LocalIo => Kind::LocalIo,
        Situation::DiskFull => Kind::DiskFull,
        Situation::PermissionDenied => Kind::PermissionDenied,
        Situation::CorruptData => Kind::CorruptData,
        Situation::Configuration => Kind::Configuration,
        Situation::PostgresUnavailable | Situation::ServerError => Kind::PostgresUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;

    #[test]
    fn a_file_without_permission_has_an_object_a_remedy_and_its_cause_once() {
        let denied = || std::io::Error::from_raw_os_error(13);
        let cluster = ClusterError::Io {
            action: "write",
            path: "/x".into(),
            source: denied(),
        };
        for error in [
            OpError::from_io(denied(), "open \"x\""),
            OpError::from_cluster(cluster, "write /x"),
        ] {
            assert_eq!(error.kind, Kind::PermissionDenied);
            assert_eq!(error.chain().matches("Permission denied").count(), 1);
            assert_eq!(error.detail, None);
            assert!(
                error
                    .hint
                    .is_some_and(|hint| hint.contains("owner and mode"))
            );
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_kinds_and_holds_the_promises() {
        let golden = "\
not-found 1 1 1 1 404 No
usage 64 1 250 255 400 No
invalid-name 64 1 250 255 400 No
corrupt-data 65 1 250 255 500 No
archive-mismatch 65 1 250 255 409 No
internal 70 2 250 255 500 No
archive-conflict 73 1 250 255 409 No
not-empty 73 1 250 255 409 No
local-io 74 1 250 255 500 Operator
disk-full 74 1 250 255 507 Operator
storage-unavailable 75 1 250 255 503 Yes
postgres-unavailable 75 1 250 255 503 Yes
busy 75 1 250 255 503 Yes
draining 75 1 250 255 503 Yes
permission-denied 77 1 250 255 500 Operator
configuration 78 1 250 255 500 Operator
cancelled 75 1 250 255 503 Yes
";
        let mut shown = String::new();
        for (position, row) in TABLE.iter().enumerate() {
            assert_eq!(row.kind as usize, position, "{}", row.name);
            assert_eq!(row.kind.name(), row.name);
            assert!((1..=125).contains(&row.exit_status), "{}", row.name);
            assert!((400..600).contains(&row.http_status), "{}", row.name);
            assert_eq!(row.kind.retryable(), row.http_status == 503, "{}", row.name);
            let (fetch, client) = (row.in_recovery.of_wal_fetch(), row.in_recovery.of_client());
            assert!(fetch == client || (fetch > 125 && client > 125));
            let (name, own, of_wal_e) = (row.name, row.exit_status, row.wal_e_status);
            let (http, retry) = (row.http_status, row.retry);
            writeln!(
                shown,
                "{name} {own} {of_wal_e} {fetch} {client} {http} {retry:?}"
            )
            .expect("written");
            let told = Kind::of_http_status(http);
            assert_eq!(told.http_status(), http, "{name}");
            assert_eq!(
                told == Kind::NotFound,
                row.kind == Kind::NotFound,
                "{name}: nothing else says that the archive does not have it"
            );
        }
        assert_eq!(shown, golden);
    }

    #[test]
    fn the_three_voices_stay_apart_and_the_chain_is_printed_once() {
        let io = std::io::Error::other("no such device");
        let error = OpError::from_io(io, "read wal_005/x")
            .detail("It is gone.")
            .hint("look for it");
        assert_eq!(error.to_string(), "could not read wal_005/x");
        assert_eq!(error.chain(), "could not read wal_005/x: no such device");
        let copy = error.duplicate();
        assert_eq!(copy.chain(), error.chain());
        assert_eq!(
            (copy.kind, copy.detail, copy.hint),
            (error.kind, error.detail, error.hint)
        );
    }

    #[test]
    fn a_missing_local_file_is_never_absence_from_the_archive() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        assert_eq!(io_kind(&missing()), Kind::LocalIo);
        let error = ClusterError::Io {
            action: "open",
            path: "/x".into(),
            source: missing(),
        };
        assert_eq!(cluster_kind(&error), Kind::LocalIo);
        assert_eq!(
            io_kind(&std::io::Error::from(std::io::ErrorKind::StorageFull)),
            Kind::DiskFull
        );
    }
}
