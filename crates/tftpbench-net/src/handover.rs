//! Handing files to another process over a UNIX socket: each a datagram with its size, its name, and its descriptor. It
//! must never make its caller wait. What the socket does not take at once waits here, and a thread that lives only that
//! long passes it on; so nothing is lost while both processes live. The memory store hands its uploads over.
//!
//! A datagram is the size in bytes, eight of them with the low byte first, and then the name as it is; the descriptor,
//! SCM_RIGHTS in unix(7), is that of [`Sealed`] memory.

use std::any::Any;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketType, sendmsg,
    shutdown, sockopt,
};

use crate::shared_memory::Sealed;

/// Asked for as send buffer, and doubled, socket(7): some 40 files that are on their way and on no account any more.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// How long to wait before the next try when the kernel has room in the socket but not for one more descriptor on its
/// way.
const PAUSE: Duration = Duration::from_millis(10);

/// One end of a socket to the process that takes the files. Clones are the same end.
#[derive(Clone, Debug)]
pub struct Handover {
    line: Arc<Line>,
}

#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
}

/// What could not be sent yet, in order.
#[derive(Debug, Default)]
struct Waiting {
    files: VecDeque<File>,
    /// A thread sees to it that they are sent.
    has_sender: bool,
    /// The other side has gone: nothing is sent any more.
    is_closed: bool,
}

#[derive(Debug)]
struct File {
    /// Size and name.
    head: Box<[u8]>,
    memory: Sealed,
    /// What its bytes are accounted by.
    _account: Arc<dyn Any + Send + Sync>,
}

/// What came of an attempt to send the file whose turn it is.
enum Attempt {
    /// It is for the caller to drop, which may free much memory, without the lock.
    Sent(#[expect(dead_code, reason = "only dropped")] File),
    /// The other side is slow.
    TooEarly,
    /// There is none, or nothing takes it any more.
    Over,
}

impl Handover {
    /// Takes a descriptor that this process was started with: a UNIX socket of type SOCK_SEQPACKET, anything else is an
    /// error. The number stays open and its owner's.
    pub fn inherited(number: RawFd) -> io::Result<Handover> {
        Handover::new(inherit(number)?)
    }

    /// As `inherited`, for a descriptor of our own.
    pub fn new(socket: OwnedFd) -> io::Result<Handover> {
        check_line(&socket)?;
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
        Ok(Handover { line: Arc::new(Line { socket, waiting: Mutex::default() }) })
    }

    /// Hands a file over, or lets it wait for its turn. Never waits itself; where no process takes files any more, it
    /// is dropped. `account` is kept for as long as the file waits here.
    pub fn offer(&self, name: &[u8], memory: Sealed, account: Arc<dyn Any + Send + Sync>) {
        let mut head = (memory.length() as u64).to_le_bytes().to_vec();
        head.extend_from_slice(name);
        let mut waiting = self.line.waiting();
        if waiting.is_closed {
            return;
        }
        waiting.files.push_back(File { head: head.into(), memory, _account: account });
        if waiting.has_sender {
            return;
        }
        loop {
            match self.line.attempt(&mut waiting) {
                Attempt::Sent(_) => {}
                Attempt::TooEarly => break,
                Attempt::Over => return,
            }
        }
        let line = Arc::clone(&self.line);
        let sender = thread::Builder::new().name("tftp-handover".into());
        // Without a thread, the next offer tries again.
        waiting.has_sender = sender.spawn(move || line.send_all()).is_ok();
    }
}

/// A descriptor of our own for what a number stands for, which stays open and its owner's.
pub(crate) fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl(2) takes numbers, and answers EBADF to one that is no descriptor.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned here alone.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Refuses what keeps no borders between messages, or carries no descriptors.
pub(crate) fn check_line(socket: &OwnedFd) -> io::Result<()> {
    let fits = sockopt::socket_domain(socket)? == AddressFamily::UNIX
        && sockopt::socket_type(socket)? == SocketType::SEQPACKET;
    if !fits {
        let what = "not a UNIX socket of type SOCK_SEQPACKET";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

impl Line {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Each change is one push or pop, so a panic elsewhere does not spoil it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the thread does until nothing waits any more.
    fn send_all(&self) {
        let mut has_waited = false;
        loop {
            // The lock is let go between two files, so that an offer waits for one system call at most.
            let attempt = self.attempt(&mut self.waiting());
            match attempt {
                Attempt::Over => return,
                Attempt::Sent(_) => has_waited = false,
                // It is writable, and yet there was no room.
                Attempt::TooEarly if has_waited => thread::sleep(PAUSE),
                Attempt::TooEarly => {
                    // Without a bound: the socket becomes writable, or the other side ends it. A signal costs a turn.
                    let _ = poll(&mut [PollFd::new(&self.socket, PollFlags::OUT)], None);
                    has_waited = true;
                }
            }
        }
    }

    fn attempt(&self, waiting: &mut Waiting) -> Attempt {
        let Some(file) = waiting.files.pop_front() else {
            waiting.has_sender = false;
            return Attempt::Over;
        };
        match self.send(&file) {
            Ok(()) => Attempt::Sent(file),
            // unix(7): TOOMANYREFS, more descriptors on their way than a process may have open.
            Err(Errno::AGAIN | Errno::INTR | Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
                waiting.files.push_front(file);
                Attempt::TooEarly
            }
            Err(_) => {
                // A process that still reads must learn that no more will come.
                let _ = shutdown(&self.socket, Shutdown::Both);
                *waiting = Waiting { is_closed: true, ..Waiting::default() };
                Attempt::Over
            }
        }
    }

    /// sendmsg(2).
    fn send(&self, file: &File) -> Result<(), Errno> {
        let descriptors = [file.memory.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.socket, &[IoSlice::new(&file.head)], &mut control, flags).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::fs::fstat;
    use rustix::net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, recvmsg, socketpair,
    };

    use super::*;
    use crate::SharedMemory;

    fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn handover() -> (Handover, OwnedFd) {
        let (ours, theirs) = pair(SocketType::SEQPACKET);
        (Handover::new(ours).unwrap(), theirs)
    }

    fn memory(bytes: &[u8]) -> Sealed {
        let mut memory = SharedMemory::new().unwrap();
        memory.append(bytes).unwrap();
        memory.seal().unwrap()
    }

    /// The next file's size, name, and size by its descriptor; `None` once no more can come.
    fn take(socket: &OwnedFd) -> Option<(u64, String, u64)> {
        let mut head = [0; 64];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [io::IoSliceMut::new(&mut head)];
        let received = recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        let Some(RecvAncillaryMessage::ScmRights(mut descriptors)) = control.drain().next() else {
            assert_eq!(received.bytes, 0);
            return None;
        };
        let size = fstat(descriptors.next().unwrap()).unwrap().st_size as u64;
        let (length, name) = head[..received.bytes].split_at(8);
        let length = u64::from_le_bytes(length.try_into().unwrap());
        Some((length, String::from_utf8(name.to_vec()).unwrap(), size))
    }

    #[test]
    fn more_files_than_the_socket_holds_arrive_in_order_without_waiting() {
        let (handover, theirs) = handover();
        let account: Arc<dyn Any + Send + Sync> = Arc::new(());
        // Some 40 fit; any process may have 1024 open.
        for number in 0..600 {
            handover.offer(
                format!("file {number}").as_bytes(),
                memory(&vec![0; number]),
                Arc::clone(&account),
            );
        }
        let waiting = Arc::strong_count(&account) - 1;
        assert!((400..600).contains(&waiting), "{waiting}");
        for number in 0..600 {
            assert_eq!(take(&theirs), Some((number, format!("file {number}"), number)));
        }
        assert_eq!(Arc::strong_count(&account), 1);
        drop(handover);
        assert_eq!(take(&theirs), None);
    }

    #[test]
    fn a_side_that_goes_away_ends_it_with_files_waiting_or_without() {
        for files in [1, 600] {
            let (handover, theirs) = handover();
            for _ in 1..files {
                handover.offer(b"f", memory(b""), Arc::new(()));
            }
            drop(theirs);
            let until_ns = crate::clock::monotonic_ns() + crate::clock::NS_PER_S;
            while !handover.line.waiting().is_closed && crate::clock::monotonic_ns() < until_ns {
                handover.offer(b"f", memory(b""), Arc::new(()));
            }
            assert!(handover.line.waiting().is_closed);
            assert!(handover.line.waiting().files.is_empty());
        }
    }

    #[test]
    fn only_a_socket_of_the_right_type_will_do() {
        let (ours, _theirs) = pair(SocketType::STREAM);
        assert!(Handover::inherited(ours.as_raw_fd()).is_err());
        assert!(Handover::inherited(memory(b"").as_fd().as_raw_fd()).is_err());
        assert!(Handover::inherited(-1).is_err());
        let (ours, _theirs) = pair(SocketType::SEQPACKET);
        assert!(Handover::inherited(ours.as_raw_fd()).is_ok());
    }
}
