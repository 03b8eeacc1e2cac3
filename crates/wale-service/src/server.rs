//! Whether a PostgreSQL server may be running on the data directory, as far as `postmaster.pid` shows.
//!
//! A hint, not a fact: the server mostly lives in another container, with process ids of its own. A caller that needs
//! to be certain connects.

use std::path::PathBuf;

use wale_ops::DataDirectory;

/// What `postmaster.pid` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    /// It names a server that may run.
    MayRun,
    /// There is none, it was left by a crash, or the data directory cannot be read.
    Gone,
}

/// Looks once.
pub(crate) async fn look(data_directory: PathBuf) -> Server {
    let looking = tokio::task::spawn_blocking(move || {
        DataDirectory::open(&data_directory).and_then(|directory| directory.postmaster())
    });
    match looking.await {
        Ok(Ok(state)) if state.may_run() => Server::MayRun,
        _ => Server::Gone,
    }
}
