//! Answers that are not what they seem: pages of somebody else, absence that is none, bodies that were garbled on a
//! store that does not look.

use std::collections::{BTreeMap, HashMap};

use md5::{Digest as _, Md5};

use super::*;

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is stored with a byte changed.
    Garbled,
    /// The same, and the reply is lost.
    GarbledAndLost,
    /// It is stored with a byte changed, and somebody else's object takes its place at once.
    GarbledAndReplaced,
    /// It is stored as it came.
    Whole,
}

#[derive(Debug, Clone)]
struct Kept {
    mark: String,
    etag: String,
    body: Vec<u8>,
}

/// A store that compares no checksums.
#[derive(Debug, Default)]
struct Careless {
    /// Whether its `ETag`s are digests.
    has_digests: bool,
    /// Whether it knows conditions.
    has_conditions: bool,
    fates: VecDeque<Fate>,
    objects: HashMap<String, Kept>,
    /// Marks and parts of unfinished uploads, by name.
    begun: HashMap<String, (String, BTreeMap<String, Vec<u8>>)>,
}

impl Careless {
    fn start(self) -> Server {
        let state = Mutex::new(self);
        Server::start(move |seen| state.lock().expect("not poisoned").reply(seen))
    }

    fn reply(&mut self, seen: &Seen) -> Reply {
        let (name, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
        let name = name.to_owned();
        match seen.method.as_str() {
            _ if name == "/b" => bucket(),
            "POST" if query == "uploads=" => {
                let mark = seen.header(headers::MARK_HEADER).expect("a mark");
                self.begun.insert(name, (mark, BTreeMap::new()));
                Reply::Answer(200, Vec::new(), begun())
            }
            "PUT" if query.contains("partNumber") => {
                let (_, parts) = self.begun.get_mut(&name).expect("it was begun");
                parts.insert(query.to_owned(), seen.body.clone());
                Reply::Answer(200, object("a-part"), Vec::new())
            }
            "POST" => {
                let (mark, parts) = self.begun.get(&name).cloned().expect("it was begun");
                let body = parts.into_values().collect::<Vec<_>>().concat();
                self.write(seen, name, &mark, body)
            }
            "PUT" => {
                let mark = seen.header(headers::MARK_HEADER).unwrap_or_default();
                self.write(seen, name, &mark, seen.body.clone())
            }
            "DELETE" => {
                self.objects.remove(&name);
                answer(204)
            }
            _ => match self.objects.get(&name) {
                None => refusal(404, "NoSuchKey"),
                Some(kept) => {
                    let mut headers = object(&kept.etag);
                    headers.push((headers::MARK_HEADER, kept.mark.clone()));
                    Reply::Answer(200, headers, kept.body.clone())
                }
            },
        }
    }

    fn write(&mut self, seen: &Seen, name: String, mark: &str, mut body: Vec<u8>) -> Reply {
        let is_conditional = seen.header("if-none-match").is_some();
        if self.has_conditions && is_conditional && self.objects.contains_key(&name) {
            return refusal(412, "PreconditionFailed");
        }
        let fate = if seen.is_probe() {
            None
        } else {
            self.fates.pop_front()
        };
        let fate = fate.unwrap_or(Fate::Whole);
        if fate != Fate::Whole {
            body[0] ^= 1;
        }
        let etag = if self.has_digests {
            hex(&Md5::digest(&body))
        } else {
            "opaque".to_owned()
        };
        let mark = match fate {
            Fate::GarbledAndReplaced => "another",
            _ => mark,
        };
        let kept = Kept {
            mark: mark.to_owned(),
            etag: etag.clone(),
            body,
        };
        self.objects.insert(name, kept);
        let assembled =
            "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>";
        match fate {
            Fate::GarbledAndLost => Reply::Close,
            _ if seen.method == "POST" => Reply::Answer(200, Vec::new(), assembled.into()),
            _ => Reply::Answer(200, object(&etag), Vec::new()),
        }
    }
}

/// What was asked of a server, without looks.
fn writes(server: &Server) -> Vec<String> {
    let mut asked = server.asked();
    asked.retain(|asked| !asked.starts_with("HEAD ") && !asked.starts_with("GET "));
    asked
}

#[tokio::test]
async fn row_27_a_garbled_object_whose_reply_was_lost_is_not_acknowledged() {
    let server = Careless {
        has_digests: true,
        has_conditions: true,
        fates: [Fate::GarbledAndLost].into(),
        ..Careless::default()
    }
    .start();
    let store = server.store();
    let outcome = store.put_if_absent(&key(), body("text")).await;
    assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
    let read = read_all(&store, &key(), 100).await.expect("is there");
    assert_eq!(read, "text");
    let expected = ["PUT /b/k", "PUT /b/k", "DELETE /b/k", "PUT /b/k"];
    assert_eq!(writes(&server), expected);
}

#[tokio::test]
async fn row_27_nobody_deletes_what_somebody_else_has_put_over_a_garbled_object() {
    for has_digests in [true, false] {
        let server = Careless {
            has_digests,
            fates: [Fate::GarbledAndReplaced].into(),
            ..Careless::default()
        }
        .start();
        let outcome = server.store().put_if_absent(&key(), body("text")).await;
        assert_eq!(outcome.expect("an answer"), PutOutcome::Exists);
        assert_eq!(writes(&server), ["PUT /b/k"], "{has_digests}");
    }
}

#[tokio::test]
async fn row_27_where_nobody_else_tells_objects_are_read_back() {
    for (has_conditions, fate) in [
        (true, Fate::Garbled),
        (false, Fate::Garbled),
        (true, Fate::GarbledAndLost),
    ] {
        let server = Careless {
            has_conditions,
            fates: [fate].into(),
            ..Careless::default()
        }
        .start();
        let store = server.store();
        let outcome = store.put_if_absent(&key(), body("text")).await;
        assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
        let read = read_all(&store, &key(), 100).await.expect("is there");
        assert_eq!(read, "text", "{fate:?}");
    }
    // What replaces another object is replaced again, and never absent.
    let server = Careless {
        fates: [Fate::Garbled].into(),
        ..Careless::default()
    }
    .start();
    let store = server.store();
    store.put(&key(), body("text")).await.expect("stores");
    assert_eq!(writes(&server), ["PUT /b/k", "PUT /b/k"]);
    let read = read_all(&store, &key(), 100).await.expect("is there");
    assert_eq!(read, "text");
}

#[tokio::test]
async fn row_27_a_garbled_object_of_many_parts_is_no_success_and_does_not_stay() {
    let large = || {
        let chunks = (0..6_u8).map(|n| Ok(Bytes::from(vec![n; 1 << 20])));
        stream::iter(chunks).boxed()
    };
    let server = Careless {
        has_conditions: true,
        fates: [Fate::Garbled].into(),
        ..Careless::default()
    }
    .start();
    let store = server.store();
    let error = store.put_if_absent(&key(), large()).await;
    let error = error.expect_err("it is garbled");
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("other bytes"), "{error}");
    assert_eq!(store.head(&key()).await.expect("asks"), None);
    let outcome = store.put_if_absent(&key(), large()).await;
    assert!(matches!(outcome, Ok(PutOutcome::Created(meta)) if meta.size == 6 << 20));
}

type Listing = Box<dyn Fn() -> Reply + Send + Sync>;

/// A page that a gateway shows to people.
fn page(status: u16) -> Reply {
    Reply::Answer(status, Vec::new(), b"<html><body>?</body></html>".to_vec())
}

#[tokio::test]
async fn row_24_a_page_with_status_200_is_no_answer() {
    let server = Server::start(|_| page(200));
    let store = server.store();
    let listed = store.list("").await.map(drop);
    assert!(listed.expect_err("no listing").is_transient());
    assert!(store.check().await.expect_err("no bucket").is_transient());
    let keys = ["a", "b"].map(|name| ObjectKey::new(name).expect("valid"));
    let failed = store.delete_many(&keys).await;
    assert_eq!(failed.len(), 2, "{failed:?}");
    let limit = Duration::from_secs(1);
    let swept = store.discard_unfinished(limit, |_| true).await;
    assert!(swept.expect_err("no listing").is_transient());
}

#[tokio::test]
async fn row_34_an_error_that_names_none_of_the_objects_fails_them_all() {
    for (named, code, is_transient) in [
        ("", "InternalError", true),
        ("", "AccessDenied", false),
        ("a%20b", "SlowDown", true),
        ("", "NoSuchKey", true),
        ("", "", false),
    ] {
        let server = Server::of_store(move |_| {
            let text = format!(
                "<DeleteResult><Error><Key>{named}</Key><Code>{code}</Code></Error></DeleteResult>"
            );
            Reply::Answer(200, Vec::new(), text.into_bytes())
        });
        let keys = ["a b", "c"].map(|name| ObjectKey::new(name).expect("valid"));
        let failed = server.store().delete_many(&keys).await;
        assert_eq!(failed.len(), 2, "{named} {code}: {failed:?}");
        for (_, error) in failed {
            assert_eq!(error.is_transient(), is_transient, "{code}: {error:?}");
            assert!(!error.is_not_found(), "{error:?}");
        }
    }
}

#[tokio::test]
async fn a_status_of_absence_without_its_reason_is_confirmed_by_the_listing() {
    let listed = |names: &'static str| {
        let page = format!("<ListBucketResult>{names}</ListBucketResult>");
        move || Reply::Answer(200, Vec::new(), page.clone().into_bytes())
    };
    let there = "<Contents><Key>k</Key><Size>1</Size>\
                 <LastModified>2026-11-23T10:00:00Z</LastModified></Contents>";
    let longer = "<Contents><Key>k2</Key><Size>1</Size>\
                  <LastModified>2026-11-23T10:00:00Z</LastModified></Contents>";
    let cases: [(Listing, bool); 5] = [
        (Box::new(listed("")), true),
        (Box::new(listed(longer)), true),
        (Box::new(listed(there)), false),
        (Box::new(|| page(404)), false),
        (Box::new(|| page(200)), false),
    ];
    for (n, (listing, is_absent)) in cases.into_iter().enumerate() {
        let server = Server::start(move |seen| {
            if seen.target.starts_with("/b?") {
                listing()
            } else {
                page(404)
            }
        });
        let store = server.store();
        // That the bucket was seen a moment ago is no proof.
        let _ = store.check().await;
        let got = store.get(&key()).await.expect_err("a page");
        assert_eq!(got.is_not_found(), is_absent, "{n}: {got:?}");
        let deleted = store.delete(&key()).await;
        assert_eq!(deleted.is_ok(), is_absent, "{n}: {deleted:?}");
    }
    // S3's own reason is proof enough.
    let server = Server::start(|_| refusal(404, "NoSuchKey"));
    let store = server.store();
    assert!(store.get(&key()).await.expect_err("absent").is_not_found());
    store.delete(&key()).await.expect("there is nothing");
    assert_eq!(server.asked(), ["GET /b/k", "DELETE /b/k"]);
}

#[tokio::test]
async fn row_30_without_conditions_a_page_is_not_believed_that_a_name_is_free() {
    let there = "<ListBucketResult><Contents><Key>k</Key><Size>1</Size>\
                 <LastModified>2026-11-23T10:00:00Z</LastModified></Contents></ListBucketResult>";
    let server = Server::start(move |seen| match seen.method.as_str() {
        "HEAD" => page(404),
        "GET" => Reply::Answer(200, Vec::new(), there.into()),
        "DELETE" => answer(204),
        _ => Reply::Answer(200, object("opaque"), Vec::new()),
    });
    let error = server.store().put_if_absent(&key(), body("text")).await;
    let error = error.expect_err("it is listed");
    assert!(error.is_transient(), "{error:?}");
    let asked = server.asked();
    assert!(!asked.contains(&"PUT /b/k".to_owned()), "{asked:?}");
}
