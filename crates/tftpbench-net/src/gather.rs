//! What the headers of a batch need to gather a datagram from two places: its head in the arena, its payload in a mapped
//! file. Only `SendBatch` uses it. It makes no system call.

use std::mem::MaybeUninit;
use std::sync::Arc;

use crate::fixed::Fixed;
use crate::mapping::{FileMapping, FilePart};

/// As `SendBatch` has arena for: 1 MiB there holds 2048 blocks of 512 bytes in 64 messages. Memory only once they are used.
const VECTORS_PER_MESSAGE: usize = 64;

/// Vectors of a gathered datagram.
pub(crate) const VECTORS_PER_DATAGRAM: usize = 2;

/// A datagram: what was written into the room that was given, and what follows it there.
#[derive(Clone, Copy, Debug)]
pub struct Gathered<'a> {
    /// Bytes written; 0 queues nothing.
    pub head_bytes: usize,
    /// The rest, straight from a file. A file that shrinks meanwhile costs the datagram, which then counts as unsent.
    pub body: Option<FilePart<'a>>,
}

impl Gathered<'_> {
    /// No datagram.
    pub const NOTHING: Gathered<'static> = Gathered { head_bytes: 0, body: None };
}

/// The vectors of all gathered datagrams in order, and the mappings that they lead into.
pub(crate) struct Parts {
    vectors: Fixed<MaybeUninit<libc::iovec>>,
    used: usize,
    held: Vec<Arc<FileMapping>>,
}

impl Parts {
    pub(crate) fn new(messages: usize) -> Parts {
        let vectors = Fixed::adopt(Box::new_uninit_slice(messages * VECTORS_PER_MESSAGE));
        Parts { vectors, used: 0, held: Vec::new() }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.used + VECTORS_PER_DATAGRAM <= self.vectors.len()
    }

    /// Adds a datagram behind the last one, if `has_room`. Its vectors stay where they are until `clear`.
    pub(crate) fn push(&mut self, head: libc::iovec, body: &FilePart<'_>) -> *mut libc::iovec {
        assert!(self.has_room());
        let first = self.vectors.at(self.used).cast::<libc::iovec>();
        // SAFETY: two vectors fit by the assertion; the array is ours, and no call is running that could read it.
        unsafe {
            first.write(head);
            first.add(1).write(body.vector());
        }
        self.used += VECTORS_PER_DATAGRAM;
        // Neighbours mostly read one file, and a reference less is two atomic operations less.
        if !self.held.last().is_some_and(|held| Arc::ptr_eq(held, body.mapping())) {
            self.held.push(Arc::clone(body.mapping()));
        }
        first
    }

    /// The datagrams have been sent, or never will be.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::net::SocketAddr;

    use super::*;
    use crate::{Flushed, ReceiveBatch, SendBatch, Socket, SocketOptions};

    const FILE_BYTES: usize = 100_000;

    /// A file without a name, its contents, and its mapping.
    fn mapped(seed: usize) -> (File, Vec<u8>, Arc<FileMapping>) {
        let path = std::env::temp_dir().join(format!("tftpbench-gather-{}-{seed}", std::process::id()));
        let contents: Vec<u8> = (0..FILE_BYTES).map(|at| ((at + seed) * 31 / 7) as u8).collect();
        std::fs::write(&path, &contents).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mapping = FileMapping::new(&file, FILE_BYTES as u64).unwrap();
        (file, contents, mapping)
    }

    fn bound() -> Socket {
        Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap()
    }

    fn gather(batch: &mut SendBatch, peer: SocketAddr, mapping: &Arc<FileMapping>, at: u64, len: usize) {
        let pushed = batch.push_gathered(peer, 4, |room| {
            room.copy_from_slice(b"head");
            Gathered { head_bytes: 4, body: mapping.part(at, len) }
        });
        assert!(pushed);
    }

    fn expected(contents: &[u8], at: usize, len: usize) -> Vec<u8> {
        [b"head", &contents[at..at + len]].concat()
    }

    fn arrived(receiver: &Socket, count: usize) -> Vec<Vec<u8>> {
        let mut arrivals = ReceiveBatch::new(64, 65_536);
        let mut seen = Vec::new();
        while seen.len() < count {
            assert!(arrivals.receive_blocking(receiver, 5_000_000_000).unwrap() > 0, "{}", seen.len());
            seen.extend(arrivals.iter().map(|datagram| datagram.payload.to_vec()));
        }
        seen
    }

    #[test]
    fn gathered_and_written_datagrams_to_one_peer_arrive_whole_and_in_order() {
        let ((_, contents, mapping), sender, receiver) = (mapped(1), bound(), bound());
        for can_segment in [true, false] {
            if !can_segment {
                sender.refuse_segments();
            }
            let mut batch = SendBatch::new(8, 100_000);
            let blocks = [(0, 512), (512, 512), (1024, 512), (1536, 7), (50_000, 8192), (99_999, 1), (0, 0)];
            for (at, len) in blocks {
                gather(&mut batch, receiver.local_addr(), &mapping, at as u64, len);
            }
            for _ in 0..2 {
                assert!(batch.push(receiver.local_addr(), 4, |room| {
                    room.copy_from_slice(b"head");
                    4
                }));
            }
            let mut due: Vec<_> = blocks.iter().map(|&(at, len)| expected(&contents, at, len)).collect();
            due.extend([b"head".to_vec(), b"head".to_vec()]);
            let flushed = batch.flush(&sender).unwrap();
            assert_eq!((flushed.sent, flushed.unsent), (9, 0), "{can_segment}");
            assert!(arrived(&receiver, 9) == due, "{can_segment}");
            // A header that was gathered is as good as new.
            assert!(batch.push(receiver.local_addr(), 5, |room| {
                room.copy_from_slice(b"plain");
                5
            }));
            assert_eq!(batch.flush(&sender).unwrap().sent, 1);
            assert_eq!(arrived(&receiver, 1), [b"plain"]);
        }
    }

    #[test]
    fn a_window_is_one_message() {
        let ((_, contents, mapping), sender, receiver) = (mapped(2), bound(), bound());
        if !sender.knows_segments() {
            return;
        }
        let mut batch = SendBatch::new(64, 1 << 20);
        for block in 0..64 {
            gather(&mut batch, receiver.local_addr(), &mapping, block * 700, 700);
        }
        let flushed = batch.flush(&sender).unwrap();
        assert_eq!(flushed, Flushed { sent: 64, unsent: 0, calls: 1 });
        for (block, datagram) in arrived(&receiver, 64).into_iter().enumerate() {
            assert!(datagram == expected(&contents, block * 700, 700), "{block}");
        }
    }

    #[test]
    fn a_file_that_shrinks_costs_its_own_datagrams_only() {
        let (shrunk, whole, sender) = (mapped(3), mapped(4), bound());
        let receivers = [(); 4].map(|()| bound());
        let mut batch = SendBatch::new(64, 100_000);
        for receiver in &receivers {
            gather(&mut batch, receiver.local_addr(), &whole.2, 20_000, 512);
            // One alone, one in a run whose first block is still there.
            gather(&mut batch, receiver.local_addr(), &shrunk.2, 20_000, 8192);
            gather(&mut batch, receivers[0].local_addr(), &shrunk.2, 0, 8192);
            gather(&mut batch, receivers[0].local_addr(), &shrunk.2, 8192, 8192);
        }
        shrunk.0.set_len(0).unwrap();
        let flushed = batch.flush(&sender).unwrap();
        assert_eq!((flushed.sent, flushed.unsent), (4, 12));
        for receiver in &receivers {
            assert!(arrived(receiver, 1) == [expected(&whole.1, 20_000, 512)]);
        }
    }

    #[test]
    fn a_queued_mapping_lives_until_it_has_been_sent() {
        let ((_, contents, mapping), sender, receiver) = (mapped(5), bound(), bound());
        let mut batch = SendBatch::new(8, 1000);
        gather(&mut batch, receiver.local_addr(), &mapping, 0, 512);
        gather(&mut batch, receiver.local_addr(), &mapping, 512, 512);
        let watched = Arc::downgrade(&mapping);
        assert_eq!(watched.strong_count(), 2, "neighbours share a reference");
        drop(mapping);
        batch.flush(&sender).unwrap();
        assert_eq!(watched.strong_count(), 0);
        assert!(arrived(&receiver, 2) == [expected(&contents, 0, 512), expected(&contents, 512, 512)]);
    }

    #[test]
    fn a_batch_without_vectors_left_refuses_without_asking_for_contents() {
        let ((_, _, mapping), sender, receiver) = (mapped(6), bound(), bound());
        let mut batch = SendBatch::new(2, 1000);
        for round in 0..2 {
            // All of them in one run, so that headers are not what is short.
            for _ in 0..2 * VECTORS_PER_MESSAGE / VECTORS_PER_DATAGRAM {
                gather(&mut batch, receiver.local_addr(), &mapping, 0, 8);
            }
            let refused = batch.push_gathered(receiver.local_addr(), 4, |_| panic!("no room"));
            assert!(!refused, "{round}");
            batch.flush(&sender).unwrap();
        }
    }
}
