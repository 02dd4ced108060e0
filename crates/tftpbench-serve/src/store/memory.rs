//! The memory store: a file is read from the root on its first request and served from memory afterwards; uploads stay
//! in memory, readable at once, and never touch the disk. All of it together is bounded; beyond that it is "full".
//! Loading happens inside the request that asks first, so that one request waits for the disk.
//!
//! A large upload is shared memory from its beginning, and any upload is once it is whole where another process takes
//! them: that process maps the same pages.

use std::collections::HashMap;
use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;
use tftpbench_net::{Handover, Mapping, Sealed, SharedMemory};

use super::disk::DiskFile;
use super::may_create;
use crate::paths::{FilePath, Root, existing_in};
use crate::refusal::Refusal;

/// Everything held, uploads in flight included. A stranger's uploads must not take the machine down.
const HELD_BYTES_MAX: u64 = 4 << 30;

/// Blocks are gathered to this size. An upload that ends sooner is a plain buffer: shared memory would cost it five
/// system calls and one of the 65,530 mappings of a process. What is longer is written on, so that nothing that has been
/// stored is ever copied again, as a growing buffer would be.
const GATHER_BYTES: usize = 64 * 1024;

/// Files by name, shared with the uploads that will be added to them.
pub(crate) struct MemoryStore {
    root: Arc<Root>,
    shelf: Arc<Shelf>,
    budget: Arc<Budget>,
    overwrite: bool,
}

/// One file, which never changes. It counts against the bound for as long as anybody here has it.
#[derive(Debug)]
pub(crate) struct Contents {
    bytes: Bytes,
    _taken: Taken,
}

#[derive(Debug)]
enum Bytes {
    Plain(Vec<u8>),
    Shared(Mapping),
}

impl Deref for Contents {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Plain(bytes) => bytes,
            Bytes::Shared(mapping) => mapping,
        }
    }
}

/// Where whole files go.
#[derive(Debug)]
struct Shelf {
    files: Mutex<HashMap<FilePath, Arc<Contents>>>,
    /// Who takes each upload when it is whole, besides us.
    handover: Option<Handover>,
}

impl MemoryStore {
    pub(crate) fn new(root: Arc<Root>, overwrite: bool, handover: Option<Handover>) -> MemoryStore {
        MemoryStore::bounded(root, overwrite, handover, HELD_BYTES_MAX)
    }

    fn bounded(root: Arc<Root>, overwrite: bool, handover: Option<Handover>, bytes_max: u64) -> MemoryStore {
        let shelf = Arc::new(Shelf { files: Mutex::default(), handover });
        let budget = Arc::new(Budget { bytes: AtomicU64::new(0), bytes_max });
        MemoryStore { root, shelf, budget, overwrite }
    }

    pub(crate) fn open(&self, path: &FilePath) -> Result<Arc<Contents>, Refusal> {
        if let Some(contents) = self.shelf.files().get(path) {
            return Ok(Arc::clone(contents));
        }
        let mut file = DiskFile::open(&self.root, path)?;
        let mut loaded = self.upload(path.clone(), true);
        loaded.extend_from(&mut file)?;
        loaded.keep(None)
    }

    pub(crate) fn create(&self, path: &FilePath, size: Option<u64>) -> Result<MemoryUpload, Refusal> {
        let held = self.shelf.files().contains_key(path).then_some(FileType::RegularFile);
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
        let (shelf, budget) = (Arc::clone(&self.shelf), Arc::clone(&self.budget));
        let taken = Taken { budget, bytes: 0 };
        MemoryUpload { shelf, path, overwrite, taken, gathered: Vec::new(), shared: None }
    }
}

impl Shelf {
    fn files(&self) -> MutexGuard<'_, HashMap<FilePath, Arc<Contents>>> {
        // The map is never left half-changed, so a panic elsewhere does not spoil it.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all files together may take.
#[derive(Debug)]
struct Budget {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    fn left(&self) -> u64 {
        self.bytes_max.saturating_sub(self.bytes.load(Ordering::Relaxed))
    }
}

/// What one file has taken of it, given back when dropped.
#[derive(Debug)]
struct Taken {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Taken {
    fn more(&mut self, count: u64) -> Result<(), Refusal> {
        let before = self.budget.bytes.fetch_add(count, Ordering::Relaxed);
        if before.saturating_add(count) <= self.budget.bytes_max {
            self.bytes += count;
            return Ok(());
        }
        self.budget.bytes.fetch_sub(count, Ordering::Relaxed);
        Err(Refusal::MEMORY_FULL)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One file growing in memory. What it has taken of the bound goes over to the whole file.
#[derive(Debug)]
pub(crate) struct MemoryUpload {
    shelf: Arc<Shelf>,
    path: FilePath,
    overwrite: bool,
    taken: Taken,
    /// Its last bytes.
    gathered: Vec<u8>,
    /// Those before, where they were too many to gather.
    shared: Option<SharedMemory>,
}

impl MemoryUpload {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.taken.more(bytes.len() as u64)?;
        if self.gathered.len() + bytes.len() > GATHER_BYTES {
            self.share_gathered()?;
        }
        self.gathered.try_reserve(bytes.len()).map_err(|_| Refusal::MEMORY_FULL)?;
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn commit(mut self) -> Result<(), Refusal> {
        if self.shared.is_none() && self.shelf.handover.is_none() {
            return self.keep(None).map(drop);
        }
        self.share_gathered()?;
        let shared = self.shared.take().map(SharedMemory::seal).transpose().map_err(refusal)?;
        self.keep(shared).map(drop)
    }

    /// Gives the file its name, and hands it over where it is shared and somebody takes it.
    fn keep(self, shared: Option<Sealed>) -> Result<Arc<Contents>, Refusal> {
        let bytes = match &shared {
            None => Bytes::Plain(self.gathered),
            Some(sealed) => Bytes::Shared(sealed.map().map_err(refusal)?),
        };
        let contents = Arc::new(Contents { bytes, _taken: self.taken });
        let mut files = self.shelf.files();
        if !self.overwrite && files.contains_key(&self.path) {
            return Err(Refusal::EXISTS);
        }
        // Before others can replace the file: whoever takes them gets the files of one name in their order.
        if let (Some(handover), Some(sealed)) = (&self.shelf.handover, shared) {
            let account = Arc::clone(&contents);
            handover.offer(self.path.as_bytes(), sealed, account);
        }
        files.insert(self.path, Arc::clone(&contents));
        Ok(contents)
    }

    /// RFC 2349 section 3: a file that is too large to be stored is refused before its first block.
    fn expect(&mut self, size: u64) -> Result<(), Refusal> {
        if size > self.taken.budget.left() {
            return Err(Refusal::MEMORY_FULL);
        }
        let reserve = size.min(GATHER_BYTES as u64) as usize;
        self.gathered.try_reserve_exact(reserve).map_err(|_| Refusal::MEMORY_FULL)
    }

    fn extend_from(&mut self, file: &mut DiskFile) -> Result<(), Refusal> {
        let size = usize::try_from(file.length()).map_err(|_| Refusal::MEMORY_FULL)?;
        self.taken.more(file.length())?;
        self.gathered.try_reserve_exact(size).map_err(|_| Refusal::MEMORY_FULL)?;
        self.gathered.resize(size, 0);
        file.read_at(0, &mut self.gathered)
    }

    fn share_gathered(&mut self) -> Result<(), Refusal> {
        let shared = match &mut self.shared {
            Some(shared) => shared,
            none => none.insert(SharedMemory::new().map_err(refusal)?),
        };
        shared.append(&self.gathered).map_err(refusal)?;
        self.gathered.clear();
        Ok(())
    }
}

fn refusal(error: io::Error) -> Refusal {
    match Errno::from_io_error(&error) {
        // mmap(2): also too many mappings.
        None | Some(Errno::NOMEM | Errno::NOSPC) => Refusal::MEMORY_FULL,
        Some(errno) => errno.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::{Duration, Instant};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use tftpbench_testclient::{Folder as TestFolder, pattern};

    use super::*;

    fn bounded(folder: &TestFolder, overwrite: bool, bytes_max: u64) -> MemoryStore {
        let root = Arc::new(Root::open(folder.path()).unwrap());
        MemoryStore::bounded(root, overwrite, None, bytes_max)
    }

    fn store(folder: &TestFolder, overwrite: bool) -> MemoryStore {
        bounded(folder, overwrite, 1000)
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
        assert_eq!(store.budget.bytes.load(Ordering::Relaxed), 1000);
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
        assert_eq!(store.budget.bytes.load(Ordering::Relaxed), 10);
    }

    #[test]
    fn an_upload_of_any_size_reads_as_it_was_written() {
        let folder = TestFolder::new();
        let store = bounded(&folder, true, 1 << 20);
        for size in [0, 1, GATHER_BYTES - 1, GATHER_BYTES, GATHER_BYTES + 1, 3 * GATHER_BYTES + 7] {
            for block in [512, 1428, 65_464, GATHER_BYTES + 1] {
                let whole = pattern(size, block as u32);
                let mut upload = store.create(&path("f"), Some(size as u64)).unwrap();
                whole.chunks(block).for_each(|part| upload.append(part).unwrap());
                upload.commit().unwrap();
                assert!(**store.open(&path("f")).unwrap() == whole, "{size} in {block}");
                assert_eq!(store.budget.bytes.load(Ordering::Relaxed), size as u64);
            }
        }
    }

    #[test]
    fn what_waits_to_be_handed_over_counts_even_when_it_was_replaced() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let folder = TestFolder::new();
        let root = Arc::new(Root::open(folder.path()).unwrap());
        let store = MemoryStore::bounded(root, true, Some(Handover::new(ours).unwrap()), 150_000);
        let upload = || {
            let mut upload = store.create(&path("f"), None)?;
            upload.append(&[1; 1000])?;
            upload.commit()
        };
        // Some 40 are on their way, and the rest waits.
        let uploaded = (0..500).take_while(|_| upload().is_ok()).count();
        assert!((150..250).contains(&uploaded), "{uploaded}");
        assert_eq!(upload(), Err(Refusal::MEMORY_FULL));
        drop(theirs);
        let until = Instant::now() + Duration::from_secs(5);
        while store.budget.left() < 149_000 && Instant::now() < until {
            thread::yield_now();
        }
        assert_eq!(store.budget.left(), 149_000);
        assert_eq!(upload(), Ok(()));
        assert_eq!(store.open(&path("f")).unwrap().len(), 1000);
    }
}
