//! What a batch does when it is sent: as few calls as can be, and others in place of those that the path refuses.
//! It must never wait for more than a little room in the send buffer.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::{Flushed, Run, SendBatch, UNSPECIFIED};
use crate::control::attach;
use crate::errno::{ErrorClass, may_refuse_segments};
use crate::socket::Socket;

/// How long a flush waits for a full send buffer to drain: some 2 Mbit at 1 Gbit/s, the 212,992 bytes
/// a socket has by default. Less than any retransmission timeout, which is what losing them costs.
const ROOM_WAIT_MS: libc::c_int = 2;

impl SendBatch {
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

    pub(super) fn send_all_singly(&mut self, fd: BorrowedFd<'_>, flushed: &mut Flushed) -> io::Result<()> {
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

/// Waits a little for room in the send buffer, poll(2).
pub(super) fn has_room(fd: BorrowedFd<'_>) -> bool {
    let mut wanted = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one valid pollfd, as stated.
    unsafe { libc::poll(&mut wanted, 1, ROOM_WAIT_MS) > 0 }
}
