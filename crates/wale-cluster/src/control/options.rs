//! How to reach the server: libpq's connection options as a typed value.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Text that must not be printed. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// libpq's `sslmode`. Has no meaning for Unix sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// Without TLS first, then with it.
    Allow,
    /// TLS where the server offers it, then without it. libpq's default.
    #[default]
    Prefer,
    /// TLS, whatever the certificate; with a root certificate file as `VerifyCa`.
    Require,
    /// TLS, with a certificate that leads to a trusted root.
    VerifyCa,
    /// As `VerifyCa`, and the certificate names the host.
    VerifyFull,
}

impl SslMode {
    /// Every mode, the weakest first.
    pub const ALL: [Self; 6] = [
        Self::Disable,
        Self::Allow,
        Self::Prefer,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// libpq's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// Where the server is and how to log in. Names and meanings are libpq's.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Host name or address, or the directory of the Unix socket (begins with `/`). Several, divided by
    /// commas, are tried in order.
    pub host: String,
    /// TCP port, also part of the Unix socket's name.
    pub port: u16,
    /// The database user.
    pub user: String,
    /// The password; without it the files are looked at.
    pub password: Option<Secret>,
    /// A file that holds the password alone. It is read anew for each session, so that one that was exchanged is used.
    pub password_file: Option<PathBuf>,
    /// The database. The lock that keeps base backups apart is per database, so all of wale's sessions to
    /// one server should name the same.
    pub database: String,
    /// Whether and how TLS is used.
    pub sslmode: SslMode,
    /// File of trusted root certificates (PEM). Without it: the system's, and where there are none,
    /// Mozilla's as compiled in.
    pub sslrootcert: Option<PathBuf>,
    /// Client certificate (PEM); needs `sslkey`.
    pub sslcert: Option<PathBuf>,
    /// Key of the client certificate (PEM, not encrypted).
    pub sslkey: Option<PathBuf>,
    /// Password file; libpq's default is `~/.pgpass`, which the caller has to spell out.
    pub passfile: Option<PathBuf>,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Limit for reaching the server and logging in.
    pub connect_timeout: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 5432,
            user: "postgres".to_owned(),
            password: None,
            password_file: None,
            database: "postgres".to_owned(),
            sslmode: SslMode::default(),
            sslrootcert: None,
            sslcert: None,
            sslkey: None,
            passfile: None,
            application_name: "wale".to_owned(),
            connect_timeout: Duration::from_secs(30),
        }
    }
}

impl ConnectOptions {
    /// The same server and user, another database.
    #[must_use]
    pub(crate) fn with_database(&self, database: &str) -> Self {
        Self {
            database: database.to_owned(),
            ..self.clone()
        }
    }

    /// Host and port, for messages.
    #[must_use]
    pub fn server(&self) -> String {
        if self.is_socket() {
            Path::new(&self.host)
                .join(format!(".s.PGSQL.{}", self.port))
                .display()
                .to_string()
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Whether something listens where the server should be: a connection that is opened and closed, a second at
    /// most. A server that is stopping still listens; one that was killed does not.
    pub async fn is_listening(&self) -> bool {
        for host in self.hosts() {
            let attempt = async {
                if host.starts_with('/') {
                    let path = Path::new(host).join(format!(".s.PGSQL.{}", self.port));
                    tokio::net::UnixStream::connect(path).await.map(drop)
                } else {
                    tokio::net::TcpStream::connect((host, self.port))
                        .await
                        .map(drop)
                }
            };
            if matches!(
                tokio::time::timeout(Duration::from_secs(1), attempt).await,
                Ok(Ok(()))
            ) {
                return true;
            }
        }
        false
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &str> {
        self.host
            .split(',')
            .map(|host| if host.is_empty() { "localhost" } else { host })
    }

    /// Whether all hosts are Unix sockets, where there is no TLS.
    pub(super) fn is_socket(&self) -> bool {
        self.hosts().all(|host| host.starts_with('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let options = ConnectOptions {
            password: Some(Secret::new("hunter2")),
            ..ConnectOptions::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
        assert_eq!(options.password.unwrap().expose(), "hunter2");
    }

    #[test]
    fn the_modes_have_libpqs_words() {
        let words = [
            "disable",
            "allow",
            "prefer",
            "require",
            "verify-ca",
            "verify-full",
        ];
        assert_eq!(SslMode::ALL.map(SslMode::name), words);
    }

    #[test]
    fn servers_are_named_as_people_write_them() {
        let cases = [
            ("localhost", "localhost:5432", false),
            (
                "/var/run/postgresql",
                "/var/run/postgresql/.s.PGSQL.5432",
                true,
            ),
            ("::1", "[::1]:5432", false),
            ("a,b", "a,b:5432", false),
        ];
        for (host, expected, socket) in cases {
            let options = ConnectOptions {
                host: host.to_owned(),
                ..ConnectOptions::default()
            };
            assert_eq!(options.server(), expected);
            assert_eq!(options.is_socket(), socket);
        }
    }
}
