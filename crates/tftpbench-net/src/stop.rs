//! Asking running loops to stop: from other threads, and from a signal handler through a descriptor.
//! Never blocks, never unset. Loops watch it with a [`Poller`](crate::Poller) or ask it now and then.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::ioctl_fionread;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::clock;

/// A pipe whose unread bytes are the requests. They are never read: that way every poller that watches
/// it learns of each one, however many there are. Clones are the same stop.
#[derive(Clone, Debug)]
pub struct Stop {
    pipe: Arc<Pipe>,
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Requests seen so far.
    requests: AtomicU32,
    /// When the pipe was last looked at, on the coarse clock.
    looked_ns: AtomicU64,
}

impl Stop {
    /// A stop that was not requested yet.
    pub fn new() -> io::Result<Stop> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let (requests, looked_ns) = (AtomicU32::new(0), AtomicU64::new(0));
        Ok(Stop { pipe: Arc::new(Pipe { read, write, requests, looked_ns }) })
    }

    /// Asks for a stop; a second time, for one at once.
    pub fn request(&self) {
        // A full pipe holds thousands of requests, so one that fails is not missed.
        let _ = rustix::io::write(&self.pipe.write, &[0]);
        self.refresh();
    }

    /// Requests so far. Cheap enough for every turn of a loop: it looks at the pipe once per tick of
    /// the kernel (1 to 10 ms), and is up to date after a poller named this stop.
    pub fn requests(&self) -> u32 {
        let now_ns = clock::monotonic_coarse_ns();
        if self.pipe.looked_ns.load(Ordering::Relaxed) != now_ns {
            self.pipe.looked_ns.store(now_ns, Ordering::Relaxed);
            self.refresh();
        }
        self.pipe.requests.load(Ordering::Acquire)
    }

    /// The descriptor where each byte written is a request: non-blocking, as Python's
    /// `signal.set_wakeup_fd` wants it. Open as long as any clone of this stop.
    pub fn write_fd(&self) -> RawFd {
        self.pipe.write.as_raw_fd()
    }

    /// Counts the bytes in the pipe, ioctl_tty(2) FIONREAD.
    pub(crate) fn refresh(&self) {
        if let Ok(bytes) = ioctl_fionread(&self.pipe.read) {
            let requests = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.pipe.requests.fetch_max(requests, Ordering::Release);
        }
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.read.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clone_counts_the_requests_of_all() {
        let stop = Stop::new().unwrap();
        let clone = stop.clone();
        assert_eq!(stop.requests(), 0);
        clone.request();
        stop.request();
        assert_eq!((stop.requests(), clone.requests()), (2, 2));
    }

    #[test]
    fn more_requests_than_the_pipe_holds_do_not_block() {
        let stop = Stop::new().unwrap();
        (0..100_000).for_each(|_| stop.request());
        assert!(stop.requests() >= 2);
    }

    #[test]
    fn a_byte_written_by_a_signal_handler_is_a_request() {
        let stop = Stop::new().unwrap();
        assert_eq!(stop.requests(), 0);
        assert_eq!(rustix::io::write(&stop.pipe.write, &[15]), Ok(1));
        // Within a tick of the kernel, as promised.
        let until_ns = clock::monotonic_ns() + clock::NS_PER_S;
        while stop.requests() == 0 && clock::monotonic_ns() < until_ns {}
        assert_eq!(stop.requests(), 1);
    }
}
