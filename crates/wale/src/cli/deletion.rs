//! The verbs that decide what stays in the archive: `delete`, `retain`, `backup-mark`.

use clap::{Args, Subcommand};

/// `delete`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    pub(crate) act: Deletion,
    #[command(subcommand)]
    pub(crate) what: DeleteWhat,
}

/// Whether something is really deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub(crate) struct Deletion {
    /// Only report what would be deleted, which is the default
    #[arg(short = 'n', long, global = true)]
    pub(crate) dry_run: bool,
    /// Delete
    #[arg(long, global = true)]
    pub(crate) confirm: bool,
    /// Print what becomes of every object, and why, as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl DeleteWhat {
    /// The same in words, as it was typed.
    pub(crate) fn words(&self) -> Vec<String> {
        let words: &[&str] = match self {
            Self::Before { bound } => &["before", bound],
            Self::Retain { count } => &["retain", &count.to_string()],
            Self::Target { name } => &["target", name],
            Self::Everything => &["everything"],
            Self::OldVersions => &["old-versions"],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }
}

impl Deletion {
    /// Whether nothing is deleted: without `--confirm`, and with `--dry-run` in any case.
    pub(crate) const fn is_dry_run(self) -> bool {
        self.dry_run || !self.confirm
    }
}

/// What `delete` deletes.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum DeleteWhat {
    /// Base backups and WAL before a base backup or a WAL segment
    Before {
        /// The full name of a base backup, or of a WAL segment; it stays
        #[arg(value_name = "BEFORE_SEGMENT_EXCLUSIVE")]
        bound: String,
    },
    /// All but the newest base backups, and the WAL that they do not need
    Retain {
        /// How many base backups stay
        #[arg(value_name = "NUM_TO_RETAIN", allow_negative_numbers = true)]
        count: i64,
    },
    /// One base backup, and the WAL that no other one needs
    Target {
        /// A name that backup-list prints, or LATEST
        #[arg(value_name = "BACKUP_NAME")]
        name: String,
    },
    /// All base backups and all WAL
    Everything,
    /// What versions of WAL-E before the layout 005 stored
    OldVersions,
}

/// `retain`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Retain {
    #[command(flatten)]
    pub(crate) act: Deletion,
}

/// `backup-mark`
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct BackupMark {
    /// A name that backup-list prints, or LATEST
    #[arg(value_name = "BACKUP_NAME")]
    pub(crate) name: String,
    /// Take the mark away
    #[arg(short = 'i', long)]
    pub(crate) impermanent: bool,
}
