//! What bounds the load on a server that others may depend on: when it ends early, and how much it may move.
//!
//! Both are decided from counters that the workers keep anyway. Reads no clock, sends nothing.

use std::collections::VecDeque;

/// What bounds a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Brake {
    /// The load ends where most transfers or boots fail, or where ICMP says that nothing listens.
    pub stops: bool,
    /// UDP payload bytes a second, both ways, above which no further transfer starts. What has begun is not slowed down.
    pub bytes_per_s_max: Option<u64>,
}

/// Why a load was ended by its brake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// Of the last so many transfers, or boots, most did not complete, for too long.
    Failing,
    /// ICMP said that nothing listens on the server's port, or that the way there is barred.
    Unreachable,
}

impl Stopped {
    /// As results have it.
    pub fn name(self) -> &'static str {
        match self {
            Stopped::Failing => "failing",
            Stopped::Unreachable => "unreachable",
        }
    }
}

/// Of so many transfers, or boots, that ended last ...
const LAST: u64 = 100;
/// ... more than half may not have failed for so long.
const FAILING_NS: u64 = 3_000_000_000;

/// Whether a load goes on.
#[derive(Debug, Default)]
pub(crate) struct StopRule {
    /// How many had ended, and how many of them were lost, at each look; no more than reach back to `LAST`.
    seen: VecDeque<(u64, u64)>,
    failing_since_ns: Option<u64>,
}

impl StopRule {
    /// Takes in how many have ended by now, and how many of them did not complete; true to end the load.
    pub(crate) fn look(&mut self, now_ns: u64, ended: u64, lost: u64) -> bool {
        self.seen.push_back((ended, lost));
        // The youngest look that lies `LAST` transfers back is kept, and none before it.
        while self.seen.get(1).is_some_and(|(then, _)| ended.saturating_sub(*then) >= LAST) {
            self.seen.pop_front();
        }
        let (ended_then, lost_then) = self.seen.front().copied().unwrap_or_default();
        let (of, failed) = (ended.saturating_sub(ended_then), lost.saturating_sub(lost_then));
        if of < LAST || failed * 2 <= of {
            self.failing_since_ns = None;
            return false;
        }
        let since_ns = *self.failing_since_ns.get_or_insert(now_ns);
        now_ns.saturating_sub(since_ns) >= FAILING_NS
    }
}

/// One worker's share of what may be moved: a bucket that leaks at the rate, and holds what was moved beyond it.
#[derive(Debug)]
pub(crate) struct Throttle {
    bytes_per_s: u64,
    level: u64,
    moved: u64,
    at_ns: u64,
}

impl Throttle {
    /// The share of one of so many workers.
    pub(crate) fn new(bytes_per_s: u64, workers: usize) -> Throttle {
        Throttle { bytes_per_s: (bytes_per_s / workers.max(1) as u64).max(1), level: 0, moved: 0, at_ns: 0 }
    }

    /// From when on the next transfer may start, given that `moved` bytes in all have been moved by now.
    pub(crate) fn opens_ns(&mut self, now_ns: u64, moved: u64) -> u64 {
        let leaked =
            u128::from(now_ns.saturating_sub(self.at_ns)) * u128::from(self.bytes_per_s) / 1_000_000_000;
        let leaked = u64::try_from(leaked).unwrap_or(u64::MAX);
        // Below one byte nothing leaks: the time is kept until it does.
        if leaked > 0 || self.level == 0 {
            self.level = self.level.saturating_sub(leaked);
            self.at_ns = now_ns;
        }
        self.level = self.level.saturating_add(moved.saturating_sub(self.moved));
        self.moved = moved;
        let wait_ns = u128::from(self.level) * 1_000_000_000 / u128::from(self.bytes_per_s);
        now_ns.saturating_add(u64::try_from(wait_ns).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// When the rule ends a load of 50 transfers a second, of which `lost` says which fail; None for never in 60 s.
    fn ended_at_s(lost: impl Fn(u64) -> bool) -> Option<f64> {
        let mut rule = StopRule::default();
        let (mut ended, mut failed) = (0, 0);
        (1..600).find_map(|tick| {
            for _ in 0..5 {
                failed += u64::from(lost(ended));
                ended += 1;
            }
            rule.look(tick * SECOND / 10, ended, failed).then_some(tick as f64 / 10.0)
        })
    }

    #[test]
    fn a_load_ends_three_seconds_after_more_than_half_of_the_last_hundred_have_failed() {
        assert_eq!(ended_at_s(|_| false), None);
        assert_eq!(ended_at_s(|n| n % 2 == 0), None, "half is not more than half");
        // A hundred are there after 2 s, the first look counts from nothing.
        assert_eq!(ended_at_s(|_| true), Some(5.1));
        // From 10 s on all fail; 51 of the last hundred have after one more second.
        assert!(ended_at_s(|n| n >= 500).is_some_and(|at_s| (14.0..14.3).contains(&at_s)));
        assert_eq!(ended_at_s(|n| (500..600).contains(&n)), None, "a bad moment of 2 s is none");
    }

    #[test]
    fn fewer_than_a_hundred_say_nothing_and_a_pause_forgets_nothing() {
        let mut rule = StopRule::default();
        assert!((1..1000).all(|tick| !rule.look(tick * SECOND, 99, 99)));
        assert!(!rule.look(1000 * SECOND, 199, 199));
        assert!(rule.look(1003 * SECOND, 199, 199));
    }

    #[test]
    fn what_was_moved_above_the_rate_is_waited_for_and_no_credit_is_saved() {
        let mut throttle = Throttle::new(1_000, 1);
        assert_eq!(throttle.opens_ns(SECOND, 0), SECOND, "nothing was moved");
        assert_eq!(throttle.opens_ns(SECOND, 500), SECOND + SECOND / 2);
        assert_eq!(throttle.opens_ns(SECOND + SECOND / 4, 500), SECOND + SECOND / 2, "a quarter has leaked");
        assert_eq!(throttle.opens_ns(100 * SECOND, 500), 100 * SECOND);
        assert_eq!(throttle.opens_ns(100 * SECOND, 2_500), 102 * SECOND, "the pause before gave none");
        assert!(Throttle::new(1, 8).opens_ns(u64::MAX, u64::MAX) == u64::MAX, "no overflow");
    }

    #[test]
    fn looks_more_often_than_a_byte_leaks_lose_no_time() {
        let mut throttle = Throttle::new(10, 1);
        throttle.opens_ns(SECOND, 0);
        throttle.opens_ns(SECOND, 10);
        let opens = (0..1000).map(|ms| throttle.opens_ns(SECOND + ms * SECOND / 1000, 10)).last();
        assert!(opens.is_some_and(|opens_ns| opens_ns <= 2 * SECOND + SECOND / 10), "{opens:?}");
    }
}
