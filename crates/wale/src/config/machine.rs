//! What this machine gives: defaults that follow from its processors and its memory.

use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use super::value::{self, BadValue};

/// Processors that this process may use, cgroup limits included. Asked once: to ask takes some ten calls, and several settings follow
/// from it, also for a client that runs for each segment.
pub(crate) fn processors() -> usize {
    static ASKED: OnceLock<usize> = OnceLock::new();
    *ASKED.get_or_init(|| std::thread::available_parallelism().map_or(2, usize::from))
}

/// A worker per processor: it is busy with its codec nearly all of its time. Two at least, so that
/// one reads while the other waits for the disk.
pub(super) fn workers() -> usize {
    processors().clamp(2, 8)
}

/// Below this a base backup with two workers has no buffers: 2 workers × (1 MiB chunk × 8).
pub(crate) const LEAST_MEMORY_MIB: u64 = 16;
const DEFAULT_MEMORY_MIB: u64 = 256;

/// A budget for buffers, bytes.
///
/// # Errors
/// When it is no size, or less than a base backup needs.
pub(super) fn budget(text: &str) -> Result<u64, BadValue> {
    match value::size(text)? {
        bytes if bytes < LEAST_MEMORY_MIB << 20 => {
            Err(BadValue::new(format!("{text} is too little"))
                .hint(format!("give at least {LEAST_MEMORY_MIB}MiB")))
        }
        bytes => Ok(bytes),
    }
}

/// The budget that the container's limit leaves, as [`budget`] takes it.
pub(super) fn default_budget() -> String {
    static ASKED: OnceLock<u64> = OnceLock::new();
    format!(
        "{}MiB",
        ASKED.get_or_init(|| default_mib(container_limit()))
    )
}

fn default_mib(limit: Option<u64>) -> u64 {
    limit.map_or(DEFAULT_MEMORY_MIB, |limit| {
        ((limit >> 20) / 2).clamp(LEAST_MEMORY_MIB, DEFAULT_MEMORY_MIB)
    })
}

/// The memory limit of this process, cgroup version 2 or 1: the least of its group's and of those above it. Version 1, and
/// version 2 of a group without one, write a huge number or a word for "no limit", which the clamp above takes care of.
fn container_limit() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_files(&own)
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

/// The files that may hold a limit, by `/proc/self/cgroup` (cgroups(7)): a container sees its own group as the root, a unit of
/// systemd's lies below it.
fn limit_files(own: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let mut files = vec![root.join("memory/memory.limit_in_bytes")];
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = Path::new(group.unwrap_or_default());
    // One that lies outside of what this process sees begins with "..".
    let is_seen = group
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let group = if is_seen { group } else { Path::new("") };
    files.extend(
        group
            .ancestors()
            .map(|group| root.join(group).join("memory.max")),
    );
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_follows_the_container() {
        for (limit, expected) in [
            (None, 256),
            (Some(64 << 20), 32),
            (Some(8 << 20), 16),
            (Some(8 << 30), 256),
            (Some(u64::MAX), 256),
        ] {
            assert_eq!(default_mib(limit), expected, "{limit:?}");
        }
    }

    #[test]
    fn limits_are_looked_for_in_the_own_group_and_above() {
        let below = |own: &str| -> Vec<String> {
            let files = limit_files(own).into_iter();
            let names = files.map(|path| path.to_string_lossy().replace("/sys/fs/cgroup/", ""));
            names.collect()
        };
        let old = "memory/memory.limit_in_bytes";
        for own in ["", "0::/\n", "0::/../../other\n", "4:memory:/x\n"] {
            assert_eq!(below(own), [old, "memory.max"], "{own:?}");
        }
        assert_eq!(
            below("1:name=systemd:/x\n0::/system.slice/wale.service\n"),
            [
                old,
                "system.slice/wale.service/memory.max",
                "system.slice/memory.max",
                "memory.max"
            ]
        );
    }
}
