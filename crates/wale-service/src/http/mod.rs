//! The HTTP endpoint: HTTP/1.0 and 1.1 on hyper, and nothing between it and the routes, because raw paths, limits and
//! deliberately broken replies must stay in our hands.
//!
//! ```text
//! accept → Connections::enter (makes room) → TLS, if set → hyper, limits → routes::find → guard (head, name, token)
//!   → the body → Connections: busy → wal | admin → Reply → socket
//! ```
//!
//! It refuses to know what the operations do. Invariants: every connection is a task that [`serve`] joins; nobody who
//! is refused, or has not sent a whole request, holds a connection that somebody else needs; requests that are no
//! push hold three quarters of the connections at most, and those of no recovery a quarter.

mod admin;
mod answer;
mod client;
mod connections;
mod guard;
mod host;
mod io;
mod name;
mod page;
mod reply;
mod routes;
mod tls;
mod turns;
mod validity;
mod wal;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, HeaderMap};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wale_ops::{Kind, OpError};

pub use answer::{
    ABSENT, ANSWER_HEADER, ARCHIVED, HANDED, HANDED_HEADER, MAY_START, SENT, TAKE_HEADER,
};
use client::{Client, Spoken};
pub(crate) use connections::Connections;
#[cfg(test)]
pub(crate) use connections::Share;
use connections::{Busy, Slot};
pub(crate) use host::Hosts;
use io::{ClientSocket, Flushed, Transport};
use reply::{Failure, Manner, Reply, ReplyBody, Voice};
#[cfg(test)]
pub(crate) use routes::names as route_names;
use routes::{NoRoute, Route};
pub use tls::Tls;
pub(crate) use turns::Turns;
use wal::RawName;

use crate::app::App;
use crate::metrics::Dialect;

/// Accepts and serves connections until `stop`; then lets idle ones go, and the others when their reply is sent.
/// Returns when all have ended. Dropping the future cuts those that have not.
pub(crate) async fn serve(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    let mut open = JoinSet::new();
    loop {
        // Ended tasks are taken off the set, so that it does not grow.
        while open.try_join_next().is_some() {}
        let Some(accepted) = stop.run_until_cancelled(listener.accept()).await else {
            break;
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, mostly: connections that end give some back.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(slot) = stop.run_until_cancelled(app.connections.enter()).await else {
            break;
        };
        open.spawn(connection(
            stream,
            peer,
            slot,
            Arc::clone(&app),
            stop.clone(),
        ));
    }
    drop(listener);
    app.connections.evict_idle();
    while open.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    slot: Slot,
    app: Arc<App>,
    stop: CancellationToken,
) {
    // Replies are small and whole: waiting for more to send would only delay them. A failure here harms nothing.
    let _ = stream.set_nodelay(true);
    let Some((stream, spoken)) = secured(stream, peer, &slot, &app, &stop).await else {
        return;
    };
    let flushed = Flushed::default();
    let socket = ClientSocket::new(stream, flushed.clone(), &app.limits);
    let slot = Arc::new(slot);
    let service = {
        let (app, slot) = (Arc::clone(&app), Arc::clone(&slot));
        service_fn(move |request| {
            let client = Client {
                spoken,
                slot: Arc::clone(&slot),
                flushed: flushed.clone(),
                peer: peer.ip().to_canonical(),
            };
            answer(Arc::clone(&app), client, request)
        })
    };
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.head_timeout)
        .max_buf_size(app.limits.head_bytes.max(8192))
        .serve_connection(TokioIo::new(socket), service);
    let ended = {
        let mut serving = Pin::new(&mut connection);
        tokio::select! {
            // First, so that a request that is here already is answered, no matter who must make room.
            biased;
            ended = serving.as_mut() => ended,
            () = slot.cut().cancelled() => return,
            () = leave(&slot, &stop) => {
                if slot.is_idle() {
                    return;
                }
                serving.as_mut().graceful_shutdown();
                let Some(ended) = slot.cut().run_until_cancelled(serving).await else {
                    return;
                };
                ended
            }
        }
    };
    if let Err(error) = ended {
        log_ended(&app, peer, &error);
    }
    let socket = connection.into_parts().io.into_inner();
    let mut closing = pin!(socket.close_gently());
    tokio::select! {
        () = closing.as_mut() => {}
        () = slot.evicted() => {}
    }
}

/// The connection as the settings want it; `None` when its client does not finish a handshake in time. Until then it
/// counts as idle: a client that only opens connections, or stops in the middle of a handshake, makes room for others.
///
/// A client that speaks plain HTTP where TLS is wanted gets an HTTP reply: GNU wget takes anything else, TLS's alert
/// too, for the body of an HTTP/0.9 reply and ends with 0, and PostgreSQL would delete a segment that nobody stored.
async fn secured(
    stream: TcpStream,
    peer: SocketAddr,
    slot: &Slot,
    app: &App,
    stop: &CancellationToken,
) -> Option<(Transport, Spoken)> {
    let Some(tls) = &app.tls else {
        return Some((Transport::Plain(stream), Spoken::AsSet));
    };
    let shaking = async {
        let mut first = [0_u8; 1];
        // Nothing at all is left to the handshake: it knows what an end means.
        if stream.peek(&mut first).await? == 1 && tls::is_plain_text(first[0]) {
            return Ok((Transport::Plain(stream), Spoken::PlainHttp));
        }
        let shaken = tls.accept(stream).await?;
        Ok((Transport::Tls(Box::new(shaken)), Spoken::AsSet))
    };
    let shaking = tokio::time::timeout(app.limits.head_timeout, shaking);
    let shaken: Result<std::io::Result<_>, _> = tokio::select! {
        shaken = shaking => shaken,
        () = leave(slot, stop) => return None,
    };
    let why = match shaken {
        Ok(Ok(secured)) => return Some(secured),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    app.metrics.handshake_failed();
    if app.quiet.allows("handshake", "failed") {
        tracing::info!(%peer, "a TLS handshake failed ({why}); clients must use https:// and trust the certificate");
    }
    None
}

/// Done when the connection must end: it is evicted, or the sidecar stops.
async fn leave(slot: &Slot, stop: &CancellationToken) {
    tokio::select! {
        () = slot.evicted() => {}
        () = stop.cancelled() => {}
    }
}

fn log_ended(app: &App, peer: SocketAddr, error: &hyper::Error) {
    if error.is_parse() || error.is_timeout() {
        // hyper has answered 400, 414 or 431, or nothing to a head that did not come. Its text holds no client data.
        if app.quiet.allows("connection", "no request") {
            tracing::info!(%peer, %error, "a connection was closed: no proper HTTP request came");
        }
    } else {
        // A reply cut short on purpose ends here too, as does a client that went away.
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// One request, from head to reply.
async fn answer(
    app: Arc<App>,
    client: Client,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let found =
        routes::find(&parts.method, path).and_then(|route| for_browsers(route, &parts.headers));
    let (manner, route) = match found {
        Ok(route) | Err(NoRoute::Method { route, .. }) => (route.manner(), route.name()),
        Err(NoRoute::Path) => (Manner::CutShort, "other"),
    };
    let voice = voice(&parts.headers);
    let admitted = match client.spoken {
        Spoken::AsSet => admitted(&app, &client.slot, found, &parts, body).await,
        Spoken::PlainHttp => Err(plain_http(&app, route)),
    };
    let is_page = found == Ok(Route::Page);
    let (reply, busy, says) = match admitted {
        Ok((route, busy)) => {
            let reply = dispatch(&app, route, &parts, voice, &client).await;
            let says = route.answer(parts.uri.query());
            (reply.unwrap_or_else(Reply::from), busy, says)
        }
        Err(failure) => {
            log_refused(&app, route, path, &failure);
            (Reply::from(failure), None, None)
        }
    };
    let status = reply.status();
    app.metrics.request(route, status.as_u16());
    let mut response = reply.render(manner, voice, &client.flushed, busy);
    if is_page {
        page::guard(response.headers_mut());
    }
    if let Some(says) = says.filter(|_| status == StatusCode::OK) {
        let headers = response.headers_mut();
        // What was handed over says so itself.
        headers.entry(answer::ANSWER_HEADER).or_insert(says);
    }
    Ok(response)
}

fn log_refused(app: &App, route: &'static str, path: &str, failure: &Failure) {
    if app.quiet.allows(route, failure.kind) {
        tracing::info!(
            route,
            status = failure.status.as_u16(),
            path = shown(path),
            "refused: {}",
            failure.message
        );
    }
}

/// The answer to a client that speaks plain HTTP to the TLS port. Nothing that was sent is read.
fn plain_http(app: &App, route: &'static str) -> Failure {
    app.metrics.plain_http();
    let at = app.archive.clock().now();
    app.journal.note(|entries| {
        entries.plain_http.count += 1;
        entries.plain_http.last = Some(at);
    });
    if app.quiet.allows("plain HTTP", "on the TLS port") {
        tracing::warn!(
            route,
            hint = "write https:// in archive_command, restore_command and probes; docs/guide/tls.md has the order",
            "a client speaks plain HTTP to the TLS port: it is refused, and WAL that it hands over is not archived"
        );
    }
    Failure::new(
        StatusCode::BAD_REQUEST,
        "plain-http",
        "this port speaks TLS: ask with https://, not with http://",
    )
    .hint("write https:// in archive_command, restore_command or the probe; nothing was stored and nothing was looked up")
    .closing()
}

/// The client's text for a log line: escaped, and no more of it than a line bears.
fn shown(path: &str) -> String {
    path.chars()
        .take(100)
        .flat_map(char::escape_default)
        .collect()
}

/// Everything that may refuse a request before its route begins. Until here its connection counts as idle, and makes
/// room when others come. A client that shows no token, or does not send what it announced, holds nothing. The probes
/// never hold their connection: their answer is there at once.
async fn admitted<'a>(
    app: &App,
    slot: &Slot,
    found: Result<Route<'a>, NoRoute<'a>>,
    parts: &Parts,
    body: Incoming,
) -> Result<(Route<'a>, Option<Busy>), Failure> {
    let route = match checked(app, found, parts) {
        Ok(route) => route,
        // Nothing is read for a client that is refused, so no further request can follow on this connection.
        Err(failure) if !body.is_end_stream() => return Err(failure.closing()),
        Err(failure) => return Err(failure),
    };
    guard::body(body, &app.limits).await?;
    if route.is_probe() {
        return Ok((route, None));
    }
    match slot.busy(route.share()) {
        Some(busy) => Ok((route, Some(busy))),
        None => Err(crowded()),
    }
}

/// What the head alone can be refused for.
fn checked<'a>(
    app: &App,
    found: Result<Route<'a>, NoRoute<'a>>,
    parts: &Parts,
) -> Result<Route<'a>, Failure> {
    guard::head(parts, &app.limits)?;
    let route = match found {
        Ok(route) => route,
        Err(NoRoute::Path) => return Err(no_such_path()),
        Err(NoRoute::Method { allow, .. }) => {
            let mut failure = Failure::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "usage",
                "this address does not take this method",
            );
            failure.allow = Some(allow);
            return Err(failure);
        }
    };
    app.hosts.check(route, parts)?;
    guard::token(route, &parts.headers, app.token.as_ref(), app.token_for)?;
    if !route.is_archive() && !route.is_probe() && app.connections.crowded() {
        return Err(crowded());
    }
    Ok(route)
}

fn crowded() -> Failure {
    let message = "too many connections are open; only WAL is served";
    Failure::of(Kind::Busy, message)
        .hint("repeat the request")
        .closing()
}

fn no_such_path() -> Failure {
    Failure::of(Kind::NotFound, "there is no such address here").hint(
        "use /wal-push/<name>, /wal/<name>, /wal-absent/<name>, /wal-fetch/<name>, /backup-push, /backups, /status, \
         /metrics, /ping, /startupz, /livez or /readyz; a browser gets a page at /",
    )
}

async fn dispatch(
    app: &App,
    route: Route<'_>,
    parts: &Parts,
    voice: Voice,
    client: &Client,
) -> Result<Reply, OpError> {
    let (query, headers) = (parts.uri.query(), &parts.headers);
    let raw = |rest| RawName { rest, query };
    match route {
        Route::Ping => Ok(Reply::line("pong")),
        Route::Startup => Ok(admin::startup(app)),
        Route::Live => Ok(admin::live()),
        Route::Ready => Ok(admin::ready(app)),
        Route::WalPush(rest) => wal::push(app, raw(rest), voice).await,
        Route::WalFetch(rest) => wal::fetch(app, raw(rest)).await,
        Route::Wal(rest) => wal::stream(app, raw(rest), client, wal::taker(headers)).await,
        Route::WalAbsent(rest) => wal::absent(app, raw(rest), client).await,
        Route::BackupPush => admin::backup_push(app, query, voice).await,
        Route::Backups => admin::backups(app).await,
        Route::Status => Ok(admin::status(app).await),
        Route::Metrics => Ok(admin::metrics(app, dialect(headers)).await),
        Route::Page => Ok(page::reply()),
    }
}

/// The page is there for who asks for HTML by name. curl and wget take anything, and must not hear 200 at `/`.
fn for_browsers<'a>(route: Route<'a>, headers: &HeaderMap) -> Result<Route<'a>, NoRoute<'a>> {
    if route == Route::Page && !accepts(headers, "text/html") {
        Err(NoRoute::Path)
    } else {
        Ok(route)
    }
}

/// JSON where it is asked for by name; `*/*`, which every client sends, is text.
fn voice(headers: &HeaderMap) -> Voice {
    if accepts(headers, "application/json") {
        Voice::Json
    } else {
        Voice::Text
    }
}

/// `OpenMetrics` where it is asked for by name, as Prometheus does; otherwise the text format, which every scraper
/// reads.
fn dialect(headers: &HeaderMap) -> Dialect {
    if accepts(headers, "application/openmetrics-text") {
        Dialect::OpenMetrics
    } else {
        Dialect::Text
    }
}

fn accepts(headers: &HeaderMap, media: &str) -> bool {
    let mut accepted = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.to_ascii_lowercase().contains(media))
}
