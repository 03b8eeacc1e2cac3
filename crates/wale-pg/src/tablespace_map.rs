//! The tablespace map: which link in `pg_tblspc` recovery makes, and to where.
//!
//! Written by `do_pg_backup_start`, read by `read_tablespace_map` (`src/backend/access/transam/xlog.c`,
//! `xlogrecovery.c`, 10 to 18): one line `<oid> <path>` per tablespace, with a backslash before each newline, carriage
//! return and backslash of the path.

use std::fmt;

use crate::text_form::{excerpt, parse_plain_decimal};

/// The tablespaces of a base backup, in the order of the file.
///
/// ```
/// use wale_pg::TablespaceMap;
/// let map = TablespaceMap::parse("16384 /srv/fast disk\n").unwrap();
/// assert_eq!(map.entries, [(16384, "/srv/fast disk".to_owned())]);
/// assert_eq!(map.to_string(), "16384 /srv/fast disk\n");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap {
    /// Object identifier and path of each tablespace.
    pub entries: Vec<(u32, String)>,
}

impl TablespaceMap {
    /// Reads a map. An empty text is a map of no tablespaces.
    ///
    /// # Errors
    /// When a line is not an object identifier, a blank and a path, or the last line has no end.
    pub fn parse(text: &str) -> Result<Self, InvalidTablespaceMap> {
        let mut entries = Vec::new();
        let mut line = String::new();
        let mut escaped = false;
        for character in text.chars() {
            match character {
                '\\' if !escaped => {
                    escaped = true;
                    continue;
                }
                // An empty line is the newline after a carriage return.
                '\n' | '\r' if !escaped => {
                    if !line.is_empty() {
                        entries.push(parse_line(&line).ok_or_else(|| InvalidTablespaceMap { line: excerpt(&line) })?);
                        line.clear();
                    }
                }
                other => line.push(other),
            }
            escaped = false;
        }
        if escaped || !line.is_empty() {
            return Err(InvalidTablespaceMap { line: excerpt(&line) });
        }
        Ok(Self { entries })
    }
}

fn parse_line(line: &str) -> Option<(u32, String)> {
    let (oid, path) = line.split_once(' ')?;
    let oid = parse_plain_decimal(oid).filter(|oid| *oid != 0)?;
    if path.is_empty() { None } else { Some((oid, path.to_owned())) }
}

impl fmt::Display for TablespaceMap {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        for (oid, path) in &self.entries {
            write!(formatter, "{oid} ")?;
            for character in path.chars() {
                if matches!(character, '\n' | '\r' | '\\') {
                    formatter.write_char('\\')?;
                }
                formatter.write_char(character)?;
            }
            formatter.write_char('\n')?;
        }
        Ok(())
    }
}

/// A text is not a tablespace map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tablespace map has the invalid line {line:?}")]
pub struct InvalidTablespaceMap {
    /// The line, shortened.
    pub line: String,
}
