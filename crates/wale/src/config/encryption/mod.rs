//! The keys of the archive: what new objects are encrypted with, and what old ones are read with.
//!
//! A key that is set and cannot be used is a mistake, never a reason to store in the clear. No text of a key is quoted.

pub(super) mod value;

use std::path::Path;

use chrono::{DateTime, Utc};
use wale_cluster::read_bounded_text;
use wale_format::crypt::age::Identities;
use wale_format::crypt::libsodium::{self, Key};
use wale_format::{KeyRing, WriteKey};
use wale_ops::OpError;

use super::declared::{
    WALE_AGE_IDENTITY_FILE, WALE_AGE_RECIPIENTS, WALE_ENCRYPTION_CHANGE, WALE_LIBSODIUM_OLD_KEYS,
    WALG_LIBSODIUM_KEY, WALG_LIBSODIUM_KEY_PATH, WALG_LIBSODIUM_KEY_TRANSFORM,
};
use super::group::Group;
use super::mistake::Mistake;
use super::pgp::PgpSettings;
use super::reader::Reader;

/// A file of keys is refused above this: 64 KiB.
const KEYS_MAX: u64 = 64 << 10;

/// Everything about encryption.
#[derive(Debug, Clone, Default)]
pub(crate) struct EncryptionSettings {
    /// What new objects are encrypted with.
    pub(crate) write_key: WriteKey,
    /// What objects are read with.
    pub(crate) key_ring: KeyRing,
    /// The keys of OpenPGP: they are read when the archive is opened, for that may run a program.
    pgp: Option<PgpSettings>,
    /// What the encryption of the archive may become.
    pub(crate) accepted: Option<String>,
    /// What deserves a warning.
    pub(crate) warnings: Vec<String>,
}

/// Reads them. What is wrong is kept as a mistake of the reader.
pub(super) fn read(reader: &mut Reader) -> EncryptionSettings {
    let mut settings = EncryptionSettings {
        accepted: reader.get(&WALE_ENCRYPTION_CHANGE),
        ..EncryptionSettings::default()
    };
    let recipients = reader.get(&WALE_AGE_RECIPIENTS);
    let key = libsodium_key(reader, &mut settings.warnings);
    if let Some(key) = &key {
        settings.key_ring.add_libsodium(key.clone());
    }
    for key in old_keys(reader) {
        settings.key_ring.add_libsodium(key);
    }
    if let Some(identities) = identities(reader) {
        settings.key_ring.add_age(identities);
    }
    settings.pgp = PgpSettings::read(reader);
    let methods = [
        (recipients.is_some(), "WALE_AGE_RECIPIENTS"),
        (key.is_some(), "WALG_LIBSODIUM_KEY"),
        (
            settings.pgp.as_ref().is_some_and(PgpSettings::writes),
            "an OpenPGP key",
        ),
    ];
    let set: Vec<&str> = methods
        .iter()
        .filter(|one| one.0)
        .map(|one| one.1)
        .collect();
    if let [one, other, ..] = set.as_slice() {
        mistake(
            reader,
            format!(
                "{one} and {other} are both set, and new objects are encrypted with one of them"
            ),
            "keep one of them; a key of libsodium that old objects are still read with goes into WALE_LIBSODIUM_OLD_KEYS, one of \
             OpenPGP into WALE_GPG_SECRET_KEY_FILE",
        );
        return settings;
    }
    settings.write_key = match (recipients, key) {
        (Some(recipients), _) => WriteKey::Age(recipients),
        (None, Some(key)) => WriteKey::Libsodium(key),
        (None, None) => WriteKey::None,
    };
    settings
}

impl EncryptionSettings {
    /// The key that new objects are written with, and all that old ones are read with. Keys of OpenPGP are read for it, and
    /// `gpg` may be run. `now` is the time that a public key must be valid at.
    ///
    /// # Errors
    /// When a key of OpenPGP is not found, or cannot be used.
    pub(crate) fn keys(&self, now: DateTime<Utc>) -> Result<(WriteKey, KeyRing), OpError> {
        let (mut write_key, mut ring) = (self.write_key.clone(), self.key_ring.clone());
        if let Some(pgp) = &self.pgp {
            if let Some(recipients) = pgp.recipients(now)? {
                write_key = WriteKey::OpenPgp(recipients);
            }
            if let Some(keys) = pgp.secret_keys()? {
                ring.add_openpgp(keys);
            }
        }
        Ok((write_key, ring))
    }
}

fn mistake(reader: &mut Reader, text: impl Into<String>, hint: &str) {
    let mistake = Mistake::new(Group::Archive, text).hint(hint);
    reader.mistakes.push(mistake);
}

/// The key that is written with, and which setting has it.
fn libsodium_key(reader: &mut Reader, warnings: &mut Vec<String>) -> Option<Key> {
    let value = reader.get(&WALG_LIBSODIUM_KEY);
    let path = reader.get(&WALG_LIBSODIUM_KEY_PATH);
    let (name, text) = match (value, path) {
        (Some(_), Some(_)) => {
            mistake(
                reader,
                "WALG_LIBSODIUM_KEY and WALG_LIBSODIUM_KEY_PATH are both set",
                "keep one of them",
            );
            return None;
        }
        (Some(value), None) => (WALG_LIBSODIUM_KEY.name(), value.expose().to_owned()),
        (None, Some(path)) => {
            let name = WALG_LIBSODIUM_KEY_PATH.name();
            let text = key_file(reader, name, &path)?;
            (name, text.trim().to_owned())
        }
        (None, None) => return None,
    };
    let transform = reader.get(&WALG_LIBSODIUM_KEY_TRANSFORM);
    if transform == libsodium::KeyTransform::None
        && let Some(meant) = libsodium::looks_encoded(&text)
    {
        let meant = meant.name();
        warnings.push(format!(
            "{name} looks like 32 bytes in {meant}, and WALG_LIBSODIUM_KEY_TRANSFORM is none: its first 32 characters are the \
             key, with half of its bits or less; a new archive should have WALG_LIBSODIUM_KEY_TRANSFORM={meant}, an old one \
             can be read only as it was written"
        ));
    }
    parsed(reader, name, &text, transform)
}

fn parsed(
    reader: &mut Reader,
    name: &str,
    text: &str,
    transform: libsodium::KeyTransform,
) -> Option<Key> {
    match Key::parse(text, transform) {
        Ok(key) => Some(key),
        Err(error) => {
            mistake(
                reader,
                format!("{name}: {error}"),
                "set WALG_LIBSODIUM_KEY_TRANSFORM as the key is written: none, hex or base64",
            );
            None
        }
    }
}

fn old_keys(reader: &mut Reader) -> Vec<Key> {
    let Some(text) = reader.get(&WALE_LIBSODIUM_OLD_KEYS) else {
        return Vec::new();
    };
    let transform = reader.get(&WALG_LIBSODIUM_KEY_TRANSFORM);
    let lines = text.expose().lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .filter_map(|line| parsed(reader, WALE_LIBSODIUM_OLD_KEYS.name(), line, transform))
        .collect()
}

fn identities(reader: &mut Reader) -> Option<Identities> {
    let path = reader.get(&WALE_AGE_IDENTITY_FILE)?;
    let name = WALE_AGE_IDENTITY_FILE.name();
    let text = key_file(reader, name, &path)?;
    match Identities::parse(&text) {
        Ok(identities) => Some(identities),
        Err(error) => {
            mistake(
                reader,
                format!("{name}: \"{}\": {error}", path.display()),
                "name a file that age-keygen wrote, or a private key of OpenSSH without a passphrase",
            );
            None
        }
    }
}

fn key_file(reader: &mut Reader, name: &str, path: &Path) -> Option<String> {
    match read_bounded_text(path, KEYS_MAX) {
        Ok(text) => Some(text),
        Err(error) => {
            mistake(
                reader,
                format!("{name}: could not read \"{}\": {error}", path.display()),
                "mount the file with the key, or unset the variable",
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use wale_format::Encryption;

    use super::*;
    use crate::config::Loaded;

    const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";
    const HEX: &str = "9839b4ea10b3619fed8b0d0091963bacda5881c01a4176f520dbc70f62d44bb7";

    fn loaded(set: &[(&str, &str)]) -> Result<EncryptionSettings, String> {
        let archive = ("WALE_FILE_PREFIX", "/a");
        let loaded = Loaded::for_test(&[&[archive][..], set].concat(), "");
        match loaded.require(&[Group::Archive]) {
            Ok(settings) => Ok(settings.encryption.clone()),
            Err(error) => Err(format!("{error}\n{:?}\n{:?}", error.detail, error.hint)),
        }
    }

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(content.as_bytes()).expect("written");
        file
    }

    #[test]
    fn one_method_writes_and_every_key_reads() {
        let none = loaded(&[]).expect("good settings");
        assert_eq!(none.write_key.method(), Encryption::None);
        let key = file(&format!("  {HEX}\n"));
        let path = key.path().to_str().expect("a path");
        let identity = file(
            "# x\nAGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33\n",
        );
        let identity = identity.path().to_str().expect("a path");
        let sodium = loaded(&[
            ("WALG_LIBSODIUM_KEY_PATH", path),
            ("WALG_LIBSODIUM_KEY_TRANSFORM", "hex"),
        ])
        .expect("good settings");
        let inline = [
            ("WALG_LIBSODIUM_KEY", HEX),
            ("WALG_LIBSODIUM_KEY_TRANSFORM", "hex"),
        ];
        assert_eq!(
            sodium.write_key.word(),
            loaded(&inline).expect("good settings").write_key.word()
        );
        assert!(sodium.warnings.is_empty());
        let age = loaded(&[
            ("WALE_AGE_RECIPIENTS", RECIPIENT),
            ("WALE_AGE_IDENTITY_FILE", identity),
            ("WALE_LIBSODIUM_OLD_KEYS", &format!("{HEX}\n{HEX}")),
            ("WALE_ENCRYPTION_CHANGE", "none"),
        ])
        .expect("good settings");
        assert_eq!(age.write_key.method(), Encryption::Age);
        assert!(
            age.key_ring.has_key(Encryption::Age) && age.key_ring.has_key(Encryption::Libsodium)
        );
        assert_eq!(age.accepted.as_deref(), Some("none"));
    }

    #[test]
    fn a_key_that_looks_encoded_and_is_taken_as_it_is_deserves_a_warning() {
        let warned = loaded(&[("WALG_LIBSODIUM_KEY", HEX)]).expect("good settings");
        assert!(warned.warnings[0].contains("in hex"), "{warned:?}");
        assert!(!format!("{warned:?}").contains(&HEX[..9]));
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_never_shown() {
        let canary = "AGE-SECRET-KEY-1CANARY";
        let secret = file(canary);
        let secret = secret.path().to_str().expect("a path");
        for (set, word) in [
            (&[("WALE_AGE_RECIPIENTS", canary)][..], "a secret one"),
            (&[("WALE_AGE_RECIPIENTS", "CANARY")], "neither"),
            (
                &[("WALE_AGE_IDENTITY_FILE", canary)],
                "not an absolute path",
            ),
            (&[("WALE_AGE_IDENTITY_FILE", secret)], "line 1"),
            (
                &[("WALE_AGE_IDENTITY_FILE", "/nonexistent")],
                "could not read",
            ),
            (&[("WALG_LIBSODIUM_KEY", "CANARY")], "6 bytes"),
            (
                &[("WALG_LIBSODIUM_KEY_PATH", "CANARY")],
                "not an absolute path",
            ),
            (
                &[("WALG_LIBSODIUM_KEY_PATH", "/nonexistent")],
                "could not read",
            ),
            (&[("WALE_LIBSODIUM_OLD_KEYS", "CANARY")], "6 bytes"),
            (
                &[
                    ("WALG_LIBSODIUM_KEY", HEX),
                    ("WALG_LIBSODIUM_KEY_PATH", "/k"),
                ],
                "both set",
            ),
            (
                &[
                    ("WALG_LIBSODIUM_KEY", HEX),
                    ("WALE_AGE_RECIPIENTS", RECIPIENT),
                ],
                "both set",
            ),
            (&[("WALG_CSE_KMS_ID", "CANARY")], "Amazon's key service"),
            (&[("YC_CSE_KMS_KEY_ID", "CANARY")], "Yandex's key service"),
            (
                &[("WALG_ENVELOPE_PGP_KEY", "CANARY")],
                "that a key service encrypts",
            ),
        ] {
            let told = loaded(set).expect_err("a mistake");
            assert!(told.contains(word), "{set:?}: {told}");
            assert!(!told.contains("CANARY"), "{told}");
        }
    }
}
