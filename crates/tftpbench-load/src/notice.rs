//! What a run says while it goes on. Plain data, but for the counters that a worker lets others read.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::boot_figures::{BootOutcome, BootRecords};
use crate::brake::Stopped;
use crate::recorder::{Recorder, Totals};

/// What the caller hears while a run goes on, on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The run is still going.
    Tick,
    /// How far it is: once a second since the start, and since the end of the window.
    Progress(Progress),
    /// Everything is open, and the run starts at `start_ns` on the monotonic clock: the edges of the measured window
    /// follow from it. Once per run, before all others.
    Scheduled {
        /// CLOCK_MONOTONIC.
        start_ns: u64,
    },
    /// The measured window has just closed; the drain begins. Once per run.
    WindowClosed,
    /// The first datagram has arrived. Once per run; this and the next two only where the run watches for an answer.
    Answered,
    /// Nothing has arrived for a second, and nothing has been refused. Once per run; it goes on.
    Unanswered,
    /// Nothing listens on the server's port: a request came back as "port unreachable" before anything answered. Once per
    /// run; it goes on, for a server may be about to start.
    Refused,
    /// A request came back as unreachable, in a load with a brake; of any moment.
    Unreachable,
    /// The brake has ended the load. Once per run.
    Braked(Stopped),
}

/// How far a run is. The counts are those of all workers, as they were up to 50 ms ago.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Time since the run began.
    pub elapsed_ns: u64,
    /// Time since the measured window closed; `None` before.
    pub draining_ns: Option<u64>,
    /// Transfers started.
    pub started: u64,
    /// Transfers that came to their end, one way or another.
    pub ended: u64,
    /// Of these, those that completed.
    pub completed: u64,
    /// Starts that were due and shed.
    pub shed: u64,
    /// File bytes moved in order.
    pub bytes: u64,
    /// Machines that have begun to boot; 0 where none is to.
    pub machines: u64,
    /// Of these, those that are up.
    pub booted: u64,
    /// Of these, those whose boot has ended otherwise.
    pub lost: u64,
}

impl Progress {
    /// What all workers have counted.
    pub(crate) fn add(mut self, worker: &Counters) -> Progress {
        self.started += worker.started.load(Ordering::Relaxed);
        self.ended += worker.ended.load(Ordering::Relaxed);
        self.completed += worker.completed.load(Ordering::Relaxed);
        self.shed += worker.shed.load(Ordering::Relaxed);
        self.bytes += worker.bytes.load(Ordering::Relaxed);
        self.machines += worker.machines.load(Ordering::Relaxed);
        self.booted += worker.booted.load(Ordering::Relaxed);
        self.lost += worker.lost.load(Ordering::Relaxed);
        self
    }

    /// How many starts have come to their end, and how many of these not as they should: of machines where they boot, for
    /// a request of one may go unanswered and do no harm.
    pub(crate) fn ended_and_lost(&self, of_machines: bool) -> (u64, u64) {
        match of_machines {
            true => (self.booted + self.lost, self.lost),
            false => (self.ended, self.ended.saturating_sub(self.completed)),
        }
    }
}

/// One worker's counters as others may read them, in a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counters {
    started: AtomicU64,
    ended: AtomicU64,
    completed: AtomicU64,
    shed: AtomicU64,
    bytes: AtomicU64,
    machines: AtomicU64,
    booted: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    /// Called by the worker outside its hot loop, some 20 times a second.
    pub(crate) fn store(&self, recorder: &Recorder, boots: Option<&BootRecords>) {
        let sum = |count: fn(&Totals) -> u64| recorder.phases.iter().map(count).sum();
        self.started.store(recorder.started, Ordering::Relaxed);
        self.ended.store(recorder.transfers.seen(), Ordering::Relaxed);
        self.completed.store(sum(|totals| totals.completed), Ordering::Relaxed);
        self.shed.store(recorder.shed, Ordering::Relaxed);
        self.bytes.store(sum(|totals| totals.bytes), Ordering::Relaxed);
        let Some(BootRecords { begun, counts, .. }) = boots else { return };
        let lost = [BootOutcome::Failed, BootOutcome::Late, BootOutcome::Interrupted];
        self.machines.store(*begun, Ordering::Relaxed);
        self.booted.store(counts.ended_as(BootOutcome::Booted), Ordering::Relaxed);
        self.lost.store(lost.map(|outcome| counts.ended_as(outcome)).iter().sum(), Ordering::Relaxed);
        self.shed.store(counts.ended_as(BootOutcome::Shed), Ordering::Relaxed);
    }
}

/// A notice of a worker, and when it was given.
pub(crate) type Sent = (Notice, u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_store_adds_up_over_all_their_phases() {
        let workers = [Counters::default(), Counters::default()];
        for (worker, at_ns) in workers.iter().zip([5, 500]) {
            let mut recorder = Recorder::new(0, (10, 100));
            recorder.started = 4;
            recorder.progress(at_ns, 2, 70);
            recorder.progress(50, 1, 30);
            recorder.complete(at_ns);
            worker.store(&recorder, None);
        }
        let progress = workers.iter().fold(Progress::default(), Progress::add);
        assert_eq!(progress, Progress { started: 8, completed: 2, bytes: 200, ..Progress::default() });
        assert_eq!(progress.ended_and_lost(false), (0, 0));
    }

    #[test]
    fn machines_are_up_lost_or_shed_whatever_became_of_their_requests() {
        use BootOutcome::{Booted, Failed, Interrupted, Late, Shed};
        let (recorder, worker) = (Recorder::new(0, (0, u64::MAX)), Counters::default());
        let ended = [Booted, Booted, Booted, Failed, Late, Interrupted, Shed, Shed];
        worker.store(&recorder, Some(&BootRecords::of(9, &ended)));
        let progress = Progress { ended: 50, completed: 10, ..Progress::default() }.add(&worker);
        assert_eq!((progress.machines, progress.booted, progress.lost, progress.shed), (9, 3, 3, 2));
        assert_eq!(progress.ended_and_lost(true), (6, 3));
        assert_eq!(progress.ended_and_lost(false), (50, 40));
    }
}
