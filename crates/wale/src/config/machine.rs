//! What this machine gives: defaults that follow from its processors and its memory.

use super::value::{self, BadValue};

/// Processors that this process may use, cgroup limits included.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
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
    format!("{}MiB", default_mib(container_limit()))
}

fn default_mib(limit: Option<u64>) -> u64 {
    limit.map_or(DEFAULT_MEMORY_MIB, |limit| {
        ((limit >> 20) / 2).clamp(LEAST_MEMORY_MIB, DEFAULT_MEMORY_MIB)
    })
}

/// The memory limit of the container, cgroup version 2 or 1. Version 1 writes a huge number for
/// "no limit", which the clamp above takes care of.
fn container_limit() -> Option<u64> {
    [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .find_map(|path| std::fs::read_to_string(path).ok())
    .and_then(|text| text.trim().parse().ok())
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
}
