//! What one worker writes down while it runs: counters by phase, 100 ms intervals, latencies, a row per transfer.
//! Nothing here makes a system call; figures are made of it afterwards, in `report`.

use std::ops::Range;

use hdrhistogram::Histogram;
use tftpbench_net::Flushed;

use crate::config::LoadConfig;
use crate::ended::{Ended, Scope, TransferRow};
use crate::latency::{LatencyLog, latency_histogram};

/// Length of one row of `intervals`, as long as that makes no more than [`INTERVALS_MAX`] of them; then it doubles.
pub const INTERVAL_NS: u64 = 100_000_000;
/// Rows that a worker keeps: ten minutes of them, in 0.3 MB.
const INTERVALS_MAX: usize = 6_000;
/// A loop that does not look at the clock for so long stands still. Work between two looks takes less than 1 ms, a time
/// slice of another program on the same core 3 to 4 ms.
pub(crate) const STANDSTILL_NS: u64 = 5_000_000;
/// Times of standing still that are kept, the last ones: with the shortest ones they reach back 40 s and more, and what a
/// transfer is asked about is its last silence.
const STANDSTILLS_MAX: usize = 16_384;

/// Parts of a run, in order. What happens belongs to the part that its own stamp lies in, however late it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    WarmUp,
    Window,
    Drain,
}

/// Counters of one phase. `datagrams` and `wire_bytes` hold what was handed to the kernel, even if it refused.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    pub(crate) datagrams: u64,
    pub(crate) wire_bytes: u64,
    pub(crate) completed: u64,
    pub(crate) idle_ns: u64,
    pub(crate) rtt_left_out: u64,
    /// For how long the loop stood still, 5 ms or more at once.
    pub(crate) gap_ns: u64,
}

/// The smallest values that any answered transfer got; `None` before one was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) blksize: Option<u16>,
    pub(crate) windowsize: Option<u16>,
    /// Transfers that were answered.
    pub(crate) answered: u64,
    /// In how many of them an OACK named blksize, windowsize and tsize.
    pub(crate) times: [u64; 3],
}

impl Granted {
    /// Keeps the smaller one of each value, and counts.
    pub(crate) fn add(&mut self, other: Granted) {
        let smaller = |one: Option<u16>, two: Option<u16>| one.into_iter().chain(two).min();
        self.blksize = smaller(self.blksize, other.blksize);
        self.windowsize = smaller(self.windowsize, other.windowsize);
        self.answered += other.answered;
        self.times.iter_mut().zip(other.times).for_each(|(sum, part)| *sum += part);
    }
}

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// How long it is: 100 ms, or in runs of more than ten minutes a power of two times that. Set in a report only.
    pub duration_ns: u64,
    /// Blocks acknowledged in order.
    pub blocks: u64,
    /// Their file bytes.
    pub bytes: u64,
    /// Transfers in flight when it ended.
    pub in_flight: u64,
    /// Datagrams of ours sent again.
    pub retransmissions: u64,
    /// Transfers that started in it.
    pub started: u64,
    /// Transfers that were intended in it and shed.
    pub shed: u64,
}

impl Interval {
    /// Adds another worker's counts of the same time.
    pub(crate) fn add(&mut self, part: &Interval) {
        self.blocks += part.blocks;
        self.bytes += part.bytes;
        self.in_flight += part.in_flight;
        self.retransmissions += part.retransmissions;
        self.started += part.started;
        self.shed += part.shed;
    }

    /// Adds the counts of the interval behind it.
    fn extend(&mut self, next: &Interval) {
        self.in_flight = 0;
        self.add(next);
    }
}

/// Makes rows twice as long.
pub(crate) fn coarsen(intervals: &mut Vec<Interval>) {
    let pairs = intervals.chunks(2).map(|pair| {
        let mut sum = pair[0];
        pair[1..].iter().for_each(|next| sum.extend(next));
        sum
    });
    *intervals = pairs.collect();
}

/// One worker's records.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) start_ns: u64,
    /// Open and close of the measured window.
    pub(crate) window: (u64, u64),
    pub(crate) phases: [Totals; 3],
    /// The window's counters as they were when the last transfer completed, and when that was.
    pub(crate) last_completion: Option<(u64, Totals)>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) interval_ns: u64,
    interval_end_ns: u64,
    /// When the loop looked at the clock last, or when it wanted to.
    clock_due_ns: u64,
    /// The longest time that the loop stood still, warm-up and drain included: transfers that count reach into both.
    pub(crate) gap_ns_max: u64,
    /// When it stood still, in their order.
    standstills: Vec<Range<u64>>,
    pub(crate) block_rtt: LatencyLog,
    pub(crate) lag: Histogram<u64>,
    last_lag: (u64, u64),
    pub(crate) started: u64,
    /// Intended and actual start of what was intended first, since the start of the run.
    pub(crate) first_start_ns: Option<(i64, i64)>,
    /// Starts that were due while as many were in flight as may be, and those of them intended inside the window.
    pub(crate) shed: u64,
    pub(crate) shed_in_window: u64,
    pub(crate) transfers: Ended,
    /// Everything that is intended belongs to the cohort.
    is_one_cohort: bool,
    /// Most in flight over all workers, as seen when one of this worker's started.
    pub(crate) in_flight_max: usize,
    pub(crate) granted: Granted,
    pub(crate) duplicates: u64,
    pub(crate) bytes_verified: u64,
    pub(crate) content_mismatches: u64,
    pub(crate) receive_drops: u64,
    /// CPU time of the worker inside the window.
    pub(crate) window_cpu_ns: u64,
    /// Datagrams that the kernel refused.
    pub(crate) unsent: u64,
    /// Datagrams that the kernel took from us, and gave to us, of every sender.
    pub(crate) datagrams_sent: u64,
    pub(crate) datagrams_received: u64,
}

impl Recorder {
    /// One for a worker of this run.
    pub(crate) fn of(config: &LoadConfig, start_ns: u64, window: (u64, u64)) -> Recorder {
        let (transfers, is_one_cohort) = (Ended::new(config), config.is_one_cohort());
        Recorder { transfers, is_one_cohort, ..Recorder::new(start_ns, window) }
    }

    /// One that keeps every row.
    pub(crate) fn new(start_ns: u64, window: (u64, u64)) -> Recorder {
        Recorder {
            start_ns,
            window,
            phases: [Totals::default(); 3],
            last_completion: None,
            intervals: Vec::with_capacity(1024),
            interval_ns: INTERVAL_NS,
            interval_end_ns: start_ns + INTERVAL_NS,
            clock_due_ns: start_ns,
            gap_ns_max: 0,
            standstills: Vec::new(),
            block_rtt: LatencyLog::new(),
            lag: latency_histogram(),
            last_lag: (0, 0),
            started: 0,
            first_start_ns: None,
            shed: 0,
            shed_in_window: 0,
            transfers: Ended::with_room(usize::MAX, true),
            is_one_cohort: true,
            in_flight_max: 0,
            granted: Granted::default(),
            duplicates: 0,
            bytes_verified: 0,
            content_mismatches: 0,
            receive_drops: 0,
            window_cpu_ns: 0,
            unsent: 0,
            datagrams_sent: 0,
            datagrams_received: 0,
        }
    }

    pub(crate) fn totals(&mut self, at_ns: u64) -> &mut Totals {
        let phase = match at_ns {
            _ if at_ns < self.window.0 => Phase::WarmUp,
            _ if at_ns < self.window.1 => Phase::Window,
            _ => Phase::Drain,
        };
        &mut self.phases[phase as usize]
    }

    /// The loop has looked at the clock. To be called wherever it does: between two looks it is at work for less than 1
    /// ms.
    #[inline]
    pub(crate) fn looked(&mut self, now_ns: u64) {
        let gap_ns = now_ns.saturating_sub(self.clock_due_ns);
        self.gap_ns_max = self.gap_ns_max.max(gap_ns);
        if gap_ns >= STANDSTILL_NS {
            self.stood_still(self.clock_due_ns, now_ns);
        }
        self.clock_due_ns = now_ns;
    }

    /// The loop waits for the start of the run: it stands still only from then on.
    pub(crate) fn awaits_start(&mut self) {
        self.clock_due_ns = self.start_ns;
    }

    /// The loop will look at the clock after `timeout_ns` at the latest.
    pub(crate) fn will_wait(&mut self, timeout_ns: u64) {
        self.clock_due_ns = self.clock_due_ns.saturating_add(timeout_ns);
    }

    #[cold]
    fn stood_still(&mut self, from_ns: u64, until_ns: u64) {
        let inside = from_ns.max(self.window.0)..until_ns.min(self.window.1);
        self.phases[Phase::Window as usize].gap_ns += inside.end.saturating_sub(inside.start);
        if self.standstills.len() >= STANDSTILLS_MAX {
            self.standstills.drain(..STANDSTILLS_MAX / 2);
        }
        self.standstills.push(from_ns..until_ns);
    }

    /// For how long the loop stood still between these times.
    pub(crate) fn stood_still_ns(&self, from_ns: u64, until_ns: u64) -> u64 {
        let later = self.standstills.iter().rev().take_while(|gap| gap.end > from_ns);
        later.map(|gap| gap.end.min(until_ns).saturating_sub(gap.start.max(from_ns))).sum()
    }

    /// Blocks moved in order, by one datagram.
    pub(crate) fn progress(&mut self, at_ns: u64, blocks: u64, bytes: u64) {
        let totals = self.totals(at_ns);
        totals.blocks += blocks;
        totals.bytes += bytes;
        let interval = self.interval(at_ns);
        interval.blocks += blocks;
        interval.bytes += bytes;
    }

    /// A transfer starts.
    pub(crate) fn start(&mut self, now_ns: u64) {
        self.started += 1;
        self.interval(now_ns).started += 1;
    }

    /// A transfer was to start, and does not.
    pub(crate) fn shed(&mut self, intended_ns: u64) {
        self.shed += 1;
        self.shed_in_window += u64::from(self.in_window(intended_ns));
        self.interval(intended_ns).shed += 1;
    }

    /// A transfer completed.
    pub(crate) fn complete(&mut self, at_ns: u64) {
        self.totals(at_ns).completed += 1;
        // Stamps of different sockets may be out of order by a little.
        let last_ns = self.last_completion.map_or(at_ns, |(last_ns, _)| last_ns.max(at_ns));
        self.last_completion = Some((last_ns, self.phases[Phase::Window as usize]));
    }

    /// A transfer has ended; where its row is.
    pub(crate) fn end(&mut self, row: TransferRow) -> usize {
        let start_ns = (row.intended_start_ns, row.actual_start_ns);
        self.first_start_ns = Some(self.first_start_ns.map_or(start_ns, |first_ns| first_ns.min(start_ns)));
        let scope = self.scope();
        self.transfers.push(row, &scope)
    }

    /// What counts for which figure, as far as that is known by now.
    pub(crate) fn scope(&self) -> Scope {
        let since_start = |at_ns: u64| i64::try_from(at_ns.saturating_sub(self.start_ns)).unwrap_or(i64::MAX);
        let window = since_start(self.window.0)..since_start(self.window.1);
        Scope { window, is_one_cohort: self.is_one_cohort, is_cut_short: false }
    }

    /// A batch was sent.
    pub(crate) fn flushed(&mut self, flushed: Flushed) {
        self.unsent += flushed.unsent as u64;
        self.datagrams_sent += flushed.sent as u64;
    }

    /// A datagram of `length` UDP payload bytes, sent or received.
    pub(crate) fn datagram(&mut self, at_ns: u64, length: usize) {
        let totals = self.totals(at_ns);
        totals.datagrams += 1;
        totals.wire_bytes += length as u64;
    }

    /// UDP payload bytes, both ways, since the start.
    pub(crate) fn wire_bytes(&self) -> u64 {
        self.phases.iter().map(|totals| totals.wire_bytes).sum()
    }

    pub(crate) fn retransmission(&mut self, at_ns: u64) {
        self.interval(at_ns).retransmissions += 1;
    }

    pub(crate) fn block_rtt(&mut self, at_ns: u64, rtt_ns: u64) {
        if !self.in_window(at_ns) {
            return;
        }
        self.block_rtt.record(at_ns - self.start_ns, rtt_ns);
    }

    /// Datagrams that came as one message, with one stamp, count once.
    pub(crate) fn lag(&mut self, at_ns: u64, lag_ns: u64) {
        let is_same = std::mem::replace(&mut self.last_lag, (at_ns, lag_ns)) == (at_ns, lag_ns);
        if !is_same && self.in_window(at_ns) {
            self.lag.saturating_record(lag_ns);
        }
    }

    /// Notes how many transfers were in flight when the intervals that are over ended.
    pub(crate) fn roll(&mut self, now_ns: u64, in_flight: usize) {
        while now_ns >= self.interval_end_ns {
            self.interval(self.interval_end_ns - 1).in_flight = in_flight as u64;
            self.interval_end_ns += self.interval_ns;
        }
    }

    fn in_window(&self, at_ns: u64) -> bool {
        (self.window.0..self.window.1).contains(&at_ns)
    }

    /// The row of `intervals` that `at_ns` lies in; stamps never lie in the future.
    fn interval(&mut self, at_ns: u64) -> &mut Interval {
        let since_ns = at_ns.saturating_sub(self.start_ns);
        while since_ns / self.interval_ns >= INTERVALS_MAX as u64 {
            self.coarsen_intervals();
        }
        let index = (since_ns / self.interval_ns) as usize;
        if index >= self.intervals.len() {
            self.intervals.resize(index + 1, Interval::default());
        }
        &mut self.intervals[index]
    }

    #[cold]
    fn coarsen_intervals(&mut self) {
        coarsen(&mut self.intervals);
        self.interval_ns *= 2;
        let end_ns = self.interval_end_ns - self.start_ns;
        self.interval_end_ns = self.start_ns + end_ns.next_multiple_of(self.interval_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_window_has_latencies_but_every_phase_has_blocks() {
        let mut recorder = Recorder::new(0, (15, 25));
        for (at_ns, blocks) in [(10, 1), (30, 4), (20, 2)] {
            recorder.progress(at_ns, blocks, blocks * 512);
            recorder.block_rtt(at_ns, 100);
        }
        assert_eq!(recorder.phases.map(|totals| totals.blocks), [1, 2, 4]);
        assert_eq!(recorder.block_rtt.sum().len(), 1);
    }

    #[test]
    fn intervals_add_up_to_the_totals_even_after_a_stall() {
        let mut recorder = Recorder::new(1_000, (1_000, u64::MAX));
        recorder.progress(1_000, 3, 30);
        recorder.roll(1_000 + 3 * INTERVAL_NS, 5);
        recorder.progress(1_000 + 3 * INTERVAL_NS, 4, 40);
        recorder.progress(1_000 + INTERVAL_NS, 1, 10);
        assert_eq!(
            recorder.intervals.iter().map(|interval| interval.blocks).collect::<Vec<_>>(),
            [3, 1, 0, 4]
        );
        assert_eq!(recorder.intervals[2].in_flight, 5);
    }

    /// Longest gap, and what of all long ones lay in the window from 100 to 200 ms, in ms.
    fn gaps(act: impl FnOnce(&mut Recorder)) -> (u64, u64) {
        let mut recorder = Recorder::new(0, (100 * MS, 200 * MS));
        act(&mut recorder);
        (recorder.gap_ns_max / MS, recorder.phases[Phase::Window as usize].gap_ns / MS)
    }

    const MS: u64 = 1_000_000;

    fn look_each_ms(recorder: &mut Recorder, ms: std::ops::Range<u64>) {
        ms.for_each(|at| recorder.looked(at * MS));
    }

    #[test]
    fn a_loop_that_looks_at_the_clock_often_never_stands_still() {
        assert_eq!(gaps(|recorder| look_each_ms(recorder, 0..300)), (1, 0));
    }

    #[test]
    fn a_loop_that_stands_still_is_found_at_both_edges_of_the_window_too() {
        for (from, until, inside) in
            [(120, 150, 30), (60, 130, 30), (170, 900, 30), (10, 900, 100), (10, 90, 0)]
        {
            let found = gaps(|recorder| {
                look_each_ms(recorder, 0..from + 1);
                look_each_ms(recorder, until..950);
            });
            assert_eq!(found, (until - from, inside), "{from} to {until}");
        }
    }

    #[test]
    fn a_loop_that_starts_late_stood_still_from_the_first_start_on() {
        assert_eq!(gaps(|recorder| recorder.looked(70 * MS)), (70, 0));
    }

    #[test]
    fn a_loop_stands_still_from_the_start_on_however_long_it_waited_for_that() {
        let mut recorder = Recorder::new(5_000 * MS, (5_000 * MS, u64::MAX));
        for at in [0, 900, 4_000, 4_999] {
            recorder.awaits_start();
            recorder.looked(at * MS);
        }
        assert_eq!(recorder.gap_ns_max, 0);
        recorder.awaits_start();
        recorder.looked(5_007 * MS);
        assert_eq!(recorder.gap_ns_max, 7 * MS);
    }

    #[test]
    fn time_that_a_loop_meant_to_wait_is_no_gap_but_what_comes_on_top_is() {
        let found = gaps(|recorder| {
            for at in (0..300).step_by(50) {
                recorder.looked(at * MS);
                recorder.will_wait(50 * MS);
            }
        });
        assert_eq!(found, (0, 0));
        let found = gaps(|recorder| {
            look_each_ms(recorder, 0..101);
            recorder.will_wait(10 * MS);
            recorder.looked(102 * MS); // woken early, by a datagram
            recorder.will_wait(10 * MS);
            recorder.looked(152 * MS);
        });
        assert_eq!(found, (40, 40));
    }

    #[test]
    fn many_small_gaps_add_up_and_those_that_a_time_slice_takes_do_not() {
        let found = gaps(|recorder| (0..300).step_by(6).for_each(|at| recorder.looked(at * MS)));
        assert_eq!(found, (6, 100));
        assert_eq!(gaps(|recorder| (0..300).step_by(4).for_each(|at| recorder.looked(at * MS))), (4, 0));
    }

    #[test]
    fn how_long_a_loop_stood_still_is_known_for_any_period() {
        let mut recorder = Recorder::new(0, (0, 0));
        look_each_ms(&mut recorder, 0..101);
        look_each_ms(&mut recorder, 150..201);
        look_each_ms(&mut recorder, 210..250);
        for (from, until, still) in
            [(0, 250, 60), (0, 100, 0), (120, 130, 10), (140, 205, 15), (210, 250, 0), (250, 140, 0)]
        {
            assert_eq!(recorder.stood_still_ns(from * MS, until * MS), still * MS, "{from} to {until}");
        }
    }

    #[test]
    fn a_loop_that_stands_still_all_day_keeps_the_last_times_only() {
        let mut recorder = Recorder::new(0, (0, u64::MAX));
        let gaps = 5 * STANDSTILLS_MAX as u64;
        (0..=gaps).for_each(|at| recorder.looked(10 * MS * at));
        assert!(recorder.standstills.len() <= STANDSTILLS_MAX);
        assert_eq!(recorder.stood_still_ns(10 * MS * (gaps - 50), u64::MAX), 500 * MS);
        assert_eq!(recorder.phases[Phase::Window as usize].gap_ns, 10 * MS * gaps, "but all are counted");
    }

    #[test]
    fn a_day_has_no_more_rows_of_intervals_than_ten_minutes_and_loses_no_block() {
        let mut recorder = Recorder::new(7, (7, u64::MAX));
        let seconds = 100_000;
        for second in 0..seconds {
            let at_ns = 7 + second * 10 * INTERVAL_NS;
            recorder.roll(at_ns, 3);
            recorder.progress(at_ns, 2, 20);
            assert!(
                recorder.intervals.len() <= INTERVALS_MAX
                    && recorder.intervals.capacity() <= 2 * INTERVALS_MAX
            );
        }
        assert_eq!(recorder.interval_ns, 256 * INTERVAL_NS);
        assert_eq!(recorder.intervals.iter().map(|interval| interval.blocks).sum::<u64>(), 2 * seconds);
        let whole = &recorder.intervals[..recorder.intervals.len() - 1];
        assert!(whole.iter().all(|interval| interval.in_flight == 3 && (50..=52).contains(&interval.blocks)));
    }

    #[test]
    fn of_each_option_the_smallest_value_is_kept() {
        let mut granted = Granted::default();
        let answered = 1;
        granted.add(Granted { blksize: Some(1_428), windowsize: Some(4), answered, times: [1, 1, 0] });
        granted.add(Granted { blksize: Some(512), windowsize: Some(16), answered, times: [0, 1, 0] });
        granted.add(Granted::default());
        let expected = Granted { blksize: Some(512), windowsize: Some(4), answered: 2, times: [1, 2, 0] };
        assert_eq!(granted, expected);
    }

    #[test]
    fn what_comes_after_the_last_completion_is_known_apart() {
        let mut recorder = Recorder::new(0, (0, 1_000));
        recorder.progress(1, 7, 70);
        recorder.complete(2);
        recorder.progress(3, 1, 10);
        let (at_ns, totals) = recorder.last_completion.unwrap();
        assert_eq!((at_ns, totals.blocks, totals.completed), (2, 7, 1));
    }
}
