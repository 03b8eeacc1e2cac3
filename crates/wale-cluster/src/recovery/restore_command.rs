//! The text of `restore_command` for a server that fetches from the sidecar over HTTP.
//!
//! PostgreSQL takes every status from 1 to 125 as "not in the archive", ends recovery there, and serves with
//! what it has; and no HTTP client can end above 125 by itself, nor distinguish a 404 from a broken server. So the
//! command asks twice: for the file, and if that fails for a proof that the archive does not have it. Only
//! the proof becomes status 1. Everything else is 255, on which recovery stops and can be started again. On
//! a standby everything else is 1 too: there PostgreSQL asks again, for ever.
//!
//! One file is never worth a stop: the history of a timeline that lies in `pg_wal` already. PostgreSQL asks for it once
//! more at the end of recovery, when its signal file is gone; a server that was stopped there would begin with crash
//! recovery, beyond its target and on the old timeline. So where the archive cannot answer, the command takes it from
//! `pg_wal`, as PostgreSQL itself does after status 1. Never a segment: the one in `pg_wal` may be recycled. Timeline 1 has
//! no history, and is asked for all the same: its absence needs no proof.
//!
//! Without a token and without TLS the same text serves GNU Wget and BusyBox, whose options differ: both take `-q`,
//! `-O`, `--header`; `-t` bounds GNU Wget's repetitions of a cut reply (20 by default, over minutes) and means nothing
//! to BusyBox; `-T` crashes Debian's BusyBox.
//!
//! A command line is seen by every user of the host, and `restore_command` by every role, so the token is not in it: GNU
//! Wget and curl read it from a file of mode 0600 beside the recovery settings ([`AUTHORIZATION_FILE`]), wale has a setting of
//! its own. BusyBox can take it on the command line only, where the shell puts it from that file: while it runs the token is in
//! the list of processes, so it must be asked for by name ([`RestoreClient::Busybox`]). Nor can BusyBox check a
//! certificate: over TLS Wget's text carries an option that BusyBox does not know, so that it fails instead of trusting
//! anybody.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use super::files::FILE_MODE;
use super::mode::RecoveryMode;
use crate::control::Secret;
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// The file in the data directory from which `restore_command` takes the token. `PostgreSQL` runs the command in the data
/// directory, so the name alone is its path. It is no part of a base backup.
pub const AUTHORIZATION_FILE: &str = "wale_restore_authorization";

/// A token has some hundred bytes; what is longer was not written by us.
const AUTHORIZATION_BYTES_MAX: u64 = 64 << 10;

/// The status with which the command stops a recovery instead of ending it: above 125, and none that shells use.
pub const STOP_STATUS: u8 = 255;

/// The program that the server's image has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestoreClient {
    /// GNU Wget; also BusyBox, without token and TLS.
    #[default]
    Wget,
    /// BusyBox's wget, with the token on its command line while it runs.
    Busybox,
    /// curl.
    Curl,
    /// wale itself.
    Wale,
}

impl RestoreClient {
    /// Every program, the default first.
    pub const ALL: [Self; 4] = [Self::Wget, Self::Curl, Self::Wale, Self::Busybox];

    /// Its word in settings and documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wget => "wget",
            Self::Curl => "curl",
            Self::Wale => "wale",
            Self::Busybox => "busybox",
        }
    }
}

/// Where the server reaches the sidecar.
#[derive(Clone, Debug)]
pub struct RestoreEndpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Bearer token, if the sidecar wants one.
    pub token: Option<Secret>,
    /// TLS, if the sidecar speaks it.
    pub tls: Option<RestoreTls>,
}

/// What the server's client needs to know about the sidecar's TLS.
#[derive(Clone, Debug, Default)]
pub struct RestoreTls {
    /// Certificates against which the sidecar's is checked, PEM, as the server sees the file; otherwise the system's.
    pub ca_file: Option<PathBuf>,
}

/// A `restore_command` and what belongs to it.
#[derive(Clone, Debug)]
pub struct RestoreCommand {
    /// The text, as `PostgreSQL` wants it: `%f` and `%p` stand for name and path, other percent signs are doubled.
    pub text: String,
    /// Content of [`AUTHORIZATION_FILE`], where the command reads one.
    pub authorization: Option<Secret>,
}

/// Tries of GNU Wget for a reply that is cut: after 1 and after 2 seconds again. A refused connection is not
/// repeated.
const WGET_TRIES: u32 = 3;

/// Takes a history that lies in `pg_wal`; the command runs in the data directory. Timeline 1 has none, ever.
const HISTORY_BESIDE: &str = "case %f in 00000001.history) exit 1;; \
     *.history) test -s pg_wal/%f && cp pg_wal/%f \"%p\" && exit 0;; esac";

/// Seconds in which curl must have reached the sidecar, while a recovery has nobody else to ask.
const CURL_CONNECT_SECONDS: u32 = 30;

/// The same on a standby, which asks again after seconds, and whose promotion waits for it. As long as the sidecar itself waits
/// for a store there.
const STANDBY_CONNECT_SECONDS: u32 = 5;

/// Composes the command.
///
/// # Errors
/// `Configuration` for a host, token or file that cannot stand in a shell command safely, and for BusyBox over TLS.
pub fn restore_command(
    client: RestoreClient,
    endpoint: &RestoreEndpoint,
    mode: RecoveryMode,
) -> Result<RestoreCommand, ClusterError> {
    let base = base_url(endpoint)?;
    let standby = mode == RecoveryMode::Standby;
    let options = format!(
        "{}{}",
        tls_options(client, endpoint)?,
        token_options(client, endpoint)?
    );
    let limit = if standby {
        STANDBY_CONNECT_SECONDS
    } else {
        CURL_CONNECT_SECONDS
    };
    // With a token or TLS the text is for GNU Wget alone; BusyBox does not know the option.
    let is_gnu = client == RestoreClient::Wget && !options.is_empty();
    let wget_limit = if is_gnu && standby {
        format!(" --connect-timeout={limit}")
    } else {
        String::new()
    };
    let fetch = |path: &str, route: &str| match client {
        RestoreClient::Wget | RestoreClient::Busybox => {
            format!("wget -q -t {WGET_TRIES}{wget_limit}{options} -O {path} {base}/{route}/%f")
        }
        RestoreClient::Curl => {
            format!("curl -sf --connect-timeout {limit}{options} -o {path} {base}/{route}/%f")
        }
        RestoreClient::Wale => format!("wale client fetch{options} --url {base} %f {path}"),
    };
    let mut text = fetch("\"%p\"", "wal");
    match client {
        // It asks for the proof by itself.
        RestoreClient::Wale if standby => text.push_str(" --standby"),
        RestoreClient::Wale => {}
        _ if standby => text.push_str(" || exit 1"),
        _ => {
            let proof = fetch("/dev/null", "wal-absent");
            write!(
                text,
                " || {{ {proof} && exit 1; {HISTORY_BESIDE}; exit {STOP_STATUS}; }}"
            )
            .expect("text grows");
        }
    }
    Ok(RestoreCommand {
        text,
        authorization: authorization(client, endpoint),
    })
}

/// Writes [`AUTHORIZATION_FILE`], mode 0600.
///
/// # Errors
/// When it cannot be written.
pub fn write_authorization(
    data_directory: &Path,
    content: &Secret,
    owner: Option<Owner>,
) -> Result<(), ClusterError> {
    let path = data_directory.join(AUTHORIZATION_FILE);
    durable::write_atomic(&path, content.expose().as_bytes(), FILE_MODE, owner)
        .map_err(ClusterError::io("write", &path))
}

/// Puts another token into [`AUTHORIZATION_FILE`], in the form that it has; `false` where there is nothing to do. A restored
/// server goes on asking with what the file holds.
///
/// # Errors
/// When the file is there and cannot be read or written.
pub fn renew_authorization(data_directory: &Path, token: &Secret) -> Result<bool, ClusterError> {
    let path = data_directory.join(AUTHORIZATION_FILE);
    let held = match crate::read_bounded_text(&path, AUTHORIZATION_BYTES_MAX) {
        Ok(held) => held,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ClusterError::io("read", &path)(error)),
    };
    let client = match held.as_str() {
        held if held.starts_with("header = \"") => RestoreClient::Curl,
        held if held.starts_with("header = ") => RestoreClient::Wget,
        held if held.starts_with("Authorization: ") => RestoreClient::Busybox,
        // Nobody of ours wrote it.
        _ => return Ok(false),
    };
    let Some(content) = lines_of(client, token.expose()) else {
        return Ok(false);
    };
    if content.expose() == held {
        return Ok(false);
    }
    let owner = Owner::of(&path).map_err(ClusterError::io("read", &path))?;
    write_authorization(data_directory, &content, Some(owner))?;
    Ok(true)
}

fn base_url(endpoint: &RestoreEndpoint) -> Result<String, ClusterError> {
    let RestoreEndpoint { host, port, .. } = endpoint;
    let scheme = if endpoint.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
    if host.is_empty() || host.starts_with('-') || !host.chars().all(is_plain) {
        return Err(ClusterError::Configuration {
            message: format!("{host:?} cannot be the host name of the sidecar"),
            hint: Some("Use the name by which the database reaches the sidecar, alone.".to_owned()),
        });
    }
    Ok(if host.contains(':') {
        // In quotes because of the brackets, which are a pattern to the shell.
        format!("\"{scheme}://[{host}]:{port}\"")
    } else {
        format!("{scheme}://{host}:{port}")
    })
}

fn tls_options(client: RestoreClient, endpoint: &RestoreEndpoint) -> Result<String, ClusterError> {
    let Some(tls) = &endpoint.tls else {
        return Ok(String::new());
    };
    if client == RestoreClient::Busybox {
        return Err(ClusterError::Configuration {
            message: "BusyBox's wget cannot check the certificate of the sidecar".to_owned(),
            hint: Some(
                "Bring wale, curl or GNU Wget into the database's image and name it, or go without TLS."
                    .to_owned(),
            ),
        });
    }
    let Some(file) = &tls.ca_file else {
        return Ok(match client {
            // GNU Wget does so anyway; BusyBox does not know the option, and fails.
            RestoreClient::Wget => " --check-certificate".to_owned(),
            _ => String::new(),
        });
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@=:".contains(c);
    let file = file
        .to_str()
        .filter(|file| file.starts_with('/') && file.chars().all(is_plain))
        .ok_or_else(|| ClusterError::Configuration {
            message: format!("\"{}\" cannot stand in a restore_command", file.display()),
            hint: Some(
                "Use an absolute path of ASCII letters, digits and . _ - + @ = : alone.".to_owned(),
            ),
        })?;
    Ok(match client {
        RestoreClient::Curl => format!(" --cacert {file}"),
        RestoreClient::Wale => format!(" --client-ca-file {file}"),
        RestoreClient::Wget | RestoreClient::Busybox => format!(" --ca-certificate={file}"),
    })
}

fn token_options(
    client: RestoreClient,
    endpoint: &RestoreEndpoint,
) -> Result<String, ClusterError> {
    let Some(token) = &endpoint.token else {
        return Ok(String::new());
    };
    let token = token.expose();
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic() && c != '\'') {
        return Err(ClusterError::Configuration {
            message: "the token of the sidecar cannot stand in a restore_command".to_owned(),
            hint: Some("Use printable ASCII without spaces and single quotes.".to_owned()),
        });
    }
    Ok(match client {
        RestoreClient::Wget => format!(" --config={AUTHORIZATION_FILE}"),
        RestoreClient::Curl => format!(" -K {AUTHORIZATION_FILE}"),
        RestoreClient::Busybox => format!(" --header \"$(cat {AUTHORIZATION_FILE})\""),
        // It has a setting of its own for it, which does not show in the list of processes.
        RestoreClient::Wale => String::new(),
    })
}

/// A line of GNU Wget's startup file, or of curl's configuration file, in which quotes and backslashes are escaped; for
/// `BusyBox` the header.
fn authorization(client: RestoreClient, endpoint: &RestoreEndpoint) -> Option<Secret> {
    lines_of(client, endpoint.token.as_ref()?.expose())
}

fn lines_of(client: RestoreClient, token: &str) -> Option<Secret> {
    match client {
        RestoreClient::Wget => Some(format!("header = Authorization: Bearer {token}\n")),
        RestoreClient::Curl => {
            let token = token.replace('\\', "\\\\").replace('"', "\\\"");
            Some(format!("header = \"Authorization: Bearer {token}\"\n"))
        }
        RestoreClient::Busybox => Some(format!("Authorization: Bearer {token}\n")),
        RestoreClient::Wale => None,
    }
    .map(Secret::new)
}

#[cfg(test)]
mod tests;
