//! An upload on its way to the disk. It has no name until it is whole: O_TMPFILE and linkat(2), or a temporary name that
//! is removed again (`temporary.rs`). It must never leave anything behind when it is dropped. Only the disk store makes one.

use std::mem;
use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::{self, Errno};
use tftpbench_net::{Deferrable, LARGE_BYTES};
use tftpbench_proto::Agreed;

use super::temporary::{Temporary, link_nameless};
use crate::paths::{FilePath, Folder, Root, existing_in, file_type, may_create};
use crate::refusal::Refusal;

/// Blocks are gathered to this size before they are written: 16 of 512 bytes a system call, and at 10,000 uploads at
/// once still only 80 MB.
const GATHER_BYTES: usize = 8 * 1024;

/// The same where blocks come in windows: with 64 of 1428 bytes that moved 1.20 (1.13 to 1.24) times as many blocks.
const GATHER_BYTES_OF_WINDOWS: usize = 64 * 1024;

/// One file being written. It holds one descriptor: the folder is looked up again when the upload is whole.
#[derive(Debug)]
pub(crate) struct DiskUpload {
    /// Its name until it is whole, where O_TMPFILE is refused. It goes before the descriptor: the last of the two frees the
    /// contents.
    temporary: Option<Temporary>,
    /// The last descriptor of a large file without a name takes long to close.
    file: Deferrable<OwnedFd>,
    written: u64,
    root: Arc<Root>,
    path: FilePath,
    overwrite: bool,
    /// As long as the file was that will be replaced.
    replaced_bytes: u64,
    gather_bytes: usize,
    gathered: Vec<u8>,
}

impl DiskUpload {
    pub(crate) fn create(
        root: &Arc<Root>,
        path: &FilePath,
        overwrite: bool,
        size: Option<u64>,
    ) -> Result<DiskUpload, Refusal> {
        let folder = root.open_folder(path)?;
        let existing = existing_in(&folder, path.name())?;
        may_create(existing.as_ref().map(file_type), overwrite)?;
        if let Some(size) = size {
            fits(&folder, size)?;
        }
        let (file, temporary) = match open_nameless(&folder) {
            Ok(file) => (file, None),
            Err(errno) if no_nameless_files(errno) => {
                let (file, temporary) = Temporary::create(folder, CREATED)?;
                (file, Some(temporary))
            }
            Err(errno) => return Err(errno.into()),
        };
        let (root, path) = (Arc::clone(root), path.clone());
        Ok(DiskUpload {
            file: Deferrable::new(file),
            written: 0,
            root,
            path,
            temporary,
            overwrite,
            replaced_bytes: existing.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0)),
            gather_bytes: GATHER_BYTES,
            gathered: Vec::new(),
        })
    }

    /// Blocks will come in such windows.
    pub(crate) fn expect(&mut self, agreed: &Agreed) {
        if agreed.windowsize > 1 {
            self.gather_bytes = GATHER_BYTES_OF_WINDOWS;
        }
    }

    /// Writes begin and end at multiples of `gather_bytes`, so of pages: a page that is written twice is looked up twice.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        if !self.gathered.is_empty() && self.gathered.len() + bytes.len() >= self.gather_bytes {
            let (now, later) = bytes.split_at(self.gather_bytes - self.gathered.len());
            self.gathered.extend_from_slice(now);
            self.flush()?;
            bytes = later;
        }
        // What is left of a large block needs no gathering, but for its end.
        if bytes.len() >= self.gather_bytes {
            let (now, later) = bytes.split_at(bytes.len() - bytes.len() % self.gather_bytes);
            self.write(now)?;
            bytes = later;
        }
        if self.gathered.capacity() == 0 && !bytes.is_empty() {
            self.gathered.reserve_exact(self.gather_bytes);
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn commit(mut self) -> Result<(), Refusal> {
        self.flush()?;
        let folder = self.root.open_folder(&self.path)?;
        let name = self.path.name();
        let _replaced = self.overwrite.then(|| self.hold_replaced(&folder)).flatten();
        match self.temporary {
            None if self.overwrite => Temporary::link(&self.file, folder)?.replace(None, name)?,
            None => link_nameless(&self.file, &folder, name)?,
            // Only rename(2) puts a new file in the place of an old one without a moment in which neither is there.
            Some(temporary) if self.overwrite => temporary.replace(Some(&folder), name)?,
            // link(2) fails where rename(2) would replace.
            Some(temporary) => temporary.link_as(&folder, name)?,
        }
        // It has a name now, which keeps its contents.
        self.file.defer(false);
        Ok(())
    }

    /// Where a large file is replaced, a descriptor that keeps it until it can be freed elsewhere: rename(2) would free it.
    fn hold_replaced(&self, folder: &Folder) -> Option<Deferrable<OwnedFd>> {
        if self.replaced_bytes < LARGE_BYTES {
            return None;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut replaced = Deferrable::new(fs::openat(folder, self.path.name(), flags, Mode::empty()).ok()?);
        replaced.defer(true);
        Some(replaced)
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        let mut gathered = mem::take(&mut self.gathered);
        self.write(&gathered)?;
        gathered.clear();
        self.gathered = gathered;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        write_all(&self.file, bytes)?;
        self.written += bytes.len() as u64;
        self.file.defer(self.written >= LARGE_BYTES);
        Ok(())
    }
}

/// RFC 2349 section 3: a file that is too large to be stored is refused before its first block.
fn fits(folder: &Folder, size: u64) -> Result<(), Refusal> {
    // O_PATH descriptors are good for fstatvfs(2) since Linux 3.12.
    match fs::fstatvfs(folder) {
        Ok(disk) if disk.f_bavail.saturating_mul(disk.f_frsize) < size => Err(Refusal::DISK_FULL),
        _ => Ok(()),
    }
}

fn open_nameless(folder: &Folder) -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    fs::openat(folder, ".", flags, CREATED)
}

/// open(2), O_TMPFILE: what old kernels and file systems without it answer.
fn no_nameless_files(errno: Errno) -> bool {
    matches!(errno, Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL)
}

fn write_all(file: &OwnedFd, mut bytes: &[u8]) -> Result<(), Refusal> {
    while !bytes.is_empty() {
        match io::write(file, bytes) {
            Ok(0) => return Err(Refusal::DISK_FULL),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// As open(2) by any program: the umask decides.
const CREATED: Mode = Mode::from_raw_mode(0o666);

#[cfg(test)]
mod tests {
    use rustix::fs::CWD;
    use tftpbench_testclient::Folder as TestFolder;

    use super::*;

    fn root(folder: &TestFolder) -> Arc<Root> {
        Arc::new(Root::open(folder.path()).unwrap())
    }

    fn path(name: &str) -> FilePath {
        FilePath::parse(name.as_bytes()).unwrap()
    }

    /// As on a file system without O_TMPFILE.
    fn hidden_upload(folder: &TestFolder, overwrite: bool) -> DiskUpload {
        let (root, path) = (root(folder), path("f"));
        let (file, temporary) = Temporary::create(root.open_folder(&path).unwrap(), CREATED).unwrap();
        DiskUpload {
            file: Deferrable::new(file),
            written: 0,
            root,
            path,
            temporary: Some(temporary),
            overwrite,
            replaced_bytes: 0,
            gather_bytes: GATHER_BYTES,
            gathered: Vec::new(),
        }
    }

    fn nameless_upload(folder: &TestFolder, overwrite: bool) -> DiskUpload {
        DiskUpload::create(&root(folder), &path("f"), overwrite, Some(9)).unwrap()
    }

    const KINDS: [fn(&TestFolder, bool) -> DiskUpload; 2] = [nameless_upload, hidden_upload];

    #[test]
    fn a_dropped_upload_leaves_nothing_with_or_without_o_tmpfile() {
        for kind in KINDS {
            let folder = TestFolder::new();
            let mut upload = kind(&folder, false);
            upload.append(&[1; 100_000]).unwrap();
            drop(upload);
            assert!(folder.names().is_empty());
        }
    }

    #[test]
    fn blocks_of_any_size_arrive_in_order_with_or_without_o_tmpfile() {
        for (kind, windowsize) in KINDS.into_iter().flat_map(|kind| [(kind, 1), (kind, 16)]) {
            let folder = TestFolder::new();
            let mut upload = kind(&folder, true);
            upload.expect(&Agreed { windowsize, ..Agreed::default() });
            let mut whole = Vec::new();
            for size in [1, 512, GATHER_BYTES - 1, GATHER_BYTES, 3, 65_464, 0, 700] {
                let block = vec![size as u8; size];
                upload.append(&block).unwrap();
                whole.extend(block);
            }
            upload.commit().unwrap();
            assert_eq!(folder.contents("f"), whole);
            assert_eq!(folder.names(), ["f"]);
        }
    }

    #[test]
    fn an_existing_file_is_kept_or_replaced_with_or_without_o_tmpfile() {
        for kind in KINDS {
            let folder = TestFolder::new();
            let upload = kind(&folder, false);
            folder.put("f", b"old");
            assert_eq!(upload.commit(), Err(Refusal::EXISTS));
            assert_eq!(folder.contents("f"), b"old");
            let mut upload = kind(&folder, true);
            upload.append(b"new").unwrap();
            upload.commit().unwrap();
            assert_eq!(folder.contents("f"), b"new");
            assert_eq!(folder.names(), ["f"]);
        }
    }

    #[test]
    fn a_full_disk_refuses_with_error_3() {
        let folder = TestFolder::new();
        for size in [1, GATHER_BYTES] {
            let mut upload = hidden_upload(&folder, false);
            *upload.file = fs::openat(CWD, "/dev/full", OFlags::WRONLY, Mode::empty()).unwrap();
            let refused = upload.append(&vec![0; size]).and_then(|()| upload.commit());
            assert_eq!(refused, Err(Refusal::DISK_FULL), "{size}");
            assert!(folder.names().is_empty());
        }
    }

    #[test]
    fn a_size_beyond_the_free_space_refuses_with_error_3() {
        let folder = TestFolder::new();
        let refused = DiskUpload::create(&root(&folder), &path("f"), false, Some(1 << 60));
        assert_eq!(refused.unwrap_err(), Refusal::DISK_FULL);
    }
}
