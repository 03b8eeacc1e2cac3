//! The recovery settings that a person adds.

use wale_cluster::recovery;
use wale_pg::MajorVersion;

use crate::error::{Kind, OpError, Result};

/// The added settings, checked as the server would.
///
/// # Errors
///
/// [`Kind::Configuration`] with all mistakes.
pub(super) fn checked_addition(text: &str, major: MajorVersion) -> Result<Vec<(String, String)>> {
    recovery::parse_addition(text, major).map_err(|mistakes| {
        let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        let hint = mistakes.iter().find_map(|mistake| mistake.hint.clone());
        let error = OpError::new(
            Kind::Configuration,
            format!("the recovery settings are wrong: {}", all.join("; ")),
        );
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    })
}
