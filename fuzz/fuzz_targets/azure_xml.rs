//! What a server of Azure's protocol answers: listings, lists of blocks, and documents of errors.
//!
//! Whatever stands in a body, it is read or refused, and what is told of it is one line of bounded length.

#![no_main]

use ::http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use wale_storage::{Misconfiguration, ObjectKey, ServerReply, StoreError};

// The room keeps them to itself.
#[path = "stand_ins/http.rs"]
mod http;
#[path = "../../crates/wale-storage/src/azure/refusal.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod refusal;
#[path = "../../crates/wale-storage/src/azure/xml.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod xml;

use http::failure::{Asked, Failure};

fn tell(failure: Failure, key: &ObjectKey) {
    let _ = failure.is_transient();
    let error = failure.into_store_error("wabs://container/path", Asked::Object(key));
    let told = format!("{error}");
    assert!(!told.contains('\n'), "{told}");
}

fuzz_target!(|data: &[u8]| {
    let key = ObjectKey::new("wal_005/x").expect("a key");
    match xml::read::<xml::BlobPage>(data) {
        Ok(page) => {
            for listed in &page.blobs.blob {
                let _ = (listed.name(), listed.is_folder());
            }
        }
        Err(failure) => tell(failure, &key),
    }
    if let Err(failure) = xml::read::<xml::BlockPage>(data) {
        tell(failure, &key);
    }
    for status in [200, 301, 400, 401, 403, 404, 409, 412, 416, 500, 503] {
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = refusal::read(status, &HeaderMap::new(), data);
        let told = refusal.to_string();
        assert!(!told.contains(['\n', '\r', '\u{1b}']) && told.len() < 5000, "{told}");
        let _ = (refusal.is_absence(), refusal.is_existence(), refusal.is_unsupported());
        let _ = refusal::is_of_credentials(&refusal);
        tell(Failure::Refused(refusal), &key);
    }
    let _ = (Misconfiguration::BadOptions.hint(), ServerReply::default());
});
