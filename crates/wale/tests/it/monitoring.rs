//! `ops/`: the alerts and the dashboard, in a real Prometheus that asks a real sidecar.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use wale_testkit::{free_port, request, run, wait_until};

use crate::support::{Stage, WALE};

/// A file below `ops/`.
fn ops(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../ops")
        .join(name)
        .canonicalize()
        .expect("the file is in the repository")
}

#[test]
fn each_alert_goes_off_and_not_beside_its_cause() {
    let rules = ops("prometheus/alerts.test.yaml");
    run(
        "promtool",
        &["test", "rules", rules.to_str().expect("text")],
    );
    let text = std::fs::read_to_string(rules).expect("read");
    for alert in alerts() {
        assert!(
            text.contains(&format!("alertname: {}\n", alert.name)),
            "{} has no test that it goes off",
            alert.name
        );
    }
}

/// An alert, as far as its text says it.
struct Alert {
    name: String,
    runbook: String,
}

fn alerts() -> Vec<Alert> {
    let text = std::fs::read_to_string(ops("prometheus/alerts.yaml")).expect("read");
    let parts = text.split("- alert: ").skip(1);
    let alerts = parts.map(|part| {
        let rest = part
            .split("runbook: ")
            .nth(1)
            .expect("a page of the runbook");
        Alert {
            name: part.lines().next().expect("a name").to_owned(),
            runbook: rest.lines().next().expect("a line").to_owned(),
        }
    });
    let alerts: Vec<Alert> = alerts.collect();
    assert!(alerts.len() > 10, "{}", alerts.len());
    alerts
}

#[test]
fn each_alert_has_its_page_in_the_runbook() {
    let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/runbook.md");
    let text = std::fs::read_to_string(runbook).expect("read");
    let anchors: BTreeSet<String> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| {
            let kept = title
                .to_lowercase()
                .replace(|c: char| !c.is_alphanumeric() && c != ' ' && c != '-', "");
            format!("docs/runbook.md#{}", kept.replace(' ', "-"))
        })
        .collect();
    for alert in alerts() {
        assert!(
            anchors.contains(&alert.runbook),
            "{}: {}",
            alert.name,
            alert.runbook
        );
    }
}

/// A Prometheus that asks one sidecar every second and knows our alerts.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    fn start(stage: &Stage) -> Self {
        let folder = stage.sandbox.folder("prometheus");
        let configuration = folder.join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n  - job_name: wale\n    \
             static_configs: [{{targets: ['127.0.0.1:{}']}}]\n",
            ops("prometheus/alerts.yaml").display(),
            stage.options.port
        );
        std::fs::write(&configuration, text).expect("written");
        let port = free_port();
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Prometheus is installed");
        let prometheus = Self { child, port };
        wait_until(
            "Prometheus to have asked the sidecar",
            Duration::from_secs(60),
            || (prometheus.query("up{job=\"wale\"} == 1")?.len() == 1).then_some(()),
        );
        prometheus
    }

    /// The series that a query gives now; none while it cannot be asked. A query that Prometheus refuses ends the test.
    fn query(&self, query: &str) -> Option<Vec<Value>> {
        let encoded = query.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "%{byte:02X}");
            text
        });
        // HTTP/1.0: an answer of one piece.
        let asked =
            format!("GET /api/v1/query?query={encoded} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let reply = request(self.port, &asked).ok()?;
        if reply.status == 503 {
            return None;
        }
        let answer = reply.json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned()
    }
}

/// Every query of the dashboard, for every sidecar.
fn queries() -> Vec<String> {
    let text = std::fs::read_to_string(ops("grafana/dashboard.json")).expect("read");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().expect("queries"));
    targets
        .map(|target| {
            let query = target["expr"].as_str().expect("text");
            query.replace("$instance", ".*")
        })
        .collect()
}

/// The names of our series that a text uses.
fn series(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("wale_"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_query_of_dashboard_and_alerts_is_answered_by_a_real_prometheus() {
    let stage = Stage::new("monitoring", 15);
    stage
        .cluster
        .sql("create table t as select generate_series(1, 1000) v");
    assert_eq!(stage.sidecar.get("/backup-push").status, 200);
    stage.cluster.switch_wal();
    stage.cluster.wait_archived();
    let prometheus = Prometheus::start(&stage);
    wait_until(
        "the look at the archive after the backup",
        Duration::from_secs(60),
        || (prometheus.query("wale_archive_backups == 1")?.len() == 1).then_some(()),
    );
    let alerts = std::fs::read_to_string(ops("prometheus/alerts.yaml")).expect("read");
    let mut used = series(&alerts);
    for query in queries() {
        prometheus
            .query(&query)
            .unwrap_or_else(|| panic!("{query} is not answered"));
        used.extend(series(&query));
    }
    // It is there with TLS, which this sidecar does not speak; wale-service's tests hold its name.
    used.remove("wale_tls_certificate_expiry_timestamp_seconds");
    // Nobody has rehearsed; the tests of rehearsals ask for them.
    for name in ["ok", "timestamp_seconds"] {
        assert!(
            used.remove(&format!("wale_last_rehearsal_{name}")),
            "{name}"
        );
    }
    // Of further archives, which this one has not; the tests of several archives ask for them.
    for name in ["lag_seconds", "reachable", "conflicts", "backups_failing"] {
        assert!(used.remove(&format!("wale_archive_{name}")), "{name}");
    }
    // Of credentials that end, which a folder has not; wale-service's tests hold its name.
    assert!(used.remove("wale_credentials_expiry_timestamp_seconds"));
    // It is there where archiving does not keep up; `a_volume_that_fills…` asks for it.
    assert!(used.remove("wale_wal_volume_full_in_seconds"));
    assert!(used.len() > 15, "{used:?}");
    for name in used {
        let found = prometheus.query(&name).expect("an answer");
        assert!(!found.is_empty(), "nothing is called {name}");
    }
    let window =
        "wale_recoverable_to_timestamp_seconds - wale_recoverable_from_timestamp_seconds >= 0";
    assert_eq!(prometheus.query(window).expect("an answer").len(), 1);
    let firing = prometheus
        .query("ALERTS{alertstate=\"firing\"}")
        .expect("an answer");
    assert!(
        firing.is_empty(),
        "a healthy sidecar raises no alert: {firing:?}"
    );
    status_says_the_same(&stage);
}

/// `/status` and `wale status` tell the same window.
fn status_says_the_same(stage: &Stage) {
    let status = stage.sidecar.get("/status").json();
    let holdings = &status["holdings"];
    assert_eq!(holdings["backups"], 1, "{status}");
    assert!(
        status["wal"]["volume_free_bytes"].as_u64() > Some(0),
        "{status}"
    );
    let growth = &holdings["growth"];
    assert!(growth["last_day_bytes"].as_u64() > Some(0), "{status}");
    assert_eq!(growth["last_day_bytes"], growth["last_week_bytes"]);
    assert_eq!(status["wal"]["volume"]["trend"], "not-growing", "{status}");
    let told = stage.sidecar.verb(WALE, "wale", &["status", "--json"]);
    assert_eq!(told.code(), 0, "{}", told.stderr);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(told["backups"], 1);
    assert!(
        told["growth"]["last_day_bytes"].as_u64() > Some(0),
        "{told}"
    );
    assert_eq!(told["wal_volume"]["trend"], "not-growing", "{told}");
    assert_eq!(told["windows"][0]["from"], holdings["windows"][0]["from"]);
    assert_eq!(
        told["windows"][0]["backup"],
        holdings["windows"][0]["backup"]
    );
    let told = stage.sidecar.verb(WALE, "wale", &["status"]);
    assert!(told.stdout.contains("recoverable  20"), "{}", told.stdout);
    assert!(told.stdout.contains(" free\n"), "{}", told.stdout);
    assert!(told.stdout.contains("not growing"), "{}", told.stdout);
    let wide = told
        .stdout
        .lines()
        .filter(|line| line.chars().count() > 100)
        .count();
    assert_eq!(wide, 0, "{}", told.stdout);
}

/// A real server whose archive takes nothing for hours: only the times of the files are made older.
#[test]
fn a_volume_that_fills_says_when_it_is_full() {
    let mut stage = Stage::new("fills", 15);
    // Before anything was archived: what goes of late tells that archiving keeps up.
    stage.sidecar.kill();
    stage.cluster.sql("create table t (v int)");
    let status = stage.cluster.data.join("pg_wal/archive_status");
    for _ in 0..4 {
        stage.cluster.sql("insert into t values (1)");
        stage.cluster.switch_wal();
    }
    let ready = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&status).expect("the folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut ready: Vec<PathBuf> = paths
            .filter(|path| path.extension().is_some_and(|end| end == "ready"))
            .collect();
        ready.sort();
        ready
    };
    wait_until("four segments to wait", Duration::from_secs(60), || {
        (ready().len() >= 4).then_some(())
    });
    let ago = std::time::SystemTime::now() - Duration::from_hours(2);
    for path in ready() {
        let file = std::fs::File::options().append(true).open(path);
        file.expect("opened").set_modified(ago).expect("set");
    }
    // And the folder's: a later change of it would be a checkpoint that has just removed what was archived.
    let folder = std::fs::File::open(&status).expect("opened");
    folder.set_modified(ago).expect("set");
    let told = stage.sidecar.verb(WALE, "wale", &["status"]);
    assert!(told.stdout.contains("FULL in "), "{}", told.stdout);
    let told = stage.sidecar.verb(WALE, "wale", &["status", "--json"]);
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let volume = &told["wal_volume"];
    assert_eq!(volume["trend"], "growing", "{told}");
    assert!(volume["full_in_seconds"].as_u64() > Some(0), "{told}");
    let checked = stage.sidecar.verb(WALE, "wale", &["check"]);
    assert!(checked.stdout.contains("full in "), "{}", checked.stdout);
}
