//! Azure Blob Storage: the suite of every store and the whole run, on Azurite behind the fault proxy.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use wale_storage::{
    AzureChecksum, AzureCredentialSource, AzureEndpoint, AzureOptions, AzureStore, Body,
    HttpTimeouts, ObjectKey, Proxies, PutOutcome, RetryPolicy, Secret, Store,
    conformance_without_backslashes, read_all,
};
use wale_testkit::azure::{ACCOUNT, ACCOUNT_KEY, Azurite, CONTAINER, SHARED_ACCESS};
use wale_testkit::s3::{FaultProxy, Kind};
use wale_testkit::{Sandbox, StoreServer};

use crate::s3::whole_run_on;
use crate::s3_stage::{PATH, StoreStage};

/// The stage on Azurite.
pub(crate) type AzureStage = StoreStage<Azurite>;

pub(crate) fn store(port: u16, prefix: &str, credentials: AzureCredentialSource) -> AzureStore {
    let options = AzureOptions {
        account: ACCOUNT.into(),
        container: CONTAINER.into(),
        prefix: prefix.into(),
        cloud: "core.windows.net".into(),
        endpoint: Some(AzureEndpoint {
            secure: false,
            authority: format!("127.0.0.1:{port}"),
            path: format!("/{ACCOUNT}"),
        }),
        credentials,
        api_version: None,
        checksum: AzureChecksum::Md5,
        ca_file: None,
        proxies: Proxies::default(),
        timeouts: HttpTimeouts::default(),
        retry: RetryPolicy::default(),
        upload_memory_bytes: 32 << 20,
    };
    AzureStore::open(&options).expect("the options are good")
}

fn account_key() -> AzureCredentialSource {
    AzureCredentialSource::AccountKey(Secret::new(ACCOUNT_KEY))
}

pub(crate) fn shared_access() -> AzureCredentialSource {
    AzureCredentialSource::SharedAccess(Secret::new(format!("?{SHARED_ACCESS}")))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

/// Bytes that follow from their position, in chunks of an odd size.
fn body(size: usize) -> Body {
    const CHUNK: usize = 77_777;
    let chunks = (0..size.div_ceil(CHUNK)).map(move |n| {
        let length = CHUNK.min(size - n * CHUNK);
        Ok(pattern(n * CHUNK, length))
    });
    stream::iter(chunks).boxed()
}

fn pattern(start: usize, length: usize) -> Bytes {
    (start..start + length)
        .map(|at| {
            let mixed = (at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed.to_be_bytes()[0]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite_passes_the_suite_of_every_store() {
    let sandbox = Sandbox::new("azure-conformance");
    let server = Azurite::start(&sandbox);
    // Behind the proxy trials come one after the other: the emulator looks first and writes later.
    let proxy = FaultProxy::start(server.port());
    for (prefix, credentials) in [
        ("some/path/", account_key()),
        ("", account_key()),
        ("by/signature/", shared_access()),
    ] {
        let store = store(proxy.port(), prefix, credentials);
        conformance_without_backslashes(Arc::new(store)).await;
        // The suite drops puts half-way: one that was trying the store may reach it after its object was discarded.
        let mut left = server.objects();
        left.retain(|name| !name.contains("wale_probe_"));
        assert_eq!(left, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_any_size_come_back_as_they_were_and_blocks_of_others_do_no_harm() {
    let sandbox = Sandbox::new("azure-sizes");
    let server = Azurite::start(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "sizes/", account_key());
    // Left by a program whose identifiers have another length: 48 bytes, as Microsoft's library for Go has them.
    server.leave_block("sizes/object-30000001", &"QUJD".repeat(16));
    for size in [(4 << 20) - 1, 4 << 20, (4 << 20) + 1, 30_000_001] {
        let name = key(&format!("object-{size}"));
        let outcome = store.put_if_absent(&name, body(size)).await.unwrap();
        let PutOutcome::Created(meta) = outcome else {
            panic!("it did not exist");
        };
        assert_eq!(meta.size, size as u64);
        let read = read_all(&store, &name, 64 << 20).await.unwrap();
        assert!(read == pattern(0, size), "{size} bytes differ");
        let again = store.put_if_absent(&name, body(10)).await.unwrap();
        assert_eq!(again, PutOutcome::Exists);
    }
    assert!(proxy.count(Kind::PutPart, "30000001") >= 8);
    assert_eq!(server.unfinished(), 0);
    // More than a page, with names that XML and URLs escape.
    let mut names: Vec<String> = (0..1100).map(|n| format!("a+b & c/{n:04}%20é")).collect();
    names.sort();
    let puts = names.iter().map(|name| {
        let store = store.clone();
        async move { store.put(&key(name), body(1)).await }
    });
    let stored: Vec<_> = stream::iter(puts).buffer_unordered(8).collect().await;
    assert!(stored.iter().all(Result::is_ok));
    let listed = store.list("a+b").await.unwrap();
    let listed = listed.map_ok(|meta| meta.key.to_string());
    let listed: Vec<String> = listed.try_collect().await.unwrap();
    assert!(listed == names, "every name once, in the order of bytes");
}

/// Two sidecars have looked for a name, and neither has found it. The one that stores first has created it; the other
/// finds that out from the store's answer to its own write.
#[tokio::test(flavor = "multi_thread")]
async fn fault_30_of_two_azure_stores_that_create_one_name_the_first_does() {
    let sandbox = Sandbox::new("azure-race");
    let server = Azurite::start(&sandbox);
    let proxy = FaultProxy::start(server.port());
    for (size, kind) in [(1000, Kind::Put), (12 << 20, Kind::CompleteUpload)] {
        let open = || store(proxy.port(), "", account_key());
        let (first, second) = (open(), open());
        let name = key(&format!("race-{size}"));
        let (looked, has_looked) = tokio::sync::oneshot::channel();
        let (released, is_released) = tokio::sync::oneshot::channel();
        // A body is read after the look.
        let waits = stream::once(async move {
            looked.send(()).expect("somebody waits");
            is_released.await.expect("it is released");
            Ok(Bytes::from_static(b"x"))
        });
        let late = {
            let (name, body) = (name.clone(), waits.chain(body(size)).boxed());
            tokio::spawn(async move { second.put_if_absent(&name, body).await })
        };
        has_looked.await.unwrap();
        let created = first.put_if_absent(&name, body(size)).await.unwrap();
        assert!(matches!(created, PutOutcome::Created(_)), "{created:?}");
        proxy.forget();
        released.send(()).unwrap();
        assert_eq!(late.await.unwrap().unwrap(), PutOutcome::Exists, "{kind:?}");
        let asked = proxy.requests();
        let refused = asked
            .iter()
            .find(|seen| seen.kind == kind && seen.key == name.as_str());
        let refused = refused.expect("a write");
        assert_eq!(
            (refused.status, refused.header("if-none-match")),
            (409, Some("*"))
        );
        let read = read_all(&first, &name, 16 << 20).await.unwrap();
        assert!(read == pattern(0, size), "the first one's bytes stay");
    }
}

#[test]
fn archive_back_up_lose_everything_restore_to_a_point_in_time_on_azurite() {
    // Blocks of 4 MiB.
    let mut azure = AzureStage::with("azure-run", Azurite::start, |options| {
        options.set("WALE_MEMORY", "64MiB")
    });
    azure.make_noise();
    whole_run_on(&mut azure, |server| {
        let objects = server.objects();
        let below = format!("{PATH}/");
        assert!(objects.iter().all(|name| name.starts_with(&below)));
        assert_eq!(server.unfinished(), 0);
    });
}
