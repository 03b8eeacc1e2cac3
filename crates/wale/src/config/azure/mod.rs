//! The settings of Azure Blob Storage, read only when the archive is there.
//!
//! Names are WAL-E's, Microsoft's own, or ours where neither has one; WAL-G's are aliases. Files of credentials are not
//! read here: their content may change while wale runs.

pub(super) mod value;

use std::path::PathBuf;

use wale_storage::{
    AzureChecksum, AzureClient, AzureClientProof, AzureCredentialSource, AzureEndpoint, Proxies,
    Secret,
};

use super::declared::{
    AZURE_AUTHORITY_HOST, AZURE_BLOB_STORE_API_VERSION, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET,
    AZURE_ENDPOINT_SUFFIX, AZURE_ENVIRONMENT_NAME, AZURE_FEDERATED_TOKEN_FILE,
    AZURE_POD_IDENTITY_AUTHORITY_HOST, AZURE_TENANT_ID, WABS_ACCESS_KEY, WABS_ACCOUNT_NAME,
    WABS_SAS_TOKEN, WALE_WABS_CA_FILE, WALE_WABS_CHECKSUM, WALE_WABS_ENDPOINT,
};
use super::group::Group;
use super::mistake::Mistake;
use super::proxies;
use super::reader::Reader;
use super::s3::value::{host, is_loopback};

/// Everything about Azure but the container.
#[derive(Debug, Clone)]
pub(crate) struct AzureSettings {
    pub(crate) account: String,
    /// The domain of the cloud.
    pub(crate) cloud: String,
    pub(crate) endpoint: Option<AzureEndpoint>,
    pub(crate) credentials: AzureCredentialSource,
    pub(crate) api_version: Option<String>,
    pub(crate) checksum: AzureChecksum,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxies: Proxies,
}

/// Reads them. What is wrong is kept as a mistake of the reader, and something harmless stands in its place.
pub(super) fn read(reader: &mut Reader, container: &str) -> AzureSettings {
    let endpoint = reader.get(&WALE_WABS_ENDPOINT);
    if let Some(endpoint) = &endpoint {
        check_path(reader, endpoint, container);
    }
    let credentials = credentials(reader);
    if let Some(endpoint) = &endpoint {
        check_clear_text(reader, endpoint, &credentials);
    }
    // What is not Microsoft's may know nothing but MD5.
    let checksum = reader.get(&WALE_WABS_CHECKSUM).unwrap_or(match endpoint {
        Some(_) => AzureChecksum::Md5,
        None => AzureChecksum::Crc64,
    });
    let cloud = reader.get(&AZURE_ENVIRONMENT_NAME).domain();
    AzureSettings {
        account: account(reader),
        cloud: reader
            .get(&AZURE_ENDPOINT_SUFFIX)
            .unwrap_or_else(|| cloud.to_owned()),
        endpoint,
        credentials,
        api_version: reader.get(&AZURE_BLOB_STORE_API_VERSION),
        checksum,
        ca_file: reader.get(&WALE_WABS_CA_FILE),
        proxies: proxies::read(reader),
    }
}

fn mistake(reader: &mut Reader, text: impl Into<String>, hint: &str) {
    let mistake = Mistake::new(Group::Azure, text).hint(hint);
    reader.mistakes.push(mistake);
}

fn account(reader: &mut Reader) -> String {
    let account = reader.get(&WABS_ACCOUNT_NAME);
    if !reader.is_set(&WABS_ACCOUNT_NAME) {
        mistake(
            reader,
            "WABS_ACCOUNT_NAME: the storage account is not set",
            "set WABS_ACCOUNT_NAME, the name before .blob.core.windows.net",
        );
    }
    account.unwrap_or_default()
}

/// Refuses a path that is the container: every name would have it twice.
fn check_path(reader: &mut Reader, endpoint: &AzureEndpoint, container: &str) {
    let last = endpoint.path.rsplit('/').next().unwrap_or_default();
    if !last.is_empty() && last == container {
        mistake(
            reader,
            format!("WALE_WABS_ENDPOINT: its path ends with the container \"{container}\""),
            "leave the container out of the endpoint; it stands in WALE_WABS_PREFIX",
        );
    }
}

/// Refuses to send across a network in clear what a reader of it could use. The account's key only signs.
fn check_clear_text(
    reader: &mut Reader,
    endpoint: &AzureEndpoint,
    credentials: &AzureCredentialSource,
) {
    let is_sent = !matches!(
        credentials,
        AzureCredentialSource::AccountKey(_) | AzureCredentialSource::AccountKeyFile(_)
    );
    let is_far = host(&endpoint.authority).is_none_or(|host| !is_loopback(host));
    if is_sent && !endpoint.secure && is_far {
        mistake(
            reader,
            "WALE_WABS_ENDPOINT: the shared access signature or token would go over the network in clear",
            "use an endpoint that begins with https, or the account's key, which is never sent",
        );
    }
}

/// The first that is set. The identity of the host stands for nothing at all, as for WAL-G.
fn credentials(reader: &mut Reader) -> AzureCredentialSource {
    let key = reader.get(&WABS_ACCESS_KEY);
    if reader.is_set(&WABS_ACCESS_KEY) {
        return match reader.secret_file(&WABS_ACCESS_KEY) {
            Some(file) => AzureCredentialSource::AccountKeyFile(file),
            None => AzureCredentialSource::AccountKey(key.unwrap_or_else(|| Secret::new(""))),
        };
    }
    let signature = reader.get(&WABS_SAS_TOKEN);
    if reader.is_set(&WABS_SAS_TOKEN) {
        return match reader.secret_file(&WABS_SAS_TOKEN) {
            Some(file) => AzureCredentialSource::SharedAccessFile(file),
            None => {
                AzureCredentialSource::SharedAccess(signature.unwrap_or_else(|| Secret::new("")))
            }
        };
    }
    if let Some(proof) = proof(reader) {
        return AzureCredentialSource::Client(client(reader, proof));
    }
    AzureCredentialSource::ManagedIdentity {
        service: reader.get(&AZURE_POD_IDENTITY_AUTHORITY_HOST),
        client_id: reader.get(&AZURE_CLIENT_ID),
    }
}

/// What shows that we are an application, if anything does.
fn proof(reader: &mut Reader) -> Option<AzureClientProof> {
    let secret = reader.get(&AZURE_CLIENT_SECRET);
    if reader.is_set(&AZURE_CLIENT_SECRET) {
        return Some(match reader.secret_file(&AZURE_CLIENT_SECRET) {
            Some(file) => AzureClientProof::SecretFile(file),
            None => AzureClientProof::Secret(secret.unwrap_or_else(|| Secret::new(""))),
        });
    }
    let file = reader.get(&AZURE_FEDERATED_TOKEN_FILE)?;
    Some(AzureClientProof::TokenFile(file))
}

fn client(reader: &mut Reader, proof: AzureClientProof) -> AzureClient {
    let cloud = reader.get(&AZURE_ENVIRONMENT_NAME);
    let tenant = reader.get(&AZURE_TENANT_ID);
    let client_id = reader.get(&AZURE_CLIENT_ID);
    for (setting, what) in [
        (&AZURE_TENANT_ID, "the tenant"),
        (&AZURE_CLIENT_ID, "the application"),
    ] {
        if !reader.is_set(setting) {
            let name = setting.name();
            mistake(
                reader,
                format!("{name}: {what} is not set, and its secret or token is"),
                "set AZURE_TENANT_ID and AZURE_CLIENT_ID",
            );
        }
    }
    AzureClient {
        authority: reader
            .get(&AZURE_AUTHORITY_HOST)
            .unwrap_or_else(|| cloud.authority().to_owned()),
        tenant: tenant.unwrap_or_default(),
        client_id: client_id.unwrap_or_default(),
        proof,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loaded;

    const PLACE: (&str, &str) = ("WALE_WABS_PREFIX", "wabs://data/p");
    const ACCOUNT: (&str, &str) = ("WABS_ACCOUNT_NAME", "acc");
    const KEY: (&str, &str) = ("WABS_ACCESS_KEY", "Zm9v");

    fn settings(environment: &[(&str, &str)]) -> Result<AzureSettings, String> {
        let all = [&[PLACE], environment].concat();
        let loaded = Loaded::for_test(&all, "");
        match loaded.require(&[Group::Archive]) {
            Ok(settings) => Ok(settings.azure.clone().expect("the archive is there")),
            Err(error) => Err(format!(
                "{} {:?} {:?}",
                error.message, error.detail, error.hint
            )),
        }
    }

    #[test]
    fn wal_es_wal_gs_and_microsofts_names() {
        for names in [
            ["WABS_ACCOUNT_NAME", "WABS_ACCESS_KEY"],
            ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCESS_KEY"],
            [
                "WALG_AZURE_STORAGE_ACCOUNT",
                "WALG_AZURE_STORAGE_ACCESS_KEY",
            ],
        ] {
            let found = settings(&[(names[0], "acc"), (names[1], "Zm9v")]).expect("they are good");
            assert_eq!(
                (found.account.as_str(), found.cloud.as_str()),
                ("acc", "core.windows.net")
            );
            assert!(matches!(
                found.credentials,
                AzureCredentialSource::AccountKey(_)
            ));
            assert_eq!(found.checksum, AzureChecksum::Crc64);
        }
        let prefix = ("WALG_AZ_PREFIX", "azure://data/p");
        let loaded = Loaded::for_test(&[prefix, ACCOUNT, KEY], "");
        assert!(loaded.require(&[Group::Archive]).is_ok());
        let found = settings(&[ACCOUNT, KEY, ("AZURE_ENVIRONMENT_NAME", "AzureChinaCloud")]);
        assert_eq!(found.expect("it is one").cloud, "core.chinacloudapi.cn");
    }

    #[test]
    fn the_first_source_that_is_set() {
        let signature = ("WABS_SAS_TOKEN", "?sv=1&sig=s");
        let id = ("AZURE_CLIENT_ID", "app");
        let tenant = ("AZURE_TENANT_ID", "tenant");
        let file = ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token");
        let of = |more: &[(&str, &str)]| {
            let all = [&[ACCOUNT], more].concat();
            settings(&all).expect("they are good").credentials
        };
        assert!(matches!(
            of(&[signature]),
            AzureCredentialSource::SharedAccess(_)
        ));
        assert!(matches!(
            of(&[KEY, signature]),
            AzureCredentialSource::AccountKey(_)
        ));
        let AzureCredentialSource::Client(client) = of(&[id, tenant, file]) else {
            panic!("an application");
        };
        assert!(matches!(client.proof, AzureClientProof::TokenFile(_)));
        assert_eq!(client.authority, "https://login.microsoftonline.com");
        let AzureCredentialSource::ManagedIdentity { service, client_id } = of(&[id]) else {
            panic!("the host's identity");
        };
        assert_eq!(
            (service.as_str(), client_id.as_deref()),
            ("http://169.254.169.254", Some("app"))
        );
    }

    #[test]
    fn mistakes_are_told_at_the_start() {
        let far = ("WALE_WABS_ENDPOINT", "http://store.example.org:10000/acc");
        let signature = ("WABS_SAS_TOKEN", "sv=1&sig=canary");
        for (environment, told) in [
            (
                &[KEY][..],
                "WABS_ACCOUNT_NAME: the storage account is not set",
            ),
            (
                &[ACCOUNT, ("WABS_ACCESS_KEY", "can ary")],
                "WABS_ACCESS_KEY: the value is not the key",
            ),
            (
                &[ACCOUNT, ("WABS_SAS_TOKEN", "canary")],
                "WABS_SAS_TOKEN: the value is not a shared",
            ),
            (
                &[ACCOUNT, ("AZURE_CLIENT_SECRET", "canary")],
                "AZURE_TENANT_ID: the tenant is not set",
            ),
            (
                &[ACCOUNT, KEY, ("WALE_WABS_ENDPOINT", "http://h/acc/data")],
                "ends with the container",
            ),
            (&[ACCOUNT, signature, far], "in clear"),
        ] {
            let text = settings(environment).expect_err(told);
            assert!(text.contains(told), "{told}: {text}");
            assert!(!text.contains("ary"), "{text}");
        }
        assert!(settings(&[ACCOUNT, KEY, far]).is_ok(), "a key only signs");
        let near = ("WALE_WABS_ENDPOINT", "http://127.0.0.1:10000/acc");
        let found = settings(&[ACCOUNT, signature, near]).expect("it is on this host");
        assert_eq!(found.checksum, AzureChecksum::Md5);
    }
}
