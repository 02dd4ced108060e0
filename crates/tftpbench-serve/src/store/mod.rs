//! Where files live: on disk or in memory. Both give out a `StoredFile` to read and take an `Upload` to write.
//! A store decides what may be opened and created; it knows nothing of packets.

pub(crate) mod block_encoder;
mod contents;
pub(crate) mod disk;
pub(crate) mod memory;
pub(crate) mod netascii;
pub(crate) mod open_files;
pub(crate) mod stored_file;
pub(crate) mod temporary;
pub(crate) mod upload;

use std::sync::Arc;

use tftpbench_net::DatagramRun;
use tftpbench_proto::Agreed;

use crate::config::{ServeConfig, StoreKind};
use crate::paths::{FilePath, Root};
use crate::refusal::Refusal;
use disk::DiskFile;
use memory::{MemoryStore, MemoryUpload};
use netascii::NetasciiSource;
use open_files::{OpenFiles, RunKey};
use stored_file::StoredFile;
use upload::DiskUpload;

/// One of the two stores.
pub(crate) enum Store {
    Disk { root: Arc<Root>, files: Arc<OpenFiles>, overwrite: bool },
    Memory(MemoryStore),
}

impl Store {
    pub(crate) fn new(config: &ServeConfig, root: Arc<Root>) -> Store {
        let (overwrite, handover) = (config.overwrite, config.handover.clone());
        match config.store {
            StoreKind::Disk => Store::Disk { root, files: Arc::default(), overwrite },
            StoreKind::Memory => {
                Store::Memory(MemoryStore::new(root, overwrite, handover, config.memory_bytes_max))
            }
        }
    }

    /// Opens a file for reading.
    pub(crate) fn open(&self, path: &FilePath) -> Result<StoredFile, Refusal> {
        match self {
            Store::Disk { root, files, .. } => {
                Ok(StoredFile::Disk(DiskFile::open_shared(files, root, path)?))
            }
            Store::Memory(store) => Ok(StoredFile::Memory(store.open(path)?)),
        }
    }

    /// Begins an upload of about `size` bytes, where that is known.
    pub(crate) fn create(&self, path: &FilePath, size: Option<u64>) -> Result<Upload, Refusal> {
        match self {
            Store::Disk { root, overwrite, .. } => {
                let upload = DiskUpload::create(root, path, *overwrite, size)?;
                Ok(Upload::Disk(upload))
            }
            Store::Memory(store) => Ok(Upload::Memory(store.create(path, size)?)),
        }
    }
}

/// What is served of a file: its bytes as they are, or as text in netascii.
#[derive(Debug)]
pub(crate) enum Source {
    Octet(StoredFile),
    Netascii(Box<NetasciiSource>),
}

impl Source {
    /// Bytes on the wire; `None` as long as the end is not known.
    pub(crate) fn length(&self) -> Option<u64> {
        match self {
            Source::Octet(file) => Some(file.length()),
            Source::Netascii(source) => source.length(),
        }
    }

    /// Bytes on the wire from `offset` on, or as many as there may be; `None` where none can be.
    pub(crate) fn left_max(&self, offset: u64) -> Option<u64> {
        match self {
            Source::Octet(file) => file.length().checked_sub(offset),
            Source::Netascii(source) => source.left_max(offset),
        }
    }

    /// A run that another reader of the same has had encoded.
    pub(crate) fn kept(&mut self, key: &RunKey) -> Result<Option<Arc<DatagramRun>>, Refusal> {
        match self {
            Source::Octet(file) => file.kept(key),
            Source::Netascii(_) => Ok(None),
        }
    }

    /// Keeps a run that has just been read, where others may want it.
    pub(crate) fn keep(&mut self, key: RunKey, run: &Arc<DatagramRun>) -> Result<(), Refusal> {
        match self {
            Source::Octet(file) => file.keep(key, run),
            Source::Netascii(_) => Ok(()),
        }
    }

    /// Adds `length` bytes from `offset` on; fewer only where the end was not known.
    pub(crate) fn append(&mut self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        match self {
            Source::Octet(file) => file.append(offset, length, bytes),
            Source::Netascii(source) => source.append(offset, length, bytes),
        }
    }
}

/// A file being written. It has its name only after `commit`; dropped before that it leaves nothing.
#[derive(Debug)]
pub(crate) enum Upload {
    Disk(DiskUpload),
    Memory(MemoryUpload),
}

impl Upload {
    /// Blocks of this size in windows of this size will come.
    pub(crate) fn expect(&mut self, agreed: &Agreed) {
        match self {
            Upload::Disk(upload) => upload.expect(agreed),
            Upload::Memory(_) => {}
        }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        match self {
            Upload::Disk(upload) => upload.append(bytes),
            Upload::Memory(upload) => upload.append(bytes),
        }
    }

    /// Gives the whole file its name.
    pub(crate) fn commit(self) -> Result<(), Refusal> {
        match self {
            Upload::Disk(upload) => upload.commit(),
            Upload::Memory(upload) => upload.commit(),
        }
    }
}
