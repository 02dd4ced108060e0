//! Sending many datagrams with one system call. Never allocates after `new`. One batch serves any
//! number of sockets, one after another, but must be flushed between them.
//!
//! Datagrams are packed one behind another in one arena. A run of equally long ones to one peer, which a shorter one
//! may end, shares one header: the vector spans the run, and UDP_SEGMENT, udp(7), tells the kernel where to cut it. A
//! datagram alone has a plain header. A path that refuses segments is sent the run datagram by datagram, so nothing is
//! lost by trying, and segments of that length are not tried again on it.
//!
//! A run may also have been prepared elsewhere: its vector then leads there, and it is kept apart from the others.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use crate::address::{LocalAddress, RawAddress};
use crate::control::{Outgoing, SourceKind, attach};
use crate::datagram_run::{DatagramRun, Payload};
use crate::errno::{ErrorClass, may_refuse_segments};
use crate::fixed::Fixed;
use crate::segments::Segments;
use crate::socket::Socket;

/// Segments of one message: UDP_MAX_SEGMENTS in linux/udp.h, of kernels before 6.9.
const SEGMENTS_MAX: u16 = 64;
/// Payload of one message: 16 bits of length less the headers of IPv4 and UDP.
const RUN_BYTES_MAX: usize = 65_507;

/// Where no peer is named.
const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// How long a flush waits for a full send buffer to drain: some 2 Mbit at 1 Gbit/s, the 212,992 bytes
/// a socket has by default. Less than any retransmission timeout, which is what losing them costs.
const ROOM_WAIT_MS: libc::c_int = 2;

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

    /// Sends everything queued. What the kernel does not take is lost, as datagrams may be: the
    /// protocol retransmits. An error is a fault of the socket; the batch is empty then, too.
    pub fn flush(&mut self, socket: &Socket) -> io::Result<Flushed> {
        let can_segment = self.datagrams == self.count || self.is_probed || self.probe(socket);
        let mut flushed = Flushed::default();
        let sent = match can_segment {
            true => self.send_all(socket.as_fd(), &mut flushed),
            false => self.send_all_singly(socket.as_fd(), &mut flushed),
        };
        flushed.unsent = self.datagrams - flushed.sent;
        self.count = 0;
        self.datagrams = 0;
        self.filled = 0;
        self.held.clear();
        sent.map(|()| flushed)
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

    /// Asks the kernel once; without its answer no run may be sent whole. Nothing is asked while each datagram is
    /// alone.
    fn probe(&mut self, socket: &Socket) -> bool {
        self.is_probed = true;
        let can_segment = socket.knows_segments();
        if !can_segment {
            self.segments.refuse_all();
        }
        can_segment
    }

    fn send_all(&mut self, fd: BorrowedFd<'_>, flushed: &mut Flushed) -> io::Result<()> {
        let mut next = 0;
        // Each failed call but the first of a message moves `next`, so the loop makes at most two calls a message.
        let mut failed = false;
        while next < self.count {
            let messages = self.worth_trying(next);
            if messages == 0 {
                if !self.send_singly(fd, next, flushed)? {
                    break;
                }
                next += 1;
                continue;
            }
            flushed.calls += 1;
            match self.call(fd, next, messages) {
                Ok(messages) => {
                    flushed.sent += self.datagrams_of(next, messages);
                    next += messages;
                    failed = false;
                }
                Err(error) if self.runs[next].datagrams > 1 && may_refuse_segments(&error) => {
                    if !self.send_singly(fd, next, flushed)? {
                        break;
                    }
                    next += 1;
                    failed = false;
                }
                Err(error) => match action_after(error, fd, &mut failed)? {
                    SendAction::Again => {}
                    SendAction::Skip => next += 1,
                    SendAction::Stop => break,
                },
            }
        }
        Ok(())
    }

    /// Messages from `first` on without segments that were refused before.
    fn worth_trying(&self, first: usize) -> usize {
        if self.segments.are_unrefused() {
            return self.count - first;
        }
        let is_refused = |index: &usize| {
            let Run { datagrams, segment_bytes, .. } = self.runs[*index];
            datagrams > 1 && !self.segments.are_worth_trying(self.peer_of(*index), segment_bytes)
        };
        (first..self.count).find(is_refused).unwrap_or(self.count) - first
    }

    /// The address that a message goes to; unspecified where the socket is connected.
    fn peer_of(&self, message: usize) -> IpAddr {
        // SAFETY: `message` is below `count`, so `queue` has written the address; writing it takes `&mut self`.
        unsafe { &*self.addresses.at(message) }.decode().unwrap_or(UNSPECIFIED).ip()
    }

    fn datagrams_of(&self, first: usize, messages: usize) -> usize {
        if self.datagrams == self.count {
            return messages;
        }
        self.runs[first..first + messages].iter().map(|run| usize::from(run.datagrams)).sum()
    }

    fn send_all_singly(&mut self, fd: BorrowedFd<'_>, flushed: &mut Flushed) -> io::Result<()> {
        for message in 0..self.count {
            if !self.send_singly(fd, message, flushed)? {
                break;
            }
        }
        Ok(())
    }

    /// Sends the datagrams of one message each with a call; false where the send buffer stays full. If they do pass, it
    /// was the segments that were refused.
    fn send_singly(&mut self, fd: BorrowedFd<'_>, message: usize, flushed: &mut Flushed) -> io::Result<bool> {
        let (run, sent_before) = (self.runs[message], flushed.sent);
        let (mut next, mut failed, mut has_room) = (0, false, true);
        while has_room && next < usize::from(run.datagrams) {
            flushed.calls += 1;
            match self.call_singly(fd, message, next) {
                Ok(()) => {
                    flushed.sent += 1;
                    next += 1;
                    failed = false;
                }
                Err(error) => match action_after(error, fd, &mut failed)? {
                    SendAction::Again => {}
                    SendAction::Skip => next += 1,
                    SendAction::Stop => has_room = false,
                },
            }
        }
        if run.datagrams > 1 && flushed.sent > sent_before {
            self.segments.refuse(self.peer_of(message), run.segment_bytes);
        }
        Ok(has_room)
    }

    /// sendmmsg(2) from message `first` on or, for a single one, the slightly cheaper sendmsg(2).
    /// At least one is sent if it succeeds.
    fn call(&mut self, fd: BorrowedFd<'_>, first: usize, messages: usize) -> io::Result<usize> {
        let header = self.headers.at(first);
        let sent = match messages {
            1 => {
                // SAFETY: a header that `queue` completed; what it points at is ours and stays put.
                let bytes = unsafe {
                    libc::sendmsg(fd.as_raw_fd(), &raw const (*header).msg_hdr, libc::MSG_DONTWAIT)
                };
                bytes.min(1) as libc::c_int
            }
            // SAFETY: `messages` such headers lie there. The call writes only their `msg_len`.
            messages => unsafe {
                let flags = libc::MSG_DONTWAIT;
                libc::sendmmsg(fd.as_raw_fd(), header, messages as libc::c_uint, flags as _)
            },
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    /// sendmsg(2) of one datagram of a message.
    fn call_singly(&mut self, fd: BorrowedFd<'_>, message: usize, datagram: usize) -> io::Result<()> {
        let run = self.runs[message];
        let from = datagram * run.segment_bytes;
        let len = run.segment_bytes.min(run.bytes - from);
        // SAFETY: `message` is below `count`, so `queue` completed its header and vector. The datagram lies inside the
        // vector; the copies live until the call is over, and what they point at is ours or held, and stays put.
        let sent = unsafe {
            let mut header = (*self.headers.at(message)).msg_hdr;
            let mut vector = *self.vectors.at(message);
            vector.iov_base = vector.iov_base.cast::<u8>().add(from).cast();
            vector.iov_len = len;
            header.msg_iov = &raw mut vector;
            attach(&mut header, self.controls.at(message), run.source, false);
            libc::sendmsg(fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT)
        };
        if sent >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// What follows a failed call.
enum SendAction {
    Again,
    Skip,
    Stop,
}

/// `failed`: whether the same call has failed before. An error is a fault of the socket.
fn action_after(error: io::Error, fd: BorrowedFd<'_>, failed: &mut bool) -> io::Result<SendAction> {
    match ErrorClass::sending(&error) {
        ErrorClass::Socket => Err(error),
        ErrorClass::WouldBlock if *failed || !has_room(fd) => Ok(SendAction::Stop),
        // The error may have been an earlier datagram's, ip(7): once more.
        _ if !std::mem::replace(failed, true) => Ok(SendAction::Again),
        _ => {
            *failed = false;
            Ok(SendAction::Skip)
        }
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

/// Waits a little for room in the send buffer, poll(2).
fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid pollfd, as stated.
    unsafe { libc::poll(&mut wanted, 1, ROOM_WAIT_MS) > 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(
            (flushed.sent, flushed.calls, seen.len()),
            (3, 1 + 3, 3),
            "shorter ones have their own trial"
        );
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
}
