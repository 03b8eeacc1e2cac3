//! The settings of Swift, read only when the archive is there.
//!
//! Names are WAL-E's, and ours where it has none; those of OpenStack's own programs, which WAL-G reads, are aliases.

pub(super) mod value;

use std::path::PathBuf;

use wale_storage::{
    ApplicationCredential, KeystoneName, LoginSecret, Proxies, Secret, SwiftLogin, SwiftMethod,
};

use super::declared::{
    SWIFT_APPLICATION_CREDENTIAL_ID, SWIFT_APPLICATION_CREDENTIAL_NAME,
    SWIFT_APPLICATION_CREDENTIAL_SECRET, SWIFT_AUTH_VERSION, SWIFT_AUTHURL, SWIFT_DOMAIN_ID,
    SWIFT_DOMAIN_NAME, SWIFT_ENDPOINT_TYPE, SWIFT_PASSWORD, SWIFT_PROJECT_DOMAIN_ID,
    SWIFT_PROJECT_DOMAIN_NAME, SWIFT_PROJECT_ID, SWIFT_PROJECT_NAME, SWIFT_REGION,
    SWIFT_STORAGE_URL, SWIFT_TENANT, SWIFT_TENANT_ID, SWIFT_USER, SWIFT_USER_DOMAIN_ID,
    SWIFT_USER_DOMAIN_NAME, SWIFT_USER_ID, WALE_SWIFT_CA_FILE, WALE_SWIFT_NAMES,
};
use super::group::Group;
use super::mistake::Mistake;
use super::proxies;
use super::reader::Reader;
use super::setting::Setting;
use value::{AuthVersion, SwiftNames};

/// Everything about Swift but the container.
#[derive(Debug, Clone)]
pub(crate) struct SwiftSettings {
    pub(crate) login: SwiftLogin,
    pub(crate) storage_url: Option<String>,
    /// Whose spelling names have, if somebody has said that.
    pub(crate) names: Option<SwiftNames>,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxies: Proxies,
}

/// Reads them. What is wrong is kept as a mistake of the reader, and something harmless stands in its place.
pub(super) fn read(reader: &mut Reader) -> SwiftSettings {
    SwiftSettings {
        login: login(reader),
        storage_url: reader.get(&SWIFT_STORAGE_URL),
        names: reader.get(&WALE_SWIFT_NAMES),
        ca_file: reader.get(&WALE_SWIFT_CA_FILE),
        proxies: proxies::read(reader),
    }
}

fn mistake(reader: &mut Reader, text: impl Into<String>, hint: &str) {
    let mistake = Mistake::new(Group::Swift, text).hint(hint);
    reader.mistakes.push(mistake);
}

fn login(reader: &mut Reader) -> SwiftLogin {
    let url = reader.get(&SWIFT_AUTHURL);
    if !reader.is_set(&SWIFT_AUTHURL) {
        mistake(
            reader,
            "SWIFT_AUTHURL: the login service is not set",
            "set it, as in SWIFT_AUTHURL=https://keystone.example.org:5000/v3",
        );
    }
    let url = url.unwrap_or_default();
    SwiftLogin {
        method: method(reader, &url),
        url,
        region: reader.get(&SWIFT_REGION),
        interface: reader.get(&SWIFT_ENDPOINT_TYPE),
    }
}

fn method(reader: &mut Reader, url: &str) -> SwiftMethod {
    let told = reader.get(&SWIFT_AUTH_VERSION);
    if let Some(method) = application(reader, told) {
        return method;
    }
    match told.or_else(|| AuthVersion::of_url(url)) {
        Some(AuthVersion::One) => SwiftMethod::V1 {
            user: needed(reader, &SWIFT_USER, "the user"),
            key: secret(reader, &SWIFT_PASSWORD, "the key of the user"),
        },
        Some(AuthVersion::Two) | None => second(reader),
        Some(AuthVersion::Three) => SwiftMethod::V3Password {
            user: user(reader),
            user_domain: domain(reader, &SWIFT_USER_DOMAIN_ID, &SWIFT_USER_DOMAIN_NAME),
            password: secret(reader, &SWIFT_PASSWORD, "the password"),
            project: project(reader),
            project_domain: domain(reader, &SWIFT_PROJECT_DOMAIN_ID, &SWIFT_PROJECT_DOMAIN_NAME),
        },
    }
}

/// An application credential, if one is set. It counts before a user, as for OpenStack's own programs.
fn application(reader: &mut Reader, told: Option<AuthVersion>) -> Option<SwiftMethod> {
    let id = reader.get(&SWIFT_APPLICATION_CREDENTIAL_ID);
    let name = reader.get(&SWIFT_APPLICATION_CREDENTIAL_NAME);
    let credential = match (id, name) {
        (Some(id), _) => ApplicationCredential::Id(id),
        (None, Some(name)) => ApplicationCredential::OfUser {
            name,
            user: user(reader),
            user_domain: domain(reader, &SWIFT_USER_DOMAIN_ID, &SWIFT_USER_DOMAIN_NAME),
        },
        (None, None) => {
            if reader.is_set(&SWIFT_APPLICATION_CREDENTIAL_SECRET) {
                let text = "SWIFT_APPLICATION_CREDENTIAL_SECRET: the credential that it belongs to is not set";
                mistake(reader, text, "set SWIFT_APPLICATION_CREDENTIAL_ID");
            }
            return None;
        }
    };
    if matches!(told, Some(AuthVersion::One | AuthVersion::Two)) {
        mistake(
            reader,
            "SWIFT_AUTH_VERSION: application credentials are of version 3",
            "set SWIFT_AUTH_VERSION=3, or unset it",
        );
    }
    Some(SwiftMethod::V3Application {
        credential,
        secret: secret(
            reader,
            &SWIFT_APPLICATION_CREDENTIAL_SECRET,
            "the secret of the application credential",
        ),
    })
}

/// Version 2 takes `tenant:user` where no tenant is set, as for python-swiftclient.
fn second(reader: &mut Reader) -> SwiftMethod {
    let user = needed(reader, &SWIFT_USER, "the user");
    let password = secret(reader, &SWIFT_PASSWORD, "the password");
    let (tenant, user) = match (tenant(reader), user.split_once(':')) {
        (Some(tenant), _) => (tenant, user),
        (None, Some((tenant, user))) => (KeystoneName::Name(tenant.to_owned()), user.to_owned()),
        (None, None) => {
            let text = "SWIFT_TENANT: the tenant is not set";
            mistake(reader, text, "set SWIFT_TENANT or SWIFT_TENANT_ID");
            (KeystoneName::Name(String::new()), user)
        }
    };
    SwiftMethod::V2 {
        user,
        password,
        tenant,
    }
}

fn user(reader: &mut Reader) -> KeystoneName {
    match reader.get(&SWIFT_USER_ID) {
        Some(id) => KeystoneName::Id(id),
        None => KeystoneName::Name(needed(reader, &SWIFT_USER, "the user")),
    }
}

fn project(reader: &mut Reader) -> KeystoneName {
    tenant(reader).unwrap_or_else(|| {
        let text = "SWIFT_PROJECT_NAME: the project is not set";
        let hint = "set SWIFT_PROJECT_NAME or SWIFT_PROJECT_ID (SWIFT_TENANT and SWIFT_TENANT_ID mean the same)";
        mistake(reader, text, hint);
        KeystoneName::Name(String::new())
    })
}

/// The tenant or project, an identifier before a name.
fn tenant(reader: &mut Reader) -> Option<KeystoneName> {
    let mut first = |settings: [&Setting<Option<String>>; 2]| {
        let [one, other] = settings.map(|setting| reader.get(setting));
        one.or(other)
    };
    let id = first([&SWIFT_PROJECT_ID, &SWIFT_TENANT_ID]);
    let name = first([&SWIFT_PROJECT_NAME, &SWIFT_TENANT]);
    id.map(KeystoneName::Id)
        .or_else(|| name.map(KeystoneName::Name))
}

/// A domain: its own settings, those of both, and else the one that every Keystone has.
fn domain(
    reader: &mut Reader,
    id: &Setting<Option<String>>,
    name: &Setting<Option<String>>,
) -> KeystoneName {
    let own = reader
        .get(id)
        .map(KeystoneName::Id)
        .or_else(|| reader.get(name).map(KeystoneName::Name));
    let of_both = reader
        .get(&SWIFT_DOMAIN_ID)
        .map(KeystoneName::Id)
        .or_else(|| reader.get(&SWIFT_DOMAIN_NAME).map(KeystoneName::Name));
    own.or(of_both)
        .unwrap_or_else(|| KeystoneName::Id("default".to_owned()))
}

fn needed(reader: &mut Reader, setting: &Setting<Option<String>>, what: &str) -> String {
    let value = reader.get(setting);
    if !reader.is_set(setting) {
        let name = setting.name();
        mistake(
            reader,
            format!("{name}: {what} is not set"),
            &format!("set {name}"),
        );
    }
    value.unwrap_or_default()
}

/// A secret, or the file that holds it: what is changed there is used without a restart.
fn secret(reader: &mut Reader, setting: &Setting<Option<Secret>>, what: &str) -> LoginSecret {
    let value = reader.get(setting);
    if !reader.is_set(setting) {
        let name = setting.name();
        mistake(
            reader,
            format!("{name}: {what} is not set"),
            &format!("set {name}, or {name}_FILE"),
        );
    }
    match reader.secret_file(setting) {
        Some(file) => LoginSecret::File(file),
        None => LoginSecret::Text(value.unwrap_or_else(|| Secret::new(""))),
    }
}

#[cfg(test)]
mod tests {
    use wale_storage::SwiftInterface;

    use super::*;
    use crate::config::Loaded;

    const PLACE: (&str, &str) = ("WALE_SWIFT_PREFIX", "swift://c/p");

    fn login_of(set: &[(&str, &str)]) -> Result<SwiftLogin, String> {
        let loaded = Loaded::for_test(&[&[PLACE], set].concat(), "");
        match loaded.require(&[Group::Archive]) {
            Ok(settings) => Ok(settings.swift.clone().expect("the place is one").login),
            Err(error) => Err(format!("{error}\n{:?}\n{:?}", error.detail, error.hint)),
        }
    }

    #[test]
    fn wal_es_settings_of_version_2_and_1() {
        let set = [
            ("SWIFT_AUTHURL", "https://h:5000/"),
            ("SWIFT_USER", "u"),
            ("SWIFT_PASSWORD", "p"),
            ("SWIFT_TENANT", "t"),
            ("SWIFT_REGION", "r"),
            ("SWIFT_ENDPOINT_TYPE", "internalURL"),
        ];
        let login = login_of(&set).expect("good");
        assert!(matches!(&login.method, SwiftMethod::V2 { user, tenant, .. }
            if user == "u" && *tenant == KeystoneName::Name("t".into())));
        assert_eq!(login.region.as_deref(), Some("r"));
        assert_eq!(login.interface, SwiftInterface::Internal);
        let login = login_of(&[
            ("SWIFT_AUTHURL", "https://h:5000/v2.0"),
            ("SWIFT_USER", "t:u"),
            ("SWIFT_PASSWORD", "p"),
        ]);
        assert!(
            matches!(&login.expect("good").method, SwiftMethod::V2 { user, tenant, .. }
            if user == "u" && *tenant == KeystoneName::Name("t".into()))
        );
        let login = login_of(&[
            ("SWIFT_AUTHURL", "http://h:8080/auth/v1.0"),
            ("SWIFT_AUTH_VERSION", "1"),
            ("SWIFT_USER", "test:tester"),
            ("SWIFT_PASSWORD", "testing"),
        ]);
        assert!(
            matches!(&login.expect("good").method, SwiftMethod::V1 { user, .. } if user == "test:tester")
        );
    }

    #[test]
    fn version_3_with_domains_and_application_credentials() {
        use KeystoneName::{Id, Name};
        let of = |set: &[(&str, &str)]| {
            let v3 = [("OS_AUTH_URL", "https://h:5000/v3")];
            login_of(&[&v3, set].concat()).expect("good").method
        };
        let user = [("OS_USERNAME", "u"), ("OS_PASSWORD", "p")];
        let project = [("OS_PROJECT_NAME", "n")];
        let SwiftMethod::V3Password {
            user_domain,
            project,
            project_domain,
            ..
        } = of(&[
            &user[..],
            &project,
            &[("SWIFT_DOMAIN_NAME", "d"), ("OS_USER_DOMAIN_ID", "i")],
        ]
        .concat())
        else {
            panic!("it is one of version 3");
        };
        assert_eq!(
            (user_domain, project_domain),
            (Id("i".into()), Name("d".into()))
        );
        assert_eq!(project, Name("n".into()));
        let method = of(&[
            &user[..],
            &[("SWIFT_TENANT_ID", "7"), ("SWIFT_TENANT", "t")],
        ]
        .concat());
        assert!(
            matches!(method, SwiftMethod::V3Password { project: Id(id), user_domain: Id(domain), .. }
            if id == "7" && domain == "default")
        );
        let secret = ("OS_APPLICATION_CREDENTIAL_SECRET", "s");
        let method = of(&[("OS_APPLICATION_CREDENTIAL_ID", "i"), secret]);
        assert!(
            matches!(method, SwiftMethod::V3Application { credential: ApplicationCredential::Id(id), .. } if id == "i")
        );
        let method = of(&[
            ("SWIFT_APPLICATION_CREDENTIAL_NAME", "n"),
            ("SWIFT_USER_ID", "1"),
            secret,
        ]);
        assert!(matches!(method, SwiftMethod::V3Application {
            credential: ApplicationCredential::OfUser { name, user: Id(user), .. }, ..
        } if name == "n" && user == "1"));
    }

    #[test]
    fn what_is_missing_is_told_together_and_no_secret_is() {
        let told = login_of(&[]).unwrap_err();
        for name in [
            "SWIFT_AUTHURL",
            "SWIFT_USER",
            "SWIFT_PASSWORD",
            "SWIFT_TENANT",
        ] {
            assert!(told.contains(name), "{name}: {told}");
        }
        let told = login_of(&[
            ("SWIFT_AUTHURL", "https://user:canary@h/v3"),
            ("SWIFT_AUTH_VERSION", "3"),
            ("SWIFT_USER", "u"),
            ("SWIFT_PASSWORD", "canary"),
        ])
        .unwrap_err();
        assert!(
            told.contains("SWIFT_PROJECT_NAME") && !told.contains("canary"),
            "{told}"
        );
        let told = login_of(&[
            ("SWIFT_AUTHURL", "https://h"),
            ("SWIFT_AUTH_VERSION", "2"),
            ("SWIFT_APPLICATION_CREDENTIAL_ID", "i"),
            ("SWIFT_APPLICATION_CREDENTIAL_SECRET", "canary"),
        ])
        .unwrap_err();
        assert!(
            told.contains("version 3") && !told.contains("canary"),
            "{told}"
        );
    }
}
