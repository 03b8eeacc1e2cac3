//! A claim that is signed with a service account's key (RFC 7523; Google, "Using OAuth 2.0 for server to server").

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ring::rand::SystemRandom;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

use crate::http::failure::Failure;

/// How long a claim holds, seconds. Google takes an hour at most.
const HOLDS_SECONDS: i64 = 3600;

/// Who claims, and with which key.
pub(super) struct Claimant<'a> {
    pub(super) email: &'a str,
    /// PEM, PKCS #8.
    pub(super) private_key: &'a str,
    pub(super) key_id: Option<&'a str>,
    /// The service that is to believe it.
    pub(super) audience: &'a str,
    /// What the token is to be for.
    pub(super) scope: &'a str,
}

/// The signed claim of this moment. A signature takes a millisecond.
pub(super) fn signed(claimant: &Claimant<'_>, now: DateTime<Utc>) -> Result<String, Failure> {
    let unusable = |what: &str| Failure::NoCredentials(format!("its private key {what}"));
    let der = PrivatePkcs8KeyDer::from_pem_slice(claimant.private_key.as_bytes())
        .map_err(|_| unusable("is not a PEM text in PKCS #8"))?;
    let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der())
        .map_err(|_| unusable("is no RSA key of 2048 bits or more"))?;
    let mut header = json!({"alg": "RS256", "typ": "JWT"});
    if let Some(id) = claimant.key_id {
        header["kid"] = json!(id);
    }
    let claims = json!({
        "iss": claimant.email,
        "scope": claimant.scope,
        "aud": claimant.audience,
        "iat": now.timestamp(),
        "exp": now.timestamp() + HOLDS_SECONDS,
    });
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    let text = format!(
        "{}.{}",
        encode(header.to_string().as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        text.as_bytes(),
        &mut signature,
    )
    .map_err(|_| unusable("does not sign"))?;
    Ok(format!("{text}.{}", encode(&signature)))
}

#[cfg(test)]
mod tests {
    use ring::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    fn claimant(private_key: &str) -> Claimant<'_> {
        Claimant {
            email: "wale@project.iam.gserviceaccount.com",
            private_key,
            key_id: Some("k1"),
            audience: "https://oauth2.googleapis.com/token",
            scope: "https://www.googleapis.com/auth/devstorage.read_write",
        }
    }

    #[test]
    fn a_claim_is_signed_with_the_accounts_key() {
        let pem = wale_testkit::gcs::PRIVATE_KEY;
        let now = DateTime::from_timestamp(1_795_938_185, 0).expect("a moment");
        let claim = signed(&claimant(pem), now).expect("it signs");
        let parts: Vec<&str> = claim.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("three parts: {claim}");
        };
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64");
        let read = |part| serde_json::from_slice::<serde_json::Value>(&decode(part)).expect("JSON");
        assert_eq!(read(header)["alg"], "RS256");
        assert_eq!(read(claims)["exp"], 1_795_938_185 + 3600);
        assert_eq!(read(claims)["aud"], "https://oauth2.googleapis.com/token");
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).expect("PEM");
        let key = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).expect("a key");
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public());
        let text = format!("{header}.{claims}");
        public
            .verify(text.as_bytes(), &decode(signature))
            .expect("it is signed");
    }

    #[test]
    fn a_key_that_is_none_is_not_quoted() {
        for text in [
            "",
            "canary",
            "-----BEGIN PRIVATE KEY-----\nY2FuYXJ5\n-----END PRIVATE KEY-----\n",
        ] {
            let failure = signed(&claimant(text), Utc::now()).expect_err("refused");
            let told = format!("{failure:?}");
            assert!(!told.contains("canary") && !told.contains("Y2Fu"), "{told}");
        }
    }
}
