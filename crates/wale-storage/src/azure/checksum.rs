//! What vouches for a body on its way to Azure: one sum, sent along, and compared with the one that the answer has.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::options::AzureChecksum;
use crate::http::part::{Sums, SumsWanted};
use crate::http::transport::Answer;

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

/// The sum that is taken of a body.
pub(super) fn wanted(checksum: AzureChecksum) -> SumsWanted {
    SumsWanted {
        crc64: checksum == AzureChecksum::Crc64,
        md5: checksum == AzureChecksum::Md5,
        ..SumsWanted::default()
    }
}

/// The header in which it goes along, and comes back.
pub(super) fn header(checksum: AzureChecksum) -> &'static str {
    match checksum {
        AzureChecksum::Crc64 => "x-ms-content-crc64",
        AzureChecksum::Md5 => "content-md5",
    }
}

/// What goes along, where it is among these.
pub(super) fn of(checksum: AzureChecksum, sums: &Sums) -> Option<BodySum> {
    let value = match checksum {
        // The lowest byte first.
        AzureChecksum::Crc64 => BASE64_STANDARD.encode(sums.crc64?.to_le_bytes()),
        AzureChecksum::Md5 => BASE64_STANDARD.encode(sums.md5?),
    };
    Some(BodySum {
        header: header(checksum),
        value,
    })
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
            let value = value.to_owned();
            assert_eq!(of(checksum, &sums), Some(BodySum { header, value }));
            assert_eq!(of(checksum, &Sums::default()), None);
        }
    }
}
