//! When the transfers of a storm and of a changing rate start: pure functions of their number, in whole arithmetic wherever
//! the rates are ratios of whole numbers, so that nothing drifts. It must never read a clock.
//!
//! A shape is the integral of its rate over time. Start i is at the first nanosecond by which the integral has reached i:
//! so there are as many starts as the integral rounded up, and the first one is at 0.

use std::sync::Arc;

/// Slowest and fastest rate, in transfers a second: one in 1000 s, and more than any generator starts.
const RATE_MIN_PER_S: f64 = 1e-3;
const RATE_MAX_PER_S: f64 = 1e6;
/// Most transfers that start at once, and most of a storm: more than any generator holds.
const BURST_MAX: u64 = 10_000_000;
const PIECES_MAX: usize = 1000;
/// Longest shape or storm, a day, and most starts of it. With them no product below overflows that is not checked.
const LENGTH_MAX_NS: u64 = 24 * 3_600 * 1_000_000_000;
const STARTS_MAX: u64 = 1_000_000_000;
/// Largest common denominator of the rates of a shape, in nanoseconds: some 52 days.
const DENOMINATOR_MAX: u128 = 1 << 52;
/// A sum of random gaps is handed over in units of 2^-40 of a start: after 10^9 of them less than a thousandth is lost.
pub(crate) const GAP_BITS: u32 = 40;
/// A spread that is normal ends three standard deviations from its middle; so much lies below that.
const CUT: f64 = 0.001_349_898_031_630_094_5;

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

/// How many transfers of an open loop start when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Starts {
    /// At a fixed rate, for as long as the run's extent says.
    Rate(Rate),
    /// A fixed number within a time, each at a time of its own: fixed work, without a warm-up.
    Storm {
        /// How many.
        count: u64,
        /// Within how long; 0 is all at once.
        over_ns: u64,
        /// How they lie in it.
        spread: Spread,
    },
    /// At a rate that changes; the window is as long as the shape.
    Shape(Arc<[Piece]>),
}

impl Starts {
    /// Refuses what cannot be meant, in one line.
    pub(crate) fn check(&self) -> Result<(), String> {
        match self {
            Starts::Rate(rate) if !rate.is_allowed() => {
                Err("rate: must be between 0.001/s and 1000000/s".to_owned())
            }
            Starts::Rate(_) => Ok(()),
            Starts::Storm { count, over_ns, .. } => check_storm(*count, *over_ns),
            Starts::Shape(pieces) => check(pieces),
        }
    }
}

/// How the starts of a storm lie in its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// All gaps are equal; the first start is at 0.
    Even,
    /// Normally distributed about the middle, cut at both ends, three standard deviations from it.
    Normal,
}

/// A part of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The rate changes evenly.
    Ramp {
        /// At its beginning.
        from: Rate,
        /// At its end.
        to: Rate,
        /// How long it takes.
        for_ns: u64,
    },
    /// The rate stays.
    Hold {
        /// How many start in which time.
        rate: Rate,
        /// For how long.
        for_ns: u64,
    },
    /// Some start at once.
    Burst {
        /// How many.
        count: u64,
    },
}

impl Piece {
    fn length_ns(&self) -> u64 {
        match self {
            Piece::Ramp { for_ns, .. } | Piece::Hold { for_ns, .. } => *for_ns,
            Piece::Burst { .. } => 0,
        }
    }

    /// The rates at both its ends.
    fn rates(&self) -> Option<[Rate; 2]> {
        match *self {
            Piece::Ramp { from, to, .. } => Some([from, to]),
            Piece::Hold { rate, .. } => Some([rate, rate]),
            Piece::Burst { .. } => None,
        }
    }
}

/// How long a shape is.
pub(crate) fn length_ns(pieces: &[Piece]) -> u64 {
    pieces.iter().fold(0, |sum: u64, piece| sum.saturating_add(piece.length_ns()))
}

/// Refuses what cannot be meant, in one line.
pub(crate) fn check_storm(count: u64, over_ns: u64) -> Result<(), String> {
    if !(1..=BURST_MAX).contains(&count) {
        return Err(format!("machines: must be between 1 and {BURST_MAX}"));
    }
    if over_ns > LENGTH_MAX_NS {
        return Err("over: must be at most 24 hours".to_owned());
    }
    Ok(())
}

/// Refuses what cannot be meant, in one line.
pub(crate) fn check(pieces: &[Piece]) -> Result<(), String> {
    Shape::try_new(pieces).map(drop)
}

/// Starts of a fixed number within a time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Storm {
    pub(crate) count: u64,
    pub(crate) over_ns: u64,
    pub(crate) spread: Spread,
}

impl Storm {
    /// Nanoseconds from the first moment on; `None` where there are not so many.
    pub(crate) fn time_of(self, number: u64) -> Option<u64> {
        let Storm { count, over_ns, spread } = self;
        (number < count).then(|| match spread {
            Spread::Even => (u128::from(number) * u128::from(over_ns) / u128::from(count)) as u64,
            Spread::Normal => {
                let below = CUT + (number as f64 + 0.5) / count as f64 * (1.0 - 2.0 * CUT);
                let sixths = 3.0 + normal_quantile(below);
                ((over_ns as f64 / 6.0 * sixths) as u64).min(over_ns)
            }
        })
    }
}

/// The integral of a changing rate, in units of one over twice the common denominator of all its rates.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    segments: Vec<Segment>,
    /// One start, in these units.
    one: i128,
    /// The segment of the last start that was asked for.
    current: usize,
}

/// A piece, with what lies before it.
#[derive(Clone, Debug)]
struct Segment {
    start_ns: u64,
    for_ns: i128,
    /// Twice its rate at the beginning, and how much that has risen by the end when it is halved again; in units each ns.
    from_twice: i128,
    rise: i128,
    /// The integral at both ends.
    before: i128,
    after: i128,
}

impl Shape {
    /// An empty one where `check` refuses the pieces.
    pub(crate) fn new(pieces: &[Piece]) -> Shape {
        Shape::try_new(pieces).unwrap_or_default()
    }

    fn try_new(pieces: &[Piece]) -> Result<Shape, String> {
        check_pieces(pieces)?;
        let common = common_denominator(pieces)
            .ok_or("shape: its rates have no common measure: give them as whole numbers per s, min or h")?;
        let one = 2 * common;
        let (mut segments, mut start_ns, mut before) = (Vec::with_capacity(pieces.len()), 0, 0);
        for piece in pieces {
            let segment = segment(piece, start_ns, before, common);
            let segment = segment.ok_or("shape: its rates are too fine for its length: use fewer digits")?;
            (start_ns, before) = (start_ns + piece.length_ns(), segment.after);
            segments.push(segment);
        }
        if before > i128::from(STARTS_MAX) * one {
            return Err(format!("shape: starts more than {STARTS_MAX}"));
        }
        if before == 0 {
            return Err("shape: starts nothing".to_owned());
        }
        Ok(Shape { segments, one, current: 0 })
    }

    /// How many starts there are, where all gaps are equal.
    pub(crate) fn count(&self) -> u64 {
        let total = self.segments.last().map_or(0, |segment| segment.after);
        u64::try_from(total.unsigned_abs().div_ceil(self.one.unsigned_abs().max(1))).unwrap_or(u64::MAX)
    }

    /// The first nanosecond by which the integral has reached `sum` / 2^`bits`; `None` where it never does. To be asked for
    /// in rising order.
    pub(crate) fn time_of(&mut self, sum: u128, bits: u32) -> Option<u64> {
        let total = self.segments.last()?.after;
        let reached = i128::try_from(sum).ok()?.checked_mul(self.one)? >> bits;
        if reached >= total {
            return None;
        }
        while self.segments[self.current].after < reached {
            self.current += 1;
        }
        Some(self.segments[self.current].time_of(reached))
    }
}

impl Segment {
    /// The first nanosecond by which the integral is `reached`, which lies in this segment.
    fn time_of(&self, reached: i128) -> u64 {
        let target = (reached - self.before).max(0) * self.for_ns;
        let is_reached = |ns: i128| ns * (self.from_twice * self.for_ns + self.rise * ns) >= target;
        if target == 0 {
            return self.start_ns;
        }
        // The root in floating point is off by some nanoseconds at most; whole numbers find the one that is meant.
        let (linear, square) =
            ((self.from_twice * self.for_ns) as f64 / 2.0, self.rise as f64 * target as f64);
        let root = target as f64 / (linear + linear.mul_add(linear, square).max(0.0).sqrt());
        let guess = (root as i128).clamp(1, self.for_ns);
        let (mut low, mut high, mut step) = (guess - 1, guess, 1);
        while high < self.for_ns && !is_reached(high) {
            (low, high, step) = (high, (high + step).min(self.for_ns), 2 * step);
        }
        while low > 0 && is_reached(low) {
            (high, low, step) = (low, (low - step).max(0), 2 * step);
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if is_reached(middle) { high = middle } else { low = middle }
        }
        self.start_ns + high as u64
    }
}

/// What each piece must be by itself, and how many and how long they may be together.
fn check_pieces(pieces: &[Piece]) -> Result<(), String> {
    if pieces.is_empty() || pieces.len() > PIECES_MAX {
        return Err(format!("shape: must have 1 to {PIECES_MAX} pieces"));
    }
    for (piece, number) in pieces.iter().zip(1..) {
        let is_allowed = |rate: Rate| rate.per_ns > 0 && (rate.transfers == 0 || rate.is_allowed());
        match (piece, piece.rates()) {
            (Piece::Burst { count }, _) if !(1..=BURST_MAX).contains(count) => {
                return Err(format!("shape: burst of piece {number} must be between 1 and {BURST_MAX}"));
            }
            (Piece::Burst { .. }, _) | (_, None) => {}
            (_, Some(_)) if piece.length_ns() == 0 => {
                return Err(format!("shape: `for` of piece {number} must be longer than 0"));
            }
            (_, Some(rates)) if !rates.into_iter().all(is_allowed) => {
                return Err(format!("shape: rate of piece {number} must be 0/s, or 0.001/s to 1000000/s"));
            }
            _ => {}
        }
    }
    match length_ns(pieces) {
        0 => Err("shape: has no length: bursts alone are machines over 0s".to_owned()),
        length_ns if length_ns > LENGTH_MAX_NS => Err("shape: must be at most 24 hours long".to_owned()),
        _ => Ok(()),
    }
}

/// The least number of nanoseconds in which every rate is a whole number of starts.
fn common_denominator(pieces: &[Piece]) -> Option<i128> {
    let rates = pieces.iter().filter_map(Piece::rates).flatten().filter(|rate| rate.transfers > 0);
    let common = rates.map(|rate| u128::from(rate.per_ns / gcd(rate.per_ns, rate.transfers))).try_fold(
        1u128,
        |common, each| {
            let product = common / gcd_wide(common, each) * each;
            (product <= DENOMINATOR_MAX).then_some(product)
        },
    )?;
    i128::try_from(common).ok()
}

fn segment(piece: &Piece, start_ns: u64, before: i128, common: i128) -> Option<Segment> {
    let for_ns = i128::from(piece.length_ns());
    let each = |rate: Rate| i128::from(rate.transfers) * common / i128::from(rate.per_ns);
    let (from, to) = piece.rates().map_or((0, 0), |[from, to]| (each(from), each(to)));
    let size = match piece {
        Piece::Burst { count } => i128::from(*count) * 2 * common,
        _ => (from + to).checked_mul(for_ns)?,
    };
    // No product of `time_of` is larger than these.
    (2 * from.max(to)).checked_mul(for_ns)?.checked_mul(for_ns)?;
    let after = before.checked_add(size)?;
    Some(Segment { start_ns, for_ns, from_twice: 2 * from, rise: to - from, before, after })
}

fn gcd(one: u64, two: u64) -> u64 {
    if two == 0 { one } else { gcd(two, one % two) }
}

fn gcd_wide(one: u128, two: u128) -> u128 {
    if two == 0 { one } else { gcd_wide(two, one % two) }
}

/// The standard normal quantile between 10^-10 and 1 - 10^-10 (Wichura, algorithm AS 241, Applied Statistics 37, 1988).
fn normal_quantile(below: f64) -> f64 {
    const A: [f64; 8] = [
        2.509_080_928_730_122_7e3,
        3.343_057_558_358_813e4,
        6.726_577_092_700_87e4,
        4.592_195_393_154_987e4,
        1.373_169_376_550_946e4,
        1.971_590_950_306_551_3e3,
        1.331_416_678_917_843_8e2,
        3.387_132_872_796_366_5,
    ];
    const B: [f64; 8] = [
        5.226_495_278_852_854e3,
        2.872_908_573_572_194_3e4,
        3.930_789_580_009_271e4,
        2.121_379_430_158_659_7e4,
        5.394_196_021_424_751e3,
        6.871_870_074_920_579e2,
        4.231_333_070_160_091e1,
        1.0,
    ];
    const C: [f64; 8] = [
        7.745_450_142_783_414e-4,
        2.272_384_498_926_918_4e-2,
        2.417_807_251_774_506e-1,
        1.270_458_252_452_368_4,
        3.647_848_324_763_204_5,
        5.769_497_221_460_691,
        4.630_337_846_156_546,
        1.423_437_110_749_683_5,
    ];
    const D: [f64; 8] = [
        1.050_750_071_644_416_9e-9,
        5.475_938_084_995_345e-4,
        1.519_866_656_361_645_7e-2,
        1.481_039_764_274_800_8e-1,
        6.897_673_349_851e-1,
        1.676_384_830_183_803_8,
        2.053_191_626_637_759,
        1.0,
    ];
    let polynomial = |terms: &[f64; 8], at: f64| terms.iter().fold(0.0, |sum, term| sum * at + term);
    let from_middle = below - 0.5;
    if from_middle.abs() <= 0.425 {
        let at = 0.180_625 - from_middle * from_middle;
        return from_middle * polynomial(&A, at) / polynomial(&B, at);
    }
    let at = (-below.min(1.0 - below).ln()).sqrt() - 1.6;
    (polynomial(&C, at) / polynomial(&D, at)).copysign(from_middle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contents::mix64;

    const SECOND: u64 = 1_000_000_000;

    fn per_second(transfers: u64) -> Rate {
        Rate { transfers, per_ns: SECOND }
    }

    fn hold(transfers_per_s: u64, seconds: u64) -> Piece {
        Piece::Hold { rate: per_second(transfers_per_s), for_ns: seconds * SECOND }
    }

    fn ramp(from: u64, to: u64, seconds: u64) -> Piece {
        Piece::Ramp { from: per_second(from), to: per_second(to), for_ns: seconds * SECOND }
    }

    fn starts(pieces: &[Piece]) -> Vec<u64> {
        let mut shape = Shape::new(pieces);
        (0..).map_while(|number| shape.time_of(number, 0)).collect()
    }

    /// A nanosecond's work for rates whose denominators divide an hour, and in how many parts of a start it is counted.
    const HOUR: i128 = 3_600 * SECOND as i128;

    /// The integral up to `at_ns` in units of 1 / (2 x HOUR x `scale`), by the plain formula, bursts at `at_ns` included.
    fn integral(pieces: &[Piece], at_ns: u64, scale: i128) -> i128 {
        let (mut sum, mut start_ns) = (0, 0);
        for piece in pieces {
            let inside = i128::from(at_ns.saturating_sub(start_ns).min(piece.length_ns()));
            let each = |rate: Rate| i128::from(rate.transfers) * HOUR / i128::from(rate.per_ns);
            sum += match *piece {
                Piece::Hold { rate, .. } => 2 * each(rate) * inside * scale,
                Piece::Ramp { from, to, for_ns } => {
                    let rise = (each(to) - each(from)) * (scale / i128::from(for_ns));
                    2 * each(from) * inside * scale + rise * inside * inside
                }
                Piece::Burst { count } if start_ns <= at_ns => i128::from(count) * 2 * HOUR * scale,
                Piece::Burst { .. } => 0,
            };
            start_ns += piece.length_ns();
        }
        sum
    }

    fn assert_exact(pieces: &[Piece]) -> usize {
        // Ramps divide by their length: there is at most one, or all are equally long.
        let scale = pieces.iter().find_map(|piece| match piece {
            Piece::Ramp { for_ns, .. } => Some(i128::from(*for_ns)),
            _ => None,
        });
        let scale = scale.unwrap_or(1);
        let (found, length_ns, one) = (starts(pieces), length_ns(pieces), 2 * HOUR * scale);
        let total = integral(pieces, length_ns, scale);
        assert_eq!(found.len() as i128, (total + one - 1) / one, "{pieces:?}");
        assert_eq!(Shape::new(pieces).count(), found.len() as u64);
        assert!(found.is_sorted() && found.iter().all(|ns| *ns <= length_ns), "{pieces:?}");
        for (number, at_ns) in found.iter().enumerate() {
            let number = number as i128 * one;
            assert!(integral(pieces, *at_ns, scale) >= number, "{pieces:?} {number} at {at_ns}");
            assert!(*at_ns == 0 || integral(pieces, at_ns - 1, scale) < number, "{pieces:?} at {at_ns}");
        }
        found.len()
    }

    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 += 1;
            mix64(self.0) % limit
        }
    }

    fn random_shape(random: &mut Random) -> Vec<Piece> {
        let ramp_ns = 1 + random.below(3 * SECOND);
        let rate = |random: &mut Random| {
            let per_s = [1, 60, 3_600][random.below(3) as usize];
            Rate { transfers: per_s * random.below(8) + random.below(2), per_ns: per_s * SECOND }
        };
        let pieces = 1 + random.below(3);
        (0..pieces)
            .map(|_| match random.below(5) {
                0 => Piece::Burst { count: 1 + random.below(6) },
                1 | 2 => Piece::Hold { rate: rate(random), for_ns: 1 + random.below(2 * SECOND) },
                _ => Piece::Ramp { from: rate(random), to: rate(random), for_ns: ramp_ns },
            })
            .collect()
    }

    #[test]
    fn of_a_million_random_shapes_each_has_as_many_starts_as_its_integral_each_at_its_nanosecond() {
        let (mut random, mut allowed, mut all) = (Random(1), 0, 0);
        for _ in 0..1_000_000 {
            let pieces = random_shape(&mut random);
            // A rate of less than 0.001/s, or no start at all.
            if check(&pieces).is_ok() {
                allowed += 1;
                all += assert_exact(&pieces);
            }
        }
        assert!(allowed > 800_000 && all > 5 * allowed, "{allowed} {all}");
    }

    #[test]
    fn a_hundred_thousand_starts_of_a_shape_lie_at_the_formulas_nanosecond() {
        assert_eq!(assert_exact(&[ramp(10, 990, 100), hold(500, 100)]), 100_000);
        assert_eq!(assert_exact(&[hold(30, 60), Piece::Burst { count: 2_000 }, ramp(990, 0, 200)]), 102_800);
        let thirds = Rate { transfers: 7, per_ns: 60 * SECOND };
        let slow = Piece::Hold { rate: thirds, for_ns: 20 * 3_600 * SECOND };
        assert_eq!(assert_exact(&[slow, ramp(0, 1_000, 200)]), 8_400 + 100_000);
    }

    #[test]
    fn a_hold_is_a_rate_and_the_times_of_others_are_known_by_hand() {
        let rate = per_second(333);
        let held: Vec<u64> = (0..3_330).map(|number| rate.time_of(number)).collect();
        let rounded_up = starts(&[hold(333, 10)]);
        assert!(
            held.iter().zip(&rounded_up).all(|(down, up)| up - down <= 1) && held.len() == rounded_up.len()
        );
        // Half of t^2 starts by t seconds.
        let roots = [0, SECOND, 1_414_213_563, 1_732_050_808, 2 * SECOND];
        let up = starts(&[ramp(0, 4, 2), hold(1, 1)]);
        assert_eq!(up, [&roots[..4], &[2 * SECOND]].concat());
        assert_eq!(
            starts(&[hold(2, 1), Piece::Burst { count: 2 }, hold(1, 1)]),
            [0, 500_000_000, SECOND, SECOND, SECOND]
        );
        assert_eq!(starts(&[hold(1, 2), Piece::Burst { count: 3 }])[2..], [2 * SECOND; 3], "at the very end");
    }

    #[test]
    fn the_longest_and_the_fastest_shape_end_on_time() {
        let day = 24 * 3_600;
        let day_long = [ramp(0, 23_000, day), hold(0, 0)];
        let mut shape = Shape::new(&day_long[..1]);
        let last = shape.count() - 1;
        assert_eq!(last + 1, 23_000 / 2 * day);
        assert!(shape.time_of(last.into(), 0).unwrap() <= day * SECOND);
        assert_eq!(shape.time_of(u128::from(last) + 1, 0), None);
        let mut fast = Shape::new(&[hold(1_000_000, 1_000)]);
        assert_eq!(fast.time_of(999_999_999, 0), Some(999_999_999_000));
        assert_eq!(fast.time_of(u128::MAX, 0), None);
    }

    #[test]
    fn shapes_and_storms_that_cannot_be_meant_are_refused_in_one_line() {
        let fine = |transfers, per_ns| Piece::Hold { rate: Rate { transfers, per_ns }, for_ns: SECOND };
        for (pieces, text) in [
            (vec![], "must have 1 to 1000 pieces"),
            (vec![hold(1, 1); 1_001], "must have 1 to 1000 pieces"),
            (vec![Piece::Burst { count: 5 }], "has no length"),
            (
                vec![hold(1, 1), Piece::Burst { count: 10_000_001 }],
                "burst of piece 2 must be between 1 and 10000000",
            ),
            (vec![hold(1, 1), Piece::Burst { count: 0 }], "burst of piece 2"),
            (vec![hold(5, 0)], "`for` of piece 1 must be longer than 0"),
            (vec![ramp(1, 1_000_001, 1)], "rate of piece 1 must be 0/s, or 0.001/s to 1000000/s"),
            (vec![fine(1, 0)], "rate of piece 1"),
            (vec![fine(1, u64::MAX)], "rate of piece 1"),
            (vec![hold(1, 24 * 3_600), hold(1, 1)], "at most 24 hours long"),
            (vec![hold(1, u64::MAX / SECOND); 3], "at most 24 hours long"),
            (vec![hold(1_000_000, 1_001)], "starts more than 1000000000"),
            (vec![hold(0, 1)], "starts nothing"),
            (vec![fine(1, 999_999_999_989), fine(1, 999_999_999_961)], "no common measure"),
        ] {
            let refused = check(&pieces).unwrap_err();
            assert!(refused.starts_with("shape: ") && refused.contains(text), "{refused}");
            assert!(!refused.contains('\n'));
            assert_eq!(starts(&pieces), [], "and it starts nothing");
        }
        assert!(check_storm(0, 0).is_err() && check_storm(10_000_001, 0).is_err());
        assert!(check_storm(1, 24 * 3_600 * SECOND + 1).is_err() && check_storm(10_000_000, 0).is_ok());
    }

    #[test]
    fn no_numbers_make_it_panic() {
        let mut random = Random(2);
        let any = |random: &mut Random| match random.below(4) {
            0 => random.below(3),
            1 => u64::MAX - random.below(3),
            2 => random.below(1 << 50),
            _ => 1 << random.below(64),
        };
        for _ in 0..200_000 {
            let pieces: Vec<Piece> = (0..1 + random.below(3))
                .map(|_| {
                    let mut rate = || Rate { transfers: any(&mut random), per_ns: any(&mut random) };
                    let (from, to) = (rate(), rate());
                    match any(&mut random) % 3 {
                        0 => Piece::Burst { count: any(&mut random) },
                        1 => Piece::Hold { rate: from, for_ns: any(&mut random) },
                        _ => Piece::Ramp { from, to, for_ns: any(&mut random) },
                    }
                })
                .collect();
            let mut shape = Shape::new(&pieces);
            let (count, length_ns) = (shape.count(), length_ns(&pieces));
            for number in [0, count / 2, count.saturating_sub(1)] {
                assert_eq!(shape.time_of(number.into(), 0).is_some_and(|ns| ns <= length_ns), count > 0);
            }
        }
    }

    #[test]
    fn a_hundred_thousand_starts_of_a_storm_lie_at_the_formulas_nanosecond() {
        for over_ns in [0, 1, 7, 10 * SECOND, 24 * 3_600 * SECOND] {
            let count = 100_000;
            let times = |spread| {
                (0..count).map(move |number| Storm { count, over_ns, spread }.time_of(number).unwrap())
            };
            for (number, at_ns) in times(Spread::Even).enumerate() {
                assert_eq!(u128::from(at_ns), number as u128 * u128::from(over_ns) / u128::from(count));
            }
            let normal: Vec<u64> = times(Spread::Normal).collect();
            assert!(normal.is_sorted() && normal.iter().all(|ns| *ns <= over_ns));
            // The middle two thirds lie within one standard deviation, of the whole within three.
            let within =
                normal.iter().filter(|ns| (**ns as f64 - over_ns as f64 / 2.0).abs() <= over_ns as f64 / 6.0);
            let expected = 0.682_689 / (1.0 - 2.0 * CUT) * count as f64;
            assert!(over_ns < 10 || (within.count() as f64 - expected).abs() < 2.0);
            let pairs = normal.iter().zip(normal.iter().rev());
            assert!(
                pairs.into_iter().all(|(one, other)| over_ns.abs_diff(one + other) <= 1 + over_ns / SECOND),
                "it is symmetric"
            );
        }
        assert_eq!(Storm { count: 5, over_ns: 5, spread: Spread::Even }.time_of(5), None);
    }

    #[test]
    fn normal_quantiles_are_those_of_the_tables() {
        for (below, quantile) in [
            (0.00135, -2.999_976_992_703_39),
            (0.01, -2.326_347_874_040_841),
            (0.2, -0.841_621_233_572_914_2),
            (0.5, 0.0),
            (0.7, 0.524_400_512_708_040_9),
            (0.999, 3.090_232_306_167_813_5),
        ] {
            assert!((normal_quantile(below) - quantile).abs() < 1e-14, "{below}");
        }
        let steps = (1..100_000).map(|step| normal_quantile(f64::from(step) / 100_000.0));
        assert!(steps.is_sorted());
    }
}
