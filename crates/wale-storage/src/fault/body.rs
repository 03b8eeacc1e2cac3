//! Bodies that end early or arrive garbled.

use std::num::NonZeroU64;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};

type Chunks<E> = BoxStream<'static, Result<Bytes, E>>;

/// The first `bytes` bytes; where there are more, then `end`, or nothing as if that had been all.
pub(super) fn limited<E: Send + 'static>(body: Chunks<E>, bytes: u64, end: Option<E>) -> Chunks<E> {
    struct Limit<E> {
        body: Chunks<E>,
        left: u64,
        end: Option<E>,
        over: bool,
    }
    let start = Limit {
        body,
        left: bytes,
        end,
        over: false,
    };
    stream::unfold(start, |mut limit| async {
        if limit.over {
            return limit.end.take().map(|error| (Err(error), limit));
        }
        match limit.body.next().await? {
            Ok(mut chunk) => {
                let length = chunk.len() as u64;
                if length > limit.left {
                    limit.over = true;
                    chunk.truncate(usize::try_from(limit.left).expect("less than a chunk"));
                }
                limit.left -= chunk.len() as u64;
                Some((Ok(chunk), limit))
            }
            Err(error) => {
                (limit.over, limit.end) = (true, None);
                Some((Err(error), limit))
            }
        }
    })
    .boxed()
}

/// The same pieces, each of which takes its time at so many bytes a second.
pub(super) fn paced<E: Send + 'static>(body: Chunks<E>, rate: NonZeroU64) -> Chunks<E> {
    body.then(move |piece| async move {
        if let Ok(piece) = &piece {
            let nanoseconds = piece.len() as u64 * 1_000_000_000 / rate;
            tokio::time::sleep(Duration::from_nanos(nanoseconds)).await;
        }
        piece
    })
    .boxed()
}

/// The same bytes with one bit of the byte at `position` turned over. A shorter body stays as it is.
pub(super) fn corrupted<E: Send + 'static>(body: Chunks<E>, position: u64) -> Chunks<E> {
    let mut start = 0;
    body.map_ok(move |chunk: Bytes| {
        let index = position.wrapping_sub(start);
        start += chunk.len() as u64;
        match usize::try_from(index) {
            Ok(index) if index < chunk.len() => {
                let mut garbled = BytesMut::from(&chunk[..]);
                garbled[index] ^= 1;
                garbled.freeze()
            }
            _ => chunk,
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body() -> Chunks<&'static str> {
        let chunks = ["abc", "", "def"].map(|text| Ok(Bytes::from_static(text.as_bytes())));
        stream::iter(chunks).boxed()
    }

    async fn text(mut body: Chunks<&'static str>) -> (String, Option<&'static str>) {
        let mut text = String::new();
        while let Some(item) = body.next().await {
            match item {
                Ok(chunk) => text.push_str(str::from_utf8(&chunk).expect("text")),
                Err(error) => {
                    assert!(body.next().await.is_none(), "nothing follows an error");
                    return (text, Some(error));
                }
            }
        }
        (text, None)
    }

    #[tokio::test]
    async fn limits() {
        for bytes in 0..6 {
            let expected = "abcdef"[..bytes].to_owned();
            let bytes = bytes as u64;
            let cut = text(limited(body(), bytes, Some("cut"))).await;
            assert_eq!(cut, (expected.clone(), Some("cut")));
            assert_eq!(text(limited(body(), bytes, None)).await, (expected, None));
        }
        let whole = text(limited(body(), 6, Some("cut"))).await;
        assert_eq!(whole, ("abcdef".to_owned(), None));
    }

    #[tokio::test]
    async fn garbles_one_byte() {
        for (position, expected) in [
            (0, "`bcdef"),
            (2, "abbdef"),
            (3, "abceef"),
            (5, "abcdeg"),
            (6, "abcdef"),
        ] {
            assert_eq!(text(corrupted(body(), position)).await.0, expected);
        }
    }
}
