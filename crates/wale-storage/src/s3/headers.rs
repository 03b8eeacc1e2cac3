//! What every object of ours in S3 carries besides.

use http::{HeaderMap, HeaderValue};

use super::options::{S3Options, ServerEncryption};

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
