//! Row 33 of the fault battery on every server of objects: what is behind a certificate that proves nothing gets neither
//! data nor secrets.

use wale_testkit::s3::{Authority, FaultProxy, TlsIdentity};
use wale_testkit::{Sandbox, StoreServer};

use crate::s3::wale;

/// wale's settings.
type Settings = Vec<(String, String)>;

/// Status and messages of a listing in a place where no archive is. They never hold the secret.
pub(crate) fn listing(settings: &[(String, String)], secret: &str) -> (i32, String) {
    let output = wale(settings, &["backup-list"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!stderr.contains(secret), "no secret is told: {stderr}");
    (output.status.code().unwrap_or(-1), stderr)
}

/// Certificates of every kind.
pub(crate) struct Certificates {
    /// Signed by `ca`, for this host by address and by name, and for `store.test` with what is below.
    pub(crate) good: TlsIdentity,
    /// What is wrong, the certificate, and the file of those that are trusted.
    pub(crate) untrusted: [(&'static str, TlsIdentity, String); 4],
    /// The file of the authority's own certificate.
    pub(crate) ca: String,
}

impl Certificates {
    pub(crate) fn new(sandbox: &Sandbox) -> Self {
        let authority = Authority::new();
        let file = sandbox.path().join("ca.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let ca = file.to_string_lossy().into_owned();
        let good = authority.issue(&["127.0.0.1", "localhost", "store.test", "*.store.test"]);
        let other = authority.issue(&["store.example.com"]);
        let expired = authority.issue_expired(&["127.0.0.1"]);
        let untrusted = [
            ("an unknown authority", good.clone(), String::new()),
            ("expired", expired, ca.clone()),
            ("another host", other, ca.clone()),
            (
                "self-signed",
                TlsIdentity::self_signed(&["127.0.0.1"]),
                ca.clone(),
            ),
        ];
        Self {
            good,
            untrusted,
            ca,
        }
    }
}

/// Row 33. `settings` are those of an archive behind TLS at an authority (`host:port`), with a file of certificates that
/// are trusted besides the system's. Where that is empty, the setting is not set.
pub(crate) fn assert_certificates_are_proved<S: StoreServer>(
    sandbox: &Sandbox,
    server: &S,
    secret: &str,
    settings: impl Fn(&str, &str) -> Settings,
) {
    let certificates = Certificates::new(sandbox);
    let ca = &certificates.ca;
    let at = |port: u16, ca: &str| {
        let mut settings = settings(&format!("127.0.0.1:{port}"), ca);
        settings.retain(|(_, value)| !value.is_empty());
        settings
    };
    let proxy = FaultProxy::start_tls(server.port(), &certificates.good);
    let (code, text) = listing(&at(proxy.port(), ca), secret);
    assert_eq!(code, 0, "{text}");
    assert!(!proxy.requests().is_empty());
    for (what, identity, ca) in &certificates.untrusted {
        let proxy = FaultProxy::start_tls(server.port(), identity);
        let (code, text) = listing(&at(proxy.port(), ca), secret);
        assert_eq!(code, 78, "{what}: {text}");
        assert!(text.contains("certificate"), "{what}: {text}");
        assert_eq!(proxy.requests().len(), 0, "{what}: nothing was sent");
    }
    // A server that speaks no TLS is not spoken to without.
    let plain = FaultProxy::start(server.port());
    let (code, text) = listing(&at(plain.port(), ca), secret);
    assert!([75, 78].contains(&code), "{code}: {text}");
    assert!(plain.requests().iter().all(|seen| seen.status == 0));
    // Through an HTTP proxy the certificate is still the server's: the proxy carries bytes it cannot read.
    let tunnel = FaultProxy::start(proxy.port());
    let through = format!("http://127.0.0.1:{}", tunnel.port());
    let mut with_proxy = settings("store.test:443", ca);
    with_proxy.push(("HTTPS_PROXY".into(), through));
    let (code, text) = listing(&with_proxy, secret);
    assert_eq!(code, 0, "{text}");
    let asked = tunnel.requests();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|seen| seen.method == "CONNECT"));
    with_proxy.push(("NO_PROXY".into(), "store.test".into()));
    let (code, text) = listing(&with_proxy, secret);
    assert_ne!(code, 0, "nobody resolves this name: {text}");
}
