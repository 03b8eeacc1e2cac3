//! A Keystone that follows its documents (Identity API v2.0 and v3): it checks what a client sends to the letter, and gives
//! tokens of the Swift behind it. The real one takes minutes to install and start.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use super::server::{Role, SwiftServer, token};
use crate::StoreServer;

/// A running Keystone with one user, one project and one application credential. Dropping it ends it.
#[derive(Debug)]
pub struct Keystone {
    port: u16,
    shared: Arc<KeystoneState>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct KeystoneState {
    /// Where Swift gives tokens.
    swift: u16,
    /// Where clients are sent.
    account: u16,
    logins: AtomicUsize,
    stopping: AtomicBool,
    password: Mutex<String>,
}

impl Keystone {
    /// The user's name.
    pub const USER: &'static str = "wale";
    /// The user's identifier.
    pub const USER_ID: &'static str = "u1";
    /// The password to begin with.
    pub const PASSWORD: &'static str = "a pass\"word";
    /// The project's name.
    pub const PROJECT: &'static str = "backups";
    /// The project's identifier.
    pub const PROJECT_ID: &'static str = "p1";
    /// The domain's name; its identifier is `default`.
    pub const DOMAIN: &'static str = "Default";
    /// The application credential's identifier; its name is `archive`.
    pub const CREDENTIAL_ID: &'static str = "c1";
    /// Its secret.
    pub const CREDENTIAL_SECRET: &'static str = "credential secret";

    /// Starts one on a free loopback port before this Swift. Clients are sent to the account at the port `account`: the
    /// server's own, or that of a proxy before it.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start(server: &SwiftServer, account: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let shared = Arc::new(KeystoneState {
            swift: server.port(),
            account,
            logins: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            password: Mutex::new(Self::PASSWORD.to_owned()),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    if shared.stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    // A client that breaks off is no concern of the test's.
                    let _ = shared.serve(stream);
                }
            })
        };
        Self {
            port,
            shared,
            acceptor: Some(acceptor),
        }
    }

    /// The loopback port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many tokens it has given.
    #[must_use]
    pub fn logins(&self) -> usize {
        self.shared.logins.load(Ordering::Relaxed)
    }

    /// Changes the user's password.
    pub fn set_password(&self, password: &str) {
        let kept = self.shared.password.lock();
        password.clone_into(&mut kept.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Keystone {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // The acceptor waits for a connection: here is one.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl KeystoneState {
    fn serve(&self, mut stream: TcpStream) -> Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line == "\r\n" {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let asked = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let (status, token, answer) = match first.split(' ').nth(1) {
            Some("/v2.0/tokens") => self.second(&asked),
            Some("/v3/auth/tokens") => self.third(&asked),
            _ => refusal(404, "Not Found"),
        };
        let text = answer.to_string();
        let token = token.map_or_else(String::new, |token| format!("X-Subject-Token: {token}\r\n"));
        write!(
            stream,
            "HTTP/1.1 {status} -\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{text}",
            text.len()
        )?;
        stream.flush()
    }

    fn granted(&self) -> Option<String> {
        self.logins.fetch_add(1, Ordering::Relaxed);
        token(self.swift, Role::Owner)
    }

    fn has_password(&self, told: &Value) -> bool {
        let kept = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        *told == json!(*kept)
    }

    fn second(&self, asked: &Value) -> (u16, Option<String>, Value) {
        let auth = &asked["auth"];
        let user = &auth["passwordCredentials"];
        let is_project =
            auth["tenantName"] == Keystone::PROJECT || auth["tenantId"] == Keystone::PROJECT_ID;
        if user["username"] != Keystone::USER
            || !self.has_password(&user["password"])
            || !is_project
        {
            return refusal(401, "Unauthorized");
        }
        let Some(token) = self.granted() else {
            return refusal(503, "Service Unavailable");
        };
        let place = |region: &str, port: u16| {
            json!({
                "region": region, "id": "e", "publicURL": account_url(port), "internalURL": account_url(1),
                "adminURL": "http://127.0.0.1:1",
            })
        };
        let answer = json!({"access": {
            "token": {"id": token, "expires": "2099-01-01T00:00:00Z", "issued_at": "2026-01-01T00:00:00.000000Z"},
            "serviceCatalog": [
                {"type": "identity", "name": "keystone", "endpoints": [place("One", 1)], "endpoints_links": []},
                {"type": "object-store", "name": "swift", "endpoints_links": [],
                 "endpoints": [place("One", self.account), place("Two", 1)]},
            ],
            "user": {"id": Keystone::USER_ID, "name": Keystone::USER, "roles": []},
        }});
        (200, None, answer)
    }

    fn third(&self, asked: &Value) -> (u16, Option<String>, Value) {
        let auth = &asked["auth"];
        let identity = &auth["identity"];
        let is_known = if identity["methods"] == json!(["password"]) {
            let user = &identity["password"]["user"];
            let project = &auth["scope"]["project"];
            is_named(user, Keystone::USER, Keystone::USER_ID)
                && self.has_password(&user["password"])
                && is_named(project, Keystone::PROJECT, Keystone::PROJECT_ID)
        } else if identity["methods"] == json!(["application_credential"]) {
            let credential = &identity["application_credential"];
            let by_name = credential["name"] == "archive"
                && is_named(&credential["user"], Keystone::USER, Keystone::USER_ID);
            // One that names a scope is refused: it has its own.
            (by_name || credential["id"] == Keystone::CREDENTIAL_ID)
                && credential["secret"] == Keystone::CREDENTIAL_SECRET
                && auth["scope"].is_null()
        } else {
            return refusal(400, "Bad Request");
        };
        if !is_known {
            return refusal(401, "Unauthorized");
        }
        let Some(token) = self.granted() else {
            return refusal(503, "Service Unavailable");
        };
        let place = |region: &str, interface: &str, port: u16| json!({"id": "e", "interface": interface, "region": region, "region_id": region, "url": account_url(port)});
        let answer = json!({"token": {
            "methods": ["password"], "expires_at": "2099-01-01T00:00:00.000000Z",
            "user": {"id": Keystone::USER_ID, "name": Keystone::USER},
            "catalog": [
                {"type": "identity", "id": "1", "name": "keystone", "endpoints": [place("One", "public", 1)]},
                {"type": "object-store", "id": "2", "name": "swift", "endpoints": [
                    place("One", "internal", 1), place("Two", "public", 1), place("One", "public", self.account),
                ]},
            ],
        }});
        (201, Some(token), answer)
    }
}

/// The account at this port.
fn account_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}{}", SwiftServer::ACCOUNT)
}

/// Whether a user or a project is the known one: by its identifier, or by its name in the domain.
fn is_named(told: &Value, name: &str, id: &str) -> bool {
    let domain = &told["domain"];
    let is_domain = domain["id"] == "default" || domain["name"] == Keystone::DOMAIN;
    told["id"] == id || told["name"] == name && is_domain
}

fn refusal(status: u16, title: &str) -> (u16, Option<String>, Value) {
    let message = "The request you have made requires authentication.";
    let answer = json!({"error": {"code": status, "message": message, "title": title}});
    (status, None, answer)
}
