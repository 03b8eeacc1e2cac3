//! Whether a public key may be written to now, and which part of it: rPGP parses certificates and verifies signatures, and leaves
//! this to its user.
//!
//! The rules are those of RFC 4880 as `GnuPG` keeps them: of several signatures of one kind the newest counts; a key that was
//! revoked is never used; of several subkeys for encryption the newest is taken; the key itself only where there is none. Without
//! flags the algorithm says what a key is for. A revocation by somebody else is not followed, and nobody's trust is asked: whoever
//! sets a key trusts it.

use pgp::composed::{SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{KeyFlags, PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::types::{EncryptionKey, EskType, Fingerprint, KeyDetails, PkeskBytes, PublicParams, Tag};

/// The part of a certificate that is written to.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The key itself.
    Key(PublicKey),
    /// One of its subkeys.
    Subkey(PublicSubkey),
}

impl KeyDetails for Target {
    fn version(&self) -> pgp::types::KeyVersion {
        match self {
            Self::Key(key) => key.version(),
            Self::Subkey(key) => key.version(),
        }
    }

    fn legacy_key_id(&self) -> pgp::types::KeyId {
        match self {
            Self::Key(key) => key.legacy_key_id(),
            Self::Subkey(key) => key.legacy_key_id(),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Key(key) => key.fingerprint(),
            Self::Subkey(key) => key.fingerprint(),
        }
    }

    fn algorithm(&self) -> PublicKeyAlgorithm {
        match self {
            Self::Key(key) => key.algorithm(),
            Self::Subkey(key) => key.algorithm(),
        }
    }

    fn created_at(&self) -> pgp::types::Timestamp {
        match self {
            Self::Key(key) => key.created_at(),
            Self::Subkey(key) => key.created_at(),
        }
    }

    fn legacy_v3_expiration_days(&self) -> Option<u16> {
        match self {
            Self::Key(key) => key.legacy_v3_expiration_days(),
            Self::Subkey(key) => key.legacy_v3_expiration_days(),
        }
    }

    fn public_params(&self) -> &PublicParams {
        match self {
            Self::Key(key) => key.public_params(),
            Self::Subkey(key) => key.public_params(),
        }
    }
}

impl EncryptionKey for Target {
    fn encrypt<R: rand_core::CryptoRng + rand_core::RngCore>(
        &self,
        random: R,
        plain: &[u8],
        kind: EskType,
    ) -> pgp::errors::Result<PkeskBytes> {
        match self {
            Self::Key(key) => key.encrypt(random, plain, kind),
            Self::Subkey(key) => key.encrypt(random, plain, kind),
        }
    }
}

/// A certificate at a moment, in seconds since 1970.
pub(super) struct Judged<'a> {
    certificate: &'a SignedPublicKey,
    now: i64,
    /// The newest signature of the key over itself or over one of its names.
    own: Option<&'a Signature>,
}

impl<'a> Judged<'a> {
    pub(super) fn new(certificate: &'a SignedPublicKey, now: i64) -> Self {
        let key = &certificate.primary_key;
        let details = &certificate.details;
        let direct = details.direct_signatures.iter().filter(|signature| {
            signature.typ() == Some(SignatureType::Key) && signature.verify_key(key).is_ok()
        });
        let named = details.users.iter().flat_map(|user| {
            let certifications = user.signatures.iter();
            certifications.filter(move |signature| {
                is_certification(signature)
                    && signature
                        .verify_certification(key, Tag::UserId, &user.id)
                        .is_ok()
            })
        });
        Self {
            certificate,
            now,
            own: newest(direct.chain(named), now),
        }
    }

    /// The ciphers that its owner asked for, the best first; none where there is no word of it.
    pub(super) fn ciphers(&self) -> Vec<SymmetricKeyAlgorithm> {
        let ciphers = self.own.map(Signature::preferred_symmetric_algs);
        ciphers.unwrap_or_default().to_vec()
    }

    /// The names of the owner that he has not taken back, as they stand in the certificate.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a [u8]> {
        let key = &self.certificate.primary_key;
        let now = self.now;
        let users = self.certificate.details.users.iter();
        users.filter_map(move |user| {
            let of_owner = user.signatures.iter().filter(|signature| {
                let kind = signature.typ();
                (is_certification(signature) || kind == Some(SignatureType::CertRevocation))
                    && signature
                        .verify_certification(key, Tag::UserId, &user.id)
                        .is_ok()
            });
            let last = newest(of_owner, now)?;
            (last.typ() != Some(SignatureType::CertRevocation)).then(|| user.id.id())
        })
    }

    /// The part that is written to.
    ///
    /// # Errors
    /// Why there is none, to follow "nothing can be encrypted to the key:".
    pub(super) fn target(&self, only: Option<&Fingerprint>) -> Result<Target, &'static str> {
        let key = &self.certificate.primary_key;
        let mut revocations = self.certificate.details.revocation_signatures.iter();
        if revocations.any(|signature| signature.verify_key(key).is_ok()) {
            return Err("it was revoked");
        }
        let own = self.own.ok_or("it has no valid signature of its own")?;
        if has_expired(key, own, self.now) {
            return Err("it has expired");
        }
        let mut reasons = Reasons::default();
        let subkeys = self.certificate.public_subkeys.iter();
        let usable = subkeys
            .filter(|subkey| only.is_none_or(|only| subkey.fingerprint() == *only))
            .filter(|subkey| match self.judge(subkey) {
                Ok(()) => true,
                Err(reason) => {
                    reasons.note(reason);
                    false
                }
            });
        // The last of several that were made in the same second, as in GnuPG.
        if let Some(subkey) = usable.max_by_key(KeyDetails::created_at) {
            return Ok(Target::Subkey(subkey.key.clone()));
        }
        let is_wanted = only.is_none_or(|only| key.fingerprint() == *only);
        if is_wanted && is_for_encryption(&own.key_flags(), key.algorithm()) {
            return match can_write(key.algorithm()) {
                Ok(()) => Ok(Target::Key(key.clone())),
                Err(reason) => Err(reason),
            };
        }
        Err(reasons.strongest())
    }

    fn judge(&self, subkey: &SignedPublicSubKey) -> Result<(), &'static str> {
        let key = &self.certificate.primary_key;
        let valid = |kind: SignatureType| {
            let signatures = subkey.signatures.iter();
            signatures.filter(move |signature| {
                signature.typ() == Some(kind)
                    && signature.verify_subkey_binding(key, &subkey.key).is_ok()
            })
        };
        let binding = newest(valid(SignatureType::SubkeyBinding), self.now).ok_or(NOT_BOUND)?;
        if !is_for_encryption(&binding.key_flags(), subkey.algorithm()) {
            return Err(NOT_FOR_ENCRYPTION);
        }
        if valid(SignatureType::SubkeyRevocation).next().is_some() {
            return Err(SUBKEY_REVOKED);
        }
        if has_expired(&subkey.key, binding, self.now) {
            return Err(SUBKEY_EXPIRED);
        }
        can_write(subkey.algorithm())
    }
}

const NOT_FOR_ENCRYPTION: &str = "it has no subkey for encryption";
const NOT_BOUND: &str = "its subkey has no valid signature";
const SUBKEY_REVOKED: &str = "its subkey for encryption was revoked";
const SUBKEY_EXPIRED: &str = "its subkey for encryption has expired";
const NOT_WRITTEN: &str =
    "its subkey for encryption is of an algorithm that is not written, as Elgamal";

/// Why no subkey can be used; what says most.
#[derive(Default)]
struct Reasons(Vec<&'static str>);

impl Reasons {
    fn note(&mut self, reason: &'static str) {
        self.0.push(reason);
    }

    fn strongest(&self) -> &'static str {
        let order = [SUBKEY_EXPIRED, SUBKEY_REVOKED, NOT_WRITTEN, NOT_BOUND];
        let mut order = order.into_iter();
        let found = order.find(|reason| self.0.contains(reason));
        found.unwrap_or(NOT_FOR_ENCRYPTION)
    }
}

/// The newest of these signatures that holds now.
fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: i64) -> Option<&'a Signature> {
    let holds = |signature: &&Signature| {
        let Some(made) = signature.created().map(|made| i64::from(made.as_secs())) else {
            return false;
        };
        let lasts = signature.signature_expiration_time();
        let lasts = lasts.map_or(0, |lasts| i64::from(lasts.as_secs()));
        made <= now && (lasts == 0 || made + lasts > now)
    };
    signatures
        .filter(holds)
        .max_by_key(|signature| signature.created().map(pgp::types::Timestamp::as_secs))
}

fn is_certification(signature: &Signature) -> bool {
    matches!(
        signature.typ(),
        Some(
            SignatureType::CertGeneric
                | SignatureType::CertPersona
                | SignatureType::CertCasual
                | SignatureType::CertPositive
        )
    )
}

/// Whether the key has expired by this signature over it, or is not made yet.
fn has_expired(key: &impl KeyDetails, signature: &Signature, now: i64) -> bool {
    let made = i64::from(key.created_at().as_secs());
    let lasts = signature.key_expiration_time();
    let lasts = lasts.map_or(0, |lasts| i64::from(lasts.as_secs()));
    made > now || (lasts != 0 && made + lasts <= now)
}

/// Whether the flags say so; without any, the algorithm.
fn is_for_encryption(flags: &KeyFlags, algorithm: PublicKeyAlgorithm) -> bool {
    let has_flag = flags.certify()
        || flags.sign()
        || flags.authentication()
        || flags.encrypt_comms()
        || flags.encrypt_storage();
    if has_flag {
        return flags.encrypt_comms() || flags.encrypt_storage();
    }
    algorithm.can_encrypt()
}

/// Whether rPGP encrypts to this algorithm.
fn can_write(algorithm: PublicKeyAlgorithm) -> Result<(), &'static str> {
    let can = matches!(
        algorithm,
        PublicKeyAlgorithm::RSA
            | PublicKeyAlgorithm::RSAEncrypt
            | PublicKeyAlgorithm::ECDH
            | PublicKeyAlgorithm::X25519
            | PublicKeyAlgorithm::X448
    );
    if can { Ok(()) } else { Err(NOT_WRITTEN) }
}
