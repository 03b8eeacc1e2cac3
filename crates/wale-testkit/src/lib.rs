//! Throwaway PostgreSQL clusters, sidecars and small clients for the integration tests.
//!
//! Everything here is synchronous and built on real programs: the servers that
//! `scripts/pg-matrix.sh` installs, Debian's `psql`, `wget`, `curl` and `busybox`, and the `wale`
//! binary under test. PostgreSQL refuses to run as root, so as root the servers (and by default the
//! sidecars) are started through `runuser` as the user `postgres`.
//!
//! Invariants: no fixed ports, no sleeps (wait for a condition, with a limit), every process that a
//! value started is killed when the value is dropped, and a skip is written where
//! `scripts/test.sh` counts it.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests make files, read the environment and print as they like"
)]

mod cluster;
mod http;
mod sandbox;
mod servers;
mod sidecar;
mod store_server;
mod template;
mod volatile;
mod wait;

pub mod azure;
pub mod gcs;
pub mod s3;
pub mod swift;

pub use cluster::{Cluster, ClusterOptions};
pub use http::{Reply, get, request};
pub use sandbox::{Sandbox, run, run_as_postgres, shell};
pub use servers::{Server, client_tool, is_installed, server, skip};
pub use sidecar::{Exit, Sidecar, SidecarOptions, wale_command};
pub use store_server::StoreServer;
pub use volatile::{Loss, VolatileDisk};
pub use wait::{free_port, wait_until};
