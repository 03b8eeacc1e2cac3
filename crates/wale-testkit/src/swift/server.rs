//! The real program, as `scripts/setup.sh` installs it and `scripts/swift.sh` starts it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::http::request_bytes;
use crate::s3::{BUCKET, tools};
use crate::{Reply, Sandbox, StoreServer, free_port};

/// Users that the server knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// May do everything.
    Owner,
    /// May read, list, write and delete in the container.
    Writer,
    /// May read and list in the container.
    Reader,
}

impl Role {
    /// User and key.
    #[must_use]
    pub fn login(self) -> (&'static str, &'static str) {
        match self {
            Self::Owner => ("test:tester", "testing"),
            Self::Writer => ("test:writer", "writing"),
            Self::Reader => ("test:reader", "reading"),
        }
    }
}

/// A running Swift with an empty container. Dropping it ends it.
#[derive(Debug)]
pub struct SwiftServer {
    child: Child,
    port: u16,
    memcached: u16,
}

impl SwiftServer {
    /// The account's path.
    pub const ACCOUNT: &'static str = "/v1/AUTH_test";

    /// Whether it is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        tools().join("swift/bin/swift-proxy-server").exists()
            && Path::new("/usr/bin/memcached").exists()
    }

    /// Starts it, which takes some seconds. None where it is not installed.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Option<Self> {
        if !Self::is_installed() {
            return None;
        }
        let venv = tools().join("swift");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/swift.sh");
        let ports = [(); 5].map(|()| free_port());
        let [port, .., memcached] = ports;
        let mut command = Command::new("bash");
        command.arg(script).arg(sandbox.folder("swift")).arg(venv);
        command.args(ports.map(|port| port.to_string()));
        let log_path = sandbox.path().join("swift.log");
        let log = File::create(&log_path).expect("the server's log");
        // It ends with its standard input, so also with this process.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(log).spawn().expect("bash starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is a pipe");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("what it says");
        let why = std::fs::read_to_string(log_path).unwrap_or_default();
        assert_eq!(line, "ready\n", "Swift did not come up: {why}");
        Some(Self {
            child,
            port,
            memcached,
        })
    }

    /// wale's settings for this role, otherwise as [`StoreServer::settings`].
    #[must_use]
    pub fn settings_of(role: Role, port: u16, path: &str) -> Vec<(String, String)> {
        let (user, key) = role.login();
        [
            ("WALE_SWIFT_PREFIX", format!("swift://{BUCKET}/{path}")),
            (
                "SWIFT_AUTHURL",
                format!("http://127.0.0.1:{port}/auth/v1.0"),
            ),
            ("SWIFT_AUTH_VERSION", "1".to_owned()),
            ("SWIFT_USER", user.to_owned()),
            ("SWIFT_PASSWORD", key.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Lets it forget every token that it has given.
    ///
    /// # Panics
    /// When memcached does not answer.
    pub fn forget_tokens(&self) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.memcached)).expect("memcached");
        stream.write_all(b"flush_all\r\n").expect("it listens");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("it answers");
        assert_eq!(&answer, b"OK\r\n");
    }

    /// Sends a request of the owner's, whose target is below the account.
    ///
    /// # Panics
    /// When it does not answer.
    #[must_use]
    pub fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let token = token(self.port, Role::Owner).expect("a token");
        let mut message = format!(
            "{method} {}{target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n\
             X-Auth-Token: {token}\r\n",
            Self::ACCOUNT,
            self.port,
            body.len(),
        );
        for (name, value) in headers {
            message.extend([name, ": ", value, "\r\n"]);
        }
        let message = [message.as_bytes(), b"\r\n", body].concat();
        request_bytes(self.port, &message).expect("Swift answers")
    }

    /// The names in the container, in order.
    ///
    /// # Panics
    /// When the server does not tell, or there are more than ten thousand.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let reply = self.send("GET", &format!("/{BUCKET}"), &[], b"");
        assert!((200..300).contains(&reply.status), "{}", reply.text());
        let text = reply.text();
        let names: Vec<String> = text.lines().map(str::to_owned).collect();
        assert!(names.len() < 10_000, "it is one page");
        names
    }

    /// The names of segments.
    #[must_use]
    pub fn segments(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| name.starts_with("wale_segments"));
        names
    }
}

impl StoreServer for SwiftServer {
    fn port(&self) -> u16 {
        self.port
    }

    /// The sidecar logs in as the role that the guide has.
    fn settings(port: u16, path: &str) -> Vec<(String, String)> {
        Self::settings_of(Role::Writer, port, path)
    }

    /// As a listing of an archive would have them: without segments.
    fn objects(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| !name.starts_with("wale_segments"));
        names
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let reply = self.send("GET", &format!("/{BUCKET}/{name}"), &[], b"");
        assert_eq!(reply.status, 200, "{name}: {}", reply.text());
        reply.body
    }

    fn tamper(&self, name: &str, content: &[u8]) {
        let reply = self.send("PUT", &format!("/{BUCKET}/{name}"), &[], content);
        assert_eq!(reply.status, 201, "{name}: {}", reply.text());
    }
}

impl Drop for SwiftServer {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A token of this user's, from the Swift at this port.
pub(super) fn token(port: u16, role: Role) -> Option<String> {
    let (user, key) = role.login();
    let message = format!(
        "GET /auth/v1.0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nX-Auth-User: {user}\r\n\
         X-Auth-Key: {key}\r\n\r\n"
    );
    let reply = request_bytes(port, message.as_bytes()).ok()?;
    // The head is in small letters.
    let mut lines = reply.head.lines();
    let line = lines.find_map(|line| line.strip_prefix("x-auth-token: "))?;
    Some(line.replace("auth_tk", "AUTH_tk"))
}
