//! The fault battery on S3, rows 22 to 30 and 35 to 36: a store that fails, lies, garbles or is out of reach.

use wale_testkit::s3::{Action, Answer, Fault, Kind, S3Server};

use crate::s3_stage::S3Stage;

#[test]
fn fault_22_and_25_failures_and_lost_replies_end_in_one_object_and_success() {
    let s3 = S3Stage::moto("s3-22");
    s3.hold_archiver();
    let answers = [
        (500, "InternalError"),
        (502, ""),
        (503, "ServiceUnavailable"),
    ];
    s3.assert_failures_pass(answers.map(|(status, code)| Answer::error(status, code, "try again")));
    // A gateway that answers with a page for people.
    let segment = s3.segment();
    let page = Answer::new(502, "<html><body>Bad Gateway").header("Content-Type", "text/html");
    let fault = Fault::on(&[Kind::Put]).key(&segment).once();
    s3.proxy.fault(fault, Action::Answer(page));
    assert_eq!(s3.push(&segment), 200);
    s3.assert_stored(&segment);

    s3.assert_lost_replies_are_made_good();
}

#[test]
fn fault_23_a_store_that_asks_to_slow_down_is_not_stormed_and_archiving_resumes() {
    let s3 = S3Stage::moto("s3-23");
    let slowly = Answer::error(503, "SlowDown", "Please reduce your request rate.");
    s3.assert_slow_down_is_not_stormed(slowly);
}

#[test]
fn fault_26_a_store_that_goes_silent_is_asked_again() {
    S3Stage::moto("s3-26").assert_silence_is_cut_short();
}

#[test]
fn fault_27_and_28_garbled_bytes_are_never_acknowledged_nor_delivered() {
    // Every fetch reads the object: what was fetched ahead would be delivered from memory, and is whole.
    let s3 = S3Stage::with(
        "s3-27",
        |sandbox| S3Server::s3s(sandbox, None),
        |options| {
            options
                .set("WALE_FETCH_PREFETCH", "0")
                .set("WALE_FETCH_DEADLINE", "2s")
        },
    );
    s3.hold_archiver();
    // On the way up the store refuses them, and they are sent again.
    s3.assert_garbled_uploads_are_sent_again();
    let segment = s3.segment();
    assert_eq!(s3.push(&segment), 200);
    s3.assert_garbled_replies_are_not_delivered(&segment);
    s3.assert_damage_is_not_delivered(&segment);
}

#[test]
fn fault_29_and_30_a_stale_list_or_a_store_without_conditions_overwrites_nothing() {
    let mut s3 = S3Stage::moto("s3-29");
    s3.hold_archiver();
    let segment = s3.segment();
    assert_eq!(s3.push(&segment), 200);
    // The sidecar must not know from memory.
    s3.restart();
    s3.proxy
        .fault(Fault::on(&[Kind::List]), Action::hide_from_list(&segment));
    s3.assert_stored(&segment);
    let absent = s3.stage.sidecar.get(&format!("/wal-absent/{segment}"));
    assert_ne!(absent.status, 200, "{}", absent.text());
    s3.assert_conflict_is_refused(&segment);
    s3.proxy.clear();

    // A store that ignores the condition is found out before anything is written.
    s3.proxy
        .fault(Fault::any(), Action::StripHeader("if-none-match"));
    s3.restart();
    s3.assert_conflict_is_refused(&segment);
    let next = s3.segment();
    assert_eq!(s3.push(&next), 200);
    s3.assert_stored(&next);
    s3.assert_conflict_is_refused(&next);
    let log = s3.stage.sidecar.log_text();
    let warned = log.lines().any(|line| {
        line.contains("WARN") && (line.contains("condition") || line.contains("If-None-Match"))
    });
    assert!(warned, "the operator is told: {log}");
}

/// Row 35 with fewer and smaller segments: `WALE_TEST_QUEUE=500` is the row to the letter.
#[test]
fn fault_35_what_queued_up_behind_a_partition_is_stored_in_order_once_it_heals() {
    let queue: usize = std::env::var("WALE_TEST_QUEUE").map_or(60, |n| n.parse().unwrap());
    let s3 = S3Stage::with(
        "s3-35",
        |sandbox| S3Server::s3s(sandbox, None),
        |options| options.set("WALE_FETCH_DEADLINE", "1s"),
    );
    s3.assert_a_queue_is_stored_in_order(queue);
}

#[test]
fn fault_36_a_partition_between_sidecar_and_database_is_told_and_wal_is_kept() {
    let mut s3 = S3Stage::moto("s3-36");
    s3.assert_a_database_out_of_reach_is_told();
}
