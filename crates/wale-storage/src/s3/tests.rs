//! What no real server shows at will: answers by a script, on loopback.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

mod keys;
mod lies;
mod silence;
mod sweep;
mod truth;

use super::*;
use crate::http::probe::is_guarded;
use crate::http::scripted::{Pace, Reply, Seen, Server, answer};
use crate::http::text::hex;
use crate::http::writes::Way;
use crate::{
    Body, HttpTimeouts, Looking, Misconfiguration, ObjectKey, Proxies, PutOutcome, RetryPolicy,
    Secret, Store, StoreError, body_from, read_all,
};

impl Server {
    /// A store that answers what the trials of a store ask, and everything else by the script.
    fn of_store(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::of_store_at(Pace::AtOnce, script)
    }

    fn of_store_at(pace: Pace, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let created = Mutex::new(Vec::new());
        Self::start_at(pace, move |seen| {
            if seen.method == "GET" && seen.target.contains("max-keys=1&") {
                return bucket();
            }
            if !seen.is_probe() {
                return script(seen);
            }
            let mut created = created.lock().expect("not poisoned");
            match seen.method.as_str() {
                "DELETE" => answer(204),
                "POST" if seen.target.ends_with("?uploads=") => {
                    Reply::Answer(200, Vec::new(), begun())
                }
                "POST" if created.contains(&seen.target) => refusal(412, "PreconditionFailed"),
                "POST" => {
                    created.push(seen.target.clone());
                    Reply::Answer(200, Vec::new(), assembled())
                }
                _ if seen.target.contains("partNumber") => stored(),
                _ if seen.header("x-amz-checksum-crc32c").as_deref() == Some("AAAAAA==") => {
                    refusal(400, "BadDigest")
                }
                _ if created.contains(&seen.target) => refusal(412, "PreconditionFailed"),
                _ => {
                    created.push(seen.target.clone());
                    answer(200)
                }
            }
        })
    }

    fn options(&self) -> S3Options {
        S3Options {
            bucket: "b".into(),
            prefix: String::new(),
            endpoint: Some(S3Endpoint {
                secure: false,
                authority: format!("127.0.0.1:{}", self.port),
                path: String::new(),
                addressing: Addressing::Path,
            }),
            region: "us-east-1".into(),
            credentials: CredentialSource::Static(keys("A")),
            keys_expire: None,
            storage_class: None,
            encryption: ServerEncryption::BucketDefault,
            checksum: UploadChecksum::Crc32c,
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

    fn store(&self) -> S3Store {
        S3Store::open(&self.options()).expect("opens")
    }

    /// A store that takes a second for silence, and asks twice.
    fn impatient_store(&self) -> S3Store {
        let options = self.options();
        let limit = Duration::from_secs(1);
        let options = S3Options {
            timeouts: HttpTimeouts {
                connect: limit,
                answer: limit,
                stall: limit,
                ..options.timeouts
            },
            retry: RetryPolicy {
                attempts_max: 2,
                ..options.retry
            },
            ..options
        };
        S3Store::open(&options).expect("opens")
    }
}

fn keys(id: &str) -> Credentials {
    Credentials {
        access_key_id: id.into(),
        secret_access_key: Secret::new("canary"),
        session_token: None,
    }
}

/// The answer to the beginning of a multipart upload.
fn begun() -> Vec<u8> {
    b"<InitiateMultipartUploadResult><UploadId>u/1</UploadId></InitiateMultipartUploadResult>"
        .to_vec()
}

/// The answer to its end.
fn assembled() -> Vec<u8> {
    b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>".to_vec()
}

/// The answer to a body that was taken.
fn stored() -> Reply {
    Reply::Answer(200, object("e"), Vec::new())
}

/// A store that puts uploads together, and has nothing but them.
fn keeps_uploads() -> impl Fn(&Seen) -> Reply + Send + Sync {
    /// The mark, the length so far, and whether it has ended.
    type Kept = (String, usize, bool);
    let uploads = Mutex::new(std::collections::HashMap::<String, Kept>::new());
    move |seen| {
        let path = seen.target.split('?').next().unwrap_or_default().to_owned();
        let mut uploads = uploads.lock().expect("not poisoned");
        match seen.method.as_str() {
            "POST" if seen.target.ends_with("?uploads=") => {
                let mark = seen.header(headers::MARK_HEADER).expect("a mark");
                uploads.insert(path, (mark, 0, false));
                Reply::Answer(200, Vec::new(), begun())
            }
            "POST" => {
                uploads.get_mut(&path).expect("it was begun").2 = true;
                Reply::Answer(200, Vec::new(), assembled())
            }
            "PUT" => {
                if let Some((_, length, _)) = uploads.get_mut(&path) {
                    *length += seen.body.len();
                }
                stored()
            }
            "DELETE" => answer(204),
            _ => match uploads.get(&path) {
                Some((mark, length, true)) => {
                    let mut headers = object("e");
                    headers.push((headers::MARK_HEADER, mark.clone()));
                    Reply::Answer(200, headers, vec![0; *length])
                }
                _ => answer(404),
            },
        }
    }
}

/// The answer of a bucket that is there.
fn bucket() -> Reply {
    Reply::Answer(200, Vec::new(), b"<ListBucketResult/>".to_vec())
}

fn refusal(status: u16, code: &str) -> Reply {
    let body = format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
    Reply::Answer(status, Vec::new(), body.into_bytes())
}

fn object(etag: &str) -> Vec<(&'static str, String)> {
    vec![
        ("etag", format!("\"{etag}\"")),
        ("last-modified", "Mon, 23 Nov 2026 10:00:00 GMT".to_owned()),
    ]
}

fn key() -> ObjectKey {
    ObjectKey::new("k").expect("valid")
}

fn body(text: &'static str) -> Body {
    body_from(Bytes::from_static(text.as_bytes()))
}

/// A store in which an object appears with its PUT, whose first reply is lost; `others` takes the name before that.
async fn lost_reply(others: bool) -> Result<PutOutcome, StoreError> {
    let stored = Mutex::new(None::<String>);
    let server = Server::of_store(move |seen| {
        let mut stored = stored.lock().expect("not poisoned");
        match (seen.method.as_str(), stored.clone()) {
            ("PUT", None) => {
                let mark = seen
                    .header(headers::MARK_HEADER)
                    .expect("every object is marked");
                *stored = Some(if others { "another".into() } else { mark });
                Reply::Close
            }
            ("PUT", Some(_)) => refusal(412, "PreconditionFailed"),
            (_, None) => answer(404),
            (_, Some(mark)) => {
                let mut headers = object("e");
                headers.push((headers::MARK_HEADER, mark));
                Reply::Answer(200, headers, b"text".to_vec())
            }
        }
    });
    let outcome = server.store().put_if_absent(&key(), body("text")).await;
    assert_eq!(
        server
            .asked()
            .iter()
            .filter(|asked| asked.starts_with("PUT"))
            .count(),
        2
    );
    outcome
}

#[tokio::test]
async fn row_25_the_mark_says_whose_object_is_there() {
    let outcome = lost_reply(false).await.expect("the object is there");
    assert!(matches!(outcome, PutOutcome::Created(meta) if meta.size == 4));
    let outcome = lost_reply(true).await.expect("an object is there");
    assert_eq!(outcome, PutOutcome::Exists);
}

#[tokio::test]
async fn row_26_silence_has_a_limit() {
    let server = Server::of_store(|_| Reply::Silence);
    let error = server
        .impatient_store()
        .head(&key())
        .await
        .expect_err("silence");
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
}

#[tokio::test]
async fn row_30_a_store_that_ignores_conditions_is_looked_at_before_and_after() {
    let stored = Mutex::new(std::collections::HashMap::new());
    let server = Server::start(move |seen| {
        let mut stored = stored.lock().expect("not poisoned");
        match seen.method.as_str() {
            _ if seen.target.starts_with("/b?") => bucket(),
            _ if seen.header("x-amz-checksum-crc32c").as_deref() == Some("AAAAAA==") => {
                refusal(400, "BadDigest")
            }
            "PUT" => {
                stored.insert(seen.target.clone(), seen.clone());
                answer(200)
            }
            "DELETE" => {
                stored.remove(&seen.target);
                answer(204)
            }
            _ => match stored.get(&seen.target) {
                None => answer(404),
                Some(put) => {
                    let mut headers = object("e");
                    let mark = put.header(headers::MARK_HEADER).unwrap_or_default();
                    headers.push((headers::MARK_HEADER, mark));
                    Reply::Answer(200, headers, put.body.clone())
                }
            },
        }
    });
    let store = server.store();
    let writers = (0..10).map(|n| {
        let store = store.clone();
        let text: &'static str = ["a", "b"][n % 2];
        async move { store.put_if_absent(&key(), body(text)).await }
    });
    let outcomes = futures_util::future::join_all(writers).await;
    let created = outcomes
        .iter()
        .filter(|o| matches!(o, Ok(PutOutcome::Created(_))))
        .count();
    assert_eq!(created, 1, "{outcomes:?}");
    let guarded = is_guarded(&store, Way::AtOnce).await;
    assert!(!guarded.expect("known by now"));
    let puts = server
        .seen()
        .into_iter()
        .filter(|seen| seen.method == "PUT" && !seen.is_probe());
    assert_eq!(puts.count(), 1, "nobody writes over what is there");
}

#[tokio::test]
async fn a_broken_body_is_read_on() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let (whole, size) = (content.clone(), content.len());
    let server = Server::of_store(move |seen| match seen.header("range") {
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
    let read = read_all(&server.store(), &key(), 1 << 20)
        .await
        .expect("whole");
    assert_eq!(read, content);
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn another_object_is_not_read_on() {
    let server = Server::of_store(|seen| match seen.header("range") {
        None => Reply::Cut(object("e"), vec![1; 100], 50),
        Some(_) => refusal(412, "PreconditionFailed"),
    });
    let error = read_all(&server.store(), &key(), 1000)
        .await
        .expect_err("half");
    assert!(error.to_string().contains("was replaced"), "{error}");
    assert_eq!(
        server.asked().len(),
        2,
        "and it is not asked for again and again"
    );
}

#[tokio::test]
async fn row_27_a_digest_that_differs_is_no_success() {
    let answers = Mutex::new(VecDeque::from(["0123456789abcdef0123456789abcdef"]));
    let server = Server::start(move |seen| match seen.method.as_str() {
        "HEAD" => answer(404),
        "DELETE" => answer(204),
        "GET" => Reply::Answer(200, Vec::new(), b"<ListBucketResult/>".to_vec()),
        _ => {
            use md5::{Digest as _, Md5};
            let right = hex(&Md5::digest(&seen.body));
            let wrong = if seen.is_probe() {
                None
            } else {
                answers.lock().expect("not poisoned").pop_front()
            };
            Reply::Answer(200, object(wrong.unwrap_or(&right)), Vec::new())
        }
    });
    let meta = server
        .store()
        .put(&key(), body("text"))
        .await
        .expect("the second time");
    assert_eq!(meta.size, 4);
    assert_eq!(server.asked(), ["PUT /b/k", "PUT /b/k"]);
}

#[tokio::test]
async fn row_32_a_bucket_that_is_gone_is_no_absence() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "HEAD" => answer(404),
        _ => refusal(404, "NoSuchBucket"),
    });
    let store = server.store();
    for error in [
        store.head(&key()).await.expect_err("no bucket"),
        store.get(&key()).await.expect_err("no bucket"),
        store.list("").await.map(drop).expect_err("no bucket"),
        store.check().await.expect_err("no bucket"),
        store.delete(&key()).await.expect_err("no bucket"),
    ] {
        let problem = Misconfiguration::NoSuchBucket;
        assert!(
            matches!(error, StoreError::Misconfigured { problem: p, .. } if p == problem),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_refused_head_is_explained() {
    let server = Server::of_store(|seen| match seen.method.as_str() {
        "HEAD" => answer(403),
        _ => refusal(403, "RequestTimeTooSkewed"),
    });
    let error = server.store().head(&key()).await.expect_err("skewed");
    let problem = Misconfiguration::ClockSkew;
    assert!(
        matches!(error, StoreError::Misconfigured { problem: p, .. } if p == problem),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_dropped_upload_is_discarded_by_the_next() {
    let server = Server::of_store(|seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("HEAD", _) => answer(404),
        ("POST", target) if target.ends_with("?uploads=") => {
            Reply::Answer(200, Vec::new(), begun())
        }
        ("DELETE", _) => answer(204),
        _ => Reply::Answer(200, object("e"), Vec::new()),
    });
    let store = server.store();
    let full = Bytes::from(vec![1; 6 << 20]);
    let stuck = stream::iter([Ok(full)]).chain(stream::pending()).boxed();
    let name = key();
    {
        let mut put = store.put(&name, stuck);
        let part = "PUT /b/k?partNumber=1&uploadId=u%2F1";
        while !server.asked().iter().any(|asked| asked == part) {
            let limit = Duration::from_millis(10);
            let waited = tokio::time::timeout(limit, &mut put).await;
            assert!(waited.is_err(), "the body has no end");
        }
    }
    store.put(&key(), body("text")).await.expect("stores");
    assert!(
        server
            .asked()
            .contains(&"DELETE /b/k?uploadId=u%2F1".to_owned())
    );
}

#[tokio::test]
async fn a_listing_goes_over_pages() {
    let page = |key: &str, token: &str| {
        format!(
            "<ListBucketResult><IsTruncated>{}</IsTruncated><Contents><Key>{key}</Key><Size>1</Size>\
             <LastModified>2026-11-23T10:00:00.5Z</LastModified></Contents>{token}</ListBucketResult>",
            !token.is_empty()
        )
    };
    let fails = Mutex::new(1);
    let server = Server::of_store(move |seen| {
        let text = if !seen.target.contains("continuation-token=t%2B1") {
            page("a", "<NextContinuationToken>t+1</NextContinuationToken>")
        } else if std::mem::take(&mut *fails.lock().expect("not poisoned")) == 1 {
            return refusal(503, "SlowDown");
        } else {
            let folder = "<Contents><Key>b/</Key><Size>0</Size><LastModified>2026-11-23T10:00:00Z</LastModified>\
                          </Contents>";
            page("c", "").replace("<Contents>", &format!("{folder}<Contents>"))
        };
        Reply::Answer(200, Vec::new(), text.into_bytes())
    });
    let entries = server.store().list("").await.expect("lists");
    let entries: Vec<_> = entries.try_collect().await.expect("lists");
    let keys: Vec<_> = entries.iter().map(|meta| meta.key.as_str()).collect();
    assert_eq!(keys, ["a", "c"], "a folder of a console is nobody's object");
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_listing_is_trusted_as_far_as_its_server_is_known() {
    let page = |keys: &[&str]| {
        let entry = |key: &&str| {
            format!(
                "<Contents><Key>{key}</Key><Size>1</Size><LastModified>2026-11-23T10:00:00Z</LastModified></Contents>"
            )
        };
        let entries: String = keys.iter().map(entry).collect();
        format!("<ListBucketResult>{entries}</ListBucketResult>").into_bytes()
    };
    for (header, knows_start, expected) in [
        ("x-amz-request-id", true, Looking::FromAnyKey),
        ("x-amz-request-id", false, Looking::ByPrefix),
        ("x-trans-id", true, Looking::ByName),
        ("x-openstack-request-id", false, Looking::ByName),
    ] {
        let server = Server::start(move |seen| {
            assert!(seen.target.contains("start-after=b"), "{}", seen.target);
            let keys: &[&str] = if knows_start {
                &["c"]
            } else {
                &["a", "b", "c"]
            };
            Reply::Answer(200, vec![(header, "1".to_owned())], page(keys))
        });
        let store = server.store();
        assert_eq!(store.looking(), Looking::ByName, "it has not answered yet");
        let listed = store.list_after("", "b").await.expect("lists");
        let listed: Vec<_> = listed.try_collect().await.expect("lists");
        let keys: Vec<_> = listed.iter().map(|meta| meta.key.as_str()).collect();
        assert_eq!(keys, ["c"]);
        assert_eq!(store.looking(), expected, "{header}, {knows_start}");
    }
}

#[tokio::test]
async fn row_31_refused_keys_are_asked_for_again() {
    let given = Mutex::new(0);
    let agent = Server::start(move |seen| {
        assert_eq!(seen.header("authorization").as_deref(), Some("t0ken"));
        let mut given = given.lock().expect("not poisoned");
        *given += 1;
        let text = format!(
            r#"{{"AccessKeyId":"K{given}","SecretAccessKey":"canary","Token":"T","Expiration":"2099-01-01T00:00:00Z"}}"#
        );
        Reply::Answer(200, Vec::new(), text.into_bytes())
    });
    let server = Server::start(|seen| {
        let authorization = seen.header("authorization").expect("signed");
        if ["K1", "K2"]
            .iter()
            .any(|keys| authorization.contains(&format!("Credential={keys}/")))
        {
            return refusal(400, "ExpiredToken");
        }
        Reply::Answer(200, object("e"), b"text".to_vec())
    });
    let source = ContainerSource {
        url: format!("http://127.0.0.1:{}/keys", agent.port),
        token: Some(ContainerToken::Text(Secret::new("t0ken"))),
    };
    let options = S3Options {
        credentials: CredentialSource::Container(source),
        ..server.options()
    };
    let store = S3Store::open(&options).expect("opens");
    // Once; the next ones not at once, too: a store that refuses everything makes no storm.
    for _ in 0..3 {
        store.get(&key()).await.expect_err("expired");
        assert_eq!(agent.seen().len(), 2);
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    store.get(&key()).await.expect("the third keys are good");
    assert_eq!(agent.seen().len(), 3);
}

#[tokio::test]
async fn row_34_what_is_retained_is_told_and_the_rest_is_gone() {
    let server = Server::of_store(|seen| {
        match seen.method.as_str() {
        "HEAD" => {
            let mut headers = object("e");
            headers.push(("x-amz-object-lock-retain-until-date", "2027-01-01T00:00:00Z".into()));
            Reply::Answer(200, headers, Vec::new())
        }
        _ => Reply::Answer(
            200,
            Vec::new(),
            b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code><Message>Access Denied because object \
              protected by object lock.</Message></Error><Error><Key>c</Key><Code>InternalError</Code></Error>\
              </DeleteResult>"
                .to_vec(),
        ),
    }
    });
    let keys = ["a", "b", "c"].map(|name| ObjectKey::new(name).expect("valid"));
    let failed = server.store().delete_many(&keys).await;
    let told: Vec<_> = failed.iter().map(|(_, error)| error.to_string()).collect();
    assert_eq!(told[0], "object b is retained until 2027-01-01T00:00:00Z");
    assert_eq!(failed[1].0, keys[2]);
    assert!(failed[1].1.is_transient() && failed.len() == 2);
    let sum = server.seen()[0].header("content-md5");
    assert!(sum.is_some(), "Amazon wants this request to be checked");
}

#[tokio::test]
async fn more_uploads_than_memory_wait_for_each_other_and_not_for_ever() {
    let server = Server::of_store(keeps_uploads());
    let store = server.store();
    // Two slots of 5 MiB, and six uploads of three parts each, for the first of which the store is still to be tried.
    let puts = (0..6).map(|n| {
        let store = store.clone();
        async move {
            let key = ObjectKey::new(&format!("k{n}")).expect("valid");
            let chunks = (0..11).map(|_| Ok(Bytes::from(vec![1; 1 << 20])));
            let body = stream::iter(chunks).boxed();
            store.put_if_absent(&key, body).await
        }
    });
    let all = futures_util::future::try_join_all(puts);
    let limit = Duration::from_secs(30);
    let outcomes = tokio::time::timeout(limit, all)
        .await
        .expect("none waits for ever");
    for outcome in outcomes.expect("all are stored") {
        assert!(matches!(outcome, PutOutcome::Created(meta) if meta.size == 11 << 20));
    }
}
