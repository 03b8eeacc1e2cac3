//! The S3 servers: moto and s3s-fs, as `scripts/setup.sh` installs them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::http::request_bytes;
use crate::{Reply, Sandbox, free_port, wait_until};

/// The bucket that every server has.
pub const BUCKET: &str = "bkt";
/// The access key that s3s-fs knows.
pub const ACCESS_KEY: &str = "AKIAWALETESTWALETEST";
/// Its secret.
pub const SECRET_KEY: &str = "wale/test+secret/wale/test+secret/wale+te";

/// How long a server may take to start: Python reads some hundred files first, on a loaded machine slowly.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A running S3 server with an empty bucket. Dropping it kills it.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    port: u16,
    /// What s3s-fs stores its objects in; moto keeps them in memory.
    root: Option<PathBuf>,
}

impl S3Server {
    /// Starts moto.
    ///
    /// # Panics
    /// When it is not installed or does not come up.
    #[must_use]
    pub fn moto(sandbox: &Sandbox) -> Self {
        let port = free_port();
        let mut command = Command::new(tool("moto/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("TMPDIR", sandbox.folder("moto"));
        let server = Self {
            child: spawn(sandbox, "moto", port, &mut command),
            port,
            root: None,
        };
        wait_until("moto to make the bucket", STARTS_WITHIN, || {
            let reply = server.try_send("PUT", &format!("/{BUCKET}"), b"").ok()?;
            (reply.status == 200).then_some(())
        });
        server
    }

    /// Starts s3s-fs. With a domain, a host name below it names a bucket.
    ///
    /// # Panics
    /// As [`S3Server::moto`].
    #[must_use]
    pub fn s3s(sandbox: &Sandbox, domain: Option<&str>) -> Self {
        let port = free_port();
        let root = sandbox.folder(&format!("s3s-{port}"));
        std::fs::create_dir(root.join(BUCKET)).expect("a folder for the bucket");
        let mut command = Command::new(tool("bin/s3s-fs"));
        command.args(["--host", "127.0.0.1", "--port", &port.to_string()]);
        command.args(["--access-key", ACCESS_KEY, "--secret-key", SECRET_KEY]);
        if let Some(domain) = domain {
            command.args(["--domain", domain]);
        }
        command.arg(&root).env("RUST_LOG", "error");
        let server = Self {
            child: spawn(sandbox, "s3s", port, &mut command),
            port,
            root: Some(root),
        };
        wait_until("s3s-fs to listen", STARTS_WITHIN, || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop)
        });
        server
    }

    /// The loopback port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// wale's settings for an archive at `path` of the bucket, by way of the loopback port `port`: the
    /// server's own, or that of a proxy before it.
    #[must_use]
    pub fn settings(port: u16, path: &str) -> Vec<(String, String)> {
        [
            ("WALE_S3_PREFIX", format!("s3://{BUCKET}/{path}")),
            ("WALE_S3_ENDPOINT", format!("http+path://127.0.0.1:{port}")),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    /// Sends moto a request.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn try_send(&self, method: &str, target: &str, body: &[u8]) -> std::io::Result<Reply> {
        assert!(self.root.is_none(), "s3s-fs wants signatures");
        // moto never looks at the signature, but tells by it which service is meant.
        let mut message = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n",
            self.port,
            body.len()
        )
        .into_bytes();
        message.extend_from_slice(body);
        request_bytes(self.port, &message)
    }

    /// The same, of which nothing but success is expected.
    ///
    /// # Panics
    /// When it fails.
    pub fn send(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        let reply = self.try_send(method, target, body).expect("moto answers");
        let shown = || format!("{method} {target}: {} {}", reply.status, reply.text());
        assert!((200..300).contains(&reply.status), "{}", shown());
        reply
    }

    /// The names of the objects, in order.
    ///
    /// # Panics
    /// When the server does not tell.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let mut names = match &self.root {
            Some(root) => files_below(&root.join(BUCKET)),
            None => self.list("Key", "list-type=2"),
        };
        names.sort();
        names
    }

    /// The objects whose name holds `text`.
    #[must_use]
    pub fn objects_with(&self, text: &str) -> Vec<String> {
        let mut names = self.objects();
        names.retain(|name| name.contains(text));
        names
    }

    /// How many multipart uploads were begun and neither completed nor aborted.
    ///
    /// # Panics
    /// When the server does not tell.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        match &self.root {
            Some(root) => std::fs::read_dir(root)
                .expect("the server's folder")
                .flatten()
                .filter(|entry| {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    name.starts_with(".upload")
                })
                .count(),
            None => self.list("UploadId", "uploads").len(),
        }
    }

    /// The content of an object.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn content(&self, key: &str) -> Vec<u8> {
        match &self.root {
            Some(root) => std::fs::read(root.join(BUCKET).join(key)).expect("the object"),
            None => self.send("GET", &format!("/{BUCKET}/{key}"), b"").body,
        }
    }

    /// Puts other bytes under the name of an object, behind everybody's back.
    ///
    /// # Panics
    /// When it cannot.
    pub fn tamper(&self, key: &str, content: &[u8]) {
        match &self.root {
            Some(root) => {
                let path = root.join(BUCKET).join(key);
                let folder = path.parent().expect("it is in the bucket");
                std::fs::create_dir_all(folder).expect("the object's folder");
                std::fs::write(path, content).expect("the object");
            }
            None => drop(self.send("PUT", &format!("/{BUCKET}/{key}"), content)),
        }
    }

    /// The texts of an element in all pages of a listing of moto.
    fn list(&self, element: &str, query: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let mut found = Vec::new();
        let mut more = String::new();
        loop {
            let target = format!("/{BUCKET}?{query}{more}");
            let page = self.send("GET", &target, b"").text();
            for piece in page.split(&open).skip(1) {
                let text = piece.split(&close).next().unwrap_or_default();
                found.push(text.replace("&amp;", "&"));
            }
            let Some((_, token)) = page.split_once("<NextContinuationToken>") else {
                return found;
            };
            let token = token.split('<').next().unwrap_or_default();
            more = format!("&continuation-token={token}");
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program below `WALE_TEST_TOOLS` (default `/var/tmp/wale-tools`).
fn tool(name: &str) -> PathBuf {
    let root = std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into());
    let program = Path::new(&root).join(name);
    assert!(
        program.exists(),
        "{} is not installed: run scripts/setup.sh",
        program.display()
    );
    program
}

fn spawn(sandbox: &Sandbox, name: &str, port: u16, command: &mut Command) -> Child {
    let log = sandbox.path().join(format!("{name}-{port}.log"));
    let log = File::create(log).expect("the server's log");
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the server starts")
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next)
            .expect("the bucket's folder")
            .flatten()
        {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("it is below");
                found.push(name.to_string_lossy().into_owned());
            }
        }
    }
    found
}
