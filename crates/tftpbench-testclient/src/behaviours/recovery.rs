//! Lost, repeated and stray datagrams. Longer than 500 lines: a list of behaviours, each a function.

use std::time::Duration;

use tftpbench_proto::{Packet, Timing};
use tftpbench_serve::ServeConfig;

use crate::client::{A_MOMENT, Answer, Client, RRQ, WRQ, data, pattern, request};
use crate::server::{Folder, Run, TestServer, config, timing};

/// Longer than a thread of a transfer sleeps before it looks whether its client has asked again.
const A_SLICE: Duration = Duration::from_millis(500);

/// RFC 1350 section 2: the side that sent last sends again.
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

/// RFC 1350 section 2: the opening may be lost, and the client repeats its request. Whatever timer it asked for.
pub fn a_repeated_request_is_answered_until_something_is_acknowledged(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 2));
    let server = TestServer::with(run, slow_timers(&root));
    for (opcode, name) in [(RRQ, "f"), (WRQ, "new")] {
        for options in [&[][..], &[("timeout", "60")], &[("tsize", "9"), ("windowsize", "2")]] {
            let client = server.client();
            let asked = request(opcode, name, "octet", options);
            client.ask(&asked);
            let first = client.receive();
            for _ in 0..3 {
                client.ask(&asked);
                assert_eq!(client.receive(), first);
            }
            client.error(first.tid);
        }
    }
    let summary = server.finish();
    assert_eq!(summary.count("transfers_started"), 6, "{summary:?}");
    assert_eq!(summary.count("duplicate_requests"), 18, "{summary:?}");
}

/// A forged address draws no more by sending the same again and again.
pub fn a_request_repeated_for_ever_draws_a_few_openings(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1000, 2));
    let server = TestServer::with(run, slow_timers(&root));
    let client = server.client();
    let asked = request(RRQ, "f", "octet", &[]);
    for _ in 0..1 + 5 {
        client.ask(&asked);
        assert_eq!(client.receive_data().1, 1);
    }
    (0..100).for_each(|_| client.ask(&asked));
    assert_eq!(client.try_receive(A_SLICE), None);
    assert_eq!(server.finish().count("transfers_started"), 1);
}

/// A boot loader that was reset asks the same again, from the same port. What it left is not what it waits for.
pub fn a_client_that_begins_again_is_served_anew(run: Run) {
    let root = Folder::new();
    let file = pattern(9 * 512 + 7, 12);
    root.put("f", &file);
    let server = TestServer::with(run, slow_timers(&root));
    for options in [&[][..], &[("timeout", "5")], &[("blksize", "512"), ("windowsize", "2")]] {
        let client = server.client();
        let asked = request(RRQ, "f", "octet", options);
        client.ask(&asked);
        let mut answer = client.receive();
        if !options.is_empty() {
            client.ack(answer.tid, 0);
            answer = client.receive();
        }
        client.ack(answer.tid, 1);
        assert_eq!(client.receive_data().1, 2);
        let again = anew(&client, &asked);
        // What it asked once more while that was on its way has changed nothing.
        assert_eq!(read_on(&client, again), file);
    }
}

/// The same in the middle of a write; of the first half nothing is left.
pub fn a_writer_that_begins_again_is_served_anew(run: Run) {
    let root = Folder::new();
    let server = TestServer::with(run, slow_timers(&root));
    let client = server.client();
    let asked = request(WRQ, "f", "octet", &[]);
    client.ask(&asked);
    let (tid, _) = client.receive_ack();
    for block in [1, 2] {
        client.send(tid, &data(block, &[b'x'; 512]));
        assert_eq!(client.receive_ack(), (tid, block));
    }
    let again = anew(&client, &asked).tid;
    client.send(again, &data(1, b"all of it"));
    while client.receive_ack() != (again, 1) {}
    assert_eq!(root.contents("f"), b"all of it");
    assert_eq!(root.names(), ["f"]);
}

/// The network doubles a request, or delivers it late: the transfer that it began goes on as if nothing had come.
pub fn a_repeated_request_changes_nothing_while_the_transfer_moves(run: Run) {
    let root = Folder::new();
    let file = pattern(40 * 512 + 7, 13);
    root.put("f", &file);
    let server = TestServer::with(run, ServeConfig { grace_ns: 2_000_000_000, ..slow_timers(&root) });
    let client = server.client();
    let asked = request(RRQ, "f", "octet", &[]);
    client.ask(&asked);
    let (tid, _, mut read) = client.receive_data();
    for block in 1..=40 {
        client.ack(tid, block);
        if block < 35 {
            client.ask(&asked);
        }
        let (from, number, payload) = client.receive_data();
        assert_eq!((from, number), (tid, block + 1));
        read.extend(payload);
    }
    client.ack(tid, 41);
    assert!(read == file);
    let summary = server.finish();
    // A copy that a busy machine lets the server read only behind the end begins another transfer, as any request does.
    assert_eq!(summary.count("transfers_completed"), 1, "{summary:?}");
}

/// The client then takes longer for a block than the server waits: it had been silent for no time when the copy came.
pub fn a_copy_in_the_middle_changes_nothing_although_the_client_pauses_after_it(run: Run) {
    let root = Folder::new();
    let file = pattern(8 * 512 + 7, 13);
    root.put("f", &file);
    let server = TestServer::with(run, ServeConfig::new(root.path()));
    let client = server.client();
    let asked = request(RRQ, "f", "octet", &[]);
    client.ask(&asked);
    let (tid, _, _) = client.receive_data();
    for block in 1..=4 {
        client.ack(tid, block);
        assert_eq!(client.receive_data().1, block + 1);
    }
    client.ask(&asked);
    // The server's timer runs out.
    let (from, number, _) = client.receive_data();
    assert_eq!((from, number), (tid, 5));
    let mut block = 5;
    while block < 9 {
        client.ack(tid, block);
        let (from, number, _) = client.receive_data();
        assert_eq!(from, tid, "the transfer began anew");
        block = block.max(number);
    }
    client.ack(tid, 9);
}

/// An upload is whole, and the copy of its request came before its last block: it is no request for another upload.
pub fn a_copy_before_the_last_block_of_an_upload_asks_for_nothing(run: Run) {
    let root = Folder::new();
    let server = TestServer::with(run, slow_timers(&root));
    let client = server.client();
    let asked = request(WRQ, "f", "octet", &[]);
    client.ask(&asked);
    let (tid, _) = client.receive_ack();
    client.send(tid, &data(1, &[b'x'; 512]));
    assert_eq!(client.receive_ack(), (tid, 1));
    client.ask(&asked);
    // In threads the listener has to see it first, as it does where the network is no faster than that.
    assert!(client.try_receive(Duration::from_millis(50)).is_none());
    client.send(tid, &data(2, b"y"));
    assert_eq!(client.receive_ack(), (tid, 2));
    let more = client.try_receive(Duration::from_millis(300));
    assert!(more.is_none(), "{:?}", more.map(|answer| answer.bytes));
    assert_eq!(root.contents("f").len(), 513);
}

/// The probe of a UEFI client, which it has ended with ERROR 8, comes once more from the network.
pub fn a_late_copy_of_a_request_that_has_ended_changes_nothing(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(3000, 14));
    let server = TestServer::with(run, slow_timers(&root));
    let client = server.client();
    let (probe, asked) =
        (request(RRQ, "f", "octet", &[("tsize", "0")]), request(RRQ, "f", "octet", &[("blksize", "1024")]));
    client.ask(&probe);
    client.send(client.receive_oack().0, &[0, 5, 0, 8, 0]);
    client.ask(&asked);
    let (tid, _) = client.receive_oack();
    client.ack(tid, 0);
    assert_eq!(client.receive_data().1, 1);
    client.ask(&probe);
    for block in 1..=2 {
        client.ack(tid, block);
        let (from, number, _) = client.receive_data();
        assert_eq!((from, number), (tid, block + 1));
    }
}

/// A client asked twice, and the network delivers a copy of what it asked first: what it wants now goes on.
pub fn a_late_copy_of_an_older_request_changes_nothing(run: Run) {
    let root = Folder::new();
    root.put("old", &pattern(2000, 14));
    root.put("new", &pattern(2000, 15));
    let server = TestServer::with(run, slow_timers(&root));
    let client = server.client();
    let (old, new) = (request(RRQ, "old", "octet", &[]), request(RRQ, "new", "octet", &[]));
    client.ask(&old);
    client.receive_data();
    client.ask(&new);
    let (tid, _, mut read) = client.receive_data();
    for block in 1..=3 {
        client.ask(&old);
        client.ack(tid, block);
        let (from, number, payload) = client.receive_data();
        assert_eq!((from, number), (tid, block + 1));
        read.extend(payload);
    }
    assert!(read == pattern(2000, 15));
    // But one that has lost the newer transfer may go back to the older file.
    let answer = anew(&client, &old);
    assert_eq!(answer.bytes, data(1, &pattern(2000, 14)[..512]));
}

/// Repeats a request until it is answered with an opening, not with what comes next in the old transfer.
fn anew(client: &Client, asked: &[u8]) -> Answer {
    let is_opening = |answer: &Answer| {
        matches!(answer.packet(), Packet::Data { block: 1, .. } | Packet::Ack { block: 0 } | Packet::Oack(_))
    };
    let begun = (0..100).find_map(|_| {
        client.ask(asked);
        client.try_receive(Duration::from_millis(100)).filter(is_opening)
    });
    begun.expect("the client is locked out")
}

/// Takes the rest of a file whose first answer is here, and whose blocks are of 512 bytes, one ACK each.
fn read_on(client: &Client, first: Answer) -> Vec<u8> {
    let (mut file, mut next, mut answer) = (Vec::new(), 1, first);
    loop {
        match answer.packet() {
            Packet::Oack(_) => client.ack(answer.tid, 0),
            Packet::Data { block, payload } if block == next => {
                file.extend_from_slice(payload);
                client.ack(answer.tid, block);
                next += 1;
                if payload.len() < 512 {
                    return file;
                }
            }
            other => assert!(matches!(other, Packet::Data { block, .. } if block < next), "{other:?}"),
        }
        answer = client.receive();
    }
}

/// Nothing is sent again by itself while a test lasts.
fn slow_timers(root: &Folder) -> ServeConfig {
    let hour_ns = 3_600_000_000_000;
    let timing = Timing { timeout_max_ns: hour_ns, ..timing(hour_ns) };
    // A stop is not to wait for the transfers that are left.
    ServeConfig { timing, grace_ns: 0, ..config(root) }
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

/// It has the old transfer's, at a full server too.
pub fn another_request_of_the_same_port_needs_no_place_of_its_own(run: Run) {
    let root = Folder::new();
    root.put("a", &pattern(9000, 3));
    root.put("b", &pattern(9000, 4));
    let server = TestServer::with(run, ServeConfig { max_transfers: 1, ..config(&root) });
    let client = server.client();
    client.ask(&request(RRQ, "a", "octet", &[]));
    client.receive_data();
    assert_eq!(client.read("b", &[]), Ok(pattern(9000, 4)));
    let summary = server.finish();
    assert_eq!(summary.count("refused"), 0, "{summary:?}");
}

/// RFC 1350 section 4: the stranger gets ERROR 5, the transfer is not disturbed.
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

/// After its retries the server forgets the client, and its place is free. Whatever timer was asked for in its name:
/// until it has answered, the server's own counts.
pub fn a_silent_client_is_given_up(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    let mut config = config(&root);
    config.timing = timing(20_000_000);
    config.max_transfers = 1;
    for (opcode, name) in [(RRQ, "f"), (WRQ, "new")] {
        for options in [&[][..], &[("timeout", "255")]] {
            let server = TestServer::with(run, config.clone());
            let silent = server.client();
            silent.ask(&request(opcode, name, "octet", options));
            let first = silent.receive();
            for _ in 0..3 {
                assert_eq!(silent.receive(), first);
            }
            wait_for_room(&server, "f");
            assert_eq!(server.finish().count("transfers_timed_out"), 1);
        }
    }
}

/// RRQ and ACK 0 are 102 bytes, and the address in them may be forged.
pub fn a_silent_client_draws_one_window(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1_000_000, 16));
    root.put("small", b"x");
    let mut config = config(&root);
    config.timing = timing(20_000_000);
    config.max_transfers = 1;
    let server = TestServer::with(run, config);
    let silent = server.client();
    silent.ask(&request(RRQ, "f", "octet", &[("blksize", "1468"), ("windowsize", "65535")]));
    let (tid, _) = silent.receive_oack();
    silent.ack(tid, 0);
    let drawn: Vec<u16> = (0..64 + 3).map(|_| silent.receive_data().1).collect();
    let due: Vec<u16> = (1..=64).chain([64; 3]).collect();
    assert_eq!(drawn, due);
    wait_for_room(&server, "small");
    assert_eq!(silent.try_receive(A_MOMENT), None);
    let summary = server.finish();
    assert_eq!(summary.count("transfers_timed_out"), 1, "{summary:?}");
    assert_eq!(summary.count("retransmissions"), 3, "{summary:?}");
}

/// Refused until the only place is free again; each answer takes a round trip, so this is bounded in time.
fn wait_for_room(server: &TestServer, name: &str) {
    let freed = (0..100_000).any(|_| server.client().read(name, &[]).is_ok());
    assert!(freed, "the place stays taken");
}
