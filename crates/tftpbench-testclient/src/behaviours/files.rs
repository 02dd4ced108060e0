//! Which files may be read, and what happens to those that change meanwhile.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tftpbench_proto::Packet;
use tftpbench_serve::StoreKind;

use crate::client::{Client, RRQ, data, pattern, request};
use crate::server::{Folder, Run, TestServer, config};

/// By `..`, an absolute path, or a symbolic link to a file or a folder.
pub fn nothing_outside_the_root_is_read(run: Run) {
    let (outside, root) = (Folder::new(), Folder::new());
    outside.put("secret", b"secret");
    root.put("sub/f", b"x");
    let server = TestServer::start(run, &root);
    for name in escapes(&outside, &root) {
        let denied = server.client().read(&name, &[]).expect_err(&name);
        assert!(matches!(denied.code, 1 | 2), "{name}: {denied:?}");
    }
}

/// The same names, written to.
pub fn nothing_outside_the_root_is_written(run: Run) {
    let (outside, root) = (Folder::new(), Folder::new());
    outside.put("secret", b"secret");
    root.put("sub/f", b"x");
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    for name in escapes(&outside, &root) {
        let denied = server.client().write(&name, b"overwritten", &[]).expect_err(&name);
        assert!(matches!(denied.code, 1 | 2), "{name}: {denied:?}");
    }
    assert_eq!(outside.contents("secret"), b"secret");
    assert_eq!(outside.names(), ["secret"]);
}

/// A folder that is a symbolic link to one outside in every other moment: what is read is inside, and nothing is
/// written outside.
pub fn a_folder_that_turns_into_a_link_meanwhile_never_leads_outside(run: Run) {
    let (outside, root) = (Folder::new(), Folder::new());
    outside.put("f", b"secret");
    root.put("a/f", b"inside");
    symlink(outside.path(), root.file("link")).unwrap();
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    let is_done = AtomicBool::new(false);
    let (read, written) = thread::scope(|scope| {
        let _done = SetOnDrop(&is_done);
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for (from, to) in [("a", "aside"), ("link", "a"), ("a", "link"), ("aside", "a")] {
                    fs::rename(root.file(from), root.file(to)).unwrap();
                    thread::yield_now();
                }
            }
        });
        let (mut read, mut written) = (0, 0);
        for turn in 0..3000 {
            match server.client().read("a/f", &[]) {
                Ok(file) => {
                    assert_eq!(file, b"inside");
                    read += 1;
                }
                Err(denied) => assert!(matches!(denied.code, 1 | 2), "{denied:?}"),
            }
            match server.client().write("a/new", b"new", &[]) {
                Ok(()) => written += 1,
                Err(denied) => assert!(matches!(denied.code, 1 | 2), "{denied:?}"),
            }
            // On a busy machine the folder can stay a link for long.
            if turn > 300 && read > 0 && written > 0 {
                break;
            }
        }
        (read, written)
    });
    assert!(read > 0 && written > 0, "{read} and {written}: never while it was a folder");
    assert_eq!((outside.names(), outside.contents("f")), (vec!["f".to_string()], b"secret".to_vec()));
}

/// Also on a panic, or the scope would wait for the other thread for ever.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder, a FIFO without a writer (which must not be waited for), a socket, a link that stays inside; and the root.
pub fn what_is_no_regular_file_is_refused(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    fs::create_dir(root.file("folder")).unwrap();
    symlink("f", root.file("link")).unwrap();
    let made = Command::new("mkfifo").arg(root.file("fifo")).status().unwrap();
    assert!(made.success());
    let _socket = UnixListener::bind(root.file("socket")).unwrap();
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    for name in ["folder", "folder/", "fifo", "socket", "link", "/", ".", "./"] {
        let denied = server.client().read(name, &[]).expect_err(name);
        assert_eq!(denied.code, 2, "{name}: {denied:?}");
        let denied = server.client().write(name, b"y", &[]).expect_err(name);
        assert_eq!(denied.code, 2, "{name}: {denied:?}");
    }
    assert_eq!(root.names(), ["f", "fifo", "folder", "link", "socket"]);
}

/// However the path is written.
pub fn folders_below_the_root_are_served(run: Run) {
    let root = Folder::new();
    root.put("a/b/f", b"deep");
    let server = TestServer::start(run, &root);
    for name in ["a/b/f", "/a/b/f", "//a/./b//f"] {
        assert_eq!(server.client().read(name, &[]), Ok(b"deep".to_vec()), "{name}");
    }
    server.client().write("a/b/new", b"also", &[]).unwrap();
    assert_eq!(root.contents("a/b/new"), b"also");
    let denied = server.client().write("absent/new", b"", &[]).unwrap_err();
    assert_eq!(denied.code, 1);
    let denied = server.client().read("a/f", &[]).unwrap_err();
    assert_eq!(denied.code, 1);
}

/// RFC 2347: a request has 512 bytes, and a path may fill them.
pub fn a_path_as_long_as_a_request_is_served(run: Run) {
    let root = Folder::new();
    let room = 512 - request(RRQ, "", "octet", &[]).len();
    let path = format!("{}/{}/{}", "a".repeat(200), "b".repeat(200), "c".repeat(room - 402));
    root.put(&path, b"deep");
    let server = TestServer::start(run, &root);
    assert_eq!(server.client().read(&path, &[]), Ok(b"deep".to_vec()));
    assert_eq!(server.client().read(&format!("/{path}"), &[]).unwrap_err().code, 4);
    // A name that is longer than a file system's can be is not there.
    assert_eq!(server.client().read(&"d".repeat(room), &[]).unwrap_err().code, 1);
}

/// Never a SIGBUS, never padding.
pub fn a_file_truncated_while_served_is_an_error(run: Run) {
    changed_while_served(run, |root| {
        fs::File::options().write(true).open(root.file("f")).unwrap().set_len(700).unwrap()
    });
}

/// Moved, removed, replaced by another file or by an upload, or one of several hard links gone: a client that has begun
/// to read the file gets all of it, and nothing of another.
pub fn a_file_whose_names_change_while_served_is_served_to_its_end(run: Run) {
    for (change, names) in name_changes() {
        // The memory store has not read all of the last one by then.
        for (store, size) in [
            (StoreKind::Disk, 5000),
            (StoreKind::Disk, 200_000),
            (StoreKind::Memory, 5000),
            (StoreKind::Memory, 200_000),
        ] {
            let root = Folder::new();
            root.put("f", &pattern(size, 1));
            fs::hard_link(root.file("f"), root.file("also-f")).unwrap();
            let mut config = config(&root);
            (config.overwrite, config.store) = (true, store);
            let server = TestServer::with(run, config);
            let (client, tid) = begun(&server);
            names(&server, &root);
            let rest = read_on(&client, tid, 1);
            assert!(rest == Ok(pattern(size, 1)[512..].to_vec()), "{change}, {store:?}, {size}");
            let summary = server.finish();
            assert_eq!(summary.count("transfers_failed"), 0, "{change}: {summary:?}");
        }
    }
}

/// Same size, other bytes.
pub fn a_file_changed_in_place_while_served_is_an_error(run: Run) {
    changed_while_served(run, |root| root.put("f", &pattern(5000, 9)));
}

/// It reads a file once, whatever happens to it afterwards.
pub fn the_memory_store_serves_what_it_read_first(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(5000, 1));
    let mut config = config(&root);
    config.store = StoreKind::Memory;
    let server = TestServer::with(run, config);
    let (client, tid) = begun(&server);
    root.put("f", &pattern(700, 2));
    client.error(tid);
    assert_eq!(server.client().read("f", &[]), Ok(pattern(5000, 1)));
    fs::remove_file(root.file("f")).unwrap();
    assert_eq!(server.client().read("f", &[("blksize", "1428")]), Ok(pattern(5000, 1)));
    let denied = server.client().read("../f", &[]).unwrap_err();
    assert_eq!(denied.code, 2);
}

/// As on disk, as long as it has not read all of it; a request after the change gets the new file, whatever is still
/// being read.
pub fn the_memory_store_makes_no_file_of_two_states(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(200_000, 1));
    let past = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(root.file("f")).unwrap().set_times(past).unwrap();
    let mut config = config(&root);
    config.store = StoreKind::Memory;
    let server = TestServer::with(run, config);
    let [(early, early_tid), (late, late_tid)] = [(); 2].map(|()| begun(&server));
    root.put("f", &pattern(200_000, 2));
    assert_eq!(read_on(&early, early_tid, 1), Err(0));
    assert_eq!(server.client().read("f", &[("blksize", "8192")]), Ok(pattern(200_000, 2)));
    assert_eq!(read_on(&late, late_tid, 1), Err(0));
    fs::remove_file(root.file("f")).unwrap();
    assert_eq!(server.client().read("f", &[("blksize", "1428")]), Ok(pattern(200_000, 2)));
}

/// Windows writes paths with backslashes, and some PXE ROMs append 0xFF: to us such a name is another name, and leads
/// nowhere else.
pub fn a_name_may_hold_any_byte_but_nul(run: Run) {
    let root = Folder::new();
    root.put("boot", b"plain");
    root.put("sub/f", b"plain");
    let server = TestServer::start(run, &root);
    let client = server.client();
    for name in [&b"boot\xff"[..], b"sub\\f", b"..\\boot", b"\\boot", b"caf\xc3\xa9 \x01\n%s"] {
        client.ask(&request(RRQ, name, "octet", &[]));
        assert_eq!(client.receive_error(), 1, "{}", name.escape_ascii());
        root.put(OsStr::from_bytes(name), name);
        client.ask(&request(RRQ, name, "octet", &[]));
        let answer = client.receive();
        assert_eq!(answer.bytes, data(1, name));
        client.ack(answer.tid, 1);
    }
}

/// Serves 5000 bytes, changes them after the first block, and reads on.
fn changed_while_served(run: Run, change: impl FnOnce(&Folder)) {
    let root = Folder::new();
    root.put("f", &pattern(5000, 1));
    // The change must be visible in the file's times, whose grain is a tick of the kernel.
    let past = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().write(true).open(root.file("f")).unwrap().set_times(past).unwrap();
    let server = TestServer::start(run, &root);
    let (client, tid) = begun(&server);
    change(&root);
    assert_eq!(read_on(&client, tid, 1), Err(0));
    assert_eq!(server.finish().count("transfers_failed"), 1);
}

fn begun(server: &TestServer) -> (Client, SocketAddr) {
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, payload) = client.receive_data();
    assert_eq!(payload, pattern(512, 1));
    (client, tid)
}

/// Its name, and what does it.
type NameChange = (&'static str, fn(&TestServer, &Folder));

/// What people do to the names of `f`, which is `also-f`, too.
pub(crate) fn name_changes() -> [NameChange; 6] {
    [
        ("moved", |_, root| fs::rename(root.file("f"), root.file("aside")).unwrap()),
        ("removed", |_, root| fs::remove_file(root.file("f")).unwrap()),
        ("the other link removed", |_, root| fs::remove_file(root.file("also-f")).unwrap()),
        ("all links removed", |_, root| {
            fs::remove_file(root.file("f")).unwrap();
            fs::remove_file(root.file("also-f")).unwrap();
        }),
        ("replaced by a file", |_, root| {
            root.put("other", &pattern(5000, 9));
            fs::rename(root.file("other"), root.file("f")).unwrap();
        }),
        ("replaced by an upload", |server, _| {
            server.client().write("f", &pattern(6000, 8), &[]).unwrap();
            assert_eq!(server.client().read("f", &[]), Ok(pattern(6000, 8)));
        }),
    ]
}

/// In lock-step, from the ACK of block `block` on: the rest of the file, or the code of the ERROR in its place.
fn read_on(client: &Client, tid: SocketAddr, mut block: u16) -> Result<Vec<u8>, u16> {
    let mut rest = Vec::new();
    loop {
        client.ack(tid, block);
        let answer = client.receive();
        match answer.packet() {
            Packet::Error { code, .. } => return Err(code.0),
            Packet::Data { block: number, payload } if number == block + 1 => {
                block = number;
                rest.extend_from_slice(payload);
                if payload.len() < 512 {
                    client.ack(tid, block);
                    return Ok(rest);
                }
            }
            other => panic!("after block {block} came {other:?}"),
        }
    }
}

/// Every way out that we know.
fn escapes(outside: &Folder, root: &Folder) -> Vec<String> {
    let secret = outside.file("secret");
    let (secret, folder) = (secret.to_str().unwrap(), outside.path());
    symlink(secret, root.file("link")).unwrap();
    symlink(folder, root.file("linked")).unwrap();
    symlink("../..", root.file("sub/up")).unwrap();
    let name = folder.file_name().unwrap().to_str().unwrap();
    vec![
        secret.into(),
        format!("/{secret}"),
        format!("../{name}/secret"),
        format!("/../{name}/secret"),
        format!("sub/../../{name}/secret"),
        format!("sub/up/{name}/secret"),
        format!("..//{name}/secret"),
        "..".into(),
        "sub/..".into(),
        "link".into(),
        "linked/secret".into(),
    ]
}
