//! What every object of ours carries.

use http::{HeaderMap, HeaderValue};
use ring::rand::SecureRandom;

use super::options::{S3Options, ServerEncryption};
use crate::ObjectKey;
use crate::http::text::hex;

/// The header in which an object remembers the upload that made it.
pub(super) const MARK_HEADER: &str = "x-amz-meta-wale-upload";

/// What every new object is told.
pub(super) fn object_headers(options: &S3Options) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, text: &str| {
        let value = HeaderValue::from_str(text)
            .map_err(|_| format!("\"{text}\" cannot stand in a header"))?;
        headers.insert(name, value);
        Ok::<_, String>(())
    };
    if let Some(class) = &options.storage_class {
        add("x-amz-storage-class", class)?;
    }
    match &options.encryption {
        ServerEncryption::BucketDefault
        | ServerEncryption::CustomerKey(_)
        | ServerEncryption::CustomerKeyFile { .. } => {}
        ServerEncryption::S3 => add("x-amz-server-side-encryption", "AES256")?,
        ServerEncryption::Kms(key) => {
            add("x-amz-server-side-encryption", "aws:kms")?;
            if let Some(key) = key {
                add("x-amz-server-side-encryption-aws-kms-key-id", key)?;
            }
        }
    }
    Ok(headers)
}

/// WAL-E's content types.
pub(super) fn content_type(key: &ObjectKey) -> &'static str {
    match key.as_str().rsplit_once('.') {
        Some((_, "json")) => "application/json",
        Some((_, "txt")) => "text/plain",
        _ => "application/octet-stream",
    }
}

/// A name that no other upload has.
pub(super) fn random_mark() -> String {
    let mut bytes = [0; 12];
    ring::rand::SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    hex(&bytes)
}
