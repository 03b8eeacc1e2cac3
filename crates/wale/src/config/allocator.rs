//! The allocator of a process that lives for months: glibc's, with two of its settings.
//!
//! As it comes, glibc raises its threshold for `mmap` with each large buffer that is freed, and gives each thread an arena
//! of its own, which keeps what large buffers leave behind: beside a budget of 128 MiB the process grew beyond 256 MiB,
//! and stayed there. With a fixed threshold a large buffer goes back to the system when it is freed. The figures are in
//! `docs/decisions/README.md`.
//!
//! The settings are read when a process begins. From within they could only be set by an unsafe call, so the program
//! begins once more: same process id, same arguments, same environment and one variable.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// glibc's variable.
const VARIABLE: &str = "GLIBC_TUNABLES";

/// 128 KiB is what glibc begins with. Two arenas: as many as cores in the smallest machines, so threads rarely wait.
const SETTINGS: &str = "glibc.malloc.mmap_threshold=131072:glibc.malloc.arena_max=2";

/// Says that the program has begun once more, whatever became of the variable: never a third time.
const DONE: &str = "GLIBC_TUNABLES_BY";

/// Begins the program once more with the settings, unless it has them, or somebody has set others. Returns only then, or
/// when it cannot be begun: then it goes on as it is.
#[expect(
    clippy::disallowed_methods,
    reason = "glibc reads its variable before there are settings"
)]
pub(crate) fn settle() {
    if std::env::var_os(DONE).is_some()
        || std::env::var_os(VARIABLE).is_some_and(|set| speaks(&set))
    {
        return;
    }
    let mut arguments = std::env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), std::env::current_exe()) else {
        return;
    };
    let value = joined(std::env::var_os(VARIABLE));
    let failed = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(VARIABLE, value)
        .env(DONE, "wale")
        .exec();
    // There is no log yet, and nothing is wrong: memory is only less tight.
    drop(failed);
}

/// Whether the variable says anything of malloc.
fn speaks(set: &OsStr) -> bool {
    set.to_string_lossy().contains("glibc.malloc.")
}

/// The settings behind what was set of other parts of glibc.
fn joined(set: Option<OsString>) -> OsString {
    match set.filter(|set| !set.is_empty()) {
        None => SETTINGS.into(),
        Some(mut set) => {
            set.push(":");
            set.push(SETTINGS);
            set
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_stays() {
        assert_eq!(joined(None), SETTINGS);
        assert_eq!(joined(Some(OsString::new())), SETTINGS);
        let other = "glibc.elision.enable=0";
        assert!(!speaks(OsStr::new(other)));
        let both = joined(Some(other.into()));
        assert_eq!(both, format!("{other}:{SETTINGS}").as_str());
        assert!(speaks(&both));
    }
}
