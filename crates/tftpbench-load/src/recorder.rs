//! What one worker writes down while it runs: counters by phase, 100 ms intervals, latencies, a row per transfer.
//! Nothing here makes a system call; figures are made of it afterwards, in `report`.

use hdrhistogram::Histogram;

/// Length of one row of `intervals`.
pub const INTERVAL_NS: u64 = 100_000_000;
/// Length of one histogram of the latency log.
pub(crate) const LATENCY_INTERVAL_NS: u64 = 1_000_000_000;
/// Latencies from 64 ns (below what a system call takes) to one hour, three significant digits.
const LATENCY_LOW_NS: u64 = 64;
const LATENCY_HIGH_NS: u64 = 3_600_000_000_000;
const LATENCY_DIGITS: u8 = 3;

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
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// Every block arrived and was acknowledged.
    Completed,
    /// An ERROR, or the peer broke the protocol.
    Failed,
    /// Retransmissions ran out.
    TimedOut,
    /// The run was over first.
    Interrupted,
}

impl Outcome {
    /// Names in the order of the discriminants.
    pub const NAMES: [&'static str; 4] = ["completed", "failed", "timed_out", "interrupted"];
}

/// The smallest values that any answered transfer got; `None` before one was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) blksize: Option<u16>,
    pub(crate) windowsize: Option<u16>,
}

impl Granted {
    /// Keeps the smaller one of each value.
    pub(crate) fn lower(&mut self, other: Granted) {
        let smaller = |one: Option<u16>, two: Option<u16>| one.into_iter().chain(two).min();
        self.blksize = smaller(self.blksize, other.blksize);
        self.windowsize = smaller(self.windowsize, other.windowsize);
    }
}

/// One transfer. Times are nanoseconds since the first start of the run; -1 stands for "never".
///
/// How a transfer that did not complete came to its end:
///
/// | outcome  | error_code | first_response_ns | what happened                                         |
/// |----------|------------|-------------------|-------------------------------------------------------|
/// | Failed   | 0 or more  | is `end_ns`       | refused: the first answer was the ERROR that ended it |
/// | Failed   | 0 or more  | before `end_ns`   | an ERROR came after an OACK, DATA or ACK              |
/// | Failed   | -1         | any               | the server broke a rule, or sent too much: we ended it |
/// | TimedOut | -1         | -1                | silent: nothing of the server was an answer           |
/// | TimedOut | -1         | 0 or more         | stalled: it had answered                              |
#[derive(Clone, Copy, Debug)]
pub struct TransferRow {
    /// The transfer's own number (its file number when every transfer is a file of its own).
    pub number: u64,
    /// When the schedule wanted it to start.
    pub intended_start_ns: i64,
    /// When its request was sent.
    pub actual_start_ns: i64,
    /// When the first answer arrived.
    pub first_response_ns: i64,
    /// When it was decided.
    pub end_ns: i64,
    /// File bytes moved in order.
    pub bytes: u64,
    /// Datagrams of ours sent again.
    pub retransmissions: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Code of the ERROR that ended it; -1 without one.
    pub error_code: i32,
}

/// What happened in one interval of 100 ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Blocks acknowledged in order.
    pub blocks: u64,
    /// Their file bytes.
    pub bytes: u64,
    /// Transfers in flight when it ended.
    pub in_flight: u64,
    /// Datagrams of ours sent again.
    pub retransmissions: u64,
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
    interval_end_ns: u64,
    pub(crate) block_rtt: Vec<LatencyInterval>,
    pub(crate) lag: Histogram<u64>,
    last_lag: (u64, u64),
    pub(crate) started: u64,
    pub(crate) transfers: Vec<TransferRow>,
    pub(crate) granted: Granted,
    pub(crate) duplicates: u64,
    pub(crate) bytes_verified: u64,
    pub(crate) content_mismatches: u64,
    pub(crate) receive_drops: u64,
    /// CPU time of the worker inside the window.
    pub(crate) window_cpu_ns: u64,
    /// Datagrams that the kernel refused.
    pub(crate) unsent: u64,
}

/// One histogram of the latency log and when it began, in nanoseconds since the first start.
#[derive(Debug)]
pub(crate) struct LatencyInterval {
    pub(crate) start_ns: u64,
    pub(crate) histogram: Histogram<u64>,
}

impl Recorder {
    pub(crate) fn new(start_ns: u64, window: (u64, u64)) -> Recorder {
        Recorder {
            start_ns,
            window,
            phases: [Totals::default(); 3],
            last_completion: None,
            intervals: Vec::with_capacity(1024),
            interval_end_ns: start_ns + INTERVAL_NS,
            block_rtt: Vec::new(),
            lag: latency_histogram(),
            last_lag: (0, 0),
            started: 0,
            transfers: Vec::with_capacity(4096),
            granted: Granted::default(),
            duplicates: 0,
            bytes_verified: 0,
            content_mismatches: 0,
            receive_drops: 0,
            window_cpu_ns: 0,
            unsent: 0,
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

    /// Blocks moved in order, by one datagram.
    pub(crate) fn progress(&mut self, at_ns: u64, blocks: u64, bytes: u64) {
        let totals = self.totals(at_ns);
        totals.blocks += blocks;
        totals.bytes += bytes;
        let interval = self.interval(at_ns);
        interval.blocks += blocks;
        interval.bytes += bytes;
    }

    /// A transfer completed.
    pub(crate) fn complete(&mut self, at_ns: u64) {
        self.totals(at_ns).completed += 1;
        // Stamps of different sockets may be out of order by a little.
        let last_ns = self.last_completion.map_or(at_ns, |(last_ns, _)| last_ns.max(at_ns));
        self.last_completion = Some((last_ns, self.phases[Phase::Window as usize]));
    }

    /// A datagram of `length` UDP payload bytes, sent or received.
    pub(crate) fn datagram(&mut self, at_ns: u64, length: usize) {
        let totals = self.totals(at_ns);
        totals.datagrams += 1;
        totals.wire_bytes += length as u64;
    }

    pub(crate) fn retransmission(&mut self, at_ns: u64) {
        self.interval(at_ns).retransmissions += 1;
    }

    pub(crate) fn block_rtt(&mut self, at_ns: u64, rtt_ns: u64) {
        if !self.in_window(at_ns) {
            return;
        }
        let since = at_ns - self.start_ns;
        let begin = since - since % LATENCY_INTERVAL_NS;
        if self.block_rtt.last().is_none_or(|interval| interval.start_ns < begin) {
            self.block_rtt.push(LatencyInterval { start_ns: begin, histogram: latency_histogram() });
        }
        if let Some(interval) = self.block_rtt.last_mut() {
            interval.histogram.saturating_record(rtt_ns);
        }
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
            self.interval_end_ns += INTERVAL_NS;
        }
    }

    fn in_window(&self, at_ns: u64) -> bool {
        (self.window.0..self.window.1).contains(&at_ns)
    }

    /// The row of `intervals` that `at_ns` lies in; stamps never lie in the future.
    fn interval(&mut self, at_ns: u64) -> &mut Interval {
        let index = (at_ns.saturating_sub(self.start_ns) / INTERVAL_NS) as usize;
        if index >= self.intervals.len() {
            self.intervals.resize(index + 1, Interval::default());
        }
        &mut self.intervals[index]
    }
}

/// An empty histogram with the project's bounds.
#[allow(clippy::expect_used)] // The bounds are constants, and a test makes one.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_LOW_NS, LATENCY_HIGH_NS, LATENCY_DIGITS)
        .expect("constant bounds are valid")
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
        assert_eq!(recorder.block_rtt.iter().map(|interval| interval.histogram.len()).sum::<u64>(), 1);
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

    #[test]
    fn of_each_option_the_smallest_value_is_kept() {
        let mut granted = Granted::default();
        granted.lower(Granted { blksize: Some(1_428), windowsize: Some(4) });
        granted.lower(Granted { blksize: Some(512), windowsize: Some(16) });
        granted.lower(Granted::default());
        assert_eq!(granted, Granted { blksize: Some(512), windowsize: Some(4) });
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
