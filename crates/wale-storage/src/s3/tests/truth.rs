//! Success that is none, and refusals that are told by their codes: rows 66, 69, 98, 112 to 115 of the fault battery.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// A body of two parts.
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

/// An object of ours, as a check sees it.
fn ours(seen: &Mutex<Option<String>>, bytes: usize) -> Reply {
    match seen.lock().expect("not poisoned").clone() {
        None => answer(404),
        Some(mark) => {
            let mut headers = object("e");
            headers.push((headers::MARK_HEADER, mark));
            Reply::Answer(200, headers, vec![0; bytes])
        }
    }
}

/// A store of which an object is created by the first of its answers, and whose answers have no `ETag`.
async fn put_without_etag(keeps: bool) -> (Server, Result<PutOutcome, StoreError>) {
    let kept = Mutex::new(None);
    let server = Server::of_store(move |seen| match seen.method.as_str() {
        "PUT" => {
            if keeps {
                *kept.lock().expect("not poisoned") = seen.header(headers::MARK_HEADER);
            }
            answer(200)
        }
        _ => ours(&kept, 4),
    });
    let retry = RetryPolicy {
        attempts_max: 3,
        ..server.options().retry
    };
    let store = S3Store::open(&S3Options {
        retry,
        ..server.options()
    });
    let store = store.expect("opens");
    let outcome = store.put_if_absent(&key(), body("text")).await;
    (server, outcome)
}

#[tokio::test]
async fn fault_66_a_success_without_an_etag_is_looked_at() {
    let (server, outcome) = put_without_etag(false).await;
    let error = outcome.expect_err("nothing was stored");
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("is not there"), "{error}");
    let puts = server.asked();
    let puts = puts.iter().filter(|asked| asked.starts_with("PUT"));
    assert_eq!(puts.count(), 3, "it is tried again");
    let (_, outcome) = put_without_etag(true).await;
    assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
}

#[tokio::test]
async fn fault_66_what_is_replaced_is_looked_at_too() {
    let server = Server::of_store(|seen| match seen.method.as_str() {
        "PUT" => answer(200),
        // The object of before.
        _ => Reply::Answer(200, object("former"), b"text".to_vec()),
    });
    let retry = RetryPolicy {
        attempts_max: 2,
        ..server.options().retry
    };
    let options = S3Options {
        retry,
        ..server.options()
    };
    let store = S3Store::open(&options).expect("opens");
    let error = store.put(&key(), body("text")).await.expect_err("former");
    assert!(error.is_transient(), "{error:?}");
}

/// A server that loses its answer to the first end of an upload, and says 200 to the second. `assembles` says which of
/// them leaves an object, if any.
async fn ended_twice(assembles: Option<usize>) -> Result<PutOutcome, StoreError> {
    let (kept, begun_with, ends) = (Mutex::new(None), Mutex::new(None), Mutex::new(0));
    let server = Server::of_store(move |seen| match seen.method.as_str() {
        "POST" if seen.target.ends_with("?uploads=") => {
            *begun_with.lock().expect("not poisoned") = seen.header(headers::MARK_HEADER);
            Reply::Answer(200, Vec::new(), begun())
        }
        "POST" => {
            let mut ends = ends.lock().expect("not poisoned");
            *ends += 1;
            if assembles == Some(*ends) {
                let mark = begun_with.lock().expect("not poisoned").clone();
                *kept.lock().expect("not poisoned") = mark;
            }
            match *ends {
                1 => Reply::Close,
                _ => Reply::Answer(200, Vec::new(), assembled()),
            }
        }
        "PUT" => stored(),
        "DELETE" => answer(204),
        _ => ours(&kept, 6 << 20),
    });
    server.store().put_if_absent(&key(), large()).await
}

#[tokio::test]
async fn fault_113_the_success_of_an_end_is_looked_at() {
    let error = ended_twice(None).await.expect_err("nothing is there");
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("is not there"), "{error}");
    // Of an upload whose own end was not lost, too.
    let keeps = keeps_uploads();
    let server = Server::of_store(move |seen| match (seen.method.as_str(), keeps(seen)) {
        ("HEAD", _) => answer(404),
        (_, reply) => reply,
    });
    let outcome = server.store().put_if_absent(&key(), large()).await;
    assert!(outcome.expect_err("nothing is there").is_transient());
    for assembles in [1, 2] {
        let outcome = ended_twice(Some(assembles)).await;
        assert!(
            matches!(&outcome, Ok(PutOutcome::Created(meta)) if meta.size == 6 << 20),
            "{assembles}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn fault_112_a_request_without_a_body_tells_its_length() {
    let server = Server::of_store(keeps_uploads());
    let outcome = server.store().put_if_absent(&key(), large()).await;
    assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
    let mut empty = 0;
    for seen in server.seen() {
        if seen.method == "PUT" || seen.method == "POST" {
            let length = seen.header("content-length");
            assert!(length.is_some(), "{} {}", seen.method, seen.target);
            empty += usize::from(length.as_deref() == Some("0"));
        }
    }
    assert!(empty >= 2, "beginnings have no body");
}

/// A store that carries out so many of the conditional writes of one name.
fn lax(puts: usize, ends: usize) -> Server {
    let written = Mutex::new((0, 0));
    Server::start(move |seen| {
        let mut written = written.lock().expect("not poisoned");
        let is_conditional = seen.header("if-none-match").is_some();
        match seen.method.as_str() {
            "GET" => bucket(),
            "DELETE" => answer(204),
            "HEAD" => answer(404),
            "POST" if seen.target.ends_with("?uploads=") => Reply::Answer(200, Vec::new(), begun()),
            "POST" => {
                written.1 += 1;
                if written.1 > ends {
                    return refusal(412, "PreconditionFailed");
                }
                Reply::Answer(200, Vec::new(), assembled())
            }
            "PUT" if is_conditional => {
                written.0 += 1;
                if written.0 > puts {
                    return refusal(412, "PreconditionFailed");
                }
                answer(200)
            }
            _ if seen.header("x-amz-checksum-crc32c").as_deref() == Some("AAAAAA==") => {
                refusal(400, "BadDigest")
            }
            _ => stored(),
        }
    })
}

#[tokio::test]
async fn fault_69_a_condition_that_holds_in_sequence_only_is_no_guard() {
    // One writer creates; two do, because both have looked before; all do.
    for (puts, is_kept) in [(1, true), (2, false), (4, false), (usize::MAX, false)] {
        let guarded = is_guarded(&lax(puts, 1).store(), Way::AtOnce).await;
        assert_eq!(guarded.expect("asked"), is_kept, "{puts}");
    }
}

#[tokio::test]
async fn fault_114_the_end_of_an_upload_is_tried_for_itself() {
    for (ends, is_kept) in [(1, true), (2, false), (usize::MAX, false), (0, false)] {
        let guarded = is_guarded(&lax(1, ends).store(), Way::InParts).await;
        assert_eq!(guarded.expect("asked"), is_kept, "{ends}");
    }
}

#[tokio::test]
async fn fault_115_a_wrong_sum_may_be_refused_by_any_code() {
    for (status, code) in [(400, "BadRequest"), (400, "InvalidRequest"), (400, "")] {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "GET" => bucket(),
            "DELETE" => answer(204),
            _ if seen.header("x-amz-checksum-crc32c").as_deref() == Some("AAAAAA==") => {
                refusal(status, code)
            }
            _ => stored(),
        });
        let meta = server.store().put(&key(), body("text")).await;
        assert_eq!(meta.expect("it is taken").size, 4, "{code}");
        let left = server.seen();
        let left = left.iter().filter(|seen| seen.method == "DELETE");
        assert_eq!(left.count(), 1, "the trial is discarded");
    }
}

#[tokio::test]
async fn fault_98_a_store_that_refuses_checksums_names_the_setting() {
    for (status, code) in [(400, "InvalidArgument"), (501, "NotImplemented"), (400, "")] {
        let server = Server::start(move |seen| match seen.method.as_str() {
            "GET" => bucket(),
            "HEAD" => answer(404),
            "DELETE" => answer(204),
            _ if seen.header("x-amz-checksum-crc32c").is_some() => refusal(status, code),
            _ => stored(),
        });
        let error = server.store().put(&key(), body("text")).await;
        let error = error.expect_err("it is refused");
        assert_eq!(problem(&error), Some(Misconfiguration::UnknownChecksum));
        let hint = error.hint().expect("there is another");
        assert!(hint.contains("MD5"), "{hint}");
        // One that refuses every write is reported as what it says.
        let server = Server::start(move |seen| match seen.method.as_str() {
            "GET" => bucket(),
            "DELETE" => answer(204),
            _ => refusal(400, "AccessDenied"),
        });
        let error = server.store().put(&key(), body("text")).await;
        let error = error.expect_err("it is refused");
        assert!(
            matches!(error, StoreError::PermissionDenied { .. }),
            "{error:?}"
        );
        assert!(
            error
                .hint()
                .expect("there is a page")
                .contains("credentials")
        );
    }
}

#[tokio::test]
async fn fault_115_another_root_begins_an_upload_and_no_upload_is_no_error() {
    let keeps = keeps_uploads();
    let server = Server::of_store(move |seen| match (seen.method.as_str(), keeps(seen)) {
        ("GET", _) => refusal(404, "NoSuchUpload"),
        ("POST", _) if seen.target.ends_with("?uploads=") => {
            let text = "<InitiateMultipartUpload><UploadId>u</UploadId></InitiateMultipartUpload>";
            Reply::Answer(200, Vec::new(), text.into())
        }
        (_, reply) => reply,
    });
    let store = server.store();
    let outcome = store.put_if_absent(&key(), large()).await;
    assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
    let discarded = store
        .discard_stale_uploads(Duration::from_secs(1), |_| true)
        .await;
    assert_eq!(discarded.expect("there is none"), 0);
}

#[tokio::test]
async fn fault_115_a_404_of_something_else_is_no_missing_bucket() {
    let server = Server::start(|_| refusal(404, "XAdminUserNotFound"));
    let error = server.store().check().await.expect_err("refused");
    assert_eq!(problem(&error), Some(Misconfiguration::UnknownAccessKey));
    let server = Server::start(|_| refusal(404, "NoSuchThing"));
    let error = server.store().check().await.expect_err("refused");
    assert_eq!(problem(&error), None, "{error:?}");
    let source = std::error::Error::source(&error).expect("a cause");
    assert!(source.to_string().contains("NoSuchThing"), "{source}");
}

#[tokio::test]
async fn a_listing_whose_token_stays_or_that_never_ends_is_told() {
    for with_entries in [false, true] {
        let pages = Mutex::new(0);
        let server = Server::start(move |_| {
            let mut pages = pages.lock().expect("not poisoned");
            *pages += 1;
            let entry = if with_entries {
                format!(
                    "<Contents><Key>k{pages:09}</Key><Size>1</Size><LastModified>2026-11-23T10:00:00Z</LastModified>\
                     </Contents>"
                )
            } else {
                String::new()
            };
            let text = format!(
                "<ListBucketResult><IsTruncated>true</IsTruncated>{entry}\
                 <NextContinuationToken>t</NextContinuationToken></ListBucketResult>"
            );
            Reply::Answer(200, Vec::new(), text.into_bytes())
        });
        let entries = server.store().list("").await.expect("it begins");
        let listed: Result<Vec<_>, _> = entries.try_collect().await;
        let error = listed.expect_err("it does not go on");
        assert!(error.to_string().contains("does not go on"), "{error}");
        assert_eq!(server.asked().len(), 2);
    }
}

/// A server that answers the first bytes that come, whatever they are.
async fn answers_at_once(reply: &'static [u8]) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("binds");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 1024];
            let _ = stream.read(&mut first).await;
            let _ = stream.write_all(reply).await;
        }
    });
    port
}

#[tokio::test]
async fn fault_101_the_wrong_one_of_http_and_https_is_told() {
    let server = Server::start(|_| bucket());
    let ask = |port: u16, secure| {
        let endpoint = S3Endpoint {
            secure,
            authority: format!("127.0.0.1:{port}"),
            path: String::new(),
            addressing: Addressing::Path,
        };
        let options = S3Options {
            endpoint: Some(endpoint),
            ..server.options()
        };
        let store = S3Store::open(&options).expect("opens");
        async move { store.check().await.expect_err("it does not answer") }
    };
    let plain = answers_at_once(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    let error = ask(plain, true).await;
    assert_eq!(problem(&error), Some(Misconfiguration::OtherProtocol));
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let told = answers_at_once(
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 48\r\n\r\n\
          Client sent an HTTP request to an HTTPS server.\n",
    )
    .await;
    let error = ask(told, false).await;
    assert_eq!(problem(&error), Some(Misconfiguration::OtherProtocol));
    // The alert of a server that says nothing in words: unexpected message, fatal.
    let error = ask(answers_at_once(&[21, 3, 1, 0, 2, 2, 10]).await, false).await;
    assert!(error.to_string().contains("https"), "{error}");
}
