//! A file in memory: whole, when it never changes, with its bytes, however they are held, and what they count against the
//! bound; and an upload while it comes, gathered in a buffer, and in shared memory beyond that. It must never hold more
//! than has been charged.
//!
//! A file of the root is read a chunk at a time, each when it is first asked for, so that no request waits for more than
//! one chunk. All chunks are of one state of the file; once the last one is there, the disk is not needed any more. It must
//! never keep a chunk of another state.
//!
//! And what the memory store may take, and what has taken how much of it: what is held is charged before it is allocated,
//! and given back when it is freed.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::io::Errno;
use tftpbench_net::{Deferrable, LARGE_BYTES, Mapping, Sealed, SharedMemory};

use super::disk::DiskFile;
use crate::paths::FilePath;
use crate::refusal::Refusal;

/// Blocks are gathered to this size. An upload that ends sooner is a plain buffer: shared memory would cost it five
/// system calls and one of the 65,530 mappings of a process. What is longer is written on, so that nothing that has
/// been stored is ever copied again, as a growing buffer would be.
pub(super) const GATHER_BYTES: usize = 64 * 1024;

/// What shared memory costs the kernel beside its pages: an inode, a name of its own, an open file and a mapping.
pub(super) const SHARED_COST_BYTES: u64 = 2048;

/// Shared memory is made of pages.
pub(super) const PAGE_BYTES: u64 = 4096;

/// One file, which never changes. It counts against the bound for as long as anything here holds it.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) held: Deferrable<Held>,
}

/// The bytes go before what they have taken of the bound is given back.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _charge: Option<Charge>,
}

#[derive(Debug)]
pub(crate) enum Bytes {
    Plain(Box<[u8]>),
    Shared(Mapping),
    /// It has its own charge, which grows.
    Loaded(Box<LoadedFile>),
}

impl Contents {
    pub(crate) fn new(bytes: Bytes, charge: Option<Charge>) -> Arc<Contents> {
        let mut held = Deferrable::new(Held { bytes, _charge: charge });
        let is_large = held.length() >= LARGE_BYTES;
        held.defer(is_large);
        Arc::new(Contents { held })
    }

    pub(crate) fn loaded(&self) -> Option<&LoadedFile> {
        match &self.held.bytes {
            Bytes::Loaded(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn is_outdated(&self) -> bool {
        self.loaded().is_some_and(LoadedFile::is_outdated)
    }
}

impl Held {
    pub(crate) fn length(&self) -> u64 {
        match &self.bytes {
            Bytes::Plain(bytes) => bytes.len() as u64,
            Bytes::Shared(mapping) => mapping.len() as u64,
            Bytes::Loaded(file) => file.length(),
        }
    }
}

/// An upload while it comes.
#[derive(Debug)]
pub(crate) struct Growing {
    /// Beside the bytes.
    cost: u64,
    /// Its last bytes.
    gathered: Vec<u8>,
    /// Those before, where they were too many to gather.
    shared: Option<SharedMemory>,
    charge: Charge,
}

impl Growing {
    /// `cost`: what the file costs beside its bytes, which `charge` has.
    pub(crate) fn new(cost: u64, charge: Charge) -> Growing {
        Growing { cost, gathered: Vec::new(), shared: None, charge }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.gathered.len() + bytes.len() > GATHER_BYTES {
            self.share_gathered()?;
        }
        self.gather(bytes)
    }

    pub(crate) fn is_large(&self) -> bool {
        self.shared_length() >= Some(LARGE_BYTES)
    }

    /// Whether some of it is in shared memory.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Room is charged before it is there, and it is never more than twice what is in it.
    fn gather(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (length, capacity) = (self.gathered.len() + bytes.len(), self.gathered.capacity());
        if length > capacity {
            let room = length.max((2 * capacity).min(GATHER_BYTES));
            self.charge.set(self.cost_with(room, self.shared_length()))?;
            let more = room - self.gathered.len();
            self.gathered.try_reserve_exact(more).map_err(|_| Refusal::MEMORY_FULL)?;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    fn share_gathered(&mut self) -> Result<(), Refusal> {
        let length = self.shared_length().unwrap_or(0) + self.gathered.len() as u64;
        self.charge.set(self.cost_with(self.gathered.capacity(), Some(length)))?;
        let shared = match &mut self.shared {
            Some(shared) => shared,
            none => none.insert(SharedMemory::new().map_err(refusal)?),
        };
        shared.append(&self.gathered).map_err(refusal)?;
        self.gathered.clear();
        Ok(())
    }

    fn shared_length(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.length() as u64)
    }

    /// What it costs with so much room to gather in, and so much in shared memory.
    fn cost_with(&self, room: usize, shared_length: Option<u64>) -> u64 {
        let shared = |length: u64| SHARED_COST_BYTES + length.next_multiple_of(PAGE_BYTES);
        self.cost + room as u64 + shared_length.map_or(0, shared)
    }

    /// Whole, in a buffer of its own.
    pub(crate) fn into_plain(mut self) -> Result<(Bytes, Charge, Option<Sealed>), Refusal> {
        // A copy, as a buffer that is cut leaves a remnant behind it that fits nothing.
        let bytes: Box<[u8]> = match self.gathered.capacity() == self.gathered.len() {
            true => mem::take(&mut self.gathered).into(),
            false => self.gathered.as_slice().into(),
        };
        self.charge.set(self.cost_with(bytes.len(), None))?;
        Ok((Bytes::Plain(bytes), self.charge, None))
    }

    /// Whole, in shared memory; of an empty file there is none.
    pub(crate) fn into_shared(mut self) -> Result<(Bytes, Charge, Option<Sealed>), Refusal> {
        self.share_gathered()?;
        self.gathered = Vec::new();
        self.charge.set(self.cost_with(0, self.shared_length()))?;
        let sealed = self.shared.take().map(SharedMemory::seal).transpose().map_err(refusal)?;
        let bytes = match &sealed {
            Some(sealed) => Bytes::Shared(sealed.map().map_err(refusal)?),
            None => Bytes::Plain(Box::default()),
        };
        Ok((bytes, self.charge, sealed))
    }
}

fn refusal(error: io::Error) -> Refusal {
    match Errno::from_io_error(&error) {
        // mmap(2): also too many mappings.
        None | Some(Errno::NOMEM | Errno::NOSPC) => Refusal::MEMORY_FULL,
        Some(errno) => errno.into(),
    }
}

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

/// What all files together may take.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64) -> Arc<Budget> {
        Arc::new(Budget { bytes: AtomicU64::new(0), bytes_max })
    }

    /// Refuses what cannot fit now, without taking it.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.bytes_max.saturating_sub(self.taken()) { Ok(()) } else { Err(Refusal::MEMORY_FULL) }
    }

    pub(crate) fn taken(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one file has taken of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// Nothing yet.
    pub(crate) fn on(budget: &Arc<Budget>) -> Charge {
        Charge { budget: Arc::clone(budget), bytes: 0 }
    }

    /// So much from now on, more or less than before. What is refused changes nothing; less is never refused.
    pub(crate) fn set(&mut self, bytes: u64) -> Result<(), Refusal> {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.budget.bytes.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > self.budget.bytes_max {
                self.budget.bytes.fetch_sub(more, Ordering::Relaxed);
                return Err(Refusal::MEMORY_FULL);
            }
        } else {
            self.budget.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.set(self.bytes.saturating_add(bytes))
    }

    /// A part of what was taken.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        // Less is never refused.
        let _ = self.set(self.bytes.saturating_sub(bytes));
    }

    /// Of which it takes.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
