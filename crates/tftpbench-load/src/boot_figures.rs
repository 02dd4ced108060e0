//! What is written down of boots: a row for each machine, and the figures of all of them.
//!
//! The cohort is every machine that was intended inside the measured window: what failed, came late, was shed or was
//! interrupted never booted. It must never leave out a machine.

use crate::config::LoadConfig;
use crate::ended::{Scope, Tally};
use crate::ended::{TransferOutcome, TransferRow};
use crate::figures::{Cohort, Figure, Figures, share, whole};
use crate::latency::LatencyLog;

/// What one worker writes down of its machines.
#[derive(Debug, Default)]
pub(crate) struct BootRecords {
    pub(crate) rows: Vec<BootRow>,
    /// From a request to the ERROR that says that the file is not there; made with the first one.
    miss: Option<LatencyLog>,
}

impl BootRecords {
    /// A miss was answered so long after its request. `at_ns`: since the start of the run.
    pub(crate) fn miss(&mut self, at_ns: u64, took_ns: u64) {
        self.miss.get_or_insert_with(LatencyLog::new).record(at_ns, took_ns);
    }

    /// Adds what another worker wrote down.
    pub(crate) fn merge(&mut self, other: BootRecords) {
        self.rows.extend(other.rows);
        self.miss = match (self.miss.take(), other.miss) {
            (Some(mut miss), Some(other)) => {
                miss.merge(other);
                Some(miss)
            }
            (one, two) => one.or(two),
        };
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
}

/// The figures of all machines.
pub(crate) fn figures(config: &LoadConfig, records: BootRecords, scope: &Scope) -> Found {
    let BootRecords { rows, miss } = records;
    let (shed, started): (Vec<&BootRow>, Vec<&BootRow>) =
        rows.iter().partition(|row| row.outcome == BootOutcome::Shed);
    let shed = shed.iter().filter(|row| scope.is_of_cohort(row.intended_start_ns)).count();
    let started: Vec<TransferRow> = started.into_iter().map(as_transfer).collect();
    let tally = Tally::of(&started, scope);
    let window_ns = scope.window.end - scope.window.start;
    let in_flight_mean = share(tally.in_flight_ns as f64, window_ns as f64);
    let cohort = Cohort::new(config, tally.cohort, shed as u64, scope.window.clone());
    let mut figures = counts(&rows);
    figures.push(("in_flight_mean", in_flight_mean));
    figures.extend(cohort.boot_figures());
    let miss_ns = miss.as_ref().map(LatencyLog::sum);
    let miss_at =
        |quantile| miss_ns.as_ref().map(|histogram| Figure::Whole(histogram.value_at_quantile(quantile)));
    figures.extend([("miss_ns_p50", miss_at(0.5)), ("miss_ns_p99", miss_at(0.99))]);
    let mut logs = Vec::from(cohort.into_logs(["boot", "boot_service"]));
    logs.extend(miss.map(|miss| ("miss", miss)));
    Found { figures, logs, rows }
}

fn counts(rows: &[BootRow]) -> Figures {
    let of = |outcome| whole(rows.iter().filter(|row| row.outcome == outcome).count() as u64);
    let sum = |count: fn(&BootRow) -> u64| whole(rows.iter().map(count).sum());
    vec![
        ("machines", whole(rows.len() as u64)),
        ("booted", of(BootOutcome::Booted)),
        ("boots_failed", of(BootOutcome::Failed)),
        ("boots_late", of(BootOutcome::Late)),
        ("boots_shed", of(BootOutcome::Shed)),
        ("boots_interrupted", of(BootOutcome::Interrupted)),
        ("misses", sum(|row| row.misses)),
        ("misses_unanswered", sum(|row| row.misses_unanswered)),
        ("restarts", sum(|row| row.restarts)),
    ]
}

/// A boot as the cohort knows what starts: a transfer that completes or never does.
fn as_transfer(row: &BootRow) -> TransferRow {
    TransferRow {
        number: row.machine,
        intended_start_ns: row.intended_start_ns,
        actual_start_ns: row.actual_start_ns,
        first_response_ns: -1,
        end_ns: row.end_ns,
        bytes: row.bytes,
        retransmissions: row.retransmissions,
        outcome: match row.outcome {
            BootOutcome::Booted => TransferOutcome::Completed,
            BootOutcome::Failed => TransferOutcome::Failed,
            BootOutcome::Late => TransferOutcome::Late,
            BootOutcome::Shed | BootOutcome::Interrupted => TransferOutcome::Interrupted,
        },
        error_code: row.error_code,
        machine: row.machine as i64,
        step: -1,
    }
}
