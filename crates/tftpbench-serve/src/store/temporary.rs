//! The names of uploads that are not whole yet, and what is left of them when a server was killed.
//!
//! Such a name is needed where a file system has no O_TMPFILE, and for the moment in which an upload replaces a file.
//! It is random (128 bits) and made exclusively, so no other server has it, whatever its process ID is in its
//! container. The file is locked, flock(2), for as long as its server lives: the kernel releases the lock on process
//! death. A server that starts removes the names whose files it can lock. It must never remove a name of another form,
//! or of a file that a living server holds.

use std::collections::VecDeque;
use std::fmt::Write as _;

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use tftpbench_proto::REQUEST_LEN_MAX;

use crate::paths::{Folder, Root, TEMPORARY_PREFIX};

/// Bytes of a name that are random; two digits each.
const RANDOM_BYTES: usize = 16;

/// Random names that are tried. One is enough, unless a starting server took the file for a dead server's.
const ATTEMPTS: usize = 16;

/// Most entries that are looked at before a server answers: some 0.1 s where the kernel knows them, so a large tree
/// does not hold up a start. Folders nearer to the root come first.
const ENTRIES_MAX: usize = 100_000;

/// A name that no client can ask for, removed when dropped.
#[derive(Debug)]
pub(crate) struct Temporary {
    folder: Folder,
    name: Vec<u8>,
    /// Not any more once it was renamed.
    is_there: bool,
}

impl Temporary {
    /// A new file under a temporary name, locked.
    pub(crate) fn create(folder: Folder, mode: Mode) -> Result<(OwnedFd, Temporary), Errno> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let mut temporary = Temporary { folder, name: Vec::new(), is_there: false };
        for _ in 0..ATTEMPTS {
            temporary.name = random_name()?;
            match fs::openat(&temporary.folder, &temporary.name[..], flags, mode) {
                Ok(file) => {
                    temporary.is_there = true;
                    if is_kept(&file)? {
                        return Ok((file, temporary));
                    }
                    // A starting server has removed it, or is about to; the name is ours all the same.
                    let _ = fs::unlinkat(&temporary.folder, &temporary.name[..], AtFlags::empty());
                    temporary.is_there = false;
                }
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// A temporary name for a file that has none. It is locked before, so that no starting server finds it unlocked.
    pub(crate) fn link(file: &OwnedFd, folder: Folder) -> Result<Temporary, Errno> {
        is_kept(file)?;
        for _ in 0..ATTEMPTS {
            let name = random_name()?;
            match link_nameless(file, &folder, &name) {
                Ok(()) => return Ok(Temporary { folder, name, is_there: true }),
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::EXIST)
    }

    /// Gives the file this name in place of whatever has it, in `folder` or where it is.
    pub(crate) fn replace(mut self, folder: Option<&Folder>, name: &[u8]) -> Result<(), Errno> {
        fs::renameat(&self.folder, &self.name[..], folder.unwrap_or(&self.folder), name)?;
        self.is_there = false;
        Ok(())
    }

    /// Gives the file this name, too, unless there is one.
    pub(crate) fn link_as(self, folder: &Folder, name: &[u8]) -> Result<(), Errno> {
        fs::linkat(&self.folder, &self.name[..], folder, name, AtFlags::empty())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.is_there {
            // A failure has no caller left to report to.
            let _ = fs::unlinkat(&self.folder, &self.name[..], AtFlags::empty());
        }
    }
}

/// Gives a file without a name one, unless another file has it.
pub(crate) fn link_nameless(file: &OwnedFd, folder: &Folder, name: &[u8]) -> Result<(), Errno> {
    // open(2), O_TMPFILE: through /proc no privilege is needed; AT_EMPTY_PATH serves where /proc is not mounted.
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    match fs::linkat(CWD, itself, folder, name, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::NOENT) => fs::linkat(file, "", folder, name, AtFlags::EMPTY_PATH),
        linked => linked,
    }
}

/// Removes what uploads of dead servers have left below the root: at most `ENTRIES_MAX` names are looked at, and no
/// symbolic link is followed. What can't be read or removed stays.
pub(crate) fn remove_leftovers(root: &Root) {
    remove_among(root, ENTRIES_MAX);
}

fn remove_among(root: &Root, mut left: usize) {
    let mut folders = VecDeque::from([b".".to_vec()]);
    while let Some(path) = folders.pop_front() {
        let Ok(folder) = root.open_listing(&path) else { continue };
        let Ok(entries) = Dir::read_from(&folder) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            if left == 0 {
                return;
            }
            left -= 1;
            if is_temporary(name) {
                remove_if_dead(&folder, name);
            } else if matches!(entry.file_type(), FileType::Directory | FileType::Unknown)
                // A client can't name what is deeper.
                && path.len() + name.len() < REQUEST_LEN_MAX
            {
                folders.push_back([&path, name].join(&b'/'));
            }
        }
    }
}

fn is_temporary(name: &[u8]) -> bool {
    name.strip_prefix(TEMPORARY_PREFIX)
        .is_some_and(|random| random.len() == 2 * RANDOM_BYTES && random.iter().all(u8::is_ascii_hexdigit))
}

fn remove_if_dead(folder: &OwnedFd, name: &[u8]) {
    let Ok(file) = open_to_lock(folder, name) else { return };
    let is_file = fs::fstat(&file).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file());
    // The server that makes such a file locks it, and then looks whether it is still there.
    if is_file && fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        let _ = fs::unlinkat(folder, name, AtFlags::empty());
    }
}

/// flock(2): on NFS an exclusive lock needs a file that is open for writing. Elsewhere reading is enough, for a file
/// that this user can't write.
fn open_to_lock(folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = |access| fs::openat(folder, name, access | flags, Mode::empty());
    open(OFlags::RDWR).or_else(|_| open(OFlags::RDONLY))
}

/// Locks a file of ours, and tells whether it stays: a server that starts may have locked it first, to remove it.
fn is_kept(file: impl AsFd) -> Result<bool, Errno> {
    match fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        // It has locked, removed and closed it already. A file of O_TMPFILE has no link yet, and no process has seen
        // it.
        Ok(()) => Ok(fs::fstat(&file)?.st_nlink > 0),
        // A file system without locks: it cannot be locked, so it is not removed.
        Err(_) => Ok(true),
    }
}

/// getrandom(2): what no client and no other server can know.
fn random_name() -> Result<Vec<u8>, Errno> {
    let mut random = [0; RANDOM_BYTES];
    // Up to 256 bytes come whole.
    getrandom(&mut random, GetRandomFlags::empty())?;
    let mut digits = String::with_capacity(2 * RANDOM_BYTES);
    for byte in random {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok([TEMPORARY_PREFIX, digits.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use tftpbench_testclient::Folder as TestFolder;

    use super::*;
    use crate::paths::FilePath;

    fn folder(root: &Arc<Root>) -> Folder {
        root.open_folder(&FilePath::parse(b"f").unwrap()).unwrap()
    }

    fn left(folder: &TestFolder, place: &str) -> String {
        let name = String::from_utf8(random_name().unwrap()).unwrap();
        folder.put(format!("{place}{name}"), b"left");
        name
    }

    #[test]
    fn what_dead_servers_left_is_removed_and_nothing_else() {
        let (outside, root) = (TestFolder::new(), TestFolder::new());
        let stays = left(&outside, "");
        symlink(outside.path(), root.file("link")).unwrap();
        left(&root, "");
        left(&root, "a/b/");
        for name in [".tftpbench-upload-1-1", ".tftpbench-upload-", "f"] {
            root.put(name, b"another's");
        }
        std::fs::create_dir(root.file(String::from_utf8(random_name().unwrap()).unwrap())).unwrap();
        let living = Arc::new(Root::open(root.path()).unwrap());
        let (_file, held) = Temporary::create(folder(&living), Mode::RUSR).unwrap();
        assert_eq!(root.names().len(), 8);
        remove_leftovers(&living);
        assert_eq!(root.names().len(), 7);
        assert!(root.file(String::from_utf8(held.name.clone()).unwrap()).exists());
        assert_eq!((std::fs::read_dir(root.file("a/b")).unwrap().count(), outside.names()), (0, vec![stays]));
    }

    #[test]
    fn what_is_to_be_locked_is_open_for_writing_where_it_can_be() {
        let test = TestFolder::new();
        test.put("folder/f", b"");
        let folder = Root::open(test.path()).unwrap().open_listing(b".").unwrap();
        let access =
            |name: &[u8]| fs::fcntl_getfl(open_to_lock(&folder, name).unwrap()).unwrap() & OFlags::ACCMODE;
        assert_eq!((access(b"folder/f"), access(b"folder")), (OFlags::RDWR, OFlags::RDONLY));
    }

    #[test]
    fn no_more_names_are_looked_at_than_a_start_has_time_for_and_near_ones_come_first() {
        let test = TestFolder::new();
        let root = Root::open(test.path()).unwrap();
        for number in 0..10 {
            test.put(format!("a/{number}"), b"");
        }
        let names = ["", "a/b/"].map(|place| left(&test, place));
        remove_among(&root, 12);
        assert!(!test.file(&names[0]).exists() && test.file("a/b").join(&names[1]).exists());
        // The folder `a`, what is in it, and what is in `b`.
        remove_among(&root, 13);
        assert!(!test.file("a/b").join(&names[1]).exists());
    }

    /// However the two meet: what has been made stays until its maker lets it go.
    #[test]
    fn a_file_that_is_being_made_while_a_server_starts_is_there_in_the_end() {
        let test = TestFolder::new();
        let root = Arc::new(Root::open(test.path()).unwrap());
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    remove_leftovers(&root);
                }
            });
            let kept = (0..2000).all(|_| {
                let (_file, made) = Temporary::create(folder(&root), Mode::RUSR).unwrap();
                made.link_as(&folder(&root), b"f").is_ok() && std::fs::remove_file(test.file("f")).is_ok()
            });
            is_done.store(true, Ordering::Relaxed);
            assert!(kept);
        });
        assert!(test.names().is_empty());
    }
}
