//! The memory store: a file is read from the root as it is asked for and served from memory afterwards; uploads stay in
//! memory, readable at once, and never touch the disk. All of it together is bounded; beyond that it is "full". What
//! counts is what is allocated: room that is not filled yet, and what a file costs beside its bytes.
//!
//! A large upload is shared memory from its beginning, and any upload is once it is whole where another process takes
//! them: that process maps the same pages.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use tftpbench_net::{Deferrable, Handover};

use super::contents::{Budget, Bytes, CHUNK_BYTES, Charge, Contents, Growing, LoadedFile};
use super::disk::DiskFile;
use crate::paths::{FilePath, Root, existing_in, file_type, may_create};
use crate::refusal::Refusal;

/// What a file costs beside its name and its bytes: the value itself, its place among the names, and what malloc(3)
/// adds to the three pieces. Measured with 50,000 to 290,000 files of one byte: 200 bytes each with epoll, up to 290
/// with threads.
const FILE_COST_BYTES: u64 = 256;

/// Files by name, shared with the uploads that will be added to them.
pub(crate) struct MemoryStore {
    root: Arc<Root>,
    shelf: Arc<Shelf>,
    budget: Arc<Budget>,
    overwrite: bool,
}

/// A file that is being read.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    /// Taken when dropped, and only then.
    contents: Option<Arc<Contents>>,
    shelf: Arc<Shelf>,
}

impl MemoryFile {
    fn new(contents: Arc<Contents>, shelf: Arc<Shelf>) -> MemoryFile {
        MemoryFile { contents: Some(contents), shelf }
    }

    pub(crate) fn length(&self) -> u64 {
        self.contents.as_ref().map_or(0, |contents| contents.held.length())
    }

    /// Fills `buf` from `offset`.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), Refusal> {
        let mut filled = 0;
        self.parts(offset, buf.len(), |part| {
            buf[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        })
    }

    /// The same behind what is in `bytes`.
    pub(crate) fn append(&self, offset: u64, length: usize, bytes: &mut Vec<u8>) -> Result<(), Refusal> {
        self.parts(offset, length, |part| bytes.extend_from_slice(part))
    }

    #[inline]
    fn parts(&self, offset: u64, length: usize, mut take: impl FnMut(&[u8])) -> Result<(), Refusal> {
        let contents = self.contents.as_ref().ok_or(Refusal::CHANGED)?;
        let bytes: &[u8] = match &contents.held.bytes {
            Bytes::Plain(bytes) => bytes,
            Bytes::Shared(mapping) => mapping,
            Bytes::Loaded(file) => return file.parts(offset, length, take),
        };
        let start = usize::try_from(offset).map_err(|_| Refusal::CHANGED)?;
        let part = bytes.get(start..).and_then(|rest| rest.get(..length)).ok_or(Refusal::CHANGED)?;
        take(part);
        Ok(())
    }
}

/// A file that was not read to its end is not kept: its descriptor would stay open.
impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Some(contents) = self.contents.take()
            && contents.loaded().is_some_and(|file| !file.is_whole())
        {
            self.shelf.forget_unread(contents);
        }
    }
}

/// Where whole files go, and those that are being loaded. A map that grew by moving all of its entries at once would
/// keep others waiting.
#[derive(Debug)]
struct Shelf {
    files: Mutex<BTreeMap<FilePath, Arc<Contents>>>,
    /// The process that takes each upload when it is whole.
    handover: Option<Handover>,
}

impl MemoryStore {
    pub(crate) fn new(
        root: Arc<Root>,
        overwrite: bool,
        handover: Option<Handover>,
        bytes_max: u64,
    ) -> MemoryStore {
        let shelf = Arc::new(Shelf { files: Mutex::default(), handover });
        MemoryStore { root, shelf, budget: Budget::new(bytes_max), overwrite }
    }

    pub(crate) fn open(&self, path: &FilePath) -> Result<MemoryFile, Refusal> {
        let shelf = Arc::clone(&self.shelf);
        let known = shelf.files().get(path).map(Arc::clone);
        if let Some(contents) = known {
            if !contents.is_outdated() {
                return Ok(MemoryFile::new(contents, shelf));
            }
            shelf.forget(path, &contents);
        }
        let contents = shelf.add_loaded(path, self.load(path)?);
        Ok(MemoryFile::new(contents, shelf))
    }

    /// Reads a small file, and nothing yet of a larger one.
    fn load(&self, path: &FilePath) -> Result<Arc<Contents>, Refusal> {
        let mut file = DiskFile::open(&self.root, path)?;
        let mut charge = Charge::on(&self.budget);
        charge.set(cost_of(path))?;
        let size = usize::try_from(file.length()).map_err(|_| Refusal::MEMORY_FULL)?;
        if size > CHUNK_BYTES {
            let file = LoadedFile::new(path.clone(), file, charge)?;
            return Ok(Contents::new(Bytes::Loaded(Box::new(file)), None));
        }
        charge.add(file.length())?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size).map_err(|_| Refusal::MEMORY_FULL)?;
        file.append(0, size, &mut bytes)?;
        Ok(Contents::new(Bytes::Plain(bytes.into()), Some(charge)))
    }

    pub(crate) fn create(&self, path: &FilePath, size: Option<u64>) -> Result<MemoryUpload, Refusal> {
        let held = self.shelf.files().contains_key(path).then_some(FileType::RegularFile);
        let existing = match held {
            None => existing_in(&self.root.open_folder(path)?, path.name())?.as_ref().map(file_type),
            held => held,
        };
        may_create(existing, self.overwrite)?;
        let (shelf, path, overwrite) = (Arc::clone(&self.shelf), path.clone(), self.overwrite);
        let mut charge = Charge::on(&self.budget);
        charge.set(cost_of(&path))?;
        // RFC 2349 section 3: a file that is too large to be stored is refused before its first block. Nothing is
        // reserved for it: what a client announces costs it nothing.
        self.budget.check(size.unwrap_or(0))?;
        let growing = Deferrable::new(Growing::new(cost_of(&path), charge));
        Ok(MemoryUpload { shelf, path, overwrite, growing })
    }
}

/// Of any file, beside its bytes.
fn cost_of(path: &FilePath) -> u64 {
    FILE_COST_BYTES + path.as_bytes().len() as u64
}

impl Shelf {
    fn files(&self) -> MutexGuard<'_, BTreeMap<FilePath, Arc<Contents>>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what was read from the disk, unless there is something by now.
    fn add_loaded(&self, path: &FilePath, loaded: Arc<Contents>) -> Arc<Contents> {
        Arc::clone(self.files().entry(path.clone()).or_insert(loaded))
    }

    /// Removes a file that may have been replaced meanwhile.
    fn forget(&self, path: &FilePath, contents: &Arc<Contents>) {
        let mut files = self.files();
        let is_listed = files.get(path).is_some_and(|listed| Arc::ptr_eq(listed, contents));
        let forgotten = if is_listed { files.remove(path) } else { None };
        drop(files);
        // Without the lock.
        drop(forgotten);
    }

    /// One of its readers goes, and some of it is missing: where that was the last one, it is removed.
    fn forget_unread(&self, contents: Arc<Contents>) {
        let Some(file) = contents.loaded() else { return };
        let mut files = self.files();
        let is_listed = files.get(file.path()).is_some_and(|listed| Arc::ptr_eq(listed, &contents));
        // The map has it, and this reader. Others leave it before they release the lock, too, so of two readers that
        // end at the same time the second one is the last. This frees nothing.
        if is_listed && Arc::strong_count(&contents) > 2 {
            return drop(contents);
        }
        let forgotten = if is_listed && !file.is_whole() { files.remove(file.path()) } else { None };
        drop(files);
        // Without the lock.
        drop((forgotten, contents));
    }
}

/// One file growing in memory. What it has taken of the bound goes over to the whole file.
#[derive(Debug)]
pub(crate) struct MemoryUpload {
    shelf: Arc<Shelf>,
    path: FilePath,
    overwrite: bool,
    growing: Deferrable<Growing>,
}

impl MemoryUpload {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let appended = self.growing.append(bytes);
        let is_large = self.growing.is_large();
        self.growing.defer(is_large);
        appended
    }

    /// Gives the file its name, and hands it over where it is shared and a process takes it.
    pub(crate) fn commit(self) -> Result<(), Refusal> {
        let growing = self.growing.into_inner();
        let is_plain = !growing.is_shared() && self.shelf.handover.is_none();
        let (bytes, charge, shared) = if is_plain { growing.into_plain()? } else { growing.into_shared()? };
        let contents = Contents::new(bytes, Some(charge));
        let mut files = self.shelf.files();
        if !self.overwrite && files.contains_key(&self.path) {
            return Err(Refusal::EXISTS);
        }
        // Before others can replace the file: the files of one name are taken in their order.
        if let (Some(handover), Some(sealed)) = (&self.shelf.handover, shared) {
            let account = Arc::clone(&contents);
            handover.offer(self.path.as_bytes(), sealed, account);
        }
        let replaced = files.insert(self.path, contents);
        drop(files);
        // Without the lock.
        drop(replaced);
        Ok(())
    }
}
