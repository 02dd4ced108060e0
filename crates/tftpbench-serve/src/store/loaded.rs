//! A file of the root in memory: read a chunk at a time, each when it is first asked for, so that no request waits for
//! more than one chunk. All chunks are of one state of the file; once the last one is there, the disk is not needed any
//! more. It must never keep a chunk of another state. Only the memory store has one.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::budget::Charge;
use super::disk::DiskFile;
use crate::paths::FilePath;
use crate::refusal::Refusal;

/// What one request of a client that says no more costs at most; to read it takes some 0.05 ms where the kernel has it.
pub(crate) const CHUNK_BYTES: usize = 128 * 1024;

/// malloc(3) gives a piece of this size whole pages, and takes a header from the first.
const CHUNK_COST_BYTES: u64 = 4096;

type Chunk = OnceLock<Box<[u8]>>;

#[derive(Debug)]
pub(crate) struct LoadedFile {
    path: FilePath,
    length: u64,
    chunks: Box<[Chunk]>,
    loading: Mutex<Loading>,
    is_whole: AtomicBool,
}

#[derive(Debug)]
struct Loading {
    /// Gone once it is not needed any more, or its state is another.
    file: Option<DiskFile>,
    missing: usize,
    charge: Charge,
}

impl LoadedFile {
    /// None of it yet. `charge` pays for the file, and from now on for each chunk.
    pub(crate) fn new(path: FilePath, file: DiskFile, mut charge: Charge) -> Result<LoadedFile, Refusal> {
        let length = file.length();
        charge.budget().check(length)?;
        let missing = usize::try_from(length).map_err(|_| Refusal::MEMORY_FULL)?.div_ceil(CHUNK_BYTES);
        charge.add((missing * size_of::<Chunk>()) as u64)?;
        let mut chunks = Vec::new();
        chunks.try_reserve_exact(missing).map_err(|_| Refusal::MEMORY_FULL)?;
        chunks.resize_with(missing, Chunk::new);
        let loading = Mutex::new(Loading { file: Some(file), missing, charge });
        Ok(LoadedFile { path, length, chunks: chunks.into(), loading, is_whole: AtomicBool::new(false) })
    }

    /// Its name in the store.
    pub(crate) fn path(&self) -> &FilePath {
        &self.path
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Nothing is missing.
    pub(crate) fn is_whole(&self) -> bool {
        self.is_whole.load(Ordering::Acquire)
    }

    /// What is missing can't be had any more.
    pub(crate) fn is_outdated(&self) -> bool {
        if self.is_whole() {
            return false;
        }
        let mut loading = self.loading();
        loading.file.take_if(|file| file.check().is_err());
        loading.file.is_none() && loading.missing > 0
    }

    /// Passes on `length` bytes from `offset` on, a part at a time.
    pub(crate) fn parts(
        &self,
        offset: u64,
        length: usize,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), Refusal> {
        let mut at = usize::try_from(offset).map_err(|_| Refusal::CHANGED)?;
        let end = at.checked_add(length).ok_or(Refusal::CHANGED)?;
        while at < end {
            let chunk = self.chunk(at / CHUNK_BYTES)?;
            let part =
                chunk.get(at % CHUNK_BYTES..).filter(|part| !part.is_empty()).ok_or(Refusal::CHANGED)?;
            let part = &part[..part.len().min(end - at)];
            take(part);
            at += part.len();
        }
        Ok(())
    }

    fn chunk(&self, index: usize) -> Result<&[u8], Refusal> {
        match self.chunks.get(index).ok_or(Refusal::CHANGED)?.get() {
            Some(chunk) => Ok(chunk),
            None => self.load(index),
        }
    }

    /// One at a time: a second reader of the same chunk waits for it, and finds it.
    fn load(&self, index: usize) -> Result<&[u8], Refusal> {
        let mut loading = self.loading();
        let chunk = &self.chunks[index];
        if chunk.get().is_none() {
            let read = loading.read(index, self.length)?;
            loading.missing -= 1;
            if loading.missing == 0 {
                loading.file = None;
                self.is_whole.store(true, Ordering::Release);
            }
            return Ok(chunk.get_or_init(|| read));
        }
        chunk.get().map(|chunk| &**chunk).ok_or(Refusal::CHANGED)
    }

    fn loading(&self) -> MutexGuard<'_, Loading> {
        // A chunk that is missing can be read again, so a panic elsewhere does not spoil it.
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Loading {
    fn read(&mut self, index: usize, length: u64) -> Result<Box<[u8]>, Refusal> {
        let file = self.file.as_mut().ok_or(Refusal::CHANGED)?;
        let offset = index as u64 * CHUNK_BYTES as u64;
        let size = CHUNK_BYTES.min((length - offset) as usize);
        let cost = size as u64 + CHUNK_COST_BYTES;
        self.charge.add(cost)?;
        let mut bytes = Vec::new();
        let read = match bytes.try_reserve_exact(size) {
            Err(_) => Err(Refusal::MEMORY_FULL),
            // Looked at after the read, so that what was read is known to be of the state that was opened.
            Ok(()) => file.append(offset, size, &mut bytes).and_then(|()| file.check()),
        };
        if let Err(refusal) = read {
            if refusal == Refusal::CHANGED {
                self.file = None;
            }
            self.charge.give_back(cost);
            return Err(refusal);
        }
        Ok(bytes.into_boxed_slice())
    }
}
