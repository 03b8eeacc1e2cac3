//! WAL-E's restore specification: a JSON object that says where tablespaces go.
//!
//! ```json
//! {"tablespaces": ["16384"], "16384": {"loc": "/new/ts/", "link": "pg_tblspc/16384"}}
//! ```
//!
//! Differs from WAL-E in one thing on purpose: the directory argument always is the data directory. WAL-E restored to
//! the specification's `base_prefix`, which for most was the directory of the original. A `base_prefix` that says
//! something else is refused.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wale_ops::backup_fetch::TablespaceSource;
use wale_ops::{Kind, OpError};

/// The word for the backup's own specification: every tablespace goes to where it was.
const SOURCE: &str = "SOURCE";

/// A specification is a few lines for each tablespace: 1 MiB is thousands of them.
const LONGEST: u64 = 1 << 20;

/// Where the specification puts tablespaces; those that it does not name go to where they were.
pub(super) fn read(
    argument: &str,
    directory: &Path,
) -> Result<Vec<(TablespaceSource, PathBuf)>, OpError> {
    if argument == SOURCE {
        return Ok(Vec::new());
    }
    let failed = |e| OpError::from_io(e, format_args!("read the restore specification {argument}"));
    let text =
        wale_cluster::read_bounded_text(Path::new(argument), LONGEST).map_err(
            |error| match error.kind() {
                ErrorKind::InvalidData | ErrorKind::InvalidInput => {
                    wrong(argument, &error.to_string())
                }
                _ => failed(error),
            },
        )?;
    parse(&text, directory).map_err(|problem| wrong(argument, &problem))
}

fn wrong(argument: &str, problem: &str) -> OpError {
    let message = format!("the restore specification {argument} is not understood: {problem}");
    OpError::new(Kind::Usage, message).hint(
        "write {\"tablespaces\": [\"OID\"], \"OID\": {\"loc\": \"/directory/\", \"link\": \"pg_tblspc/OID\"}}",
    )
}

fn parse(text: &str, directory: &Path) -> Result<Vec<(TablespaceSource, PathBuf)>, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let object = value.as_object().ok_or("it is no JSON object")?;
    if let Some(base) = object.get("base_prefix") {
        let base = base.as_str().ok_or("base_prefix is no text")?;
        if !base.is_empty() && !Path::new(base).components().eq(directory.components()) {
            return Err(format!(
                "its base_prefix is \"{base}\" and the directory to restore into is \"{}\"",
                directory.display()
            ));
        }
    }
    let listed: Vec<&str> = match object.get("tablespaces") {
        None => Vec::new(),
        Some(list) => list
            .as_array()
            .and_then(|list| list.iter().map(Value::as_str).collect())
            .ok_or("tablespaces is no list of texts")?,
    };
    if let Some(missing) = listed.iter().find(|oid| !object.contains_key(**oid)) {
        return Err(format!(
            "it lists tablespace {missing} and does not place it"
        ));
    }
    let entries = object
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "base_prefix" | "tablespaces"));
    entries.map(|(name, entry)| mapping(name, entry)).collect()
}

fn mapping(name: &str, entry: &Value) -> Result<(TablespaceSource, PathBuf), String> {
    let oid: u32 = name
        .parse()
        .map_err(|_| format!("\"{name}\" is no tablespace's OID"))?;
    if let Some(link) = entry.get("link")
        && link.as_str() != Some(&format!("pg_tblspc/{oid}"))
    {
        return Err(format!(
            "the link of tablespace {oid} is not pg_tblspc/{oid}"
        ));
    }
    let place = entry.get("loc").and_then(Value::as_str).map(Path::new);
    match place {
        // Without the slash that WAL-E writes at the end: it would stand in the link.
        Some(place) if place.is_absolute() => {
            Ok((TablespaceSource::Oid(oid), place.components().collect()))
        }
        _ => Err(format!("the loc of tablespace {oid} is no absolute path")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defect_06_the_directory_argument_is_where_the_restore_goes() {
        let target = Path::new("/new/data");
        let spec = |text: &str| parse(text, target);
        assert_eq!(spec("{}"), Ok(Vec::new()));
        assert_eq!(
            spec(r#"{"base_prefix": "/new/data/", "tablespaces": []}"#),
            Ok(Vec::new())
        );
        let mistake = spec(r#"{"base_prefix": "/old/data/", "tablespaces": []}"#).unwrap_err();
        assert!(
            mistake.contains("/old/data/") && mistake.contains("/new/data"),
            "{mistake}"
        );
        let placed = r#"{"tablespaces": ["16384"], "16384": {"loc": "/new/ts/", "link": "pg_tblspc/16384"}}"#;
        let expected = (TablespaceSource::Oid(16384), PathBuf::from("/new/ts"));
        assert_eq!(spec(placed), Ok(vec![expected]));
        for text in [
            "[]",
            "nonsense",
            r#"{"tablespaces": ["1"]}"#,
            r#"{"tablespaces": [1]}"#,
            r#"{"1": {"loc": "relative"}}"#,
            r#"{"1": {"loc": "/a", "link": "../1"}}"#,
            r#"{"one": {"loc": "/a"}}"#,
            r#"{"base_prefix": 7}"#,
        ] {
            assert!(spec(text).is_err(), "{text}");
        }
    }
}
