//! The volatile disk as the kernel asks for it.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::tree::{Content, DiskAnswer, Node, Refusal, Tree, file, folder};

/// The kernel may keep what it knows: nobody changes a file but through it.
const REMEMBERED: Duration = Duration::from_secs(1);
/// Blocks that the disk claims to have: 1 GiB of 4 KiB.
const BLOCKS: u64 = 1 << 18;

/// The tree, shared with the one that takes its power away.
#[derive(Debug, Clone)]
pub(super) struct Disk(pub(super) Arc<Mutex<Tree>>);

impl Disk {
    pub(super) fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attributes(&self, number: u64) -> DiskAnswer<FileAttr> {
        self.tree()
            .node(number)
            .map(|node| attributes(number, node))
    }

    fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        content: Content,
        mode: u32,
    ) -> DiskAnswer<FileAttr> {
        let mode = u16::try_from(mode & 0o7777).unwrap_or(0o600);
        let node = Node::new(content, mode, request.uid(), request.gid());
        let mut tree = self.tree();
        let number = tree.make(parent.0, name, node)?;
        Ok(attributes(number, tree.node(number)?))
    }
}

fn attributes(number: u64, node: &Node) -> FileAttr {
    let kind = match node.content {
        Content::File { .. } => FileType::RegularFile,
        Content::Folder { .. } => FileType::Directory,
        Content::Link(_) => FileType::Symlink,
    };
    let (size, time) = (node.size(), node.modified);
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: node.mode,
        nlink: node.names,
        uid: node.uid,
        gid: node.gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn errno(refusal: Refusal) -> Errno {
    match refusal {
        Refusal::Absent => Errno::ENOENT,
        Refusal::Exists => Errno::EEXIST,
        Refusal::NotAFolder => Errno::ENOTDIR,
        Refusal::IsAFolder => Errno::EISDIR,
        Refusal::NotEmpty => Errno::ENOTEMPTY,
        Refusal::Invalid => Errno::EINVAL,
        Refusal::Dead => Errno::EIO,
    }
}

fn empty(reply: ReplyEmpty, answer: DiskAnswer<()>) {
    match answer {
        Ok(()) => reply.ok(),
        Err(refusal) => reply.error(errno(refusal)),
    }
}

fn entry(reply: ReplyEntry, answer: DiskAnswer<FileAttr>) {
    match answer {
        Ok(attributes) => reply.entry(&REMEMBERED, &attributes, Generation(0)),
        Err(refusal) => reply.error(errno(refusal)),
    }
}

fn attribute(reply: ReplyAttr, answer: DiskAnswer<FileAttr>) {
    match answer {
        Ok(attributes) => reply.attr(&REMEMBERED, &attributes),
        Err(refusal) => reply.error(errno(refusal)),
    }
}

/// The part of `content` that a read asks for.
fn piece(content: &[u8], offset: u64, size: u32) -> &[u8] {
    let start = usize::try_from(offset)
        .unwrap_or(usize::MAX)
        .min(content.len());
    let end = start.saturating_add(size as usize).min(content.len());
    &content[start..end]
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.tree().find(parent.0, name);
        entry(reply, found.and_then(|number| self.attributes(number)));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attribute(reply, self.attributes(ino.0));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let change = || {
            let mut tree = self.tree();
            if let Some(size) = size {
                tree.truncate(ino.0, size)?;
            }
            let node = tree.node_mut(ino.0)?;
            if let Some(mode) = mode.and_then(|mode| u16::try_from(mode & 0o7777).ok()) {
                node.mode = mode;
            }
            node.uid = uid.unwrap_or(node.uid);
            node.gid = gid.unwrap_or(node.gid);
            match mtime {
                Some(TimeOrNow::SpecificTime(time)) => node.modified = time,
                Some(TimeOrNow::Now) => node.modified = SystemTime::now(),
                None => {}
            }
            Ok(attributes(ino.0, node))
        };
        attribute(reply, change());
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree().node(ino.0).map(|node| &node.content) {
            Ok(Content::Link(target)) => reply.data(target.as_os_str().as_encoded_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        entry(
            reply,
            self.make(request, parent, name, folder(), mode & !umask),
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        entry(
            reply,
            self.make(
                request,
                parent,
                name,
                Content::Link(target.to_owned()),
                0o777,
            ),
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree().remove(parent.0, name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree().remove(parent.0, name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.intersects(RenameFlags::RENAME_EXCHANGE | RenameFlags::RENAME_WHITEOUT) {
            return reply.error(Errno::EINVAL);
        }
        let replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        empty(
            reply,
            self.tree()
                .rename((parent.0, name), (newparent.0, newname), replace),
        );
    }

    fn link(
        &self,
        _: &Request,
        ino: INodeNo,
        newparent: INodeNo,
        newname: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.tree().link(ino.0, newparent.0, newname);
        entry(reply, linked.and_then(|()| self.attributes(ino.0)));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.make(request, parent, name, file(), mode & !umask) {
            Ok(attributes) => {
                reply.created(
                    &REMEMBERED,
                    &attributes,
                    Generation(0),
                    FileHandle(0),
                    FopenFlags::empty(),
                );
            }
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree().node(ino.0).map(|node| &node.content) {
            Ok(Content::File { now, .. }) => reply.data(piece(now, offset, size)),
            Ok(_) => reply.error(Errno::EISDIR),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree().write(ino.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(0)),
            Err(refusal) => reply.error(errno(refusal)),
        }
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        empty(reply, self.attributes(ino.0).map(drop));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.tree().node_mut(ino.0).map(Node::sync));
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        empty(reply, self.tree().node_mut(ino.0).map(Node::sync));
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let tree = self.tree();
        let entries = match tree.entries(ino.0) {
            Ok(entries) => entries,
            Err(refusal) => return reply.error(errno(refusal)),
        };
        let itself = [(OsStr::new("."), ino.0), (OsStr::new(".."), ino.0)];
        let named = entries
            .iter()
            .map(|(name, number)| (name.as_os_str(), *number));
        let all = itself.into_iter().chain(named).zip(1..);
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
        for ((name, number), next) in all.skip(skipped) {
            let kind = tree
                .node(number)
                .map_or(FileType::RegularFile, |node| attributes(number, node).kind);
            if reply.add(INodeNo(number), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096);
    }
}
