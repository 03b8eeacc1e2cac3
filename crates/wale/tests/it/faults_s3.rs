//! The fault battery on S3, rows 22 to 30 and 35 to 36: a store that fails, lies, garbles or is out of reach.

use std::time::{Duration, Instant};

use wale_testkit::s3::{Action, Answer, Fault, FaultProxy, Kind, Partition, S3Server};
use wale_testkit::{Sidecar, get, wait_until};

use crate::s3_stage::S3Stage;
use crate::support::WALE;

const LONG: Duration = Duration::from_secs(60);

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
    let cluster = &s3.stage.cluster;
    s3.segment();
    cluster.wait_archived();
    let answer = Answer::error(503, "SlowDown", "Please reduce your request rate.");
    s3.proxy.fault(Fault::any(), Action::Answer(answer));
    s3.proxy.forget();
    let segments: Vec<String> = (0..5).map(|_| s3.segment()).collect();
    // The outage lasts until a push has been given up; in ten minutes there would be some twenty of them.
    let start = Instant::now();
    assert_eq!(s3.push(&segments[0]), 503, "PostgreSQL keeps the segment");
    let outage = start.elapsed();
    assert!(
        outage < Duration::from_secs(60),
        "it was told after {outage:?}"
    );
    // Pauses of at most 0.1, 0.2 … 5 s, half of that on average: within 30 s some fifteen attempts of one request, twenty
    // at most. A push looks once, by one listing, and three pushes run: the one that was asked for, and
    // two ahead of their requests.
    let requests = s3.proxy.requests().len();
    assert!(
        (20..420).contains(&requests),
        "{requests} requests in {outage:?}"
    );
    assert!(s3.metric("wale_wal_ready_files").unwrap() >= 5.0);
    let ready = s3.stage.sidecar.get("/readyz");
    assert_eq!(ready.status, 503, "{}", ready.text());
    assert!(ready.text().contains("wal-push:"), "{}", ready.text());
    s3.proxy.clear();
    // PostgreSQL rests for a minute after three failures, so somebody else asks for the first segments.
    for segment in &segments {
        assert_eq!(s3.push(segment), 200);
        s3.assert_stored(segment);
    }
    assert_eq!(s3.stage.sidecar.get("/readyz").status, 200);
    cluster.sql("select pg_reload_conf()");
    cluster.wait_archived();
    wait_until("no backlog", LONG, || {
        (s3.metric("wale_wal_ready_files")? == 0.0).then_some(())
    });
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
    let cluster = &s3.stage.cluster;
    cluster.wait_archived();
    s3.proxy.partition(Partition::Refuse);
    let mut segments: Vec<String> = (0..queue / 2).map(|_| cluster.switch_wal()).collect();
    assert_eq!(s3.push(&segments[0]), 503);
    s3.proxy.partition(Partition::Silence);
    segments.extend((queue / 2..queue).map(|_| cluster.switch_wal()));
    for segment in &segments {
        assert!(cluster.wal.join(segment).exists(), "PostgreSQL keeps it");
    }
    let waiting = s3.metric("wale_wal_ready_files").unwrap();
    #[expect(clippy::cast_precision_loss, reason = "some hundred files")]
    let expected = queue as f64;
    assert!(waiting >= expected, "{waiting} of {queue}");
    s3.proxy.forget();
    s3.proxy.heal();
    let limit = LONG + Duration::from_millis(300) * u32::try_from(queue).unwrap();
    wait_until("an empty queue", limit, || {
        (s3.metric("wale_wal_ready_files")? == 0.0).then_some(())
    });
    // In order: no segment was stored before one that PostgreSQL finished earlier.
    let mut stored: Vec<String> = Vec::new();
    let mut puts = Vec::new();
    for seen in s3.proxy.requests() {
        let name = seen.key.rsplit('/').next().unwrap_or_default();
        let name = name.split('.').next().unwrap_or_default().to_owned();
        if seen.kind == Kind::Put {
            puts.push((name.clone(), seen.status));
        }
        if seen.kind == Kind::Put && seen.status == 200 && segments.contains(&name) {
            stored.push(name);
        }
    }
    assert_eq!(stored, segments, "each once, in order: {puts:?}");
    for segment in segments.iter().step_by(10) {
        assert_eq!(s3.server.objects_with(segment).len(), 1, "{segment}");
    }
    assert_eq!(s3.stage.sidecar.get("/readyz").status, 200);
}

#[test]
fn fault_36_a_partition_between_sidecar_and_database_is_told_and_wal_is_kept() {
    let mut s3 = S3Stage::moto("s3-36");
    let cluster = &s3.stage.cluster;
    // Everything between the two goes through proxies: PostgreSQL's requests, and the sidecar's SQL.
    let (requests, sql) = (
        FaultProxy::bytes(s3.stage.sidecar.port),
        FaultProxy::bytes(cluster.port),
    );
    s3.stage.options = s3
        .stage
        .options
        .clone()
        .set("PGPORT", &sql.port().to_string());
    s3.stage.sidecar.kill();
    s3.stage.sidecar = Sidecar::start(&s3.stage.sandbox, WALE, &s3.stage.options);
    s3.stage.sidecar.wait_ready(LONG);
    let command = format!(
        "wget -q -t 1 http://127.0.0.1:{}/wal-push/%f -O -",
        requests.port()
    );
    s3.set_archive_command(&command);
    s3.stage.backup();
    requests.partition(Partition::Refuse);
    sql.partition(Partition::Refuse);
    let segment = s3.segment();
    let reply = s3.stage.sidecar.get("/backup-push");
    assert_eq!(reply.status, 503, "{}", reply.text());
    // Readiness follows after three checks, a minute apart (`contact.rs`); metrics show it at once.
    let metrics = s3.stage.sidecar.get("/metrics").text();
    let told = metrics
        .lines()
        .any(|line| line.contains("outcome=\"server-down\"") && line.ends_with(" 1"));
    assert!(told, "{metrics}");
    let failed = wait_until("PostgreSQL to be told", LONG, || {
        let cluster = &s3.stage.cluster;
        let failed = cluster.sql("select failed_count from pg_stat_archiver");
        (failed != "0").then_some(failed)
    });
    assert_ne!(failed, "0");
    assert!(s3.stage.cluster.wal.join(&segment).exists());
    assert_eq!(
        get(s3.stage.sidecar.port, "/metrics").unwrap().status,
        200,
        "metrics go on"
    );
    requests.heal();
    sql.heal();
    s3.stage.cluster.wait_archived();
    s3.assert_stored(&segment);
    assert_eq!(s3.stage.sidecar.get("/backup-push").status, 200);
    assert_eq!(s3.stage.sidecar.get("/readyz").status, 200);
}
