//! Success that is none, replies that are lost, stores that do not keep what Azure promises: rows 25, 27, 30, 66, 69, 113
//! and 114 of the fault battery.

use super::*;

/// A store in which an object appears with its PUT, whose first reply is lost; `others` takes the name before that.
async fn lost_reply(others: bool) -> Result<PutOutcome, StoreError> {
    let kept = Mutex::new(None::<String>);
    let server = of_store(move |seen| {
        let mut kept = kept.lock().expect("not poisoned");
        match (seen.method.as_str(), kept.clone()) {
            ("PUT", None) => {
                let mark = seen.header(MARK_HEADER).expect("every object is marked");
                *kept = Some(if others { "another".into() } else { mark });
                Reply::Close
            }
            ("PUT", Some(_)) => refusal(409, "BlobAlreadyExists"),
            (_, mark) => marked(mark, 4),
        }
    });
    let outcome = store(&server).put_if_absent(&key(), body("text")).await;
    let asked = server.asked();
    let puts = asked.iter().filter(|asked| asked.starts_with("PUT"));
    assert_eq!(puts.count(), 2);
    outcome
}

#[tokio::test]
async fn row_25_the_mark_says_whose_object_is_there() {
    let outcome = lost_reply(false).await.expect("the object is there");
    assert!(matches!(outcome, PutOutcome::Created(meta) if meta.size == 4));
    let outcome = lost_reply(true).await.expect("an object is there");
    assert_eq!(outcome, PutOutcome::Exists);
}

/// What becomes of the first list of blocks, whose reply is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It makes the object.
    Made,
    /// Another writer's object is there, and the blocks are gone.
    Anothers,
    /// Nothing is there, and the blocks are gone.
    Nothing,
}

/// An upload in blocks, of which the first list's reply is lost. The list is refused from then on: with Azure's answer to
/// a list whose blocks are gone, or to one whose name is taken.
async fn lost_list(
    fate: Fate,
    refused_with: &'static str,
    replaces: bool,
) -> Result<(), StoreError> {
    let (kept, lists) = (Mutex::new(None::<String>), Mutex::new(0));
    let server = of_store(move |seen| {
        let mut kept = kept.lock().expect("not poisoned");
        match seen.method.as_str() {
            "PUT" if seen.target.contains("blockid=") => block(),
            "PUT" => {
                assert!(seen.target.ends_with("comp=blocklist"), "{}", seen.target);
                let condition = seen.header("if-none-match");
                assert_eq!(condition.as_deref(), (!replaces).then_some("*"));
                let mut lists = lists.lock().expect("not poisoned");
                *lists += 1;
                if *lists > 1 {
                    return refusal(
                        if refused_with == "InvalidBlockList" {
                            400
                        } else {
                            409
                        },
                        refused_with,
                    );
                }
                *kept = match fate {
                    Fate::Made => seen.header(MARK_HEADER),
                    Fate::Anothers => Some("another".to_owned()),
                    Fate::Nothing => None,
                };
                Reply::Close
            }
            _ => marked(kept.clone(), 6 << 20),
        }
    });
    let store = store(&server);
    if replaces {
        return store
            .put(&key(), large())
            .await
            .map(|meta| assert_eq!(meta.size, 6 << 20));
    }
    match store.put_if_absent(&key(), large()).await? {
        PutOutcome::Created(meta) => assert_eq!(meta.size, 6 << 20),
        PutOutcome::Exists => {
            let reason = "exists";
            return Err(StoreError::unavailable("", reason));
        }
    }
    Ok(())
}

#[tokio::test]
async fn row_25_a_list_whose_reply_is_lost_is_made_good() {
    for refused_with in ["InvalidBlockList", "BlobAlreadyExists"] {
        let outcome = lost_list(Fate::Made, refused_with, false).await;
        outcome.expect("it is ours");
        let outcome = lost_list(Fate::Anothers, refused_with, false).await;
        let error = outcome.expect_err("it is another's");
        assert!(error.to_string().contains("exists"), "{error}");
    }
    let error = lost_list(Fate::Nothing, "InvalidBlockList", false).await;
    assert!(error.expect_err("nothing is there").is_transient());
    lost_list(Fate::Made, "InvalidBlockList", true)
        .await
        .expect("it replaced the former");
    let error = lost_list(Fate::Anothers, "InvalidBlockList", true).await;
    assert!(error.expect_err("another's replaced ours").is_transient());
}

#[tokio::test]
async fn row_30_a_faster_writer_takes_the_blocks_along() {
    let server = of_store(|seen| match seen.method.as_str() {
        "PUT" if seen.target.contains("blockid=") => block(),
        "PUT" => refusal(400, "InvalidBlockList"),
        "HEAD" if seen.target.contains("/taken") => marked(Some("another".to_owned()), 1),
        _ => marked(None, 0),
    });
    // The look before the upload finds nothing; the one after it does.
    let looked = Mutex::new(false);
    let racing = of_store(move |seen| match seen.method.as_str() {
        "PUT" if seen.target.contains("blockid=") => block(),
        "PUT" => refusal(400, "InvalidBlockList"),
        _ if std::mem::replace(&mut *looked.lock().expect("not poisoned"), true) => {
            marked(Some("another".to_owned()), 1)
        }
        _ => marked(None, 0),
    });
    let outcome = store(&racing).put_if_absent(&key(), large()).await;
    assert_eq!(outcome.expect("another's is there"), PutOutcome::Exists);
    let error = store(&server).put_if_absent(&key(), large()).await;
    let error = error.expect_err("nothing is there");
    assert!(error.to_string().contains("discarded meanwhile"), "{error}");
}

#[tokio::test]
async fn fault_66_a_success_without_an_etag_is_looked_at() {
    for keeps in [false, true] {
        let kept = Mutex::new(None);
        let server = of_store(move |seen| match seen.method.as_str() {
            "PUT" => {
                if keeps {
                    *kept.lock().expect("not poisoned") = seen.header(MARK_HEADER);
                }
                answer(200)
            }
            _ => marked(kept.lock().expect("not poisoned").clone(), 4),
        });
        let outcome = impatient(&server, 3)
            .put_if_absent(&key(), body("text"))
            .await;
        if keeps {
            assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
            continue;
        }
        let error = outcome.expect_err("nothing was stored");
        assert!(error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("is not there"), "{error}");
        let asked = server.asked();
        let puts = asked.iter().filter(|asked| asked.starts_with("PUT"));
        assert_eq!(puts.count(), 3, "it is tried again");
    }
}

#[tokio::test]
async fn fault_113_the_success_of_a_list_is_looked_at() {
    let server = of_store(|seen| match seen.method.as_str() {
        "PUT" if seen.target.contains("blockid=") => block(),
        "PUT" => stored(),
        _ => marked(None, 0),
    });
    let outcome = store(&server).put_if_absent(&key(), large()).await;
    let error = outcome.expect_err("nothing is there");
    assert!(error.is_transient(), "{error:?}");
    assert!(error.to_string().contains("is not there"), "{error}");
    // A block that somebody else says was taken is none.
    let server = of_store(|seen| match seen.method.as_str() {
        "PUT" => answer(201),
        _ => marked(None, 0),
    });
    let outcome = impatient(&server, 2).put_if_absent(&key(), large()).await;
    let error = outcome.expect_err("a portal");
    assert!(error.to_string().contains("not a store's"), "{error}");
}

#[tokio::test]
async fn row_27_a_sum_that_differs_is_no_success() {
    let answers = Mutex::new(1);
    let server = of_store(move |seen| match seen.method.as_str() {
        "PUT" => {
            let mut headers = object("e");
            let is_wrong = std::mem::take(&mut *answers.lock().expect("not poisoned")) == 1;
            let right = seen.header("content-md5").expect("it goes along");
            let wrong = "AAAAAAAAAAAAAAAAAAAAAA==".to_owned();
            headers.push(("content-md5", if is_wrong { wrong } else { right }));
            Reply::Answer(201, headers, Vec::new())
        }
        _ => marked(None, 0),
    });
    let meta = store(&server).put(&key(), body("text")).await;
    assert_eq!(meta.expect("the second time").size, 4);
    assert_eq!(server.asked(), ["PUT /acc/c/k", "PUT /acc/c/k"]);
}

#[tokio::test]
async fn row_27_a_store_that_compares_no_sums_is_read_back() {
    /// A store that changes a byte of the first write that is no trial.
    fn careless() -> Server {
        type Kept = std::collections::HashMap<String, (String, Vec<u8>)>;
        let state = Mutex::new((Kept::new(), 1));
        Server::start(move |seen| {
            let (kept, garbles) = &mut *state.lock().expect("not poisoned");
            let name = path(seen);
            match seen.method.as_str() {
                "PUT" => {
                    if seen.header("if-none-match").is_some() && kept.contains_key(&name) {
                        return refusal(409, "BlobAlreadyExists");
                    }
                    let mark = seen.header(MARK_HEADER).unwrap_or_default();
                    let mut body = seen.body.clone();
                    if !seen.is_probe() && std::mem::take(garbles) == 1 {
                        body[0] ^= 1;
                    }
                    kept.insert(name, (mark, body));
                    stored()
                }
                "DELETE" => {
                    kept.remove(&name);
                    answer(202)
                }
                _ => match kept.get(&name) {
                    None => refusal(404, "BlobNotFound"),
                    Some((mark, body)) => {
                        let mut headers = object("e");
                        headers.push((MARK_HEADER, mark.clone()));
                        Reply::Answer(200, headers, body.clone())
                    }
                },
            }
        })
    }
    let server = careless();
    let store = store(&server);
    let outcome = store.put_if_absent(&key(), body("text")).await;
    assert!(matches!(outcome, Ok(PutOutcome::Created(_))), "{outcome:?}");
    let read = read_all(&store, &key(), 100).await.expect("reads");
    assert_eq!(read, "text");
    let asked = server.asked();
    let deleted = asked.iter().any(|asked| asked.starts_with("DELETE"));
    assert!(deleted, "the garbled one went before the next: {asked:?}");
}

/// A store that carries out so many of the conditional writes, and of the conditional lists, of one name.
fn lax(puts: usize, lists: usize) -> Server {
    let written = Mutex::new((0, 0));
    Server::start(move |seen| {
        let mut written = written.lock().expect("not poisoned");
        let is_list = seen.target.contains("comp=blocklist");
        match seen.method.as_str() {
            "DELETE" => answer(202),
            "PUT" if seen.target.contains("blockid=") => block(),
            "PUT" if seen.header("if-none-match").is_some() => {
                let (count, most) = if is_list {
                    (&mut written.1, lists)
                } else {
                    (&mut written.0, puts)
                };
                *count += 1;
                if *count > most {
                    refusal(409, "BlobAlreadyExists")
                } else {
                    stored()
                }
            }
            _ => refusal(400, "Md5Mismatch"),
        }
    })
}

#[tokio::test]
async fn fault_69_and_114_conditions_are_tried_for_each_kind_of_write() {
    for (most, is_kept) in [(1, true), (2, false), (4, false), (usize::MAX, false)] {
        let guarded = is_guarded(&store(&lax(most, 1)), Way::AtOnce).await;
        assert_eq!(guarded.expect("asked"), is_kept, "{most} writes");
        let guarded = is_guarded(&store(&lax(1, most)), Way::InParts).await;
        assert_eq!(guarded.expect("asked"), is_kept, "{most} lists");
    }
}

#[tokio::test]
async fn row_30_a_store_that_ignores_conditions_is_looked_at_before_and_after() {
    let kept = Mutex::new(std::collections::HashMap::new());
    let server = Server::start(move |seen| {
        let mut kept = kept.lock().expect("not poisoned");
        let name = path(seen);
        match seen.method.as_str() {
            _ if seen.header("content-md5").as_deref() == Some("AAAAAAAAAAAAAAAAAAAAAA==") => {
                refusal(400, "Md5Mismatch")
            }
            "PUT" => {
                kept.insert(name, seen.header(MARK_HEADER).unwrap_or_default());
                stored()
            }
            "DELETE" => {
                kept.remove(&name);
                answer(202)
            }
            _ => marked(kept.get(&name).cloned(), 1),
        }
    });
    let store = store(&server);
    let writers = (0..10).map(|n| {
        let store = store.clone();
        let text: &'static str = ["a", "b"][n % 2];
        async move { store.put_if_absent(&key(), body(text)).await }
    });
    let outcomes = futures_util::future::join_all(writers).await;
    let created = outcomes
        .iter()
        .filter(|outcome| matches!(outcome, Ok(PutOutcome::Created(_))))
        .count();
    assert_eq!(created, 1, "{outcomes:?}");
    let guarded = is_guarded(&store, Way::AtOnce).await;
    assert!(!guarded.expect("known by now"));
    let seen = server.seen();
    let puts = seen
        .iter()
        .filter(|seen| seen.method == "PUT" && !seen.is_probe());
    assert_eq!(puts.count(), 1, "nobody writes over what is there");
}
