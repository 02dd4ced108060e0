//! Waiting for many sockets at once. Never receives. One poller a thread.

use std::cell::OnceCell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::clock::{self, NS_PER_S};
use crate::socket::Socket;
use crate::stop::Stop;

/// Events taken per call; what is ready beyond them comes with the next.
const EVENTS_MAX: usize = 256;
const NS_PER_MS: u64 = 1_000_000;

/// What a [`Poller`] can wait for: a [`Socket`] or a [`Stop`].
pub trait Source: AsFd {
    /// The stop that this is, if it is one.
    fn as_stop(&self) -> Option<&Stop> {
        None
    }
}

impl Source for Socket {}

impl Source for Stop {
    fn as_stop(&self) -> Option<&Stop> {
        Some(self)
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn as_stop(&self) -> Option<&Stop> {
        (**self).as_stop()
    }
}

/// How a wait went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// Sources that are ready.
    pub ready: usize,
    /// From the first empty poll to the return; 0 when something was ready at once.
    pub idle_ns: u64,
    /// Whether the thread gave up its CPU.
    pub slept: bool,
}

/// An epoll instance, epoll(7), and a few sockets beside it that poll(2) watches. Sockets are level-triggered: one with
/// datagrams left is ready again.
///
/// The kernel tells an epoll instance of every datagram that one of its sockets gets, and of every one that it has sent
/// (room in the buffer), asleep or not. A set for poll(2) exists only while a thread sleeps; but each call looks at all
/// of it.
pub struct Poller {
    fd: OwnedFd,
    /// First the epoll instance, then the busy ones.
    polled: Vec<libc::pollfd>,
    /// The busy ones' tokens, and descriptors that no other code can close.
    busy: Vec<(u64, OwnedFd)>,
    events: Box<[libc::epoll_event]>,
    tokens: Vec<u64>,
    has_pwait2: bool,
    stop: OnceCell<(u64, Stop)>,
}

impl Poller {
    /// Sockets that poll(2) watches: each wait looks at all of them. Each takes one more descriptor.
    pub const BUSY_MAX: usize = 8;

    /// A poller with nothing to wait for.
    pub fn new() -> io::Result<Self> {
        let fd = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Poller {
            polled: vec![awaited(fd.as_raw_fd())],
            fd,
            busy: Vec::new(),
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX].into_boxed_slice(),
            tokens: Vec::with_capacity(EVENTS_MAX),
            has_pwait2: true,
            stop: OnceCell::new(),
        })
    }

    /// Waits for `source`, too, and calls it `token`. Of stops, a poller takes one. A source that is
    /// closed leaves by itself.
    pub fn add(&self, source: &impl Source, token: u64) -> io::Result<()> {
        let mut flags = EventFlags::IN;
        if let Some(stop) = source.as_stop() {
            // A request stays readable for every other poller, so this one must see it but once.
            flags |= EventFlags::ET;
            let first = self.stop.set((token, stop.clone()));
            first.map_err(|_| io::Error::from(io::ErrorKind::AlreadyExists))?;
        }
        Ok(epoll::add(&self.fd, source, EventData::new_u64(token), flags)?)
    }

    /// As `add`, for one of a few sockets that have datagrams most of the time; from the ninth on it is no other. Its
    /// port stays bound until it is removed or the poller is gone.
    pub fn add_busy(&mut self, source: &Socket, token: u64) -> io::Result<()> {
        if self.busy.len() == Poller::BUSY_MAX {
            return self.add(source, token);
        }
        let fd = source.as_fd().try_clone_to_owned()?;
        self.polled.push(awaited(fd.as_raw_fd()));
        self.busy.push((token, fd));
        Ok(())
    }

    /// Waits no longer for the busy socket with this token, and tells whether there was one.
    pub fn remove_busy(&mut self, token: u64) -> bool {
        let Some(index) = self.busy.iter().position(|(busy, _)| *busy == token) else { return false };
        self.busy.swap_remove(index);
        // The epoll instance comes before them.
        self.polled.swap_remove(index + 1);
        true
    }

    /// Waits for `source` no longer.
    pub fn remove(&self, source: &impl Source) -> io::Result<()> {
        Ok(epoll::delete(&self.fd, source)?)
    }

    /// Waits until a source is ready, `timeout_ns` is over (None: never is) or a signal arrives.
    ///
    /// For the first `spin_ns` it asks again and again instead of sleeping. It always asks once before
    /// it sleeps: that is what tells idle time from work, and under load it is the cheaper call.
    pub fn wait(&mut self, timeout_ns: Option<u64>, spin_ns: u64) -> io::Result<Waited> {
        let ready = self.poll(Some(0))?;
        if ready > 0 || timeout_ns == Some(0) {
            return Ok(Waited { ready, idle_ns: 0, slept: false });
        }
        let start_ns = clock::monotonic_ns();
        let end_ns = timeout_ns.map_or(u64::MAX, |timeout_ns| start_ns.saturating_add(timeout_ns));
        let (ready, now_ns) = self.spin(start_ns, end_ns.min(start_ns.saturating_add(spin_ns)))?;
        if ready > 0 || now_ns >= end_ns {
            return Ok(Waited { ready, idle_ns: now_ns - start_ns, slept: false });
        }
        let ready = self.poll(timeout_ns.map(|_| end_ns - now_ns))?;
        Ok(Waited { ready, idle_ns: clock::monotonic_ns() - start_ns, slept: true })
    }

    /// The tokens of the sources that were ready after the last wait.
    pub fn tokens(&self) -> &[u64] {
        &self.tokens
    }

    /// Asks until something is ready or the time is `end_ns`. Returns how many are, and the time.
    fn spin(&mut self, mut now_ns: u64, end_ns: u64) -> io::Result<(usize, u64)> {
        let mut ready = 0;
        while ready == 0 && now_ns < end_ns {
            std::hint::spin_loop();
            ready = self.poll(Some(0))?;
            now_ns = clock::monotonic_ns();
        }
        Ok((ready, now_ns))
    }

    /// One call. A signal counts as nothing ready.
    fn poll(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        self.tokens.clear();
        let called = match self.busy.is_empty() {
            true => self.call(timeout_ns),
            false => self.call_poll(timeout_ns),
        };
        let ready = match called {
            Ok(ready) => ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        self.tokens.extend(self.events[..ready].iter().map(|event| event.u64));
        if let Some((_, stop)) = self.stop.get().filter(|(token, _)| self.tokens.contains(token)) {
            stop.refresh();
        }
        Ok(self.tokens.len())
    }

    /// ppoll(2) of the busy ones and the epoll instance, which is asked only if it has something to tell. Returns its
    /// events.
    fn call_poll(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        let timeout = timeout_ns.map(|timeout_ns| libc::timespec {
            tv_sec: (timeout_ns / NS_PER_S).try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: (timeout_ns % NS_PER_S) as _,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let fds = self.polled.len() as libc::nfds_t;
        // SAFETY: as many entries as stated, of open descriptors; the timeout is only read; no signal mask.
        let ready = unsafe { libc::ppoll(self.polled.as_mut_ptr(), fds, timeout, std::ptr::null()) };
        if ready < 0 {
            return Err(io::Error::last_os_error());
        }
        let ready = self.polled[1..].iter().zip(&self.busy).filter(|(polled, _)| polled.revents != 0);
        self.tokens.extend(ready.map(|(_, (token, _))| token));
        if self.polled[0].revents != 0 { self.wait_ms(Some(0)) } else { Ok(0) }
    }

    /// epoll_wait(2) where its milliseconds will do, epoll_pwait2(2) for nanoseconds.
    fn call(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        match timeout_ns {
            Some(timeout_ns) if timeout_ns > 0 && self.has_pwait2 => self.pwait2(timeout_ns),
            _ => self.wait_ms(timeout_ns),
        }
    }

    /// Linux 5.11. Older kernels lack it and older sandboxes refuse it (EPERM); then milliseconds do.
    fn pwait2(&mut self, timeout_ns: u64) -> io::Result<usize> {
        let timeout = KernelTimespec {
            seconds: (timeout_ns / NS_PER_S) as i64,
            nanoseconds: (timeout_ns % NS_PER_S) as i64,
        };
        // Not the C library's wrapper: it is newer than the C libraries a wheel must run with.
        // SAFETY: as many events as stated are writable; the timeout is only read; no signal mask.
        let ready = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.fd.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as libc::c_int,
                &raw const timeout,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        let Ok(ready) = usize::try_from(ready) else {
            let error = io::Error::last_os_error();
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
                self.has_pwait2 = false;
                return self.wait_ms(Some(timeout_ns));
            }
            return Err(error);
        };
        Ok(ready)
    }

    fn wait_ms(&mut self, timeout_ns: Option<u64>) -> io::Result<usize> {
        let timeout_ms = timeout_ns.map_or(-1, |timeout_ns| {
            libc::c_int::try_from(timeout_ns.div_ceil(NS_PER_MS)).unwrap_or(libc::c_int::MAX)
        });
        let events = self.events.as_mut_ptr();
        // SAFETY: as many events as stated are writable.
        let ready =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events, EVENTS_MAX as libc::c_int, timeout_ms) };
        usize::try_from(ready).map_err(|_| io::Error::last_os_error())
    }
}

fn awaited(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// `struct __kernel_timespec`: 64-bit numbers on every machine.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_nanosecond_waits_it_waits_the_milliseconds_above() {
        let mut poller = Poller::new().unwrap();
        poller.has_pwait2 = false;
        let waited = poller.wait(Some(NS_PER_MS + 1), 0).unwrap();
        assert_eq!((waited.ready, waited.slept), (0, true));
        assert!(waited.idle_ns >= 2 * NS_PER_MS, "{waited:?}");
    }

    #[test]
    fn a_wait_longer_than_the_kernel_can_say_is_a_long_wait() {
        for has_pwait2 in [true, false] {
            let stop = Stop::new().unwrap();
            let mut poller = Poller::new().unwrap();
            poller.has_pwait2 = has_pwait2;
            poller.add(&stop, 1).unwrap();
            stop.request();
            assert_eq!(poller.wait(Some(u64::MAX), 0).unwrap().ready, 1);
        }
    }
}
