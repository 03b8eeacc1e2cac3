//! Records of a pax extended header: `"%d %s=%s\n"`, POSIX.1-2017 `pax`, "pax Extended Header".

use super::TarError;

/// What an extended header says about the member after it. Absent means: see the member's header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) mtime: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
}

impl Records {
    /// Reads all records; later ones win. Keys that do not matter here are ignored.
    ///
    /// # Errors
    /// When the text is not a sequence of records, a number is none, or the member is sparse.
    pub(super) fn parse(mut text: &[u8]) -> Result<Self, TarError> {
        let mut records = Self::default();
        while !text.is_empty() {
            let (key, value, rest) = split_record(text)
                .ok_or_else(|| TarError::damaged("a pax header is not a sequence of records"))?;
            records.set(key, value)?;
            text = rest;
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(seconds(value)?),
            _ if key.starts_with(b"GNU.sparse.") => {
                return Err(TarError::refused(b"", "sparse members are not read"));
            }
            _ => {}
        }
        Ok(())
    }
}

/// The first record's key and value, and what follows it.
fn split_record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
    // At least "N k=\n" after the length's own digits.
    if length < space + 4 || length > text.len() {
        return None;
    }
    let (record, rest) = text.split_at(length);
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|&byte| byte == b'=')?;
    Some((&body[..equals], &body[equals + 1..], rest))
}

fn decimal(value: &[u8]) -> Result<u64, TarError> {
    std::str::from_utf8(value)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| TarError::damaged("a pax header holds a number that is none"))
}

/// `1795330815.3033063`: whole seconds, the fraction dropped, times before 1970 as 0.
fn seconds(value: &[u8]) -> Result<u64, TarError> {
    let whole = value.split(|&byte| byte == b'.').next().unwrap_or(value);
    if whole.starts_with(b"-") {
        return Ok(0);
    }
    decimal(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_real_writers() {
        let text =
            b"28 mtime=1795330815.3033063\n12 path=a=b\n16 SCHILY.x=y\nz\n22 size=8589934592000\n";
        let records = Records::parse(text).expect("valid");
        assert_eq!(records.mtime, Some(1_795_330_815));
        assert_eq!(records.path.as_deref(), Some(&b"a=b"[..]));
        assert_eq!(records.size, Some(8_589_934_592_000));
        assert_eq!(Records::parse(b"").expect("empty"), Records::default());
        assert_eq!(
            Records::parse(b"12 mtime=-5\n").expect("old").mtime,
            Some(0)
        );
    }

    #[test]
    fn refused_records() {
        let cases: [&[u8]; 11] = [
            b"28",
            b"5 a=b\n",
            b"7 a=b\n",
            b"6 ab \n",
            b"6 a=bc",
            b"99 a=b\n",
            b"-6 a=b\n",
            b"0 a=b\n",
            b"99999999999999999999999 a=b\n",
            b"10 size=x\n",
            b"22 GNU.sparse.major=1\n",
        ];
        for text in cases {
            assert!(Records::parse(text).is_err(), "{}", text.escape_ascii());
        }
    }
}
