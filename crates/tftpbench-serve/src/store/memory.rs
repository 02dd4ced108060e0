//! The memory store: a file is read from the root on its first request and served from memory afterwards; uploads stay
//! in memory, readable at once, and never touch the disk. All of it together is bounded; beyond that it is "full".
//! Loading happens inside the request that asks first, so that one request waits for the disk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;

use super::disk::DiskFile;
use super::may_create;
use crate::paths::{FilePath, Root, existing_in};
use crate::refusal::Refusal;

/// Everything held, uploads in flight included. A stranger's uploads must not take the machine down.
const HELD_BYTES_MAX: u64 = 4 << 30;

/// How much memory is taken at once because a client announced it with tsize.
const RESERVE_BYTES_MAX: u64 = 16 << 20;

/// Files by name, shared with the uploads that will be added to them.
pub(crate) struct MemoryStore {
    root: Arc<Root>,
    held: Arc<Held>,
    overwrite: bool,
}

#[derive(Debug)]
struct Held {
    files: Mutex<HashMap<FilePath, Arc<Vec<u8>>>>,
    bytes: AtomicU64,
    bytes_max: u64,
}

impl MemoryStore {
    pub(crate) fn new(root: Arc<Root>, overwrite: bool) -> MemoryStore {
        MemoryStore::bounded(root, overwrite, HELD_BYTES_MAX)
    }

    pub(crate) fn bounded(root: Arc<Root>, overwrite: bool, bytes_max: u64) -> MemoryStore {
        let held = Held { files: Mutex::default(), bytes: AtomicU64::new(0), bytes_max };
        MemoryStore { root, held: Arc::new(held), overwrite }
    }

    pub(crate) fn open(&self, path: &FilePath) -> Result<Arc<Vec<u8>>, Refusal> {
        if let Some(bytes) = self.held.files().get(path) {
            return Ok(Arc::clone(bytes));
        }
        let mut file = DiskFile::open(&self.root, path)?;
        let mut upload = self.upload(path.clone(), true);
        upload.extend_from(&mut file)?;
        upload.keep()
    }

    pub(crate) fn create(&self, path: &FilePath, size: Option<u64>) -> Result<MemoryUpload, Refusal> {
        let held = self.held.files().contains_key(path).then_some(FileType::RegularFile);
        let existing = match held {
            None => existing_in(&self.root.open_folder(path)?, path.name())?,
            held => held,
        };
        may_create(existing, self.overwrite)?;
        let mut upload = self.upload(path.clone(), self.overwrite);
        if let Some(size) = size {
            upload.expect(size)?;
        }
        Ok(upload)
    }

    fn upload(&self, path: FilePath, overwrite: bool) -> MemoryUpload {
        let held = Arc::clone(&self.held);
        MemoryUpload { held, path, overwrite, bytes: Vec::new() }
    }
}

impl Held {
    fn files(&self) -> MutexGuard<'_, HashMap<FilePath, Arc<Vec<u8>>>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, count: u64) -> Result<(), Refusal> {
        let before = self.bytes.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) <= self.bytes_max {
            return Ok(());
        }
        self.give_back(count);
        Err(Refusal::MEMORY_FULL)
    }

    fn give_back(&self, count: u64) {
        self.bytes.fetch_sub(count, Ordering::Relaxed);
    }
}

/// One file growing in memory. Its bytes count against the bound until it, or what replaces it, is dropped.
#[derive(Debug)]
pub(crate) struct MemoryUpload {
    held: Arc<Held>,
    path: FilePath,
    overwrite: bool,
    bytes: Vec<u8>,
}

impl MemoryUpload {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes.try_reserve(bytes.len()).map_err(|_| Refusal::MEMORY_FULL)?;
        self.held.take(bytes.len() as u64)?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn commit(self) -> Result<(), Refusal> {
        self.keep().map(drop)
    }

    fn keep(mut self) -> Result<Arc<Vec<u8>>, Refusal> {
        let held = Arc::clone(&self.held);
        let mut files = held.files();
        if !self.overwrite && files.contains_key(&self.path) {
            return Err(Refusal::EXISTS);
        }
        let file = Arc::new(std::mem::take(&mut self.bytes));
        if let Some(old) = files.insert(self.path.clone(), Arc::clone(&file)) {
            held.give_back(old.len() as u64);
        }
        Ok(file)
    }

    fn expect(&mut self, size: u64) -> Result<(), Refusal> {
        if size > self.held.bytes_max.saturating_sub(self.held.bytes.load(Ordering::Relaxed)) {
            return Err(Refusal::MEMORY_FULL);
        }
        let reserve = size.min(RESERVE_BYTES_MAX) as usize;
        self.bytes.try_reserve_exact(reserve).map_err(|_| Refusal::MEMORY_FULL)
    }

    fn extend_from(&mut self, file: &mut DiskFile) -> Result<(), Refusal> {
        let length = file.length();
        let size = usize::try_from(length).map_err(|_| Refusal::MEMORY_FULL)?;
        self.held.take(length)?;
        // From here on `drop` gives back what `bytes` holds, so it must hold what was taken even on a failed read.
        match self.bytes.try_reserve_exact(size) {
            Ok(()) => self.bytes.resize(size, 0),
            Err(_) => {
                self.held.give_back(length);
                return Err(Refusal::MEMORY_FULL);
            }
        }
        file.read_at(0, &mut self.bytes)
    }
}

impl Drop for MemoryUpload {
    fn drop(&mut self) {
        self.held.give_back(self.bytes.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use tftpbench_testclient::Folder as TestFolder;

    use super::*;

    fn store(folder: &TestFolder, overwrite: bool) -> MemoryStore {
        MemoryStore::bounded(Arc::new(Root::open(folder.path()).unwrap()), overwrite, 1000)
    }

    fn path(name: &str) -> FilePath {
        FilePath::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn everything_held_counts_against_the_bound_until_it_is_gone() {
        let folder = TestFolder::new();
        folder.put("loaded", &[1; 400]);
        folder.put("large", &[1; 601]);
        let store = store(&folder, true);
        assert_eq!(store.open(&path("loaded")).unwrap().len(), 400);
        let mut upload = store.create(&path("new"), None).unwrap();
        upload.append(&[2; 600]).unwrap();
        assert_eq!(upload.append(&[2]), Err(Refusal::MEMORY_FULL));
        drop(upload);
        assert_eq!(store.open(&path("large")).unwrap_err(), Refusal::MEMORY_FULL);
        assert_eq!(store.create(&path("new"), Some(601)).unwrap_err(), Refusal::MEMORY_FULL);
        // What replaces a file takes its place once it is whole.
        let mut upload = store.create(&path("loaded"), Some(600)).unwrap();
        upload.append(&[3; 600]).unwrap();
        upload.commit().unwrap();
        assert_eq!(store.open(&path("loaded")).unwrap().len(), 600);
        let mut upload = store.create(&path("new"), Some(400)).unwrap();
        upload.append(&[4; 400]).unwrap();
        upload.commit().unwrap();
        assert_eq!(store.held.bytes.load(Ordering::Relaxed), 1000);
    }

    #[test]
    fn of_two_uploads_of_one_name_the_first_to_end_is_kept() {
        let folder = TestFolder::new();
        let store = store(&folder, false);
        let mut uploads = [1, 2].map(|byte| (byte, store.create(&path("f"), None).unwrap()));
        for (byte, upload) in &mut uploads {
            upload.append(&[*byte; 10]).unwrap();
        }
        let [first, second] = uploads.map(|(_, upload)| upload.commit());
        assert_eq!((first, second), (Ok(()), Err(Refusal::EXISTS)));
        assert_eq!(store.open(&path("f")).unwrap()[0], 1);
        assert_eq!(store.held.bytes.load(Ordering::Relaxed), 10);
    }
}
