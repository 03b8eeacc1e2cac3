//! What names in the container begin with, and what objects carry.

/// What the names of segments begin with: of archives whose names begin with a slash, and of others. No archive's
/// listing shows them, and `a/` never has those of `/a/`.
const SEGMENTS_PREFIXES: [&str; 2] = ["wale_segments/", "wale_segments_bare/"];

/// The header in which an object remembers the upload that made it.
pub(super) const MARK_HEADER: &str = "x-object-meta-wale-upload";

/// What the names of the segments of an archive begin with whose own begin with `prefix`.
pub(super) fn segments_of(prefix: &str) -> String {
    let [slashed, bare] = SEGMENTS_PREFIXES;
    match prefix.strip_prefix('/') {
        Some(path) => format!("{slashed}{path}"),
        None => format!("{bare}{prefix}"),
    }
}

/// Whether this is the name of a segment of some archive.
pub(super) fn is_segment(name: &str) -> bool {
    SEGMENTS_PREFIXES
        .iter()
        .any(|start| name.starts_with(start))
}

/// Whether a digest in an answer is this one. Those of large objects stand in quotes.
pub(super) fn is_same(found: &str, expected: &str) -> bool {
    found.trim_matches('"').eq_ignore_ascii_case(expected)
}
