//! The Debian package: built, installed into a folder, and what it brings is tried: the program, its manual, its
//! completions, its unit.

use std::path::{Path, PathBuf};
use std::process::Command;

use wale_testkit::{Sandbox, run, shell};

use crate::support::WALE;

/// A package, installed into a folder of its own.
struct Installed {
    sandbox: Sandbox,
    root: PathBuf,
}

impl Installed {
    fn new() -> Self {
        let sandbox = Sandbox::new("package");
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        // The program under test is not stripped as a release is: packing its symbols takes a minute.
        let built = shell(&format!(
            "strip -o {folder}/wale {WALE} && bash {}/scripts/deb.sh {folder}/wale {folder}",
            here.display(),
            folder = sandbox.path().display()
        ));
        let root = sandbox.folder("root");
        // As dpkg installs it, but beneath a folder, with a database of its own; container images are set up to leave
        // manuals out.
        shell(&format!(
            "mkdir -p {root}/var/lib/dpkg/info {root}/var/lib/dpkg/updates && touch {root}/var/lib/dpkg/status {root}/var/lib/dpkg/available && \
             dpkg --instdir={root} --admindir={root}/var/lib/dpkg --force-script-chrootless --path-include='/usr/share/*' --log={root}/log -i {package}",
            root = root.display(),
            package = built.trim()
        ));
        Self { sandbox, root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }
}

#[test]
fn the_debian_package_brings_the_program_its_manual_and_a_unit_that_systemd_takes() {
    let installed = Installed::new();
    let program = installed.path("usr/bin/wale");
    let version = shell(&format!("{} version", program.display()));
    assert_eq!(version, format!("wale {}\n", env!("CARGO_PKG_VERSION")));
    let old_name = shell(&format!(
        "{} version",
        installed.path("usr/lib/wale/wal-e").display()
    ));
    assert_eq!(old_name, format!("{}\n", env!("CARGO_PKG_VERSION")));
    manual(&installed);
    completions(&installed);
    unit(&installed, &program);
    example(&installed, &program);
    // dpkg takes away what it brought.
    shell(&format!(
        "dpkg --instdir={root} --admindir={root}/var/lib/dpkg --force-script-chrootless --log={root}/log -P wale",
        root = installed.root.display()
    ));
    assert!(!program.exists());
}

/// `man` renders every page without a word of complaint.
fn manual(installed: &Installed) {
    let folder = installed.path("usr/share/man/man1");
    let pages: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("pages")
        .map(|entry| entry.expect("a page").path())
        .collect();
    assert!(pages.len() > 12, "{pages:?}");
    for page in pages {
        let said = shell(&format!(
            "man --warnings -l {} 2>&1 >/dev/null",
            page.display()
        ));
        assert_eq!(said, "", "{}", page.display());
    }
    let text = shell(&format!(
        "man -l {}/wale-backup-push.1.gz",
        folder.display()
    ));
    assert!(text.contains("SYNOPSIS"), "{text}");
}

/// bash completes a verb that is begun.
fn completions(installed: &Installed) {
    let file = installed.path("usr/share/bash-completion/completions/wale");
    let script = format!(
        "source {}; COMP_WORDS=(wale backup-p); COMP_CWORD=1; _wale wale backup-p wale; echo \"${{COMPREPLY[@]}}\"",
        file.display()
    );
    let completed = run("bash", &["-c", &script]);
    assert_eq!(completed.trim(), "backup-push");
    for file in [
        "usr/share/zsh/vendor-completions/_wale",
        "usr/share/fish/vendor_completions.d/wale.fish",
    ] {
        let text = std::fs::read_to_string(installed.path(file)).expect("text");
        assert!(text.contains("backup-push"), "{file}");
    }
}

/// systemd finds no mistake in the unit, and its protection is that of a service that needs little.
fn unit(installed: &Installed, program: &Path) {
    let text =
        std::fs::read_to_string(installed.path("lib/systemd/system/wale@.service")).expect("text");
    let text = text.replace("/usr/bin/wale", program.to_str().expect("text"));
    let copy = installed.sandbox.path().join("wale@15-main.service");
    std::fs::write(&copy, text).expect("written");
    let verified = Command::new("systemd-analyze")
        .env("MANPATH", installed.path("usr/share/man"))
        .arg("verify")
        .arg(&copy)
        .output();
    let verified = verified.expect("systemd-analyze is installed");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("wale")).collect();
    assert!(verified.status.success() && about_ours.is_empty(), "{said}");
    let exposure = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=30", "--no-pager"])
        .arg(&copy)
        .output()
        .expect("systemd-analyze is installed");
    let said = String::from_utf8_lossy(&exposure.stdout).into_owned();
    assert!(exposure.status.success(), "{said}");
}

/// The example is a configuration without a mistake, once its archive is there.
fn example(installed: &Installed, program: &Path) {
    let example = installed.path("usr/share/doc/wale/examples/example.conf");
    let text = std::fs::read_to_string(&example).expect("text");
    let archive = installed.sandbox.folder("archive");
    let text = text.replace("/var/lib/wale/15-main", archive.to_str().expect("text"));
    let configuration = installed.sandbox.path().join("15-main.conf");
    std::fs::write(&configuration, text).expect("written");
    let shown = shell(&format!(
        "env -i WALE_CONFIG_FILE={} {} config show",
        configuration.display(),
        program.display()
    ));
    assert!(shown.contains("0 3 * * *"), "{shown}");
}
