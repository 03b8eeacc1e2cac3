//! Rows 24 to 32 on reading: bodies that break, objects that are replaced, refusals that are no absence.

use super::*;
use crate::Misconfiguration;

const SIZE: usize = 100_000;

fn is_content(seen: &Seen) -> bool {
    seen.target.contains("alt=media")
}

/// The head of the store's answer, and so much of its body.
fn cut(bytes: usize) -> impl Fn(&Seen, &Google) -> Reply {
    move |seen, google| match google.answer(seen) {
        Reply::Answer(_, headers, body) => Reply::Cut(headers, body, bytes),
        other => other,
    }
}

#[tokio::test]
async fn fault_28_a_body_that_breaks_is_read_on_at_the_same_generation() {
    let (server, google_) = google(some_of(1, is_content, cut(40_000)));
    google_.put("/p/k", &pattern(SIZE));
    let store = store_of(&server);
    let read = read_all(&store, &key(), 1 << 20).await.expect("read");
    assert!(read == pattern(SIZE));
    let asked = server.asked();
    let again = asked.last().expect("a second request");
    assert!(again.contains("generation=1"), "{again}");

    // Another object takes its place meanwhile.
    let (server, google_) = google(some_of(1, is_content, |seen, google| {
        let reply = cut(40_000)(seen, google);
        google.put("/p/k", &pattern(SIZE));
        reply
    }));
    google_.put("/p/k", &pattern(SIZE));
    let error = read_all(&store_of(&server), &key(), 1 << 20).await;
    let error = error.expect_err("it is another object");
    assert!(error.to_string().contains("was replaced"), "{error}");
}

#[tokio::test]
async fn fault_28_bytes_that_were_garbled_on_their_way_are_no_object() {
    let (server, google_) = google(|seen, google| {
        if !is_content(seen) {
            return None;
        }
        match google.answer(seen) {
            Reply::Answer(status, headers, mut body) => {
                body[SIZE / 2] ^= 1;
                Some(Reply::Answer(status, headers, body))
            }
            other => Some(other),
        }
    });
    google_.put("/p/k", &pattern(SIZE));
    let error = read_all(&store_of(&server), &key(), 1 << 20).await;
    let error = error.expect_err("the sum differs");
    assert!(error.to_string().contains("other bytes"), "{error}");
}

#[tokio::test]
async fn an_answer_that_leaves_out_the_generation_is_completed_by_the_record() {
    let (server, google_) = google(|seen, google| {
        if !is_content(seen) {
            return None;
        }
        match google.answer(seen) {
            Reply::Answer(status, _, body) => Some(Reply::Answer(status, Vec::new(), body)),
            other => Some(other),
        }
    });
    google_.put("/p/k", &pattern(SIZE));
    let store = store_of(&server);
    let object = store.get(&key()).await.expect("opens");
    assert_eq!(Some(object.meta), store.head(&key()).await.expect("asks"));
}

#[tokio::test]
async fn fault_31_and_32_a_refusal_is_no_absence_and_a_missing_bucket_is_no_missing_object() {
    for (status, reason, message, problem) in [
        (
            403,
            "forbidden",
            "wale does not have storage.objects.get access",
            None,
        ),
        (
            401,
            "required",
            "Anonymous caller",
            Some(Misconfiguration::ExpiredCredentials),
        ),
        (
            404,
            "notFound",
            "The specified bucket does not exist.",
            Some(Misconfiguration::NoSuchBucket),
        ),
        // As an emulator says it, of the bucket too.
        (
            404,
            "Not Found",
            "Not Found",
            Some(Misconfiguration::NoSuchBucket),
        ),
        (503, "backendError", "Backend Error", None),
    ] {
        let (server, _) = google(move |_, _| Some(refused(status, reason, message)));
        let store = store_of(&server);
        let head = store.head(&key()).await.expect_err("it is no absence");
        let get = store.get(&key()).await.expect_err("it is no absence");
        let list = store.list("").await.err().expect("it is no empty list");
        let delete = store.delete(&key()).await.expect_err("it is not gone");
        let put = store
            .put(&key(), body(10))
            .await
            .expect_err("it is not stored");
        for error in [head, get, list, delete] {
            assert!(!matches!(error, StoreError::NotFound { .. }), "{error:?}");
            let found = match &error {
                StoreError::Misconfigured { problem, .. } => Some(*problem),
                _ => None,
            };
            assert_eq!(found, problem, "{status} {message}: {error:?}");
            assert_eq!(error.is_transient(), status == 503, "{error:?}");
        }
        drop(put);
    }
    // The page of a gateway is neither.
    let (server, google_) = google(|seen, _| {
        let page = b"404 page not found".to_vec();
        seen.target
            .contains("/o/")
            .then(|| Reply::Answer(404, Vec::new(), page))
    });
    google_.put("/p/k", b"x");
    let error = store_of(&server)
        .get(&key())
        .await
        .expect_err("it is listed");
    assert!(error.is_transient(), "{error}");
    store_of(&server)
        .delete(&key())
        .await
        .expect_err("it is listed");
}

#[tokio::test]
async fn fault_92_a_listing_that_does_not_go_on_ends() {
    let (server, _) = google(|_, _| {
        let page = json!({"nextPageToken": "x", "items": [{"name": "/p/a", "size": "1", "updated": "2026-11-29T07:43:05Z"}]});
        Some(told(&page))
    });
    let listed = store_of(&server).list("").await.expect("a page");
    let all: Result<Vec<_>, _> = listed.try_collect().await;
    let error = all.expect_err("it does not go on");
    assert!(error.to_string().contains("does not go on"), "{error}");
}
