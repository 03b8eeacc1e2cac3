//! The text of `restore_command` for a server that fetches from the sidecar over HTTP.
//!
//! PostgreSQL takes every status from 1 to 125 as "not in the archive", ends recovery there, and serves with
//! what it has; and no HTTP client can end above 125 by itself, nor tell a 404 from a broken server. So the
//! command asks twice: for the file, and if that fails for a proof that the archive does not have it. Only
//! the proof becomes status 1. Everything else is 255, on which recovery stops and can be started again. On
//! a standby everything else is 1 too: there PostgreSQL asks again, for ever.
//!
//! Without a token and without TLS the same text serves GNU Wget and BusyBox, whose options differ: both take `-q`,
//! `-O`, `--header`; `-t` bounds GNU Wget's repetitions of a cut reply (20 by default, over minutes) and means nothing
//! to BusyBox; `-T` crashes Debian's BusyBox.
//!
//! A command line is seen by every user of the host, so the token is not in it: GNU Wget and curl read it from a file
//! of mode 0600 beside the recovery settings ([`AUTHORIZATION_FILE`]), wale has a setting of its own. BusyBox can take
//! it on the command line only; that must be asked for by name ([`RestoreClient::Busybox`]). Nor can BusyBox check a
//! certificate: over TLS Wget's text carries an option that BusyBox does not know, so that it fails instead of trusting
//! anybody.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::{FILE_MODE, RecoveryMode};
use crate::control::Secret;
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// The file in the data directory from which `restore_command` takes the token. `PostgreSQL` runs the command in the data
/// directory, so the name alone is its path. It is no part of a base backup.
pub const AUTHORIZATION_FILE: &str = "wale_restore_authorization";

/// The program that the server's image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestoreClient {
    /// GNU Wget; also BusyBox, without token and TLS.
    #[default]
    Wget,
    /// BusyBox's wget, with the token on its command line.
    Busybox,
    /// curl.
    Curl,
    /// wale itself.
    Wale,
}

/// Where the server reaches the sidecar.
#[derive(Clone, Debug)]
pub struct RestoreEndpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Bearer token, if the sidecar wants one.
    pub token: Option<Secret>,
    /// TLS, if the sidecar speaks it.
    pub tls: Option<RestoreTls>,
}

/// What the server's client needs to know about the sidecar's TLS.
#[derive(Clone, Debug, Default)]
pub struct RestoreTls {
    /// Certificates against which the sidecar's is checked, PEM, as the server sees the file; else the system's.
    pub ca_file: Option<PathBuf>,
}

/// A `restore_command` and what belongs to it.
#[derive(Clone, Debug)]
pub struct RestoreCommand {
    /// The text, as `PostgreSQL` wants it: `%f` and `%p` stand for name and path, other percent signs are doubled.
    pub text: String,
    /// Content of [`AUTHORIZATION_FILE`], where the command reads one.
    pub authorization: Option<Secret>,
}

/// Tries of GNU Wget for a reply that is cut: after 1 and after 2 seconds again. A refused connection is not
/// repeated.
const WGET_TRIES: u32 = 3;

/// Seconds in which curl must have reached the sidecar.
const CURL_CONNECT_SECONDS: u32 = 30;

/// Composes the command.
///
/// # Errors
/// `Configuration` for a host, token or file that cannot stand in a shell command safely, and for BusyBox over TLS.
pub fn restore_command(
    client: RestoreClient,
    endpoint: &RestoreEndpoint,
    mode: RecoveryMode,
) -> Result<RestoreCommand, ClusterError> {
    let base = base_url(endpoint)?;
    let options = format!(
        "{}{}",
        tls_options(client, endpoint)?,
        token_options(client, endpoint)?
    );
    let fetch = |path: &str, route: &str| match client {
        RestoreClient::Wget | RestoreClient::Busybox => {
            format!("wget -q -t {WGET_TRIES}{options} -O {path} {base}/{route}/%f")
        }
        RestoreClient::Curl => format!(
            "curl -sf --connect-timeout {CURL_CONNECT_SECONDS}{options} -o {path} {base}/{route}/%f"
        ),
        RestoreClient::Wale => format!("wale client fetch{options} --url {base} %f {path}"),
    };
    let standby = mode == RecoveryMode::Standby;
    let mut text = fetch("\"%p\"", "wal");
    match client {
        // It asks for the proof by itself.
        RestoreClient::Wale if standby => text.push_str(" --standby"),
        RestoreClient::Wale => {}
        _ if standby => text.push_str(" || exit 1"),
        _ => {
            let proof = fetch("/dev/null", "wal-absent");
            write!(text, " || {{ {proof} && exit 1; exit 255; }}").expect("text grows");
        }
    }
    Ok(RestoreCommand {
        text,
        authorization: authorization(client, endpoint),
    })
}

/// Writes [`AUTHORIZATION_FILE`], mode 0600.
///
/// # Errors
/// When it cannot be written.
pub fn write_authorization(
    data_directory: &Path,
    content: &Secret,
    owner: Option<Owner>,
) -> Result<(), ClusterError> {
    let path = data_directory.join(AUTHORIZATION_FILE);
    durable::write_atomic(&path, content.expose().as_bytes(), FILE_MODE, owner)
        .map_err(ClusterError::io("write", &path))
}

fn base_url(endpoint: &RestoreEndpoint) -> Result<String, ClusterError> {
    let RestoreEndpoint { host, port, .. } = endpoint;
    let scheme = if endpoint.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(is_plain) {
        return Err(ClusterError::Configuration {
            message: format!("{host:?} cannot be the host name of the sidecar"),
            hint: Some("Use the name by which the database reaches the sidecar, alone.".to_owned()),
        });
    }
    Ok(if host.contains(':') {
        // In quotes because of the brackets, which are a pattern to the shell.
        format!("\"{scheme}://[{host}]:{port}\"")
    } else {
        format!("{scheme}://{host}:{port}")
    })
}

fn tls_options(client: RestoreClient, endpoint: &RestoreEndpoint) -> Result<String, ClusterError> {
    let Some(tls) = &endpoint.tls else {
        return Ok(String::new());
    };
    if client == RestoreClient::Busybox {
        return Err(ClusterError::Configuration {
            message: "BusyBox's wget cannot check the certificate of the sidecar".to_owned(),
            hint: Some(
                "Bring wale, curl or GNU Wget into the database's image and name it, or go without TLS."
                    .to_owned(),
            ),
        });
    }
    let Some(file) = &tls.ca_file else {
        return Ok(match client {
            // GNU Wget does so anyway; BusyBox does not know the option, and fails.
            RestoreClient::Wget => " --check-certificate".to_owned(),
            _ => String::new(),
        });
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@=:".contains(c);
    let file = file
        .to_str()
        .filter(|file| file.starts_with('/') && file.chars().all(is_plain))
        .ok_or_else(|| ClusterError::Configuration {
            message: format!("\"{}\" cannot stand in a restore_command", file.display()),
            hint: Some(
                "Use an absolute path of ASCII letters, digits and . _ - + @ = : alone.".to_owned(),
            ),
        })?;
    Ok(match client {
        RestoreClient::Curl => format!(" --cacert {file}"),
        RestoreClient::Wale => format!(" --client-ca-file {file}"),
        RestoreClient::Wget | RestoreClient::Busybox => format!(" --ca-certificate={file}"),
    })
}

fn token_options(
    client: RestoreClient,
    endpoint: &RestoreEndpoint,
) -> Result<String, ClusterError> {
    let Some(token) = &endpoint.token else {
        return Ok(String::new());
    };
    let token = token.expose();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic() && c != '\'') {
        return Err(ClusterError::Configuration {
            message: "the token of the sidecar cannot stand in a restore_command".to_owned(),
            hint: Some("Use printable ASCII without spaces and single quotes.".to_owned()),
        });
    }
    Ok(match client {
        RestoreClient::Wget => format!(" --config={AUTHORIZATION_FILE}"),
        RestoreClient::Curl => format!(" -K {AUTHORIZATION_FILE}"),
        RestoreClient::Busybox => {
            let token = token.replace('%', "%%");
            format!(" --header 'Authorization: Bearer {token}'")
        }
        // It has a setting of its own for it, which does not show in the list of processes.
        RestoreClient::Wale => String::new(),
    })
}

/// A line of GNU Wget's startup file, or of curl's configuration file, in which quotes and backslashes are escaped.
fn authorization(client: RestoreClient, endpoint: &RestoreEndpoint) -> Option<Secret> {
    let token = endpoint.token.as_ref()?.expose();
    match client {
        RestoreClient::Wget => Some(format!("header = Authorization: Bearer {token}\n")),
        RestoreClient::Curl => {
            let token = token.replace('\\', "\\\\").replace('"', "\\\"");
            Some(format!("header = \"Authorization: Bearer {token}\"\n"))
        }
        RestoreClient::Busybox | RestoreClient::Wale => None,
    }
    .map(Secret::new)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::Command;
    use std::sync::{Arc, Mutex};
    use std::thread::JoinHandle;

    use super::*;

    const NAME: &str = "000000010000000000000002";
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nwal";
    const CUT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nwal";
    const ABSENT: &str =
        "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
    const BROKEN: &str =
        "HTTP/1.1 500 Internal\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno\n";
    const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
    const PRESENT: &str =
        "HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
    const SILENT: &str = "";

    /// A server with one answer for each of the two routes; remembers the requests' heads.
    struct Server {
        port: u16,
        heads: Arc<Mutex<Vec<String>>>,
        thread: Option<JoinHandle<()>>,
    }

    impl Server {
        fn start(file: &'static str, proof: &'static str) -> Self {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let heads = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&heads);
            let thread = std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut head = String::new();
                    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                        if line.is_empty() {
                            break;
                        }
                        head.push_str(&line);
                        head.push('\n');
                    }
                    if head.starts_with("STOP") {
                        return;
                    }
                    let proof_asked = head.starts_with(&format!("GET /wal-absent/{NAME} "));
                    assert!(
                        proof_asked || head.starts_with(&format!("GET /wal/{NAME} ")),
                        "{head}"
                    );
                    let answer = if proof_asked { proof } else { file };
                    seen.lock().unwrap().push(head);
                    let _ = stream.write_all(answer.as_bytes());
                }
            });
            Self {
                port,
                heads,
                thread: Some(thread),
            }
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
            stream.unwrap().write_all(b"STOP\n\n").unwrap();
            self.thread.take().unwrap().join().unwrap();
        }
    }

    fn endpoint(port: u16) -> RestoreEndpoint {
        RestoreEndpoint {
            host: "127.0.0.1".to_owned(),
            port,
            token: None,
            tls: None,
        }
    }

    /// What PostgreSQL does with the text: placeholders, then `sh -c` in the data directory.
    fn run(text: &str, bin: &Path, folder: &Path) -> i32 {
        let text = text
            .replace("%%", "\0")
            .replace("%f", NAME)
            .replace("%p", "pg_wal/RECOVERYXLOG")
            .replace('\0', "%");
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display());
        let status = Command::new("/bin/sh")
            .args(["-c", &text])
            .env_clear()
            .env("PATH", path)
            .current_dir(folder)
            .output()
            .unwrap()
            .status;
        status.code().unwrap()
    }

    fn data_directory() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pg_wal")).unwrap();
        folder
    }

    /// Programs by name; one that is not installed is skipped aloud.
    fn clients(bin: &Path) -> Vec<(&'static str, RestoreClient, PathBuf)> {
        let mut clients = Vec::new();
        for (name, program, client) in [
            ("gnu wget", "/usr/bin/wget", RestoreClient::Wget),
            ("busybox", "/usr/bin/busybox", RestoreClient::Wget),
            ("curl", "/usr/bin/curl", RestoreClient::Curl),
        ] {
            if !Path::new(program).exists() {
                let why = format!("{program} is not installed");
                wale_testkit::skip("restore_command by real clients", &why);
                continue;
            }
            let folder = bin.join(program.replace('/', "_"));
            std::fs::create_dir(&folder).unwrap();
            let link = if client == RestoreClient::Curl {
                "curl"
            } else {
                "wget"
            };
            symlink(program, folder.join(link)).unwrap();
            clients.push((name, client, folder));
        }
        clients
    }

    /// Faults 50 and 52 of the battery, the command's part.
    #[test]
    fn only_the_proof_ends_recovery() {
        use RecoveryMode::{Recover, Standby};
        let cases = [
            ("whole", WHOLE, BROKEN, Recover, 0),
            ("absent, proved", ABSENT, WHOLE, Recover, 1),
            ("absent, not proved", ABSENT, ABSENT, Recover, 255),
            ("absent, in fact present", ABSENT, PRESENT, Recover, 255),
            ("broken", BROKEN, BROKEN, Recover, 255),
            ("busy", BUSY, BUSY, Recover, 255),
            ("the file cut, in fact present", CUT, PRESENT, Recover, 255),
            ("the proof broken", ABSENT, BROKEN, Recover, 255),
            ("the proof cut", ABSENT, CUT, Recover, 255),
            ("the proof silent", ABSENT, SILENT, Recover, 255),
            ("standby: whole", WHOLE, BROKEN, Standby, 0),
            ("standby: absent", ABSENT, BROKEN, Standby, 1),
            ("standby: broken", BROKEN, BROKEN, Standby, 1),
        ];
        let bins = tempfile::tempdir().unwrap();
        let clients = clients(bins.path());
        // Side by side, because GNU Wget waits between its tries.
        std::thread::scope(|scope| {
            for (name, client, bin) in &clients {
                for (what, file, proof, mode, expected) in cases {
                    scope.spawn(move || {
                        let folder = data_directory();
                        let server = Server::start(file, proof);
                        let command = restore_command(*client, &endpoint(server.port), mode);
                        let status = run(&command.unwrap().text, bin, folder.path());
                        assert_eq!(status, expected, "{name}: {what}");
                        if expected == 0 {
                            let path = folder.path().join("pg_wal/RECOVERYXLOG");
                            assert_eq!(std::fs::read(path).unwrap(), b"wal", "{name}: {what}");
                        }
                    });
                }
            }
        });
    }

    /// Fault 50 of the battery: nobody listens.
    #[test]
    fn a_sidecar_that_is_down_does_not_end_recovery() {
        let bins = tempfile::tempdir().unwrap();
        for (name, client, bin) in clients(bins.path()) {
            let folder = data_directory();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            drop(listener);
            let command = restore_command(client, &endpoint(port), RecoveryMode::Recover).unwrap();
            assert_eq!(run(&command.text, &bin, folder.path()), 255, "{name}");
        }
        // A program that is not there, too: status 127 of the shell is replaced.
        let folder = data_directory();
        let text = restore_command(RestoreClient::Curl, &endpoint(1), RecoveryMode::Recover);
        let text = text.unwrap().text.replace("curl", "no-such-program");
        assert_eq!(run(&text, bins.path(), folder.path()), 255);
    }

    #[test]
    fn a_full_or_missing_folder_does_not_end_recovery() {
        let bins = tempfile::tempdir().unwrap();
        for (name, client, bin) in clients(bins.path()) {
            let folder = tempfile::tempdir().unwrap();
            let server = Server::start(WHOLE, PRESENT);
            let endpoint = endpoint(server.port);
            let command = restore_command(client, &endpoint, RecoveryMode::Recover).unwrap();
            assert_eq!(run(&command.text, &bin, folder.path()), 255, "{name}");
        }
    }

    #[test]
    fn row62_a_token_reaches_the_server_as_it_is_and_is_on_no_command_line() {
        let folder = data_directory();
        for (name, client, bin) in clients(folder.path()) {
            let server = Server::start(ABSENT, WHOLE);
            let endpoint = RestoreEndpoint {
                token: Some(Secret::new("a%f$(id)\"\\`!#")),
                ..endpoint(server.port)
            };
            let client = match name {
                "busybox" => RestoreClient::Busybox,
                _ => client,
            };
            let command = restore_command(client, &endpoint, RecoveryMode::Recover).unwrap();
            assert_eq!(command.text.contains("$(id)"), name == "busybox");
            if let Some(content) = &command.authorization {
                write_authorization(folder.path(), content, None).unwrap();
            }
            assert_eq!(run(&command.text, &bin, folder.path()), 1, "{name}");
            let heads = server.heads.lock().unwrap();
            assert_eq!(heads.len(), 2, "{name}");
            for head in heads.iter() {
                let line = "Authorization: Bearer a%f$(id)\"\\`!#\n";
                assert!(head.contains(line), "{name}: {head}");
            }
        }
    }

    /// `BusyBox` neither reads the token's file nor checks certificates: with the words for GNU Wget it must fail, and
    /// before it has sent anything.
    #[test]
    fn row62_busybox_with_wgets_words_fails_and_does_not_end_recovery() {
        let folder = data_directory();
        let clients = clients(folder.path());
        let Some((_, _, bin)) = clients.iter().find(|(name, ..)| *name == "busybox") else {
            return;
        };
        let server = Server::start(ABSENT, WHOLE);
        let with_token = RestoreEndpoint {
            token: Some(Secret::new("t0ken")),
            ..endpoint(server.port)
        };
        for ca_file in [None, Some(PathBuf::from("/ca.pem"))] {
            let over_tls = RestoreEndpoint {
                tls: Some(RestoreTls { ca_file }),
                ..endpoint(server.port)
            };
            for endpoint in [&with_token, &over_tls] {
                let command = restore_command(RestoreClient::Wget, endpoint, RecoveryMode::Recover);
                let status = run(&command.unwrap().text, bin, folder.path());
                assert_eq!(status, 255, "{endpoint:?}");
            }
            let refused = restore_command(RestoreClient::Busybox, &over_tls, RecoveryMode::Recover);
            assert!(refused.is_err());
        }
        assert!(server.heads.lock().unwrap().is_empty());
    }

    #[test]
    fn the_texts() {
        let endpoint = RestoreEndpoint {
            host: "sidecar".to_owned(),
            port: 5000,
            token: None,
            tls: None,
        };
        let text = |client, mode| restore_command(client, &endpoint, mode).unwrap().text;
        assert_eq!(
            text(RestoreClient::Wget, RecoveryMode::Recover),
            "wget -q -t 3 -O \"%p\" http://sidecar:5000/wal/%f || \
             { wget -q -t 3 -O /dev/null http://sidecar:5000/wal-absent/%f && exit 1; exit 255; }"
        );
        assert_eq!(
            text(RestoreClient::Curl, RecoveryMode::Standby),
            "curl -sf --connect-timeout 30 -o \"%p\" http://sidecar:5000/wal/%f || exit 1"
        );
        assert_eq!(
            text(RestoreClient::Wale, RecoveryMode::Recover),
            "wale client fetch --url http://sidecar:5000 %f \"%p\""
        );
        assert_eq!(
            text(RestoreClient::Wale, RecoveryMode::Standby),
            "wale client fetch --url http://sidecar:5000 %f \"%p\" --standby"
        );
        let six = RestoreEndpoint {
            host: "::1".to_owned(),
            ..endpoint.clone()
        };
        let text = |client, endpoint: &RestoreEndpoint| {
            restore_command(client, endpoint, RecoveryMode::Standby)
                .unwrap()
                .text
        };
        let curl = text(RestoreClient::Curl, &six);
        assert!(curl.contains(" \"http://[::1]:5000\"/wal/%f "), "{curl}");
        let secured = |ca_file: Option<&str>| RestoreEndpoint {
            tls: Some(RestoreTls {
                ca_file: ca_file.map(PathBuf::from),
            }),
            token: Some(Secret::new("t0ken")),
            ..endpoint.clone()
        };
        for (client, ca_file, expected) in [
            (
                RestoreClient::Wget,
                None,
                "wget -q -t 3 --check-certificate --config=wale_restore_authorization -O \"%p\" https://sidecar:5000/wal/%f || exit 1",
            ),
            (
                RestoreClient::Wget,
                Some("/ca.pem"),
                "wget -q -t 3 --ca-certificate=/ca.pem --config=wale_restore_authorization -O \"%p\" https://sidecar:5000/wal/%f || exit 1",
            ),
            (
                RestoreClient::Curl,
                Some("/ca.pem"),
                "curl -sf --connect-timeout 30 --cacert /ca.pem -K wale_restore_authorization -o \"%p\" https://sidecar:5000/wal/%f || exit 1",
            ),
            (
                RestoreClient::Wale,
                Some("/ca.pem"),
                "wale client fetch --client-ca-file /ca.pem --url https://sidecar:5000 %f \"%p\" --standby",
            ),
        ] {
            assert_eq!(text(client, &secured(ca_file)), expected);
        }
        for ca_file in ["ca.pem", "/a b", "/a;b", "/$(id)", "/a%f", "/ä", "/a'b"] {
            let endpoint = secured(Some(ca_file));
            let result = restore_command(RestoreClient::Curl, &endpoint, RecoveryMode::Standby);
            assert!(result.is_err(), "{ca_file}");
        }
    }

    #[test]
    fn what_a_shell_could_misread_is_refused() {
        for host in ["", "a b", "a;id", "$(id)", "`id`", "-O", "a/b", "a%b", "ä"] {
            let endpoint = RestoreEndpoint {
                host: host.to_owned(),
                ..endpoint(1)
            };
            let result = restore_command(RestoreClient::Wget, &endpoint, RecoveryMode::Recover);
            assert!(result.is_err(), "{host:?}");
        }
        for token in ["", "a'b", "a b", "a\nb", "ä"] {
            let endpoint = RestoreEndpoint {
                token: Some(Secret::new(token)),
                ..endpoint(1)
            };
            let result = restore_command(RestoreClient::Wget, &endpoint, RecoveryMode::Recover);
            assert!(result.is_err(), "{token:?}");
        }
    }
}
