//! The event loop: wait, read until empty, answer in batches, look at the timers, again.
//! It must never block but in the poller, and never do more than a bounded amount of one thing in a turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tftpbench_net::clock::monotonic_ns;
use tftpbench_net::{Poller, ReceiveBatch, Stop};
use tftpbench_serve::{
    Admission, Counter, REPLY_BYTES_MAX, ServeError, Service, Summary, Transfer, receive_bytes_max,
};

use crate::TRANSFERS_PER_PORT;
use crate::port::Port;
use crate::table::{Entry, Table};

/// Messages to a recvmmsg(2): with 64 the call itself costs nothing beside them. Each is a datagram, or a window's run.
const MESSAGES: usize = 64;

/// A request may be 512 bytes long (RFC 2347); what is longer must be seen to be.
const REQUEST_BYTES: usize = 1024;

/// Batches of a socket in one turn, so that a flood at one does not starve the others and the timers.
const BATCHES_A_TURN: usize = 16;

/// Tokens below are indices of reply sockets.
const LISTENING: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;

/// Everything the loop owns.
pub(crate) struct Server {
    service: Arc<Service>,
    stop: Stop,
    listening: Port,
    requests: ReceiveBatch,
    replies: Replies,
    datagrams: ReceiveBatch,
    /// Read once a wake-up and once a batch; all that is done in between happens "now".
    now_ns: u64,
}

/// What answering needs, apart from the batch that is being read.
struct Replies {
    ports: Vec<Port>,
    table: Table,
    /// Transfers that have more to say than fitted into one turn.
    unfinished: Vec<usize>,
}

impl Server {
    pub(crate) fn new(service: Arc<Service>, listening: Port, ports: Vec<Port>, stop: Stop) -> Server {
        let datagram_bytes = receive_bytes_max(service.config().limits.blksize);
        let now_ns = monotonic_ns();
        Server {
            service,
            stop,
            listening,
            requests: ReceiveBatch::new(MESSAGES, REQUEST_BYTES),
            replies: Replies { ports, table: Table::new(now_ns), unfinished: Vec::new() },
            datagrams: ReceiveBatch::coalescing(MESSAGES, datagram_bytes),
            now_ns,
        }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.listening.socket.local_addr()
    }

    /// Until the stop is complete.
    pub(crate) fn serve(mut self) -> Result<Summary, ServeError> {
        let mut poller = self.poller()?;
        let spin_ns = self.service.config().busy_poll_ns;
        let mut drain_end_ns = None;
        loop {
            poller.wait(self.timeout_ns(drain_end_ns), spin_ns).map_err(kernel("epoll_wait"))?;
            self.now_ns = monotonic_ns();
            for &token in poller.tokens() {
                self.take_turn(token)?;
            }
            self.replies.go_on(&self.service, self.now_ns);
            self.replies.expire(&self.service, self.now_ns);
            self.flush();
            let requests = self.stop.requests();
            if requests > 0 && drain_end_ns.is_none() {
                drain_end_ns = Some(self.drain());
            }
            let is_late = drain_end_ns.is_some_and(|end_ns| self.now_ns >= end_ns);
            let is_idle = drain_end_ns.is_some() && self.service.undecided() == 0;
            if requests > 1 || is_late || is_idle {
                return Ok(self.finish());
            }
        }
    }

    fn timeout_ns(&self, drain_end_ns: Option<u64>) -> Option<u64> {
        if !self.replies.unfinished.is_empty() {
            return Some(0);
        }
        let wake_ns = self.replies.table.next_deadline_ns().into_iter().chain(drain_end_ns).min();
        wake_ns.map(|at_ns| at_ns.saturating_sub(self.now_ns))
    }

    fn poller(&self) -> Result<Poller, ServeError> {
        let poller = Poller::new().map_err(kernel("epoll_create1"))?;
        poller.add(&self.stop, STOP).map_err(kernel("epoll_ctl"))?;
        poller.add(&self.listening.socket, LISTENING).map_err(kernel("epoll_ctl"))?;
        for (token, port) in self.replies.ports.iter().enumerate() {
            poller.add(&port.socket, token as u64).map_err(kernel("epoll_ctl"))?;
        }
        Ok(poller)
    }

    fn take_turn(&mut self, token: u64) -> Result<(), ServeError> {
        match token {
            STOP => Ok(()),
            LISTENING => self.admit(),
            port => self.receive(port as usize),
        }
    }

    /// Reads the listening socket.
    fn admit(&mut self) -> Result<(), ServeError> {
        for _ in 0..BATCHES_A_TURN {
            let count = self.requests.receive(&self.listening.socket).map_err(kernel("recvmmsg"))?;
            self.service.count(Counter::DatagramsIn, count as u64);
            let any_known =
                self.requests.iter().any(|request| self.replies.table.find(request.peer).is_some());
            if any_known || !self.service.has_room_for(count) {
                self.catch_up()?;
            }
            for request in self.requests.iter() {
                let (now_ns, peer, service) = (self.now_ns, request.peer, &self.service);
                let mut begun = None;
                self.listening.reply(peer, REPLY_BYTES_MAX, service, |reply| {
                    match service.admit(now_ns, peer, request.payload, reply) {
                        Admission::Reply(length) => return length,
                        Admission::Start(transfer) => begun = Some(transfer),
                        Admission::Ignore => {}
                    }
                    0
                });
                self.replies.remove_superseded(peer);
                if let Some(transfer) = begun {
                    self.replies.start(service, now_ns, transfer);
                }
            }
            if !self.requests.is_full() {
                break;
            }
            self.now_ns = monotonic_ns();
        }
        Ok(())
    }

    /// A client that sends its last ACK and then its next request must find the place free and its old transfer over, in
    /// whatever order the two sockets are looked at: what was sent before the requests that have just been read is read
    /// now.
    fn catch_up(&mut self) -> Result<(), ServeError> {
        (0..self.replies.ports.len()).try_for_each(|port| self.receive(port))
    }

    /// Reads a reply socket until it is empty, answering each batch at once.
    fn receive(&mut self, port: usize) -> Result<(), ServeError> {
        for _ in 0..BATCHES_A_TURN {
            let socket = &self.replies.ports[port].socket;
            let count = self.datagrams.receive(socket).map_err(kernel("recvmmsg"))?;
            self.service.count(Counter::DatagramsIn, count as u64);
            for datagram in self.datagrams.iter() {
                self.replies.handle(&self.service, self.now_ns, port, datagram.peer, datagram.payload);
            }
            self.replies.ports[port].flush(&self.service);
            if !self.datagrams.is_full() {
                break;
            }
            self.now_ns = monotonic_ns();
        }
        Ok(())
    }

    fn flush(&mut self) {
        self.listening.flush(&self.service);
        for port in &mut self.replies.ports {
            port.flush(&self.service);
        }
    }

    /// The first stop request: nothing new, and when those in flight must have ended.
    fn drain(&mut self) -> u64 {
        self.service.drain();
        self.now_ns.saturating_add(self.service.config().grace_ns)
    }

    /// Tells every peer that is left, and counts.
    fn finish(mut self) -> Summary {
        for key in self.replies.table.keys() {
            if let Some(entry) = self.replies.table.entry(key) {
                entry.transfer.interrupt();
                self.replies.ports[entry.port].drain(&mut entry.transfer, &self.service, self.now_ns);
            }
            self.replies.remove(key);
        }
        self.flush();
        let sockets = self.replies.ports.iter().chain([&self.listening]);
        self.service.count(Counter::UdpDrops, sockets.map(|port| port.socket.drops()).sum());
        self.service.summary()
    }
}

impl Replies {
    /// Passes a datagram on to its transfer, or answers a stranger.
    fn handle(&mut self, service: &Service, now_ns: u64, port: usize, peer: SocketAddr, datagram: &[u8]) {
        if let Some(key) = self.table.find(peer)
            && let Some(entry) = self.table.entry(key)
            // A transfer's TID is one port; on any other its peer is a stranger, too.
            && entry.port == port
        {
            entry.transfer.handle_datagram(now_ns, datagram);
            return self.drain(service, now_ns, key);
        }
        let answer = |reply: &mut [u8]| service.answer_stray(now_ns, peer, datagram, reply);
        self.ports[port].reply(peer, REPLY_BYTES_MAX, service, answer);
    }

    fn start(&mut self, service: &Service, now_ns: u64, transfer: Transfer) {
        let port = self.next_port();
        self.ports[port].transfers += 1;
        let key = self.table.insert(transfer, port);
        self.drain(service, now_ns, key);
    }

    /// The first socket that still has room, so that few transfers share large batches; else the emptiest.
    fn next_port(&self) -> usize {
        let roomy = self.ports.iter().position(|port| port.transfers < TRANSFERS_PER_PORT);
        let emptiest = || (0..self.ports.len()).min_by_key(|&port| self.ports[port].transfers);
        roomy.or_else(emptiest).unwrap_or(0)
    }

    /// After each change to a transfer: sends what it has to say; if it is finished then it goes, else its deadline needs
    /// watching.
    fn drain(&mut self, service: &Service, now_ns: u64, key: usize) {
        let Some(entry) = self.table.entry(key) else { return };
        let drained = self.ports[entry.port].drain(&mut entry.transfer, service, now_ns);
        if drained && entry.transfer.is_finished() {
            return self.remove(key);
        }
        if !drained && !entry.is_unfinished {
            entry.is_unfinished = true;
            self.unfinished.push(key);
        }
        self.table.arm(key);
    }

    /// Gives everybody who was cut short in the last turn a part of this one.
    fn go_on(&mut self, service: &Service, now_ns: u64) {
        for key in std::mem::take(&mut self.unfinished) {
            // The transfer may have ended meanwhile, and its key may be another's.
            if let Some(entry) = self.table.entry(key)
                && std::mem::take(&mut entry.is_unfinished)
            {
                self.drain(service, now_ns, key);
            }
        }
    }

    fn remove_superseded(&mut self, peer: SocketAddr) {
        if let Some(key) = self.table.find(peer)
            && self.table.entry(key).is_some_and(|entry| entry.transfer.is_over())
        {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: usize) {
        if let Some(Entry { port, .. }) = self.table.remove(key) {
            self.ports[port].transfers -= 1;
        }
    }

    fn expire(&mut self, service: &Service, now_ns: u64) {
        self.table.expire(now_ns);
        while let Some(key) = self.table.next_due(now_ns) {
            if let Some(entry) = self.table.entry(key) {
                entry.transfer.handle_timeout(now_ns);
            }
            self.drain(service, now_ns, key);
        }
    }
}

fn kernel(action: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::Kernel { action, source }
}
