//! An error's hint with the names of the settings and flags that its remedy means. The rooms below do not know them.

use wale_ops::{Encryption, OpError, Remedy};

/// What of `WALE_MEMORY` is not for buffers, in MiB: it bounds the process, and the rooms below, whose errors say how much they
/// want, know of buffers only. Code and constants that are mapped, 18 of the 30 of the program; stacks of up to 40 threads, 64 KiB of each
/// are touched, 3; catalogs, connections, and what the allocator keeps, 11. `it/memory_bound.rs` holds the sum.
pub const BESIDE_BUFFERS_MIB: u64 = 32;

/// What to do, in the words of the command and of the sidecar: the hint, and after it in parentheses what is to be set.
#[must_use]
pub fn advice(error: &OpError) -> Option<String> {
    let hint = error.hint.as_deref();
    let Some(remedy) = error.remedy.as_deref() else {
        return hint.map(str::to_owned);
    };
    let words = words(remedy);
    Some(match hint {
        Some(hint) => format!("{hint} ({words})"),
        None => words,
    })
}

fn words(remedy: &Remedy) -> String {
    match remedy {
        Remedy::Memory { mib: Some(mib) } => {
            format!("WALE_MEMORY={}MiB or more", mib + BESIDE_BUFFERS_MIB)
        }
        Remedy::Memory { mib: None } => "WALE_MEMORY".to_owned(),
        Remedy::MemoryOrWorkers { mib } => {
            let mib = mib + BESIDE_BUFFERS_MIB;
            format!("WALE_MEMORY={mib}MiB or more, or a lower WALE_RESTORE_WORKERS")
        }
        Remedy::RestoreAsStandby => "a standby: WALE_RESTORE_AS=standby".to_owned(),
        Remedy::TablespacePlace { oid, place } => {
            let place = place.as_deref().unwrap_or("/path");
            format!("--tablespace-mapping {oid}={place}, or WALE_TABLESPACE_MAPPING")
        }
        Remedy::KeepFiles => "wale restore --delta".to_owned(),
        Remedy::DiscardWal => "--discard-wal".to_owned(),
        Remedy::MissingLibrariesWarn => {
            "WALE_RESTORE_LIBRARIES=warn, or --restore-libraries warn".to_owned()
        }
        Remedy::ConfigurationFolder => "PGCONF_BACKUP_DIR".to_owned(),
        Remedy::SweepGrace => "WALE_SWEEP_GRACE".to_owned(),
        Remedy::BackupRole => "WALE_BACKUP_ROLE".to_owned(),
        Remedy::StoreChecksum => "WALE_S3_CHECKSUM=md5, in Azure WALE_WABS_CHECKSUM=md5".to_owned(),
        Remedy::ReadingKey { method } => reading_key(*method).to_owned(),
        Remedy::OneArchive { number } => format!("WALE_ARCHIVE={number}"),
        Remedy::EncryptionChange { word } => format!("WALE_ENCRYPTION_CHANGE={word}"),
        Remedy::StoreNames => "WALE_GS_NAMES, in Swift WALE_SWIFT_NAMES".to_owned(),
    }
}

/// The settings that hold keys to read with.
fn reading_key(method: Option<Encryption>) -> &'static str {
    match method {
        Some(Encryption::Age) => "WALE_AGE_IDENTITY_FILE",
        Some(Encryption::OpenPgp) => {
            "WALE_GPG_SECRET_KEY_FILE with WALG_PGP_KEY_PASSPHRASE_FILE, or WALG_PGP_KEY_PATH"
        }
        Some(Encryption::Libsodium) => {
            "WALG_LIBSODIUM_KEY_PATH, or WALE_LIBSODIUM_OLD_KEYS for one that nothing is written with any more"
        }
        Some(Encryption::None) | None => {
            "WALG_LIBSODIUM_KEY_PATH with WALG_LIBSODIUM_KEY_TRANSFORM, WALE_AGE_IDENTITY_FILE, WALE_GPG_SECRET_KEY_FILE"
        }
    }
}

#[cfg(test)]
mod tests {
    use wale_ops::Kind;

    use super::*;

    #[test]
    fn the_words_stand_after_the_hint() {
        let error = || OpError::new(Kind::Configuration, "x");
        assert_eq!(advice(&error()), None);
        assert_eq!(advice(&error().hint("do it")).unwrap(), "do it");
        let memory = Remedy::Memory { mib: Some(306) };
        let both = error().hint("raise it").remedy(memory);
        assert_eq!(
            advice(&both).unwrap(),
            "raise it (WALE_MEMORY=338MiB or more)"
        );
        let alone = error().remedy(Remedy::BackupRole);
        assert_eq!(advice(&alone).unwrap(), "WALE_BACKUP_ROLE");
        assert_eq!(advice(&alone.duplicate()).unwrap(), "WALE_BACKUP_ROLE");
    }

    #[test]
    fn a_place_that_is_known_is_named() {
        let place = |place| {
            let remedy = Remedy::TablespacePlace { oid: 7, place };
            advice(&OpError::new(Kind::NotEmpty, "x").remedy(remedy)).unwrap()
        };
        let rest = ", or WALE_TABLESPACE_MAPPING";
        assert_eq!(place(None), format!("--tablespace-mapping 7=/path{rest}"));
        let known = place(Some("/t".to_owned()));
        assert_eq!(known, format!("--tablespace-mapping 7=/t{rest}"));
    }
}
