//! A file mapped so that it can be sent from where it lies. Its bytes can be handed to the kernel and to nobody else: user
//! space that touched them would die of SIGBUS once the file has shrunk, mmap(2), where the kernel only says EFAULT.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// A mapped file; unmapped when dropped. Batches that send from it keep it until they are flushed.
#[derive(Debug)]
pub struct FileMapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the address is never written through and only the kernel reads there, which any thread may ask for.
unsafe impl Send for FileMapping {}
// SAFETY: as above; nothing in it changes while it is shared.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps the first `bytes` of a file that is open for reading. What can't be mapped is an error: an empty file, one
    /// larger than the address space, a file system without mmap(2), too many mappings.
    pub fn new(file: impl AsFd, bytes: u64) -> io::Result<Arc<FileMapping>> {
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing.
        let start = unsafe {
            let fd = file.as_fd().as_raw_fd();
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED.cast() => {
                Ok(Arc::new(FileMapping { start, bytes }))
            }
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where a datagram's payload lies; none where the mapping does not hold all of it.
    pub fn part(self: &Arc<Self>, offset: u64, len: usize) -> Option<FilePart<'_>> {
        let offset = usize::try_from(offset).ok()?;
        let end = offset.checked_add(len)?;
        (end <= self.bytes).then_some(FilePart { mapping: self, offset, len })
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, and whoever hands its address to the kernel holds an `Arc` of it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// A part of a mapped file that lies inside the mapping.
#[derive(Clone, Copy, Debug)]
pub struct FilePart<'a> {
    mapping: &'a Arc<FileMapping>,
    offset: usize,
    len: usize,
}

impl<'a> FilePart<'a> {
    pub(crate) fn mapping(&self) -> &'a Arc<FileMapping> {
        self.mapping
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn vector(&self) -> libc::iovec {
        libc::iovec {
            iov_base: self.mapping.start.as_ptr().wrapping_add(self.offset).cast(),
            iov_len: self.len,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_part_lies_inside_the_mapping_or_is_none() {
        let mapping = FileMapping::new(File::open("/proc/self/exe").unwrap(), 5000).unwrap();
        for (offset, len, is_inside) in [
            (0, 5000, true),
            (5000, 0, true),
            (4488, 512, true),
            (4489, 512, false),
            (u64::MAX, 1, false),
            (5001, 0, false),
        ] {
            assert_eq!(mapping.part(offset, len).is_some(), is_inside, "{len} at {offset}");
        }
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        let file = File::open("/proc/self/exe").unwrap();
        assert!(FileMapping::new(&file, 0).is_err());
        assert!(FileMapping::new(&file, u64::MAX).is_err());
        assert!(FileMapping::new(File::open("/proc/self/stat").unwrap(), 100).is_err());
    }

    #[test]
    fn a_dropped_mapping_is_gone() {
        let path = std::env::temp_dir().join(format!("tftpbench-mapping-{}", std::process::id()));
        std::fs::write(&path, [1; 100]).unwrap();
        let is_mapped =
            || std::fs::read_to_string("/proc/self/maps").unwrap().contains(path.to_str().unwrap());
        let mapping = FileMapping::new(File::open(&path).unwrap(), 100).unwrap();
        assert!(is_mapped());
        drop(mapping);
        assert!(!is_mapped());
        std::fs::remove_file(&path).unwrap();
    }
}
