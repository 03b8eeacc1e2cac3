//! Which file goes in which tar partition: a pure plan, made once, before the first byte is read.
//!
//! Refuses to know: the file system. It sees names and sizes.
//!
//! Invariants:
//! * Stable: the same files in the same order with the same limits give the same plan.
//! * Every file is in exactly one partition, or in [`PartitionPlan::last`] (`global/pg_control`,
//!   `backup_label`, `tablespace_map`: they are written after everything else).
//! * No partition holds more than `max_members` members or more than `max_bytes` bytes, except that
//!   a file larger than `max_bytes` gets a partition of its own.
//! * Partitions come in order of falling work, so that workers that take the next one whenever
//!   they are free end evenly (longest processing time first).
//! * Within a partition members keep the order of the list: a walk that names a directory before
//!   its files gives a tar that does.
//!
//! How: files in order of falling weight each go to the least loaded partition (a heap), in
//! `O(n log n)`. Weight is size plus `MEMBER_WEIGHT_BYTES`: a `TimescaleDB` cluster has 100,000 small
//! files, and opening one costs about as much as reading 32 KiB.
//!
//! Memory: while it is made, the plan holds an index per file in the order (8 bytes) and one in its
//! partition (8 bytes, at most doubled by `Vec` growth): 24 bytes per file, 2.4 MB for 100,000 files,
//! 24 MB for a million. A partition adds about 64 bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// WAL-E's limit of members in one partition.
const WAL_E_MAX_MEMBERS: usize = 6144;
/// What a member costs besides its bytes, as bytes: open, stat and header take about 30 µs, in which
/// 1 GB/s would have read 32 KiB.
const MEMBER_WEIGHT_BYTES: u64 = 32 << 10;
/// Fewer bytes are not worth a partition of their own just to keep a worker busy.
const MIN_SHARE_BYTES: u64 = 4 << 20;

/// A file to be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedFile<'a> {
    /// Path relative to the data directory, `/` separated.
    pub path: &'a str,
    /// Size in bytes as listed; 0 for anything but a regular file.
    pub size: u64,
}

/// Bounds of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlanLimits {
    /// Most bytes of file content in one partition.
    pub max_bytes: u64,
    /// Most members in one partition.
    pub max_members: usize,
    /// How many partitions are written at the same time.
    pub workers: usize,
}

impl PlanLimits {
    /// The default: eight partitions per worker, between 64 MiB and 1 GiB each, 6144 members. Some compress in half the time of
    /// others, and so the last one that is begun ends alone: with four the other workers had nothing to do for a seventh of the time.
    ///
    /// 1 GiB is PostgreSQL's segment size of a large relation, and below WAL-E's 1.5 GiB.
    #[must_use]
    pub fn for_total(total_bytes: u64, workers: usize) -> Self {
        let workers = workers.max(1);
        let share = total_bytes / (workers as u64 * 8);
        Self {
            max_bytes: share.clamp(64 << 20, 1 << 30),
            max_members: WAL_E_MAX_MEMBERS,
            workers,
        }
    }
}

/// The plan: indexes into the list it was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPlan {
    partitions: Vec<Vec<usize>>,
    last: Vec<usize>,
}

/// A partition being filled.
struct Bin {
    weight: u64,
    bytes: u64,
    members: Vec<usize>,
}

impl PartitionPlan {
    /// Makes the plan. `limits.max_members` and `limits.workers` of 0 count as 1.
    #[must_use]
    pub fn new(files: &[PlannedFile<'_>], limits: &PlanLimits) -> Self {
        let max_members = limits.max_members.max(1);
        let (last, mut order): (Vec<usize>, Vec<usize>) =
            (0..files.len()).partition(|&index| comes_last(files[index].path));
        // The sort is stable, so equal sizes keep the order of the list.
        order.sort_by_key(|&index| Reverse(files[index].size));

        let alone = order.partition_point(|&index| files[index].size > limits.max_bytes);
        let (alone, shared) = order.split_at(alone);
        let mut bins: Vec<Bin> = alone
            .iter()
            .map(|&index| Bin {
                weight: weight(files[index].size),
                bytes: files[index].size,
                members: vec![index],
            })
            .collect();
        bins.extend(fill(
            files,
            shared,
            limits.max_bytes,
            max_members,
            limits.workers,
        ));

        for bin in &mut bins {
            bin.members.sort_unstable();
        }
        bins.retain(|bin| !bin.members.is_empty());
        bins.sort_by_key(|bin| (Reverse(bin.weight), bin.members.first().copied()));
        Self {
            partitions: bins.into_iter().map(|bin| bin.members).collect(),
            last,
        }
    }

    /// The partitions in the order in which workers should take them; indexes into the list of files.
    #[must_use]
    pub fn partitions(&self) -> &[Vec<usize>] {
        &self.partitions
    }

    /// The files that belong in the final partition, written after all others: `global/pg_control`
    /// and what the list held of `backup_label` and `tablespace_map`.
    #[must_use]
    pub fn last(&self) -> &[usize] {
        &self.last
    }
}

/// Whether a file is written after all others.
fn comes_last(path: &str) -> bool {
    matches!(
        path,
        "global/pg_control" | "backup_label" | "tablespace_map"
    )
}

fn weight(size: u64) -> u64 {
    size.saturating_add(MEMBER_WEIGHT_BYTES)
}

/// Spreads files, given in order of falling size, over as few partitions as the limits allow and
/// the workers need.
fn fill(
    files: &[PlannedFile<'_>],
    order: &[usize],
    max_bytes: u64,
    max_members: usize,
    workers: usize,
) -> Vec<Bin> {
    let sum = |cost: fn(u64) -> u64| {
        order.iter().fold(0u64, |sum, &index| {
            sum.saturating_add(cost(files[index].size))
        })
    };
    let for_bytes = sum(|size| size).div_ceil(max_bytes.max(1));
    let for_members = order.len().div_ceil(max_members) as u64;
    let for_workers = (workers as u64).min(sum(weight) / MIN_SHARE_BYTES);
    let count = for_bytes
        .max(for_members)
        .max(for_workers)
        .min(order.len() as u64);

    let mut open: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
    let mut bins: Vec<Bin> = Vec::new();
    let add = |bins: &mut Vec<Bin>, open: &mut BinaryHeap<_>| {
        open.push(Reverse((0, bins.len())));
        bins.push(Bin {
            weight: 0,
            bytes: 0,
            members: Vec::new(),
        });
    };
    for _ in 0..count {
        add(&mut bins, &mut open);
    }
    for &index in order {
        let size = files[index].size;
        let fits = |bin: &Bin| bin.members.len() < max_members && bin.bytes + size <= max_bytes;
        // The least loaded is the emptiest but for the few bytes of member weight, so one try is enough.
        if !open
            .peek()
            .is_some_and(|Reverse((_, number))| fits(&bins[*number]))
        {
            add(&mut bins, &mut open);
        }
        let Some(Reverse((_, number))) = open.pop() else {
            continue;
        };
        let bin = &mut bins[number];
        bin.members.push(index);
        bin.bytes += size;
        bin.weight = bin.weight.saturating_add(weight(size));
        if bin.members.len() < max_members {
            open.push(Reverse((bin.weight, number)));
        }
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sizes(plan: &PartitionPlan, files: &[PlannedFile<'_>]) -> Vec<u64> {
        plan.partitions()
            .iter()
            .map(|members| members.iter().map(|&i| files[i].size).sum())
            .collect()
    }

    #[test]
    fn control_file_and_labels_come_last() {
        let names = [
            "PG_VERSION",
            "global/pg_control",
            "backup_label",
            "global/1262",
            "tablespace_map",
        ];
        let files = names.map(|path| PlannedFile { path, size: 10 });
        let plan = PartitionPlan::new(&files, &PlanLimits::for_total(50, 2));
        assert_eq!(plan.partitions(), [vec![0, 3]]);
        assert_eq!(plan.last(), [1, 2, 4]);
    }

    #[test]
    fn nothing_gives_no_partition() {
        let plan = PartitionPlan::new(&[], &PlanLimits::for_total(0, 2));
        assert!(plan.partitions().is_empty());
        assert!(plan.last().is_empty());
    }

    #[test]
    fn large_files_stand_alone_and_come_first() {
        let gib = 1u64 << 30;
        let files = [
            PlannedFile {
                path: "base/1/1",
                size: 8192,
            },
            PlannedFile {
                path: "base/1/2",
                size: 3 * gib,
            },
            PlannedFile {
                path: "base/1/3",
                size: gib,
            },
            PlannedFile {
                path: "base/1/4",
                size: 8192,
            },
        ];
        let limits = PlanLimits {
            max_bytes: gib,
            max_members: 6144,
            workers: 2,
        };
        let plan = PartitionPlan::new(&files, &limits);
        assert_eq!(plan.partitions()[0], [1]);
        assert_eq!(plan.partitions()[1], [2]);
        assert_eq!(plan.partitions()[2..], [vec![0, 3]]);
    }

    #[test]
    fn small_cluster_still_feeds_every_worker() {
        let names: Vec<String> = (0..1000).map(|n| format!("base/5/{n}")).collect();
        let files: Vec<PlannedFile<'_>> = names
            .iter()
            .map(|path| PlannedFile { path, size: 40_000 })
            .collect();
        let plan = PartitionPlan::new(&files, &PlanLimits::for_total(40_000_000, 2));
        assert_eq!(sizes(&plan, &files), [20_000_000, 20_000_000]);
    }

    #[test]
    fn members_are_limited() {
        let names: Vec<String> = (0..7000).map(|n| format!("base/5/{n}")).collect();
        let files: Vec<PlannedFile<'_>> = names
            .iter()
            .map(|path| PlannedFile { path, size: 0 })
            .collect();
        let plan = PartitionPlan::new(&files, &PlanLimits::for_total(0, 1));
        assert_eq!(
            plan.partitions().iter().map(Vec::len).collect::<Vec<_>>(),
            [3500, 3500]
        );
    }

    #[test]
    fn default_limits_follow_the_total() {
        let cases = [
            (0, 2, 64 << 20),
            (1 << 30, 2, 64 << 20),
            (4 << 30, 2, 256 << 20),
            (100 << 30, 2, 1 << 30),
            (100 << 30, 0, 1 << 30),
        ];
        for (total, workers, expected) in cases {
            assert_eq!(PlanLimits::for_total(total, workers).max_bytes, expected);
        }
    }

    proptest! {
        #[test]
        fn every_file_once_and_limits_kept(
            list in prop::collection::vec(0u64..2_000_000, 0..400),
            max_bytes in 1u64..3_000_000,
            max_members in 1usize..50,
            workers in 0usize..5,
        ) {
            let names: Vec<String> = (0..list.len()).map(|n| format!("base/5/{n}")).collect();
            let files: Vec<PlannedFile<'_>> = names
                .iter()
                .zip(&list)
                .map(|(path, &size)| PlannedFile { path, size })
                .collect();
            let limits = PlanLimits { max_bytes, max_members, workers };
            let plan = PartitionPlan::new(&files, &limits);
            prop_assert_eq!(&plan, &PartitionPlan::new(&files, &limits));
            let mut seen: Vec<usize> = plan.partitions().concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..files.len()).collect::<Vec<_>>());
            for members in plan.partitions() {
                let bytes: u64 = members.iter().map(|&i| files[i].size).sum();
                prop_assert!(!members.is_empty() && members.len() <= max_members);
                prop_assert!(bytes <= max_bytes || members.len() == 1);
                prop_assert!(members.is_sorted());
            }
        }
    }
}
