//! The customer's key (SSE-C), which comes with every request that touches content, as three headers. Never printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use md5::{Digest as _, Md5};

use super::options::ServerEncryption;
use crate::http::named_file;

/// The key, and the file from which it is read anew.
pub(super) struct CustomerKey {
    file: Option<PathBuf>,
    held: Mutex<KeyInUse>,
}

struct KeyInUse {
    /// No headers without a key.
    headers: HeaderMap,
    /// Whether it was said that the file holds no key.
    is_told: bool,
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CustomerKey(secret)")
    }
}

impl CustomerKey {
    /// # Errors
    /// When the key is none.
    pub(super) fn new(encryption: &ServerEncryption) -> Result<Self, String> {
        let (headers, file) = match encryption {
            ServerEncryption::CustomerKey(key) => (headers(key.expose())?, None),
            ServerEncryption::CustomerKeyFile { key, file } => {
                (headers(key.expose())?, Some(file.clone()))
            }
            ServerEncryption::BucketDefault | ServerEncryption::S3 | ServerEncryption::Kms(_) => {
                (HeaderMap::new(), None)
            }
        };
        let is_told = false;
        Ok(Self {
            file,
            held: Mutex::new(KeyInUse { headers, is_told }),
        })
    }

    /// The headers now. The file, if there is one, decides at each request, because a server takes any key for a new object
    /// and refuses none. A file that cannot be read, or holds no key, changes nothing. An upload during which the key
    /// changes is refused by the server and begun anew.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file {
            match read(file) {
                Ok(fresh) => {
                    if fresh != held.headers {
                        tracing::info!(file = %file.display(), "the customer's key of S3 was read anew");
                    }
                    held.headers = fresh;
                    held.is_told = false;
                }
                Err(problem) if !held.is_told => {
                    tracing::warn!(
                        file = %file.display(),
                        hint = "put the key back: 32 bytes in base64",
                        "the customer's key of S3 cannot be read anew, the last one is used: {problem}"
                    );
                    held.is_told = true;
                }
                Err(_) => {}
            }
        }
        held.headers.clone()
    }
}

fn read(file: &Path) -> Result<HeaderMap, String> {
    let text = named_file::read_text(file).map_err(|error| error.to_string())?;
    headers(&text)
}

/// The three headers of a key. Its text is not quoted.
fn headers(key: &str) -> Result<HeaderMap, String> {
    let bytes = BASE64_STANDARD
        .decode(key.trim())
        .map_err(|_| "the customer's key is not base64".to_owned())?;
    if bytes.len() != 32 {
        return Err("the customer's key has not 32 bytes".to_owned());
    }
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, text: &str| {
        let mut value = HeaderValue::from_str(text).expect("base64 can stand in a header");
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    };
    add("x-amz-server-side-encryption-customer-algorithm", "AES256");
    add(
        "x-amz-server-side-encryption-customer-key",
        &BASE64_STANDARD.encode(&bytes),
    );
    add(
        "x-amz-server-side-encryption-customer-key-md5",
        &BASE64_STANDARD.encode(Md5::digest(&bytes)),
    );
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    #[test]
    fn fault_97_a_customers_key_in_a_file_is_read_anew() {
        const NAME: &str = "x-amz-server-side-encryption-customer-key";
        let key = |byte: u8| BASE64_STANDARD.encode([byte; 32]);
        let file = tempfile::NamedTempFile::new().expect("a file");
        let encryption = ServerEncryption::CustomerKeyFile {
            key: Secret::new(key(1)),
            file: file.path().to_owned(),
        };
        let kept = CustomerKey::new(&encryption).expect("a key");
        // A file that is being written, or that is gone, takes the last key from nobody.
        for (content, expected) in [
            (String::new(), key(1)),
            (format!("{}\n", key(2)), key(2)),
            ("no key".to_owned(), key(2)),
            (key(3), key(3)),
        ] {
            std::fs::write(file.path(), &content).expect("written");
            assert_eq!(kept.headers()[NAME], *expected, "{content}");
        }
        drop(file);
        assert_eq!(kept.headers()[NAME], *key(3));
        assert!(!format!("{kept:?}").contains(&key(3)));
    }
}
