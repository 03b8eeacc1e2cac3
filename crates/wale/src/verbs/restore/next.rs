//! What is to be done after a restore: the commands, ready to be copied.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use wale_cluster::recovery::{SETTINGS_FILE, TIMESCALEDB_WORKERS, shell_word};
use wale_cluster::{Owner, read_bounded_text};
use wale_ops::backup_fetch::{RestoreAs, RestoreClusterOptions, RestorePlan, RestoreReport};
use wale_pg::{MajorVersion, RecoveryTargetKind};

use crate::cli::WalFrom;

/// A file of users has a line for each of them.
const USERS_MAX: u64 = 1 << 20;

/// What decides the steps.
pub(super) struct NextSteps {
    directory: PathBuf,
    port: Option<u16>,
    restore_as: RestoreAs,
    wal_from: WalFrom,
}

impl NextSteps {
    /// Of a restore with these options.
    pub(super) fn of(options: &RestoreClusterOptions, wal_from: WalFrom) -> Self {
        Self {
            directory: options.fetch.target.clone(),
            port: options.rehearsal.map(|rehearsal| rehearsal.port),
            restore_as: options.restore_as,
            wal_from,
        }
    }

    /// The steps, a comment or a command each.
    pub(super) fn lines(&self, plan: &RestorePlan, report: &RestoreReport) -> Vec<String> {
        let major = report.major;
        let data = shell_word(&self.directory.display().to_string());
        let log = shell_word(&self.directory.join("startup.log").display().to_string());
        let pg_ctl = program(major);
        let mut lines = Vec::new();
        if self.wal_from == WalFrom::Sidecar {
            lines.push(
                "# start the database on this directory (its container), or by hand:".to_owned(),
            );
        }
        if let Some(user) = other_user(&self.directory) {
            lines.push(format!("# as the user {user}:"));
        }
        lines.push(format!("{pg_ctl} -D {data} -l {log} -t 3600 start"));
        let look = "select pg_is_in_recovery(), pg_last_xact_replay_timestamp()";
        lines.push(self.psql(&[look]));
        if self.restore_as == RestoreAs::Standby {
            lines.push("# when it is to become the primary:".to_owned());
            lines.push(format!("{pg_ctl} -D {data} promote"));
        } else if pauses(plan) {
            lines.push("# when the data are what they should be:".to_owned());
            lines.push(self.psql(&["select pg_wal_replay_resume()"]));
        }
        if self.port.is_some() {
            lines.push("# when the copy is not needed any more:".to_owned());
            lines.push(format!("{pg_ctl} -D {data} -m fast stop"));
            let spaces = plan.files.tablespaces.iter();
            let spaces = spaces.filter(|space| !space.target.starts_with(&self.directory));
            let places: Vec<String> = std::iter::once(data.clone())
                .chain(spaces.map(|space| shell_word(&space.target.display().to_string())))
                .collect();
            lines.push(format!("# then remove {}", places.join(", ")));
        } else if self.wal_from == WalFrom::Archive && major.has_recovery_signal() {
            lines.push("# after the promotion, once:".to_owned());
            let steering = plan.recovery.steering.iter();
            let resets: Vec<String> = steering
                .map(|(name, _)| format!("alter system reset {name}"))
                .collect();
            let resets: Vec<&str> = resets.iter().map(String::as_str).collect();
            lines.push(self.psql(&resets));
            lines.push(self.without_keys());
        } else if self.wal_from == WalFrom::Archive {
            lines.push("# after the promotion, once:".to_owned());
            lines.push(self.without_keys());
        }
        if report.jobs_held && self.port.is_none() {
            lines.extend(self.releasing_jobs(&pg_ctl, &data));
        }
        lines
    }

    /// TimescaleDB's background jobs, which a restore to a moment holds.
    fn releasing_jobs(&self, pg_ctl: &str, data: &str) -> [String; 4] {
        [
            "# when the data are checked: which of TimescaleDB's jobs may run again? those that may not, first".to_owned(),
            self.psql(&["select job_id, proc_name, hypertable_name from timescaledb_information.jobs"]),
            self.psql(&[&format!("alter system reset {TIMESCALEDB_WORKERS}")]),
            format!("{pg_ctl} -D {data} -m fast restart"),
        ]
    }

    /// What the recovery needed of the archive's keys goes when it has ended.
    fn without_keys(&self) -> String {
        let file = self.directory.join(SETTINGS_FILE);
        format!("rm {}", shell_word(&file.display().to_string()))
    }

    fn psql(&self, statements: &[&str]) -> String {
        let mut line = "psql -d postgres".to_owned();
        if let Some(port) = self.port {
            let _ = write!(line, " -p {port}");
        }
        for statement in statements {
            let _ = write!(line, " -c '{statement}'");
        }
        line
    }
}

/// Whether the server waits at its target.
fn pauses(plan: &RestorePlan) -> bool {
    let action = plan.recovery.steering.iter();
    let mut action = action.filter(|(name, _)| name == "recovery_target_action");
    plan.target != RecoveryTargetKind::Latest
        && action.next().is_none_or(|(_, action)| action == "pause")
}

/// The program of that version, where Debian's packages have it.
fn program(major: MajorVersion) -> String {
    let path = format!("/usr/lib/postgresql/{major}/bin/pg_ctl");
    if Path::new(&path).exists() {
        path
    } else {
        "pg_ctl".to_owned()
    }
}

/// The user that the server must run as, where it is not this one.
fn other_user(directory: &Path) -> Option<String> {
    let owner = Owner::of(directory).ok()?;
    if owner.uid == Owner::of_process().uid {
        return None;
    }
    let users = read_bounded_text(Path::new("/etc/passwd"), USERS_MAX).unwrap_or_default();
    let uid = owner.uid.to_string();
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    Some(found.unwrap_or(uid))
}
