//! One session with the server, and what it means when there is none.

use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{NoTls, TlsStream};
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, Row, Socket};
use wale_pg::byte_text;

use super::options::{ConnectOptions, SslMode};
use super::passfile::{self, Lookup};
use super::tls;
use crate::error::ClusterError;

/// A server that is silently gone (its host lost power) is noticed after about this long: idle time
/// and then 3 probes, 10 s apart.
const KEEPALIVE_IDLE: Duration = Duration::from_mins(1);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// A lock on a catalogue that somebody holds for ever (an open transaction, a VACUUM FULL that waits) ends the work with
/// a reason; the statements here need none that is held for a minute in normal work.
pub(super) const USUAL_LOCK_LIMIT: &str = "SET lock_timeout = '1min'";

/// How long a polite goodbye may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The advisory lock's number: the letters `waleback`.
const BACKUP_LOCK: i64 = 0x7761_6c65_6261_636b;

/// A session with the server. Dropping it closes the connection.
#[derive(Debug)]
pub struct Control {
    client: Client,
    task: ConnectionTask,
    server: String,
    user: String,
}

/// Tells when a connection ends. Does not keep it open.
#[derive(Clone, Debug)]
pub struct ConnectionWatch {
    ended: watch::Receiver<Option<String>>,
}

/// The task that drives a connection; it does not outlive this value.
#[derive(Debug)]
struct ConnectionTask {
    handle: JoinHandle<()>,
    ended: watch::Receiver<Option<String>>,
}

impl Drop for ConnectionTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl ConnectionWatch {
    /// Waits until the connection ends, by whichever side, and returns why. Cancel-safe.
    pub async fn lost(&mut self) -> String {
        match self.ended.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the connection was closed".to_owned(),
        }
    }
}

impl Control {
    /// Connects and logs in. With several hosts the first that answers is taken.
    ///
    /// # Errors
    /// `Unreachable`, `NotReady` (both worth another try), `Authentication`, `Tls`, or `Configuration`, e.g.
    /// for a database that does not exist.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, ClusterError> {
        let attempts: &[tokio_postgres::config::SslMode] = {
            use tokio_postgres::config::SslMode::{Disable, Prefer, Require};
            match options.sslmode {
                _ if options.is_socket() => &[Disable],
                SslMode::Disable => &[Disable],
                SslMode::Allow => &[Disable, Require],
                SslMode::Prefer => &[Prefer, Disable],
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => &[Require],
            }
        };
        let mut first_error = None;
        for mode in attempts {
            match Self::connect_once(options, *mode).await {
                Ok(control) => return Ok(control),
                // Only what another mode may cure: pg_hba.conf may let in with TLS only, or without only.
                Err(error @ (ClusterError::Authentication { .. } | ClusterError::Tls { .. })) => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Err(first_error.unwrap_or(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| ClusterError::Configuration {
            message: "no way to connect was left".to_owned(),
            hint: None,
        }))
    }

    async fn connect_once(
        options: &ConnectOptions,
        mode: tokio_postgres::config::SslMode,
    ) -> Result<Self, ClusterError> {
        let (config, note) = configuration(options, mode);
        let attempt = async {
            if mode == tokio_postgres::config::SslMode::Disable {
                let (client, connection) = connect(&config, NoTls).await?;
                Ok(Ok((client, spawn(connection))))
            } else {
                match tls::connector(options) {
                    Ok(tls) => {
                        let (client, connection) = connect(&config, tls).await?;
                        Ok(Ok((client, spawn(connection))))
                    }
                    Err(error) => Ok(Err(error)),
                }
            }
        };
        let (client, task) = match tokio::time::timeout(options.connect_timeout, attempt).await {
            Ok(Ok(result)) => result?,
            Ok(Err(error)) => return Err(connect_error(&error, options, note.as_ref())),
            Err(_) => {
                return Err(ClusterError::Unreachable {
                    server: options.server(),
                    reason: format!(
                        "no session within {} seconds",
                        options.connect_timeout.as_secs_f32()
                    ),
                });
            }
        };
        let control = Self {
            client,
            task,
            server: options.server(),
            user: options.user.clone(),
        };
        control.set_up().await?;
        Ok(control)
    }

    /// Nothing in the server's configuration may end this session before it is done, and no user's schema
    /// may come before `pg_catalog`.
    async fn set_up(&self) -> Result<(), ClusterError> {
        // By itself and first: with the cluster's default at serializable no other statement would do on a standby,
        // nor one that stands in the same transaction.
        const ISOLATION: &str = "SET default_transaction_isolation = 'read committed'";
        const ALWAYS: &str = "SELECT pg_catalog.set_config('search_path', '', false);
             SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0";
        // From PostgreSQL 14 on. The server is asked, so that no version has to be known yet.
        const WHERE_KNOWN: &str = "SELECT pg_catalog.set_config(name, '0', false)
             FROM pg_catalog.pg_settings
             WHERE name IN ('idle_session_timeout', 'transaction_timeout')";
        let during = "setting up the session";
        for statements in [ISOLATION, USUAL_LOCK_LIMIT, ALWAYS, WHERE_KNOWN] {
            self.batch(during, statements).await?;
        }
        Ok(())
    }

    /// Statements without parameters and results.
    pub(super) async fn batch(
        &self,
        during: &'static str,
        statements: &str,
    ) -> Result<(), ClusterError> {
        let result = self.client.batch_execute(statements).await;
        result.map_err(|error| self.query_error(during, &error))
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The user of the session.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Something to wait on for the end of the connection.
    #[must_use]
    pub fn watch(&self) -> ConnectionWatch {
        ConnectionWatch {
            ended: self.task.ended.clone(),
        }
    }

    /// Says goodbye and waits until the connection is closed, for some seconds at most.
    pub async fn close(self) {
        let Self {
            client, mut task, ..
        } = self;
        drop(client);
        // Past the limit the task is aborted, which closes the socket: the server sees an end either way.
        let _ = tokio::time::timeout(CLOSE_LIMIT, &mut task.handle).await;
    }

    /// Takes the lock that keeps base backups of one server apart. `false`: another session has it.
    ///
    /// The lock belongs to this session and ends with it. It is an advisory lock of the database that the
    /// session is connected to.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn try_backup_lock(&self) -> Result<bool, ClusterError> {
        let during = "taking the backup lock";
        let sql = "SELECT pg_catalog.pg_try_advisory_lock($1)";
        let row = self.query_one(during, sql, &[&BACKUP_LOCK]).await?;
        get(&row, 0, during)
    }

    pub(super) async fn query(
        &self,
        during: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ClusterError> {
        let result = self.client.query(sql, parameters).await;
        result.map_err(|error| self.query_error(during, &error))
    }

    pub(super) async fn query_one(
        &self,
        during: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, ClusterError> {
        let rows = self.query(during, sql, parameters).await?;
        let count = rows.len();
        rows.into_iter()
            .next()
            .filter(|_| count == 1)
            .ok_or_else(|| ClusterError::UnexpectedAnswer {
                during,
                reason: format!("one row was expected, {count} came"),
            })
    }

    fn query_error(&self, during: &'static str, error: &tokio_postgres::Error) -> ClusterError {
        let ended = self.task.ended.borrow().clone();
        match error.as_db_error() {
            // The server's last words on a session that it ends.
            Some(db) if ends_session(db.code()) => ClusterError::ConnectionLost {
                during,
                reason: db.message().to_owned(),
            },
            Some(db) => ClusterError::Query {
                during,
                sqlstate: db.code().code().to_owned(),
                message: db.message().to_owned(),
            },
            None if error.is_closed() || io_cause(error).is_some() => {
                ClusterError::ConnectionLost {
                    during,
                    reason: ended.unwrap_or_else(|| chain(error)),
                }
            }
            None => ClusterError::UnexpectedAnswer {
                during,
                reason: chain(error),
            },
        }
    }
}

/// Reads a name or a path, whatever its encoding: a column of [`name_bytes`] becomes [`byte_text`].
pub(super) fn get_name(
    row: &Row,
    column: usize,
    during: &'static str,
) -> Result<Option<String>, ClusterError> {
    let bytes: Option<Vec<u8>> = get(row, column, during)?;
    Ok(bytes.map(|bytes| byte_text::from_bytes(&bytes).into_owned()))
}

/// An SQL expression for the bytes of a text, as the server has them: names of databases and paths need not be in the
/// encoding of the database that is asked, and a conversion would fail or change them.
pub(super) fn name_bytes(text: &str) -> String {
    format!(
        "pg_catalog.decode(pg_catalog.replace({text}, pg_catalog.chr(92), \
         pg_catalog.repeat(pg_catalog.chr(92), 2)), 'escape')"
    )
}

/// Reads a column by type; a mismatch is the server's strange answer, not a panic.
pub(super) fn get<'a, T>(
    row: &'a Row,
    column: usize,
    during: &'static str,
) -> Result<T, ClusterError>
where
    T: tokio_postgres::types::FromSql<'a>,
{
    row.try_get(column)
        .map_err(|error| ClusterError::UnexpectedAnswer {
            during,
            reason: chain(&error),
        })
}

fn configuration(
    options: &ConnectOptions,
    mode: tokio_postgres::config::SslMode,
) -> (Config, Option<String>) {
    let mut config = Config::new();
    for host in options.hosts() {
        config.host(host);
    }
    config
        .port(options.port)
        .user(&options.user)
        .dbname(&options.database)
        .application_name(&options.application_name)
        .ssl_mode(mode)
        .connect_timeout(options.connect_timeout)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_PROBES);
    let mut note = None;
    if let Some(password) = &options.password {
        config.password(password.expose());
    } else if let Some(path) = &options.password_file {
        match passfile::read_alone(path) {
            Ok(password) => {
                config.password(password.expose());
            }
            Err(reason) => note = Some(reason),
        }
    } else if let Some(path) = &options.passfile {
        // libpq looks each host up; one password for all of them is what the client library can hold.
        let host = options.hosts().next().unwrap_or("localhost");
        match passfile::look_up(path, host, options.port, &options.database, &options.user) {
            Lookup::Found(password) => {
                config.password(password.expose());
            }
            Lookup::NoFile => note = Some(format!("There is no password file {}", path.display())),
            Lookup::Unusable(reason) => note = Some(reason),
        }
    }
    (config, note)
}

async fn connect<T>(
    config: &Config,
    tls: T,
) -> Result<(Client, Connection<Socket, T::Stream>), tokio_postgres::Error>
where
    T: tokio_postgres::tls::MakeTlsConnect<Socket>,
{
    config.connect(tls).await
}

/// Starts the task that moves bytes and hears the server's notices.
fn spawn<T>(mut connection: Connection<Socket, T>) -> ConnectionTask
where
    T: TlsStream + Unpin + Send + 'static,
{
    let (sender, ended) = watch::channel(None);
    let handle = tokio::spawn(async move {
        let reason = loop {
            match poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(AsyncMessage::Notice(notice))) => {
                    tracing::debug!(severity = notice.severity(), "{}", notice.message());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break chain(&error),
                None => break "the connection was closed".to_owned(),
            }
        };
        // The socket is closed before anybody is told that it is.
        drop(connection);
        sender.send_replace(Some(reason));
    });
    ConnectionTask { handle, ended }
}

fn connect_error(
    error: &tokio_postgres::Error,
    options: &ConnectOptions,
    note: Option<&String>,
) -> ClusterError {
    let server = options.server();
    let authentication = |reason: String| ClusterError::Authentication {
        server: options.server(),
        user: options.user.clone(),
        reason,
        note: note.cloned(),
    };
    if let Some(db) = error.as_db_error() {
        let reason = db.message().to_owned();
        return match db.code() {
            code if *code == SqlState::INVALID_PASSWORD
                || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                authentication(reason)
            }
            code if *code == SqlState::INVALID_CATALOG_NAME => ClusterError::Configuration {
                message: format!("database {:?} does not exist", options.database),
                hint: Some("Name a database that exists, e.g. postgres.".to_owned()),
            },
            code if ends_session(code) || *code == SqlState::TOO_MANY_CONNECTIONS => {
                ClusterError::NotReady { server, reason }
            }
            code => ClusterError::Query {
                during: "logging in",
                sqlstate: code.code().to_owned(),
                message: reason,
            },
        };
    }
    // The kinds of the library's errors are private; these texts are fixed in its source (0.7).
    let cause = || error.source().map_or_else(|| chain(error), chain);
    match error.to_string().as_str() {
        "error performing TLS handshake" => ClusterError::Tls {
            server,
            reason: cause(),
        },
        "invalid configuration" if cause() == "password missing" => {
            authentication("it asks for a password, and none was given".to_owned())
        }
        "invalid configuration" | "authentication error" => authentication(cause()),
        _ => ClusterError::Unreachable {
            server,
            reason: io_cause(error).map_or_else(|| chain(error), ToString::to_string),
        },
    }
}

/// SQLSTATEs of a server that starts, stops or crashes: 57P01, 57P02, 57P03, and idle time-outs.
fn ends_session(code: &SqlState) -> bool {
    matches!(
        code.code(),
        "57P01" | "57P02" | "57P03" | "57P04" | "57P05" | "25P03"
    )
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref::<io::Error>()
}

/// The error and its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let part = next.to_string();
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = next.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn options(port: u16) -> ConnectOptions {
        ConnectOptions {
            host: "127.0.0.1".to_owned(),
            port,
            sslmode: SslMode::Disable,
            ..ConnectOptions::default()
        }
    }

    /// A server that reads the start-up message and answers with one error.
    async fn answer_with(sqlstate: &'static str, message: &'static str) -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut start = [0; 512];
                let _ = stream.read(&mut start).await;
                let body = format!("SFATAL\0VFATAL\0C{sqlstate}\0M{message}\0\0");
                let length = u32::try_from(body.len() + 4).unwrap();
                let _ = stream.write_u8(b'E').await;
                let _ = stream.write_u32(length).await;
                let _ = stream.write_all(body.as_bytes()).await;
            }
        });
        port
    }

    #[tokio::test]
    async fn refused_logins_are_told_from_servers_that_start() {
        use crate::Situation;
        let cases = [
            (
                "57P03",
                "the database system is starting up",
                Situation::PostgresUnavailable,
                true,
            ),
            (
                "53300",
                "sorry, too many clients already",
                Situation::PostgresUnavailable,
                true,
            ),
            (
                "28P01",
                "password authentication failed",
                Situation::PermissionDenied,
                false,
            ),
            (
                "28000",
                "no pg_hba.conf entry",
                Situation::PermissionDenied,
                false,
            ),
            (
                "3D000",
                "database does not exist",
                Situation::Configuration,
                false,
            ),
        ];
        for (sqlstate, message, situation, transient) in cases {
            let port = answer_with(sqlstate, message).await;
            let error = Control::connect(&options(port)).await.unwrap_err();
            assert_eq!(error.situation(), situation, "{sqlstate}: {error:?}");
            assert_eq!(error.is_transient(), transient, "{sqlstate}");
        }
    }

    #[tokio::test]
    async fn a_closed_port_and_a_missing_socket_are_unreachable() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = Control::connect(&options(port)).await.unwrap_err();
        assert!(
            matches!(error, ClusterError::Unreachable { .. }),
            "{error:?}"
        );
        let folder = tempfile::tempdir().unwrap();
        let socket = ConnectOptions {
            host: folder.path().display().to_string(),
            sslmode: SslMode::VerifyFull,
            ..options(1)
        };
        let error = Control::connect(&socket).await.unwrap_err();
        assert!(
            matches!(error, ClusterError::Unreachable { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let silent = ConnectOptions {
            connect_timeout: Duration::from_millis(50),
            ..options(listener.local_addr().unwrap().port())
        };
        let error = Control::connect(&silent).await.unwrap_err();
        assert!(
            matches!(error, ClusterError::Unreachable { .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn a_server_without_tls_is_refused_where_tls_is_required() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 8];
                let _ = stream.read_exact(&mut request).await;
                let _ = stream.write_all(b"N").await;
            }
        });
        let required = ConnectOptions {
            sslmode: SslMode::Require,
            ..options(port)
        };
        let error = Control::connect(&required).await.unwrap_err();
        assert!(matches!(error, ClusterError::Tls { .. }), "{error:?}");
    }
}
