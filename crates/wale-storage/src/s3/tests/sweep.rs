//! What killed processes have left.

use super::*;

const DAY: Duration = Duration::from_hours(24);

fn text(text: impl Into<String>) -> Reply {
    Reply::Answer(200, Vec::new(), text.into().into_bytes())
}

/// A listing of an unfinished upload of `k` that began long ago; `rest` ends it.
fn uploads(rest: &str) -> Reply {
    text(format!(
        "<ListMultipartUploadsResult><Upload><Key>k</Key><UploadId>u</UploadId>\
         <Initiated>2010-01-01T00:00:00Z</Initiated></Upload>{rest}</ListMultipartUploadsResult>"
    ))
}

#[tokio::test]
async fn fault_95_an_upload_of_somebody_elses_name_stays() {
    let server = Server::start(|seen| match seen.target.as_str() {
        target if target.contains("uploads=") => {
            let of = |key| {
                format!(
                    "<Upload><Key>{key}</Key><UploadId>u</UploadId><Initiated>2010-01-01T00:00:00Z</Initiated></Upload>"
                )
            };
            let uploads = ["another/layer", "ours", "wale_probe_1"].map(of).concat();
            text(format!(
                "<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>"
            ))
        }
        target if target.contains("uploadId=u") && seen.method == "GET" => {
            text("<ListPartsResult/>")
        }
        target if target.starts_with("/b?") => bucket(),
        _ => answer(204),
    });
    let ours = |name: &str| !name.starts_with("another");
    let swept = server.store().discard_unfinished(DAY, ours).await;
    assert_eq!(swept.expect("sweeps"), 2);
    let asked = server.asked();
    assert!(
        !asked.iter().any(|asked| asked.contains("another/layer")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn parts_are_asked_for_with_the_customers_key() {
    let server = Server::start(|seen| match seen.target.as_str() {
        target if target.contains("uploads=") => uploads(""),
        target if target.starts_with("/b/k?uploadId=u") && seen.method == "GET" => {
            text("<ListPartsResult/>")
        }
        target if target.starts_with("/b?") => bucket(),
        _ => answer(204),
    });
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let options = S3Options {
        encryption: ServerEncryption::CustomerKey(Secret::new(key)),
        ..server.options()
    };
    let store = S3Store::open(&options).expect("opens");
    assert_eq!(
        store
            .discard_unfinished(DAY, |_| true)
            .await
            .expect("sweeps"),
        1
    );
    let seen = server.seen();
    let parts = seen.iter().find(|seen| seen.target == "/b/k?uploadId=u");
    let sent = parts
        .expect("its parts")
        .header("x-amz-server-side-encryption-customer-key");
    assert_eq!(sent.as_deref(), Some(key));
}

#[tokio::test]
async fn an_upload_of_which_not_all_parts_are_shown_stays() {
    for (rest, stays) in [
        ("<IsTruncated>false</IsTruncated>", false),
        ("<IsTruncated>true</IsTruncated>", true),
        (
            "<IsTruncated>true</IsTruncated><NextPartNumberMarker>0</NextPartNumberMarker>",
            true,
        ),
        (
            "<IsTruncated>true</IsTruncated><NextPartNumberMarker>7</NextPartNumberMarker>",
            true,
        ),
    ] {
        let server = Server::start(move |seen| match seen.target.as_str() {
            target if target.contains("uploads=") => uploads(""),
            target if target.contains("uploadId=u") && seen.method == "GET" => {
                text(format!("<ListPartsResult>{rest}</ListPartsResult>"))
            }
            target if target.starts_with("/b?") => bucket(),
            _ => answer(204),
        });
        let swept = server.store().discard_unfinished(DAY, |_| true).await;
        assert_eq!(swept.expect("sweeps"), u64::from(!stays), "{rest}");
    }
}

#[tokio::test]
async fn a_listing_of_uploads_that_does_not_go_on_has_an_end() {
    for markers in [
        "<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker>",
        "<NextKeyMarker>k</NextKeyMarker>",
    ] {
        let server = Server::start(move |seen| match seen.target.as_str() {
            target if target.contains("uploads=") => {
                uploads(&format!("<IsTruncated>true</IsTruncated>{markers}"))
            }
            target if target.contains("uploadId=u") && seen.method == "GET" => {
                text("<ListPartsResult/>")
            }
            _ => answer(204),
        });
        let error = server.store().discard_unfinished(DAY, |_| true).await;
        let error = error.expect_err("it goes round in a circle");
        assert!(error.to_string().contains("does not go on"), "{error}");
    }
}

#[tokio::test]
async fn what_a_killed_trial_left_is_swept() {
    let server = Server::start(|seen| match seen.target.as_str() {
        target if target.contains("uploads=") => text("<ListMultipartUploadsResult/>"),
        target if target.starts_with("/b?") => {
            assert!(target.contains("prefix=wale_probe_"), "{target}");
            let entries = [("a", 2010), ("b", 2099)].map(|(name, year)| {
                format!(
                    "<Contents><Key>wale_probe_{name}</Key><Size>4</Size>\
                     <LastModified>{year}-01-01T00:00:00Z</LastModified></Contents>"
                )
            });
            text(format!(
                "<ListBucketResult>{}</ListBucketResult>",
                entries.concat()
            ))
        }
        _ => answer(204),
    });
    assert_eq!(
        server
            .store()
            .discard_unfinished(DAY, |_| true)
            .await
            .expect("sweeps"),
        1
    );
    let seen = server.seen();
    let deleted: Vec<_> = seen.iter().filter(|s| s.method == "DELETE").collect();
    assert_eq!(deleted.len(), 1);
    assert_eq!(deleted[0].target, "/b/wale_probe_a");
}
