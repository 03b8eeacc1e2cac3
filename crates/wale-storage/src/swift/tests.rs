//! What no real server shows at will: answers by a script, on loopback.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use wale_testkit::s3::{Answer, FaultProxy, Seen};

use super::client::SwiftClient;
use super::*;
use crate::{
    HttpTimeouts, Misconfiguration, ObjectKey, Proxies, PutOutcome, RetryPolicy, Secret, Store,
    StoreError, body_from,
};

/// A client that asks nobody.
pub(super) fn client(prefix: &str) -> SwiftClient {
    SwiftClient::new(&options(1, prefix)).expect("the options are good")
}

fn options(port: u16, prefix: &str) -> SwiftOptions {
    SwiftOptions {
        container: "c".into(),
        prefix: prefix.into(),
        spelling_is_certain: false,
        login: SwiftLogin {
            url: format!("http://127.0.0.1:{port}/auth/v1.0"),
            method: SwiftMethod::V1 {
                user: "a:u".into(),
                key: LoginSecret::Text(Secret::new("canary")),
            },
            region: None,
            interface: SwiftInterface::Public,
        },
        storage_url: None,
        ca_file: None,
        proxies: Proxies::default(),
        timeouts: HttpTimeouts::default(),
        retry: RetryPolicy {
            deadline: Duration::from_secs(5),
            first_delay: Duration::from_millis(1),
            delay_max: Duration::from_millis(20),
            attempts_max: 4,
            ..RetryPolicy::default()
        },
        upload_memory_bytes: 0,
    }
}

/// A store whose login is `AUTH_1`, and then whatever comes next.
fn store(answers: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (FaultProxy, SwiftStore) {
    let logins = AtomicUsize::new(0);
    let server = FaultProxy::endpoint(move |seen| {
        if seen.path != "/auth/v1.0" {
            return answers(seen);
        }
        let number = logins.fetch_add(1, Ordering::Relaxed) + 1;
        let host = seen.header("host").unwrap_or_default();
        Answer::new(200, "")
            .header("X-Auth-Token", &format!("token-{number}"))
            .header("X-Storage-Url", &format!("http://{host}/v1/AUTH_a"))
    });
    let store = SwiftStore::open(&options(server.port(), "/p/")).expect("the options are good");
    (server, store)
}

fn key() -> ObjectKey {
    ObjectKey::new("a").expect("valid")
}

fn swifts(answer: Answer) -> Answer {
    answer.header("X-Trans-Id", "tx1")
}

#[tokio::test]
async fn a_login_that_is_refused_says_so_and_is_not_repeated() {
    for (status, problem) in [
        (401, Misconfiguration::LoginRefused),
        (403, Misconfiguration::LoginRefused),
        (404, Misconfiguration::BadOptions),
        (300, Misconfiguration::BadOptions),
    ] {
        let server = FaultProxy::endpoint(move |_| Answer::new(status, "<h1>No</h1>"));
        let store = SwiftStore::open(&options(server.port(), "/")).expect("good");
        let error = store.head(&key()).await.expect_err("refused");
        assert!(
            matches!(&error, StoreError::Misconfigured { problem: p, .. } if *p == problem),
            "{status} became {error:?}"
        );
        let shown = format!("{error} {error:?}");
        assert!(
            shown.contains("/auth/v1.0") && !shown.contains("canary"),
            "{shown}"
        );
        assert_eq!(server.requests().len(), 1, "{status}");
    }
    let server = FaultProxy::endpoint(|_| Answer::new(503, ""));
    let store = SwiftStore::open(&options(server.port(), "/")).expect("good");
    let error = store.head(&key()).await.expect_err("away");
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn fault_31_a_token_that_ends_is_renewed_and_one_that_is_never_taken_is_no_absence() {
    let (server, store) = store(|seen| match seen.header("x-auth-token") {
        Some("token-1") => Answer::new(401, ""),
        _ => swifts(Answer::new(200, "x"))
            .header("Last-Modified", "Sun, 29 Nov 2026 07:46:02 GMT")
            .header("X-Timestamp", "1795938361.53059"),
    });
    // A login that was granted a moment ago is not asked for again at once.
    let mut found = store.head(&key()).await;
    while let Err(error) = found {
        assert!(error.is_transient(), "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = store.head(&key()).await;
    }
    let meta = found.expect("asked").expect("it is there");
    assert_eq!(meta.modified.timestamp_subsec_micros(), 530_590);
    let last = server.requests().pop().expect("a request");
    assert_eq!(last.header("x-auth-token"), Some("token-2"));
    assert_eq!(last.path, "/v1/AUTH_a/c//p/a");
}

#[tokio::test]
async fn fault_24_only_swifts_own_word_means_absence_and_403_never_does() {
    type Check = fn(&Result<Option<crate::ObjectMeta>, StoreError>) -> bool;
    let absent: Check = |found| matches!(found, Ok(None));
    let unavailable: Check = |found| matches!(found, Err(error) if error.is_transient());
    let denied: Check = |found| matches!(found, Err(StoreError::PermissionDenied { .. }));
    let gone: Check = |found| {
        let problem = Misconfiguration::NoSuchBucket;
        matches!(found, Err(StoreError::Misconfigured { problem: p, .. }) if *p == problem)
    };
    let empty = || swifts(Answer::new(200, "[]"));
    let listed = || {
        swifts(Answer::new(
            200,
            r#"[{"name": "/p/a", "bytes": 1, "hash": "x", "last_modified": "2026-11-29T07:46:01.000000"}]"#,
        ))
    };
    let cases: [(Answer, Answer, Check); 7] = [
        (swifts(Answer::new(404, "")), empty(), absent),
        (Answer::new(404, "<h1>nginx</h1>"), empty(), absent),
        (Answer::new(404, "<h1>nginx</h1>"), listed(), unavailable),
        (
            Answer::new(404, "<h1>nginx</h1>"),
            Answer::new(404, "nginx"),
            unavailable,
        ),
        (
            swifts(Answer::new(404, "")),
            swifts(Answer::new(404, "")),
            gone,
        ),
        (swifts(Answer::new(403, "")), empty(), denied),
        (Answer::new(403, ""), empty(), denied),
    ];
    for (n, (object, container, expected)) in cases.into_iter().enumerate() {
        let (_server, store) = store(move |seen| match seen.path.as_str() {
            "/v1/AUTH_a/c" => container.clone(),
            _ => object.clone(),
        });
        let found = store.head(&key()).await;
        assert!(expected(&found), "case {n}: {found:?}");
        let opened = store.get(&key()).await.map(|object| Some(object.meta));
        let opened = match opened {
            Err(StoreError::NotFound { .. }) => Ok(None),
            other => other,
        };
        assert!(expected(&opened), "case {n}: {opened:?}");
    }
}

#[tokio::test]
async fn fault_66_success_without_a_digest_is_looked_at() {
    // A portal answers in place of the store.
    let portal = || Answer::new(200, "<html>log in</html>");
    let (_server, store) = store(move |seen| match seen.method.as_str() {
        "PUT" => portal(),
        "HEAD" => swifts(Answer::new(404, "")),
        _ => swifts(Answer::new(200, "[]")),
    });
    for is_new in [true, false] {
        let body = body_from(Bytes::from_static(b"x"));
        let error = if is_new {
            store.put_if_absent(&key(), body).await.map(drop)
        } else {
            store.put(&key(), body).await.map(drop)
        };
        let error = error.expect_err("nothing was stored");
        assert!(error.is_transient(), "{error:?}");
    }
}

#[tokio::test]
async fn fault_29_a_server_without_conditions_is_looked_at_before_and_after() {
    let mark = Arc::new(std::sync::Mutex::new(None::<String>));
    let kept = Arc::clone(&mark);
    let (server, store) = store(move |seen| {
        let mut mark = kept.lock().expect("not poisoned");
        match (seen.method.as_str(), seen.header("if-none-match"), &*mark) {
            ("PUT", Some(_), _) => swifts(Answer::new(501, "")),
            ("PUT", None, _) => {
                *mark = seen.header("x-object-meta-wale-upload").map(str::to_owned);
                let etag = seen.header("etag").unwrap_or_default();
                swifts(Answer::new(201, "")).header("Etag", etag)
            }
            ("HEAD", _, Some(mark)) => swifts(Answer::new(200, "x"))
                .header("Last-Modified", "Sun, 29 Nov 2026 07:46:02 GMT")
                .header("Etag", "9dd4e461268c8034f5c8564e155c67a6")
                .header("X-Object-Meta-Wale-Upload", mark),
            ("HEAD", _, None) => swifts(Answer::new(404, "")),
            _ => swifts(Answer::new(200, "[]")),
        }
    });
    let outcome = store
        .put_if_absent(&key(), body_from(Bytes::from_static(b"x")))
        .await;
    let outcome = outcome.expect("stored");
    assert!(matches!(outcome, PutOutcome::Created(_)), "{outcome:?}");
    let asked: Vec<String> = server
        .requests()
        .iter()
        .filter(|seen| seen.path.ends_with("//p/a"))
        .map(|seen| {
            format!(
                "{} {}",
                seen.method,
                seen.header("if-none-match").unwrap_or("-")
            )
        })
        .collect();
    assert_eq!(asked, ["HEAD -", "PUT *", "HEAD -", "PUT -", "HEAD -"]);
}

#[tokio::test]
async fn a_deletion_of_several_is_believed_only_with_a_count() {
    // A server that takes the request for something else says that all is well.
    let (server, store) = store(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", _) => swifts(Answer::new(200, "[]")),
        _ => swifts(Answer::new(204, "")),
    });
    let keys = ["a", "b", "c"].map(|name| ObjectKey::new(name).expect("valid"));
    let failed = store.delete_many(&keys).await;
    assert!(failed.is_empty(), "{failed:?}");
    let asked = server.requests();
    let singly = asked.iter().filter(|seen| seen.method == "DELETE").count();
    assert_eq!(singly, 3, "each by itself");

    let (_server, store) = self::store(|seen| match seen.method.as_str() {
        "GET" => swifts(Answer::new(200, "[]")),
        _ => swifts(Answer::new(
            200,
            r#"{"Response Status": "400 Bad Request", "Response Body": "", "Number Deleted": 2, "Number Not Found": 0,
            "Errors": [["c//p/b", "403 Forbidden"]]}"#,
        )),
    });
    let failed = store.delete_many(&keys).await;
    let names: Vec<&str> = failed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(names, ["b"]);
    assert!(matches!(failed[0].1, StoreError::PermissionDenied { .. }));
}

#[tokio::test]
async fn an_archive_under_the_other_spelling_of_its_names_is_no_empty_one() {
    let entry = r#"[{"name": "p/basebackups_005/x", "bytes": 1, "last_modified": "2026-11-29T07:46:01.000000"}]"#;
    let answers = move |seen: &Seen| {
        if seen.method == "HEAD" {
            swifts(Answer::new(404, ""))
        } else if seen.query.contains("prefix=p%2F") {
            swifts(Answer::new(200, entry))
        } else {
            swifts(Answer::new(200, "[]"))
        }
    };
    let (server, store) = store(answers);
    let listed = store.list("wal_005/").await.map(drop);
    let looked = store.head(&key()).await.map(drop);
    for asked in [listed, looked] {
        let error = asked.expect_err("it is WAL-G's");
        let problem = Misconfiguration::OtherNames;
        assert!(
            matches!(&error, StoreError::Misconfigured { problem: p, .. } if *p == problem),
            "{error:?}"
        );
    }
    let certain = SwiftOptions {
        spelling_is_certain: true,
        ..options(server.port(), "/p/")
    };
    let store = SwiftStore::open(&certain).expect("good");
    let listed = store.list("wal_005/").await.map(drop);
    listed.expect("somebody has said so");
}
