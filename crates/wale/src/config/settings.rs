//! The values of all settings, and what one of them says of another.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use wale_cluster::Secret;
use wale_format::Codec;
use wale_ops::OpError;
use wale_ops::retention::Policy;
use wale_service::{Schedule, TokenFor, Verification};

use super::azure::{self, AzureSettings};
use super::carried;
use super::declared::{
    CRON_TIMING, SETTINGS, TZ, WALE_COMPRESSION, WALE_COMPRESSION_LEVEL, WALE_FILE_PREFIX,
    WALE_GS_PREFIX, WALE_HTTP_TOKEN, WALE_HTTP_TOKEN_FOR, WALE_PREFIX, WALE_RETAIN_BACKUPS,
    WALE_RETAIN_DAILY, WALE_RETAIN_DAYS, WALE_RETAIN_MONTHLY, WALE_RETAIN_WAL, WALE_RETAIN_WEEKLY,
    WALE_S3_BUCKET, WALE_S3_PATH, WALE_S3_PREFIX, WALE_SWIFT_PREFIX, WALE_TLS_CERT_FILE,
    WALE_TLS_KEY_FILE, WALE_VERIFY_OLDER_THAN, WALE_VERIFY_RATE, WALE_VERIFY_SAMPLE,
    WALE_VERIFY_SCHEDULE, WALE_WABS_PREFIX, WALG_STORAGE_PREFIX,
};
use super::encryption::{self, EncryptionSettings};
use super::gcs::{self, GcsSettings};
use super::group::Group;
use super::mistake::Mistake;
use super::prefix::{self, Candidate, Place};
use super::reader::Reader;
use super::s3::{self, S3Settings};
use super::setting::{Setting, Values};
use super::swift::{self, SwiftSettings};

/// What is set, and what several settings mean together.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    values: Values,
    pub(crate) place: Option<Place>,
    /// Set when the place is a container of Swift.
    pub(crate) swift: Option<SwiftSettings>,
    /// Set when the place is a bucket of S3.
    pub(crate) s3: Option<S3Settings>,
    /// Set when the place is a bucket of Google's.
    pub(crate) gcs: Option<GcsSettings>,
    /// Set when the place is a container of Azure.
    pub(crate) azure: Option<AzureSettings>,
    /// What objects are encrypted with, and the keys to read them.
    pub(crate) encryption: EncryptionSettings,
    /// The archives after the first: their numbers, and what is set of them.
    pub(super) further: Vec<(u8, Values)>,
}

impl Settings {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let place = place(reader);
        let swift = match &place {
            Some(Place::SwiftContainer { .. }) => Some(swift::read(reader)),
            _ => None,
        };
        let s3 = match &place {
            Some(Place::Bucket { bucket, .. }) => Some(s3::read(reader, bucket)),
            _ => None,
        };
        let azure = match &place {
            Some(Place::AzureContainer { container, .. }) => Some(azure::read(reader, container)),
            _ => None,
        };
        let gcs = match &place {
            Some(Place::Gcs { path, .. }) => Some(gcs::read(reader, path)),
            _ => None,
        };
        for setting in SETTINGS {
            // Those of a store are read when the archive is there, and then only those that are used.
            if !setting.facts().group.is_of_a_store() {
                reader.note(*setting);
            }
        }
        let encryption = encryption::read(reader);
        check_level(reader);
        check_token(reader);
        check_tls(reader);
        Self {
            values: reader.values().clone(),
            place,
            swift,
            s3,
            azure,
            gcs,
            encryption,
            further: Vec::new(),
        }
    }

    /// How the sidecar is reached, and the program's own: no archive, no keys, and no mistake of another group.
    pub(super) fn read_endpoint(reader: &mut Reader) -> Self {
        for setting in SETTINGS {
            if matches!(setting.facts().group, Group::Endpoint | Group::Program) {
                reader.note(*setting);
            }
        }
        check_token(reader);
        check_tls(reader);
        Self {
            values: reader.values().clone(),
            place: None,
            swift: None,
            s3: None,
            azure: None,
            gcs: None,
            encryption: EncryptionSettings::default(),
            further: Vec::new(),
        }
    }

    /// What everything is set to.
    pub(super) fn values(&self) -> &Values {
        &self.values
    }

    /// The home directory of the user.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.values.home()
    }

    /// The value of a setting.
    pub(crate) fn get<T>(&self, setting: &Setting<T>) -> T {
        self.values.get(setting)
    }

    /// The text of a setting that is set by somebody.
    pub(super) fn text<T>(&self, setting: &Setting<T>) -> Option<&str> {
        self.values.set(setting).map(|(text, _)| text)
    }

    /// The file that holds a secret, when it is set by one.
    pub(crate) fn secret_file<T>(&self, setting: &Setting<T>) -> Option<&Path> {
        self.values.secret_file(setting)
    }

    /// Whether somebody sets it.
    pub(crate) fn is_set<T>(&self, setting: &Setting<T>) -> bool {
        self.values.is_set(setting)
    }

    /// How many archives there are after the first.
    pub(crate) fn further(&self) -> usize {
        self.further.len()
    }

    /// The settings of all archives as a configuration file.
    ///
    /// # Errors
    /// When one cannot be written there.
    pub(crate) fn archive_file(&self) -> Result<Secret, OpError> {
        carried::archive_file(&self.values, &self.further)
    }

    /// Certificate and key of the endpoint.
    pub(crate) fn tls_files(&self) -> Option<(PathBuf, PathBuf)> {
        let certificate = self.get(&WALE_TLS_CERT_FILE);
        certificate.zip(self.get(&WALE_TLS_KEY_FILE))
    }

    /// When base backups are taken.
    pub(crate) fn schedule(&self) -> Option<Schedule> {
        let schedule = self.get(&CRON_TIMING)?;
        Some(schedule.in_zone(self.get(&TZ)))
    }

    /// When the sidecar verifies the archive, and how.
    pub(crate) fn verification(&self) -> Option<Verification> {
        let schedule = self.get(&WALE_VERIFY_SCHEDULE)?;
        Some(Verification {
            schedule: schedule.in_zone(self.get(&TZ)),
            share: self.get(&WALE_VERIFY_SAMPLE),
            older_than: self.get(&WALE_VERIFY_OLDER_THAN),
            rate: NonZeroU64::new(self.get(&WALE_VERIFY_RATE)),
        })
    }

    /// What is kept.
    pub(crate) fn retention(&self) -> Policy {
        Policy {
            backups: self.get(&WALE_RETAIN_BACKUPS),
            days: self.get(&WALE_RETAIN_DAYS),
            daily: self.get(&WALE_RETAIN_DAILY),
            weekly: self.get(&WALE_RETAIN_WEEKLY),
            monthly: self.get(&WALE_RETAIN_MONTHLY),
            // The schedule's: a backup of midnight belongs to the day that begins.
            zone: self.get(&TZ),
            wal: self.get(&WALE_RETAIN_WAL),
        }
    }
}

/// The settings of which each is a place for the archive.
pub(super) fn places() -> [&'static Setting<Option<String>>; 7] {
    [
        &WALE_FILE_PREFIX,
        &WALE_S3_PREFIX,
        &WALE_GS_PREFIX,
        &WALE_WABS_PREFIX,
        &WALE_SWIFT_PREFIX,
        &WALE_S3_BUCKET,
        &WALE_PREFIX,
    ]
}

fn place(reader: &mut Reader) -> Option<Place> {
    let mut candidates: Vec<Candidate> = Vec::new();
    let folder = reader.get(&WALG_STORAGE_PREFIX).unwrap_or_default();
    let folder = folder.trim_matches('/');
    for setting in places() {
        let Some((text, origin)) = reader.set(setting) else {
            continue;
        };
        let (mut text, origin) = (text.trim().to_owned(), origin.clone());
        if setting.name() == WALE_S3_BUCKET.name() {
            // Another way to write the prefix, which wins.
            if reader.set(&WALE_S3_PREFIX).is_some() {
                continue;
            }
            let path = reader.get(&WALE_S3_PATH).unwrap_or_default();
            text = format!("s3://{text}/{}", path.trim_start_matches('/'));
        }
        if !folder.is_empty() {
            text = format!("{}/{folder}", text.trim_end_matches('/'));
        }
        candidates.push(Candidate {
            name: setting.name(),
            text,
            origin,
        });
    }
    prefix::choose(&candidates, reader.several())
        .map_err(|mistake| reader.mistakes.push(mistake))
        .ok()
}

fn check_level(reader: &mut Reader) {
    let codec = reader.get(&WALE_COMPRESSION);
    if codec != Codec::Zstd && reader.get(&WALE_COMPRESSION_LEVEL).is_some() {
        let text = format!("{}: {codec} has no levels", WALE_COMPRESSION_LEVEL.name());
        let hint = "unset it, or use WALE_COMPRESSION=zstd";
        reader
            .mistakes
            .push(Mistake::new(Group::Archive, text).hint(hint));
    }
}

fn check_token(reader: &mut Reader) {
    if reader.get(&WALE_HTTP_TOKEN_FOR) == TokenFor::Reads && !reader.is_set(&WALE_HTTP_TOKEN) {
        let text = "WALE_HTTP_TOKEN_FOR is set, and WALE_HTTP_TOKEN is not";
        let hint = "set WALE_HTTP_TOKEN_FILE: without a token everything is open to everybody";
        reader
            .mistakes
            .push(Mistake::new(Group::Endpoint, text).hint(hint));
    }
}

fn check_tls(reader: &mut Reader) {
    let [certificate, key] = [&WALE_TLS_CERT_FILE, &WALE_TLS_KEY_FILE];
    // One that is set and wrong has its own mistake; only one that is not set is missing.
    let [there, missing] = match (reader.set(certificate), reader.set(key)) {
        (Some(_), None) => [certificate, key],
        (None, Some(_)) => [key, certificate],
        _ => return,
    };
    let text = format!("{} is not set, and {} is", missing.name(), there.name());
    reader
        .mistakes
        .push(Mistake::new(Group::Endpoint, text).hint("set both for TLS, or neither"));
}
