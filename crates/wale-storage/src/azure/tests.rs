//! What no real server shows at will: answers by a script, on loopback.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::upload::MARK_HEADER;
use super::*;
use crate::http::probe::is_guarded;
use crate::http::scripted::{Reply, Seen, Server, answer};
use crate::http::writes::Way;
use crate::{
    Body, HttpTimeouts, Misconfiguration, ObjectKey, Proxies, PutOutcome, RetryPolicy, Secret,
    Store, StoreError, body_from, read_all,
};

mod credentials;
mod truth;

/// A store that answers what the trials of a store ask, and everything else by the script.
fn of_store(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Server {
    let created = Mutex::new(Vec::new());
    Server::start(move |seen| {
        if !seen.is_probe() {
            return script(seen);
        }
        let name = path(seen);
        let mut created = created.lock().expect("not poisoned");
        match seen.method.as_str() {
            "DELETE" => answer(202),
            _ if seen.target.contains("blockid=") => block(),
            _ if seen.header("content-md5").as_deref() == Some("AAAAAAAAAAAAAAAAAAAAAA==") => {
                refusal(400, "Md5Mismatch")
            }
            _ if created.contains(&name) => refusal(409, "BlobAlreadyExists"),
            _ => {
                created.push(name);
                stored()
            }
        }
    })
}

fn path(seen: &Seen) -> String {
    let path = seen.target.split('?').next();
    path.unwrap_or_default().to_owned()
}

fn options(server: &Server) -> AzureOptions {
    AzureOptions {
        account: "acc".into(),
        container: "c".into(),
        prefix: String::new(),
        cloud: "core.windows.net".into(),
        endpoint: Some(AzureEndpoint {
            secure: false,
            authority: format!("127.0.0.1:{}", server.port),
            path: "/acc".into(),
        }),
        credentials: AzureCredentialSource::AccountKey(Secret::new("Zm9v")),
        api_version: None,
        checksum: AzureChecksum::Md5,
        ca_file: None,
        proxies: Proxies::default(),
        // As in life: a busy machine is not silent.
        timeouts: HttpTimeouts::default(),
        retry: RetryPolicy {
            deadline: Duration::from_secs(5),
            first_delay: Duration::from_millis(1),
            delay_max: Duration::from_millis(20),
            ..RetryPolicy::default()
        },
        upload_memory_bytes: 0,
    }
}

fn store(server: &Server) -> AzureStore {
    AzureStore::open(&options(server)).expect("opens")
}

/// A store that gives up after so many attempts.
fn impatient(server: &Server, attempts_max: u32) -> AzureStore {
    let options = options(server);
    let retry = RetryPolicy {
        attempts_max,
        ..options.retry
    };
    AzureStore::open(&AzureOptions { retry, ..options }).expect("opens")
}

fn refusal(status: u16, code: &'static str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>m\nTime:t</Message></Error>");
    let headers = vec![("x-ms-error-code", code.to_owned())];
    Reply::Answer(status, headers, body.into_bytes())
}

/// The answer to a blob that was taken.
fn stored() -> Reply {
    Reply::Answer(201, object("e"), Vec::new())
}

/// The answer to a block that was taken.
fn block() -> Reply {
    Reply::Answer(201, vec![("x-ms-request-id", "r".to_owned())], Vec::new())
}

fn object(etag: &str) -> Vec<(&'static str, String)> {
    vec![
        ("etag", format!("\"{etag}\"")),
        ("last-modified", "Mon, 23 Nov 2026 10:00:00 GMT".to_owned()),
    ]
}

/// An object with this mark, as a check sees it; absent without one.
fn marked(mark: Option<String>, bytes: usize) -> Reply {
    let Some(mark) = mark else {
        return refusal(404, "BlobNotFound");
    };
    let mut headers = object("e");
    headers.push((MARK_HEADER, mark));
    Reply::Answer(200, headers, vec![0; bytes])
}

fn key() -> ObjectKey {
    ObjectKey::new("k").expect("valid")
}

fn body(text: &'static str) -> Body {
    body_from(Bytes::from_static(text.as_bytes()))
}

/// A body of two blocks.
fn large() -> Body {
    let chunks = (0..6_u8).map(|n| Ok(Bytes::from(vec![n; 1 << 20])));
    stream::iter(chunks).boxed()
}

fn problem(error: &StoreError) -> Option<Misconfiguration> {
    match error {
        StoreError::Misconfigured { problem, .. } => Some(*problem),
        _ => None,
    }
}

#[tokio::test]
async fn a_broken_body_is_read_on_and_another_object_is_not() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let (whole, size) = (content.clone(), content.len());
    let server = of_store(move |seen| match seen.header("range") {
        None => Reply::Cut(object("e"), whole.clone(), 150_000),
        Some(range) => {
            assert_eq!(seen.header("if-match").as_deref(), Some("\"e\""));
            let at: usize = range
                .trim_start_matches("bytes=")
                .trim_end_matches('-')
                .parse()
                .expect("a number");
            let mut headers = object("e");
            headers.push(("content-range", format!("bytes {at}-{}/{size}", size - 1)));
            Reply::Answer(206, headers, whole[at..].to_vec())
        }
    });
    let read = read_all(&store(&server), &key(), 1 << 20).await;
    assert_eq!(read.expect("whole"), content);
    assert_eq!(server.asked().len(), 2);

    let server = of_store(|seen| match seen.header("range") {
        None => Reply::Cut(object("e"), vec![1; 100], 50),
        Some(_) => refusal(412, "ConditionNotMet"),
    });
    let read = read_all(&store(&server), &key(), 1000).await;
    let error = read.expect_err("half");
    assert!(error.to_string().contains("was replaced"), "{error}");
    assert_eq!(
        server.asked().len(),
        2,
        "it is not asked for again and again"
    );
}

#[tokio::test]
async fn a_listing_goes_over_pages_also_empty_ones() {
    let page = |blobs: &str, marker: &str| {
        format!(
            "\u{feff}<?xml version=\"1.0\"?><EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker>\
             </EnumerationResults>"
        )
    };
    let blob = |name: &str, more: &str| {
        format!(
            "<Blob><Name>{name}</Name><Properties><Last-Modified>Mon, 23 Nov 2026 10:00:00 GMT</Last-Modified>\
             <Content-Length>1</Content-Length>{more}</Properties></Blob>"
        )
    };
    let fails = Mutex::new(1);
    let server = of_store(move |seen| {
        let text = if !seen.target.contains("marker=") {
            page(&blob("a", ""), "m+1")
        } else if seen.target.contains("marker=m%2B1") {
            page("", "m2")
        } else if std::mem::take(&mut *fails.lock().expect("not poisoned")) == 1 {
            return refusal(503, "ServerBusy");
        } else {
            let folder = blob("b", "<ResourceType>directory</ResourceType>");
            page(&[folder, blob("c/", ""), blob("d", "")].concat(), "")
        };
        Reply::Answer(200, Vec::new(), text.into_bytes())
    });
    let entries = store(&server).list("").await.expect("lists");
    let entries: Vec<_> = entries.try_collect().await.expect("lists");
    let keys: Vec<_> = entries.iter().map(|meta| meta.key.as_str()).collect();
    assert_eq!(keys, ["a", "d"], "folders are nobody's objects");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn a_listing_that_does_not_go_on_or_is_in_another_order_is_refused() {
    for (names, marker) in [(["b", "a"], ""), (["a", "b"], "m")] {
        let blob = |name: &str| {
            format!(
                "<Blob><Name>{name}</Name><Properties><Last-Modified>Mon, 23 Nov 2026 10:00:00 GMT</Last-Modified>\
                 <Content-Length>1</Content-Length></Properties></Blob>"
            )
        };
        let blobs = names.map(blob).concat();
        let server = of_store(move |_| {
            let text = format!(
                "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
            );
            Reply::Answer(200, Vec::new(), text.into_bytes())
        });
        let listed = async {
            let entries = store(&server).list("").await?;
            entries.try_collect::<Vec<_>>().await
        };
        assert!(listed.await.expect_err("refused").is_transient());
    }
}

#[tokio::test]
async fn row_32_a_container_that_is_gone_and_a_refusal_are_no_absence() {
    type Check = fn(&StoreError) -> bool;
    let gone: Check = |e| problem(e) == Some(Misconfiguration::NoSuchBucket);
    let denied: Check = |e| matches!(e, StoreError::PermissionDenied { .. });
    for (status, code, expected) in [
        (404, "ContainerNotFound", gone),
        (403, "AuthorizationPermissionMismatch", denied),
        // A gateway that has lost its way.
        (404, "", |e: &StoreError| e.is_transient()),
    ] {
        let server = of_store(move |_| refusal(status, code));
        let store = impatient(&server, 1);
        for error in [
            store.head(&key()).await.expect_err(code),
            store.confirm(&key()).await.expect_err(code),
            store.get(&key()).await.expect_err(code),
            store.list("").await.map(drop).expect_err(code),
            store.delete(&key()).await.expect_err(code),
            store.put(&key(), body("x")).await.expect_err(code),
        ] {
            assert!(expected(&error), "{status} {code}: {error:?}");
        }
    }
}

#[tokio::test]
async fn a_refused_head_is_explained() {
    let server = of_store(|seen| {
        let body = "<Error><Code>AuthenticationFailed</Code><Message>m</Message><AuthenticationErrorDetail>Request date \
                    header too old: 'canary'</AuthenticationErrorDetail></Error>";
        let headers = vec![("x-ms-error-code", "AuthenticationFailed".to_owned())];
        let body = if seen.method == "HEAD" { "" } else { body };
        Reply::Answer(403, headers, body.as_bytes().to_vec())
    });
    let error = store(&server).head(&key()).await.expect_err("skewed");
    assert_eq!(problem(&error), Some(Misconfiguration::ClockSkew));
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn row_34_what_is_retained_is_told_and_the_rest_is_gone() {
    let server = of_store(|seen| match path(seen).as_str() {
        "/acc/c/b" => refusal(409, "BlobImmutableDueToPolicy"),
        "/acc/c/d" => refusal(404, "BlobNotFound"),
        _ => answer(202),
    });
    let keys = ["a", "b", "c", "d"].map(|name| ObjectKey::new(name).expect("valid"));
    let failed = store(&server).delete_many(&keys).await;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, keys[1]);
    assert_eq!(failed[0].1.to_string(), "object b is retained");
    assert_eq!(server.asked().len(), 4);
}

#[tokio::test]
async fn blocks_take_the_length_that_another_programs_leftovers_have() {
    // As the library that WAL-G uses names them.
    const LENGTH: usize = 64;
    let server = of_store(|seen| {
        if seen.target.contains("blocklisttype=") {
            let name = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, [b'x'; LENGTH]);
            let text = format!(
                "<BlockList><CommittedBlocks/><UncommittedBlocks><Block><Name>{name}</Name><Size>1</Size></Block>\
                 </UncommittedBlocks></BlockList>"
            );
            return Reply::Answer(200, Vec::new(), text.into_bytes());
        }
        match seen.method.as_str() {
            "PUT" if seen.target.contains("blockid=") => {
                let id = seen.target.split("blockid=").nth(1).expect("a name");
                let id = id.split('&').next().unwrap_or_default();
                // 64 bytes are 88 characters, of which the padding is escaped.
                match id
                    .replace("%3D", "=")
                    .replace("%2B", "+")
                    .replace("%2F", "/")
                    .len()
                {
                    88 => block(),
                    _ => refusal(400, "InvalidBlobOrBlock"),
                }
            }
            "PUT" => {
                let list = String::from_utf8_lossy(&seen.body).into_owned();
                assert_eq!(list.matches("<Uncommitted>").count(), 2, "{list}");
                stored()
            }
            _ => marked(None, 0),
        }
    });
    let stored = impatient(&server, 1).put(&key(), large()).await;
    // The check of the list finds nothing here.
    assert!(
        stored
            .expect_err("unkept")
            .to_string()
            .contains("is not there")
    );
    let blocks = server.asked();
    let blocks = blocks.iter().filter(|asked| asked.contains("blockid="));
    assert_eq!(blocks.count(), 3, "one was refused");
}

#[tokio::test]
async fn more_uploads_than_memory_wait_for_each_other_and_not_for_ever() {
    /// The mark and length of each object, and the length of what waits.
    #[derive(Default)]
    struct Kept {
        waiting: std::collections::HashMap<String, usize>,
        made: std::collections::HashMap<String, (String, usize)>,
    }
    let kept = Arc::new(Mutex::new(Kept::default()));
    let server = of_store(move |seen| {
        let mut kept = kept.lock().expect("not poisoned");
        let name = path(seen);
        match seen.method.as_str() {
            "PUT" if seen.target.contains("blockid=") => {
                *kept.waiting.entry(name).or_default() += seen.body.len();
                block()
            }
            "PUT" => {
                let mark = seen.header(MARK_HEADER).expect("a mark");
                let length = kept.waiting.get(&name).copied().unwrap_or(seen.body.len());
                kept.made.insert(name, (mark, length));
                stored()
            }
            _ => match kept.made.get(&name) {
                Some((mark, length)) => marked(Some(mark.clone()), *length),
                None => marked(None, 0),
            },
        }
    });
    let store = store(&server);
    // Two slots of 4 MiB, and six uploads of three blocks each, for the first of which the store is still to be tried.
    let puts = (0..6).map(|n| {
        let store = store.clone();
        async move {
            let key = ObjectKey::new(&format!("k{n}")).expect("valid");
            let chunks = (0..11).map(|_| Ok(Bytes::from(vec![1; 1 << 20])));
            store
                .put_if_absent(&key, stream::iter(chunks).boxed())
                .await
        }
    });
    let all = futures_util::future::try_join_all(puts);
    let outcomes = tokio::time::timeout(Duration::from_secs(30), all).await;
    for outcome in outcomes
        .expect("none waits for ever")
        .expect("all are stored")
    {
        assert!(matches!(outcome, PutOutcome::Created(meta) if meta.size == 11 << 20));
    }
}
