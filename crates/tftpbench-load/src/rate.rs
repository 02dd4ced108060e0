//! A rate as a ratio of whole numbers, so that nothing drifts. Plain arithmetic.

/// Slowest and fastest rate, in transfers a second: one in 1000 s, and more than any generator starts.
const RATE_MIN_PER_S: f64 = 1e-3;
const RATE_MAX_PER_S: f64 = 1e6;

/// Transfers offered: `transfers` of them in each `per_ns`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub transfers: u64,
    /// In how long.
    pub per_ns: u64,
}

impl Rate {
    /// Transfers a second.
    pub fn per_second(self) -> f64 {
        self.transfers as f64 * 1e9 / self.per_ns as f64
    }

    /// Whether it is from 0.001 to 1,000,000 a second.
    pub(crate) fn is_allowed(self) -> bool {
        self.per_ns > 0 && (RATE_MIN_PER_S..=RATE_MAX_PER_S).contains(&self.per_second())
    }

    /// The first whole nanosecond by which `count` whole gaps have passed, rounded down.
    pub(crate) fn time_of(self, count: u64) -> u64 {
        let ns = u128::from(count) * u128::from(self.per_ns) / u128::from(self.transfers);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}
