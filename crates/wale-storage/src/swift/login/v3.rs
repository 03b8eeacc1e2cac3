//! Keystone's version 3 ("Identity API v3", `POST /v3/auth/tokens`).

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::catalog::{Place, SERVICE_TYPE, WantedEndpoint};
use super::exchange::{Admitted, exchange, service};
use super::method::{ApplicationCredential, KeystoneName, SwiftInterface};
use super::v2::{BYTES_MAX, json_headers, moment, unreadable};
use crate::Secret;
use crate::http::failure::Failure;
use crate::http::keeper::Granted;
use crate::http::text::fits_header;
use crate::http::transport::Transport;

#[derive(Deserialize)]
struct AnsweredV3 {
    token: TokenV3,
}

#[derive(Deserialize)]
struct TokenV3 {
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    catalog: Vec<ServiceV3>,
}

#[derive(Deserialize)]
struct ServiceV3 {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    endpoints: Vec<EndpointV3>,
}

#[derive(Deserialize)]
struct EndpointV3 {
    #[serde(default)]
    interface: String,
    #[serde(default)]
    region: Option<String>,
    #[serde(default)]
    region_id: Option<String>,
    #[serde(default)]
    url: String,
}

/// What a name and its domain are in a document. An identifier needs no domain.
fn named(name: &KeystoneName, domain: &KeystoneName) -> Value {
    match name {
        KeystoneName::Id(id) => json!({ "id": id }),
        KeystoneName::Name(name) => {
            let domain = match domain {
                KeystoneName::Id(id) => json!({ "id": id }),
                KeystoneName::Name(name) => json!({ "name": name }),
            };
            json!({ "name": name, "domain": domain })
        }
    }
}

/// The request of a user for a token of a project.
pub(super) fn with_password(
    (user, user_domain): (&KeystoneName, &KeystoneName),
    password: &Secret,
    (project, project_domain): (&KeystoneName, &KeystoneName),
) -> Value {
    let mut user = named(user, user_domain);
    user["password"] = json!(password.expose());
    json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": user } },
        "scope": { "project": named(project, project_domain) },
    } })
}

/// The request of an application credential, which may not name a project: it has its own.
pub(super) fn with_application_credential(
    credential: &ApplicationCredential,
    secret: &Secret,
) -> Value {
    let mut named = match credential {
        ApplicationCredential::Id(id) => json!({ "id": id }),
        ApplicationCredential::OfUser {
            name,
            user,
            user_domain,
        } => json!({ "name": name, "user": named(user, user_domain) }),
    };
    named["secret"] = json!(secret.expose());
    json!({ "auth": { "identity": {
        "methods": ["application_credential"],
        "application_credential": named,
    } } })
}

/// Logs in.
pub(super) async fn grant(
    url: &str,
    body: &Value,
    wanted: &WantedEndpoint<'_>,
    transport: &Transport,
) -> Result<Granted<Admitted>, Failure> {
    let url = format!("{}/v3/auth/tokens", service(url));
    let body = Bytes::from(body.to_string());
    let mut answer = exchange(transport, Method::POST, url, json_headers(), body).await?;
    let token = answer
        .header("x-subject-token")
        .filter(|token| fits_header(token))
        .map(Secret::new)
        .ok_or_else(|| Failure::Nonsense("an answer without a token".to_owned()))?;
    read(token, &answer.read(BYTES_MAX).await?, wanted)
}

/// What an answer grants.
fn read(
    token: Secret,
    body: &[u8],
    wanted: &WantedEndpoint<'_>,
) -> Result<Granted<Admitted>, Failure> {
    let AnsweredV3 { token: told } =
        serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let endpoints = told
        .catalog
        .into_iter()
        .filter(|service| service.kind == SERVICE_TYPE)
        .flat_map(|service| service.endpoints);
    let places: Vec<Place> = endpoints
        .filter_map(|endpoint| {
            let interface = match endpoint.interface.as_str() {
                "public" => SwiftInterface::Public,
                "internal" => SwiftInterface::Internal,
                "admin" => SwiftInterface::Admin,
                _ => return None,
            };
            Some(Place {
                interface,
                region: endpoint.region_id.or(endpoint.region),
                url: endpoint.url,
            })
        })
        .collect();
    Ok(Granted {
        credentials: Admitted {
            token,
            storage_url: wanted.choose(&places)?,
        },
        expires: moment(told.expires_at.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_documents() {
        use KeystoneName::{Id, Name};
        let secret = Secret::new("s");
        let request = with_password(
            (&Name("u".into()), &Name("Users".into())),
            &secret,
            (&Name("p".into()), &Id("default".into())),
        );
        assert_eq!(
            request,
            json!({"auth": {
                "identity": {"methods": ["password"], "password": {"user":
                    {"name": "u", "domain": {"name": "Users"}, "password": "s"}}},
                "scope": {"project": {"name": "p", "domain": {"id": "default"}}},
            }})
        );
        let domain = Id("default".into());
        let known = with_password(
            (&Id("1".into()), &domain),
            &secret,
            (&Id("2".into()), &domain),
        );
        assert_eq!(
            known,
            json!({"auth": {
                "identity": {"methods": ["password"], "password": {"user": {"id": "1", "password": "s"}}},
                "scope": {"project": {"id": "2"}},
            }})
        );
        let of_id = with_application_credential(&ApplicationCredential::Id("c".into()), &secret);
        assert_eq!(
            of_id,
            json!({"auth": {"identity": {"methods": ["application_credential"],
                "application_credential": {"id": "c", "secret": "s"}}}})
        );
        let of_user = ApplicationCredential::OfUser {
            name: "n".into(),
            user: Name("u".into()),
            user_domain: domain,
        };
        assert_eq!(
            with_application_credential(&of_user, &secret)["auth"]["identity"]["application_credential"],
            json!({"name": "n", "user": {"name": "u", "domain": {"id": "default"}}, "secret": "s"})
        );
    }

    #[test]
    fn an_answer_has_end_and_account() {
        let body = br#"{"token": {"methods": ["password"], "expires_at": "2015-11-06T15:32:17.893769Z",
            "catalog": [
              {"type": "identity", "id": "1", "name": "keystone", "endpoints": [
                {"region_id": "RegionOne", "url": "http://k", "region": "RegionOne", "interface": "public", "id": "2"}]},
              {"type": "object-store", "id": "3", "name": "swift", "endpoints": [
                {"region_id": "RegionOne", "url": "http://i/v1/AUTH_p", "region": "RegionOne", "interface": "internal", "id": "4"},
                {"region_id": "RegionTwo", "url": "http://two/v1/AUTH_p", "region": "RegionTwo", "interface": "public", "id": "5"},
                {"region_id": "RegionOne", "url": "http://one/v1/AUTH_p", "region": "RegionOne", "interface": "public", "id": "6"}]}
            ]}}"#;
        let wanted = WantedEndpoint {
            region: Some("RegionOne"),
            interface: SwiftInterface::Public,
            instead: None,
        };
        let granted = read(Secret::new("t"), body, &wanted).expect("it is one");
        assert_eq!(granted.credentials.storage_url, "http://one/v1/AUTH_p");
        assert!(granted.expires.is_some());
        let bare = br#"{"token": {"expires_at": "2015-11-06T15:32:17.893769Z"}}"#;
        assert!(read(Secret::new("t"), bare, &wanted).is_err());
    }
}
