//! The fault battery on Swift: a store that fails, lies, garbles, refuses, or forgets its tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wale_testkit::s3::{Action, Answer, BUCKET, Fault, FaultProxy, Kind, Seen};
use wale_testkit::swift::{Role, SwiftServer};
use wale_testkit::{Sandbox, StoreServer, wait_until};

use crate::s3_stage::PATH;
use crate::store_faults::refuse_deletion;
use crate::store_trust::assert_certificates_are_proved;
use crate::support::WALE;
use crate::swift_stage::SwiftStage;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn fault_22_and_25_in_swift_failures_and_lost_replies_end_in_one_object_and_success() {
    let Some(swift) = SwiftStage::start("swift-22", |options| options) else {
        return;
    };
    swift.hold_archiver();
    let page =
        |status| Answer::new(status, "<html><body>Bad Gateway").header("Content-Type", "text/html");
    swift.assert_failures_pass([500, 502, 503, 498, 429].map(page));
    swift.assert_lost_replies_are_made_good();
}

#[test]
fn fault_23_swift_asks_to_slow_down_is_not_stormed_and_archiving_resumes() {
    let Some(swift) = SwiftStage::start("swift-23", |options| options) else {
        return;
    };
    let slowly = Answer::new(498, "Slow down").header("X-Trans-Id", "tx0");
    swift.assert_slow_down_is_not_stormed(slowly);
}

#[test]
fn fault_26_swift_goes_silent_and_is_asked_again() {
    let Some(swift) = SwiftStage::start("swift-26", |options| options) else {
        return;
    };
    swift.assert_silence_is_cut_short();
}

#[test]
fn fault_27_and_28_in_swift_garbled_bytes_are_never_acknowledged_nor_delivered() {
    // Every fetch reads the object: what was fetched ahead would be delivered from memory, and is whole.
    let settings = |options: wale_testkit::SidecarOptions| {
        options
            .set("WALE_FETCH_PREFETCH", "0")
            .set("WALE_FETCH_DEADLINE", "5s")
    };
    let Some(swift) = SwiftStage::start("swift-27", settings) else {
        return;
    };
    swift.hold_archiver();
    // On the way up the store refuses them, and they are sent again.
    swift.assert_garbled_uploads_are_sent_again();
    // A server that does not compare: what it stored is compared with its own digest, taken back, and sent again.
    let segment = swift.segment();
    for action in [Action::garble_upload(), Action::StripHeader("etag")] {
        let fault = Fault::on(&[Kind::Put]).key(&segment).times(2);
        swift.proxy.fault(fault, action);
    }
    assert_eq!(swift.push(&segment), 200);
    swift.assert_stored(&segment);

    swift.proxy.clear();
    swift.assert_garbled_replies_are_not_delivered(&segment);
    swift.assert_damage_is_not_delivered(&segment);
}

#[test]
fn fault_29_in_swift_a_listing_that_lags_behind_overwrites_nothing_and_proves_nothing() {
    let Some(mut swift) = SwiftStage::start("swift-29", |options| options) else {
        return;
    };
    swift.hold_archiver();
    let segment = swift.segment();
    assert_eq!(swift.push(&segment), 200);
    let bare = segment.clone();
    let hide = Action::EditReply(std::sync::Arc::new(move |body| {
        let entries: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap_or_default();
        let kept: Vec<_> = entries
            .into_iter()
            .filter(|entry| !entry["name"].as_str().unwrap_or_default().contains(&bare))
            .collect();
        *body = serde_json::to_vec(&kept).unwrap();
    }));
    swift.proxy.fault(Fault::on(&[Kind::List]), hide);
    swift.assert_stored(&segment);
    let absent = swift.stage.sidecar.get(&format!("/wal-absent/{segment}"));
    assert_ne!(absent.status, 200, "{}", absent.text());
    swift.restart();
    assert_eq!(swift.push(&segment), 200, "the same bytes");
    assert_eq!(swift.created(&segment), 1);
    // Other bytes under the same name are refused, also when nobody looks before the write.
    let local = swift.stage.cluster.wal.join(&segment);
    let good = std::fs::read(&local).unwrap();
    let mut other = good.clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    std::fs::write(&local, &other).unwrap();
    let looks = Fault::on(&[Kind::Head]).key(&segment).once();
    swift.proxy.fault(
        looks,
        Action::Answer(Answer::new(404, "").header("X-Trans-Id", "tx0")),
    );
    assert_eq!(swift.push(&segment), 409);
    std::fs::write(&local, &good).unwrap();
    swift.proxy.clear();
    assert_eq!(swift.push(&segment), 200);
    swift.assert_stored(&segment);
}

#[test]
fn fault_24_and_31_in_swift_tokens_are_renewed_in_mid_backup_and_403_is_not_absence() {
    let settings = |options: wale_testkit::SidecarOptions| {
        options
            .set("WALE_MEMORY", "64MiB")
            .set("WALE_FETCH_DEADLINE", "5s")
    };
    let Some(swift) = SwiftStage::start("swift-31", settings) else {
        return;
    };
    swift.make_noise();
    swift.hold_archiver();
    // A segment of the backup stalls, and meanwhile every token is forgotten.
    let fault = || Fault::on(&[Kind::Put]).key("wale_segments").after(1).once();
    swift
        .proxy
        .fault(fault(), Action::Delay(Duration::from_secs(2)));
    let logins = swift.proxy.count(Kind::Get, "auth/v1.0");
    let reply = swift.stage.sidecar.get("/backup-push?wait=false");
    assert_eq!(reply.status, 202, "{}", reply.text());
    wait_until("a second segment", LONG, || {
        (swift.proxy.count(Kind::Put, "wale_segments") >= 2).then_some(())
    });
    swift.server.forget_tokens();
    swift.release_archiver();
    wait_until("the backup", LONG, || {
        let reply = swift.stage.sidecar.get("/backups");
        (reply.status == 200 && reply.json().as_array()?.len() == 1).then_some(())
    });
    assert!(swift.proxy.count(Kind::Get, "auth/v1.0") > logins);
    swift.hold_archiver();

    let segment = swift.segment();
    assert_eq!(swift.push(&segment), 200);
    for answer in [
        Answer::new(403, ""),
        Answer::new(401, ""),
        Answer::new(404, "<h1>nginx</h1>"),
    ] {
        swift.proxy.fault(Fault::any(), Action::Answer(answer));
        let reply = swift.stage.sidecar.get(&format!("/wal/{segment}"));
        assert!([500, 503].contains(&reply.status), "{}", reply.text());
        let absent = swift
            .stage
            .sidecar
            .get("/wal-absent/0000000100000000000000FF");
        assert!([500, 503].contains(&absent.status), "{}", absent.text());
        let next = swift.segment();
        assert_ne!(swift.push(&next), 200);
        swift.proxy.clear();
        assert_eq!(
            swift.push(&next),
            200,
            "by itself, once it is allowed again"
        );
    }
    swift.assert_stored(&segment);
}

#[test]
fn fault_33_of_swift_a_certificate_that_proves_nothing_is_refused_and_tls_is_never_given_up() {
    let sandbox = Sandbox::new("swift-33");
    let Some(server) = SwiftServer::start(&sandbox) else {
        wale_testkit::skip("swift-33", "Swift is not installed: run scripts/setup.sh");
        return;
    };
    // The login and the account are behind the same certificate. This login does not know that there is TLS before it.
    let settings = |authority: &str, ca: &str| {
        let mut settings = SwiftServer::settings_of(Role::Writer, 0, "x");
        settings.retain(|(name, _)| name != "SWIFT_AUTHURL");
        let account = format!("https://{authority}{}", SwiftServer::ACCOUNT);
        for (name, value) in [
            ("SWIFT_AUTHURL", format!("https://{authority}/auth/v1.0")),
            ("SWIFT_STORAGE_URL", account),
            ("WALE_SWIFT_CA_FILE", ca.to_owned()),
        ] {
            settings.push((name.to_owned(), value));
        }
        settings
    };
    let key = Role::Writer.login().1;
    assert_certificates_are_proved(&sandbox, &server, key, settings);
}

/// Keeps this segment out of the deletion of many, and has the answer say that it was refused.
fn refuse_one_of_many(proxy: &FaultProxy, segment: &str) {
    let is_asked = Arc::new(AtomicBool::new(false));
    let (kept, asked) = (segment.to_owned(), Arc::clone(&is_asked));
    let without = Action::EditUpload(Arc::new(move |body| {
        let text = String::from_utf8_lossy(body).into_owned();
        let (held, rest): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.contains(&kept));
        asked.store(!held.is_empty(), Ordering::SeqCst);
        *body = rest.join("\n").into_bytes();
    }));
    let kept = format!("/{BUCKET}//{PATH}/wal_005/{segment}.zst");
    let told = Action::EditReply(Arc::new(move |body| {
        if is_asked.swap(false, Ordering::SeqCst) {
            let mut told: serde_json::Value = serde_json::from_slice(body).unwrap();
            told["Response Status"] = "400 Bad Request".into();
            told["Errors"] = serde_json::json!([[&kept, "403 Forbidden"]]);
            *body = told.to_string().into_bytes();
        }
    }));
    for action in [without, told] {
        proxy.fault(Fault::on(&[Kind::DeleteMany]), action);
    }
}

#[test]
fn fault_34_what_swift_will_not_delete_is_told_and_the_rest_goes() {
    let Some(swift) = SwiftStage::start("swift-34", |options| options) else {
        return;
    };
    // Swift has no lock of an object. A filter of the operator's may refuse one, of many in a request …
    swift.assert_what_is_retained_is_told(refuse_one_of_many, &["AccessDenied", "403 Forbidden"]);
    // … and where each has a request of its own.
    let refusal = |words: &str| {
        let page = format!("<html><h1>Forbidden</h1><p>{words}</p></html>");
        Answer::new(403, &page).header("X-Trans-Id", "tx0")
    };
    swift.assert_what_is_retained_is_told(
        |proxy, name| {
            let many = Fault::on(&[Kind::DeleteMany]);
            proxy.fault(many, Action::Answer(refusal("Not many.")));
            refuse_deletion(proxy, name, &refusal("It is held."));
        },
        &["AccessDenied", "It is held."],
    );

    // Its own way is the container's list of who may write: taken away, nothing may be deleted.
    swift.stage.backup();
    let list = |name| {
        let headers = [("X-Container-Write", name)];
        let reply = swift
            .server
            .send("POST", &format!("/{BUCKET}"), &headers, b"");
        assert_eq!(reply.status, 204, "{}", reply.text());
    };
    swift.hold_archiver();
    let before = swift.server.objects();
    list("test:nobody");
    let line = ["delete", "--confirm", "retain", "1"];
    let told = swift.stage.sidecar.verb(WALE, "wale", &line);
    assert_eq!(told.code(), 77, "{}", told.stderr);
    assert!(told.stderr.contains("denied"), "{}", told.stderr);
    assert_eq!(swift.server.objects(), before, "nothing has begun");
    list("test:writer");
    let told = swift.stage.sidecar.verb(WALE, "wale", &line);
    assert_eq!(told.code(), 0, "{}", told.stderr);
    assert_eq!(swift.server.objects_with("sentinel").len(), 1);
}

#[test]
fn fault_35_what_queued_up_behind_a_partition_is_stored_in_swift_in_order_once_it_heals() {
    let settings = |options: wale_testkit::SidecarOptions| options.set("WALE_FETCH_DEADLINE", "1s");
    let Some(swift) = SwiftStage::start("swift-35", settings) else {
        return;
    };
    swift.assert_a_queue_is_stored_in_order(40);
}

#[test]
fn fault_36_beside_swift_a_database_that_is_out_of_reach_is_told_and_wal_is_kept() {
    let Some(mut swift) = SwiftStage::start("swift-36", |options| options) else {
        return;
    };
    swift.assert_a_database_out_of_reach_is_told();
}

#[test]
fn fault_66_in_swift_nothing_is_acknowledged_that_somebody_else_says_was_stored() {
    let settings = |options: wale_testkit::SidecarOptions| {
        options
            .set("WALE_MEMORY", "64MiB")
            .set("WALE_FETCH_DEADLINE", "1s")
    };
    let Some(swift) = SwiftStage::start("swift-66", settings) else {
        return;
    };
    swift.make_noise();
    swift.hold_archiver();
    // A captive portal answers in place of the store.
    let portal = Answer::new(200, "<html><title>Request Rejected</title></html>")
        .header("Content-Type", "text/html");
    let segment = swift.segment();
    let fault = Fault::on(&[Kind::Put]).key(&segment);
    swift.proxy.fault(fault, Action::Answer(portal.clone()));
    assert_eq!(swift.push(&segment), 503);
    assert!(swift.server.objects_with(&segment).is_empty());
    swift.proxy.clear();
    assert_eq!(swift.push(&segment), 200);
    swift.assert_stored(&segment);
    swift.release_archiver();

    // The same befalls the sentinel of a backup, and the list of segments of a large object: neither exists then.
    let is_list = |seen: &Seen| seen.query.contains("multipart-manifest=put");
    for fault in [
        Fault::on(&[Kind::Put]).key("sentinel"),
        Fault::on(&[Kind::Put]).when(is_list),
    ] {
        swift.proxy.fault(fault, Action::Answer(portal.clone()));
        let reply = swift.stage.sidecar.get("/backup-push");
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert!(swift.server.objects_with("sentinel").is_empty());
        swift.proxy.clear();
    }
    let reply = swift.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let list = swift.stage.sidecar.verb(WALE, "wale", &["backup-list"]);
    assert_eq!(list.code(), 0, "{}", list.stderr);
}
