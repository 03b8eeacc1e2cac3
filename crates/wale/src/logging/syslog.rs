//! Records as datagrams to the local system log, in the shape of RFC 3164 that local daemons expect: priority, time,
//! program, text, and no host name, as syslog(3) sends it.
//!
//! A record never stops the program: nobody listening, or a listener that is stuck, loses it. WAL-E wrote a
//! traceback for every such record; here the loss is silent, and standard error has the record too.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tracing::Level;

/// Where the system log listens.
const SOCKETS: [&str; 3] = ["/dev/log", "/var/run/log", "/var/run/syslog"];

/// Bytes of a record: what rsyslog takes by default, 8 KiB. The rest is cut.
const RECORD_MAX: usize = 8 << 10;

/// How long a listener that does not read may hold the program up, for each record.
const PATIENCE: Duration = Duration::from_millis(100);

/// Names and numbers of syslog's facilities, `sys/syslog.h`.
const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// The facility of that name in any case, and whether it is one: else it is `user`.
pub(super) fn facility(name: &str) -> (u8, bool) {
    let wanted = name.trim().to_ascii_lowercase();
    let found = FACILITIES.iter().find(|(known, _)| *known == wanted);
    found.map_or((1, false), |(_, number)| (*number, true))
}

/// The connection.
pub(super) struct Syslog {
    socket: Option<UnixDatagram>,
    facility: u8,
    program: &'static str,
}

impl Syslog {
    /// Connects to that socket, or to the first of the usual ones that answers.
    pub(super) fn connect(path: Option<PathBuf>, facility: u8, program: &'static str) -> Self {
        let socket = match path {
            Some(path) => open(&path),
            None => SOCKETS.iter().find_map(|path| open(Path::new(path))),
        };
        Self {
            socket,
            facility,
            program,
        }
    }

    /// Whether anybody listens.
    pub(super) fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends a record, or loses it.
    pub(super) fn send(&self, level: Level, text: &str) {
        if let Some(socket) = &self.socket {
            let record = record(self.facility, level, self.program, Utc::now(), text);
            // Nobody could be told where.
            let _ = socket.send(record.as_bytes());
        }
    }
}

fn open(path: &Path) -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(path).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(socket)
}

fn record(facility: u8, level: Level, program: &str, now: DateTime<Utc>, text: &str) -> String {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };
    let priority = u32::from(facility) * 8 + severity;
    let (time, process) = (now.format("%b %e %H:%M:%S"), std::process::id());
    let mut record = format!(
        "<{priority}>{time} {program}[{process}]: {}",
        text.trim_end()
    );
    if record.len() > RECORD_MAX {
        let end = (0..=RECORD_MAX)
            .rev()
            .find(|at| record.is_char_boundary(*at));
        record.truncate(end.unwrap_or(0));
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facilities_in_any_case_and_user_for_the_rest() {
        assert_eq!(facility("USER"), (1, true));
        assert_eq!(facility("Local7"), (23, true));
        assert_eq!(facility("AUTHPRIV"), (10, true));
        assert_eq!(facility("LOCAL8"), (1, false));
    }

    #[test]
    fn a_record_is_one_bounded_datagram() {
        let now = "2026-11-03T04:05:06Z".parse().unwrap();
        let id = std::process::id();
        let expected = format!("<134>Nov  3 04:05:06 wal-e[{id}]: a b");
        assert_eq!(record(16, Level::INFO, "wal-e", now, "a b\n"), expected);
        let long = "ü".repeat(RECORD_MAX);
        let cut = record(1, Level::ERROR, "wale", now, &long);
        assert!(cut.len() <= RECORD_MAX && cut.len() > RECORD_MAX - 2);
    }

    #[test]
    fn a_listener_hears_and_nobody_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let nobody = Syslog::connect(Some(path.clone()), 1, "wale");
        assert!(!nobody.is_connected());
        nobody.send(Level::WARN, "lost");
        let listener = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::connect(Some(path), 1, "wale");
        syslog.send(Level::WARN, "heard");
        let mut buffer = [0; 100];
        let length = listener.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        assert!(
            text.starts_with("<12>") && text.ends_with("]: heard"),
            "{text}"
        );
    }
}
