//! Where the files of a base backup lie: `wale_frames.json.zst`, beside the manifest. With it one file is fetched by reading the frames
//! that hold it, and nothing else of its partition.
//!
//! ```text
//! {"version": 1}
//! {"partition": 1, "plain": 70000, "stored": 9000, "frames": [[0, 0], [256, 140], …]}
//! {"file": "base/5/1259", "partition": 1, "offset": 512, "bytes": 8704}
//! …
//! ```
//!
//! One JSON value a line. `frames` are the offsets at which frames begin, in the partition's tar and in its object; `plain` and `stored`
//! are the lengths of both. `offset` is where a file's first header begins in the tar, and `bytes` how much its headers, its content
//! and the padding take. All partitions come before all files.
//!
//! It only saves work. What is read by it is held against the manifest like everything, and where it is lost, damaged or wrong whole
//! partitions are read. Only partitions of zstd that are not encrypted are in it: of others no part can be read alone.
//!
//! Refuses to know: stores, files, which file is wanted.

use std::borrow::Borrow;
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};

use crate::FrameStart;

/// Bytes of a line, at most: a path of 4 KiB, or 32,768 frames, which are 64 GiB.
const LINE_MAX: usize = 1 << 20;
/// Frames of a partition that are listed, at most; one with more is read whole. Two numbers of a TiB each take 26 bytes.
const FRAMES_MAX: usize = LINE_MAX / 32;

/// What this version writes and reads.
const VERSION: u32 = 1;

/// A partition that is made of frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedPartition {
    /// Its number.
    pub number: u32,
    /// Bytes of its tar.
    pub plain_bytes: u64,
    /// Bytes of its object.
    pub stored_bytes: u64,
    /// Where its frames begin, the first at 0.
    pub frames: Vec<FrameStart>,
}

/// A file, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexedFile {
    /// Path relative to the data directory.
    pub path: String,
    /// The number of its partition.
    pub partition: u32,
    /// Offset of its first header in the partition's tar.
    pub offset: u64,
    /// Bytes that it takes there: headers, content and padding.
    pub bytes: u64,
}

/// What an index says, item by item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexItem {
    /// A partition.
    Partition(IndexedPartition),
    /// A file.
    File(IndexedFile),
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Partition {
        partition: u32,
        plain: u64,
        stored: u64,
        frames: Vec<(u64, u64)>,
    },
    File {
        file: String,
        partition: u32,
        offset: u64,
        bytes: u64,
    },
}

/// Writes an index, partitions first. A partition of very many frames is left out.
///
/// # Errors
/// Those of the sink.
pub fn write(
    partitions: impl IntoIterator<Item = impl Borrow<IndexedPartition>>,
    files: impl IntoIterator<Item = IndexedFile>,
    sink: &mut dyn Write,
) -> io::Result<()> {
    put(&Head { version: VERSION }, sink)?;
    for part in partitions {
        let part: &IndexedPartition = part.borrow();
        if part.frames.len() > FRAMES_MAX {
            continue;
        }
        let frames = part.frames.iter();
        let line = Line::Partition {
            partition: part.number,
            plain: part.plain_bytes,
            stored: part.stored_bytes,
            frames: frames.map(|frame| (frame.plain, frame.stored)).collect(),
        };
        put(&line, sink)?;
    }
    for file in files {
        let line = Line::File {
            file: file.path,
            partition: file.partition,
            offset: file.offset,
            bytes: file.bytes,
        };
        put(&line, sink)?;
    }
    Ok(())
}

fn put(line: &impl Serialize, sink: &mut dyn Write) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    sink.write_all(&text)
}

/// Reads an index line by line.
#[derive(Debug)]
pub struct IndexReader<R> {
    source: R,
    line: Vec<u8>,
}

impl<R: BufRead> IndexReader<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// Those of the source; `InvalidData` where it is no index that this version reads.
    pub fn new(source: R) -> io::Result<Self> {
        let mut reader = Self {
            source,
            line: Vec::new(),
        };
        match reader.next_line::<Head>()? {
            Some(Head { version: VERSION }) => Ok(reader),
            Some(Head { version }) => Err(wrong(format!("it is of version {version}"))),
            None => Err(wrong("it is empty".to_owned())),
        }
    }

    /// The next item, none at the end.
    ///
    /// # Errors
    /// Those of the source; `InvalidData` for what is no item.
    pub fn next_item(&mut self) -> io::Result<Option<IndexItem>> {
        let item = match self.next_line::<Line>()? {
            None => return Ok(None),
            Some(Line::File {
                file,
                partition,
                offset,
                bytes,
            }) => IndexItem::File(IndexedFile {
                path: file,
                partition,
                offset,
                bytes,
            }),
            Some(Line::Partition {
                partition,
                plain,
                stored,
                frames,
            }) => {
                let frames = frames.into_iter();
                let part = IndexedPartition {
                    number: partition,
                    plain_bytes: plain,
                    stored_bytes: stored,
                    frames: frames
                        .map(|(plain, stored)| FrameStart { plain, stored })
                        .collect(),
                };
                check(&part)?;
                IndexItem::Partition(part)
            }
        };
        Ok(Some(item))
    }

    fn next_line<T: for<'de> Deserialize<'de>>(&mut self) -> io::Result<Option<T>> {
        self.line.clear();
        let mut bounded = (&mut self.source).take(LINE_MAX as u64);
        if bounded.read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        if self.line.pop() != Some(b'\n') {
            return Err(wrong("a line is cut or far too long".to_owned()));
        }
        let read = serde_json::from_slice(&self.line);
        read.map(Some).map_err(|error| wrong(error.to_string()))
    }
}

/// Refuses frames that do not follow each other from 0 on.
fn check(part: &IndexedPartition) -> io::Result<()> {
    let begins = part.frames.first().is_some_and(|first| {
        *first
            == FrameStart {
                plain: 0,
                stored: 0,
            }
    });
    let end = FrameStart {
        plain: part.plain_bytes,
        stored: part.stored_bytes,
    };
    let ends = part.frames.iter().skip(1).chain([&end]);
    let mut pairs = part.frames.iter().zip(ends);
    let follow = pairs.all(|(one, next)| one.plain < next.plain && one.stored < next.stored);
    if begins && follow {
        return Ok(());
    }
    Err(wrong(format!(
        "the frames of partition {} are out of order",
        part.number
    )))
}

fn wrong(reason: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(starts: &[(u64, u64)]) -> Vec<FrameStart> {
        let starts = starts.iter();
        starts
            .map(|&(plain, stored)| FrameStart { plain, stored })
            .collect()
    }

    fn part(starts: &[(u64, u64)]) -> IndexedPartition {
        IndexedPartition {
            number: 3,
            plain_bytes: 70_000,
            stored_bytes: 9000,
            frames: frames(starts),
        }
    }

    fn read(text: &[u8]) -> io::Result<Vec<IndexItem>> {
        let mut reader = IndexReader::new(text)?;
        let mut items = Vec::new();
        while let Some(item) = reader.next_item()? {
            items.push(item);
        }
        Ok(items)
    }

    #[test]
    fn what_is_written_is_read() {
        let part = part(&[(0, 0), (256, 140)]);
        let file = IndexedFile {
            path: "pg_tblspc/7/PG_15_1/5/\u{f7ff}\"6".to_owned(),
            partition: 3,
            offset: 512,
            bytes: 8704,
        };
        let many = IndexedPartition {
            frames: vec![part.frames[0]; FRAMES_MAX + 1],
            ..part.clone()
        };
        let mut text = Vec::new();
        write([part.clone(), many], [file.clone()], &mut text).expect("a vector");
        let items = read(&text).expect("whole");
        let expected = [IndexItem::Partition(part), IndexItem::File(file)];
        assert_eq!(items, expected);
        assert!(read(&text[..text.len() - 1]).is_err(), "a cut line");
    }

    #[test]
    fn what_is_no_index_is_refused() {
        let head = "{\"version\":1}\n";
        let frames = |frames: &str| {
            format!("{head}{{\"partition\":1,\"plain\":9,\"stored\":9,\"frames\":{frames}}}\n")
        };
        assert_eq!(read(frames("[[0,0],[3,2]]").as_bytes()).unwrap().len(), 1);
        for text in [
            String::new(),
            "{\"version\":2}\n".to_owned(),
            format!("{head}[]\n"),
            format!("{head}{{\"file\":\"a\"}}\n"),
            format!("{head}\n"),
            format!("{head}{}", "x".repeat(LINE_MAX + 5)),
            frames("[]"),
            frames("[[1,0]]"),
            frames("[[0,0],[3,2],[3,4]]"),
            frames("[[0,0],[9,2]]"),
            frames("[[0,0],[3,9]]"),
        ] {
            let error = read(text.as_bytes()).expect_err(&text[..text.len().min(60)]);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
    }
}
