//! Latencies of a run as histograms of consecutive intervals, in memory that does not grow with the run's length.
//!
//! The histogram of the interval that is being recorded is a full one (0.2 MB). One that is over is kept as its V2 encoding,
//! some kilobytes, behind those before it in one piece of memory. When these are more than [`INTERVALS_MAX`], or more
//! than [`BYTES_MAX`], intervals become twice as long: new ones at once, and one pair of old ones is merged for each new
//! one, so that no moment has much to do. Histograms add up, so no value is lost: only the times at which they were
//! recorded become coarser.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};

/// Length of one histogram of the latency log, as long as that makes no more than [`INTERVALS_MAX`] of them.
pub(crate) const INTERVAL_NS: u64 = 1_000_000_000;
/// Histograms that are kept: every second of the first two minutes.
pub(crate) const INTERVALS_MAX: usize = 128;
/// Bytes of their encodings. One has 2 to 20 KB, the more the wider its values are spread.
const BYTES_MAX: usize = 1 << 20;
/// What the newest one may have beyond that without moving all of them; so much was never seen.
const ROOM_BYTES: usize = 64 << 10;
/// Latencies from 64 ns (below what a system call takes) to one hour, three significant digits.
const LATENCY_LOW_NS: u64 = 64;
const LATENCY_HIGH_NS: u64 = 3_600_000_000_000;
const LATENCY_DIGITS: u8 = 3;

/// The histograms of one kind of latency. Times are nanoseconds since the first start.
#[derive(Debug)]
pub(crate) struct LatencyLog {
    /// Length of the interval that is being recorded: INTERVAL_NS times a power of two.
    length_ns: u64,
    start_ns: u64,
    end_ns: u64,
    current: Histogram<u64>,
    /// Everything of intervals that are over.
    sum: Histogram<u64>,
    over: Vec<Interval>,
    /// Their encodings, in the same order and without gaps.
    encoded: Vec<u8>,
    scratch: Vec<u8>,
    /// The first so many of `over` are as long as the current one.
    merged: usize,
}

/// An interval that is over, and how long its encoding is.
#[derive(Clone, Copy, Debug)]
struct Interval {
    start_ns: u64,
    bytes: usize,
}

impl LatencyLog {
    pub(crate) fn new() -> LatencyLog {
        LatencyLog {
            length_ns: INTERVAL_NS,
            start_ns: 0,
            end_ns: 0,
            current: latency_histogram(),
            sum: latency_histogram(),
            over: Vec::with_capacity(INTERVALS_MAX + 1),
            encoded: room(BYTES_MAX + ROOM_BYTES),
            scratch: room(ROOM_BYTES),
            merged: 0,
        }
    }

    /// The log of (time, latency) in any order; negative ones count as 0.
    pub(crate) fn of(samples: impl Iterator<Item = (i64, i64)>) -> LatencyLog {
        let mut samples: Vec<(i64, i64)> = samples.collect();
        samples.sort_unstable();
        let mut log = LatencyLog::new();
        for (at_ns, latency_ns) in samples {
            log.record(at_ns.max(0) as u64, latency_ns.max(0) as u64);
        }
        log
    }

    /// Records a latency at a time that is not much before the last one's.
    pub(crate) fn record(&mut self, at_ns: u64, latency_ns: u64) {
        if at_ns >= self.end_ns {
            self.begin(at_ns);
        }
        self.current.saturating_record(latency_ns);
    }

    /// Every value of the run.
    pub(crate) fn sum(&self) -> Histogram<u64> {
        let mut sum = self.sum.clone();
        add(&mut sum, &self.current);
        sum
    }

    /// Adds what another worker recorded. Intervals become as long as the longer ones of the two.
    pub(crate) fn merge(&mut self, mut other: LatencyLog) {
        self.end();
        other.end();
        add(&mut self.sum, &other.sum);
        self.length_ns = self.length_ns.max(other.length_ns);
        let mut all: Vec<(u64, &[u8])> = self.pieces().chain(other.pieces()).collect();
        all.sort_by_key(|(start_ns, _)| *start_ns);
        let over = all
            .iter()
            .map(|(start_ns, piece)| Interval { start_ns: *start_ns, bytes: piece.len() })
            .collect();
        let encoded = all.iter().flat_map(|(_, piece)| piece.iter().copied()).collect();
        (self.over, self.encoded, self.merged) = (over, encoded, 0);
        self.merge_all();
        self.thin();
        self.end_ns = 0;
    }

    /// Gives start, length and histogram of each interval that has any value, in order.
    pub(crate) fn each<E>(
        mut self,
        mut give: impl FnMut(u64, u64, &Histogram<u64>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.end();
        self.merge_all();
        self.pieces().try_for_each(|(start_ns, piece)| give(start_ns, self.length_ns, &decoded(piece)))
    }

    /// Start and encoding of each interval that is over.
    fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.over.iter().scan(0, |at, interval| {
            let from = std::mem::replace(at, *at + interval.bytes);
            Some((interval.start_ns, &self.encoded[from..*at]))
        })
    }

    #[cold]
    fn begin(&mut self, at_ns: u64) {
        self.end();
        self.start_ns = at_ns - at_ns % self.length_ns;
        self.end_ns = self.start_ns + self.length_ns;
    }

    /// Ends the current interval.
    fn end(&mut self) {
        if self.current.is_empty() {
            return;
        }
        add(&mut self.sum, &self.current);
        encode(&self.current, &mut self.scratch);
        self.over.push(Interval { start_ns: self.start_ns, bytes: self.scratch.len() });
        self.encoded.extend_from_slice(&self.scratch);
        self.current.reset();
        self.thin();
    }

    /// Merges as many intervals as are too many.
    fn thin(&mut self) {
        while self.over.len() > INTERVALS_MAX || self.encoded.len() > BYTES_MAX && self.over.len() > 1 {
            if self.merged == self.over.len() {
                self.merged = 0;
                self.length_ns *= 2;
            }
            self.merge_one();
        }
    }

    fn merge_all(&mut self) {
        while self.merged < self.over.len() {
            self.merge_one();
        }
    }

    /// Merges the first interval that is still short with the one behind it, or makes it longer where that one is not its
    /// other half.
    fn merge_one(&mut self) {
        let (at, length_ns) = (self.merged, self.length_ns);
        let start_ns = |interval: &Interval| interval.start_ns - interval.start_ns % length_ns;
        let from: usize = self.over[..at].iter().map(|interval| interval.bytes).sum();
        let [first, rest @ ..] = &mut self.over[at..] else { return };
        first.start_ns = start_ns(first);
        let Some(second) = rest.first().filter(|second| start_ns(second) == first.start_ns) else {
            self.merged += 1;
            return;
        };
        let (middle, until) = (from + first.bytes, from + first.bytes + second.bytes);
        let mut sum = decoded(&self.encoded[from..middle]);
        add(&mut sum, &decoded(&self.encoded[middle..until]));
        encode(&sum, &mut self.scratch);
        first.bytes = self.scratch.len();
        self.encoded.splice(from..until, self.scratch.iter().copied());
        self.over.remove(at + 1);
    }
}

/// An empty histogram with the project's bounds.
#[allow(clippy::expect_used)] // The bounds are constants, and a test makes one.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(LATENCY_LOW_NS, LATENCY_HIGH_NS, LATENCY_DIGITS)
        .expect("constant bounds are valid")
}

/// Adds counts; both histograms have the project's one set of bounds, so nothing can be out of range.
pub(crate) fn add(sum: &mut Histogram<u64>, part: &Histogram<u64>) {
    let same_bounds = sum.add(part).is_ok();
    debug_assert!(same_bounds, "histograms of one run have the same bounds");
}

/// Room for so many bytes. Written once, so that the memory is there from now on.
fn room(bytes: usize) -> Vec<u8> {
    let mut room = vec![1; bytes];
    room.clear();
    room
}

#[allow(clippy::expect_used)] // It fails for counts over i64::MAX and for a writer that fails; a vector does not.
fn encode(histogram: &Histogram<u64>, into: &mut Vec<u8>) {
    into.clear();
    V2Serializer::new().serialize(histogram, into).expect("a histogram of ours can be encoded");
}

#[allow(clippy::expect_used)] // The bytes are ours, of `encoded`.
fn decoded(mut bytes: &[u8]) -> Histogram<u64> {
    Deserializer::new().deserialize(&mut bytes).expect("what we encoded can be decoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a log holds, full histograms aside.
    fn held_bytes(log: &LatencyLog) -> usize {
        log.over.capacity() * size_of::<Interval>() + log.encoded.capacity() + log.scratch.capacity()
    }

    fn intervals(log: LatencyLog) -> Vec<(u64, u64, u64)> {
        let mut found = Vec::new();
        log.each(|start_ns, length_ns, histogram| {
            found.push((start_ns / INTERVAL_NS, length_ns / INTERVAL_NS, histogram.len()));
            Ok::<(), ()>(())
        })
        .unwrap();
        found
    }

    /// A latency between 50 us and 5 ms, another each time.
    fn latency(number: u64) -> u64 {
        50_000 + number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % 4_950_000
    }

    #[test]
    fn a_short_run_has_a_histogram_each_second() {
        let mut log = LatencyLog::new();
        for at_ns in [0, 999_999_999, 1_000_000_000, 5_000_000_000] {
            log.record(at_ns, 100);
        }
        assert_eq!(intervals(log), [(0, 1, 2), (1, 1, 1), (5, 1, 1)]);
    }

    #[test]
    fn a_day_holds_no_more_than_the_first_second_and_loses_no_value() {
        // The wider values are spread, the longer their encoding, and the sooner intervals become longer.
        for spread in [1, 100] {
            let (mut log, mut unmerged) = (LatencyLog::new(), latency_histogram());
            let (held, seconds) = (held_bytes(&log), 20_000);
            for number in 0..seconds * 40 {
                let latency_ns = latency(number) * (1 + number % spread);
                log.record(number * INTERVAL_NS / 40, latency_ns);
                unmerged.saturating_record(latency_ns);
                assert!(log.over.len() <= INTERVALS_MAX && log.encoded.len() <= BYTES_MAX + ROOM_BYTES);
            }
            assert_eq!(held_bytes(&log), held);
            assert_eq!(log.sum(), unmerged);
            let found = intervals(log);
            let length = found[0].1;
            assert!(found.iter().all(|(start, each, _)| *each == length && start % length == 0));
            assert_eq!(found.iter().map(|(_, _, count)| count).sum::<u64>(), seconds * 40);
            assert!(
                found.windows(2).all(|pair| pair[1].0 == pair[0].0 + length),
                "no interval is there twice"
            );
        }
    }

    #[test]
    fn seconds_without_any_value_are_left_out_however_long() {
        let mut log = LatencyLog::new();
        for number in 0..5_000 {
            log.record(number * 7_300_000_000, latency(number));
        }
        let found = intervals(log);
        assert!(found.len() <= INTERVALS_MAX && found.is_sorted());
        assert_eq!(found.iter().map(|(_, _, count)| count).sum::<u64>(), 5_000);
    }

    #[test]
    fn workers_are_merged_at_the_longer_of_their_intervals() {
        let (mut long, mut short) = (LatencyLog::new(), LatencyLog::new());
        for second in 0..200 {
            long.record(second * INTERVAL_NS, 100);
        }
        for second in 0..10 {
            short.record(second * INTERVAL_NS, 200);
        }
        long.merge(short);
        assert_eq!((long.sum().len(), long.sum().count_at(200)), (210, 10));
        let found = intervals(long);
        assert_eq!((found.len(), found[0], found[5]), (100, (0, 2, 4), (10, 2, 2)));
    }
}
