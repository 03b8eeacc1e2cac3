//! The services of a cloud, and the account's URL among them.

use http::StatusCode;

use super::method::SwiftInterface;
use crate::http::failure::{Failure, Meaning, Refusal};
use crate::http::text::one_line;
use crate::{Misconfiguration, ServerReply};

/// Swift's type in catalogs.
pub(super) const SERVICE_TYPE: &str = "object-store";

/// Which of the account's URLs is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantedEndpoint<'a> {
    pub(super) region: Option<&'a str>,
    pub(super) interface: SwiftInterface,
    /// One that counts whatever the login says.
    pub(super) instead: Option<&'a str>,
}

/// An endpoint of the service, as both versions of Keystone have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) interface: SwiftInterface,
    pub(super) region: Option<String>,
    pub(super) url: String,
}

impl WantedEndpoint<'_> {
    /// The account's URL that a login of version 1 tells.
    pub(super) fn or_told(&self, told: Option<&str>) -> Result<String, Failure> {
        match self.instead.or(told) {
            Some(url) => sound(url),
            None => Err(Failure::Nonsense(
                "an answer without the account's URL".to_owned(),
            )),
        }
    }

    /// The first of these that is wanted.
    pub(super) fn choose(&self, places: &[Place]) -> Result<String, Failure> {
        if let Some(url) = self.instead {
            return sound(url);
        }
        let fits = |place: &&Place| {
            place.interface == self.interface
                && self
                    .region
                    .is_none_or(|region| place.region.as_deref() == Some(region))
        };
        match places.iter().find(fits) {
            Some(place) => sound(&place.url),
            None => Err(self.nothing_among(places)),
        }
    }

    fn nothing_among(&self, places: &[Place]) -> Failure {
        let mut there: Vec<String> = places
            .iter()
            .map(|place| {
                let region = place.region.as_deref().unwrap_or("none");
                format!("{} in region {}", place.interface.name(), one_line(region))
            })
            .collect();
        there.sort();
        there.dedup();
        let there = match there.as_slice() {
            [] => "none at all".to_owned(),
            some => some.join(", "),
        };
        let region = match self.region {
            Some(region) => format!(" in region {region}"),
            None => String::new(),
        };
        let reason = format!(
            "the login's catalog has no {} endpoint of type {SERVICE_TYPE}{region}; it has {there}",
            self.interface.name()
        );
        Failure::Refused(Refusal {
            status: StatusCode::OK,
            reply: ServerReply {
                status: StatusCode::OK.as_u16(),
                ..ServerReply::default()
            },
            meaning: Meaning::Misconfigured(Misconfiguration::BadOptions, reason),
        })
    }
}

/// A URL to which paths can be added.
fn sound(url: &str) -> Result<String, Failure> {
    let url = url.trim_end_matches('/');
    let is_sound = url::Url::parse(url)
        .is_ok_and(|parsed| matches!(parsed.scheme(), "http" | "https") && parsed.has_host())
        && !url.contains(['?', '#']);
    if is_sound {
        return Ok(url.to_owned());
    }
    Err(Failure::Nonsense(format!(
        "the account's URL is none: {}",
        one_line(url)
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(interface: SwiftInterface, region: &str, url: &str) -> Place {
        Place {
            interface,
            region: Some(region.into()),
            url: url.into(),
        }
    }

    #[test]
    fn the_account_is_found_by_region_and_interface() {
        use SwiftInterface::{Admin, Internal, Public};
        let places = [
            place(Public, "A", "https://a/v1/AUTH_x/"),
            place(Internal, "A", "http://a.internal/v1/AUTH_x"),
            place(Public, "B", "https://b/v1/AUTH_x"),
        ];
        let found = |region, interface| {
            let wanted = WantedEndpoint {
                region,
                interface,
                instead: None,
            };
            wanted.choose(&places).map_err(|failure| {
                let asked = crate::http::failure::Asked::Bucket;
                failure.into_store_error("swift://c", asked).to_string()
            })
        };
        assert_eq!(found(None, Public).as_deref(), Ok("https://a/v1/AUTH_x"));
        assert_eq!(
            found(Some("B"), Public).as_deref(),
            Ok("https://b/v1/AUTH_x")
        );
        assert_eq!(
            found(None, Internal).as_deref(),
            Ok("http://a.internal/v1/AUTH_x")
        );
        let told = found(Some("C"), Public).unwrap_err();
        assert!(
            told.contains("no public endpoint of type object-store in region C"),
            "{told}"
        );
        assert!(told.contains("internal in region A, public in region A, public in region B"));
        assert!(found(None, Admin).is_err());
        let instead = WantedEndpoint {
            region: Some("C"),
            interface: Admin,
            instead: Some("https://elsewhere/v1/x/"),
        };
        let chosen = instead.choose(&[]).expect("it needs no catalog");
        assert_eq!(chosen, "https://elsewhere/v1/x");
    }

    #[test]
    fn what_is_no_url_is_not_used() {
        for url in [
            "",
            "AUTH_x",
            "ftp://h/x",
            "http://",
            "http://h/v1?x=y",
            "/v1/x",
        ] {
            assert!(sound(url).is_err(), "{url}");
        }
    }
}
