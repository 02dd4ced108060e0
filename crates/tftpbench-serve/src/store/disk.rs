//! A file on disk while it is being served. Its blocks are read with pread(2), small ones some at a time, or gathered: the
//! kernel takes them from a mapping that all readers of the file share. This process must never look into that mapping
//! itself: where the file has shrunk that is a SIGBUS, while a short pread is an ERROR to one client.
//!
//! Who gets a whole file gets it as it was when it was opened. What is read is looked at afterwards, from time to time and
//! always with the last byte. What is gathered is read by the kernel later, so the end of the file never is: the blocks
//! that can leave together with the last one are read, and that one's look at the file vouches for all that left before.

use std::sync::Arc;

use rustix::buffer::spare_capacity;
use rustix::fd::OwnedFd;
use rustix::fs::Stat;
use rustix::io::{self, Errno};
use tftpbench_net::FilePart;
use tftpbench_proto::Agreed;

use super::open_files::{OpenFile, OpenFiles, Version};
use crate::paths::{FilePath, Root};
use crate::refusal::Refusal;

/// How many bytes go out between two looks at the file's state: one fstat(2) for 128 blocks of 512 bytes.
const CHECK_EVERY_BYTES: u64 = 64 * 1024;

/// Larger blocks are read straight into the datagram, each by itself.
const SMALL_BYTES_MAX: usize = 2048;

/// Small blocks are read a window at a time, but at least this much. Measured in lock-step at 512 bytes: with a pread(2)
/// each, those were a seventh of the server's CPU; 4 KiB at a time make it a twenty-fifth.
const AHEAD_BYTES_MIN: u64 = 4096;

/// Not more of a window at a time: it lies in memory twice until it has left.
const AHEAD_BYTES_MAX: u64 = 64 * 1024;

/// An open regular file that must stay as it was when it was opened.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: Arc<OpenFile>,
    /// Names that it had when this reader opened it.
    links: u64,
    /// The offset from which the next block is followed by a look at the file's state.
    check_at: u64,
    /// Blocks that end up to here are gathered.
    gathered_to: u64,
    /// Reading ahead stops at multiples of this, so that nothing is held while the client's ACK is on its way.
    stretch_bytes: u64,
    /// What was read ahead, and the offset of its first byte.
    ahead: Vec<u8>,
    ahead_at: u64,
}

impl DiskFile {
    /// For who wants it whole and at once.
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
        Ok(DiskFile {
            file: keep(file, Version::of(&stat)),
            links: links(&stat),
            check_at: CHECK_EVERY_BYTES,
            gathered_to: 0,
            stretch_bytes: AHEAD_BYTES_MIN,
            ahead: Vec::new(),
            ahead_at: 0,
        })
    }

    pub(crate) fn length(&self) -> u64 {
        self.file.version().size
    }

    /// What will be asked for is blocks of so many bytes in such windows.
    pub(crate) fn expect(&mut self, agreed: &Agreed, may_gather: bool) {
        let (blksize, windowsize) = (u64::from(agreed.blksize), u64::from(agreed.windowsize));
        // Whole blocks: a part of one at the end would be read twice.
        self.stretch_bytes = windowsize.max(AHEAD_BYTES_MIN / blksize) * blksize;
        // One reader alone would pay more for the mapping than it saves: 12 us to map, touch and unmap 64 KiB. For several it
        // moves 1.07 to 1.08 times as many blocks of 512 bytes in windows and saves every transfer its buffer. Beside a
        // sender alone, gathering costs 5 to 13 % there, and saves 11 to 44 % above 1024 bytes
        // (`cargo run --release -p tftpbench-net --example gather`).
        let is_shared = Arc::strong_count(&self.file) > 1;
        let before_last_window = self.length().saturating_sub(windowsize * blksize);
        if may_gather && is_shared && before_last_window > 0 && self.file.mapping().is_some() {
            self.gathered_to = before_last_window;
        }
    }

    /// Whether `part_at` gives this block. The file is looked at now and then.
    pub(crate) fn gathers(&mut self, offset: u64, length: usize) -> Result<bool, Refusal> {
        let end = offset + length as u64;
        if end > self.gathered_to || self.part_at(offset, length).is_none() {
            return Ok(false);
        }
        self.check_at_times(end)?;
        Ok(true)
    }

    /// Where a block lies that `gathers`.
    pub(crate) fn part_at(&self, offset: u64, length: usize) -> Option<FilePart<'_>> {
        self.file.mapping()?.part(offset, length)
    }

    pub(crate) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        match buf.len() > SMALL_BYTES_MAX {
            true => pread_exact(self.file.descriptor(), buf, offset)?,
            false => self.read_ahead(offset, buf)?,
        }
        // Looked at after the read, so that what was read is known to be old, and always with the last byte.
        self.check_at_times(offset + buf.len() as u64)
    }

    fn read_ahead(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        if self.part_of_ahead(offset, buf.len()).is_none() {
            // Nothing is ahead while this is being read: on a failure it must not be taken for file contents.
            self.ahead = Vec::new();
            (self.ahead, self.ahead_at) = (self.read_some(offset, buf.len())?, offset);
        }
        buf.copy_from_slice(self.part_of_ahead(offset, buf.len()).ok_or(Refusal::CHANGED)?);
        // It is not needed again unless something was lost, and there may be 10,000 of them.
        if offset + buf.len() as u64 == self.ahead_at + self.ahead.len() as u64 {
            self.ahead = Vec::new();
        }
        Ok(())
    }

    /// At least `wanted` bytes, if the file has as many.
    fn read_some(&self, offset: u64, wanted: usize) -> Result<Vec<u8>, Refusal> {
        let rest = self.length().saturating_sub(offset);
        let stretch = self.stretch_bytes - offset % self.stretch_bytes;
        let bytes = stretch.min(AHEAD_BYTES_MAX).max(wanted as u64).min(rest) as usize;
        let mut ahead = Vec::with_capacity(bytes);
        while ahead.len() < bytes {
            let at = offset + ahead.len() as u64;
            match io::pread(self.file.descriptor(), spare_capacity(&mut ahead), at) {
                Ok(0) => return Err(Refusal::CHANGED),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(ahead)
    }

    fn part_of_ahead(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.ahead_at)?).ok()?;
        self.ahead.get(start..)?.get(..length)
    }

    /// `end`: where the block ends that is about to leave.
    fn check_at_times(&mut self, end: u64) -> Result<(), Refusal> {
        if end >= self.check_at || end == self.length() {
            self.check()?;
            self.check_at = end + CHECK_EVERY_BYTES;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Refusal> {
        let now = self.file.stat()?;
        // A new hard link does no harm; a lost one means that the name is gone or belongs to another file.
        match Version::of(&now) == *self.file.version() && links(&now) >= self.links {
            true => Ok(()),
            false => Err(Refusal::CHANGED),
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "the width of this field differs between architectures")]
fn links(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

fn pread_exact(file: &OwnedFd, buf: &mut [u8], offset: u64) -> Result<(), Refusal> {
    let mut filled = 0;
    while filled < buf.len() {
        match io::pread(file, &mut buf[filled..], offset + filled as u64) {
            Ok(0) => return Err(Refusal::CHANGED),
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
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

    /// A reader that shares the file with another one.
    fn shared(folder: &Folder, blksize: u16, windowsize: u16, may_gather: bool) -> (DiskFile, DiskFile) {
        let (files, root) = (Arc::default(), Root::open(folder.path()).unwrap());
        let open = || DiskFile::open_shared(&files, &root, &FilePath::parse(b"f").unwrap()).unwrap();
        let (other, mut file) = (open(), open());
        file.expect(&agreed(blksize, windowsize), may_gather);
        (file, other)
    }

    fn agreed(blksize: u16, windowsize: u16) -> Agreed {
        Agreed { blksize, windowsize, ..Agreed::default() }
    }

    #[test]
    fn all_but_the_last_window_of_a_shared_file_is_gathered() {
        let folder = Folder::new();
        for (size, blksize, windowsize) in
            [(20_001, 8, 1), (20_480, 512, 1), (20_001, 1428, 4), (20_480, 2048, 4), (5000, 1428, 4)]
        {
            folder.put("f", &pattern(size, 1));
            let (mut file, _other) = shared(&folder, blksize, windowsize, true);
            // The last block is the first that is short, and may be empty.
            let last = size / usize::from(blksize);
            let gathered = (0..=last).filter(|&block| {
                let offset = block * usize::from(blksize);
                let length = usize::from(blksize).min(size - offset);
                let gathers = file.gathers(offset as u64, length).unwrap();
                gathers && file.part_at(offset as u64, length).is_some()
            });
            let gathered: Vec<_> = gathered.collect();
            let end = (last + 1).saturating_sub(usize::from(windowsize));
            // A block more may be read, where the last one is a whole one or empty.
            assert_eq!(gathered, (0..gathered.len()).collect::<Vec<_>>());
            assert!(gathered.len() + 1 >= end && gathered.len() <= end, "{gathered:?} of {end}");
        }
    }

    #[test]
    fn what_nobody_else_reads_or_may_not_be_gathered_is_not_mapped() {
        let folder = Folder::new();
        folder.put("f", &pattern(20_000, 1));
        // A window of 3 blocks of 8192 is all of the file, and the last window is always read.
        for (blksize, windowsize, may_gather) in [(512, 1, false), (1428, 16, false), (8192, 3, true)] {
            let (mut file, _other) = shared(&folder, blksize, windowsize, may_gather);
            assert_eq!(file.gathers(0, 8), Ok(false), "{blksize} in {windowsize}");
        }
        let mut alone = open(&folder);
        alone.expect(&agreed(1428, 1), true);
        assert_eq!(alone.gathers(0, 1428), Ok(false));
        let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(!mapped.contains(folder.path().to_str().unwrap()));
    }

    #[test]
    fn gathering_looks_at_the_file_as_often_as_reading_does() {
        let folder = Folder::new();
        folder.put("f", &pattern(200_000, 1));
        let (mut file, _other) = shared(&folder, 1428, 1, true);
        assert_eq!(file.gathers(0, 1428), Ok(true));
        folder.put("f", b"");
        let looks = (1..100).map(|block| file.gathers(block * 1428, 1428));
        let unnoticed = looks.take_while(|look| *look == Ok(true)).count();
        assert!(unnoticed as u64 * 1428 <= CHECK_EVERY_BYTES, "{unnoticed}");
    }

    #[test]
    fn a_window_is_read_at_once_and_nothing_is_held_behind_it() {
        let folder = Folder::new();
        let contents = pattern(100_000, 1);
        folder.put("f", &contents);
        for (blksize, windowsize, held_max) in
            [(512, 1, 4096), (512, 16, 8192), (1428, 2, 2856), (1428, 64, 65_536), (8, 12_000, 65_536)]
        {
            let mut file = open(&folder);
            file.expect(&agreed(blksize, windowsize), true);
            let blksize = usize::from(blksize);
            for (index, block) in contents.chunks(blksize).enumerate() {
                let mut read = vec![0; block.len()];
                file.read_at((index * blksize) as u64, &mut read).unwrap();
                assert!(read == block, "{index}");
                assert!(file.ahead.capacity() <= held_max, "{}", file.ahead.capacity());
                let is_window = (index + 1) % usize::from(windowsize) == 0;
                assert!(!is_window || windowsize == 1 || file.ahead.is_empty(), "{windowsize}");
            }
            assert!(file.ahead.is_empty());
        }
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
