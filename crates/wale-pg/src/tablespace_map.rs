//! The tablespace map: which link in `pg_tblspc` recovery makes, and to where.
//!
//! Written by `do_pg_backup_start`, read by `read_tablespace_map` (`src/backend/access/transam/xlog.c`, from 15 on
//! `xlogrecovery.c`): one line `<oid> <path>` per tablespace. A backslash stands before each newline and carriage
//! return of a path, and from 14 on before each backslash too; up to 13 servers write and read a backslash as it is.
//! Therefore text and value are turned into each other for a version only.

use crate::major_version::MajorVersion;
use crate::text_form::{excerpt, parse_plain_decimal};

/// The tablespaces of a base backup, in the order of the file.
///
/// ```
/// use wale_pg::{MajorVersion, TablespaceMap};
/// let map = TablespaceMap::parse("16384 /srv/fast disk\n", MajorVersion::NEWEST).unwrap();
/// assert_eq!(map.entries, [(16384, "/srv/fast disk".to_owned())]);
/// assert_eq!(map.to_text(MajorVersion::NEWEST), "16384 /srv/fast disk\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// Object identifier and path of each tablespace.
    pub entries: Vec<(u32, String)>,
}

impl TablespaceMap {
    /// Reads the map that a server of this version wrote. An empty text is a map of no tablespaces.
    ///
    /// # Errors
    /// When a line is not an object identifier, a blank and a path, or the last line has no end.
    pub fn parse(text: &str, major: MajorVersion) -> Result<Self, InvalidTablespaceMap> {
        let mut entries = Vec::new();
        let mut line = String::new();
        let mut characters = text.chars().peekable();
        while let Some(character) = characters.next() {
            match character {
                '\\' => match characters.peek() {
                    Some('\n' | '\r') => line.extend(characters.next()),
                    Some('\\') if escapes_backslash(major) => line.extend(characters.next()),
                    _ => line.push('\\'),
                },
                // An empty line is the newline after a carriage return.
                '\n' | '\r' if line.is_empty() => {}
                '\n' | '\r' => {
                    entries
                        .push(parse_line(&line).ok_or_else(|| InvalidTablespaceMap::new(&line))?);
                    line.clear();
                }
                other => line.push(other),
            }
        }
        if line.is_empty() {
            Ok(Self { entries })
        } else {
            Err(InvalidTablespaceMap::new(&line))
        }
    }

    /// The map as a server of this version writes and reads it.
    pub fn to_text(&self, major: MajorVersion) -> String {
        let mut text = String::new();
        for (oid, path) in &self.entries {
            text.push_str(&oid.to_string());
            text.push(' ');
            for character in path.chars() {
                if matches!(character, '\n' | '\r') || character == '\\' && escapes_backslash(major)
                {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push('\n');
        }
        text
    }
}

/// Seen on servers of every version: 13.23 and older neither write nor read an escaped backslash.
const fn escapes_backslash(major: MajorVersion) -> bool {
    major.get() >= 14
}

fn parse_line(line: &str) -> Option<(u32, String)> {
    let (oid, path) = line.split_once(' ')?;
    let oid = parse_plain_decimal(oid).filter(|oid| *oid != 0)?;
    if path.is_empty() {
        None
    } else {
        Some((oid, path.to_owned()))
    }
}

/// A text is not a tablespace map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tablespace map has the invalid line {line:?}")]
pub struct InvalidTablespaceMap {
    /// The line, shortened.
    pub line: String,
}

impl InvalidTablespaceMap {
    fn new(line: &str) -> Self {
        Self {
            line: excerpt(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn major(number: u32) -> MajorVersion {
        MajorVersion::new(number).unwrap()
    }

    #[test]
    fn maps_of_real_servers() {
        // A tablespace at "…/ts <major>" newline "b\c", as pg_stop_backup and pg_backup_stop returned it.
        for (number, text) in [
            (10, "16399 /tmp/ts 10\\\nb\\c\n"),
            (13, "16399 /tmp/ts 13\\\nb\\c\n"),
            (14, "16398 /tmp/ts 14\\\nb\\\\c\n"),
            (18, "16398 /tmp/ts 18\\\nb\\\\c\n"),
        ] {
            let map = TablespaceMap::parse(text, major(number)).unwrap();
            assert_eq!(map.entries.len(), 1);
            assert_eq!(map.entries[0].1, format!("/tmp/ts {number}\nb\\c"));
            assert_eq!(map.to_text(major(number)), text);
        }
    }

    #[test]
    fn a_map_may_be_empty_or_long() {
        assert_eq!(
            TablespaceMap::parse("", major(15)),
            Ok(TablespaceMap::default())
        );
        let map = TablespaceMap::parse("1 /a\r\n4294967295 /b  c \n", major(15)).unwrap();
        assert_eq!(
            map.entries,
            [(1, "/a".to_owned()), (u32::MAX, "/b  c ".to_owned())]
        );
    }

    #[test]
    fn damaged_maps_are_refused() {
        for text in [
            "16384", "16384 /a", "16384 \n", "16384\n", "x /a\n", "-1 /a\n", "0 /a\n", "1 /a\\\n",
            "1 /a\\",
        ] {
            assert!(TablespaceMap::parse(text, major(15)).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn parse_and_print_are_inverses(
            entries in prop::collection::vec((1..=u32::MAX, "/[a-z \\\\\r\n\té]{0,20}"), 0..4),
            number in 14_u32..=18,
        ) {
            let map = TablespaceMap { entries };
            prop_assert_eq!(TablespaceMap::parse(&map.to_text(major(number)), major(number)), Ok(map));
        }

        #[test]
        fn no_text_panics(text: String, number in 10_u32..=18) {
            let _ = TablespaceMap::parse(&text, major(number));
        }
    }
}
