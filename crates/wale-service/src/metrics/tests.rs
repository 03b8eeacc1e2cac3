//! The series, their names, and both formats.

use wale_format::BackupName;
use wale_ops::recoverable::{Growth, Recoverable, Window};
use wale_ops::wal_volume::Trend;
use wale_ops::{RehearsalRecord, Rehearsals, Renewal};

use super::*;

#[test]
fn every_series_appears_and_hits_are_not_counted_twice() {
    let metrics = Metrics::new("1.2.3");
    let at = DateTime::from_timestamp(1_700_000_000, 500_000_000).unwrap();
    metrics.pushed("stored", Duration::from_millis(20), at);
    metrics.push_failed("storage-unavailable");
    metrics.fetched("found", 16);
    metrics.absence("proven");
    metrics.backup_done(100, 50, Duration::from_secs(3), at);
    metrics.backup_not_done("skipped-overlap");
    metrics.request("/ping", 200);
    metrics.gap(3);
    metrics.lost_history(true);
    metrics.holdings(&holdings(at));
    metrics.verified(Some(at), 2);
    let scrape = scraped(at);
    metrics.text(&scrape, Dialect::OpenMetrics);
    let text = metrics.text(&scrape, Dialect::OpenMetrics);
    let lines = [
        "wale_wal_pushes_total{outcome=\"stored\"} 1",
        "wale_wal_pushes_total{outcome=\"storage-unavailable\"} 1",
        "wale_wal_push_plain_bytes_total 16",
        "wale_wal_push_seconds_count 1",
        "wale_wal_last_push_timestamp_seconds 1700000000.5",
        "wale_wal_look_ahead_hits_total 5",
        "wale_wal_ready_files -1",
        "wale_wal_gap_segments 3",
        "wale_wal_history_lost 1",
        "wale_archive_backups 2",
        "wale_archive_objects 9",
        "wale_archive_bytes 1024",
        "wale_recoverable_from_timestamp_seconds 1700000000.5",
        "wale_recoverable_to_timestamp_seconds 1700003600.5",
        "wale_last_verified_timestamp_seconds 1700000000.5",
        "wale_verify_damaged_objects 2",
        "wale_last_rehearsal_timestamp_seconds 1700000000.5",
        "wale_last_rehearsal_ok 0.0",
        "wale_wal_volume_free_bytes 5368709120.0",
        "wale_wal_volume_full_in_seconds 18000.0",
        "wale_wal_fetches_total{outcome=\"found\"} 1",
        "wale_wal_absences_total{outcome=\"proven\"} 1",
        "wale_backups_total{outcome=\"ok\"} 1",
        "wale_backups_total{outcome=\"skipped-overlap\"} 1",
        "wale_backup_last_duration_seconds 3.0",
        "wale_backup_running 1",
        "wale_phase{phase=\"ready\"} 1",
        "wale_phase{phase=\"degraded\"} 0",
        "wale_http_requests_total{route=\"/ping\",status=\"200\"} 1",
        "wale_tls_handshake_failures_total 0",
        "wale_tls_certificate_expiry_timestamp_seconds 1700000000.5",
        "wale_credentials_expiry_timestamp_seconds{archive=\"2\",renewed_by=\"nobody\"} 1700000000.0",
        "wale_build_info{version=\"1.2.3\"} 1",
    ];
    for line in lines {
        let is_there = text.lines().any(|found| found == line);
        assert!(is_there, "no line {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

/// What a scrape reads, with a number in each place.
fn scraped(at: DateTime<Utc>) -> Scrape {
    let pusher = PusherStats {
        look_ahead_hits: 5,
        bytes_plain: 16,
        uploads: 1,
        ..PusherStats::default()
    };
    Scrape {
        phase: Phase::Ready,
        connections: 2,
        pusher,
        ready_files: None,
        backup_running: true,
        credential_ends: vec![(2, ends(1_800_000_000)), (2, ends(1_700_000_000))],
        wal_volume: Some(WalVolume {
            free_bytes: 5 << 30,
            waiting: 9,
            trend: Trend::Fills {
                bytes_per_hour: 1 << 30,
                full_in: Some(Duration::from_hours(5)),
            },
            lasts: None,
        }),
        certificate_expires: Some(at),
    }
}

fn ends(seconds: i64) -> CredentialEnd {
    CredentialEnd {
        what: "keys".to_owned(),
        expires: DateTime::from_timestamp(seconds, 0).unwrap(),
        renewal: Renewal::Nobody,
    }
}

/// Two backups, and WAL of an hour.
fn holdings(at: DateTime<Utc>) -> Holdings {
    let backup = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
    Holdings {
        rehearsals: rehearsals(at),
        backups: 2,
        newest_backup: Some((backup.clone(), at)),
        objects: 9,
        bytes: 1024,
        growth: Growth {
            last_day: 100,
            last_week: 500,
            wal_bytes_per_hour: Some(7),
        },
        windows: vec![Window {
            from: at,
            until: Some(at + chrono::Duration::hours(1)),
            stretch: Recoverable {
                from: backup.segment(),
                until: Some(backup.segment()),
                backup,
                gap: None,
                missing: 0,
                unreadable: None,
                lost_history: None,
            },
            legs: Vec::new(),
            backups: Vec::new(),
        }],
        left: Vec::new(),
        timelines: Vec::new(),
    }
}

/// A good one, and a later one that failed.
fn rehearsals(at: DateTime<Utc>) -> Rehearsals {
    let backup = BackupName::parse("base_000000010000000000000002_00000040").unwrap();
    let failed = RehearsalRecord::begun(at + chrono::Duration::hours(1), "the end".to_owned());
    let good = RehearsalRecord {
        ok: true,
        ..RehearsalRecord::begun(at, "the end".to_owned())
    };
    Rehearsals {
        last: Some((backup.clone(), failed)),
        last_good: Some((backup, good)),
    }
}

fn fresh() -> (Metrics, Scrape) {
    let scrape = Scrape {
        phase: Phase::Starting,
        connections: 0,
        pusher: PusherStats::default(),
        ready_files: Some(0),
        backup_running: false,
        credential_ends: Vec::new(),
        wal_volume: None,
        certificate_expires: None,
    };
    (Metrics::new("1"), scrape)
}

#[test]
fn after_a_restart_every_counter_is_there_and_no_time_is_1970() {
    let (metrics, scrape) = fresh();
    for dialect in [Dialect::OpenMetrics, Dialect::Text] {
        let text = metrics.text(&scrape, dialect);
        for line in [
            "wale_wal_pushes_total{outcome=\"stored\"} 0",
            "wale_wal_pushes_total{outcome=\"archive-conflict\"} 0",
            "wale_wal_fetches_total{outcome=\"storage-unavailable\"} 0",
            "wale_wal_absences_total{outcome=\"proven\"} 0",
            "wale_backups_total{outcome=\"failed\"} 0",
            "wale_retentions_total{outcome=\"failed\"} 0",
            "wale_http_requests_total{route=\"/wal-push\",status=\"503\"} 0",
            "wale_tls_plain_http_requests_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let times = text.lines().filter(|line| !line.starts_with('#'));
        let times: Vec<&str> = times.filter(|line| line.contains("_timestamp_")).collect();
        assert!(times.is_empty(), "{times:?}");
        assert!(!text.contains("NaN"), "{text}");
    }
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    metrics.recalled_push(at);
    metrics.recalled_push(DateTime::UNIX_EPOCH);
    let text = metrics.text(&scrape, Dialect::Text);
    assert!(
        text.contains("wale_wal_last_push_timestamp_seconds 1700000000"),
        "{text}"
    );
}

#[test]
fn every_route_has_its_series_from_the_start() {
    use crate::http::route_names;
    for name in route_names() {
        assert!(ROUTES.contains(&name), "{name}");
    }
}

/// What `promtool check metrics` asks of the older format, and the program itself where it is installed.
#[test]
fn the_older_text_is_what_promtool_wants() {
    let (metrics, scrape) = fresh();
    let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    metrics.pushed("stored", Duration::from_millis(20), at);
    metrics.backup_done(100, 50, Duration::from_secs(3), at);
    let text = metrics.text(&scrape, Dialect::Text);
    let mut described = BTreeMap::new();
    for line in text.lines() {
        assert!(!line.starts_with("# UNIT") && line != "# EOF", "{line}");
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            described.insert(name, kind);
        } else if !line.starts_with('#') {
            let name = line.split(['{', ' ']).next().unwrap();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end))
                .filter(|family| described.get(family) == Some(&"histogram"))
                .unwrap_or(name);
            assert!(described.contains_key(family), "{line} has no type");
        }
    }
    promtool(&text);
}

fn promtool(text: &str) {
    use std::process::{Command, Stdio};
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut checking) = started else {
        // Not installed: the rules above are checked in any case.
        return;
    };
    std::io::Write::write_all(&mut checking.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let checked = checking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && said.is_empty(),
        "{said}\n{text}"
    );
}
