//! When a certificate ends: the one field of X.509 that an operator must be warned about.
//!
//! Pure. It checks nothing else of a certificate; the client that connects does that. Follows RFC 5280, sections 4.1
//! and 4.1.2.5, and X.690 for the lengths: `Certificate { TBSCertificate { [0] version, serialNumber, signature,
//! issuer, validity { notBefore, notAfter }, … }, … }`.

use chrono::{DateTime, NaiveDateTime, Utc};

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, the version.
const VERSION: u8 = 0xa0;

/// The end of a certificate's validity; `None` when the bytes are no certificate as the RFC has it.
pub(crate) fn not_after(certificate: &[u8]) -> Option<DateTime<Utc>> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        (_, rest) = element(rest, VERSION)?;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, after_begin) = time(validity)?;
    time(after_begin).map(|(end, _)| end)
}

/// The content of the element that `bytes` begin with, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if found != tag {
        return None;
    }
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // Two bytes of length are 64 KiB, more than any certificate has.
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A time and what follows it.
fn time(bytes: &[u8]) -> Option<(DateTime<Utc>, &[u8])> {
    let (content, rest, century) = if bytes.first() == Some(&UTC_TIME) {
        let (content, rest) = element(bytes, UTC_TIME)?;
        // Years of two digits: 50 and above are the last century's.
        let is_old = *content.first()? >= b'5';
        (content, rest, if is_old { "19" } else { "20" })
    } else {
        let (content, rest) = element(bytes, GENERALIZED_TIME)?;
        (content, rest, "")
    };
    let text = format!("{century}{}", std::str::from_utf8(content).ok()?);
    let at = NaiveDateTime::parse_from_str(&text, "%Y%m%d%H%M%SZ").ok()?;
    Some((at.and_utc(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_read_in_both_forms() {
        // UTCTime until 2049, GeneralizedTime from then on.
        for (year, expected) in [
            (2031, "2031-05-06T00:00:00+00:00"),
            (2071, "2071-05-06T00:00:00+00:00"),
        ] {
            let mut parameters = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
            parameters.not_before = rcgen::date_time_ymd(1999, 1, 2);
            parameters.not_after = rcgen::date_time_ymd(year, 5, 6);
            let key = rcgen::KeyPair::generate().unwrap();
            let made = parameters.self_signed(&key).unwrap();
            let end = not_after(made.der()).unwrap();
            assert_eq!(end.to_rfc3339(), expected);
            // Cut anywhere before the end of the field, it is no certificate; never a panic.
            for length in 0..100 {
                assert_eq!(not_after(&made.der()[..length]), None);
            }
        }
        assert_eq!(not_after(b""), None);
        assert_eq!(not_after(&[0x30, 0x82, 0xff]), None);
    }
}
