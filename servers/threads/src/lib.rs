//! The thread-per-transfer TFTP server: one thread admits, and each transfer has a thread and a socket of its own.
//!
//! It holds a concurrency strategy and nothing else; what a server does is in `tftpbench-serve`. There is no pool: a
//! thread is made for a transfer and ends with it, which is what this server exists to measure.
#![forbid(unsafe_code)]

mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};

use tftpbench_net::clock::monotonic_ns;
use tftpbench_net::{LocalAddress, Poller, ReceiveBatch, Socket, Stop};
use tftpbench_serve::{
    Admission, BATCH_MAX, Counter, Descriptors, REPLY_BYTES_MAX, ServeConfig, ServeError, Service, SocketUse,
    Summary, Transfer, listen, raise_open_files, reply_socket,
};

/// Stack of a transfer's thread. Its call frames hold no buffers; 10,000 of them must fit on any machine.
const STACK_BYTES: usize = 64 * 1024;

/// Requests taken in at one system call.
const REQUESTS: usize = 64;

/// A request may be 512 bytes long (RFC 2347); what is longer must be seen to be.
const REQUEST_BYTES: usize = 1024;

/// While stopping: how often to look whether the last transfer has ended.
const DRAIN_SLICE_NS: u64 = 20_000_000;

/// Serves until `stop` is requested and the transfers in flight have ended, their grace is over, or `stop` is requested
/// again. `ready` is called with the bound address as soon as requests are answered.
pub fn run(config: ServeConfig, stop: Stop, ready: impl FnOnce(SocketAddr)) -> Result<Summary, ServeError> {
    refuse_options_of_loops(&config)?;
    raise_open_files(&config, DESCRIPTORS)?;
    let socket = listen(&config)?;
    let service = Service::new(config, monotonic_ns())?;
    let mut poller = Poller::new().map_err(ServeError::kernel("epoll_create1"))?;
    poller.add(&socket, 0).map_err(ServeError::kernel("epoll_ctl"))?;
    poller.add(&stop, 1).map_err(ServeError::kernel("epoll_ctl"))?;
    ready(socket.local_addr());
    let abort = AtomicBool::new(false);
    thread::scope(|scope| {
        let requests = ReceiveBatch::new(REQUESTS, REQUEST_BYTES);
        let spawner = Spawner { scope, service: &service, abort: &abort };
        let listener = Listener { spawner, service: &service, socket: &socket, requests };
        let served = listener.serve(&mut poller, &stop);
        // Whatever ended the loop ends the transfers too; the scope waits for their threads.
        abort.store(true, Ordering::Relaxed);
        served
    })?;
    service.count(Counter::UdpDrops, socket.drops());
    Ok(service.summary())
}

/// Open files that a server with this configuration needs at most.
pub fn open_files(config: &ServeConfig) -> u64 {
    DESCRIPTORS.needed(config.max_transfers)
}

/// A socket a transfer; the epoll instance, the listening socket and the root.
const DESCRIPTORS: Descriptors = Descriptors { transfer: 1, server: 3 };

/// Options that a server with a thread and a socket for each transfer does not have.
fn refuse_options_of_loops(config: &ServeConfig) -> Result<(), ServeError> {
    let refused = |option, reason| Err(ServeError::Option { option, reason });
    if config.sockets != SocketUse::Shared {
        return refused("--sockets", "is for epoll; every transfer has a socket of its own here");
    }
    if config.batch != BATCH_MAX {
        return refused("--batch", "is for epoll; a transfer's batch is its window here");
    }
    if config.workers != 1 {
        return refused("--workers", "is for epoll; every transfer has a thread of its own here");
    }
    Ok(())
}

struct Listener<'scope, 'env> {
    spawner: Spawner<'scope, 'env>,
    service: &'env Arc<Service>,
    socket: &'env Socket,
    requests: ReceiveBatch,
}

impl Listener<'_, '_> {
    fn serve(mut self, poller: &mut Poller, stop: &Stop) -> Result<(), ServeError> {
        let mut drained_at_ns = None;
        loop {
            poller
                .wait(drained_at_ns.map(|_| DRAIN_SLICE_NS), 0)
                .map_err(ServeError::kernel("epoll_wait"))?;
            let now_ns = monotonic_ns();
            let requests = stop.requests();
            if requests > 0 && drained_at_ns.is_none() {
                self.service.drain();
                drained_at_ns = Some(now_ns + self.service.config().grace_ns);
            }
            let is_late = drained_at_ns.is_some_and(|end_ns| now_ns >= end_ns);
            let is_idle = drained_at_ns.is_some() && self.service.undecided() == 0;
            if requests > 1 || is_late || is_idle {
                return Ok(());
            }
            self.admit(now_ns)?;
        }
    }

    fn admit(&mut self, now_ns: u64) -> Result<(), ServeError> {
        let count = self.requests.receive(self.socket).map_err(ServeError::kernel("recvmmsg"))?;
        self.service.count(Counter::DatagramsIn, count as u64);
        let mut reply = [0; REPLY_BYTES_MAX];
        for request in self.requests.iter() {
            if self.service.passes_over(&request) {
                continue;
            }
            let (peer, asked) = (request.peer, request.local);
            let length = match self.service.admit(now_ns, peer, request.payload, &mut reply) {
                Admission::Repeated(transfer) => {
                    self.wake(transfer, asked);
                    continue;
                }
                Admission::Ignore => continue,
                Admission::Reply(length) => length,
                Admission::Start(transfer) => match self.spawner.spawn(transfer, asked) {
                    Ok(()) => continue,
                    Err(message) => self.service.refuse(now_ns, peer, message, &mut reply),
                },
            };
            // Lost or refused by the path: the client asks again.
            if self.socket.send_from(asked, &reply[..length], peer).is_ok() {
                self.service.count(Counter::DatagramsOut, 1);
            }
        }
        Ok(())
    }

    /// Wakes a transfer that was asked for again, by an empty datagram: it comes behind all that the client sent
    /// before, and ahead of what it sends from now on, so the copy is judged in its place. Lost, the copy is seen
    /// within a slice of waiting.
    fn wake(&self, transfer: Option<SocketAddr>, asked: Option<LocalAddress>) {
        if let Some(transfer) = transfer {
            let _ = self.socket.send_from(asked, &[], transfer);
        }
    }
}

/// Starts transfers, from any thread.
#[derive(Clone, Copy)]
struct Spawner<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    service: &'env Arc<Service>,
    /// Set when transfers must end at once.
    abort: &'env AtomicBool,
}

impl Spawner<'_, '_> {
    fn spawn(self, transfer: Transfer, asked: Option<LocalAddress>) -> Result<(), &'static str> {
        let config = self.service.config();
        let socket =
            reply_socket(config, asked, transfer.awaits_windows()).map_err(|_| "server is out of sockets")?;
        transfer.set_socket(socket.local_addr());
        let carry_out = move || {
            let next = worker::carry_out(transfer, &socket, self.service, self.abort);
            drop(socket);
            // Where there is no room for it, the client asks once more.
            next.map(|next| self.spawn(next, asked));
        };
        thread::Builder::new()
            .name("tftp-transfer".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(self.scope, carry_out)
            .map(drop)
            .map_err(|_| "server is out of threads")
    }
}
