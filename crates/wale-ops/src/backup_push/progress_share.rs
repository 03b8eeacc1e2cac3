//! What one partition adds to the progress of its backup.

use wale_pipeline::Progress;

/// A partition's part of the progress. A second attempt of the same partition counts only what is new.
pub(super) struct ProgressShare<'a> {
    progress: &'a Progress,
    bytes: Tally,
    files: Tally,
}

/// What was counted in this attempt, and what was reported in all.
#[derive(Default)]
struct Tally {
    now: u64,
    reported: u64,
}

impl Tally {
    /// Adds and returns what was not reported yet.
    fn add(&mut self, count: u64) -> u64 {
        self.now += count;
        let news = self.now.saturating_sub(self.reported);
        self.reported += news;
        news
    }
}

impl<'a> ProgressShare<'a> {
    /// That of a partition of which nothing was read yet.
    pub(super) fn new(progress: &'a Progress) -> Self {
        Self {
            progress,
            bytes: Tally::default(),
            files: Tally::default(),
        }
    }

    /// Another attempt begins: what was reported already is not reported again.
    pub(super) fn begin_again(&mut self) {
        self.bytes.now = 0;
        self.files.now = 0;
    }

    /// Adds bytes that were read, or that need not be read.
    pub(super) fn add_bytes(&mut self, count: u64) {
        self.progress.add(self.bytes.add(count));
    }

    /// Adds a file that was read.
    pub(super) fn add_file(&mut self) {
        self.progress.add_files(self.files.add(1));
    }
}
