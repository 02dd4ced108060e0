//! When the next transfer starts. Decides, never sends: the worker asks and obeys.
//!
//! Closed loop: a fixed number of transfers in flight; the end of one is the intended start of the next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers for transfers, shared by all workers: 0, 1, 2, ... up to a limit.
#[derive(Debug)]
pub(crate) struct Tickets {
    next: AtomicU64,
    limit: u64,
}

impl Tickets {
    pub(crate) fn new(limit: Option<u64>) -> Tickets {
        Tickets { next: AtomicU64::new(0), limit: limit.unwrap_or(u64::MAX) }
    }

    /// The number of the next transfer; `None` when all have been handed out.
    pub(crate) fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.limit).then_some(number)
    }
}

/// One worker's share of a closed loop.
#[derive(Debug)]
pub(crate) struct ClosedLoop {
    start_ns: u64,
    /// Distance between two of this worker's first starts.
    step_ns: u64,
    first_starts: u64,
    first_started: u64,
    freed: VecDeque<u64>,
    open: bool,
}

impl ClosedLoop {
    /// `slots` transfers in flight; their first starts are spread evenly over `ramp_ns` from `start_ns` on.
    pub(crate) fn new(start_ns: u64, slots: usize, ramp_ns: u64) -> ClosedLoop {
        let slots = slots as u64;
        ClosedLoop {
            start_ns,
            step_ns: ramp_ns / slots.max(1),
            first_starts: slots,
            first_started: 0,
            freed: VecDeque::with_capacity(slots as usize),
            open: true,
        }
    }

    /// A transfer ended: its slot is due at once.
    pub(crate) fn free_slot(&mut self, now_ns: u64) {
        if self.open {
            self.freed.push_back(now_ns);
        }
    }

    /// The intended start of a transfer that is due by now, once for each.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<u64> {
        if let Some(intended_ns) = self.freed.pop_front() {
            return Some(intended_ns);
        }
        let intended_ns = self.next_first_start_ns().filter(|due| *due <= now_ns)?;
        self.first_started += 1;
        Some(intended_ns)
    }

    /// When `take_due` will next have something, if nothing ends meanwhile.
    pub(crate) fn next_start_ns(&self) -> Option<u64> {
        self.freed.front().copied().or_else(|| self.next_first_start_ns())
    }

    /// No transfer starts from now on.
    pub(crate) fn close(&mut self) {
        self.open = false;
        self.freed.clear();
        self.first_started = self.first_starts;
    }

    fn next_first_start_ns(&self) -> Option<u64> {
        (self.first_started < self.first_starts).then(|| self.start_ns + self.first_started * self.step_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_due_at_once_and_no_more_than_the_slots() {
        let mut schedule = ClosedLoop::new(100, 3, 0);
        assert_eq!(schedule.take_due(99), None);
        assert_eq!(std::iter::from_fn(|| schedule.take_due(100)).collect::<Vec<_>>(), [100, 100, 100]);
        assert_eq!(schedule.next_start_ns(), None);
    }

    #[test]
    fn a_ramp_spreads_the_first_starts_and_a_freed_slot_goes_first() {
        let mut schedule = ClosedLoop::new(0, 4, 400);
        assert_eq!(schedule.take_due(0), Some(0));
        assert_eq!(schedule.next_start_ns(), Some(100));
        schedule.free_slot(50);
        assert_eq!(schedule.take_due(60), Some(50));
        assert_eq!(schedule.take_due(60), None);
        assert_eq!(schedule.take_due(1_000), Some(100));
    }

    #[test]
    fn a_closed_schedule_starts_nothing() {
        let mut schedule = ClosedLoop::new(0, 2, 0);
        schedule.free_slot(1);
        schedule.close();
        schedule.free_slot(2);
        assert_eq!(schedule.take_due(10), None);
        assert_eq!(schedule.next_start_ns(), None);
    }

    #[test]
    fn tickets_stop_at_the_limit() {
        let tickets = Tickets::new(Some(2));
        assert_eq!(
            [tickets.take(), tickets.take(), tickets.take(), tickets.take()],
            [Some(0), Some(1), None, None]
        );
    }
}
