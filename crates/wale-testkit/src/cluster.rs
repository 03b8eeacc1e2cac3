//! A throwaway PostgreSQL cluster.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::sandbox::{as_postgres, run_as_postgres};
use crate::template::new_cluster;
use crate::{Sandbox, Server, client_tool, free_port, server, wait_until};

/// How a cluster is made. `Default` is PostgreSQL 15 without archiving.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// Major version.
    pub major: u32,
    /// The name of the folders in the sandbox.
    pub name: String,
    /// Page checksums on.
    pub checksums: bool,
    /// WAL segment size in MiB (PostgreSQL 11 and later; 10 has 16).
    pub segment_mib: u32,
    /// `pg_wal` in a folder of its own, reached by a symbolic link.
    pub separate_wal: bool,
    /// Lines added to `postgresql.conf`.
    pub configuration: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            major: 15,
            name: "pg".into(),
            checksums: true,
            segment_mib: 16,
            separate_wal: false,
            configuration: Vec::new(),
        }
    }
}

/// A cluster in a sandbox. Dropping it kills the server.
#[derive(Debug)]
pub struct Cluster {
    /// The server's programs.
    pub server: Server,
    /// `PGDATA`.
    pub data: PathBuf,
    /// The WAL directory as the file system has it (`pg_wal`, or where its link points).
    pub wal: PathBuf,
    /// The folder of the socket.
    pub socket: PathBuf,
    /// The port: of the socket's name and on loopback.
    pub port: u16,
    /// A folder put before the server's `PATH`, for its `restore_command` and `archive_command`.
    pub path_prefix: Option<PathBuf>,
    log: PathBuf,
}

impl Cluster {
    /// `initdb` and a configuration for tests: loopback and socket, trust, no archiving unless
    /// `configuration` says so.
    ///
    /// # Panics
    /// When `initdb` fails.
    #[must_use]
    pub fn init(sandbox: &Sandbox, options: &ClusterOptions) -> Self {
        let mut cluster = Self::at(sandbox, options.major, &options.name, free_port());
        let mut arguments = vec!["-U", "postgres", "-A", "trust", "-E", "UTF8"];
        arguments.extend(["--locale=C", "-N"]);
        if options.checksums {
            arguments.push("-k");
        } else if options.major >= 18 {
            arguments.push("--no-data-checksums");
        }
        let segment = format!("--wal-segsize={}", options.segment_mib);
        if options.major >= 11 && options.segment_mib != 16 {
            arguments.push(&segment);
        }
        new_cluster(&cluster.server, &arguments, &cluster.data);
        cluster.configure(&options.configuration);
        if options.separate_wal {
            // As `initdb --waldir` does.
            let wal = sandbox.path().join(format!("{}-wal", options.name));
            std::fs::rename(&cluster.wal, &wal).expect("the WAL directory");
            run_as_postgres(
                Path::new("ln"),
                &["-s", &wal.to_string_lossy(), &cluster.wal.to_string_lossy()],
            );
            cluster.wal = wal;
        }
        cluster
    }

    /// A cluster whose data directory somebody else fills (a restore): nothing is made but the
    /// folder of the socket.
    #[must_use]
    pub fn at(sandbox: &Sandbox, major: u32, name: &str, port: u16) -> Self {
        let data = sandbox.path().join(name);
        Self {
            server: server(major),
            wal: data.join("pg_wal"),
            data,
            socket: sandbox.folder(&format!("{name}-sock")),
            port,
            path_prefix: None,
            log: sandbox.path().join(format!("{name}.log")),
        }
    }

    /// Appends the tests' settings and `lines` to `postgresql.conf`.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn configure(&self, lines: &[String]) {
        use std::io::Write;
        let path = self.data.join("postgresql.conf");
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .open(path)
            .expect("postgresql.conf");
        let mut text = format!(
            "\nlisten_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\n\
             log_min_messages = log\nmax_wal_size = 256MB\n",
            self.port,
            self.socket.display()
        );
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        file.write_all(text.as_bytes()).expect("postgresql.conf");
    }

    /// Starts the server and waits until it answers queries.
    ///
    /// # Panics
    /// When it does not within 60 s; the message holds the end of its log.
    pub fn start(&self) {
        self.launch();
        wait_until("the server to answer", Duration::from_secs(60), || {
            self.assert_running();
            // The eighth line of the pid file says so, and costs no process.
            let pid_file = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
            let state = pid_file.lines().nth(7)?.trim();
            (state == "ready").then(|| self.try_sql("select 1").ok())?
        });
    }

    /// Starts the server and waits for nothing.
    ///
    /// # Panics
    /// When the program cannot be started.
    pub fn launch(&self) {
        let _ = std::fs::remove_file(&self.log);
        let prefix = self
            .path_prefix
            .as_ref()
            .map(|p| format!("{}:", p.display()));
        let path = format!(
            "PATH={}/usr/local/bin:/usr/bin:/bin",
            prefix.unwrap_or_default()
        );
        let status = as_postgres(Path::new("env"))
            .arg(path)
            .arg(self.server.program("pg_ctl"))
            .arg("-D")
            .arg(&self.data)
            .arg("-l")
            .arg(&self.log)
            .args(["-W", "start"])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(
            status.expect("pg_ctl runs").success(),
            "pg_ctl start: {}",
            self.log_text()
        );
    }

    /// Whether a server of this data directory is running.
    #[must_use]
    pub fn is_running(&self) -> bool {
        as_postgres(&self.server.program("pg_ctl"))
            .arg("-D")
            .arg(&self.data)
            .arg("status")
            .current_dir("/")
            .output()
            .is_ok_and(|output| output.status.success())
    }

    /// A server that has said its last word does not come up any more. (The pid file says nothing
    /// in the first moments.)
    fn assert_running(&self) {
        let log = self.log_text();
        let last = log.lines().last().unwrap_or_default();
        let ended = last.contains("database system is shut down")
            || last.contains("FATAL:  data directory");
        assert!(!ended, "the server stopped: {log}");
    }

    /// Waits until the server that was launched has stopped by itself.
    ///
    /// # Panics
    /// When it has not within `limit`.
    pub fn wait_stopped(&self, limit: Duration) {
        wait_until("the server to stop", limit, || {
            let log = self.log_text();
            let said = [
                "database system is shut down",
                "could not find the database",
                "could not access the server",
            ];
            (said.iter().any(|words| log.contains(words)) && !self.is_running()).then_some(())
        });
    }

    /// Waits until recovery is over and the server takes writes.
    ///
    /// # Panics
    /// When it does not within 120 s.
    pub fn wait_promoted(&self) {
        wait_until("the end of recovery", Duration::from_secs(120), || {
            self.assert_running();
            (self.try_sql("select pg_is_in_recovery()").ok()? == "f").then_some(())
        });
    }

    /// Runs SQL in the database `postgres` and returns the unaligned rows.
    ///
    /// # Panics
    /// When it fails.
    pub fn sql(&self, text: &str) -> String {
        self.try_sql(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// As [`Cluster::sql`], with the server's message as error.
    ///
    /// # Errors
    /// psql's standard error.
    pub fn try_sql(&self, text: &str) -> Result<String, String> {
        let output = Command::new(client_tool("psql"))
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-d",
                "postgres",
            ])
            .arg("-h")
            .arg(&self.socket)
            .arg("-p")
            .arg(self.port.to_string())
            .arg("-c")
            .arg(text)
            .env("PGCONNECT_TIMEOUT", "10")
            .output()
            .map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout)
                .trim_end()
                .to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Promotes a standby and waits until it takes writes.
    ///
    /// # Panics
    /// When it does not within 120 s.
    pub fn promote(&self) {
        let data = self.data.to_string_lossy().into_owned();
        run_as_postgres(
            &self.server.program("pg_ctl"),
            &["-D", &data, "-W", "promote"],
        );
        self.wait_promoted();
    }

    /// `pg_ctl stop` in `mode` (`fast`, `immediate`, `smart`).
    ///
    /// # Panics
    /// When the server does not stop.
    pub fn stop(&self, mode: &str) {
        let data = self.data.to_string_lossy().into_owned();
        run_as_postgres(
            &self.server.program("pg_ctl"),
            &["-D", &data, "-m", mode, "-w", "stop"],
        );
    }

    /// `kill -9` for the postmaster, and waits until its children are gone too.
    ///
    /// # Panics
    /// When they stay.
    pub fn kill(&self) {
        let Some(pid) = self.postmaster_pid() else {
            return;
        };
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let mut pids: Vec<i32> = children.split_whitespace().flat_map(str::parse).collect();
        pids.insert(0, pid);
        for one in &pids {
            if let Some(one) = rustix::process::Pid::from_raw(*one) {
                let _ = rustix::process::kill_process(one, rustix::process::Signal::KILL);
            }
        }
        wait_until(
            "the server's processes to end",
            Duration::from_secs(20),
            || pids.iter().all(|p| is_gone(*p)).then_some(()),
        );
        // As long as nobody has reaped the process, its id counts as alive for the next start.
        let _ = std::fs::remove_file(self.socket.join(format!(".s.PGSQL.{}.lock", self.port)));
    }

    fn postmaster_pid(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid: i32 = text.lines().next()?.trim().parse().ok()?;
        let command = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        command.contains("postgres").then_some(pid)
    }

    /// The server's log.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Writes a record, switches the WAL segment and returns the name of the one that was closed.
    /// (Without a record since the last switch the server would not switch.)
    ///
    /// # Panics
    /// When the server refuses.
    pub fn switch_wal(&self) -> String {
        self.sql("select pg_create_restore_point('switch')");
        self.sql("select pg_walfile_name(pg_switch_wal())")
    }

    /// Waits until nothing is left to archive.
    ///
    /// # Panics
    /// When something is after 60 s.
    pub fn wait_archived(&self) {
        // A Swift of five Python processes needs seconds for a segment where others test beside it.
        let limit = Duration::from_secs(180);
        wait_until("everything to be archived", limit, || {
            let waiting = ready_files(&self.wal);
            waiting.is_empty().then_some(())
        });
    }
}

/// The names in `archive_status` that wait for the archiver.
fn ready_files(wal: &Path) -> Vec<String> {
    std::fs::read_dir(wal.join("archive_status"))
        .map(|entries| {
            entries
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .filter(|name| name.ends_with(".ready"))
                .collect()
        })
        .unwrap_or_default()
}

fn is_gone(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with('Z'))
    })
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}
