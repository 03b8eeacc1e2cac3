//! What WAL-E's log says of a WAL file, in the keys that monitoring reads: which object it is (`key`), below which
//! path of the store (`prefix`), and the file's name (`seg`).

use wale_format::layout;
use wale_ops::Archive;
use wale_pg::ArchiveFileName;

/// The file of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WalObject {
    /// The object, with the store before it.
    pub(crate) key: String,
    /// The path within the store below which everything lies, as WAL-E writes it: with a slash at its end.
    pub(crate) prefix: String,
    /// The file.
    pub(crate) seg: String,
}

impl WalObject {
    /// The object that a push of this file makes.
    pub(super) fn to_push(archive: &Archive, name: &ArchiveFileName) -> Self {
        let key = layout::wal(name, archive.codec());
        Self::stored(&archive.location(), name, &key)
    }

    /// The object that a fetch looks for. Its extension is not known before it is found: it may be any codec's.
    pub(super) fn to_fetch(location: &str, name: &ArchiveFileName) -> Self {
        Self::stored(location, name, &format!("{}{name}", layout::WAL_PREFIX))
    }

    /// The object with this key.
    pub(super) fn stored(location: &str, name: &ArchiveFileName, key: &str) -> Self {
        Self {
            key: format!("{}/{key}", location.trim_end_matches('/')),
            prefix: path_prefix(location),
            seg: name.to_string(),
        }
    }
}

/// The path of an archive without scheme and bucket.
pub(in crate::verbs) fn path_prefix(location: &str) -> String {
    let below = location
        .split_once("://")
        .map_or(location, |(_, rest)| rest);
    let path = below.split_once('/').map_or("", |(_, path)| path);
    match path.trim_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_wal_es() {
        for (location, prefix) in [
            ("s3://bkt/pfx", "pfx/"),
            ("s3://bkt/some/pfx", "some/pfx/"),
            ("s3://bkt", ""),
            ("file:///var/archive", "var/archive/"),
            ("memory", ""),
        ] {
            assert_eq!(path_prefix(location), prefix, "{location}");
        }
    }
}
