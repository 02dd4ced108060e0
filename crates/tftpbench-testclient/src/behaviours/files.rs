//! Which files may be read, and what happens to those that change meanwhile.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::process::Command;

use tftpbench_serve::StoreKind;

use crate::client::{Client, RRQ, pattern, request};
use crate::folder::Folder;
use crate::server::{Run, TestServer, config};

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

/// Never the front of one file and the end of another, and never a file that is not there any more.
pub fn a_file_replaced_while_served_is_an_error(run: Run) {
    changed_while_served(run, |root| {
        root.put("other", &pattern(5000, 9));
        fs::rename(root.file("other"), root.file("f")).unwrap();
    });
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
    for block in 1..=10 {
        client.ack(tid, block);
        let answer = client.receive();
        if let Some(code) = answer.error_code() {
            assert_eq!(code, 0);
            assert_eq!(server.finish().count("transfers_failed"), 1);
            return;
        }
    }
    panic!("all ten blocks were served");
}

fn begun(server: &TestServer) -> (Client, SocketAddr) {
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, payload) = client.receive_data();
    assert_eq!(payload, pattern(512, 1));
    (client, tid)
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
