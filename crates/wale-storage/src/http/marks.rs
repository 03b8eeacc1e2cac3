//! What every object of ours carries, whatever the store: WAL-E's content types, and the mark of the upload that made it.

use ring::rand::SecureRandom;

use super::text::hex;
use crate::ObjectKey;

/// WAL-E's content types.
pub(crate) fn content_type(key: &ObjectKey) -> &'static str {
    match key.as_str().rsplit_once('.') {
        Some((_, "json")) => "application/json",
        Some((_, "txt")) => "text/plain",
        _ => "application/octet-stream",
    }
}

/// A name that no other upload has.
pub(crate) fn random_mark() -> String {
    let mut bytes = [0; 12];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    hex(&bytes)
}
