//! The memory store: a file is read from the root as it is asked for and served from memory afterwards; uploads stay in
//! memory, readable at once, and never touch the disk. All of it together is bounded; beyond that it is "full". What
//! counts is what is allocated: room that is not filled yet, and what a file costs beside its bytes.
//!
//! A large upload is shared memory from its beginning, and any upload is once it is whole where another process takes
//! them: that process maps the same pages.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::FileType;
use rustix::io::Errno;
use tftpbench_net::{Deferrable, Handover, Mapping, Sealed, SharedMemory};

use super::budget::{Budget, Charge};
use super::disk::DiskFile;
use super::loaded::{CHUNK_BYTES, LoadedFile};
use super::rules::{LARGE_BYTES, may_create};
use crate::paths::{FilePath, Root, existing_in, file_type};
use crate::refusal::Refusal;

/// Blocks are gathered to this size. An upload that ends sooner is a plain buffer: shared memory would cost it five
/// system calls and one of the 65,530 mappings of a process. What is longer is written on, so that nothing that has
/// been stored is ever copied again, as a growing buffer would be.
const GATHER_BYTES: usize = 64 * 1024;

/// What a file costs beside its name and its bytes: the value itself, its place among the names, and what malloc(3)
/// adds to the three pieces. Measured with 50,000 to 290,000 files of one byte: 200 bytes each with epoll, up to 290
/// with threads.
const FILE_COST_BYTES: u64 = 256;

/// What shared memory costs the kernel beside its pages: an inode, a name of its own, an open file and a mapping.
const SHARED_COST_BYTES: u64 = 2048;

/// Shared memory is made of pages.
const PAGE_BYTES: u64 = 4096;

/// Files by name, shared with the uploads that will be added to them.
pub(crate) struct MemoryStore {
    root: Arc<Root>,
    shelf: Arc<Shelf>,
    budget: Arc<Budget>,
    overwrite: bool,
}

/// One file, which never changes. It counts against the bound for as long as anything here holds it.
#[derive(Debug)]
struct Contents {
    held: Deferrable<Held>,
}

/// The bytes go before what they have taken of the bound is given back.
#[derive(Debug)]
struct Held {
    bytes: Bytes,
    _charge: Option<Charge>,
}

#[derive(Debug)]
enum Bytes {
    Plain(Box<[u8]>),
    Shared(Mapping),
    /// It has its own charge, which grows.
    Loaded(Box<LoadedFile>),
}

impl Contents {
    fn new(bytes: Bytes, charge: Option<Charge>) -> Arc<Contents> {
        let mut held = Deferrable::new(Held { bytes, _charge: charge });
        let is_large = held.length() >= LARGE_BYTES;
        held.defer(is_large);
        Arc::new(Contents { held })
    }

    fn loaded(&self) -> Option<&LoadedFile> {
        match &self.held.bytes {
            Bytes::Loaded(file) => Some(file),
            _ => None,
        }
    }

    fn is_outdated(&self) -> bool {
        self.loaded().is_some_and(LoadedFile::is_outdated)
    }
}

impl Held {
    fn length(&self) -> u64 {
        match &self.bytes {
            Bytes::Plain(bytes) => bytes.len() as u64,
            Bytes::Shared(mapping) => mapping.len() as u64,
            Bytes::Loaded(file) => file.length(),
        }
    }
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
        let growing = Growing { cost: cost_of(&path), gathered: Vec::new(), shared: None, charge };
        Ok(MemoryUpload { shelf, path, overwrite, growing: Deferrable::new(growing) })
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

#[derive(Debug)]
struct Growing {
    /// Beside the bytes.
    cost: u64,
    /// Its last bytes.
    gathered: Vec<u8>,
    /// Those before, where they were too many to gather.
    shared: Option<SharedMemory>,
    charge: Charge,
}

impl MemoryUpload {
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.growing.gathered.len() + bytes.len() > GATHER_BYTES {
            self.growing.share_gathered()?;
            let is_large = self.growing.shared_length() >= Some(LARGE_BYTES);
            self.growing.defer(is_large);
        }
        self.growing.gather(bytes)
    }

    /// Gives the file its name, and hands it over where it is shared and a process takes it.
    pub(crate) fn commit(self) -> Result<(), Refusal> {
        let growing = self.growing.into_inner();
        let is_plain = growing.shared.is_none() && self.shelf.handover.is_none();
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

impl Growing {
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

    fn into_plain(mut self) -> Result<(Bytes, Charge, Option<Sealed>), Refusal> {
        // A copy, as a buffer that is cut leaves a remnant behind it that fits nothing.
        let bytes: Box<[u8]> = match self.gathered.capacity() == self.gathered.len() {
            true => mem::take(&mut self.gathered).into(),
            false => self.gathered.as_slice().into(),
        };
        self.charge.set(self.cost_with(bytes.len(), None))?;
        Ok((Bytes::Plain(bytes), self.charge, None))
    }

    fn into_shared(mut self) -> Result<(Bytes, Charge, Option<Sealed>), Refusal> {
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

#[cfg(test)]
mod tests {
    use std::fs::{FileTimes, remove_file, rename};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant, SystemTime};

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use tftpbench_testclient::{Folder as TestFolder, pattern};

    use super::*;

    /// What a file whose name has one letter costs.
    const COST: u64 = FILE_COST_BYTES + 1;

    fn bounded(folder: &TestFolder, overwrite: bool, bytes_max: u64) -> MemoryStore {
        let root = Arc::new(Root::open(folder.path()).unwrap());
        MemoryStore::new(root, overwrite, None, bytes_max)
    }

    fn path(name: &str) -> FilePath {
        FilePath::parse(name.as_bytes()).unwrap()
    }

    fn whole(file: &MemoryFile) -> Result<Vec<u8>, Refusal> {
        let mut bytes = Vec::new();
        file.append(0, file.length() as usize, &mut bytes).map(|()| bytes)
    }

    /// A file whose next change can be seen in its times.
    fn put_old(folder: &TestFolder, name: &str, contents: &[u8]) {
        folder.put(name, contents);
        let past = FileTimes::new().set_modified(SystemTime::UNIX_EPOCH);
        std::fs::File::options().write(true).open(folder.file(name)).unwrap().set_times(past).unwrap();
    }

    #[test]
    fn everything_held_counts_against_the_bound_until_it_is_gone() {
        let folder = TestFolder::new();
        folder.put("l", &[1; 400]);
        folder.put("m", &[1; 601]);
        let store = bounded(&folder, true, 1000 + 2 * COST);
        assert_eq!(whole(&store.open(&path("l")).unwrap()).unwrap().len(), 400);
        let mut upload = store.create(&path("n"), None).unwrap();
        upload.append(&[2; 600]).unwrap();
        assert_eq!(upload.append(&[2]), Err(Refusal::MEMORY_FULL));
        drop(upload);
        assert_eq!(store.open(&path("m")).unwrap_err(), Refusal::MEMORY_FULL);
        assert_eq!(store.create(&path("n"), Some(601)).unwrap_err(), Refusal::MEMORY_FULL);
        // What replaces a file takes its place once it is whole; a reader of the old one keeps it until then.
        let reader = store.open(&path("l")).unwrap();
        let mut upload = store.create(&path("l"), Some(600)).unwrap();
        upload.append(&[3; 600]).unwrap();
        upload.commit().unwrap();
        assert_eq!(whole(&store.open(&path("l")).unwrap()).unwrap().len(), 600);
        assert_eq!((store.budget.taken(), whole(&reader)), (1000 + 2 * COST, Ok(vec![1; 400])));
        drop(reader);
        let mut upload = store.create(&path("n"), Some(400)).unwrap();
        upload.append(&[4; 400]).unwrap();
        upload.commit().unwrap();
        assert_eq!(store.budget.taken(), 1000 + 2 * COST);
        drop(store);
    }

    #[test]
    fn room_is_charged_as_it_is_taken_and_a_size_that_was_announced_takes_none() {
        let folder = TestFolder::new();
        let store = bounded(&folder, true, 1 << 20);
        let mut upload = store.create(&path("f"), Some(65_000)).unwrap();
        assert_eq!(store.budget.taken(), COST);
        for (block, room) in [(512, 512), (1, 1024), (511, 1024), (65_000 - 1024, 65_000), (1, 65_536)] {
            upload.append(&vec![1; block]).unwrap();
            assert_eq!(store.budget.taken(), COST + room);
        }
        upload.append(&[1; 600]).unwrap();
        let shared = SHARED_COST_BYTES + 16 * PAGE_BYTES;
        assert_eq!(store.budget.taken(), COST + 65_536 + shared);
        upload.commit().unwrap();
        assert_eq!(store.budget.taken(), COST + shared + PAGE_BYTES);
        let mut small = store.create(&path("f"), Some(65_000)).unwrap();
        small.append(&[1]).unwrap();
        small.commit().unwrap();
        assert_eq!(store.budget.taken(), COST + 1);
        drop(store.create(&path("g"), None).unwrap());
        assert_eq!(store.budget.taken(), COST + 1);
    }

    #[test]
    fn of_two_uploads_of_one_name_the_first_to_end_is_kept() {
        let folder = TestFolder::new();
        let store = bounded(&folder, false, 1000);
        let mut uploads = [1, 2].map(|byte| (byte, store.create(&path("f"), None).unwrap()));
        for (byte, upload) in &mut uploads {
            upload.append(&[*byte; 10]).unwrap();
        }
        let [first, second] = uploads.map(|(_, upload)| upload.commit());
        assert_eq!((first, second), (Ok(()), Err(Refusal::EXISTS)));
        assert_eq!(whole(&store.open(&path("f")).unwrap()).unwrap(), [1; 10]);
        assert_eq!(store.budget.taken(), COST + 10);
    }

    #[test]
    fn an_upload_of_any_size_reads_as_it_was_written() {
        let folder = TestFolder::new();
        let store = bounded(&folder, true, 1 << 20);
        for size in [0, 1, GATHER_BYTES - 1, GATHER_BYTES, GATHER_BYTES + 1, 3 * GATHER_BYTES + 7] {
            for block in [512, 1428, 65_464, GATHER_BYTES + 1] {
                let contents = pattern(size, block as u32);
                let mut upload = store.create(&path("f"), Some(size as u64)).unwrap();
                contents.chunks(block).for_each(|part| upload.append(part).unwrap());
                upload.commit().unwrap();
                let file = store.open(&path("f")).unwrap();
                assert!(whole(&file).unwrap() == contents, "{size} in {block}");
                let mut part = [0; 2];
                let expected = contents.get(size / 2..size / 2 + 2);
                assert_eq!(file.read_at(size as u64 / 2, &mut part).ok().map(|()| &part[..]), expected);
            }
        }
    }

    #[test]
    fn a_file_is_read_a_chunk_at_a_time_and_kept_once_it_is_whole() {
        let folder = TestFolder::new();
        let contents = pattern(3 * CHUNK_BYTES + 5, 1);
        folder.put("f", &contents);
        let store = bounded(&folder, true, 4 << 20);
        let reader = store.open(&path("f")).unwrap();
        let before = store.budget.taken();
        assert!(before < 1000, "{before}");
        for (end, chunks) in [(1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2), (3 * CHUNK_BYTES, 3)] {
            let mut part = vec![0; 1428.min(end)];
            reader.read_at((end - part.len()) as u64, &mut part).unwrap();
            assert!(part == contents[end - part.len()..end]);
            let read = store.budget.taken() - before;
            assert_eq!(read / CHUNK_BYTES as u64, chunks, "{end}");
        }
        // A second reader has what the first has read, and both have all of it.
        let second = store.open(&path("f")).unwrap();
        assert!(whole(&second).unwrap() == contents);
        drop((second, reader));
        remove_file(folder.file("f")).unwrap();
        assert!(whole(&store.open(&path("f")).unwrap()).unwrap() == contents);
        assert_eq!(whole(&store.open(&path("f")).unwrap()).unwrap().len(), contents.len());
        let beyond = store.open(&path("f")).unwrap();
        assert_eq!(beyond.read_at(contents.len() as u64, &mut [0]), Err(Refusal::CHANGED));
        assert_eq!(beyond.read_at(contents.len() as u64, &mut []), Ok(()));
    }

    #[test]
    fn a_file_that_was_not_read_to_its_end_is_not_kept() {
        let folder = TestFolder::new();
        put_old(&folder, "f", &pattern(2 * CHUNK_BYTES, 1));
        let store = bounded(&folder, true, 1 << 20);
        let [first, second] = [(); 2].map(|()| store.open(&path("f")).unwrap());
        first.read_at(0, &mut [0; 5]).unwrap();
        drop(first);
        assert!(store.budget.taken() > CHUNK_BYTES as u64);
        drop(second);
        assert_eq!((store.budget.taken(), store.shelf.files().len()), (0, 0));
    }

    #[test]
    fn of_readers_that_leave_at_the_same_time_the_last_one_removes_the_file() {
        let folder = TestFolder::new();
        put_old(&folder, "f", &pattern(2 * CHUNK_BYTES, 1));
        let store = bounded(&folder, true, 1 << 20);
        let (arrived, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        // Threads that sleep would not wake at the same time.
        let meet = |meeting: usize| {
            arrived.fetch_add(1, Ordering::SeqCst);
            while arrived.load(Ordering::SeqCst) < 2 * meeting {
                thread::yield_now();
            }
        };
        let read_for_a_moment = || {
            for round in 0..4000 {
                let reader = store.open(&path("f")).unwrap();
                meet(3 * round + 1);
                drop(reader);
                meet(3 * round + 2);
                left.fetch_add(store.shelf.files().len(), Ordering::SeqCst);
                meet(3 * round + 3);
            }
        };
        thread::scope(|scope| {
            scope.spawn(read_for_a_moment);
            scope.spawn(read_for_a_moment);
        });
        assert_eq!((left.into_inner(), store.budget.taken()), (0, 0));
    }

    /// Of a name that is gone or another file's, the file that was opened; of a file that has changed, nothing more.
    #[test]
    fn a_file_that_is_half_read_is_of_one_state() {
        let folder = TestFolder::new();
        let contents = pattern(2 * CHUNK_BYTES, 1);
        let store = bounded(&folder, true, 4 << 20);
        put_old(&folder, "f", &contents);
        let reader = store.open(&path("f")).unwrap();
        reader.read_at(0, &mut [0; 5]).unwrap();
        folder.put("g", &pattern(2 * CHUNK_BYTES, 2));
        rename(folder.file("g"), folder.file("f")).unwrap();
        assert!(whole(&reader).unwrap() == contents);

        put_old(&folder, "h", &contents);
        let [early, late] = [(); 2].map(|()| store.open(&path("h")).unwrap());
        early.read_at(0, &mut [0; 5]).unwrap();
        let changed = pattern(2 * CHUNK_BYTES, 3);
        folder.put("h", &changed);
        assert_eq!(whole(&late), Err(Refusal::CHANGED));
        // A request from now on gets the new state, however long an old reader stays.
        let new = store.open(&path("h")).unwrap();
        assert!(whole(&new).unwrap() == changed);
        assert_eq!(whole(&early), Err(Refusal::CHANGED));
        drop((early, late));
        assert!(whole(&store.open(&path("h")).unwrap()).unwrap() == changed);
    }

    #[test]
    fn a_file_beyond_the_bound_is_refused_before_its_first_chunk() {
        let folder = TestFolder::new();
        std::fs::File::create(folder.file("f")).unwrap().set_len(1 << 40).unwrap();
        let store = bounded(&folder, true, 1 << 20);
        assert_eq!(store.open(&path("f")).unwrap_err(), Refusal::MEMORY_FULL);
        assert_eq!(store.budget.taken(), 0);
    }

    /// Freeing as much here would keep other clients waiting.
    #[test]
    fn what_a_large_file_took_is_given_back_soon() {
        let folder = TestFolder::new();
        let store = bounded(&folder, true, 4 * LARGE_BYTES);
        for is_whole in [false, true] {
            let mut upload = store.create(&path("f"), None).unwrap();
            let block = vec![1; GATHER_BYTES];
            (0..=LARGE_BYTES / GATHER_BYTES as u64).for_each(|_| upload.append(&block).unwrap());
            match is_whole {
                true => upload.commit().unwrap(),
                false => drop(upload),
            }
        }
        let upload = store.create(&path("f"), None).unwrap();
        upload.commit().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while store.budget.taken() != COST {
            assert!(Instant::now() < until, "{}", store.budget.taken());
            thread::yield_now();
        }
    }

    #[test]
    fn what_waits_to_be_handed_over_counts_even_when_it_was_replaced() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let folder = TestFolder::new();
        let root = Arc::new(Root::open(folder.path()).unwrap());
        let each = COST + SHARED_COST_BYTES + PAGE_BYTES;
        let store = MemoryStore::new(root, true, Some(Handover::new(ours).unwrap()), 150 * each);
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
        while store.budget.taken() > each && Instant::now() < until {
            thread::yield_now();
        }
        assert_eq!(store.budget.taken(), each);
        assert_eq!(upload(), Ok(()));
        assert_eq!(whole(&store.open(&path("f")).unwrap()), Ok(vec![1; 1000]));
    }
}
