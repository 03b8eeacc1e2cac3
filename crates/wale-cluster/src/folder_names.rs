//! The names in a folder, in order, in few bytes each: a database has a hundred thousand files in one folder, and may have a million.
//!
//! Memory: a name takes its own bytes, some 8, and 8 for its place and what is known of it, 12 with a kind of file: 20 MB for a
//! million; the memory of both lists may be twice as much while they grow, of which the kernel gives what is used.

use std::io;

/// Names that were found in a folder, each with what the folder says of it.
#[derive(Debug)]
pub(crate) struct FolderNames<K> {
    /// All names, one after the other.
    text: String,
    places: Vec<NamePlace<K>>,
}

#[derive(Clone, Copy, Debug)]
struct NamePlace<K> {
    start: u32,
    bytes: u16,
    kind: K,
}

impl<K: Copy> FolderNames<K> {
    /// No names.
    pub(crate) const fn new() -> Self {
        Self {
            text: String::new(),
            places: Vec::new(),
        }
    }

    /// Adds a name.
    ///
    /// # Errors
    /// When the names have more than 4 GiB, or one has more than 64 KiB: no file system has such folders.
    pub(crate) fn push(&mut self, name: &str, kind: K) -> io::Result<()> {
        let too_large = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        self.places.push(NamePlace {
            start: u32::try_from(self.text.len()).map_err(too_large)?,
            bytes: u16::try_from(name.len()).map_err(too_large)?,
            kind,
        });
        self.text.push_str(name);
        Ok(())
    }

    /// Puts the names in order.
    pub(crate) fn sort(&mut self) {
        let text = &self.text;
        self.places
            .sort_unstable_by(|one, other| one.name(text).cmp(other.name(text)));
    }

    /// The names, each with what is known of it.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, K)> {
        let places = self.places.iter();
        places.map(|place| (place.name(&self.text), place.kind))
    }
}

impl<K> NamePlace<K> {
    fn name<'t>(&self, text: &'t str) -> &'t str {
        let start = self.start as usize;
        &text[start..start + usize::from(self.bytes)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_order_with_what_is_known_of_them() {
        let mut names = FolderNames::new();
        for (name, kind) in [("b", 1), ("", 2), ("größe", 3), ("a.1", 4), ("a", 5)] {
            names.push(name, kind).unwrap();
        }
        names.sort();
        let expected = [("", 2), ("a", 5), ("a.1", 4), ("b", 1), ("größe", 3)];
        assert_eq!(names.iter().collect::<Vec<_>>(), expected);
        let long = "x".repeat(1 << 16);
        assert!(names.push(&long, 0).is_err());
    }

    #[test]
    fn a_name_costs_few_bytes() {
        assert_eq!(size_of::<NamePlace<()>>(), 8);
        assert_eq!(size_of::<NamePlace<std::fs::FileType>>(), 12);
    }
}
