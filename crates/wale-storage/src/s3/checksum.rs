//! What vouches for a body on its way to S3: which sums are taken of it, and how they are written.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::options::UploadChecksum;
use crate::Body;
use crate::http::part::{Cutter, Part, Sums, SumsWanted};
use crate::http::text::hex;

/// Which sums are taken of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vouchers {
    /// What is sent along.
    pub(super) checksum: UploadChecksum,
    /// A SHA-256 for the signature, when TLS does not vouch for the body.
    pub(super) signed: bool,
    /// A comparison with the `ETag` of the answer, when nothing but that shows whether the store has the right bytes.
    pub(super) etag: bool,
    /// A comparison with the object itself.
    pub(super) whole: bool,
}

/// What the server compares a part with.
#[derive(Debug, Clone)]
pub(super) struct Checksum {
    pub(super) header: &'static str,
    /// Its element in the list of parts; MD5 has none.
    pub(super) element: Option<&'static str>,
    pub(super) value: String,
}

/// What vouches for a gathered part.
#[derive(Debug)]
pub(super) struct Vouched {
    /// For the signature, when TLS does not vouch for the body.
    pub(super) sha256: Option<String>,
    /// What goes along.
    pub(super) checksum: Option<Checksum>,
    /// What its `ETag` must be, where that is compared.
    pub(super) etag: Option<String>,
}

/// Whether the store computed another digest of the body than we did.
pub(super) fn contradicts(etag: &str, expected: Option<&str>) -> bool {
    expected.is_some_and(|expected| !etag.trim_matches('"').eq_ignore_ascii_case(expected))
}

impl Vouchers {
    /// No more than what is sent along.
    pub(super) fn checksum_only(checksum: UploadChecksum) -> Self {
        Self {
            checksum,
            signed: false,
            etag: false,
            whole: false,
        }
    }

    /// The sums that this needs.
    pub(super) fn sums(self) -> SumsWanted {
        SumsWanted {
            sha256: self.signed || self.checksum == UploadChecksum::Sha256,
            crc32c: self.checksum == UploadChecksum::Crc32c,
            crc64: false,
            md5: self.etag || self.checksum == UploadChecksum::Md5,
        }
    }

    /// Cuts a body, with these sums.
    pub(super) fn cut(self, body: Body) -> Cutter {
        let cutter = Cutter::new(body, self.sums());
        if self.whole {
            cutter.with_whole()
        } else {
            cutter
        }
    }

    /// What vouches for a part.
    pub(super) fn of(self, part: &Part) -> Vouched {
        Vouched {
            sha256: part.sums.sha256.map(|sum| hex(&sum)),
            checksum: self.sent(&part.sums),
            etag: self.etag(&part.sums),
        }
    }

    /// What goes along.
    pub(super) fn sent(self, sums: &Sums) -> Option<Checksum> {
        let (header, element, value) = match self.checksum {
            UploadChecksum::Crc32c => {
                let value = BASE64_STANDARD.encode(sums.crc32c?);
                ("x-amz-checksum-crc32c", Some("ChecksumCRC32C"), value)
            }
            UploadChecksum::Sha256 => {
                let value = BASE64_STANDARD.encode(sums.sha256?);
                ("x-amz-checksum-sha256", Some("ChecksumSHA256"), value)
            }
            UploadChecksum::Md5 => ("content-md5", None, BASE64_STANDARD.encode(sums.md5?)),
            UploadChecksum::None => return None,
        };
        Some(Checksum {
            header,
            element,
            value,
        })
    }

    fn etag(self, sums: &Sums) -> Option<String> {
        sums.md5.filter(|_| self.etag).map(|sum| hex(&sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_checksum_has_its_header_and_element() {
        let sums = Sums {
            sha256: Some([0; 32]),
            crc32c: Some([0x8a, 0x91, 0x36, 0xaa]),
            crc64: None,
            md5: Some([0; 16]),
        };
        for (checksum, expected) in [
            (
                UploadChecksum::Crc32c,
                Some(("x-amz-checksum-crc32c", Some("ChecksumCRC32C"), "ipE2qg==")),
            ),
            (
                UploadChecksum::Sha256,
                Some((
                    "x-amz-checksum-sha256",
                    Some("ChecksumSHA256"),
                    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
                )),
            ),
            (
                UploadChecksum::Md5,
                Some(("content-md5", None, "AAAAAAAAAAAAAAAAAAAAAA==")),
            ),
            (UploadChecksum::None, None),
        ] {
            let vouchers = Vouchers::checksum_only(checksum);
            let sent = vouchers.sent(&sums);
            let found = sent
                .as_ref()
                .map(|sum| (sum.header, sum.element, sum.value.as_str()));
            assert_eq!(found, expected, "{checksum:?}");
            assert_eq!(vouchers.etag(&sums), None, "nobody compares it");
            let sums = vouchers.sums();
            assert_eq!(sums.sha256, checksum == UploadChecksum::Sha256);
            assert_eq!(sums.md5, checksum == UploadChecksum::Md5);
        }
        let compared = Vouchers {
            signed: true,
            etag: true,
            ..Vouchers::checksum_only(UploadChecksum::None)
        };
        assert!(compared.sums().sha256 && compared.sums().md5 && !compared.sums().crc32c);
        assert_eq!(compared.etag(&sums), Some("0".repeat(32)));
    }
}
