//! What the memory store holds, and what it counts for it.

use std::fs::{FileTimes, remove_file, rename};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tftpbench_net::LARGE_BYTES;
use tftpbench_testclient::{Folder as TestFolder, pattern};

use super::*;
use crate::store::contents::{GATHER_BYTES, PAGE_BYTES, SHARED_COST_BYTES};

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
