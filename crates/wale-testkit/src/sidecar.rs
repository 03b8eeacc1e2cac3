//! The program under test: the sidecar as a process, and its verbs.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Cluster, Reply, Sandbox, free_port, get, wait_until};

/// How a sidecar is started. `new` fills in what a Compose file would say.
#[derive(Debug, Clone)]
pub struct SidecarOptions {
    /// The environment: wale's settings and libpq's variables.
    pub environment: BTreeMap<String, String>,
    /// The port it listens on.
    pub port: u16,
    /// Started as user `postgres` (else as the user that runs the tests).
    pub as_postgres: bool,
}

impl SidecarOptions {
    /// A sidecar of `cluster` with the archive in `<sandbox>/archive`, no schedule.
    #[must_use]
    pub fn new(sandbox: &Sandbox, cluster: &Cluster) -> Self {
        let port = free_port();
        let archive = sandbox.folder("archive");
        let environment = [
            ("PGDATA", cluster.data.to_string_lossy().into_owned()),
            ("PGWAL", cluster.wal.to_string_lossy().into_owned()),
            ("WALE_FILE_PREFIX", format!("file://{}", archive.display())),
            ("WALE_LISTEN_PORT", port.to_string()),
            ("WALE_LISTEN_ADDRESS", "127.0.0.1".into()),
            ("CRON_TIMING", "off".into()),
            ("PGHOST", "127.0.0.1".into()),
            ("PGPORT", cluster.port.to_string()),
            ("PGUSER", "postgres".into()),
            ("WALE_SHUTDOWN_GRACE", "5s".into()),
        ];
        Self {
            environment: environment
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect(),
            port,
            as_postgres: true,
        }
    }

    /// Sets a variable.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    /// Takes a variable away.
    #[must_use]
    pub fn unset(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// The same sidecar with its archive in S3, or another store, as [`crate::s3::S3Server::settings`] or those of another
    /// server say.
    #[must_use]
    pub fn on_s3(self, settings: Vec<(String, String)>) -> Self {
        let mut options = self.unset("WALE_FILE_PREFIX");
        options.environment.extend(settings);
        options
    }
}

/// What a verb did.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Exit {
    /// The exit code, -1 for a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or(-1)
    }
}

/// A running `wale serve`. Dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    child: Child,
    /// The port it listens on.
    pub port: u16,
    options: SidecarOptions,
    log: PathBuf,
}

impl Sidecar {
    /// Starts it and waits until it answers `/ping`.
    ///
    /// # Panics
    /// When it does not within 30 s; the message holds its log.
    #[must_use]
    pub fn start(sandbox: &Sandbox, binary: &str, options: &SidecarOptions) -> Self {
        let mut sidecar = Self::launch(sandbox, binary, options);
        wait_until("the sidecar to listen", Duration::from_secs(30), || {
            if let Some(status) = sidecar.child.try_wait().expect("the sidecar can be asked") {
                panic!("the sidecar ended, {status}: {}", sidecar.log_text());
            }
            get(sidecar.port, "/ping")
                .ok()
                .filter(|reply| reply.status == 200)
        });
        sidecar
    }

    /// Starts it and waits for nothing.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn launch(sandbox: &Sandbox, binary: &str, options: &SidecarOptions) -> Self {
        let log = sandbox.path().join(format!("sidecar-{}.log", options.port));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the sidecar's log");
        let child = wale_command(binary, "wale", options)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the sidecar starts");
        Self {
            child,
            port: options.port,
            options: options.clone(),
            log,
        }
    }

    /// `GET path`.
    ///
    /// # Panics
    /// When the connection fails.
    #[must_use]
    pub fn get(&self, path: &str) -> Reply {
        get(self.port, path).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.log_text()))
    }

    /// Waits until `/startupz` answers 200.
    ///
    /// # Panics
    /// When it does not within `limit`.
    pub fn wait_ready(&self, limit: Duration) {
        wait_until("the sidecar to be ready", limit, || {
            get(self.port, "/startupz")
                .ok()
                .filter(|reply| reply.status == 200)
                .map(drop)
        });
    }

    /// Runs a verb in the sidecar's environment.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn verb(&self, binary: &str, name: &str, arguments: &[&str]) -> Exit {
        verb(binary, name, &self.options, arguments)
    }

    /// Its log so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        signal(&self.child, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }

    /// `SIGTERM`, without waiting.
    pub fn terminate(&self) {
        signal(&self.child, rustix::process::Signal::TERM);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it runs on after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        wait_until("the sidecar to end", limit, || {
            self.child.try_wait().expect("it can be asked")
        })
    }

    /// The largest resident set it has had, in KiB.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("the sidecar runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
        number.expect("the kernel tells the peak")
    }

    /// The process id of wale itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<&str> = text.lines().rev().take(60).collect();
            eprintln!(
                "--- the sidecar's log, its end first ---\n{}",
                tail.join("\n")
            );
        }
    }
}

/// Runs a verb of `binary`, called by the program name `name` (`wale` or `wal-e`).
pub(crate) fn verb(binary: &str, name: &str, options: &SidecarOptions, arguments: &[&str]) -> Exit {
    let output = wale_command(binary, name, options)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("wale starts");
    Exit {
        status: output.status,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A command that runs the program under test as `name`, in the environment of `options` and
/// nothing else. The child is wale itself, not a wrapper: signals reach it.
#[must_use]
pub fn wale_command(binary: &str, name: &str, options: &SidecarOptions) -> Command {
    let program = reachable(binary).join(name);
    let mut command = if options.as_postgres && rustix::process::geteuid().is_root() {
        // setpriv executes the program in its own place, so that the pid is the program's.
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .envs(&options.environment);
    command.current_dir("/");
    command
}

/// A folder that holds the program under both names and that user `postgres` can enter: a checkout
/// below root's home is closed to it. Each program that is tested is copied once.
fn reachable(binary: &str) -> PathBuf {
    static FOLDERS: Mutex<Vec<(String, PathBuf)>> = Mutex::new(Vec::new());
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, folder)) = folders.iter().find(|(copied, _)| copied == binary) {
        return folder.clone();
    }
    let root = std::env::var("WALE_TEST_DIR").unwrap_or_else(|_| "/var/tmp/wale-it".into());
    if folders.is_empty() {
        remove_left_behind(Path::new(&root));
    }
    let folder = Path::new(&root)
        .join(format!("bin-{}", std::process::id()))
        .join(folders.len().to_string());
    std::fs::create_dir_all(&folder).expect("a folder for the program");
    std::fs::copy(binary, folder.join("wale")).expect("the program can be copied");
    let _ = std::os::unix::fs::symlink("wale", folder.join("wal-e"));
    folders.push((binary.to_owned(), folder.clone()));
    folder
}

/// Removes the programs of test runs that are over.
fn remove_left_behind(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name
            .strip_prefix("bin-")
            .and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
