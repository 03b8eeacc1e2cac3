//! What a restore writes into its marker: what was asked for, which attempt it is, what it takes for its own, and what becomes
//! of it in the end.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;

use wale_archive::Archive;
use wale_cluster::{RestoreMarker, RestoreRequest, RestoreState, restore_marker};

use super::options::RestoreOptions;
use super::plan::Begin;
use super::prepare::Prepared;
use crate::error::{OpError, Result};

/// What becomes of the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MarkerAtEnd {
    /// It goes: the directory is the user's.
    Removed,
    /// It stays and says so: the sidecar must know later.
    Done,
}

/// What is asked for, as the marker keeps it.
pub(super) fn request(archive: &Archive, options: &RestoreOptions) -> RestoreRequest {
    let mut request = RestoreRequest {
        archive: options
            .asked_of
            .clone()
            .unwrap_or_else(|| archive.location()),
        label: options.selector.to_string(),
        restore_as: "none".to_owned(),
        ..RestoreRequest::default()
    };
    for (source, target) in &options.tablespace_mapping {
        request
            .other
            .insert(format!("tablespace {source}"), target.display().to_string());
    }
    request
}

/// The marker of an attempt that begins now, on this host.
pub(super) fn begun(
    archive: &Archive,
    prepared: &Prepared,
    request: RestoreRequest,
    host: &str,
) -> RestoreMarker {
    let is_delta = prepared.found.begin == Begin::Keeping;
    let present = prepared.found.present.as_ref();
    let present = present.map(|present| present.system_identifier);
    RestoreMarker {
        format: if is_delta {
            restore_marker::FORMAT_OF_DELTA
        } else {
            restore_marker::FORMAT
        },
        state: RestoreState::Running,
        request,
        backup: prepared.sources.restored().name.to_string(),
        started_at: archive.clock().now(),
        finished_at: None,
        host: host.to_owned(),
        wale_version: env!("CARGO_PKG_VERSION").to_owned(),
        written: Vec::new(),
        settled_at: None,
        attempt: random_attempt(),
        outside: prepared.places.outside(),
        wal_directory: prepared.places.wal_directory(),
        is_delta,
        delta_directory: prepared.found.directory.clone().filter(|_| is_delta),
        system_identifier: present.or(prepared.sources.restored().sentinel.system_identifier),
    }
}

/// The same when its restore is done.
pub(super) fn done(archive: &Archive, marker: &RestoreMarker) -> RestoreMarker {
    RestoreMarker {
        format: restore_marker::FORMAT,
        is_delta: false,
        delta_directory: None,
        state: RestoreState::Done,
        finished_at: Some(archive.clock().now()),
        outside: Vec::new(),
        wal_directory: None,
        ..marker.clone()
    }
}

/// Ends a restore: from here on the directory is nobody's half-done work.
pub(super) fn end(path: &Path, done: &RestoreMarker, at_end: MarkerAtEnd) -> Result<()> {
    let result = match at_end {
        MarkerAtEnd::Removed => restore_marker::remove(path).map(drop),
        MarkerAtEnd::Done => restore_marker::write(path, done),
    };
    result.map_err(|error| {
        OpError::from_cluster(error, format_args!("end the restore in {}", path.display()))
    })
}

/// A name that no other attempt has: 64 random bits, in hexadecimal.
fn random_attempt() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
