//! What must hold after every step, whatever went wrong.
//!
//! * I1: what was acknowledged is stored, byte for byte.
//! * I2: nothing that was stored is ever changed or lost.
//! * No error is taken for absence: neither by a fetch nor by a proof.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use wale_format::layout::{self, ArchiveKey};
use wale_format::{Seal, WINDOW_MAX_BYTES};
use wale_ops::wal_push::PushReport;
use wale_ops::{Kind, OpError};
use wale_pg::{ArchiveFileName, WalSegmentName};
use wale_storage::{MemoryStore, ObjectKey};

use crate::expiry::{Stock, needs};

/// What is wrong, in words.
pub(crate) type Verdict = Result<(), String>;

/// Knows what was promised.
#[derive(Debug)]
pub(crate) struct Judge {
    memory: MemoryStore,
    /// Every object that was ever seen.
    seen: BTreeMap<ObjectKey, Bytes>,
    /// Acknowledged files, by name; for partial segments, of which several may have one name, by key.
    promised: BTreeMap<String, (ArchiveFileName, Arc<Vec<u8>>)>,
    /// Files that retention has removed: no promise holds for them any more.
    pub(crate) removed: BTreeSet<String>,
    stock: Stock,
    /// Acknowledgements, repeated ones included.
    pub(crate) acknowledgements: u64,
}

impl Judge {
    pub(crate) fn new(memory: MemoryStore) -> Self {
        Self {
            memory,
            seen: BTreeMap::new(),
            promised: BTreeMap::new(),
            removed: BTreeSet::new(),
            stock: Stock::default(),
            acknowledgements: 0,
        }
    }

    /// A push was acknowledged, of these bytes.
    pub(crate) fn acknowledged(&mut self, report: &PushReport, written: &Arc<Vec<u8>>) -> Verdict {
        self.acknowledgements += 1;
        let name = report.name;
        if self.removed.contains(&name.to_string()) {
            // A sidecar that remembers the push may say so, although nobody needs the file any more.
            return Ok(());
        }
        self.check_stored(&report.key, written)
            .map_err(|why| format!("I1: {name} was acknowledged, but {why}"))?;
        let promise = if matches!(name, ArchiveFileName::Partial(_)) {
            report.key.clone()
        } else {
            name.to_string()
        };
        match self.promised.insert(promise, (name, Arc::clone(written))) {
            Some((_, before)) if before != *written => Err(format!(
                "I2: {name} was acknowledged twice, of different bytes"
            )),
            _ => Ok(()),
        }
    }

    fn check_stored(&self, key: &str, written: &[u8]) -> Verdict {
        let object = ObjectKey::new(key).expect("a key");
        let content = self
            .memory
            .content(&object)
            .ok_or_else(|| format!("{key} does not exist"))?;
        match decoded(key, content) {
            Some(plain) if plain == written => Ok(()),
            Some(_) => Err(format!("{key} holds other bytes")),
            None => Err(format!("{key} cannot be decoded")),
        }
    }

    /// Looks at all objects: WAL that was there before is there unchanged, unless retention removed what no backup needs;
    /// what is listed as a backup is whole.
    pub(crate) fn look(&mut self) -> Verdict {
        let keys = self.memory.keys();
        for key in keys
            .iter()
            .filter(|key| key.as_str().starts_with(layout::WAL_PREFIX))
        {
            let content = self.memory.content(key).expect("nobody else is at work");
            match self.seen.get(key) {
                Some(before) if *before != content => {
                    return Err(format!("I2: {key} was overwritten"));
                }
                Some(_) => {}
                None => {
                    self.seen.insert(key.clone(), content);
                }
            }
        }
        let listed = self.stock.check(&self.memory)?;
        let gone: Vec<ObjectKey> = self
            .seen
            .keys()
            .filter(|key| keys.binary_search(key).is_err())
            .cloned()
            .collect();
        for key in gone {
            self.seen.remove(&key);
            let ArchiveKey::Wal { name, .. } = layout::parse(key.as_str()) else {
                return Err(format!("I2: {key} is gone"));
            };
            if name.segment().is_none_or(|segment| needs(&listed, segment)) {
                return Err(format!(
                    "I2: {key} is gone, and is needed by one of {listed:?}"
                ));
            }
            self.promised.retain(|_, (promised, _)| *promised != name);
            self.removed.insert(name.to_string());
        }
        Ok(())
    }

    /// An acknowledged segment that a backup can begin in: one of the newest.
    pub(crate) fn newest_segment(&self) -> Option<WalSegmentName> {
        let names = self.promised.values().filter(|(name, _)| name.is_segment());
        names.filter_map(|(name, _)| name.segment()).next_back()
    }

    /// The cluster that has claimed the archive.
    pub(crate) fn owner(&self) -> Option<u64> {
        let key = ObjectKey::new(layout::IDENTITY).expect("a key");
        let identity = wale_format::ArchiveIdentity::parse(&self.memory.content(&key)?).ok()?;
        Some(identity.cluster.system_identifier.as_u64())
    }

    /// Whether an object of this name is stored now.
    pub(crate) fn is_stored(&self, name: &ArchiveFileName) -> bool {
        let text = name.to_string();
        let mut keys = self.memory.keys().into_iter();
        keys.any(|key| matches!(layout::parse(key.as_str()), ArchiveKey::Wal { name, conflict: None, .. } if name.to_string() == text))
    }

    /// Whether the name is stored with other bytes than these.
    pub(crate) fn is_taken(&self, name: &ArchiveFileName, written: &[u8]) -> bool {
        let text = name.to_string();
        self.memory.keys().into_iter().any(|key| {
            let stored = matches!(layout::parse(key.as_str()), ArchiveKey::Wal { name, conflict: None, .. } if name.to_string() == text);
            stored && self.check_stored(key.as_str(), written).is_err()
        })
    }

    /// Whether different contents are stored under the name, by servers that compress differently. Then nobody can tell
    /// which was acknowledged, and a fetch may refuse.
    pub(crate) fn is_disputed(&self, name: &ArchiveFileName) -> bool {
        let text = name.to_string();
        let keys = self.memory.keys();
        let mut contents = keys
            .iter()
            .filter_map(|key| match layout::parse(key.as_str()) {
                ArchiveKey::Wal {
                    name,
                    conflict: None,
                    ..
                } if name.to_string() == text => decoded(key.as_str(), self.memory.content(key)?),
                _ => None,
            });
        let first = contents.next();
        contents.any(|other| Some(other) != first)
    }

    /// A fetch that began when the name was (or was not) stored has ended.
    pub(crate) fn fetched(
        &self,
        name: &ArchiveFileName,
        was_stored: bool,
        result: &Result<Vec<u8>, OpError>,
    ) -> Verdict {
        match result {
            Ok(bytes) => match self.promised.get(&name.to_string()) {
                Some((_, promised)) if **promised != *bytes => {
                    Err(format!("I1: other bytes of {name} were delivered"))
                }
                _ => Ok(()),
            },
            Err(error) if error.kind == Kind::NotFound && was_stored => Err(format!(
                "{name} is stored, and a fetch says that it is absent"
            )),
            Err(_) => Ok(()),
        }
    }

    /// The names that were promised, and their bytes.
    pub(crate) fn promises(&self) -> impl Iterator<Item = (&ArchiveFileName, &Arc<Vec<u8>>)> {
        let whole =
            |(name, _): &&(ArchiveFileName, _)| !matches!(name, ArchiveFileName::Partial(_));
        self.promised
            .values()
            .filter(whole)
            .map(|(name, bytes)| (name, bytes))
    }

    /// Everything that was promised is stored.
    pub(crate) fn check_all(&self) -> Verdict {
        for (promise, (name, bytes)) in &self.promised {
            let keys = self.memory.keys();
            let mut holds = keys.iter().filter(|key| {
                key.as_str() == promise
                    || matches!(layout::parse(key.as_str()), ArchiveKey::Wal { name: stored, .. } if stored == *name)
            });
            if !holds.any(|key| self.check_stored(key.as_str(), bytes).is_ok()) {
                return Err(format!(
                    "I1: {name} was acknowledged, and is stored nowhere"
                ));
            }
        }
        Ok(())
    }
}

/// The plain bytes of a WAL object; `None` when it is damaged.
fn decoded(key: &str, content: Bytes) -> Option<Vec<u8>> {
    let ArchiveKey::Wal { codec, .. } = layout::parse(key) else {
        return None;
    };
    let mut plain = Vec::new();
    let reader = Seal::unencrypted(codec).reader(std::io::Cursor::new(content));
    reader
        .and_then(|reader| reader.plain(WINDOW_MAX_BYTES))
        .ok()?
        .read_to_end(&mut plain)
        .ok()?;
    Some(plain)
}
