//! A file as one of the two stores has it. Reads are at any offset and always whole.

use std::sync::Arc;

use tftpbench_net::DatagramRun;

use super::disk::DiskFile;
use super::memory::MemoryFile;
use super::open_files::RunKey;
use crate::refusal::Refusal;

#[derive(Debug)]
pub(crate) enum StoredFile {
    Disk(DiskFile),
    Memory(MemoryFile),
}

impl StoredFile {
    pub(crate) fn length(&self) -> u64 {
        match self {
            StoredFile::Disk(file) => file.length(),
            StoredFile::Memory(file) => file.length(),
        }
    }

    /// A run that another reader of the same has had encoded.
    pub(crate) fn kept(&mut self, key: &RunKey) -> Result<Option<Arc<DatagramRun>>, Refusal> {
        match self {
            StoredFile::Disk(file) => file.kept(key),
            StoredFile::Memory(_) => Ok(None),
        }
    }

    /// Keeps a run that has just been read, where others may want it.
    pub(crate) fn keep(&mut self, key: RunKey, run: &Arc<DatagramRun>) -> Result<(), Refusal> {
        match self {
            StoredFile::Disk(file) => file.keep(key, run),
            StoredFile::Memory(_) => Ok(()),
        }
    }

    /// Fills `buf` from `offset`; less than all of it is a refusal.
    pub(crate) fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        match self {
            StoredFile::Disk(file) => file.read_at(offset, buf),
            StoredFile::Memory(file) => file.read_at(offset, buf),
        }
    }

    /// Adds `length` bytes from `offset` on.
    pub(crate) fn append(&mut self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            StoredFile::Disk(file) => file.append(offset, length, bytes),
            StoredFile::Memory(file) => file.append(offset, length, bytes),
        }
    }
}
