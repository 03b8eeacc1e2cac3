//! The S3 servers, as `scripts/setup.sh` installs them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::http::{escaped, request_bytes};
use crate::{Reply, Sandbox, StoreServer, free_port, wait_until};

/// The bucket that every server has.
pub const BUCKET: &str = "bkt";
/// The access key that all those servers know that check it.
pub const ACCESS_KEY: &str = "AKIAWALETESTWALETEST";
/// Its secret.
pub const SECRET_KEY: &str = "wale/test+secret/wale/test+secret/wale+te";

/// How long a server may take to start: Python reads some hundred files first, on a loaded machine slowly.
pub(crate) const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The SHA-256 of nothing.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A running S3 server with an empty bucket. Dropping it kills it.
#[derive(Debug)]
pub struct S3Server {
    child: Child,
    port: u16,
    behind: Behind,
}

/// How a test sees what a server has.
#[derive(Debug)]
enum Behind {
    /// In the folder in which s3s-fs stores its objects.
    Folder(PathBuf),
    /// By requests that moto takes without a signature.
    Unsigned,
    /// By requests that are signed, with curl.
    Signed,
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
            behind: Behind::Unsigned,
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
            behind: Behind::Folder(root),
        };
        wait_until("s3s-fs to listen", STARTS_WITHIN, || {
            std::net::TcpStream::connect(("127.0.0.1", port))
                .ok()
                .map(drop)
        });
        server
    }

    /// Starts a Ceph gateway with all that it needs behind it, which takes some 15 s. None where it is not installed.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn ceph(sandbox: &Sandbox) -> Option<Self> {
        let programs = ["radosgw", "ceph-mon", "ceph-osd", "ceph"];
        let is_there = |name: &&str| Path::new("/usr/bin").join(name).exists();
        if !programs.iter().all(is_there) {
            return None;
        }
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/ceph-rgw.sh");
        let port = free_port();
        let mut command = Command::new("bash");
        command.arg(script).arg(sandbox.folder("ceph"));
        command.args([port, free_port(), free_port()].map(|port| port.to_string()));
        command.args([ACCESS_KEY, SECRET_KEY]);
        let log = File::create(sandbox.path().join("ceph.log")).expect("the server's log");
        // It ends with its standard input, so also with this process.
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(log).spawn().expect("bash starts");
        let mut line = String::new();
        let output = child.stdout.take().expect("it is a pipe");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("what it says");
        let why = std::fs::read_to_string(sandbox.path().join("ceph.log")).unwrap_or_default();
        assert_eq!(line, "ready\n", "Ceph did not come up: {why}");
        Some(Self::with_bucket(child, port))
    }

    /// Starts rclone, which serves a folder. None where it is not installed.
    ///
    /// # Panics
    /// As [`S3Server::moto`].
    #[must_use]
    pub fn rclone(sandbox: &Sandbox) -> Option<Self> {
        let program = tools().join("rclone/bin/rclone");
        let port = free_port();
        let mut command = Command::new(&program);
        command.args(["serve", "s3", "--addr", &format!("127.0.0.1:{port}")]);
        command.args(["--auth-key", &format!("{ACCESS_KEY},{SECRET_KEY}")]);
        command.arg(sandbox.folder("rclone"));
        command.env("XDG_CONFIG_HOME", sandbox.path());
        command.env("XDG_CACHE_HOME", sandbox.path());
        program.exists().then(|| {
            let child = spawn(sandbox, "rclone", port, &mut command);
            Self::with_bucket(child, port)
        })
    }

    /// Starts s3rver. None where it is not installed.
    ///
    /// # Panics
    /// As [`S3Server::moto`].
    #[must_use]
    pub fn s3rver(sandbox: &Sandbox) -> Option<Self> {
        let package = tools().join("s3rver/node_modules/s3rver");
        if !package.exists() {
            return None;
        }
        let port = free_port();
        // It knows one pair of keys, and takes another from who asks before it starts.
        let keys = sandbox.path().join("s3rver-keys.js");
        let text = format!(
            "require(\"{}\").DUMMY_ACCOUNT.createKeyPair({ACCESS_KEY:?}, {SECRET_KEY:?});",
            package.join("lib/models/account.js").display()
        );
        std::fs::write(&keys, text).expect("a file of the sandbox");
        let mut command = Command::new("node");
        command.args(["--openssl-legacy-provider", "--require"]);
        command.arg(keys).arg(package.join("bin/s3rver.js"));
        command.args(["--address", "127.0.0.1", "--port", &port.to_string()]);
        command.arg("--directory").arg(sandbox.folder("s3rver"));
        Some(Self::with_bucket(
            spawn(sandbox, "s3rver", port, &mut command),
            port,
        ))
    }

    /// A server that takes signed requests, once it has a bucket.
    fn with_bucket(child: Child, port: u16) -> Self {
        let server = Self {
            child,
            port,
            behind: Behind::Signed,
        };
        wait_until("the server to make the bucket", STARTS_WITHIN, || {
            let (status, _) = server.signed("PUT", &format!("/{BUCKET}"));
            matches!(status, 200 | 409).then_some(())
        });
        server
    }

    /// Status and body of what is answered to a signed request without a body; status 0 without an answer.
    fn signed(&self, method: &str, target: &str) -> (u16, Vec<u8>) {
        let url = format!("http://127.0.0.1:{}{target}", self.port);
        let mut command = Command::new("curl");
        command.args(["-s", "-X", method, "-w", "\n%{http_code}", &url]);
        command.args(["--aws-sigv4", "aws:amz:us-east-1:s3", "--user"]);
        command.arg(format!("{ACCESS_KEY}:{SECRET_KEY}"));
        command
            .arg("-H")
            .arg(format!("x-amz-content-sha256: {EMPTY_SHA256}"));
        let mut answer = command.output().expect("curl runs").stdout;
        let end = answer.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        let status = String::from_utf8_lossy(&answer[end..]).trim().parse();
        answer.truncate(end);
        (status.unwrap_or(0), answer)
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
    fn try_send(&self, method: &str, target: &str, body: &[u8]) -> std::io::Result<Reply> {
        assert!(
            matches!(self.behind, Behind::Unsigned),
            "all but moto want signatures"
        );
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

    /// Makes a user of moto's who may do what this policy says, once [`S3Server::enforce_rights`] was called. Gives the
    /// access key and its secret.
    ///
    /// # Panics
    /// When it cannot.
    #[must_use]
    pub fn user(&self, name: &str, policy: &str) -> (String, String) {
        let policy = escaped(policy);
        let named = format!("Version=2010-05-08&UserName={name}");
        self.manage(&format!("Action=CreateUser&{named}"));
        self.manage(&format!(
            "Action=PutUserPolicy&{named}&PolicyName=p&PolicyDocument={policy}"
        ));
        let answer = self.manage(&format!("Action=CreateAccessKey&{named}"));
        let text = |element: &str| {
            let (_, rest) = answer.split_once(&format!("<{element}>")).expect("a key");
            rest.split('<').next().unwrap_or_default().to_owned()
        };
        (text("AccessKeyId"), text("SecretAccessKey"))
    }

    /// Has moto look at signatures and policies from now on.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn enforce_rights(&self) {
        drop(self.send("POST", "/moto-api/reset-auth", b"0"));
    }

    /// Has moto take every request again.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn lift_rights(&self) {
        drop(self.send("POST", "/moto-api/reset-auth", b"inf"));
    }

    /// Sends moto a request about users, and gives the answer.
    fn manage(&self, form: &str) -> String {
        let message = format!(
            "POST / HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/iam/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\r\n{form}",
            self.port,
            form.len()
        );
        let reply = request_bytes(self.port, message.as_bytes()).expect("moto answers");
        assert_eq!(reply.status, 200, "{form}: {}", reply.text());
        reply.text()
    }

    /// The names of the objects, in order.
    ///
    /// # Panics
    /// When the server does not tell.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        let mut names = match &self.behind {
            Behind::Folder(root) => files_below(&root.join(BUCKET)),
            Behind::Unsigned | Behind::Signed => self.list("Key", "list-type=2"),
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
        match &self.behind {
            Behind::Folder(root) => std::fs::read_dir(root)
                .expect("the server's folder")
                .flatten()
                .filter(|entry| {
                    let name = entry.file_name().to_string_lossy().into_owned();
                    name.starts_with(".upload")
                })
                .count(),
            Behind::Unsigned | Behind::Signed => {
                // wale's trials go on in the background.
                let mut names = self.list("Key", "uploads=");
                names.retain(|name| !name.contains("wale_probe_"));
                names.len()
            }
        }
    }

    /// The content of an object.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn content(&self, key: &str) -> Vec<u8> {
        let target = format!("/{BUCKET}/{key}");
        match &self.behind {
            Behind::Folder(root) => std::fs::read(root.join(BUCKET).join(key)).expect("the object"),
            Behind::Unsigned => self.send("GET", &target, b"").body,
            Behind::Signed => self.signed("GET", &target).1,
        }
    }

    /// A page of a listing. Servers without unfinished uploads may say that there is none, or that they list none.
    fn page(&self, target: &str) -> String {
        match &self.behind {
            Behind::Signed => {
                let (status, body) = self.signed("GET", target);
                let text = String::from_utf8_lossy(&body).into_owned();
                let is_none = target.contains("?uploads") && matches!(status, 404 | 501);
                assert!(status == 200 || is_none, "{target}: {status} {text}");
                text
            }
            _ => self.send("GET", target, b"").text(),
        }
    }

    /// The texts of an element in all pages of a listing.
    fn list(&self, element: &str, query: &str) -> Vec<String> {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let mut found = Vec::new();
        let mut more = String::new();
        loop {
            let target = format!("/{BUCKET}?{query}{more}");
            let page = self.page(&target);
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

impl StoreServer for S3Server {
    fn port(&self) -> u16 {
        self.port
    }

    fn settings(port: u16, path: &str) -> Vec<(String, String)> {
        S3Server::settings(port, path)
    }

    fn objects(&self) -> Vec<String> {
        S3Server::objects(self)
    }

    fn content(&self, key: &str) -> Vec<u8> {
        S3Server::content(self, key)
    }

    fn tamper(&self, key: &str, content: &[u8]) {
        match &self.behind {
            Behind::Folder(root) => {
                let path = root.join(BUCKET).join(key);
                let folder = path.parent().expect("it is in the bucket");
                std::fs::create_dir_all(folder).expect("the object's folder");
                std::fs::write(path, content).expect("the object");
            }
            Behind::Unsigned => drop(self.send("PUT", &format!("/{BUCKET}/{key}"), content)),
            Behind::Signed => panic!("nobody needs this of a server that wants signatures"),
        }
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // What has servers of its own ends them when its input ends.
        if self.child.stdin.take().is_none() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Where `scripts/setup.sh` puts programs that Debian has no package of.
pub(crate) fn tools() -> PathBuf {
    let root = std::env::var_os("WALE_TEST_TOOLS");
    root.map_or_else(|| "/var/tmp/wale-tools".into(), PathBuf::from)
}

/// A program among them.
pub(crate) fn tool(name: &str) -> PathBuf {
    let program = tools().join(name);
    assert!(
        program.exists(),
        "{} is not installed: run scripts/setup.sh",
        program.display()
    );
    program
}

/// Starts a server whose output goes to a log in the sandbox.
pub(crate) fn spawn(sandbox: &Sandbox, name: &str, port: u16, command: &mut Command) -> Child {
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
