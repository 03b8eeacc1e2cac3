//! Tablespaces in a sentinel, as WAL-E and WAL-G write them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::bounds::{self, Limited, TABLESPACES_MAX, list, too_many};

/// Tablespaces in WAL-E's form, which WAL-G took over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TablespaceSpec {
    /// The data directory of the source.
    pub base_prefix: String,
    /// OIDs as decimal text.
    pub tablespaces: Vec<String>,
    /// For each OID where it was.
    #[serde(flatten)]
    pub entries: BTreeMap<String, TablespaceEntry>,
}

impl<'de> Deserialize<'de> for TablespaceSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Spec)
    }
}

/// One tablespace in WAL-E's form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablespaceEntry {
    /// Target of the link.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub loc: Option<String>,
    /// The link: `pg_tblspc/<oid>`.
    #[serde(
        default,
        deserialize_with = "bounds::optional_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub link: Option<String>,
}

/// Reads WAL-E's form of tablespaces: two known keys, and one for each oid. Anything else is skipped.
struct Spec;

impl<'de> Visitor<'de> for Spec {
    type Value = TablespaceSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a description of tablespaces")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        struct Names(Vec<Limited>);
        impl<'de> Deserialize<'de> for Names {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                list::<D, Limited, TABLESPACES_MAX>(deserializer).map(Self)
            }
        }
        let mut spec = TablespaceSpec::default();
        while let Some(key) = entries.next_key::<String>()? {
            match key.as_str() {
                "base_prefix" => spec.base_prefix = entries.next_value::<Limited>()?.0,
                "tablespaces" => {
                    let Names(names) = entries.next_value()?;
                    spec.tablespaces = names.into_iter().map(|name| name.0).collect();
                }
                oid if oid.parse::<u32>().is_ok() => {
                    if spec.entries.len() == TABLESPACES_MAX {
                        return Err(too_many(TABLESPACES_MAX));
                    }
                    spec.entries.insert(key, entries.next_value()?);
                }
                _ => {
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(spec)
    }
}
