//! Row 26: silence has a limit, slowness has none.

use super::*;

/// Just below a part, so that it goes in one request.
const BYTES: usize = (5 << 20) - 1;

fn large() -> Body {
    body_from(Bytes::from(vec![7; BYTES]))
}

fn named(name: &str) -> ObjectKey {
    ObjectKey::new(name).expect("valid")
}

/// A store that gives up early, so that silence is reported soon.
fn impatient(server: &Server) -> S3Store {
    let options = server.options();
    let retry = RetryPolicy {
        attempts_max: 2,
        ..options.retry.clone()
    };
    let options = S3Options { retry, ..options };
    S3Store::open(&options).expect("opens")
}

#[tokio::test]
async fn row_26_a_put_without_an_answer_is_told_and_frees_its_memory() {
    let server = Server::of_store(|seen| match seen.target.as_str() {
        "/b/silent-1" | "/b/silent-2" | "/b/silent-3" => Reply::Silence,
        _ => stored(),
    });
    let store = impatient(&server);
    // Memory is for two bodies.
    let puts = ["silent-1", "silent-2", "silent-3"].map(|name| {
        let store = store.clone();
        async move { store.put(&named(name), body("text")).await }
    });
    let limit = Duration::from_secs(10);
    let outcomes = tokio::time::timeout(limit, futures_util::future::join_all(puts)).await;
    for outcome in outcomes.expect("all are told") {
        let error = outcome.expect_err("nobody answered");
        assert!(error.is_transient(), "{error}");
        assert!(error.to_string().contains("no answer within"), "{error}");
    }
    let puts = ["a", "b"].map(|name| {
        let store = store.clone();
        async move { store.put(&named(name), large()).await }
    });
    let stored = tokio::time::timeout(limit, futures_util::future::try_join_all(puts)).await;
    let stored = stored.expect("there is memory").expect("they are stored");
    assert_eq!(stored.len(), 2);
}

#[tokio::test]
async fn row_26_an_upload_that_nobody_reads_is_told() {
    let server = Server::of_store_at(Pace::Never, |_| stored());
    let store = impatient(&server);
    let limit = Duration::from_secs(10);
    let outcome = tokio::time::timeout(limit, store.put(&key(), large())).await;
    let error = outcome.expect("it is told").expect_err("nobody read it");
    assert!(error.is_transient(), "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
}

#[tokio::test]
async fn row_26_an_upload_that_moves_takes_as_long_as_it_takes() {
    // 80 steps of 64 KiB, with 1.2 s of pauses, four times the limit on silence.
    let pace = Pace::Slow(64 << 10, Duration::from_millis(15));
    let server = Server::of_store_at(pace, |_| stored());
    let start = std::time::Instant::now();
    let meta = impatient(&server).put(&key(), large()).await;
    assert_eq!(meta.expect("it moves").size, BYTES as u64);
    assert!(start.elapsed() > Duration::from_secs(1));
    assert_eq!(server.asked(), ["PUT /b/k"], "at the first attempt");
}

#[tokio::test]
async fn row_26_a_download_that_stalls_is_read_on() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let (whole, size) = (content.clone(), content.len());
    let server = Server::of_store(move |seen| match seen.header("range") {
        None => Reply::Stall(object("e"), whole.clone(), 150_000),
        Some(range) => {
            assert_eq!(range, "bytes=150000-");
            let mut headers = object("e");
            headers.push(("content-range", format!("bytes 150000-{}/{size}", size - 1)));
            Reply::Answer(206, headers, whole[150_000..].to_vec())
        }
    });
    let read = read_all(&server.store(), &key(), 1 << 20).await;
    assert!(read.expect("whole") == content, "it differs");
    assert_eq!(server.asked().len(), 2);
}
