//! Keystone's version 2 ("Identity API v2.0", `POST /v2.0/tokens`).

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalog::{Place, SERVICE_TYPE, WantedEndpoint};
use super::exchange::{Admitted, exchange, service};
use super::method::{KeystoneName, SwiftInterface};
use crate::Secret;
use crate::http::failure::Failure;
use crate::http::keeper::Granted;
use crate::http::text::fits_header;
use crate::http::transport::Transport;

/// A catalog of many services in many regions has some 50 KiB.
pub(super) const BYTES_MAX: usize = 4 << 20;

#[derive(Deserialize)]
struct Answered {
    access: Access,
}

#[derive(Deserialize)]
struct Access {
    token: TokenV2,
    #[serde(default, rename = "serviceCatalog")]
    catalog: Vec<ServiceV2>,
}

#[derive(Deserialize)]
struct TokenV2 {
    id: String,
    #[serde(default)]
    expires: Option<String>,
}

#[derive(Deserialize)]
struct ServiceV2 {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<EndpointV2>,
}

#[derive(Deserialize)]
struct EndpointV2 {
    #[serde(default)]
    region: Option<String>,
    #[serde(default, rename = "publicURL")]
    public: Option<String>,
    #[serde(default, rename = "internalURL")]
    internal: Option<String>,
    #[serde(default, rename = "adminURL")]
    admin: Option<String>,
}

/// The request of this user for a token of this tenant.
pub(super) fn request(user: &str, password: &Secret, tenant: &KeystoneName) -> Value {
    let mut auth = json!({
        "passwordCredentials": { "username": user, "password": password.expose() },
    });
    match tenant {
        KeystoneName::Id(id) => auth["tenantId"] = json!(id),
        KeystoneName::Name(name) => auth["tenantName"] = json!(name),
    }
    json!({ "auth": auth })
}

/// Logs in.
pub(super) async fn grant(
    url: &str,
    body: &Value,
    wanted: &WantedEndpoint<'_>,
    transport: &Transport,
) -> Result<Granted<Admitted>, Failure> {
    let url = format!("{}/v2.0/tokens", service(url));
    let body = Bytes::from(body.to_string());
    let mut answer = exchange(transport, Method::POST, url, json_headers(), body).await?;
    read(&answer.read(BYTES_MAX).await?, wanted)
}

/// What an answer grants.
fn read(body: &[u8], wanted: &WantedEndpoint<'_>) -> Result<Granted<Admitted>, Failure> {
    let Answered { access } = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let Access { token, catalog } = access;
    if !fits_header(&token.id) {
        return Err(Failure::Nonsense("an answer without a token".to_owned()));
    }
    let endpoints = catalog
        .into_iter()
        .filter(|service| service.kind == SERVICE_TYPE)
        .flat_map(|service| service.endpoints);
    let places: Vec<Place> = endpoints
        .flat_map(|endpoint| {
            let EndpointV2 {
                region,
                public,
                internal,
                admin,
            } = endpoint;
            let urls = [
                (SwiftInterface::Public, public),
                (SwiftInterface::Internal, internal),
                (SwiftInterface::Admin, admin),
            ];
            urls.into_iter().filter_map(move |(interface, url)| {
                Some(Place {
                    interface,
                    region: region.clone(),
                    url: url?,
                })
            })
        })
        .collect();
    Ok(Granted {
        credentials: Admitted {
            token: Secret::new(token.id),
            storage_url: wanted.choose(&places)?,
        },
        expires: moment(token.expires.as_deref()),
    })
}

/// What is said of an answer that is no such document. It may hold a token and is not quoted.
pub(super) fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::Nonsense(format!(
        "no document of a login service, at line {} column {}",
        error.line(),
        error.column()
    ))
}

/// When a token ends, where that is told and understood.
pub(super) fn moment(text: Option<&str>) -> Option<DateTime<Utc>> {
    let moment = DateTime::parse_from_rfc3339(text?).ok()?;
    Some(moment.to_utc())
}

/// The headers of a document.
pub(super) fn json_headers() -> HeaderMap {
    let json = HeaderValue::from_static("application/json");
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, json.clone());
    headers.insert(http::header::ACCEPT, json);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_the_tenant_by_name_or_identifier() {
        let password = Secret::new("p\"w");
        let named = request("u", &password, &KeystoneName::Name("t".into()));
        assert_eq!(
            named,
            json!({"auth": {"passwordCredentials": {"username": "u", "password": "p\"w"}, "tenantName": "t"}})
        );
        let known = request("u", &password, &KeystoneName::Id("7".into()));
        assert_eq!(known["auth"]["tenantId"], "7");
    }

    /// The example of the documents of OpenStack, shortened.
    #[test]
    fn an_answer_has_token_end_and_account() {
        let body = br#"{"access": {"token": {"issued_at": "2014-01-30T15:30:58.819584",
            "expires": "2014-01-31T15:30:58Z", "id": "aaaaa-bbbbb-ccccc-dddd", "tenant": {"enabled": true, "id": "f"}},
            "serviceCatalog": [{"endpoints": [{"adminURL": "http://n/v2", "region": "regionOne",
            "internalURL": "http://n/v2", "id": "i", "publicURL": "http://n/v2"}], "type": "compute", "name": "nova"},
            {"endpoints": [{"adminURL": "http://s:8080", "region": "regionOne",
            "internalURL": "http://s:8080/v1/AUTH_f", "id": "i", "publicURL": "http://public:8080/v1/AUTH_f"}],
            "endpoints_links": [], "type": "object-store", "name": "swift"}],
            "user": {"username": "demo", "roles": []}, "metadata": {"is_admin": 0}}}"#;
        let wanted = WantedEndpoint {
            region: Some("regionOne"),
            interface: SwiftInterface::Public,
            instead: None,
        };
        let granted = read(body, &wanted).expect("it is one");
        assert_eq!(granted.credentials.token.expose(), "aaaaa-bbbbb-ccccc-dddd");
        assert_eq!(
            granted.credentials.storage_url,
            "http://public:8080/v1/AUTH_f"
        );
        let expires = granted.expires.expect("it is told");
        assert_eq!(expires.to_rfc3339(), "2014-01-31T15:30:58+00:00");
        for nonsense in [
            &b"{}"[..],
            b"<html>",
            br#"{"access": {"token": {"id": ""}}}"#,
        ] {
            let failure = read(nonsense, &wanted).expect_err("it is none");
            assert!(matches!(failure, Failure::Nonsense(_)), "{failure}");
        }
    }
}
