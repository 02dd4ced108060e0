//! A file on disk while it is being served, read with pread(2): a mapping would be a SIGBUS where the file shrinks.
//!
//! A reader that gets a whole file gets it as it was when it was opened, whatever happens to its names meanwhile:
//! renamed, removed or replaced, it is served to its end. A change of its size or modification time is an error. The
//! file is looked at after a read: from time to time, with the last byte, and before anything that was read goes
//! together with what is kept for all readers of the same state.

use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::io::{Errno, pread};
use tftpbench_net::DatagramRun;

use super::open_files::{OpenFile, OpenFiles, RunKey, Version};
use crate::paths::{FilePath, Root};
use crate::refusal::Refusal;

/// How many bytes go out between two looks at the file's state: one fstat(2) for 128 blocks of 512 bytes.
const CHECK_EVERY_BYTES: u64 = 64 * 1024;

/// An open regular file that must stay as it was when it was opened.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: Arc<OpenFile>,
    /// The offset from which the next read is followed by a look at the file's state.
    check_at: u64,
    /// Something was read since the last look.
    is_unchecked: bool,
}

impl DiskFile {
    /// To be read whole and at once.
    pub(crate) fn open(root: &Root, path: &FilePath) -> Result<DiskFile, Refusal> {
        DiskFile::open_as(root, path, OpenFile::unshared)
    }

    /// For a transfer: it takes as long as the client likes, and others may read the same.
    pub(crate) fn open_shared(
        files: &Arc<OpenFiles>,
        root: &Root,
        path: &FilePath,
    ) -> Result<DiskFile, Refusal> {
        DiskFile::open_as(root, path, |file, version| files.share(file, version))
    }

    fn open_as(
        root: &Root,
        path: &FilePath,
        keep: impl FnOnce(OwnedFd, Version) -> Arc<OpenFile>,
    ) -> Result<DiskFile, Refusal> {
        let (file, stat) = root.open_regular(path)?;
        let file = keep(file, Version::of(&stat));
        Ok(DiskFile { file, check_at: CHECK_EVERY_BYTES, is_unchecked: false })
    }

    pub(crate) fn length(&self) -> u64 {
        self.file.version().size
    }

    /// What `keep` was given by any reader of this state of the file.
    pub(crate) fn kept(&mut self, key: &RunKey) -> Result<Option<Arc<DatagramRun>>, Refusal> {
        let kept = self.file.kept(key);
        // It may be the last that this reader asks for.
        if kept.is_some() && self.is_unchecked {
            self.check()?;
        }
        Ok(kept)
    }

    /// Keeps what has just been read, if another reader has the file open: for one alone it would only pile up.
    pub(crate) fn keep(&mut self, key: RunKey, run: &Arc<DatagramRun>) -> Result<(), Refusal> {
        if Arc::strong_count(&self.file) > 1 {
            self.check()?;
            self.file.keep(key, run);
        }
        Ok(())
    }

    /// All of `buf`, from `offset` on. The file is looked at after the read, so that what was read is known to be old.
    pub(crate) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        let mut filled = 0;
        while filled < buf.len() {
            let at = offset + filled as u64;
            filled += some(pread(self.file.descriptor(), &mut buf[filled..], at))?;
        }
        self.check_at_times(offset + filled as u64)
    }

    /// The same behind what is in `bytes`.
    pub(crate) fn append(&mut self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        let (before, end) = (bytes.len(), bytes.len() + length);
        bytes.reserve(length);
        while bytes.len() < end {
            let at = offset + (bytes.len() - before) as u64;
            some(pread(self.file.descriptor(), spare_capacity(bytes), at))?;
        }
        // There may be room for more, and the file may go on.
        bytes.truncate(end);
        self.check_at_times(offset + length as u64)
    }

    fn check_at_times(&mut self, end: u64) -> Result<(), Refusal> {
        self.is_unchecked = true;
        if end >= self.check_at || end == self.length() {
            self.check()?;
            self.check_at = end + CHECK_EVERY_BYTES;
        }
        Ok(())
    }

    /// Whether the file is what it was when it was opened.
    pub(crate) fn check(&mut self) -> Result<(), Refusal> {
        let now = self.file.stat()?;
        self.is_unchecked = !Version::of(&now).has_contents_of(self.file.version());
        if self.is_unchecked { Err(Refusal::CHANGED) } else { Ok(()) }
    }
}

/// How many bytes a pread(2) that must not find the end has brought; none where a signal came first.
fn some(read: Result<usize, Errno>) -> Result<usize, Refusal> {
    match read {
        Ok(0) => Err(Refusal::CHANGED),
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use tftpbench_testclient::{Folder, pattern};

    use super::*;

    fn open(folder: &Folder) -> DiskFile {
        let path = FilePath::parse(b"f").unwrap();
        DiskFile::open(&Root::open(folder.path()).unwrap(), &path).unwrap()
    }

    #[test]
    fn blocks_of_any_size_read_as_they_stand_in_the_file_forwards_and_again() {
        let folder = Folder::new();
        let contents = pattern(20_001, 1);
        folder.put("f", &contents);
        for blksize in [8, 512, 1428, 2048, 2049, 65_464] {
            let mut file = open(&folder);
            for offset in (0..contents.len()).step_by(blksize).chain([0, blksize.min(20_000), 0]) {
                let mut block = vec![0; blksize.min(contents.len() - offset)];
                file.read_at(offset as u64, &mut block).unwrap();
                assert!(block == contents[offset..offset + block.len()], "{blksize} at {offset}");
            }
            assert_eq!(file.read_at(20_000, &mut [0; 2]), Err(Refusal::CHANGED));
        }
    }

    #[test]
    fn a_file_that_changes_is_found_out_within_so_many_bytes() {
        let folder = Folder::new();
        folder.put("f", &pattern(200_000, 1));
        let mut file = open(&folder);
        file.read_at(0, &mut [0; 1000]).unwrap();
        folder.put("f", &pattern(200_001, 2));
        let unnoticed = (1..200).take_while(|at| file.read_at(at * 1000, &mut [0; 1000]).is_ok()).count();
        assert!(unnoticed as u64 * 1000 <= CHECK_EVERY_BYTES, "{unnoticed}");
    }

    #[test]
    fn a_file_that_shrinks_to_nothing_refuses_the_empty_last_block() {
        let folder = Folder::new();
        folder.put("f", &[1; 512]);
        let mut file = open(&folder);
        file.read_at(0, &mut [0; 512]).unwrap();
        folder.put("f", b"");
        assert_eq!(file.read_at(512, &mut []), Err(Refusal::CHANGED));
    }
}
