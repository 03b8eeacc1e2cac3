//! Which file goes in which tar partition: a pure plan, made once, before the first byte is read.
//!
//! Refuses to know: the file system. It sees sizes only.
//!
//! Invariants:
//! * Stable: the same sizes in the same order with the same limits give the same plan.
//! * Every file is in exactly one partition. Those that are [written after all others](comes_last) are not to be planned.
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
//! Memory: the plan holds the number of its partition for each file, 4 bytes, and while it is made an index for the order,
//! 4 more: 0.8 MB for 100,000 files, 8 MB for a million. A partition adds 40 bytes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// WAL-E's limit of members in one partition.
const WAL_E_MAX_MEMBERS: usize = 6144;
/// What a member costs besides its bytes, as bytes: open, stat and header take about 30 µs, in which
/// 1 GB/s would have read 32 KiB.
const MEMBER_WEIGHT_BYTES: u64 = 32 << 10;
/// Fewer bytes are not worth a partition of their own just to keep a worker busy.
const MIN_SHARE_BYTES: u64 = 4 << 20;

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

/// The plan: which partition each file of the list goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionPlan {
    /// By the place of the file in the list.
    partitions: Vec<u32>,
    count: u32,
}

/// A partition being filled.
struct Bin {
    weight: u64,
    bytes: u64,
    members: usize,
    /// The first of the list that is in it.
    first: u32,
}

impl Bin {
    const EMPTY: Self = Self {
        weight: 0,
        bytes: 0,
        members: 0,
        first: u32::MAX,
    };

    fn add(&mut self, index: u32, size: u64) {
        self.weight = self.weight.saturating_add(weight(size));
        self.bytes = self.bytes.saturating_add(size);
        self.members += 1;
        self.first = self.first.min(index);
    }
}

impl PartitionPlan {
    /// Makes the plan for files of these sizes. `limits.max_members` and `limits.workers` of 0 count as 1.
    ///
    /// # Panics
    /// For more than 4,294,967,295 files: no file system has room for so many in one data directory.
    #[must_use]
    pub fn new(sizes: &[u64], limits: &PlanLimits) -> Self {
        let max_members = limits.max_members.max(1);
        let files = u32::try_from(sizes.len()).expect("files that 32 bits count");
        let mut order: Vec<u32> = (0..files).collect();
        // Equal sizes keep the order of the list.
        order.sort_unstable_by_key(|&index| (Reverse(sizes[index as usize]), index));

        let alone = order.partition_point(|&index| sizes[index as usize] > limits.max_bytes);
        let mut filling = Filling {
            sizes,
            limits,
            max_members,
            bins: Vec::new(),
            partitions: vec![0; sizes.len()],
        };
        let (alone, shared) = order.split_at(alone);
        for &index in alone {
            filling.bins.push(Bin::EMPTY);
            filling.put(index, filling.bins.len() - 1);
        }
        filling.fill(shared);
        filling.plan()
    }

    /// How many partitions there are. Workers should take them in the order of their numbers, from 0 on.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The partition of each file, in the order of the list.
    #[must_use]
    pub fn partitions(&self) -> &[u32] {
        &self.partitions
    }
}

/// Whether a file is written after all others, in a partition of its own.
#[must_use]
pub fn comes_last(path: &str) -> bool {
    matches!(
        path,
        "global/pg_control" | "backup_label" | "tablespace_map"
    )
}

fn weight(size: u64) -> u64 {
    size.saturating_add(MEMBER_WEIGHT_BYTES)
}

/// A plan being made.
struct Filling<'a> {
    sizes: &'a [u64],
    limits: &'a PlanLimits,
    max_members: usize,
    bins: Vec<Bin>,
    /// The place of its bin for each file.
    partitions: Vec<u32>,
}

impl Filling<'_> {
    fn put(&mut self, index: u32, bin: usize) {
        self.bins[bin].add(index, self.sizes[index as usize]);
        self.partitions[index as usize] =
            u32::try_from(bin).expect("no more partitions than files");
    }

    /// Spreads files, given in order of falling size, over as few partitions as the limits allow and
    /// the workers need.
    fn fill(&mut self, order: &[u32]) {
        let (sizes, max_bytes) = (self.sizes, self.limits.max_bytes);
        let sum = |cost: fn(u64) -> u64| {
            let costs = order.iter().map(|&index| cost(sizes[index as usize]));
            costs.fold(0u64, u64::saturating_add)
        };
        let for_bytes = sum(|size| size).div_ceil(max_bytes.max(1));
        let for_members = order.len().div_ceil(self.max_members) as u64;
        let for_workers = (self.limits.workers as u64).min(sum(weight) / MIN_SHARE_BYTES);
        let count = for_bytes
            .max(for_members)
            .max(for_workers)
            .min(order.len() as u64);

        let mut open: BinaryHeap<Reverse<(u64, usize)>> = BinaryHeap::new();
        let add = |bins: &mut Vec<Bin>, open: &mut BinaryHeap<_>| {
            open.push(Reverse((0, bins.len())));
            bins.push(Bin::EMPTY);
        };
        for _ in 0..count {
            add(&mut self.bins, &mut open);
        }
        for &index in order {
            let size = sizes[index as usize];
            let max_members = self.max_members;
            let fits = |bin: &Bin| bin.members < max_members && bin.bytes + size <= max_bytes;
            // The least loaded is the emptiest but for the few bytes of member weight, so one try is enough.
            if !open
                .peek()
                .is_some_and(|Reverse((_, number))| fits(&self.bins[*number]))
            {
                add(&mut self.bins, &mut open);
            }
            let Some(Reverse((_, number))) = open.pop() else {
                continue;
            };
            self.put(index, number);
            let bin = &self.bins[number];
            if bin.members < max_members {
                open.push(Reverse((bin.weight, number)));
            }
        }
    }

    /// The plan, with the heaviest partition first.
    fn plan(self) -> PartitionPlan {
        let Self {
            bins,
            mut partitions,
            ..
        } = self;
        let mut order: Vec<usize> = (0..bins.len())
            .filter(|&bin| bins[bin].members > 0)
            .collect();
        order.sort_unstable_by_key(|&bin| (Reverse(bins[bin].weight), bins[bin].first));
        let mut numbers = vec![0; bins.len()];
        for (number, &bin) in (0..).zip(&order) {
            numbers[bin] = number;
        }
        for partition in &mut partitions {
            *partition = numbers[*partition as usize];
        }
        PartitionPlan {
            partitions,
            count: u32::try_from(order.len()).expect("no more partitions than files"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The places in the list of the members of each partition.
    fn members(plan: &PartitionPlan) -> Vec<Vec<usize>> {
        let mut members = vec![Vec::new(); plan.count() as usize];
        for (index, &partition) in plan.partitions().iter().enumerate() {
            members[partition as usize].push(index);
        }
        members
    }

    #[test]
    fn control_file_and_labels_come_last() {
        let names = ["global/pg_control", "backup_label", "tablespace_map"];
        assert!(names.into_iter().all(comes_last));
        assert!(!["PG_VERSION", "global/1262"].into_iter().any(comes_last));
    }

    #[test]
    fn nothing_gives_no_partition() {
        let plan = PartitionPlan::new(&[], &PlanLimits::for_total(0, 2));
        assert_eq!((plan.count(), plan.partitions()), (0, &[][..]));
    }

    #[test]
    fn large_files_stand_alone_and_come_first() {
        let gib = 1u64 << 30;
        let limits = PlanLimits {
            max_bytes: gib,
            max_members: 6144,
            workers: 2,
        };
        let plan = PartitionPlan::new(&[8192, 3 * gib, gib, 8192], &limits);
        assert_eq!(members(&plan), [vec![1], vec![2], vec![0, 3]]);
    }

    #[test]
    fn small_cluster_still_feeds_every_worker() {
        let plan = PartitionPlan::new(&[40_000; 1000], &PlanLimits::for_total(40_000_000, 2));
        let members = members(&plan);
        assert_eq!(members.iter().map(Vec::len).collect::<Vec<_>>(), [500, 500]);
    }

    #[test]
    fn members_are_limited() {
        let plan = PartitionPlan::new(&vec![0; 7000], &PlanLimits::for_total(0, 1));
        let members = members(&plan);
        assert_eq!(
            members.iter().map(Vec::len).collect::<Vec<_>>(),
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
            let limits = PlanLimits { max_bytes, max_members, workers };
            let plan = PartitionPlan::new(&list, &limits);
            prop_assert_eq!(&plan, &PartitionPlan::new(&list, &limits));
            prop_assert_eq!(plan.partitions().len(), list.len());
            let mut before = u64::MAX;
            for members in members(&plan) {
                let bytes: u64 = members.iter().map(|&i| list[i]).sum();
                prop_assert!(!members.is_empty() && members.len() <= max_members);
                prop_assert!(bytes <= max_bytes || members.len() == 1);
                let work = bytes + members.len() as u64 * MEMBER_WEIGHT_BYTES;
                prop_assert!(work <= before);
                before = work;
            }
        }
    }
}
