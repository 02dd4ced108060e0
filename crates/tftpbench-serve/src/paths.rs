//! From a file name on the wire to an open file under the root, and to nothing else on the machine.
//! It must never follow a symbolic link, leave the root, or wait on a FIFO or device.
//!
//! Two resolvers with one behaviour: `openat2(2)` does it in one system call without a race; where the kernel or a
//! sandbox refuses that call, the path is walked one component at a time with O_NOFOLLOW.

use std::path::Path;
use std::sync::Arc;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::refusal::Refusal;

/// Start of the temporary names of uploads (`store/temporary.rs`); no client may name one.
pub(crate) const TEMPORARY_PREFIX: &[u8] = b".tftpbench-upload-";

/// A file name that is relative to the root, has no `..`, and names at least one component.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FilePath(Box<[u8]>);

impl FilePath {
    /// Leading slashes are dropped: a boot loader's "/pxelinux.0" is relative to the root.
    pub(crate) fn parse(filename: &[u8]) -> Result<FilePath, Refusal> {
        let mut path = Vec::with_capacity(filename.len());
        for component in filename.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(Refusal::ESCAPES),
                // A request cannot hold a NUL, but other callers could.
                hidden if hidden.starts_with(TEMPORARY_PREFIX) || hidden.contains(&0) => {
                    return Err(Refusal::ESCAPES);
                }
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        match path.is_empty() {
            true => Err(Refusal::NOT_REGULAR),
            false => Ok(FilePath(path.into())),
        }
    }

    /// All components, with a slash between two.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The last component.
    pub(crate) fn name(&self) -> &[u8] {
        self.split().1
    }

    fn split(&self) -> (Option<&[u8]>, &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (Some(&self.0[..slash]), &self.0[slash + 1..]),
            None => (None, &self.0),
        }
    }
}

/// How paths are resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolver {
    /// openat2(2), Linux 5.6 and later.
    Openat2,
    /// One openat(2) with O_NOFOLLOW a component.
    Walk,
}

/// The served folder.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    resolver: Resolver,
}

/// The folder that holds a file: the root itself, or one below it.
#[derive(Debug)]
pub(crate) struct Folder {
    root: Arc<Root>,
    below: Option<OwnedFd>,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.below.as_ref().unwrap_or(&self.root.directory).as_fd()
    }
}

impl Root {
    /// Opens the folder and finds out which resolver works here.
    pub(crate) fn open(path: &Path) -> Result<Root, Errno> {
        let root = Root::with_resolver(path, Resolver::Openat2)?;
        match root.openat2(b".", FOLDER) {
            // What an old kernel, a seccomp filter, or an emulator says to a call that it does not have.
            Err(Errno::NOSYS | Errno::PERM | Errno::INVAL) => Ok(Root { resolver: Resolver::Walk, ..root }),
            _ => Ok(root),
        }
    }

    pub(crate) fn with_resolver(path: &Path, resolver: Resolver) -> Result<Root, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Root { directory, resolver })
    }

    /// Opens a regular file for reading; anything else is refused, and never waited for.
    pub(crate) fn open_regular(&self, path: &FilePath) -> Result<(OwnedFd, fs::Stat), Refusal> {
        // open(2): NONBLOCK so that a FIFO without a writer opens at once, NOCTTY so that no terminal is taken.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.resolve(&path.0, flags)?;
        let stat = fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            _ => Err(Refusal::NOT_REGULAR),
        }
    }

    /// Opens the folder that holds `path`.
    pub(crate) fn open_folder(self: &Arc<Root>, path: &FilePath) -> Result<Folder, Refusal> {
        let below = match path.split() {
            (None, _) => None,
            (Some(folder), _) => Some(self.resolve(folder, FOLDER)?),
        };
        Ok(Folder { root: Arc::clone(self), below })
    }

    /// Opens a folder at a path of plain components, so that it can be listed.
    pub(crate) fn open_listing(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        match self.resolver {
            Resolver::Openat2 => self.openat2(path, flags),
            Resolver::Walk => self.walk(path, flags),
        }
    }

    fn openat2(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        // NO_SYMLINKS also covers links that stay inside: both resolvers must behave alike.
        let rules = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        fs::openat2(&self.directory, path, flags | OFlags::CLOEXEC, Mode::empty(), rules)
    }

    fn walk(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut components = path.split(|&byte| byte == b'/').peekable();
        let mut folder: Option<OwnedFd> = None;
        while let Some(component) = components.next() {
            let at = folder.as_ref().unwrap_or(&self.directory);
            let flags = if components.peek().is_some() { FOLDER } else { flags };
            let opened = open_component(at, component, flags)?;
            folder = Some(opened);
        }
        folder.ok_or(Errno::NOENT)
    }
}

/// What is called `name` in a folder, if anything is; a symbolic link is refused.
pub(crate) fn existing_in(folder: &Folder, name: &[u8]) -> Result<Option<fs::Stat>, Refusal> {
    match fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match file_type(&stat) {
            FileType::Symlink => Err(Refusal::ESCAPES),
            _ => Ok(Some(stat)),
        },
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

pub(crate) fn file_type(stat: &fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY);

fn open_component(at: &OwnedFd, component: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, component, flags, Mode::empty()).map_err(|errno| match errno {
        // open(2): a link fails with ELOOP, but with ENOTDIR where O_DIRECTORY is asked for too. openat2 says ELOOP.
        Errno::NOTDIR if is_symlink(at, component) => Errno::LOOP,
        other => other,
    })
}

fn is_symlink(at: &OwnedFd, component: &[u8]) -> bool {
    fs::statat(at, component, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Whether an upload may take a name, judged by what stands under it now.
pub(crate) fn may_create(existing: Option<FileType>, overwrite: bool) -> Result<(), Refusal> {
    match existing {
        None => Ok(()),
        Some(FileType::RegularFile) if overwrite => Ok(()),
        Some(FileType::RegularFile) => Err(Refusal::EXISTS),
        Some(_) => Err(Refusal::NOT_REGULAR),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, read, rename};
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use tftpbench_proto::ErrorCode;
    use tftpbench_testclient::Folder as TestFolder;

    use super::*;

    /// Both, or the one that this kernel has.
    fn resolvers(root: &TestFolder) -> Vec<Arc<Root>> {
        let open = |resolver| Arc::new(Root::with_resolver(root.path(), resolver).unwrap());
        let both = [open(Resolver::Openat2), open(Resolver::Walk)];
        both.into_iter().filter(|root| root.resolve(b".", FOLDER).err() != Some(Errno::NOSYS)).collect()
    }

    fn path(name: &str) -> FilePath {
        FilePath::parse(name.as_bytes()).unwrap()
    }

    fn code(result: Result<impl Sized, Refusal>) -> Option<u16> {
        result.err().map(|refusal| refusal.code.0)
    }

    #[test]
    fn names_become_relative_paths_or_are_refused() {
        for (name, relative) in
            [("f", "f"), ("/f", "f"), ("//a//b/./f/", "a/b/f"), ("a b\n", "a b\n"), ("...", "...")]
        {
            assert_eq!(&*path(name).0, relative.as_bytes());
        }
        for name in ["..", "../f", "a/..", "a/../../f", "/..", "./..", ".tftpbench-upload-1-1", "f\0"] {
            let refusal = FilePath::parse(name.as_bytes()).unwrap_err();
            assert_eq!(refusal.code, ErrorCode::ACCESS_VIOLATION, "{name}");
        }
        for name in ["", "/", ".", "./."] {
            assert_eq!(FilePath::parse(name.as_bytes()), Err(Refusal::NOT_REGULAR), "{name}");
        }
    }

    #[test]
    fn both_resolvers_open_the_same_files_and_refuse_the_same_others() {
        let (outside, root) = (TestFolder::new(), TestFolder::new());
        outside.put("secret", b"secret");
        root.put("f", b"top");
        root.put("a/b/f", b"deep");
        symlink(outside.file("secret"), root.file("link")).unwrap();
        symlink(outside.path(), root.file("a/linked")).unwrap();
        symlink("f", root.file("inside")).unwrap();
        symlink("b", root.file("a/also-inside")).unwrap();
        symlink("absent", root.file("dangling")).unwrap();
        for resolver in resolvers(&root) {
            for (name, contents) in [("f", "top"), ("a/b/f", "deep")] {
                let (file, _) = resolver.open_regular(&path(name)).unwrap();
                let mut read = String::new();
                std::fs::File::from(file).read_to_string(&mut read).unwrap();
                assert_eq!(read, contents);
            }
            for (name, refused) in [
                ("absent", 1),
                ("f/f", 1),
                ("absent/f", 1),
                ("link", 2),
                ("a/linked/secret", 2),
                ("inside", 2),
                ("a/also-inside/f", 2),
                ("dangling", 2),
                ("a", 2),
                ("a/b", 2),
            ] {
                let got = code(resolver.open_regular(&path(name)));
                assert_eq!(got, Some(refused), "{name} by {:?}", resolver.resolver);
            }
            for (name, refused) in [
                ("new", None),
                ("a/b/new", None),
                ("a/linked/new", Some(2)),
                ("f/new", Some(1)),
                ("x/new", Some(1)),
            ] {
                let got = code(resolver.open_folder(&path(name)));
                assert_eq!(got, refused, "{name} by {:?}", resolver.resolver);
            }
            let long = "n".repeat(300);
            assert_eq!(code(resolver.open_regular(&path(&long))), Some(1));
        }
    }

    #[test]
    fn devices_and_fifos_are_refused_without_waiting() {
        let root = TestFolder::new();
        let fifo = root.file("fifo");
        fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        for resolver in resolvers(&root) {
            assert_eq!(resolver.open_regular(&path("fifo")).unwrap_err(), Refusal::NOT_REGULAR);
        }
        let devices = Root::open(Path::new("/dev")).unwrap();
        for name in ["null", "zero", "tty"] {
            assert!(devices.open_regular(&path(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_folder_that_turns_into_a_link_again_and_again_never_leads_outside() {
        let (outside, root) = (TestFolder::new(), TestFolder::new());
        outside.put("f", b"secret");
        create_dir(root.file("a")).unwrap();
        root.put("a/f", b"inside");
        symlink(outside.path(), root.file("spare")).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let _done = SetOnDrop(&done);
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    rename(root.file("a"), root.file("aside")).unwrap();
                    rename(root.file("spare"), root.file("a")).unwrap();
                    rename(root.file("a"), root.file("spare")).unwrap();
                    rename(root.file("aside"), root.file("a")).unwrap();
                }
            });
            for resolver in resolvers(&root) {
                let mut opened = 0;
                for _ in 0..20_000 {
                    let Ok((file, _)) = resolver.open_regular(&path("a/f")) else {
                        // On a busy machine the folder can stay a link for as long as all of these take.
                        thread::yield_now();
                        continue;
                    };
                    opened += 1;
                    let mut read = String::new();
                    std::fs::File::from(file).read_to_string(&mut read).unwrap();
                    assert_eq!(read, "inside", "by {:?}", resolver.resolver);
                }
                assert!(opened > 0, "the race was never won by {:?}", resolver.resolver);
            }
        });
        assert_eq!(read(outside.file("f")).unwrap(), b"secret");
    }

    /// Also on a panic, or the scope would wait for the other thread for ever.
    struct SetOnDrop<'a>(&'a AtomicBool);

    impl Drop for SetOnDrop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
