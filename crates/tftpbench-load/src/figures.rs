//! Figures of a report by name, and those of a cohort: of all transfers that were intended inside the measured window, each followed to its end.
//!
//! What failed, timed out, came late or was shed took longer than any other: it counts as never. So a server that drops
//! its slowest clients does not look better for it. What a stop of the run interrupted took longer than all that ended,
//! by an unknown time. Percentiles are nearest ranks over the whole cohort. It must never leave out a transfer.

use std::ops::Range;

use hdrhistogram::Histogram;

use crate::config::{Arrivals, Extent, LoadConfig};
use crate::ended::{CohortTally, Scope};
use crate::latency::LatencyLog;
use crate::shape::Starts;
use crate::shape::length_ns;

/// A figure of a report: whole numbers stay whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Figure {
    /// A count, or a time in nanoseconds.
    Whole(u64),
    /// A rate or a share.
    Real(f64),
    /// Whether something is so.
    Truth(bool),
}

pub(crate) type Figures = Vec<(&'static str, Option<Figure>)>;

pub(crate) fn whole(value: u64) -> Option<Figure> {
    Some(Figure::Whole(value))
}

pub(crate) fn share(part: f64, of: f64) -> Option<Figure> {
    (of > 0.0).then_some(Figure::Real(part / of))
}

/// A quantile in thousandths, its figure, and the figure that is true where it is never.
type Quantile = (u64, &'static str, &'static str);

const RESPONSE: [Quantile; 4] = [
    (500, "response_ns_p50", "response_ns_p50_is_never"),
    (950, "response_ns_p95", "response_ns_p95_is_never"),
    (990, "response_ns_p99", "response_ns_p99_is_never"),
    (1000, "response_ns_max", "response_ns_max_is_never"),
];
const SERVICE: [Quantile; 3] = [
    (500, "service_ns_p50", "service_ns_p50_is_never"),
    (950, "service_ns_p95", "service_ns_p95_is_never"),
    (990, "service_ns_p99", "service_ns_p99_is_never"),
];

const BOOT: [Quantile; 3] = [
    (500, "boot_ns_p50", "boot_ns_p50_is_never"),
    (990, "boot_ns_p99", "boot_ns_p99_is_never"),
    (1000, "boot_ns_max", "boot_ns_max_is_never"),
];
const BOOT_SERVICE: [Quantile; 2] = [
    (500, "boot_service_ns_p50", "boot_service_ns_p50_is_never"),
    (990, "boot_service_ns_p99", "boot_service_ns_p99_is_never"),
];

/// The cohort of one run.
pub(crate) struct Cohort {
    /// From the intended start; what was shed is part of it.
    response: Times,
    /// From the actual start, of what started.
    service: Times,
    /// From the intended to the actual start.
    lag: Histogram<u64>,
    offered_per_s: Option<Figure>,
    achieved_per_s: Option<Figure>,
    /// From the first to the last actual start of a storm.
    burst_ns: Option<Figure>,
}

impl Cohort {
    /// `shed`: starts that were intended in the cohort and shed.
    pub(crate) fn new(config: &LoadConfig, tally: CohortTally, shed: u64, scope: &Scope) -> Cohort {
        let window = scope.window.clone();
        let cut_off = if scope.is_cut_short { tally.interrupted } else { 0 };
        let (offered_per_s, achieved_per_s) = rates(config, &tally, shed, &window);
        let is_storm = matches!(config.arrivals, Arrivals::OpenLoop { starts: Starts::Storm { .. }, .. });
        let burst_ns = tally.last_start_ns.checked_sub(tally.first_start_ns).filter(|_| is_storm);
        Cohort {
            burst_ns: burst_ns.and_then(|ns| u64::try_from(ns).ok()).map(Figure::Whole),
            response: Times::new(tally.response, tally.started + shed, cut_off),
            service: Times::new(tally.service, tally.started, cut_off),
            lag: tally.lag,
            offered_per_s,
            achieved_per_s,
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        [self.starts(), self.response.figures(&RESPONSE), self.service.figures(&SERVICE)].concat()
    }

    /// The same where it is one of machines.
    pub(crate) fn boot_figures(&self) -> Figures {
        [self.starts(), self.response.figures(&BOOT), self.service.figures(&BOOT_SERVICE)].concat()
    }

    /// How its starts came about.
    fn starts(&self) -> Figures {
        let lag =
            |quantile| (!self.lag.is_empty()).then(|| Figure::Whole(self.lag.value_at_quantile(quantile)));
        vec![
            ("offered_per_s", self.offered_per_s),
            ("achieved_per_s", self.achieved_per_s),
            ("burst_ns", self.burst_ns),
            ("schedule_lag_ns_p50", lag(0.5)),
            ("schedule_lag_ns_p99", lag(0.99)),
        ]
    }

    /// What the latency log holds of it: the times of transfers that completed.
    pub(crate) fn into_logs(self, [response, service]: [&'static str; 2]) -> [(&'static str, LatencyLog); 2] {
        [(response, self.response.log), (service, self.service.log)]
    }
}

/// How long transfers took, and how many never came to their end.
struct Times {
    log: LatencyLog,
    sum: Histogram<u64>,
    /// A stop came before their end.
    cut_off: u64,
    never: u64,
}

impl Times {
    /// `all`: how many there are, those that never came to their end included.
    fn new(log: LatencyLog, all: u64, cut_off: u64) -> Times {
        let sum = log.sum();
        Times { never: all.saturating_sub(sum.len() + cut_off), log, sum, cut_off }
    }

    fn figures(&self, quantiles: &[Quantile]) -> Figures {
        let pair = |&(thousandths, name, is_never): &Quantile| {
            let at = self.at(thousandths);
            [
                (name, at.flatten().map(Figure::Whole)),
                (is_never, at.map(|value| Figure::Truth(value.is_none()))),
            ]
        };
        quantiles.iter().flat_map(pair).collect()
    }

    /// The least time that so many thousandths of the cohort do not exceed: within `Some`, `None` is never. `None` where
    /// the cohort is empty, or it is one of those that were cut off.
    fn at(&self, thousandths: u64) -> Option<Option<u64>> {
        let known = self.sum.len();
        let total = known + self.cut_off + self.never;
        let rank = (u128::from(total) * u128::from(thousandths)).div_ceil(1000) as u64;
        let mut counted = 0;
        let reached = self.sum.iter_recorded().find(|step| {
            counted += step.count_since_last_iteration();
            counted >= rank
        });
        let is_known = total > 0 && !(known + 1..=known + self.cut_off).contains(&rank);
        is_known.then(|| reached.map(|step| self.sum.highest_equivalent(step.value_iterated_to())))
    }
}

/// Starts a second that were intended, and that came about in time; of an open loop only. Where their number is fixed they
/// are offered for as long as it takes as asked for; where the generator took longer, that is what they were achieved in.
fn rates(
    config: &LoadConfig,
    tally: &CohortTally,
    shed: u64,
    window: &Range<i64>,
) -> (Option<Figure>, Option<Figure>) {
    let Arrivals::OpenLoop { starts, .. } = &config.arrivals else { return (None, None) };
    let intended = tally.started + shed;
    let asked_ns = match (starts, config.extent) {
        (Starts::Rate(_), Extent::Duration { .. }) => None,
        (Starts::Rate(rate), Extent::Transfers { .. }) => Some(rate.time_of(config.share.whole_of(intended))),
        (Starts::Storm { over_ns, .. }, _) => Some(*over_ns),
        (Starts::Shape(pieces), _) => Some(length_ns(pieces)),
    };
    let per_second = |count: f64, ns: i64| share(count * 1e9, ns as f64);
    match asked_ns.map(|ns| i64::try_from(ns).unwrap_or(i64::MAX)) {
        Some(0) => (None, None),
        Some(asked_ns) => {
            let achieved_ns = asked_ns.max(tally.last_start_ns);
            (per_second(intended as f64, asked_ns), per_second(tally.started as f64, achieved_ns))
        }
        None => {
            let window_ns = window.end - window.start;
            (per_second(intended as f64, window_ns), per_second(tally.in_time as f64, window_ns))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    fn milliseconds(times: &Times, thousandths: u64) -> Option<Option<u64>> {
        times.at(thousandths).map(|value| value.map(|ns| ns / MS as u64))
    }

    /// Transfers that took 1 ms, 2 ms, ... from their intended start, and so many that never ended.
    fn times(completed: i64, failed: u64, shed: u64) -> Times {
        stopped(completed, failed + shed, 0)
    }

    /// The same, and so many that a stop cut off.
    fn stopped(completed: i64, never: u64, cut_off: u64) -> Times {
        let log = LatencyLog::of((1..=completed).map(|ms| (2 * ms * MS, ms * MS)));
        Times::new(log, completed as u64 + never + cut_off, cut_off)
    }

    #[test]
    fn what_never_ended_counts_as_slower_than_all_the_rest() {
        let whole = times(100, 0, 0);
        assert_eq!(
            [500, 950, 990, 1000].map(|at| milliseconds(&whole, at)),
            [50, 95, 99, 100].map(|ms| Some(Some(ms)))
        );
        let some = times(98, 1, 1);
        assert_eq!(
            [500, 950, 980, 990, 1000].map(|at| milliseconds(&some, at)),
            [Some(Some(50)), Some(Some(95)), Some(Some(98)), Some(None), Some(None)]
        );
        assert_eq!(milliseconds(&times(0, 0, 3), 500), Some(None), "all were shed");
        assert_eq!(milliseconds(&times(0, 0, 0), 500), None, "there was none");
    }

    #[test]
    fn what_a_stop_cut_off_is_neither_never_nor_done() {
        let cut = stopped(90, 2, 8);
        assert_eq!(
            [500, 900, 950, 980, 990, 1000].map(|at| milliseconds(&cut, at)),
            [Some(Some(50)), Some(Some(90)), None, None, Some(None), Some(None)],
            "longer than what was done, and never only where that is sure"
        );
        assert_eq!(milliseconds(&stopped(0, 0, 5), 500), None, "nothing is known of what was begun");
        let figures = cut.figures(&RESPONSE);
        let known = |wanted: &str| figures.iter().find(|(name, _)| *name == wanted).unwrap().1;
        assert_eq!((known("response_ns_p95"), known("response_ns_p95_is_never")), (None, None));
        assert_eq!(known("response_ns_p99_is_never"), Some(Figure::Truth(true)));
    }

    #[test]
    fn a_figure_is_null_beside_the_truth_that_it_is_never() {
        let figures = times(98, 2, 0).figures(&RESPONSE);
        let found =
            |name: &str| figures.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value);
        assert_eq!(found("response_ns_p99"), None);
        assert_eq!(found("response_ns_p99_is_never"), Some(Figure::Truth(true)));
        assert_eq!(found("response_ns_p95_is_never"), Some(Figure::Truth(false)));
        let nothing = times(0, 0, 0).figures(&RESPONSE);
        assert!(nothing.iter().all(|(_, value)| value.is_none()), "of nothing nothing is known");
    }
}
