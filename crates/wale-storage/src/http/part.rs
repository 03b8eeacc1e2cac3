//! A part of a body in memory, with the sums that vouch for it.

use futures_util::TryStreamExt;
use futures_util::stream::{Fuse, StreamExt};
use md5::{Digest as _, Md5};
use ring::digest;

use bytes::Bytes;

use super::slots::PartMemory;
use super::transport::Payload;
use crate::{Body, BodyError};

/// A gathered part, and the memory that it stands for.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) payload: Payload,
    pub(crate) sums: Sums,
    /// Whether the body ended with it.
    pub(crate) is_last: bool,
    _memory: PartMemory,
}

/// The sums of a part that were wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) sha256: Option<[u8; 32]>,
    /// The highest byte first, as every store wants it.
    pub(crate) crc32c: Option<[u8; 4]>,
    /// CRC-64/NVME; stores differ in the order of its bytes.
    pub(crate) crc64: Option<u64>,
    pub(crate) md5: Option<[u8; 16]>,
}

impl Sums {
    /// Those of a short body.
    pub(crate) fn of(body: &[u8], wanted: SumsWanted) -> Self {
        let mut summing = Summing::new(wanted);
        summing.update(body);
        summing.finish()
    }
}

/// Which sums are taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says whether one sum is taken"
)]
pub(crate) struct SumsWanted {
    pub(crate) sha256: bool,
    pub(crate) crc32c: bool,
    pub(crate) crc64: bool,
    pub(crate) md5: bool,
}

/// A body of which parts are cut.
pub(crate) struct Cutter {
    body: Fuse<Body>,
    rest: Bytes,
    wanted: SumsWanted,
    passing: Option<Passing>,
}

/// A whole body, for a comparison with what is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Whole {
    crc32c: u64,
    bytes: u64,
}

impl Whole {
    /// A body without bytes.
    pub(crate) fn of_nothing() -> Self {
        Passing::new().whole()
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its CRC-32C, the highest byte first, as every store wants it.
    pub(crate) fn crc32c(&self) -> [u8; 4] {
        crc32c_bytes(self.crc32c)
    }
}

fn crc32c_bytes(sum: u64) -> [u8; 4] {
    let sum = u32::try_from(sum).expect("a CRC-32 has 32 bits");
    sum.to_be_bytes()
}

/// A whole body that goes by.
#[derive(Debug)]
pub(crate) struct Passing {
    crc32c: crc_fast::Digest,
    bytes: u64,
}

impl Passing {
    pub(crate) fn new() -> Self {
        Self {
            crc32c: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi),
            bytes: 0,
        }
    }

    pub(crate) fn update(&mut self, chunk: &[u8]) {
        self.crc32c.update(chunk);
        self.bytes += chunk.len() as u64;
    }

    /// What has gone by so far.
    pub(crate) fn whole(&self) -> Whole {
        Whole {
            crc32c: self.crc32c.finalize(),
            bytes: self.bytes,
        }
    }
}

impl Cutter {
    /// Cuts `body`.
    pub(crate) fn new(body: Body, wanted: SumsWanted) -> Self {
        Self {
            body: body.fuse(),
            rest: Bytes::new(),
            wanted,
            passing: None,
        }
    }

    /// The same, with a sum of the whole body, for a comparison with the object itself.
    pub(crate) fn with_whole(self) -> Self {
        Self {
            passing: Some(Passing::new()),
            ..self
        }
    }

    /// What was cut so far, where it is wanted.
    pub(crate) fn whole(&self) -> Option<Whole> {
        self.passing.as_ref().map(Passing::whole)
    }

    /// Gathers the next part: as long as its memory, or what is left of the body.
    pub(crate) async fn next(&mut self, memory: PartMemory) -> Result<Part, BodyError> {
        let mut payload = Payload::default();
        let mut sums = Summing::new(self.wanted);
        let mut is_last = false;
        while payload.len() < memory.bytes {
            if self.rest.is_empty() {
                let Some(chunk) = self.body.try_next().await? else {
                    is_last = true;
                    break;
                };
                self.rest = chunk;
                continue;
            }
            let room = usize::try_from(memory.bytes - payload.len()).unwrap_or(usize::MAX);
            let chunk = self.rest.split_to(self.rest.len().min(room));
            sums.update(&chunk);
            if let Some(passing) = &mut self.passing {
                passing.update(&chunk);
            }
            payload.push(chunk);
        }
        Ok(Part {
            payload,
            sums: sums.finish(),
            is_last,
            _memory: memory,
        })
    }
}

/// Sums that are taken while the part is gathered, chunk by chunk: 1 MiB takes 1 ms or less.
struct Summing {
    sha256: Option<digest::Context>,
    crc32c: Option<crc_fast::Digest>,
    crc64: Option<crc_fast::Digest>,
    md5: Option<Md5>,
}

impl Summing {
    fn new(wanted: SumsWanted) -> Self {
        Self {
            sha256: wanted.sha256.then(|| digest::Context::new(&digest::SHA256)),
            crc32c: wanted
                .crc32c
                .then(|| crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)),
            crc64: wanted
                .crc64
                .then(|| crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)),
            md5: wanted.md5.then(Md5::new),
        }
    }

    fn update(&mut self, chunk: &[u8]) {
        if let Some(sum) = &mut self.sha256 {
            sum.update(chunk);
        }
        if let Some(sum) = &mut self.crc32c {
            sum.update(chunk);
        }
        if let Some(sum) = &mut self.crc64 {
            sum.update(chunk);
        }
        if let Some(sum) = &mut self.md5 {
            sum.update(chunk);
        }
    }

    fn finish(self) -> Sums {
        Sums {
            sha256: self.sha256.map(|sum| {
                let sum = sum.finish();
                sum.as_ref().try_into().expect("a SHA-256 has 32 bytes")
            }),
            crc32c: self.crc32c.map(|sum| crc32c_bytes(sum.finalize())),
            crc64: self.crc64.map(|sum| sum.finalize()),
            md5: self.md5.map(|sum| sum.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots::Slots;
    use super::super::text::hex;
    use super::*;

    const SLOT: usize = 5 << 20;

    async fn cut(chunks: &[usize]) -> Vec<(u64, bool)> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|size| Ok(Bytes::from(vec![7; *size])))
            .collect();
        let body = futures_util::stream::iter(chunks).boxed();
        let mut cutter = Cutter::new(body, SumsWanted::default());
        let slots = Slots::new(0, SLOT as u64);
        let mut parts = Vec::new();
        for number in 1.. {
            let part = cutter
                .next(slots.hold(number).await)
                .await
                .expect("gathers");
            parts.push((part.payload.len(), part.is_last));
            if part.is_last {
                break;
            }
        }
        parts
    }

    #[tokio::test]
    async fn parts_are_full_but_the_last() {
        const FULL: u64 = SLOT as u64;
        assert_eq!(cut(&[]).await, [(0, true)]);
        assert_eq!(cut(&[0, 3, 0]).await, [(3, true)]);
        assert_eq!(cut(&[SLOT, 0]).await, [(FULL, false), (0, true)]);
        assert_eq!(cut(&[SLOT - 1, 3]).await, [(FULL, false), (2, true)]);
        assert_eq!(
            cut(&[3 * SLOT + 1]).await,
            [(FULL, false), (FULL, false), (FULL, false), (1, true)]
        );
    }

    #[test]
    fn sums_of_known_texts() {
        let sum = |wanted: SumsWanted, chunks: &[&[u8]]| {
            let mut summing = Summing::new(wanted);
            for chunk in chunks {
                summing.update(chunk);
            }
            summing.finish()
        };
        let all = SumsWanted {
            sha256: true,
            crc32c: true,
            crc64: true,
            md5: true,
        };
        let zeros = sum(all, &[&[0; 20], &[0; 12]]);
        // RFC 3720, B.4: 32 bytes of zeros have 0x8A9136AA.
        assert_eq!(zeros.crc32c, Some([0x8a, 0x91, 0x36, 0xaa]));
        // Azure's libraries have this one among their tests.
        let hello = sum(all, &[b"Hello ", b"World!"]);
        assert_eq!(hello.crc64, Some(208_604_604_655_264_165));
        let md5 = zeros.md5.expect("wanted");
        assert_eq!(hex(&md5), "70bc8f4b72a86921468bf8e8441dce51");
        let sha256 = zeros.sha256.expect("wanted");
        assert!(hex(&sha256).starts_with("66687aadf862bd77"));
        let nothing = sum(all, &[]);
        assert_eq!(
            hex(&nothing.md5.expect("wanted")),
            "d41d8cd98f00b204e9800998ecf8427e"
        );
        assert!(hex(&nothing.sha256.expect("wanted")).starts_with("e3b0c442"));
        assert_eq!(sum(SumsWanted::default(), &[b"x"]), Sums::default());
    }
}
