//! What vouches for a body on its way to Azure: one sum, sent along, and compared with the one that the answer has.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::options::AzureChecksum;
use crate::Body;
use crate::http::part::{Cutter, Part, Sums, SumsWanted};
use crate::http::transport::Answer;

/// Which sums are taken of a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodySums {
    /// What is sent along.
    pub(super) checksum: AzureChecksum,
    /// A sum of the whole body, for a comparison with the object itself.
    pub(super) whole: bool,
}

/// A gathered part with what vouches for it.
#[derive(Debug)]
pub(super) struct SummedPart {
    pub(super) gathered: Part,
    pub(super) sum: Option<BodySum>,
}

/// What the server compares a body with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BodySum {
    pub(super) header: &'static str,
    pub(super) value: String,
}

impl BodySum {
    /// Whether the store computed another sum of the body than we did. Not every answer has one.
    pub(super) fn contradicts(&self, answer: &Answer) -> bool {
        answer
            .header(self.header)
            .is_some_and(|found| found != self.value)
    }
}

impl BodySums {
    /// Cuts a body, with these sums.
    pub(super) fn cut(self, body: Body) -> Cutter {
        let wanted = SumsWanted {
            crc64: self.checksum == AzureChecksum::Crc64,
            md5: self.checksum == AzureChecksum::Md5,
            ..SumsWanted::default()
        };
        let cutter = Cutter::new(body, wanted);
        if self.whole {
            cutter.with_whole()
        } else {
            cutter
        }
    }

    /// The part with what vouches for it.
    pub(super) fn of(self, gathered: Part) -> SummedPart {
        SummedPart {
            sum: self.sum(&gathered.sums),
            gathered,
        }
    }

    fn sum(self, sums: &Sums) -> Option<BodySum> {
        Some(match self.checksum {
            // The lowest byte first.
            AzureChecksum::Crc64 => BodySum {
                header: "x-ms-content-crc64",
                value: BASE64_STANDARD.encode(sums.crc64?.to_le_bytes()),
            },
            AzureChecksum::Md5 => BodySum {
                header: "content-md5",
                value: BASE64_STANDARD.encode(sums.md5?),
            },
        })
    }
}

/// A sum that no short body has.
pub(super) fn wrong(checksum: AzureChecksum) -> BodySum {
    let zeros = Sums {
        crc64: Some(1),
        md5: Some([0; 16]),
        ..Sums::default()
    };
    let vouchers = BodySums {
        checksum,
        whole: false,
    };
    vouchers.sum(&zeros).expect("both sums are given above")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sum_has_its_header_and_order_of_bytes() {
        let sums = Sums {
            crc64: Some(0x0102_0304_0506_0708),
            md5: Some([0; 16]),
            ..Sums::default()
        };
        for (checksum, header, value) in [
            (AzureChecksum::Crc64, "x-ms-content-crc64", "CAcGBQQDAgE="),
            (
                AzureChecksum::Md5,
                "content-md5",
                "AAAAAAAAAAAAAAAAAAAAAA==",
            ),
        ] {
            let vouchers = BodySums {
                checksum,
                whole: false,
            };
            let value = value.to_owned();
            assert_eq!(vouchers.sum(&sums), Some(BodySum { header, value }));
            assert_eq!(wrong(checksum).header, header);
        }
    }
}
