//! What an S3 server answers: listings, the answers to uploads and deletions, and documents of errors.
//!
//! Whatever stands in a body, it is read or refused, and what is told of it is one line of bounded length.

#![no_main]

use bytes::Bytes;
use ::http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use wale_storage::{Misconfiguration, ObjectKey, ServerReply, StoreError};

// The room keeps them to itself.
#[path = "stand_ins/http.rs"]
mod http;
#[path = "../../crates/wale-storage/src/s3/refusal.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod refusal;
#[path = "../../crates/wale-storage/src/s3/xml.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod xml;

use http::failure::{Asked, Failure};

fn tell(failure: Failure, key: &ObjectKey) {
    let _ = failure.is_transient();
    let error = failure.into_store_error("s3://bucket/path", Asked::Object(key));
    let told = format!("{error}");
    assert!(!told.contains('\n'), "{told}");
}

fuzz_target!(|data: &[u8]| {
    let key = ObjectKey::new("wal_005/x").expect("a key");
    macro_rules! read {
        ($($kind:ident)*) => {$(
            if let Err(failure) = xml::read::<xml::$kind>(data) {
                tell(failure, &key);
            }
        )*};
    }
    read!(ListPage UploadPage PartPage Begun Assembled DeleteResult);
    for status in [200, 301, 400, 403, 404, 409, 412, 429, 500, 501, 503, 507] {
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = refusal::read(status, &HeaderMap::new(), data);
        let told = refusal.to_string();
        assert!(!told.contains(['\n', '\r', '\u{1b}']) && told.len() < 5000, "{told}");
        let _ = (refusal.is_absence(), refusal.is_existence(), refusal.is_unsupported());
        tell(Failure::Refused(refusal), &key);
    }
    // What is written of any name is read again as XML, whatever the name holds.
    let name = String::from_utf8_lossy(data);
    let body: Bytes = xml::delete(std::iter::once(name.into_owned()));
    assert!(std::str::from_utf8(&body).is_ok());
    let _ = (Misconfiguration::BadOptions.hint(), ServerReply::default());
});
