//! The thread-per-transfer TFTP server: one thread admits, and each transfer has a thread and a socket of its own.
//!
//! It holds a concurrency strategy and nothing else; what a server does is in `tftpbench-serve`. There is no pool: a
//! thread is made for a transfer and ends with it, which is what this server exists to measure.
//!
//! A transfer must never outlive a stop by more than one slice of waiting and one of sending. The listener starts its
//! thread, or the thread of a transfer that the client has lost, which makes way for it.
#![forbid(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope};

use tftpbench_net::clock::monotonic_ns;
use tftpbench_net::{LocalAddress, Payload, Poller, ReceiveBatch, SendBatch, Socket, Stop};
use tftpbench_serve::{
    Admission, BATCH_MAX, Counter, Descriptors, REPLY_BYTES_MAX, REQUEST_BYTES, Repeated, ServeConfig,
    ServeError, Service, SocketUse, Summary, Transfer, listen, raise_open_files, reply_socket,
};

/// Stack of a transfer's thread. Its call frames hold no buffers; 10,000 of them must fit on any machine.
const STACK_BYTES: usize = 64 * 1024;

/// Requests taken in at one system call.
const REQUESTS: usize = 64;

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
        let work = move || {
            let next = carry_out(transfer, &socket, self.service, self.abort);
            drop(socket);
            // Where there is no room for it, the client asks once more.
            next.map(|next| self.spawn(next, asked));
        };
        thread::Builder::new()
            .name("tftp-transfer".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(self.scope, work)
            .map(drop)
            .map_err(|_| "server is out of threads")
    }
}

/// The longest wait in the kernel, so that a stop, or a peer that asks for something else, is noticed.
const WAIT_SLICE_NS: u64 = 200_000_000;

/// Datagrams to a system call, where the window has as many.
const BATCH: u16 = 64;

/// Runs of datagrams to a system call: each has room for 64 KiB, which stays taken once it was needed. What was sent in
/// a row comes as one or two.
const RUNS: u16 = 2;

/// Drives a transfer to its end. What it returns is to take its place: the client has lost this one, and asked again.
fn carry_out(transfer: Transfer, socket: &Socket, service: &Service, abort: &AtomicBool) -> Option<Transfer> {
    let messages = usize::from(transfer.windowsize().min(BATCH));
    let send = SendBatch::new(messages, messages * transfer.room_bytes());
    let receive = match transfer.awaits_windows() {
        true => ReceiveBatch::coalescing(messages.min(RUNS.into()), transfer.receive_bytes_max()),
        false => ReceiveBatch::new(messages, transfer.receive_bytes_max()),
    };
    let mut worker =
        Worker { transfer, socket, service, send, has_more: false, is_lost: false, tally: Tally::default() };
    worker.serve(receive, abort);
    let Worker { transfer, mut tally, .. } = worker;
    let next = restart(transfer, socket, service, &mut tally);
    service.count(Counter::UdpDrops, socket.drops());
    service.count(Counter::DatagramsIn, tally.datagrams_in);
    service.count(Counter::DatagramsOut, tally.datagrams_out);
    service.count(Counter::DatagramsUnsent, tally.datagrams_unsent);
    next
}

/// The client has lost the transfer, or has ended it and asks for the same once more before we knew: the next one
/// begins.
fn restart(transfer: Transfer, socket: &Socket, service: &Service, tally: &mut Tally) -> Option<Transfer> {
    if !transfer.is_asked_again() {
        return None;
    }
    let (peer, mut reply) = (transfer.peer(), [0; REPLY_BYTES_MAX]);
    match service.restart(transfer, monotonic_ns(), &mut reply) {
        Admission::Start(next) => return Some(next),
        Admission::Reply(length) if socket.send_to(&reply[..length], peer).is_ok() => {
            tally.datagrams_out += 1
        }
        _ => {}
    }
    None
}

/// Counted here and added up at the end: shared counters would travel between the cores with every datagram.
#[derive(Default)]
struct Tally {
    datagrams_in: u64,
    datagrams_out: u64,
    datagrams_unsent: u64,
}

struct Worker<'env> {
    transfer: Transfer,
    socket: &'env Socket,
    service: &'env Service,
    send: SendBatch,
    /// The transfer has more to send than one slice.
    has_more: bool,
    /// The client has lost the transfer, and asked for it again.
    is_lost: bool,
    tally: Tally,
}

impl Worker<'_> {
    fn serve(&mut self, mut receive: ReceiveBatch, abort: &AtomicBool) {
        let mut now_ns = monotonic_ns();
        self.drain(now_ns);
        self.flush();
        while !self.transfer.is_over() {
            if self.transfer.is_asked_again() {
                // What the client sent before that request is here by now, and may have ended the transfer: then the
                // request is a new one, which the listener answers.
                if self.catch_up(&mut receive).is_err() {
                    return;
                }
                now_ns = monotonic_ns();
                self.judge_repeated(now_ns);
            }
            if self.is_lost || self.transfer.is_over() {
                break;
            }
            let wait_ns = match self.has_more {
                true => 0,
                false => self.transfer.deadline_ns().unwrap_or(now_ns).saturating_sub(now_ns),
            };
            let received = receive.receive_blocking(self.socket, wait_ns.min(WAIT_SLICE_NS));
            now_ns = monotonic_ns();
            match received {
                Ok(count) => self.tally.datagrams_in += count as u64,
                // The socket is of no more use; the peer learns it by silence.
                Err(_) => return,
            }
            self.handle(&receive, now_ns);
            if abort.load(Ordering::Relaxed) {
                self.transfer.interrupt();
            }
            self.transfer.handle_timeout(now_ns);
            self.drain(now_ns);
            self.flush();
        }
        // The listener may have seen the peer's next request before we saw its last ACK, which is here by now.
        if !self.is_lost
            && !self.transfer.is_finished()
            && let Ok(count) = receive.receive(self.socket)
        {
            self.tally.datagrams_in += count as u64;
            self.handle(&receive, monotonic_ns());
            self.flush();
        }
    }

    /// Reads what has arrived, without waiting, until nothing is left or the transfer is over. More than a few batches
    /// are a flood, and wait their turn.
    fn catch_up(&mut self, receive: &mut ReceiveBatch) -> io::Result<()> {
        for _ in 0..BATCH {
            let count = receive.receive(self.socket)?;
            self.tally.datagrams_in += count as u64;
            self.handle(receive, monotonic_ns());
            self.flush();
            if count == 0 || self.transfer.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Does what the transfer says about a copy of its request, if one came.
    fn judge_repeated(&mut self, now_ns: u64) {
        match self.transfer.take_repeated_request(now_ns) {
            Repeated::Ignored => {}
            Repeated::Answered => {
                self.drain(now_ns);
                self.flush();
            }
            Repeated::Restart => self.is_lost = true,
        }
    }

    fn handle(&mut self, received: &ReceiveBatch, now_ns: u64) {
        for datagram in received.iter() {
            if self.is_lost {
                return;
            }
            if datagram.peer == self.transfer.peer() {
                self.transfer.handle_datagram(now_ns, datagram.payload);
                self.drain(now_ns);
            } else if datagram.payload.is_empty() {
                // The listener's, or as good as that: it says only that a copy of the request may have come.
                self.judge_repeated(now_ns);
            } else {
                self.answer_stray(now_ns, datagram.peer, datagram.payload);
            }
        }
    }

    /// Queues what the transfer has to say, but no more than a slice: the socket and a stop are looked at in between.
    fn drain(&mut self, now_ns: u64) {
        let (peer, room) = (self.transfer.peer(), self.transfer.room_bytes());
        let mut budget = self.transfer.slice_datagrams();
        self.has_more = true;
        while self.has_more && budget > 0 {
            let pushed = self.send.push_with(None, peer, room, |datagram| {
                let next = self.transfer.poll_transmit(now_ns, datagram);
                self.has_more = next.is_some();
                let next = next.unwrap_or(Payload::NONE);
                budget = budget.saturating_sub(next.count());
                next
            });
            if !pushed {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if self.send.is_empty() {
            return;
        }
        // What could not be sent counts as lost; the protocol sends it again.
        if let Ok(flushed) = self.send.flush(self.socket) {
            self.tally.datagrams_out += flushed.sent as u64;
            self.tally.datagrams_unsent += flushed.unsent as u64;
        }
    }

    fn answer_stray(&mut self, now_ns: u64, peer: SocketAddr, datagram: &[u8]) {
        let mut reply = [0; REPLY_BYTES_MAX];
        let length = self.service.answer_stray(now_ns, peer, datagram, &mut reply);
        if length > 0 && self.socket.send_to(&reply[..length], peer).is_ok() {
            self.tally.datagrams_out += 1;
        }
    }
}
