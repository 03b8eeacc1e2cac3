//! Amazon's shared files of credentials and settings: circles end, and keys that come out can stand in a header.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wale_storage::{Misconfiguration, ObjectKey, ProfileSource, Secret, ServerReply, StoreError};

#[path = "stand_ins/credentials.rs"]
mod credentials;
#[path = "stand_ins/scratch.rs"]
mod scratch;
#[path = "stand_ins/http.rs"]
mod http;

use http::failure::Asked;
use http::transport::Transport;

fuzz_target!(|data: &[u8]| {
    let (credentials_file, config_file) = (scratch::folder().join("credentials"), scratch::folder().join("config"));
    let text = String::from_utf8_lossy(data);
    // The one file before the line, the other behind it.
    let (one, other) = text.split_once("\n%\n").unwrap_or((&text, ""));
    std::fs::write(&credentials_file, one).expect("the file is written");
    std::fs::write(&config_file, other).expect("the file is written");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for name in ["default", "backup"] {
        let source = ProfileSource {
            name: name.to_owned(),
            credentials_file: credentials_file.clone(),
            config_file: config_file.clone(),
            sts_endpoint: None,
        };
        let granted = credentials::grant(&source, &Transport);
        match runtime.block_on(granted) {
            Ok(granted) => {
                let keys = granted.credentials;
                let secret = keys.secret_access_key.expose().to_owned();
                assert!([&keys.access_key_id, &secret].iter().all(|text| !text.is_empty()
                    && text.bytes().all(|byte| byte.is_ascii_graphic())));
            }
            Err(failure) => {
                let error = failure.into_store_error("s3://bucket", Asked::Bucket);
                assert!(matches!(
                    error,
                    StoreError::Misconfigured { problem: Misconfiguration::NoCredentials, .. }
                ));
            }
        }
    }
    let _ = (ObjectKey::new("x"), ServerReply::default(), Secret::new("x"));
});
