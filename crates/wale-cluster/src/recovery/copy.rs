//! Configuration that lies apart from the data directory and is wanted in a restored cluster: a folder of the operator's, as
//! Debian's `/etc/postgresql/15/main`.
//!
//! Such a folder says where everything of the *original* is. A restored server that read `data_directory`, `hba_file` or an
//! `include` of it would start the original's directory, or with the original's rules. So these lines are written as
//! comments that say so; what they name inside the folder comes along.
//!
//! Everything is read and judged before the first write: what is missing or unreadable is reported in time.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use wale_pg::MajorVersion;

use super::configuration::{
    BYTES_MAX, FILES_MAX, INCLUDE_DEPTH, Setting, configuration_files, is_configuration_name,
    parse_line, read_bounded,
};
use super::files::RECOVERY_CONF;
use super::includes::{How, plain};
use crate::durable;
use crate::error::ClusterError;
use crate::owner::Owner;

/// What stands before a line that is not taken over.
const NOT_TAKEN: &str = "# wale: not taken over by the restore: ";

/// Files of Debian's cluster folders that are none of PostgreSQL's.
const NOT_POSTGRESQL: [&str; 2] = ["start.conf", "pg_ctl.conf"];

/// The folder that Debian's `postgresql.conf` includes.
const SUBFOLDER: &str = "conf.d";

/// The main file.
const MAIN: &str = "postgresql.conf";

/// The first words of lines in `pg_hba.conf`.
const HBA_WORDS: [&str; 9] = [
    "local",
    "host",
    "hostssl",
    "hostnossl",
    "hostgssenc",
    "hostnogssenc",
    "include",
    "include_if_exists",
    "include_dir",
];

/// Configuration files as they will be written, by their path in the data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationSet {
    files: BTreeMap<String, Vec<u8>>,
    /// Sentences about what is not taken over.
    pub said: Vec<String>,
}

/// A file as it is stored: as text, or where its encoding is another than UTF-8, in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stored {
    Text(String),
    Hex(String),
}

/// A set as it is stored.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct StoredSet {
    files: BTreeMap<String, Stored>,
    said: Vec<String>,
}

impl ConfigurationSet {
    /// JSON of [`ConfigurationSet::from_json`] is never larger: each byte in two digits, in bounds that hold for the files.
    pub const JSON_BYTES_MAX: u64 = 3 * BYTES_MAX;

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let stored = |bytes: &Vec<u8>| match String::from_utf8(bytes.clone()) {
            Ok(text) => Stored::Text(text),
            Err(error) => Stored::Hex(hex(error.as_bytes())),
        };
        let set = StoredSet {
            files: self
                .files
                .iter()
                .map(|(name, bytes)| (name.clone(), stored(bytes)))
                .collect(),
            said: self.said.clone(),
        };
        serde_json::to_vec_pretty(&set).expect("text keys and values are always JSON")
    }

    /// From JSON. Names are paths in a data directory: whatever leads out of it is refused when it is written.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let set: StoredSet = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let mut files = BTreeMap::new();
        for (name, stored) in set.files {
            if is_data_directorys(&name) {
                return Err(format!("{name:?} is no configuration file"));
            }
            let bytes = match stored {
                Stored::Text(text) => text.into_bytes(),
                Stored::Hex(digits) => {
                    unhex(&digits).ok_or_else(|| format!("{name:?} is not hexadecimal"))?
                }
            };
            files.insert(name, bytes);
        }
        Ok(Self {
            files,
            said: set.said,
        })
    }

    /// Whether the main file is among them.
    #[must_use]
    pub fn has_main(&self) -> bool {
        self.files.contains_key(MAIN)
    }

    /// The files' paths in the data directory, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Writes them over what came with the backup, whole and durably. To be done after the data and before
    /// [`super::apply`]: a `postgresql.auto.conf` among them would undo the recovery settings.
    ///
    /// # Errors
    /// When a file or folder cannot be written.
    pub fn write(&self, data_directory: &Path, owner: Option<Owner>) -> Result<(), ClusterError> {
        let tree = crate::RestoreTree::open(data_directory, owner)?;
        for (name, bytes) in &self.files {
            // The tree lets nothing lead out of it; the file as such is written by rename.
            drop(tree.create_file(name, 0o600)?);
            let path = data_directory.join(name);
            durable::write_atomic(&path, bytes, durable::mode_beside(&path), owner)
                .map_err(ClusterError::io("write", &path))?;
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            u8::from_str_radix(
                str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?,
                16,
            )
            .ok()
        })
        .collect()
}

/// Reads a folder's `*.conf`, its `conf.d` and what its files include inside of it, and makes them fit for a restored
/// cluster.
///
/// A `recovery.conf` is left out from PostgreSQL 12 on, which refuses to start with one. Files that are no configuration of
/// PostgreSQL's are left out. Links are followed (a Kubernetes volume of a config map consists of links); what is not a file
/// in the end is left out.
///
/// # Errors
/// When the folder or a file cannot be read, or there is more than any configuration holds.
pub fn read_configuration(
    from: &Path,
    major: MajorVersion,
) -> Result<ConfigurationSet, ClusterError> {
    let mut reading = CopyReader {
        from,
        set: ConfigurationSet::default(),
        bytes: 0,
        waiting: Vec::new(),
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(from).map_err(ClusterError::io("list", from))? {
        let entry = entry.map_err(ClusterError::io("list", from))?;
        // A name that is not UTF-8 is none of PostgreSQL's files.
        if let Ok(name) = entry.file_name().into_string()
            && is_configuration_name(&name)
        {
            names.push(name);
            reading.check(names.len())?;
        }
    }
    names.sort();
    for name in names {
        if name == RECOVERY_CONF && major.has_recovery_signal() {
            reading.say(format!(
                "{name} is left out: PostgreSQL {major} does not start with one"
            ));
        } else if NOT_POSTGRESQL.contains(&name.as_str()) {
            reading.say(format!("{name} is left out: it is not PostgreSQL's"));
        } else {
            reading.file(&name, false)?;
        }
    }
    reading.folder(SUBFOLDER)?;
    for _ in 0..INCLUDE_DEPTH {
        for (name, is_folder) in std::mem::take(&mut reading.waiting) {
            if is_folder {
                reading.folder(&name)?;
            } else {
                reading.file(&name, true)?;
            }
        }
    }
    Ok(reading.set)
}

/// Makes the `postgresql.conf` that came with a backup the restored cluster's own: `data_directory` of another place and
/// `external_pid_file` become comments. Says what was done; nothing is written where there is nothing to do.
///
/// # Errors
/// When the file cannot be read or written.
pub fn own_configuration(
    data_directory: &Path,
    owner: Option<Owner>,
) -> Result<Vec<String>, ClusterError> {
    let path = data_directory.join(MAIN);
    let Some(bytes) = read_bounded(&path)? else {
        return Ok(Vec::new());
    };
    let mut said = Vec::new();
    let after = edited(&bytes, |setting| {
        let name = setting.name.to_ascii_lowercase();
        let is_others = match name.as_str() {
            "external_pid_file" => true,
            "data_directory" => Path::new(&setting.value) != data_directory,
            _ => false,
        };
        if !is_others {
            return Edit::Keep;
        }
        said.push(sentence(MAIN, setting));
        Edit::Comment
    });
    if !said.is_empty() {
        durable::write_atomic(&path, &after, durable::mode_beside(&path), owner)
            .map_err(ClusterError::io("write", &path))?;
    }
    Ok(said)
}

fn sentence(file: &str, setting: &Setting) -> String {
    format!(
        "{} = '{}' of {file} is not taken over: it is the original's",
        setting.name.to_ascii_lowercase(),
        setting.value
    )
}

/// Whether a path in a data directory is one of the cluster's own, which no configuration replaces. A file that a
/// configuration includes may have any other name.
fn is_data_directorys(path: &str) -> bool {
    let mut parts = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".");
    let first = parts.next().unwrap_or_default();
    if parts.next().is_none() && is_configuration_name(first) {
        return false;
    }
    let names = [
        "PG_VERSION",
        "base",
        "global",
        "postmaster.",
        "backup_",
        "tablespace_map",
        "recovery.signal",
        "standby.signal",
        "current_logfiles",
        "wale_",
        "pg_",
    ];
    names.iter().any(|name| {
        // What ends with a mark is the beginning of names.
        if name.ends_with(['.', '_']) {
            first.starts_with(name)
        } else {
            first == *name
        }
    })
}

/// What becomes of a line.
enum Edit {
    Keep,
    Comment,
    /// A comment, and this line after it.
    Replace(String),
}

/// The file with each line that sets something judged. Bytes, because values may be in the database's encoding.
fn edited(bytes: &[u8], mut judge: impl FnMut(&Setting) -> Edit) -> Vec<u8> {
    let mut after = Vec::with_capacity(bytes.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let edit = match parse_line(text.trim_end_matches(['\n', '\r'])) {
            Ok(Some(setting)) => judge(&setting),
            _ => Edit::Keep,
        };
        if !matches!(edit, Edit::Keep) {
            after.extend_from_slice(NOT_TAKEN.as_bytes());
        }
        after.extend_from_slice(line);
        if let Edit::Replace(line) = edit {
            if !after.ends_with(b"\n") {
                after.push(b'\n');
            }
            after.extend_from_slice(line.as_bytes());
            after.push(b'\n');
        }
    }
    after
}

/// A folder that is being read.
struct CopyReader<'a> {
    from: &'a Path,
    set: ConfigurationSet,
    bytes: u64,
    /// What was included and not read yet: its path in the folder, and whether it is a folder.
    waiting: Vec<(String, bool)>,
}

impl CopyReader<'_> {
    fn say(&mut self, sentence: String) {
        self.set.said.push(sentence);
    }

    fn check(&self, files: usize) -> Result<(), ClusterError> {
        if files <= FILES_MAX as usize && self.bytes <= BYTES_MAX {
            return Ok(());
        }
        Err(ClusterError::Damaged {
            path: self.from.to_owned(),
            reason: format!(
                "it holds more than {FILES_MAX} configuration files, or {BYTES_MAX} bytes in them"
            ),
        })
    }

    fn folder(&mut self, name: &str) -> Result<(), ClusterError> {
        let folder = self.from.join(name);
        // Files that this user cannot list would silently be missing from the restored cluster.
        let files = configuration_files(&folder).map_err(ClusterError::io("list", &folder))?;
        for file in files {
            if let Some(file) = file.file_name().and_then(|file| file.to_str()) {
                self.file(&format!("{name}/{file}"), true)?;
            }
        }
        Ok(())
    }

    /// Takes a file in. Whatever a file includes is one of PostgreSQL's.
    fn file(&mut self, name: &str, is_included: bool) -> Result<(), ClusterError> {
        if self.set.files.contains_key(name) {
            return Ok(());
        }
        let path = self.from.join(name);
        // A link into nowhere is a mistake that is reported in time.
        let metadata = std::fs::metadata(&path).map_err(ClusterError::io("look at", &path))?;
        if metadata.is_dir() {
            return Ok(());
        }
        let Some(bytes) = read_bounded(&path)? else {
            self.say(format!("{name} is left out: it is no file"));
            return Ok(());
        };
        self.bytes += bytes.len() as u64;
        self.check(self.set.files.len() + 1)?;
        if is_rules(name, &bytes) {
            if names_others(&bytes) {
                self.say(format!(
                    "{name} names other files (@file or include), which are not taken over: put them where the restored \
                     server looks for them"
                ));
            }
            self.set.files.insert(name.to_owned(), bytes);
            return Ok(());
        }
        if !is_included && name != MAIN && !is_settings(&bytes) {
            self.say(format!(
                "{name} is left out: it is no configuration of PostgreSQL's"
            ));
            return Ok(());
        }
        let mut notes = Notes::default();
        let after = edited(&bytes, |setting| self.judge(name, setting, &mut notes));
        if let Some(error) = notes.failed {
            return Err(error);
        }
        self.set.files.insert(name.to_owned(), after);
        self.set.said.extend(notes.said);
        self.waiting.extend(notes.waiting);
        for (target, source) in notes.copies {
            if let Some(bytes) = read_bounded(&self.from.join(source))? {
                self.bytes += bytes.len() as u64;
                self.set.files.insert(target.to_owned(), bytes);
            }
        }
        self.check(self.set.files.len())
    }

    fn judge(&self, file: &str, setting: &Setting, notes: &mut Notes) -> Edit {
        let name = setting.name.to_ascii_lowercase();
        let default = match name.as_str() {
            "data_directory" | "external_pid_file" => None,
            "hba_file" => Some("pg_hba.conf"),
            "ident_file" => Some("pg_ident.conf"),
            _ => match How::of(&name) {
                Some(how) => return self.include(file, how, setting, notes),
                None => return Edit::Keep,
            },
        };
        let inside = default.and_then(|default| Some((default, self.inside("", &setting.value)?)));
        match inside {
            // Its content becomes the file that PostgreSQL looks for in the data directory.
            Some((default, source)) => {
                if source != default {
                    notes.said.push(format!(
                        "{source}, the {name} of {file}, is written as {default}"
                    ));
                    notes.copies.push((default, source));
                }
            }
            None => notes.said.push(sentence(file, setting)),
        }
        Edit::Comment
    }

    fn include(&self, file: &str, how: How, setting: &Setting, notes: &mut Notes) -> Edit {
        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
        let is_folder = how == How::Folder;
        let inside = self.inside(folder, &setting.value).filter(|inside| {
            let path = self.from.join(inside);
            match std::fs::metadata(&path) {
                Ok(metadata) => metadata.is_dir() == is_folder && (is_folder || metadata.is_file()),
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                    notes.failed = Some(ClusterError::io("look at", &path)(error));
                    false
                }
                Err(_) => false,
            }
        });
        let Some(inside) = inside else {
            // A file that may be missing, and is, is nothing to speak of.
            if how != How::FileIfExists || Path::new(&setting.value).exists() {
                notes.said.push(sentence(file, setting));
            }
            return Edit::Comment;
        };
        notes.waiting.push((inside.clone(), is_folder));
        if Path::new(&setting.value).is_relative() {
            return Edit::Keep;
        }
        // PostgreSQL looks from the folder of the file that includes.
        let up = "../".repeat(if folder.is_empty() {
            0
        } else {
            folder.split('/').count()
        });
        let value = super::configuration::quote(&format!("{up}{inside}"));
        let name = setting.name.to_ascii_lowercase();
        Edit::Replace(format!("{name} = {value}"))
    }

    /// The path in the folder that a value means, seen from a folder in it; `None` where it leads out.
    fn inside(&self, folder: &str, value: &str) -> Option<String> {
        let whole = plain(&self.from.join(folder).join(value));
        let from = plain(self.from);
        let inside = whole.strip_prefix(from).ok()?.to_str()?;
        (!inside.is_empty()).then(|| inside.to_owned())
    }
}

/// What one file adds.
#[derive(Default)]
struct Notes {
    said: Vec<String>,
    waiting: Vec<(String, bool)>,
    copies: Vec<(&'static str, String)>,
    /// Something is there and cannot be looked at.
    failed: Option<ClusterError>,
}

/// Whether it is a file of rules, as `pg_hba.conf` and `pg_ident.conf` are.
fn is_rules(name: &str, bytes: &[u8]) -> bool {
    if matches!(name, "pg_hba.conf" | "pg_ident.conf") {
        return true;
    }
    let text = String::from_utf8_lossy(bytes);
    let mut words = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .peekable();
    words.peek().is_some() && words.all(|word| HBA_WORDS.contains(&word)) && !is_settings(bytes)
}

/// Whether a file of rules names other files, which only the server reads: nothing of them is opened here.
fn names_others(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .any(|line| {
            let mut words = line
                .split([' ', '\t', ',', '\r'])
                .filter(|word| !word.is_empty());
            line.trim_start().starts_with("include")
                || words.any(|word| word.starts_with('@') || word.starts_with("\"@"))
        })
}

/// Whether every line sets something, is empty or a comment.
fn is_settings(bytes: &[u8]) -> bool {
    String::from_utf8_lossy(bytes)
        .lines()
        .all(|line| parse_line(line).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn from(&self) -> PathBuf {
            self.0.path().join("from")
        }

        fn put(&self, name: &str, text: &str) {
            let path = self.from().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn read(&self, major: u32) -> ConfigurationSet {
            read_configuration(&self.from(), MajorVersion::new(major).unwrap()).unwrap()
        }
    }

    #[test]
    fn fault_92_what_files_of_rules_name_is_not_read() {
        let folder = Folder::new();
        let rules = "include /dev/zero\ninclude_dir /dev\ninclude pg_hba.conf\ninclude pipe\n\
                     local @/dev/zero all trust\nhost all,@/dev/zero \"@pipe\" all trust\n";
        folder.put("postgresql.conf", "port = 5433\n");
        folder.put("pg_hba.conf", rules);
        folder.put("pg_ident.conf", "@/dev/zero a b\ninclude pipe\n");
        // Nobody writes into it: a reader would wait for ever.
        let pipe = folder.from().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let set = folder.read(16);
        assert_eq!(text(&set, "pg_hba.conf"), rules);
        let names: Vec<_> = set.names().collect();
        assert_eq!(names, ["pg_hba.conf", "pg_ident.conf", "postgresql.conf"]);
        assert_eq!(set.said.len(), 2, "{:?}", set.said);
        assert!(set.said[0].starts_with("pg_hba.conf names other files"));
        assert!(!names_others(
            b"local all all trust # @x include\nhost all a@b all md5\n"
        ));
    }

    fn text(set: &ConfigurationSet, name: &str) -> String {
        String::from_utf8(set.files[name].clone()).unwrap()
    }

    #[test]
    fn configuration_files_are_copied_and_others_are_not() {
        let folder = Folder::new();
        std::fs::create_dir_all(folder.from().join("folder.conf")).unwrap();
        folder.put("..data/pg_hba.conf", "local all all trust\n");
        symlink("..data/pg_hba.conf", folder.from().join("pg_hba.conf")).unwrap();
        for name in [
            "postgresql.conf",
            "recovery.conf",
            "notes.txt",
            ".hidden.conf",
            ".conf",
        ] {
            folder.put(name, "a = 1\n");
        }
        // Debian's, and somebody's own.
        folder.put("start.conf", "auto\n");
        folder.put("pg_ctl.conf", "pg_ctl_options = ''\n");
        folder.put("nginx.conf", "server {\n  listen 80;\n}\n");
        folder.put("extra.conf", "work_mem = '5MB'\n");
        let set = folder.read(15);
        let names: Vec<_> = set.names().collect();
        assert_eq!(names, ["extra.conf", "pg_hba.conf", "postgresql.conf"]);
        assert_eq!(set.said.len(), 4, "{:?}", set.said);
        assert!(folder.read(11).names().any(|name| name == "recovery.conf"));

        let data = folder.0.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::write(data.join("pg_hba.conf"), "of the backup").unwrap();
        set.write(&data, Some(Owner::of_process())).unwrap();
        let written = std::fs::read_to_string(data.join("pg_hba.conf")).unwrap();
        assert_eq!(written, "local all all trust\n");
        let metadata = std::fs::symlink_metadata(data.join("pg_hba.conf")).unwrap();
        assert!(metadata.is_file());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn fault_78_what_names_places_of_the_original_is_not_taken_over() {
        let folder = Folder::new();
        let from = folder.from();
        let at = from.display();
        folder.put(
            "postgresql.conf",
            &format!(
                "data_directory = '/var/lib/production'  # important\nHBA_FILE '{at}/rules/hba.conf'\n\
                 ident_file = '/etc/elsewhere/pg_ident.conf'\nexternal_pid_file = '/run/x.pid'\nport = 5433\n\
                 include_dir = 'conf.d'\ninclude '{at}/more/more.conf'\ninclude_if_exists 'none.conf'\ninclude '/etc/other.conf'\n"
            ),
        );
        folder.put("rules/hba.conf", "host all all all scram-sha-256\n");
        folder.put(
            "conf.d/10.conf",
            "work_mem = '5MB'\ndata_directory = '/var/lib/production'\n",
        );
        folder.put("conf.d/notes.txt", "x");
        folder.put(
            "more/more.conf",
            &format!("include 'same.inc'\ninclude '{at}/conf.d/10.conf'\n"),
        );
        folder.put("more/same.inc", "a.b = 1\n");
        let set = folder.read(15);
        let names: Vec<_> = set.names().collect();
        assert_eq!(
            names,
            [
                "conf.d/10.conf",
                "more/more.conf",
                "more/same.inc",
                "pg_hba.conf",
                "postgresql.conf"
            ]
        );
        assert_eq!(
            text(&set, "pg_hba.conf"),
            "host all all all scram-sha-256\n"
        );
        let main = text(&set, "postgresql.conf");
        let taken: Vec<_> = main.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            taken,
            [
                "port = 5433",
                "include_dir = 'conf.d'",
                "include = 'more/more.conf'"
            ]
        );
        let not_taken = format!("{NOT_TAKEN}data_directory = '/var/lib/production'");
        assert!(main.contains(&not_taken), "{main}");
        assert!(text(&set, "more/more.conf").contains("\ninclude = '../conf.d/10.conf'\n"));
        assert!(!text(&set, "conf.d/10.conf").contains("\ndata_directory"));
        for word in [
            "data_directory",
            "ident_file",
            "external_pid_file",
            "/etc/other.conf",
            "rules/hba.conf",
        ] {
            assert!(
                set.said.iter().any(|said| said.contains(word)),
                "{word}: {:?}",
                set.said
            );
        }
    }

    #[test]
    fn fault_78_a_missing_folder_and_a_dangling_link_are_errors() {
        let folder = Folder::new();
        let read = |from: &Path| read_configuration(from, MajorVersion::NEWEST);
        assert!(read(&folder.from()).is_err());
        std::fs::create_dir(folder.from()).unwrap();
        symlink("nowhere", folder.from().join("x.conf")).unwrap();
        assert!(read(&folder.from()).is_err());
    }

    #[test]
    fn fault_92_a_folder_without_end_is_an_error_and_devices_are_not_read() {
        let folder = Folder::new();
        folder.put(
            "postgresql.conf",
            "include 'postgresql.conf'\ninclude '/dev/zero'\n",
        );
        symlink("/dev/zero", folder.from().join("zero.conf")).unwrap();
        let set = folder.read(15);
        assert_eq!(set.names().collect::<Vec<_>>(), ["postgresql.conf"]);
        let large = std::fs::File::create(folder.from().join("large.conf")).unwrap();
        large.set_len(600 << 20).unwrap();
        let error = read_configuration(&folder.from(), MajorVersion::NEWEST).unwrap_err();
        assert!(error.to_string().contains("large.conf"), "{error}");
    }

    #[test]
    fn the_configuration_of_a_backup_does_not_lead_to_the_original() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MAIN);
        let own = format!("data_directory = '{}'\nport = 1\n", folder.path().display());
        std::fs::write(&path, &own).unwrap();
        assert!(own_configuration(folder.path(), None).unwrap().is_empty());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), own);
        std::fs::write(
            &path,
            "data_directory = '/production'\nport = 1\nexternal_pid_file 'x'\n",
        )
        .unwrap();
        assert_eq!(own_configuration(folder.path(), None).unwrap().len(), 2);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(
            text.lines()
                .all(|line| line == "port = 1" || line.starts_with(NOT_TAKEN)),
            "{text}"
        );
    }

    #[test]
    fn fault_79_a_set_is_stored_and_read_back_and_leads_nowhere_else() {
        let folder = Folder::new();
        folder.put("postgresql.conf", "port = 1\n");
        std::fs::write(folder.from().join("latin.conf"), b"a.b = 'gr\xfcn'\n").unwrap();
        folder.put("conf.d/1.conf", "work_mem = '5MB'\n");
        folder.put(
            "postgresql.conf",
            "port = 1\ninclude 'no_extension'\ninclude_dir 'empty.d'\n",
        );
        folder.put("no_extension", "a.b = 1\n");
        std::fs::create_dir(folder.from().join("empty.d")).unwrap();
        let set = folder.read(16);
        assert!(set.has_main());
        let names: Vec<_> = set.names().collect();
        for name in ["no_extension", "conf.d/1.conf"] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        assert!(text(&set, "postgresql.conf").contains("\ninclude_dir 'empty.d'\n"));
        assert_eq!(ConfigurationSet::from_json(&set.to_json()), Ok(set));
        assert!(ConfigurationSet::from_json(b"{").is_err());
        assert!(
            ConfigurationSet::from_json(br#"{"files": {"PG_VERSION": {"text": "x"}}}"#).is_err()
        );
        for own in [
            "PG_VERSION",
            "./global/pg_control",
            "pg_wal/x.conf",
            "standby.signal",
            "wale_x",
        ] {
            let json = format!(r#"{{"files": {{"{own}": {{"text": "x"}}}}}}"#);
            assert!(
                ConfigurationSet::from_json(json.as_bytes()).is_err(),
                "{own}"
            );
        }
        let evil = br#"{"files": {"../evil.conf": {"text": "x"}}}"#;
        let set = ConfigurationSet::from_json(evil).unwrap();
        let data = folder.0.path().join("data");
        std::fs::create_dir(&data).unwrap();
        assert!(set.write(&data, None).is_err());
        assert!(!folder.0.path().join("evil.conf").exists());
    }
}
