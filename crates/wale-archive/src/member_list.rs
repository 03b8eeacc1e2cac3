//! WAL-G's list of the members of a backup (`files_metadata.json`; before 2.0 in the sentinel itself), read as a stream: of
//! a name no more than its digest is kept, and a name that is missing is found by reading again.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, BufReader, Read};
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use wale_format::layout;
use wale_format::{BackupName, Sentinel};
use wale_storage::ObjectKey;

use crate::Archive;
use crate::described::{Delivery, DescriptionBounds, ListedMember, NameDigest};
use crate::error::{Kind, OpError, Result};
use crate::read::damaged;

/// The file that says where the recovery of a backup begins.
const LABEL: &str = "backup_label";

/// Folders whose files have no pages with a position in the log. What WAL-G takes for one is chance.
const NOT_PAGED: [&str; 3] = ["pg_xact/", "pg_clog/", "pg_multixact/"];

/// Partitions that a list names, at most, and bytes of the name of one. 131,072 × some 80 bytes = 10 MB, 40 MB at the worst;
/// at WAL-G's 1 GiB each they are 128 TiB.
const PARTITIONS_MAX: usize = 1 << 17;
const PARTITION_NAME_MAX: usize = 255;

/// Bytes read at once.
const READ_BYTES: usize = 64 << 10;

/// What the reader of JSON keeps for a moment: a string (a path of 4,096 bytes, each escaped as six, makes 24 kB; others, as
/// a label, are no longer), and a byte for each level of what it passes over.
const STRING_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 128;

/// Whether a name is looked for.
pub type NameQuestion = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What is kept of the list.
#[derive(Clone)]
pub enum Keep {
    /// Nothing but the partitions.
    Partitions,
    /// The digests of all members, within these bounds.
    Members(DescriptionBounds),
    /// The first member, in the order of names, for which this holds.
    First(NameQuestion),
    /// The partitions that have a member for which this holds.
    Sets(NameQuestion),
}

/// WAL-G's list of the members of a backup, where it made one.
#[derive(Debug, Default)]
pub struct MemberList {
    /// The partitions that the list names, by the last component of their keys.
    pub partitions: BTreeSet<String>,
    /// The members, in no order, by their names without a slash at either end. The data directory itself is none.
    pub members: Vec<ListedMember>,
    /// Members whose names are no UTF-8: JSON does not say which they are. Those that a partition of the backup holds come all
    /// the same; these are the others.
    pub nameless_elsewhere: u64,
    /// A file that is no relation's and of which only pages are here. WAL-G before 3.0.5 took some for relations.
    pub doubtful: Option<String>,
    /// The member that was asked for.
    pub first: Option<String>,
    /// The partitions that were asked for.
    pub wanted: BTreeSet<String>,
}

impl MemberList {
    /// Reads a list; `key` names it in errors.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] for what is no list; [`Kind::Configuration`] for more members than `keep` has room for.
    pub fn read(key: &ObjectKey, source: impl Read, keep: Keep) -> Result<Self> {
        let mut reading = Reading::new(keep);
        read(source, &mut reading)
            .map_err(|error| damaged(key, "it is no list of files").source(error))?;
        reading.finish(key)
    }
}

/// A list while it is read.
struct Reading {
    keep: Keep,
    partitions: BTreeSet<String>,
    members: Vec<ListedMember>,
    nameless_elsewhere: u64,
    doubtful: Option<String>,
    seen: u64,
    first: Option<String>,
    wanted: BTreeSet<String>,
    /// Whether there was one at all.
    found: bool,
}

impl Reading {
    fn new(keep: Keep) -> Self {
        Self {
            keep,
            partitions: BTreeSet::new(),
            members: Vec::new(),
            nameless_elsewhere: 0,
            doubtful: None,
            seen: 0,
            first: None,
            wanted: BTreeSet::new(),
            found: false,
        }
    }

    fn member(&mut self, name: &str, delivery: Delivery) {
        let name = plain(name);
        if matches!(name, "" | ".") {
            return;
        }
        // JSON of WAL-G's has the replacement in the place of bytes that are not UTF-8.
        if name.contains(char::REPLACEMENT_CHARACTER) {
            self.nameless_elsewhere += u64::from(delivery != Delivery::Whole);
            return;
        }
        match &self.keep {
            Keep::Partitions | Keep::Sets(_) => {}
            Keep::Members(bounds) => {
                self.seen += 1;
                if self.seen <= bounds.files_max() {
                    let name = NameDigest::of(name);
                    self.members.push(ListedMember { name, delivery });
                }
                let is_paged = NOT_PAGED.iter().all(|folder| !name.starts_with(folder));
                if delivery == Delivery::Increment && !is_paged && self.doubtful.is_none() {
                    self.doubtful = Some(name.to_owned());
                }
            }
            Keep::First(wanted) => {
                let is_before = self.first.as_deref().is_none_or(|first| name < first);
                if is_before && wanted(name) {
                    self.first = Some(name.to_owned());
                }
            }
        }
    }

    fn partition(&mut self, name: String) -> Result<(), String> {
        if name.len() > PARTITION_NAME_MAX {
            return Err("the name of a partition is far too long".to_owned());
        }
        self.partitions.insert(name);
        if self.partitions.len() > PARTITIONS_MAX {
            return Err(format!("it names more than {PARTITIONS_MAX} partitions"));
        }
        Ok(())
    }

    fn finish(self, key: &ObjectKey) -> Result<MemberList> {
        if let Keep::Members(bounds) = &self.keep
            && self.seen > bounds.files_max()
        {
            return Err(bounds.too_many(&format!("object {key}"), self.seen));
        }
        Ok(MemberList {
            partitions: self.partitions,
            members: self.members,
            nameless_elsewhere: self.nameless_elsewhere,
            doubtful: self.doubtful,
            first: self.first,
            wanted: self.wanted,
        })
    }
}

impl Archive {
    /// WAL-G's list of the backup's members. `None` for a backup of WAL-E's, and for one that was made without it. Of a backup of
    /// wale's the manifest says more; the list counts where WAL-G has made a delta of it.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] when the list is not there although the backup's record says so, or cannot be read;
    /// [`Kind::Configuration`] when there is no memory for so many members.
    pub async fn member_list(
        &self,
        name: &BackupName,
        sentinel: &Sentinel,
        keep: Keep,
    ) -> Result<Option<MemberList>> {
        if sentinel.lsn.is_none() {
            return Ok(None);
        }
        let key = Self::key(&layout::files_metadata(name))?;
        let broken = |why: &str| {
            OpError::new(
                Kind::CorruptData,
                format!("backup {name} is damaged: its list of files, {key}, {why}"),
            )
            .hint("restore another backup; without the list it is not known whether this one is whole")
        };
        // Before WAL-G 2.0 the list was in the sentinel itself.
        if sentinel.version.is_none() {
            let record = Self::key(&layout::sentinel(name))?;
            let read = self.read_list(&record, keep.clone()).await?;
            if let Some(read) = read.filter(|read| read.found) {
                return read.finish(&record).map(Some);
            }
        }
        if sentinel.files_metadata_disabled == Some(true) {
            return Ok(None);
        }
        match self.read_list(&key, keep).await {
            Ok(Some(read)) => read.finish(&key).map(Some),
            Ok(None) if sentinel.version >= Some(2) => Err(broken("is not in the archive")),
            Ok(None) => Ok(None),
            Err(error) if error.kind == Kind::CorruptData => {
                Err(broken("cannot be read").source(error))
            }
            Err(error) => Err(error),
        }
    }

    /// A list of members as it is stored.
    async fn read_list(&self, key: &ObjectKey, keep: Keep) -> Result<Option<Reading>> {
        let bounds = match keep {
            Keep::Members(bounds) => bounds,
            _ => DescriptionBounds::of_foreign(self.budget().total()),
        };
        self.read_stream(key, move |size, source| {
            if size > bounds.text_max() {
                return Err(bounds.too_long("a list of files", size).into());
            }
            let mut reading = Reading::new(keep);
            read(source, &mut reading).map_err(io::Error::from)?;
            Ok(reading)
        })
        .await
    }
}

/// Reads a list; what it says is shown to `reading`.
fn read(source: impl Read, reading: &mut Reading) -> serde_json::Result<()> {
    // JSON is read byte by byte.
    let source = BufReader::with_capacity(READ_BYTES, Guarded::new(source));
    let mut json = serde_json::Deserializer::from_reader(source);
    List(reading).deserialize(&mut json)?;
    json.end()
}

/// The parts of a list that matter here.
#[derive(Deserialize)]
enum Field {
    Files,
    #[serde(rename = "TarFileSets")]
    Sets,
    #[serde(other)]
    Other,
}

/// What matters of a member.
#[derive(Deserialize)]
struct Described {
    /// Its content is in the backup's parent.
    #[serde(default, rename = "IsSkipped")]
    is_skipped: Option<bool>,
    /// Its content is the pages that changed since the backup's parent.
    #[serde(default, rename = "IsIncremented")]
    is_incremented: Option<bool>,
}

impl Described {
    fn delivery(&self) -> Result<Delivery, &'static str> {
        let [skipped, incremented] =
            [self.is_skipped, self.is_incremented].map(|flag| flag == Some(true));
        match (skipped, incremented) {
            (false, false) => Ok(Delivery::Whole),
            (false, true) => Ok(Delivery::Increment),
            (true, false) => Ok(Delivery::Elsewhere),
            (true, true) => Err("a file is skipped and incremented"),
        }
    }
}

/// The whole list.
struct List<'r>(&'r mut Reading);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut files, mut sets) = (false, false);
        while let Some(field) = map.next_key()? {
            let (section, came, name) = match field {
                Field::Files => (Section::Files, &mut files, "Files"),
                Field::Sets => (Section::Sets, &mut sets, "TarFileSets"),
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if std::mem::replace(came, true) {
                return Err(A::Error::duplicate_field(name));
            }
            let reading = &mut *self.0;
            map.next_value_seed(Names { section, reading })?;
        }
        Ok(())
    }
}

/// The two parts of a list that matter.
#[derive(Clone, Copy)]
enum Section {
    /// The members, each with what describes it.
    Files,
    /// The partitions, each with the names of its members.
    Sets,
}

/// The names of a part of the list, each with what belongs to it; or `null`.
struct Names<'r> {
    section: Section,
    reading: &'r mut Reading,
}

impl<'de> DeserializeSeed<'de> for Names<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Names<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.section {
            Section::Files => "files by their names",
            Section::Sets => "names by partitions",
        })
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.reading.found = true;
        while let Some(name) = map.next_key::<String>()? {
            match self.section {
                Section::Files => {
                    let described = map.next_value::<Described>()?;
                    let delivery = described.delivery().map_err(A::Error::custom)?;
                    self.reading.member(&name, delivery);
                }
                Section::Sets => {
                    let wanted = match &self.reading.keep {
                        Keep::Sets(wanted) => Some(Arc::clone(wanted)),
                        _ => None,
                    };
                    let has = map.next_value_seed(Members(wanted))?;
                    if has.wanted {
                        self.reading.wanted.insert(name.clone());
                    }
                    self.reading.partition(name).map_err(A::Error::custom)?;
                    // WAL-G also names what was gone when it came to it; but the label never is.
                    if has.label {
                        self.reading.member(LABEL, Delivery::Whole);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The members of a partition, which may be `null`; and for which names they are searched.
struct Members(Option<NameQuestion>);

/// What is among them.
#[derive(Clone, Copy, Default)]
struct Has {
    /// The label.
    label: bool,
    /// A name that is searched for.
    wanted: bool,
}

impl<'de> DeserializeSeed<'de> for Members {
    type Value = Has;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Has, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members {
    type Value = Has;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of names")
    }

    fn visit_unit<E>(self) -> Result<Has, E> {
        Ok(Has::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Has, A::Error> {
        let mut has = Has::default();
        while let Some(name) = names.next_element::<String>()? {
            has.label |= name == LABEL;
            let is_wanted = |wanted: &NameQuestion| wanted(plain(&name));
            has.wanted = has.wanted || self.0.as_ref().is_some_and(is_wanted);
        }
        Ok(has)
    }
}

/// The name of a member without what stands before it in the tar, and without a slash at its end.
fn plain(name: &str) -> &str {
    name.trim_start_matches("./").trim_matches('/')
}

/// JSON whose strings and levels have an end, so that a reader of it holds little at a time.
struct Guarded<R> {
    inner: R,
    /// Bytes since the string began that is open.
    string: Option<usize>,
    escaped: bool,
    depth: usize,
}

impl<R> Guarded<R> {
    fn new(inner: R) -> Self {
        Self {
            inner,
            string: None,
            escaped: false,
            depth: 0,
        }
    }

    fn see(&mut self, byte: u8) -> Result<(), &'static str> {
        let Some(length) = &mut self.string else {
            match byte {
                b'"' => self.string = Some(0),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            return if self.depth > DEPTH_MAX {
                Err("it has far too many levels")
            } else {
                Ok(())
            };
        };
        *length += 1;
        if *length > STRING_MAX {
            return Err("a string of it is far too long");
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.string = None,
            _ => {}
        }
        Ok(())
    }
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.read(out)?;
        for &byte in &out[..bytes] {
            self.see(byte)
                .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
        }
        Ok(bytes)
    }
}

#[cfg(test)]
pub(crate) fn list(json: &str) -> MemberList {
    let bounds = DescriptionBounds::of_foreign(0);
    let mut reading = Reading::new(Keep::Members(bounds));
    read(json.as_bytes(), &mut reading).expect(json);
    let key = ObjectKey::new("list").expect("a key");
    reading.finish(&key).expect("few")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::described::ExpectedNames;

    /// As it is read from a store: in pieces.
    fn parse(json: &str, keep: Keep) -> serde_json::Result<Reading> {
        struct Pieces<'a>(&'a [u8]);
        impl Read for Pieces<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let bytes = self.0.len().min(out.len()).min(7);
                out[..bytes].copy_from_slice(&self.0[..bytes]);
                self.0 = &self.0[bytes..];
                Ok(bytes)
            }
        }
        let mut reading = Reading::new(keep);
        read(Pieces(json.as_bytes()), &mut reading)?;
        Ok(reading)
    }

    const LIST: &str = r#"{"Other": [{"a": ["}", "\""]}], "Files": {"/": {"IsSkipped": false},
        "/base/5": {"IsSkipped": false, "MTime": "x", "CorruptBlocks": [1]}, "/base/5/1": {"IsSkipped": true},
        "./a\u0062/": {}, ".": {}, "caf\ufffd": {}},
        "TarFileSets": {"part_001.tar.lz4": ["/", "/PG_VERSION"], "b.tar.lz4": ["backup_label"], "none": null}}"#;

    #[test]
    fn of_names_digests_are_kept_and_a_missing_one_is_found_again() {
        let read = list(LIST);
        let names = [
            "backup_label",
            "base/5",
            "ab",
            // What is skipped is in the parent; what is no UTF-8 has no name in JSON.
            "base/5/1",
            "PG_VERSION",
            "",
            ".",
            "caf\u{fffd}",
        ];
        let (count, nameless) = (read.members.len(), read.nameless_elsewhere);
        let members = ExpectedNames::new(read.members);
        let expected = names.map(|name| members.is_missing(name));
        assert_eq!(
            expected,
            [true, true, true, false, false, false, false, false]
        );
        assert_eq!(members.delivery_of("base/5/1"), Some(Delivery::Elsewhere));
        assert_eq!((count, read.partitions.len(), nameless), (4, 3, 0));
        let lost = |name: &str| name != "ab";
        let first = parse(LIST, Keep::First(Arc::new(lost))).unwrap();
        assert_eq!(first.first.as_deref(), Some("backup_label"));
        let sets = |wanted: &'static str| {
            let has = move |name: &str| name == wanted;
            let read = parse(LIST, Keep::Sets(Arc::new(has))).unwrap();
            (
                read.wanted.into_iter().collect::<Vec<_>>(),
                read.partitions.len(),
            )
        };
        assert_eq!(sets("PG_VERSION"), (vec!["part_001.tar.lz4".to_owned()], 3));
        assert_eq!(sets("base/5"), (Vec::new(), 3));
        let partitions = parse(LIST, Keep::Partitions).unwrap();
        assert_eq!(
            (partitions.partitions.len(), partitions.members.len()),
            (3, 0)
        );
        for (json, found) in [
            ("{}", false),
            (r#"{"Files": null, "TarFileSets": null}"#, false),
            (r#"{"Files": {}}"#, true),
            (r#"{"TarFileSets": {}}"#, true),
        ] {
            assert_eq!(
                parse(json, Keep::Partitions).unwrap().found,
                found,
                "{json}"
            );
        }
    }

    #[test]
    fn a_delta_lists_what_it_has_in_part_and_what_it_has_not() {
        let read = list(
            r#"{"Files": {"/base/5/1": {"IsIncremented": true}, "/pg_xact/0000": {"IsIncremented": true, "IsSkipped": false},
                "/base/5/2": {"IsSkipped": true, "IsIncremented": false}, "/caf\ufffd": {"IsSkipped": true}, "/\ufffd": {}}}"#,
        );
        assert_eq!(read.nameless_elsewhere, 1);
        assert_eq!(read.doubtful.as_deref(), Some("pg_xact/0000"));
        let members = ExpectedNames::new(read.members);
        let of = ["base/5/1", "base/5/2", "base/5/3"].map(|name| members.delivery_of(name));
        let expected = [Some(Delivery::Increment), Some(Delivery::Elsewhere), None];
        assert_eq!((of, members.missing()), (expected, 2));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let long = format!(
            r#"{{"Files": {{"{}": {{}}}}}}"#,
            "a\\\"".repeat(STRING_MAX / 2)
        );
        let deep = format!(r#"{{"Other": {}"#, "[".repeat(10_000));
        let partition = format!(r#"{{"TarFileSets": {{"{}": null}}}}"#, "a".repeat(256));
        for json in [
            "",
            "[]",
            "null",
            "{} {}",
            r#"{"Files": 1}"#,
            r#"{"Files": ["a"]}"#,
            r#"{"Files": {"a": null}}"#,
            r#"{"Files": {"a": {"IsSkipped": true, "IsIncremented": true}}}"#,
            r#"{"Files": {}, "Files": {}}"#,
            r#"{"TarFileSets": {"a": [1]}}"#,
            &LIST[..LIST.len() - 1],
            &long,
            &deep,
            &partition,
        ] {
            let shown = &json[..json.len().min(60)];
            assert!(parse(json, Keep::Partitions).is_err(), "{shown}");
        }
    }

    #[test]
    fn more_members_than_fit_are_counted_and_refused() {
        let bounds = DescriptionBounds::of_foreign(0);
        let mut reading = Reading::new(Keep::Members(bounds));
        for number in 0..bounds.files_max() + 3 {
            reading.member(&number.to_string(), Delivery::Whole);
        }
        assert_eq!(reading.members.len() as u64, bounds.files_max());
        let key = ObjectKey::new("list").unwrap();
        let error = reading.finish(&key).unwrap_err();
        assert_eq!(error.kind, Kind::Configuration);
        assert!(error.message.contains("names 1000003 files"), "{error}");
    }
}
