//! When the right to ask a store ends, as far as that is said: by the service that granted it, by a signature's own words, or by a
//! token in a file. Nothing of a secret is kept.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde::Deserialize;

use crate::http::named_file::read_secret_text;

/// What ends sooner is to be renewed now, where nobody does it.
const ENDS_SOON: TimeDelta = TimeDelta::days(14);

/// Something that ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialEnd {
    /// What it is, for people.
    pub what: String,
    /// When it ends.
    pub expires: DateTime<Utc>,
    /// Who gives the next one.
    pub renewal: Renewal,
}

/// Who gives the next credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Renewal {
    /// The store asks for them, some minutes before the end, when it is used.
    Own,
    /// Another program writes them into the file where these lie.
    Others,
    /// Nobody: a person must.
    Nobody,
}

impl Renewal {
    /// Its word in documents.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "wale",
            Self::Others => "others",
            Self::Nobody => "nobody",
        }
    }
}

impl CredentialEnd {
    pub(crate) fn new(what: &str, expires: DateTime<Utc>, renewal: Renewal) -> Self {
        Self {
            what: what.to_owned(),
            expires,
            renewal,
        }
    }

    /// Whether a person must do something now: renew what nobody renews, two weeks before its end, or find out why another program has
    /// not renewed what has ended.
    #[must_use]
    pub fn is_due(&self, now: DateTime<Utc>) -> bool {
        match self.renewal {
            Renewal::Own => false,
            Renewal::Others => self.expires <= now,
            Renewal::Nobody => self.expires - now < ENDS_SOON,
        }
    }

    /// As it lies in a file. What ends soon after the file was written is renewed by whoever wrote it; what lasts for long, a person wrote.
    pub(crate) async fn in_file(mut self, path: &Path) -> Self {
        let written = tokio::fs::metadata(path).await;
        let written = written.and_then(|file| file.modified()).ok();
        let lasts = written.map(|written| self.expires - DateTime::<Utc>::from(written));
        self.renewal = match lasts {
            Some(lasts) if lasts > ENDS_SOON * 2 => Renewal::Nobody,
            _ => Renewal::Others,
        };
        self
    }

    /// The end of a token that somebody else writes into this file; none where it does not say it.
    pub(crate) async fn of_token_file(path: &Path) -> Option<Self> {
        let text = read_secret_text(path).await.ok()?;
        let what = format!("the token in {}", path.display());
        Some(Self::new(&what, of_token(&text)?, Renewal::Others))
    }
}

/// When a JSON Web Token (RFC 7519) ends. Whether it is genuine is for the service that takes it.
fn of_token(text: &str) -> Option<DateTime<Utc>> {
    #[derive(Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims = text.trim().split('.').nth(1)?.trim_end_matches('=');
    let claims = BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Claims = serde_json::from_slice(&claims).ok()?;
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a cast of a float saturates, and what is no time is none"
    )]
    let seconds = claims.exp as i64;
    DateTime::from_timestamp(seconds, 0)
}

/// When a shared access signature of Azure's ends, if it says so: `se=2027-01-01T00%3A00%3A00Z`. Minutes and seconds may be left out, or
/// the time.
pub(crate) fn of_shared_access(query: &str) -> Option<DateTime<Utc>> {
    let mut pairs = query.trim().trim_start_matches('?').split('&');
    let moment = pairs.find_map(|pair| pair.strip_prefix("se="))?;
    let moment = moment.replace("%3A", ":").replace("%3a", ":");
    if let Ok(day) = moment.parse::<NaiveDate>() {
        return Some(day.and_hms_opt(0, 0, 0)?.and_utc());
    }
    let with_seconds = match moment.len() {
        17 => moment.replace('Z', ":00Z"),
        _ => moment,
    };
    let parsed = DateTime::parse_from_rfc3339(&with_seconds);
    parsed.ok().map(|moment| moment.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_of_azure_says_when_it_ends() {
        let end = |text: &str| of_shared_access(text).map(|end| end.to_rfc3339());
        let expected = Some("2026-12-01T08:30:00+00:00".to_owned());
        for text in [
            "sv=2022-11-02&se=2026-12-01T08%3A30%3A00Z&sig=x",
            "?se=2026-12-01T08:30Z&sp=r",
        ] {
            assert_eq!(end(text), expected, "{text}");
        }
        assert_eq!(
            end("se=2026-12-01&sp=r"),
            Some("2026-12-01T00:00:00+00:00".to_owned())
        );
        assert_eq!(end("sp=r&sig=x"), None);
        assert_eq!(end("se=tomorrow&sig=x"), None);
    }

    #[tokio::test]
    async fn a_token_in_a_file_says_when_it_ends_and_nothing_else() {
        let token = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let file = tempfile::NamedTempFile::new().unwrap();
        let end = async |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            CredentialEnd::of_token_file(file.path()).await
        };
        let found = end(&token(r#"{"sub":"canary","exp":1800000000}"#))
            .await
            .unwrap();
        assert_eq!(found.expires.timestamp(), 1_800_000_000);
        assert_eq!(found.renewal, Renewal::Others);
        assert!(!format!("{found:?}").contains("canary"));
        let found = end(&format!("{}\n", token(r#"{"exp":1.8e9}"#))).await;
        assert_eq!(found.unwrap().expires.timestamp(), 1_800_000_000);
        for none in [
            String::new(),
            "opaque".to_owned(),
            "a.%.b".to_owned(),
            token("{}"),
            token(r#"{"exp":"soon"}"#),
            token(r#"{"exp":1e300}"#),
        ] {
            assert_eq!(end(&none).await, None, "{none}");
        }
        assert_eq!(CredentialEnd::of_token_file(Path::new("/none")).await, None);
    }
}
