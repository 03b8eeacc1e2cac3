//! Encryption is a property of the archive: recorded in `wale.json` at first use, compared before anything is written, and
//! never silently off.
//!
//! ```text
//! recorded        configured            new objects
//! nothing         nothing               in the clear
//! nothing         keys                  encrypted; recorded with the time
//! keys            the same keys         encrypted
//! keys            others, or nothing    refused, unless the operator names what it becomes (Archive::open_changing)
//! ```
//!
//! Beside each record lies a small object that is encrypted as the record says, on which a key can be tried.
//!
//! It refuses to know what a key looks like. Reading needs no record: each object is recognised by its own first bytes.

use wale_format::{ArchiveIdentity, Codec, Encryption, EncryptionRecord, WriteKey, layout};
use wale_storage::{ObjectKey, PutOutcome, StoreError, body_from};

use crate::Archive;
use crate::error::{Kind, OpError, Result};
use crate::read::damaged;
use crate::remedy::Remedy;

/// What the object says on which a key can be tried.
const TEST_TEXT: &[u8] = b"A key that opens this object opens this archive.\n";

/// That object has some hundred bytes more than its text and its keys; 64 KiB are many.
const TEST_BYTES_MAX: u64 = 64 << 10;

/// What the comparison of record and configuration asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// They agree.
    Same,
    /// The configuration is to be recorded.
    Record,
}

impl Archive {
    /// What new objects are encrypted with.
    #[must_use]
    pub fn write_key(&self) -> &WriteKey {
        self.inner.seal.write_key()
    }

    /// Compares what is configured with what is recorded.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when they differ, and the operator has not named what is configured.
    pub(crate) fn judge_encryption(&self, identity: &ArchiveIdentity) -> Result<Verdict> {
        let key = self.write_key();
        let recorded = identity.encryptions.last();
        let (method, keys) = match recorded {
            Some(record) => (record.method, record.keys.as_slice()),
            None => (identity.encryption, [].as_slice()),
        };
        if method == key.method() && keys == key.fingerprints() {
            return Ok(Verdict::Same);
        }
        let word = key.word();
        if method == Encryption::None || self.inner.accepted.as_ref() == Some(&word) {
            return Ok(Verdict::Record);
        }
        Err(self.refused(recorded, &word))
    }

    fn refused(&self, recorded: Option<&EncryptionRecord>, word: &str) -> OpError {
        let location = self.location();
        let old = recorded.map_or(Encryption::None, |record| record.method);
        let message = match self.write_key().method() {
            Encryption::None => format!("{location} is encrypted with {old}, and no key is set"),
            new if new == old => {
                format!("{location} is encrypted with {old} for other keys than those that are set")
            }
            new => format!("{location} is encrypted with {old}, and a key of {new} is set"),
        };
        let detail = recorded.map(|record| {
            let keys = match record.keys.len() {
                0 => String::new(),
                _ => format!(" for {}", record.keys.join(", ")),
            };
            format!(
                "So it is since {}{keys}. Nothing is written that would be readable to others than before.",
                record.since.format("%Y-%m-%d %H:%M:%S UTC")
            )
        });
        let mut error = OpError::new(Kind::Configuration, message)
            .hint("set the same keys again; to change them on purpose, say what the encryption becomes")
            .remedy(Remedy::EncryptionChange {
                word: word.to_owned(),
            });
        error.detail = detail;
        error
    }

    /// Puts what is configured into the record, with the object on which its keys can be tried. Returns whether it has to be
    /// stored.
    ///
    /// # Errors
    /// Those of [`Archive::judge_encryption`], and the store's.
    pub(crate) async fn update_encryption(&self, identity: &mut ArchiveIdentity) -> Result<bool> {
        if self.judge_encryption(identity)? == Verdict::Same {
            return Ok(false);
        }
        let (key, now) = (self.write_key(), self.clock().now());
        self.store_test().await?;
        tracing::warn!(
            archive = %self.location(), method = %key.method(), keys = ?key.fingerprints(),
            "from now on new objects are encrypted so; those that are there stay as they are"
        );
        identity.record(key.method(), key.fingerprints(), now);
        Ok(true)
    }

    /// Stores the object on which the configured keys can be tried.
    async fn store_test(&self) -> Result<()> {
        if self.write_key().method() == Encryption::None {
            return Ok(());
        }
        let key = test_key(&self.write_key().word())?;
        let sealed = self.seal_small_as(Codec::None, TEST_TEXT)?;
        match self.store().put_if_absent(&key, body_from(sealed)).await {
            Ok(PutOutcome::Created(_) | PutOutcome::Exists) => Ok(()),
            Err(error) => Err(OpError::from_store(error, format_args!("store {key}"))),
        }
    }

    /// Whether the keys that are configured are those of the archive: for writing those of its record, and for reading one that
    /// opens the object which was stored with the record. Without a key to read with nothing is opened. Asked at start;
    /// writes nothing.
    ///
    /// # Errors
    /// [`Kind::Configuration`] when they are not; [`Kind::CorruptData`] when that object is damaged; the store's.
    pub(crate) async fn check_encryption(&self, identity: &ArchiveIdentity) -> Result<()> {
        self.judge_encryption(identity)?;
        let Some(record) = identity.encryptions.last() else {
            return Ok(());
        };
        if record.method == Encryption::None || !self.inner.seal.key_ring().has_key(record.method) {
            return Ok(());
        }
        let key = test_key(&record.word())?;
        let sealed = match wale_storage::read_all(self.store(), &key, TEST_BYTES_MAX).await {
            Ok(sealed) => sealed,
            // Somebody removed it: what it would say each object says, too.
            Err(StoreError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(OpError::from_store(error, format_args!("read {key}"))),
        };
        match self.open_small(&key, Codec::None, &sealed)? {
            plain if plain == TEST_TEXT => Ok(()),
            _ => Err(damaged(&key, "it is not the text that was stored")),
        }
    }

    /// Whether an object that no key here opens is one of those that this archive's own host writes, which has public keys
    /// only. Such an object is good as far as can be known here, and whoever holds the secret key reads it.
    pub(crate) fn writes_without_reading(&self, method: Option<Encryption>) -> bool {
        let own = self.write_key().method();
        own != Encryption::None && method == Some(own) && !self.inner.seal.key_ring().has_key(own)
    }
}

fn test_key(word: &str) -> Result<ObjectKey> {
    Archive::key(&format!("{}{word}", layout::SEALED_TEST_PREFIX))
}
