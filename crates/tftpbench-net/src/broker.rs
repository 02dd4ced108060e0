//! Sockets of other network namespaces, asked for by their broker: a process that opens them there and hands their
//! descriptors over (SCM_RIGHTS, unix(7)). A socket stays in the namespace that it was made in, network_namespaces(7),
//! so the process that uses it need not be there. It must never wait for a broker that says nothing.
//!
//! A request is four 32-bit numbers, the low byte first: the side, and what socket(2) takes. The answer is one such
//! number, 0 or an errno, and with 0 the descriptor.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use crate::handover::{check_line, inherit};

/// A broker makes a socket in microseconds; one that needs longer than this hangs.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Which of the two namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The server's.
    Server,
    /// The generator's.
    Generator,
}

/// The connection to a broker.
#[derive(Debug)]
pub struct Broker {
    line: Mutex<OwnedFd>,
}

impl Broker {
    /// Takes a descriptor that belongs to the caller: a UNIX socket of type SOCK_SEQPACKET, anything else is an error. The
    /// number stays open and its owner's.
    pub fn inherited(number: RawFd) -> io::Result<Broker> {
        Broker::new(inherit(number)?)
    }

    /// As `inherited`, for a descriptor of our own.
    pub fn new(line: OwnedFd) -> io::Result<Broker> {
        check_line(&line)?;
        Ok(Broker { line: Mutex::new(line) })
    }

    /// A socket in a namespace. `domain`, `kind` and `protocol`: as socket(2) takes them. It is closed on exec.
    pub fn open(&self, side: Side, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        // No other answer may come between; and a panic elsewhere leaves nothing half asked.
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let side = match side {
            Side::Server => 0,
            Side::Generator => 1,
        };
        let question: Vec<u8> =
            [side, domain, kind, protocol].iter().flat_map(|number: &i32| number.to_le_bytes()).collect();
        send(&*line, &question, SendFlags::NOSIGNAL).map_err(|_| gone())?;
        match poll(&mut [PollFd::new(&*line, PollFlags::IN)], Some(&PATIENCE))? {
            0 => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the broker of network namespaces does not answer",
            )),
            _ => answer(&line),
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the broker of network namespaces has gone")
}

/// recvmsg(2).
fn answer(line: &OwnedFd) -> io::Result<OwnedFd> {
    let mut word = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received =
        recvmsg(line, &mut [IoSliceMut::new(&mut word)], &mut control, flags).map_err(|_| gone())?;
    if received.bytes != word.len() {
        return Err(gone());
    }
    let refused = i32::from_le_bytes(word);
    if refused != 0 {
        return Err(io::Error::from_raw_os_error(refused));
    }
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    descriptor.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the broker sent no descriptor"))
}

/// Where sockets are opened.
#[derive(Clone, Debug, Default)]
pub enum SocketSource {
    /// In the namespace of this process.
    #[default]
    Here,
    /// In one that a broker opens them in.
    Behind(Arc<Broker>, Side),
}

impl SocketSource {
    /// socket(2) there; always closed on exec.
    pub fn open(&self, domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
        match self {
            SocketSource::Here => open_here(domain, kind, protocol),
            SocketSource::Behind(broker, side) => broker.open(*side, domain, kind, protocol),
        }
    }
}

/// socket(2). A UDP one stays a blocking one: every call but `receive_blocking` passes MSG_DONTWAIT.
fn open_here(domain: libc::c_int, kind: libc::c_int, protocol: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned here alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::os::fd::{AsFd, AsRawFd};
    use std::thread;

    use rustix::net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType, sendmsg,
        socketpair, sockopt,
    };

    use super::*;

    fn pair() -> (Broker, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Broker::new(ours).unwrap(), theirs)
    }

    /// Answers as many questions as there are answers, with what each has: an errno and a descriptor.
    fn answers(line: OwnedFd, answers: Vec<(Vec<u8>, Option<OwnedFd>)>) -> thread::JoinHandle<Vec<[u8; 16]>> {
        thread::spawn(move || {
            let asked = answers.into_iter().map(|(word, descriptor)| {
                let mut question = [0; 16];
                rustix::io::read(&line, &mut question).unwrap();
                let descriptors: Vec<_> = descriptor.iter().map(AsFd::as_fd).collect();
                let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
                }
                sendmsg(&line, &[IoSlice::new(&word)], &mut control, SendFlags::empty()).unwrap();
                question
            });
            asked.collect()
        })
    }

    #[test]
    fn a_descriptor_is_taken_over_and_a_refusal_is_its_errno() {
        let (broker, theirs) = pair();
        let socket = open_here(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        let number = |errno: i32| errno.to_le_bytes().to_vec();
        let asked =
            answers(theirs, vec![(number(0), Some(socket)), (number(libc::EPERM), None), (number(0), None)]);
        let opened = broker.open(Side::Generator, libc::AF_INET, libc::SOCK_DGRAM, 17).unwrap();
        assert_eq!(sockopt::socket_type(&opened).unwrap(), SocketType::DGRAM);
        assert_eq!(broker.open(Side::Server, 17, 3, 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(broker.open(Side::Server, 2, 2, 0).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(asked.join().unwrap()[0], [1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 17, 0, 0, 0]);
    }

    #[test]
    fn a_broker_that_has_gone_is_one_clear_error_however_it_went() {
        for answered in [false, true] {
            let (broker, theirs) = pair();
            match answered {
                true => drop(answers(theirs, vec![(vec![1], None)])),
                false => drop(theirs),
            }
            let error = broker.open(Side::Server, libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap_err();
            assert_eq!(error.to_string(), "the broker of network namespaces has gone");
        }
    }

    #[test]
    fn only_a_socket_of_the_right_type_will_do() {
        let socket = open_here(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
        assert!(Broker::inherited(socket.as_raw_fd()).is_err());
        assert!(Broker::inherited(-1).is_err());
    }
}
