//! TLS as libpq's `sslmode` means it, with rustls.
//!
//! The cryptography (ring) is named explicitly and nothing is installed for the whole process. Three of
//! libpq's modes are not TLS's usual check of chain and name: `prefer` and `require` take any certificate,
//! `verify-ca` does not look at the name. A certificate that itself stands in `sslrootcert` is trusted as it
//! is, because that is how a self-signed server certificate is commonly used; its dates are not checked.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    WantsClientCert, verify_server_cert_signed_by_trust_anchor, verify_server_name,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::options::{ConnectOptions, SslMode};
use crate::error::ClusterError;

/// Largest file of certificates or of a key: a system's whole bundle has 200 to 400 kB.
const PEM_BYTES_MAX: u64 = 8 << 20;

/// How much of the server's certificate is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    Nothing,
    Chain,
    ChainAndName,
}

/// Prepares TLS for the options.
///
/// # Errors
/// When a certificate or key file cannot be used.
pub(super) fn connector(options: &ConnectOptions) -> Result<MakeRustlsConnect, ClusterError> {
    let builder = builder(check_of(options), options.sslrootcert.as_deref())?;
    let config = match (&options.sslcert, &options.sslkey) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates(certificate)?;
            let unusable = |reason: String| {
                configuration(format!(
                    "key file {} cannot be used: {reason}",
                    key.display()
                ))
            };
            let pem = crate::read_bounded(key, PEM_BYTES_MAX)
                .map_err(|error| unusable(error.to_string()))?;
            let key =
                PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(error.to_string()))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| configuration(format!("client certificate refused: {error}")))?
        }
        _ => {
            return Err(configuration(
                "a client certificate needs both its file and its key file".to_owned(),
            ));
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

/// A client of another endpoint than PostgreSQL's, by the same rules: chain and name are checked against the
/// certificates in `roots`, or the system's.
///
/// # Errors
/// When the file cannot be used.
pub fn checking_client(roots: Option<&Path>) -> Result<ClientConfig, ClusterError> {
    Ok(builder(Check::ChainAndName, roots)?.with_no_client_auth())
}

/// A client that takes any certificate: for a probe of this container's own endpoint, whose certificate holds the names
/// by which others reach it. Nothing secret may be sent with it.
///
/// # Errors
/// When TLS cannot be used at all.
pub fn unchecking_client() -> Result<ClientConfig, ClusterError> {
    Ok(builder(Check::Nothing, None)?.with_no_client_auth())
}

fn builder(
    check: Check,
    root_file: Option<&Path>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, ClusterError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let (roots, pinned) = match check {
        Check::Nothing => (RootCertStore::empty(), Vec::new()),
        Check::Chain | Check::ChainAndName => trusted(root_file)?,
    };
    let verifier = Verifier {
        provider: Arc::clone(&provider),
        check,
        roots,
        pinned,
    };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| configuration(format!("TLS cannot be used: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// libpq: `require` with a root certificate file is `verify-ca`.
fn check_of(options: &ConnectOptions) -> Check {
    match options.sslmode {
        SslMode::VerifyFull => Check::ChainAndName,
        SslMode::VerifyCa => Check::Chain,
        SslMode::Require if options.sslrootcert.is_some() => Check::Chain,
        _ => Check::Nothing,
    }
}

type Trusted = (RootCertStore, Vec<CertificateDer<'static>>);

/// Root certificates, and those of them that are trusted as they are.
fn trusted(file: Option<&Path>) -> Result<Trusted, ClusterError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = file.filter(|path| *path != Path::new("system")) {
        let pinned = certificates(path)?;
        roots.add_parsable_certificates(pinned.iter().cloned());
        return Ok((roots, pinned));
    }
    // A machine or image without CA files is common; failing on it would be of no use to anybody.
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok((roots, Vec::new()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ClusterError> {
    let unusable = |reason: String| {
        configuration(format!(
            "certificate file {} cannot be used: {reason}",
            path.display()
        ))
    };
    let pem =
        crate::read_bounded(path, PEM_BYTES_MAX).map_err(|error| unusable(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(unusable("it holds no certificate".to_owned()));
    }
    Ok(certificates)
}

fn configuration(message: String) -> ClusterError {
    ClusterError::Configuration {
        message,
        hint: None,
    }
}

#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    check: Check,
    roots: RootCertStore,
    pinned: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.check == Check::Nothing {
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if !self.pinned.contains(end_entity) {
            if self.roots.is_empty() {
                return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
            }
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                &self.roots,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        if self.check == Check::ChainAndName {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn how_much_is_checked_follows_libpq() {
        let cases = [
            (SslMode::Allow, None, Check::Nothing),
            (SslMode::Prefer, Some("/r"), Check::Nothing),
            (SslMode::Require, None, Check::Nothing),
            (SslMode::Require, Some("/r"), Check::Chain),
            (SslMode::VerifyCa, None, Check::Chain),
            (SslMode::VerifyFull, None, Check::ChainAndName),
        ];
        for (sslmode, root, expected) in cases {
            let options = ConnectOptions {
                sslmode,
                sslrootcert: root.map(PathBuf::from),
                ..ConnectOptions::default()
            };
            assert_eq!(check_of(&options), expected, "{sslmode:?} {root:?}");
        }
    }

    #[test]
    fn unusable_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "no certificate\n").unwrap();
        for path in [empty.clone(), folder.path().join("missing.pem")] {
            let options = ConnectOptions {
                sslmode: SslMode::VerifyCa,
                sslrootcert: Some(path.clone()),
                ..ConnectOptions::default()
            };
            let error = connector(&options).err().unwrap().to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
        let half = ConnectOptions {
            sslcert: Some(empty),
            ..ConnectOptions::default()
        };
        assert!(connector(&half).is_err());
    }

    #[test]
    fn there_are_always_roots() {
        let (roots, pinned) = trusted(None).unwrap();
        assert!(!roots.is_empty());
        assert!(pinned.is_empty());
    }
}
