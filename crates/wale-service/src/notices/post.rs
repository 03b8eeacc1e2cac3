//! The requests: one at a time, none of which anything waits for.
//!
//! Redirects are not followed: a message goes where the operator said, or nowhere.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::RootCertStore;
use sha2::Sha256;
use wale_ops::Secret;

use crate::options::NoticeOptions;

/// How long one request may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Posted {
    /// It was taken.
    Taken,
    /// It will not be taken, however often it is sent.
    Refused(String),
    /// Another try may help.
    Failed(String),
}

/// The client, and where the requests go.
pub(super) struct Poster {
    http: reqwest::Client,
    ping: Option<Secret>,
    webhook: Option<Secret>,
    key: Option<Secret>,
}

impl Poster {
    pub(super) fn new(options: &NoticeOptions) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWERS_WITHIN)
            .pool_max_idle_per_host(0)
            .referer(false)
            .user_agent(concat!("wale/", env!("CARGO_PKG_VERSION")))
            .no_proxy();
        for (scheme, proxy) in [
            ("http", &options.http_proxy),
            ("https", &options.https_proxy),
        ] {
            let Some(proxy) = proxy else {
                continue;
            };
            let made = match scheme {
                "http" => reqwest::Proxy::http(proxy.expose()),
                _ => reqwest::Proxy::https(proxy.expose()),
            };
            // The text may hold a password.
            let made = made.map_err(|_| format!("the proxy for {scheme} is no URL"))?;
            let except = options.no_proxy.as_deref();
            builder = builder.proxy(made.no_proxy(except.and_then(reqwest::NoProxy::from_string)));
        }
        let client = builder
            .build()
            .map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
        Ok(Self {
            http: client,
            ping: options.ping.clone(),
            webhook: options.webhook.clone(),
            key: options.webhook_key.clone(),
        })
    }

    /// Asks for the address of the pings, with this at its end; before what the address asks for, where it does.
    pub(super) async fn ping(&self, end: &str) -> Posted {
        let Some(ping) = &self.ping else {
            return Posted::Taken;
        };
        let url = with_end(ping.expose(), end);
        self.send(self.http.get(url)).await
    }

    /// Posts a message, signed where there is a key.
    pub(super) async fn post(&self, body: &str, now: i64) -> Posted {
        let Some(webhook) = &self.webhook else {
            return Posted::Taken;
        };
        let mut request = self
            .http
            .post(webhook.expose())
            .header("content-type", "application/json")
            .header("wale-timestamp", now)
            .body(body.to_owned());
        if let Some(key) = &self.key {
            request = request.header("wale-signature", signature(key, now, body));
        }
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Posted {
        match request.send().await {
            Ok(answer) => judge(answer.status().as_u16()),
            // The address is a secret.
            Err(error) if error.is_builder() => Posted::Refused("the address is no URL".to_owned()),
            Err(error) => Posted::Failed(error.without_url().to_string()),
        }
    }
}

fn judge(status: u16) -> Posted {
    match status {
        200..=299 => Posted::Taken,
        408 | 425 | 429 | 500..=599 => Posted::Failed(format!("status {status}")),
        _ => Posted::Refused(format!("status {status}")),
    }
}

fn with_end(address: &str, end: &str) -> String {
    match address.split_once('?') {
        Some((path, query)) => format!("{}{end}?{query}", path.trim_end_matches('/')),
        None => format!("{}{end}", address.trim_end_matches('/')),
    }
}

/// `sha256=` and the HMAC-SHA256 of the time, a full stop and the body, in hexadecimal digits.
fn signature(key: &Secret, now: i64, body: &str) -> String {
    use std::fmt::Write as _;
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(format!("{now}.{body}").as_bytes());
    let mut text = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn tls() -> Result<rustls::ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_stands_before_the_query() {
        for (address, expected) in [
            ("https://h/uuid", "https://h/uuid/start"),
            ("https://h/uuid/", "https://h/uuid/start"),
            ("https://h/uuid?x=1", "https://h/uuid/start?x=1"),
        ] {
            assert_eq!(with_end(address, "/start"), expected);
        }
        assert_eq!(with_end("https://h/uuid", ""), "https://h/uuid");
    }

    /// Checked with `printf '1.{}' | openssl dgst -sha256 -hmac key`.
    #[test]
    fn the_signature_is_openssl_s() {
        assert_eq!(
            signature(&Secret::new("key"), 1, "{}"),
            "sha256=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
        );
    }

    #[test]
    fn what_is_refused_is_not_sent_again() {
        assert_eq!(judge(204), Posted::Taken);
        assert!(matches!(judge(503), Posted::Failed(_)));
        assert!(matches!(judge(429), Posted::Failed(_)));
        assert!(matches!(judge(302), Posted::Refused(_)));
        assert!(matches!(judge(404), Posted::Refused(_)));
    }
}
