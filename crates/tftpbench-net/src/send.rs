//! Sending many datagrams with one system call. Never allocates after `new`. One batch serves any
//! number of sockets, one after another, but must be flushed between them.
//!
//! Datagrams are packed one behind another in one arena, so that UDP_SEGMENT can cover a run of equal
//! ones to one peer with a single header; a header's vector would then span the run.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::address::RawAddress;
use crate::errno::Trouble;
use crate::fixed::Fixed;
use crate::socket::Socket;

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
    sources: Fixed<SourceControl>,
    vectors: Fixed<libc::iovec>,
    arena: Fixed<MaybeUninit<u8>>,
    /// Bytes at the front of the arena that hold queued datagrams.
    filled: usize,
    /// Bytes at the front of the arena that have ever been written, so may be lent out as a slice.
    initialised: usize,
    count: usize,
}

// SAFETY: the raw pointers lead only into arrays the batch itself owns, which move with it.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Room for `messages` datagrams of `bytes` together, which must be at least the longest one.
    /// Costs address space, and memory only as datagrams fill it.
    pub fn new(messages: usize, bytes: usize) -> Self {
        let messages = messages.max(1);
        let addresses = Fixed::new(messages, |_| RawAddress::NONE);
        let sources = Fixed::new(messages, |_| SourceControl::new());
        let vectors = Fixed::new(messages, |_| libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 });
        let headers = Fixed::new(messages, |index| header(addresses.at(index), vectors.at(index)));
        let arena = Fixed::adopt(Box::new_uninit_slice(bytes));
        SendBatch { headers, addresses, sources, vectors, arena, filled: 0, initialised: 0, count: 0 }
    }

    /// Queues one datagram: `fill` writes it into `len_max` bytes of stale contents and returns its
    /// length; 0 queues nothing. False: no room, flush first; `fill` was not called.
    pub fn push(&mut self, peer: SocketAddr, len_max: usize, fill: impl FnOnce(&mut [u8]) -> usize) -> bool {
        self.push_from(None, peer, len_max, fill)
    }

    /// As `push`, with a source address other than the one the socket is bound to (IP_PKTINFO, ip(7)): any of this
    /// machine's, so any of 127.0.0.0/8.
    pub fn push_from(
        &mut self,
        source: Option<Ipv4Addr>,
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
            self.queue(source, peer, len);
        }
        true
    }

    /// Whether a datagram of up to `len_max` bytes can be queued without a flush.
    pub fn has_room(&self, len_max: usize) -> bool {
        self.count < self.headers.len() && len_max <= self.arena.len() - self.filled
    }

    /// Sends everything queued. What the kernel does not take is lost, as datagrams may be: the
    /// protocol retransmits. An error is a fault of the socket; the batch is empty then, too.
    pub fn flush(&mut self, socket: &Socket) -> io::Result<Flushed> {
        let flushed = self.send_all(socket.as_fd());
        self.count = 0;
        self.filled = 0;
        flushed
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Datagrams queued.
    pub fn len(&self) -> usize {
        self.count
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

    fn queue(&mut self, source: Option<Ipv4Addr>, peer: SocketAddr, len: usize) {
        let (raw, raw_len) = RawAddress::encode(peer);
        // SAFETY: `count` is below the length of all four arrays: `push` has checked. They are ours,
        // and no call is running that could read them.
        unsafe {
            *self.addresses.at(self.count) = raw;
            *self.vectors.at(self.count) =
                libc::iovec { iov_base: self.arena.at(self.filled).cast(), iov_len: len };
            let header = &mut (*self.headers.at(self.count)).msg_hdr;
            header.msg_namelen = raw_len;
            (header.msg_control, header.msg_controllen) = match source {
                Some(source) => {
                    (*self.sources.at(self.count)).info.ipi_spec_dst.s_addr =
                        u32::from_ne_bytes(source.octets());
                    (self.sources.at(self.count).cast(), SOURCE_CONTROL_LEN as _)
                }
                None => (std::ptr::null_mut(), 0),
            };
        }
        self.filled += len;
        self.count += 1;
    }

    fn send_all(&mut self, fd: BorrowedFd<'_>) -> io::Result<Flushed> {
        let mut flushed = Flushed::default();
        let mut next = 0;
        // Whether the datagram at `next` has failed before. Each failure but the first moves `next`,
        // so the loop makes at most two calls a datagram.
        let mut failed = false;
        while next < self.count {
            flushed.calls += 1;
            let error = match self.call(fd, next) {
                Ok(sent) => {
                    flushed.sent += sent;
                    next += sent;
                    failed = false;
                    continue;
                }
                Err(error) => error,
            };
            match Trouble::sending(&error) {
                Trouble::Socket => return Err(error),
                Trouble::WouldBlock if failed || !has_room(fd) => break,
                // The error may have been an earlier datagram's, ip(7): once more.
                _ if !failed => failed = true,
                _ => {
                    next += 1;
                    failed = false;
                }
            }
        }
        flushed.unsent = self.count - flushed.sent;
        Ok(flushed)
    }

    /// sendmmsg(2) from datagram `first` on or, for a last single one, the slightly cheaper sendmsg(2).
    /// At least one is sent if it succeeds.
    fn call(&mut self, fd: BorrowedFd<'_>, first: usize) -> io::Result<usize> {
        let header = self.headers.at(first);
        let sent = match self.count - first {
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
}

/// One IP_PKTINFO control message, laid out as cmsg(3) wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SourceControl {
    header: libc::cmsghdr,
    info: libc::in_pktinfo,
}

const SOURCE_CONTROL_LEN: usize = std::mem::size_of::<SourceControl>();

impl SourceControl {
    fn new() -> SourceControl {
        let nowhere = libc::in_addr { s_addr: 0 };
        // SAFETY: cmsghdr is numbers, for which zero is valid; it may have private padding.
        let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
        // SAFETY: computes a length from a length.
        header.cmsg_len = unsafe { libc::CMSG_LEN(std::mem::size_of::<libc::in_pktinfo>() as u32) } as _;
        header.cmsg_level = libc::IPPROTO_IP;
        header.cmsg_type = libc::IP_PKTINFO;
        SourceControl {
            header,
            info: libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: nowhere, ipi_addr: nowhere },
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

    fn peer() -> SocketAddr {
        "127.0.0.1:9".parse().unwrap()
    }

    #[test]
    fn a_full_batch_refuses_without_asking_for_contents() {
        let mut batch = SendBatch::new(2, 100);
        assert!(batch.push(peer(), 60, |room| room.len()));
        assert!(!batch.push(peer(), 41, |_| panic!("no room in the arena")));
        assert!(batch.push(peer(), 40, |_| 1));
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
