//! The fault battery on Swift: a store that fails, lies, garbles, refuses, or forgets its tokens.

use std::time::Duration;

use wale_testkit::s3::{Action, Answer, Fault, Kind, Seen};
use wale_testkit::{StoreServer, wait_until};

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
            .set("WALE_MEMORY", "32MiB")
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
fn fault_66_in_swift_nothing_is_acknowledged_that_somebody_else_says_was_stored() {
    let settings = |options: wale_testkit::SidecarOptions| {
        options
            .set("WALE_MEMORY", "32MiB")
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
