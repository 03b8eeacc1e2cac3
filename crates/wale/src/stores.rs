//! The stores: from the settings of each to its value. Nothing is asked here.
//!
//! A store is a function that describes it, and its arm in `described`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wale_ops::{Kind, OpError};
use wale_storage::{
    AzureOptions, AzureStore, FileStore, FileStoreOptions, GcsOptions, GcsStore, HttpTimeouts,
    RetryPolicy, S3Options, S3Store, Store, StoreError, SwiftOptions, SwiftStore,
};

use crate::bounds::Bounds;
use crate::config::{
    AzureSettings, GcsSettings, Place, S3Settings, Settings, SwiftNames, SwiftSettings,
};

/// What parts of uploads may take of the memory budget, where a store gathers them in memory: a quarter, 64 MiB of the
/// default, which are eight parts of 8 MiB.
const UPLOAD_SHARE: u64 = 4;

/// The least that uploads to a store behind HTTP need: two parts of 5 MiB, one of which is sent while the other is gathered.
const LEAST_UPLOAD_BYTES: u64 = 10 << 20;

/// Longest silence of a store behind HTTP as seen from outside. The store limits its own silence, request by request and
/// by the length of what it sends, and reads a broken body on; so this ends only what would be a fault of ours.
const HTTP_SILENCE: Duration = Duration::from_mins(2);

/// The same for a put, which may send parts for as long as a slow link takes.
const HTTP_PUT_SILENCE: Duration = Duration::from_mins(30);

/// A store as its settings describe it.
struct Described {
    /// Where it is, as it would print it itself.
    location: String,
    /// What this program does to open it, for an error's message.
    opening: String,
    open: Box<dyn FnOnce() -> Result<Arc<dyn Store>, StoreError>>,
    /// What its uploads hold in memory.
    upload_memory_bytes: u64,
    /// How many uploads may be left waiting in the middle of their bodies; any number where there is no limit.
    uploads_that_may_wait: Option<usize>,
    /// How it is asked again, and how long it may be silent.
    retry: RetryPolicy,
}

/// The store that is set, within these bounds.
fn described(settings: &Settings, bounds: &Bounds) -> Option<Described> {
    match settings.place.as_ref()? {
        Place::Directory(root) => Some(directory(root, bounds)),
        Place::SwiftContainer { container, path } => {
            Some(swift(container, path, settings.swift.as_ref()?, bounds))
        }
        Place::Bucket { bucket, prefix } => Some(s3(bucket, prefix, settings.s3.as_ref()?, bounds)),
        Place::AzureContainer { container, prefix } => {
            Some(azure(container, prefix, settings.azure.as_ref()?, bounds))
        }
        Place::Gcs { bucket, .. } => Some(gcs(bucket, settings.gcs.as_ref()?, bounds)),
    }
}

fn directory(root: &Path, bounds: &Bounds) -> Described {
    let options = FileStoreOptions {
        root: root.to_owned(),
        create: false,
    };
    Described {
        location: format!("file://{}", root.display()),
        opening: format!("open the archive at {}", root.display()),
        open: Box::new(|| Ok(Arc::new(FileStore::open(options)?))),
        upload_memory_bytes: 0,
        uploads_that_may_wait: None,
        retry: bounds.store.clone(),
    }
}

fn s3(bucket: &str, prefix: &str, settings: &S3Settings, bounds: &Bounds) -> Described {
    let upload_memory_bytes = (bounds.memory_bytes / UPLOAD_SHARE).max(LEAST_UPLOAD_BYTES);
    let options = S3Options {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint: settings.endpoint.clone(),
        region: settings.region.clone(),
        credentials: settings.credentials.clone(),
        keys_expire: settings.keys_expire,
        storage_class: settings.storage_class.clone(),
        encryption: settings.encryption.clone(),
        checksum: settings.checksum,
        ca_file: settings.ca_file.clone(),
        proxies: settings.proxies.clone(),
        timeouts: HttpTimeouts::default(),
        retry: bounds.store.clone(),
        upload_memory_bytes,
    };
    Described {
        location: format!("s3://{bucket}/{prefix}")
            .trim_end_matches('/')
            .to_owned(),
        opening: "set up the archive in S3".to_owned(),
        open: Box::new(move || Ok(Arc::new(S3Store::open(&options)?))),
        upload_memory_bytes,
        uploads_that_may_wait: Some(S3Options::uploads_that_may_wait(upload_memory_bytes)),
        retry: behind_http(bounds),
    }
}

fn gcs(bucket: &str, settings: &GcsSettings, bounds: &Bounds) -> Described {
    let upload_memory_bytes = (bounds.memory_bytes / UPLOAD_SHARE).max(LEAST_UPLOAD_BYTES);
    let options = GcsOptions {
        bucket: bucket.to_owned(),
        prefix: settings.prefix.clone(),
        spelling_is_certain: settings.spelling_is_certain,
        endpoint: settings.endpoint.clone(),
        credentials: settings.credentials.clone(),
        storage_class: settings.storage_class.clone(),
        encryption: settings.encryption.clone(),
        ca_file: settings.ca_file.clone(),
        proxies: settings.proxies.clone(),
        timeouts: HttpTimeouts::default(),
        retry: bounds.store.clone(),
        upload_memory_bytes,
    };
    Described {
        location: format!("gs://{bucket}/{}", settings.prefix.trim_matches('/'))
            .trim_end_matches('/')
            .to_owned(),
        opening: "set up the archive in Google Cloud Storage".to_owned(),
        open: Box::new(move || Ok(Arc::new(GcsStore::open(&options)?))),
        upload_memory_bytes,
        uploads_that_may_wait: Some(GcsOptions::uploads_that_may_wait(upload_memory_bytes)),
        retry: behind_http(bounds),
    }
}

/// How a store behind HTTP is asked again: it limits its own silence.
fn behind_http(bounds: &Bounds) -> RetryPolicy {
    RetryPolicy {
        stall_timeout: HTTP_SILENCE,
        put_stall_timeout: HTTP_PUT_SILENCE,
        ..bounds.store.clone()
    }
}

fn azure(container: &str, prefix: &str, settings: &AzureSettings, bounds: &Bounds) -> Described {
    let upload_memory_bytes = (bounds.memory_bytes / UPLOAD_SHARE).max(LEAST_UPLOAD_BYTES);
    let options = AzureOptions {
        account: settings.account.clone(),
        container: container.to_owned(),
        prefix: prefix.to_owned(),
        cloud: settings.cloud.clone(),
        endpoint: settings.endpoint.clone(),
        credentials: settings.credentials.clone(),
        api_version: settings.api_version.clone(),
        checksum: settings.checksum,
        ca_file: settings.ca_file.clone(),
        proxies: settings.proxies.clone(),
        timeouts: HttpTimeouts::default(),
        retry: bounds.store.clone(),
        upload_memory_bytes,
    };
    Described {
        location: format!("wabs://{container}/{prefix}")
            .trim_end_matches('/')
            .to_owned(),
        opening: "set up the archive in Azure".to_owned(),
        open: Box::new(move || Ok(Arc::new(AzureStore::open(&options)?))),
        upload_memory_bytes,
        uploads_that_may_wait: Some(AzureOptions::uploads_that_may_wait(upload_memory_bytes)),
        retry: RetryPolicy {
            stall_timeout: HTTP_SILENCE,
            put_stall_timeout: HTTP_PUT_SILENCE,
            ..bounds.store.clone()
        },
    }
}

fn swift(container: &str, path: &str, settings: &SwiftSettings, bounds: &Bounds) -> Described {
    let upload_memory_bytes = (bounds.memory_bytes / UPLOAD_SHARE).max(LEAST_UPLOAD_BYTES);
    let options = SwiftOptions {
        container: container.to_owned(),
        prefix: settings.names.unwrap_or(SwiftNames::WalE).prefix(path),
        spelling_is_certain: settings.names.is_some(),
        login: settings.login.clone(),
        storage_url: settings.storage_url.clone(),
        ca_file: settings.ca_file.clone(),
        proxies: settings.proxies.clone(),
        timeouts: HttpTimeouts::default(),
        retry: bounds.store.clone(),
        upload_memory_bytes,
    };
    Described {
        location: format!("swift://{container}/{path}")
            .trim_end_matches('/')
            .to_owned(),
        opening: "set up the archive in Swift".to_owned(),
        open: Box::new(move || Ok(Arc::new(SwiftStore::open(&options)?))),
        upload_memory_bytes,
        uploads_that_may_wait: Some(SwiftOptions::uploads_that_may_wait(upload_memory_bytes)),
        retry: RetryPolicy {
            stall_timeout: HTTP_SILENCE,
            put_stall_timeout: HTTP_PUT_SILENCE,
            ..bounds.store.clone()
        },
    }
}

/// Opens the store, and says what is left of the bounds.
///
/// # Errors
/// When no place is set, or the place cannot be a store.
pub(crate) fn open(
    settings: &Settings,
    mut bounds: Bounds,
) -> Result<(Arc<dyn Store>, Bounds), OpError> {
    let Some(described) = described(settings, &bounds) else {
        let text = "no place for the archive is set";
        return Err(OpError::new(Kind::Configuration, text));
    };
    let Described { opening, open, .. } = described;
    let store = open().map_err(|e| OpError::from_store(e, format_args!("{opening}")))?;
    let left = bounds.memory_bytes;
    bounds.memory_bytes = left.saturating_sub(described.upload_memory_bytes);
    bounds.store = described.retry;
    Ok((store, bounds))
}

/// Where the archive is, as its store would print it, without the cost of a store.
pub(crate) fn location(settings: &Settings) -> String {
    described(settings, &Bounds::of_verb(settings))
        .map(|described| described.location)
        .unwrap_or_default()
}

/// How many WAL files may be pushed ahead, of those that are wanted. Each waits for those before it, and where a store
/// gathers parts in memory it holds a part's memory meanwhile: so many that they take it all would keep the file waiting
/// for which they wait.
pub(crate) fn look_ahead(settings: &Settings, bounds: &Bounds, wanted: usize) -> usize {
    let most = described(settings, bounds).and_then(|described| described.uploads_that_may_wait);
    most.map_or(wanted, |most| wanted.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Group, Loaded};

    #[test]
    fn what_is_pushed_ahead_leaves_memory_to_the_file_that_it_waits_for() {
        let s3 = [
            ("WALE_S3_PREFIX", "s3://b/p"),
            ("AWS_REGION", "r"),
            ("AWS_ACCESS_KEY_ID", "a"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
        ];
        let file = [("WALE_FILE_PREFIX", "file:///archive")];
        for (place, memory, wanted, verb, sidecar) in [
            (&s3[..], "288MiB", 63, 5, 5),
            (&s3, "288MiB", 3, 3, 3),
            // 8 MiB of a verb and 6 MiB of the sidecar: the least, two parts, one of which is for the file itself.
            (&s3, "64MiB", 15, 0, 0),
            (&s3, "96MiB", 15, 1, 0),
            (&s3, "1056MiB", 63, 11, 8),
            (&file, "64MiB", 63, 63, 63),
        ] {
            let environment = [place, &[("WALE_MEMORY", memory)]].concat();
            let loaded = Loaded::for_test(&environment, "");
            let settings = loaded.require(&[Group::Archive]).expect("they are good");
            let of = |bounds: Bounds| look_ahead(settings, &bounds, wanted);
            assert_eq!(of(Bounds::of_verb(settings)), verb, "verb, {memory}");
            assert_eq!(of(Bounds::of_sidecar(settings)), sidecar, "{memory}");
        }
    }
}
