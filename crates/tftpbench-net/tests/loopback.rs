//! Sockets and batches over the real loopback, IPv4 and IPv6. Longer than 500 lines, as all of it shares one set-up.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in tests a panic is the report, a skip says why"
)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use tftpbench_net::{Flushed, LocalAddress, ReceiveBatch, SendBatch, Sent, Socket, SocketOptions, clock};

const MS_NS: u64 = 1_000_000;
/// Long enough for a loaded machine; a test that waits this long has failed.
const WAIT_MAX_NS: u64 = 5_000 * MS_NS;

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
        assert!(batch.receive_blocking(socket, WAIT_MAX_NS).unwrap() > 0, "{} of {count}", all.len());
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
    assert_eq!(batch.receive_blocking(&receiver, WAIT_MAX_NS).unwrap(), 2);
    assert!(clock::monotonic_ns() - start_ns < WAIT_MAX_NS);
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
            assert!(batch.receive_blocking(&receiver, WAIT_MAX_NS).unwrap() > 0);
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
            assert_eq!(batch.receive_blocking(&plain, WAIT_MAX_NS).unwrap(), 1);
            assert_eq!(batch.iter().next().unwrap().stamp_realtime_ns, None, "round {round}");
            assert_eq!(batch.receive_blocking(&stamped, WAIT_MAX_NS).unwrap(), 1);
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
        socket.send_to(b"is it there?", gone).unwrap();
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
fn an_address_that_cannot_be_sent_to_costs_only_its_own_datagram() {
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
    let batch = ReceiveBatch::coalescing(4096, 516);
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
    let options = SocketOptions { packet_info: true, receive_stamps: true, ..SocketOptions::default() };
    let many = bound("0.0.0.0:0", &options);
    let server = v4();
    let port = many.local_addr().port();
    let mut batch = SendBatch::new(4, 100);
    for last in [5, 6] {
        let write = |room: &mut [u8]| {
            room[0] = last;
            1
        };
        assert!(batch.push_from(
            Some(Ipv4Addr::from([127, 1, 2, last]).into()),
            server.local_addr(),
            1,
            write
        ));
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
        answers.receive_blocking(&many, WAIT_MAX_NS).unwrap();
        let answer = answers.iter().next().unwrap();
        assert_eq!(answer.local.map(LocalAddress::ip), Some([127, 1, 2, last].into()));
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
        assert!(outgoing.push_from(Some(source.into()), peer.local_addr(), 1, |_| 1));
    }
    assert_eq!(outgoing.flush(&many).unwrap().sent, 3);
    let mut arrivals = ReceiveBatch::new(3, 16);
    assert_eq!(arrivals.receive_blocking(&peer, WAIT_MAX_NS).unwrap(), 3);
    let seen: Vec<_> = arrivals.iter().map(|datagram| (datagram.peer, datagram.local)).collect();
    let port = many.local_addr().port();
    assert_eq!(seen, sources.map(|source| (SocketAddr::from((source, port)), None)));

    for (from, _) in seen {
        peer.send_to(b"answer", from).unwrap();
    }
    assert_eq!(arrivals.receive_blocking(&many, WAIT_MAX_NS).unwrap(), 3);
    let meant: Vec<_> = arrivals.iter().map(|datagram| datagram.local).collect();
    assert_eq!(meant, sources.map(|source| Some(source.into())));
    assert!(arrivals.iter().all(|datagram| datagram.stamp_realtime_ns.is_some()));
}

/// Of either family, as the socket sees it: IPv4 at a socket of both is written as IPv6.
#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let options = SocketOptions { packet_info: true, ..SocketOptions::default() };
    let mut cases = vec![("0.0.0.0:0", "127.0.0.1:0", "127.1.2.3")];
    if UdpSocket::bind("[::1]:0").is_ok() {
        cases.extend([("[::]:0", "127.0.0.1:0", "127.1.2.3"), ("[::]:0", "[::1]:0", "::1")]);
    }
    for (any, from, asked) in cases {
        let (server, client) = (bound(any, &options), bound(from, &SocketOptions::default()));
        let asked = SocketAddr::new(asked.parse().unwrap(), server.local_addr().port());
        client.send_to(b"request", asked).unwrap();
        let mut requests = ReceiveBatch::new(2, 16);
        assert_eq!(requests.receive_blocking(&server, WAIT_MAX_NS).unwrap(), 1);
        let request = requests.iter().next().unwrap();
        assert!(!request.is_to_many, "{asked}");
        assert_eq!(request.local.unwrap().ip().to_canonical(), asked.ip());
        assert_eq!(server.send_from(request.local, b"singly", request.peer).unwrap(), Sent::Done);
        let mut batch = SendBatch::new(4, 1000);
        // A run with a source, and a message without one behind it.
        for _ in 0..3 {
            assert!(batch.push_from(request.local, request.peer, 100, |room| room.len()));
        }
        assert_eq!(batch.flush(&server).unwrap().sent, 3);
        for (_, peer) in collect(&client, &mut ReceiveBatch::new(4, 100), 4) {
            assert_eq!(peer, asked, "{any}");
        }
        // A socket of its own at that address does the same without an address each time.
        let own = Socket::bind(request.local.unwrap().with_port(0), &SocketOptions::default()).unwrap();
        own.send_to(b"x", request.peer).unwrap();
        assert_eq!(collect(&client, &mut ReceiveBatch::new(1, 100), 1)[0].1.ip(), asked.ip());
    }
}

/// RFC 1123 section 4.2.3.5 needs to know.
#[test]
fn a_datagram_to_a_broadcast_address_is_told_from_others() {
    let options = SocketOptions { packet_info: true, ..SocketOptions::default() };
    for any in ["0.0.0.0:0", "[::]:0"] {
        if UdpSocket::bind(any).is_err() {
            continue;
        }
        let server = bound(any, &options);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_broadcast(true).unwrap();
        for ip in ["127.255.255.255", "127.0.0.1"] {
            client.send_to(b"x", (ip, server.local_addr().port())).unwrap();
        }
        let mut arrivals = ReceiveBatch::new(1, 16);
        let to_many = [(); 2].map(|()| {
            assert_eq!(arrivals.receive_blocking(&server, WAIT_MAX_NS).unwrap(), 1);
            arrivals.iter().next().unwrap().is_to_many
        });
        assert_eq!(to_many, [true, false], "{any}");
    }
}

fn coalescing(address: &str) -> Socket {
    bound(
        address,
        &SocketOptions { receive_coalesced: true, receive_stamps: true, ..SocketOptions::default() },
    )
}

/// Where it is not so, runs still arrive, but as single datagrams: nothing to see for tests of how many messages they
/// are.
fn has_runs() -> bool {
    // udp(7): UDP_GRO came with Linux 5.0, after UDP_SEGMENT.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let has =
        release.split('.').next().and_then(|major| major.parse().ok()).is_some_and(|major: u32| major >= 5);
    if !has {
        println!("skipped: Linux {} knows no runs of datagrams", release.trim());
    }
    has
}

/// Datagrams with a number in front, by length.
fn numbered(lens: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    let datagram = |(number, len): (usize, usize)| {
        let mut bytes = vec![number as u8; len];
        bytes[0] = (number >> 8) as u8;
        bytes
    };
    lens.into_iter().enumerate().map(datagram).collect()
}

fn push(batch: &mut SendBatch, peer: SocketAddr, datagram: &[u8]) -> bool {
    batch.push(peer, datagram.len(), |room| {
        room.copy_from_slice(datagram);
        datagram.len()
    })
}

/// Runs, lone datagrams, rests and lengths that almost make runs, to three receivers in turn.
fn runs_arrive_as_their_datagrams(address: &str, receiver: fn(&str) -> Socket) {
    let receivers = [receiver(address), receiver(address), receiver(address)];
    let sender = bound(address, &SocketOptions { send_buffer_bytes: 1 << 20, ..SocketOptions::default() });
    let one = [516; 70].into_iter().chain([20, 516, 516, 516, 3, 1, 1, 1, 1428, 1428, 516, 9, 65_468, 2]);
    let datagrams = numbered(one.clone().chain(one));
    let mut outgoing = SendBatch::new(64, 400_000);
    let mut incoming = ReceiveBatch::coalescing(8, 65_468);
    let mut sent = 0;
    // Long runs, then as many changes of peer as there are datagrams.
    for (index, datagram) in datagrams.iter().enumerate() {
        let turn = if index < datagrams.len() / 2 { index / 20 } else { index };
        assert!(push(&mut outgoing, receivers[turn % 3].local_addr(), datagram));
        if outgoing.len() == 40 || index + 1 == datagrams.len() {
            let queued = outgoing.len();
            let flushed = outgoing.flush(&sender).unwrap();
            assert_eq!((flushed.sent, flushed.unsent), (queued, 0));
            let from = sent..sent + queued;
            for (number, receiver) in receivers.iter().enumerate() {
                let turn = |index: usize| if index < datagrams.len() / 2 { index / 20 } else { index };
                let expected: Vec<_> = from.clone().filter(|&index| turn(index) % 3 == number).collect();
                let received = collect(receiver, &mut incoming, expected.len());
                let expected = expected.iter().map(|&index| (datagrams[index].clone(), sender.local_addr()));
                assert!(received == expected.collect::<Vec<_>>(), "{from:?} at {number}");
            }
            sent += queued;
        }
    }
    assert_eq!(sent, datagrams.len());
}

#[test]
fn runs_arrive_as_the_datagrams_they_are_made_of() {
    for receiver in [plain as fn(&str) -> Socket, coalescing] {
        runs_arrive_as_their_datagrams("127.0.0.1:0", receiver);
        if has_ipv6() {
            runs_arrive_as_their_datagrams("[::1]:0", receiver);
        }
    }
}

#[test]
fn a_window_is_one_message_on_its_way_out_and_in() {
    if !has_runs() {
        return;
    }
    let (sender, receiver) = (v4(), coalescing("127.0.0.1:0"));
    let datagrams = numbered([516; 63].into_iter().chain([100]));
    // Room for two headers only, and for one message.
    let (mut outgoing, mut incoming) = (SendBatch::new(2, 64 * 516), ReceiveBatch::coalescing(1, 516));
    for datagram in &datagrams {
        assert!(push(&mut outgoing, receiver.local_addr(), datagram));
    }
    assert_eq!(outgoing.flush(&sender).unwrap(), Flushed { sent: 64, unsent: 0, calls: 1 });
    settle(&sender);
    assert_eq!(incoming.receive(&receiver).unwrap(), 64);
    assert!(incoming.is_full());
    let stamps: Vec<_> = incoming.iter().map(|datagram| datagram.stamp_realtime_ns).collect();
    assert!(stamps[0].is_some() && stamps.iter().all(|stamp| *stamp == stamps[0]));
    assert!(incoming.iter().map(|datagram| datagram.payload).eq(&datagrams));
    assert!(incoming.iter().all(|datagram| !datagram.truncated));
    assert_eq!(incoming.receive(&receiver).unwrap(), 0);
    assert!(!incoming.is_full());
}

#[test]
fn more_segments_than_a_message_has_need_another() {
    if !has_runs() {
        return;
    }
    let (sender, receiver) = (v4(), coalescing("127.0.0.1:0"));
    let datagrams = numbered([8; 200]);
    let (mut outgoing, mut incoming) = (SendBatch::new(8, 2000), ReceiveBatch::coalescing(64, 516));
    for datagram in &datagrams {
        assert!(push(&mut outgoing, receiver.local_addr(), datagram));
    }
    assert_eq!(outgoing.flush(&sender).unwrap(), Flushed { sent: 200, unsent: 0, calls: 1 });
    settle(&sender);
    assert_eq!(incoming.receive(&receiver).unwrap(), 200);
    assert!(!incoming.is_full(), "four messages");
    assert!(incoming.iter().map(|datagram| datagram.payload).eq(&datagrams));
}

#[test]
fn runs_from_many_addresses_keep_theirs() {
    if !has_runs() {
        return;
    }
    let options = SocketOptions { packet_info: true, ..SocketOptions::default() };
    let (many, receiver) = (bound("0.0.0.0:0", &options), coalescing("127.0.0.1:0"));
    let mut outgoing = SendBatch::new(8, 8 * 516);
    let sources = [5, 5, 5, 6, 6, 7, 5, 5].map(|last| Ipv4Addr::from([127, 1, 2, last]));
    for source in sources {
        let write = |room: &mut [u8]| {
            room.fill(source.octets()[3]);
            room.len()
        };
        assert!(outgoing.push_from(Some(source.into()), receiver.local_addr(), 516, write));
    }
    assert_eq!(outgoing.flush(&many).unwrap(), Flushed { sent: 8, unsent: 0, calls: 1 });
    let heard = collect(&receiver, &mut ReceiveBatch::coalescing(8, 516), 8);
    let port = many.local_addr().port();
    let expected = sources.map(|source| (vec![source.octets()[3]; 516], SocketAddr::from((source, port))));
    assert!(heard == expected);
}

#[test]
fn plain_senders_are_heard_by_a_socket_that_coalesces() {
    let (sender, receiver) = (UdpSocket::bind("127.0.0.1:0").unwrap(), coalescing("127.0.0.1:0"));
    let datagrams = numbered([516, 516, 4, 1432, 1]);
    let mut incoming = ReceiveBatch::coalescing(2, 1432);
    for datagram in datagrams.iter().chain([&Vec::new()]) {
        sender.send_to(datagram, receiver.local_addr()).unwrap();
    }
    let heard = collect(&receiver, &mut incoming, 6);
    assert!(heard[..5].iter().map(|(bytes, _)| bytes).eq(&datagrams));
    assert!(heard[5].0.is_empty(), "a datagram may be");
}

#[test]
fn of_a_run_too_each_datagram_that_is_too_long_is_cut_and_marked() {
    let (sender, receiver) = (v4(), coalescing("127.0.0.1:0"));
    let mut incoming = ReceiveBatch::coalescing(4, 100);
    let mut outgoing = SendBatch::new(4, 10_000);
    for datagram in numbered([101, 101, 100, 101]) {
        assert!(push(&mut outgoing, receiver.local_addr(), &datagram));
    }
    outgoing.flush(&sender).unwrap();
    settle(&sender);
    assert_eq!(incoming.receive(&receiver).unwrap(), 4);
    let seen: Vec<_> = incoming.iter().map(|it| (it.payload.len(), it.payload[1], it.truncated)).collect();
    assert_eq!(seen, [(100, 0, true), (100, 1, true), (100, 2, false), (100, 3, true)]);
}

#[test]
fn a_run_without_room_is_cut_short_but_all_of_it_is_counted() {
    if !has_runs() {
        return;
    }
    let (sender, receiver) = (v4(), coalescing("127.0.0.1:0"));
    for messages in [1, 4] {
        // A batch for plain sockets has no room for runs.
        let mut incoming = ReceiveBatch::new(messages, 250);
        let mut outgoing = SendBatch::new(4, 10_000);
        for datagram in numbered([100, 100, 100, 100, 50]) {
            assert!(push(&mut outgoing, receiver.local_addr(), &datagram));
        }
        outgoing.flush(&sender).unwrap();
        settle(&sender);
        assert_eq!(incoming.receive(&receiver).unwrap(), 5);
        let seen: Vec<_> = incoming.iter().map(|it| (it.payload.len(), it.truncated)).collect();
        assert_eq!(seen, [(100, false), (100, false), (50, true), (0, true), (0, true)]);
    }
}
