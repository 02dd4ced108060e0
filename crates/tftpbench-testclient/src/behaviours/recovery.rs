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
