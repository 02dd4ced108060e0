//! Lost, repeated and stray datagrams.

use std::time::Duration;

use crate::client::{RRQ, WRQ, data, pattern, request};
use crate::folder::Folder;
use crate::server::{Run, TestServer, config, timing};

/// Long enough for an answer on loopback, short enough to wait for the absence of one.
const A_MOMENT: Duration = Duration::from_millis(50);

/// RFC 1350 section 2: whoever sent last sends again.
pub fn a_lost_datagram_is_sent_again(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    let mut config = config(&root);
    config.timing = timing(50_000_000);
    let server = TestServer::with(run, config);
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[]));
    let first = client.receive();
    assert_eq!(client.receive(), first);
    client.ack(first.tid, 1);
    let client = server.client();
    client.ask(&request(WRQ, "new", "octet", &[]));
    let (tid, _) = client.receive_ack();
    assert_eq!(client.receive_ack(), (tid, 0));
    client.error(tid);
    assert!(server.finish().count("retransmissions") >= 2);
}

/// RFC 1123 section 4.2.3.1, the Sorcerer's Apprentice.
pub fn a_repeated_ack_triggers_nothing(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(2000, 1));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, _) = client.receive_data();
    for _ in 0..5 {
        client.ack(tid, 1);
    }
    assert_eq!(client.receive_data().1, 2);
    assert_eq!(client.try_receive(A_MOMENT), None);
    client.error(tid);
}

/// The last ACK may be lost, and the server is still there to repeat it.
pub fn a_repeated_last_block_is_acknowledged_again(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    for _ in 0..3 {
        client.send(tid, &data(1, b"all of it"));
        assert_eq!(client.receive_ack(), (tid, 1));
    }
    assert_eq!(root.contents("f"), b"all of it");
    assert_eq!(server.finish().count("transfers_completed"), 1);
}

/// The ACK may be lost in the middle, too; the copy is acknowledged, but the file does not have it twice.
pub fn a_repeated_block_is_stored_once(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    let file = pattern(768, 7);
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    for _ in 0..3 {
        client.send(tid, &data(1, &file[..512]));
        assert_eq!(client.receive_ack(), (tid, 1));
    }
    client.send(tid, &data(2, &file[512..]));
    assert_eq!(client.receive_ack(), (tid, 2));
    assert_eq!(root.contents("f"), file);
}

/// RFC 7440 section 4, as a receiver: one ACK of the last block in order, and the window counts from there.
pub fn a_gap_in_a_window_is_reported_once(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let client = server.client();
    let file = pattern(9 * 8, 8);
    let send = |tid, blocks: &[u16]| {
        for &block in blocks {
            let end = usize::from(block) * 8;
            client.send(tid, &data(block, &file[end - 8..end]));
        }
    };
    client.ask(&request(WRQ, "f", "octet", &[("blksize", "8"), ("windowsize", "4")]));
    let (tid, _) = client.receive_oack();
    send(tid, &[1, 2, 4]);
    assert_eq!(client.receive_ack(), (tid, 2));
    // Still under way when that ACK went out.
    send(tid, &[5, 6]);
    assert_eq!(client.try_receive(A_MOMENT), None);
    send(tid, &[3, 4, 5, 6]);
    assert_eq!(client.receive_ack(), (tid, 6));
    // The first of a window this time.
    send(tid, &[8]);
    assert_eq!(client.receive_ack(), (tid, 6));
    send(tid, &[7, 8, 9]);
    client.send(tid, &data(10, b""));
    assert_eq!(client.receive_ack(), (tid, 10));
    assert_eq!(root.contents("f"), file);
}

/// RFC 7440 section 4, as a sender: it goes on behind the ACK, and what is older than the last one moves nothing.
pub fn an_ack_inside_a_window_is_where_the_next_one_begins(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(12 * 8, 9));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[("blksize", "8"), ("windowsize", "4")]));
    let (tid, _) = client.receive_oack();
    for (acked, window) in [(0, 1..=4), (4, 5..=8), (5, 6..=9), (9, 10..=13)] {
        client.ack(tid, acked);
        let blocks: Vec<_> = window.clone().map(|_| client.receive_data().1).collect();
        assert_eq!(blocks, window.collect::<Vec<_>>(), "after ACK {acked}");
    }
    for late in [0, 4, 5, 8] {
        client.ack(tid, late);
    }
    assert_eq!(client.try_receive(A_MOMENT), None);
    client.ack(tid, 13);
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
    assert_eq!(summary.count("retransmissions"), 3, "{summary:?}");
}

/// A copy of a request neither starts a second transfer nor makes the first answer twice.
pub fn a_repeated_request_is_harmless(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 2));
    let server = TestServer::start(run, &root);
    for opcode in [RRQ, WRQ] {
        let client = server.client();
        let asked = request(opcode, if opcode == RRQ { "f" } else { "new" }, "octet", &[("tsize", "9")]);
        client.ask(&asked);
        client.ask(&asked);
        let (tid, _) = client.receive_oack();
        client.ask(&asked);
        assert_eq!(client.try_receive(A_MOMENT), None);
        client.error(tid);
    }
    let summary = server.finish();
    assert_eq!(summary.count("transfers_started"), 2, "{summary:?}");
    assert_eq!(summary.count("duplicate_requests"), 4, "{summary:?}");
}

/// Boot loaders ask for the size, give up without a word, and ask for something else from the same port.
pub fn another_request_of_the_same_port_ends_the_old_transfer(run: Run) {
    let root = Folder::new();
    root.put("a", &pattern(9000, 3));
    root.put("b", &pattern(9000, 4));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "a", "octet", &[]));
    client.receive_data();
    assert_eq!(client.read("b", &[]), Ok(pattern(9000, 4)));
    // The same where the new request is refused.
    client.ask(&request(RRQ, "a", "octet", &[]));
    client.receive_data();
    client.ask(&request(RRQ, "absent", "octet", &[]));
    assert_eq!(client.receive_error(), 1);
    let summary = server.finish();
    assert_eq!(summary.count("transfers_interrupted"), 2, "{summary:?}");
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
}

/// RFC 1350 section 4: the stranger is told, the transfer is not disturbed.
pub fn a_stranger_gets_error_5_and_the_transfer_goes_on(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1500, 5));
    let server = TestServer::start(run, &root);
    let (client, stranger) = (server.client(), server.client());
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, mut file) = client.receive_data();
    for (block, datagram) in [data(1, b"?"), vec![0, 4, 0, 1], vec![0, 9]].into_iter().enumerate() {
        stranger.send(tid, &datagram);
        let answer = stranger.receive();
        assert_eq!((answer.tid, answer.error_code()), (tid, Some(5)), "to {datagram:?}");
        // An ERROR is never answered.
        stranger.error(tid);
        assert_eq!(stranger.try_receive(A_MOMENT), None);
        client.ack(tid, block as u16 + 1);
        if block < 2 {
            file.extend(client.receive_data().2);
        }
    }
    assert_eq!(file, pattern(1500, 5));
    let summary = server.finish();
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
    assert_eq!(summary.count("strays"), 6, "{summary:?}");
}

/// The same while a file is written: nothing of the stranger's gets into it.
pub fn a_stranger_writes_nothing_into_an_upload(run: Run) {
    let root = Folder::new();
    let server = TestServer::start(run, &root);
    let (client, stranger) = (server.client(), server.client());
    client.ask(&request(WRQ, "f", "octet", &[]));
    let (tid, _) = client.receive_ack();
    stranger.send(tid, &data(1, b"strange"));
    assert_eq!(stranger.receive_error(), 5);
    client.send(tid, &data(1, b"mine"));
    assert_eq!(client.receive_ack(), (tid, 1));
    stranger.send(tid, &data(1, b"strange"));
    assert_eq!(stranger.receive_error(), 5);
    assert_eq!(root.contents("f"), b"mine");
}

/// RFC 1350 section 7.
pub fn an_error_of_the_client_ends_the_transfer_unanswered(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1500, 6));
    let server = TestServer::start(run, &root);
    let client = server.client();
    client.ask(&request(RRQ, "f", "octet", &[]));
    let (tid, _, _) = client.receive_data();
    client.error(tid);
    assert_eq!(client.try_receive(A_MOMENT), None);
    assert_eq!(server.finish().count("transfers_failed"), 1);
}

/// After its retries the server forgets the client, and its place is free.
pub fn a_silent_client_is_given_up(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    let mut config = config(&root);
    config.timing = timing(20_000_000);
    config.max_transfers = 1;
    let server = TestServer::with(run, config);
    let silent = server.client();
    silent.ask(&request(RRQ, "f", "octet", &[]));
    // The first and three retries.
    for _ in 0..4 {
        silent.receive_data();
    }
    // Refused until the only place is free again; each answer takes a round trip, so this is bounded in time.
    let freed = (0..100_000).any(|_| server.client().read("f", &[]).is_ok());
    assert!(freed, "the place stays taken");
    assert_eq!(server.finish().count("transfers_timed_out"), 1);
}
