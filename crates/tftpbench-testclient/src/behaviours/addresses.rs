//! A server that is bound to all addresses of its machine: which of them answers, and which it does not hear.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use crate::client::{Client, RRQ, WRQ, data, pattern, request};
use crate::folder::Folder;
use crate::server::{Run, TestServer, config};

/// Long enough for an answer on loopback, short enough to wait for the absence of one.
const A_MOMENT: Duration = Duration::from_millis(50);

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

/// The same at the port of a transfer, where a stranger is answered else.
pub fn a_stray_datagram_to_a_broadcast_address_is_ignored(run: Run) {
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
