//! The command run by real clients against a scripted server.

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
const ABSENT: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
const BROKEN: &str = "HTTP/1.1 500 Internal\r\nContent-Length: 4\r\nConnection: close\r\n\r\nno\n";
const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
const PRESENT: &str = "HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno\n";
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
    run_for(NAME, text, bin, folder)
}

fn run_for(name: &str, text: &str, bin: &Path, folder: &Path) -> i32 {
    let text = text
        .replace("%%", "\0")
        .replace("%f", name)
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

/// Row 104 of the battery, the command's part: a history that lies in `pg_wal` is taken from there, and nothing else.
#[test]
fn fault_104_a_history_in_pg_wal_stands_in_for_a_sidecar_that_is_down() {
    let bins = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    for (name, client, bin) in clients(bins.path()) {
        let folder = data_directory();
        let wal = folder.path().join("pg_wal");
        let command = restore_command(client, &endpoint(port), RecoveryMode::Recover).unwrap();
        let history = "00000002.history";
        let status = |file| run_for(file, &command.text, &bin, folder.path());
        assert_eq!(status(history), 255, "{name}: none there");
        assert_eq!(status("00000001.history"), 1, "{name}: there is none, ever");
        std::fs::write(wal.join(history), "").unwrap();
        assert_eq!(status(history), 255, "{name}: an empty one");
        std::fs::write(wal.join(history), "1\t0/3000000\tx\n").unwrap();
        std::fs::write(wal.join(NAME), "wal").unwrap();
        assert_eq!(status(NAME), 255, "{name}: a segment");
        assert_eq!(status(history), 0, "{name}");
        let copy = std::fs::read_to_string(wal.join("RECOVERYXLOG")).unwrap();
        assert_eq!(copy, "1\t0/3000000\tx\n", "{name}");
    }
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
fn row62_a_token_reaches_the_server_as_it_is_and_is_in_no_setting() {
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
        assert!(!command.text.contains("$(id)"), "{name}");
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

/// The sidecar, without token and TLS.
fn plain() -> RestoreEndpoint {
    RestoreEndpoint {
        host: "sidecar".to_owned(),
        port: 5000,
        token: None,
        tls: None,
    }
}

#[test]
fn the_texts() {
    let endpoint = plain();
    let text = |client, mode| restore_command(client, &endpoint, mode).unwrap().text;
    assert_eq!(
        text(RestoreClient::Wget, RecoveryMode::Recover),
        "wget -q -t 3 -O \"%p\" http://sidecar:5000/wal/%f || \
         { wget -q -t 3 -O /dev/null http://sidecar:5000/wal-absent/%f && exit 1; \
         case %f in 00000001.history) exit 1;; *.history) test -s pg_wal/%f && cp pg_wal/%f \"%p\" && exit 0;; esac; exit 255; }"
    );
    assert_eq!(
        text(RestoreClient::Curl, RecoveryMode::Standby),
        "curl -sf --connect-timeout 5 -o \"%p\" http://sidecar:5000/wal/%f || exit 1"
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
        ..endpoint
    };
    let curl = restore_command(RestoreClient::Curl, &six, RecoveryMode::Standby);
    let curl = curl.unwrap().text;
    assert!(curl.contains(" \"http://[::1]:5000\"/wal/%f "), "{curl}");
}

#[test]
fn the_texts_with_a_token_and_tls() {
    let text = |client, endpoint: &RestoreEndpoint| {
        restore_command(client, endpoint, RecoveryMode::Standby)
            .unwrap()
            .text
    };
    let secured = |ca_file: Option<&str>| RestoreEndpoint {
        tls: Some(RestoreTls {
            ca_file: ca_file.map(PathBuf::from),
        }),
        token: Some(Secret::new("t0ken")),
        ..plain()
    };
    for (client, ca_file, expected) in [
        (
            RestoreClient::Wget,
            None,
            "wget -q -t 3 --connect-timeout=5 --check-certificate --config=wale_restore_authorization -O \"%p\" https://sidecar:5000/wal/%f || exit 1",
        ),
        (
            RestoreClient::Wget,
            Some("/ca.pem"),
            "wget -q -t 3 --connect-timeout=5 --ca-certificate=/ca.pem --config=wale_restore_authorization -O \"%p\" https://sidecar:5000/wal/%f || exit 1",
        ),
        (
            RestoreClient::Curl,
            Some("/ca.pem"),
            "curl -sf --connect-timeout 5 --cacert /ca.pem -K wale_restore_authorization -o \"%p\" https://sidecar:5000/wal/%f || exit 1",
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

/// Row 97 of the battery: the sidecar's token is rotated while a restored server asks with the old one.
#[test]
fn fault_97_the_token_beside_the_recovery_settings_is_renewed_in_the_form_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    let file = data.join(AUTHORIZATION_FILE);
    assert!(!renew_authorization(data, &Secret::new("new")).unwrap());
    assert!(!file.exists());
    for client in [
        RestoreClient::Wget,
        RestoreClient::Curl,
        RestoreClient::Busybox,
    ] {
        let endpoint = |token: &str| RestoreEndpoint {
            host: "sidecar".to_owned(),
            port: 5000,
            token: Some(Secret::new(token)),
            tls: None,
        };
        let of = |token: &str| {
            let command = restore_command(client, &endpoint(token), RecoveryMode::Standby);
            command.unwrap().authorization.unwrap()
        };
        write_authorization(data, &of("old"), None).unwrap();
        for (changed, token) in [(false, "old"), (true, "n\\e\"w"), (false, "n\\e\"w")] {
            let renewed = renew_authorization(data, &Secret::new(token)).unwrap();
            assert_eq!(renewed, changed, "{client:?} {token}");
            let held = std::fs::read_to_string(&file).unwrap();
            assert_eq!(held, of(token).expose(), "{client:?} {token}");
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::write(&file, "not ours").unwrap();
    assert!(!renew_authorization(data, &Secret::new("new")).unwrap());
}
