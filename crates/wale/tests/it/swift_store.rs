//! The store in Swift by itself: the suite of every store, large objects and their segments, tokens, logins, roles.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chrono::Utc;
use futures_util::{StreamExt, TryStreamExt, stream};
use wale_storage::{
    ApplicationCredential, Body, BodyError, HttpTimeouts, KeystoneName, LoginSecret,
    Misconfiguration, ObjectKey, Ours, Proxies, PutOutcome, RetryPolicy, Secret, Store, StoreError,
    SwiftInterface, SwiftLogin, SwiftMethod, SwiftOptions, SwiftStore, conformance, read_all,
};
use wale_testkit::s3::{Action, Answer, BUCKET, Fault, FaultProxy, Kind};
use wale_testkit::swift::{Keystone, Role, SwiftServer};
use wale_testkit::{Sandbox, StoreServer, wait_until};

/// Segments have 5 MiB with this memory.
const MEMORY: u64 = 32 << 20;
const SEGMENT: usize = 5 << 20;

/// A server, or a skip that is counted.
pub(crate) fn server(name: &str) -> Option<(Sandbox, SwiftServer)> {
    let sandbox = Sandbox::new(name);
    let Some(server) = SwiftServer::start(&sandbox) else {
        wale_testkit::skip(name, "Swift is not installed: run scripts/setup.sh");
        return None;
    };
    Some((sandbox, server))
}

fn login(port: u16, role: Role) -> SwiftLogin {
    let (user, key) = role.login();
    SwiftLogin {
        url: format!("http://127.0.0.1:{port}/auth/v1.0"),
        method: SwiftMethod::V1 {
            user: user.into(),
            key: LoginSecret::Text(Secret::new(key)),
        },
        region: None,
        interface: SwiftInterface::Public,
    }
}

pub(crate) fn options(port: u16, prefix: &str) -> SwiftOptions {
    SwiftOptions {
        container: BUCKET.into(),
        prefix: prefix.into(),
        spelling_is_certain: true,
        login: login(port, Role::Owner),
        storage_url: None,
        ca_file: None,
        proxies: Proxies::default(),
        timeouts: HttpTimeouts::default(),
        retry: RetryPolicy::default(),
        upload_memory_bytes: MEMORY,
    }
}

pub(crate) fn open(options: &SwiftOptions) -> SwiftStore {
    SwiftStore::open(options).expect("the options are good")
}

fn store(port: u16, prefix: &str) -> SwiftStore {
    open(&options(port, prefix))
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(name).unwrap()
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

async fn assert_content(store: &SwiftStore, name: &ObjectKey, size: usize, seed: u64) {
    let read = read_all(store, name, 64 << 20).await.unwrap();
    assert!(read == pattern(0, size, seed), "{name} differs");
}

/// Sweeps what was stored before. Swift tells the time in whole seconds, and what it got in the second that it tells has
/// no age yet: the next second is waited for.
async fn sweep(store: &SwiftStore, ours: Ours) -> u64 {
    let stored = Utc::now().timestamp();
    wait_until("the next second", Duration::from_secs(10), || {
        (Utc::now().timestamp() > stored).then_some(())
    });
    let swept = store.discard_unfinished(Duration::ZERO, ours).await;
    swept.expect("the server answers")
}

/// Sweeps until these are left. A segment of a put that was dropped may come after the others were discarded.
async fn sweep_until(store: &SwiftStore, server: &SwiftServer, left: &[&str]) {
    for _ in 0..30 {
        sweep(store, |_| true).await;
        if server.names() == left {
            return;
        }
    }
    panic!("{:?} and not {left:?}", server.names());
}

#[tokio::test(flavor = "multi_thread")]
async fn swift_passes_the_suite_of_every_store() {
    let Some((_sandbox, server)) = server("swift-conformance") else {
        return;
    };
    // WAL-E's names, and WAL-G's at the container's root, where segments lie among them.
    for prefix in ["/some/path/", ""] {
        let store = Arc::new(store(server.port(), prefix));
        conformance(Arc::<SwiftStore>::clone(&store)).await;
        // The suite drops puts half-way.
        sweep_until(&store, &server, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_come_back_and_their_segments_are_seen_by_nobody_and_go_with_them() {
    let Some((_sandbox, server)) = server("swift-large") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "/a/");
    let mut names = Vec::new();
    for size in [SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 17_000_001] {
        let name = key(&format!("object %-{size}"));
        let outcome = store.put_if_absent(&name, body(size, 1)).await.unwrap();
        let PutOutcome::Created(meta) = outcome else {
            panic!("it did not exist");
        };
        assert_eq!(meta.size, size as u64);
        assert_eq!(store.head(&name).await.unwrap(), Some(meta));
        assert_content(&store, &name, size, 1).await;
        let again = store.put_if_absent(&name, body(10, 2)).await.unwrap();
        assert_eq!(again, PutOutcome::Exists);
        names.push(name);
    }
    // WAL-E's name, slash and all.
    assert!(server.objects().contains(&"/a/object %-5242880".to_owned()));
    let listed: Vec<_> = store.list("").await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), names.len(), "{listed:?}");
    for meta in &listed {
        assert_eq!(store.head(&meta.key).await.unwrap().as_ref(), Some(meta));
    }
    // One segment of what is as long as one, with an empty one that is not sent: 1 + 2 + 3 + 4.
    assert_eq!(server.segments().len(), 10, "{:?}", server.segments());

    // The sweep knows what is in use, also when somebody has changed what an object says of itself.
    let target = format!("/{BUCKET}//a/object%20%25-17000001");
    let reply = server.send("POST", &target, &[("X-Object-Meta-Other", "x")], b"");
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!(sweep(&store, |_| true).await, 0);
    assert_content(&store, &names[4], 17_000_001, 1).await;

    // One alone, and several together.
    store.delete(&names[4]).await.unwrap();
    assert_eq!(server.segments().len(), 6);
    let failed = store.delete_many(&names).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(server.names(), [""; 0]);
    assert_eq!(
        proxy.count(Kind::DeleteMany, ""),
        1,
        "small ones go together"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_replaces_a_large_object_leaves_segments_to_the_sweep_and_to_nobody_else() {
    let Some((_sandbox, server)) = server("swift-replaced") else {
        return;
    };
    let store = store(server.port(), "/a/");
    let (name, other) = (key("x"), key("other"));
    store.put(&other, body(SEGMENT + 1, 3)).await.unwrap();
    store.put(&name, body(2 * SEGMENT, 1)).await.unwrap();
    store.put(&name, body(2 * SEGMENT + 1, 2)).await.unwrap();
    assert_eq!(server.segments().len(), 2 + 2 + 3);
    let day = Duration::from_hours(24);
    let swept = store.discard_unfinished(day, |_| true).await;
    assert_eq!(swept.unwrap(), 0, "what is young stays");
    assert_eq!(sweep(&store, |_| false).await, 0, "what is not ours stays");
    assert_eq!(sweep(&store, |key| key == "x").await, 1);
    assert_eq!(server.segments().len(), 2 + 3);
    assert_content(&store, &name, 2 * SEGMENT + 1, 2).await;
    assert_content(&store, &other, SEGMENT + 1, 3).await;
    store.put(&name, body(1, 4)).await.unwrap();
    assert_eq!(sweep(&store, |_| true).await, 1);
    assert_content(&store, &name, 1, 4).await;
    assert_content(&store, &other, SEGMENT + 1, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_03_uploads_that_fail_or_are_dropped_leave_nothing_behind() {
    const BEFORE: usize = 2 * SEGMENT + 1000;
    let Some((_sandbox, server)) = server("swift-aborted") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "/");
    let gone = || stream::iter([Err(BodyError::new("the source is gone"))]);
    let fails = body(BEFORE, 1).chain(gone()).boxed();
    let error = store.put(&key("a"), fails).await.unwrap_err();
    assert!(matches!(error, StoreError::BodyFailed { .. }), "{error:?}");
    assert!(server.objects().is_empty());
    // One that was on its way may come when the others are gone already.
    let begun = proxy.count(Kind::Put, "wale_segments/a/");
    assert!(
        begun > 0 && server.segments().len() <= 1,
        "the store answers: it is discarded at once"
    );
    {
        let name = key("b");
        let mut dropped = store.put(&name, body(BEFORE, 1).chain(stream::pending()).boxed());
        while proxy.count(Kind::Put, "/b/") < 2 {
            let limit = Duration::from_millis(10);
            let waited = tokio::time::timeout(limit, &mut dropped).await;
            assert!(waited.is_err(), "the body has no end");
        }
    }
    store.put(&key("c"), body(10, 1)).await.unwrap();
    for name in ["a", "b"] {
        assert_eq!(store.head(&key(name)).await.unwrap(), None, "{name}");
    }
    sweep_until(&store, &server, &["/c"]).await;
}

/// Two sidecars have looked for a name, and neither has found it. The one that stores first has created it; the other
/// finds that out from the store's answer to its own write.
#[tokio::test(flavor = "multi_thread")]
async fn fault_30_of_two_stores_that_create_one_name_in_swift_the_first_does() {
    let Some((_sandbox, server)) = server("swift-race") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    for size in [1000, 2 * SEGMENT] {
        let (first, second) = (store(proxy.port(), "/"), store(proxy.port(), "/"));
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
        assert_eq!(outcome, PutOutcome::Exists, "{size}");
        let asked = proxy.requests();
        let refused = asked
            .iter()
            .find(|seen| seen.kind == Kind::Put && seen.key == name.as_str());
        let refused = refused.expect("a write");
        assert_eq!(
            (refused.status, refused.header("if-none-match")),
            (412, Some("*"))
        );
        assert_content(&first, &name, size, 1).await;
    }
    // The loser's segments are gone.
    assert_eq!(server.segments().len(), 2, "{:?}", server.segments());
}

/// Swift looks at the condition when a write begins. Both writes have begun: the one that ends later stays, and the
/// other finds out that its object is gone.
#[tokio::test(flavor = "multi_thread")]
async fn fault_30_of_two_writes_that_overlap_one_at_most_is_told_that_it_created() {
    let Some((_sandbox, server)) = server("swift-overlap") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let direct = store(server.port(), "/");
    let delayed = store(proxy.port(), "/");
    let name = key("overlap");
    // After the write and before the look that follows it another object comes to the name.
    proxy.fault(
        Fault::on(&[Kind::Put]).key("overlap").once(),
        Action::LoseReply,
    );
    let replaced = Fault::on(&[Kind::Head]).key("overlap").after(1).once();
    proxy.fault(replaced, Action::Delay(Duration::from_secs(2)));
    let late = {
        let name = name.clone();
        tokio::spawn(async move { delayed.put_if_absent(&name, body(100, 1)).await })
    };
    wale_testkit::wait_until("the first write", Duration::from_secs(30), || {
        server
            .objects()
            .contains(&"/overlap".to_owned())
            .then_some(())
    });
    direct.put(&name, body(100, 2)).await.unwrap();
    assert_eq!(late.await.unwrap().unwrap(), PutOutcome::Exists);
    assert_content(&direct, &name, 100, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_25_a_lost_reply_to_the_last_request_of_a_large_object_is_made_good() {
    let Some((_sandbox, server)) = server("swift-lost") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "/");
    let is_list = |seen: &wale_testkit::s3::Seen| seen.query.contains("multipart-manifest=put");
    for (n, action) in [
        Action::LoseReply,
        Action::CutBefore,
        Action::Answer(Answer::new(503, "")),
        Action::ReplaceReply(Answer::new(200, "<html>log in</html>")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = key(&format!("lost-{n}"));
        proxy.fault(Fault::on(&[Kind::Put]).when(is_list).once(), action);
        let outcome = store
            .put_if_absent(&name, body(2 * SEGMENT, 1))
            .await
            .unwrap();
        assert!(
            matches!(outcome, PutOutcome::Created(_)),
            "{n}: {outcome:?}"
        );
        assert_content(&store, &name, 2 * SEGMENT, 1).await;
        proxy.clear();
    }
    // Segments on their way: lost, cut, garbled, refused.
    for (n, action) in [
        Action::LoseReply,
        Action::CutUpload(100_000),
        Action::garble_upload(),
        Action::shorten_upload(),
        Action::Answer(Answer::new(500, "")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = key(&format!("segment-{n}"));
        let fault = Fault::on(&[Kind::Put]).key("wale_segments").after(1).once();
        proxy.fault(fault, action);
        store.put(&name, body(3 * SEGMENT, 1)).await.unwrap();
        assert_content(&store, &name, 3 * SEGMENT, 1).await;
        proxy.clear();
    }
    assert_eq!(server.segments().len(), 4 * 2 + 5 * 3);
    assert_eq!(sweep(&store, |_| true).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_31_a_token_that_ends_in_mid_upload_is_renewed() {
    let Some((_sandbox, server)) = server("swift-31") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "/");
    let name = key("renewed");
    // Between the second segment and the third every token is forgotten.
    let (reached, has_reached) = tokio::sync::oneshot::channel();
    let (released, is_released) = tokio::sync::oneshot::channel();
    let waits = stream::once(async move {
        reached.send(()).expect("somebody waits");
        is_released.await.expect("it is released");
        Ok(Bytes::new())
    });
    let whole = body(2 * SEGMENT, 1)
        .chain(waits)
        .chain(stream::iter([Ok(pattern(2 * SEGMENT, SEGMENT, 1))]))
        .boxed();
    let upload = {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move { store.put_if_absent(&name, whole).await })
    };
    has_reached.await.unwrap();
    server.forget_tokens();
    released.send(()).unwrap();
    let outcome = upload.await.unwrap().unwrap();
    assert!(matches!(outcome, PutOutcome::Created(_)), "{outcome:?}");
    assert_content(&store, &name, 3 * SEGMENT, 1).await;
    let logins = |proxy: &FaultProxy| proxy.count(Kind::Get, "auth/v1.0");
    assert_eq!(logins(&proxy), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_31_a_password_that_is_changed_is_read_anew_and_a_wrong_one_is_no_absence() {
    let Some((sandbox, server)) = server("swift-31-password") else {
        return;
    };
    let file = sandbox.path().join("password");
    std::fs::write(&file, "testing\n").unwrap();
    let mut options = options(server.port(), "/");
    options.login.method = SwiftMethod::V1 {
        user: Role::Owner.login().0.into(),
        key: LoginSecret::File(file.clone()),
    };
    let store = open(&options);
    let name = key("kept");
    store.put(&name, body(10, 1)).await.unwrap();
    // In the middle of a deletion of many, whose answer of status 200 says it in its body.
    let names: Vec<ObjectKey> = (0..20).map(|n| key(&format!("many/{n:02}"))).collect();
    for name in &names {
        store.put(name, body(10, 1)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server.forget_tokens();
    let failed = store.delete_many(&names).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(server.objects_with("many"), [""; 0]);

    // The password is another now, and the file has it not: that says nothing of objects.
    std::fs::write(&file, "another\n").unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server.forget_tokens();
    for asked in [
        store.head(&name).await.map(drop),
        store.get(&name).await.map(drop),
        store.list("").await.map(drop),
        store.put_if_absent(&key("new"), body(1, 1)).await.map(drop),
    ] {
        let error = asked.expect_err("the login is refused");
        let problem = Misconfiguration::LoginRefused;
        assert!(
            matches!(&error, StoreError::Misconfigured { problem: p, .. } if *p == problem),
            "{error:?}"
        );
        assert!(!format!("{error:?}").contains("another"), "{error:?}");
    }
    std::fs::write(&file, "testing").unwrap();
    assert_content(&store, &name, 10, 1).await;
}

/// Every way to log in to the tests' Keystone.
fn methods_of_keystone() -> [SwiftMethod; 6] {
    use KeystoneName::{Id, Name};
    let password = || LoginSecret::Text(Secret::new(Keystone::PASSWORD));
    let secret = || LoginSecret::Text(Secret::new(Keystone::CREDENTIAL_SECRET));
    let user = || Name(Keystone::USER.into());
    let default = || Id("default".into());
    [
        SwiftMethod::V2 {
            user: Keystone::USER.into(),
            password: password(),
            tenant: Name(Keystone::PROJECT.into()),
        },
        SwiftMethod::V2 {
            user: Keystone::USER.into(),
            password: password(),
            tenant: Id(Keystone::PROJECT_ID.into()),
        },
        SwiftMethod::V3Password {
            user: user(),
            user_domain: default(),
            password: password(),
            project: Name(Keystone::PROJECT.into()),
            project_domain: Name(Keystone::DOMAIN.into()),
        },
        SwiftMethod::V3Password {
            user: Id(Keystone::USER_ID.into()),
            user_domain: Id("no matter".into()),
            password: password(),
            project: Id(Keystone::PROJECT_ID.into()),
            project_domain: Id("no matter".into()),
        },
        SwiftMethod::V3Application {
            credential: ApplicationCredential::Id(Keystone::CREDENTIAL_ID.into()),
            secret: secret(),
        },
        SwiftMethod::V3Application {
            credential: ApplicationCredential::OfUser {
                name: "archive".into(),
                user: user(),
                user_domain: default(),
            },
            secret: secret(),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_keystone_with_passwords_domains_and_application_credentials() {
    let Some((_sandbox, server)) = server("swift-keystone") else {
        return;
    };
    let keystone = Keystone::start(&server, server.port());
    let methods = methods_of_keystone();
    let with = |method: SwiftMethod, region: Option<&str>| {
        let mut options = options(server.port(), "/keystone/");
        options.login = SwiftLogin {
            url: format!("http://127.0.0.1:{}/v3", keystone.port()),
            method,
            region: region.map(str::to_owned),
            interface: SwiftInterface::Public,
        };
        options.retry.attempts_max = 2;
        open(&options)
    };
    for (n, method) in methods.iter().enumerate() {
        let store = with(method.clone(), Some("One"));
        let name = key(&format!("{n}"));
        let outcome = store.put_if_absent(&name, body(10, 1)).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Created(_)), "{method:?}");
        assert_content(&store, &name, 10, 1).await;
    }
    assert_eq!(keystone.logins(), methods.len());
    // A token that ends is renewed.
    let store = with(methods[2].clone(), Some("One"));
    store.head(&key("0")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    server.forget_tokens();
    assert!(store.head(&key("0")).await.unwrap().is_some());
    assert_eq!(keystone.logins(), methods.len() + 2);
    // Wrong ones.
    let error = with(methods[2].clone(), Some("Three"))
        .check()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("region Three"), "{error}");
    let error = with(methods[2].clone(), Some("Two"))
        .check()
        .await
        .unwrap_err();
    assert!(error.is_transient(), "nobody is there: {error:?}");
    keystone.set_password("changed");
    let error = with(methods[0].clone(), None).check().await.unwrap_err();
    let problem = Misconfiguration::LoginRefused;
    assert!(
        matches!(&error, StoreError::Misconfigured { problem: p, .. } if *p == problem),
        "{error:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_may_what_the_guide_says_and_a_refusal_is_no_absence() {
    let Some((_sandbox, server)) = server("swift-roles") else {
        return;
    };
    let of = |role| {
        let mut options = options(server.port(), "/a/");
        options.login = login(server.port(), role);
        open(&options)
    };
    let (writer, reader) = (of(Role::Writer), of(Role::Reader));
    let names = ["large", "small", "other"].map(key);
    for (name, size) in names.iter().zip([2 * SEGMENT, 10, 20]) {
        let outcome = writer.put_if_absent(name, body(size, 1)).await.unwrap();
        assert!(matches!(outcome, PutOutcome::Created(_)), "{name}");
        assert_content(&reader, name, size, 1).await;
    }
    writer.try_out().await.unwrap();
    reader.check().await.unwrap();
    let listed: Vec<_> = reader.list("").await.unwrap().try_collect().await.unwrap();
    assert_eq!(listed.len(), 3);
    assert_eq!(reader.head(&key("absent")).await.unwrap(), None);
    let denied = |error: StoreError| {
        assert!(
            matches!(error, StoreError::PermissionDenied { .. }),
            "{error:?}"
        );
    };
    denied(reader.put(&key("x"), body(10, 1)).await.unwrap_err());
    denied(
        reader
            .put_if_absent(&key("x"), body(2 * SEGMENT, 1))
            .await
            .unwrap_err(),
    );
    denied(reader.delete(&names[0]).await.unwrap_err());
    denied(reader.delete(&names[1]).await.unwrap_err());
    let failed = reader.delete_many(&names).await;
    assert_eq!(failed.len(), 3, "{failed:?}");
    for (_, error) in failed {
        denied(error);
    }
    assert_content(&writer, &names[0], 2 * SEGMENT, 1).await;
    // A container in which they may nothing.
    let reply = server.send("PUT", "/closed", &[], b"");
    assert_eq!(reply.status, 201);
    let mut closed = options(server.port(), "/a/");
    closed.container = "closed".into();
    closed.login = login(server.port(), Role::Writer);
    let closed = open(&closed);
    denied(closed.head(&names[0]).await.unwrap_err());
    denied(closed.get(&names[0]).await.unwrap_err());
    denied(closed.list("").await.err().unwrap());
    denied(
        closed
            .put_if_absent(&names[0], body(1, 1))
            .await
            .unwrap_err(),
    );
    let failed = writer.delete_many(&names).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(server.names(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_24_a_container_that_is_gone_is_not_the_absence_of_an_object() {
    let Some((_sandbox, server)) = server("swift-gone") else {
        return;
    };
    let names = [key("x")];
    let mut gone = options(server.port(), "/a/");
    gone.container = "gone".into();
    let gone = open(&gone);
    for error in [
        gone.head(&names[0]).await.unwrap_err(),
        gone.get(&names[0]).await.unwrap_err(),
        gone.list("").await.err().unwrap(),
        gone.put(&names[0], body(1, 1)).await.unwrap_err(),
        gone.put_if_absent(&names[0], body(1, 1)).await.unwrap_err(),
        gone.try_out().await.unwrap_err(),
    ] {
        let problem = Misconfiguration::NoSuchBucket;
        assert!(
            matches!(&error, StoreError::Misconfigured { problem: p, .. } if *p == problem),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_objects_are_listed_in_pages_and_deleted_in_a_few_requests() {
    const OBJECTS: usize = 1100;
    let Some((_sandbox, server)) = server("swift-many") else {
        return;
    };
    let proxy = FaultProxy::start(server.port());
    let store = store(proxy.port(), "/many/");
    let mut names: Vec<String> = (0..OBJECTS)
        .map(|n| format!("folder {}/wal+{n:05}%20é", n % 7))
        .collect();
    let puts = names.iter().map(|name| {
        let (store, name) = (store.clone(), key(name));
        async move { store.put(&name, body(1, 1)).await }
    });
    let puts: Vec<_> = puts.collect();
    let stored: Vec<_> = stream::iter(puts)
        .buffer_unordered(8)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(stored.len(), OBJECTS);
    names.sort();
    proxy.forget();
    // A page that breaks is asked for again.
    proxy.fault(
        Fault::on(&[Kind::List]).after(1).once(),
        Action::CutReply(100),
    );
    let listed: Vec<String> = store
        .list("")
        .await
        .unwrap()
        .map_ok(|meta| meta.key.to_string())
        .try_collect()
        .await
        .unwrap();
    assert!(listed == names, "every name once, in the order of bytes");
    assert_eq!(
        proxy.count(Kind::List, ""),
        4,
        "two pages, one twice, and the end"
    );
    let keys: Vec<ObjectKey> = listed.iter().map(|name| key(name)).collect();
    let failed = store.delete_many(&keys).await;
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(proxy.count(Kind::DeleteMany, ""), 2);
    assert_eq!(server.names(), [""; 0]);
}
