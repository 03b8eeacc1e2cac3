//! WAL-G's list of files: what is taken for one says the same however it is read, and names nothing that is not in its text.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use wale_archive::described::DescriptionBounds;
use wale_archive::member_list::{Keep, MemberList};
use wale_storage::ObjectKey;

fuzz_target!(|data: &[u8]| {
    let key = ObjectKey::new("list").expect("a key");
    let bounds = DescriptionBounds::of_foreign(0);
    let whole = MemberList::read(&key, data, Keep::Members(bounds));
    let names = MemberList::read(&key, data, Keep::Partitions);
    let first = MemberList::read(&key, data, Keep::First(Arc::new(|_| true)));
    // Much less than the bound fits into an input of the fuzzer's.
    assert_eq!(whole.is_ok(), names.is_ok());
    assert_eq!(whole.is_ok(), first.is_ok());
    let (Ok(whole), Ok(names), Ok(first)) = (whole, names, first) else {
        return;
    };
    assert_eq!(whole.partitions, names.partitions);
    assert!(names.members.is_empty());
    assert_eq!(whole.members.is_empty(), first.first.is_none());
    // A member takes at least `"":{},`, a partition one byte more than its name.
    assert!(whole.members.len() <= data.len());
    let text: usize = whole.partitions.iter().map(String::len).sum();
    // An escape of six bytes makes three at most.
    assert!(text <= data.len());
    if let Some(name) = first.first {
        assert!(!name.starts_with('/') && !name.ends_with('/') && !name.is_empty());
    }
});
