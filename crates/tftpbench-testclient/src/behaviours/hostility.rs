//! Datagrams that no honest client sends: counted, answered as the RFC says or not at all, never with more than is due.

use tftpbench_proto::Packet;

use crate::client::{A_MOMENT, Client, RRQ, WRQ, data, pattern, request};
use crate::server::{Folder, Run, TestServer};

/// An ERROR of ours is short.
const ERROR_BYTES_MAX: usize = 64;

/// ERROR 4 where there is an opcode to complain about, silence where there is none.
pub fn malformed_requests_are_answered_once_or_not_at_all(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    let answered: [(&[u8], &str); 8] = [
        (b"\0\x09what", "unknown_opcode"),
        (b"\0\0", "unknown_opcode"),
        (b"\0\x01name-without-end", "unterminated"),
        (b"\0\x01name\0octet", "unterminated"),
        (b"\0\x01\0octet\0", "empty_filename"),
        (b"\0\x02f\0binary\0", "unknown_mode"),
        (b"\0\x02f\0mail\0", "mail_mode"),
        (b"\0\x01f\0octet\0blksize\0", "truncated_option"),
    ];
    for (datagram, _) in answered {
        client.ask(datagram);
        assert_eq!(client.receive_error(), 4, "{}", datagram.escape_ascii());
    }
    for silent in [&b""[..], b"\0", b"\x01", b"\0\x04\0", b"\0\x05\0"] {
        client.ask(silent);
    }
    assert_eq!(client.try_receive(A_MOMENT), None);
    let summary = server.finish();
    for (_, kind) in answered {
        assert!(summary.count(kind) > 0, "{kind}: {summary:?}");
    }
    assert_eq!(summary.count("malformed"), 8 + 5, "{summary:?}");
    assert_eq!(summary.count("transfers_started"), 0, "{summary:?}");
}

/// Boot loaders that send a buffer instead of what they wrote into it: any number of NULs, behind any request.
pub fn requests_padded_with_nuls_are_served(run: Run) {
    let root = Folder::new();
    root.put("f", b"short");
    let server = TestServer::start(run, &root);
    for (opcode, name) in [(RRQ, "f"), (WRQ, "new")] {
        for options in [&[][..], &[("blksize", "1000")]] {
            let asked = request(opcode, name, "octet", options);
            for padding in [1, 2, 3, 4, 511, 512].map(|bytes: usize| bytes.min(512 - asked.len())) {
                let client = server.client();
                client.ask(&[&asked[..], &vec![0; padding]].concat());
                let answer = client.receive();
                let opening = matches!(
                    (answer.packet(), opcode, options.is_empty()),
                    (Packet::Data { block: 1, .. }, RRQ, true)
                        | (Packet::Ack { block: 0 }, WRQ, true)
                        | (Packet::Oack(_), _, false)
                );
                assert!(opening, "{padding}: {:?}", answer.packet());
                client.error(answer.tid);
            }
        }
    }
    // What is malformed stays so, whatever is behind it.
    let client = server.client();
    for datagram in
        [&b"\0\x01f\0octet\0blksize\0"[..], b"\0\x01f\0octet\0\0blksize\x00512\0", b"\0\x01\0octet\0\0\0"]
    {
        client.ask(datagram);
        assert_eq!(client.receive_error(), 4, "{}", datagram.escape_ascii());
    }
}

/// DATA, ACK and OACK to the listening port belong to no transfer; an ERROR is never answered.
pub fn packets_that_are_no_request_never_start_anything(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    for datagram in [data(1, b"x"), vec![0, 4, 0, 0], b"\0\x06blksize\x00512\0".to_vec()] {
        client.ask(&datagram);
        assert_eq!(client.receive_error(), 5, "{datagram:?}");
    }
    client.ask(b"\0\x05\0\0text\0");
    assert_eq!(client.try_receive(A_MOMENT), None);
    assert_eq!(server.finish().count("transfers_started"), 0);
}

/// RFC 2347 allows 512 bytes.
pub fn requests_of_65_kilobytes_are_malformed(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    let server = TestServer::start(run, &root);
    let client = server.client();
    let mut datagram = request(RRQ, "f", "octet", &[]);
    while datagram.len() < 65_000 {
        datagram.extend_from_slice(b"blksize\x001024\0");
    }
    client.ask(&datagram);
    let answer = client.receive();
    assert_eq!(answer.error_code(), Some(4));
    assert!(answer.bytes.len() <= ERROR_BYTES_MAX);
    assert_eq!(server.finish().count("too_long"), 1);
}

/// A forged address must not be able to end a transfer with rubbish.
pub fn garbage_on_a_transfer_does_not_end_it(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 1));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, _) = client.receive_data();
    for garbage in [&b""[..], b"\0", b"\0\x09", b"\0\x01f\0", b"\xff\xff\xff\xff", b"\0\x04\xff\xff"] {
        client.send(tid, garbage);
    }
    client.send(tid, &request(RRQ, "f", "octet", &[]));
    assert_eq!(client.try_receive(A_MOMENT), None);
    client.ack(tid, 1);
    assert_eq!(client.receive_data().1, 2);
    client.ack(tid, 2);
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
    assert_eq!(summary.count("malformed"), 5, "{summary:?}");
}

/// Neither stored nor acknowledged.
pub fn blocks_from_the_future_are_ignored(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    for block in [2, 3, 1000, 40_000, 65_535, 0] {
        client.send(tid, &data(block, &pattern(512, 2)));
    }
    assert_eq!(client.try_receive(A_MOMENT), None);
    client.send(tid, &data(1, b"present"));
    assert_eq!(client.receive_ack(), (tid, 1));
    assert_eq!(root.contents("f"), b"present");
}

/// Not cut to size and taken for a full block.
pub fn a_block_above_blksize_is_error_4(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    for (options, size) in [(&[][..], 513), (&[("blksize", "65464")][..], 65_465), (&[("blksize", "8")], 9)] {
        let client = server.client();
        client.ask(&request(WRQ, "f", "octet", options));
        let tid = client.receive().tid;
        client.send(tid, &data(1, &pattern(size, 3)));
        assert_eq!(client.receive_error(), 4, "{size}");
    }
    assert_eq!(server.finish().count("transfers_failed"), 3);
    assert!(root.names().is_empty());
}

/// Thousands of them, seeded, to both kinds of port. The server still serves afterwards.
pub fn random_datagrams_never_get_more_than_one_short_answer(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 4));
    let server = TestServer::start(run, &root);
    let (client, stranger) = (server.client(), server.client());
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, _) = client.receive_data();
    for seed in 0..3000 {
        let noise = pattern(2 + seed as usize % 40, seed);
        // Every opcode from 0 to 8, and random bytes behind it; but no WRQ, which could be a good one at random.
        let opcode = [0, 1, 3, 4, 5, 6, 7, 8][seed as usize % 8];
        let datagram = [&[0, opcode][..], &noise[2..]].concat();
        let to = if seed % 2 == 0 { server.address } else { tid };
        stranger.send(to, &datagram);
        if opcode == 5 || datagram.len() < 4 {
            continue;
        }
        expect_one_error(&stranger, &datagram);
    }
    client.ack(tid, 1);
    assert_eq!(client.receive_data().1, 2);
    client.ack(tid, 2);
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
    assert!(summary.count("datagrams_out") <= summary.count("datagrams_in") + 2, "{summary:?}");
}

fn expect_one_error(client: &Client, to: &[u8]) {
    let answer = client.receive();
    assert!(matches!(answer.packet(), Packet::Error { .. }), "to {}", to.escape_ascii());
    assert!(answer.bytes.len() <= ERROR_BYTES_MAX, "to {}", to.escape_ascii());
}
