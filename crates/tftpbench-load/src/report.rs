//! From the workers' records to the figures of one trial, named as the columns of docs/results-format.md are.

use std::io;
use std::ops::Range;
use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::boot_figures::{self, BootRecords, BootRow, gave_up_ns};
use crate::config::{Extent, LoadConfig};
use crate::ended::{Ended, KeptRows, Scope, Tally};
use crate::ended::{TransferOutcome, TransferRow};
use crate::faults::{Fault, Faults, PeerError};
use crate::figures::{Cohort, Figure, Figures, share, whole};
use crate::latency::{LatencyLog, add, latency_histogram};
use crate::recorder::{Granted, INTERVAL_NS, Interval, Phase, Recorder, Totals, coarsen};

/// Everything one load run found out.
#[derive(Debug)]
pub struct LoadReport {
    /// Column name and value; `None` where it can't be known.
    pub figures: Vec<(&'static str, Option<Figure>)>,
    /// Rows of transfers, in order of their ends within each worker: one for each, unless the configuration says otherwise or
    /// there are too many.
    pub transfers: Vec<TransferRow>,
    /// The same of machines; `None` where none was to boot.
    pub boots: Option<Vec<BootRow>>,
    /// Of each share and step, both from 0, that expects no file: how many machines were served one.
    pub served_misses: Vec<(usize, usize, u64)>,
    /// A row per 100 ms since the first start, in runs of more than an hour per twice, four times, ... that.
    pub intervals: Vec<Interval>,
    /// HdrHistogram V2 interval log with tags block_rtt, transfer, first_response, response, service; of boots with boot,
    /// boot_service, miss, too.
    pub latency_hlog: String,
    /// What the server did against the protocol.
    pub faults: Vec<Fault>,
    /// The ERRORs that ended transfers, by code.
    pub errors: Vec<PeerError>,
    /// Transfers that were answered, and in how many of them an OACK named each option: blksize, windowsize, tsize.
    pub answered: u64,
    /// See `answered`.
    pub granted: [(&'static str, u64); 3],
}

impl LoadReport {
    /// Merges what the workers wrote down. `is_cut_short`: a stop ended the run.
    pub(crate) fn new(
        config: &LoadConfig,
        start_ns: u64,
        workers: Vec<WorkerReport>,
        runner_gap_ns_max: u64,
        is_cut_short: bool,
    ) -> io::Result<LoadReport> {
        let window = Window::new(config, start_ns, &workers);
        let mut merged = Merged::new();
        for worker in workers {
            merged.add(worker, window);
        }
        let scope = Scope { window: window.inside(), is_one_cohort: config.is_one_cohort(), is_cut_short };
        let (kept, tally) = Ended::merge(std::mem::take(&mut merged.ended), &scope);
        let retransmissions = merged.intervals.iter().map(|interval| interval.retransmissions).sum();
        let mut figures = [
            counts(&tally, &merged.recorded, retransmissions, &merged.faults),
            granted(merged.recorded.granted),
            rates(&merged.phases, window),
            shape(&tally, &merged.phases),
            own(&merged, window),
            stalls(&merged, runner_gap_ns_max),
            in_flight(&tally, &merged, window),
            rows(&kept),
        ]
        .concat();
        let shed = if scope.is_one_cohort { merged.recorded.shed } else { merged.recorded.shed_in_window };
        let cohort = Cohort::new(config, tally.cohort, shed, &scope);
        let block_rtt = std::mem::replace(&mut merged.block_rtt, LatencyLog::new());
        let (transfer, first_response) = (tally.transfer, tally.first_response);
        let latencies = Latencies { block_rtt, transfer, first_response };
        figures.extend(latencies.figures());
        figures.extend(cohort.figures());
        let mut logs = Vec::from(cohort.into_logs(["response", "service"]));
        let (mut boots, mut served_misses) = (None, Vec::new());
        if config.boots.is_some() {
            let found = boot_figures::figures(config, std::mem::take(&mut merged.boots), &scope);
            // Starts are those of machines then, and so is what is in flight.
            figures.retain(|(name, _)| found.figures.iter().all(|(known, _)| known != name));
            figures.extend(found.figures);
            logs.extend(found.logs);
            served_misses = found.served_misses;
            boots = Some(found.rows);
        }
        let (faults, errors) = merged.faults.into_lists();
        let Granted { answered, times: [blksize, windowsize, tsize], .. } = merged.recorded.granted;
        let interval_ns = merged.interval_ns;
        merged.intervals.iter_mut().for_each(|interval| interval.duration_ns = interval_ns);
        Ok(LoadReport {
            figures,
            latency_hlog: latencies.log(logs)?,
            transfers: kept.rows,
            boots,
            served_misses,
            intervals: merged.intervals,
            faults,
            errors,
            answered,
            granted: [("blksize", blksize), ("windowsize", windowsize), ("tsize", tsize)],
        })
    }
}

/// What one worker has found.
pub(crate) struct WorkerReport {
    pub(crate) recorder: Recorder,
    pub(crate) faults: Faults,
    pub(crate) end_ns: u64,
    pub(crate) receive_buffer_bytes: usize,
    /// Starts that its schedule gave, where that alone decided on them.
    pub(crate) intended: Option<u64>,
    /// Of its machines, where they were to boot.
    pub(crate) boots: Option<BootRecords>,
}

/// The workers' records put together.
struct Merged {
    workers: u64,
    phases: [Totals; 3],
    recorded: Recorded,
    intervals: Vec<Interval>,
    interval_ns: u64,
    /// Of each worker.
    ended: Vec<Ended>,
    in_flight_max: usize,
    block_rtt: LatencyLog,
    faults: Faults,
    receive_buffer_bytes: usize,
    /// Of the worker whose loop stood still longest: at once, and together within the window.
    gap_ns_max: u64,
    gap_ns_sum: u64,
    /// Of the worker whose first start came latest after it was intended.
    first_start_late_ns: Option<u64>,
    /// Of each worker.
    boots: Vec<BootRecords>,
}

/// Sums that are not split by phase.
struct Recorded {
    intended: u64,
    started: u64,
    shed: u64,
    shed_in_window: u64,
    granted: Granted,
    duplicates: u64,
    bytes_verified: u64,
    content_mismatches: u64,
    receive_drops: u64,
    window_cpu_ns: u64,
    unsent: u64,
    datagrams_sent: u64,
    datagrams_received: u64,
    lag: Histogram<u64>,
}

impl Merged {
    fn new() -> Merged {
        let recorded = Recorded {
            intended: 0,
            started: 0,
            shed: 0,
            shed_in_window: 0,
            granted: Granted::default(),
            duplicates: 0,
            bytes_verified: 0,
            content_mismatches: 0,
            receive_drops: 0,
            window_cpu_ns: 0,
            unsent: 0,
            datagrams_sent: 0,
            datagrams_received: 0,
            lag: latency_histogram(),
        };
        Merged {
            workers: 0,
            phases: [Totals::default(); 3],
            recorded,
            intervals: Vec::new(),
            interval_ns: INTERVAL_NS,
            ended: Vec::new(),
            in_flight_max: 0,
            block_rtt: LatencyLog::new(),
            faults: Faults::default(),
            receive_buffer_bytes: 0,
            gap_ns_max: 0,
            gap_ns_sum: 0,
            first_start_late_ns: None,
            boots: Vec::new(),
        }
    }

    fn add(&mut self, worker: WorkerReport, window: Window) {
        let phases = phases_within(&worker, window);
        let Recorder { intervals, interval_ns, block_rtt, lag, transfers, .. } = worker.recorder;
        self.gap_ns_max = self.gap_ns_max.max(worker.recorder.gap_ns_max);
        self.gap_ns_sum = self.gap_ns_sum.max(phases[Phase::Window as usize].gap_ns);
        let late_ns = worker.recorder.first_start_ns.map(|(intended_ns, actual_ns)| actual_ns - intended_ns);
        let late_ns = late_ns.map(|ns| u64::try_from(ns).unwrap_or(0));
        self.first_start_late_ns = self.first_start_late_ns.max(late_ns);
        for (sum, part) in self.phases.iter_mut().zip(phases) {
            sum.add(&part);
        }
        self.add_intervals(intervals, interval_ns);
        self.block_rtt.merge(block_rtt);
        self.recorded.intended += worker.intended.unwrap_or(worker.recorder.started);
        self.recorded.started += worker.recorder.started;
        self.recorded.shed += worker.recorder.shed;
        self.recorded.shed_in_window += worker.recorder.shed_in_window;
        self.recorded.granted.add(worker.recorder.granted);
        self.recorded.duplicates += worker.recorder.duplicates;
        self.recorded.bytes_verified += worker.recorder.bytes_verified;
        self.recorded.content_mismatches += worker.recorder.content_mismatches;
        self.recorded.receive_drops += worker.recorder.receive_drops;
        self.recorded.window_cpu_ns += worker.recorder.window_cpu_ns;
        self.recorded.unsent += worker.recorder.unsent;
        self.recorded.datagrams_sent += worker.recorder.datagrams_sent;
        self.recorded.datagrams_received += worker.recorder.datagrams_received;
        add(&mut self.recorded.lag, &lag);
        self.ended.push(transfers);
        self.in_flight_max = self.in_flight_max.max(worker.recorder.in_flight_max);
        self.faults.merge(worker.faults);
        self.boots.extend(worker.boots);
        self.receive_buffer_bytes = self.receive_buffer_bytes.max(worker.receive_buffer_bytes);
        self.workers += 1;
    }

    fn add_intervals(&mut self, mut intervals: Vec<Interval>, mut interval_ns: u64) {
        while interval_ns < self.interval_ns {
            coarsen(&mut intervals);
            interval_ns *= 2;
        }
        while self.interval_ns < interval_ns {
            coarsen(&mut self.intervals);
            self.interval_ns *= 2;
        }
        if self.intervals.len() < intervals.len() {
            self.intervals.resize(intervals.len(), Interval::default());
        }
        self.intervals.iter_mut().zip(&intervals).for_each(|(sum, part)| sum.add(part));
    }
}

/// A worker's counters, those of the window cut to what the window turned out to be. With fixed work it closes at the
/// last completion: blocks of transfers that never completed do not count after it, and a worker whose own last
/// completion was earlier is idle for the rest.
fn phases_within(worker: &WorkerReport, window: Window) -> [Totals; 3] {
    let mut phases = worker.recorder.phases;
    let inside = &mut phases[Phase::Window as usize];
    let mut until_ns = worker.end_ns;
    if window.ends_with_completion {
        let nothing = (window.start_ns, Totals::default());
        (until_ns, *inside) = worker.recorder.last_completion.unwrap_or(nothing);
    }
    // What had nothing to start ends before the window opens.
    let until_ns = until_ns.max(window.start_ns + window.open_ns);
    inside.idle_ns += (window.start_ns + window.close_ns).saturating_sub(until_ns);
    phases
}

/// The measured window: open and close since the first start, and that start on the monotonic clock.
#[derive(Clone, Copy)]
struct Window {
    start_ns: u64,
    open_ns: u64,
    close_ns: u64,
    ends_with_completion: bool,
}

impl Window {
    /// As asked for, or first start to last completion; never longer than the run. Machines of which none boots complete
    /// requests all the same, soon: then it ends with the last machine.
    fn new(config: &LoadConfig, start_ns: u64, workers: &[WorkerReport]) -> Window {
        let end_ns = workers.iter().map(|worker| worker.end_ns).max().unwrap_or(start_ns).max(start_ns);
        let last =
            workers.iter().filter_map(|worker| worker.recorder.last_completion).map(|last| last.0).max();
        let (open_ns, close_ns, ends_with_completion) = match config.extent {
            Extent::Duration { warm_up_ns, window_ns } => {
                (warm_up_ns, warm_up_ns.saturating_add(window_ns), false)
            }
            // Without a completion it is the whole run, but not the time that interrupting took.
            Extent::Transfers { limit_ns, .. } => {
                let gave_up_ns = gave_up_ns(workers.iter().filter_map(|worker| worker.boots.as_ref()));
                let last_ns = last.unwrap_or(end_ns).saturating_sub(start_ns);
                let close_ns = gave_up_ns.unwrap_or(last_ns);
                (0, close_ns.min(limit_ns), last.is_some() && gave_up_ns.is_none())
            }
        };
        let run_ns = end_ns - start_ns;
        Window {
            start_ns,
            open_ns: open_ns.min(run_ns),
            close_ns: close_ns.min(run_ns),
            ends_with_completion,
        }
    }

    fn seconds(self) -> f64 {
        (self.close_ns - self.open_ns) as f64 / 1e9
    }

    fn inside(self) -> Range<i64> {
        self.open_ns as i64..self.close_ns as i64
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
        self.rtt_left_out += part.rtt_left_out;
        self.gap_ns += part.gap_ns;
    }
}

fn counts(tally: &Tally, recorded: &Recorded, retransmissions: u64, faults: &Faults) -> Figures {
    let ended = |outcome| whole(tally.ended_as(outcome));
    vec![
        ("intended", whole(recorded.intended)),
        ("shed", whole(recorded.shed)),
        ("late", ended(TransferOutcome::Late)),
        ("started", whole(recorded.started)),
        ("completed", ended(TransferOutcome::Completed)),
        ("failed", ended(TransferOutcome::Failed)),
        ("timed_out", ended(TransferOutcome::TimedOut)),
        ("interrupted", ended(TransferOutcome::Interrupted)),
        ("unanswered", whole(tally.unanswered)),
        ("retransmissions", whole(retransmissions)),
        ("duplicates", whole(recorded.duplicates)),
        ("strays", whole(faults.strays)),
        ("late_datagrams", whole(faults.late_datagrams)),
        ("bytes_verified", whole(recorded.bytes_verified)),
        ("content_mismatches", whole(recorded.content_mismatches)),
    ]
}

/// How many transfers have a row, and how many of them each one of these stands for.
fn rows(kept: &KeptRows) -> Figures {
    vec![
        ("rows_kept", whole(kept.rows.len() as u64)),
        ("rows_every", kept.every.map(Figure::Whole)),
        ("rows_every_failed", whole(kept.every_failed)),
    ]
}

/// How many were in flight at most, over all workers, and on average over the window.
fn in_flight(tally: &Tally, merged: &Merged, window: Window) -> Figures {
    vec![
        ("in_flight_max", whole(merged.in_flight_max as u64)),
        ("in_flight_mean", share(tally.in_flight_ns as f64, window.seconds() * 1e9)),
    ]
}

/// What the server really gave: one that ignores options or lowers them must not pass for one that granted them.
fn granted(least: Granted) -> Figures {
    let known = |value: Option<u16>| value.map(|value| Figure::Whole(value.into()));
    vec![("blksize_granted", known(least.blksize)), ("windowsize_granted", known(least.windowsize))]
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
fn shape(tally: &Tally, phases: &[Totals; 3]) -> Figures {
    let times = tally.transfer.sum();
    let from_histogram = || (times.max() as i64, times.value_at_quantile(0.5) as i64);
    let (slowest, median) = tally.slowest_and_median.unwrap_or_else(from_histogram);
    let fairness = share(slowest as f64, median as f64);
    let mean_ns = share(tally.transfer_ns_sum as f64, times.len() as f64);
    let inside = &phases[Phase::Window as usize];
    vec![
        ("fairness", fairness),
        ("transfer_ns_mean", mean_ns),
        ("amplification", share(inside.wire_bytes as f64, inside.bytes as f64)),
    ]
}

/// Figures about the generator itself.
fn own(merged: &Merged, window: Window) -> Figures {
    let Merged { recorded, phases, workers, receive_buffer_bytes, .. } = merged;
    let idle_ns = phases[Phase::Window as usize].idle_ns as f64;
    let whole_ns = (*workers as f64 * window.seconds() * 1e9).max(1.0);
    // Polling fills the CPU time; where the server shares the core, its turns fill the time that is not idle. So
    // neither alone is the productive share, but it is never more than the smaller of the two.
    let busy = (1.0 - idle_ns / whole_ns).min(recorded.window_cpu_ns as f64 / whole_ns);
    let stamped = !recorded.lag.is_empty();
    vec![
        ("generator_busy_fraction", (window.seconds() > 0.0).then_some(Figure::Real(busy.clamp(0.0, 1.0)))),
        ("generator_lag_ns_p99", stamped.then(|| Figure::Whole(recorded.lag.value_at_quantile(0.99)))),
        ("generator_unsent", whole(recorded.unsent)),
        ("datagrams_sent", whole(recorded.datagrams_sent)),
        ("datagrams_received", whole(recorded.datagrams_received)),
        ("generator_receive_buffer_bytes", whole(*receive_buffer_bytes as u64)),
        ("udp_drops_generator", whole(recorded.receive_drops)),
        ("first_start_ns", whole(window.start_ns)),
        ("first_start_late_ns", merged.first_start_late_ns.map(Figure::Whole)),
        ("window_open_ns", whole(window.open_ns)),
        ("window_close_ns", whole(window.close_ns)),
    ]
}

/// How long those stood still that must not.
fn stalls(merged: &Merged, runner_gap_ns_max: u64) -> Figures {
    vec![
        ("generator_gap_ns_max", whole(merged.gap_ns_max)),
        ("generator_gap_ns_sum", whole(merged.gap_ns_sum)),
        ("runner_gap_ns_max", whole(runner_gap_ns_max)),
    ]
}

/// The three kinds of latency.
struct Latencies {
    block_rtt: LatencyLog,
    transfer: LatencyLog,
    first_response: LatencyLog,
}

impl Latencies {
    fn figures(&self) -> Figures {
        let (block, transfer, first) = (self.block_rtt.sum(), self.transfer.sum(), self.first_response.sum());
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
    fn log(self, cohort: Vec<(&'static str, LatencyLog)>) -> io::Result<String> {
        let mut text = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut log = IntervalLogWriterBuilder::new()
            .add_comment("[Latencies in nanoseconds; times in seconds since the first start]")
            .begin_log_with(&mut text, &mut serializer)?;
        let kinds = [
            ("block_rtt", self.block_rtt),
            ("transfer", self.transfer),
            ("first_response", self.first_response),
        ];
        for (kind, latencies) in kinds.into_iter().chain(cohort) {
            latencies.each(|start_ns, length_ns, histogram| {
                let (start, length) = (Duration::from_nanos(start_ns), Duration::from_nanos(length_ns));
                log.write_histogram(histogram, start, length, Tag::new(kind))
                    .map_err(|error| io::Error::other(format!("cannot write the latency log: {error:?}")))
            })?;
        }
        drop(log);
        String::from_utf8(text).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(idle_ns: u64, last_completion_ns: Option<u64>, end_ns: u64) -> WorkerReport {
        let mut recorder = Recorder::new(1_000, (1_000, u64::MAX));
        recorder.progress(1_000, 5, 50);
        recorder.totals(1_000).idle_ns += idle_ns;
        if let Some(at_ns) = last_completion_ns {
            recorder.complete(at_ns);
        }
        recorder.progress(end_ns, 1, 10);
        WorkerReport {
            recorder,
            faults: Faults::default(),
            end_ns,
            receive_buffer_bytes: 0,
            intended: None,
            boots: None,
        }
    }

    fn inside(worker: &WorkerReport, ends_with_completion: bool) -> (u64, u64) {
        let window = Window { start_ns: 1_000, open_ns: 0, close_ns: 800, ends_with_completion };
        let totals = phases_within(worker, window)[Phase::Window as usize];
        (totals.blocks, totals.idle_ns)
    }

    #[test]
    fn a_worker_whose_work_ran_out_is_idle_until_the_window_closes() {
        assert_eq!(inside(&worker(100, Some(1_300), 1_900), true), (5, 100 + 500));
        assert_eq!(inside(&worker(100, None, 1_900), true), (0, 800));
        assert_eq!(inside(&worker(100, Some(1_300), 1_600), false), (6, 100 + 200));
        assert_eq!(inside(&worker(0, None, 400), false), (5, 800), "it had ended before the start");
    }
}
