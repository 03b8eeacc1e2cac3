//! What Google Cloud Storage answers: records of objects, pages of listings, and documents of errors.
//!
//! Whatever stands in a body, it is read or refused, and what is told of it is one line of bounded length.

#![no_main]

use ::http::StatusCode;
use libfuzzer_sys::fuzz_target;
use wale_storage::{Misconfiguration, ObjectKey, ObjectMeta, ServerReply, StoreError};

// The room keeps them to itself.
#[path = "stand_ins/http.rs"]
mod http;
#[path = "../../crates/wale-storage/src/gcs/refusal.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod refusal;
#[path = "../../crates/wale-storage/src/gcs/resource.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod resource;

use http::failure::{Asked, Failure};
use resource::{ObjectPage, Resource};

fn tell(failure: Failure, key: &ObjectKey) {
    let _ = failure.is_transient();
    let error = failure.into_store_error("gs://bucket/path", Asked::Object(key));
    let told = format!("{error}");
    assert!(!told.contains('\n'), "{told}");
}

fuzz_target!(|data: &[u8]| {
    let key = ObjectKey::new("wal_005/x").expect("a key");
    match resource::read::<Resource>(data) {
        Ok(record) => {
            let meta: ObjectMeta = record.meta(&key);
            assert_eq!(meta.size, record.size);
            let _ = (record.mark(), record.sum());
        }
        Err(failure) => tell(failure, &key),
    }
    if let Err(failure) = resource::read::<ObjectPage>(data) {
        tell(failure, &key);
    }
    for status in [200, 302, 304, 308, 400, 401, 403, 404, 410, 412, 429, 500, 501, 503] {
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = refusal::read(status, data);
        let told = refusal.to_string();
        assert!(!told.contains(['\n', '\r', '\u{1b}']) && told.len() < 5000, "{told}");
        let _ = (refusal.is_absence(), refusal.is_existence(), refusal.is_unsupported());
        tell(Failure::Refused(refusal), &key);
    }
    let _ = (Misconfiguration::BadOptions.hint(), ServerReply::default());
});
