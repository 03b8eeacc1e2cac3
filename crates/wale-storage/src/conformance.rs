//! One suite for every store: what [`crate::Store`] promises, checked from outside.
//!
//! It is code, not a test, so that a store in another crate can be held to it. It works below
//! `conformance/` only, expects nothing there, and leaves nothing there when it succeeds.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::{
    Body, BodyError, ObjectKey, ObjectMeta, Ours, PutOutcome, Store, StoreError, body_from,
    read_all,
};

/// Everything here stays below this prefix.
const PREFIX: &str = "conformance/";

/// Checks that a store keeps the promises of [`Store`]. To be called from a test.
///
/// # Panics
///
/// Where the store breaks a promise, with the promise as the message.
pub async fn conformance(store: Arc<dyn Store>) {
    conformance_with_names(store, 255).await;
}

/// The same for a store whose names have components of at most `name_bytes`, because it keeps more in a file's name
/// than the object's.
///
/// # Panics
///
/// As [`conformance`].
pub async fn conformance_with_names(store: Arc<dyn Store>, name_bytes: usize) {
    suite(store, name_bytes, Backslashes::Kept).await;
}

/// The same for a store that makes slashes of backslashes, and so refuses names with any.
///
/// # Panics
///
/// As [`conformance`].
pub async fn conformance_without_backslashes(store: Arc<dyn Store>) {
    suite(store, 255, Backslashes::Refused).await;
}

/// What a store does about a backslash in a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backslashes {
    Kept,
    Refused,
}

async fn suite(store: Arc<dyn Store>, name_bytes: usize, backslashes: Backslashes) {
    store.check().await.expect("the store can be asked");
    assert!(!store.location().is_empty(), "a store says where it is");
    let found = keys(&*store, PREFIX).await;
    assert!(
        found.is_empty(),
        "the suite needs an empty folder: {found:?}"
    );

    absent(&*store).await;
    created_once(&*store).await;
    created_once_by_many(&store).await;
    replaced(&*store).await;
    aborted(&*store).await;
    sizes(&*store).await;
    unusual_names(&*store, name_bytes, backslashes).await;
    listed(&*store).await;
    read_while_replaced(&*store).await;
    ranges(&*store).await;
    deleted_together(&*store).await;
    discarded(&*store).await;

    let left = keys(&*store, PREFIX).await;
    assert!(left.is_empty(), "nothing is left: {left:?}");
}

async fn absent(store: &dyn Store) {
    for name in ["absent", "absent/deeper/still"] {
        let key = key(name);
        let error = store.get(&key).await.expect_err("there is nothing to get");
        assert!(error.is_not_found(), "absence is NotFound: {error:?}");
        assert!(!error.is_transient(), "absence is an answer");
        let meta = store.head(&key).await.expect("absence is no error of head");
        assert_eq!(meta, None);
        let meta = store.confirm(&key).await;
        assert_eq!(meta.expect("absence is no error of confirm"), None);
        store.delete(&key).await.expect("deleting nothing is fine");
    }
}

async fn created_once(store: &dyn Store) {
    let key = key("once");
    let outcome = store.put_if_absent(&key, body("first")).await;
    let PutOutcome::Created(meta) = outcome.expect("stores") else {
        panic!("an absent object is created");
    };
    assert_eq!((&meta.key, meta.size), (&key, 5));
    let outcome = store.put_if_absent(&key, body("second")).await;
    assert_eq!(outcome.expect("asks"), PutOutcome::Exists);
    let fails = stream::iter([Err(BodyError::new("not to be read"))]).boxed();
    let outcome = store.put_if_absent(&key, fails).await;
    assert_eq!(
        outcome.expect("asks"),
        PutOutcome::Exists,
        "what exists is told, whatever the body would say"
    );
    assert_eq!(content(store, &key).await, "first", "the first stays");
    let head = store.head(&key).await.expect("asks").expect("is there");
    assert_eq!((&head.key, head.size), (&key, 5));
    let object = store.get(&key).await.expect("opens");
    assert_eq!(object.meta, head, "get and head agree");
    let confirmed = store.confirm(&key).await.expect("asks");
    assert_eq!(confirmed, Some(head), "confirm and head agree");
    assert_eq!(
        content(store, &key).await,
        "first",
        "confirm changes nothing"
    );
    for _ in 0..2 {
        store.delete(&key).await.expect("deleting again is fine");
        assert_eq!(store.head(&key).await.expect("asks"), None);
    }
    let outcome = store.put_if_absent(&key, body("third")).await;
    assert!(
        matches!(outcome.expect("stores"), PutOutcome::Created(_)),
        "what was deleted can be created"
    );
    store.delete(&key).await.expect("deletes");
}

async fn created_once_by_many(store: &Arc<dyn Store>) {
    const WRITERS: u8 = 20;
    let key = key("race/object");
    let writers = (0..WRITERS).map(|n| {
        let (store, key) = (Arc::clone(store), key.clone());
        // Several chunks each, so that writers overlap.
        let chunks = stream::iter((0..8).map(move |_| Ok(Bytes::from(vec![n; 1000]))));
        tokio::spawn(async move { (n, store.put_if_absent(&key, chunks.boxed()).await) })
    });
    let mut winners = Vec::new();
    for outcome in join_all(writers).await {
        let (n, outcome) = outcome.expect("no store panics");
        if let PutOutcome::Created(meta) = outcome.expect("every writer gets an answer") {
            assert_eq!(meta.size, 8000);
            winners.push(n);
        }
    }
    assert_eq!(winners.len(), 1, "exactly one of the writers creates");
    assert_eq!(content(&**store, &key).await, vec![winners[0]; 8000]);
    store.delete(&key).await.expect("deletes");
}

async fn replaced(store: &dyn Store) {
    let key = key("replaced");
    for text in ["a longer text", "short", ""] {
        let meta = store.put(&key, body(text)).await.expect("stores");
        assert_eq!((&meta.key, meta.size), (&key, text.len() as u64));
        assert_eq!(content(store, &key).await, text, "put replaces");
    }
    store.delete(&key).await.expect("deletes");
}

async fn aborted(store: &dyn Store) {
    let fails = || -> Body {
        let chunks = [
            Ok(Bytes::from(vec![1; 3 << 20])),
            Err(BodyError::new("the source is gone")),
        ];
        stream::iter(chunks).boxed()
    };
    let key = key("aborted/object");
    let failed = |error: StoreError| match error {
        StoreError::BodyFailed { key: named, source } => {
            assert_eq!(named, key);
            assert_eq!(source.to_string(), "the source is gone");
        }
        other => panic!("a failed body is BodyFailed: {other:?}"),
    };
    failed(store.put_if_absent(&key, fails()).await.expect_err("fails"));
    failed(store.put(&key, fails()).await.expect_err("fails"));
    assert_eq!(
        store.head(&key).await.expect("asks"),
        None,
        "nothing appears"
    );
    assert_eq!(keys(store, PREFIX).await, [""; 0], "nothing is listed");

    store.put(&key, body("kept")).await.expect("stores");
    failed(store.put(&key, fails()).await.expect_err("fails"));
    assert_eq!(
        content(store, &key).await,
        "kept",
        "the former object stays"
    );
    store.delete(&key).await.expect("deletes");

    // A put whose future is dropped half-way.
    let endless = stream::repeat_with(|| Ok(Bytes::from(vec![2; 1 << 16]))).boxed();
    let stuck = stream::iter([Ok(Bytes::from(vec![2; 2 << 20]))]).chain(stream::pending());
    for body in [
        stuck.boxed(),
        endless.take(20).chain(stream::pending()).boxed(),
    ] {
        let mut put = store.put_if_absent(&key, body);
        for _ in 0..50 {
            let poll = futures_util::poll!(&mut put);
            assert!(poll.is_pending(), "a body without an end is not stored");
            tokio::task::yield_now().await;
        }
        drop(put);
        assert_eq!(
            store.head(&key).await.expect("asks"),
            None,
            "nothing appears"
        );
    }
}

async fn sizes(store: &dyn Store) {
    // Around the pieces in which stores work, and 10 MiB in odd chunks.
    for (size, chunk) in [
        (0, 1),
        (1, 1),
        ((1 << 20) - 1, 1 << 20),
        (1 << 20, 1 << 20),
        ((1 << 20) + 1, 1 << 20),
        (10 << 20, 70_001),
    ] {
        let key = key("sized");
        let expected = pattern(size);
        let mut chunks: Vec<_> = expected
            .chunks(chunk)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
            .collect();
        chunks.insert(chunks.len() / 2, Ok(Bytes::new()));
        let outcome = store.put_if_absent(&key, stream::iter(chunks).boxed());
        let PutOutcome::Created(meta) = outcome.await.expect("stores") else {
            panic!("an absent object is created");
        };
        assert_eq!(meta.size, size as u64);
        let head = store.head(&key).await.expect("asks").expect("is there");
        assert_eq!(head.size, size as u64);
        let read = content(store, &key).await;
        assert!(read == expected, "{size} bytes come back as they were");
        store.delete(&key).await.expect("deletes");
    }
}

async fn unusual_names(store: &dyn Store, name_bytes: usize, backslashes: Backslashes) {
    let long = "n".repeat(name_bytes);
    let mut names = vec![
        "with space",
        "per%cent",
        "per%25cent",
        "plus+sign",
        "question?mark",
        "ha#sh",
        "am&per=sand",
        "quo\"te'",
        "back\\slash",
        "as*ter[isk]",
        "tilde~",
        "-dash",
        ".hidden",
        "..dots",
        "é/名前",
        "emoji 🐘",
        "UPPER",
        "upper",
        long.as_str(),
    ];
    if backslashes == Backslashes::Refused {
        let refused = "back\\slash";
        names.retain(|name| *name != refused);
        let key = key(refused);
        for error in [
            store.put_if_absent(&key, body("x")).await.map(drop),
            store.put(&key, body("x")).await.map(drop),
            store.get(&key).await.map(drop),
            store.head(&key).await.map(drop),
            store.confirm(&key).await.map(drop),
            store.delete(&key).await,
        ] {
            let is_refused = matches!(error, Err(StoreError::InvalidKey { .. }));
            assert!(is_refused, "no name is taken for another: {error:?}");
        }
    }
    for &name in &names {
        let outcome = store.put_if_absent(&key(name), body(name)).await;
        assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{name}");
    }
    let mut expected: Vec<_> = names.iter().map(|name| format!("{PREFIX}{name}")).collect();
    expected.sort();
    assert_eq!(
        keys(store, PREFIX).await,
        expected,
        "names come back as they were"
    );
    for name in names {
        assert_eq!(content(store, &key(name)).await, *name, "{name}");
        store.delete(&key(name)).await.expect("deletes");
    }
}

async fn listed(store: &dyn Store) {
    let names = [
        "l/a",
        "l/a-b",
        "l/a.b",
        "l/ab/1",
        "l/ab/2/3/4",
        "l/ab0",
        "l/b/00",
        "l/b/01",
        "l/b/10",
        "m",
    ];
    // Stored in another order than listed.
    for name in names.iter().rev() {
        store.put(&key(name), body(name)).await.expect("stores");
    }
    for prefix in [
        "",
        "l",
        "l/",
        "l/a",
        "l/a.",
        "l/ab",
        "l/ab/",
        "l/ab/2",
        "l/ab/2/3/4",
        "l/ab/2/3/4/",
        "l/b/0",
        "l/b/00",
        "l/c",
        "m",
        "n/o",
    ] {
        let expected: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with(prefix))
            .map(|name| format!("{PREFIX}{name}"))
            .collect();
        let found = keys(store, &format!("{PREFIX}{prefix}")).await;
        assert_eq!(found, expected, "the keys of prefix {prefix:?} in order");
    }
    for after in ["", "l/a", "l/ab/1", "l/ab/1.zst", "l/b/01", "n"] {
        let expected: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with("l/") && **name > after)
            .map(|name| format!("{PREFIX}{name}"))
            .collect();
        let (prefix, behind) = (format!("{PREFIX}l/"), format!("{PREFIX}{after}"));
        let entries = store.list_after(&prefix, &behind).await.expect("lists");
        let found: Vec<ObjectMeta> = entries.try_collect().await.expect("goes on");
        let found: Vec<_> = found.iter().map(|meta| meta.key.to_string()).collect();
        assert_eq!(found, expected, "the keys behind {after:?} in order");
    }
    let entries = store.list(&format!("{PREFIX}l/ab")).await.expect("lists");
    let entries: Vec<_> = entries.try_collect().await.expect("lists");
    for entry in entries {
        let head = store.head(&entry.key).await.expect("asks");
        assert_eq!(head.as_ref(), Some(&entry), "list and head agree");
    }
    for prefix in ["/", "a//b", "../", "a/../b"] {
        let error = store.list(prefix).await.err().expect("no key starts so");
        assert!(matches!(error, StoreError::InvalidKey { .. }), "{prefix}");
    }
    for name in names {
        store.delete(&key(name)).await.expect("deletes");
    }
}

async fn read_while_replaced(store: &dyn Store) {
    let key = key("moving");
    let (before, after) = (pattern(3 << 20), Bytes::from_static(b"after"));
    store
        .put(&key, body_from(before.clone()))
        .await
        .expect("stores");
    let mut object = store.get(&key).await.expect("opens");
    let mut read = BytesMut::new();
    read.extend(
        object
            .body
            .try_next()
            .await
            .expect("reads")
            .expect("a piece"),
    );
    store
        .put(&key, body_from(after.clone()))
        .await
        .expect("stores");
    // The rest of the same object or an error, never a mixture.
    let mut failed = false;
    while let Some(piece) = object.body.next().await {
        match piece {
            Ok(piece) => read.extend(piece),
            Err(_) => failed = true,
        }
    }
    assert!(failed || read == before, "a reader sees one object");
    assert_eq!(content(store, &key).await, after);
    store.delete(&key).await.expect("deletes");
}

async fn ranges(store: &dyn Store) {
    let key = key("ranges");
    let whole: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let body = body_from(Bytes::from(whole.clone()));
    store.put(&key, body).await.expect("stored");
    for range in [
        0..1,
        5..9,
        0..3_000_000,
        1_048_570..2_500_000,
        2_999_999..3_000_000,
    ] {
        let object = store.get_range(&key, range.clone()).await.expect("opened");
        assert_eq!(
            object.meta.size, 3_000_000,
            "what is told is told of the whole"
        );
        let pieces: Vec<Bytes> = object.body.try_collect().await.expect("read");
        let bounds = usize::try_from(range.start).expect("small")
            ..usize::try_from(range.end).expect("small");
        assert!(
            pieces.concat() == whole[bounds],
            "exactly the bytes {range:?}"
        );
    }
    let beyond = store.get_range(&key, 2_999_990..3_000_010).await;
    let read = async move { beyond?.body.try_collect::<Vec<Bytes>>().await };
    read.await.expect_err("the object does not reach so far");
    store.delete(&key).await.expect("deleted");
    let gone = store.get_range(&key, 0..1).await.expect_err("it is gone");
    assert!(matches!(gone, StoreError::NotFound { .. }), "{gone}");
}

async fn deleted_together(store: &dyn Store) {
    /// More than S3 and Azure take in one request.
    const MANY: usize = 1001;
    let failed = store.delete_many(&[]).await;
    assert!(failed.is_empty(), "deleting nothing is fine: {failed:?}");
    let kept = key("together/kept & <well>");
    let stored = ["together/a & <b>", "together/\"quoted\"", "together/c/d"].map(key);
    for name in stored.iter().chain([&kept]) {
        store.put(name, body("x")).await.expect("stores");
    }
    let absent = (0..MANY).map(|n| key(&format!("together/absent/{n}")));
    let mut named: Vec<_> = absent.chain(stored).collect();
    // Nothing is known of the order.
    named.rotate_left(MANY / 2);
    let failed = store.delete_many(&named).await;
    assert!(failed.is_empty(), "absence is no failure: {failed:?}");
    let left = keys(store, PREFIX).await;
    assert_eq!(left, [kept.as_str()], "what was named is gone, and no more");
    let failed = store.delete_many(&[kept]).await;
    assert!(failed.is_empty(), "{failed:?}");
}

async fn discarded(store: &dyn Store) {
    let (key, unfinished) = (key("discarded/object"), key("discarded/unfinished"));
    store.put(&key, body("kept")).await.expect("stores");
    let before = store.head(&key).await.expect("asks");
    // A put that is dropped after so much of its body that a store has begun to write it.
    let parts = stream::iter((0..40).map(|_| Ok(Bytes::from(vec![3; 1 << 20]))));
    let mut put = store.put(&unfinished, parts.chain(stream::pending()).boxed());
    for _ in 0..50 {
        assert!(futures_util::poll!(&mut put).is_pending());
        tokio::task::yield_now().await;
    }
    drop(put);
    let discarded = store.discard_unfinished(Duration::MAX, |_| true).await;
    assert_eq!(discarded.expect("discards"), 0, "what is young stays");
    // How many is the store's to say: with what names it was tried nobody else knows.
    let ours: [Ours; 2] = [|_| false, |key| key.starts_with(PREFIX)];
    for ours in ours {
        let discarded = store.discard_unfinished(Duration::ZERO, ours).await;
        discarded.expect("discards");
    }
    let head = store.head(&key).await.expect("asks");
    assert_eq!(head, before, "an object is nothing unfinished");
    assert_eq!(content(store, &key).await, "kept");
    assert_eq!(store.head(&unfinished).await.expect("asks"), None);
    store.delete(&key).await.expect("deletes");
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(&format!("{PREFIX}{name}")).expect("the suite's names are valid")
}

fn body(text: &str) -> Body {
    body_from(Bytes::copy_from_slice(text.as_bytes()))
}

/// Bytes whose every stretch differs, so that pieces in a wrong order are noticed.
fn pattern(size: usize) -> Bytes {
    (0..size.div_ceil(8))
        .flat_map(|n| (n as u64).to_le_bytes())
        .take(size)
        .collect()
}

async fn content(store: &dyn Store, key: &ObjectKey) -> Bytes {
    read_all(store, key, 64 << 20)
        .await
        .expect("the object can be read")
}

async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    let entries = store.list(prefix).await.expect("the store can be listed");
    let keys = entries.map_ok(|meta| meta.key.to_string());
    keys.try_collect().await.expect("the list is whole")
}
