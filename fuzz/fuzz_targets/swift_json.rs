//! What an OpenStack Swift server answers: listings, lists of segments, what became of deletions, and pages of errors.
//!
//! Whatever stands in a body, it is read or refused, and what is told of it is one line of bounded length.

#![no_main]

use ::http::{HeaderMap, StatusCode};
use libfuzzer_sys::fuzz_target;
use wale_storage::{Misconfiguration, ObjectKey, ServerReply, StoreError};

#[path = "../../crates/wale-storage/src/swift/documents.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod documents;
// The room keeps them to itself.
#[path = "stand_ins/http.rs"]
mod http;
#[path = "../../crates/wale-storage/src/swift/refusal.rs"]
#[allow(dead_code, reason = "the room's module, as it is")]
mod refusal;

use documents::{Deletion, Entry, ListedSegment, read_json};
use http::failure::{Asked, Failure};

fn tell(failure: Failure, key: &ObjectKey) {
    let _ = failure.is_transient();
    let error = failure.into_store_error("swift://container/path", Asked::Object(key));
    let told = format!("{error}");
    assert!(!told.contains('\n'), "{told}");
}

fuzz_target!(|data: &[u8]| {
    let key = ObjectKey::new("wal_005/x").expect("a key");
    match read_json::<Vec<Entry>>(data) {
        Ok(entries) => entries.iter().for_each(|entry| drop(entry.modified())),
        Err(failure) => tell(failure, &key),
    }
    if let Err(failure) = read_json::<Vec<ListedSegment>>(data) {
        tell(failure, &key);
    }
    match Deletion::read(StatusCode::OK, data) {
        Ok(Some(told)) if !told.is_success() && !told.is_not_large() => tell(told.failure(), &key),
        Ok(_) => {}
        Err(failure) => tell(failure, &key),
    }
    for status in [200, 301, 400, 401, 403, 404, 409, 412, 413, 422, 498, 500, 503, 507] {
        let status = StatusCode::from_u16(status).expect("a status");
        let refusal = refusal::read(status, &HeaderMap::new(), data);
        let told = refusal.to_string();
        assert!(!told.contains(['\n', '\r', '\u{1b}']) && told.len() < 5000, "{told}");
        let _ = (refusal.is_absence(), refusal.is_existence(), refusal.is_unsupported());
        let _ = (refusal.is(&["x"]), refusal::is_of_token(&refusal));
        tell(Failure::Refused(refusal), &key);
    }
    let _ = (Misconfiguration::BadOptions.hint(), ServerReply::default());
    let _ = std::any::type_name::<StoreError>();
});
