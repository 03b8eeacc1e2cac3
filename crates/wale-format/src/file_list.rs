//! WAL-G's list of the files of a base backup, `files_metadata.json`: which members its partitions have, when each file was last
//! changed, and which files are whose relation.
//!
//! ```text
//! {"Files": {"<member>": {"IsIncremented": false, "IsSkipped": false, "MTime": "<RFC 3339>", "UpdatesCount": 0}, …},
//!  "TarFileSets": {"<partition>": ["<member>", …], …},
//!  "DatabasesByNames": {"<database>": {"oid": 5, "tables_new": {"<schema>.<relation>": {"oid": 1, "relfilenode": 1,
//!                       "subtables": {…}}, …}}, …}}
//! ```
//!
//! What WAL-G does with it: it extracts the files that are listed and no others, by the very names of the tar (`--mask` and
//! `--restore-only` take more of them out); with a specification of tablespaces it leaves `tablespace_map` out; it takes a file
//! whose time of change is the listed one, to the nanosecond, for unchanged when it makes a delta. So the list is complete or
//! there is none, and a time that might not tell a later change is not listed.
//!
//! `global/pg_control`, `backup_label` and `tablespace_map` are always extracted by WAL-G, and its own lists do not have them
//! among the files; a partition has all its members.
//!
//! Refuses to know: stores, file systems, servers. Source followed: WAL-G 43fb039 (`backup_sentinel_dto.go`, `backup.go`,
//! `bundle.go`, `names_metadata.go`).

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use chrono::{DateTime, Datelike, SecondsFormat, TimeDelta, Utc};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use wale_pg::byte_text;
use wale_pg::relation::CatalogueRelation;

/// Members that WAL-G extracts whether they are listed or not.
const NEVER_LISTED: [&str; 3] = ["/global/pg_control", "backup_label", "tablespace_map"];

/// A member of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileListMember {
    /// Its name in the tar, to the byte.
    pub name: String,
    /// When it was last changed, as the file system says.
    pub modified: DateTime<Utc>,
    /// Whether every later change shows in that time. It does not for a file that was changed just before it was read: two
    /// changes within one tick of the kernel's clock have one time.
    pub is_settled: bool,
}

/// What WAL-G knows of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileListDatabase {
    /// Its OID.
    pub oid: u32,
    /// The relations that are children of none, by schema and name.
    #[serde(rename = "tables_new", skip_serializing_if = "BTreeMap::is_empty")]
    pub relations: BTreeMap<String, FileListRelation>,
}

/// What WAL-G knows of a relation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FileListRelation {
    /// Its OID.
    pub oid: u32,
    /// What its files are called; 0 for one that has none.
    #[serde(rename = "relfilenode")]
    pub file_node: u32,
    /// Its partitions and children, and theirs, by schema and name.
    #[serde(rename = "subtables", skip_serializing_if = "BTreeMap::is_empty")]
    pub children: BTreeMap<String, FileListRelation>,
}

impl FileListDatabase {
    /// The relations of a database as WAL-G lists them: each below all of its ancestors, and by itself where it has none among
    /// these.
    #[must_use]
    pub fn new(oid: u32, relations: &[CatalogueRelation]) -> Self {
        let known: BTreeSet<u32> = relations.iter().map(|relation| relation.oid).collect();
        let mut children: BTreeMap<u32, Vec<&CatalogueRelation>> = BTreeMap::new();
        for relation in relations {
            for parent in &relation.parents {
                children.entry(*parent).or_default().push(relation);
            }
        }
        let entry = |relation: &CatalogueRelation| FileListRelation {
            oid: relation.oid,
            file_node: relation.file_node,
            children: BTreeMap::new(),
        };
        let has_none = |relation: &&CatalogueRelation| {
            let mut parents = relation.parents.iter();
            !parents.any(|parent| known.contains(parent))
        };
        let mut listed = BTreeMap::new();
        for root in relations.iter().filter(has_none) {
            let mut found = entry(root);
            let (mut seen, mut open) = (BTreeSet::from([root.oid]), vec![root.oid]);
            while let Some(parent) = open.pop() {
                for child in children.get(&parent).into_iter().flatten() {
                    if seen.insert(child.oid) {
                        found.children.insert(child.name.clone(), entry(child));
                        open.push(child.oid);
                    }
                }
            }
            listed.insert(root.name.clone(), found);
        }
        Self {
            oid,
            relations: listed,
        }
    }
}

/// Whether JSON can say these members and names of databases: a name that is not UTF-8, or a time beyond the year 9999, it cannot.
pub fn can_be_listed<'d>(
    mut members: impl Iterator<Item = FileListMember>,
    mut databases: impl Iterator<Item = &'d String>,
) -> bool {
    let can_be_said = |member: FileListMember| {
        !byte_text::has_escapes(&member.name) && (1..=9999).contains(&member.listed_time().year())
    };
    members.all(can_be_said) && databases.all(|name| !byte_text::has_escapes(name))
}

/// Writes the list as it is stored: compact JSON. `partitions` gives the names of the objects, the last component of their keys, with
/// what each holds; it is asked twice, and gives the same both times. What [cannot be listed](can_be_listed) makes a wrong list.
///
/// # Errors
/// Those of the sink.
pub fn write_file_list<P, M>(
    sink: &mut dyn Write,
    partitions: impl Fn() -> P,
    databases: &BTreeMap<String, FileListDatabase>,
) -> io::Result<()>
where
    P: Iterator<Item = (String, M)>,
    M: Iterator<Item = FileListMember>,
{
    let list = List {
        files: Files(&partitions),
        sets: Sets(&partitions),
        databases,
    };
    serde_json::to_writer(sink, &list).map_err(io::Error::from)
}

impl FileListMember {
    /// The time that is listed. A file is unchanged for WAL-G when its time is this one: an instant before the true one is none
    /// that it has.
    fn listed_time(&self) -> DateTime<Utc> {
        if self.is_settled {
            return self.modified;
        }
        let before = self.modified.checked_sub_signed(TimeDelta::nanoseconds(1));
        before.unwrap_or(DateTime::UNIX_EPOCH)
    }
}

#[derive(Serialize)]
struct List<F, S, D> {
    #[serde(rename = "Files")]
    files: F,
    #[serde(rename = "TarFileSets")]
    sets: S,
    #[serde(rename = "DatabasesByNames")]
    databases: D,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    is_incremented: bool,
    is_skipped: bool,
    #[serde(rename = "MTime")]
    modified: String,
    updates_count: u64,
}

struct Files<'a, F>(&'a F);

impl<F, P, M> Serialize for Files<'_, F>
where
    F: Fn() -> P,
    P: Iterator<Item = (String, M)>,
    M: Iterator<Item = FileListMember>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for member in (self.0)().flat_map(|(_, members)| members) {
            if NEVER_LISTED.contains(&member.name.as_str()) {
                continue;
            }
            let time = member.listed_time();
            let described = Described {
                is_incremented: false,
                is_skipped: false,
                modified: time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
                updates_count: 0,
            };
            map.serialize_entry(&member.name, &described)?;
        }
        map.end()
    }
}

struct Sets<'a, F>(&'a F);

impl<F, P, M> Serialize for Sets<'_, F>
where
    F: Fn() -> P,
    P: Iterator<Item = (String, M)>,
    M: Iterator<Item = FileListMember>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (partition, members) in (self.0)() {
            map.serialize_entry(&partition, &Names(Cell::new(Some(members))))?;
        }
        map.end()
    }
}

/// The names of members, which are told once.
struct Names<M>(Cell<Option<M>>);

impl<M: Iterator<Item = FileListMember>> Serialize for Names<M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let members = self.0.take().into_iter().flatten();
        let mut names = serializer.serialize_seq(None)?;
        for member in members {
            names.serialize_element(&member.name)?;
        }
        names.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn member(name: &str, is_settled: bool) -> FileListMember {
        FileListMember {
            name: name.to_owned(),
            modified: "2026-11-28T14:52:57.329153955Z".parse().expect("a time"),
            is_settled,
        }
    }

    fn listed(partitions: &BTreeMap<String, Vec<FileListMember>>) -> Option<Value> {
        let databases = BTreeMap::from([("app".to_owned(), FileListDatabase::new(5, &[]))]);
        let members = partitions.values().flatten().cloned();
        if !can_be_listed(members, databases.keys()) {
            return None;
        }
        let told = || {
            let parts = partitions.iter();
            parts.map(|(name, members)| (name.clone(), members.iter().cloned()))
        };
        let mut text = Vec::new();
        write_file_list(&mut text, told, &databases).expect("written");
        Some(serde_json::from_slice(&text).expect("JSON"))
    }

    #[test]
    fn members_are_listed_as_the_tar_calls_them_with_their_times() {
        let partitions = BTreeMap::from([
            (
                "part_00000000.tar.zst".to_owned(),
                vec![member("/", true), member("/base/", true)],
            ),
            (
                "part_00000001.tar.zst".to_owned(),
                vec![member("/base/5/1", false)],
            ),
            (
                "part_00000002.tar.zst".to_owned(),
                NEVER_LISTED.map(|name| member(name, true)).into(),
            ),
        ]);
        let described = |time| json!({"IsIncremented": false, "IsSkipped": false, "MTime": time, "UpdatesCount": 0});
        let (settled, other) = (
            described("2026-11-28T14:52:57.329153955Z"),
            described("2026-11-28T14:52:57.329153954Z"),
        );
        let expected = json!({
            "Files": {"/": settled, "/base/": settled, "/base/5/1": other},
            "TarFileSets": {
                "part_00000000.tar.zst": ["/", "/base/"],
                "part_00000001.tar.zst": ["/base/5/1"],
                "part_00000002.tar.zst": NEVER_LISTED,
            },
            "DatabasesByNames": {"app": {"oid": 5}},
        });
        assert_eq!(listed(&partitions), Some(expected));
    }

    #[test]
    fn what_json_cannot_say_makes_no_list() {
        let escaped = byte_text::from_bytes(b"/base/caf\xe9");
        let with = |member| BTreeMap::from([("part".to_owned(), vec![member])]);
        assert_eq!(listed(&with(member(&escaped, true))), None);
        let far = FileListMember {
            modified: DateTime::<Utc>::MAX_UTC,
            ..member("/x", true)
        };
        assert_eq!(listed(&with(far)), None);
        assert!(listed(&with(member("/x", true))).is_some());
    }

    #[test]
    fn children_stand_below_each_ancestor_and_orphans_by_themselves() {
        let relation = |oid, name: &str, parents: &[u32]| CatalogueRelation {
            oid,
            file_node: oid + 1000,
            name: name.to_owned(),
            parents: parents.to_vec(),
        };
        let relations = [
            relation(1, "public.t", &[]),
            relation(2, "public.t_1", &[1]),
            relation(3, "other.t_1_1", &[2]),
            // Of an index that has no files, and so is not among these.
            relation(4, "public.t_1_pkey", &[99]),
        ];
        let database = FileListDatabase::new(5, &relations);
        let value = serde_json::to_value(&database).expect("JSON");
        assert_eq!(
            value,
            json!({"oid": 5, "tables_new": {
                "public.t": {"oid": 1, "relfilenode": 1001, "subtables": {
                    "public.t_1": {"oid": 2, "relfilenode": 1002},
                    "other.t_1_1": {"oid": 3, "relfilenode": 1003},
                }},
                "public.t_1_pkey": {"oid": 4, "relfilenode": 1004},
            }})
        );
        // A circle, as only a damaged catalogue has it, ends.
        let circle = [relation(1, "a", &[2]), relation(2, "b", &[1])];
        assert!(FileListDatabase::new(5, &circle).relations.is_empty());
    }
}
