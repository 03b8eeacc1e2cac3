//! PostgreSQL's configuration files, as far as a restore has to read and change them.
//!
//! The grammar is that of `guc-file.l`: one setting a line, `name = value` or `name value`, names without
//! regard to case, a value in single quotes with `''` and backslashes, or a plain word or number, `#` begins
//! a comment. A value never spans lines, so lines can be dropped one by one.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use wale_pg::EnforcedSettings;

use super::names;
use crate::error::ClusterError;

const BLOCK_BEGIN: &str = "# wale: recovery settings, replaced by the next restore";
const BLOCK_END: &str = "# wale: end of recovery settings";

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

/// Puts a value into quotes.
pub(super) fn quote(value: &str) -> String {
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

/// Lines for those settings that the primary had larger than the restored configuration has them.
///
/// Configured is what stands last in `postgresql.conf`, the files that it includes, and
/// `postgresql.auto.conf`. Where the configuration lies outside of the data directory, or sets what cannot
/// be read as a number, PostgreSQL's default is assumed; then the primary's value is written, which is
/// enough for recovery, and perhaps less than the configuration wanted.
pub(super) fn missing_minimums(
    data_directory: &Path,
    required: Option<&EnforcedSettings>,
) -> Result<String, ClusterError> {
    let mut text = String::new();
    let Some(required) = required else {
        return Ok(text);
    };
    let mut settings = Vec::new();
    read_settings(&data_directory.join("postgresql.conf"), 0, &mut settings)?;
    let auto = read_text(&data_directory.join(super::AUTO_CONF))?.unwrap_or_default();
    collect(&strip(&auto), &mut settings);
    for (name, minimum) in required.minimums() {
        let configured = settings
            .iter()
            .rev()
            .find(|setting| setting.name.eq_ignore_ascii_case(name))
            .and_then(|setting| setting.value.trim().parse().ok());
        let default = DEFAULTS.iter().find(|(known, _)| *known == name);
        let effective: i32 = configured.or(default.map(|(_, value)| *value)).unwrap_or(0);
        if effective < minimum {
            writeln!(text, "{name} = '{minimum}'").expect("text grows");
        }
    }
    Ok(text)
}

/// PostgreSQL's own limit of files that include files is 10.
const INCLUDE_DEPTH: u32 = 10;

fn read_settings(path: &Path, depth: u32, settings: &mut Vec<Setting>) -> Result<(), ClusterError> {
    // A file that is missing or unreadable is PostgreSQL's to complain about.
    let Some(text) = read_text(path)? else {
        return Ok(());
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    for setting in text
        .lines()
        .filter_map(|line| parse_line(line).ok().flatten())
    {
        let inner = folder.join(&setting.value);
        match setting.name.to_ascii_lowercase().as_str() {
            "include" | "include_if_exists" if depth < INCLUDE_DEPTH => {
                read_settings(&inner, depth + 1, settings)?;
            }
            "include_dir" if depth < INCLUDE_DEPTH => {
                for file in configuration_files(&inner) {
                    read_settings(&file, depth + 1, settings)?;
                }
            }
            _ => settings.push(setting),
        }
    }
    Ok(())
}

/// The files that `include_dir` reads: `*.conf`, no dot files, in order.
fn configuration_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .filter(|entry| is_configuration_name(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// What the shell's `*.conf` matches.
pub(super) fn is_configuration_name(name: &str) -> bool {
    name.strip_suffix(".conf")
        .is_some_and(|stem| !stem.is_empty())
        && !name.starts_with('.')
}

fn collect(text: &str, settings: &mut Vec<Setting>) {
    settings.extend(
        text.lines()
            .filter_map(|line| parse_line(line).ok().flatten()),
    );
}

fn read_text(path: &Path) -> Result<Option<String>, ClusterError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::IsADirectory
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(ClusterError::io("read", path)(error)),
    }
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
        let missing = || missing_minimums(folder.path(), Some(&required)).unwrap();
        assert_eq!(
            missing(),
            "max_connections = '200'\nmax_wal_senders = '20'\n\
             max_prepared_transactions = '5'\nmax_locks_per_transaction = '256'\n"
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
        assert_eq!(missing(), "max_locks_per_transaction = '256'\n");
        assert_eq!(missing_minimums(folder.path(), None).unwrap(), "");
    }
}
