//! One request to the sidecar: HTTP/1.1 over TCP or TLS, a connection for each, every step with a limit.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wale_cluster::Secret;
use wale_ops::{Kind, Nonce, OpError};

/// Longest time to reach the sidecar: a container that is just starting refuses at once.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// The same for a standby: as long as the sidecar itself waits for a store there.
const STANDBY_CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest silence within a body.
const SILENCE_LIMIT: Duration = Duration::from_mins(1);
/// Most of an error's body that is read for its message.
const MESSAGE_BYTES: usize = 4096;

/// A sidecar.
#[derive(Debug)]
pub(super) struct Server {
    host: String,
    port: u16,
    base: String,
    token: Option<Secret>,
    /// How its certificate is checked; none for plain HTTP.
    tls: Option<Arc<ClientConfig>>,
    /// Longest time until the answer begins: a push answers when the segment is stored.
    limit: Duration,
    /// Longest time until the connection stands.
    connect_limit: Duration,
}

/// Plain or TLS, whatever the address says.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Server {
    pub(super) fn new(host: &str, port: u16, token: Option<Secret>, limit: Duration) -> Self {
        Self {
            host: host.to_owned(),
            port,
            base: String::new(),
            token,
            tls: None,
            limit,
            connect_limit: CONNECT_LIMIT,
        }
    }

    /// The same for a standby, which asks again after seconds, and whose promotion waits for it.
    pub(super) fn for_standby(self) -> Self {
        Self {
            connect_limit: STANDBY_CONNECT_LIMIT,
            ..self
        }
    }

    /// The same over TLS.
    pub(super) fn over(self, tls: ClientConfig) -> Self {
        Self {
            tls: Some(Arc::new(tls)),
            ..self
        }
    }

    /// `http://HOST[:PORT][/BASE]`, or `https://` with what `tls` makes.
    ///
    /// # Errors
    /// When the URL is another.
    pub(super) fn parse(
        url: &str,
        token: Option<Secret>,
        limit: Duration,
        tls: impl FnOnce() -> Result<ClientConfig, OpError>,
    ) -> Result<Self, OpError> {
        let bad = || {
            let hint = "write http://HOST:PORT or https://HOST:PORT";
            OpError::new(
                Kind::Usage,
                format!(
                    "\"{}\" is not the URL of a sidecar",
                    without_user(url).escape_default()
                ),
            )
            .hint(hint)
        };
        let uri: hyper::Uri = url.parse().map_err(|_| bad())?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(bad()),
        };
        let has_user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
        if uri.query().is_some() || has_user {
            return Err(bad());
        }
        let host = uri
            .host()
            .ok_or_else(bad)?
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut server = Self::new(host, port, token, limit);
        if secure {
            server = server.over(tls()?);
        }
        uri.path()
            .trim_end_matches('/')
            .clone_into(&mut server.base);
        Ok(server)
    }

    /// Connects, and greets where there is TLS.
    async fn open(&self) -> std::io::Result<Box<dyn Stream>> {
        let stream = self.connect().await?;
        // Requests are one small packet; a failure to set the option costs nothing but time.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(tls));
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    /// `localhost` is the loopback without asking anybody: an image without files has no hosts file.
    async fn connect(&self) -> std::io::Result<TcpStream> {
        if self.host == "localhost" {
            let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            let addresses = loopback.map(|address| SocketAddr::new(address, self.port));
            return TcpStream::connect(addresses.as_slice()).await;
        }
        TcpStream::connect((self.host.as_str(), self.port)).await
    }

    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    fn unavailable(&self, what: &str) -> OpError {
        OpError::new(
            Kind::StorageUnavailable,
            format!("{what} the sidecar at {}", self.authority()),
        )
        .hint(if self.tls.is_some() {
            "check that the sidecar runs and speaks TLS, its name and port, and WALE_CLIENT_CA_FILE"
        } else {
            "check that the sidecar runs, and WALE_SIDECAR_HOSTNAME and WALE_LISTEN_PORT"
        })
    }

    /// Asks for a path and returns the reply once its head is there.
    ///
    /// # Errors
    /// When the sidecar cannot be reached or does not answer in time.
    pub(super) async fn get(&self, path: &str) -> Result<Reply, OpError> {
        self.get_for(path, None).await
    }

    /// The same, saying that the file can be taken out of the place of this nonce.
    ///
    /// # Errors
    /// As [`Server::get`].
    pub(super) async fn get_for(
        &self,
        path: &str,
        taker: Option<&Nonce>,
    ) -> Result<Reply, OpError> {
        let stream = match timeout(self.connect_limit, self.open()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(self.unavailable("could not reach").source(error)),
            Err(_) => return Err(self.unavailable("timed out connecting to")),
        };
        let exchange = async {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let driver = Driver(tokio::spawn(async move {
                // Its errors come back through the request or the body.
                let _ = connection.await;
            }));
            let response = sender.send_request(self.request(path, taker)).await?;
            Ok::<_, hyper::Error>((response, driver))
        };
        match timeout(self.limit, exchange).await {
            Ok(Ok((response, driver))) => {
                let status = response.status();
                let header = |name| {
                    response
                        .headers()
                        .get(name)?
                        .to_str()
                        .ok()
                        .map(str::to_owned)
                };
                Ok(Reply {
                    status,
                    says: header(wale_service::ANSWER_HEADER),
                    handed: header(wale_service::HANDED_HEADER),
                    body: response.into_body(),
                    _driver: driver,
                })
            }
            Ok(Err(error)) => Err(self.unavailable("got no answer from").source(error)),
            Err(_) => Err(self.unavailable("timed out waiting for")),
        }
    }

    fn request(&self, path: &str, taker: Option<&Nonce>) -> Request<Empty<Bytes>> {
        let mut builder = Request::get(format!("{}{path}", self.base))
            .header(HOST, self.authority())
            .header(CONNECTION, "close")
            .header(USER_AGENT, concat!("wale/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token
            && let Ok(mut value) = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        {
            value.set_sensitive(true);
            builder = builder.header(AUTHORIZATION, value);
        }
        if let Some(nonce) = taker {
            builder = builder.header(wale_service::TAKE_HEADER, nonce.as_str());
        }
        builder
            .body(Empty::new())
            .expect("the path holds a checked name, the headers are checked text")
    }
}

/// A URL for a message: what stands before the host may hold a password.
fn without_user(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => {
            format!("{}…{}", &url[..scheme + 3], &url[at..])
        }
        _ => url.to_owned(),
    }
}

/// The task that moves the connection's bytes; ends with its owner.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A reply whose head is there.
pub(super) struct Reply {
    /// Its status.
    pub(super) status: StatusCode,
    /// What only a sidecar says of its 200.
    says: Option<String>,
    /// Which file it says to have put into a client's place.
    handed: Option<String>,
    body: Incoming,
    _driver: Driver,
}

impl Reply {
    /// Whether this 200 is a sidecar's, and says that.
    ///
    /// # Errors
    /// When it says something else or nothing: any program at the port may answer 200, and so may whatever lies between.
    pub(super) fn checked(self, says: &str) -> Result<Self, OpError> {
        if self.says.as_deref() == Some(says) {
            return Ok(self);
        }
        let header = wale_service::ANSWER_HEADER;
        let message = format!(
            "what answered is no sidecar of this version: its 200 does not say \"{header}: {says}\""
        );
        Err(OpError::new(Kind::StorageUnavailable, message).hint(
            "check WALE_SIDECAR_HOSTNAME and WALE_LISTEN_PORT, or --url: another program may listen there, or stand in \
             between; a sidecar of an older version must be upgraded before its client",
        ))
    }

    /// The bytes of the file that this 200 says to have put into the place of this nonce.
    pub(super) fn handed(&self, name: &str, nonce: &Nonce) -> Option<u64> {
        let (whose, size) = self.handed.as_deref()?.split_once(' ')?;
        let is_told = self.status == StatusCode::OK
            && self.says.as_deref() == Some(&format!("{} {name}", wale_service::HANDED))
            && whose == nonce.as_str();
        is_told.then(|| size.parse().ok())?
    }

    /// Reads a short body to its whole end: what breaks off promises nothing.
    ///
    /// # Errors
    /// When it breaks off, or is longer than what a sidecar says here.
    pub(super) async fn ended(mut self) -> Result<(), OpError> {
        let mut read = 0;
        while let Some(piece) = self.next().await? {
            read += piece.len();
            if read > MESSAGE_BYTES {
                let message = format!("the sidecar's reply is longer than {MESSAGE_BYTES} bytes");
                return Err(OpError::new(Kind::StorageUnavailable, message));
            }
        }
        Ok(())
    }

    /// The exact length that the head declares, bytes.
    pub(super) fn length(&self) -> Option<u64> {
        hyper::body::Body::size_hint(&self.body).exact()
    }

    /// The next piece of the body; `None` at its whole end.
    ///
    /// # Errors
    /// When the connection breaks, is silent, or ends before the declared length.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, OpError> {
        let broken = || OpError::new(Kind::StorageUnavailable, "the sidecar's reply broke off");
        loop {
            match timeout(SILENCE_LIMIT, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(error))) => return Err(broken().source(error)),
                Err(_) => return Err(broken().detail("It was silent for a minute.")),
            }
        }
    }

    /// The text of an error reply, for a person. Such replies break off on purpose.
    pub(super) async fn text(mut self) -> Option<String> {
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = self.next().await {
            bytes.extend_from_slice(&piece);
            if bytes.len() >= MESSAGE_BYTES {
                bytes.truncate(MESSAGE_BYTES);
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }
}
