//! Memory that other processes can map: a file without a name, memfd_create(2), that is written once, sealed, and
//! mapped read-only from then on. It must never be mapped while it can still change: what shrinks under a mapping is a
//! SIGBUS, and what changes is no `&[u8]`. The memory store writes its large uploads into it.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

/// What proc(5) shows in the maps of each process that maps it.
const NAME: &str = "tftpbench-upload";

/// Memory that is being written. It grows by write(2), which adds pages and moves none; and when there are no more, the
/// kernel answers with an error, where a store into a mapping would be a SIGBUS.
#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    length: usize,
}

impl SharedMemory {
    /// Empty memory, which takes one descriptor.
    pub fn new() -> io::Result<SharedMemory> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        // Since Linux 6.3 a system may insist on memory that cannot be executed; before that the flag is unknown.
        let file = match memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL) {
            Err(Errno::INVAL) => memfd_create(NAME, flags)?,
            created => created?,
        };
        Ok(SharedMemory { file, length: 0 })
    }

    /// Its size in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Adds bytes at the end. After an error only dropping is of use.
    pub fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.file, bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.length += count;
                    bytes = &bytes[count..];
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Ends all change, by whomever.
    pub fn seal(self) -> io::Result<Sealed> {
        let size = SealFlags::SHRINK | SealFlags::GROW;
        // fcntl(2). FUTURE_WRITE is as good as WRITE where nothing maps it yet, and does not look at every page, but
        // needs Linux 5.1.
        match fcntl_add_seals(&self.file, size | SealFlags::FUTURE_WRITE) {
            Err(Errno::INVAL) => fcntl_add_seals(&self.file, size | SealFlags::WRITE)?,
            sealed => sealed?,
        }
        Ok(Sealed { file: self.file, length: self.length })
    }
}

/// Memory that stays as it is. With the descriptor it can be mapped to read.
#[derive(Debug)]
pub struct Sealed {
    file: OwnedFd,
    length: usize,
}

impl Sealed {
    /// Its size in bytes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// The memory itself, which outlives the descriptor.
    pub fn map(&self) -> io::Result<Mapping> {
        if self.length == 0 {
            return Ok(Mapping { start: NonNull::dangling(), length: 0 });
        }
        // MAP_PRIVATE shows the same pages, since nothing writes; before Linux 6.7 a shared mapping of what is sealed
        // with WRITE is refused.
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                self.length,
                libc::PROT_READ,
                libc::MAP_PRIVATE,
                self.file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Mapping { start, length: self.length })
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Sealed memory in our address space, as bytes.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: bytes that never change and belong to no thread.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped as long as this value lives, or dangling and empty. The seals keep every process, this one
        // included, from shrinking or writing it.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.length > 0 {
            // SAFETY: this is a mapping of our own, and no reference to its bytes outlives it.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::ftruncate;

    use super::*;

    fn sealed(parts: &[&[u8]]) -> Sealed {
        let mut memory = SharedMemory::new().unwrap();
        parts.iter().for_each(|part| memory.append(part).unwrap());
        memory.seal().unwrap()
    }

    #[test]
    fn what_was_written_is_mapped_and_outlives_the_descriptor() {
        let parts = [&[1; 5000][..], &[], &[2; 70_000]];
        let memory = sealed(&parts);
        assert_eq!(memory.length(), 75_000);
        let mapping = memory.map().unwrap();
        drop(memory);
        assert!(*mapping == parts.concat());
    }

    #[test]
    fn empty_memory_is_no_bytes() {
        assert_eq!(sealed(&[]).map().unwrap().len(), 0);
    }

    #[test]
    fn what_is_sealed_is_never_written_cut_or_lengthened() {
        let memory = sealed(&[&[7; 5000]]);
        for result in [
            rustix::io::pwrite(&memory, b"x", 0).map(drop),
            rustix::io::pwrite(&memory, b"x", 5000).map(drop),
            ftruncate(&memory, 0),
            ftruncate(&memory, 9000),
        ] {
            assert_eq!(result, Err(Errno::PERM));
        }
        assert!(*memory.map().unwrap() == [7; 5000]);
    }
}
