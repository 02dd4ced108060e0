//! The ports that a server answers from, its TIDs: what is not chosen anew can be repeated by accident and guessed on
//! purpose (RFC 1350 section 4).

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use crate::client::{Client, RRQ, pattern, request};
use crate::folder::Folder;
use crate::server::{Run, TestServer, config};

/// Long enough for an answer on loopback, short enough to wait for the absence of one.
const A_MOMENT: Duration = Duration::from_millis(50);

/// Whether it asks from one port again and again, as boot loaders do, or from a new one each time, as programs do.
pub fn the_next_transfer_of_a_client_has_another_port(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(700, 1));
    let server = TestServer::start(run, &root);
    let always = server.client();
    for is_one_port in [true, false] {
        let mut last = None;
        let mut same = 0;
        for round in 0..50 {
            let another = server.client();
            let tid = read(if is_one_port { &always } else { &another }, round);
            same += u32::from(last.replace(tid) == Some(tid));
        }
        // The kernel draws a port for each socket, and once in some 28,000 times it is that of the one before.
        assert!(same <= 1, "{same} of 49 had the port of the one before, from one port: {is_one_port}");
    }
}

/// It would count as the answer to DATA 1 of the next file, which may have been lost.
pub fn a_late_ack_of_the_last_transfer_moves_nothing(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(700, 1));
    let server = TestServer::start(run, &root);
    let client = server.client();
    for round in 0..6 {
        let late = read(&client, round);
        client.ask(&request(RRQ, "f", "octet", &[]));
        let (tid, block, _) = client.receive_data();
        assert_eq!(block, 1);
        if tid != late {
            client.ack(late, 1);
            let answer = client.try_receive(A_MOMENT);
            // Another owner of that port may say so.
            assert!(answer.is_none_or(|answer| answer.error_code() == Some(5)));
        }
        client.ack(tid, 1);
        assert_eq!(client.receive_data().1, 2);
        client.ack(tid, 2);
    }
}

/// One request and two ACKs to each port that there is, in the name of a host that never asked.
pub fn acks_to_every_port_draw_little_to_a_forged_address(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(4 << 20, 1));
    let mut config = config(&root);
    // An address that no other test's sockets are bound to.
    config.address = ([127, 77, 0, 1], 0).into();
    let server = TestServer::with(run, config);
    let victim = server.client();
    victim.ask(&request(RRQ, "f", "octet", &[("blksize", "1468"), ("windowsize", "65535")]));
    let mut drawn = victim.receive().bytes.len();
    for block in [0, 1] {
        for port in ephemeral_ports() {
            victim.ack(SocketAddr::new(server.address.ip(), port), block);
        }
        while let Some(answer) = victim.try_receive(A_MOMENT) {
            drawn += answer.bytes.len();
        }
    }
    assert!(drawn > 1468, "the port was not among them");
    assert!(drawn < 1 << 20, "{drawn} bytes");
}

/// Reads `f` and tells which port it came from. The request differs from the one in the round before: an option that no
/// server knows is left out of the answer (RFC 2347).
fn read(client: &Client, round: u32) -> SocketAddr {
    client.ask(&request(RRQ, "f", "octet", &[("round", &round.to_string())]));
    let (tid, _, _) = client.receive_data();
    client.ack(tid, 1);
    assert_eq!(client.receive_data().1, 2);
    client.ack(tid, 2);
    tid
}

/// ip(7): what the kernel picks from.
fn ephemeral_ports() -> std::ops::RangeInclusive<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let mut ends = range.split_whitespace().map(|end| end.parse().unwrap());
    ends.next().unwrap()..=ends.next().unwrap()
}
