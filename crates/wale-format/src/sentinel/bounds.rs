//! Bounds of what is kept of a sentinel. It comes from an archive into which others may write; what it may cost stands
//! here, beside each kind of thing. Whatever no field asks for is skipped while the text is read, and costs nothing:
//! old sentinels of WAL-G list every file of a cluster.
//!
//! The most that one sentinel keeps: 131,072 partitions × 32 bytes (4 MiB, twice that while the list grows), 65,536
//! tablespaces × 2 spellings × some 200 bytes (26 MiB, for as many places of 40 bytes), 131,072 damaged pages × 80 bytes
//! (10 MiB), 16 MiB of extensions, 16 MiB of what TimescaleDB counted,
//! 1 MiB of settings. A real one keeps some ten kilobytes.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Bytes of one text: names, paths of at most 4096 bytes, a label of a kilobyte.
const TEXT_MAX: usize = 64 << 10;
/// Partitions: of 1 GiB each these are 128 TiB.
pub(super) const PARTITIONS_MAX: usize = 1 << 17;
/// Tablespaces: a cluster has a handful.
pub(super) const TABLESPACES_MAX: usize = 1 << 16;
/// Damaged pages: 10,000 are listed by the writer.
pub(super) const PAGES_MAX: usize = 1 << 17;
/// Settings that recovery enforces: eight short ones, and an entry costs some 100 bytes beside its text.
const SETTINGS_COST_MAX: usize = 1 << 20;
/// Extensions of all databases: 16 MiB are some 120,000 entries.
const EXTENSIONS_COST_MAX: usize = 16 << 20;
/// A node of a map and two strings' ends.
const ENTRY_COST: usize = 100;

struct Text;

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {TEXT_MAX} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        if text.len() > TEXT_MAX {
            return Err(E::custom(format_args!(
                "a text has {} bytes, {TEXT_MAX} at most are read",
                text.len()
            )));
        }
        Ok(text.to_owned())
    }
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    deserializer.deserialize_str(Text)
}

/// A bounded text within something else.
pub(super) struct Limited(pub(super) String);

impl<'de> Deserialize<'de> for Limited {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(deserializer).map(Self)
    }
}

pub(super) fn optional_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Option::<Limited>::deserialize(deserializer)?.map(|text| text.0))
}

/// A list of at most `MAX` elements.
pub(super) fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct List<T, const MAX: usize>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for List<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(element) = elements.next_element()? {
                if list.len() == MAX {
                    return Err(too_many(MAX));
                }
                list.push(element);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(List::<T, MAX>(PhantomData))
}

pub(super) fn too_many<E: Error>(most: usize) -> E {
    E::custom(format_args!(
        "a list has more than {most} elements, so many are read at most"
    ))
}

/// Takes the cost of an entry from what is left.
fn charge<E: Error>(left: &mut usize, text_bytes: usize) -> Result<(), E> {
    *left = left
        .checked_sub(text_bytes.saturating_add(ENTRY_COST))
        .ok_or_else(|| E::custom("a map has far more entries than any cluster"))?;
    Ok(())
}

struct Texts<'a>(&'a mut usize);

impl<'de> DeserializeSeed<'de> for Texts<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Texts<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = entries.next_entry::<String, String>()? {
            charge(self.0, key.len() + value.len())?;
            map.insert(key, value);
        }
        Ok(map)
    }
}

pub(super) fn settings<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    Texts(&mut { SETTINGS_COST_MAX }).deserialize(deserializer)
}

pub(super) fn extensions<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, BTreeMap<String, String>>, D::Error> {
    struct Databases;
    impl<'de> Visitor<'de> for Databases {
        type Value = BTreeMap<String, BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of maps of texts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut left = EXTENSIONS_COST_MAX;
            let mut map = BTreeMap::new();
            while let Some(database) = entries.next_key::<String>()? {
                charge(&mut left, database.len())?;
                map.insert(database, entries.next_value_seed(Texts(&mut left))?);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Databases)
}

/// Bytes of a word: the name of an edition.
const WORD_MAX: usize = 256;

/// A word, which may be missing.
pub(super) fn optional_word<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let word = optional_text(deserializer)?;
    if word.as_ref().is_some_and(|word| word.len() > WORD_MAX) {
        return Err(D::Error::custom(format_args!(
            "a word has more than {WORD_MAX} bytes"
        )));
    }
    Ok(word)
}

/// What was counted, by databases, with a word for each: as many as fit into what the extensions may cost.
pub(super) fn counts<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, T>, D::Error> {
    struct Databases<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Databases<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of counts")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut left = EXTENSIONS_COST_MAX;
            let mut map = BTreeMap::new();
            while let Some(database) = entries.next_key::<String>()? {
                charge(&mut left, database.len() + size_of::<T>() + WORD_MAX)?;
                map.insert(database, entries.next_value()?);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Databases(PhantomData))
}
