//! Receiving many datagrams with one system call. Never allocates after `new`, never touches memory
//! that no datagram has filled. One batch serves any number of sockets, one after another.
//!
//! Everything the kernel is handed is prepared once: header `i` points at address, control room and
//! slot `i`. With UDP_GRO, udp(7), a slot holds a message of several datagrams of one peer; `iter` splits
//! them, so callers see single datagrams either way.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use crate::address::{LocalAddress, RAW_ADDRESS_LEN, RawAddress};
use crate::control::{Fixed, INCOMING_BYTES, Incoming, RecvControl};
use crate::errno::ErrorClass;
use crate::socket::Socket;

/// A socket may report one ICMP error per earlier datagram, ip(7), before it gives a datagram.
const PATH_ERRORS_MAX: usize = 8;
const CACHE_LINE: usize = 64;
/// No UDP message is longer: its length field has 16 bits.
const MESSAGE_BYTES_MAX: usize = u16::MAX as usize;

/// One datagram, valid until the batch receives again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Its bytes, at most as many as the batch has room for.
    pub payload: &'a [u8],
    /// Its sender.
    pub peer: SocketAddr,
    /// When the kernel received it, in real time; one time for all of a coalesced run. None where the socket was not
    /// asked to stamp.
    pub stamp_realtime_ns: Option<u64>,
    /// The address it was sent to. None where the socket was not asked to tell.
    pub local: Option<LocalAddress>,
    /// That is a broadcast or multicast address; never where the socket was not asked to tell.
    pub is_to_many: bool,
    /// It was longer than that; the rest is lost.
    pub truncated: bool,
}

/// Room for a number of datagrams.
pub struct ReceiveBatch {
    headers: Fixed<libc::mmsghdr>,
    controls: Fixed<Incoming>,
    addresses: Fixed<RawAddress>,
    // Never read here, but the headers point at them.
    _vectors: Fixed<libc::iovec>,
    slots: Fixed<MaybeUninit<u8>>,
    stride: usize,
    slot_bytes: usize,
    datagram_bytes_max: usize,
    /// Messages the last receive brought.
    messages: usize,
    /// They may be runs.
    coalesced: bool,
    /// Headers the kernel has written since they were last made ready.
    used: usize,
    /// Whether headers offer control room now.
    offers_control: bool,
}

// SAFETY: the raw pointers lead only into arrays the batch itself owns, which move with it.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// Room for `messages` datagrams of up to `datagram_bytes_max`. Costs address space, and memory only
    /// as datagrams fill it. A batch of one uses plain recvmsg(2).
    pub fn new(messages: usize, datagram_bytes_max: usize) -> Self {
        ReceiveBatch::with_slots(messages, datagram_bytes_max, datagram_bytes_max)
    }

    /// Room for `messages` runs of such datagrams, for sockets with `receive_coalesced`; others can be read, too.
    /// Costs 64 KiB of address space a message, and memory only as far as messages reach.
    pub fn coalescing(messages: usize, datagram_bytes_max: usize) -> Self {
        ReceiveBatch::with_slots(messages, datagram_bytes_max, datagram_bytes_max.max(MESSAGE_BYTES_MAX))
    }

    fn with_slots(messages: usize, datagram_bytes_max: usize, slot_bytes: usize) -> Self {
        let messages = messages.max(1);
        // An odd number of cache lines: at a power of two all slots would share a few cache sets.
        let stride = (slot_bytes.div_ceil(CACHE_LINE) | 1) * CACHE_LINE;
        let slots = Fixed::adopt(Box::new_uninit_slice(stride * messages));
        let controls = Fixed::new(messages, |_| Incoming([0; INCOMING_BYTES]));
        let addresses = Fixed::new(messages, |_| RawAddress::NONE);
        let vectors = Fixed::new(messages, |index| libc::iovec {
            iov_base: slots.at(index * stride).cast(),
            iov_len: slot_bytes,
        });
        let headers = Fixed::new(messages, |index| header(addresses.at(index), vectors.at(index)));
        ReceiveBatch {
            headers,
            controls,
            addresses,
            _vectors: vectors,
            slots,
            stride,
            slot_bytes,
            datagram_bytes_max,
            messages: 0,
            coalesced: false,
            used: 0,
            offers_control: false,
        }
    }

    /// Takes what has arrived, without waiting, and tells how many datagrams that is. 0: nothing there.
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
        Datagrams { batch: self, next: 0, rest: None }
    }

    /// The messages of the last receive as the kernel gave them: a datagram or a whole run of them in one piece, and
    /// how many datagrams it is. For callers that need not look at each.
    pub fn messages(&self) -> impl Iterator<Item = (Received<'_>, usize)> {
        (0..self.messages).filter_map(|index| {
            let run = if self.coalesced { self.run(index) } else { None };
            let bytes_max = if run.is_some() { self.slot_bytes } else { self.datagram_bytes_max };
            Some((self.received(index, bytes_max)?, run.map_or(1, Run::datagrams)))
        })
    }

    /// Whether the last receive used all the room, so that more may be waiting.
    pub fn is_full(&self) -> bool {
        self.messages == self.headers.len()
    }

    fn receive_with(&mut self, socket: &Socket, flags: libc::c_int) -> io::Result<usize> {
        self.messages = 0;
        for _ in 0..PATH_ERRORS_MAX {
            self.make_ready(socket.has_control());
            match self.call(socket, flags) {
                Ok(messages) => {
                    self.messages = messages;
                    self.used = messages;
                    self.coalesced = socket.coalesces();
                    return Ok(self.datagrams());
                }
                Err(error) => match ErrorClass::receiving(&error) {
                    ErrorClass::WouldBlock | ErrorClass::Interrupted => return Ok(0),
                    ErrorClass::Path => {}
                    ErrorClass::Socket => return Err(error),
                },
            }
        }
        Ok(0)
    }

    /// How many datagrams the messages are.
    fn datagrams(&self) -> usize {
        match self.coalesced {
            true => (0..self.messages).map(|index| self.run(index).map_or(1, Run::datagrams)).sum(),
            false => self.messages,
        }
    }

    /// recvmmsg(2) or, for a batch of one, the slightly cheaper recvmsg(2). MSG_TRUNC has them tell the length of a
    /// message even where the slot is shorter, recv(2).
    fn call(&mut self, socket: &Socket, flags: libc::c_int) -> io::Result<usize> {
        let flags = flags | libc::MSG_TRUNC;
        let fd = socket.as_fd().as_raw_fd();
        let first = self.headers.at(0);
        if self.headers.len() > 1 {
            let messages = self.headers.len() as libc::c_uint;
            // SAFETY: `messages` headers lie there, each pointing at room of the stated size that lives
            // as long as `self`, and nothing else reads or writes it while we hold `&mut self`.
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
                header.msg_controllen = INCOMING_BYTES as _;
            } else {
                header.msg_control = ptr::null_mut();
                header.msg_controllen = 0;
            }
        }
        self.used = 0;
        self.offers_control = wants_control;
    }

    fn header(&self, index: usize) -> &libc::mmsghdr {
        // SAFETY: valid and ours; writing it takes `&mut self`, which cannot exist while we are borrowed.
        unsafe { &*self.headers.at(index) }
    }

    /// What a message is made of, if it is more than one datagram.
    fn run(&self, index: usize) -> Option<Run> {
        let header = self.header(index);
        let segment_bytes = RecvControl::read(&header.msg_hdr).segment_bytes?;
        Run::new(header.msg_len as usize, segment_bytes)
    }

    /// A message as one datagram of up to `bytes_max`; none where it came from no Internet address.
    fn received(&self, index: usize, bytes_max: usize) -> Option<Received<'_>> {
        debug_assert!(bytes_max <= self.slot_bytes);
        let header = self.header(index);
        // SAFETY: as for the header.
        let peer = unsafe { &*self.addresses.at(index) }.decode()?;
        let start = self.slots.at(index * self.stride).cast::<u8>().cast_const();
        let kept = (header.msg_len as usize).min(bytes_max);
        let control = RecvControl::read(&header.msg_hdr);
        Some(Received {
            // SAFETY: the kernel has filled `msg_len` bytes of the slot, or all of it where that is more; a slot holds
            // at least `bytes_max`.
            payload: unsafe { std::slice::from_raw_parts(start, kept) },
            peer,
            stamp_realtime_ns: control.stamp_realtime_ns,
            local: control.local,
            is_to_many: control.is_to_many,
            truncated: kept < header.msg_len as usize || header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }
}

/// Goes through the datagrams of a batch.
struct Datagrams<'a> {
    batch: &'a ReceiveBatch,
    /// The next message.
    next: usize,
    /// What is left of the one before.
    rest: Option<Rest<'a>>,
}

/// A message that is being split, and where its next datagram begins.
struct Rest<'a> {
    message: Received<'a>,
    run: Run,
    from: usize,
}

impl<'a> Iterator for Datagrams<'a> {
    type Item = Received<'a>;

    #[inline]
    fn next(&mut self) -> Option<Received<'a>> {
        if self.batch.coalesced { self.next_of_runs() } else { self.next_message() }
    }
}

impl<'a> Datagrams<'a> {
    /// The next message, which is a datagram.
    #[inline]
    fn next_message(&mut self) -> Option<Received<'a>> {
        while self.next < self.batch.messages {
            self.next += 1;
            let datagram = self.batch.received(self.next - 1, self.batch.datagram_bytes_max);
            if datagram.is_some() {
                return datagram;
            }
        }
        None
    }

    fn next_of_runs(&mut self) -> Option<Received<'a>> {
        loop {
            if let Some(rest) = &mut self.rest {
                if let Some(datagram) = rest.split(self.batch.datagram_bytes_max) {
                    return Some(datagram);
                }
                self.rest = None;
            }
            if self.next == self.batch.messages {
                return None;
            }
            let Some(run) = self.batch.run(self.next) else { return self.next_message() };
            let message = self.batch.received(self.next, self.batch.slot_bytes);
            self.rest = message.map(|message| Rest { message, run, from: 0 });
            self.next += 1;
        }
    }
}

impl<'a> Rest<'a> {
    fn split(&mut self, datagram_bytes_max: usize) -> Option<Received<'a>> {
        let (from, len) = (self.from, self.run.len_at(self.from)?);
        self.from += len;
        let kept = self.message.payload;
        let end = (from + len.min(datagram_bytes_max)).min(kept.len());
        let payload = kept.get(from..end).unwrap_or(&[]);
        Some(Received { payload, truncated: payload.len() < len, ..self.message })
    }
}

/// How a message is made up of several datagrams: all of one length but the last, which may be shorter.
#[derive(Clone, Copy)]
struct Run {
    bytes: usize,
    segment_bytes: usize,
}

impl Run {
    /// None for a message that is one datagram: also where the segment size makes no sense.
    fn new(bytes: usize, segment_bytes: libc::c_int) -> Option<Run> {
        let segment_bytes =
            usize::try_from(segment_bytes).ok().filter(|segment| (1..bytes).contains(segment))?;
        Some(Run { bytes, segment_bytes })
    }

    fn datagrams(self) -> usize {
        self.bytes.div_ceil(self.segment_bytes)
    }

    /// Length of the datagram that begins at `from`; none at the end.
    fn len_at(self, from: usize) -> Option<usize> {
        (from < self.bytes).then(|| self.segment_bytes.min(self.bytes - from))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lens(bytes: usize, segment_bytes: libc::c_int) -> Vec<usize> {
        let run = Run::new(bytes, segment_bytes).unwrap();
        let starts = (0..run.datagrams()).map(|number| number * run.segment_bytes);
        let lens: Vec<_> = starts.map(|from| run.len_at(from).unwrap()).collect();
        assert_eq!((run.len_at(bytes), lens.iter().sum()), (None, bytes));
        lens
    }

    #[test]
    fn a_message_is_cut_into_equal_datagrams_and_a_rest() {
        assert_eq!(lens(1032, 516), [516, 516]);
        assert_eq!(lens(1033, 516), [516, 516, 1]);
        assert_eq!(lens(MESSAGE_BYTES_MAX, 1).len(), MESSAGE_BYTES_MAX);
    }

    #[test]
    fn a_segment_size_that_makes_no_sense_leaves_the_message_whole() {
        for segment_bytes in [libc::c_int::MIN, -1, 0, 100, 101, libc::c_int::MAX] {
            assert!(Run::new(100, segment_bytes).is_none(), "{segment_bytes}");
        }
        assert!(Run::new(0, 0).is_none() && Run::new(0, 8).is_none());
    }
}
