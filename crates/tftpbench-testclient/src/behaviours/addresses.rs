//! Where answers come from. A server that is bound to all addresses of its machine: which of them answers, and which it
//! does not hear. And its ports, its TIDs: what is not chosen anew can be repeated by accident and guessed on purpose
//! (RFC 1350 section 4).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use crate::client::{A_MOMENT, Client, RRQ, WRQ, data, pattern, request};
use crate::server::{Folder, Run, TestServer, config};

/// OACK, DATA, ACK and ERROR, of a transfer and of the server. A client that was answered from elsewhere would take it for
/// a stranger's, and so does every firewall.
pub fn every_answer_comes_from_the_address_that_was_asked(run: Run) {
    let root = Folder::new();
    root.put("f", &pattern(1500, 1));
    for (any, asked) in wildcards() {
        let mut config = config(&root);
        (config.address, config.overwrite) = (SocketAddr::new(any, 0), true);
        let server = TestServer::with(run, config);
        let port = server.address.port();
        for ip in asked {
            let from = |answer: SocketAddr, what| assert_eq!(answer.ip(), ip, "{what} of {any}");
            let client = || Client::new((ip, port).into());
            let reader = client();
            reader.ask(&request(RRQ, "f", "octet", &[("tsize", "0")]));
            let (tid, _) = reader.receive_oack();
            from(tid, "OACK");
            reader.ack(tid, 0);
            from(reader.receive_data().0, "DATA");
            let stranger = client();
            stranger.ack(tid, 1);
            let answer = stranger.receive();
            assert_eq!(answer.error_code(), Some(5));
            from(answer.tid, "ERROR to a stranger");
            reader.error(tid);
            let writer = client();
            writer.ask(&request(WRQ, "new", "octet", &[]));
            let (tid, _) = writer.receive_ack();
            from(tid, "ACK");
            writer.send(tid, &data(1, b"short"));
            from(writer.receive_ack().0, "last ACK");
            let refused = client();
            refused.ask(&request(RRQ, "absent", "octet", &[]));
            let answer = refused.receive();
            assert_eq!(answer.error_code(), Some(1));
            from(answer.tid, "ERROR");
            assert_eq!(client().read("f", &[("windowsize", "4")]), Ok(pattern(1500, 1)), "{ip} of {any}");
        }
    }
}

/// RFC 1123 section 4.2.3.5: in silence, whether it is a good request or not.
pub fn a_request_to_a_broadcast_address_is_ignored(run: Run) {
    let root = Folder::new();
    root.put("f", b"x");
    for (any, _) in wildcards() {
        let mut config = config(&root);
        config.address = SocketAddr::new(any, 0);
        let server = TestServer::with(run, config);
        let client = Client::new((Ipv4Addr::LOCALHOST, server.address.port()).into());
        for datagram in [request(RRQ, "f", "octet", &[]), request(WRQ, "g", "octet", &[]), b"\0\x09".to_vec()]
        {
            client.broadcast(server.address.port(), &datagram);
        }
        assert_eq!(client.try_receive(A_MOMENT), None, "{any}");
        assert_eq!(client.read("f", &[]), Ok(b"x".to_vec()), "{any}");
        let summary = server.finish();
        // Where several sockets have the port, each gets what is broadcast.
        assert!(summary.count("broadcast_requests") >= 3, "{any}: {summary:?}");
        assert_eq!(summary.count("transfers_started"), 1, "{any}: {summary:?}");
        assert_eq!(summary.count("malformed"), 0, "{any}: {summary:?}");
    }
}

/// Held by who sends to every port of this machine, and by who counts what strangers send: tests run side by side.
static EVERY_PORT: Mutex<()> = Mutex::new(());

/// The same at the port of a transfer, where a stranger is answered else.
pub fn a_stray_datagram_to_a_broadcast_address_is_ignored(run: Run) {
    let _alone = EVERY_PORT.lock().unwrap_or_else(PoisonError::into_inner);
    let root = Folder::new();
    root.put("f", &pattern(1500, 2));
    for (any, _) in wildcards() {
        let mut config = config(&root);
        config.address = SocketAddr::new(any, 0);
        let server = TestServer::with(run, config);
        let [client, stranger] =
            [(); 2].map(|()| Client::new((Ipv4Addr::LOCALHOST, server.address.port()).into()));
        client.ask(&request(RRQ, "f", "octet", &[]));
        let (tid, _, _) = client.receive_data();
        for datagram in [data(1, b"?"), b"\0\x09".to_vec()] {
            stranger.broadcast(tid.port(), &datagram);
        }
        assert_eq!(stranger.try_receive(A_MOMENT), None, "{any}");
        client.ack(tid, 1);
        assert_eq!(client.receive_data().1, 2, "{any}");
        client.error(tid);
        let summary = server.finish();
        assert_eq!((summary.count("strays"), summary.count("malformed")), (0, 0), "{any}: {summary:?}");
    }
}

/// The wildcard addresses that this machine has, and what to ask at each.
fn wildcards() -> Vec<(IpAddr, Vec<IpAddr>)> {
    let of_v4 = [[127, 0, 0, 5], [127, 0, 0, 1], [127, 8, 9, 10]].map(IpAddr::from);
    let mut all = vec![(Ipv4Addr::UNSPECIFIED.into(), of_v4.to_vec())];
    match UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => all.push((Ipv6Addr::UNSPECIFIED.into(), vec![of_v4[0], Ipv6Addr::LOCALHOST.into()])),
        Err(error) => eprintln!("skipped: no IPv6 here ({error})"),
    }
    all
}

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
    let _alone = EVERY_PORT.lock().unwrap_or_else(PoisonError::into_inner);
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
