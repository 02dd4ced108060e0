//! What is written down of boots: a row for each machine as long as there is room, and the figures of all of them.
//!
//! The cohort is every machine that was intended inside the measured window: what failed, came late, was shed or was
//! interrupted never booted. It must never leave out a machine.

use std::collections::BTreeMap;

use crate::config::LoadConfig;
use crate::ended::{Ended, Row, Scope, TransferOutcome, TransferRow};
use crate::figures::{Cohort, Figure, Figures, share, whole};
use crate::latency::LatencyLog;

/// What one worker writes down of its machines.
#[derive(Debug)]
pub(crate) struct BootRecords {
    rows: Ended<BootRow>,
    /// Machines that have sent their first request.
    pub(crate) begun: u64,
    pub(crate) counts: BootCounts,
    /// When the last one ended that had begun, in ns since the first start.
    last_end_ns: i64,
    /// From a request to the ERROR that says that the file is not there; made with the first one.
    miss: Option<LatencyLog>,
    /// By share and step: machines that were served a file that was to be absent.
    served_misses: BTreeMap<(usize, usize), u64>,
}

/// Machines counted one by one, whichever have rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BootCounts {
    outcomes: [u64; BootOutcome::NAMES.len()],
    /// Of those that were shed, the ones that belong to the cohort.
    shed_of_cohort: u64,
    misses: u64,
    misses_unanswered: u64,
    restarts: u64,
}

impl BootCounts {
    /// How many machines ended so.
    pub(crate) fn ended_as(&self, outcome: BootOutcome) -> u64 {
        self.outcomes[outcome as usize]
    }

    fn add(&mut self, other: &BootCounts) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, part)| *sum += part);
        self.shed_of_cohort += other.shed_of_cohort;
        self.misses += other.misses;
        self.misses_unanswered += other.misses_unanswered;
        self.restarts += other.restarts;
    }

    fn figures(&self) -> Figures {
        let of = |outcome| whole(self.ended_as(outcome));
        vec![
            ("machines", whole(self.outcomes.iter().sum())),
            ("booted", of(BootOutcome::Booted)),
            ("boots_failed", of(BootOutcome::Failed)),
            ("boots_late", of(BootOutcome::Late)),
            ("boots_shed", of(BootOutcome::Shed)),
            ("boots_interrupted", of(BootOutcome::Interrupted)),
            ("misses", whole(self.misses)),
            ("misses_unanswered", whole(self.misses_unanswered)),
            ("restarts", whole(self.restarts)),
        ]
    }
}

impl BootRecords {
    /// Of a worker with this much room for rows.
    pub(crate) fn new(config: &LoadConfig) -> BootRecords {
        BootRecords {
            rows: Ended::new(config),
            begun: 0,
            counts: BootCounts::default(),
            last_end_ns: 0,
            miss: None,
            served_misses: BTreeMap::new(),
        }
    }

    /// One of a worker that has begun so many machines, of which these have ended so.
    #[cfg(test)]
    pub(crate) fn of(begun: u64, ended: &[BootOutcome]) -> BootRecords {
        let mut counts = BootCounts::default();
        ended.iter().for_each(|outcome| counts.outcomes[*outcome as usize] += 1);
        let rows = Ended::with_room(1, true);
        BootRecords { rows, begun, counts, last_end_ns: 0, miss: None, served_misses: BTreeMap::new() }
    }

    /// A miss was answered so long after its request. `at_ns`: since the start of the run.
    pub(crate) fn miss(&mut self, at_ns: u64, took_ns: u64) {
        self.miss.get_or_insert_with(LatencyLog::new).record(at_ns, took_ns);
    }

    /// A machine was served what its profile expects to be absent, at these steps of its share.
    pub(crate) fn served(&mut self, share: usize, steps: &[usize]) {
        for step in steps {
            *self.served_misses.entry((share, *step)).or_default() += 1;
        }
    }

    /// A machine has come to its end, or was shed.
    pub(crate) fn end(&mut self, row: BootRow, scope: &Scope) {
        let counts = &mut self.counts;
        counts.outcomes[row.outcome as usize] += 1;
        let is_of_cohort = scope.is_of_cohort(row.intended_start_ns);
        counts.shed_of_cohort += u64::from(row.outcome == BootOutcome::Shed && is_of_cohort);
        counts.misses += row.misses;
        counts.misses_unanswered += row.misses_unanswered;
        counts.restarts += row.restarts;
        self.last_end_ns = self.last_end_ns.max(row.end_ns);
        self.rows.push(row, scope);
    }
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BootOutcome {
    /// Every step ended as it should.
    Booted,
    /// A step did not, and the client gave up.
    Failed,
    /// Its deadline passed first.
    Late,
    /// It was due while as many machines were booting as may be, and never started.
    Shed,
    /// The run was over first.
    Interrupted,
}

impl BootOutcome {
    /// Names in the order of the discriminants.
    pub const NAMES: [&'static str; 5] = ["booted", "failed", "late", "shed", "interrupted"];
}

/// Why a boot failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BootReason {
    /// It did not.
    #[default]
    None,
    /// An ERROR.
    Refused,
    /// Nothing answered.
    NoAnswer,
    /// The server had answered, and fell silent.
    FellSilent,
    /// The server broke a rule.
    BrokeProtocol,
    /// What came was not the file.
    WrongBytes,
}

impl BootReason {
    /// Names in the order of the discriminants.
    pub const NAMES: [&'static str; 6] =
        ["", "refused", "no answer", "fell silent", "broke the protocol", "wrong bytes"];
}

/// One machine. Times are nanoseconds since the first start of the run; -1 stands for "never".
#[derive(Clone, Copy, Debug)]
pub struct BootRow {
    /// Its number.
    pub machine: u64,
    /// Which share of the mix it boots.
    pub share: u32,
    /// When the schedule wanted it to start.
    pub intended_start_ns: i64,
    /// When its first request was sent.
    pub actual_start_ns: i64,
    /// When its boot was decided; when it was intended, of one that was shed.
    pub end_ns: i64,
    /// File bytes moved in order, in all its transfers.
    pub bytes: u64,
    /// Requests, without those that were sent again for want of an answer.
    pub requests: u64,
    /// Of these, how many were refused or not answered as expected.
    pub misses: u64,
    /// Of these, how many were not answered.
    pub misses_unanswered: u64,
    /// Datagrams of its own sent again.
    pub retransmissions: u64,
    /// Transfers and boots begun anew.
    pub restarts: u64,
    /// How it ended.
    pub outcome: BootOutcome,
    /// The step that it was at, from 1; -1 of one that booted or was shed.
    pub failed_step: i64,
    /// Why it failed.
    pub reason: BootReason,
    /// Code of the ERROR that it failed with; -1 without one.
    pub error_code: i32,
}

/// What a report has of boots.
pub(crate) struct Found {
    pub(crate) figures: Figures,
    pub(crate) logs: Vec<(&'static str, LatencyLog)>,
    pub(crate) rows: Vec<BootRow>,
    /// See `LoadReport::served_misses`.
    pub(crate) served_misses: Vec<(usize, usize, u64)>,
}

/// When the last machine gave up, in ns since the first start, where there were machines and none of them booted.
pub(crate) fn gave_up_ns<'a>(workers: impl Iterator<Item = &'a BootRecords>) -> Option<u64> {
    let mut last_end_ns = None;
    for BootRecords { counts, last_end_ns: end_ns, .. } in workers {
        if counts.ended_as(BootOutcome::Booted) > 0 {
            return None;
        }
        last_end_ns = last_end_ns.max(u64::try_from(*end_ns).ok().filter(|ns| *ns > 0));
    }
    last_end_ns
}

/// The figures of all machines, from the records of all workers.
pub(crate) fn figures(config: &LoadConfig, workers: Vec<BootRecords>, scope: &Scope) -> Found {
    let (mut counts, mut miss, mut ended) = (BootCounts::default(), None::<LatencyLog>, Vec::new());
    let mut served = BTreeMap::new();
    for worker in workers {
        for (place, machines) in worker.served_misses {
            *served.entry(place).or_default() += machines;
        }
        counts.add(&worker.counts);
        ended.push(worker.rows);
        miss = match (miss, worker.miss) {
            (Some(mut sum), Some(part)) => {
                sum.merge(part);
                Some(sum)
            }
            (one, two) => one.or(two),
        };
    }
    let (kept, tally) = Ended::merge(ended, scope);
    let window_ns = scope.window.end - scope.window.start;
    let in_flight_mean = share(tally.in_flight_ns as f64, window_ns as f64);
    let cohort = Cohort::new(config, tally.cohort, counts.shed_of_cohort, scope);
    let mut figures = counts.figures();
    figures.push(("in_flight_mean", in_flight_mean));
    figures.extend(cohort.boot_figures());
    let miss_ns = miss.as_ref().map(LatencyLog::sum);
    let miss_at =
        |quantile| miss_ns.as_ref().map(|histogram| Figure::Whole(histogram.value_at_quantile(quantile)));
    figures.extend([("miss_ns_p50", miss_at(0.5)), ("miss_ns_p99", miss_at(0.99))]);
    let mut logs = Vec::from(cohort.into_logs(["boot", "boot_service"]));
    logs.extend(miss.map(|miss| ("miss", miss)));
    let served_misses = served.into_iter().map(|((share, step), machines)| (share, step, machines)).collect();
    Found { figures, logs, rows: kept.rows, served_misses }
}

impl Row for BootRow {
    fn is_completed(&self) -> bool {
        self.outcome == BootOutcome::Booted
    }

    fn ended_ns(&self) -> i64 {
        self.end_ns.max(self.intended_start_ns)
    }

    /// A boot as the cohort knows what starts: a transfer that completes or never does.
    fn started(&self) -> Option<TransferRow> {
        let outcome = match self.outcome {
            BootOutcome::Shed => return None,
            BootOutcome::Booted => TransferOutcome::Completed,
            BootOutcome::Failed => TransferOutcome::Failed,
            BootOutcome::Late => TransferOutcome::Late,
            BootOutcome::Interrupted => TransferOutcome::Interrupted,
        };
        Some(TransferRow {
            number: self.machine,
            intended_start_ns: self.intended_start_ns,
            actual_start_ns: self.actual_start_ns,
            first_response_ns: -1,
            end_ns: self.end_ns,
            bytes: self.bytes,
            retransmissions: self.retransmissions,
            outcome,
            error_code: self.error_code,
            machine: self.machine as i64,
            step: -1,
        })
    }
}
