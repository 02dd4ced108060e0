//! One thread of the generator: an epoll loop over its share of the virtual clients.
//!
//! A turn: start what is due, fire timers, wait (busy-polling first), handle what arrived. Time spent waiting with
//! nothing to do is idle; all other time is productive, and its share of the window is `generator_busy_fraction`.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::Sender as Channel;

use slab::Slab;
use tftpbench_net::{
    Poller, ReceiveBatch, Received, SendBatch, Socket, SocketOptions, Stop, Timers, clock, cpus,
};
use tftpbench_proto::{BLKSIZE_DEFAULT, HEADER_LEN, Operation, REQUEST_LEN_MAX};

use crate::Notice;
use crate::client::{Client, DATAGRAM_MAX, Drained, Shared, Via};
use crate::config::{Extent, LoadConfig, LoadError, Sockets};
use crate::faults::Faults;
use crate::lane::{self, Lane};
use crate::recorder::{Phase, Recorder};
use crate::schedule::{ClosedLoop, Tickets};

/// Datagrams taken from one socket per call. A client's own socket has a window in flight at most.
const RECEIVE_MESSAGES: usize = 16;
const LANE_RECEIVE_MESSAGES: usize = 64;
const SEND_MESSAGES: usize = 64;
/// Room for at least two of the largest datagrams.
const SEND_BYTES: usize = 4 * DATAGRAM_MAX;
/// Clients kept after their last ACK to answer a lost one; beyond this the oldest go.
pub(crate) const DALLYING_MAX: usize = 1024;
/// Longest sleep, so that phases and a stop request are noticed.
const WAIT_MAX_NS: u64 = 50_000_000;
const STOP_TOKEN: u64 = u64::MAX;
/// Tokens of lanes count down from here; a client's token is never so large, see `token`.
const LANE_TOKENS: u64 = u64::MAX - 1;

/// What a worker hands back.
pub(crate) struct WorkerReport {
    pub(crate) recorder: Recorder,
    pub(crate) faults: Faults,
    pub(crate) end_ns: u64,
    pub(crate) receive_buffer_bytes: usize,
}

pub(crate) struct Worker<'a> {
    config: &'a LoadConfig,
    tickets: &'a Tickets,
    stop: &'a Stop,
    notices: Channel<Notice>,
    poller: Poller,
    timers: Timers,
    due: Vec<u64>,
    clients: Slab<Client>,
    generation: u32,
    /// Shared sockets; none where each transfer has its own.
    lanes: Vec<Lane>,
    /// Transfers so far at each key, for addresses that do not come again soon.
    reuses: Vec<u32>,
    slots: usize,
    /// Sockets opened before the start, so that opening them is not measured.
    spare: Vec<Socket>,
    dallying: VecDeque<u64>,
    active: usize,
    schedule: ClosedLoop,
    phase: Phase,
    window: (u64, u64),
    drain_end_ns: u64,
    realtime_offset_ns: i64,
    recorder: Recorder,
    faults: Faults,
    receive: Option<ReceiveBatch>,
    batch: SendBatch,
    scratch: Box<[u8]>,
    receive_buffer_bytes: usize,
}

impl<'a> Worker<'a> {
    /// Opens everything that the first `slots` transfers need.
    pub(crate) fn new(
        config: &'a LoadConfig,
        tickets: &'a Tickets,
        stop: &'a Stop,
        notices: Channel<Notice>,
        slots: usize,
    ) -> Result<Self, LoadError> {
        let poller = Poller::new().map_err(LoadError::os("cannot make an epoll instance"))?;
        poller.add(stop, STOP_TOKEN).map_err(LoadError::os("cannot watch for a stop"))?;
        let (spare, lanes) = open_sockets(config, slots)?;
        for (index, lane) in lanes.iter().enumerate() {
            poller
                .add(&lane.socket, LANE_TOKENS - index as u64)
                .map_err(LoadError::os("cannot watch a socket"))?;
        }
        let first = spare.first().or(lanes.first().map(|lane| &lane.socket));
        let receive_buffer_bytes = first.map_or(0, Socket::granted_receive_buffer_bytes);
        let messages = match config.options.windowsize {
            _ if !lanes.is_empty() => LANE_RECEIVE_MESSAGES,
            Some(2..) => RECEIVE_MESSAGES,
            _ => 1,
        };
        Ok(Worker {
            config,
            tickets,
            stop,
            notices,
            poller,
            timers: Timers::new(0),
            due: Vec::new(),
            clients: Slab::with_capacity(slots),
            generation: 0,
            lanes,
            reuses: Vec::new(),
            slots,
            spare,
            dallying: VecDeque::new(),
            active: 0,
            schedule: ClosedLoop::new(0, slots, 0),
            phase: Phase::WarmUp,
            window: (0, 0),
            drain_end_ns: u64::MAX,
            realtime_offset_ns: 0,
            recorder: Recorder::new(0),
            faults: Faults::default(),
            receive: Some(ReceiveBatch::new(messages, DATAGRAM_MAX + 1)),
            batch: SendBatch::new(SEND_MESSAGES, SEND_BYTES),
            scratch: vec![0; DATAGRAM_MAX].into_boxed_slice(),
            receive_buffer_bytes,
        })
    }

    /// Runs from `start_ns` until everything has ended, on CPU `pin` if one is given.
    pub(crate) fn run(mut self, start_ns: u64, pin: Option<usize>) -> Result<WorkerReport, LoadError> {
        if let Some(cpu) = pin {
            cpus::pin_current_thread(&[cpu]).map_err(LoadError::os("cannot pin a load worker to its CPU"))?;
        }
        self.recorder = Recorder::new(start_ns);
        self.timers = Timers::new(clock::monotonic_ns());
        self.schedule = ClosedLoop::new(start_ns, self.slots, self.config.ramp_ns);
        self.window = window(self.config, start_ns);
        let mut now_ns = clock::monotonic_ns();
        loop {
            self.realtime_offset_ns = clock::realtime_ns() as i64 - clock::monotonic_ns() as i64;
            let recheck_ns = now_ns + WAIT_MAX_NS;
            while now_ns < recheck_ns {
                self.enter_phase(now_ns);
                self.start_due(now_ns)?;
                self.fire_timers(now_ns)?;
                self.flush_lanes()?;
                self.recorder.roll(now_ns, self.active);
                if self.is_done() {
                    return Ok(self.report(now_ns));
                }
                self.wait(now_ns)?;
                now_ns = self.handle_ready()?;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.active == 0 && self.schedule.next_start_ns().is_none()
    }

    fn report(mut self, now_ns: u64) -> WorkerReport {
        self.recorder.receive_drops += self.lanes.iter().map(|lane| lane.socket.drops()).sum::<u64>();
        self.recorder.finish();
        WorkerReport {
            recorder: self.recorder,
            faults: self.faults,
            end_ns: now_ns,
            receive_buffer_bytes: self.receive_buffer_bytes,
        }
    }

    /// Moves through warm-up, window and drain, and ends the run when its time is over or a stop is asked for.
    fn enter_phase(&mut self, now_ns: u64) {
        if self.phase == Phase::WarmUp && now_ns >= self.window.0 {
            self.set_phase(Phase::Window, Notice::WindowOpened);
        }
        if self.phase < Phase::Drain && (now_ns >= self.window.1 || self.stop.requests() > 0) {
            self.set_phase(Phase::Drain, Notice::WindowClosed);
            self.schedule.close();
            self.drain_end_ns = match self.config.extent {
                Extent::Duration { .. } if self.stop.requests() == 0 => now_ns + self.config.drain_ns,
                _ => now_ns,
            };
        }
        if now_ns >= self.drain_end_ns || self.stop.requests() > 0 {
            self.interrupt_all(now_ns);
        }
    }

    fn set_phase(&mut self, phase: Phase, notice: Notice) {
        self.phase = phase;
        self.recorder.enter(phase);
        // Nobody listens when the caller gave up waiting; that is its affair.
        let _ = self.notices.send(notice);
    }

    fn interrupt_all(&mut self, now_ns: u64) {
        self.drain_end_ns = u64::MAX;
        self.schedule.close();
        let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            // Ending one transfer can push another out that only dallied.
            let Some(client) = self.clients.get_mut(key).filter(|client| !client.is_recorded()) else {
                continue;
            };
            client.interrupt();
            // The ERROR is a courtesy to the server; the transfer is over either way.
            let _ = self.after_input(key, now_ns);
        }
    }

    fn start_due(&mut self, now_ns: u64) -> Result<(), LoadError> {
        while let Some(intended_ns) = self.schedule.take_due(now_ns) {
            let Some(number) = self.tickets.take() else {
                self.schedule.close();
                return Ok(());
            };
            self.start(number, intended_ns)?;
        }
        Ok(())
    }

    fn start(&mut self, number: u64, intended_ns: u64) -> Result<(), LoadError> {
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let via = self.via()?;
        let now_ns = clock::monotonic_ns();
        let mut client = Client::new(self.config, via, number, intended_ns, now_ns);
        client.generation = self.generation;
        let key = self.clients.insert(client);
        if let Via::Own(socket) = &self.clients[key].via {
            let watched = self.poller.add(socket, token(self.generation, key));
            watched.map_err(LoadError::os("cannot watch a client socket"))?;
        }
        self.active += 1;
        self.after_input(key, now_ns)
    }

    /// What the next client sends through.
    fn via(&mut self) -> Result<Via, LoadError> {
        if !self.lanes.is_empty() {
            let key = self.clients.vacant_key();
            if self.reuses.len() <= key {
                self.reuses.resize(key + 1, 0);
            }
            self.reuses[key] = self.reuses[key].wrapping_add(1);
            let (index, place) = (key % self.lanes.len(), key / self.lanes.len());
            let source = lane::address(place, self.reuses[key]);
            let source =
                source.ok_or_else(|| LoadError::Config("concurrency: too many for shared sockets".into()))?;
            return Ok(Via::Lane { index, key, source });
        }
        self.spare.pop().map_or_else(|| open_socket(self.config), Ok).map(Via::Own)
    }

    /// The client that an address of a lane belongs to.
    fn client_at(&self, lane: usize, address: Option<Ipv4Addr>) -> Option<usize> {
        let address = address?;
        let key = lane::place(address) * self.lanes.len() + lane;
        let client = self.clients.get(key)?;
        matches!(client.via, Via::Lane { source, .. } if source == address).then_some(key)
    }

    fn flush_lanes(&mut self) -> Result<(), LoadError> {
        for index in 0..self.lanes.len() {
            self.flush_lane(index)?;
        }
        Ok(())
    }

    /// Stamps what is queued, then sends it with one call.
    fn flush_lane(&mut self, index: usize) -> Result<(), LoadError> {
        let lane = &mut self.lanes[index];
        if lane.batch.is_empty() {
            return Ok(());
        }
        let now_ns = clock::monotonic_ns();
        for key in &lane.queued {
            if let Some(client) = self.clients.get_mut(*key) {
                client.stamp_queued(now_ns);
            }
        }
        let flushed = lane.flush().map_err(LoadError::os("cannot send"))?;
        self.recorder.totals().unsent += flushed.unsent as u64;
        Ok(())
    }

    fn fire_timers(&mut self, now_ns: u64) -> Result<(), LoadError> {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(now_ns, &mut due);
        for token in due.drain(..) {
            let Some(key) = self.key_of(token) else { continue };
            let client = &mut self.clients[key];
            client.armed_ns = 0;
            if client.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                client.handle_timeout(now_ns);
            }
            self.after_input(key, now_ns)?;
        }
        self.due = due;
        Ok(())
    }

    fn wait(&mut self, now_ns: u64) -> Result<(), LoadError> {
        let events =
            [self.timers.next_deadline_ns(), self.schedule.next_start_ns(), Some(self.next_boundary_ns())];
        let next_ns = events.into_iter().flatten().min().unwrap_or(u64::MAX);
        let timeout_ns = next_ns.saturating_sub(now_ns).min(WAIT_MAX_NS);
        let waited = self.poller.wait(Some(timeout_ns), self.config.busy_poll_ns);
        let waited = waited.map_err(LoadError::os("cannot wait for datagrams"))?;
        self.recorder.totals().idle_ns += waited.idle_ns;
        Ok(())
    }

    fn next_boundary_ns(&self) -> u64 {
        match self.phase {
            Phase::WarmUp => self.window.0,
            Phase::Window => self.window.1,
            Phase::Drain => self.drain_end_ns,
        }
    }

    /// Handles every socket that the last wait found readable; returns the time.
    fn handle_ready(&mut self) -> Result<u64, LoadError> {
        let mut now_ns = clock::monotonic_ns();
        for index in 0..self.poller.tokens().len() {
            let token = self.poller.tokens()[index];
            let lane = (LANE_TOKENS - token.min(LANE_TOKENS)) as usize;
            if token != STOP_TOKEN && lane < self.lanes.len() {
                now_ns = self.handle_lane(lane)?;
            } else if let Some(key) = self.key_of(token) {
                now_ns = self.handle_own_socket(key)?;
            }
        }
        Ok(now_ns)
    }

    fn handle_own_socket(&mut self, key: usize) -> Result<u64, LoadError> {
        // The batch is lent out so that the client and the rest of the worker can be borrowed beside it.
        let Some(mut receive) = self.receive.take() else { return Ok(clock::monotonic_ns()) };
        let received = match &self.clients[key].via {
            Via::Own(socket) => receive.receive(socket),
            Via::Lane { .. } => Ok(0),
        };
        let now_ns = clock::monotonic_ns();
        received.map_err(LoadError::os("cannot receive"))?;
        for datagram in receive.iter() {
            self.handle_datagram(key, now_ns, &datagram)?;
        }
        self.receive = Some(receive);
        self.after_input(key, now_ns)?;
        Ok(now_ns)
    }

    /// Takes one batch from a lane and sends all answers with one call.
    fn handle_lane(&mut self, index: usize) -> Result<u64, LoadError> {
        let Some(mut receive) = self.receive.take() else { return Ok(clock::monotonic_ns()) };
        let received = receive.receive(&self.lanes[index].socket);
        let now_ns = clock::monotonic_ns();
        received.map_err(LoadError::os("cannot receive"))?;
        for datagram in receive.iter() {
            match self.client_at(index, datagram.local) {
                Some(key) => {
                    self.handle_datagram(key, now_ns, &datagram)?;
                    self.after_input(key, now_ns)?;
                }
                // It came too late for its transfer, or from somebody who guessed an address.
                None => self.faults.record("late", datagram.payload),
            }
        }
        self.receive = Some(receive);
        self.flush_lane(index)?;
        Ok(now_ns)
    }

    fn handle_datagram(&mut self, key: usize, now_ns: u64, datagram: &Received<'_>) -> Result<(), LoadError> {
        let (client, mut shared) = self.split(key);
        client.handle_datagram(now_ns, datagram, &mut shared);
        self.drain(key, now_ns)
    }

    /// Lets a client say all it has to, flushing its lane as often as that takes.
    fn drain(&mut self, key: usize, now_ns: u64) -> Result<(), LoadError> {
        loop {
            let (client, mut shared) = self.split(key);
            match client.drain(now_ns, &mut shared).map_err(LoadError::os("cannot send"))? {
                Drained::Wholly => return Ok(()),
                Drained::LaneFull => self.flush_lane(key % self.lanes.len())?,
            }
        }
    }

    /// Sends what the client has to say, writes its row when it is decided, lets it go when it is finished.
    fn after_input(&mut self, key: usize, now_ns: u64) -> Result<(), LoadError> {
        self.drain(key, now_ns)?;
        let (client, shared) = self.split(key);
        if client.record_outcome(now_ns, shared.config, shared.recorder) {
            self.active -= 1;
            self.schedule.free_slot(now_ns);
            self.dally(key);
        }
        if self.clients[key].is_finished() {
            self.clients.remove(key);
        } else {
            self.arm(key);
        }
        Ok(())
    }

    /// Keeps a decided client for a while (RFC 1350 section 6); the oldest goes when there are too many.
    fn dally(&mut self, key: usize) {
        self.dallying.push_back(token(self.clients[key].generation, key));
        if self.dallying.len() > DALLYING_MAX {
            let oldest = self.dallying.pop_front().and_then(|token| self.key_of(token));
            if let Some(oldest) = oldest {
                self.clients.remove(oldest);
            }
        }
    }

    /// Timers are lazy: one entry a client, moved only when it fires or when the deadline comes nearer.
    fn arm(&mut self, key: usize) {
        let client = &mut self.clients[key];
        if let Some(deadline_ns) = client.deadline_ns()
            && (client.armed_ns == 0 || deadline_ns < client.armed_ns)
        {
            client.armed_ns = deadline_ns;
            self.timers.schedule(deadline_ns, token(client.generation, key));
        }
    }

    fn key_of(&self, token: u64) -> Option<usize> {
        let key = (token & u64::from(u32::MAX)) as usize;
        let client = self.clients.get(key)?;
        (u64::from(client.generation) == token >> 32).then_some(key)
    }

    fn split(&mut self, key: usize) -> (&mut Client, Shared<'_>) {
        let shared = Shared {
            config: self.config,
            recorder: &mut self.recorder,
            faults: &mut self.faults,
            lanes: &mut self.lanes,
            batch: &mut self.batch,
            scratch: &mut self.scratch,
            realtime_offset_ns: self.realtime_offset_ns,
        };
        (&mut self.clients[key], shared)
    }
}

/// Keeps every client's token below those of lanes and of the stop.
const GENERATION_MASK: u32 = u32::MAX >> 1;

fn token(generation: u32, key: usize) -> u64 {
    u64::from(generation) << 32 | key as u64
}

/// Open and close of the measured window.
fn window(config: &LoadConfig, start_ns: u64) -> (u64, u64) {
    match config.extent {
        Extent::Transfers { limit_ns, .. } => (start_ns, start_ns.saturating_add(limit_ns)),
        Extent::Duration { warm_up_ns, window_ns } => {
            (start_ns + warm_up_ns, start_ns + warm_up_ns + window_ns)
        }
    }
}

/// All that the first transfers need: a socket for each of them, or lanes for all.
fn open_sockets(config: &LoadConfig, slots: usize) -> Result<(Vec<Socket>, Vec<Lane>), LoadError> {
    if config.sockets == Sockets::PerTransfer {
        return Ok(((0..slots).map(|_| open_socket(config)).collect::<Result<_, _>>()?, Vec::new()));
    }
    let lanes = lane::count(slots, config.options.windowsize.unwrap_or(1));
    let datagram_bytes =
        REQUEST_LEN_MAX.max(HEADER_LEN + usize::from(config.options.blksize.unwrap_or(BLKSIZE_DEFAULT)));
    let open = |_| Lane::open(config.receive_buffer_bytes, datagram_bytes);
    let lanes = (0..lanes).map(open).collect::<Result<_, _>>();
    Ok((Vec::new(), lanes.map_err(LoadError::os("cannot open a shared client socket"))?))
}

fn open_socket(config: &LoadConfig) -> Result<Socket, LoadError> {
    let loopback = config.server.ip().is_loopback();
    let local: IpAddr = match config.server.ip() {
        IpAddr::V4(_) if loopback => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) if loopback => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let send_buffer_bytes = match config.operation {
        Operation::Read => 0,
        Operation::Write => config.receive_buffer_bytes,
    };
    let options = SocketOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        send_buffer_bytes,
        receive_stamps: true,
        ..SocketOptions::default()
    };
    Socket::bind(SocketAddr::new(local, 0), &options).map_err(LoadError::os("cannot open a client socket"))
}
