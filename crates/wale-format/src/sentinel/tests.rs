//! Real sentinels of WAL-E, WAL-G's generations, and our own superset.

use std::collections::BTreeMap;

use proptest::prelude::*;

use serde_json::{Value, json};
use wale_pg::{MajorVersion, SystemIdentifier, TimelineId};

use super::*;
use crate::Codec;

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect(text)
}

fn record() -> WaleSentinel {
    WaleSentinel {
        format_version: 1,
        wale_version: "0.1.0".into(),
        backup_label: "START WAL LOCATION: 0/3000028 (file 000000010000000000000003)\n".into(),
        start_lsn: "0/3000028".parse().unwrap(),
        stop_lsn: "0/30000F8".parse().unwrap(),
        start_timeline: TimelineId::FIRST,
        stop_timeline: TimelineId::FIRST,
        start_time: time("2026-01-02T03:04:05.123456789Z"),
        stop_time: time("2026-01-02T03:05:00Z"),
        system_identifier: SystemIdentifier::new(7_710_886_202_034_990_829),
        major: MajorVersion::new(15).unwrap(),
        wal_segment_size: 16 << 20,
        data_checksums: true,
        codec: Codec::Zstd,
        partitions: vec![
            PartitionRecord {
                number: 0,
                members: 10,
                bytes_plain: 30_720,
                bytes_stored: 4000,
            },
            PartitionRecord {
                number: 1,
                members: 3,
                bytes_plain: 10_240,
                bytes_stored: 500,
            },
        ],
        tablespaces: Vec::new(),
        manifest_sha256: Some("ab".repeat(32)),
        settings: BTreeMap::from([("max_connections".into(), "100".into())]),
        extensions: BTreeMap::from([(
            "app".into(),
            BTreeMap::from([("timescaledb".into(), "2.17.2".into())]),
        )]),
        timescaledb: BTreeMap::from([(
            "app".into(),
            TimescaleRecord {
                hypertables: 3,
                chunks: 2_161,
                compressed_chunks: 2_112,
                jobs: 9,
                licence: Some("timescale".into()),
            },
        )]),
        damaged_pages: vec![DamagedPage {
            path: "base/5/16384".into(),
            block: 7,
        }],
        files: 11,
        bytes: 23_935_097,
        from_standby: false,
        holds_its_wal: false,
        requested_over_http: false,
        pg_wal_link: None,
        configuration: None,
    }
}

fn origin() -> SentinelOrigin {
    SentinelOrigin {
        server_version_num: 150_018,
        hostname: "pg-0".into(),
        data_directory: "/var/lib/postgresql/data/".into(),
        has_file_list: false,
    }
}

#[test]
fn real_sentinels_of_wal_e() {
    let sentinel = Sentinel::parse(include_bytes!(
        "../../testdata/wal-e-1.1.1/pg10-tablespace-sentinel.json"
    ))
    .unwrap();
    assert_eq!(
        sentinel.wal_segment_backup_stop.as_deref(),
        Some("000000010000000000000003")
    );
    assert_eq!(
        sentinel.wal_segment_offset_backup_stop.as_deref(),
        Some("00000248")
    );
    assert_eq!(
        sentinel.stop_segment().unwrap().to_string(),
        "000000010000000000000003"
    );
    assert_eq!(sentinel.bytes(), Some(23_935_097));
    assert_eq!(
        (
            sentinel.start_lsn(),
            sentinel.stop_lsn(),
            sentinel.stopped_at()
        ),
        (None, None, None)
    );
    let spec = sentinel.tablespaces().unwrap();
    assert_eq!(spec.base_prefix, "/srv/pg10/data/");
    assert_eq!(
        spec.locations().unwrap(),
        [("16384".to_owned(), "/srv/pg10/ts1".to_owned())]
    );
    assert!(sentinel.wale.is_none() && !sentinel.is_delta());

    for bytes in [
        &include_bytes!("../../testdata/wal-e-1.1.1/pg13-sentinel.json")[..],
        &include_bytes!("../../testdata/wal-e-1.1.1/pg14-sentinel.json")[..],
    ] {
        let sentinel = Sentinel::parse(bytes).unwrap();
        assert_eq!(sentinel.tablespaces().unwrap().locations().unwrap(), []);
        let again: Value = serde_json::from_slice(&sentinel.to_json()).unwrap();
        assert_eq!(
            again,
            serde_json::from_slice::<Value>(bytes).unwrap(),
            "nothing is lost or added"
        );
    }
}

#[test]
fn sentinels_of_other_generations() {
    let very_old = r#"{"wal_segment_backup_stop": "000000010000000000000003", "wal_segment_offset_backup_stop": "00000256"}"#;
    let sentinel = Sentinel::parse(very_old.as_bytes()).unwrap();
    assert_eq!(sentinel.tablespaces(), None);

    let wal_g = r#"{"LSN":100663336,"PgVersion":160004,"FinishLSN":100663608,"SystemIdentifier":7391827461827364512,
        "UncompressedSize":31457280,"CompressedSize":5242880,"DataCatalogSize":41943040,"ChkpNum":null,"Version":2,
        "StartTime":"2026-08-20T01:00:03.120001Z","FinishTime":"2026-08-20T01:00:21.9Z",
        "DateFmt":"%Y-%m-%dT%H:%M:%S.%fZ","Hostname":"pg-0","DataDir":"/var/lib/postgresql/data","IsPermanent":false,
        "Spec":{"base_prefix":"/d","tablespaces":["16385"],"16385":{"loc":"/mnt/ts1","link":"pg_tblspc/16385"}},
        "UserData":{"job":"nightly","big":18446744073709551615}}"#;
    let sentinel = Sentinel::parse(wal_g.as_bytes()).unwrap();
    assert_eq!(sentinel.start_lsn(), Some("0/6000028".parse().unwrap()));
    assert_eq!(sentinel.stop_lsn(), Some("0/6000138".parse().unwrap()));
    assert_eq!(sentinel.system_identifier, Some(7_391_827_461_827_364_512));
    assert_eq!(sentinel.stopped_at(), Some(time("2026-08-20T01:00:21.9Z")));
    assert_eq!(sentinel.bytes(), Some(31_457_280));
    assert_eq!(
        sentinel.tablespaces().unwrap().locations().unwrap()[0].1,
        "/mnt/ts1"
    );

    let old_delta = r#"{"LSN":null,"DeltaFromLSN":1,"DeltaFrom":"base_x","Spec":null,"Files":{"/PG_VERSION":{}}}"#;
    let sentinel = Sentinel::parse(old_delta.as_bytes()).unwrap();
    assert!(sentinel.is_delta());
    assert_eq!(sentinel.start_lsn(), None);
}

#[test]
fn ours_says_the_same_in_three_tongues() {
    let mut record = record();
    record.tablespaces = vec![TablespaceRecord {
        oid: 16384,
        location: "/mnt/ts1".into(),
        inside: None,
    }];
    let sentinel = Sentinel::new(record, &origin()).unwrap();
    let mut json: Value = serde_json::from_slice(&sentinel.to_json()).unwrap();
    let wale = json.as_object_mut().unwrap().shift_remove("wale").unwrap();
    let expected = json!({
        "wal_segment_backup_stop": "000000010000000000000003",
        "wal_segment_offset_backup_stop": "00000248",
        "expanded_size_bytes": 23_935_097,
        "spec": {"base_prefix": "/var/lib/postgresql/data/", "tablespaces": ["16384"],
                 "16384": {"loc": "/mnt/ts1/", "link": "pg_tblspc/16384"}},
        "LSN": 50_331_688, "PgVersion": 150_018, "FinishLSN": 50_331_896,
        "SystemIdentifier": 7_710_886_202_034_990_829u64,
        "UncompressedSize": 23_935_097, "CompressedSize": 4500, "DataCatalogSize": 23_935_097,
        "FilesMetadataDisabled": true, "Version": 2,
        "StartTime": "2026-01-02T03:04:05.123456789Z", "FinishTime": "2026-01-02T03:05:00Z",
        "DateFmt": "%Y-%m-%dT%H:%M:%S.%fZ", "Hostname": "pg-0", "DataDir": "/var/lib/postgresql/data",
        "IsPermanent": false,
        "Spec": {"base_prefix": "/var/lib/postgresql/data", "tablespaces": ["16384"],
                 "16384": {"loc": "/mnt/ts1", "link": "pg_tblspc/16384"}},
    });
    assert_eq!(json, expected);
    assert_eq!(wale["start_lsn"], "0/3000028");
    assert_eq!(wale["start_timeline"], 1);
    assert_eq!(wale["major"], 15);
    assert_eq!(wale["system_identifier"], "7710886202034990829");
    assert_eq!(wale["codec"], "zstd");
    assert_eq!(Sentinel::parse(&sentinel.to_json()).unwrap(), sentinel);

    let metadata = crate::BackupMetadata::from_sentinel(&sentinel).expect("ours has WAL-G's keys");
    assert_eq!(
        (
            metadata.start_lsn,
            metadata.finish_lsn,
            metadata.compressed_size
        ),
        (50_331_688, 50_331_896, 4500)
    );
}

#[test]
fn without_tablespaces_there_is_no_wal_g_spec() {
    let sentinel = Sentinel::new(record(), &origin()).unwrap();
    let json: Value = serde_json::from_slice(&sentinel.to_json()).unwrap();
    assert_eq!(json.get("Spec"), None);
    assert_eq!(json["spec"]["tablespaces"], json!([]));
}

#[test]
fn a_stop_on_a_boundary_belongs_to_the_segment_before() {
    let mut record = record();
    record.stop_lsn = "0/4000000".parse().unwrap();
    let sentinel = Sentinel::new(record, &origin()).unwrap();
    assert_eq!(
        sentinel.wal_segment_backup_stop.as_deref(),
        Some("000000010000000000000003")
    );
    assert_eq!(
        sentinel.wal_segment_offset_backup_stop.as_deref(),
        Some("00000000")
    );
}

#[test]
fn contradictions_are_not_written() {
    let backwards = WaleSentinel {
        stop_lsn: "0/1".parse().unwrap(),
        ..record()
    };
    assert!(matches!(
        Sentinel::new(backwards, &origin()),
        Err(SentinelError::Contradiction { .. })
    ));
    let odd_size = WaleSentinel {
        wal_segment_size: 5,
        ..record()
    };
    assert!(matches!(
        Sentinel::new(odd_size, &origin()),
        Err(SentinelError::Contradiction { .. })
    ));
}

#[test]
fn what_is_not_known_is_skipped() {
    let sentinel = Sentinel::new(record(), &origin()).unwrap();
    let mut json: Value = serde_json::from_slice(&sentinel.to_json()).unwrap();
    json["future"] = json!({"a": [1, null, "x"]});
    json["wale"]["future"] = json!(18_446_744_073_709_551_615u64);
    json["spec"]["future"] = json!([1]);
    let again = Sentinel::parse(json.to_string().as_bytes()).unwrap();
    assert_eq!(again, sentinel);
}

/// What costs a few bytes in the archive costs no more here: each is refused by name, before much of it is kept.
#[test]
fn fault_92_lists_without_end_are_refused() {
    let whole = String::from_utf8(Sentinel::new(record(), &origin()).unwrap().to_json()).unwrap();
    let with = |field: &str, value: &str| {
        let mut json: Value = serde_json::from_str(&whole).unwrap();
        json["wale"][field] = json!("@");
        json.to_string().replace("\"@\"", value)
    };
    let many = |one: &str| vec![one; 200_000].join(",");
    let numbered = |form: fn(usize) -> String| {
        let entries: Vec<String> = (0..200_000).map(form).collect();
        format!("{{{}}}", entries.join(","))
    };
    let partition = r#"{"number":0,"members":0,"bytes_plain":0,"bytes_stored":0}"#;
    let cases = [
        with("partitions", &format!("[{}]", many(partition))),
        with(
            "tablespaces",
            &format!("[{}]", many(r#"{"oid":1,"location":""}"#)),
        ),
        with(
            "damaged_pages",
            &format!("[{}]", many(r#"{"path":"","block":0}"#)),
        ),
        with("settings", &numbered(|n| format!("\"{n}\":\"\""))),
        with("extensions", &numbered(|n| format!("\"{n}\":{{}}"))),
        with(
            "extensions",
            &format!("{{\"a\":{}}}", numbered(|n| format!("\"{n}\":\"\""))),
        ),
        with(
            "timescaledb",
            &numbered(|n| {
                format!(r#""{n}":{{"hypertables":0,"chunks":0,"compressed_chunks":0,"jobs":0}}"#)
            }),
        ),
        with("wale_version", &format!("\"{}\"", "x".repeat(1 << 20))),
        format!("{{\"LSN\":1,\"Hostname\":\"{}\"}}", "x".repeat(1 << 20)),
        format!(
            "{{\"LSN\":1,\"spec\":{{\"tablespaces\":[{}]}}}}",
            many("\"\"")
        ),
        format!(
            "{{\"LSN\":1,\"Spec\":{}}}",
            numbered(|n| format!("\"{n}\":{{}}"))
        ),
        "[".repeat(1000),
    ];
    for (index, json) in cases.iter().enumerate() {
        let error = Sentinel::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.len() < 300, "{index}: {error}");
    }
    // What no field asks for costs nothing, however much it is: old sentinels of WAL-G list every file.
    let files = numbered(|n| format!("\"/base/1/{n}\":{{\"MTime\":\"x\",\"IsSkipped\":false}}"));
    let old = format!("{{\"LSN\":1,\"Files\":{files},\"x\":[{}]}}", many("0"));
    assert_eq!(Sentinel::parse(old.as_bytes()).unwrap().lsn, Some(1));
}

#[test]
fn fault_81_places_that_are_not_utf8_are_read_and_written_as_python_does() {
    let text = r#"{"wal_segment_backup_stop": "000000010000000000000003", "spec": {"base_prefix": "/d\udce9/",
        "tablespaces": ["16384"], "16384": {"loc": "/srv/ts\udce9/", "link": "pg_tblspc/16384"}}}"#;
    let sentinel = Sentinel::parse(text.as_bytes()).unwrap();
    let location = &sentinel.tablespaces().unwrap().locations().unwrap()[0].1;
    assert_eq!(
        wale_pg::byte_text::to_bytes(location).as_ref(),
        b"/srv/ts\xe9"
    );
    let mut ours = record();
    ours.tablespaces = vec![TablespaceRecord {
        oid: 16384,
        location: location.clone(),
        inside: None,
    }];
    let ours = Sentinel::new(ours, &origin()).unwrap();
    let json = String::from_utf8(ours.to_json()).unwrap();
    assert!(json.contains(r#""loc":"/srv/ts\udce9/""#), "{json}");
    assert_eq!(Sentinel::parse(json.as_bytes()).unwrap(), ours);
}

#[test]
fn a_later_format_is_named_as_such() {
    let later = br#"{"wale": {"format_version": 2, "start_lsn": {"other": "form"}}}"#;
    assert!(matches!(
        Sentinel::parse(later),
        Err(SentinelError::LaterFormat { found: 2 })
    ));
}

#[test]
fn damaged_sentinels_are_refused() {
    let whole = Sentinel::new(record(), &origin()).unwrap().to_json();
    for cut in 0..whole.len() {
        assert!(Sentinel::parse(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for text in [
        "null",
        "[]",
        "1",
        r#"{"LSN":"0/1"}"#,
        r#"{"wale":{"format_version":1}}"#,
        r#"{"wale":1}"#,
        "{}x",
    ] {
        assert!(Sentinel::parse(text.as_bytes()).is_err(), "{text}");
    }
    let spec = Sentinel::parse(br#"{"spec":{"base_prefix":"/","tablespaces":["1"]}}"#).unwrap();
    assert!(matches!(
        spec.tablespaces().unwrap().locations(),
        Err(SentinelError::TablespaceWithoutLocation { name }) if name == "1"
    ));
}

#[test]
fn directories_lose_their_last_slash_only() {
    for (path, expected) in [
        ("/", "/"),
        ("//", "/"),
        ("/a/", "/a"),
        ("/a", "/a"),
        ("/a//", "/a"),
        ("", ""),
    ] {
        assert_eq!(without_slash(path), expected, "{path:?}");
    }
}

proptest! {
    #[test]
    fn decode_after_encode_is_identity(
        start: u64,
        length in 0u64..1 << 40,
        timeline in 1u32..,
        seconds in 0i64..4_000_000_000,
        nanoseconds in 0u32..1_000_000_000,
        label: String,
        location in "/[ -~é]{0,30}",
        bytes: u64,
    ) {
        let mut record = record();
        record.start_lsn = Lsn::new(start);
        record.stop_lsn = Lsn::new(start.saturating_add(length));
        record.stop_timeline = TimelineId::new(timeline).unwrap();
        record.start_time = DateTime::from_timestamp(seconds, nanoseconds).unwrap();
        record.backup_label = label;
        record.tablespaces = vec![TablespaceRecord { oid: 16385, location, inside: None }];
        record.bytes = bytes;
        let sentinel = Sentinel::new(record, &origin()).unwrap();
        prop_assert_eq!(Sentinel::parse(&sentinel.to_json()).unwrap(), sentinel);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Sentinel::parse(&bytes);
    }
}
