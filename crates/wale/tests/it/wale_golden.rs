//! The archive that wale 0.1.0 made: every later build opens it. What is in it: `testdata/wale-0.1.0/README.md`.

use std::path::Path;
use std::time::Duration;

use wale_testkit::{Cluster, Sandbox, Sidecar, SidecarOptions, free_port, shell, wale_command};

use crate::support::WALE;

const FIRST: &str = "base_000000010000000000000009_00000040";
const LATEST: &str = "base_00000002000000000000000C_00000040";
const AT_TWO_THOUSAND: &str = "2000|2001000|bcb7add837e768e14b3af895a9e0e3d9";
const AT_THE_END: &str = "3500|6126750|1b4deaf43f9903cc3eb4392125e68fe5";
const U_AT_TWO_THOUSAND: &str = "500|125250|4f67d8fb41c4f2aa0d3f178006949689";
const U_AT_THE_END: &str = "500|125250|fd6dec2ebfe441abe1ce02942960ad45";

#[test]
fn the_archive_of_0_1_0_is_listed_judged_and_restored() {
    let sandbox = Sandbox::new("golden010");
    let folder = sandbox.path().display();
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/wale-0.1.0/pg15.tar.zst");
    shell(&format!(
        "zstd -dcq --long=27 {} | tar -x -C {folder} && chown -R postgres:postgres {folder}/archive",
        packed.display()
    ));
    let listed = verb(&sandbox, &["backup-list"]);
    assert!(
        listed.contains(FIRST) && listed.contains(LATEST),
        "{listed}"
    );
    let plan = verb(&sandbox, &["delete", "retain", "1", "--dry-run"]);
    assert!(plan.contains(FIRST) && !plan.contains("damaged"), "{plan}");
    let two = "recovery_target_name = 'rp_two_thousand'\nrecovery_target_action = 'promote'";
    for (name, label, addition, t, u) in [
        ("two", FIRST, two, AT_TWO_THOUSAND, U_AT_TWO_THOUSAND),
        ("end", FIRST, "", AT_THE_END, U_AT_THE_END),
        ("latest", "LATEST", "", AT_THE_END, U_AT_THE_END),
    ] {
        let (cluster, options) = place(&sandbox, name);
        let options = options
            .set("START_MODE", "RESTORE")
            .set("WALE_RESTORE_LABEL", label)
            .set("RECOVERY_ADDITION", addition);
        let sidecar = Sidecar::start(&sandbox, WALE, &options);
        sidecar.wait_ready(Duration::from_secs(120));
        let told = sidecar.log_text();
        assert!(!told.contains("missing from the archive"), "{told}");
        cluster.configure(&["archive_mode = off".into()]);
        cluster.start();
        cluster.wait_promoted();
        assert_eq!(
            (value(&cluster, "t").as_str(), value(&cluster, "u").as_str()),
            (t, u),
            "{name}"
        );
        cluster.stop("immediate");
    }
}

fn value(cluster: &Cluster, table: &str) -> String {
    cluster.sql(&format!(
        "select count(*), sum(id), md5(string_agg(id||':'||v, ',' order by id)) from {table}"
    ))
}

fn place(sandbox: &Sandbox, name: &str) -> (Cluster, SidecarOptions) {
    let cluster = Cluster::at(sandbox, 15, name, free_port());
    let _ = sandbox.folder(name);
    let space = sandbox.folder(&format!("{name}-ts1"));
    let prefix = format!("file://localhost{}/archive", sandbox.path().display());
    let options = SidecarOptions::new(sandbox, &cluster)
        .set("WALE_FILE_PREFIX", &prefix)
        .set(
            "WALE_TABLESPACE_MAPPING",
            &format!("16384={}", space.display()),
        );
    (cluster, options)
}

/// Runs a verb that succeeds; returns what it said.
fn verb(sandbox: &Sandbox, words: &[&str]) -> String {
    let (_, options) = place(sandbox, "none");
    let output = wale_command(WALE, "wale", &options)
        .args(words)
        .output()
        .unwrap();
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(output.status.success(), "{told}");
    told
}
