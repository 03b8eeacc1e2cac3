//! The server of a trial: started, waited for, stopped.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wale_pg::MajorVersion;

use super::command::Client;
use super::log::{self, Said, Tail};
use super::settings::{HBA, PORT, TrialPlaces, settings};
use crate::control::ConnectOptions;
use crate::durable;
use crate::error::ClusterError;

/// How long an orderly end may take: it writes a checkpoint of what is in `shared_buffers`. After it the server is told to end at
/// once.
const FAST_LIMIT: Duration = Duration::from_mins(10);
/// How long that may take. After it the server is killed.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(30);
/// How long the last words of a server that has ended are waited for: something that it started may still hold the pipe.
const WORDS_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that the path of a socket may have, with the zero after it (`sun_path` of unix(7)).
const SOCKET_PATH_MAX: usize = 108;

/// A server that was started. Dropping it kills it.
#[derive(Debug)]
pub struct TrialServer {
    child: Child,
    said: watch::Receiver<Said>,
    tail: Tail,
    reader: JoinHandle<()>,
    connect: ConnectOptions,
}

/// What came of a recovery.
#[derive(Debug)]
pub enum Recovered {
    /// The server takes writes.
    Ready {
        /// Where recovery stopped before the end of the log; `None` where it came to the end.
        stopped: Option<String>,
    },
    /// The server has ended.
    Ended {
        /// How.
        status: Option<ExitStatus>,
        /// Why, in its own words.
        reason: Option<String>,
    },
}

/// How a server is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// In order, so that its files are complete.
    Fast,
    /// At once: nobody reads its files.
    Immediate,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// In order: its files are complete.
    Clean,
    /// Otherwise.
    Killed,
}

impl TrialServer {
    /// Writes the server's own files beside its data directory and starts it.
    ///
    /// # Errors
    /// `Configuration` when the path of the socket is too long; when a file cannot be written, or the program not be run.
    pub fn start(
        client: &Client,
        places: &TrialPlaces,
        major: MajorVersion,
        shared_buffers: u64,
    ) -> Result<Self, ClusterError> {
        check_socket(&places.socket)?;
        for (path, text) in [(&places.hba, HBA), (&places.ident, "")] {
            durable::write_atomic(path, text.as_bytes(), 0o600, None)
                .map_err(ClusterError::io("write", path))?;
        }
        let mut command = client.command("postgres");
        command.arg("-D").arg(&places.data);
        for (name, value) in settings(major, places, shared_buffers) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.stdout(std::process::Stdio::null());
        let program = client.folder.join("postgres");
        let failed = |error: io::Error| ClusterError::io("run", &program)(error);
        let mut child = command.spawn().map_err(failed)?;
        let words = child.stderr.take();
        let words = words.ok_or_else(|| failed(io::Error::other("it has no pipe")))?;
        let (sender, said) = watch::channel(Said::default());
        let tail = Tail::default();
        let reader = tokio::spawn(log::read(words, sender, tail.clone()));
        let connect = ConnectOptions {
            host: places.socket.display().to_string(),
            port: PORT,
            user: client.user.clone(),
            application_name: "wale rehearse".to_owned(),
            ..ConnectOptions::default()
        };
        Ok(Self {
            child,
            said,
            tail,
            reader,
            connect,
        })
    }

    /// How `user` logs in to this database.
    #[must_use]
    pub fn connect(&self, database: &str, user: &str) -> ConnectOptions {
        ConnectOptions {
            user: user.to_owned(),
            ..self.connect.with_database(database)
        }
    }

    /// Waits until recovery is over, or the server has ended.
    pub async fn recovered(&mut self) -> Recovered {
        let ready = self.said.wait_for(|said| said.ready);
        let status = tokio::select! {
            said = ready => match said {
                Ok(said) => return Recovered::Ready { stopped: said.stopping.clone() },
                // It says no more.
                Err(_) => None,
            },
            status = self.child.wait() => status.ok(),
        };
        let status = match status {
            Some(status) => Some(status),
            None => self.child.wait().await.ok(),
        };
        let _ = tokio::time::timeout(WORDS_LIMIT, &mut self.reader).await;
        Recovered::Ended {
            status,
            reason: self.said.borrow().grave.clone(),
        }
    }

    /// The last lines that the server wrote.
    #[must_use]
    pub fn last_lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    /// Stops it and waits for its end.
    pub async fn stop(mut self, mode: StopMode) -> Stopped {
        // "Fast" and "immediate" of pg_ctl.
        let both = [(Signal::INT, FAST_LIMIT), (Signal::QUIT, IMMEDIATE_LIMIT)];
        let signals = match mode {
            StopMode::Fast => &both[..],
            StopMode::Immediate => &both[1..],
        };
        for (signal, limit) in signals {
            let Some(pid) = self.pid() else { break };
            // It may have ended just now.
            let _ = kill_process(pid, *signal);
            if let Ok(Ok(status)) = tokio::time::timeout(*limit, self.child.wait()).await {
                return if status.success() {
                    Stopped::Clean
                } else {
                    Stopped::Killed
                };
            }
        }
        let ended = self.child.try_wait();
        if let Ok(Some(status)) = ended
            && status.success()
        {
            return Stopped::Clean;
        }
        // Its children see that it is gone, and end.
        let _ = self.child.kill().await;
        Stopped::Killed
    }

    fn pid(&self) -> Option<Pid> {
        let id = i32::try_from(self.child.id()?).ok()?;
        Pid::from_raw(id)
    }
}

impl Drop for TrialServer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn check_socket(folder: &Path) -> Result<(), ClusterError> {
    let path = folder.join(format!(".s.PGSQL.{PORT}"));
    let length = path.as_os_str().len() + 1;
    if length <= SOCKET_PATH_MAX {
        return Ok(());
    }
    Err(ClusterError::Configuration {
        message: format!(
            "the path of the server's socket, {}, is too long",
            path.display()
        ),
        hint: Some(format!(
            "Name a folder whose path is shorter by {} bytes.",
            length - SOCKET_PATH_MAX
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_socket_has_a_bound() {
        let name = "/.s.PGSQL.5432";
        let fits = format!("/{}", "x".repeat(SOCKET_PATH_MAX - 2 - name.len()));
        assert!(check_socket(Path::new(&fits)).is_ok());
        let said = check_socket(Path::new(&format!("{fits}yy"))).unwrap_err();
        assert!(said.hint().unwrap().contains("2 bytes"), "{said:?}");
    }
}
