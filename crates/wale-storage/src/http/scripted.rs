//! A server for the tests of stores, on loopback: it answers by a script what no real server shows at will, and
//! remembers what it was asked.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server does with a request.
pub(crate) enum Reply {
    /// Status, headers and body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The head of such an answer, so many bytes of its body, and the end of the connection.
    Cut(Vec<(&'static str, String)>, Vec<u8>, usize),
    /// The same, and then nothing, for ever.
    Stall(Vec<(&'static str, String)>, Vec<u8>, usize),
    /// Nothing, for ever.
    Silence,
    /// The end of the connection.
    Close,
}

#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        let (_, value) = lines.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(value.trim().to_owned())
    }

    /// Whether it belongs to the trials of a store, which these tests are not about.
    pub(crate) fn is_probe(&self) -> bool {
        self.target.contains("wale_probe_")
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// How a server reads the bodies of writes that are no trials.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    AtOnce,
    /// So many bytes, a pause, and so on.
    Slow(usize, Duration),
    /// Not at all, for ever.
    Never,
}

/// A server that answers by a script, and remembers what it was asked.
pub(crate) struct Server {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(crate) fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(Pace::AtOnce, script)
    }

    pub(crate) fn start_at(
        pace: Pace,
        script: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = listener(pace);
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (noted, script): (_, Arc<Script>) = (Arc::clone(&seen), Arc::new(script));
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, pace, Arc::clone(&noted), Arc::clone(&script)));
            }
        });
        Self { port, seen, task }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("not poisoned").clone()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        let seen = self.seen();
        let asked = seen.iter().filter(|seen| !seen.is_probe());
        asked
            .map(|seen| format!("{} {}", seen.method, seen.target))
            .collect()
    }
}

/// A socket on loopback. One that does not read at once has little room for what it has not read.
fn listener(pace: Pace) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    if !matches!(pace, Pace::AtOnce) {
        socket.set_recv_buffer_size(64 << 10).expect("a small one");
    }
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(address).expect("binds");
    socket.listen(64).expect("listens")
}

async fn serve(
    mut stream: TcpStream,
    pace: Pace,
    noted: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Script>,
) {
    while let Some(seen) = read(&mut stream, pace).await {
        noted.lock().expect("not poisoned").push(seen.clone());
        let mut stalls = false;
        let (head, body, ends) = match script(&seen) {
            Reply::Close => return,
            Reply::Silence => return std::future::pending().await,
            Reply::Stall(headers, body, cut) => {
                stalls = true;
                (head(200, &headers, body.len()), body[..cut].to_vec(), true)
            }
            Reply::Cut(headers, body, cut) => {
                (head(200, &headers, body.len()), body[..cut].to_vec(), true)
            }
            Reply::Answer(status, headers, body) if seen.method == "HEAD" => {
                (head(status, &headers, body.len()), Vec::new(), false)
            }
            Reply::Answer(status, headers, body) => {
                (head(status, &headers, body.len()), body, false)
            }
        };
        let whole = [head.into_bytes(), body].concat();
        if stream.write_all(&whole).await.is_err() {
            return;
        }
        if stalls {
            return std::future::pending().await;
        }
        if ends {
            return;
        }
    }
}

fn head(status: u16, headers: &[(&str, String)], length: usize) -> String {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n").expect("a String takes everything");
    }
    head + "\r\n"
}

async fn read(stream: &mut TcpStream, pace: Pace) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("a head is text");
    let mut words = head.split(' ');
    let mut seen = Seen {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        head: head.clone(),
        body: Vec::new(),
    };
    let length = seen
        .header("content-length")
        .map_or(0, |text| text.parse().expect("a number"));
    seen.body = vec![0; length];
    match pace {
        Pace::Never if seen.method == "PUT" && !seen.is_probe() => std::future::pending().await,
        Pace::Slow(step, pause) if !seen.is_probe() => {
            for piece in seen.body.chunks_mut(step) {
                tokio::time::sleep(pause).await;
                stream.read_exact(piece).await.ok()?;
            }
        }
        _ => drop(stream.read_exact(&mut seen.body).await.ok()?),
    }
    Some(seen)
}

pub(crate) fn answer(status: u16) -> Reply {
    Reply::Answer(status, Vec::new(), Vec::new())
}
