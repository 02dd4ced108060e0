//! Sockets and batches over the real loopback, IPv4 and IPv6.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in tests a panic is the report, a skip says why"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use tftpbench_net::{Flushed, ReceiveBatch, SendBatch, Sent, Socket, SocketOptions, clock};

const MS_NS: u64 = 1_000_000;
/// Long enough for a loaded machine; a test that waits this long has failed.
const PATIENCE_NS: u64 = 5_000 * MS_NS;

fn bound(address: &str, options: &SocketOptions) -> Socket {
    Socket::bind(address.parse().unwrap(), options).unwrap()
}

fn plain(address: &str) -> Socket {
    bound(address, &SocketOptions::default())
}

fn v4() -> Socket {
    plain("127.0.0.1:0")
}

fn has_ipv6() -> bool {
    let has = UdpSocket::bind("[::1]:0").is_ok();
    if !has {
        println!("skipped: no IPv6 loopback here");
    }
    has
}

/// Receives until `count` datagrams have come, as (bytes, peer).
fn collect(socket: &Socket, batch: &mut ReceiveBatch, count: usize) -> Vec<(Vec<u8>, SocketAddr)> {
    let mut all = Vec::new();
    while all.len() < count {
        assert!(batch.receive_blocking(socket, PATIENCE_NS).unwrap() > 0, "{} of {count}", all.len());
        all.extend(batch.iter().map(|datagram| (datagram.payload.to_vec(), datagram.peer)));
    }
    all
}

/// Waits until the kernel has delivered what `sender` has sent before: loopback keeps the order.
fn settle(sender: &Socket) {
    let last = v4();
    sender.send_to(b"last", last.local_addr()).unwrap();
    collect(&last, &mut ReceiveBatch::new(1, 10), 1);
}

fn mixed_sizes_arrive_whole(address: &str, messages: usize) {
    let (sender, receiver) = (plain(address), plain(address));
    let datagrams: Vec<Vec<u8>> = [1, 4, 516, 3, 1432, 65_468, 2, 516, 516, 9]
        .into_iter()
        .enumerate()
        .map(|(index, len)| vec![index as u8 + 1; len])
        .collect();
    let mut outgoing = SendBatch::new(messages, 70_000);
    let mut flushed = Flushed::default();
    let mut flush = |outgoing: &mut SendBatch| flushed.sent += outgoing.flush(&sender).unwrap().sent;
    for datagram in &datagrams {
        let fill = |room: &mut [u8]| {
            room[..datagram.len()].copy_from_slice(datagram);
            datagram.len()
        };
        while !outgoing.push(receiver.local_addr(), datagram.len(), fill) {
            flush(&mut outgoing);
        }
    }
    flush(&mut outgoing);
    assert_eq!(flushed.sent, datagrams.len());
    let received = collect(&receiver, &mut ReceiveBatch::new(messages, 65_536), datagrams.len());
    let expected: Vec<_> = datagrams.into_iter().map(|datagram| (datagram, sender.local_addr())).collect();
    assert!(received == expected, "order, bytes and peers are those sent");
}

#[test]
fn datagrams_of_mixed_sizes_arrive_whole_and_in_order() {
    for messages in [1, 3, 64] {
        mixed_sizes_arrive_whole("127.0.0.1:0", messages);
        if has_ipv6() {
            mixed_sizes_arrive_whole("[::1]:0", messages);
        }
    }
}

#[test]
fn a_wildcard_ipv6_socket_talks_to_ipv4_peers() {
    if !has_ipv6() {
        return;
    }
    let (server, client) = (plain("[::]:0"), v4());
    let target = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    assert_eq!(client.send_to(b"ping", target).unwrap(), Sent::Done);
    let mut batch = ReceiveBatch::new(4, 100);
    let (ping, peer) = collect(&server, &mut batch, 1).remove(0);
    assert_eq!((ping.as_slice(), peer.port()), (&b"ping"[..], client.local_addr().port()));
    assert_eq!(server.send_to(b"pong", peer).unwrap(), Sent::Done);
    assert_eq!(collect(&client, &mut batch, 1), [(b"pong".to_vec(), target)]);
}

#[test]
fn nothing_there_is_zero_and_does_not_wait() {
    let socket = v4();
    for messages in [1, 8] {
        let mut batch = ReceiveBatch::new(messages, 100);
        assert_eq!(batch.receive(&socket).unwrap(), 0);
        assert_eq!(batch.receive_blocking(&socket, 0).unwrap(), 0);
        assert_eq!(batch.iter().count(), 0);
    }
}

#[test]
fn a_blocking_receive_gives_up_after_its_timeout() {
    let socket = v4();
    for messages in [1, 8] {
        let start_ns = clock::monotonic_ns();
        let mut batch = ReceiveBatch::new(messages, 100);
        assert_eq!(batch.receive_blocking(&socket, 20 * MS_NS).unwrap(), 0);
        assert!(clock::monotonic_ns() - start_ns >= 20 * MS_NS);
    }
}

#[test]
fn a_blocking_receive_takes_what_is_there_and_does_not_wait_for_more() {
    let (sender, receiver) = (v4(), v4());
    let mut batch = ReceiveBatch::new(8, 100);
    for payload in [b"a", b"b"] {
        sender.send_to(payload, receiver.local_addr()).unwrap();
    }
    settle(&sender);
    let start_ns = clock::monotonic_ns();
    assert_eq!(batch.receive_blocking(&receiver, PATIENCE_NS).unwrap(), 2);
    assert!(clock::monotonic_ns() - start_ns < PATIENCE_NS);
}

#[test]
fn a_datagram_longer_than_its_slot_is_marked_and_harms_no_other() {
    let (sender, receiver) = (v4(), v4());
    for messages in [1, 4] {
        for payload in [&[1u8; 100][..], &[2; 101], &[3; 3]] {
            sender.send_to(payload, receiver.local_addr()).unwrap();
        }
        let mut batch = ReceiveBatch::new(messages, 100);
        let mut seen = Vec::new();
        while seen.len() < 3 {
            assert!(batch.receive_blocking(&receiver, PATIENCE_NS).unwrap() > 0);
            seen.extend(batch.iter().map(|it| (it.payload.len(), it.payload[0], it.truncated)));
        }
        assert_eq!(seen, [(100, 1, false), (100, 2, true), (3, 3, false)]);
    }
}

#[test]
fn only_a_socket_that_asked_for_stamps_gives_them() {
    let stamping = SocketOptions { receive_stamps: true, ..SocketOptions::default() };
    let (sender, plain, stamped) = (v4(), v4(), bound("127.0.0.1:0", &stamping));
    for messages in [1, 4] {
        // One batch for both kinds, to and fro: what one leaves in it must not reach the other.
        let mut batch = ReceiveBatch::new(messages, 100);
        for round in 0..3 {
            let before_ns = clock::realtime_ns();
            sender.send_to(b"x", plain.local_addr()).unwrap();
            sender.send_to(b"x", stamped.local_addr()).unwrap();
            assert_eq!(batch.receive_blocking(&plain, PATIENCE_NS).unwrap(), 1);
            assert_eq!(batch.iter().next().unwrap().stamp_realtime_ns, None, "round {round}");
            assert_eq!(batch.receive_blocking(&stamped, PATIENCE_NS).unwrap(), 1);
            let stamp_ns = batch.iter().next().unwrap().stamp_realtime_ns.unwrap();
            assert!((before_ns..=clock::realtime_ns()).contains(&stamp_ns), "round {round}");
        }
    }
}

#[test]
fn a_peer_that_is_gone_does_not_break_the_socket() {
    let (socket, alive) = (v4(), v4());
    let gone = v4().local_addr();
    let mut outgoing = SendBatch::new(8, 800);
    let mut incoming = ReceiveBatch::new(8, 100);
    for _ in 0..20 {
        socket.send_to(b"anybody?", gone).unwrap();
        for peer in [gone, alive.local_addr(), gone] {
            assert!(outgoing.push(peer, 100, |room| room.len()));
        }
        outgoing.flush(&socket).unwrap();
        incoming.receive(&socket).unwrap();
        alive.send_to(b"still here", socket.local_addr()).unwrap();
        assert_eq!(collect(&socket, &mut incoming, 1)[0].0, b"still here");
    }
    assert_eq!(collect(&alive, &mut incoming, 20).len(), 20);
}

#[test]
fn an_address_nobody_can_send_to_costs_only_its_own_datagram() {
    let (sender, receiver) = (v4(), v4());
    let port_zero: SocketAddr = "127.0.0.1:0".parse().unwrap();
    assert_eq!(sender.send_to(b"x", port_zero).unwrap(), Sent::Refused);
    let good = receiver.local_addr();
    let mut outgoing = SendBatch::new(16, 16);
    for peer in [port_zero, good, good, port_zero, port_zero, good, port_zero] {
        assert!(outgoing.push(peer, 1, |room| room.len()));
    }
    let flushed = outgoing.flush(&sender).unwrap();
    assert_eq!((flushed.sent, flushed.unsent), (3, 4));
    assert!(flushed.calls <= 2 * 7, "{flushed:?}");
    assert!(outgoing.is_empty());
    assert_eq!(collect(&receiver, &mut ReceiveBatch::new(8, 100), 3).len(), 3);
    assert_eq!(outgoing.flush(&sender).unwrap(), Flushed::default());
}

#[test]
fn one_call_sends_and_one_call_receives_a_whole_batch() {
    let (sender, receiver) = (v4(), v4());
    let mut outgoing = SendBatch::new(64, 64 * 516);
    while outgoing.push(receiver.local_addr(), 516, |room| room.len()) {}
    assert_eq!(outgoing.flush(&sender).unwrap(), Flushed { sent: 64, unsent: 0, calls: 1 });
    settle(&sender);
    assert_eq!(ReceiveBatch::new(64, 1024).receive(&receiver).unwrap(), 64);
}

#[test]
fn datagrams_that_overflow_the_buffer_are_counted() {
    let small = SocketOptions { receive_buffer_bytes: 1, ..SocketOptions::default() };
    let (sender, receiver) = (v4(), bound("127.0.0.1:0", &small));
    assert_eq!(receiver.drops(), 0);
    for _ in 0..200 {
        assert_eq!(sender.send_to(&[0; 516], receiver.local_addr()).unwrap(), Sent::Done);
    }
    settle(&sender);
    let mut batch = ReceiveBatch::new(8, 1024);
    let mut received = 0;
    loop {
        match batch.receive(&receiver).unwrap() {
            0 => break,
            count => received += count as u64,
        }
    }
    assert!(received < 200);
    assert_eq!(receiver.drops(), 200 - received);
}

#[test]
fn room_for_large_datagrams_takes_memory_only_once_they_come() {
    let before_bytes = resident_bytes();
    let batch = ReceiveBatch::new(4096, 65_536);
    let outgoing = SendBatch::new(4096, 4096 * 65_536);
    let grown_bytes = resident_bytes().saturating_sub(before_bytes);
    assert!(grown_bytes < 32 << 20, "{grown_bytes} bytes resident of 512 MiB");
    drop((batch, outgoing));
}

/// proc_pid_statm(5): the second number, in pages.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn one_socket_speaks_and_hears_for_many_addresses() {
    let told = SocketOptions { packet_info: true, receive_stamps: true, ..SocketOptions::default() };
    let many = bound("0.0.0.0:0", &told);
    let server = v4();
    let port = many.local_addr().port();
    let mut batch = SendBatch::new(4, 100);
    for last in [5, 6] {
        let write = |room: &mut [u8]| {
            room[0] = last;
            1
        };
        assert!(batch.push_from(Some([127, 1, 2, last].into()), server.local_addr(), 1, write));
    }
    // In one batch with others, a datagram without a source of its own has the socket's.
    assert!(batch.push(server.local_addr(), 1, |room| {
        room[0] = 1;
        1
    }));
    assert_eq!(batch.flush(&many).unwrap().sent, 3);
    let heard = collect(&server, &mut ReceiveBatch::new(4, 10), 3);
    for (datagram, peer) in &heard[..2] {
        assert_eq!(*peer, SocketAddr::from(([127, 1, 2, datagram[0]], port)));
        server.send_to(datagram, *peer).unwrap();
    }
    assert_eq!(heard[2].1, SocketAddr::from(([127, 0, 0, 1], port)));
    let mut answers = ReceiveBatch::new(1, 10);
    for last in [5, 6] {
        answers.receive_blocking(&many, PATIENCE_NS).unwrap();
        let answer = answers.iter().next().unwrap();
        assert_eq!(answer.local, Some([127, 1, 2, last].into()));
        assert!(answer.stamp_realtime_ns.is_some());
    }
}

#[test]
fn one_socket_speaks_from_many_addresses_and_hears_which_was_meant() {
    let options = SocketOptions { packet_info: true, receive_stamps: true, ..SocketOptions::default() };
    let many = Socket::bind("0.0.0.0:0".parse().unwrap(), &options).unwrap();
    let peer = Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap();
    let sources = [[127, 128, 0, 1], [127, 255, 255, 254], [127, 0, 0, 1]].map(Ipv4Addr::from);

    let mut outgoing = SendBatch::new(3, 3);
    for source in sources {
        assert!(outgoing.push_from(Some(source), peer.local_addr(), 1, |_| 1));
    }
    assert_eq!(outgoing.flush(&many).unwrap().sent, 3);
    let mut arrivals = ReceiveBatch::new(3, 16);
    assert_eq!(arrivals.receive_blocking(&peer, PATIENCE_NS).unwrap(), 3);
    let seen: Vec<_> = arrivals.iter().map(|datagram| (datagram.peer, datagram.local)).collect();
    let port = many.local_addr().port();
    assert_eq!(seen, sources.map(|source| (SocketAddr::from((source, port)), None)));

    for (from, _) in seen {
        peer.send_to(b"answer", from).unwrap();
    }
    assert_eq!(arrivals.receive_blocking(&many, PATIENCE_NS).unwrap(), 3);
    assert_eq!(arrivals.iter().map(|datagram| datagram.local).collect::<Vec<_>>(), sources.map(Some));
    assert!(arrivals.iter().all(|datagram| datagram.stamp_realtime_ns.is_some()));
}
