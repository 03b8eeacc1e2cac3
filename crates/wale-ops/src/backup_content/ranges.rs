//! Which bytes of the partitions hold the files that are wanted, and where partitions can be divided, by the index beside the
//! manifest. The index is not trusted: what comes is held against the manifest, and what does not come is looked for in whole
//! partitions.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::ops::Range;

use wale_archive::parts::StoredPart;
use wale_archive::{Archive, ConsumeError};
use wale_format::{
    BackupName, Codec, FrameStart, IndexItem, IndexReader, IndexedFile, IndexedPartition, layout,
};

use crate::error::{Kind, OpError, Result};

/// Bytes that a frame costs while the index is read: two offsets, where the wanted files begin and end in it, whether it is wanted,
/// and whether a file begins with it.
const FRAME_COSTS: u64 = 16 + 8 + 8 + 1 + 1;

/// The frames of an index may take this share of the memory, an eighth: of 64 MiB 250,000 frames, which are 500 GB. Beyond, whole
/// partitions are read.
const MEMORY_SHARE: u64 = 8;

/// Parts of an object that are read alone as long as they are at most so much of it, in quarters; else the whole is, in one piece.
const WORTHWHILE_QUARTERS: u64 = 3;

/// Frames of a partition that follow each other, and what of their content is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FrameRun {
    /// Where in the object they lie.
    pub(super) stored: Range<u64>,
    /// Bytes of their content before the first header that is wanted.
    pub(super) skip: u64,
    /// Bytes from there to the end of the last file that is wanted: whole members.
    pub(super) bytes: u64,
}

/// What is read of the partitions that the index knows, by their numbers. A partition without runs has nothing that is wanted.
pub(super) type Ranges = BTreeMap<u32, Vec<FrameRun>>;

/// What is read of a partition that is read in part.
pub(super) fn runs_of<'a>(ranges: &'a Ranges, part: &StoredPart) -> Option<&'a [FrameRun]> {
    ranges.get(&part.number?).map(Vec::as_slice)
}

/// Reads the index of a backup, for the files of which `is_wanted` says so; none where there is no index that is of use.
pub(super) async fn ranges(
    archive: &Archive,
    backup: &BackupName,
    parts: &[StoredPart],
    is_wanted: impl Fn(&str) -> bool + Send + 'static,
) -> Option<Ranges> {
    read_index(archive, backup, parts, is_wanted, WantedFrames::ranges).await
}

/// Divides the partitions that have more than so many stored bytes into pieces of about as many, each of whole members; none where
/// there is no index that is of use.
pub(super) async fn divided(
    archive: &Archive,
    backup: &BackupName,
    parts: &[StoredPart],
    piece_bytes: u64,
) -> Option<Ranges> {
    let pieces = move |frames: &WantedFrames| frames.pieces(piece_bytes);
    read_index(archive, backup, parts, |_| true, pieces).await
}

async fn read_index(
    archive: &Archive,
    backup: &BackupName,
    parts: &[StoredPart],
    is_wanted: impl Fn(&str) -> bool + Send + 'static,
    found: impl FnOnce(&WantedFrames) -> Ranges + Send + 'static,
) -> Option<Ranges> {
    let key = Archive::key(&layout::frames(backup)).ok()?;
    let sizes = parts.iter();
    let sizes: BTreeMap<u32, u64> = sizes
        .filter(|part| part.codec == Codec::Zstd)
        .filter_map(|part| Some((part.number?, part.size)))
        .collect();
    let most = archive.budget().total() / MEMORY_SHARE / FRAME_COSTS;
    let read = move |plain: &mut dyn Read| {
        let mut wanted = WantedFrames::new(sizes, most);
        wanted.read(plain, is_wanted)?;
        Ok::<_, ConsumeError>(found(&wanted))
    };
    match archive.decode(&key, Codec::Zstd, read).await {
        Ok(ranges) => Some(ranges),
        Err(error) if error.kind == Kind::NotFound => None,
        Err(error) => {
            tracing::info!(%backup, "whole partitions are read, for the index of its files cannot be: {}", error.chain());
            None
        }
    }
}

/// The frames of a backup, and which of them are wanted.
#[derive(Debug)]
struct WantedFrames {
    /// Stored sizes of the partitions that there are.
    sizes: BTreeMap<u32, u64>,
    parts: BTreeMap<u32, WantedPart>,
    frames_left: u64,
}

#[derive(Debug)]
struct WantedPart {
    part: IndexedPartition,
    /// Of each frame where the first wanted file that begins in it begins.
    begins: Vec<Option<u64>>,
    /// Of each frame the end of the last wanted file that ends in it.
    ends: Vec<u64>,
    is_wanted: Vec<bool>,
    /// Of each frame whether a wanted file begins with it.
    is_border: Vec<bool>,
}

impl WantedFrames {
    fn new(sizes: BTreeMap<u32, u64>, frames_max: u64) -> Self {
        Self {
            sizes,
            parts: BTreeMap::new(),
            frames_left: frames_max,
        }
    }

    fn read(
        &mut self,
        plain: &mut dyn Read,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Result<(), ConsumeError> {
        let mut index = IndexReader::new(BufReader::new(plain))?;
        while let Some(item) = index.next_item()? {
            match item {
                IndexItem::Partition(part) => self.part(part)?,
                IndexItem::File(file) if is_wanted(&file.path) => self.file(&file)?,
                IndexItem::File(_) => {}
            }
        }
        Ok(())
    }

    fn part(&mut self, part: IndexedPartition) -> Result<(), OpError> {
        let number = part.number;
        if self.sizes.get(&number) != Some(&part.stored_bytes) {
            return Err(wrong(&format!("partition {number} has another size")));
        }
        let frames = part.frames.len();
        let Some(left) = self.frames_left.checked_sub(frames as u64) else {
            return Err(wrong("it has more frames than there is memory for"));
        };
        self.frames_left = left;
        let wanted = WantedPart {
            part,
            begins: vec![None; frames],
            ends: vec![0; frames],
            is_wanted: vec![false; frames],
            is_border: vec![false; frames],
        };
        match self.parts.insert(number, wanted) {
            None => Ok(()),
            Some(_) => Err(wrong(&format!("partition {number} is in it twice"))),
        }
    }

    fn file(&mut self, file: &IndexedFile) -> Result<(), OpError> {
        let part = self.parts.get_mut(&file.partition);
        match part.and_then(|part| part.want(file)) {
            Some(()) => Ok(()),
            None => Err(wrong(&format!("\"{}\" lies nowhere", file.path))),
        }
    }

    /// What is to be read.
    fn ranges(&self) -> Ranges {
        let parts = self.parts.iter();
        let worth = parts.filter_map(|(number, part)| {
            let runs = part.runs();
            let stored: u64 = runs
                .iter()
                .map(|run| run.stored.end - run.stored.start)
                .sum();
            let whole = part.part.stored_bytes;
            (stored / WORTHWHILE_QUARTERS <= whole / 4).then_some((*number, runs))
        });
        worth.collect()
    }

    /// The pieces of the partitions that are worth it.
    fn pieces(&self, piece_bytes: u64) -> Ranges {
        let parts = self.parts.iter().filter_map(|(number, part)| {
            let pieces = part.pieces(part.part.stored_bytes.div_ceil(piece_bytes.max(1)));
            (pieces.len() > 1).then_some((*number, pieces))
        });
        parts.collect()
    }
}

impl WantedPart {
    /// Notes a wanted file; none where it does not lie in the partition.
    fn want(&mut self, file: &IndexedFile) -> Option<()> {
        let end = file.offset.checked_add(file.bytes)?;
        if file.bytes == 0 || end > self.part.plain_bytes {
            return None;
        }
        let frames = &self.part.frames;
        let first = frames.partition_point(|frame| frame.plain <= file.offset) - 1;
        let last = frames.partition_point(|frame| frame.plain < end) - 1;
        self.is_wanted[first..=last].fill(true);
        self.is_border[first] |= frames[first].plain == file.offset;
        let begin = self.begins[first].get_or_insert(file.offset);
        *begin = file.offset.min(*begin);
        self.ends[last] = end.max(self.ends[last]);
        Some(())
    }

    /// The wanted frames, those that follow each other together.
    fn runs(&self) -> Vec<FrameRun> {
        let frames = &self.part.frames;
        let mut runs = Vec::new();
        let mut next = 0;
        while let Some(ahead) = self.is_wanted[next..].iter().position(|wanted| *wanted) {
            let first = next + ahead;
            let rest = &self.is_wanted[first..];
            next = first + rest.iter().take_while(|wanted| **wanted).count();
            // The first was marked by a file that begins in it, the last by one that ends in it.
            let begin = self.begins[first].unwrap_or(frames[first].plain);
            let end = self.ends[next - 1];
            let stored_end = frames.get(next).map(|frame| frame.stored);
            runs.push(FrameRun {
                stored: frames[first].stored..stored_end.unwrap_or(self.part.stored_bytes),
                skip: begin - frames[first].plain,
                bytes: end.saturating_sub(begin),
            });
        }
        runs
    }

    /// The whole in so many pieces, or fewer: each begins where a frame and a file do.
    fn pieces(&self, count: u64) -> Vec<FrameRun> {
        let frames = &self.part.frames;
        let mut begins = vec![0];
        for piece in 1..count {
            let at = self.part.plain_bytes / count * piece;
            let near = frames.partition_point(|frame| frame.plain < at);
            let border = self.is_border.iter().skip(near).position(|border| *border);
            match border.map(|ahead| near + ahead) {
                Some(begin) if begins.last() < Some(&begin) => begins.push(begin),
                Some(_) => {}
                None => break,
            }
        }
        let ends = begins.iter().skip(1).map(|next| frames[*next]);
        let end = FrameStart {
            plain: self.part.plain_bytes,
            stored: self.part.stored_bytes,
        };
        let piece = |(begin, end): (&usize, FrameStart)| FrameRun {
            stored: frames[*begin].stored..end.stored,
            skip: 0,
            bytes: end.plain - frames[*begin].plain,
        };
        begins.iter().zip(ends.chain([end])).map(piece).collect()
    }
}

fn wrong(why: &str) -> OpError {
    OpError::new(
        Kind::CorruptData,
        format!("the index of the files is wrong: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use wale_format::frame_index;

    use super::*;

    /// A partition of four frames: a file in one, one that fills two, two in the last.
    fn index() -> (IndexedPartition, Vec<IndexedFile>) {
        let frames = [(0, 0), (256, 100), (4000, 1000), (8000, 2000)];
        let frames = frames.map(|(plain, stored)| FrameStart { plain, stored });
        let part = IndexedPartition {
            number: 1,
            plain_bytes: 10_240,
            stored_bytes: 2500,
            frames: frames.into(),
        };
        let file = |path: &str, offset, bytes| IndexedFile {
            path: path.to_owned(),
            partition: 1,
            offset,
            bytes,
        };
        let files = [
            file("a", 0, 1024),
            file("b", 1024, 1024),
            file("large", 2048, 3000),
            file("c", 8000, 512),
            file("d", 8512, 512),
        ];
        (part, files.into())
    }

    fn wanted(paths: &[&str]) -> Result<Ranges, ConsumeError> {
        let (part, files) = index();
        let mut text = Vec::new();
        frame_index::write([part], files, &mut text).unwrap();
        let mut wanted = WantedFrames::new([(1, 2500)].into(), 4);
        let read = wanted.read(&mut &text[..], |path| paths.contains(&path));
        read.map(|()| wanted.ranges())
    }

    fn run(stored: Range<u64>, skip: u64, bytes: u64) -> FrameRun {
        FrameRun {
            stored,
            skip,
            bytes,
        }
    }

    #[test]
    fn of_a_partition_the_frames_are_read_that_hold_what_is_wanted() {
        for (paths, runs) in [
            (&[][..], vec![]),
            (&["a"], vec![run(0..1000, 0, 1024)]),
            (&["b"], vec![run(100..1000, 768, 1024)]),
            (&["d"], vec![run(2000..2500, 512, 512)]),
            (&["c", "d"], vec![run(2000..2500, 0, 1024)]),
            (
                &["a", "c"],
                vec![run(0..1000, 0, 1024), run(2000..2500, 0, 512)],
            ),
        ] {
            let found = wanted(paths).unwrap();
            assert_eq!(found, Ranges::from([(1, runs)]), "{paths:?}");
        }
        // Nearly all of it: it is read whole.
        assert_eq!(wanted(&["large"]).unwrap(), Ranges::new());
        let (part, files) = index();
        let mut frames = WantedFrames::new([(1, 2500)].into(), 4);
        frames.part(part).unwrap();
        frames.file(&files[2]).unwrap();
        assert_eq!(frames.parts[&1].runs(), [run(100..2000, 1792, 3000)]);
    }

    #[test]
    fn a_partition_is_divided_where_a_frame_and_a_file_begin() {
        let (part, files) = index();
        let mut frames = WantedFrames::new([(1, 2500)].into(), 4);
        frames.part(part).unwrap();
        for file in &files {
            frames.file(file).unwrap();
        }
        let two = vec![run(0..2000, 0, 8000), run(2000..2500, 0, 2240)];
        for (piece_bytes, pieces) in [(2500, None), (2499, Some(&two)), (100, Some(&two))] {
            let found = frames.pieces(piece_bytes);
            assert_eq!(found.get(&1), pieces, "{piece_bytes}");
        }
        frames
            .file(&IndexedFile {
                path: "e".to_owned(),
                partition: 1,
                offset: 4000,
                bytes: 512,
            })
            .unwrap();
        let three = [
            run(0..1000, 0, 4000),
            run(1000..2000, 0, 4000),
            run(2000..2500, 0, 2240),
        ];
        assert_eq!(frames.parts[&1].pieces(3), three);
        // The half of it is nearer to the end than to the border before.
        assert_eq!(frames.parts[&1].pieces(2), two);
    }

    #[test]
    fn an_index_that_does_not_fit_the_backup_is_refused() {
        let (part, files) = index();
        let read = |sizes: &[(u32, u64)], most, parts: Vec<IndexedPartition>, files: Vec<_>| {
            let mut text = Vec::new();
            frame_index::write(parts, files, &mut text).unwrap();
            let sizes = sizes.iter().copied().collect();
            WantedFrames::new(sizes, most).read(&mut &text[..], |_| true)
        };
        let parts = || vec![part.clone()];
        assert!(read(&[(1, 2500)], 4, parts(), files.clone()).is_ok());
        assert!(
            read(&[(1, 2501)], 4, parts(), vec![]).is_err(),
            "another size"
        );
        assert!(read(&[], 4, parts(), vec![]).is_err(), "no such partition");
        assert!(read(&[(1, 2500)], 3, parts(), vec![]).is_err(), "no memory");
        let twice = vec![part.clone(), part.clone()];
        assert!(read(&[(1, 2500)], 9, twice, vec![]).is_err(), "twice");
        for (partition, offset, bytes) in [(2, 0, 1), (1, 10_240, 1), (1, 0, 0), (1, 5, u64::MAX)] {
            let file = IndexedFile {
                path: "x".to_owned(),
                partition,
                offset,
                bytes,
            };
            let refused = read(&[(1, 2500)], 4, parts(), vec![file]);
            assert!(refused.is_err(), "{partition} {offset} {bytes}");
        }
    }
}
