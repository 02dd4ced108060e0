//! Sending many datagrams with one system call. Never allocates after `new`. One batch serves any
//! number of sockets, one after another, but must be flushed between them.
//!
//! Datagrams are packed one behind another in one arena. A run of equally long ones to one peer, which a shorter one
//! may end, shares one header: the vector spans the run, and UDP_SEGMENT, udp(7), tells the kernel where to cut it. A
//! datagram alone has a plain header. A path that refuses segments is sent the run datagram by datagram, so nothing is
//! lost by trying, and segments of that length are not tried again on it.
//!
//! A run may also have been prepared elsewhere: its vector then leads there, and it is kept apart from the others.

mod flush;
#[cfg(test)]
mod tests;

use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::address::{LocalAddress, RawAddress};
use crate::control::{Fixed, Outgoing, SourceKind, attach};
use crate::datagram_run::{DatagramRun, Payload};
use crate::segments::Segments;

/// Segments of one message: UDP_MAX_SEGMENTS in linux/udp.h, of kernels before 6.9.
const SEGMENTS_MAX: u16 = 64;
/// Payload of one message: 16 bits of length less the headers of IPv4 and UDP.
const RUN_BYTES_MAX: usize = 65_507;

/// Where no peer is named.
const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Datagrams the kernel took.
    pub sent: usize,
    /// Datagrams lost: the send buffer stayed full, or the way to the peer is closed.
    pub unsent: usize,
    /// Send calls made. Batching makes them differ from datagrams.
    pub calls: usize,
}

/// Datagrams waiting to be sent.
pub struct SendBatch {
    headers: Fixed<libc::mmsghdr>,
    addresses: Fixed<RawAddress>,
    controls: Fixed<Outgoing>,
    vectors: Fixed<libc::iovec>,
    /// What vectors lead to that is not in the arena.
    held: Vec<Arc<DatagramRun>>,
    /// What the headers hold; the kernel knows it by their vectors and control messages.
    runs: Box<[Run]>,
    arena: Fixed<MaybeUninit<u8>>,
    /// Bytes at the front of the arena that hold queued datagrams.
    filled: usize,
    /// Bytes at the front of the arena that have ever been written, so may be lent out as a slice.
    initialised: usize,
    /// Headers in use.
    count: usize,
    /// Datagrams queued.
    datagrams: usize,
    /// Whose run the last header is.
    last_peer: SocketAddr,
    last_source: Option<LocalAddress>,
    segments: Segments,
    /// The kernel was asked whether it knows segments.
    is_probed: bool,
}

/// The datagrams of one header.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Length of each but the last.
    segment_bytes: usize,
    /// Together.
    bytes: usize,
    datagrams: u16,
    source: SourceKind,
    is_prepared: bool,
}

impl Run {
    /// Whether a datagram of `len` bytes may follow: none may behind a shorter one.
    fn takes(&self, len: usize) -> bool {
        len <= self.segment_bytes
            && !self.is_prepared
            && self.bytes == usize::from(self.datagrams) * self.segment_bytes
            && self.datagrams < SEGMENTS_MAX
            && self.bytes + len <= RUN_BYTES_MAX
    }
}

// SAFETY: the raw pointers lead only into arrays the batch itself owns, which move with it, and into what it holds.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Room for `messages` datagrams, or runs of equally long ones to one peer, of `bytes` together, which must be at
    /// least the longest one. Costs address space, and memory only as datagrams fill it.
    pub fn new(messages: usize, bytes: usize) -> Self {
        let messages = messages.max(1);
        let addresses = Fixed::new(messages, |_| RawAddress::NONE);
        let vectors = Fixed::new(messages, |_| libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        let headers = Fixed::new(messages, |index| header(addresses.at(index), vectors.at(index)));
        SendBatch {
            headers,
            addresses,
            controls: Fixed::new(messages, |_| Outgoing::new()),
            vectors,
            held: Vec::with_capacity(messages),
            runs: vec![Run::default(); messages].into_boxed_slice(),
            arena: Fixed::adopt(Box::new_uninit_slice(bytes)),
            filled: 0,
            initialised: 0,
            count: 0,
            datagrams: 0,
            last_peer: UNSPECIFIED,
            last_source: None,
            segments: Segments::new(),
            is_probed: false,
        }
    }

    /// Queues one datagram: `fill` writes it into `len_max` bytes of stale contents and returns its
    /// length; 0 queues nothing. False: no room, flush first; `fill` was not called.
    pub fn push(&mut self, peer: SocketAddr, len_max: usize, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        self.push_from(None, peer, len_max, fill)
    }

    /// As `push`, with a source address other than the one the socket is bound to (IP_PKTINFO, ip(7), IPV6_PKTINFO,
    /// ipv6(7)): any of this machine's, so any of 127.0.0.0/8.
    pub fn push_from(
        &mut self,
        source: Option<LocalAddress>,
        peer: SocketAddr,
        len_max: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        debug_assert!(len_max <= self.arena.len(), "a datagram of {len_max} bytes can never fit");
        if !self.has_room(len_max) {
            return false;
        }
        let len = fill(self.room(len_max)).min(len_max);
        if len > 0 {
            self.put(source, peer, len);
        }
        true
    }

    /// As `push_from`, but `fill` may give datagrams that were prepared elsewhere instead of writing one. The batch
    /// holds them until it is flushed.
    pub fn push_with(
        &mut self,
        source: Option<LocalAddress>,
        peer: SocketAddr,
        len_max: usize,
        fill: impl FnOnce(&mut [u8]) -> Payload,
    ) -> bool {
        if !self.has_room(len_max) {
            return false;
        }
        match fill(self.room(len_max)) {
            Payload::Written(0) => {}
            Payload::Written(len) => self.put(source, peer, len.min(len_max)),
            Payload::Run { of, first, count } => self.put_prepared(source, peer, of, first, count),
        }
        true
    }

    /// How many datagrams of `len` bytes one message takes.
    pub fn max_segments(len: usize) -> usize {
        usize::from(SEGMENTS_MAX).min(RUN_BYTES_MAX / len.max(1)).max(1)
    }

    /// Queues up to `count` datagrams of `len` bytes in one go, as far as one message takes them, and tells how many; 0
    /// where there is no room. `fill` writes them, one behind another, over stale contents. Without a peer they go to
    /// the one that the socket is connected to.
    pub fn push_run(
        &mut self,
        source: Option<LocalAddress>,
        peer: Option<SocketAddr>,
        len: usize,
        count: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> usize {
        if len == 0 || !self.has_room(len) {
            return 0;
        }
        let one_message = match self.segments.are_worth_trying(peer.unwrap_or(UNSPECIFIED).ip(), len) {
            true => SendBatch::max_segments(len),
            false => 1,
        };
        let count = count.min(one_message).min((self.arena.len() - self.filled) / len);
        fill(self.room(count * len));
        if count > 0 {
            self.queue(source, peer.unwrap_or(UNSPECIFIED), len);
            if peer.is_none() {
                // SAFETY: the header that `queue` has just completed, ours, and no call is running that could read it.
                unsafe { (*self.headers.at(self.count - 1)).msg_hdr.msg_namelen = 0 };
            }
            (1..count).for_each(|_| self.append(len));
            self.filled += count * len;
        }
        count
    }

    /// Whether a datagram of up to `len_max` bytes can be queued without a flush.
    pub fn has_room(&self, len_max: usize) -> bool {
        self.count < self.headers.len() && len_max <= self.arena.len() - self.filled
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Datagrams queued.
    pub fn len(&self) -> usize {
        self.datagrams
    }

    /// The next `len` bytes of the arena, behind what is queued.
    fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.filled + len;
        if end > self.initialised {
            // SAFETY: from `initialised` to `end` is inside the arena: `push` has checked.
            unsafe { self.arena.at(self.initialised).write_bytes(0, end - self.initialised) };
            self.initialised = end;
        }
        // SAFETY: inside the arena and initialised by now; `&mut self` keeps it ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.arena.at(self.filled).cast(), len) }
    }

    /// Queues `len` bytes behind what fills the arena.
    fn put(&mut self, source: Option<LocalAddress>, peer: SocketAddr, len: usize) {
        if self.continues(source, peer, len) {
            self.append(len);
        } else {
            self.queue(source, peer, len);
        }
        self.filled += len;
    }

    /// Queues a message that lies in what was prepared.
    fn put_prepared(
        &mut self,
        source: Option<LocalAddress>,
        peer: SocketAddr,
        of: Arc<DatagramRun>,
        first: usize,
        count: usize,
    ) {
        let bytes = of.bytes_of(first, count.min(SendBatch::max_segments(of.datagram_bytes())));
        if bytes.is_empty() {
            return;
        }
        let segment_bytes = of.datagram_bytes().min(bytes.len());
        self.queue(source, peer, segment_bytes);
        let index = self.count - 1;
        let datagrams = bytes.len().div_ceil(segment_bytes);
        // SAFETY: `queue` has made the header `index`, and no call is running that could read it. The kernel only reads
        // what the vector leads to, which `held` keeps in place until the flush is over.
        unsafe {
            let vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            *self.vectors.at(index) = vector;
            if datagrams > 1 {
                (*self.controls.at(index)).set_segment(segment_bytes as u16);
                let kind = SourceKind::of(source);
                attach(&mut (*self.headers.at(index)).msg_hdr, self.controls.at(index), kind, true);
            }
        }
        let run = &mut self.runs[index];
        (run.bytes, run.datagrams, run.is_prepared) = (bytes.len(), datagrams as u16, true);
        self.datagrams += datagrams - 1;
        self.held.push(of);
    }

    /// Whether a datagram can go into the last header.
    fn continues(&self, source: Option<LocalAddress>, peer: SocketAddr, len: usize) -> bool {
        // In lock-step neighbours differ in the port, or in the source, so the rest is seldom looked at.
        if self.count == 0 || peer.port() != self.last_peer.port() || source != self.last_source {
            return false;
        }
        let run = &self.runs[self.count - 1];
        run.takes(len)
            && peer == self.last_peer
            && (self.segments.are_unrefused() || self.segments.are_worth_trying(peer.ip(), run.segment_bytes))
    }

    fn append(&mut self, len: usize) {
        let index = self.count - 1;
        let run = &mut self.runs[index];
        run.bytes += len;
        run.datagrams += 1;
        // SAFETY: `index` is below `count`, so below the length of all arrays. They are ours, and no call is running
        // that could read them.
        unsafe {
            (*self.vectors.at(index)).iov_len = run.bytes;
            // A lone datagram becomes a run.
            if run.datagrams == 2 {
                (*self.controls.at(index)).set_segment(run.segment_bytes as u16);
                let header = &mut (*self.headers.at(index)).msg_hdr;
                attach(header, self.controls.at(index), run.source, true);
            }
        }
        self.datagrams += 1;
    }

    fn queue(&mut self, source: Option<LocalAddress>, peer: SocketAddr, len: usize) {
        let (raw, raw_len) = RawAddress::encode(peer);
        // SAFETY: `count` is below the length of all arrays: `push` has checked. They are ours, and no
        // call is running that could read them.
        unsafe {
            *self.addresses.at(self.count) = raw;
            *self.vectors.at(self.count) =
                libc::iovec { iov_base: self.arena.at(self.filled).cast(), iov_len: len };
            let header = &mut (*self.headers.at(self.count)).msg_hdr;
            header.msg_namelen = raw_len;
            if let Some(source) = source {
                (*self.controls.at(self.count)).set_source(source);
            }
            attach(header, self.controls.at(self.count), SourceKind::of(source), false);
        }
        self.runs[self.count] = Run {
            segment_bytes: len,
            bytes: len,
            datagrams: 1,
            source: SourceKind::of(source),
            is_prepared: false,
        };
        (self.last_peer, self.last_source) = (peer, source);
        self.datagrams += 1;
        self.count += 1;
    }
}

fn header(address: *mut RawAddress, vector: *mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: msghdr is numbers and pointers, for which zero is valid; it may have private padding, so
    // it can't be written out field by field.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = address.cast();
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}
