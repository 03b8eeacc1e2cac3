//! PostgreSQL's configuration files, as far as a restore has to read and change them.
//!
//! The grammar is that of `guc-file.l`: one setting a line, `name = value` or `name value`, names without
//! regard to case, a value in single quotes with `''` and backslashes, or a plain word or number, `#` begins
//! a comment. A value never spans lines, so lines can be dropped one by one.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use wale_pg::EnforcedSettings;

use super::files::AUTO_CONF;
use super::names;
use crate::error::ClusterError;

pub(super) const BLOCK_BEGIN: &str = "# wale: recovery settings, replaced by the next restore";
pub(super) const BLOCK_END: &str = "# wale: end of recovery settings";

/// One line of a configuration file that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// As written.
    pub(super) name: String,
    /// Without quotes and escapes.
    pub(super) value: String,
}

/// Why a line is no setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LineError {
    NoName,
    NoValue,
    OpenQuote,
    /// The value is not quoted and is none that PostgreSQL takes without quotes.
    NeedsQuotes,
    /// Something follows the value; it is what is left.
    Rest(String),
}

/// Puts a value into quotes, as configuration files have them.
#[must_use]
pub fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// Reads one line. `None`: it is empty or a comment.
pub(super) fn parse_line(line: &str) -> Result<Option<Setting>, LineError> {
    let line = line.trim_matches([' ', '\t', '\r', '\x0b', '\x0c']);
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let name_end = line
        .find(|c: char| {
            !(c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '.') || !c.is_ascii())
        })
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(LineError::NoName);
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    if rest.is_empty() || rest.starts_with('#') {
        return Err(LineError::NoValue);
    }
    let (value, rest) = match rest.strip_prefix('\'') {
        Some(quoted) => unquote(quoted)?,
        None => plain(rest)?,
    };
    let rest = rest.trim();
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err(LineError::Rest(rest.to_owned()));
    }
    Ok(Some(Setting {
        name: name.to_owned(),
        value,
    }))
}

/// The value after an opening quote, and what follows the closing one (`DeescapeQuotedString`).
fn unquote(text: &str) -> Result<(String, &str), LineError> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        match character {
            '\'' if characters.peek().is_some_and(|(_, next)| *next == '\'') => {
                characters.next();
                value.push('\'');
            }
            '\'' => return Ok((value, &text[index + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, 'b')) => value.push('\x08'),
                Some((_, 'f')) => value.push('\x0c'),
                Some((_, other)) => value.push(other),
                None => return Err(LineError::OpenQuote),
            },
            other => value.push(other),
        }
    }
    Err(LineError::OpenQuote)
}

/// A value that needs no quotes: a word that begins with a letter, or a number with an optional unit.
fn plain(text: &str) -> Result<(String, &str), LineError> {
    let end = text.find([' ', '\t', '#']).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_' || !c.is_ascii();
    let is_word = word.starts_with(is_letter)
        && word.chars().all(|c| {
            is_letter(c) || c.is_ascii_digit() || matches!(c, '$' | '-' | '.' | ':' | '/')
        });
    let number = word.strip_prefix(['+', '-']).unwrap_or(word);
    let is_number = number.starts_with(|c: char| c.is_ascii_digit())
        && number.chars().filter(|c| *c == '.').count() <= 1
        && number
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '.');
    if is_word || is_number {
        Ok((word.to_owned(), rest))
    } else {
        Err(LineError::NeedsQuotes)
    }
}

/// A `postgresql.auto.conf` (or any other configuration file) without recovery settings: wale's own block,
/// and every line that sets a recovery target, a `restore_command`, or what makes a standby. All else, and
/// settings like `recovery_init_sync_method` that only say how recovery works, stays as it is.
#[must_use]
pub fn strip(configuration: &str) -> String {
    String::from_utf8(strip_bytes(configuration.as_bytes()))
        .expect("whole lines of UTF-8 text are UTF-8 text")
}

/// As [`strip`], for files in whatever encoding the database has.
pub(super) fn strip_bytes(configuration: &[u8]) -> Vec<u8> {
    let begin = BLOCK_BEGIN.as_bytes();
    let end = BLOCK_END.as_bytes();
    let lines = || configuration.split_inclusive(|byte| *byte == b'\n');
    let has_end = lines().any(|line| line.trim_ascii() == end);
    let mut kept = Vec::with_capacity(configuration.len());
    let mut in_block = false;
    for line in lines() {
        let text = line.trim_ascii();
        if text == begin {
            // Without an end, a tool or person has edited it: then only the lines by name are ours.
            in_block = has_end;
        } else if text == end {
            in_block = false;
        } else if !in_block && !sets_recovery(text) {
            kept.extend_from_slice(line);
        }
    }
    kept
}

fn sets_recovery(line: &[u8]) -> bool {
    let is_name = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let end = line.iter().take_while(is_name).count();
    let name = str::from_utf8(&line[..end])
        .expect("ASCII is UTF-8")
        .to_ascii_lowercase();
    names::find(&name).is_some() || name.starts_with("recovery_target")
}

/// The configuration with the block at its end; without one where there is nothing to say.
pub(super) fn with_block(configuration: Vec<u8>, block: &str) -> Vec<u8> {
    let mut text = configuration;
    if block.is_empty() {
        return text;
    }
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend_from_slice(format!("{BLOCK_BEGIN}\n{block}{BLOCK_END}\n").as_bytes());
    text
}

/// PostgreSQL's defaults of the settings that recovery enforces, the same in 10 to 18. From 19 on the last one is 128: the
/// smaller number here errs on the side of writing the primary's own value, which recovery accepts.
const DEFAULTS: [(&str, i32); 5] = [
    ("max_connections", 100),
    ("max_worker_processes", 8),
    ("max_wal_senders", 10),
    ("max_prepared_transactions", 0),
    ("max_locks_per_transaction", 64),
];

/// The settings that the primary had larger than the restored configuration has them, with the primary's values.
///
/// Where the configuration lies outside of the data directory, or sets what cannot be read as a number, PostgreSQL's
/// default is assumed; then the primary's value is written, which is enough for recovery, and perhaps less than the
/// configuration wanted.
pub(super) fn missing_minimums(
    configured: &Configured,
    required: Option<&EnforcedSettings>,
) -> Vec<(String, String)> {
    let minimums = required.into_iter().flat_map(EnforcedSettings::minimums);
    minimums
        .filter(|(name, minimum)| {
            let configured = configured
                .get(name)
                .and_then(|value| value.trim().parse().ok());
            let default = DEFAULTS.iter().find(|(known, _)| known == name);
            let effective: i32 = configured.or(default.map(|(_, value)| *value)).unwrap_or(0);
            effective < *minimum
        })
        .map(|(name, minimum)| (name.to_owned(), minimum.to_string()))
        .collect()
}

/// PostgreSQL's own limit of files that include files is 10.
pub(super) const INCLUDE_DEPTH: u32 = 10;

/// Bytes of one configuration file. PostgreSQL's own, full of comments, has 30 KiB; 4 MiB is a hundred times that.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// The configuration files that a restore reads, before it writes its settings: see [`FILE_BYTES_MAX`].
pub const READ_FILES: [&str; 2] = ["postgresql.conf", AUTO_CONF];

/// Files that a configuration consists of, and their bytes altogether: 1,000 opened files, and 4 × 4 MiB that are read.
/// A file that includes itself a hundred times would otherwise be read 100^10 times.
pub(super) const FILES_MAX: u32 = 1000;
pub(super) const BYTES_MAX: u64 = 4 * FILE_BYTES_MAX;

/// What a configuration sets, as far as somebody asked for it.
#[derive(Debug, Default)]
pub(super) struct Configured {
    values: BTreeMap<String, String>,
}

impl Configured {
    /// The value of a setting; the name in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

/// What stands last in `postgresql.conf`, the files that it includes, and `postgresql.auto.conf`, of the settings named in
/// lower case. Nothing is known of a configuration that is beyond the bounds above: its author can write anything.
///
/// # Errors
/// When a file is there and cannot be read.
pub(super) fn configured(
    data_directory: &Path,
    wanted: &[&str],
) -> Result<Configured, ClusterError> {
    let mut reading = ConfigurationReader {
        wanted,
        found: Configured::default(),
        files: 0,
        bytes: 0,
    };
    reading.file(&data_directory.join("postgresql.conf"), 0)?;
    let auto = read_auto_conf(data_directory)?;
    for line in String::from_utf8_lossy(&strip_bytes(&auto)).lines() {
        if let Ok(Some(setting)) = parse_line(line) {
            reading.note(setting);
        }
    }
    if reading.is_too_much() {
        tracing::warn!(
            files = reading.files,
            bytes = reading.bytes,
            "the configuration in {} is too large to be read: PostgreSQL's defaults are assumed",
            data_directory.display()
        );
        return Ok(Configured::default());
    }
    Ok(reading.found)
}

/// A configuration that is being read.
struct ConfigurationReader<'a> {
    wanted: &'a [&'a str],
    found: Configured,
    files: u32,
    bytes: u64,
}

impl ConfigurationReader<'_> {
    fn is_too_much(&self) -> bool {
        self.files > FILES_MAX || self.bytes > BYTES_MAX
    }

    fn note(&mut self, setting: Setting) {
        let name = setting.name.to_ascii_lowercase();
        if self.wanted.contains(&name.as_str()) {
            self.found.values.insert(name, setting.value);
        }
    }

    fn file(&mut self, path: &Path, depth: u32) -> Result<(), ClusterError> {
        if self.is_too_much() {
            return Ok(());
        }
        self.files += 1;
        // A file that is missing, or none, is PostgreSQL's to complain about.
        let Some(bytes) = read_bounded(path)? else {
            return Ok(());
        };
        self.bytes += bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        let folder = path.parent().unwrap_or(Path::new("."));
        for setting in text
            .lines()
            .filter_map(|line| parse_line(line).ok().flatten())
        {
            let inner = folder.join(&setting.value);
            match setting.name.to_ascii_lowercase().as_str() {
                "include" | "include_if_exists" if depth < INCLUDE_DEPTH => {
                    self.file(&inner, depth + 1)?;
                }
                "include_dir" if depth < INCLUDE_DEPTH => {
                    let files =
                        configuration_files(&inner).map_err(ClusterError::io("list", &inner))?;
                    for file in files {
                        self.file(&file, depth + 1)?;
                    }
                }
                _ => self.note(setting),
            }
        }
        Ok(())
    }
}

/// A configuration file of at most [`FILE_BYTES_MAX`]. `None`: there is none, or what has the name is no regular file. A
/// FIFO is opened without waiting for a writer, and a device is not read.
///
/// # Errors
/// When it cannot be read; `Damaged` when it is larger.
pub(super) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, ClusterError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) || error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(ClusterError::io("read", path)(error)),
    };
    let metadata = file.metadata().map_err(ClusterError::io("look at", path))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(ClusterError::io("read", path))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ClusterError::Damaged {
            path: path.to_owned(),
            reason: format!("it is larger than {FILE_BYTES_MAX} bytes"),
        });
    }
    Ok(Some(bytes))
}

/// `postgresql.auto.conf`, empty where there is none. Bytes, because values may be in the database's encoding.
pub(super) fn read_auto_conf(data_directory: &Path) -> Result<Vec<u8>, ClusterError> {
    let found = read_bounded(&data_directory.join(AUTO_CONF))?;
    Ok(found.unwrap_or_default())
}

/// The files that `include_dir` reads: `*.conf`, no dot files, in order. None where there is no such folder.
pub(super) fn configuration_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries.take(FILES_MAX as usize) {
        let entry = entry?;
        if is_configuration_name(&entry.file_name().to_string_lossy()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// What the shell's `*.conf` matches.
pub(super) fn is_configuration_name(name: &str) -> bool {
    name.strip_suffix(".conf")
        .is_some_and(|stem| !stem.is_empty())
        && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wale_pg::WalLevel;

    use super::*;

    #[test]
    fn lines_are_read_as_postgresql_reads_them() {
        let cases = [
            ("", Ok(None)),
            ("   # comment", Ok(None)),
            ("a = b", Ok(Some(("a", "b")))),
            ("a b", Ok(Some(("a", "b")))),
            ("  A='b c' # d", Ok(Some(("A", "b c")))),
            ("a = 'it''s'", Ok(Some(("a", "it's")))),
            (r"a = 'it\'s \\ \n'", Ok(Some(("a", "it's \\ \n")))),
            ("a = ''", Ok(Some(("a", "")))),
            ("a = 10MB", Ok(Some(("a", "10MB")))),
            ("a = -1.5", Ok(Some(("a", "-1.5")))),
            ("ext.a = on\r", Ok(Some(("ext.a", "on")))),
            ("a = 0/3000000", Err(LineError::NeedsQuotes)),
            ("a = 2026-01-01", Err(LineError::NeedsQuotes)),
            ("a = b c", Err(LineError::Rest("c".to_owned()))),
            ("a = 'b' c", Err(LineError::Rest("c".to_owned()))),
            ("a = 'b", Err(LineError::OpenQuote)),
            (r"a = 'b\", Err(LineError::OpenQuote)),
            ("a =", Err(LineError::NoValue)),
            ("a = # x", Err(LineError::NoValue)),
            ("a", Err(LineError::NoValue)),
            ("= b", Err(LineError::NoName)),
            ("'a' = b", Err(LineError::NoName)),
            ("1a = b", Err(LineError::NoName)),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|setting| {
                setting.map(|(name, value)| Setting {
                    name: name.to_owned(),
                    value: value.to_owned(),
                })
            });
            assert_eq!(parse_line(line), expected, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(value in "[^\0\n\r]*") {
            let line = format!("name = {}", quote(&value));
            prop_assert_eq!(parse_line(&line).unwrap().unwrap().value, value);
        }

        #[test]
        fn no_line_breaks_the_reader(line in "[a-z_='\\\\ #0-9./-]{0,40}") {
            let _ = parse_line(&line);
            let stripped = strip(&line);
            prop_assert_eq!(strip(&stripped), stripped);
        }
    }

    #[test]
    fn recovery_settings_are_stripped_and_others_are_not() {
        let gone = [
            "restore_command = 'x'",
            "  RESTORE_COMMAND 'x'",
            "recovery_target_time='x'",
            "recovery_target = immediate",
            "recovery_target_future = 'x'",
            "recovery_min_apply_delay = 5min",
            "recovery_end_command 'x'",
            "archive_cleanup_command = 'x'",
            "primary_conninfo = 'host=x'",
            "primary_slot_name = 'x'",
            "promote_trigger_file = '/x'",
            "standby_mode = on",
            "recovery_prefetch = try",
        ];
        let kept = [
            "# restore_command = 'x'",
            "recovery_init_sync_method = syncfs",
            "recovery_init_sync_method = fsync",
            "hot_standby = on",
            "restore_commander = 'x'",
            "max_connections = 5",
            "broken line '",
            "",
        ];
        for line in gone {
            assert_eq!(
                strip(&format!("a = 1\n{line}\nb = 2\n")),
                "a = 1\nb = 2\n",
                "{line}"
            );
        }
        for line in kept {
            let text = format!("a = 1\n{line}\nb = 2\n");
            assert_eq!(strip(&text), text, "{line}");
        }
        assert_eq!(strip("a = 1\nrestore_command = 'x'"), "a = 1\n");
    }

    #[test]
    fn the_block_goes_as_a_whole_and_an_open_one_by_names() {
        let block = "restore_command = 'x'\nmax_connections = '200'\n";
        let text = String::from_utf8(with_block(b"a = 1".to_vec(), block)).unwrap();
        assert_eq!(strip(&text), "a = 1\n");
        assert_eq!(strip(&format!("{text}b = 2\n")), "a = 1\nb = 2\n");
        let open = text.replace(BLOCK_END, "");
        assert_eq!(strip(&open), "a = 1\nmax_connections = '200'\n\n");
        assert_eq!(with_block(b"a = 1".to_vec(), ""), b"a = 1");
        // Latin-1, which is not UTF-8, survives.
        let latin = b"a = 'gr\xfcn'\nrestore_command = '\xe9'\n";
        assert_eq!(strip_bytes(latin), b"a = 'gr\xfcn'\n");
    }

    #[test]
    fn only_what_is_configured_smaller_is_raised() {
        let required = EnforcedSettings {
            max_connections: 200,
            max_worker_processes: 8,
            max_wal_senders: Some(20),
            max_prepared_transactions: 5,
            max_locks_per_transaction: 256,
            wal_level: WalLevel::Replica,
        };
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let missing = || {
            let wanted = DEFAULTS.map(|(name, _)| name);
            let configured = configured(folder.path(), &wanted).unwrap();
            missing_minimums(&configured, Some(&required))
                .iter()
                .map(|(name, value)| format!("{name} = {value}"))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            missing(),
            [
                "max_connections = 200",
                "max_wal_senders = 20",
                "max_prepared_transactions = 5",
                "max_locks_per_transaction = 256"
            ]
        );
        write(
            "postgresql.conf",
            "max_connections = 300\nmax_connections = 250 # last wins\n\
             include 'more.conf'\ninclude_dir = 'conf.d'\ninclude_if_exists 'none.conf'\n",
        );
        write(
            "more.conf",
            "Max_Wal_Senders = 20\ninclude 'postgresql.conf'\n",
        );
        write("conf.d/1.conf", "max_prepared_transactions = 4\n");
        write("conf.d/2.conf", "max_prepared_transactions = 6\n");
        write("conf.d/.3.conf", "max_prepared_transactions = 1\n");
        write(
            "postgresql.auto.conf",
            "max_locks_per_transaction = '128'\n",
        );
        assert_eq!(missing(), ["max_locks_per_transaction = 256"]);
        assert!(missing_minimums(&Configured::default(), None).is_empty());
    }

    #[test]
    fn fault_92_devices_pipes_and_files_without_end_are_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let conf = folder.path().join("postgresql.conf");
        let pipe = folder.path().join("pipe.conf");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        let read = || {
            configured(folder.path(), &["max_connections"])
                .map(|found| found.get("max_connections").map(str::to_owned))
        };
        let text =
            "include '/dev/zero'\ninclude_dir '/dev'\ninclude 'pipe.conf'\nmax_connections = 7\n";
        std::fs::write(&conf, text).unwrap();
        assert_eq!(read().unwrap().as_deref(), Some("7"));
        // A hundred includes of itself, ten deep: nothing is known of such a configuration.
        let bomb = "include 'postgresql.conf'\n".repeat(100) + "max_connections = 7\n";
        std::fs::write(&conf, bomb).unwrap();
        assert_eq!(read().unwrap(), None);
        // 600 MiB, most of it a hole.
        let auto = std::fs::File::create(folder.path().join("postgresql.auto.conf")).unwrap();
        auto.set_len(600 << 20).unwrap();
        let error = read().unwrap_err();
        assert!(
            error.to_string().contains("postgresql.auto.conf"),
            "{error}"
        );
    }
}
