//! What of a request's raw path may become the name of an archived file.
//!
//! Pure. Nothing is decoded, resolved or trimmed: a path that would need it is refused, so no file is ever touched on
//! behalf of a trick. The original took `pg_wal/<name>` paths (`%p`), so the last component counts.

use wale_ops::{Kind, OpError};
use wale_pg::ArchiveFileName;

/// Reads the name from the raw rest of the path after a WAL route's prefix.
///
/// # Errors
///
/// `InvalidName`, with the escaped text, when the rest holds anything but plain components, or when its last component
/// is none of the four forms that PostgreSQL archives.
pub(crate) fn parse(rest: &str, query: Option<&str>) -> Result<ArchiveFileName, OpError> {
    if query.is_some() {
        return Err(refusal(rest, "the address has a query after the name"));
    }
    if rest
        .bytes()
        .any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'%' | b'\\' | b'?' | b'#'))
    {
        return Err(refusal(
            rest,
            "it holds a character that no name of an archived file holds",
        ));
    }
    let mut last = "";
    for component in rest.split('/') {
        if matches!(component, "" | "." | "..") {
            return Err(refusal(
                rest,
                "a part of the path is empty, \".\" or \"..\"",
            ));
        }
        last = component;
    }
    ArchiveFileName::parse(last).map_err(|error| refusal(rest, &error.to_string()))
}

fn refusal(rest: &str, why: &str) -> OpError {
    // The text is the client's: escaped, and no more of it than a log line bears.
    let shown: String = rest
        .chars()
        .take(100)
        .flat_map(char::escape_default)
        .collect();
    OpError::new(Kind::InvalidName, format!("\"{shown}\" is not the name of an archived file"))
        .detail(format!("{why}."))
        .hint("use %f of archive_command or restore_command: 24 hexadecimal digits, or a .partial, .backup or .history name")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row58_the_last_plain_component_is_the_name() {
        let good = [
            "000000010000000000000001",
            "pg_wal/000000010000000000000001",
            "pg_xlog/000000010000000000000001.partial",
            "a/b/000000010000000000000001.00000028.backup",
            "00000002.history",
        ];
        for rest in good {
            let name = parse(rest, None).unwrap();
            assert!(rest.ends_with(&name.to_string()), "{rest}");
        }
    }

    #[test]
    fn row58_tricks_are_refused_and_escaped() {
        let name = "000000010000000000000001";
        let bad = [
            String::new(),
            "../x".into(),
            "..".into(),
            ".".into(),
            format!("../{name}"),
            format!("./{name}"),
            format!("pg_wal/../{name}"),
            format!("/{name}"),
            format!("pg_wal//{name}"),
            format!("{name}/"),
            format!("..%2f{name}"),
            format!("%2e%2e/{name}"),
            format!("{name}%00"),
            format!("%252f{name}"),
            format!("..\\{name}"),
            format!("\u{ff10}{}", &name[1..]),
            format!("pg\u{2215}wal/{name}"),
            format!("{name}."),
            format!("{name}\n"),
            format!("{name} "),
            format!("{name}#x"),
            name.replace('1', "a"),
            "00000001000000000000000".into(),
            "0".repeat(65),
            "0".repeat(9000),
            "archive_status/000000010000000000000001.ready".into(),
            "postgresql.conf".into(),
        ];
        for rest in bad {
            let error = parse(&rest, None).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidName, "{rest}");
            assert!(
                error.message.is_ascii() && !error.message.contains('\n'),
                "{}",
                error.message
            );
            assert!(error.message.len() < 1000);
        }
        assert!(parse(name, Some("")).is_err());
    }
}
