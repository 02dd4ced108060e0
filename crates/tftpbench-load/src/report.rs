//! From the workers' records to the figures of one trial, as DESIGN's columns name them.

use std::io;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::config::{Extent, LoadConfig};
use crate::faults::{Fault, Faults};
use crate::recorder::{
    Interval, LATENCY_INTERVAL_NS, LatencyInterval, Outcome, Phase, Recorder, Totals, TransferRow,
    latency_histogram,
};
use crate::worker::WorkerReport;

/// Everything one load run found out.
#[derive(Debug)]
pub struct LoadReport {
    /// Column name and value; `None` where it can't be known.
    pub figures: Vec<(&'static str, Option<Figure>)>,
    /// A row per transfer, in order of their ends within each worker.
    pub transfers: Vec<TransferRow>,
    /// A row per 100 ms since the first start.
    pub intervals: Vec<Interval>,
    /// HdrHistogram V2 interval log with tags block_rtt, transfer, first_response.
    pub latency_hlog: String,
    /// What the server did against the protocol.
    pub faults: Vec<Fault>,
}

/// A figure of a report: whole numbers stay whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// A count, or a time in nanoseconds.
    Whole(u64),
    /// A rate or a share.
    Real(f64),
}

impl LoadReport {
    /// Merges what the workers wrote down.
    pub(crate) fn new(
        config: &LoadConfig,
        start_ns: u64,
        workers: Vec<WorkerReport>,
    ) -> io::Result<LoadReport> {
        let mut merged = Merged::new(start_ns);
        for worker in workers {
            merged.add(worker);
        }
        let window = merged.window(config);
        let latencies = Latencies::new(merged.block_rtt, &merged.transfers, window);
        let figures = [
            counts(&merged.transfers, &merged.recorded, &merged.faults),
            rates(&merged.phases, window),
            latencies.figures(),
            shape(&merged.transfers, &merged.phases, window),
            own(&merged.recorded, &merged.phases, window, merged.workers, merged.receive_buffer_bytes),
        ]
        .concat();
        Ok(LoadReport {
            figures,
            latency_hlog: latencies.log()?,
            transfers: merged.transfers,
            intervals: merged.intervals,
            faults: merged.faults.into_list(),
        })
    }
}

/// The workers' records put together.
struct Merged {
    start_ns: u64,
    end_ns: u64,
    workers: u64,
    phases: [Totals; 3],
    recorded: Recorded,
    intervals: Vec<Interval>,
    transfers: Vec<TransferRow>,
    block_rtt: Vec<LatencyInterval>,
    faults: Faults,
    receive_buffer_bytes: usize,
}

/// Sums that are not split by phase.
struct Recorded {
    duplicates: u64,
    bytes_verified: u64,
    content_mismatches: u64,
    receive_drops: u64,
    lag: Histogram<u64>,
}

impl Merged {
    fn new(start_ns: u64) -> Merged {
        let recorded = Recorded {
            duplicates: 0,
            bytes_verified: 0,
            content_mismatches: 0,
            receive_drops: 0,
            lag: latency_histogram(),
        };
        Merged {
            start_ns,
            end_ns: start_ns,
            workers: 0,
            phases: [Totals::default(); 3],
            recorded,
            intervals: Vec::new(),
            transfers: Vec::new(),
            block_rtt: Vec::new(),
            faults: Faults::default(),
            receive_buffer_bytes: 0,
        }
    }

    fn add(&mut self, worker: WorkerReport) {
        let Recorder { phases, intervals, block_rtt, lag, transfers, .. } = worker.recorder;
        for (sum, part) in self.phases.iter_mut().zip(phases) {
            sum.add(&part);
        }
        self.add_intervals(intervals);
        self.add_block_rtt(block_rtt);
        self.recorded.duplicates += worker.recorder.duplicates;
        self.recorded.bytes_verified += worker.recorder.bytes_verified;
        self.recorded.content_mismatches += worker.recorder.content_mismatches;
        self.recorded.receive_drops += worker.recorder.receive_drops;
        add(&mut self.recorded.lag, &lag);
        self.transfers.extend(transfers);
        self.faults.merge(worker.faults);
        self.end_ns = self.end_ns.max(worker.end_ns);
        self.receive_buffer_bytes = self.receive_buffer_bytes.max(worker.receive_buffer_bytes);
        self.workers += 1;
    }

    fn add_intervals(&mut self, intervals: Vec<Interval>) {
        if self.intervals.len() < intervals.len() {
            self.intervals.resize(intervals.len(), Interval::default());
        }
        for (sum, part) in self.intervals.iter_mut().zip(intervals) {
            sum.blocks += part.blocks;
            sum.bytes += part.bytes;
            sum.in_flight += part.in_flight;
            sum.retransmissions += part.retransmissions;
        }
    }

    fn add_block_rtt(&mut self, intervals: Vec<LatencyInterval>) {
        for part in intervals {
            match self.block_rtt.iter_mut().find(|interval| interval.start_ns == part.start_ns) {
                Some(sum) => add(&mut sum.histogram, &part.histogram),
                None => self.block_rtt.push(part),
            }
        }
        self.block_rtt.sort_by_key(|interval| interval.start_ns);
    }

    /// The measured window in nanoseconds since the first start: as asked for, or first start to last completion.
    fn window(&self, config: &LoadConfig) -> Window {
        let (open_ns, planned_close_ns) = match config.extent {
            Extent::Duration { warm_up_ns, window_ns } => (warm_up_ns, warm_up_ns + window_ns),
            Extent::Transfers { .. } => {
                let last = self
                    .transfers
                    .iter()
                    .filter(|row| row.outcome == Outcome::Completed)
                    .map(|row| row.end_ns);
                (0, last.max().map_or(self.end_ns - self.start_ns, |end_ns| end_ns.max(0) as u64))
            }
        };
        let close_ns = planned_close_ns.min(self.end_ns - self.start_ns).max(open_ns);
        Window { start_ns: self.start_ns, open_ns, close_ns }
    }
}

/// The measured window: open and close since the first start, and that start on the monotonic clock.
#[derive(Clone, Copy)]
struct Window {
    start_ns: u64,
    open_ns: u64,
    close_ns: u64,
}

impl Window {
    fn seconds(self) -> f64 {
        (self.close_ns - self.open_ns) as f64 / 1e9
    }

    /// A transfer counts for latency if any of it lay in the window: leaving out those that ended later would
    /// leave out the slow ones.
    fn overlaps(self, row: &TransferRow) -> bool {
        row.end_ns >= self.open_ns as i64 && row.actual_start_ns < self.close_ns as i64
    }
}

impl Totals {
    fn add(&mut self, part: &Totals) {
        self.blocks += part.blocks;
        self.bytes += part.bytes;
        self.datagrams += part.datagrams;
        self.wire_bytes += part.wire_bytes;
        self.completed += part.completed;
        self.idle_ns += part.idle_ns;
        self.unsent += part.unsent;
        self.rtt_left_out += part.rtt_left_out;
    }
}

type Figures = Vec<(&'static str, Option<Figure>)>;

fn whole(value: u64) -> Option<Figure> {
    Some(Figure::Whole(value))
}

fn share(part: f64, of: f64) -> Option<Figure> {
    (of > 0.0).then_some(Figure::Real(part / of))
}

fn counts(transfers: &[TransferRow], recorded: &Recorded, faults: &Faults) -> Figures {
    let ended = |outcome| whole(transfers.iter().filter(|row| row.outcome == outcome).count() as u64);
    vec![
        ("started", whole(transfers.len() as u64)),
        ("completed", ended(Outcome::Completed)),
        ("failed", ended(Outcome::Failed)),
        ("timed_out", ended(Outcome::TimedOut)),
        ("interrupted", ended(Outcome::Interrupted)),
        ("retransmissions", whole(transfers.iter().map(|row| row.retransmissions).sum())),
        ("duplicates", whole(recorded.duplicates)),
        ("strays", whole(faults.count("stray_tid"))),
        ("bytes_verified", whole(recorded.bytes_verified)),
        ("content_mismatches", whole(recorded.content_mismatches)),
    ]
}

fn rates(phases: &[Totals; 3], window: Window) -> Figures {
    let inside = &phases[Phase::Window as usize];
    let per_second = |count: u64| share(count as f64, window.seconds());
    vec![
        ("duration_s", Some(Figure::Real(window.seconds()))),
        ("data_pps", per_second(inside.blocks)),
        ("pps", per_second(inside.datagrams)),
        ("goodput_bytes_per_s", per_second(inside.bytes)),
        ("transfers_per_s", per_second(inside.completed)),
        ("blocks_to_window_end", whole(phases[Phase::WarmUp as usize].blocks + inside.blocks)),
        ("block_rtt_left_out", whole(inside.rtt_left_out)),
    ]
}

/// Figures about how evenly and how cheaply the transfers were served.
fn shape(transfers: &[TransferRow], phases: &[Totals; 3], window: Window) -> Figures {
    let mut times: Vec<i64> =
        completed_in(transfers, window).map(|row| row.end_ns - row.actual_start_ns).collect();
    times.sort_unstable();
    let fairness = match (times.last(), times.get(times.len() / 2)) {
        (Some(slowest), Some(median)) => share(*slowest as f64, *median as f64),
        _ => None,
    };
    let mean_ns = share(times.iter().sum::<i64>() as f64, times.len() as f64);
    let inside = &phases[Phase::Window as usize];
    vec![
        ("fairness", fairness),
        ("transfer_ns_mean", mean_ns),
        ("amplification", share(inside.wire_bytes as f64, inside.bytes as f64)),
    ]
}

/// Figures about the generator itself.
fn own(
    recorded: &Recorded,
    phases: &[Totals; 3],
    window: Window,
    workers: u64,
    buffer_bytes: usize,
) -> Figures {
    let inside = &phases[Phase::Window as usize];
    let busy = 1.0 - inside.idle_ns as f64 / (workers as f64 * window.seconds() * 1e9).max(1.0);
    let stamped = !recorded.lag.is_empty();
    vec![
        ("generator_busy_fraction", (window.seconds() > 0.0).then_some(Figure::Real(busy.clamp(0.0, 1.0)))),
        ("generator_lag_ns_p99", stamped.then(|| Figure::Whole(recorded.lag.value_at_quantile(0.99)))),
        ("generator_unsent", whole(phases.iter().map(|totals| totals.unsent).sum())),
        ("generator_receive_buffer_bytes", whole(buffer_bytes as u64)),
        ("udp_drops_generator", whole(recorded.receive_drops)),
        ("first_start_ns", whole(window.start_ns)),
        ("window_open_ns", whole(window.open_ns)),
        ("window_close_ns", whole(window.close_ns)),
    ]
}

fn completed_in(transfers: &[TransferRow], window: Window) -> impl Iterator<Item = &TransferRow> {
    transfers.iter().filter(move |row| row.outcome == Outcome::Completed && window.overlaps(row))
}

/// The three kinds of latency, each as a list of one-second histograms.
struct Latencies {
    block_rtt: Vec<LatencyInterval>,
    transfer: Vec<LatencyInterval>,
    first_response: Vec<LatencyInterval>,
}

impl Latencies {
    fn new(block_rtt: Vec<LatencyInterval>, transfers: &[TransferRow], window: Window) -> Latencies {
        let completed =
            completed_in(transfers, window).map(|row| (row.end_ns, row.end_ns - row.actual_start_ns));
        let answered = transfers.iter().filter(|row| row.first_response_ns >= 0 && window.overlaps(row));
        let answered =
            answered.map(|row| (row.first_response_ns, row.first_response_ns - row.actual_start_ns));
        Latencies { block_rtt, transfer: by_second(completed), first_response: by_second(answered) }
    }

    fn figures(&self) -> Figures {
        let (block, transfer, first) =
            (merged(&self.block_rtt), merged(&self.transfer), merged(&self.first_response));
        let at = |histogram: &Histogram<u64>, quantile: f64| {
            (!histogram.is_empty()).then(|| Figure::Whole(histogram.value_at_quantile(quantile)))
        };
        vec![
            ("block_rtt_ns_p50", at(&block, 0.5)),
            ("block_rtt_ns_p99", at(&block, 0.99)),
            ("block_rtt_ns_p999", at(&block, 0.999)),
            ("transfer_ns_p50", at(&transfer, 0.5)),
            ("transfer_ns_p99", at(&transfer, 0.99)),
            ("transfer_ns_max", at(&transfer, 1.0)),
            ("first_response_ns_p50", at(&first, 0.5)),
            ("first_response_ns_p99", at(&first, 0.99)),
        ]
    }

    /// The log that every HdrHistogram tool reads. Times are seconds since the first start.
    fn log(&self) -> io::Result<String> {
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("[Latencies in nanoseconds; times in seconds since the first start]")
            .begin_log_with(&mut text, &mut serializer)?;
        let kinds = [
            ("block_rtt", &self.block_rtt),
            ("transfer", &self.transfer),
            ("first_response", &self.first_response),
        ];
        for (kind, intervals) in kinds {
            for interval in intervals {
                let (start, length) =
                    (Duration::from_nanos(interval.start_ns), Duration::from_nanos(LATENCY_INTERVAL_NS));
                log.write_histogram(&interval.histogram, start, length, Tag::new(kind))
                    .map_err(|error| io::Error::other(format!("cannot write the latency log: {error:?}")))?;
            }
        }
        drop(log);
        String::from_utf8(text).map_err(io::Error::other)
    }
}

fn by_second(samples: impl Iterator<Item = (i64, i64)>) -> Vec<LatencyInterval> {
    let mut seconds: std::collections::BTreeMap<u64, Histogram<u64>> = std::collections::BTreeMap::new();
    for (at_ns, value_ns) in samples {
        let second = at_ns.max(0) as u64 / LATENCY_INTERVAL_NS;
        seconds.entry(second).or_insert_with(latency_histogram).saturating_record(value_ns.max(0) as u64);
    }
    let interval =
        |(second, histogram)| LatencyInterval { start_ns: second * LATENCY_INTERVAL_NS, histogram };
    seconds.into_iter().map(interval).collect()
}

fn merged(intervals: &[LatencyInterval]) -> Histogram<u64> {
    let mut sum = latency_histogram();
    for interval in intervals {
        add(&mut sum, &interval.histogram);
    }
    sum
}

/// Adds counts; both histograms have the project's one set of bounds, so nothing can be out of range.
fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    let same_bounds = sum.add(part).is_ok();
    debug_assert!(same_bounds, "histograms of one run have the same bounds");
}
