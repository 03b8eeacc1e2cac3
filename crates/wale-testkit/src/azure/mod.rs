//! Azure Blob Storage for the tests: Azurite, Microsoft's emulator, on loopback. The proxy that makes the faults is that of
//! S3 ([`crate::s3::FaultProxy`]).
//!
//! What was seen of Azurite 3.35.0, where it differs from what Azure documents:
//!
//! | | Azurite |
//! |---|---|
//! | `If-None-Match: *` on `Put Blob` and `Put Block List` | 409 `BlobAlreadyExists` when the blob exists, as Azure |
//! | signature | checked: 403 `AuthorizationFailure`, where Azure says `AuthenticationFailed`; the clock is never looked at |
//! | `Content-MD5` | checked: 400 `InvalidOperation`, where Azure says `Md5Mismatch` |
//! | `x-ms-content-crc64` | refused: 500 `FeatureNotSupported` |
//! | identifiers of blocks of another length | 400 `InvalidBlobOrBlock`, as Azure |
//! | a list whose blocks are gone | 400 `InvalidBlockList`, as Azure |
//! | a reply's `Content-MD5` for a block | never there |
//! | marks of the byte order before XML | none; Azure has them |
//! | tokens of Entra | only over TLS and never looked at closely: the tests' proxy puts a signature in their place |

pub(crate) mod seen;

use std::process::{Child, Command};

use crate::http::request_bytes;
use crate::s3::{STARTS_WITHIN, spawn, tool};
use crate::{Reply, Sandbox, StoreServer, free_port, wait_until};

/// The container that the server has.
pub const CONTAINER: &str = "bkt";
/// The account that every Azurite knows.
pub const ACCOUNT: &str = "devstoreaccount1";
/// Its key, which Microsoft publishes.
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// A shared access signature of that key for everything, until 2099.
pub const SHARED_ACCESS: &str = "sv=2021-12-02&ss=b&srt=sco&sp=rwdlac&se=2099-01-01T00%3A00%3A00Z&spr=https%2Chttp&\
                                 sig=jlSI%2B5DohmjtlB2oCr2Vhd9u7l%2F%2FvB9E8D7vhfmKGX4%3D";

/// A shared access signature of that key for the container, until 2099, with these permissions: those that the guide has.
///
/// # Panics
/// When they are others.
#[must_use]
pub fn rights_on_the_container(permissions: &str) -> &'static str {
    match permissions {
        "rcwl" => {
            "sv=2021-12-02&sr=c&sp=rcwl&se=2099-01-01T00%3A00%3A00Z&\
             sig=usIn2mNNewQ0xMwdyKv7SJKJii%2FfJhntda%2Bx3JNYbZw%3D"
        }
        "rcwdl" => {
            "sv=2021-12-02&sr=c&sp=rcwdl&se=2099-01-01T00%3A00%3A00Z&\
             sig=jUEJxBehYu0EtsZxjlhHTSalnfubOMv4Tzl1OzSCRH0%3D"
        }
        "rl" => {
            "sv=2021-12-02&sr=c&sp=rl&se=2099-01-01T00%3A00%3A00Z&\
             sig=0zwH4g%2BA3WMC%2FhrDqnRWAAul4KTFy6PVDAwRXE3Oubg%3D"
        }
        other => panic!("nobody has signed {other}"),
    }
}

/// What comes before a blob's name in a path.
pub(crate) const ROOT: &str = "devstoreaccount1/bkt";

/// A running Azurite with an empty container. Dropping it kills it.
#[derive(Debug)]
pub struct Azurite {
    child: Child,
    port: u16,
}

impl Azurite {
    /// Starts it.
    ///
    /// # Panics
    /// When it is not installed or does not come up.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Self {
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(tool("azurite/node_modules/azurite/dist/src/blob/main.js"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string()]);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
        command.arg("--location").arg(sandbox.folder("azurite"));
        let server = Self {
            child: spawn(sandbox, "azurite", port, &mut command),
            port,
        };
        wait_until("Azurite to make the container", STARTS_WITHIN, || {
            let target = Self::target("", "restype=container");
            let reply = server.try_send("PUT", &target, &[], b"").ok()?;
            (reply.status == 201).then_some(())
        });
        server
    }

    /// The path of a blob, or of the container, with this query and the right to everything.
    fn target(key: &str, query: &str) -> String {
        let slash = if key.is_empty() { "" } else { "/" };
        let and = if query.is_empty() { "" } else { "&" };
        format!("/{ROOT}{slash}{key}?{query}{and}{SHARED_ACCESS}")
    }

    fn try_send(
        &self,
        method: &str,
        target: &str,
        headers: &[&str],
        body: &[u8],
    ) -> std::io::Result<Reply> {
        let mut message = format!(
            "{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Length: {}\r\n\
             x-ms-version: 2021-12-02\r\n",
            self.port,
            body.len()
        );
        for header in headers {
            message.push_str(header);
            message.push_str("\r\n");
        }
        let mut message = (message + "\r\n").into_bytes();
        message.extend_from_slice(body);
        request_bytes(self.port, &message)
    }

    /// The same, of which nothing but success is expected.
    fn send(&self, method: &str, target: &str, headers: &[&str], body: &[u8]) -> Reply {
        let reply = self.try_send(method, target, headers, body);
        let reply = reply.expect("Azurite answers");
        let shown = || format!("{method} {target}: {} {}", reply.status, reply.text());
        assert!((200..300).contains(&reply.status), "{}", shown());
        reply
    }

    /// How many names have blocks of which nobody has made a blob.
    ///
    /// # Panics
    /// When the server does not tell.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        // wale's trials go on in the background.
        let count = |names: Vec<String>| {
            let names = names.iter().filter(|name| !name.contains("wale_probe_"));
            names.count()
        };
        count(self.list("&include=uncommittedblobs")) - count(self.list(""))
    }

    /// Leaves a block of which nobody makes a blob, with an identifier of so many bytes.
    ///
    /// # Panics
    /// When it cannot.
    pub fn leave_block(&self, key: &str, id_base64: &str) {
        let id = id_base64.replace('=', "%3D");
        let target = Self::target(key, &format!("comp=block&blockid={id}"));
        drop(self.send("PUT", &target, &[], b"left"));
    }

    /// The names in all pages of a listing.
    fn list(&self, more: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut marker = String::new();
        loop {
            let query = format!("restype=container&comp=list{more}{marker}");
            let page = self.send("GET", &Self::target("", &query), &[], b"").text();
            for piece in page.split("<Blob><Name>").skip(1) {
                let text = piece.split("</Name>").next().unwrap_or_default();
                found.push(text.replace("&amp;", "&"));
            }
            match page.split_once("<NextMarker>") {
                Some((_, next)) => {
                    let next = next.split('<').next().unwrap_or_default();
                    marker = format!("&marker={next}");
                }
                None => return found,
            }
        }
    }
}

impl StoreServer for Azurite {
    fn port(&self) -> u16 {
        self.port
    }

    fn settings(port: u16, path: &str) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{port}/{ACCOUNT}");
        [
            ("WALE_WABS_PREFIX", format!("wabs://{CONTAINER}/{path}")),
            ("WALE_WABS_ENDPOINT", endpoint),
            ("WABS_ACCOUNT_NAME", ACCOUNT.to_owned()),
            ("WABS_ACCESS_KEY", ACCOUNT_KEY.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn objects(&self) -> Vec<String> {
        let mut names = self.list("");
        names.sort();
        names
    }

    fn content(&self, key: &str) -> Vec<u8> {
        self.send("GET", &Self::target(key, ""), &[], b"").body
    }

    fn tamper(&self, key: &str, content: &[u8]) {
        let headers = ["x-ms-blob-type: BlockBlob"];
        drop(self.send("PUT", &Self::target(key, ""), &headers, content));
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
