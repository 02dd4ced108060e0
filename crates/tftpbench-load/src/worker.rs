//! One thread of the generator: an epoll loop over its share of the virtual clients.
//!
//! A turn: start what is due, fire timers, wait (busy-polling first), handle what arrived. Time spent waiting with
//! nothing to do is idle; all other time is productive, and its share of the window is `generator_busy_fraction`.

mod answer;
mod arrivals;
mod machines;
pub(crate) mod opened;
mod ring;

use std::collections::VecDeque;
use std::sync::mpsc::Sender as Channel;

use slab::Slab;
use tftpbench_net::{Poller, ReceiveBatch, RingReceiver, SendBatch, Stop, Timers, clock};

use crate::booting::Machines;
use crate::brake::Throttle;
use crate::client::{Client, Drained, Shared};
use crate::config::{Arrivals, DALLYING_MAX, Extent, LoadConfig};
use crate::endpoints::{Endpoints, Via};
use crate::faults::Faults;
use crate::load_error::LoadError;
use crate::notice::{Counters, Notice, Sent};
use crate::open_loop::Start;
use crate::recorder::{Phase, Recorder};
use crate::report::WorkerReport;
use crate::schedule::{InFlight, Schedule};

/// How often the offset between the clocks is taken anew.
const OFFSET_AGE_NS: u64 = 50_000_000;
/// Longest sleep, so that phases and a stop request are noticed. What stops the process while it sleeps is seen as far
/// as it lasts longer than the sleep would have.
const WAIT_MAX_NS: u64 = 5_000_000;
const STOP_TOKEN: u64 = u64::MAX;
/// Tokens of shared sockets count down from here; a client's token is never so large, see `token`.
const SHARED_TOKENS: u64 = u64::MAX - 1;

struct Worker<'a> {
    config: &'a LoadConfig,
    stop: &'a Stop,
    notices: Channel<Sent>,
    counters: &'a Counters,
    poller: Poller,
    timers: Timers,
    due: Vec<u64>,
    clients: Slab<Client>,
    generation: u32,
    endpoints: Endpoints,
    dallying: VecDeque<u64>,
    active: usize,
    /// How many are active over all workers, and may be.
    in_flight: &'a InFlight,
    schedule: Schedule<'a>,
    throttle: Option<Throttle>,
    /// No transfer starts before.
    opens_ns: u64,
    phase: Phase,
    /// CPU time of this thread when the window opened.
    cpu_mark_ns: u64,
    drain_end_ns: u64,
    realtime_offset_ns: i64,
    recorder: Recorder,
    faults: Faults,
    receive: Option<ReceiveBatch>,
    /// What arrives on the ring, where there is one; lent out while it is looked at.
    arrivals: Option<RingReceiver>,
    /// ICMP frames on it have said that nothing listens on the server's port.
    refused: bool,
    /// How long nothing has arrived by now, as far as that was waited for.
    idle_ns: u64,
    /// Something has arrived.
    heard: bool,
    /// Whether that is still to be reported.
    awaits_answer: bool,
    /// Batches that came from the only shared socket since the poller was asked.
    receives_since_poll: u32,
    batch: SendBatch,
    scratch: Box<[u8]>,
    receive_buffer_bytes: usize,
    /// Where what starts is a machine that boots.
    machines: Option<Box<Machines>>,
}

impl Worker<'_> {
    /// Runs until everything has ended.
    fn run(mut self) -> Result<WorkerReport, LoadError> {
        self.watch_for_answer();
        let mut now_ns = clock::monotonic_ns();
        loop {
            self.realtime_offset_ns = clock::realtime_offset_ns();
            self.counters.store(&self.recorder, self.machines.as_ref().map(|machines| &machines.records));
            self.watch_for_refusal();
            let recheck_ns = now_ns + OFFSET_AGE_NS;
            while now_ns < recheck_ns {
                self.enter_phase(now_ns)?;
                self.start_due(now_ns)?;
                self.fire_timers(now_ns)?;
                self.flush_shared()?;
                self.recorder.roll(now_ns, self.active);
                if self.is_done() {
                    self.flush_ring()?;
                    return Ok(self.report(now_ns));
                }
                now_ns = match self.read_on()? {
                    Some(now_ns) => now_ns,
                    None => {
                        self.wait(now_ns)?;
                        self.handle_ready()?
                    }
                };
                if self.awaits_answer {
                    self.look_for_answer();
                }
            }
        }
    }

    /// A window that was asked for lasts as long as that, however early the last transfer ends.
    fn is_done(&self) -> bool {
        let is_over = || self.phase == Phase::Drain || matches!(self.config.extent, Extent::Transfers { .. });
        self.active == 0 && self.schedule.next_start_ns().is_none() && is_over()
    }

    fn report(mut self, now_ns: u64) -> WorkerReport {
        self.mark_cpu();
        self.recorder.receive_drops += self.endpoints.shared_drops();
        self.recorder.receive_drops += self.arrivals.as_mut().map_or(0, RingReceiver::drops);
        self.recorder.roll(now_ns, self.active);
        WorkerReport {
            recorder: self.recorder,
            faults: self.faults,
            end_ns: now_ns,
            // Of machines; of transfers each that is intended starts.
            intended: self.schedule.intended().filter(|_| self.machines.is_none()),
            receive_buffer_bytes: self.receive_buffer_bytes,
            boots: self.machines.map(|machines| machines.records),
        }
    }

    /// Moves through warm-up, window and drain, and ends the run when its time is over or a stop is asked for.
    fn enter_phase(&mut self, now_ns: u64) -> Result<(), LoadError> {
        let (open_ns, close_ns) = self.recorder.window;
        let is_stopped = self.stop.requests() > 0;
        if self.phase == Phase::WarmUp && now_ns >= open_ns {
            self.set_phase(Phase::Window);
        }
        if self.phase < Phase::Drain && (now_ns >= close_ns || is_stopped) {
            self.set_phase(Phase::Drain);
            // It fails where the caller gave up waiting, which is no fault here.
            let _ = self.notices.send((Notice::WindowClosed, clock::monotonic_ns()));
            self.recorder.window.1 = close_ns.min(now_ns);
            self.drain_end_ns = match (self.config.extent, &self.config.arrivals) {
                (Extent::Transfers { .. }, _) => now_ns,
                (Extent::Duration { .. }, Arrivals::ClosedLoop { .. }) => {
                    close_ns.saturating_add(self.config.drain_ns)
                }
                // Each has its own deadline.
                (Extent::Duration { .. }, Arrivals::OpenLoop { .. }) => u64::MAX,
            };
            self.schedule.close_window();
        }
        if now_ns >= self.drain_end_ns || is_stopped {
            self.schedule.close();
            self.interrupt_all(now_ns)?;
        }
        Ok(())
    }

    fn set_phase(&mut self, phase: Phase) {
        self.mark_cpu();
        self.phase = phase;
    }

    /// Counts this thread's CPU time inside the window; called at both its edges.
    fn mark_cpu(&mut self) {
        let cpu_ns = clock::thread_cpu_ns();
        if self.phase == Phase::Window {
            self.recorder.window_cpu_ns += cpu_ns.saturating_sub(self.cpu_mark_ns);
        }
        self.cpu_mark_ns = cpu_ns;
    }

    fn interrupt_all(&mut self, now_ns: u64) -> Result<(), LoadError> {
        self.drain_end_ns = u64::MAX;
        self.close_machines();
        let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            // Ending one transfer can push another out that only dallied.
            if let Some(client) = self.clients.get_mut(key).filter(|client| !client.is_recorded()) {
                client.interrupt(now_ns, &self.recorder);
                self.after_input(key, now_ns)?;
                self.recorder.looked(clock::monotonic_ns());
            }
        }
        self.interrupt_machines(now_ns);
        Ok(())
    }

    fn start_due(&mut self, now_ns: u64) -> Result<(), LoadError> {
        while self.may_start(now_ns)
            && let Some(start) = self.schedule.take_due(now_ns)
        {
            // What an open loop can't start in its time is shed; a closed one waits.
            let in_flight = if self.opens_ns <= now_ns { self.in_flight.start() } else { None };
            if let Some(in_flight) = in_flight {
                self.recorder.in_flight_max = self.recorder.in_flight_max.max(in_flight);
                self.start(start)?;
            } else if !self.shed_machine(start) {
                self.recorder.shed(start.intended_ns);
            }
        }
        Ok(())
    }

    /// Whether what is due may be looked at, with a rate that the load may not pass.
    fn may_start(&mut self, now_ns: u64) -> bool {
        let Some(throttle) = &mut self.throttle else { return true };
        self.opens_ns = throttle.opens_ns(now_ns, self.recorder.wire_bytes());
        self.opens_ns <= now_ns || matches!(self.config.arrivals, Arrivals::OpenLoop { .. })
    }

    fn start(&mut self, start: Start) -> Result<(), LoadError> {
        if self.start_machine(start)? {
            return Ok(());
        }
        let Start { number, intended_ns } = start;
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let via = self.endpoints.next(self.clients.vacant_key())?;
        let now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        let mut client = Client::new(self.config, via, number, intended_ns, now_ns);
        client.generation = self.generation;
        let key = self.clients.insert(client);
        if let Via::Own(socket) = &self.clients[key].via {
            let watched = self.poller.add(socket, token(self.generation, key));
            watched.map_err(LoadError::os("cannot watch a client socket"))?;
        }
        self.active += 1;
        self.recorder.start(now_ns);
        if let Some(patience_ns) = self.config.patience_ns() {
            let deadline_ns = intended_ns.saturating_add(patience_ns);
            self.timers.schedule(deadline_ns, token(self.generation, key) | DEADLINE);
        }
        self.after_input(key, now_ns)
    }

    fn flush_shared(&mut self) -> Result<(), LoadError> {
        for index in 0..self.endpoints.shared.len() {
            self.flush_shared_socket(index)?;
        }
        Ok(())
    }

    /// Stamps what is queued, then sends it with one call.
    fn flush_shared_socket(&mut self, index: usize) -> Result<(), LoadError> {
        let shared_socket = &mut self.endpoints.shared[index];
        if shared_socket.batch.is_empty() {
            return Ok(());
        }
        let now_ns = clock::monotonic_ns();
        self.recorder.looked(now_ns);
        for key in &shared_socket.queued {
            if let Some(client) = self.clients.get_mut(*key) {
                client.exchange.flush(now_ns);
            }
        }
        let flushed = shared_socket.flush().map_err(LoadError::os("cannot send"))?;
        self.recorder.flushed(flushed);
        Ok(())
    }

    fn fire_timers(&mut self, now_ns: u64) -> Result<(), LoadError> {
        let mut due = std::mem::take(&mut self.due);
        self.timers.expire(now_ns, &mut due);
        for token in due.drain(..) {
            let Some(key) = self.key_of(token & !DEADLINE) else {
                self.fire_machine(token, now_ns)?;
                continue;
            };
            let client = &mut self.clients[key];
            if token & DEADLINE != 0 {
                if client.is_recorded() {
                    continue;
                }
                client.give_up();
            } else if client.boot.is_some() && client.is_recorded() {
                continue; // its machine thinks about the next request; this one has no place to send from any more
            } else {
                client.armed_ns = 0;
            }
            if client.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                client.handle_timeout(now_ns);
            }
            self.after_input(key, now_ns)?;
            self.recorder.looked(clock::monotonic_ns());
        }
        self.due = due;
        Ok(())
    }

    fn wait(&mut self, now_ns: u64) -> Result<(), LoadError> {
        let is_before_start = now_ns < self.recorder.start_ns;
        let (timeout_ns, spin_ns) =
            if is_before_start { self.until_start(now_ns) } else { self.until_next(now_ns) };
        let waited = match self.arrivals {
            Some(_) => self.wait_for_frames(timeout_ns, spin_ns)?,
            None => {
                let waited = self.poller.wait(Some(timeout_ns), spin_ns);
                waited.map_err(LoadError::os("cannot wait for datagrams"))?
            }
        };
        let is_news = waited.ready > 0 || is_before_start;
        self.idle_ns = if is_news { 0 } else { self.idle_ns + waited.idle_ns };
        self.recorder.totals(now_ns).idle_ns += waited.idle_ns;
        Ok(())
    }

    /// For how long there is nothing to do, and for how much of that it polls: for so long after something arrived. Then
    /// it sleeps as often as that takes.
    fn until_next(&mut self, now_ns: u64) -> (u64, u64) {
        let next_start_ns = self.schedule.next_start_ns().map(|due_ns| due_ns.max(self.opens_ns));
        let events = [self.timers.next_deadline_ns(), next_start_ns, Some(self.next_boundary_ns())];
        let next_ns = events.into_iter().flatten().min().unwrap_or(u64::MAX);
        let timeout_ns = next_ns.saturating_sub(now_ns).min(WAIT_MAX_NS);
        self.recorder.will_wait(timeout_ns);
        (timeout_ns, self.config.busy_poll_ns.saturating_sub(self.idle_ns))
    }

    /// The same before the run starts. It sleeps first, so that the start itself finds it polling, however far that was
    /// ahead.
    #[cold]
    fn until_start(&mut self, now_ns: u64) -> (u64, u64) {
        self.recorder.awaits_start();
        let left_ns = self.recorder.start_ns - now_ns;
        match left_ns.saturating_sub(self.config.busy_poll_ns) {
            0 => (left_ns, left_ns),
            asleep_ns => (asleep_ns.min(WAIT_MAX_NS), 0),
        }
    }

    fn next_boundary_ns(&self) -> u64 {
        match self.phase {
            Phase::WarmUp => self.recorder.window.0,
            Phase::Window => self.recorder.window.1,
            Phase::Drain => self.drain_end_ns,
        }
    }

    /// Lets a client say all it has to, flushing its shared socket as often as that takes.
    fn drain(&mut self, key: usize, now_ns: u64) -> Result<(), LoadError> {
        loop {
            let (client, mut shared) = self.split(key);
            match client.drain(now_ns, &mut shared).map_err(LoadError::os("cannot send"))? {
                Drained::Complete => return Ok(()),
                Drained::SocketFull => match self.clients[key].via {
                    Via::Shared { index, .. } => self.flush_shared_socket(index)?,
                    _ => self.flush_ring()?,
                },
            }
        }
    }

    /// Sends what the client has to say, then settles it.
    fn after_input(&mut self, key: usize, now_ns: u64) -> Result<(), LoadError> {
        self.drain(key, now_ns)?;
        self.settle(key, now_ns)
    }

    /// Writes a drained client's row when it is decided, lets it go when it is finished.
    fn settle(&mut self, key: usize, now_ns: u64) -> Result<(), LoadError> {
        let (client, shared) = self.split(key);
        if let Some(end_ns) = client.record(now_ns, shared.recorder) {
            if self.end_step(key, end_ns, now_ns) {
                return Ok(());
            }
            self.active -= 1;
            self.in_flight.end();
            self.schedule.transfer_ended(end_ns);
            self.dally(key);
        }
        let client = &self.clients[key];
        if client.is_finished() && !client.keeps_its_port() {
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
            sockets: &mut self.endpoints.shared,
            ring: self.endpoints.ring.as_mut(),
            batch: &mut self.batch,
            scratch: &mut self.scratch,
            realtime_offset_ns: self.realtime_offset_ns,
        };
        (&mut self.clients[key], shared)
    }
}

/// Set in the key of a timer that ends a transfer for good; no token has it.
const DEADLINE: u64 = 1 << 63;
/// Keeps every client's token below those of shared sockets and of the stop.
const GENERATION_MASK: u32 = u32::MAX >> 1;

fn token(generation: u32, key: usize) -> u64 {
    u64::from(generation) << 32 | key as u64
}
