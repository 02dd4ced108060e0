//! When the next transfer starts: decided from what was asked for, the transfers that have ended, and the caller's time.
//! It must never read a clock or send. Another schedule is one more member here, and one more constructor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::config::{Arrivals, LoadConfig};
use crate::open_loop::{HostShare, OpenLoop, Start, Times};
use crate::shape::Starts;

/// Numbers for transfers, shared by all workers: those of this host's share, in order, up to a limit.
#[derive(Debug)]
pub(crate) struct Tickets {
    share: HostShare,
    next: AtomicU64,
    limit: u64,
    pub(crate) in_flight: InFlight,
}

/// How many are in flight, over all workers: touched once for each start and each end, in cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct InFlight {
    count: AtomicUsize,
    most: usize,
}

impl InFlight {
    fn new(most: usize) -> InFlight {
        InFlight { count: AtomicUsize::new(0), most }
    }

    /// One more; how many are in flight with it. `None` where as many are as may be.
    pub(crate) fn start(&self) -> Option<usize> {
        let more = |count| (count < self.most).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|count| count + 1)
    }

    /// One less.
    pub(crate) fn end(&self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Tickets {
    /// `limit`: how many there are on all hosts; `in_flight_max`: how many may be in flight on this one.
    pub(crate) fn new(share: HostShare, limit: Option<u64>, in_flight_max: usize) -> Tickets {
        let in_flight = InFlight::new(in_flight_max);
        Tickets { share, next: AtomicU64::new(0), limit: limit.unwrap_or(u64::MAX), in_flight }
    }

    /// The number of the next transfer; `None` when all have been handed out.
    pub(crate) fn take(&self) -> Option<u64> {
        let number = self.share.number(self.next.fetch_add(1, Ordering::Relaxed));
        (number < self.limit).then_some(number)
    }
}

/// One worker's share of the starts.
#[derive(Debug)]
pub(crate) enum Schedule<'a> {
    /// A fixed number of transfers in flight: the end of one is the intended start of the next.
    ClosedLoop(ClosedLoop<'a>),
    /// A fixed rate, whatever becomes of the transfers.
    OpenLoop(OpenLoop),
}

impl<'a> Schedule<'a> {
    /// What worker `index` is to start of a run that begins at `start_ns` and whose window closes at `close_ns`.
    pub(crate) fn new(
        config: &LoadConfig,
        tickets: &'a Tickets,
        index: usize,
        (start_ns, close_ns): (u64, u64),
    ) -> Schedule<'a> {
        match &config.arrivals {
            Arrivals::ClosedLoop { ramp_ns, .. } => {
                Schedule::closed_loop(start_ns, config.slots(index), *ramp_ns, tickets)
            }
            Arrivals::OpenLoop { starts, spacing, .. } => {
                let times = Times::new(starts, *spacing, config.seed);
                let worker = (index, config.workers);
                // A storm and a shape know their own end, at which some may start.
                let until_ns = if matches!(starts, Starts::Rate(_)) { close_ns } else { u64::MAX };
                let open = OpenLoop::new(times, start_ns, config.share, worker, until_ns, tickets.limit);
                Schedule::OpenLoop(open)
            }
        }
    }

    /// `slots` transfers in flight; their first starts are spread evenly over `ramp_ns` from `start_ns` on.
    fn closed_loop(start_ns: u64, slots: usize, ramp_ns: u64, tickets: &'a Tickets) -> Schedule<'a> {
        Schedule::ClosedLoop(ClosedLoop::new(start_ns, slots, ramp_ns, tickets))
    }

    /// When the next transfer is to start if none ends meanwhile; `None` where that takes an end, or none starts any more.
    pub(crate) fn next_start_ns(&self) -> Option<u64> {
        match self {
            Schedule::ClosedLoop(closed) => closed.next_start_ns(),
            Schedule::OpenLoop(open) => open.next_start_ns(),
        }
    }

    /// A start that is due by now, once for each.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Start> {
        match self {
            Schedule::ClosedLoop(closed) => closed.take_due(now_ns),
            Schedule::OpenLoop(open) => open.take_due(now_ns),
        }
    }

    /// A transfer has ended.
    pub(crate) fn transfer_ended(&mut self, at_ns: u64) {
        match self {
            Schedule::ClosedLoop(closed) => closed.free_slot(at_ns),
            Schedule::OpenLoop(_) => {}
        }
    }

    /// The measured window has closed. What an open loop intended before that, and did not come to, starts all the same.
    pub(crate) fn close_window(&mut self) {
        match self {
            Schedule::ClosedLoop(closed) => closed.close(),
            Schedule::OpenLoop(_) => {}
        }
    }

    /// No transfer starts from now on.
    pub(crate) fn close(&mut self) {
        match self {
            Schedule::ClosedLoop(closed) => closed.close(),
            Schedule::OpenLoop(open) => open.close(),
        }
    }

    /// Starts that were given, where the schedule alone decided on them.
    pub(crate) fn intended(&self) -> Option<u64> {
        match self {
            Schedule::ClosedLoop(_) => None,
            Schedule::OpenLoop(open) => Some(open.intended),
        }
    }
}

#[derive(Debug)]
pub(crate) struct ClosedLoop<'a> {
    start_ns: u64,
    /// Distance between two of this worker's first starts.
    step_ns: u64,
    first_starts: u64,
    first_started: u64,
    /// When the slots that are free became so.
    freed: VecDeque<u64>,
    tickets: &'a Tickets,
    open: bool,
}

impl<'a> ClosedLoop<'a> {
    fn new(start_ns: u64, slots: usize, ramp_ns: u64, tickets: &'a Tickets) -> ClosedLoop<'a> {
        let first_starts = slots as u64;
        ClosedLoop {
            start_ns,
            step_ns: ramp_ns / first_starts.max(1),
            first_starts,
            first_started: 0,
            freed: VecDeque::with_capacity(slots),
            tickets,
            open: true,
        }
    }

    /// A freed slot goes before a first start, and is due whatever the time is.
    fn next_start_ns(&self) -> Option<u64> {
        let is_ramping = self.first_started < self.first_starts;
        let first_ns = || is_ramping.then(|| self.start_ns + self.first_started * self.step_ns);
        self.freed.front().copied().or_else(first_ns)
    }

    fn take_due(&mut self, now_ns: u64) -> Option<Start> {
        let intended_ns = self.take_slot(now_ns)?;
        let Some(number) = self.tickets.take() else {
            self.close();
            return None;
        };
        Some(Start { number, intended_ns })
    }

    fn take_slot(&mut self, now_ns: u64) -> Option<u64> {
        if let Some(freed_ns) = self.freed.pop_front() {
            return Some(freed_ns);
        }
        let first_ns = self.next_start_ns().filter(|due_ns| *due_ns <= now_ns)?;
        self.first_started += 1;
        Some(first_ns)
    }

    fn free_slot(&mut self, at_ns: u64) {
        if self.open {
            self.freed.push_back(at_ns);
        }
    }

    fn close(&mut self) {
        self.open = false;
        self.freed.clear();
        self.first_started = self.first_starts;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(limit: Option<u64>, in_flight_max: usize) -> Tickets {
        Tickets::new(HostShare::WHOLE, limit, in_flight_max)
    }

    fn intended(schedule: &mut Schedule<'_>, now_ns: u64) -> Option<u64> {
        schedule.take_due(now_ns).map(|start| start.intended_ns)
    }

    #[test]
    fn a_burst_is_due_at_once_and_no_more_than_the_slots() {
        let tickets = tickets(None, 1);
        let mut schedule = Schedule::closed_loop(100, 3, 0, &tickets);
        assert_eq!(schedule.take_due(99), None);
        let burst: Vec<_> = std::iter::from_fn(|| schedule.take_due(100)).collect();
        assert_eq!(burst, [0, 1, 2].map(|number| Start { number, intended_ns: 100 }));
        assert_eq!(schedule.next_start_ns(), None);
    }

    #[test]
    fn a_ramp_spreads_the_first_starts_and_a_freed_slot_goes_first() {
        let tickets = tickets(None, 1);
        let mut schedule = Schedule::closed_loop(0, 4, 400, &tickets);
        assert_eq!(intended(&mut schedule, 0), Some(0));
        assert_eq!(schedule.next_start_ns(), Some(100));
        schedule.transfer_ended(50);
        assert_eq!(intended(&mut schedule, 60), Some(50));
        assert_eq!(intended(&mut schedule, 60), None);
        assert_eq!(intended(&mut schedule, 1_000), Some(100));
    }

    #[test]
    fn a_closed_schedule_starts_nothing() {
        let tickets = tickets(None, 1);
        let mut schedule = Schedule::closed_loop(0, 2, 0, &tickets);
        schedule.transfer_ended(1);
        schedule.close_window();
        schedule.transfer_ended(2);
        assert_eq!(schedule.take_due(10), None);
        assert_eq!(schedule.next_start_ns(), None);
    }

    #[test]
    fn a_schedule_whose_numbers_have_run_out_starts_nothing_and_waits_for_nothing() {
        let tickets = tickets(Some(1), 1);
        let mut schedule = Schedule::closed_loop(0, 3, 0, &tickets);
        assert_eq!(intended(&mut schedule, 0), Some(0));
        assert_eq!(intended(&mut schedule, 0), None);
        schedule.transfer_ended(1);
        assert_eq!(schedule.next_start_ns(), None);
    }

    #[test]
    fn no_more_are_in_flight_than_may_be_whichever_worker_starts_them() {
        let tickets = tickets(None, 3);
        let count_most = || {
            (0..20_000).fold(0, |most: usize, _| {
                let started = tickets.in_flight.start();
                if started.is_some() {
                    tickets.in_flight.end();
                }
                most.max(started.unwrap_or(0))
            })
        };
        let most = std::thread::scope(|scope| {
            let workers = [0; 4].map(|_| scope.spawn(count_most));
            workers.map(|worker| worker.join().unwrap()).into_iter().max()
        });
        assert!(most.is_some_and(|most| (1..=3).contains(&most)), "{most:?}");
        assert_eq!([0; 5].map(|_| tickets.in_flight.start()), [Some(1), Some(2), Some(3), None, None]);
        tickets.in_flight.end();
        assert_eq!(tickets.in_flight.start(), Some(3), "what was refused is not in flight");
    }

    #[test]
    fn hosts_of_a_closed_loop_together_start_each_number_once_in_its_order() {
        let widths = [(0, 2), (2, 3), (5, 1), (6, 1)];
        let mut union = Vec::new();
        for (first, width) in widths {
            let share = HostShare { first, width, of: 7 };
            let tickets = Tickets::new(share, Some(104), 4);
            let mut workers = [2, 1].map(|slots| Schedule::closed_loop(0, slots, 0, &tickets));
            let mut numbers = Vec::new();
            for now_ns in 0..100 {
                for worker in &mut workers {
                    numbers.extend(worker.take_due(now_ns).map(|start| start.number));
                    worker.transfer_ended(now_ns);
                }
            }
            assert!(numbers.is_sorted() && workers.iter().all(|worker| worker.next_start_ns().is_none()));
            assert_eq!(numbers.len() as u64, share.part_of(104));
            union.extend(numbers);
        }
        union.sort_unstable();
        assert!(union.into_iter().eq(0..104));
    }

    #[test]
    fn a_closed_loop_without_a_number_in_its_share_starts_nothing_and_waits_for_nothing() {
        let tickets = Tickets::new(HostShare { first: 6, width: 1, of: 7 }, Some(6), 4);
        let mut schedule = Schedule::closed_loop(100, 4, 0, &tickets);
        assert_eq!((schedule.take_due(100), schedule.next_start_ns()), (None, None));
    }

    #[test]
    fn tickets_stop_at_the_limit() {
        let tickets = tickets(Some(2), 1);
        assert_eq!(
            [tickets.take(), tickets.take(), tickets.take(), tickets.take()],
            [Some(0), Some(1), None, None]
        );
    }
}
