//! When transfers of an open loop are to start: a pure function of their number, or of a seed and their number.
//!
//! A host has its share of the numbers, and a worker every k-th of these, so that what all of them start together is the
//! schedule of one worker on one host, to the nanosecond. It must never read a clock, nor depend on what becomes of the
//! transfers.

use crate::contents::{SPLITMIX_STEP, mix64};
use crate::shape::{GAP_BITS, Rate, Shape, Starts, Storm};

/// Gaps of a Poisson process are summed in units of 2^-16 ns: after 10^11 of them less than 2 ms are lost.
const FRACTION_BITS: u32 = 16;
const FRACTION: f64 = (1u32 << FRACTION_BITS) as f64;
/// Tells this stream of random numbers from those that make file contents of the same seed.
const STREAM: u64 = 0x6172_7269_7661_6C73;

/// Largest number of which a host has some: a Poisson process sums as many gaps from one start to the next, in less than
/// 1 ms.
const SHARE_OF_MAX: u64 = 10_000;

/// Which numbers of a load one host starts: of every `of` in a row the `width` ones from `first` on. All else of a
/// transfer or a machine follows from its number, so hosts whose shares make a whole put on the load of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostShare {
    /// Those before it are other hosts'.
    pub first: u64,
    /// How many are its.
    pub width: u64,
    /// Of how many.
    pub of: u64,
}

impl HostShare {
    /// That of a host by itself.
    pub const WHOLE: HostShare = HostShare { first: 0, width: 1, of: 1 };

    /// Refuses what cannot be meant, in one line.
    pub(crate) fn check(self) -> Result<(), String> {
        let HostShare { first, width, of } = self;
        match first.checked_add(width) {
            _ if width == 0 || of == 0 => Err("share: width and of must be at least 1".to_owned()),
            _ if of > SHARE_OF_MAX => Err(format!("share: of must be at most {SHARE_OF_MAX}")),
            Some(end) if end <= of => Ok(()),
            _ => Err(format!(
                "share: first + width must be at most of, and {first} + {width} is more than {of}"
            )),
        }
    }

    /// The number of its start `index`, from 0; the largest one where there are not so many.
    pub(crate) fn number(self, index: u64) -> u64 {
        let before = (index / self.width).saturating_mul(self.of);
        before.saturating_add(self.first + index % self.width)
    }

    /// How many of the first `count` numbers are its.
    pub(crate) fn part_of(self, count: u64) -> u64 {
        let HostShare { first, width, of } = self;
        count / of * width + (count % of).saturating_sub(first).min(width)
    }

    /// How many starts all hosts have in the time in which it has `count`.
    pub(crate) fn whole_of(self, count: u64) -> u64 {
        let whole = u128::from(count) * u128::from(self.of) / u128::from(self.width);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }
}

/// How the starts of an open loop lie in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// All gaps are equal; the first start is at 0.
    Even,
    /// Gaps are exponentially distributed: machines that know nothing of each other.
    Poisson,
}

/// A start that the schedule wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// The transfer's number, from 0.
    pub(crate) number: u64,
    /// On the monotonic clock.
    pub(crate) intended_ns: u64,
}

/// One worker's part of the schedule.
#[derive(Debug)]
pub(crate) struct OpenLoop {
    times: Times,
    start_ns: u64,
    share: HostShare,
    /// Every how many-th start of the host's share is this worker's.
    workers: u64,
    /// Its next one in the share, that one's number, and when it starts.
    index: u64,
    number: u64,
    due_ns: Option<u64>,
    /// No transfer is intended from then on, or has this number or a higher one.
    until_ns: u64,
    count: u64,
    /// How many starts it has given.
    pub(crate) intended: u64,
}

impl OpenLoop {
    /// The part of worker `index` of `workers` in a host's share: starts from `start_ns` to before `until_ns`, on all hosts
    /// `count` at most.
    pub(crate) fn new(
        times: Times,
        start_ns: u64,
        share: HostShare,
        (index, workers): (usize, usize),
        until_ns: u64,
        count: u64,
    ) -> OpenLoop {
        let (index, workers) = (index as u64, workers as u64);
        let mut open = OpenLoop {
            times,
            start_ns,
            share,
            workers,
            index,
            number: 0,
            due_ns: None,
            until_ns,
            count,
            intended: 0,
        };
        open.look_up();
        open
    }

    /// When the next transfer is to start; `None` where none is any more.
    pub(crate) fn next_start_ns(&self) -> Option<u64> {
        self.due_ns.filter(|due_ns| *due_ns < self.until_ns && self.number < self.count)
    }

    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Start> {
        let intended_ns = self.next_start_ns().filter(|due_ns| *due_ns <= now_ns)?;
        let number = self.number;
        self.index += self.workers;
        self.look_up();
        self.intended += 1;
        Some(Start { number, intended_ns })
    }

    pub(crate) fn close(&mut self) {
        self.until_ns = 0;
    }

    fn look_up(&mut self) {
        self.number = self.share.number(self.index);
        self.due_ns = self.times.of(self.number).map(|ns| self.start_ns.saturating_add(ns));
    }
}

/// The times of all starts, in nanoseconds since the first moment; asked for in rising order of their numbers.
#[derive(Clone, Debug)]
pub(crate) enum Times {
    Even(Rate),
    Poisson(Poisson),
    Storm(Storm),
    Shape(Shape),
    ShapePoisson(Shape, Poisson),
}

/// Sums of exponentially distributed gaps.
#[derive(Clone, Debug)]
pub(crate) struct Poisson {
    stream: u64,
    /// A mean gap, in units of the sum.
    mean: f64,
    /// How many gaps have been summed, and their sum.
    summed: u64,
    sum: u128,
}

impl Times {
    pub(crate) fn new(starts: &Starts, spacing: Spacing, seed: u64) -> Times {
        match (starts, spacing) {
            (Starts::Rate(rate), Spacing::Even) => Times::Even(*rate),
            (Starts::Rate(rate), Spacing::Poisson) => {
                let mean_ns = rate.per_ns as f64 / rate.transfers as f64;
                Times::Poisson(Poisson::new(seed, mean_ns * FRACTION))
            }
            (&Starts::Storm { count, over_ns, spread }, _) => Times::Storm(Storm { count, over_ns, spread }),
            (Starts::Shape(pieces), Spacing::Even) => Times::Shape(Shape::new(pieces)),
            (Starts::Shape(pieces), Spacing::Poisson) => {
                let mean = (1u64 << GAP_BITS) as f64;
                Times::ShapePoisson(Shape::new(pieces), Poisson::new(seed, mean))
            }
        }
    }

    /// When transfer `number` starts; `None` where there are not so many.
    fn of(&mut self, number: u64) -> Option<u64> {
        match self {
            Times::Even(rate) => Some(rate.time_of(number)),
            Times::Poisson(poisson) => Some(poisson.of(number)),
            Times::Storm(storm) => storm.time_of(number),
            Times::Shape(shape) => shape.time_of(number.into(), 0),
            Times::ShapePoisson(shape, poisson) => shape.time_of(poisson.sum_to(number), GAP_BITS),
        }
    }
}

impl Poisson {
    fn new(seed: u64, mean: f64) -> Poisson {
        Poisson { stream: mix64(seed ^ STREAM), mean, summed: 0, sum: 0 }
    }

    /// The sum of all gaps up to that of `number`, and with it.
    fn sum_to(&mut self, number: u64) -> u128 {
        while self.summed <= number {
            self.sum += (self.mean * exponential(self.stream, self.summed)) as u128;
            self.summed += 1;
        }
        self.sum
    }

    fn of(&mut self, number: u64) -> u64 {
        u64::try_from(self.sum_to(number) >> FRACTION_BITS).unwrap_or(u64::MAX)
    }
}

/// Number `index` of a stream of exponentially distributed numbers with mean 1, by inverse transform.
fn exponential(stream: u64, index: u64) -> f64 {
    // 53 bits, as many as a float has; never 0, of which there is no logarithm.
    let bits = mix64(stream.wrapping_add(index.wrapping_mul(SPLITMIX_STEP))) >> 11;
    -((bits + 1) as f64 / (1u64 << 53) as f64).ln()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::shape::{Piece, Spread};

    const SECOND: u64 = 1_000_000_000;
    const DAYS_NS: u64 = 10 * 24 * 3_600 * SECOND;
    const BOTH: [Spacing; 2] = [Spacing::Even, Spacing::Poisson];

    fn per_second(transfers: u64) -> Rate {
        Rate { transfers, per_ns: SECOND }
    }

    fn part(rate: Rate, spacing: Spacing, seed: u64, share: (usize, usize), count: u64) -> Vec<Start> {
        part_of(&Starts::Rate(rate), spacing, seed, share, count)
    }

    fn part_of(
        starts: &Starts,
        spacing: Spacing,
        seed: u64,
        worker: (usize, usize),
        count: u64,
    ) -> Vec<Start> {
        let times = Times::new(starts, spacing, seed);
        all(OpenLoop::new(times, 1_000, HostShare::WHOLE, worker, u64::MAX, count))
    }

    fn all(mut open: OpenLoop) -> Vec<Start> {
        std::iter::from_fn(|| open.take_due(u64::MAX)).collect()
    }

    /// Rates, shapes and storms of at least 100,000 starts.
    fn kinds() -> [Starts; 4] {
        let hold = Piece::Hold { rate: per_second(400), for_ns: 100 * SECOND };
        let ramp = Piece::Ramp { from: per_second(0), to: per_second(777), for_ns: 150 * SECOND };
        let shape = Starts::Shape(Arc::from([ramp, Piece::Burst { count: 5_000 }, hold]));
        let storm = |spread| Starts::Storm { count: 100_000, over_ns: 10 * SECOND, spread };
        [Starts::Rate(per_second(333)), shape, storm(Spread::Even), storm(Spread::Normal)]
    }

    /// Shares that make a whole: equal ones, and by weights.
    fn splits() -> Vec<Vec<HostShare>> {
        let split = |widths: &[u64]| {
            let of = widths.iter().sum();
            let mut first = 0;
            let next = |width: &u64| {
                let share = HostShare { first, width: *width, of };
                first += width;
                share
            };
            widths.iter().map(next).collect()
        };
        [&[1][..], &[3], &[1, 1], &[2, 3], &[3, 2, 1], &[1, 7, 1, 1]].map(split).to_vec()
    }

    #[test]
    fn a_hundred_thousand_even_starts_lie_at_the_formulas_nanosecond() {
        for rate in
            [per_second(200), per_second(7), per_second(30_001), Rate { transfers: 7, per_ns: 60 * SECOND }]
        {
            let starts = part(rate, Spacing::Even, 0, (0, 1), 100_000);
            assert_eq!(starts.len(), 100_000);
            for (index, start) in starts.iter().enumerate() {
                let formula = index as u128 * u128::from(rate.per_ns) / u128::from(rate.transfers);
                assert_eq!((start.number, start.intended_ns), (index as u64, 1_000 + formula as u64));
            }
        }
    }

    #[test]
    fn any_number_of_workers_together_have_the_schedule_of_one() {
        for (starts, spacing) in kinds().iter().flat_map(|starts| BOTH.map(|spacing| (starts, spacing))) {
            for seed in [1, 99] {
                let alone = part_of(starts, spacing, seed, (0, 1), 100_000);
                assert!(alone.len() > 99_000 && alone.is_sorted_by_key(|start| start.intended_ns));
                for workers in [2, 3, 4] {
                    let parts =
                        (0..workers).flat_map(|k| part_of(starts, spacing, seed, (k, workers), 100_000));
                    let mut union: Vec<Start> = parts.collect();
                    union.sort_by_key(|start| start.number);
                    assert_eq!(union, alone, "{starts:?} {spacing:?} with {workers} workers");
                }
            }
        }
    }

    #[test]
    fn hosts_with_any_shares_together_have_the_schedule_of_one() {
        // Past the ramp and the burst of the shape.
        let count = 70_000;
        for (starts, spacing) in kinds().iter().flat_map(|starts| BOTH.map(|spacing| (starts, spacing))) {
            let alone = part_of(starts, spacing, 7, (0, 1), count);
            assert_eq!(alone.len() as u64, count);
            for (shares, workers) in splits().iter().zip([1, 3, 2, 3, 1, 2]) {
                let mut union = Vec::new();
                for share in shares {
                    let part = |worker| {
                        let times = Times::new(starts, spacing, 7);
                        all(OpenLoop::new(times, 1_000, *share, (worker, workers), u64::MAX, count))
                    };
                    let parts: Vec<Start> = (0..workers).flat_map(part).collect();
                    assert_eq!(parts.len() as u64, share.part_of(count), "{share:?}");
                    union.extend(parts);
                }
                union.sort_by_key(|start| start.number);
                assert_eq!(union, alone, "{starts:?} {spacing:?} {shares:?} with {workers} workers each");
            }
        }
    }

    #[test]
    fn a_share_whose_first_number_never_comes_starts_nothing_and_waits_for_nothing() {
        let last = HostShare { first: 99, width: 1, of: 100 };
        let pieces = Arc::from([Piece::Hold { rate: per_second(2), for_ns: 2 * SECOND }]);
        let storm = Starts::Storm { count: 4, over_ns: SECOND, spread: Spread::Even };
        for starts in [Starts::Rate(per_second(1)), Starts::Shape(pieces), storm] {
            for spacing in BOTH {
                let until_ns = if matches!(starts, Starts::Rate(_)) { 1 } else { u64::MAX };
                let open =
                    OpenLoop::new(Times::new(&starts, spacing, 5), 0, last, (0, 1), until_ns, u64::MAX);
                assert_eq!((open.next_start_ns(), all(open)), (None, vec![]), "{starts:?} {spacing:?}");
            }
        }
    }

    #[test]
    fn of_a_share_it_is_known_how_many_of_a_count_are_its_and_of_how_many_a_count_is() {
        for share in splits().into_iter().flatten() {
            let mut index = 0;
            for count in 0..100 {
                assert_eq!(share.part_of(count), index, "{share:?} {count}");
                index += u64::from(share.number(index) == count);
            }
            assert_eq!(share.whole_of(6 * share.width), 6 * share.of);
            assert_eq!(share.whole_of(u64::MAX), u64::MAX, "the end of numbers, not the beginning again");
            assert!(share.number(u64::MAX) >= u64::MAX - share.of);
        }
        let numbers: Vec<u64> =
            (0..5).map(|index| HostShare { first: 1, width: 2, of: 4 }.number(index)).collect();
        assert_eq!(numbers, [1, 2, 5, 6, 9]);
        assert!((0..1_000).all(|index| HostShare::WHOLE.number(index) == index));
    }

    #[test]
    fn shares_that_cannot_be_meant_are_refused_in_one_line() {
        let most = SHARE_OF_MAX;
        for (first, width, of, text) in [
            (0, 0, 1, "width and of must be at least 1"),
            (0, 1, 0, "width and of must be at least 1"),
            (3, 2, 4, "3 + 2 is more than 4"),
            (u64::MAX, 2, 4, "is more than 4"),
            (u64::MAX, 1, u64::MAX, "at most 10000"),
            (0, 1, most + 1, "at most 10000"),
        ] {
            let refused = HostShare { first, width, of }.check().unwrap_err();
            assert!(refused.starts_with("share: ") && refused.contains(text), "{refused}");
            assert!(!refused.contains('\n'));
        }
        for (first, width) in [(0, most), (most - 1, 1), (0, 1)] {
            assert_eq!(HostShare { first, width, of: most }.check(), Ok(()));
        }
        assert_eq!(HostShare::WHOLE.check(), Ok(()));
    }

    #[test]
    fn poisson_arrivals_of_a_hold_are_those_of_its_rate_and_of_a_ramp_follow_its_integral() {
        let held = Starts::Shape(Arc::from([Piece::Hold { rate: per_second(500), for_ns: 200 * SECOND }]));
        let found = part_of(&held, Spacing::Poisson, 7, (0, 1), u64::MAX);
        let rate = part(per_second(500), Spacing::Poisson, 7, (0, 1), found.len() as u64 + 1);
        // Sums of random gaps are rounded in other units.
        let apart = found.iter().zip(&rate).map(|(one, other)| one.intended_ns.abs_diff(other.intended_ns));
        assert!(apart.max().is_some_and(|apart| apart <= 5));
        assert!(
            rate[found.len()].intended_ns >= 1_000 + 200 * SECOND,
            "it ends with the hold, and not before"
        );
        let ramp = Piece::Ramp { from: per_second(0), to: per_second(1_000), for_ns: 200 * SECOND };
        let ramped = part_of(&Starts::Shape(Arc::from([ramp])), Spacing::Poisson, 7, (0, 1), u64::MAX);
        assert_eq!(ramped.len(), found.len(), "the same gaps, and the same integral");
        for (ramped, held) in ramped.iter().zip(&found) {
            // As many starts by then: 2.5 t^2 of the ramp, 500 t of the hold.
            let (of_ramp, of_hold) =
                ((ramped.intended_ns - 1_000) as f64 / 1e9, (held.intended_ns - 1_000) as f64 / 1e9);
            assert!((2.5 * of_ramp * of_ramp - 500.0 * of_hold).abs() < 1e-4);
        }
    }

    /// Largest distance between the distribution of 2,000 gaps and the exponential one (Kolmogorov, 1933).
    fn distance(seed: u64) -> f64 {
        let starts = part(per_second(1_000), Spacing::Poisson, seed, (0, 1), 2_001);
        let mut gaps: Vec<f64> =
            starts.windows(2).map(|pair| (pair[1].intended_ns - pair[0].intended_ns) as f64 / 1e6).collect();
        gaps.sort_by(f64::total_cmp);
        let count = gaps.len() as f64;
        let apart = gaps.iter().enumerate().map(|(index, gap)| {
            let expected = 1.0 - (-gap).exp();
            (expected - index as f64 / count).max((index + 1) as f64 / count - expected)
        });
        apart.fold(0.0, f64::max)
    }

    #[test]
    fn gaps_of_poisson_arrivals_are_exponentially_distributed() {
        // Beyond 0.0436 lies one sample in a thousand of 2,000 (1.95 / sqrt(n)).
        let worst = (1..=20).map(distance).fold(0.0, f64::max);
        assert!(worst < 0.0436, "{worst}");
        let other = part(per_second(1_000), Spacing::Poisson, 2, (0, 1), 100);
        assert_ne!(
            part(per_second(1_000), Spacing::Poisson, 1, (0, 1), 100),
            other,
            "another seed, another schedule"
        );
    }

    #[test]
    fn poisson_arrivals_come_at_the_rate_that_was_asked_for() {
        let last = part(per_second(5_000), Spacing::Poisson, 3, (0, 1), 1_000_000)[999_999].intended_ns;
        // The sum of a million has a standard deviation of 0.1 %.
        assert!((last as f64 / 200e9 - 1.0).abs() < 0.004, "{last}");
    }

    #[test]
    fn the_slowest_and_the_fastest_rate_last_ten_days_without_overflow() {
        for (transfers, per_ns) in [(1, 1_000 * SECOND), (1_000_000, SECOND), (3_600_000_000, 3_600 * SECOND)]
        {
            let rate = Rate { transfers, per_ns };
            assert!(rate.is_allowed());
            let last = (rate.per_second() * 864_000.0).round() as u64;
            assert_eq!(rate.time_of(last), DAYS_NS);
            let times = Times::new(&Starts::Rate(rate), Spacing::Even, 0);
            let mut open = OpenLoop::new(times, SECOND, HostShare::WHOLE, (0, 1), u64::MAX, u64::MAX);
            open.index = last - 1;
            open.look_up();
            assert_eq!(open.take_due(u64::MAX).map(|start| start.number), Some(last - 1));
            assert_eq!(open.next_start_ns(), Some(SECOND + DAYS_NS));
        }
        assert_eq!(per_second(1).time_of(u64::MAX), u64::MAX, "the end of time, not the beginning again");
        // The longest gap there can be: the logarithm of 2^-53, at the slowest rate.
        let mut slow = Poisson::new(1, 1e12 * FRACTION);
        slow.sum = u128::from(DAYS_NS) << FRACTION_BITS;
        assert!(slow.of(0) > DAYS_NS);
    }

    #[test]
    fn rates_that_cannot_be_meant_are_refused() {
        for (transfers, per_ns) in [(0, SECOND), (1, 0), (1_000_000_000, SECOND), (1, 1_001 * SECOND), (0, 0)]
        {
            assert!(!Rate { transfers, per_ns }.is_allowed(), "{transfers} in {per_ns} ns");
        }
    }

    #[test]
    fn starts_are_given_when_they_are_due_and_end_with_the_window_or_the_count() {
        for spacing in BOTH {
            let times = Times::new(&Starts::Rate(per_second(100)), spacing, 1);
            let mut open = OpenLoop::new(times, SECOND, HostShare::WHOLE, (0, 1), 3 * SECOND, u64::MAX);
            while let Some(due_ns) = open.next_start_ns() {
                assert_eq!(open.take_due(due_ns - 1), None);
                assert_eq!(open.take_due(due_ns).map(|start| start.intended_ns), Some(due_ns));
            }
            assert_eq!(open.take_due(u64::MAX), None);
            if spacing == Spacing::Even {
                assert_eq!(open.intended, 200, "what would start with the end of the window is not of it");
            }
        }
        let times = Times::new(&Starts::Rate(per_second(1)), Spacing::Even, 1);
        let mut open = OpenLoop::new(times, 0, HostShare::WHOLE, (0, 1), u64::MAX, 5);
        open.close();
        assert_eq!((open.next_start_ns(), open.take_due(u64::MAX)), (None, None));
    }
}
