//! What a batch queues, and what a flush makes of it.

use std::os::fd::AsFd;

use super::flush::has_room;
use super::*;
use crate::socket::Socket;
use crate::{ReceiveBatch, SocketOptions};

fn peer() -> SocketAddr {
    "127.0.0.1:9".parse().unwrap()
}

#[test]
fn a_full_batch_refuses_without_asking_for_contents() {
    let mut batch = SendBatch::new(2, 100);
    assert!(batch.push(peer(), 60, |room| room.len()));
    assert!(!batch.push(peer(), 41, |_| panic!("no room in the arena")));
    let other = "127.0.0.1:10".parse().unwrap();
    assert!(batch.push(other, 40, |_| 1));
    assert!(!batch.push(peer(), 1, |_| panic!("no header left")));
    assert_eq!(batch.len(), 2);
}

#[test]
fn an_empty_datagram_queues_nothing() {
    let mut batch = SendBatch::new(1, 100);
    assert!(batch.push(peer(), 100, |_| 0));
    assert!(batch.is_empty());
}

#[test]
fn a_length_beyond_the_room_is_cut_to_it() {
    let mut batch = SendBatch::new(1, 100);
    assert!(batch.push(peer(), 10, |_| 5000));
    assert_eq!(batch.filled, 10);
}

#[test]
fn datagrams_lie_one_behind_another() {
    let mut batch = SendBatch::new(3, 3000);
    for byte in 1..=3u8 {
        batch.push(peer(), 1000, |room| {
            room[..516].fill(byte);
            516
        });
    }
    assert_eq!(batch.filled, 3 * 516);
    assert!(batch.initialised < 3000, "untouched memory stays untouched");
}

/// Queues datagrams of these lengths, each filled with its number.
fn queue(batch: &mut SendBatch, receiver: &Socket, lens: &[usize]) {
    for (number, &len) in lens.iter().enumerate() {
        assert!(batch.push(receiver.local_addr(), len, |room| {
            room.fill(number as u8);
            len
        }));
    }
}

/// Length and number of what comes.
fn arrived(receiver: &Socket, count: usize) -> Vec<(usize, u8)> {
    let mut arrivals = ReceiveBatch::new(200, 65_536);
    let mut seen = Vec::new();
    while seen.len() < count {
        assert!(arrivals.receive_blocking(receiver, 5_000_000_000).unwrap() > 0, "{}", seen.len());
        seen.extend(arrivals.iter().map(|datagram| (datagram.payload.len(), datagram.payload[0])));
    }
    seen
}

/// What a flush says, and what of it arrives.
fn sent(batch: &mut SendBatch, sender: &Socket, lens: &[usize]) -> (Flushed, Vec<(usize, u8)>) {
    let receiver = bound();
    queue(batch, &receiver, lens);
    let flushed = batch.flush(sender).unwrap();
    (flushed, arrived(&receiver, flushed.sent))
}

fn bound() -> Socket {
    Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap()
}

fn numbered(lens: &[usize]) -> Vec<(usize, u8)> {
    lens.iter().enumerate().map(|(number, &len)| (len, number as u8)).collect()
}

#[test]
fn refused_segments_go_out_singly_and_are_not_tried_again() {
    let (mut batch, sender) = (SendBatch::new(8, 10_000), bound());
    sender.refuse_segments();
    let lens = [516, 516, 516, 20, 700, 516, 516, 3];
    let (flushed, seen) = sent(&mut batch, &sender, &lens);
    assert_eq!((flushed.sent, flushed.unsent, seen), (8, 0, numbered(&lens)));
    // Three runs. The first has its call, which fails, and a call for each of its four datagrams; the 700 and the
    // 516 behind it are two calls, and so is the last one.
    assert_eq!(flushed.calls, 1 + 4 + 2 + 2);
    let (flushed, seen) = sent(&mut batch, &sender, &lens[..3]);
    assert_eq!((flushed, seen), (Flushed { sent: 3, unsent: 0, calls: 1 }, numbered(&lens[..3])));
    let (flushed, seen) = sent(&mut batch, &sender, &[100, 100, 100]);
    assert_eq!((flushed.sent, flushed.calls, seen.len()), (3, 1 + 3, 3), "shorter ones have their own trial");
}

#[test]
fn a_kernel_that_does_not_know_segments_is_given_none() {
    let (mut batch, sender, receiver) = (SendBatch::new(8, 10_000), bound(), bound());
    let lens = [516, 516, 20, 30];
    queue(&mut batch, &receiver, &lens);
    let mut flushed = Flushed::default();
    batch.send_all_singly(sender.as_fd(), &mut flushed).unwrap();
    assert_eq!((flushed.sent, flushed.calls), (4, 4));
    assert_eq!(arrived(&receiver, 4), numbered(&lens));
}

#[test]
fn a_path_that_is_closed_says_nothing_about_segments() {
    let (mut batch, sender) = (SendBatch::new(8, 10_000), bound());
    let port_zero = "127.0.0.1:0".parse().unwrap();
    for _ in 0..3 {
        assert!(batch.push(port_zero, 516, |room| room.len()));
    }
    assert_eq!(batch.count, 1);
    assert_eq!(batch.flush(&sender).unwrap().unsent, 3);
    let (flushed, seen) = sent(&mut batch, &sender, &[516; 3]);
    assert_eq!((flushed, seen.len()), (Flushed { sent: 3, unsent: 0, calls: 1 }, 3));
    assert!(batch.segments.are_unrefused());
}

#[test]
fn a_run_is_one_header_until_something_differs() {
    let headers = |pushes: &[(Option<LocalAddress>, &str, usize)]| {
        let mut batch = SendBatch::new(200, 200_000);
        for (source, peer, len) in pushes {
            assert!(batch.push_from(*source, peer.parse().unwrap(), *len, |room| room.len()));
        }
        assert_eq!(batch.len(), pushes.len());
        batch.count
    };
    let (a, b) = ("127.0.0.1:9", "127.0.0.1:10");
    let source = Some(Ipv4Addr::LOCALHOST.into());
    assert_eq!(headers(&[(None, a, 5), (None, a, 5), (None, a, 3)]), 1);
    assert_eq!(headers(&[(None, a, 5), (None, a, 3), (None, a, 3)]), 2, "a shorter one ends it");
    assert_eq!(headers(&[(None, a, 5), (None, a, 6)]), 2, "a longer one begins another");
    assert_eq!(headers(&[(None, a, 5), (None, b, 5), (None, a, 5)]), 3);
    assert_eq!(headers(&[(None, a, 5), (source, a, 5), (source, a, 5)]), 2);
    assert_eq!(headers(&[(None, a, 5); 65]), 2);
    assert_eq!(headers(&[(None, a, 32_754); 2]), 2, "65,508 bytes are too many");
    assert_eq!(headers(&[(None, a, 32_753), (None, a, 32_753)]), 1);
}

#[test]
fn a_run_in_one_go_is_what_its_datagrams_would_have_been() {
    let (mut batch, sender, receiver) = (SendBatch::new(3, 70_000), bound(), bound());
    let peer = receiver.local_addr();
    let mut push = |len: usize, count: usize| {
        batch.push_run(None, Some(peer), len, count, |room| {
            room.chunks_mut(len).zip(0..).for_each(|(datagram, number)| datagram.fill(number));
        })
    };
    assert_eq!([push(516, 3), push(8, 100), push(0, 1), push(516, 0)], [3, 64, 0, 0]);
    assert_eq!([push(30_000, 9), push(4, 1)], [2, 0], "as many as one message takes; no header is left");
    assert_eq!((batch.len(), batch.count), (69, 3));
    assert_eq!(batch.flush(&sender).unwrap(), Flushed { sent: 69, unsent: 0, calls: 1 });
    let mut arrivals = crate::ReceiveBatch::new(100, 30_000);
    assert_eq!(arrivals.receive(&receiver).unwrap(), 69);
    let seen: Vec<_> =
        arrivals.iter().map(|datagram| (datagram.payload.len(), datagram.payload[0])).collect();
    assert_eq!(seen[..4], [(516, 0), (516, 1), (516, 2), (8, 0)]);
    assert_eq!(seen[66..], [(8, 63), (30_000, 0), (30_000, 1)]);
}

#[test]
fn a_connected_socket_needs_no_name() {
    let (mut batch, sender, receiver) = (SendBatch::new(3, 10_000), bound(), bound());
    assert_eq!(batch.push_run(None, None, 8, 1, |room| room.fill(7)), 1);
    assert!(batch.flush(&sender).is_err(), "no peer is named and none known");
    sender.connect(receiver.local_addr()).unwrap();
    assert_eq!([1, 5].map(|count| batch.push_run(None, None, 8, count, |room| room.fill(7))), [1, 5]);
    assert_eq!(batch.flush(&sender).unwrap().sent, 6);
    let mut arrivals = crate::ReceiveBatch::new(10, 100);
    assert_eq!(arrivals.receive(&receiver).unwrap(), 6);
    assert!(arrivals.iter().all(|datagram| datagram.payload == [7; 8]));
}

#[test]
fn a_full_send_buffer_is_waited_for_but_not_long() {
    let (sender, receiver) = std::os::unix::net::UnixDatagram::pair().unwrap();
    assert!(has_room(sender.as_fd()));
    sender.set_nonblocking(true).unwrap();
    while sender.send(&[0; 1000]).is_ok() {}
    assert!(!has_room(sender.as_fd()));
    while !has_room(sender.as_fd()) {
        receiver.recv(&mut [0; 1000]).unwrap();
    }
}
