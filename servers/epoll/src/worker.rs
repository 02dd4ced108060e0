//! One event loop: wait, read until empty, answer in batches, look at the timers, again.
//! It must never block but in the poller, and never do more than a bounded amount of one thing in a turn.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use tftpbench_net::clock::monotonic_ns;
use tftpbench_net::{LocalAddress, Poller, ReceiveBatch, Received, Socket, Stop};
use tftpbench_serve::{
    Admission, REPLY_BYTES_MAX, REQUEST_BYTES, Repeated, ServeError, Service, Transfer, receive_bytes_max,
};

use crate::ports::{LISTENING, Ports};
use crate::table::{Entry, Table};

/// Messages of a socket in one turn, so that a flood at one does not starve the others and the timers.
const MESSAGES_A_TURN: usize = 1024;

/// While stopping: how often to look whether the last transfer of another worker has ended.
const DRAIN_SLICE_NS: u64 = 20_000_000;

/// All tokens but this are numbers of ports.
const STOP: u64 = u64::MAX;

/// Everything one loop owns. Workers share the service, and ask it for nothing while datagrams of a transfer go to and
/// fro.
pub(crate) struct Worker {
    service: Arc<Service>,
    stop: Stop,
    poller: Poller,
    requests: ReceiveBatch,
    replies: Replies,
    datagrams: ReceiveBatch,
    /// For sockets where there can't be a second one: one call then tells all, and costs less.
    datagram: ReceiveBatch,
    /// Receives from a socket in one turn.
    reads_a_turn: usize,
    /// Ports to look at before requests are; kept for its room.
    read_first: Vec<usize>,
    /// Read once a wake-up and once a batch; all that is done in between happens "now".
    now_ns: u64,
}

/// What answering needs, apart from the batch that is being read.
struct Replies {
    ports: Ports,
    table: Table,
    /// Transfers that have more to say than fitted into one turn, in the order of their turns.
    unfinished: VecDeque<usize>,
}

impl Worker {
    /// With all that it needs of the kernel, so that only a fault can end it once it serves.
    pub(crate) fn new(service: &Arc<Service>, listening: Socket, stop: &Stop) -> Result<Worker, ServeError> {
        let config = service.config();
        let poller = Poller::new().map_err(ServeError::kernel("epoll_create1"))?;
        poller.add(stop, STOP).map_err(ServeError::kernel("epoll_ctl"))?;
        let ports = Ports::open(config, listening, &poller)?;
        let (now_ns, datagram_bytes) = (monotonic_ns(), receive_bytes_max(config.limits.blksize));
        Ok(Worker {
            stop: stop.clone(),
            poller,
            requests: ReceiveBatch::new(config.batch, REQUEST_BYTES),
            replies: Replies { ports, table: Table::new(now_ns), unfinished: VecDeque::new() },
            datagrams: ReceiveBatch::coalescing(config.batch, datagram_bytes),
            datagram: ReceiveBatch::new(1, datagram_bytes),
            reads_a_turn: MESSAGES_A_TURN / config.batch,
            read_first: Vec::new(),
            now_ns,
            service: Arc::clone(service),
        })
    }

    /// Until the stop is complete.
    pub(crate) fn serve(&mut self) -> Result<(), ServeError> {
        let spin_ns = self.service.config().busy_poll_ns;
        let mut drain_end_ns = None;
        loop {
            self.poller
                .wait(self.timeout_ns(drain_end_ns), spin_ns)
                .map_err(ServeError::kernel("epoll_wait or ppoll"))?;
            self.now_ns = monotonic_ns();
            self.take_turn()?;
            self.replies.resume_unfinished(self.now_ns);
            self.replies.expire(self.now_ns);
            self.replies.ports.flush();
            let requests = self.stop.requests();
            if requests > 0 && drain_end_ns.is_none() {
                drain_end_ns = Some(self.drain());
            }
            let is_late = drain_end_ns.is_some_and(|end_ns| self.now_ns >= end_ns);
            // Of all workers: a socket that closed would send its clients' requests to the others.
            let is_idle = drain_end_ns.is_some() && self.service.undecided() == 0;
            if requests > 1 || is_late || is_idle {
                self.finish();
                return Ok(());
            }
        }
    }

    fn timeout_ns(&self, drain_end_ns: Option<u64>) -> Option<u64> {
        if !self.replies.unfinished.is_empty() {
            return Some(0);
        }
        let is_alone = self.service.config().workers == 1;
        let slice_end_ns = drain_end_ns.filter(|_| !is_alone).map(|_| self.now_ns + DRAIN_SLICE_NS);
        let wakes_ns = [self.replies.table.next_deadline_ns(), drain_end_ns, slice_end_ns];
        let wake_ns = wakes_ns.into_iter().flatten().min();
        wake_ns.map(|at_ns| at_ns.saturating_sub(self.now_ns))
    }

    /// Everything that is ready, requests last: the end of the transfer before may be among the rest.
    fn take_turn(&mut self) -> Result<(), ServeError> {
        let mut is_asked = false;
        for index in 0..self.poller.tokens().len() {
            match self.poller.tokens()[index] {
                STOP => {}
                token if token == LISTENING as u64 => is_asked = true,
                token => self.receive(token as usize, self.replies.ports.is_shared(token as usize))?,
            }
        }
        if is_asked { self.admit() } else { Ok(()) }
    }

    /// Reads the listening socket.
    fn admit(&mut self) -> Result<(), ServeError> {
        for _ in 0..self.reads_a_turn {
            let Some(socket) = self.replies.ports.socket(LISTENING) else { break };
            let count = self.requests.receive(socket).map_err(ServeError::kernel("recvmmsg"))?;
            self.replies.ports.count_received(count);
            self.catch_up(count)?;
            for request in self.requests.iter() {
                let (now_ns, peer, asked, service) =
                    (self.now_ns, request.peer, request.local, &self.service);
                if service.passes_over(&request) {
                    continue;
                }
                let (mut begun, mut is_repeated) = (None, false);
                self.replies.ports.reply(LISTENING, asked, peer, REPLY_BYTES_MAX, |reply| {
                    match service.admit(now_ns, peer, request.payload, reply) {
                        Admission::Reply(length) => return length,
                        Admission::Start(transfer) => begun = Some(transfer),
                        Admission::Repeated(_) => is_repeated = true,
                        Admission::Ignore => {}
                    }
                    0
                });
                self.replies.remove_superseded(peer);
                if is_repeated {
                    begun = self.replies.judge_repeated(service, now_ns, peer, asked);
                }
                if let Some(transfer) = begun {
                    self.replies.start(service, &mut self.poller, now_ns, transfer, asked);
                }
            }
            if !self.requests.is_full() {
                break;
            }
            self.now_ns = monotonic_ns();
        }
        Ok(())
    }

    /// A client that sends its last ACK and then its next request must find the place free and its old transfer over,
    /// in whatever order the two sockets are looked at: what was sent before the requests that have just been read is
    /// read now. Where places are short, any transfer may have ended; but with a socket each, looking at all of them
    /// would cost more the more there are, and only those that ask again are looked at.
    fn catch_up(&mut self, requests: usize) -> Result<(), ServeError> {
        let mut read_first = std::mem::take(&mut self.read_first);
        let table = &self.replies.table;
        read_first
            .extend(self.requests.iter().filter_map(|request| table.port_of(table.find(request.peer)?)));
        if !self.service.has_room_for(requests) {
            read_first.extend(self.replies.ports.shared());
        }
        read_first.sort_unstable();
        read_first.dedup();
        let caught_up = read_first.iter().try_for_each(|&port| self.receive(port, false));
        read_first.clear();
        self.read_first = read_first;
        caught_up
    }

    /// Reads a reply socket, answering each batch at once. One that transfers share is read `to_the_end`, until it is
    /// empty: more arrives while a batch is being answered, and asking the poller costs more than one receive for
    /// nothing.
    fn receive(&mut self, port: usize, to_the_end: bool) -> Result<(), ServeError> {
        for _ in 0..self.reads_a_turn {
            let is_busy = self.replies.ports.is_busy(port);
            let batch = if is_busy { &mut self.datagrams } else { &mut self.datagram };
            // A transfer that ended in this turn has taken its socket with it.
            let Some(socket) = self.replies.ports.socket(port) else { break };
            let count = batch.receive(socket).map_err(ServeError::kernel("recvmmsg"))?;
            self.replies.ports.count_received(count);
            // A window's datagrams come in a row, so the table is asked once for all of them.
            let mut last = None;
            for datagram in batch.iter() {
                let (service, now_ns) = (&self.service, self.now_ns);
                self.replies.handle(service, now_ns, port, &datagram, &mut last);
            }
            self.replies.ports.flush();
            if count == 0 || !(to_the_end || is_busy && batch.is_full()) {
                break;
            }
            self.now_ns = monotonic_ns();
        }
        Ok(())
    }

    /// The first stop request: nothing new, and when those in flight must have ended.
    fn drain(&mut self) -> u64 {
        self.service.drain();
        self.now_ns.saturating_add(self.service.config().grace_ns)
    }

    /// Tells every peer that is left, and counts.
    fn finish(&mut self) {
        for key in self.replies.table.keys() {
            if let Some(entry) = self.replies.table.entry(key) {
                entry.transfer.interrupt();
                self.replies.ports.drain(entry.port, entry.source, &mut entry.transfer, self.now_ns);
            }
            self.replies.remove(key);
        }
        self.replies.ports.flush();
        self.replies.ports.count(&self.service);
    }
}

impl Replies {
    /// Passes a datagram on to its transfer, or answers a stranger. `last`: the last peer of this batch, and its key.
    fn handle(
        &mut self,
        service: &Service,
        now_ns: u64,
        port: usize,
        datagram: &Received<'_>,
        last: &mut Option<(SocketAddr, usize)>,
    ) {
        let Received { payload, peer, local, .. } = *datagram;
        let known = last.filter(|(known, _)| *known == peer).map(|(_, key)| key);
        if let Some(key) = known.or_else(|| self.table.find(peer))
            && let Some(entry) = self.table.entry(key)
            // A transfer's TID is one port; on any other its peer is a stranger, too.
            && entry.port == port
        {
            *last = Some((peer, key));
            entry.transfer.handle_datagram(now_ns, payload);
            return self.drain(now_ns, key);
        }
        if self.ports.socket(port).is_some() && !service.passes_over(datagram) {
            let answer = |reply: &mut [u8]| service.answer_stray(now_ns, peer, payload, reply);
            self.ports.reply(port, local, peer, REPLY_BYTES_MAX, answer);
        }
    }

    fn start(
        &mut self,
        service: &Service,
        poller: &mut Poller,
        now_ns: u64,
        transfer: Transfer,
        asked: Option<LocalAddress>,
    ) {
        let peer = transfer.peer();
        match self.ports.assign(service.config(), &transfer, asked, now_ns, poller) {
            Ok((port, source)) => {
                let key = self.table.insert(transfer, port, source);
                self.drain(now_ns, key);
            }
            Err(_) => {
                let refuse =
                    |reply: &mut [u8]| service.refuse(now_ns, peer, "server is out of sockets", reply);
                self.ports.reply(LISTENING, asked, peer, REPLY_BYTES_MAX, refuse);
            }
        }
    }

    /// After each change to a transfer: sends what it has to say; if it is finished then it goes, else its deadline
    /// needs watching.
    fn drain(&mut self, now_ns: u64, key: usize) {
        let Some(entry) = self.table.entry(key) else { return };
        let drained = self.ports.drain(entry.port, entry.source, &mut entry.transfer, now_ns);
        if drained && entry.transfer.is_finished() {
            return self.remove(key);
        }
        if !drained && !entry.is_unfinished {
            entry.is_unfinished = true;
            self.unfinished.push_back(key);
        }
        if entry.wakes_too_late() {
            self.table.arm(key);
        }
    }

    /// Sends a slice of one transfer that was cut short, the next one's in the next turn: those that wait for an answer
    /// to a block wait for one slice, however many windows are under way.
    fn resume_unfinished(&mut self, now_ns: u64) {
        while let Some(key) = self.unfinished.pop_front() {
            // The transfer may have ended meanwhile, and its key may be another's.
            if let Some(entry) = self.table.entry(key)
                && std::mem::take(&mut entry.is_unfinished)
            {
                return self.drain(now_ns, key);
            }
        }
    }

    /// Does what the peer's transfer says about a request that it has to do with; a new one may begin in its place.
    fn judge_repeated(
        &mut self,
        service: &Service,
        now_ns: u64,
        peer: SocketAddr,
        asked: Option<LocalAddress>,
    ) -> Option<Transfer> {
        // None where another worker has it: the kernel gives a peer's requests to one, but for when sockets come or go.
        let key = self.table.find(peer)?;
        match self.table.entry(key)?.transfer.take_repeated_request(now_ns) {
            Repeated::Ignored => None,
            Repeated::Answered => {
                self.drain(now_ns, key);
                None
            }
            Repeated::Restart => {
                let Entry { transfer, port, .. } = self.table.remove(key)?;
                self.ports.release(port);
                let mut begun = None;
                self.ports.reply(LISTENING, asked, peer, REPLY_BYTES_MAX, |reply| {
                    match service.restart(transfer, now_ns, reply) {
                        Admission::Reply(length) => return length,
                        Admission::Start(transfer) => begun = Some(transfer),
                        Admission::Repeated(_) | Admission::Ignore => {}
                    }
                    0
                });
                begun
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
            self.ports.release(port);
        }
    }

    fn expire(&mut self, now_ns: u64) {
        self.table.expire(now_ns);
        while let Some(key) = self.table.next_due(now_ns) {
            if let Some(entry) = self.table.entry(key) {
                entry.transfer.handle_timeout(now_ns);
            }
            self.drain(now_ns, key);
        }
    }
}
