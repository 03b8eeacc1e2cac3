//! The settings of Google Cloud Storage, read only when the archive is there.
//!
//! Names are WAL-E's, Google's own, or ours where neither has one; WAL-G's are aliases. The file of an account is not read
//! here: its content may change while wale runs.

pub(super) mod value;

use std::path::PathBuf;

use wale_storage::{GcsCredentials, GcsEncryption, GcsEndpoint, Proxies};

use super::declared::{
    GCE_METADATA_HOST, GCS_NORMALIZE_PREFIX, GOOGLE_APPLICATION_CREDENTIALS, STORAGE_EMULATOR_HOST,
    WALE_GS_ANONYMOUS, WALE_GS_CA_FILE, WALE_GS_ENCRYPTION_KEY, WALE_GS_ENDPOINT, WALE_GS_KMS_KEY,
    WALE_GS_NAMES, WALE_GS_PREFIX, WALE_GS_STORAGE_CLASS,
};
use super::group::Group;
use super::mistake::Mistake;
use super::proxies;
use super::raw::Origin;
use super::reader::Reader;
use super::s3::value::{host, is_loopback};
use value::GcsNames;

/// Everything about Google Cloud Storage but the bucket.
#[derive(Debug, Clone)]
pub(crate) struct GcsSettings {
    /// What every object's name begins with.
    pub(crate) prefix: String,
    /// Whether somebody has said how names begin.
    pub(crate) spelling_is_certain: bool,
    pub(crate) endpoint: Option<GcsEndpoint>,
    pub(crate) credentials: GcsCredentials,
    pub(crate) storage_class: Option<String>,
    pub(crate) encryption: GcsEncryption,
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) proxies: Proxies,
}

/// Where `gcloud auth application-default login` puts the file of a user, in the home directory.
const USUAL_FILE: &str = ".config/gcloud/application_default_credentials.json";

/// Reads them, for this path behind the bucket. What is wrong is kept as a mistake of the reader, and something harmless
/// stands in its place.
pub(super) fn read(reader: &mut Reader, path: &str) -> GcsSettings {
    let (prefix, spelling_is_certain) = names(reader, path);
    let emulator = reader.get(&STORAGE_EMULATOR_HOST);
    let endpoint = endpoint(reader, emulator.as_ref());
    let credentials = credentials(reader, emulator.is_some());
    let encryption = encryption(reader);
    let is_in_clear = endpoint.as_ref().is_some_and(|endpoint| {
        !endpoint.secure && host(&endpoint.authority).is_none_or(|host| !is_loopback(host))
    });
    if is_in_clear && credentials != GcsCredentials::Anonymous {
        mistake(
            reader,
            "WALE_GS_ENDPOINT: the token would go over the network in clear",
            "use an endpoint that begins with https; for an emulator set WALE_GS_ANONYMOUS=on",
        );
    }
    if is_in_clear && matches!(encryption, GcsEncryption::CustomerKey(_)) {
        mistake(
            reader,
            "WALE_GS_ENCRYPTION_KEY: the key would go over the network in clear",
            "use an endpoint that begins with https, or let the store keep the key (WALE_GS_KMS_KEY)",
        );
    }
    GcsSettings {
        prefix,
        spelling_is_certain,
        endpoint,
        credentials,
        storage_class: reader.get(&WALE_GS_STORAGE_CLASS),
        encryption,
        ca_file: reader.get(&WALE_GS_CA_FILE),
        proxies: proxies::read(reader),
    }
}

fn mistake(reader: &mut Reader, text: impl Into<String>, hint: &str) {
    let mistake = Mistake::new(Group::Gcs, text).hint(hint);
    reader.mistakes.push(mistake);
}

/// What names begin with, and whether somebody has said it. WAL-E put a slash before the path, WAL-G does not; when it is
/// told not to normalize, it takes what follows the bucket and a slash as it is.
fn names(reader: &mut Reader, path: &str) -> (String, bool) {
    let chosen = reader.get(&WALE_GS_NAMES);
    let normalizes = reader.get(&GCS_NORMALIZE_PREFIX);
    let is_of_wal_g = matches!(
        reader.set(&WALE_GS_PREFIX),
        Some((_, Origin::Environment(name))) if name.starts_with("WALG_")
    );
    let folder = |path: &str| match path.trim_end_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    };
    let plain = folder(path.trim_start_matches('/'));
    match (chosen, normalizes) {
        (Some(GcsNames::WalE), _) => (format!("/{plain}"), true),
        (Some(GcsNames::WalG), _) | (None, Some(true)) => (plain, true),
        (None, Some(false)) => (folder(path), true),
        (None, None) if is_of_wal_g => (plain, false),
        (None, None) => (format!("/{plain}"), false),
    }
}

fn endpoint(reader: &mut Reader, emulator: Option<&GcsEndpoint>) -> Option<GcsEndpoint> {
    let endpoint = reader.get(&WALE_GS_ENDPOINT);
    if endpoint.is_some() && emulator.is_some() {
        mistake(
            reader,
            "STORAGE_EMULATOR_HOST and WALE_GS_ENDPOINT are both set",
            "keep one of them",
        );
    }
    endpoint.or_else(|| emulator.cloned())
}

/// The first source that is set, in Google's order. An emulator wants none.
fn credentials(reader: &mut Reader, is_emulator: bool) -> GcsCredentials {
    let file = reader.get(&GOOGLE_APPLICATION_CREDENTIALS);
    let metadata = reader.get(&GCE_METADATA_HOST);
    if is_emulator || reader.get(&WALE_GS_ANONYMOUS) {
        return GcsCredentials::Anonymous;
    }
    if let Some(file) = file {
        return GcsCredentials::File(file);
    }
    let usual = reader.home().map(|home| home.join(USUAL_FILE));
    match usual.filter(|path| path.exists()) {
        Some(file) => GcsCredentials::File(file),
        None => GcsCredentials::Metadata(metadata),
    }
}

fn encryption(reader: &mut Reader) -> GcsEncryption {
    let key = reader.get(&WALE_GS_ENCRYPTION_KEY);
    match (key, reader.get(&WALE_GS_KMS_KEY)) {
        (Some(_), Some(_)) => {
            mistake(
                reader,
                "WALE_GS_ENCRYPTION_KEY: a key of your own and a key of the store are both set",
                "unset WALE_GS_KMS_KEY, or the key of your own",
            );
            GcsEncryption::BucketDefault
        }
        (Some(key), None) => GcsEncryption::CustomerKey(key),
        (None, Some(key)) => GcsEncryption::Kms(key),
        (None, None) => GcsEncryption::BucketDefault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Loaded;

    fn loaded(set: &[(&str, &str)]) -> Result<GcsSettings, String> {
        let loaded = Loaded::for_test(set, "");
        match loaded.require(&[Group::Archive]) {
            Ok(settings) => Ok(settings.gcs.clone().expect("the archive is there")),
            Err(error) => Err(format!("{error}\n{:?}\n{:?}", error.detail, error.hint)),
        }
    }

    #[test]
    fn names_begin_as_the_tool_began_them_whose_archive_it_is() {
        const WAL_E: &str = "WALE_GS_PREFIX";
        const WAL_G: &str = "WALG_GS_PREFIX";
        for (set, prefix, is_certain) in [
            (&[(WAL_E, "gs://b/a/b")][..], "/a/b/", false),
            (&[(WAL_E, "gs://b//a/b//")], "/a/b/", false),
            (&[(WAL_E, "gs://b")], "/", false),
            (&[(WAL_G, "gs://b/a/b/")], "a/b/", false),
            (&[(WAL_G, "gs://b")], "", false),
            (
                &[(WAL_E, "gs://b/a"), ("WALE_GS_NAMES", "wal-g")],
                "a/",
                true,
            ),
            (
                &[(WAL_G, "gs://b/a"), ("WALE_GS_NAMES", "wal-e")],
                "/a/",
                true,
            ),
            (
                &[(WAL_E, "gs://b/a"), ("GCS_NORMALIZE_PREFIX", "true")],
                "a/",
                true,
            ),
            // WAL-G on an archive of WAL-E's.
            (
                &[(WAL_G, "gs://b//a"), ("WALG_GCS_NORMALIZE_PREFIX", "false")],
                "/a/",
                true,
            ),
        ] {
            let settings = loaded(set).expect("good settings");
            assert_eq!(settings.prefix, prefix, "{set:?}");
            assert_eq!(settings.spelling_is_certain, is_certain, "{set:?}");
        }
    }

    #[test]
    fn credentials_come_in_googles_order() {
        let home = tempfile::tempdir().expect("a folder");
        let usual = home.path().join(".config/gcloud");
        let home = home.path().to_str().expect("a path");
        let archive = [("WALE_GS_PREFIX", "gs://b/a"), ("HOME", home)];
        let of = |more: &[(&str, &str)]| {
            let settings = loaded(&[&archive[..], more].concat()).expect("good settings");
            settings.credentials
        };
        let metadata = GcsCredentials::Metadata("169.254.169.254".into());
        assert_eq!(of(&[]), metadata);
        std::fs::create_dir_all(&usual).expect("made");
        let usual = usual.join("application_default_credentials.json");
        std::fs::write(&usual, "{}").expect("written");
        assert_eq!(of(&[]), GcsCredentials::File(usual));
        let named = ("GOOGLE_APPLICATION_CREDENTIALS", "/k.json");
        assert_eq!(of(&[named]), GcsCredentials::File("/k.json".into()));
        assert_eq!(
            of(&[named, ("WALE_GS_ANONYMOUS", "on")]),
            GcsCredentials::Anonymous
        );
        let emulator = ("STORAGE_EMULATOR_HOST", "fake-gcs:4443");
        assert_eq!(of(&[named, emulator]), GcsCredentials::Anonymous);
    }

    #[test]
    fn what_is_wrong_is_told_and_no_secret_is() {
        let archive = ("WALE_GS_PREFIX", "gs://b/a");
        let key = ("GOOGLE_APPLICATION_CREDENTIALS", "/k.json");
        for (set, word) in [
            (
                &[key, ("WALE_GS_ENDPOINT", "http://gcs.example.org")][..],
                "in clear",
            ),
            (
                &[key, ("WALE_GS_ENDPOINT", "https+path://h")],
                "a plain URL",
            ),
            (
                &[
                    ("WALE_GS_ENDPOINT", "https://h"),
                    ("STORAGE_EMULATOR_HOST", "h:1"),
                ],
                "both set",
            ),
            (
                &[(
                    "GOOGLE_APPLICATION_CREDENTIALS",
                    "{\"private_key\":\"canary\"}",
                )],
                "not an absolute path",
            ),
            (&[("GCE_METADATA_HOST", "example.org")], "nearby"),
            (
                &[
                    ("WALE_GS_ENCRYPTION_KEY", "canary"),
                    ("WALE_GS_KMS_KEY", "projects/p"),
                ],
                "both set",
            ),
            (&[("WALE_GS_NAMES", "wal-x")], "wal-g"),
        ] {
            let told = loaded(&[&[archive][..], set].concat()).expect_err("a mistake");
            assert!(told.contains(word), "{set:?}: {told}");
            assert!(!told.contains("canary"), "{told}");
        }
        for good in [
            &[key, ("WALE_GS_ENDPOINT", "http://127.0.0.1:4443/gw")][..],
            &[
                ("WALE_GS_ENDPOINT", "http://fake:4443"),
                ("WALE_GS_ANONYMOUS", "on"),
            ],
            &[("STORAGE_EMULATOR_HOST", "http://fake:4443/")],
        ] {
            loaded(&[&[archive][..], good].concat()).expect("good settings");
        }
    }
}
