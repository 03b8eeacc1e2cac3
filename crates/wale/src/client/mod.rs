//! `wale client`: the sidecar's clients for images that have neither wget nor curl.
//!
//! A status is only given where the answer is known. A 200 counts when it says, in a header of wale's, what it is about,
//! and when its body is whole: anybody may answer 200. Push: 0 after such a 200, and nothing else. Fetch: 0
//! when the whole file is in place; 1 when the sidecar proved that the archive does not have the
//! file; 255 in every other case, because PostgreSQL takes 1 to 125 as the end of the WAL. On a
//! standby the last is 1: PostgreSQL asks again. A timeline's history that lies in `pg_wal` is taken
//! from there in those other cases.
//!
//! A segment that PostgreSQL's recovery asks for is taken as a file where the sidecar sees the same volume
//! ([`wale_cluster::hand_over`]); otherwise its bytes come over the connection.

mod http;
mod place;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::time::Duration;

use hyper::StatusCode;
use wale_cluster::hand_over::TakingPlace;
use wale_ops::{InRecovery, Kind, OpError};
use wale_service::{ABSENT, ARCHIVED, MAY_START, SENT};

use crate::cli::{Client, ClientTarget};
use crate::config::{Group, Loaded, Settings, declared};
use crate::history_beside;
use crate::report::Failure;
use crate::runtime;
use http::Server;

/// Runs the verb.
pub(crate) fn run(client: &Client, loaded: &Loaded) -> Result<(), Failure> {
    match client {
        Client::Push { name, target } => {
            let settings = loaded.require(&[Group::Endpoint])?;
            let server = server(settings, target)?;
            Ok(runtime::small()?.block_on(push(&server, name))?)
        }
        Client::Fetch {
            name,
            path,
            standby,
            target,
        } => {
            // On a standby both answers are the same status: the proof decides nothing, and a listing for each of its
            // requests, one every few seconds, would be for nothing.
            let proof = if *standby {
                Proof::Spared
            } else {
                Proof::Asked
            };
            let fetched = (|| {
                let mut server = server(loaded.require(&[Group::Endpoint])?, target)?;
                if *standby {
                    server = server.for_standby();
                }
                runtime::small()?.block_on(fetch(&server, name, path, proof))
            })();
            let had = |error| history_beside::instead(error, name, path);
            fetched.or_else(had).map_err(|error: OpError| {
                let told = if *standby {
                    InRecovery::Absent
                } else {
                    error.kind.in_recovery()
                };
                Failure::with_status(error, told.of_client())
            })
        }
        Client::Ready { target } => {
            let settings = loaded.require(&[Group::Endpoint])?;
            let server = match target.url {
                Some(_) => server(settings, target)?,
                None => here(settings, target)?,
            };
            Ok(runtime::small()?.block_on(ready(&server))?)
        }
    }
}

/// The sidecar of this container: where it listens, not the name by which others reach it. So its certificate, which
/// holds that name, is not checked; the probe carries no token.
fn here(settings: &Settings, target: &ClientTarget) -> Result<Server, OpError> {
    let address = match settings.get(&declared::WALE_LISTEN_ADDRESS) {
        any if !any.is_unspecified() => any,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let limit = Duration::from_secs(u64::from(target.timeout.max(1)));
    let server = Server::new(
        &address.to_string(),
        settings.get(&declared::WALE_LISTEN_PORT),
        None,
        limit,
    );
    if settings.tls_files().is_none() {
        return Ok(server);
    }
    let tls = wale_cluster::control::unchecking_client()
        .map_err(|error| OpError::from_cluster(error, "use TLS"))?;
    Ok(server.over(tls))
}

async fn ready(server: &Server) -> Result<(), OpError> {
    let reply = server.get("/startupz").await?;
    if reply.status == StatusCode::OK {
        return reply.checked(MAY_START)?.ended().await;
    }
    let mut error = OpError::new(Kind::Busy, "PostgreSQL must not start yet");
    error.detail = reply.text().await;
    Err(error)
}

fn server(settings: &Settings, target: &ClientTarget) -> Result<Server, OpError> {
    let limit = Duration::from_secs(u64::from(target.timeout.max(1)));
    let token = settings.get(&declared::WALE_HTTP_TOKEN);
    let tls = || {
        wale_cluster::control::checking_client(
            settings.get(&declared::WALE_CLIENT_CA_FILE).as_deref(),
        )
        .map_err(|error| OpError::from_cluster(error, "prepare to check the sidecar's certificate"))
    };
    if let Some(url) = &target.url {
        return Server::parse(url, token, limit, tls);
    }
    let host = settings.get(&declared::WALE_SIDECAR_HOSTNAME);
    let server = Server::new(
        &host,
        settings.get(&declared::WALE_LISTEN_PORT),
        token,
        limit,
    );
    if settings.tls_files().is_some() || settings.get(&declared::WALE_CLIENT_CA_FILE).is_some() {
        return Ok(server.over(tls()?));
    }
    Ok(server)
}

/// A name goes into a URL: only what archive file names consist of. The sidecar checks the rest.
fn checked(name: &str) -> Result<&str, OpError> {
    // PostgreSQL passes bare names; scripts of the original pass pg_wal/<name>.
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.parse::<wale_pg::ArchiveFileName>() {
        Ok(_) => Ok(last),
        Err(error) => Err(OpError::new(
            Kind::InvalidName,
            format!(
                "\"{}\" is no name of an archive file",
                last.escape_default()
            ),
        )
        .source(error)
        .hint("pass %f")),
    }
}

async fn push(server: &Server, name: &str) -> Result<(), OpError> {
    let name = checked(name)?;
    let reply = server.get(&format!("/wal-push/{name}")).await?;
    if reply.status == StatusCode::OK {
        return reply.checked(&format!("{ARCHIVED} {name}"))?.ended().await;
    }
    let status = reply.status;
    let mut error = OpError::new(
        kind_of(status),
        format!("the sidecar did not archive {name}: {status}"),
    );
    error.detail = reply.text().await;
    Err(error)
}

/// Whether absence is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Asked,
    Spared,
}

async fn fetch(server: &Server, name: &str, path: &Path, proof: Proof) -> Result<(), OpError> {
    let name = checked(name)?;
    let address = format!("/wal/{name}");
    let taker = place::for_taking(name, path);
    let nonce = taker.as_ref().map(TakingPlace::nonce);
    let mut reply = server.get_for(&address, nonce).await?;
    if let Some(taker) = taker
        && let Some(size) = reply.handed(name, taker.nonce())
    {
        let Err(error) = taker.take(size) else {
            return Ok(());
        };
        tracing::warn!(%error, "{name} was not where the sidecar had put it; its bytes are asked for");
        reply = server.get(&address).await?;
    }
    match reply.status {
        StatusCode::OK => {
            let reply = reply.checked(&format!("{SENT} {name}"))?;
            return place::whole(reply, name, path).await;
        }
        StatusCode::NOT_FOUND if proof == Proof::Spared => {
            let message = format!("the sidecar does not have {name}");
            return Err(OpError::new(Kind::NotFound, message));
        }
        StatusCode::NOT_FOUND => {}
        status => {
            let mut error = OpError::new(
                kind_of(status),
                format!("the sidecar did not deliver {name}: {status}"),
            );
            error.detail = reply.text().await;
            return Err(error);
        }
    }
    // A 404 may come from anything between here and the sidecar. Only the proof counts.
    let proof = server.get(&format!("/wal-absent/{name}")).await?;
    if proof.status == StatusCode::OK {
        let proof = proof.checked(&format!("{ABSENT} {name}"))?;
        proof.ended().await?;
        return Err(OpError::new(
            Kind::NotFound,
            format!("{name} is not in the archive"),
        ));
    }
    let status = proof.status;
    let message = format!("the sidecar did not prove that {name} is absent: {status}");
    // Never NotFound, whatever the status: that kind stands for the proof.
    let kind = if status == StatusCode::NOT_FOUND {
        Kind::StorageUnavailable
    } else {
        kind_of(status)
    };
    let mut error = OpError::new(kind, message);
    error.detail = proof.text().await;
    Err(error)
}

/// The kind behind a status of the sidecar.
fn kind_of(status: StatusCode) -> Kind {
    Kind::of_http_status(status.as_u16())
}

#[cfg(test)]
mod tests;
