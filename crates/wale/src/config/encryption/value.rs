//! Parsers of the values of keys.

use wale_format::crypt::age::Recipients;

use super::super::value::BadValue;

/// The recipients in a text.
///
/// # Errors
/// When there is none, or one cannot be used. The text is not quoted.
pub(in super::super) fn recipients(text: &str) -> Result<Recipients, BadValue> {
    Recipients::parse(text).map_err(|error| {
        BadValue::new(format!("{error}; its value is not shown"))
            .hint("write public keys as age-keygen -y prints them (age1…), or lines of an OpenSSH .pub file, separated by commas")
    })
}
