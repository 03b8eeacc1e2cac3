//! A server that does what Google's documents say, in memory, for what no emulator does: resumable uploads that are
//! interrupted, conditions at their ends, sums that are compared, tokens. And faults around it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

mod keys;
mod reading;
mod uploads;

use super::creation::crc32c_text;
use super::*;
use crate::http::part::Passing;
use crate::http::probe::is_guarded;
use crate::http::scripted::{Reply, Seen, Server};
use crate::http::writes::Way;
use crate::{Body, ObjectKey, PutOutcome, RetryPolicy, Store, StoreError, conformance, read_all};

/// The step of chunks.
const STEP: usize = 256 << 10;

/// An object.
#[derive(Clone)]
struct Stored {
    content: Vec<u8>,
    record: Value,
    generation: u64,
}

/// A resumable upload.
#[derive(Clone)]
struct Resumable {
    name: String,
    record: Value,
    is_conditional: bool,
    content: Vec<u8>,
    ended: Option<Value>,
}

/// The bucket `bkt`.
#[derive(Default)]
struct Google {
    state: Mutex<GoogleState>,
}

#[derive(Default)]
struct GoogleState {
    objects: BTreeMap<String, Stored>,
    uploads: Vec<Resumable>,
    generation: u64,
    /// The token that is accepted; none where none is wanted.
    token: Option<String>,
    /// Steps of a chunk that are kept at a time, where it is not all.
    steps_kept: Option<usize>,
    /// Whether the last byte of what is stored is another one than was sent, and nobody compares.
    garbles: bool,
}

/// A request, taken apart.
struct Asked<'a> {
    seen: &'a Seen,
    path: String,
    query: BTreeMap<String, String>,
}

impl<'a> Asked<'a> {
    fn new(seen: &'a Seen) -> Self {
        let url = url::Url::parse(&format!("http://h{}", seen.target)).expect("a target");
        Self {
            seen,
            path: url.path().to_owned(),
            query: url.query_pairs().into_owned().collect(),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    fn is_conditional(&self) -> bool {
        self.get("ifGenerationMatch") == Some("0")
    }

    /// The object in the path.
    fn name(&self) -> Option<String> {
        let (_, name) = self.path.split_once("/storage/v1/b/bkt/o/")?;
        let mut pairs = url::form_urlencoded::parse(name.as_bytes());
        Some(pairs.next()?.0.into_owned())
    }
}

fn refused(status: u16, reason: &str, message: &str) -> Reply {
    let body =
        json!({"error": {"code": status, "message": message, "errors": [{"reason": reason}]}});
    Reply::Answer(status, Vec::new(), body.to_string().into_bytes())
}

fn told(value: &Value) -> Reply {
    Reply::Answer(200, Vec::new(), value.to_string().into_bytes())
}

fn sum(content: &[u8]) -> String {
    let mut passing = Passing::new();
    passing.update(content);
    crc32c_text(&passing.whole())
}

impl GoogleState {
    /// Stores an object as a request says, or does not.
    fn store(
        &mut self,
        name: &str,
        record: &Value,
        content: &[u8],
        is_conditional: bool,
        declared: Option<&str>,
    ) -> Result<Value, Reply> {
        if is_conditional && self.objects.contains_key(name) {
            return Err(refused(
                412,
                "conditionNotMet",
                "At least one of the pre-conditions did not hold",
            ));
        }
        let mut content = content.to_vec();
        if self.garbles {
            content.push(0);
        } else if declared.is_some_and(|declared| declared != sum(&content)) {
            let text = "Provided CRC32C \"x\" doesn't match calculated CRC32C \"y\".";
            return Err(refused(400, "invalid", text));
        }
        self.generation += 1;
        let mut record = record.clone();
        record["name"] = json!(name);
        record["size"] = json!(content.len().to_string());
        record["crc32c"] = json!(sum(&content));
        record["generation"] = json!(self.generation.to_string());
        record["updated"] = json!("2026-11-29T07:43:05.208995Z");
        let stored = Stored {
            content,
            record: record.clone(),
            generation: self.generation,
        };
        self.objects.insert(name.to_owned(), stored);
        Ok(record)
    }

    fn answer(&mut self, asked: &Asked<'_>) -> Reply {
        let bearer = asked.seen.header("authorization");
        if let Some(token) = &self.token
            && bearer != Some(format!("Bearer {token}"))
        {
            return refused(401, "authError", "Invalid Credentials");
        }
        let method = asked.seen.method.as_str();
        if asked.path.contains("/b/gone/") {
            return refused(404, "notFound", "The specified bucket does not exist.");
        }
        match (method, asked.path.as_str(), asked.name()) {
            ("POST", "/upload/storage/v1/b/bkt/o", _)
                if asked.get("uploadType") == Some("multipart") =>
            {
                self.at_once(asked)
            }
            ("POST", "/upload/storage/v1/b/bkt/o", _) => self.begin(asked),
            ("PUT", "/upload/storage/v1/b/bkt/o", _) => self.chunk(asked),
            ("GET", _, Some(name)) => self.get(asked, &name),
            ("DELETE", _, Some(name)) => {
                let generation = self
                    .objects
                    .get(&name)
                    .map(|stored| stored.generation.to_string());
                if asked.get("ifGenerationMatch").is_some()
                    && asked.get("ifGenerationMatch") != generation.as_deref()
                {
                    return refused(412, "conditionNotMet", "");
                }
                match self.objects.remove(&name) {
                    Some(_) => Reply::Answer(204, Vec::new(), Vec::new()),
                    None => refused(404, "notFound", &format!("No such object: bkt/{name}")),
                }
            }
            ("GET", "/storage/v1/b/bkt/o", None) => self.list(asked),
            _ => refused(400, "invalid", "no such request"),
        }
    }

    fn at_once(&mut self, asked: &Asked<'_>) -> Reply {
        let kind = asked.seen.header("content-type").expect("a type");
        let (_, boundary) = kind.split_once("boundary=").expect("a boundary");
        let body = &asked.seen.body;
        let find = |from: usize, what: &str| {
            let found = body[from..]
                .windows(what.len())
                .position(|w| w == what.as_bytes());
            from + found.expect("it is there")
        };
        let record = find(0, "\r\n\r\n") + 4;
        let end = find(record, &format!("\r\n--{boundary}\r\n"));
        let record: Value = serde_json::from_slice(&body[record..end]).expect("a record");
        let content = find(end + 4, "\r\n\r\n") + 4;
        let end = body.len() - format!("\r\n--{boundary}--\r\n").len();
        let name = asked.get("name").expect("a name").to_owned();
        let declared = record["crc32c"].as_str().map(str::to_owned);
        let content = body[content..end].to_vec();
        let stored = self.store(
            &name,
            &record,
            &content,
            asked.is_conditional(),
            declared.as_deref(),
        );
        stored.map_or_else(|refused| refused, |record| told(&record))
    }

    fn begin(&mut self, asked: &Asked<'_>) -> Reply {
        let name = asked.get("name").expect("a name").to_owned();
        if asked.is_conditional() && self.objects.contains_key(&name) {
            return refused(412, "conditionNotMet", "");
        }
        self.uploads.push(Resumable {
            name,
            record: serde_json::from_slice(&asked.seen.body).expect("a record"),
            is_conditional: asked.is_conditional(),
            content: Vec::new(),
            ended: None,
        });
        let id = self.uploads.len() - 1;
        let address = format!("https://elsewhere/upload/storage/v1/b/bkt/o?upload_id={id}");
        Reply::Answer(200, vec![("location", address)], Vec::new())
    }

    fn chunk(&mut self, asked: &Asked<'_>) -> Reply {
        let id: usize = asked
            .get("upload_id")
            .expect("an upload")
            .parse()
            .expect("a number");
        let Some(mut upload) = self.uploads.get(id).cloned() else {
            return refused(404, "notFound", "");
        };
        if let Some(record) = &upload.ended {
            return told(record);
        }
        let range = asked.seen.header("content-range").expect("a range");
        let (bytes, total) = range
            .strip_prefix("bytes ")
            .and_then(|range| range.split_once('/'))
            .expect("a range");
        let start: usize = match bytes.split_once('-') {
            Some((start, _)) => start.parse().expect("a number"),
            None => upload.content.len(),
        };
        let known = upload.content.len().saturating_sub(start);
        assert!(start <= upload.content.len(), "a gap before {range}");
        let mut fresh = asked.seen.body.get(known..).unwrap_or_default();
        if let Some(steps) = self.steps_kept {
            fresh = &fresh[..fresh.len().min(steps * STEP)];
        }
        upload.content.extend_from_slice(fresh);
        let has_ended = total.parse() == Ok(upload.content.len());
        if !has_ended {
            assert_eq!(upload.content.len() % STEP, 0, "whole steps: {range}");
            let length = upload.content.len();
            self.uploads[id] = upload;
            let range =
                (length > 0).then(|| ("range", format!("bytes=0-{}", length.saturating_sub(1))));
            return Reply::Answer(308, range.into_iter().collect(), Vec::new());
        }
        let hash = asked.seen.header("x-goog-hash");
        let declared = hash
            .as_deref()
            .and_then(|hash| hash.strip_prefix("crc32c="));
        let (name, record) = (upload.name.clone(), upload.record.clone());
        match self.store(
            &name,
            &record,
            &upload.content,
            upload.is_conditional,
            declared,
        ) {
            Ok(record) => {
                upload.ended = Some(record.clone());
                self.uploads[id] = upload;
                told(&record)
            }
            Err(refused) => refused,
        }
    }

    fn get(&self, asked: &Asked<'_>, name: &str) -> Reply {
        let stored = self.objects.get(name).filter(|stored| {
            let wanted = asked.get("generation");
            wanted.is_none_or(|wanted| wanted == stored.generation.to_string())
        });
        let Some(stored) = stored else {
            return refused(404, "notFound", &format!("No such object: bkt/{name}"));
        };
        if asked.get("alt") != Some("media") {
            return told(&stored.record);
        }
        let mut headers = vec![
            ("x-goog-generation", stored.generation.to_string()),
            ("x-goog-hash", format!("crc32c={}", sum(&stored.content))),
            ("last-modified", "Sun, 29 Nov 2026 07:43:05 GMT".to_owned()),
        ];
        let length = stored.content.len();
        let range = asked.seen.header("range");
        let from = range.as_deref().and_then(|range| {
            range
                .strip_prefix("bytes=")?
                .strip_suffix('-')?
                .parse::<usize>()
                .ok()
        });
        match from {
            None => Reply::Answer(200, headers, stored.content.clone()),
            Some(from) => {
                headers.push((
                    "content-range",
                    format!("bytes {from}-{}/{length}", length - 1),
                ));
                Reply::Answer(206, headers, stored.content[from..].to_vec())
            }
        }
    }

    fn list(&self, asked: &Asked<'_>) -> Reply {
        let prefix = asked.get("prefix").unwrap_or_default();
        let most: usize = asked
            .get("maxResults")
            .map_or(1000, |most| most.parse().expect("a number"));
        let from = asked
            .get("pageToken")
            .or(asked.get("startOffset"))
            .unwrap_or_default();
        let mut found = self
            .objects
            .iter()
            .filter(|(name, _)| name.starts_with(prefix) && name.as_str() >= from);
        let items: Vec<&Value> = found
            .by_ref()
            .take(most)
            .map(|(_, stored)| &stored.record)
            .collect();
        let mut page = json!({"kind": "storage#objects"});
        if !items.is_empty() {
            page["items"] = json!(items);
        }
        if let Some((next, _)) = found.next() {
            page["nextPageToken"] = json!(next);
        }
        told(&page)
    }
}

impl Google {
    fn answer(&self, seen: &Seen) -> Reply {
        let mut state = self.state.lock().expect("not poisoned");
        state.answer(&Asked::new(seen))
    }

    /// The content of every object, by name.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state.lock().expect("not poisoned");
        let objects = state.objects.iter();
        objects
            .map(|(name, stored)| (name.clone(), stored.content.clone()))
            .collect()
    }

    /// Puts an object of others there.
    fn put(&self, name: &str, content: &[u8]) {
        let mut state = self.state.lock().expect("not poisoned");
        assert!(state.store(name, &json!({}), content, false, None).is_ok());
    }

    fn change(&self, change: impl FnOnce(&mut GoogleState)) {
        change(&mut self.state.lock().expect("not poisoned"));
    }
}

/// A server, and what it has. The fault is asked first; where it has no reply, the store's is given.
fn google(
    fault: impl Fn(&Seen, &Google) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Arc<Google>) {
    let google = Arc::new(Google::default());
    let asked = Arc::clone(&google);
    let server =
        Server::start(move |seen| fault(seen, &asked).unwrap_or_else(|| asked.answer(seen)));
    (server, google)
}

/// The same of Google's, of which conditions are not tried.
fn store_of(server: &Server) -> GcsStore {
    let store = GcsStore::open(&options_of(server)).expect("opens");
    believe(&store);
    store
}

/// Takes conditions for kept.
fn believe(store: &GcsStore) {
    for way in [Way::AtOnce, Way::InParts] {
        let guarded = store.inner.uploads.guarded(way);
        guarded.set(true).expect("nobody asked");
    }
}

fn options_of(server: &Server) -> GcsOptions {
    GcsOptions {
        prefix: "/p/".into(),
        retry: RetryPolicy {
            deadline: Duration::from_secs(5),
            first_delay: Duration::from_millis(1),
            delay_max: Duration::from_millis(20),
            ..RetryPolicy::default()
        },
        ..GcsOptions::for_test(server.port)
    }
}

/// Gives so many of the requests that fit this reply, and none to the others.
fn some_of(
    times: usize,
    fits: impl Fn(&Seen) -> bool + Send + Sync + 'static,
    reply: impl Fn(&Seen, &Google) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Seen, &Google) -> Option<Reply> + Send + Sync + 'static {
    let left = Mutex::new(times);
    move |seen, google| {
        let mut left = left.lock().expect("not poisoned");
        if *left == 0 || !fits(seen) {
            return None;
        }
        *left -= 1;
        Some(reply(seen, google))
    }
}

/// The store does its work, and nobody hears of it.
fn lost(seen: &Seen, google: &Google) -> Reply {
    let _ = google.answer(seen);
    Reply::Close
}

fn is_at_once(seen: &Seen) -> bool {
    seen.target.contains("uploadType=multipart")
}

fn is_last_chunk(seen: &Seen) -> bool {
    let range = seen.header("content-range");
    range.is_some_and(|range| !range.ends_with("/*"))
}

fn is_chunk(seen: &Seen) -> bool {
    seen.header("content-range").is_some() && !is_last_chunk(seen)
}

fn key() -> ObjectKey {
    ObjectKey::new("k").expect("valid")
}

/// Bytes that follow from their position.
fn pattern(size: usize) -> Vec<u8> {
    let byte = |at: usize| {
        (at as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .to_be_bytes()[0]
    };
    (0..size).map(byte).collect()
}

fn body(size: usize) -> Body {
    let chunks: Vec<_> = pattern(size)
        .chunks(77_777)
        .map(|chunk| Ok(Bytes::copy_from_slice(chunk)))
        .collect();
    stream::iter(chunks).boxed()
}

#[tokio::test]
async fn the_store_passes_the_suite_of_every_store() {
    let (server, google) = google(|_, _| None);
    conformance(Arc::new(store_of(&server))).await;
    assert_eq!(google.objects().len(), 0);
    // With a trial of its own.
    let store = GcsStore::open(&options_of(&server)).expect("opens");
    store.try_out().await.expect("tried");
    for way in [Way::AtOnce, Way::InParts] {
        assert!(is_guarded(&store, way).await.expect("asked"));
    }
    assert_eq!(google.objects().len(), 0);
}

#[tokio::test]
async fn an_archive_under_the_other_spelling_is_not_taken_for_an_empty_one() {
    let (server, google) = google(|_, _| None);
    let store = store_of(&server);
    google.put("p/basebackups_005/x", b"x");
    for prefix in ["", "basebackups_005/"] {
        let error = store.list(prefix).await.err().expect("it is doubted");
        assert!(error.hint().expect("a hint").contains("spelling"));
        assert!(error.to_string().contains("\"/p/\""), "{error}");
    }
    assert!(store.try_out().await.is_err());
    // A question for one name is none for the archive.
    assert!(store.list("basebackups_005/base_1").await.is_ok());
    let certain = GcsOptions {
        spelling_is_certain: true,
        ..options_of(&server)
    };
    let certain = GcsStore::open(&certain).expect("opens");
    let listed: Vec<_> = certain
        .list("")
        .await
        .expect("lists")
        .try_collect()
        .await
        .expect("ends");
    assert_eq!(listed, []);
    let other = GcsOptions {
        prefix: "p/".into(),
        ..options_of(&server)
    };
    let other = GcsStore::open(&other).expect("opens");
    assert!(other.list("").await.is_ok());
    other
        .inner
        .bucket
        .confirm_spelling()
        .await
        .expect("it is there");
}

#[tokio::test]
async fn keys_after_another_begin_there() {
    let (server, google) = google(|_, _| None);
    for name in ["a", "b", "c", "d"] {
        google.put(&format!("/p/{name}"), b"x");
    }
    let store = store_of(&server);
    for (after, expected) in [("b", "cd"), ("bb", "cd"), ("d", ""), ("", "abcd")] {
        let listed = store.list_after("", after).await.expect("lists");
        let names: Vec<String> = listed
            .map_ok(|meta| meta.key.to_string())
            .try_collect()
            .await
            .expect("ends");
        assert_eq!(names.concat(), expected, "{after}");
    }
    let begins = |asked: &String| {
        asked.contains("startOffset=%2Fp%2Fb&") || asked.ends_with("startOffset=%2Fp%2Fb")
    };
    assert!(server.asked().iter().any(begins), "{:?}", server.asked());
}
