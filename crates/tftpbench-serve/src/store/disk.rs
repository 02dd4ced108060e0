//! A file on disk while it is being served: large blocks are read with pread(2) straight into the datagram, small ones a
//! few at a time. It must never be mapped: a truncated mapping is a SIGBUS, a short pread is an ERROR to one client.

use rustix::fd::OwnedFd;
use rustix::fs::{self, Stat};
use rustix::io::{self, Errno};

use crate::paths::{FilePath, Root};
use crate::refusal::Refusal;

/// How many bytes go out between two looks at the file's state: one fstat(2) for 128 blocks of 512 bytes.
const CHECK_EVERY_BYTES: u64 = 64 * 1024;

/// Small blocks are read this much at a time. Measured at 512 bytes: with a pread(2) each, those were a seventh of the
/// server's CPU; 4 KiB at a time make it a twenty-fifth, and cost 40 MB at 10,000 transfers.
const AHEAD_BYTES: usize = 4096;

/// An open regular file that must stay as it was when it was opened.
#[derive(Debug)]
pub(crate) struct DiskFile {
    file: OwnedFd,
    opened: State,
    /// The offset from which the next read looks at the file's state again.
    check_at: u64,
    /// What was read ahead, and the offset of its first byte.
    ahead: Vec<u8>,
    ahead_at: u64,
}

/// What tells that a file was changed in place, truncated, or replaced under its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    size: u64,
    modified_s: i64,
    modified_ns: u64,
    links: u64,
}

impl State {
    #[allow(clippy::unnecessary_cast, reason = "the widths of these fields differ between architectures")]
    fn of(stat: &Stat) -> State {
        State {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_s: stat.st_mtime as i64,
            modified_ns: stat.st_mtime_nsec as u64,
            links: stat.st_nlink as u64,
        }
    }
}

impl DiskFile {
    pub(crate) fn open(root: &Root, path: &FilePath) -> Result<DiskFile, Refusal> {
        let (file, stat) = root.open_regular(path)?;
        let opened = State::of(&stat);
        Ok(DiskFile { file, opened, check_at: CHECK_EVERY_BYTES, ahead: Vec::new(), ahead_at: 0 })
    }

    pub(crate) fn length(&self) -> u64 {
        self.opened.size
    }

    pub(crate) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        match buf.len() > AHEAD_BYTES / 2 {
            true => pread_exact(&self.file, buf, offset)?,
            false => self.read_ahead(offset, buf)?,
        }
        // Looked at after the read, so that what was read is known to be old, and always with the last byte.
        let end = offset + buf.len() as u64;
        if end >= self.check_at || end == self.opened.size {
            self.check()?;
            self.check_at = end + CHECK_EVERY_BYTES;
        }
        Ok(())
    }

    fn read_ahead(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        if let Some(part) = self.part_of_ahead(offset, buf.len()) {
            buf.copy_from_slice(part);
            return Ok(());
        }
        let rest = self.opened.size.saturating_sub(offset);
        // Nothing is ahead while this is being read: on a failure it must not be taken for file contents.
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.resize(rest.min(AHEAD_BYTES as u64) as usize, 0);
        pread_exact(&self.file, &mut ahead, offset)?;
        (self.ahead, self.ahead_at) = (ahead, offset);
        buf.copy_from_slice(self.part_of_ahead(offset, buf.len()).ok_or(Refusal::CHANGED)?);
        Ok(())
    }

    fn part_of_ahead(&self, offset: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.ahead_at)?).ok()?;
        self.ahead.get(start..)?.get(..length)
    }

    fn check(&self) -> Result<(), Refusal> {
        let now = State::of(&fs::fstat(&self.file)?);
        // A new hard link does no harm; a lost one means that the name is gone or belongs to another file.
        let same = State { links: self.opened.links, ..now } == self.opened;
        match same && now.links >= self.opened.links {
            true => Ok(()),
            false => Err(Refusal::CHANGED),
        }
    }
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
