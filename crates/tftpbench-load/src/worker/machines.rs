//! What a worker does for machines that boot: a machine keeps its place among the clients, where the client of its next
//! request takes the place of the last one.
//!
//! A next request is always a timer's work, due at once where the machine does not think: so whatever the last client
//! queued has left before, and no datagram is handled meanwhile. No cost where nothing boots.

use tftpbench_net::clock;

use super::{DEADLINE, GENERATION_MASK, Worker, token};
use crate::boot_figures::BootOutcome;
use crate::booting::{Booting, End, Next, shed_row};
use crate::client::Client;
use crate::endpoints::Via;
use crate::load_error::LoadError;
use crate::open_loop::Start;

/// Set in the place of a timer that is a machine's and not a client's; no client's place is so large.
const MACHINE: u64 = 1 << 31;
/// Due with the next look at the timers.
const AT_ONCE_NS: u64 = 0;

impl Worker<'_> {
    /// Starts a machine with its first request; false where nothing boots.
    pub(super) fn start_machine(&mut self, start: Start) -> Result<bool, LoadError> {
        let Some(machines) = &mut self.machines else { return Ok(false) };
        machines.records.begun += 1;
        let key = self.clients.vacant_key();
        let now_ns = clock::monotonic_ns();
        let source = self.endpoints.machine_source(key)?;
        let mut booting = Booting::new(&machines.plan, start, now_ns, source);
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        booting.generation = self.generation;
        if let Some(patience_ns) = self.config.patience_ns() {
            let deadline_ns = start.intended_ns.saturating_add(patience_ns);
            self.timers.schedule(deadline_ns, token(self.generation, key) | MACHINE | DEADLINE);
        }
        self.active += 1;
        let client = self.next_client(key, Box::new(booting), now_ns)?;
        self.clients.insert(client);
        self.ask(key, now_ns)?;
        Ok(true)
    }

    /// A machine that was to start, and does not; false where nothing boots.
    pub(super) fn shed_machine(&mut self, start: Start) -> bool {
        let Some(machines) = &mut self.machines else { return false };
        let row = shed_row(&machines.plan, start, self.recorder.start_ns);
        machines.records.end(row, &self.recorder.scope());
        true
    }

    /// A timer that is no client's is a machine's: its next request is due, or its deadline has passed.
    #[cold]
    pub(super) fn fire_machine(&mut self, fired: u64, now_ns: u64) -> Result<(), LoadError> {
        let key = (fired & (MACHINE - 1)) as usize;
        let generation = u64::from(u32::MAX) & (fired & !DEADLINE) >> 32;
        let booting = self.clients.get(key).and_then(|client| client.boot.as_ref());
        let is_current = booting.is_some_and(|booting| u64::from(booting.generation) == generation);
        if fired & MACHINE == 0 || !is_current {
            return Ok(());
        }
        let is_deciding = !self.clients[key].is_recorded();
        match (fired & DEADLINE != 0, is_deciding) {
            (true, true) => {
                self.clients[key].give_up();
                self.after_input(key, now_ns)
            }
            (true, false) => {
                self.end_machine(key, End::of(BootOutcome::Late), now_ns);
                Ok(())
            }
            (false, true) => Ok(()),
            (false, false) => self.ask_next(key),
        }
    }

    /// The machine's next request goes out.
    fn ask_next(&mut self, key: usize) -> Result<(), LoadError> {
        let now_ns = clock::monotonic_ns();
        let Some(booting) = self.clients[key].boot.take() else { return Ok(()) };
        self.clients[key] = self.next_client(key, booting, now_ns)?;
        self.ask(key, now_ns)
    }

    fn next_client(
        &mut self,
        key: usize,
        mut booting: Box<Booting>,
        now_ns: u64,
    ) -> Result<Client, LoadError> {
        let via = self.endpoints.next_of_machine(key, &booting)?;
        booting.requests += 1;
        self.generation = self.generation.wrapping_add(1) & GENERATION_MASK;
        let mut client = Client::of_boot(self.config, via, booting, now_ns);
        client.generation = self.generation;
        Ok(client)
    }

    fn ask(&mut self, key: usize, now_ns: u64) -> Result<(), LoadError> {
        self.recorder.looked(now_ns);
        let client = &self.clients[key];
        if let Via::Own(socket) = &client.via {
            let watched = self.poller.add(socket, token(client.generation, key));
            watched.map_err(LoadError::os("cannot watch a client socket"))?;
        }
        self.recorder.start(now_ns);
        self.after_input(key, now_ns)
    }

    /// The transfer of a machine has been decided; false where nothing boots.
    pub(super) fn end_step(&mut self, key: usize, end_ns: u64, now_ns: u64) -> bool {
        let Some(machines) = &mut self.machines else { return false };
        let client = &mut self.clients[key];
        let ended = client.ended(end_ns);
        if let Via::Own(socket) = std::mem::replace(&mut client.via, Via::gone(key)) {
            // It may have been closed by a signal that the run is over; then there is nothing to remove.
            let _ = self.poller.remove(&socket);
            machines.retire(socket);
        }
        let (Some(ended), Some(booting)) = (ended, &mut client.boot) else { return true };
        if booting.is_miss(&ended) {
            let at_ns = ended.end_ns.saturating_sub(self.recorder.start_ns);
            machines.records.miss(at_ns, ended.end_ns.saturating_sub(ended.started_ns));
        }
        match booting.step_ended(&ended, machines.is_over) {
            Next::Request => {
                let at_ns = if booting.due_ns <= now_ns { AT_ONCE_NS } else { booting.due_ns };
                self.timers.schedule(at_ns, token(booting.generation, key) | MACHINE);
            }
            Next::End(end) => self.end_machine(key, end, end_ns),
        }
        true
    }

    fn end_machine(&mut self, key: usize, end: End, end_ns: u64) {
        let client = self.clients.remove(key);
        self.active -= 1;
        self.in_flight.end();
        self.schedule.transfer_ended(end_ns);
        if let (Some(machines), Some(booting)) = (&mut self.machines, &client.boot) {
            let row = booting.row(end, end_ns, self.recorder.start_ns);
            machines.records.served(booting.share, &booting.served_misses);
            machines.records.end(row, &self.recorder.scope());
        }
    }

    /// The run is over: whatever is decided from now on was interrupted.
    pub(super) fn close_machines(&mut self) {
        if let Some(machines) = &mut self.machines {
            machines.is_over = true;
        }
    }

    /// Ends the machines that no transfer is under way for; the others have ended with theirs.
    pub(super) fn interrupt_machines(&mut self, now_ns: u64) {
        if self.machines.is_none() {
            return;
        }
        let keys: Vec<usize> = self.clients.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.end_machine(key, End::of(BootOutcome::Interrupted), now_ns);
        }
    }
}
