//! Transfers and boots that have ended: a row for each as long as there is room, and sums and histograms of all of them.
//!
//! Memory does not grow with the run's length. As long as every row is kept, the rows alone are what figures are made of,
//! and nothing else is done when a transfer ends. Once half of the room is used, they are counted as well, two old rows
//! with each new one, so that no moment has much to do; from the first row that is not kept, each transfer is counted as
//! it ends. It must never read a clock, nor leave anything out of the sums.

use std::ops::Range;

use hdrhistogram::Histogram;

use crate::config::{LoadConfig, Rows};
use crate::latency::{LatencyLog, add, latency_histogram};

/// Rows of a sample: as many as a plot or a table can use, in 14 MB with their columns.
const SAMPLE_ROWS: usize = 100_000;
/// Stands for the place of a row that is not kept.
pub(crate) const NOT_KEPT: usize = usize::MAX;

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TransferOutcome {
    /// Every block arrived and was acknowledged.
    Completed,
    /// An ERROR, or the peer broke the protocol.
    Failed,
    /// Retransmissions ran out, or the run ended when the server had been silent for the client's timeout or longer.
    TimedOut,
    /// The run was over first, and the server was not silent.
    Interrupted,
    /// Its deadline passed first.
    Late,
}

impl TransferOutcome {
    /// Names in the order of the discriminants.
    pub const NAMES: [&'static str; 5] = ["completed", "failed", "timed_out", "interrupted", "late"];
}

/// One transfer. Times are nanoseconds since the first start of the run; -1 stands for "never".
///
/// How a transfer that did not complete came to its end:
///
/// | outcome  | error_code | first_response_ns | what happened                                         |
/// |----------|------------|-------------------|-------------------------------------------------------|
/// | Failed   | 0 or more  | is `end_ns`       | refused: the first answer was the ERROR that ended it |
/// | Failed   | 0 or more  | before `end_ns`   | an ERROR came after an OACK, DATA or ACK              |
/// | Failed   | -1         | any               | the server broke a rule, or sent too much: we ended it |
/// | TimedOut | -1         | -1                | silent: nothing of the server was an answer           |
/// | TimedOut | -1         | 0 or more         | stalled: it had answered                              |
/// | Late     | -1         | any               | its deadline passed: we ended it                      |
#[derive(Clone, Copy, Debug)]
pub struct TransferRow {
    /// The transfer's own number (its file number when every transfer is a file of its own).
    pub number: u64,
    /// When the schedule wanted it to start.
    pub intended_start_ns: i64,
    /// When its request was sent.
    pub actual_start_ns: i64,
    /// When the first answer arrived.
    pub first_response_ns: i64,
    /// When it was decided.
    pub end_ns: i64,
    /// File bytes moved in order.
    pub bytes: u64,
    /// Datagrams of ours sent again.
    pub retransmissions: u64,
    /// How it ended.
    pub outcome: TransferOutcome,
    /// Code of the ERROR that ended it; -1 without one.
    pub error_code: i32,
    /// The machine whose boot it is a step of, and which, from 1; -1 without one.
    pub machine: i64,
    /// See `machine`.
    pub step: i16,
}

/// What ends and has a row: a transfer, or the boot of a machine.
pub(crate) trait Row: Copy {
    /// Whether it ended as it should.
    fn is_completed(&self) -> bool;
    /// When its end was known.
    fn ended_ns(&self) -> i64;
    /// As sums and histograms know it; `None` of what never started.
    fn started(&self) -> Option<TransferRow>;
}

impl Row for TransferRow {
    fn is_completed(&self) -> bool {
        self.outcome == TransferOutcome::Completed
    }

    fn ended_ns(&self) -> i64 {
        self.end_ns
    }

    fn started(&self) -> Option<TransferRow> {
        Some(*self)
    }
}

/// What counts for which figure.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    /// The measured window, in nanoseconds since the first start.
    pub(crate) window: Range<i64>,
    /// Everything is of the cohort, whenever it was intended.
    pub(crate) is_one_cohort: bool,
    /// A stop ended the run, and not its own time.
    pub(crate) is_cut_short: bool,
}

impl Scope {
    /// A transfer counts for latency if any of it lay in the window: leaving out those that ended later would
    /// leave out the slow ones.
    fn overlaps(&self, row: &TransferRow) -> bool {
        row.end_ns >= self.window.start && row.actual_start_ns < self.window.end
    }

    /// Whether what was intended then belongs to the cohort.
    pub(crate) fn is_of_cohort(&self, intended_start_ns: i64) -> bool {
        self.is_one_cohort || self.window.contains(&intended_start_ns)
    }

    /// For how much of the window it was in flight.
    fn overlap_ns(&self, row: &TransferRow) -> u64 {
        let (from_ns, until_ns) =
            (row.actual_start_ns.max(self.window.start), row.end_ns.min(self.window.end));
        u64::try_from(until_ns - from_ns).unwrap_or(0)
    }
}

/// Sums and histograms of transfers.
#[derive(Debug)]
pub(crate) struct Tally {
    outcomes: [u64; TransferOutcome::NAMES.len()],
    /// Ended without an answer, by silence or by us.
    pub(crate) unanswered: u64,
    /// How long all of them together were in flight inside the window.
    pub(crate) in_flight_ns: u128,
    /// Of those that completed and overlap the window, and the sum of these times.
    pub(crate) transfer: LatencyLog,
    pub(crate) transfer_ns_sum: u128,
    /// Slowest and median one, where each is known by itself.
    pub(crate) slowest_and_median: Option<(i64, i64)>,
    /// Of those that were answered and overlap the window.
    pub(crate) first_response: LatencyLog,
    pub(crate) cohort: CohortTally,
}

/// The same of the cohort.
#[derive(Debug)]
pub(crate) struct CohortTally {
    pub(crate) started: u64,
    /// Of these, those that started inside the window.
    pub(crate) in_time: u64,
    /// Of these, those that the end of the run interrupted.
    pub(crate) interrupted: u64,
    pub(crate) first_start_ns: i64,
    pub(crate) last_start_ns: i64,
    /// From the intended to the actual start.
    pub(crate) lag: Histogram<u64>,
    /// From the intended start to the end of those that completed.
    pub(crate) response: LatencyLog,
    /// From the actual start.
    pub(crate) service: LatencyLog,
}

impl Tally {
    pub(crate) fn new() -> Tally {
        Tally {
            outcomes: [0; TransferOutcome::NAMES.len()],
            unanswered: 0,
            in_flight_ns: 0,
            transfer: LatencyLog::new(),
            transfer_ns_sum: 0,
            slowest_and_median: None,
            first_response: LatencyLog::new(),
            cohort: CohortTally {
                started: 0,
                in_time: 0,
                interrupted: 0,
                first_start_ns: i64::MAX,
                last_start_ns: i64::MIN,
                lag: latency_histogram(),
                response: LatencyLog::new(),
                service: LatencyLog::new(),
            },
        }
    }

    /// All of these rows, each latency in the interval that it belongs to.
    fn of<R: Row>(rows: &[R], scope: &Scope) -> Tally {
        let mut tally = Tally::new();
        let started = || rows.iter().filter_map(Row::started);
        started().for_each(|row| tally.count(&row, scope));
        let log = |latency: fn(&TransferRow, &Scope) -> Option<(i64, i64)>| {
            LatencyLog::of(started().filter_map(|row| latency(&row, scope)))
        };
        tally.transfer = log(transfer);
        tally.first_response = log(first_response);
        tally.cohort.response = log(response);
        tally.cohort.service = log(service);
        let mut times: Vec<i64> =
            started().filter_map(|row| transfer(&row, scope)).map(|(_, ns)| ns).collect();
        times.sort_unstable();
        tally.slowest_and_median = times.last().copied().zip(times.get(times.len() / 2).copied());
        tally
    }

    /// One more, as they end.
    fn add<R: Row>(&mut self, row: &R, scope: &Scope) {
        let Some(row) = &row.started() else { return };
        self.count(row, scope);
        let record = |log: &mut LatencyLog, latency: Option<(i64, i64)>| {
            if let Some((at_ns, latency_ns)) = latency {
                log.record(at_ns.max(0) as u64, latency_ns.max(0) as u64);
            }
        };
        record(&mut self.transfer, transfer(row, scope));
        record(&mut self.first_response, first_response(row, scope));
        record(&mut self.cohort.response, response(row, scope));
        record(&mut self.cohort.service, service(row, scope));
    }

    /// All but the latencies.
    fn count(&mut self, row: &TransferRow, scope: &Scope) {
        use TransferOutcome::{Interrupted, Late, TimedOut};
        self.outcomes[row.outcome as usize] += 1;
        let is_cut_off = matches!(row.outcome, TimedOut | Interrupted | Late);
        self.unanswered += u64::from(is_cut_off && row.first_response_ns < 0);
        self.in_flight_ns += u128::from(scope.overlap_ns(row));
        if let Some((_, ns)) = transfer(row, scope) {
            self.transfer_ns_sum += ns.max(0) as u128;
        }
        if scope.is_of_cohort(row.intended_start_ns) {
            let cohort = &mut self.cohort;
            cohort.started += 1;
            cohort.in_time += u64::from(scope.window.contains(&row.actual_start_ns));
            cohort.interrupted += u64::from(row.outcome == Interrupted);
            cohort.first_start_ns = cohort.first_start_ns.min(row.actual_start_ns);
            cohort.last_start_ns = cohort.last_start_ns.max(row.actual_start_ns);
            let lag_ns = row.actual_start_ns - row.intended_start_ns;
            cohort.lag.saturating_record(u64::try_from(lag_ns).unwrap_or(0));
        }
    }

    /// Adds those of another worker.
    pub(crate) fn merge(&mut self, other: Tally) {
        self.outcomes.iter_mut().zip(other.outcomes).for_each(|(sum, part)| *sum += part);
        self.unanswered += other.unanswered;
        self.in_flight_ns += other.in_flight_ns;
        self.transfer.merge(other.transfer);
        self.transfer_ns_sum += other.transfer_ns_sum;
        self.slowest_and_median = None;
        self.first_response.merge(other.first_response);
        self.cohort.started += other.cohort.started;
        self.cohort.in_time += other.cohort.in_time;
        self.cohort.interrupted += other.cohort.interrupted;
        self.cohort.first_start_ns = self.cohort.first_start_ns.min(other.cohort.first_start_ns);
        self.cohort.last_start_ns = self.cohort.last_start_ns.max(other.cohort.last_start_ns);
        add(&mut self.cohort.lag, &other.cohort.lag);
        self.cohort.response.merge(other.cohort.response);
        self.cohort.service.merge(other.cohort.service);
    }

    pub(crate) fn ended_as(&self, outcome: TransferOutcome) -> u64 {
        self.outcomes[outcome as usize]
    }
}

/// When and how long, where it counts.
fn transfer(row: &TransferRow, scope: &Scope) -> Option<(i64, i64)> {
    (row.is_completed() && scope.overlaps(row)).then(|| (row.end_ns, row.end_ns - row.actual_start_ns))
}

fn first_response(row: &TransferRow, scope: &Scope) -> Option<(i64, i64)> {
    let is_counted = row.first_response_ns >= 0 && scope.overlaps(row);
    is_counted.then(|| (row.first_response_ns, row.first_response_ns - row.actual_start_ns))
}

fn response(row: &TransferRow, scope: &Scope) -> Option<(i64, i64)> {
    let is_counted = row.is_completed() && scope.is_of_cohort(row.intended_start_ns);
    is_counted.then(|| (row.end_ns, row.end_ns - row.intended_start_ns))
}

fn service(row: &TransferRow, scope: &Scope) -> Option<(i64, i64)> {
    let is_counted = row.is_completed() && scope.is_of_cohort(row.intended_start_ns);
    is_counted.then(|| (row.end_ns, row.end_ns - row.actual_start_ns))
}

/// What of one worker's transfers, or of its machines, is kept.
#[derive(Debug)]
pub(crate) struct Ended<R = TransferRow> {
    rows: Vec<R>,
    /// Of each row its class, and how often that class can be halved before the row goes.
    marks: Vec<Mark>,
    classes: [Class; 2],
    rows_max: usize,
    keeps_completed: bool,
    /// Rows before this one have been looked at since a class was halved.
    cursor: usize,
    /// So many rows are in the tally, the first ones.
    counted: usize,
    tally: Option<Box<Tally>>,
    /// Something has no row.
    is_thinned: bool,
}

/// A row's class in bit 7, below it the level at which it goes.
type Mark = u8;
const LOST: Mark = 0x80;

/// What completed, or what did not.
#[derive(Clone, Copy, Debug, Default)]
struct Class {
    seen: u64,
    kept: usize,
    /// One in 2^halved has a row.
    halved: u8,
}

/// The rows of all workers, and how many transfers each stands for.
pub(crate) struct KeptRows<R = TransferRow> {
    pub(crate) rows: Vec<R>,
    /// One of so many that completed has a row; `None` where none has.
    pub(crate) every: Option<u64>,
    /// One of so many of the others has.
    pub(crate) every_failed: u64,
}

/// Most rows of one kind that all workers keep.
pub(crate) fn rows_max(config: &LoadConfig) -> usize {
    match config.rows {
        Rows::All | Rows::Failed => config.rows_max,
        Rows::Sample => config.rows_max.min(SAMPLE_ROWS),
    }
}

impl<R: Row> Ended<R> {
    /// Room for one worker's rows.
    pub(crate) fn new(config: &LoadConfig) -> Ended<R> {
        let rows_max = (rows_max(config) / config.workers.max(1)).max(1);
        Ended::with_room(rows_max, config.rows != Rows::Failed)
    }

    /// Room for so many.
    pub(crate) fn with_room(rows_max: usize, keeps_completed: bool) -> Ended<R> {
        Ended {
            rows: Vec::with_capacity(rows_max.min(4096)),
            marks: Vec::with_capacity(rows_max.min(4096)),
            classes: [Class::default(); 2],
            rows_max,
            keeps_completed,
            cursor: 0,
            counted: 0,
            tally: None,
            is_thinned: false,
        }
    }

    /// How many have ended.
    pub(crate) fn seen(&self) -> u64 {
        self.classes.iter().map(|class| class.seen).sum()
    }

    #[cfg(test)]
    pub(crate) fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Writes down one that has ended; where its row is, for `sent_again`.
    pub(crate) fn push(&mut self, row: R, scope: &Scope) -> usize {
        let lost = if row.is_completed() { 0 } else { LOST };
        let class = &mut self.classes[index(lost)];
        let mark = lost | class.seen.trailing_zeros().min(63) as u8;
        class.seen += 1;
        let is_wanted = self.keeps_completed || lost != 0;
        if is_wanted && !self.goes(mark) && self.rows.len() < self.rows_max {
            self.rows.push(row);
            self.marks.push(mark);
            self.classes[index(lost)].kept += 1;
            if !self.keeps_completed || self.rows.len() > self.rows_max / 2 {
                self.count_next(scope);
                self.count_next(scope);
            }
            return self.rows.len() - 1;
        }
        self.thin(row, mark, is_wanted, scope)
    }

    /// Counts it, and gives it the place of one that is kept no longer, unless it has to go itself.
    #[cold]
    fn thin(&mut self, row: R, mark: Mark, is_wanted: bool, scope: &Scope) -> usize {
        while self.counted < self.rows.len() {
            self.count_next(scope);
        }
        self.tally.get_or_insert_with(|| Box::new(Tally::new())).add(&row, scope);
        self.is_thinned = true;
        while is_wanted && !self.goes(mark) {
            let rest = &self.marks[self.cursor..];
            let Some(found) = rest.iter().position(|mark| self.goes(*mark)) else {
                self.halve();
                continue;
            };
            let place = self.cursor + found;
            self.classes[index(self.marks[place])].kept -= 1;
            self.classes[index(mark)].kept += 1;
            (self.rows[place], self.marks[place], self.cursor) = (row, mark, place + 1);
            return place;
        }
        NOT_KEPT
    }

    /// From now on half as many of one class are kept: of those that completed, as long as there are many.
    fn halve(&mut self) {
        let [completed, lost] = &mut self.classes;
        let class = if completed.kept >= lost.kept / 4 && completed.kept > 0 { completed } else { lost };
        // The very first one of a class has the highest level that there is.
        class.halved += 1;
        self.cursor = 0;
    }

    fn goes(&self, mark: Mark) -> bool {
        (mark & !LOST) < self.classes[index(mark)].halved
    }

    fn count_next(&mut self, scope: &Scope) {
        if let Some(row) = self.rows.get(self.counted) {
            self.tally.get_or_insert_with(|| Box::new(Tally::new())).add(row, scope);
            self.counted += 1;
        }
    }

    /// Puts together what all workers have: from rows alone where none is lacking.
    pub(crate) fn merge(mut workers: Vec<Ended<R>>, scope: &Scope) -> (KeptRows<R>, Tally) {
        let most = |class: usize| workers.iter().map(|ended| ended.classes[class].halved).max().unwrap_or(0);
        let halved = [most(0), most(1)];
        let keeps_completed = workers.iter().all(|ended| ended.keeps_completed);
        let tally = workers.iter().any(|ended| ended.is_thinned).then(|| {
            let mut sum = Tally::new();
            workers.iter_mut().for_each(|ended| sum.merge(ended.take_tally(scope)));
            sum
        });
        let mut rows: Vec<R> = Vec::new();
        for mut ended in workers {
            ended.classes.iter_mut().zip(halved).for_each(|(class, halved)| class.halved = halved);
            if ended.is_thinned || halved != [0, 0] {
                ended.drop_the_rest();
            }
            // One worker's rows are moved, and those of others are freed as soon as they are copied.
            if rows.is_empty() { rows = ended.rows } else { rows.append(&mut ended.rows) }
        }
        let tally = tally.unwrap_or_else(|| Tally::of(&rows, scope));
        let every = keeps_completed.then_some(1 << halved[0].min(63));
        (KeptRows { rows, every, every_failed: 1 << halved[1].min(63) }, tally)
    }

    fn take_tally(&mut self, scope: &Scope) -> Tally {
        while self.counted < self.rows.len() {
            self.count_next(scope);
        }
        self.tally.take().map_or_else(Tally::new, |tally| *tally)
    }

    /// Ends the thinning that was under way, and brings rows back into the order of their ends.
    fn drop_the_rest(&mut self) {
        let marks = std::mem::take(&mut self.marks);
        let mut goes = marks.iter().map(|mark| self.goes(*mark)).collect::<Vec<bool>>().into_iter();
        self.rows.retain(|_| !goes.next().unwrap_or(false));
        self.rows.sort_unstable_by_key(Row::ended_ns);
        self.rows.shrink_to_fit();
    }
}

impl Ended<TransferRow> {
    /// A transfer that has ended sent something again. `place` is what `push` gave for it, if another has not taken it.
    pub(crate) fn sent_again(&mut self, place: usize, number: u64, retransmissions: u64) {
        if let Some(row) = self.rows.get_mut(place).filter(|row| row.number == number) {
            row.retransmissions = retransmissions;
        }
    }
}

fn index(mark: Mark) -> usize {
    usize::from(mark & LOST != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;
    const WHOLE: Scope = Scope { window: 0..i64::MAX, is_one_cohort: true, is_cut_short: false };

    /// Transfer `number` starts a millisecond after the one before it, and takes up to 100 ms; one in 50 is never answered.
    fn row(number: u64) -> TransferRow {
        let (start_ns, lag_ns) = (number as i64 * MS, number as i64 % 7 * 1_000);
        let takes_ns = (1_000 + crate::contents::mix64(number) % 100_000_000) as i64;
        let is_lost = number.is_multiple_of(50);
        let outcome = if is_lost { TransferOutcome::TimedOut } else { TransferOutcome::Completed };
        TransferRow {
            number,
            intended_start_ns: start_ns,
            actual_start_ns: start_ns + lag_ns,
            first_response_ns: if is_lost { -1 } else { start_ns + lag_ns + takes_ns / 2 },
            end_ns: start_ns + lag_ns + takes_ns,
            bytes: 0,
            retransmissions: 0,
            outcome,
            error_code: -1,
            machine: -1,
            step: -1,
        }
    }

    /// What `workers` that keep so many rows each find of so many transfers.
    fn kept(transfers: u64, workers: u64, room: usize, keeps_completed: bool) -> (KeptRows, Tally) {
        let window = 100 * MS..transfers as i64 * MS / 2;
        let scope = Scope { window, is_one_cohort: false, is_cut_short: false };
        let each = |worker: u64| {
            let mut ended = Ended::with_room(room, keeps_completed);
            for number in (0..transfers).filter(|number| number % workers == worker) {
                ended.push(row(number), &scope);
                assert!(ended.rows.len() <= room && ended.marks.len() == ended.rows.len());
            }
            ended
        };
        Ended::merge((0..workers).map(each).collect(), &scope)
    }

    fn lost(kept: &KeptRows) -> usize {
        kept.rows.iter().filter(|row| !row.is_completed()).count()
    }

    fn assert_same(one: &Tally, other: &Tally) {
        let plain = |tally: &Tally| {
            let CohortTally { started, in_time, interrupted, .. } = tally.cohort;
            let CohortTally { first_start_ns, last_start_ns, .. } = tally.cohort;
            let sums = (tally.unanswered, tally.in_flight_ns, tally.transfer_ns_sum);
            (tally.outcomes, sums, started, in_time, interrupted, first_start_ns, last_start_ns)
        };
        assert_eq!(plain(one), plain(other));
        let logs = |tally: &Tally| {
            let cohort = &tally.cohort;
            let logs = [&tally.transfer, &tally.first_response, &cohort.response, &cohort.service];
            (logs.map(LatencyLog::sum), cohort.lag.clone())
        };
        assert!(logs(one) == logs(other), "to the last value");
    }

    #[test]
    fn sums_and_histograms_are_those_of_all_transfers_whichever_have_rows() {
        let (all, whole) = kept(20_000, 1, usize::MAX, true);
        assert_eq!((all.rows.len(), all.every, all.every_failed), (20_000, Some(1), 1));
        assert!(all.rows.iter().map(|row| row.number).eq(0..20_000), "in their order");
        assert!(whole.slowest_and_median.is_some());
        for workers in [1, 2, 4] {
            for (room, keeps_completed) in [
                (usize::MAX, false),
                (20_000, true),
                (5_001, true),
                (2_000, true),
                (100, true),
                (10, false),
                (1, true),
            ] {
                let (some, tally) = kept(20_000, workers, room, keeps_completed);
                assert_same(&tally, &whole);
                assert!(some.rows.len() as u64 <= (room as u64).saturating_mul(workers));
                assert_eq!(some.every.is_some(), keeps_completed);
            }
        }
    }

    #[test]
    fn one_in_every_so_many_that_completed_has_a_row_and_all_others_have() {
        for (workers, room) in [(1, 5_000), (2, 2_500), (4, 1_250)] {
            let (some, _) = kept(20_000, workers, room, true);
            let (every, lost) = (some.every.unwrap(), lost(&some));
            assert_eq!((every, some.every_failed, lost), (8, 1, 400), "4,600 is room for a quarter at most");
            let completed = (some.rows.len() - lost) as u64;
            assert!(completed.abs_diff(19_600 / every) <= workers, "{completed}");
            // Everywhere alike: no part of the run is without rows, or has more of them.
            for part in 0..10 {
                let inside = some.rows.iter().filter(|row| row.number / 2_000 == part).count() as u64;
                assert!(inside.abs_diff(1_960 / every + 40) <= 2 * workers, "{inside} of part {part}");
            }
        }
    }

    #[test]
    fn only_what_did_not_complete_has_a_row_where_that_is_asked_for_and_even_that_has_an_end() {
        let (failed, _) = kept(20_000, 2, 1_000, false);
        assert_eq!(
            (failed.rows.len(), lost(&failed), failed.every, failed.every_failed),
            (400, 400, None, 1)
        );
        let (few, _) = kept(20_000, 2, 100, false);
        assert_eq!((few.rows.len(), few.every_failed), (100, 4));
    }

    #[test]
    fn rows_that_went_take_nothing_of_what_comes_later_for_them() {
        let mut ended = Ended::with_room(2, true);
        let places = [1, 2, 3, 4, 5].map(|number| ended.push(row(number), &WHOLE));
        for (place, number) in places.into_iter().zip(1..) {
            ended.sent_again(place, number, 10 + number);
        }
        assert_eq!(ended.seen(), 5);
        assert!(ended.rows.iter().all(|row| row.retransmissions == 10 + row.number));
    }

    #[test]
    fn time_in_flight_is_what_lies_inside_the_window() {
        let mut one = row(1);
        (one.actual_start_ns, one.end_ns) = (10, 30);
        for (window, inside) in
            [(0..100, 20), (20..100, 10), (0..15, 5), (15..25, 10), (30..40, 0), (0..5, 0)]
        {
            let mut tally = Tally::new();
            tally.add(&one, &Scope { window, ..WHOLE });
            assert_eq!(tally.in_flight_ns, inside);
        }
    }
}
