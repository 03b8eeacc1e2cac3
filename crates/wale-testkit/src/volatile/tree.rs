//! The files of a volatile disk: for each what was written, and what would survive a loss of power.
//!
//! | made durable by | what |
//! |---|---|
//! | `fsync`, `fdatasync` of a file | its content |
//! | `fsync` of a folder | which names are in it, and what they stand for |
//! | nothing | the rest; modes and owners are taken for durable at once |

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

/// The root folder.
pub(super) const ROOT: u64 = 1;

/// What a loss of power takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Everything that was not made durable.
    AllUnsynced,
    /// Of what was not made durable some, chosen by this number: a disk writes what it likes as early as it likes, a
    /// name before the content or half of the content.
    SomeUnsynced(u64),
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File {
        now: Arc<Vec<u8>>,
        durable: Arc<Vec<u8>>,
    },
    Folder {
        now: BTreeMap<OsString, u64>,
        durable: BTreeMap<OsString, u64>,
    },
    Link(PathBuf),
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) content: Content,
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) modified: SystemTime,
    /// Names that stand for it now.
    pub(super) names: u32,
}

impl Node {
    pub(super) fn new(content: Content, mode: u16, uid: u32, gid: u32) -> Self {
        Self {
            content,
            mode,
            uid,
            gid,
            modified: SystemTime::now(),
            names: 1,
        }
    }

    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::File { now, .. } => now.len() as u64,
            Content::Folder { .. } => 4096,
            Content::Link(target) => target.as_os_str().len() as u64,
        }
    }

    /// Makes the node as it is now durable.
    pub(super) fn sync(&mut self) {
        match &mut self.content {
            Content::File { now, durable } => *durable = Arc::clone(now),
            Content::Folder { now, durable } => durable.clone_from(now),
            Content::Link(_) => {}
        }
    }
}

/// An empty file.
pub(super) fn file() -> Content {
    Content::File {
        now: Arc::default(),
        durable: Arc::default(),
    }
}

/// An empty folder.
pub(super) fn folder() -> Content {
    Content::Folder {
        now: BTreeMap::new(),
        durable: BTreeMap::new(),
    }
}

/// Why an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Absent,
    Exists,
    NotAFolder,
    IsAFolder,
    NotEmpty,
    Invalid,
    /// The power is off.
    Dead,
}

pub(super) type DiskAnswer<T> = Result<T, Refusal>;

/// All nodes, by number.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: HashMap<u64, Node>,
    next: u64,
    pub(super) is_dead: bool,
}

impl Tree {
    pub(super) fn new(root: Node) -> Self {
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            next: ROOT + 1,
            is_dead: false,
        }
    }

    pub(super) fn node(&self, number: u64) -> DiskAnswer<&Node> {
        if self.is_dead {
            return Err(Refusal::Dead);
        }
        self.nodes.get(&number).ok_or(Refusal::Absent)
    }

    pub(super) fn node_mut(&mut self, number: u64) -> DiskAnswer<&mut Node> {
        if self.is_dead {
            return Err(Refusal::Dead);
        }
        self.nodes.get_mut(&number).ok_or(Refusal::Absent)
    }

    pub(super) fn entries(&self, folder: u64) -> DiskAnswer<&BTreeMap<OsString, u64>> {
        match &self.node(folder)?.content {
            Content::Folder { now, .. } => Ok(now),
            _ => Err(Refusal::NotAFolder),
        }
    }

    fn entries_mut(&mut self, folder: u64) -> DiskAnswer<&mut BTreeMap<OsString, u64>> {
        let node = self.node_mut(folder)?;
        node.modified = SystemTime::now();
        match &mut node.content {
            Content::Folder { now, .. } => Ok(now),
            _ => Err(Refusal::NotAFolder),
        }
    }

    pub(super) fn find(&self, folder: u64, name: &OsStr) -> DiskAnswer<u64> {
        self.entries(folder)?
            .get(name)
            .copied()
            .ok_or(Refusal::Absent)
    }

    /// Makes a node under a name that is free.
    pub(super) fn make(&mut self, folder: u64, name: &OsStr, node: Node) -> DiskAnswer<u64> {
        if self.entries(folder)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.entries_mut(folder)?.insert(name.to_owned(), number);
        Ok(number)
    }

    /// Gives a node another name, which is free.
    pub(super) fn link(&mut self, number: u64, folder: u64, name: &OsStr) -> DiskAnswer<()> {
        if self.entries(folder)?.contains_key(name) {
            return Err(Refusal::Exists);
        }
        self.node_mut(number)?.names += 1;
        self.entries_mut(folder)?.insert(name.to_owned(), number);
        Ok(())
    }

    /// Takes a name away. Nodes without a name stay in memory: somebody may have them open, and a disk of a test is
    /// small.
    pub(super) fn remove(&mut self, folder: u64, name: &OsStr, is_folder: bool) -> DiskAnswer<()> {
        let number = self.find(folder, name)?;
        match &self.node(number)?.content {
            Content::Folder { .. } if !is_folder => return Err(Refusal::IsAFolder),
            Content::Folder { now, .. } if !now.is_empty() => return Err(Refusal::NotEmpty),
            Content::File { .. } | Content::Link(_) if is_folder => {
                return Err(Refusal::NotAFolder);
            }
            _ => {}
        }
        self.entries_mut(folder)?.remove(name);
        let node = self.node_mut(number)?;
        node.names = node.names.saturating_sub(1);
        Ok(())
    }

    /// Renames, over whatever has the new name if `replace`.
    pub(super) fn rename(
        &mut self,
        (from, name): (u64, &OsStr),
        (to, new_name): (u64, &OsStr),
        replace: bool,
    ) -> DiskAnswer<()> {
        let number = self.find(from, name)?;
        if let Ok(other) = self.find(to, new_name) {
            if !replace {
                return Err(Refusal::Exists);
            }
            if other == number {
                return Ok(());
            }
            let is_folder = matches!(self.node(other)?.content, Content::Folder { .. });
            self.remove(to, new_name, is_folder)?;
        }
        self.entries_mut(from)?.remove(name);
        self.entries_mut(to)?.insert(new_name.to_owned(), number);
        Ok(())
    }

    /// Writes `data` at `offset` of a file.
    pub(super) fn write(&mut self, number: u64, offset: u64, data: &[u8]) -> DiskAnswer<()> {
        let node = self.node_mut(number)?;
        node.modified = SystemTime::now();
        let Content::File { now, .. } = &mut node.content else {
            return Err(Refusal::IsAFolder);
        };
        let start = usize::try_from(offset).map_err(|_| Refusal::Invalid)?;
        let now = Arc::make_mut(now);
        if now.len() < start + data.len() {
            now.resize(start + data.len(), 0);
        }
        now[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    /// Cuts or lengthens a file.
    pub(super) fn truncate(&mut self, number: u64, size: u64) -> DiskAnswer<()> {
        let node = self.node_mut(number)?;
        node.modified = SystemTime::now();
        let Content::File { now, .. } = &mut node.content else {
            return Err(Refusal::IsAFolder);
        };
        Arc::make_mut(now).resize(usize::try_from(size).map_err(|_| Refusal::Invalid)?, 0);
        Ok(())
    }

    /// What is left after the power is gone. Everything in it is durable.
    pub(super) fn survivors(&self, loss: Loss) -> Self {
        let mut chance = Chance(match loss {
            Loss::AllUnsynced => None,
            Loss::SomeUnsynced(seed) => Some(seed),
        });
        let mut left = Self {
            nodes: HashMap::new(),
            next: self.next,
            is_dead: false,
        };
        // In the order of the numbers, so that one seed always takes the same.
        let mut waiting = vec![ROOT];
        while let Some(number) = waiting.pop() {
            let Some(node) = self.nodes.get(&number) else {
                continue;
            };
            if let Some(known) = left.nodes.get_mut(&number) {
                known.names += 1;
                continue;
            }
            let mut node = node.clone();
            node.names = 1;
            match &mut node.content {
                Content::File { now, durable } => *now = chance.content(now, durable),
                Content::Folder { now, durable } => {
                    *now = chance.names(now, durable);
                    waiting.extend(now.values());
                }
                Content::Link(_) => {}
            }
            node.sync();
            left.nodes.insert(number, node);
        }
        left
    }
}

/// What the disk wrote although nobody asked for it: nothing, or what a number says.
struct Chance(Option<u64>);

impl Chance {
    /// A number below `end`; 0 when nothing is left to chance.
    fn below(&mut self, end: usize) -> usize {
        let Some(state) = &mut self.0 else {
            return 0;
        };
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*state >> 33).unwrap_or(0) % end
    }

    fn content(&mut self, now: &Arc<Vec<u8>>, durable: &Arc<Vec<u8>>) -> Arc<Vec<u8>> {
        if Arc::ptr_eq(now, durable) {
            return Arc::clone(now);
        }
        match self.below(3) {
            0 => Arc::clone(durable),
            1 => Arc::clone(now),
            _ => Arc::new(now[..self.below(now.len() + 1)].to_vec()),
        }
    }

    fn names(
        &mut self,
        now: &BTreeMap<OsString, u64>,
        durable: &BTreeMap<OsString, u64>,
    ) -> BTreeMap<OsString, u64> {
        let mut left = durable.clone();
        for name in now.keys().chain(durable.keys()) {
            if now.get(name) != durable.get(name) && self.below(2) == 1 {
                match now.get(name) {
                    Some(number) => left.insert(name.clone(), *number),
                    None => left.remove(name),
                };
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        Tree::new(Node::new(folder(), 0o700, 0, 0))
    }

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn make(tree: &mut Tree, folder: u64, text: &str, content: Content) -> u64 {
        tree.make(folder, name(text), Node::new(content, 0o600, 0, 0))
            .expect("made")
    }

    fn content(tree: &Tree, text: &str) -> Option<Vec<u8>> {
        let number = tree.find(ROOT, name(text)).ok()?;
        match &tree.node(number).expect("there").content {
            Content::File { now, .. } => Some(now.to_vec()),
            _ => None,
        }
    }

    /// The heart of it: without both syncs nothing is left, with one of them half is, with both all is.
    #[test]
    fn only_what_was_synced_survives() {
        for (file_synced, folder_synced, left) in [
            (false, false, None),
            (true, false, None),
            (false, true, Some(&b""[..])),
            (true, true, Some(&b"content"[..])),
        ] {
            let mut tree = tree();
            let number = make(&mut tree, ROOT, "a", file());
            tree.write(number, 0, b"content").expect("written");
            if file_synced {
                tree.node_mut(number).expect("there").sync();
            }
            if folder_synced {
                tree.node_mut(ROOT).expect("there").sync();
            }
            let survivors = tree.survivors(Loss::AllUnsynced);
            assert_eq!(content(&survivors, "a").as_deref(), left);
            assert_eq!(content(&tree, "a").as_deref(), Some(&b"content"[..]));
        }
    }

    #[test]
    fn what_was_changed_after_the_sync_is_as_before() {
        let mut tree = tree();
        let number = make(&mut tree, ROOT, "a", file());
        tree.write(number, 0, b"old").expect("written");
        tree.node_mut(number).expect("there").sync();
        tree.node_mut(ROOT).expect("there").sync();
        tree.write(number, 0, b"new and longer").expect("written");
        tree.rename((ROOT, name("a")), (ROOT, name("b")), true)
            .expect("renamed");
        let survivors = tree.survivors(Loss::AllUnsynced);
        assert_eq!(content(&survivors, "a").as_deref(), Some(&b"old"[..]));
        assert_eq!(content(&survivors, "b"), None);
    }

    #[test]
    fn a_folder_whose_parent_was_not_synced_is_gone_with_all_that_is_in_it() {
        let mut tree = tree();
        let folder = make(&mut tree, ROOT, "f", folder());
        let number = make(&mut tree, folder, "a", file());
        tree.node_mut(number).expect("there").sync();
        tree.node_mut(folder).expect("there").sync();
        assert_eq!(
            tree.survivors(Loss::AllUnsynced).find(ROOT, name("f")),
            Err(Refusal::Absent)
        );
        tree.node_mut(ROOT).expect("there").sync();
        let survivors = tree.survivors(Loss::AllUnsynced);
        let folder = survivors.find(ROOT, name("f")).expect("there");
        survivors.find(folder, name("a")).expect("there");
    }

    #[test]
    fn chance_takes_some_and_one_seed_always_the_same() {
        let mut tree = tree();
        for number in 0..20 {
            let number = make(&mut tree, ROOT, &format!("f{number}"), file());
            tree.write(number, 0, &[7; 1000]).expect("written");
        }
        let left = |seed| -> Vec<Option<usize>> {
            let survivors = tree.survivors(Loss::SomeUnsynced(seed));
            (0..20)
                .map(|number| Some(content(&survivors, &format!("f{number}"))?.len()))
                .collect()
        };
        assert_eq!(left(1), left(1));
        assert_ne!(left(1), left(2));
        let all: Vec<_> = (0..20).flat_map(left).collect();
        for kind in [None, Some(0), Some(1000)] {
            assert!(all.contains(&kind), "{kind:?}");
        }
        assert!(
            all.iter().flatten().any(|bytes| (1..1000).contains(bytes)),
            "half of a content"
        );
    }

    #[test]
    fn the_verbs_refuse_what_a_disk_refuses() {
        let mut tree = tree();
        let sub = make(&mut tree, ROOT, "f", folder());
        let number = make(&mut tree, sub, "a", file());
        let refused = [
            (tree.remove(ROOT, name("f"), true), Refusal::NotEmpty),
            (tree.remove(ROOT, name("f"), false), Refusal::IsAFolder),
            (tree.remove(sub, name("a"), true), Refusal::NotAFolder),
            (tree.remove(ROOT, name("x"), false), Refusal::Absent),
            (tree.link(number, sub, name("a")), Refusal::Exists),
            (
                tree.rename((sub, name("a")), (ROOT, name("f")), false),
                Refusal::Exists,
            ),
            (tree.write(sub, 0, b"x"), Refusal::IsAFolder),
        ];
        for (answer, refusal) in refused {
            assert_eq!(answer, Err(refusal));
        }
        tree.link(number, ROOT, name("b")).expect("linked");
        tree.remove(sub, name("a"), false).expect("removed");
        tree.truncate(number, 3).expect("lengthened");
        assert_eq!(content(&tree, "b").as_deref(), Some(&[0, 0, 0][..]));
        tree.is_dead = true;
        assert_eq!(tree.find(ROOT, name("b")), Err(Refusal::Dead));
    }
}
