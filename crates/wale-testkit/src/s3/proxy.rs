//! A proxy that stands between wale and an S3 server, and makes the network and the store misbehave.
//!
//! ```text
//!   wale ──▶ FaultProxy ──▶ server on loopback
//!             │ notes every request, matches it against the faults in force
//!             └ one thread a connection; a new connection to the server for every request
//! ```
//!
//! It reads HTTP/1.1 as far as the framing of messages goes and passes bodies on in pieces, unless they are
//! to be changed. It also serves as an HTTP proxy: addresses in request lines are cut down to paths, and
//! `CONNECT` opens a tunnel, in both cases always to its one server. With a [`TlsIdentity`] it speaks TLS
//! to its clients. Dropping it ends every connection and joins every thread.

use std::collections::HashMap;
use std::io::{BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::kind::Kind;
use super::message::{Framing, Head, copy_body, read_body};
use super::rule::{Action, Answer, Fault, Seen, origin_form, without};
use super::server::BUCKET;
use super::tls::TlsIdentity;

/// How a network that is cut looks from one of its ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Partition {
    /// Connections end as soon as they are opened.
    Refuse,
    /// Connections open, and nothing is ever heard.
    Silence,
}

/// The proxy.
#[derive(Debug)]
pub struct FaultProxy {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// What is spoken with the client.
#[derive(Debug)]
enum Mode {
    Http,
    Https(Arc<ServerConfig>),
    Bytes,
}

#[derive(Debug)]
struct Shared {
    server: u16,
    mode: Mode,
    stopping: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
    /// Held by one conditional write of wale's trials at a time.
    trials: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<(Fault, Action)>,
    seen: Vec<Seen>,
    partition: Option<Partition>,
    /// Grows when faults are taken away: a stalled connection is released.
    epoch: u64,
    streams: HashMap<u64, TcpStream>,
    streams_made: u64,
}

impl FaultProxy {
    /// A proxy on a free loopback port before the server at loopback port `server`.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn start(server: u16) -> Self {
        Self::listen(server, Mode::Http)
    }

    /// A proxy that knows nothing of HTTP and carries bytes both ways, for servers that speak something else.
    /// Only partitions befall it.
    ///
    /// # Panics
    /// As [`FaultProxy::start`].
    #[must_use]
    pub fn bytes(server: u16) -> Self {
        Self::listen(server, Mode::Bytes)
    }

    /// As [`FaultProxy::start`], with TLS towards the client.
    ///
    /// # Panics
    /// As [`FaultProxy::start`].
    #[must_use]
    pub fn start_tls(server: u16, identity: &TlsIdentity) -> Self {
        Self::listen(server, Mode::Https(identity.server_config()))
    }

    /// No proxy but a small service of its own, for what no real program can be had: every request is
    /// answered by `answer`.
    ///
    /// # Panics
    /// As [`FaultProxy::start`].
    #[must_use]
    pub fn endpoint(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let proxy = Self::listen(0, Mode::Http);
        proxy.fault(Fault::any(), Action::AnswerWith(Arc::new(answer)));
        proxy
    }

    fn listen(server: u16, mode: Mode) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let port = listener.local_addr().expect("a bound address").port();
        let shared = Arc::new(Shared {
            server,
            mode,
            stopping: AtomicBool::new(false),
            state: Mutex::default(),
            changed: Condvar::new(),
            trials: Mutex::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.accept(&listener))
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

    /// Puts a fault in force. Several may befall one request; of those that end it, the first does.
    pub fn fault(&self, fault: Fault, action: Action) {
        self.shared.lock().faults.push((fault, action));
    }

    /// Takes all faults away and releases what stalls: those connections end.
    pub fn clear(&self) {
        let mut state = self.shared.lock();
        state.faults.clear();
        state.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// Cuts the network: open connections end, new ones fare as `how` says.
    pub fn partition(&self, how: Partition) {
        let mut state = self.shared.lock();
        state.partition = Some(how);
        state.end_streams();
    }

    /// Mends the network.
    pub fn heal(&self) {
        let mut state = self.shared.lock();
        state.partition = None;
        state.end_streams();
        state.epoch += 1;
        self.shared.changed.notify_all();
    }

    /// Every request so far, in the order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    /// How many requests of a kind came whose key holds `key`.
    #[must_use]
    pub fn count(&self, kind: Kind, key: &str) -> usize {
        let state = self.shared.lock();
        let fits = |seen: &&Seen| seen.kind == kind && seen.key.contains(key);
        state.seen.iter().filter(fits).count()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.lock().seen.clear();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.clear();
        self.shared.lock().end_streams();
        // The acceptor waits for a connection: here is one.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    fn end_streams(&mut self) {
        for stream in self.streams.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        let mut workers: Vec<JoinHandle<()>> = Vec::new();
        for stream in listener.incoming() {
            if self.is_stopping() {
                break;
            }
            let Ok(stream) = stream else { continue };
            workers.retain(|worker| !worker.is_finished());
            let shared = Arc::clone(self);
            workers.push(std::thread::spawn(move || {
                let Ok(registered) = shared.register(&stream) else {
                    return;
                };
                // A connection that breaks is what tests are about: nobody is told.
                let _ = shared.serve(stream);
                shared.lock().streams.remove(&registered);
            }));
        }
        self.lock().end_streams();
        for worker in workers {
            let _ = worker.join();
        }
    }

    /// Makes a stream known, so that it can be ended from outside.
    fn register(&self, stream: &TcpStream) -> Result<u64> {
        let copy = stream.try_clone()?;
        let mut state = self.lock();
        if self.is_stopping() {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        state.streams_made += 1;
        let id = state.streams_made;
        state.streams.insert(id, copy);
        Ok(id)
    }

    fn serve(&self, stream: TcpStream) -> Result<()> {
        let partition = self.lock().partition;
        match partition {
            Some(Partition::Refuse) => return Ok(()),
            Some(Partition::Silence) => return self.stall(),
            None => {}
        }
        stream.set_nodelay(true)?;
        let client = match &self.mode {
            Mode::Bytes => return self.carry(stream),
            Mode::Http => Client::Plain(stream),
            Mode::Https(tls) => {
                let session = ServerConnection::new(Arc::clone(tls)).map_err(Error::other)?;
                Client::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        };
        let mut client = BufReader::new(client);
        while let Some(head) = Head::read(&mut client)? {
            if head.first.starts_with("CONNECT ") {
                return self.tunnel(client, &head);
            }
            if !self.exchange(&mut client, head)? {
                break;
            }
        }
        Ok(())
    }

    /// Notes a request, and says which faults befall it.
    fn note(&self, head: &Head) -> (usize, Vec<Action>) {
        let seen = Seen::new(head, BUCKET);
        let mut state = self.lock();
        let mut actions = Vec::new();
        for (fault, action) in &mut state.faults {
            if fault.befalls(&seen) {
                actions.push(action.clone());
            }
        }
        state.seen.push(seen);
        (state.seen.len() - 1, actions)
    }

    fn note_status(&self, request: usize, status: u16) {
        // Requests may have been forgotten meanwhile.
        if let Some(seen) = self.lock().seen.get_mut(request) {
            seen.status = status;
        }
    }

    /// Waits for `limit`, or until the faults are taken away.
    fn pause(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        let epoch = state.epoch;
        while state.epoch == epoch && !self.is_stopping() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Err(ErrorKind::ConnectionAborted.into())
    }

    fn stall(&self) -> Result<()> {
        self.pause(Duration::from_hours(24))
    }

    /// One request and its reply. Gives whether the connection goes on.
    fn exchange(&self, client: &mut BufReader<Client>, mut head: Head) -> Result<bool> {
        let method = head.first.split(' ').next().unwrap_or_default().to_owned();
        let goes_on = head.get("connection") != Some("close");
        let (request, actions) = self.note(&head);
        let framing = head.request_framing();
        for action in &actions {
            let answer = match action {
                Action::Delay(pause) => {
                    self.pause(*pause)?;
                    continue;
                }
                Action::Stall => {
                    copy_body(client, &mut std::io::sink(), framing, None)?;
                    self.stall()?;
                    return Ok(false);
                }
                Action::CutBefore => return Ok(false),
                Action::Answer(answer) => answer.clone(),
                Action::AnswerWith(answer) => answer(&Seen::new(&head, BUCKET)),
                _ => continue,
            };
            copy_body(client, &mut std::io::sink(), framing, None)?;
            self.answer(client, request, &method, &answer)?;
            return Ok(goes_on);
        }
        // Both servers check first and write later. Whether wale finds that out depends on luck, and tests must not:
        // behind the proxy they keep conditions as Amazon does.
        let is_conditional = head.get("if-none-match").is_some()
            || head.first.contains("ifGenerationMatch=0")
            || head.first.contains("upload_id=");
        let is_trial = head.first.contains("wale_probe_") && is_conditional;
        let _turn = is_trial.then(|| {
            let turn = self.trials.lock();
            turn.unwrap_or_else(PoisonError::into_inner)
        });
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server))?;
        server.set_nodelay(true)?;
        let registered = self.register(&server)?;
        let result = match pass_request(client, &mut head, &mut server, &actions) {
            Ok(true) => self.pass_reply(client, server, request, &method, &actions),
            other => other,
        };
        self.lock().streams.remove(&registered);
        Ok(result? && goes_on)
    }

    fn answer(
        &self,
        client: &mut BufReader<Client>,
        request: usize,
        method: &str,
        answer: &Answer,
    ) -> Result<()> {
        let (head, body) = answer.message(method);
        self.note_status(request, answer.status);
        let to = client.get_mut();
        head.write(to)?;
        to.write_all(body)?;
        to.flush()
    }

    /// Passes the reply on. Gives whether the client's connection can go on.
    fn pass_reply(
        &self,
        client: &mut BufReader<Client>,
        server: TcpStream,
        request: usize,
        method: &str,
        actions: &[Action],
    ) -> Result<bool> {
        let mut server = BufReader::new(server);
        let mut head = loop {
            match Head::read(&mut server)? {
                None => return Ok(false),
                Some(head) if head.status() >= 200 => break head,
                Some(_) => {}
            }
        };
        let framing = head.reply_framing(method);
        head.remove("connection");
        if framing == Framing::UntilClose {
            head.set("Connection", "close");
        }
        for action in actions {
            match action {
                Action::LoseReply => {
                    copy_body(&mut server, &mut std::io::sink(), framing, None)?;
                    return Ok(false);
                }
                Action::ReplaceReply(answer) => {
                    copy_body(&mut server, &mut std::io::sink(), framing, None)?;
                    self.answer(client, request, method, answer)?;
                    return Ok(true);
                }
                Action::EditReply(edit) => {
                    let mut body = read_body(&mut server, framing)?;
                    edit(&mut body);
                    head.remove("transfer-encoding");
                    if method != "HEAD" {
                        head.set("Content-Length", &body.len().to_string());
                    }
                    self.note_status(request, head.status());
                    head.write(client.get_mut())?;
                    client.get_mut().write_all(&body)?;
                    client.get_mut().flush()?;
                    return Ok(true);
                }
                Action::CutReply(bytes) | Action::StallReply(bytes) => {
                    self.note_status(request, head.status());
                    head.write(client.get_mut())?;
                    copy_body(&mut server, client.get_mut(), framing, Some(*bytes))?;
                    if matches!(action, Action::StallReply(_)) {
                        self.stall()?;
                    }
                    return Ok(false);
                }
                _ => {}
            }
        }
        self.note_status(request, head.status());
        head.write(client.get_mut())?;
        copy_body(&mut server, client.get_mut(), framing, None)?;
        Ok(framing != Framing::UntilClose)
    }

    /// Opens a tunnel for a client that asked for it.
    fn tunnel(&self, mut client: BufReader<Client>, head: &Head) -> Result<()> {
        let (request, _) = self.note(head);
        self.answer(&mut client, request, "HEAD", &Answer::new(200, ""))?;
        match client.into_inner() {
            Client::Plain(stream) => self.carry(stream),
            Client::Tls(_) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Carries bytes both ways between a client and the server.
    fn carry(&self, mut client: TcpStream) -> Result<()> {
        let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server))?;
        let registered = self.register(&server)?;
        let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
        let back = std::thread::spawn(move || {
            let _ = std::io::copy(&mut from_server, &mut to_client);
            let _ = to_client.shutdown(Shutdown::Both);
        });
        let _ = std::io::copy(&mut client, &mut server);
        let _ = server.shutdown(Shutdown::Both);
        let _ = back.join();
        self.lock().streams.remove(&registered);
        Ok(())
    }
}

/// Passes the request on. Gives whether a reply is to be expected.
fn pass_request(
    client: &mut BufReader<Client>,
    head: &mut Head,
    server: &mut TcpStream,
    actions: &[Action],
) -> Result<bool> {
    let framing = head.request_framing();
    let words: Vec<&str> = head.first.split(' ').collect();
    if let [method, target, version] = words[..] {
        head.first = format!("{method} {} {version}", origin_form(target));
    }
    head.set("Connection", "close");
    let mut edits = Vec::new();
    let mut at_most = None;
    for action in actions {
        match action {
            Action::StripHeader(name) => head.remove(name),
            Action::AddQuery(query) => add_query(head, query),
            Action::StripQuery(name) => head.first = without_pair(&head.first, name),
            Action::EditUpload(edit) => edits.push(edit),
            Action::CutUpload(bytes) => at_most = Some(*bytes),
            _ => {}
        }
    }
    let mut server = Tolerant {
        inner: server,
        failed: false,
    };
    if edits.is_empty() {
        head.write(&mut server)?;
        copy_body(client, &mut server, framing, at_most)?;
        return Ok(at_most.is_none());
    }
    let mut body = read_body(client, framing)?;
    for edit in edits {
        edit(&mut body);
    }
    head.remove("transfer-encoding");
    head.set("Content-Length", &body.len().to_string());
    head.write(&mut server)?;
    server.write_all(&body)?;
    Ok(true)
}

/// Adds to the query of a request.
fn add_query(head: &mut Head, query: &str) {
    let words: Vec<&str> = head.first.split(' ').collect();
    if let [method, target, version] = words[..] {
        let before = if target.contains('?') { '&' } else { '?' };
        head.first = format!("{method} {target}{before}{query} {version}");
    }
}

/// A request line without this pair in its query.
fn without_pair(first: &str, name: &str) -> String {
    let words: Vec<&str> = first.split(' ').collect();
    match words[..] {
        [method, target, version] => format!("{method} {} {version}", without(target, name)),
        _ => first.to_owned(),
    }
}

/// A server may answer and close before it has read a body: the rest of the body is then dropped, so that
/// its answer is passed on.
struct Tolerant<'a> {
    inner: &'a mut TcpStream,
    failed: bool,
}

impl Write for Tolerant<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        if !self.failed && self.inner.write_all(bytes).is_err() {
            self.failed = true;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The client's side of a connection.
enum Client {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Read for Client {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(bytes),
            Self::Tls(stream) => stream.read(bytes),
        }
    }
}

impl Write for Client {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{get, request};

    /// A server that reports what it was sent.
    fn echo() -> FaultProxy {
        FaultProxy::endpoint(|seen| {
            let secret = seen.header("x-secret").unwrap_or("none");
            Answer::new(200, &format!("{} {} {secret}", seen.method, seen.path))
        })
    }

    #[test]
    fn requests_are_passed_on_noted_and_counted() {
        let server = echo();
        let proxy = FaultProxy::start(server.port());
        let reply = get(proxy.port(), "/bkt/a%20b").unwrap();
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "GET /bkt/a%20b none")
        );
        let put = "PUT http://bkt.s3.test/c HTTP/1.1\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(request(proxy.port(), put).unwrap().text(), "PUT /c none");
        assert_eq!(proxy.count(Kind::Get, "a b"), 1);
        assert_eq!(proxy.count(Kind::Put, ""), 1);
        assert!(proxy.requests().iter().all(|seen| seen.status == 200));
        proxy.forget();
        assert!(proxy.requests().is_empty());
    }

    #[test]
    fn faults_befall_requests() {
        let server = echo();
        let proxy = FaultProxy::start(server.port());
        let answer = Answer::error(503, "SlowDown", "slowly");
        proxy.fault(Fault::any().once(), Action::Answer(answer));
        assert_eq!(get(proxy.port(), "/bkt/a").unwrap().status, 503);
        assert_eq!(server.requests().len(), 0);

        proxy.fault(Fault::any().once(), Action::LoseReply);
        assert!(get(proxy.port(), "/bkt/a").map_or(0, |reply| reply.status) == 0);
        assert_eq!(server.requests().len(), 1);

        proxy.fault(Fault::any().once(), Action::shorten_reply());
        // The byte in the middle of "GET /bkt/a none" is the second k.
        assert_eq!(
            get(proxy.port(), "/bkt/a").unwrap().text(),
            "GET /bk/a none"
        );

        proxy.fault(Fault::any().once(), Action::CutReply(3));
        assert_eq!(get(proxy.port(), "/bkt/a").unwrap().text(), "GET");

        proxy.fault(Fault::any().once(), Action::StripHeader("x-secret"));
        let secret = "GET /bkt/a HTTP/1.1\r\nX-Secret: s\r\nConnection: close\r\n\r\n";
        assert_eq!(
            request(proxy.port(), secret).unwrap().text(),
            "GET /bkt/a none"
        );
        assert_eq!(
            request(proxy.port(), secret).unwrap().text(),
            "GET /bkt/a s"
        );
    }

    #[test]
    fn a_partition_cuts_and_heals_and_what_stalls_is_released() {
        let server = echo();
        let proxy = FaultProxy::start(server.port());
        proxy.partition(Partition::Refuse);
        assert!(get(proxy.port(), "/bkt/a").map_or(0, |reply| reply.status) == 0);
        proxy.heal();
        assert_eq!(get(proxy.port(), "/bkt/a").unwrap().status, 200);
        proxy.fault(Fault::any(), Action::Stall);
        let port = proxy.port();
        let client = std::thread::spawn(move || get(port, "/bkt/b"));
        crate::wait_until("the request", Duration::from_secs(10), || {
            (proxy.count(Kind::Get, "b") == 1).then_some(())
        });
        proxy.clear();
        assert!(client.join().unwrap().map_or(0, |reply| reply.status) == 0);
    }
}
