//! What well-known clients do that the RFCs don't draw: their requests, their names for files, their ways to give up.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use tftpbench_proto::Packet;

use crate::client::{RRQ, data, pattern, request};
use crate::server::{Folder, Run, TestServer, config, timing};

/// Long enough for an answer on loopback, short enough to wait for the absence of one.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Size, the blksize that holds anyway, a timeout, and a slash in front of the name; with `--tftp-no-options`, nothing.
pub fn curl_is_granted_all_that_it_asks_for(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(700, 1));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "/f", "octet", &[("tsize", "0"), ("blksize", "512"), ("timeout", "6")]));
    let (tid, mut granted) = client.receive_oack();
    granted.sort();
    let all = [("blksize", "512"), ("timeout", "6"), ("tsize", "700")];
    assert_eq!(granted, all.map(|(name, value)| (name.into(), value.into())));
    client.ack(tid, 0);
    for (block, part) in [(1, 0..512), (2, 512..700)] {
        assert_eq!(client.receive_data(), (tid, block, pattern(700, 1)[part].to_vec()));
        client.ack(tid, block);
    }
    assert_eq!(server.client().read("/f", &[]), Ok(pattern(700, 1)));
}

/// UEFI firmware takes the size from the OACK, refuses with ERROR 8, and asks again from another port.
pub fn a_refused_oack_ends_the_transfer_unanswered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(9000, 2));
    let server = TestServer::start(run, &root);
    let options = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &options));
    let (tid, granted) = client.receive_oack();
    assert!(granted.contains(&("tsize".into(), "9000".into())), "{granted:?}");
    client.send(tid, b"\0\x05\0\x08refused\0");
    assert_eq!(client.try_receive(A_MOMENT), None);
    assert_eq!(server.client().read("f", &options[1..]), Ok(pattern(9000, 2)));
    let summary = server.finish();
    assert_eq!(summary.count("transfers_failed"), 1, "{summary:?}");
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
}

/// From the same port, too, and without a moment's wait: whether it asks for something else, or for the same.
pub fn a_request_right_behind_a_refused_oack_is_answered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(9000, 2));
    let mut config = config(&root);
    // Nothing is sent again while the test lasts, so what is answered was answered at once.
    config.timing = timing(60_000_000_000);
    config.grace_ns = 0;
    let server = TestServer::with(run, config);
    let (size, file) = ([("tsize", "0")], [("tsize", "0"), ("blksize", "1468")]);
    for next in [&file[..], &size[..]] {
        let client = server.client();
        for probe in 0..40 {
            client.ask(&request(RRQ, "f", "octet", &size));
            let (tid, _) = client.receive_oack();
            client.send(tid, b"\0\x05\0\x08refused\0");
            client.ask(&request(RRQ, "f", "octet", next));
            let answer = client.try_receive(Duration::from_secs(2));
            let answer = answer.unwrap_or_else(|| panic!("probe {probe}: {next:?} is not answered"));
            assert!(matches!(answer.packet(), Packet::Oack(_)), "probe {probe}: {:?}", answer.packet());
            // Not by the transfer that was ended.
            client.ack(answer.tid, 0);
            assert_eq!(client.receive_data().1, 1, "probe {probe} of {next:?}");
            client.send(answer.tid, b"\0\x05\0\x08refused\0");
        }
    }
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
