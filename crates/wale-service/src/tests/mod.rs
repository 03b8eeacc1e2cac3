//! The sidecar from outside: over its socket, with raw bytes and with the clients that people use.

mod abuse;
mod clients;
mod life;
mod page;
mod replicas;
mod support;
mod tls;
mod wal;
mod watches;
