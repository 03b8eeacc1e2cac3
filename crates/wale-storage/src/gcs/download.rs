//! Objects on their way out: how Google is asked for one, and for the rest of one.
//!
//! A connection that breaks is taken up again after the last byte, of the same generation: another object under the name
//! has another. At the end the CRC-32C that the store has of the object is compared with that of the bytes that came.

use std::ops::Range;

use futures_util::FutureExt;
use http::Method;

use super::bucket::{Request, SharedBucket, Target};
use super::resource::crc32c_of;
use crate::http::failure::{Asked, Failure, Meaning, Refusal};
use crate::http::reading::{self, AskAgain, Opening, Version, range_header};
use crate::http::text::moment;
use crate::http::transport::Answer;
use crate::store::cut;
use crate::{Object, ObjectKey, ObjectMeta, RetryPolicy, StoreError};

/// The header that tells an object from another one of its name.
const GENERATION: &str = "x-goog-generation";

/// Opens an object.
pub(super) async fn open(
    bucket: &SharedBucket,
    key: &ObjectKey,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let request = content_of(bucket, key);
    let answer = match bucket.call(&request).await {
        Ok(answer) => answer,
        Err(Failure::Refused(refusal)) if refusal.may_be_absence() && !refusal.is_absence() => {
            bucket.confirm_absence(key).await?;
            return Err(StoreError::NotFound { key: key.clone() });
        }
        Err(failure) => return Err(bucket.error(failure, Asked::Object(key))),
    };
    let opening = opening(bucket, key, &answer).await;
    let opening = opening.map_err(|failure| bucket.error(failure, Asked::Object(key)))?;
    let rest = rest(bucket, key, None);
    Ok(reading::opened(
        opening,
        answer,
        bucket.location(),
        retry,
        rest,
    ))
}

/// Opens these bytes of an object.
pub(super) async fn open_range(
    bucket: &SharedBucket,
    key: &ObjectKey,
    range: Range<u64>,
    retry: &RetryPolicy,
) -> Result<Object, StoreError> {
    let wanted = range_header(range.start, Some(range.end));
    let request = content_of(bucket, key).header("range", &wanted);
    let answer = bucket.call(&request).await;
    let told = answer.ok().and_then(|answer| {
        let generation = answer.header(GENERATION)?.to_owned();
        Some((answer, generation))
    });
    // What is wrong, the question for the whole finds out; and a server that does not say which object it sends cannot be asked on.
    let Some((answer, generation)) = told else {
        return cut(open(bucket, key, retry).await?, range);
    };
    let version = Version {
        header: GENERATION,
        text: Some(generation),
        is_asked_for: true,
    };
    let rest = rest(bucket, key, Some(range.end));
    let place = (bucket.location(), retry);
    reading::range((key, range), answer, version, place, rest)
        .map_err(|failure| bucket.error(failure, Asked::Object(key)))
}

/// The question for the rest of an object, up to `end` where there is one. It is for one generation: that this one is gone is a condition that does not
/// hold.
fn rest(bucket: &SharedBucket, key: &ObjectKey, end: Option<u64>) -> AskAgain {
    let (bucket, key) = (bucket.clone(), key.clone());
    Box::new(move |at, generation| {
        let (bucket, key) = (bucket.clone(), key.clone());
        async move {
            let generation = generation.unwrap_or_default();
            let request = content_of(&bucket, &key)
                .query(&[("generation", &generation)])
                .header("range", &range_header(at, end));
            match bucket.call(&request).await {
                Err(Failure::Refused(refusal)) if refusal.may_be_absence() => {
                    let meaning = Meaning::Exists;
                    Err(Failure::Refused(Refusal { meaning, ..refusal }))
                }
                other => other,
            }
        }
        .boxed()
    })
}

fn content_of<'a>(bucket: &'a SharedBucket, key: &'a ObjectKey) -> Request<'a> {
    Request::new(Method::GET, Target::Object(key))
        .query(&[("alt", "media")])
        .headers(bucket.customer_key())
}

/// What the headers of an answer say of an object. What they leave out is in its record.
async fn opening(
    bucket: &SharedBucket,
    key: &ObjectKey,
    answer: &Answer,
) -> Result<Opening, Failure> {
    let size = answer.header("content-length");
    let Some(size) = size.and_then(|text| text.parse().ok()) else {
        return Err(Failure::Nonsense("an object without a length".to_owned()));
    };
    let modified = moment(answer.header("last-modified"));
    let told = answer.header(GENERATION).map(str::to_owned);
    let (meta, generation) = match (modified, told) {
        (Some(modified), Some(generation)) => {
            let key = key.clone();
            let meta = ObjectMeta {
                key,
                size,
                modified,
            };
            (meta, generation)
        }
        (_, told) => {
            let record = bucket.record(key).await?;
            let meta = record.meta(key);
            match record.generation {
                Some(found) if told.is_none_or(|told| told == found) && meta.size == size => {
                    (meta, found)
                }
                _ => {
                    let reason = "an object whose record is another's";
                    return Err(Failure::Nonsense(reason.to_owned()));
                }
            }
        }
    };
    Ok(Opening {
        meta,
        version: Version {
            header: GENERATION,
            text: Some(generation),
            is_asked_for: true,
        },
        sum: sum_of(answer),
    })
}

/// The CRC-32C of the stored bytes, where they are sent as they are stored.
fn sum_of(answer: &Answer) -> Option<[u8; 4]> {
    let encoding = answer.header("x-goog-stored-content-encoding");
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return None;
    }
    // Google sends a header for each sum, or one with all of them.
    let sums = answer.headers.get_all("x-goog-hash").into_iter();
    let texts = sums.filter_map(|value| value.to_str().ok());
    let mut words = texts.flat_map(|text| text.split(','));
    let sum = words.find_map(|word| word.trim().strip_prefix("crc32c="))?;
    crc32c_of(sum)
}
