//! What a program prints, read to its end and kept in a bounded part.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a program's words that are kept: some fifty lines.
const KEPT_MAX: usize = 8 << 10;
/// Bytes of a record that are kept.
const RECORD_MAX: usize = 256;
/// Read at a time.
const CHUNK: usize = 16 << 10;

/// Divides records in what `psql -0` prints.
const RECORD_END: u8 = 0;
/// Divides fields: `psql -F` is told this.
pub(super) const FIELD_END: u8 = 0x1f;

/// The records of a query, as `psql` printed them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// How many there were.
    pub count: u64,
    /// The beginning of the first one, its fields divided by `|`.
    pub first: Option<String>,
    /// The number, from 1 on, and the beginning of the first one that begins with `f`: false, as `psql` prints it.
    pub first_false: Option<(u64, String)>,
    /// The beginning of the record that is not complete yet.
    open: Vec<u8>,
}

impl Records {
    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == RECORD_END {
                self.end_record();
            } else if self.open.len() < RECORD_MAX {
                self.open.push(*byte);
            }
        }
    }

    fn end_record(&mut self) {
        let record = std::mem::take(&mut self.open);
        self.count += 1;
        let is_false = record.split(|byte| *byte == FIELD_END).next() == Some(b"f");
        let shown = || {
            let text = String::from_utf8_lossy(&record).into_owned();
            text.replace(char::from(FIELD_END), "|")
        };
        if self.count == 1 {
            self.first = Some(shown());
        }
        if is_false && self.first_false.is_none() {
            self.first_false = Some((self.count, shown()));
        }
    }
}

/// Reads records to the end.
pub(super) async fn records(mut from: impl AsyncRead + Unpin) -> Records {
    let mut records = Records::default();
    let mut chunk = vec![0; CHUNK];
    // An end and an error are the same here: the program's status says what it was.
    while let Ok(count) = from.read(&mut chunk).await
        && count > 0
    {
        records.take(&chunk[..count]);
    }
    if !records.open.is_empty() {
        records.end_record();
    }
    records
}

/// Reads to the end and keeps the beginning.
pub(super) async fn beginning(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let mut chunk = vec![0; CHUNK];
    while let Ok(count) = from.read(&mut chunk).await
        && count > 0
    {
        let room = KEPT_MAX.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&chunk[..room]);
    }
    String::from_utf8_lossy(&kept).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_are_counted_and_the_first_false_one_is_found() {
        let long = "x".repeat(10 * RECORD_MAX);
        let cases: [(&str, u64, Option<&str>, Option<u64>); 6] = [
            ("", 0, None, None),
            ("t\0", 1, Some("t"), None),
            ("t\x1fa\0f\x1fb\0f\0", 3, Some("t|a"), Some(2)),
            // Text that is more than false is not false.
            ("false\0ff\0\x1ff\0", 3, Some("false"), None),
            ("a\nf\nb\0", 1, Some("a\nf\nb"), None),
            (&long, 1, Some(&long[..RECORD_MAX]), None),
        ];
        for (text, count, first, first_false) in cases {
            let found = records(text.as_bytes()).await;
            assert_eq!(
                (found.count, found.first.as_deref()),
                (count, first),
                "{text}"
            );
            assert_eq!(found.first_false.map(|(number, _)| number), first_false);
        }
    }

    #[tokio::test]
    async fn of_many_words_the_beginning_is_kept() {
        let many = "word ".repeat(100_000);
        let kept = beginning(many.as_bytes()).await;
        assert!(many.starts_with(&kept) && kept.len() > KEPT_MAX - 10);
        assert!(kept.len() <= KEPT_MAX);
    }
}
