//! Key files, key rings and keyboxes, as certificates; and how a person names one of them.
//!
//! | what | sign | source followed |
//! |---|---|---|
//! | armoured keys, one block or several | `-----BEGIN PGP` | RFC 4880, 6.2 |
//! | binary keys, `pubring.gpg` | a packet of a key | RFC 4880, 11.1; notes of trust in it are `GnuPG`'s own |
//! | `pubring.kbx` | `KBXf` at byte 8 | `GnuPG` 2.2, kbx/keybox-blob.c |
//!
//! Refuses to know: which certificate is good.

use std::io::{BufReader, Read as _};

use pgp::armor::Dearmor;
use pgp::composed::PublicOrSecret;
use zeroize::Zeroizing;

use super::error::{KeysError, listed};
use super::packet::{self, Heading, Length};

/// What an armoured key begins with.
const ARMOUR: &[u8] = b"-----BEGIN PGP ";
/// What the last line of one begins with.
const ARMOUR_END: &[u8] = b"-----END PGP ";

/// The certificates in a key file, in their order, public and secret ones.
///
/// # Errors
/// When one of them cannot be read.
pub(super) fn of_file(bytes: &[u8]) -> Result<Vec<PublicOrSecret>, KeysError> {
    let mut certificates = Vec::new();
    for block in blocks(bytes)? {
        for certificate in of_packets(&block)? {
            certificates.push(certificate.map_err(KeysError::Damaged)?);
        }
    }
    Ok(certificates)
}

/// The certificates in a key ring of `GnuPG`: `pubring.kbx`, `pubring.gpg`, or a key file. What cannot be understood is somebody
/// else's key, and left out.
///
/// # Errors
/// When the ring as such cannot be read.
pub(super) fn of_ring(bytes: &[u8]) -> Result<Vec<PublicOrSecret>, KeysError> {
    let mut certificates = Vec::new();
    if is_keybox(bytes) {
        for block in keybox(bytes)? {
            certificates.extend(of_packets(block).into_iter().flatten().flatten());
        }
        return Ok(certificates);
    }
    for block in blocks(bytes)? {
        certificates.extend(of_packets(&block)?.into_iter().flatten());
    }
    Ok(certificates)
}

/// Binary packets in a file of keys: each armoured block, or the file.
fn blocks(bytes: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>, KeysError> {
    let Some(start) = find(bytes, ARMOUR) else {
        return Ok(vec![Zeroizing::new(bytes.to_vec())]);
    };
    let text = Zeroizing::new(with_line_ends(&bytes[start..]));
    let mut rest = text.as_slice();
    let mut blocks = Vec::new();
    while let Some(start) = find(rest, ARMOUR) {
        let block = &rest[start..];
        let end = find(block, ARMOUR_END)
            .ok_or_else(|| KeysError::Damaged("an armoured key has no end".to_owned()))?;
        let last_line = block[end..].iter().position(|&byte| byte == b'\n');
        let end = end + last_line.unwrap_or(block.len() - end);
        let mut binary = Zeroizing::new(Vec::new());
        Dearmor::new(BufReader::new(&block[..end]))
            .read_to_end(&mut binary)
            .map_err(|_| KeysError::Damaged("the armour of a key is damaged".to_owned()))?;
        blocks.push(binary);
        rest = &block[end..];
    }
    Ok(blocks)
}

/// The text in which `\n` in two characters is the end of a line, as WAL-G takes it in the value of a setting. Neither base64 nor
/// the usual headers have a backslash.
fn with_line_ends(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = find(rest, b"\\n") {
        plain.extend(&rest[..at]);
        plain.push(b'\n');
        rest = &rest[at + 2..];
    }
    plain.extend(rest);
    plain
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

/// The certificates in a sequence of packets, or why one of them is none.
fn of_packets(bytes: &[u8]) -> Result<Vec<Result<PublicOrSecret, String>>, KeysError> {
    let groups = grouped(bytes)?;
    Ok(groups.iter().map(|group| certificate(group)).collect())
}

/// rPGP's words are left out where they could hold a part of a secret key.
fn certificate(packets: &[u8]) -> Result<PublicOrSecret, String> {
    let parsed = PublicOrSecret::from_bytes_many(packets);
    let first = parsed.ok().and_then(|mut keys| keys.next());
    match first {
        Some(Ok(certificate)) => Ok(certificate),
        _ => Err("one of them is of a kind that is not understood, or damaged".to_owned()),
    }
}

/// The packets of each certificate, without what `GnuPG` notes beside them, and without pictures.
fn grouped(bytes: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>, KeysError> {
    let mut groups: Vec<Zeroizing<Vec<u8>>> = Vec::new();
    let mut rest = bytes;
    let mut skips = false;
    while !rest.is_empty() {
        let start = rest;
        let broken = || KeysError::Damaged("they are no packets of OpenPGP, or cut off".to_owned());
        let header = Heading::read(&mut rest).map_err(|_| broken())?;
        let Some(Heading {
            tag,
            length: Length::Last(length),
        }) = header
        else {
            return Err(broken());
        };
        let length = usize::try_from(length).map_err(|_| broken())?;
        rest = rest.get(length..).ok_or_else(broken)?;
        let whole = &start[..start.len() - rest.len()];
        match tag {
            packet::PUBLIC_KEY | packet::SECRET_KEY => groups.push(Zeroizing::default()),
            _ if groups.is_empty() => return Err(broken()),
            _ => {}
        }
        // The signatures behind a picture belong to it.
        skips = match tag {
            packet::ATTRIBUTE => true,
            packet::SIGNATURE | packet::TRUST => skips,
            _ => false,
        };
        if !skips && !matches!(tag, packet::TRUST | packet::MARKER | packet::PADDING) {
            groups.last_mut().ok_or_else(broken)?.extend(whole);
        }
    }
    Ok(groups)
}

/// The fixed beginning of a blob in a keybox: length, type, version, flags, and where its packets are.
const BLOB_HEAD_BYTES: usize = 16;
/// The type of a blob with a certificate of OpenPGP. Others are X.509's, the header and what was deleted.
const BLOB_OPENPGP: u8 = 2;

fn is_keybox(bytes: &[u8]) -> bool {
    bytes.get(4) == Some(&1) && bytes.get(8..12) == Some(b"KBXf")
}

/// The packets of each certificate in a keybox.
fn keybox(bytes: &[u8]) -> Result<Vec<&[u8]>, KeysError> {
    let broken = || KeysError::Damaged("the keybox is cut off or damaged".to_owned());
    let number = |blob: &[u8], at: usize| -> Option<usize> {
        let four = blob.get(at..at + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_be_bytes(*four)).ok()
    };
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = number(rest, 0)
            .filter(|&length| length >= 5)
            .ok_or_else(broken)?;
        let blob = rest.get(..length).ok_or_else(broken)?;
        rest = &rest[length..];
        if blob[4] != BLOB_OPENPGP {
            continue;
        }
        let place = number(blob, 8)
            .zip(number(blob, 12))
            .filter(|(at, _)| *at >= BLOB_HEAD_BYTES);
        let (at, count) = place.ok_or_else(broken)?;
        let end = at.checked_add(count).ok_or_else(broken)?;
        found.push(blob.get(at..end).ok_or_else(broken)?);
    }
    Ok(found)
}

/// How a person names a key, as `gpg -r` takes it (`GnuPG`'s manual, "How to Specify a User Id").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// The end of a fingerprint in capitals (a key id has 8 or 16 digits, a fingerprint all), and whether exactly this part of
    /// the certificate is meant.
    Number(String, bool),
    /// The whole user id.
    Exact(String),
    /// The mail address in the user id, in small letters.
    Mail(String),
    /// A part of the user id, in small letters.
    Part(String),
}

impl Name {
    /// # Errors
    /// When it is empty, or of a kind that names no certificate or needs `GnuPG` itself.
    pub(super) fn parse(name: &str) -> Result<Self, KeysError> {
        let text = name.trim();
        let unknown = || KeysError::Name {
            name: name.to_owned(),
        };
        if let Some(number) = number(text) {
            return Ok(number);
        }
        let (kind, rest) = text.split_at_checked(1).ok_or_else(unknown)?;
        let parsed = match kind {
            "=" => Self::Exact(rest.to_owned()),
            "<" => Self::Mail(rest.strip_suffix('>').unwrap_or(rest).to_lowercase()),
            "@" | "*" => Self::Part(rest.to_lowercase()),
            // A keygrip, an issuer and the like of X.509, a search of words.
            "&" | "#" | "/" | "+" | "^" | "." => return Err(unknown()),
            _ => Self::Part(text.to_lowercase()),
        };
        let is_empty = match &parsed {
            Self::Exact(text) | Self::Mail(text) | Self::Part(text) => text.is_empty(),
            Self::Number(..) => false,
        };
        if is_empty { Err(unknown()) } else { Ok(parsed) }
    }

    /// Whether it names a key of this fingerprint.
    pub(super) fn names_key(&self, fingerprint: &str) -> bool {
        match self {
            // The id of a key of version 6 is the other end.
            Self::Number(digits, _) if fingerprint.len() == 64 => fingerprint.starts_with(digits),
            Self::Number(digits, _) => fingerprint.ends_with(digits),
            _ => false,
        }
    }

    /// Whether it names a key with this user id.
    pub(super) fn names_user(&self, user: &[u8]) -> bool {
        let user = String::from_utf8_lossy(user);
        match self {
            Self::Number(..) => false,
            Self::Exact(text) => *text == user,
            Self::Part(text) => user.to_lowercase().contains(text),
            Self::Mail(text) => {
                let mail = user.rsplit_once('<').map_or(&*user, |(_, mail)| mail);
                mail.strip_suffix('>').unwrap_or(mail).to_lowercase() == *text
            }
        }
    }
}

/// A key id or a fingerprint: 8, 16, 32, 40 or 64 digits, with or without `0x` before and spaces between, `!` behind.
fn number(text: &str) -> Option<Name> {
    let (text, is_exact) = match text.strip_suffix('!') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let bare = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits: String = bare.unwrap_or(text).split_whitespace().collect();
    let is_number = matches!(digits.len(), 8 | 16 | 32 | 40 | 64)
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_number.then(|| Name::Number(digits.to_uppercase(), is_exact))
}

/// The fingerprints of certificates that one name has, for a message.
pub(super) fn several(name: &str, fingerprints: Vec<String>) -> KeysError {
    debug_assert!(fingerprints.len() > 1, "{}", listed(&fingerprints));
    KeysError::Several {
        name: name.to_owned(),
        fingerprints,
    }
}
