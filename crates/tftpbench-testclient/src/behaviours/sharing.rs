//! Many readers of one file, which share what is open of it, and of many files.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tftpbench_proto::Packet;
use tftpbench_serve::ServeConfig;

use crate::behaviours::files::name_changes;
use crate::client::{Client, RRQ, pattern, request};
use crate::server::{Folder, Run, TestServer, config, timing};

type Options = &'static [(&'static str, &'static str)];

/// Small and large blocks, alone and in windows, one of which is more than 64 KiB.
const MANNERS: [Options; 7] = [
    &[],
    &[("blksize", "1428")],
    &[("blksize", "65464")],
    &[("windowsize", "16")],
    &[("blksize", "1428"), ("windowsize", "7")],
    &[("blksize", "2000"), ("windowsize", "64")],
    &[("blksize", "8192"), ("windowsize", "16")],
];

/// Byte for byte, in whatever manner each of them reads.
pub fn readers_of_one_file_at_once_get_it_whole(run: Run) {
    let root = Folder::new();
    // The last three are whole windows, or blocks, of some manner.
    for size in [0, 1, 300_001, 2000 * 64 * 2, 65_464 * 3, 512 * 600] {
        let file = pattern(size, 1);
        root.put("f", &file);
        let server = TestServer::with(run, slow_timers(&root));
        let _holder = hold(&server, "f", &[("tsize", "0")]);
        thread::scope(|scope| {
            let (server, file) = (&server, &file);
            for options in MANNERS {
                scope.spawn(move || {
                    assert!(server.client().read("f", options).unwrap() == *file, "{options:?}")
                });
            }
            scope.spawn(move || {
                let text = server.client().read_as("netascii", "f", &[("windowsize", "9")]).unwrap();
                assert!(text == netascii(file));
            });
        });
    }
}

/// Each of them many times, so that files are opened, shared and closed while others are read.
pub fn readers_of_many_files_at_once_get_theirs(run: Run) {
    let root = Folder::new();
    let files: Vec<_> = (0..5).map(|n| pattern(90_000 + n, n as u32)).collect();
    for (n, file) in files.iter().enumerate() {
        root.put(format!("{n}"), file);
    }
    let server = TestServer::start(run, &root);
    thread::scope(|scope| {
        let (server, files) = (&server, &files);
        for (reader, options) in (0..15).zip(MANNERS.into_iter().cycle()) {
            scope.spawn(move || {
                for turn in 0..10 {
                    let n = (reader + turn) % files.len();
                    assert!(server.client().read(&format!("{n}"), options).unwrap() == files[n], "{n}");
                }
            });
        }
    });
    assert_eq!(server.finish().count("transfers_completed"), 150);
}

/// Never a SIGBUS, and never the end of a file that is not what it was at the beginning.
pub fn a_shared_file_truncated_while_served_is_an_error(run: Run) {
    for length in [0, 700, SIZE as u64 / 2, SIZE as u64 - 1] {
        changed_while_shared(run, |root| {
            fs::File::options().write(true).open(root.file("f")).unwrap().set_len(length).unwrap();
        });
    }
}

/// Readers of every manner get the file that they opened; a request from then on gets what has the name then.
pub fn a_shared_file_whose_names_change_is_served_to_its_end(run: Run) {
    for (change, names) in name_changes() {
        let root = Folder::new();
        root.put("f", &pattern(SIZE, 1));
        fs::hard_link(root.file("f"), root.file("also-f")).unwrap();
        let mut config = slow_timers(&root);
        config.overwrite = true;
        let server = TestServer::with(run, config);
        let options = &MANNERS[1..];
        let readers: Vec<_> = options.iter().map(|options| (hold(&server, "f", options), *options)).collect();
        names(&server, &root);
        for ((client, tid), options) in readers {
            assert!(read_on(&client, tid, options) == Ok(pattern(SIZE, 1)), "{change}, {options:?}");
            let now = fs::read(root.file("f")).map_err(|_| 1);
            let read = server.client().read("f", options).map_err(|denied| denied.code);
            assert!(read == now, "{change}, {options:?}");
        }
    }
}

/// Same size, other bytes.
pub fn a_shared_file_changed_in_place_while_served_is_an_error(run: Run) {
    changed_while_shared(run, |root| root.put("f", &pattern(SIZE, 9)));
}

/// Both have the state that they opened, and so has a request while one of them reads: what was sent to one can be sent
/// to all.
pub fn what_one_reader_was_sent_another_gets_too(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(SIZE, 1));
    let options: Options = &[("blksize", "1428"), ("windowsize", "16")];
    let server = TestServer::with(run, slow_timers(&root));
    let (second, tid) = hold(&server, "f", options);
    assert!(server.client().read("f", options).unwrap() == pattern(SIZE, 1));
    fs::File::options().write(true).open(root.file("f")).unwrap().set_len(0).unwrap();
    assert!(read_on(&second, tid, options) == Ok(pattern(SIZE, 1)));
    assert_eq!(server.client().read("f", options), Ok(vec![]));
}

/// One for all readers, and none when they are gone.
pub fn a_file_is_open_once_for_all_its_readers(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(SIZE, 1));
    root.put("g", b"other");
    let server = TestServer::with(run, slow_timers(&root));
    let file = fs::canonicalize(root.file("f")).unwrap();
    let readers: Vec<_> = (0..20).map(|_| hold(&server, "f", &[("blksize", "1428")])).collect();
    assert_eq!(descriptors_of(&file), 1);
    for (reader, tid) in &readers {
        reader.error(*tid);
    }
    // What was sent before is seen before, or at least soon after.
    let start = Instant::now();
    while descriptors_of(&file) > 0 {
        assert_eq!(server.client().read("g", &[]), Ok(b"other".to_vec()));
        assert!(start.elapsed() < Duration::from_secs(10), "f is still open");
    }
    assert_eq!(server.client().read("f", &[]), Ok(pattern(SIZE, 1)));
}

/// Several windows of every manner, and several looks at the file's state.
const SIZE: usize = 300_000;

/// Readers of every manner each get an error; those of another file, and those that come later, are well served.
fn changed_while_shared(run: Run, change: impl FnOnce(&Folder)) {
    let root = Folder::new();
    for name in ["f", "g"] {
        root.put(name, &pattern(SIZE, 1));
    }
    // The change must be visible in the file's times, whose grain is a tick of the kernel.
    let past = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(root.file("f")).unwrap().set_times(past).unwrap();
    let mut config = slow_timers(&root);
    config.timing = timing(100_000_000);
    config.timing.retries = 100;
    let server = TestServer::with(run, config);
    let _holders = ["f", "g"].map(|name| hold(&server, name, &[("tsize", "0")]));
    let options = &MANNERS[1..];
    let readers: Vec<_> = options.iter().map(|options| (hold(&server, "f", options), *options)).collect();
    let others: Vec<_> = options.iter().map(|options| (hold(&server, "g", options), *options)).collect();
    change(&root);
    for ((client, tid), options) in readers {
        assert_eq!(read_on(&client, tid, options), Err(0), "{options:?}");
    }
    for ((client, tid), options) in others {
        assert!(read_on(&client, tid, options) == Ok(pattern(SIZE, 1)), "{options:?}");
    }
    for options in MANNERS {
        assert!(server.client().read("f", options).unwrap() == root.contents("f"), "{options:?}");
    }
    let summary = server.finish();
    // The holder of "f" may have found out, too.
    assert!(summary.count("transfers_failed") >= options.len() as u64, "{summary:?}");
}

/// For transfers that are left waiting, and that no stop waits for.
fn slow_timers(root: &Folder) -> ServeConfig {
    let mut config = config(root);
    config.timing = timing(5_000_000_000);
    config.grace_ns = 0;
    config
}

/// A transfer that has been opened and waits for its first ACK.
fn hold(server: &TestServer, name: &str, options: &[(&str, &str)]) -> (Client, SocketAddr) {
    let client = server.client();
    client.ask(&request(RRQ, name, "octet", options));
    let tid = client.receive().tid;
    (client, tid)
}

/// Reads from the OACK on: the file, or the code of the ERROR that ended it. What does not come in order is not
/// counted.
fn read_on(client: &Client, tid: SocketAddr, options: Options) -> Result<Vec<u8>, u16> {
    let option = |name, default| {
        let found = options.iter().find(|(option, _)| *option == name);
        found.map_or(default, |(_, value)| value.parse::<usize>().unwrap())
    };
    let (blksize, windowsize) = (option("blksize", 512), option("windowsize", 1) as u16);
    let (mut file, mut last) = (Vec::new(), 0);
    client.ack(tid, 0);
    loop {
        let answer = client.receive();
        match answer.packet() {
            Packet::Error { code, .. } => return Err(code.0),
            Packet::Data { block, payload } if block == last + 1 => {
                last = block;
                file.extend_from_slice(payload);
                if payload.len() < blksize || block % windowsize == 0 {
                    client.ack(tid, block);
                }
                if payload.len() < blksize {
                    return Ok(file);
                }
            }
            _ => {}
        }
    }
}

fn netascii(bytes: &[u8]) -> Vec<u8> {
    let encode = |&byte: &u8| match byte {
        b'\n' => b"\r\n".to_vec(),
        b'\r' => b"\r\0".to_vec(),
        byte => vec![byte],
    };
    bytes.iter().flat_map(encode).collect()
}

/// How often this process has a file open. Other tests in it have other files.
fn descriptors_of(file: &Path) -> usize {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    // One that is closed meanwhile leads nowhere.
    entries.filter(|entry| fs::read_link(entry.as_ref().unwrap().path()).is_ok_and(|to| to == file)).count()
}
