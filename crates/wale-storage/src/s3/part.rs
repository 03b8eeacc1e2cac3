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
    checksum: UploadChecksum,
    with_sha256: bool,
}

impl Cutter {
    /// Cuts `body`. `with_sha256` when signatures cover bodies.
    pub(super) fn new(body: Body, checksum: UploadChecksum, with_sha256: bool) -> Self {
        Self {
            body: body.fuse(),
            rest: Bytes::new(),
            checksum,
            with_sha256,
        }
    }

    /// Gathers the next part: as long as its memory, or what is left of the body.
    pub(super) async fn next(&mut self, held: Held) -> Result<Part, BodyError> {
        let mut payload = Payload::default();
        let mut sums = Sums::new(self.checksum, self.with_sha256);
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
            payload.push(chunk);
        }
        let (sha256, checksum) = sums.finish();
        Ok(Part {
            payload,
            sha256,
            checksum,
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
    sends_sha256: bool,
}

impl Sums {
    fn new(checksum: UploadChecksum, with_sha256: bool) -> Self {
        let sends_sha256 = checksum == UploadChecksum::Sha256;
        Self {
            sha256: (with_sha256 || sends_sha256).then(|| digest::Context::new(&digest::SHA256)),
            crc32c: (checksum == UploadChecksum::Crc32c)
                .then(|| crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi)),
            md5: (checksum == UploadChecksum::Md5).then(Md5::new),
            sends_sha256,
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

    fn finish(self) -> (Option<String>, Option<Checksum>) {
        let sha256 = self.sha256.map(digest::Context::finish);
        let checksum = if let Some(sum) = self.crc32c {
            // The sum has 32 bits; S3 wants them with the highest byte first.
            let sum = u32::try_from(sum.finalize()).unwrap_or(u32::MAX);
            Some((
                "x-amz-checksum-crc32c",
                Some("ChecksumCRC32C"),
                BASE64_STANDARD.encode(sum.to_be_bytes()),
            ))
        } else if let Some(sum) = self.md5 {
            Some(("content-md5", None, BASE64_STANDARD.encode(sum.finalize())))
        } else {
            sha256.filter(|_| self.sends_sha256).map(|sum| {
                let value = BASE64_STANDARD.encode(sum);
                ("x-amz-checksum-sha256", Some("ChecksumSHA256"), value)
            })
        };
        let checksum = checksum.map(|(header, element, value)| Checksum {
            header,
            element,
            value,
        });
        (sha256.map(|sum| hex(sum.as_ref())), checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::s3::slots::Slots;

    async fn cut(chunks: &[usize]) -> Vec<(u64, bool)> {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|size| Ok(Bytes::from(vec![7; *size])))
            .collect();
        let body = futures_util::stream::iter(chunks).boxed();
        let mut cutter = Cutter::new(body, UploadChecksum::Crc32c, false);
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
            let mut sums = Sums::new(checksum, false);
            sums.update(&[0; 20]);
            sums.update(&[0; 12]);
            let (_, sum) = sums.finish();
            let sum = sum.expect("a sum");
            assert_eq!((sum.header, sum.value.as_str()), (header, value));
        }
        let (sha256, none) = Sums::new(UploadChecksum::None, true).finish();
        assert!(none.is_none());
        assert!(sha256.expect("for the signature").starts_with("e3b0c442"));
    }
}
