//! Rows 22 to 30 on uploads: answers that are lost, bytes that are garbled, two writers of a name.

use super::*;

/// Three chunks: parts have 5 MiB.
const THREE: usize = 12 << 20;

fn assert_stored(google: &Google, size: usize) {
    let objects = google.objects();
    assert_eq!(objects.len(), 1, "{:?}", objects.keys());
    assert!(objects["/p/k"] == pattern(size), "the bytes differ");
}

#[tokio::test]
async fn fault_22_and_25_failures_and_lost_answers_end_in_one_object() {
    for (size, kind) in [
        (1000, is_at_once as fn(&Seen) -> bool),
        (THREE, is_chunk),
        (THREE, is_last_chunk),
        (10 << 20, is_last_chunk),
        (THREE, |seen| seen.target.contains("uploadType=resumable")),
    ] {
        let (server, google_) = google(some_of(1, kind, lost));
        let outcome = store_of(&server).put_if_absent(&key(), body(size)).await;
        let outcome = outcome.expect("it is stored");
        assert!(
            matches!(outcome, PutOutcome::Created(ref meta) if meta.size == size as u64),
            "{outcome:?}"
        );
        assert_stored(&google_, size);
        let fails = |_: &Seen, _: &Google| refused(503, "backendError", "Backend Error");
        let (server, google_) = google(some_of(2, kind, fails));
        let meta = store_of(&server).put(&key(), body(size)).await;
        assert_eq!(meta.expect("it is stored").size, size as u64);
        assert_stored(&google_, size);
    }
}

#[tokio::test]
async fn fault_25_the_mark_says_whose_object_is_there() {
    for (size, kind) in [
        (1000, is_at_once as fn(&Seen) -> bool),
        (THREE, is_last_chunk),
    ] {
        // Another's object takes the name, and the answer to our write is lost.
        let others = |_: &Seen, google: &Google| {
            google.put("/p/k", b"another's");
            Reply::Close
        };
        let (server, google_) = google(some_of(1, kind, others));
        let outcome = store_of(&server).put_if_absent(&key(), body(size)).await;
        assert_eq!(outcome.expect("an object is there"), PutOutcome::Exists);
        assert_eq!(google_.objects()["/p/k"], b"another's");
    }
}

#[tokio::test]
async fn chunks_that_are_kept_in_part_are_sent_on_from_there() {
    let (server, google) = google(|_, _| None);
    google.change(|state| state.steps_kept = Some(3));
    let stored = store_of(&server).put(&key(), body(THREE)).await;
    assert_eq!(stored.expect("stored").size, THREE as u64);
    assert_stored(&google, THREE);
}

#[tokio::test]
async fn fault_27_bytes_that_were_garbled_on_their_way_are_refused_and_sent_again() {
    fn flipped(seen: &Seen) -> Seen {
        let mut seen = seen.clone();
        let at = seen.body.len() * 3 / 4;
        seen.body[at] ^= 1;
        seen
    }
    let garbled = |seen: &Seen, google: &Google| google.answer(&flipped(seen));
    let (server, google_) = google(some_of(1, is_at_once, garbled));
    let stored = store_of(&server).put_if_absent(&key(), body(4000)).await;
    assert!(matches!(stored.expect("stored"), PutOutcome::Created(_)));
    assert_stored(&google_, 4000);
    // The parts of a resumable upload are gone when its end shows that they were garbled.
    let (server, google_) = google(some_of(1, is_chunk, garbled));
    let error = store_of(&server).put(&key(), body(THREE)).await;
    assert!(error.expect_err("not stored").is_transient());
    assert_eq!(google_.objects().len(), 0);
}

#[tokio::test]
async fn fault_27_a_store_that_keeps_other_bytes_is_found_out_by_its_answer() {
    for size in [1000, THREE] {
        let (server, google) = google(|_, _| None);
        google.change(|state| state.garbles = true);
        let error = store_of(&server).put_if_absent(&key(), body(size)).await;
        let error = error.expect_err("not stored");
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("other bytes"), "{error}");
        assert_eq!(google.objects().len(), 0, "what was garbled is taken back");
    }
}

#[tokio::test]
async fn fault_30_of_two_writers_one_creates_also_at_the_end_of_a_resumable_upload() {
    for size in [1000, THREE] {
        // The other one comes after the look and before the write.
        let writes = move |seen: &Seen| {
            if size == 1000 {
                is_at_once(seen)
            } else {
                is_last_chunk(seen)
            }
        };
        let other = |seen: &Seen, google: &Google| {
            google.put("/p/k", b"another's");
            google.answer(seen)
        };
        let (server, google_) = google(some_of(1, writes, other));
        let outcome = store_of(&server).put_if_absent(&key(), body(size)).await;
        assert_eq!(outcome.expect("an object is there"), PutOutcome::Exists);
        assert_eq!(google_.objects()["/p/k"], b"another's");
    }
}

/// A request without its condition.
fn without_condition(seen: &Seen) -> Seen {
    let mut seen = seen.clone();
    seen.target = seen.target.replace("ifGenerationMatch=0&", "");
    seen
}

#[tokio::test]
async fn fault_30_a_store_that_ignores_conditions_is_looked_at_before_and_after() {
    let (server, google_) = google(|seen, google| Some(google.answer(&without_condition(seen))));
    let store = GcsStore::open(&options_of(&server)).expect("opens");
    for way in [Way::AtOnce, Way::InParts] {
        assert!(!is_guarded(&store, way).await.expect("asked"));
    }
    assert_eq!(google_.objects().len(), 0, "trials leave nothing");
    for size in [1000, THREE] {
        let key = key();
        let writers = (0..4).map(|_| store.put_if_absent(&key, body(size)));
        let outcomes = futures_util::future::try_join_all(writers).await;
        let created = outcomes.expect("all are answered").into_iter();
        let created = created.filter(|outcome| matches!(outcome, PutOutcome::Created(_)));
        assert_eq!(created.count(), 1);
        store.delete(&key).await.expect("deleted");
    }
}

#[tokio::test]
async fn fault_66_a_success_that_is_not_the_stores_is_none() {
    for size in [1000, THREE] {
        let page = b"<html>Welcome to our network</html>".to_vec();
        let portal = move |seen: &Seen, _: &Google| {
            (seen.method != "GET").then(|| Reply::Answer(200, Vec::new(), page.clone()))
        };
        let (server, google) = google(portal);
        let error = store_of(&server).put(&key(), body(size)).await;
        assert!(error.expect_err("not stored").is_transient());
        assert_eq!(google.objects().len(), 0);
    }
    // Another object's record proves nothing.
    let another = json!({"name": "/p/k", "size": "1000", "updated": "2026-11-29T07:43:05Z", "crc32c": sum(&pattern(1000))});
    let (server, _) = google(move |seen, _| is_at_once(seen).then(|| told(&another)));
    let error = store_of(&server)
        .put(&key(), body(1000))
        .await
        .expect_err("not stored");
    assert!(error.to_string().contains("is not there"), "{error}");
}

#[tokio::test]
async fn fault_34_what_is_retained_is_told_and_the_others_are_gone() {
    let (server, google) = google(|seen, _| {
        let is_kept = seen.method == "DELETE" && seen.target.contains("kept");
        is_kept.then(|| {
            refused(
                403,
                "retentionPolicyNotMet",
                "subject to bucket's retention policy",
            )
        })
    });
    let store = store_of(&server);
    let keys = ["a", "kept", "z"].map(|name| ObjectKey::new(name).expect("valid"));
    for key in &keys {
        google.put(&format!("/p/{key}"), b"x");
    }
    google.change(|state| {
        let kept = state.objects.get_mut("/p/kept").expect("it is there");
        kept.record["retentionExpirationTime"] = json!("2027-01-01T00:00:00Z");
    });
    let failed = store.delete_many(&keys).await;
    let [(kept, error)] = &failed[..] else {
        panic!("one is kept: {failed:?}");
    };
    assert_eq!(kept.as_str(), "kept");
    assert!(error.to_string().contains("until 2027-01-01"), "{error}");
    assert_eq!(google.objects().len(), 1);
}

#[tokio::test]
async fn what_objects_are_told() {
    let (server, google) = google(|_, _| None);
    let options = GcsOptions {
        storage_class: Some("NEARLINE".into()),
        encryption: GcsEncryption::Kms("projects/p/k".into()),
        ..options_of(&server)
    };
    let store = GcsStore::open(&options).expect("opens");
    believe(&store);
    let name = ObjectKey::new("a.json").expect("valid");
    store.put_if_absent(&name, body(10)).await.expect("stored");
    google.change(|state| {
        let record = &state.objects["/p/a.json"].record;
        assert_eq!(record["storageClass"], "NEARLINE");
        assert_eq!(record["contentType"], "application/json");
    });
    let asked = server.asked();
    let insert = asked.iter().find(|asked| asked.starts_with("POST"));
    assert!(insert.expect("one").contains("kmsKeyName=projects%2Fp%2Fk"));
}
