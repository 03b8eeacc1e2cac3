//! What tells one cluster from every other, whoever says it: the control file, a server, WAL, an archive.

use serde::{Deserialize, Serialize};

use crate::major_version::MajorVersion;
use crate::system_identifier::SystemIdentifier;
use crate::wal_segment::WalSegmentSize;

/// What tells one cluster from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterIdentity {
    /// The number that initdb gave to the cluster.
    pub system_identifier: SystemIdentifier,
    /// The major version, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub major: Option<MajorVersion>,
    /// The size of its WAL segments.
    pub wal_segment_size: WalSegmentSize,
}

/// What two clusters differ in, with the word of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDifference {
    /// What it is, in PostgreSQL's words.
    pub what: &'static str,
    /// What the first one has.
    pub first: String,
    /// What the second one has.
    pub second: String,
}

impl ClusterIdentity {
    /// The first thing in which two differ; `None` where they can be of one cluster. A major version that one of them does
    /// not know is no difference.
    pub fn difference(&self, other: &Self) -> Option<ClusterDifference> {
        let versions = self.major.zip(other.major);
        let sizes = [self, other].map(|cluster| cluster.wal_segment_size.bytes());
        let (what, first, second) = if self.system_identifier != other.system_identifier {
            (
                "system identifier",
                self.system_identifier.to_string(),
                other.system_identifier.to_string(),
            )
        } else if let Some((first, second)) = versions.filter(|(first, second)| first != second) {
            ("major version", first.to_string(), second.to_string())
        } else if sizes[0] != sizes[1] {
            (
                "WAL segment size",
                sizes[0].to_string(),
                sizes[1].to_string(),
            )
        } else {
            return None;
        };
        Some(ClusterDifference {
            what,
            first,
            second,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(number: u64, major: Option<u32>, bytes: u64) -> ClusterIdentity {
        ClusterIdentity {
            system_identifier: SystemIdentifier::new(number),
            major: major.map(|major| MajorVersion::new(major).unwrap()),
            wal_segment_size: WalSegmentSize::new(bytes).unwrap(),
        }
    }

    #[test]
    fn a_difference_is_what_both_know() {
        let here = cluster(1, Some(15), 16 << 20);
        let cases = [
            (here, None),
            (cluster(1, None, 16 << 20), None),
            (
                cluster(2, Some(14), 1 << 20),
                Some(("system identifier", "1", "2")),
            ),
            (
                cluster(1, Some(14), 1 << 20),
                Some(("major version", "15", "14")),
            ),
            (
                cluster(1, None, 1 << 20),
                Some(("WAL segment size", "16777216", "1048576")),
            ),
        ];
        for (there, expected) in cases {
            let found = here.difference(&there);
            let found = found
                .as_ref()
                .map(|found| (found.what, found.first.as_str(), found.second.as_str()));
            assert_eq!(found, expected, "{there:?}");
        }
    }
}
