//! The files of Google's that say who one is (AIP-4110): a service account with its key, a user, a workload that another
//! issuer vouches for, and an account that one of these stands in for.
//!
//! A workload that shows itself by a program's output, by keys of Amazon's or by a certificate is refused in words:
//! wale's image holds no other program, and the others are not understood yet.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use chrono::Utc;
use serde::Deserialize;
use serde_json::Value;

use super::exchange::{self, PLATFORM_SCOPE, STORAGE_SCOPE};
use super::jwt::{self, Claimant};
use super::source::{GrantedToken, Services};
use crate::http::failure::Failure;
use crate::http::named_file::read_secret_text;
use crate::http::text::one_line;

/// Google's own service of tokens, where a file names none.
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// What a file holds. It is never printed.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum CredentialFile {
    ServiceAccount(ServiceAccount),
    AuthorizedUser(AuthorizedUser),
    ExternalAccount(ExternalAccount),
    ImpersonatedServiceAccount(Impersonated),
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct AuthorizedUser {
    client_id: String,
    client_secret: String,
    refresh_token: String,
    token_uri: Option<String>,
}

#[derive(Deserialize)]
struct ExternalAccount {
    audience: String,
    subject_token_type: String,
    token_url: String,
    service_account_impersonation_url: Option<String>,
    credential_source: SubjectSource,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Where the token lies with which a workload shows itself.
#[derive(Deserialize)]
struct SubjectSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: HashMap<String, String>,
    #[serde(default)]
    format: SubjectFormat,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SubjectFormat {
    #[serde(rename = "type")]
    kind: String,
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct Impersonated {
    service_account_impersonation_url: String,
    #[serde(default)]
    delegates: Vec<String>,
    source_credentials: Box<CredentialFile>,
}

/// The token of the account in this file.
pub(super) async fn grant(path: &Path, services: &Services) -> Result<GrantedToken, Failure> {
    let text = read_secret_text(path).await?;
    let granted = match parse(&text) {
        Ok(CredentialFile::ImpersonatedServiceAccount(account)) => {
            instead_of(&account, services).await
        }
        Ok(file) => of_itself(&file, STORAGE_SCOPE, services).await,
        Err(failure) => Err(failure),
    };
    let source = format!("the credential file {}", path.display());
    granted.map_err(|failure| failure.of_source(&source))
}

/// The file with the token with which a workload shows itself; none where it shows itself in another way, or the token lies within a
/// document.
pub(super) async fn token_file(path: &Path) -> Option<PathBuf> {
    let text = read_secret_text(path).await.ok()?;
    let workload = match parse(&text).ok()? {
        CredentialFile::ExternalAccount(workload) => workload,
        CredentialFile::ImpersonatedServiceAccount(account) => match *account.source_credentials {
            CredentialFile::ExternalAccount(workload) => workload,
            _ => return None,
        },
        _ => return None,
    };
    let source = workload.credential_source;
    matches!(source.format.kind.as_str(), "" | "text")
        .then_some(source.file)
        .flatten()
}

/// What the text holds, which is not quoted.
fn parse(text: &str) -> Result<CredentialFile, Failure> {
    serde_json::from_str(text).map_err(|_| {
        Failure::NoCredentials(
            "it is no JSON of one of the types service_account, authorized_user, external_account and \
             impersonated_service_account with all its fields"
                .to_owned(),
        )
    })
}

/// A token for an account that the file's own may stand in for.
async fn instead_of(account: &Impersonated, services: &Services) -> Result<GrantedToken, Failure> {
    let own = of_itself(&account.source_credentials, PLATFORM_SCOPE, services).await?;
    let url = &account.service_account_impersonation_url;
    let granted = exchange::impersonated(services, url, &account.delegates, &own.credentials);
    granted.await.map_err(|failure| told(&failure, url))
}

/// A token for whom the file is made out to.
async fn of_itself(
    file: &CredentialFile,
    scope: &str,
    services: &Services,
) -> Result<GrantedToken, Failure> {
    match file {
        CredentialFile::ServiceAccount(account) => {
            of_service_account(account, scope, services).await
        }
        CredentialFile::AuthorizedUser(user) => of_user(user, services).await,
        CredentialFile::ExternalAccount(workload) => of_workload(workload, services).await,
        CredentialFile::ImpersonatedServiceAccount(_) => Err(Failure::NoCredentials(
            "an account that stands in for another stands in for a third one".to_owned(),
        )),
    }
}

async fn of_service_account(
    account: &ServiceAccount,
    scope: &str,
    services: &Services,
) -> Result<GrantedToken, Failure> {
    let url = account.token_uri.as_deref().unwrap_or(TOKEN_URL);
    let claimant = Claimant {
        email: &account.client_email,
        private_key: &account.private_key,
        key_id: account.private_key_id.as_deref(),
        audience: url,
        scope,
    };
    let claim = jwt::signed(&claimant, Utc::now())?;
    let form = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
        ("assertion", claim.as_str()),
    ];
    let granted = exchange::with_form(services, url, &form, None).await;
    granted.map_err(|failure| told(&failure, &format!("{} at {url}", account.client_email)))
}

async fn of_user(user: &AuthorizedUser, services: &Services) -> Result<GrantedToken, Failure> {
    let url = user.token_uri.as_deref().unwrap_or(TOKEN_URL);
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", user.client_id.as_str()),
        ("client_secret", user.client_secret.as_str()),
        ("refresh_token", user.refresh_token.as_str()),
    ];
    let granted = exchange::with_form(services, url, &form, None).await;
    granted.map_err(|failure| told(&failure, url))
}

/// A workload that shows another issuer's token gets one of Google's (workload identity federation), and with that the
/// token of a service account, where the file names one.
async fn of_workload(
    workload: &ExternalAccount,
    services: &Services,
) -> Result<GrantedToken, Failure> {
    let subject = subject_token(&workload.credential_source, services).await?;
    let form = [
        (
            "grant_type",
            "urn:ietf:params:oauth:grant-type:token-exchange",
        ),
        ("audience", workload.audience.as_str()),
        ("scope", PLATFORM_SCOPE),
        (
            "requested_token_type",
            "urn:ietf:params:oauth:token-type:access_token",
        ),
        ("subject_token", subject.as_str()),
        ("subject_token_type", workload.subject_token_type.as_str()),
    ];
    let client = workload.client_id.as_deref();
    let client = client.zip(workload.client_secret.as_deref());
    let url = &workload.token_url;
    let granted = exchange::with_form(services, url, &form, client).await;
    let granted = granted.map_err(|failure| told(&failure, url))?;
    let Some(url) = &workload.service_account_impersonation_url else {
        return Ok(granted);
    };
    let granted = exchange::impersonated(services, url, &[], &granted.credentials).await;
    granted.map_err(|failure| told(&failure, url))
}

/// The token with which a workload shows itself; it is rotated, and so read anew.
async fn subject_token(source: &SubjectSource, services: &Services) -> Result<String, Failure> {
    let text = match (&source.file, &source.url) {
        (Some(path), None) => read_secret_text(path).await?,
        (None, Some(url)) => {
            let headers = source.headers.iter();
            let headers = headers.map(|(name, value)| (name.as_str(), value.as_str()));
            let text = exchange::text(services, url, headers).await;
            text.map_err(|failure| told(&failure, url))?
        }
        _ => {
            return Err(Failure::NoCredentials(
                "its credential_source is neither a file nor a URL; programs, keys of Amazon's and certificates are not \
                 used"
                    .to_owned(),
            ));
        }
    };
    subject_in(&text, &source.format)
}

fn subject_in(text: &str, format: &SubjectFormat) -> Result<String, Failure> {
    let wrong = |what: &str| Failure::NoCredentials(format!("the workload's token {what}"));
    let token = match format.kind.as_str() {
        "" | "text" => text.trim().to_owned(),
        "json" => {
            let field = format.subject_token_field_name.as_deref();
            let value: Value = serde_json::from_str(text).map_err(|_| wrong("is no JSON"))?;
            let token = value.get(field.unwrap_or("access_token"));
            let token = token.and_then(Value::as_str);
            token.ok_or_else(|| wrong("has no such field"))?.to_owned()
        }
        _ => return Err(wrong("is in a format that is not known")),
    };
    if token.is_empty() {
        return Err(wrong("is empty"));
    }
    Ok(token)
}

/// A failure of a service, with its name.
fn told(failure: &Failure, service: &str) -> Failure {
    failure.of_source(&one_line(service))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_of_a_workload_s_token_is_known() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (source, expected) in [
            (r#"{"file":"/t"}"#, Some("/t")),
            (
                r#"{"file":"/t","format":{"type":"json","subject_token_field_name":"f"}}"#,
                None,
            ),
            (r#"{"url":"http://x/"}"#, None),
        ] {
            let text = format!(
                r#"{{"type":"external_account","audience":"a","subject_token_type":"t","token_url":"u",
                    "credential_source":{source}}}"#
            );
            std::fs::write(file.path(), text).unwrap();
            let found = token_file(file.path()).await;
            assert_eq!(found.as_deref(), expected.map(Path::new), "{source}");
        }
        std::fs::write(file.path(), "canary").unwrap();
        assert_eq!(token_file(file.path()).await, None);
    }

    #[test]
    fn every_type_of_file_is_understood_and_none_is_quoted() {
        let user =
            r#"{"type":"authorized_user","client_id":"i","client_secret":"s","refresh_token":"r"}"#;
        let wrapped = format!(
            r#"{{"type":"impersonated_service_account","source_credentials":{user},
                "service_account_impersonation_url":"https://iamcredentials.googleapis.com/x","delegates":[]}}"#
        );
        for text in [
            user,
            &wrapped,
            r#"{"type":"service_account","project_id":"p","client_email":"e","private_key":"k","token_uri":"u"}"#,
            r#"{"type":"external_account","audience":"a","subject_token_type":"t","token_url":"u",
                "credential_source":{"file":"/t","format":{"type":"json","subject_token_field_name":"f"}}}"#,
            r#"{"type":"external_account","audience":"a","subject_token_type":"t","token_url":"u",
                "credential_source":{"url":"http://169.254.169.254/x","headers":{"Metadata":"True"}}}"#,
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in [
            "",
            "canary",
            r#"{"type":"canary"}"#,
            r#"{"type":"service_account","private_key":"canary"}"#,
        ] {
            let told = match parse(text) {
                Ok(_) => panic!("{text} is refused"),
                Err(failure) => format!("{failure:?}"),
            };
            assert!(!told.contains("canary"), "{told}");
        }
    }

    #[test]
    fn the_token_of_a_workload_as_text_and_in_json() {
        let format = |kind: &str, field: Option<&str>| SubjectFormat {
            kind: kind.to_owned(),
            subject_token_field_name: field.map(str::to_owned),
        };
        assert_eq!(subject_in("t\n", &format("", None)).expect("text"), "t");
        let json = r#"{"access_token":"a","id_token":"b"}"#;
        assert_eq!(subject_in(json, &format("json", None)).expect("it"), "a");
        let named = format("json", Some("id_token"));
        assert_eq!(subject_in(json, &named).expect("it"), "b");
        for (text, format) in [
            ("\n", format("text", None)),
            ("canary", format("json", None)),
            ("{\"canary\":1}", named),
            ("canary", format("xml", None)),
        ] {
            let failure = subject_in(text, &format).expect_err("refused");
            assert!(!format!("{failure:?}").contains("canary"));
        }
    }
}
