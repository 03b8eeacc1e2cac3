//! What requests for content carry.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue};
use ring::digest;

use super::options::GcsEncryption;

/// The headers with which content is encrypted and decrypted by the customer's key; none without one.
pub(super) fn customer_key(encryption: &GcsEncryption) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let GcsEncryption::CustomerKey(secret) = encryption else {
        return Ok(headers);
    };
    let text = secret.expose().trim();
    let key = BASE64_STANDARD.decode(text).ok();
    let Some(key) = key.filter(|key| key.len() == 32) else {
        return Err("the encryption key is not 32 bytes in base64".to_owned());
    };
    let sum = BASE64_STANDARD.encode(digest::digest(&digest::SHA256, &key));
    let key = BASE64_STANDARD.encode(&key);
    for (name, value) in [
        ("x-goog-encryption-algorithm", "AES256"),
        ("x-goog-encryption-key", key.as_str()),
        ("x-goog-encryption-key-sha256", sum.as_str()),
    ] {
        let mut value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use crate::http::text::hex;

    #[test]
    fn a_key_of_ones_own_goes_along_with_its_sum() {
        let key = BASE64_STANDARD.encode([0; 32]);
        let headers = customer_key(&GcsEncryption::CustomerKey(Secret::new(key))).expect("a key");
        // The SHA-256 of 32 zeros.
        let sum = headers["x-goog-encryption-key-sha256"].to_str();
        let sum = BASE64_STANDARD.decode(sum.expect("text")).expect("base64");
        assert!(hex(&sum).starts_with("66687aadf862bd77"));
        assert!(!format!("{headers:?}").contains("AAAA"));
        for wrong in ["", "canary", "AAAA"] {
            let told = customer_key(&GcsEncryption::CustomerKey(Secret::new(wrong)));
            assert!(!told.expect_err("refused").contains("canary"));
        }
        assert!(
            customer_key(&GcsEncryption::BucketDefault)
                .expect("none")
                .is_empty()
        );
    }
}
