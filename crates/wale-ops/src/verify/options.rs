//! What is to be verified.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// The lowest rate of reading, bytes per second. A piece of an object has 1 MiB at most, and a connection on which nothing
/// moves for long is closed.
pub const RATE_LEAST: u64 = 1 << 20;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyDepth {
    /// Names and sizes, as listings show them.
    Names,
    /// Every byte, too.
    Content,
}

impl VerifyDepth {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Content => "content",
        }
    }
}

/// A part of the stored bytes, in hundred-thousandths: more than none, at most all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share(u32);

const WHOLE: u32 = 100_000;

impl Share {
    /// So much of these bytes; never nothing of something.
    pub(super) fn of(self, bytes: u64) -> u64 {
        let part = (u128::from(bytes) * u128::from(self.0)).div_ceil(u128::from(WHOLE));
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

impl FromStr for Share {
    type Err = String;

    /// `5%`, `0.5%`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{}\" is no share such as 5%", text.escape_default());
        let number = text.strip_suffix('%').unwrap_or(text).trim();
        let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || rest.len() > 3 || !digits(whole) || !digits(rest) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let rest: u32 = format!("{rest:0<3}").parse().map_err(|_| wrong())?;
        let share = whole
            .checked_mul(1000)
            .and_then(|share| share.checked_add(rest));
        match share {
            Some(share @ 1..=WHOLE) => Ok(Self(share)),
            _ => Err(format!(
                "{number}% is not more than nothing and at most 100%"
            )),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 1000, self.0 % 1000);
        if rest == 0 {
            return write!(f, "{whole}%");
        }
        let digits = format!("{rest:03}");
        write!(f, "{whole}.{}%", digits.trim_end_matches('0'))
    }
}

/// One verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyOptions {
    /// How much is looked at.
    pub depth: VerifyDepth,
    /// Only about so much of what is stored is read; the longest unread comes first.
    pub share: Option<Share>,
    /// What was proven within this time is not read again.
    pub older_than: Option<Duration>,
    /// The most stored bytes that are read per second.
    pub rate: Option<NonZeroU64>,
    /// Partitions or segments that are read at the same time.
    pub workers: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        for (text, printed, of_a_million) in [
            ("5%", "5%", 50_000),
            ("100", "100%", 1_000_000),
            ("0.5%", "0.5%", 5_000),
            ("12.25 %", "12.25%", 122_500),
            ("0.001%", "0.001%", 10),
        ] {
            let share: Share = text.parse().expect(text);
            assert_eq!(
                (share.to_string().as_str(), share.of(1_000_000)),
                (printed, of_a_million)
            );
        }
        for text in [
            "",
            "%",
            "0%",
            "101%",
            "-1%",
            "1.0001%",
            "5 percent",
            ".5%",
            "99999999999%",
        ] {
            text.parse::<Share>().expect_err(text);
        }
        let least: Share = "0.001%".parse().expect("a share");
        assert_eq!((least.of(1), least.of(0)), (1, 0));
    }
}
