//! A part of a body in memory, with what vouches for it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::TryStreamExt;
use futures_util::stream::{Fuse, StreamExt};
use md5::{Digest as _, Md5};
use ring::digest;

use bytes::Bytes;

use super::options::UploadChecksum;
use super::sign::hex;
use super::slots::Held;
use super::transport::Payload;
use crate::{Body, BodyError};

/// A gathered part, and the memory that it stands for.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) payload: Payload,
    /// For the signature, when TLS does not vouch for the body.
    pub(super) sha256: Option<String>,
    pub(super) checksum: Option<Checksum>,
    /// What its `ETag` must be, when nothing but that tells whether the store has the right bytes.
    pub(super) etag: Option<String>,
    /// Whether the body ended with it.
    pub(super) is_last: bool,
    _held: Held,
}

/// What the server compares the part with.
#[derive(Debug, Clone)]
pub(super) struct Checksum {
    pub(super) header: &'static str,
    /// Its element in the list of parts; MD5 has none.
    pub(super) element: Option<&'static str>,
    pub(super) value: String,
}

/// A body of which parts are cut.
pub(super) struct Cutter {
    body: Fuse<Body>,
    rest: Bytes,
    wanted: Wanted,
    passing: Option<Passing>,
}

/// A whole body, for a comparison with what is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole {
    crc32c: u64,
    bytes: u64,
}

/// A whole body that goes by.
#[derive(Debug)]
pub(super) struct Passing {
    crc32c: crc_fast::Digest,
    bytes: u64,
}

impl Passing {
    pub(super) fn new() -> Self {
        Self {
            crc32c: crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi),
            bytes: 0,
        }
    }

    pub(super) fn update(&mut self, chunk: &[u8]) {
        self.crc32c.update(chunk);
        self.bytes += chunk.len() as u64;
    }

    /// What has gone by so far.
    pub(super) fn whole(&self) -> Whole {
        Whole {
            crc32c: self.crc32c.finalize(),
            bytes: self.bytes,
        }
    }
}

/// Which sums are taken of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// What is sent along.
    pub(super) checksum: UploadChecksum,
    /// For the signature.
    pub(super) sha256: bool,
    /// For a comparison with the `ETag` of the answer.
    pub(super) etag: bool,
    /// For a comparison with the object itself.
    pub(super) whole: bool,
}

impl Cutter {
    /// Cuts `body`.
    pub(super) fn new(body: Body, wanted: Wanted) -> Self {
        Self {
            body: body.fuse(),
            rest: Bytes::new(),
            wanted,
            passing: wanted.whole.then(Passing::new),
        }
    }

    /// What was cut so far, where it is wanted.
    pub(super) fn whole(&self) -> Option<Whole> {
        self.passing.as_ref().map(Passing::whole)
    }

    /// Gathers the next part: as long as its memory, or what is left of the body.
    pub(super) async fn next(&mut self, held: Held) -> Result<Part, BodyError> {
        let mut payload = Payload::default();
        let mut sums = Sums::new(self.wanted);
        let mut is_last = false;
        while payload.len() < held.bytes {
            if self.rest.is_empty() {
                let Some(chunk) = self.body.try_next().await? else {
                    is_last = true;
                    break;
                };
                self.rest = chunk;
                continue;
            }
            let room = usize::try_from(held.bytes - payload.len()).unwrap_or(usize::MAX);
            let chunk = self.rest.split_to(self.rest.len().min(room));
            sums.update(&chunk);
            if let Some(passing) = &mut self.passing {
                passing.update(&chunk);
            }
            payload.push(chunk);
        }
        let Finished {
            sha256,
            checksum,
            etag,
        } = sums.finish();
        Ok(Part {
            payload,
            sha256,
            checksum,
            etag,
            is_last,
            _held: held,
        })
    }
}

/// Sums that are taken while the part is gathered, chunk by chunk: 1 MiB takes 1 ms or less.
struct Sums {
    sha256: Option<digest::Context>,
    crc32c: Option<crc_fast::Digest>,
    md5: Option<Md5>,
    wanted: Wanted,
}

/// The sums of a part, as they are used.
struct Finished {
    sha256: Option<String>,
    checksum: Option<Checksum>,
    etag: Option<String>,
}

impl Sums {
    fn new(wanted: Wanted) -> Self {
        let checksum = wanted.checksum;
        let sha256 = wanted.sha256 || checksum == UploadChecksum::Sha256;
        let md5 = wanted.etag || checksum == UploadChecksum::Md5;
        Self {
            sha256: sha256.then(|| digest::Context::new(&digest::SHA256)),
            crc32c: (checksum == UploadChecksum::Crc32c)
                .then(|| crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)),
            md5: md5.then(Md5::new),
            wanted,
        }
    }

    fn update(&mut self, chunk: &[u8]) {
        if let Some(sum) = &mut self.sha256 {
            sum.update(chunk);
        }
        if let Some(sum) = &mut self.crc32c {
            sum.update(chunk);
        }
        if let Some(sum) = &mut self.md5 {
            sum.update(chunk);
        }
    }

    fn finish(self) -> Finished {
        let sha256 = self.sha256.map(digest::Context::finish);
        let md5 = self.md5.map(Md5::finalize);
        // The sum has 32 bits; S3 wants them with the highest byte first.
        let crc32c = self.crc32c.map(|sum| {
            let sum = u32::try_from(sum.finalize()).expect("a CRC-32 has 32 bits");
            sum.to_be_bytes()
        });
        let sent = match self.wanted.checksum {
            UploadChecksum::Crc32c => crc32c.map(|sum| {
                let value = BASE64_STANDARD.encode(sum);
                ("x-amz-checksum-crc32c", Some("ChecksumCRC32C"), value)
            }),
            UploadChecksum::Sha256 => sha256.map(|sum| {
                let value = BASE64_STANDARD.encode(sum);
                ("x-amz-checksum-sha256", Some("ChecksumSHA256"), value)
            }),
            UploadChecksum::Md5 => {
                md5.map(|sum| ("content-md5", None, BASE64_STANDARD.encode(sum)))
            }
            UploadChecksum::None => None,
        };
        Finished {
            sha256: sha256.map(|sum| hex(sum.as_ref())),
            checksum: sent.map(|(header, element, value)| Checksum {
                header,
                element,
                value,
            }),
            etag: md5.filter(|_| self.wanted.etag).map(|sum| hex(&sum)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::slots::Slots;

    fn wanted(checksum: UploadChecksum) -> Wanted {
        Wanted {
            checksum,
            sha256: false,
            etag: false,
            whole: false,
        }
    }

    async fn cut(chunks: &[usize]) -> Vec<(u64, bool)> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|size| Ok(Bytes::from(vec![7; *size])))
            .collect();
        let body = futures_util::stream::iter(chunks).boxed();
        let mut cutter = Cutter::new(body, wanted(UploadChecksum::Crc32c));
        let slots = Slots::new(0);
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
        const FULL: u64 = 5 << 20;
        let slot = 5 << 20;
        assert_eq!(cut(&[]).await, [(0, true)]);
        assert_eq!(cut(&[0, 3, 0]).await, [(3, true)]);
        assert_eq!(cut(&[slot, 0]).await, [(FULL, false), (0, true)]);
        assert_eq!(cut(&[slot - 1, 3]).await, [(FULL, false), (2, true)]);
        assert_eq!(
            cut(&[3 * slot + 1]).await,
            [(FULL, false), (FULL, false), (FULL, false), (1, true)]
        );
    }

    #[test]
    fn sums_of_known_texts() {
        for (checksum, header, value) in [
            // RFC 3720, B.4: 32 bytes of zeros have 0x8A9136AA.
            (UploadChecksum::Crc32c, "x-amz-checksum-crc32c", "ipE2qg=="),
            (
                UploadChecksum::Md5,
                "content-md5",
                "cLyPS3KoaSFGi/joRB3OUQ==",
            ),
            (
                UploadChecksum::Sha256,
                "x-amz-checksum-sha256",
                "Zmh6rfhivXdsj8GLjp+OIAiXFIVu4jOzkCpZHQ1fKSU=",
            ),
        ] {
            let mut sums = Sums::new(wanted(checksum));
            sums.update(&[0; 20]);
            sums.update(&[0; 12]);
            let sum = sums.finish().checksum.expect("a sum");
            assert_eq!((sum.header, sum.value.as_str()), (header, value));
        }
        let finished = Sums::new(Wanted {
            checksum: UploadChecksum::None,
            sha256: true,
            etag: true,
            whole: false,
        })
        .finish();
        assert!(finished.checksum.is_none());
        assert!(
            finished
                .sha256
                .expect("for the signature")
                .starts_with("e3b0c442")
        );
        assert_eq!(
            finished.etag.expect("for the answer"),
            "d41d8cd98f00b204e9800998ecf8427e"
        );
    }
}
