//! fake-gcs-server, as `scripts/setup.sh` installs it.

use std::process::{Child, Command};

use crate::http::{escaped, request_bytes};
use crate::s3::{BUCKET, STARTS_WITHIN, spawn, tool};
use crate::{Reply, Sandbox, StoreServer, free_port, wait_until};

/// The program in the folder of the package that brings it.
const PROGRAM: &str = "fake-gcs/fake-gcs-server";

/// A running server with an empty bucket, [`BUCKET`]. Dropping it kills it.
#[derive(Debug)]
pub struct GcsServer {
    child: Child,
    port: u16,
}

impl GcsServer {
    /// Starts it. Its objects are in its memory.
    ///
    /// # Panics
    /// When it is not installed or does not come up.
    #[must_use]
    pub fn start(sandbox: &Sandbox) -> Self {
        let port = free_port();
        let mut command = Command::new(tool(PROGRAM));
        command.args([
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-backend",
            "memory",
        ]);
        command.args(["-log-level", "warn", "-port", &port.to_string()]);
        let server = Self {
            child: spawn(sandbox, "fake-gcs", port, &mut command),
            port,
        };
        let bucket = serde_json::json!({ "name": BUCKET }).to_string();
        wait_until("the server to make the bucket", STARTS_WITHIN, || {
            let reply = server.try_send("POST", "/storage/v1/b?project=p", bucket.as_bytes());
            (reply.ok()?.status == 200).then_some(())
        });
        server
    }

    fn send(&self, method: &str, target: &str, body: &[u8]) -> Reply {
        let reply = self.try_send(method, target, body);
        let reply = reply.expect("the server answers");
        assert_eq!(reply.status, 200, "{method} {target}: {}", reply.text());
        reply
    }

    /// By the version of HTTP in which bodies are not cut into chunks.
    fn try_send(&self, method: &str, target: &str, body: &[u8]) -> std::io::Result<Reply> {
        let mut message = format!(
            "{method} {target} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.port,
            body.len()
        )
        .into_bytes();
        message.extend_from_slice(body);
        request_bytes(self.port, &message)
    }
}

impl StoreServer for GcsServer {
    fn port(&self) -> u16 {
        self.port
    }

    fn settings(port: u16, path: &str) -> Vec<(String, String)> {
        [
            ("WALE_GS_PREFIX", format!("gs://{BUCKET}/{path}")),
            ("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{port}")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }

    fn objects(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut more = String::new();
        loop {
            let target = format!("/storage/v1/b/{BUCKET}/o?maxResults=1000{more}");
            let page = self.send("GET", &target, b"").json();
            let items = page["items"].as_array().into_iter().flatten();
            names.extend(items.filter_map(|item| Some(item["name"].as_str()?.to_owned())));
            let Some(token) = page["nextPageToken"].as_str() else {
                return names;
            };
            more = format!("&pageToken={}", escaped(token));
        }
    }

    fn content(&self, name: &str) -> Vec<u8> {
        let name = escaped(name);
        let target = format!("/storage/v1/b/{BUCKET}/o/{name}?alt=media");
        self.send("GET", &target, b"").body
    }

    fn tamper(&self, name: &str, content: &[u8]) {
        let name = escaped(name);
        let target = format!("/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={name}");
        self.send("POST", &target, content);
    }
}

impl Drop for GcsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
