//! Receiving many datagrams with one system call. Never allocates after `new`, never touches memory
//! that no datagram has filled. One batch serves any number of sockets, one after another.
//!
//! Everything the kernel is handed is prepared once: header `i` points at address, control room and
//! slot `i`. With UDP_GRO a slot will hold several datagrams of one peer; `iter` is where they will be
//! split, so callers see single datagrams either way.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::address::{RAW_ADDRESS_LEN, RawAddress};
use crate::clock;
use crate::errno::Trouble;
use crate::fixed::Fixed;
use crate::socket::Socket;

/// Bytes of control messages there is room for: a stamp (32 with its header), a local address (32), a GRO size (24).
const CONTROL_BYTES: usize = 96;
/// A socket may report one ICMP error per earlier datagram, ip(7), before it gives a datagram.
const PATH_ERRORS_MAX: usize = 8;
const CACHE_LINE: usize = 64;

/// One datagram, valid until the batch receives again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Its bytes, at most as many as a slot holds.
    pub payload: &'a [u8],
    /// Who sent it.
    pub peer: SocketAddr,
    /// When the kernel received it, in real time. None where the socket was not asked to stamp.
    pub stamp_realtime_ns: Option<u64>,
    /// The address it was sent to. None where the socket was not asked to tell.
    pub local: Option<Ipv4Addr>,
    /// It was longer than a slot; the rest is lost.
    pub truncated: bool,
}

/// Room for a number of datagrams.
pub struct ReceiveBatch {
    headers: Fixed<libc::mmsghdr>,
    controls: Fixed<Control>,
    addresses: Fixed<RawAddress>,
    // Never read here, but the headers point at them.
    _vectors: Fixed<libc::iovec>,
    slots: Fixed<MaybeUninit<u8>>,
    stride: usize,
    /// Datagrams the last receive brought.
    count: usize,
    /// Headers the kernel has written since they were last made ready.
    used: usize,
    /// Whether headers offer control room now.
    offers_control: bool,
}

// SAFETY: the raw pointers lead only into arrays the batch itself owns, which move with it.
unsafe impl Send for ReceiveBatch {}

/// Control room, aligned as cmsg(3) wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

impl ReceiveBatch {
    /// Room for `messages` datagrams of up to `datagram_bytes_max`. Costs address space, and memory only
    /// as datagrams fill it. A batch of one uses plain recvmsg(2).
    pub fn new(messages: usize, datagram_bytes_max: usize) -> Self {
        let messages = messages.max(1);
        // An odd number of cache lines: at a power of two all slots would share a few cache sets.
        let stride = (datagram_bytes_max.div_ceil(CACHE_LINE) | 1) * CACHE_LINE;
        let slots = Fixed::adopt(Box::new_uninit_slice(stride * messages));
        let controls = Fixed::new(messages, |_| Control([0; CONTROL_BYTES]));
        let addresses = Fixed::new(messages, |_| RawAddress::NONE);
        let vectors = Fixed::new(messages, |index| libc::iovec {
            iov_base: slots.at(index * stride).cast(),
            iov_len: datagram_bytes_max,
        });
        let headers = Fixed::new(messages, |index| header(addresses.at(index), vectors.at(index)));
        ReceiveBatch {
            headers,
            controls,
            addresses,
            _vectors: vectors,
            slots,
            stride,
            count: 0,
            used: 0,
            offers_control: false,
        }
    }

    /// Takes what has arrived, without waiting. 0: nothing there.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        self.receive_with(socket, libc::MSG_DONTWAIT)
    }

    /// Waits for a first datagram up to `timeout_ns`, then takes what else has arrived. 0: nothing came,
    /// or a signal did. The wait may end early, and late by a tick of the kernel (1 to 10 ms).
    pub fn receive_blocking(&mut self, socket: &Socket, timeout_ns: u64) -> io::Result<usize> {
        if timeout_ns == 0 {
            return self.receive(socket);
        }
        socket.set_receive_timeout(timeout_ns)?;
        // recvmmsg(2): waits for the first one only. Means nothing to recvmsg(2).
        self.receive_with(socket, libc::MSG_WAITFORONE)
    }

    /// The datagrams of the last receive, in order of arrival.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        (0..self.count).filter_map(|index| self.received(index))
    }

    fn receive_with(&mut self, socket: &Socket, flags: libc::c_int) -> io::Result<usize> {
        self.count = 0;
        for _ in 0..PATH_ERRORS_MAX {
            self.make_ready(socket.has_control());
            match self.call(socket, flags) {
                Ok(count) => {
                    self.count = count;
                    self.used = count;
                    return Ok(count);
                }
                Err(error) => match Trouble::receiving(&error) {
                    Trouble::WouldBlock | Trouble::Interrupted => return Ok(0),
                    Trouble::Path => {}
                    Trouble::Socket => return Err(error),
                },
            }
        }
        Ok(0)
    }

    /// recvmmsg(2) or, for a batch of one, the slightly cheaper recvmsg(2).
    fn call(&mut self, socket: &Socket, flags: libc::c_int) -> io::Result<usize> {
        let fd = socket.as_fd().as_raw_fd();
        let first = self.headers.at(0);
        if self.headers.len() > 1 {
            let messages = self.headers.len() as libc::c_uint;
            // SAFETY: `messages` headers lie there, each pointing at room of the stated size that lives
            // as long as `self`, and nobody else reads or writes it while we hold `&mut self`.
            let count = unsafe { libc::recvmmsg(fd, first, messages, flags as _, ptr::null_mut()) };
            return usize::try_from(count).map_err(|_| io::Error::last_os_error());
        }
        // SAFETY: as above, for the one header there is.
        let bytes = unsafe { libc::recvmsg(fd, &raw mut (*first).msg_hdr, flags) };
        if bytes < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `first` is valid and ours; the call is over.
        unsafe { (*first).msg_len = bytes as libc::c_uint };
        Ok(1)
    }

    /// Sizes of address and control room are in and out, recvmsg(2): puts them back where the kernel
    /// wrote, and everywhere when the need for control room changes.
    fn make_ready(&mut self, wants_control: bool) {
        let stale = if wants_control == self.offers_control { self.used } else { self.headers.len() };
        for index in 0..stale {
            // SAFETY: valid, ours, and no call is running that could use it.
            let header = unsafe { &mut (*self.headers.at(index)).msg_hdr };
            header.msg_namelen = RAW_ADDRESS_LEN;
            header.msg_flags = 0;
            if wants_control {
                header.msg_control = self.controls.at(index).cast();
                header.msg_controllen = CONTROL_BYTES as _;
            } else {
                header.msg_control = ptr::null_mut();
                header.msg_controllen = 0;
            }
        }
        self.used = 0;
        self.offers_control = wants_control;
    }

    fn received(&self, index: usize) -> Option<Received<'_>> {
        // SAFETY: valid and ours; writing it takes `&mut self`, which nobody has while we are borrowed.
        let header = unsafe { &*self.headers.at(index) };
        // SAFETY: as above.
        let peer = unsafe { &*self.addresses.at(index) }.decode()?;
        let start = self.slots.at(index * self.stride).cast::<u8>().cast_const();
        let told = Told::read(&header.msg_hdr);
        Some(Received {
            // SAFETY: the kernel has filled `msg_len` bytes of the slot, which is at least that long.
            payload: unsafe { std::slice::from_raw_parts(start, header.msg_len as usize) },
            peer,
            stamp_realtime_ns: told.stamp_realtime_ns,
            local: told.local,
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

fn header(address: *mut RawAddress, vector: *mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: msghdr is numbers and pointers, for which zero is valid; it may have private padding, so
    // it can't be written out field by field.
    let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
    header.msg_hdr.msg_name = address.cast();
    header.msg_hdr.msg_namelen = RAW_ADDRESS_LEN;
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}

/// What the kernel told in control messages.
#[derive(Default)]
struct Told {
    stamp_realtime_ns: Option<u64>,
    local: Option<Ipv4Addr>,
}

impl Told {
    /// SO_TIMESTAMPNS, socket(7), and IP_PKTINFO, ip(7), where the kernel gave them.
    fn read(header: &libc::msghdr) -> Told {
        let mut told = Told::default();
        // SAFETY: `msg_control` is null or holds `msg_controllen` bytes as the kernel wrote them, aligned.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
        // The kernel ends the list by its length; the bound is for a reader's peace of mind.
        for _ in 0..CONTROL_BYTES / size_of::<libc::cmsghdr>() {
            // SAFETY: null, or a whole header inside the control room, as CMSG_FIRSTHDR and NXTHDR promise.
            let Some(found) = (unsafe { message.as_ref() }) else { break };
            match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    // SAFETY: the kernel writes a timespec behind a header of this type.
                    let stamp = unsafe { libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned() };
                    told.stamp_realtime_ns = Some(clock::timespec_ns(&stamp));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: the kernel writes an in_pktinfo behind a header of this type.
                    let info =
                        unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
                    told.local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                _ => {}
            }
            // SAFETY: `message` is a header of this list.
            message = unsafe { libc::CMSG_NXTHDR(header, message) };
        }
        told
    }
}
