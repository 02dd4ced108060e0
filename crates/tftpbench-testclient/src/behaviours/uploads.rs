//! What an upload may do to the disk, and what it leaves behind.

use std::process::Command;
use std::sync::Barrier;
use std::thread;

use tftpbench_net::{ReceiveBatch, SendBatch, Socket, SocketOptions};
use tftpbench_proto::Packet;
use tftpbench_serve::StoreKind;

use crate::client::{RRQ, WRQ, data, pattern, request};
use crate::server::{Folder, Run, TestServer, config, timing};

/// ERROR 2, and nothing appears.
pub fn writing_is_off_unless_asked_for(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.write = false;
    let server = TestServer::with(run, config);
    assert_eq!(server.client().write("f", b"x", &[]).unwrap_err().code, 2);
    assert!(root.names().is_empty());
}

/// ERROR 6.
pub fn an_existing_file_is_kept(run: Run) {
    let root = Folder::new();
    root.put("f", b"old");
    let server = TestServer::start(run, &root);
    assert_eq!(server.client().write("f", b"new", &[]).unwrap_err().code, 6);
    assert_eq!(root.contents("f"), b"old");
}

/// In one step: at no time is neither there.
pub fn an_existing_file_is_replaced_with_overwrite(run: Run) {
    let root = Folder::new();
    root.put("f", b"old");
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    let client = server.client();
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    client.send(tid, &data(1, &pattern(512, 1)));
    client.receive_ack();
    assert_eq!(server.client().read("f", &[]), Ok(b"old".to_vec()));
    client.send(tid, &data(2, b""));
    client.receive_ack();
    assert_eq!(server.client().read("f", &[]), Ok(pattern(512, 1)));
    assert_eq!(root.names(), ["f"]);
}

/// By nothing at all, too.
pub fn an_empty_upload_empties_a_file(run: Run) {
    let root = Folder::new();
    root.put("f", b"old");
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    server.client().write("f", b"", &[]).unwrap();
    assert_eq!(root.contents("f"), b"");
}

/// RFC 2349 lets a server refuse by it, and nothing else: a file that shrank or grew meanwhile is whole all the same.
pub fn an_announced_size_is_no_promise(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    for store in [StoreKind::Disk, StoreKind::Memory] {
        config.store = store;
        let server = TestServer::with(run, config.clone());
        for announced in ["0", "999", "1001", "30000"] {
            let (name, file) = (format!("{store:?}-{announced}"), pattern(1000, 6));
            server.client().write(&name, &file, &[("tsize", announced)]).unwrap();
            assert_eq!(server.client().read(&name, &[]), Ok(file), "{name}");
        }
    }
}

/// The first one wins; the upload gets ERROR 6 in place of its last ACK.
pub fn a_file_that_appears_meanwhile_is_kept(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    root.put("f", b"first");
    client.send(tid, &data(1, b"second"));
    assert_eq!(client.receive_error(), 6);
    assert_eq!(root.contents("f"), b"first");
    assert_eq!(root.names(), ["f"]);
}

/// And when its last ACK arrives it has it.
pub fn an_upload_has_its_name_only_when_complete(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    let file = pattern(512 * 40, 2);
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    for (index, block) in file.chunks(512).enumerate() {
        client.send(tid, &data(index as u16 + 1, block));
        client.receive_ack();
        assert!(!root.file("f").exists(), "after block {}", index + 1);
    }
    assert_eq!(server.client().read("f", &[]).unwrap_err().code, 1);
    client.send(tid, &data(41, b""));
    client.receive_ack();
    assert_eq!(root.contents("f"), file);
}

/// From two servers on one root as well as from one: exactly one is kept, or each in the place of the one before; never
/// a mixture, at no time, and nothing else is left.
pub fn eight_uploads_of_one_name_at_once_are_one_whole_file(run: Run) {
    for (store, overwrite) in [
        (StoreKind::Disk, false),
        (StoreKind::Disk, true),
        (StoreKind::Memory, false),
        (StoreKind::Memory, true),
    ] {
        let root = Folder::new();
        let mut config = config(&root);
        (config.store, config.overwrite) = (store, overwrite);
        let servers = [(); 2].map(|()| TestServer::with(run, config.clone()));
        // Each store in memory is its own.
        let of = |client: usize| if store == StoreKind::Disk { &servers[client % 2] } else { &servers[0] };
        let files: Vec<_> = (0..8).map(|seed| pattern(30_000 + seed, seed as u32)).collect();
        let all_at_once = Barrier::new(9);
        let ended: Vec<_> = thread::scope(|scope| {
            let (files, all_at_once) = (&files, &all_at_once);
            let writers: Vec<_> = (0..8)
                .map(|client| {
                    scope.spawn(move || {
                        all_at_once.wait();
                        of(client).client().write("f", &files[client], &[("blksize", "1000")])
                    })
                })
                .collect();
            all_at_once.wait();
            while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
                match of(0).client().read("f", &[("blksize", "8000")]) {
                    Ok(file) => assert!(files.contains(&file), "{store:?}, {overwrite}"),
                    Err(denied) => assert_eq!(denied.code, 1, "{denied:?}"),
                }
            }
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let kept = servers[0].client().read("f", &[("blksize", "8000")]).unwrap();
        let is_kept: Vec<_> = (0..8).map(|client| ended[client].is_ok() && files[client] == kept).collect();
        assert_eq!(is_kept.iter().filter(|is_kept| **is_kept).count(), 1, "{store:?}: {ended:?}");
        for (client, ended) in ended.iter().enumerate().filter(|(client, _)| !is_kept[*client]) {
            let code = ended.as_ref().err().map(|denied| denied.code);
            assert_eq!(code, (!overwrite).then_some(6), "{store:?}, client {client}");
        }
        let names = if store == StoreKind::Disk { vec!["f"] } else { vec![] };
        assert_eq!(root.names(), names);
    }
}

/// Neither a file nor a hidden name.
pub fn an_aborted_upload_leaves_nothing(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.overwrite = true;
    let server = TestServer::with(run, config);
    let client = server.client();
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    client.send(tid, &data(1, &pattern(512, 3)));
    client.receive_ack();
    client.error(tid);
    assert_eq!(server.finish().count("transfers_failed"), 1);
    assert!(root.names().is_empty());
}

/// The same where the client just goes away.
pub fn a_silent_upload_leaves_nothing(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    config.timing = timing(20_000_000);
    let server = TestServer::with(run, config);
    let client = server.client();
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    client.send(tid, &data(1, &pattern(512, 3)));
    // The ACK and three retries.
    for _ in 0..4 {
        assert_eq!(client.receive_ack(), (tid, 1));
    }
    let summary = server.finish();
    assert_eq!(summary.count("transfers_timed_out"), 1, "{summary:?}");
    assert!(root.names().is_empty());
}

/// On a file system of 64 KiB; where none can be mounted, the store's own tests write to /dev/full.
pub fn a_full_disk_is_error_3_and_leaves_nothing(run: Run) {
    let Some(tiny) = TinyDisk::mount() else { return };
    let server = TestServer::start(run, &tiny.folder);
    let denied = server.client().write("f", &pattern(200_000, 4), &[]).unwrap_err();
    assert_eq!(denied.code, 3, "{denied:?}");
    let summary = server.finish();
    assert_eq!(summary.count("transfers_failed"), 1, "{summary:?}");
    assert!(tiny.folder.names().is_empty());
}

/// RFC 2349: refused before the first block.
pub fn a_size_that_cannot_fit_is_error_3(run: Run) {
    let root = Folder::new();
    let mut config = config(&root);
    for store in [StoreKind::Disk, StoreKind::Memory] {
        config.store = store;
        let server = TestServer::with(run, config.clone());
        let client = server.client();
        client.ask(&request(WRQ, "f", "octet", &[("tsize", "18446744073709551615")]));
        assert_eq!(client.receive_error(), 3, "{store:?}");
    }
}

/// Readable at once, kept like any file, and never on the disk.
pub fn the_memory_store_keeps_uploads_off_the_disk(run: Run) {
    let root = Folder::new();
    root.put("on-disk", b"x");
    let mut config = config(&root);
    config.store = StoreKind::Memory;
    let server = TestServer::with(run, config);
    server.client().write("f", &pattern(100_000, 5), &[("tsize", "100000")]).unwrap();
    assert_eq!(server.client().read("f", &[]), Ok(pattern(100_000, 5)));
    assert_eq!(server.client().write("f", b"", &[]).unwrap_err().code, 6);
    assert_eq!(server.client().write("on-disk", b"", &[]).unwrap_err().code, 6);
    let client = server.client();
    client.ask(&request(WRQ, "aborted", "octet", &[]));
    let (tid, _) = client.receive_ack();
    client.error(tid);
    client.ask(&request(RRQ, "aborted", "octet", &[]));
    assert_eq!(client.receive_error(), 1);
    assert_eq!(root.names(), ["on-disk"]);
}

/// A tmpfs of 64 KiB, where one may be mounted.
struct TinyDisk {
    folder: Folder,
}

impl TinyDisk {
    fn mount() -> Option<TinyDisk> {
        let folder = Folder::new();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(TinyDisk { folder }),
            _ => {
                eprintln!("skipped: a tmpfs can be mounted by root only");
                None
            }
        }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.folder.path()).status();
    }
}

/// RFC 7440 windows that leave in one system call and are cut by the kernel, if at all (UDP_SEGMENT and UDP_GRO,
/// udp(7)).
pub fn windows_that_arrive_as_one_message_are_stored_whole(run: Run) {
    const WINDOW: usize = 16;
    let (root, file) = (Folder::new(), pattern(41 * 512 + 77, 1));
    let server = TestServer::start(run, &root);
    let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap();
    let (mut window, mut answers) = (SendBatch::new(4, WINDOW * 516), ReceiveBatch::new(1, 516));
    socket.send_to(&request(WRQ, "f", "octet", &[("windowsize", "16")]), server.address).unwrap();
    let (mut blocks, mut number) = (file.chunks(512), 0);
    loop {
        assert_eq!(answers.receive_blocking(&socket, 10_000_000_000).unwrap(), 1);
        let answer = answers.iter().next().unwrap();
        match Packet::parse(answer.payload) {
            Ok(Packet::Oack(_)) => {}
            Ok(Packet::Ack { block }) => assert_eq!(block, number),
            other => panic!("{other:?}"),
        }
        for block in blocks.by_ref().take(WINDOW) {
            number += 1;
            let datagram = data(number, block);
            assert!(window.push(answer.peer, datagram.len(), |room| {
                room.copy_from_slice(&datagram);
                room.len()
            }));
        }
        if window.is_empty() {
            break;
        }
        window.flush(&socket).unwrap();
    }
    assert_eq!(root.contents("f"), file);
    // The request and every block, however few messages they were.
    assert_eq!(server.finish().count("datagrams_in"), 1 + 42);
}
