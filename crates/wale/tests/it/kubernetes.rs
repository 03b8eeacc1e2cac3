//! `ops/kubernetes/`: the manifests against the schemas of Kubernetes' API, and the settings in them against ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use wale_testkit::{Sandbox, SidecarOptions, shell, wale_command};

use crate::support::WALE;

fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../ops/kubernetes")
        .join(name)
        .canonicalize()
        .expect("the file is in the repository")
}

const POSTGRES: &str = "postgres.yaml";
const REHEARSE: &str = "rehearse.yaml";

fn tools() -> String {
    std::env::var("WALE_TEST_TOOLS").unwrap_or_else(|_| "/var/tmp/wale-tools".into())
}

/// The first version with native sidecars, and one of the newest that the schemas know.
#[test]
fn kubernetes_takes_every_manifest() {
    let cases = [
        ("1.29.0", POSTGRES, 5),
        ("1.37.0", POSTGRES, 5),
        ("1.29.0", REHEARSE, 2),
        ("1.37.0", REHEARSE, 2),
    ];
    for (version, name, objects) in cases {
        let checked = Command::new(format!("{}/kubernetes/bin/kubernetes-validate", tools()))
            .args(["--strict", "-k", version])
            .arg(manifest(name))
            .output()
            .expect("scripts/setup.sh test installs kubernetes-validate");
        let said =
            String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success(), "{version}: {said}");
        assert_eq!(
            said.matches(" passed ").count(),
            objects,
            "{version}: {said}"
        );
    }
}

/// What the map of settings says is a configuration without a mistake or a warning. Secrets are where the Pod mounts them.
#[test]
fn the_settings_in_the_manifest_are_settings_of_ours() {
    let sandbox = Sandbox::new("kubernetes");
    let secrets = sandbox.folder("secrets");
    for name in ["token", "password", "aws-secret-access-key"] {
        std::fs::write(secrets.join(name), "0123456789abcdef0123").expect("written");
    }
    let text = std::fs::read_to_string(manifest(POSTGRES)).expect("text");
    let settings = text.split("\ndata:\n").nth(1).expect("the ConfigMap");
    let settings = settings.split("\n---").next().expect("its end");
    let mut command = Command::new(WALE);
    command.env_clear().args(["config", "show"]);
    let mut count = 0;
    for line in settings.lines() {
        let (name, value) = line.trim().split_once(": ").expect("a setting");
        let value = value.trim_matches('"');
        command.env(
            name,
            value.replace("/run/secrets/wale", secrets.to_str().expect("text")),
        );
        count += 1;
    }
    assert!(count > 10, "{count}");
    let shown = command.output().expect("wale runs");
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(shown.status.success() && !said.contains("WARN"), "{said}");
}

/// The arguments in the `CronJob` are arguments of ours: without them the verb would not come to what it refuses here.
#[test]
fn the_rehearsal_of_the_cron_job_is_a_verb_of_ours() {
    let sandbox = Sandbox::new("kubernetes-rehearse");
    let text = std::fs::read_to_string(manifest(REHEARSE)).expect("text");
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("args: [--scratch"));
    let arguments = line.expect("the arguments").trim_end_matches(']');
    let mut words = arguments
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty());
    let scratch = words.next().expect("the folder");
    assert!(scratch.starts_with("/scratch/"), "{scratch}");
    let archive = sandbox.folder("archive");
    let place = format!("file://{}", archive.display());
    let options = SidecarOptions {
        environment: [("WALE_FILE_PREFIX".to_owned(), place)].into(),
        port: 0,
        as_postgres: true,
    };
    let output = wale_command(WALE, "wale", &options)
        .args(["rehearse", "--scratch"])
        .arg(sandbox.folder("scratch").join("copy"))
        .args(words)
        .output()
        .expect("wale runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("no base backup") || said.contains("holds no"),
        "{said}"
    );
}

/// `wale install`: a program that runs, whole, over what was there.
#[test]
fn the_program_is_installed_into_a_shared_folder() {
    let sandbox = Sandbox::new("install");
    let folder = sandbox.folder("shared");
    std::fs::write(folder.join("wale"), "an older one").expect("written");
    let told = shell(&format!("{WALE} install {}", folder.display()));
    let path = folder.join("wale");
    assert_eq!(told, format!("{}\n", path.display()));
    assert_eq!(
        shell(&format!("{} version", path.display())),
        format!("wale {}\n", env!("CARGO_PKG_VERSION"))
    );
    let left: Vec<_> = std::fs::read_dir(&folder).expect("read").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let refused = Command::new(WALE)
        .args(["install", "/nonexistent/folder"])
        .output()
        .expect("wale runs");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("/nonexistent/folder/wale") && said.contains("must be there"),
        "{said}"
    );
}
