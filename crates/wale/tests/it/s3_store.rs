//! The S3 store against real servers, without a cluster: the suite that every store must pass, many objects, objects of
//! many parts, deletions that are refused. Rows 30 and 34 of the fault battery.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use wale_storage::{
    Addressing, Body, BodyError, CredentialSource, Credentials, HttpTimeouts, ObjectKey, Proxies,
    PutOutcome, RetryPolicy, S3Endpoint, S3Options, S3Store, Secret, ServerEncryption, Store,
    StoreError, UploadChecksum, conformance_with_names, read_all,
};
use wale_testkit::s3::{
    ACCESS_KEY, Action, Answer, BUCKET, Fault, FaultProxy, Kind, S3Server, SECRET_KEY, Seen,
};
use wale_testkit::{Sandbox, StoreServer};

/// A store in the bucket of the server at this loopback port.
pub(crate) fn store(port: u16, prefix: &str) -> S3Store {
    S3Store::open(&options(port, prefix)).expect("the options are good")
}

fn options(port: u16, prefix: &str) -> S3Options {
    S3Options {
        bucket: BUCKET.into(),
        prefix: prefix.into(),
        endpoint: Some(S3Endpoint {
            secure: false,
            authority: format!("127.0.0.1:{port}"),
            path: String::new(),
            addressing: Addressing::Path,
        }),
        region: "us-east-1".into(),
        credentials: CredentialSource::Static(Credentials {
            access_key_id: ACCESS_KEY.into(),
            secret_access_key: Secret::new(SECRET_KEY),
            session_token: None,
        }),
        keys_expire: None,
        storage_class: None,
        encryption: ServerEncryption::BucketDefault,
        checksum: UploadChecksum::Crc32c,
        ca_file: None,
        proxies: Proxies::default(),
        timeouts: HttpTimeouts::default(),
        retry: RetryPolicy::default(),
        upload_memory_bytes: 32 << 20,
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_pass_the_suite_of_every_store() {
    let sandbox = Sandbox::new("s3-conformance");
    let (moto, s3s) = (S3Server::moto(&sandbox), S3Server::s3s(&sandbox, None));
    // s3s-fs makes file names of three bytes for two of the key, and of some more around them.
    for (server, prefix, longest) in [
        (&moto, "some/path/", 255),
        (&moto, "", 255),
        (&s3s, "some/path/", 100),
    ] {
        let store = Arc::new(store(server.port(), prefix));
        conformance_with_names(store, longest).await;
        // The suite drops puts half-way: one that was trying the store may reach it after its object was discarded.
        let mut left = server.objects();
        left.retain(|name| !name.contains("wale_probe_"));
        assert_eq!(left, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_fail_or_are_dropped_after_some_parts_are_aborted_by_the_next() {
    const BEFORE: usize = 12 << 20;
    let sandbox = Sandbox::new("s3-aborted");
    for server in [S3Server::moto(&sandbox), S3Server::s3s(&sandbox, None)] {
        let proxy = FaultProxy::start(server.port());
        let store = store(proxy.port(), "");
        let gone = || stream::iter([Err(BodyError::new("the source is gone"))]);
        let fails = body(BEFORE, 1).chain(gone()).boxed();
        let error = store.put(&key("a"), fails).await.unwrap_err();
        assert!(matches!(error, StoreError::BodyFailed { .. }), "{error:?}");
        assert_eq!(
            server.unfinished(),
            0,
            "the store answers: it is aborted at once"
        );
        let name = key("b");
        {
            let mut dropped = store.put(&name, body(BEFORE, 1).chain(stream::pending()).boxed());
            // A part that is under way when its upload is aborted may be kept by a server, which the sweep is for.
            let stored = |proxy: &FaultProxy| {
                let is_part = |seen: &&Seen| seen.kind == Kind::PutPart && seen.key == "b";
                let asked = proxy.requests();
                asked
                    .iter()
                    .filter(is_part)
                    .filter(|seen| seen.status == 200)
                    .count()
            };
            while stored(&proxy) < 2 {
                let limit = Duration::from_millis(10);
                let waited = tokio::time::timeout(limit, &mut dropped).await;
                assert!(waited.is_err(), "the body has no end");
            }
        }
        store.put(&key("c"), body(10, 1)).await.unwrap();
        assert_eq!(server.unfinished(), 0);
        for name in ["a", "b"] {
            assert_eq!(store.head(&key(name)).await.unwrap(), None, "{name}");
        }
    }
}

/// Two sidecars have looked for a name, and neither has found it. The one that stores first has created it; the other
/// finds that out from the store's answer to its own write, without having looked again.
#[tokio::test(flavor = "multi_thread")]
async fn fault_30_of_two_stores_that_create_one_name_the_first_does() {
    let sandbox = Sandbox::new("s3-race");
    for server in [S3Server::moto(&sandbox), S3Server::s3s(&sandbox, None)] {
        let proxy = FaultProxy::start(server.port());
        for (size, kind) in [(1000, Kind::Put), (12 << 20, Kind::CompleteUpload)] {
            let (first, second) = (store(proxy.port(), ""), store(proxy.port(), ""));
            let name = key(&format!("race-{size}"));
            let (looked, has_looked) = tokio::sync::oneshot::channel();
            let (released, is_released) = tokio::sync::oneshot::channel();
            // A body is read after the look.
            let waits = stream::once(async move {
                looked.send(()).expect("somebody waits");
                is_released.await.expect("it is released");
                Ok(Bytes::new())
            });
            let late = {
                let (name, body) = (name.clone(), waits.chain(body(size, 2)).boxed());
                tokio::spawn(async move { second.put_if_absent(&name, body).await })
            };
            has_looked.await.unwrap();
            let created = first.put_if_absent(&name, body(size, 1)).await.unwrap();
            assert!(matches!(created, PutOutcome::Created(_)), "{created:?}");
            proxy.forget();
            released.send(()).unwrap();
            let outcome = late.await.unwrap().unwrap();
            assert_eq!(outcome, PutOutcome::Exists, "{kind:?}");
            let asked = proxy.requests();
            let refused = asked
                .iter()
                .find(|seen| seen.kind == kind && seen.key == name.as_str());
            let refused = refused.expect("a write");
            assert_eq!(
                (refused.status, refused.header("if-none-match")),
                (412, Some("*"))
            );
            let read = read_all(&first, &name, 16 << 20).await.unwrap();
            assert!(read == pattern(0, size, 1), "the first one's bytes stay");
        }
    }
}

/// A kind of request, the headers that it must have, and those that it must not have.
type KindCase<'a> = (Kind, &'a [&'a str], &'a [&'a str]);

#[tokio::test(flavor = "multi_thread")]
async fn class_and_encryption_are_told_to_each_request_of_an_upload_that_wants_them() {
    const CLASS: &str = "x-amz-storage-class";
    const SSE: &str = "x-amz-server-side-encryption";
    const KMS: &str = "x-amz-server-side-encryption-aws-kms-key-id";
    const OURS: [&str; 3] = [
        "x-amz-server-side-encryption-customer-algorithm",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-server-side-encryption-customer-key-md5",
    ];
    let sandbox = Sandbox::new("s3-upload-headers");
    let server = S3Server::moto(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let own_key = Secret::new("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=");
    let cases: [(ServerEncryption, [KindCase<'_>; 3]); 2] = [
        (
            ServerEncryption::Kms(Some("alias/wale".into())),
            [
                (Kind::CreateUpload, &[CLASS, SSE, KMS], &OURS),
                (Kind::PutPart, &[], &[CLASS, SSE, KMS]),
                (Kind::CompleteUpload, &[], &[CLASS, SSE, KMS]),
            ],
        ),
        (
            ServerEncryption::CustomerKey(own_key),
            [
                (
                    Kind::CreateUpload,
                    &[CLASS, OURS[0], OURS[1], OURS[2]],
                    &[SSE, KMS],
                ),
                (Kind::PutPart, &OURS, &[CLASS, SSE, KMS]),
                (Kind::CompleteUpload, &OURS, &[CLASS, SSE, KMS]),
            ],
        ),
    ];
    for (n, (encryption, kinds)) in cases.into_iter().enumerate() {
        proxy.forget();
        let options = S3Options {
            storage_class: Some("STANDARD_IA".into()),
            encryption,
            ..options(proxy.port(), "")
        };
        let name = key(&format!("object-{n}"));
        let store = S3Store::open(&options).unwrap();
        store.put(&name, body(12 << 20, 0)).await.unwrap();
        for (kind, present, absent) in kinds {
            let mut requests = proxy.requests();
            requests.retain(|seen| seen.kind == kind && seen.key == name.as_str());
            assert!(!requests.is_empty(), "{kind:?}");
            for seen in requests {
                for header in present {
                    assert!(seen.header(header).is_some(), "{kind:?} has no {header}");
                }
                for header in absent {
                    assert_eq!(seen.header(header), None, "{kind:?} has {header}");
                }
            }
        }
    }
}

/// Bytes that follow from their position, in chunks of an odd size.
fn body(size: usize, seed: u64) -> Body {
    const CHUNK: usize = 77_777;
    let chunks = (0..size.div_ceil(CHUNK)).map(move |n| {
        let length = CHUNK.min(size - n * CHUNK);
        Ok(pattern(n * CHUNK, length, seed))
    });
    stream::iter(chunks).boxed()
}

fn pattern(start: usize, length: usize, seed: u64) -> Bytes {
    (start..start + length)
        .map(|at| {
            let mixed = (at as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed.to_be_bytes()[0]
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_any_size_come_back_as_they_were() {
    let seed: u64 = std::env::var("WALE_TEST_SEED").map_or(0x5EED, |n| n.parse().unwrap());
    println!("WALE_TEST_SEED={seed}");
    let random = usize::try_from(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (40 << 20)).unwrap();
    let sandbox = Sandbox::new("s3-sizes");
    for server in [S3Server::moto(&sandbox), S3Server::s3s(&sandbox, None)] {
        let proxy = FaultProxy::start(server.port());
        let store = store(proxy.port(), "sizes/");
        for size in [(8 << 20) - 1, 8 << 20, (8 << 20) + 1, 30_000_001, random] {
            let name = key(&format!("object-{size}"));
            let outcome = store.put_if_absent(&name, body(size, seed)).await.unwrap();
            let PutOutcome::Created(meta) = outcome else {
                panic!("it did not exist");
            };
            assert_eq!(meta.size, size as u64);
            let read = read_all(&store, &name, 64 << 20).await.unwrap();
            assert!(read == pattern(0, size, seed), "{size} bytes differ");
            let again = store.put_if_absent(&name, body(10, seed)).await.unwrap();
            assert_eq!(again, PutOutcome::Exists);
        }
        assert!(proxy.count(Kind::PutPart, "30000001") >= 3);
        assert_eq!(server.unfinished(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_objects_are_listed_in_order_and_deleted_in_a_few_requests() {
    const OBJECTS: usize = 5000;
    let sandbox = Sandbox::new("s3-many");
    let server = S3Server::s3s(&sandbox, None);
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "many/");
    let mut names: Vec<String> = (0..OBJECTS)
        .map(|n| format!("folder {}/wal+{n:05}%20é", n % 7))
        .collect();
    for name in &names {
        server.tamper(&format!("many/{name}"), b"x");
    }
    names.sort();
    let listed: Vec<String> = store
        .list("")
        .await
        .unwrap()
        .map_ok(|meta| meta.key.to_string())
        .try_collect()
        .await
        .unwrap();
    assert!(listed == names, "every name once, in the order of bytes");
    assert!(proxy.count(Kind::List, "") >= 5);
    let keys: Vec<ObjectKey> = listed.iter().map(|name| key(name)).collect();
    let failed = store.delete_many(&keys).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert!(proxy.count(Kind::DeleteMany, "") <= 5);
    assert_eq!(server.objects(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_moto_lists_in_pages_is_whole() {
    let sandbox = Sandbox::new("s3-pages");
    let server = S3Server::moto(&sandbox);
    let store = store(server.port(), "pages/");
    let expected: Vec<String> = (0..1100).map(|n| format!("a+b c/{n:04}")).collect();
    for name in &expected {
        let name = name.replace('+', "%2B").replace(' ', "%20");
        server.tamper(&format!("pages/{name}"), b"x");
    }
    let listed: Vec<String> = store
        .list("a+b")
        .await
        .unwrap()
        .map_ok(|meta| meta.key.to_string())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(listed, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_34_what_may_not_be_deleted_is_told_and_the_others_are_gone() {
    let sandbox = Sandbox::new("s3-34");
    let server = S3Server::moto(&sandbox);
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "");
    let keys: Vec<ObjectKey> = (0..20).map(|n| key(&format!("object-{n:02}"))).collect();
    for key in &keys {
        store.put(key, body(10, 0)).await.unwrap();
    }
    // The store deletes the others and says of one that it is locked; of another that it is busy.
    let kept: [(&str, &str, &str); 2] = [
        (
            "object-07",
            "AccessDenied",
            "Access Denied because object protected by object lock.",
        ),
        ("object-11", "AccessDenied", "Access Denied"),
    ];
    let entries: Vec<String> = keys
        .iter()
        .map(|key| match kept.iter().find(|(name, ..)| *name == key.as_str()) {
            None => format!("<Deleted><Key>{key}</Key></Deleted>"),
            Some((name, code, message)) => format!(
                "<Error><Key>{name}</Key><Code>{code}</Code><Message>{message}</Message></Error>"
            ),
        })
        .collect();
    let answer = format!("<DeleteResult>{}</DeleteResult>", entries.concat());
    proxy.fault(
        Fault::on(&[Kind::DeleteMany]),
        Action::ReplaceReply(Answer::new(200, &answer)),
    );
    let mut failed = store.delete_many(&keys).await;
    failed.sort_by(|a, b| a.0.cmp(&b.0));
    let names: Vec<&str> = failed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["object-07", "object-11"]);
    assert!(
        matches!(failed[0].1, StoreError::Retained { .. }),
        "{:?}",
        failed[0]
    );
    assert!(
        matches!(failed[1].1, StoreError::PermissionDenied { .. }),
        "{:?}",
        failed[1]
    );
    let asked = proxy.count(Kind::DeleteMany, "") + proxy.count(Kind::Delete, "");
    assert!(asked <= 5, "no loop: {asked} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_nobody_will_finish_are_discarded() {
    let sandbox = Sandbox::new("s3-unfinished");
    let server = S3Server::moto(&sandbox);
    let store = store(server.port(), "ours/");
    // moto says of each that it began in 2010.
    for name in ["ours/a%20b", "ours/c", "others/d"] {
        server.send("POST", &format!("/{BUCKET}/{name}?uploads"), b"");
    }
    let day = Duration::from_hours(24);
    assert_eq!(store.discard_unfinished(day, |_| true).await.unwrap(), 2);
    assert_eq!(
        server.unfinished(),
        1,
        "what is outside of the prefix stays"
    );
    // A server that cannot list uploads is no reason to fail.
    let s3s = S3Server::s3s(&sandbox, None);
    let incapable = self::store(s3s.port(), "");
    assert_eq!(
        incapable.discard_unfinished(day, |_| true).await.unwrap(),
        0
    );
}
