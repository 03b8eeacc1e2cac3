//! Programs of the server's that look at it, or at its files.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use tokio::process::Command;
use wale_pg::MajorVersion;

use super::output::{self, FIELD_END, Records};
use super::settings::PORT;

/// Where programs are found besides the server's own folder: `restore_command` runs `env` and perhaps more.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The first major versions that know a limit.
const IDLE_SESSION_TIMEOUT_SINCE: u32 = 14;
const TRANSACTION_TIMEOUT_SINCE: u32 = 17;

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit status.
    pub status: ExitStatus,
    /// The records that it printed, where it is `psql`.
    pub records: Records,
    /// The beginning of what it said: on standard error, and on standard output where that is no records.
    pub words: String,
}

/// The environment and the programs of a trial.
#[derive(Clone, Debug)]
pub struct Client {
    /// The folder of the programs.
    pub(super) folder: PathBuf,
    /// The home directory, where there is one.
    pub(super) home: Option<PathBuf>,
    /// The folder of the server's socket.
    pub(super) socket: PathBuf,
    /// The user that logs in.
    pub(super) user: String,
    /// The server's version.
    pub(super) major: MajorVersion,
}

impl Client {
    /// Programs of `folder`, for a server with its socket in `socket`.
    #[must_use]
    pub fn new(
        folder: &Path,
        home: Option<PathBuf>,
        socket: &Path,
        user: &str,
        major: MajorVersion,
    ) -> Self {
        Self {
            folder: folder.to_owned(),
            home,
            socket: socket.to_owned(),
            user: user.to_owned(),
            major,
        }
    }

    /// The same, with another user that logs in.
    #[must_use]
    pub fn with_user(&self, user: &str) -> Self {
        Self {
            user: user.to_owned(),
            ..self.clone()
        }
    }

    /// A program with nothing in its environment, in a group of processes of its own: an interrupt at the terminal is ours to
    /// handle.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.folder.join(program));
        let path = format!("{}:{SYSTEM_PATH}", self.folder.display());
        command.env_clear().env("PATH", path).current_dir("/");
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// The same, told where the server is.
    fn beside_server(&self, program: &str) -> Command {
        let mut command = self.command(program);
        let port = PORT.to_string();
        command.arg("-h").arg(&self.socket);
        command.args(["-p", &port, "-U", &self.user]);
        command.env("PGOPTIONS", session_options(self.major));
        command
    }

    /// Runs statements by `psql`, from a file or as they are given. The first that fails ends it, with a status that is not 0.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn psql(&self, database: &str, from: PsqlSource<'_>) -> io::Result<Ran> {
        let mut command = self.beside_server("psql");
        let field_end = char::from(FIELD_END).to_string();
        command.args(["-X", "-q", "-A", "-t", "-0", "-F", &field_end]);
        command.args(["-v", "ON_ERROR_STOP=1", "-d", database]);
        match from {
            PsqlSource::File(path) => command.arg("-f").arg(path),
            PsqlSource::Text(text) => command.args(["-c", text]),
        };
        let mut child = command.spawn()?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (out, err) = pipes(out, err)?;
        let (records, words) = tokio::join!(output::records(out), output::beginning(err));
        Ok(Ran {
            status: child.wait().await?,
            records,
            words,
        })
    }

    /// Runs `pg_amcheck` on every database: status 0 where nothing is wrong, 2 where something is, otherwise it could not look.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn amcheck(&self) -> io::Result<Ran> {
        let mut command = self.beside_server("pg_amcheck");
        command.arg("--all");
        plain(command).await
    }

    /// Runs `program` on the files of a stopped server.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub async fn checksums<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: &[S],
    ) -> io::Result<Ran> {
        let mut command = self.command(program);
        command.args(arguments);
        plain(command).await
    }
}

/// What a session of a program is told, in libpq's `PGOPTIONS`. It beats production's limits, wherever they stand: in a file, at a
/// role or at a database. A check that is cancelled by one of them would read as damage; a rehearsal has its own limit. Only what
/// every role may set.
fn session_options(major: MajorVersion) -> String {
    let all: [(u32, &str); 6] = [
        (0, "statement_timeout=0"),
        (0, "lock_timeout=0"),
        (0, "idle_in_transaction_session_timeout=0"),
        (0, "default_transaction_read_only=off"),
        (IDLE_SESSION_TIMEOUT_SINCE, "idle_session_timeout=0"),
        (TRANSACTION_TIMEOUT_SINCE, "transaction_timeout=0"),
    ];
    let known = all.into_iter().filter(|(since, _)| major.get() >= *since);
    let options: Vec<String> = known.map(|(_, setting)| format!("-c {setting}")).collect();
    options.join(" ")
}

/// Where `psql` takes its statements from.
#[derive(Clone, Copy, Debug)]
pub enum PsqlSource<'a> {
    /// A file.
    File(&'a Path),
    /// As they stand.
    Text(&'a str),
}

/// Runs a program whose output is words.
async fn plain(mut command: Command) -> io::Result<Ran> {
    let mut child = command.spawn()?;
    let (out, err) = pipes(child.stdout.take(), child.stderr.take())?;
    let (out, err) = tokio::join!(output::beginning(out), output::beginning(err));
    let words = [err, out].into_iter().filter(|words| !words.is_empty());
    Ok(Ran {
        status: child.wait().await?,
        records: Records::default(),
        words: words.collect::<Vec<_>>().join("\n"),
    })
}

fn pipes<O, E>(out: Option<O>, err: Option<E>) -> io::Result<(O, E)> {
    out.zip(err)
        .ok_or_else(|| io::Error::other("the program has no pipes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_taken_off_and_none_is_named_that_the_server_does_not_know() {
        for (major, transaction, session) in
            [(10, false, false), (14, false, true), (17, true, true)]
        {
            let options = session_options(MajorVersion::new(major).unwrap());
            assert!(options.starts_with("-c statement_timeout=0 -c lock_timeout=0 "));
            assert_eq!(options.contains("-c transaction_timeout=0"), transaction);
            assert_eq!(options.contains("-c idle_session_timeout=0"), session);
        }
    }
}
