//! The keys that a message is written to, and those it is read with.
//!
//! Invariants: a recipient was usable at the moment that was given; a secret key at hand is open, so that no message waits for the
//! derivation of its passphrase (`GnuPG` takes a tenth of a second for it, on purpose).

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use pgp::composed::{PlainSessionKey, PublicOrSecret, RawSessionKey, SignedPublicKey};
use pgp::crypto::Decryptor as _;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::crypto::sym::SymmetricKeyAlgorithm;
use pgp::packet::{PacketTrait as _, PublicKeyEncryptedSessionKey, SecretKey, SecretSubkey};
use pgp::types::{
    DecryptionKey as _, EskType, Fingerprint, KeyDetails, Mpi, Password, PkeskBytes, PkeskVersion,
    PlainSecretParams, S2kParams, SecretParams, StringToKey,
};
use rand_core::OsRng;
use zeroize::Zeroizing;

use super::certificate::{Judged, Target};
use super::error::{KeyId, KeysError};
use super::ring::{self, Name};

/// Keys that messages are written to: at least one.
///
/// ```no_run
/// use std::io::Write as _;
/// use wale_format::crypt::openpgp::{self, PgpRecipients};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let key_file = Vec::new();
/// let recipients = PgpRecipients::from_keys(&key_file, chrono::DateTime::UNIX_EPOCH)?;
/// let mut writer = openpgp::writer(&recipients, Vec::new())?;
/// writer.write_all(b"plain")?;
/// let message = writer.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PgpRecipients(Vec<PgpRecipient>);

#[derive(Clone, Debug)]
struct PgpRecipient {
    /// Of the certificate.
    fingerprint: String,
    target: Arc<Target>,
    /// The ciphers that the owner asked for.
    ciphers: Vec<SymmetricKeyAlgorithm>,
}

impl PgpRecipient {
    fn new(
        certificate: &SignedPublicKey,
        name: Option<&Name>,
        now: i64,
    ) -> Result<Self, KeysError> {
        let judged = Judged::new(certificate, now);
        let only = match name {
            Some(name @ Name::Number(_, true)) => part(certificate, name),
            _ => None,
        };
        let fingerprint = hex(&certificate.fingerprint());
        match judged.target(only.as_ref()) {
            Ok(target) => Ok(Self {
                fingerprint,
                target: Arc::new(target),
                ciphers: judged.ciphers(),
            }),
            Err(why) => Err(KeysError::Unusable { fingerprint, why }),
        }
    }
}

impl PgpRecipients {
    /// All keys of a key file, armoured or binary, public or secret ones. `\n` in two characters is the end of a line, too.
    ///
    /// # Errors
    /// When there is none, or one cannot be read, or be used `now`.
    pub fn from_keys(bytes: &[u8], now: DateTime<Utc>) -> Result<Self, KeysError> {
        let certificates = ring::of_file(bytes)?;
        let mut recipients = Vec::new();
        for certificate in &certificates {
            recipients.push(PgpRecipient::new(
                &public(certificate),
                None,
                now.timestamp(),
            )?);
        }
        if recipients.is_empty() {
            return Err(KeysError::None("key"));
        }
        Ok(Self(recipients))
    }

    /// The key of this name in a key ring of `GnuPG` (the bytes of `pubring.kbx` or `pubring.gpg`) or in a key file. The name is a
    /// key id of 8 or 16 digits, a fingerprint, `<mail>`, `=user id`, or a part of the user id, as `gpg -r` takes it. `GnuPG`'s
    /// notes of trust are not read.
    ///
    /// # Errors
    /// When no key has the name, several that can be used `now` have it, or it cannot be used; when the ring cannot be read.
    pub fn from_ring(bytes: &[u8], name: &str, now: DateTime<Utc>) -> Result<Self, KeysError> {
        let wanted = Name::parse(name)?;
        let certificates = ring::of_ring(bytes)?;
        let named = certificates.iter().map(public);
        let named = named.filter(|certificate| is_named(certificate, &wanted, now));
        let judged: Vec<_> = named
            .map(|certificate| PgpRecipient::new(&certificate, Some(&wanted), now.timestamp()))
            .collect();
        // A key that has expired beside its successor of the same name does no harm.
        let mut usable: Vec<PgpRecipient> = judged.iter().flatten().cloned().collect();
        usable.sort_by(|one, other| one.fingerprint.cmp(&other.fingerprint));
        usable.dedup_by(|one, other| one.fingerprint == other.fingerprint);
        if usable.len() > 1 {
            let fingerprints = usable.into_iter().map(|key| key.fingerprint);
            return Err(ring::several(name, fingerprints.collect()));
        }
        if !usable.is_empty() {
            return Ok(Self(usable));
        }
        let not_found = || KeysError::NotFound {
            name: name.to_owned(),
        };
        Err(judged
            .into_iter()
            .find_map(Result::err)
            .unwrap_or_else(not_found))
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        for other in others.0 {
            if !self
                .0
                .iter()
                .any(|one| one.fingerprint == other.fingerprint)
            {
                self.0.push(other);
            }
        }
        self
    }

    /// The fingerprints of the certificates, in capitals, sorted: what a person knows a key by, for the record of an archive. A
    /// subkey may be replaced without a change of it.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        let mut all: Vec<String> = self.0.iter().map(|one| one.fingerprint.clone()).collect();
        all.sort();
        all
    }

    /// The ids of the keys that are written to, as messages name them: of subkeys, most of them.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        let ids = self.0.iter().map(|one| one.target.legacy_key_id());
        ids.map(KeyId::from).collect()
    }

    /// AES at its longest key that every recipient asked for or left open. AES-128 where they agree on none, which every
    /// implementation must have (RFC 9580, 9.3).
    pub(super) fn cipher(&self) -> SymmetricKeyAlgorithm {
        let order = [SymmetricKeyAlgorithm::AES256, SymmetricKeyAlgorithm::AES192];
        let suits = |cipher: &SymmetricKeyAlgorithm| {
            let mut all = self.0.iter();
            all.all(|one| one.ciphers.is_empty() || one.ciphers.contains(cipher))
        };
        let mut order = order.into_iter();
        order.find(suits).unwrap_or(SymmetricKeyAlgorithm::AES128)
    }

    /// The packets with the session key, one for each recipient.
    pub(super) fn session_key_packets(
        &self,
        session_key: &RawSessionKey,
        algorithm: SymmetricKeyAlgorithm,
    ) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for recipient in &self.0 {
            let packet = PublicKeyEncryptedSessionKey::from_session_key_v3(
                OsRng,
                session_key,
                algorithm,
                &&*recipient.target,
            );
            let written = packet.and_then(|packet| packet.to_writer_with_header(&mut bytes));
            written.map_err(|_| {
                let key = &recipient.fingerprint;
                std::io::Error::other(format!("could not encrypt to the OpenPGP key {key}"))
            })?;
        }
        Ok(bytes)
    }
}

/// The public half.
fn public(certificate: &PublicOrSecret) -> SignedPublicKey {
    match certificate {
        PublicOrSecret::Public(key) => key.clone(),
        PublicOrSecret::Secret(key) => key.to_public_key(),
    }
}

/// The part of a certificate that has this number.
fn part(certificate: &SignedPublicKey, name: &Name) -> Option<Fingerprint> {
    let subkeys = certificate.public_subkeys.iter();
    let mut all = subkeys
        .map(KeyDetails::fingerprint)
        .chain([certificate.fingerprint()]);
    all.find(|fingerprint| name.names_key(&hex(fingerprint)))
}

/// Whether the certificate, one of its parts or one of its user ids has this name.
fn is_named(certificate: &SignedPublicKey, name: &Name, now: DateTime<Utc>) -> bool {
    match name {
        Name::Number(..) => part(certificate, name).is_some(),
        Name::Exact(_) | Name::Mail(_) | Name::Part(_) => {
            // Signatures are verified only where the name fits.
            let mut users = certificate.details.users.iter();
            users.any(|user| name.names_user(user.id.id()))
                && Judged::new(certificate, now.timestamp())
                    .names()
                    .any(|user| name.names_user(user))
        }
    }
}

fn hex(fingerprint: &Fingerprint) -> String {
    format!("{fingerprint:X}")
}

/// Secret keys, open. `Debug` shows their ids only.
#[derive(Clone)]
pub struct SecretKeys {
    parts: Vec<Arc<Part>>,
    /// Keys that the passphrase does not open.
    locked: Vec<KeyId>,
    certificates: Vec<SignedPublicKey>,
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SecretKeys").field(&self.key_ids()).finish()
    }
}

/// A key, or a subkey.
enum Part {
    Key(SecretKey),
    Subkey(SecretSubkey),
}

impl Part {
    fn id(&self) -> KeyId {
        match self {
            Self::Key(key) => key.legacy_key_id().into(),
            Self::Subkey(key) => key.legacy_key_id().into(),
        }
    }

    fn algorithm(&self) -> PublicKeyAlgorithm {
        match self {
            Self::Key(key) => key.algorithm(),
            Self::Subkey(key) => key.algorithm(),
        }
    }

    fn params(&self) -> &SecretParams {
        match self {
            Self::Key(key) => key.secret_params(),
            Self::Subkey(key) => key.secret_params(),
        }
    }

    /// Whether the private part is elsewhere: `GnuPG`'s stub of a key that is offline or on a card.
    fn is_stub(&self) -> bool {
        let SecretParams::Encrypted(locked) = self.params() else {
            return false;
        };
        matches!(
            locked.string_to_key_params(),
            S2kParams::Cfb {
                s2k: StringToKey::Private { .. },
                ..
            } | S2kParams::MalleableCfb {
                s2k: StringToKey::Private { .. },
                ..
            }
        )
    }

    fn unlock(&mut self, passphrase: &Password) -> bool {
        let unlocked = match self {
            Self::Key(key) => key.remove_password(passphrase),
            Self::Subkey(key) => key.remove_password(passphrase),
        };
        unlocked.is_ok()
    }

    fn matches(&self, session_key: &PublicKeyEncryptedSessionKey) -> bool {
        match self {
            Self::Key(key) => session_key.match_identity(key),
            Self::Subkey(key) => session_key.match_identity(key),
        }
    }

    /// rPGP's words are left out: they may hold a secret.
    fn decrypt(&self, session_key: &PublicKeyEncryptedSessionKey) -> Option<PlainSessionKey> {
        let kind = match session_key.version() {
            PkeskVersion::V3 => EskType::V3_4,
            PkeskVersion::V6 => EskType::V6,
            PkeskVersion::Other(_) => return None,
        };
        let values = session_key.values().ok()?;
        if !has_wrapped_length(values) {
            return None;
        }
        let open = Password::empty();
        if let (PkeskBytes::Rsa { mpi }, EskType::V3_4) = (values, kind) {
            let plain = match self {
                Self::Key(key) => key.unlock(&open, |_, secret| Ok(of_rsa(secret, mpi))),
                Self::Subkey(key) => key.unlock(&open, |_, secret| Ok(of_rsa(secret, mpi))),
            };
            return session_key_in(&plain.ok()?.ok()??);
        }
        let decrypted = match self {
            Self::Key(key) => key.decrypt(&open, values, kind),
            Self::Subkey(key) => key.decrypt(&open, values, kind),
        };
        decrypted.ok()?.ok()
    }
}

/// What is encrypted to an RSA key.
fn of_rsa(secret: &PlainSecretParams, encrypted: &Mpi) -> Option<Zeroizing<Vec<u8>>> {
    match secret {
        PlainSecretParams::RSA(key) => key.decrypt(encrypted).ok(),
        _ => None,
    }
}

/// The session key of an old packet in what was encrypted: the cipher, the key, the sum of the key's bytes (RFC 9580, 5.1.3). rPGP
/// 0.20 reads the first byte without a look, and whoever has the public key may encrypt nothing at all.
fn session_key_in(plain: &[u8]) -> Option<PlainSessionKey> {
    let (&cipher, rest) = plain.split_first()?;
    let (key, told) = rest.split_last_chunk::<2>()?;
    let sym_alg = SymmetricKeyAlgorithm::from(cipher);
    let sum = key
        .iter()
        .fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    let is_one = sym_alg != SymmetricKeyAlgorithm::Plaintext
        && !key.is_empty()
        && key.len() == sym_alg.key_size()
        && sum.to_be_bytes() == *told;
    is_one.then(|| PlainSessionKey::V3_4 {
        key: key.into(),
        sym_alg,
    })
}

/// Whether what is wrapped by AES (RFC 3394) has a length that it can have: 8 bytes, and whole blocks of 8 bytes, two at least.
/// rPGP 0.20 subtracts 8 without a look.
fn has_wrapped_length(values: &PkeskBytes) -> bool {
    let wrapped = match values {
        PkeskBytes::Ecdh {
            encrypted_session_key,
            ..
        } => encrypted_session_key,
        PkeskBytes::X25519 { session_key, .. } | PkeskBytes::X448 { session_key, .. } => {
            session_key
        }
        _ => return true,
    };
    wrapped.len() >= 24 && wrapped.len() % 8 == 0
}

/// What became of a session key.
pub(super) enum Opened {
    /// It is open.
    Yes(PlainSessionKey),
    /// It names a key at hand, which does not open it.
    Refused(KeyId),
    /// No key at hand is meant, or none of them opens it.
    NotOurs,
}

impl SecretKeys {
    /// All secret keys of a key file, armoured or binary, opened with the passphrase where they need one. `\n` in two characters is
    /// the end of a line, too. Public keys in it are passed over, and parts without their private half.
    ///
    /// # Errors
    /// When there is no secret key for decryption, none can be opened, or one cannot be read.
    pub fn from_keys(bytes: &[u8], passphrase: Option<&str>) -> Result<Self, KeysError> {
        let password = Password::from(passphrase.unwrap_or_default());
        let mut keys = Self {
            parts: Vec::new(),
            locked: Vec::new(),
            certificates: Vec::new(),
        };
        for certificate in ring::of_file(bytes)? {
            let PublicOrSecret::Secret(secret) = certificate else {
                continue;
            };
            keys.certificates.push(secret.to_public_key());
            keys.take(Part::Key(secret.primary_key), &password);
            for subkey in secret.secret_subkeys {
                keys.take(Part::Subkey(subkey.key), &password);
            }
        }
        if !keys.parts.is_empty() {
            return Ok(keys);
        }
        let locked = keys.locked;
        Err(match passphrase {
            _ if locked.is_empty() => KeysError::None("secret key for decryption"),
            None => KeysError::NoPassphrase { keys: locked },
            Some(_) => KeysError::Passphrase { keys: locked },
        })
    }

    /// Keeps a part that may decrypt. Its flags and its end do not matter: what was encrypted to it is to be read.
    fn take(&mut self, mut part: Part, passphrase: &Password) {
        let decrypts = part.algorithm().can_encrypt();
        if !decrypts || part.is_stub() {
            return;
        }
        if part.unlock(passphrase) {
            self.parts.push(Arc::new(part));
        } else {
            self.locked.push(part.id());
        }
    }

    /// These and the others.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.parts.extend(others.parts);
        self.locked.extend(others.locked);
        self.certificates.extend(others.certificates);
        self
    }

    /// The ids of the keys that are open.
    #[must_use]
    pub fn key_ids(&self) -> Vec<KeyId> {
        self.parts.iter().map(|part| part.id()).collect()
    }

    /// The same keys as recipients, as WAL-G takes a private key.
    ///
    /// # Errors
    /// When one cannot be used `now`.
    pub fn recipients(&self, now: DateTime<Utc>) -> Result<PgpRecipients, KeysError> {
        let certificates = self.certificates.iter();
        let recipients =
            certificates.map(|certificate| PgpRecipient::new(certificate, None, now.timestamp()));
        Ok(PgpRecipients(recipients.collect::<Result<_, _>>()?))
    }

    /// Opens a session key with the key that it names, or with any where it names none.
    pub(super) fn open(&self, session_key: &PublicKeyEncryptedSessionKey) -> Opened {
        let mut refused = None;
        for part in self.parts.iter().filter(|part| part.matches(session_key)) {
            if let Some(opened) = part.decrypt(session_key) {
                return Opened::Yes(opened);
            }
            refused = Some(part.id());
        }
        let is_hidden = session_key
            .id()
            .is_ok_and(|id| KeyId::from(*id) == KeyId::HIDDEN)
            || session_key.fingerprint().is_ok_and(|key| key.is_none());
        match refused {
            Some(key) if !is_hidden => Opened::Refused(key),
            _ => Opened::NotOurs,
        }
    }

    /// Those of these keys that are at hand, but locked.
    pub(super) fn locked_among(&self, keys: &[KeyId]) -> Vec<KeyId> {
        let locked = self.locked.iter().filter(|key| keys.contains(key));
        locked.copied().collect()
    }
}
