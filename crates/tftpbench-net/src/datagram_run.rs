//! Datagrams that were encoded once, one behind another, and can be sent any number of times to any number of peers.
//! The kernel takes a run of them from one piece of memory: with two pieces a datagram, its header and its payload, it
//! takes up to 1.7 times as long. It makes no system call.

use std::sync::Arc;

/// Datagrams of one length, of which the last may be shorter.
#[derive(Debug)]
pub struct DatagramRun {
    bytes: Box<[u8]>,
    datagram_bytes: usize,
}

impl DatagramRun {
    /// `bytes`: the datagrams, of `datagram_bytes` each but the last, without gaps.
    pub fn new(bytes: Vec<u8>, datagram_bytes: usize) -> Arc<DatagramRun> {
        Arc::new(DatagramRun { bytes: bytes.into_boxed_slice(), datagram_bytes: datagram_bytes.max(1) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.bytes.len().div_ceil(self.datagram_bytes)
    }

    /// Bytes of all of them.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// `count` of them from `first` on, or as many as there are.
    pub fn datagrams(&self, first: usize, count: usize) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes_of(first, count).chunks(self.datagram_bytes)
    }

    pub(crate) fn datagram_bytes(&self) -> usize {
        self.datagram_bytes
    }

    pub(crate) fn bytes_of(&self, first: usize, count: usize) -> &[u8] {
        let at = |index: usize| index.saturating_mul(self.datagram_bytes).min(self.bytes.len());
        &self.bytes[at(first)..at(first.saturating_add(count))]
    }
}

/// What is to be queued.
#[derive(Debug)]
pub enum Payload {
    /// One, of so many bytes, written into the room that was given. 0 queues nothing.
    Written(usize),
    /// `count` of those in `of`, from `first` on: no more than `SendBatch::max_segments` allows.
    Run {
        /// Where they lie.
        of: Arc<DatagramRun>,
        /// The first one's place there.
        first: usize,
        /// How many.
        count: usize,
    },
}

impl Payload {
    /// None.
    pub const NONE: Payload = Payload::Written(0);

    /// How many.
    pub fn count(&self) -> usize {
        match self {
            Payload::Written(bytes) => usize::from(*bytes > 0),
            Payload::Run { count, .. } => *count,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::{Flushed, ReceiveBatch, SendBatch, Socket, SocketOptions};

    fn bound() -> Socket {
        Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap()
    }

    /// Datagrams of 512 bytes, each filled with its number, and one of 7.
    fn numbered(datagrams: usize) -> Arc<DatagramRun> {
        let mut bytes: Vec<u8> = (0..datagrams).flat_map(|number| [number as u8; 512]).collect();
        bytes.extend([datagrams as u8; 7]);
        DatagramRun::new(bytes, 512)
    }

    fn push(batch: &mut SendBatch, peer: SocketAddr, of: &Arc<DatagramRun>, first: usize, count: usize) {
        assert!(batch.push_with(None, peer, 4, |_| Payload::Run { of: Arc::clone(of), first, count }));
    }

    fn push_written(batch: &mut SendBatch, peer: SocketAddr) {
        assert!(batch.push_with(None, peer, 4, |room| {
            room.copy_from_slice(b"text");
            Payload::Written(4)
        }));
    }

    /// Length and first byte of what comes.
    fn arrived(receiver: &Socket, count: usize) -> Vec<(usize, u8)> {
        let mut arrivals = ReceiveBatch::new(64, 65_536);
        let mut seen = Vec::new();
        while seen.len() < count {
            assert!(arrivals.receive_blocking(receiver, 5_000_000_000).unwrap() > 0, "{}", seen.len());
            seen.extend(arrivals.iter().map(|datagram| (datagram.payload.len(), datagram.payload[0])));
        }
        seen
    }

    #[test]
    fn prepared_and_written_datagrams_to_one_peer_arrive_whole_and_in_order() {
        let (of, sender, receiver) = (numbered(20), bound(), bound());
        for refuses_segments in [false, true] {
            if refuses_segments {
                sender.refuse_segments();
            }
            let mut batch = SendBatch::new(8, 1000);
            let peer = receiver.local_addr();
            push(&mut batch, peer, &of, 0, 3);
            push_written(&mut batch, peer);
            push_written(&mut batch, peer);
            push(&mut batch, peer, &of, 18, 3);
            push(&mut batch, peer, &of, 20, 1);
            push(&mut batch, peer, &of, 21, 1);
            push(&mut batch, peer, &of, 5, 1);
            let due = [
                (512, 0),
                (512, 1),
                (512, 2),
                (4, b't'),
                (4, b't'),
                (512, 18),
                (512, 19),
                (7, 20),
                (7, 20),
                (512, 5),
            ];
            assert_eq!((batch.len(), of.count()), (due.len(), 21));
            let flushed = batch.flush(&sender).unwrap();
            assert_eq!((flushed.sent, flushed.unsent), (due.len(), 0), "{refuses_segments}");
            assert_eq!(arrived(&receiver, due.len()), due, "{refuses_segments}");
            // A header that led elsewhere is as good as new.
            push_written(&mut batch, peer);
            assert_eq!(batch.flush(&sender).unwrap().sent, 1);
            assert_eq!(arrived(&receiver, 1), [(4, b't')]);
        }
    }

    #[test]
    fn a_run_is_one_message_and_no_longer_than_one_may_be() {
        let (of, sender, receiver) = (numbered(100), bound(), bound());
        if !sender.knows_segments() {
            return;
        }
        let mut batch = SendBatch::new(64, 1000);
        push(&mut batch, receiver.local_addr(), &of, 10, 99);
        let flushed = batch.flush(&sender).unwrap();
        assert_eq!(flushed, Flushed { sent: 64, unsent: 0, calls: 1 });
        let due: Vec<_> = (10..74).map(|number| (512, number)).collect();
        assert_eq!(arrived(&receiver, 64), due);
    }

    #[test]
    fn a_length_that_was_refused_is_not_tried_again() {
        let (of, sender, receiver) = (numbered(20), bound(), bound());
        sender.refuse_segments();
        let mut batch = SendBatch::new(64, 1000);
        let mut calls = || {
            push(&mut batch, receiver.local_addr(), &of, 0, 1);
            push(&mut batch, receiver.local_addr(), &of, 1, 4);
            push(&mut batch, receiver.local_addr(), &of, 5, 1);
            let flushed = batch.flush(&sender).unwrap();
            assert_eq!((flushed.sent, flushed.unsent), (6, 0));
            flushed.calls
        };
        // The first call sends one datagram, the second is refused.
        assert_eq!([calls(), calls()], [1 + 1 + 4 + 1, 1 + 4 + 1]);
        arrived(&receiver, 12);
    }

    #[test]
    fn what_is_queued_lives_until_it_has_been_sent() {
        let (of, sender, receiver) = (numbered(20), bound(), bound());
        let mut batch = SendBatch::new(8, 1000);
        push(&mut batch, receiver.local_addr(), &of, 0, 20);
        let watched = Arc::downgrade(&of);
        drop(of);
        assert_eq!(watched.strong_count(), 1);
        assert_eq!(batch.flush(&sender).unwrap().sent, 20);
        assert_eq!(watched.strong_count(), 0);
    }

    #[test]
    fn a_run_holds_what_was_encoded_and_no_more() {
        let run = DatagramRun::new((0..10).collect(), 4);
        assert_eq!((run.count(), run.bytes()), (3, 10));
        let of = |first, count| run.datagrams(first, count).collect::<Vec<_>>();
        assert_eq!(of(0, 2), [[0, 1, 2, 3], [4, 5, 6, 7]]);
        assert_eq!(of(1, 9), [&[4, 5, 6, 7][..], &[8, 9]]);
        assert!(of(3, 1).is_empty() && of(usize::MAX, usize::MAX).is_empty() && of(1, 0).is_empty());
    }
}
