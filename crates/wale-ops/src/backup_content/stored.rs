//! A backup in the archive: its record, its partitions, and what must come out of them. Reads only.

use std::borrow::Cow;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use wale_archive::chain;
use wale_archive::described::DescriptionBounds;
use wale_archive::member_list::{Keep, MemberList, NameQuestion};
use wale_archive::parts::StoredPart;
use wale_archive::{Archive, BackupEntry, ConsumeError, Frames, Remedy};
use wale_cluster::recovery::ConfigurationSet;
use wale_cluster::{path_of_text, text_of_path};
use wale_format::layout;
use wale_format::tar::{MemberKind, TarEnd, TarReader};
use wale_format::{BackupName, Codec, Sentinel, WaleSentinel};
use wale_pg::{Lsn, MajorVersion, TablespaceMap, TimelineId, WalSegmentSize, byte_text};
use wale_pipeline::MemoryPermit;
use wale_storage::{ObjectKey, StoreError};

use super::ledger::Ledger;
use super::manifest::{Manifest, TABLESPACE_MAP};
use super::memory::WORKER_BYTES;
use super::needs::{DiskNeed, DiskNeeds};
use super::ranges::Ranges;
use super::tablespaces::RecordedTablespace;
use crate::error::{Kind, OpError, Result};
use wale_format::hex;

/// A tablespace map has a line for each tablespace, of at most 4 kB.
const MAP_MAX: u64 = 1 << 20;
/// `extended_version.txt` has one line.
const VERSION_TEXT_MAX: u64 = 64 << 10;

/// Partitions of all backups of a chain, at most: 131,072 × some 150 bytes = 20 MB; at WAL-G's 1 GiB each they are 128 TiB.
const CHAIN_PARTS_MAX: usize = 1 << 17;

/// How a partition is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartRules {
    /// How its tar may end.
    pub(super) end: TarEnd,
    /// How many frames it may be made of: where one may follow another the end marks must stand in the last.
    pub(super) frames: Frames,
    /// `global/pg_control` is passed over: a partition of its own has it. WAL-G's streamed backups have it twice.
    pub(super) leaves_control_file_out: bool,
}

/// A backup that can be read, as far as a look at the archive shows. It is read once: its ledger knows what came.
pub(crate) struct StoredBackup {
    pub(crate) name: BackupName,
    /// When it ended, or its record was stored.
    pub(crate) ended: DateTime<Utc>,
    pub(crate) sentinel: Sentinel,
    /// Where somebody recorded it.
    pub(crate) major: Option<MajorVersion>,
    pub(crate) timeline: TimelineId,
    /// Only backups of wale have one.
    pub(crate) manifest: Option<Manifest>,
    /// The files that must arrive, where the backup says so.
    pub(super) ledger: Arc<Ledger>,
    /// Largest first.
    pub(crate) parts: Vec<StoredPart>,
    /// Those of which nothing is needed, because the files are there already.
    pub(super) spare: Vec<StoredPart>,
    /// What is read of those that are read in part.
    pub(super) ranges: Ranges,
    /// Whether an index says what is read.
    pub(super) has_index: bool,
    /// Whether another tool's list says which files must arrive.
    is_listed: bool,
    /// Whether a later backup builds on it.
    pub(super) is_base: bool,
    /// A sentence about what the user should check.
    pub(crate) doubt: Option<String>,
    /// What the ledger takes of the budget until the reading ends.
    memory: Option<MemoryPermit>,
}

impl StoredBackup {
    /// Reads what describes a backup that builds on no other, and holds the partitions in the archive against it.
    ///
    /// # Errors
    ///
    /// [`Kind::CorruptData`] for what is missing or not what was recorded; [`Kind::Configuration`] for what this version
    /// cannot read, or has no memory for; those of the store.
    pub(crate) async fn load(archive: &Archive, entry: &BackupEntry) -> Result<Self> {
        Self::load_wanted(archive, entry, None).await
    }

    /// The same, of which only some files are wanted, where it says which there are.
    ///
    /// # Errors
    ///
    /// As [`StoredBackup::load`].
    pub(crate) async fn load_wanted(
        archive: &Archive,
        entry: &BackupEntry,
        wanted: Option<NameQuestion>,
    ) -> Result<Self> {
        let sentinel = sentinel_of(entry)?;
        // A backup of wale's has a manifest, which says more.
        let list = match &sentinel.wale {
            Some(_) => List { list: None },
            None => List::load(archive, entry).await?,
        };
        let mut parts = list.parts(archive, entry).await?;
        by_size(&mut parts);
        let budget = archive.budget();
        if let Some(record) = &sentinel.wale {
            let bounds = DescriptionBounds::of_manifest(budget.total());
            let (manifest, ledger) =
                Manifest::load(archive, &entry.name, record, bounds, wanted).await?;
            let counted = bounds.counted(manifest.files, WORKER_BYTES);
            let mut backup = Self::new(archive, entry, parts, ledger).await?;
            backup.manifest = Some(manifest);
            backup.hold(archive, counted).await;
            return Ok(backup);
        }
        let bounds = DescriptionBounds::of_foreign(budget.total());
        let members = list.list.map(|list| list.members).unwrap_or_default();
        let is_listed = !members.is_empty();
        let alone = chain::deliveries(vec![members]);
        let alone = alone.map_err(|(_, why)| broken(&entry.name, &entry.name, &why))?;
        let expected = alone.into_iter().next().unwrap_or_default();
        let counted = bounds.counted(expected.count() as u64, WORKER_BYTES);
        let ledger = Ledger::of_list(bounds, expected);
        let mut backup = Self::new(archive, entry, parts, ledger).await?;
        backup.is_listed = is_listed;
        backup.hold(archive, counted).await;
        Ok(backup)
    }

    /// The same for a delta backup of WAL-G's and those that it builds on, its parent first. Gives them in the same order, the
    /// delta itself first.
    ///
    /// # Errors
    ///
    /// As [`StoredBackup::load`]; [`Kind::CorruptData`] also when the lists do not fit together.
    pub(crate) async fn load_chain(
        archive: &Archive,
        delta: &BackupEntry,
        parents: &[BackupEntry],
    ) -> Result<Vec<Self>> {
        let bounds = DescriptionBounds::of_foreign(archive.budget().total());
        let entries = || [delta].into_iter().chain(parents);
        let (mut lists, mut parts, mut files, mut doubt) = (Vec::new(), Vec::new(), 0, None);
        let mut partitions = 0;
        for entry in entries() {
            let list = List::load(archive, entry).await?;
            let mut stored = list.parts(archive, entry).await?;
            by_size(&mut stored);
            partitions += stored.len();
            if partitions > CHAIN_PARTS_MAX {
                let why = format!("the chain has more than {CHAIN_PARTS_MAX} partitions");
                return Err(broken(&delta.name, &entry.name, &why));
            }
            parts.push(stored);
            let list = list.list.ok_or_else(|| chain::lacks_list(&entry.name))?;
            if list.nameless_elsewhere > 0 {
                return Err(nameless(entry, list.nameless_elsewhere));
            }
            doubt = doubt.or_else(|| Some(doubtful(entry, list.doubtful.as_deref()?)));
            files += list.members.len() as u64;
            if files > bounds.files_max() {
                let what = format!("backup {} with those that it builds on", delta.name);
                return Err(bounds.too_many(&what, files));
            }
            lists.push(list.members);
        }
        let expected = chain::deliveries(lists).map_err(|(position, why)| {
            let name = entries().nth(position).map(|entry| &entry.name);
            broken(&delta.name, name.unwrap_or(&delta.name), &why)
        })?;
        let mut chain = Vec::new();
        for ((entry, parts), expected) in entries().zip(parts).zip(expected) {
            let ledger = Ledger::of_list(bounds, expected);
            let mut backup = Self::new(archive, entry, parts, ledger).await?;
            backup.is_listed = true;
            backup.is_base = !chain.is_empty();
            chain.push(backup);
        }
        let counted = bounds.counted(files, WORKER_BYTES);
        if let Some(delta) = chain.first_mut() {
            delta.doubt = doubt;
            delta.hold(archive, counted).await;
        }
        Ok(chain)
    }

    async fn new(
        archive: &Archive,
        entry: &BackupEntry,
        parts: Vec<StoredPart>,
        ledger: Ledger,
    ) -> Result<Self> {
        let (name, sentinel) = (entry.name.clone(), sentinel_of(entry)?.clone());
        let major = match recorded_major(&sentinel) {
            Some(major) => Some(major),
            None => extended_version(archive, &name).await?,
        };
        let timeline = sentinel
            .wale
            .as_ref()
            .map_or(name.segment().timeline(), |wale| wale.start_timeline);
        Ok(Self {
            name,
            ended: entry.time,
            sentinel,
            major,
            timeline,
            manifest: None,
            ledger: Arc::new(ledger),
            memory: None,
            parts,
            spare: Vec::new(),
            ranges: Ranges::new(),
            has_index: false,
            is_listed: false,
            is_base: false,
            doubt: None,
        })
    }

    /// Takes what the ledger needs of the budget.
    async fn hold(&mut self, archive: &Archive, bytes: u64) {
        if bytes > 0 {
            self.memory = Some(archive.budget().acquire(bytes).await);
        }
    }

    /// How one of its partitions is read. That WAL-G's streamed backups have no end marks is harmless where a cut is noticed
    /// in another way: by the list, or by the codec.
    pub(super) fn rules_of(&self, part: &StoredPart) -> PartRules {
        // A backup of wale's has end marks, be it read alone or as the base of another tool's delta.
        let is_of_wal_g = self.wale().is_none() && self.sentinel.lsn.is_some();
        let end = if is_of_wal_g && (self.is_listed || part.codec != Codec::None) {
            TarEnd::Bare
        } else {
            TarEnd::Marked
        };
        let frames = match self.wale() {
            Some(_) => Frames::Several,
            None => Frames::One,
        };
        PartRules {
            end,
            frames,
            leaves_control_file_out: is_of_wal_g
                && !part.holds_control_file()
                && self.parts.iter().any(StoredPart::holds_control_file),
        }
    }

    /// The configuration that lay outside of the data directory, where the backup has it; and the folder in which it lay.
    pub(crate) async fn configuration(
        &self,
        archive: &Archive,
    ) -> Result<Option<(String, ConfigurationSet)>> {
        let Some(record) = self.wale().and_then(|wale| wale.configuration.as_ref()) else {
            return Ok(None);
        };
        let key = Archive::key(&layout::configuration(&self.name))?;
        let damaged = |what: String| {
            OpError::new(
                Kind::CorruptData,
                format!("the configuration of backup {} {what}", self.name),
            )
            .hint("name a folder with your own, and restore again")
            .remedy(Remedy::ConfigurationFolder)
        };
        let most = ConfigurationSet::JSON_BYTES_MAX;
        let read = archive.read_sealed_text(&key, move |_, source| {
            let mut bytes = Vec::new();
            source.take(most + 1).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let Some(bytes) = read.await? else {
            return Err(damaged("is not in the archive".to_owned()));
        };
        if bytes.len() as u64 > most {
            return Err(damaged("is far too large".to_owned()));
        }
        if hex(&Sha256::digest(&bytes)) != record.sha256 {
            return Err(damaged("is not the one that the sentinel names".to_owned()));
        }
        let set = ConfigurationSet::from_json(&bytes)
            .map_err(|error| damaged(format!("is damaged: {error}")))?;
        Ok(Some((record.origin.clone(), set)))
    }

    /// What wale recorded.
    pub(crate) fn wale(&self) -> Option<&WaleSentinel> {
        self.sentinel.wale.as_ref()
    }

    /// The size of a file, in bytes, where the manifest has it.
    pub(crate) fn size_of(&self, path: &str) -> Option<u64> {
        self.ledger.size_of(path)
    }

    /// Bytes of the budget that the description holds.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.memory.as_ref().map_or(0, MemoryPermit::bytes)
    }

    /// The name of a file that has not come, where one can be found: for a message only.
    pub(super) async fn first_missing(&self, archive: &Archive) -> Option<String> {
        if let Some(manifest) = &self.manifest {
            return manifest.first_missing(archive, &self.ledger).await;
        }
        let ledger = Arc::clone(&self.ledger);
        let keep = Keep::First(Arc::new(move |name| ledger.is_missing(name)));
        let list = archive.member_list(&self.name, &self.sentinel, keep).await;
        // Whatever became of the list meanwhile: it is only read for a name.
        list.ok().flatten().and_then(|list| list.first)
    }

    /// What goes to each tablespace. Without a manifest all is taken to go to the data directory.
    pub(crate) fn needs(&self) -> Cow<'_, DiskNeeds> {
        if let Some(manifest) = &self.manifest {
            return Cow::Borrowed(&manifest.needs);
        }
        let mut need = DiskNeed::default();
        need.add(self.sentinel.bytes().unwrap_or(0));
        Cow::Owned(DiskNeeds::from([(None, need)]))
    }

    /// Tablespaces with the place they had.
    pub(crate) fn tablespaces(&self) -> Result<Vec<RecordedTablespace>> {
        let base = self
            .sentinel
            .tablespaces()
            .map_or("", |spec| &spec.base_prefix);
        let recorded = |oid: u32, location: String, inside: Option<String>| RecordedTablespace {
            inside: inside.or_else(|| place_inside(base, &location)),
            oid,
            location,
        };
        if let Some(wale) = self.wale() {
            let spaces = wale.tablespaces.iter();
            return Ok(spaces
                .map(|space| recorded(space.oid, space.location.clone(), space.inside.clone()))
                .collect());
        }
        let Some(spec) = self.sentinel.tablespaces() else {
            return Ok(Vec::new());
        };
        let damaged = |error: String| {
            OpError::new(
                Kind::CorruptData,
                format!("the sentinel of backup {} is damaged: {error}", self.name),
            )
        };
        let locations = spec
            .locations()
            .map_err(|error| damaged(error.to_string()))?;
        locations
            .into_iter()
            .map(|(name, location)| {
                let oid = name
                    .parse()
                    .map_err(|_| damaged(format!("\"{name}\" is no object identifier")))?;
                Ok(recorded(oid, location, None))
            })
            .collect()
    }

    /// The tablespace map of the backup, which lies in one of its partitions: the last one of wale's, the one with the
    /// label of WAL-G's; of WAL-E's it lies beside the files of the data directory itself, which come first.
    pub(crate) async fn tablespace_map(&self, archive: &Archive) -> Result<Option<TablespaceMap>> {
        let numbers = || self.parts.iter().filter_map(|part| part.number);
        let (first, last) = (numbers().min(), numbers().max());
        let is_candidate = |part: &&StoredPart| match (self.wale(), part.number) {
            (Some(_), number) => number == last,
            (None, None) => true,
            (None, number) => number == first || number == last,
        };
        let _memory = archive.budget().acquire(WORKER_BYTES).await;
        for part in self.parts.iter().filter(is_candidate) {
            let key = Archive::key(&part.key)?;
            let rules = self.rules_of(part);
            let find = move |plain: &mut dyn Read| find_map(plain, rules.end);
            let form = (part.codec, rules.frames);
            let found = archive.decode_partition(&key, form, WORKER_BYTES, find);
            let Some(bytes) = found.await? else { continue };
            let major = self.major.unwrap_or(MajorVersion::NEWEST);
            let map =
                TablespaceMap::parse(&byte_text::from_bytes(&bytes), major).map_err(|error| {
                    let what = format!("the tablespace map of backup {} is damaged", self.name);
                    OpError::new(Kind::CorruptData, what).source(error)
                })?;
            return Ok(Some(map));
        }
        Ok(None)
    }

    /// Position at which the backup is consistent; the beginning of its first segment where nobody recorded more.
    pub(crate) async fn consistent_at(&self, archive: &Archive) -> Result<Option<Lsn>> {
        archive.consistent_at(&self.name, &self.sentinel).await
    }

    /// The cluster's WAL segment size; PostgreSQL's default where nobody recorded it.
    pub(crate) async fn segment_size(&self, archive: &Archive) -> Result<WalSegmentSize> {
        archive.segment_size_of(&self.name, &self.sentinel).await
    }
}

/// WAL-G's list of the members of a backup, where there is one.
struct List {
    list: Option<MemberList>,
}

impl List {
    async fn load(archive: &Archive, entry: &BackupEntry) -> Result<Self> {
        let bounds = DescriptionBounds::of_foreign(archive.budget().total());
        let (name, sentinel) = (&entry.name, sentinel_of(entry)?);
        let list = archive.member_list(name, sentinel, Keep::Members(bounds));
        Ok(Self { list: list.await? })
    }

    /// The partitions of the backup, held against its record and this list.
    async fn parts(&self, archive: &Archive, entry: &BackupEntry) -> Result<Vec<StoredPart>> {
        let (name, sentinel) = (&entry.name, sentinel_of(entry)?);
        let parts = archive.checked_parts(name, sentinel, self.list.as_ref());
        let parts = parts.await?;
        if sentinel.wale.is_none() {
            archive.check_clear(name, &parts).await?;
        }
        Ok(parts)
    }
}

fn sentinel_of(entry: &BackupEntry) -> Result<&Sentinel> {
    let sentinel = entry.readable();
    sentinel.ok_or_else(|| OpError::internal("a chosen backup has a readable sentinel"))
}

/// Largest first.
fn by_size(parts: &mut [StoredPart]) {
    parts.sort_by(|one, other| {
        let by_size = other.size.cmp(&one.size);
        by_size.then_with(|| one.key.cmp(&other.key))
    });
}

/// The error for a list that names what an earlier backup has by no name.
fn nameless(entry: &BackupEntry, count: u64) -> OpError {
    OpError::new(
        Kind::Configuration,
        format!(
            "delta backup {} cannot be restored: its list leaves {count} files to the backup before whose names are no UTF-8",
            entry.name
        ),
    )
    .detail("WAL-G's list does not say which files they are, so the restore would lack them.")
    .hint("restore a full backup; the WAL leads on from there")
}

/// A sentence about a file that is no relation's, and of which a delta has pages only.
fn doubtful(entry: &BackupEntry, path: &str) -> String {
    format!(
        "backup {} has only changed pages of \"{path}\", which WAL-G before 3.0.5 took for a relation where \"base\" is in \
         the data directory's name: it may be of an earlier state. To be sure, restore a full backup and let the WAL lead \
         on from there",
        entry.name
    )
}

fn broken(delta: &BackupName, at: &BackupName, why: &str) -> OpError {
    OpError::new(
        Kind::CorruptData,
        if delta == at {
            format!("backup {delta} cannot be restored: {why}")
        } else {
            format!("backup {delta} cannot be restored: of backup {at}, on which it builds: {why}")
        },
    )
    .hint("restore a full backup; the WAL leads on from there")
}

/// Where a place lies in the original's data directory `base`, if it does.
fn place_inside(base: &str, location: &str) -> Option<String> {
    if !base.starts_with('/') || Path::new(base) == Path::new("/") {
        return None;
    }
    let (base, location) = (path_of_text(base), path_of_text(location));
    location.strip_prefix(base).ok().map(text_of_path)
}

/// Looks for the tablespace map in a partition.
fn find_map(
    plain: &mut dyn Read,
    end: TarEnd,
) -> std::result::Result<Option<Vec<u8>>, ConsumeError> {
    let mut tar = TarReader::new(plain).ending(end);
    while let Some(member) = tar.next() {
        let member = member.map_err(std::io::Error::from)?;
        if let MemberKind::File { size } = member.kind
            && member.path.as_str() == TABLESPACE_MAP
            && size <= MAP_MAX
        {
            let mut bytes = Vec::new();
            tar.read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

fn recorded_major(sentinel: &Sentinel) -> Option<MajorVersion> {
    let of_wal_g = || {
        sentinel
            .pg_version
            .and_then(|number| MajorVersion::from_server_version_num(number).ok())
    };
    sentinel
        .wale
        .as_ref()
        .map(|wale| wale.major)
        .or_else(of_wal_g)
}

/// `PostgreSQL 10.23 on x86_64…`: WAL-E records the version nowhere else.
async fn extended_version(archive: &Archive, name: &BackupName) -> Result<Option<MajorVersion>> {
    let key = Archive::key(&layout::extended_version(name))?;
    let Some(bytes) = read_whole(archive, &key, VERSION_TEXT_MAX).await? else {
        return Ok(None);
    };
    Ok(major_of(&String::from_utf8_lossy(&bytes)))
}

fn major_of(text: &str) -> Option<MajorVersion> {
    let version = text.strip_prefix("PostgreSQL ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    MajorVersion::parse(&digits).ok()
}

/// The whole of an object of at most `most` bytes.
async fn read_whole(archive: &Archive, key: &ObjectKey, most: u64) -> Result<Option<Vec<u8>>> {
    let failed = |error| OpError::from_store(error, format_args!("read {key}"));
    let object = match archive.store().get(key).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let size = object.meta.size;
    let too_large = || OpError::new(Kind::CorruptData, format!("object {key} is far too large"));
    if size > most {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    let mut body = object.body;
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(failed)?);
        if bytes.len() as u64 > most {
            return Err(too_large());
        }
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_out_of_the_servers_text() {
        let cases = [
            (
                "PostgreSQL 10.23 on x86_64-pc-linux-gnu, compiled by gcc",
                Some(10),
            ),
            ("PostgreSQL 15.20 (Debian 15.20-0+deb12u1)", Some(15)),
            ("PostgreSQL 18beta1 on x", Some(18)),
            ("PostgreSQL 9.6.1", None),
            ("EnterpriseDB 15", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(major_of(text).map(MajorVersion::get), expected, "{text:?}");
        }
    }
}
