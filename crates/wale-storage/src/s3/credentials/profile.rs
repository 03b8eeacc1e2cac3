//! Profiles of Amazon's shared files (AWS SDKs and Tools Reference Guide, "Shared config and credentials files").
//!
//! Understood are keys, roles for the keys of another profile, and roles for a web identity. Programs that give keys
//! and single sign-on are refused in words: wale's image holds no other program, and nobody signs on at night.

use std::collections::HashMap;
use std::path::Path;

use super::source::{Credentials, GrantedKeys, ProfileSource, WebIdentitySource};
use super::sts;
use crate::Secret;
use crate::http::failure::Failure;
use crate::http::named_file::read_secret_text;
use crate::http::text::fits_header;
use crate::http::transport::Transport;

/// Profiles that lead to one another: as many as anybody uses, and few enough that a circle ends.
const STEPS_MAX: usize = 5;

/// How a session is named that nobody names.
const SESSION_NAME: &str = "wale";

type Profile = HashMap<String, String>;

/// The profiles of both files, by name.
#[derive(Debug, Default)]
struct Profiles(HashMap<String, Profile>);

/// What a profile comes to.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// Keys.
    Keys(Credentials),
    /// A role for the keys of another profile.
    Role { source: String, role: Role },
    /// A role for the profile's own keys.
    OwnRole { keys: Credentials, role: Role },
    /// A role for the token in this file.
    WebIdentity { token_file: String, role: Role },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Role {
    arn: String,
    session_name: String,
    external_id: Option<String>,
}

pub(super) async fn grant(
    source: &ProfileSource,
    transport: &Transport,
    region: &str,
) -> Result<GrantedKeys, Failure> {
    let mut profiles = Profiles::default();
    // Either file may be missing; what is missing is reported below, by the profile.
    for (path, is_config) in [
        (&source.config_file, true),
        (&source.credentials_file, false),
    ] {
        if let Some(text) = read_if_there(path).await? {
            profiles.take(&text, is_config);
        }
    }
    let sts_endpoint = source.sts_endpoint.as_deref();
    let mut roles = Vec::new();
    let mut name = source.name.clone();
    let mut granted = loop {
        match profiles.plan(&name, source)? {
            Plan::Keys(credentials) => {
                break GrantedKeys {
                    credentials,
                    expires: None,
                };
            }
            Plan::WebIdentity { token_file, role } => {
                let source = WebIdentitySource {
                    token_file: token_file.into(),
                    role_arn: role.arn,
                    session_name: role.session_name,
                    sts_endpoint: source.sts_endpoint.clone(),
                };
                break sts::with_web_identity(&source, transport, region).await?;
            }
            Plan::OwnRole { keys, role } => {
                roles.push(role);
                break GrantedKeys {
                    credentials: keys,
                    expires: None,
                };
            }
            Plan::Role { source, role } => {
                roles.push(role);
                name = source;
            }
        }
        if roles.len() > STEPS_MAX {
            let text = format!("profile {}: the profiles lead in a circle", source.name);
            return Err(Failure::NoCredentials(text));
        }
    };
    while let Some(role) = roles.pop() {
        granted = sts::with_keys(
            &granted.credentials,
            &role.arn,
            &role.session_name,
            role.external_id.as_deref(),
            sts_endpoint,
            (transport, region),
        )
        .await?;
    }
    Ok(granted)
}

async fn read_if_there(path: &Path) -> Result<Option<String>, Failure> {
    let owned = path.to_owned();
    let is_there = tokio::task::spawn_blocking(move || owned.exists()).await;
    if is_there.unwrap_or(false) {
        read_secret_text(path).await.map(Some)
    } else {
        Ok(None)
    }
}

impl Profiles {
    /// Takes the lines of a file. In the file of settings a profile is `[profile NAME]`, except for `[default]`.
    fn take(&mut self, text: &str, is_config: bool) {
        let mut current = None;
        for line in text.lines() {
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
                continue;
            }
            if let Some(section) = trimmed.strip_prefix('[').and_then(|t| t.split(']').next()) {
                let section = section.trim();
                let name = match section.strip_prefix("profile ") {
                    Some(name) if is_config => Some(name.trim()),
                    None if !is_config || section == "default" => Some(section),
                    _ => None,
                };
                current = name.map(str::to_owned);
                continue;
            }
            // An indented line belongs to a setting of several lines, of which we need none.
            let is_nested = line.starts_with([' ', '\t']);
            if let (Some(name), Some((key, value)), false) =
                (&current, trimmed.split_once('='), is_nested)
            {
                let profile = self.0.entry(name.clone()).or_default();
                let key = key.trim().to_ascii_lowercase();
                profile.insert(key, value.trim().to_owned());
            }
        }
    }

    fn plan(&self, name: &str, source: &ProfileSource) -> Result<Plan, Failure> {
        let refused = |problem: &str| Failure::NoCredentials(format!("profile {name}: {problem}"));
        let profile = self.0.get(name).ok_or_else(|| {
            refused(&format!(
                "it is neither in {} nor in {}",
                source.credentials_file.display(),
                source.config_file.display()
            ))
        })?;
        let get = |key: &str| profile.get(key).filter(|value| !value.is_empty());
        if let Some(arn) = get("role_arn") {
            let role = Role {
                arn: arn.clone(),
                session_name: get("role_session_name")
                    .cloned()
                    .unwrap_or_else(|| SESSION_NAME.to_owned()),
                external_id: get("external_id").cloned(),
            };
            return match (get("web_identity_token_file"), get("source_profile")) {
                (Some(file), _) => Ok(Plan::WebIdentity {
                    token_file: file.clone(),
                    role,
                }),
                (None, Some(source)) if source == name => keys(profile)
                    .map(|keys| Plan::OwnRole { keys, role })
                    .ok_or_else(|| refused("it names itself and has no keys")),
                (None, Some(source)) => Ok(Plan::Role {
                    source: source.clone(),
                    role,
                }),
                (None, None) => Err(refused(
                    "its role needs source_profile or web_identity_token_file",
                )),
            };
        }
        if let Some(keys) = keys(profile) {
            return Ok(Plan::Keys(keys));
        }
        for (key, what) in [
            ("credential_process", "programs that give keys"),
            ("sso_start_url", "single sign-on"),
            ("sso_session", "single sign-on"),
        ] {
            if get(key).is_some() {
                return Err(refused(&format!("{what} ({key}) cannot be used by wale")));
            }
        }
        Err(refused(
            "it has no aws_access_key_id and aws_secret_access_key",
        ))
    }
}

fn keys(profile: &Profile) -> Option<Credentials> {
    let get = |key: &str| profile.get(key).filter(|value| fits_header(value));
    Some(Credentials {
        access_key_id: get("aws_access_key_id")?.clone(),
        secret_access_key: Secret::new(get("aws_secret_access_key")?),
        session_token: get("aws_session_token").map(Secret::new),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=canary\n\
        [work]\naws_access_key_id=B\naws_secret_access_key=canary\naws_session_token=T\n[half]\naws_access_key_id=C\n";
    const CONFIG: &str = "[default]\nregion=eu-west-1\n[profile backup]\nrole_arn = arn:role\nsource_profile = work\n\
        external_id=x\ns3 =\n  max_concurrent_requests = 20\n[profile pod]\nrole_arn=arn:pod\n\
        web_identity_token_file=/token\nrole_session_name=me\n[profile program]\ncredential_process=/bin/x\n\
        [profile own]\nrole_arn=arn:own\nsource_profile=own\naws_access_key_id=D\n\
        aws_secret_access_key=d\n[profile sso]\nsso_session=y\n[other]\naws_access_key_id=Z\naws_secret_access_key=z\n";

    fn plan(name: &str) -> Result<Plan, Failure> {
        let mut profiles = Profiles::default();
        profiles.take(CONFIG, true);
        profiles.take(CREDENTIALS, false);
        let source = ProfileSource {
            name: name.into(),
            credentials_file: "/c".into(),
            config_file: "/d".into(),
            sts_endpoint: None,
        };
        profiles.plan(name, &source)
    }

    #[test]
    fn profiles() {
        let Ok(Plan::Keys(keys)) = plan("default") else {
            panic!("the default profile has keys");
        };
        assert_eq!(
            (keys.access_key_id.as_str(), keys.session_token),
            ("A", None)
        );
        let Ok(Plan::Keys(keys)) = plan("work") else {
            panic!("this one too");
        };
        assert_eq!(keys.session_token, Some(Secret::new("T")));
        let role = Role {
            arn: "arn:role".into(),
            session_name: "wale".into(),
            external_id: Some("x".into()),
        };
        let expected = Plan::Role {
            source: "work".into(),
            role,
        };
        assert_eq!(plan("backup").expect("a role"), expected);
        assert!(
            matches!(plan("pod"), Ok(Plan::WebIdentity { token_file, .. }) if token_file == "/token")
        );
        assert!(matches!(plan("own"), Ok(Plan::OwnRole { keys, .. }) if keys.access_key_id == "D"));
        for (name, part) in [
            ("program", "credential_process"),
            ("sso", "single sign-on"),
            ("half", "it has no aws_access_key_id"),
            ("other", "neither in /c nor in /d"),
            ("missing", "neither in /c nor in /d"),
        ] {
            let failure = plan(name).expect_err(name);
            assert!(failure.to_string().contains(part), "{failure}");
            assert!(!failure.to_string().contains("canary"));
        }
    }
}
