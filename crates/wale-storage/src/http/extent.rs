//! How long a listing may be: a server could go on for ever.

use super::failure::Failure;

/// A page has at most 1,000 entries; names of 1 KiB, each byte escaped in five, and 300 bytes besides make 5.4 MiB.
pub(crate) const PAGE_BYTES_MAX: usize = 8 << 20;

/// Pages of one listing. 100,000: a hundred million objects, 1.6 PB of WAL in segments of 16 MiB; a server that gives
/// fifty a second is reported after half an hour.
const PAGES_MAX: u32 = 100_000;

/// Bytes of one listing: [`PAGES_MAX`] pages of entries of some 300 bytes are 30 GB.
const LISTING_BYTES_MAX: u64 = 64 << 30;

/// Pages in a row on which nothing stands. 1,000: servers that skip deleted names page by page give some, which stand
/// for a million of those.
const EMPTY_PAGES_MAX: u32 = 1000;

/// How long a listing is by now.
#[derive(Debug, Default)]
pub(crate) struct Extent {
    pages: u32,
    bytes: u64,
    empty: u32,
}

impl Extent {
    /// Notes a page.
    pub(crate) fn note(&mut self, bytes: usize, entries: usize) -> Result<(), Failure> {
        self.pages += 1;
        self.bytes += bytes as u64;
        self.empty = if entries == 0 { self.empty + 1 } else { 0 };
        if self.pages > PAGES_MAX || self.bytes > LISTING_BYTES_MAX || self.empty > EMPTY_PAGES_MAX
        {
            return Err(Failure::Nonsense(format!(
                "a listing does not end: it has {} pages and {} bytes by now, the last {} pages without an entry",
                self.pages, self.bytes, self.empty
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_has_bounds_in_pages_bytes_and_empty_pages() {
        /// Pages of this kind that are taken.
        fn taken(bytes: usize, entries: usize) -> u32 {
            let mut extent = Extent::default();
            (0..u32::MAX)
                .find(|_| extent.note(bytes, entries).is_err())
                .expect("there is an end")
        }
        assert_eq!(taken(300, 1), PAGES_MAX);
        assert_eq!(taken(300, 0), EMPTY_PAGES_MAX);
        assert_eq!(taken(PAGE_BYTES_MAX, 1000), 8192);
    }
}
