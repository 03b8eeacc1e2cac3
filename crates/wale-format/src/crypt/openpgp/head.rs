//! What the first bytes of an object show: whether it is a message, and for whom.

use super::error::KeyId;
use super::packet;

/// Whether a stored object may be a message of OpenPGP, by its first bytes; 16 are enough.
///
/// It says so of a binary message that begins with a session key for a public key or for a passphrase, as all do that `gpg` and
/// WAL-G write. No codec's stream begins like this.
#[must_use]
pub fn looks_like(head: &[u8]) -> bool {
    let mut rest = head;
    let Ok(Some(header)) = packet::Heading::read(&mut rest) else {
        return false;
    };
    let packet::Length::Last(length) = header.length else {
        return false;
    };
    match (header.tag, rest) {
        // Version, key id, algorithm: RSA, Elgamal, ECDH, X25519, X448.
        (packet::SESSION_KEY, [3, _, _, _, _, _, _, _, _, algorithm, ..]) => {
            length >= 40 && matches!(algorithm, 1 | 2 | 16 | 18 | 25 | 26)
        }
        (packet::SESSION_KEY, [6, ..]) => length >= 40,
        // Version, cipher, kind of derivation.
        (packet::PASSPHRASE_KEY, [4..=6, ..]) => (4..=256).contains(&length),
        _ => false,
    }
}

/// Keys of a message that are told, at most.
const KEYS_TOLD: usize = 16;

/// The keys that a message is encrypted to, as far as its first bytes show them: 16 show one. At most as many.
#[must_use]
pub fn recipients_of(head: &[u8]) -> Vec<KeyId> {
    let mut rest = head;
    let mut keys = Vec::new();
    while keys.len() < KEYS_TOLD
        && let Ok(Some(header)) = packet::Heading::read(&mut rest)
    {
        let packet::Length::Last(length) = header.length else {
            break;
        };
        if header.tag == packet::SESSION_KEY {
            keys.extend(recipient(rest));
        }
        match usize::try_from(length) {
            Ok(length) if length <= rest.len() => rest = &rest[length..],
            _ => break,
        }
    }
    keys
}

/// The key that the body of a session key's packet is for.
pub(super) fn recipient(body: &[u8]) -> Option<KeyId> {
    match body {
        [3, key @ ..] => Some(KeyId(key.first_chunk::<8>().copied()?)),
        // A length, the version of the key, its fingerprint; the id is one of its ends.
        [6, 0, ..] => Some(KeyId::HIDDEN),
        [6, length, version, rest @ ..] => {
            let fingerprint = rest.get(..usize::from(*length).checked_sub(1)?)?;
            let key = match version {
                4 => fingerprint.last_chunk::<8>(),
                _ => fingerprint.first_chunk::<8>(),
            };
            Some(KeyId(*key?))
        }
        _ => None,
    }
}
