//! When to send again: the retransmission timer of RFC 6298 fitted to TFTP (RFC 1123 section 4.2.3.2).
//!
//! Must never read a clock. `Timing` is configuration, as are the `Habits` of real clients; `Rto` is a transfer's
//! own timer.

use std::sync::Arc;

/// How a side of a transfer waits for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// First interval, and every one where the timer is not adaptive. A negotiated `timeout` option takes its
    /// place.
    pub timeout_ns: u64,
    /// How often a datagram is sent again without progress; the time-out after that ends the transfer.
    pub retries: u32,
    /// What happens to the interval on each time-out.
    pub backoff: Backoff,
    /// Where given, the interval follows measured round trips (RFC 6298) but never falls below this.
    pub adaptive_floor_ns: Option<u64>,
    /// The interval never grows above this, unless a negotiated `timeout` is longer.
    pub timeout_max_ns: u64,
}

/// What a time-out does to the interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backoff {
    /// Doubles it.
    Exponential,
    /// Nothing.
    Constant,
}

/// What a real client does where RFCs leave a choice, or where it breaks them. It never dallies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Habits {
    /// How long it waits after each sending of its request; after the last one it gives up. Whatever was negotiated
    /// changes nothing: what a client does about it is in its tables.
    pub opening_waits_ns: Box<[u64]>,
    /// The same of every later datagram.
    pub waits_ns: Box<[u64]>,
    /// What it says to DATA out of order.
    pub nack: Nack,
    /// Its request has options that this crate does not know, so an OACK may name such.
    pub asks_others: bool,
}

/// What a receiver says to DATA of a window that comes out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nack {
    /// One ACK of the newest block in order for each gap (RFC 7440 section 4).
    Gap,
    /// That ACK for each such block.
    Block,
    /// Nothing: it waits for its timer.
    Nothing,
}

/// How long a server keeps a transfer without an answer to its opening, whatever was negotiated. Until then one
/// datagram, maybe with a forged sender, is all that it knows of a client.
const UNANSWERED_MAX_NS: u64 = 60_000_000_000;

/// A server gives a client up that has answered before, but not for so long; it has sent again once at least. Only with
/// a negotiated `timeout` of more than half a minute does this come before the retries have run out.
const SILENCE_MAX_NS: u64 = 180_000_000_000;

/// A client whose transfer has not moved for so long, or for one retransmission interval, has lost it if it asks anew.
const LIVE_NS: u64 = 1_000_000_000;

/// What an elapsed time means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing: the deadline lies ahead, or there is none.
    Early,
    /// Send again.
    Again,
    /// The retries are used up.
    GiveUp,
}

/// One side's retransmission timer.
#[derive(Debug)]
pub(crate) struct Rto {
    /// Where there are tables it has what they say for now.
    timing: Timing,
    habits: Option<Arc<Habits>>,
    /// The table in force is that of later datagrams.
    reading: bool,
    /// 0: no sample so far.
    srtt_ns: u64,
    round_trip_min_ns: u64,
    rttvar_ns: u64,
    sent_ns: u64,
    /// `u64::MAX`: not running.
    deadline_ns: u64,
    /// The interval never grows above this now: `Timing`'s, or what is left of the time for an answer.
    interval_max_ns: u64,
    /// When the last progress was, once the time was up for the first time since.
    silent_since_ns: u64,
    /// How long the silence may last, whatever is left of the retries; `u64::MAX` for a client, which has its own
    /// timing.
    silence_max_ns: u64,
    /// Time-outs since the last progress.
    timeouts: u32,
    doublings: u8,
    /// The last datagram went out for the first time, so its answer gives a sample (Karn's rule).
    timed: bool,
    /// A time-out started what is in flight, so an answer may be one to its first sending.
    ambiguous: bool,
}

impl Rto {
    /// A client's, running from now on.
    pub(crate) fn client(timing: Timing, now_ns: u64) -> Rto {
        let mut rto = Rto::idle(timing);
        rto.restart(now_ns);
        rto
    }

    /// That of a client with habits, running from now on.
    pub(crate) fn with_habits(habits: Arc<Habits>, now_ns: u64) -> Rto {
        let timing = Timing {
            timeout_ns: 0,
            retries: 0,
            backoff: Backoff::Constant,
            adaptive_floor_ns: None,
            timeout_max_ns: u64::MAX,
        };
        let mut rto = Rto { habits: Some(habits), ..Rto::idle(timing) };
        rto.take_wait();
        rto.restart(now_ns);
        rto
    }

    /// A server's, running from now on. It bounds the silence.
    pub(crate) fn server(timing: Timing, now_ns: u64) -> Rto {
        let mut rto = Rto::idle(timing);
        rto.silence_max_ns = UNANSWERED_MAX_NS;
        rto.interval_max_ns = timing.timeout_max_ns.min(UNANSWERED_MAX_NS);
        rto.restart(now_ns);
        rto
    }

    fn idle(timing: Timing) -> Rto {
        Rto {
            timing,
            habits: None,
            reading: false,
            srtt_ns: 0,
            round_trip_min_ns: 0,
            rttvar_ns: 0,
            sent_ns: 0,
            deadline_ns: u64::MAX,
            interval_max_ns: timing.timeout_max_ns,
            silent_since_ns: 0,
            silence_max_ns: u64::MAX,
            timeouts: 0,
            doublings: 0,
            timed: false,
            ambiguous: false,
        }
    }

    /// Notes the peer's first answer, before `progressed`. From now on the interval is that of a negotiated `timeout`
    /// (RFC 2349).
    pub(crate) fn answered(&mut self, timeout_s: Option<u8>) {
        if self.silence_max_ns != u64::MAX {
            self.silence_max_ns = SILENCE_MAX_NS;
        }
        if self.habits.is_some() {
            self.reading = true;
            self.timeouts = 0;
            self.take_wait();
        } else if let Some(timeout_s) = timeout_s {
            self.timing.timeout_ns = u64::from(timeout_s) * 1_000_000_000;
            self.timing.timeout_max_ns = self.timing.timeout_max_ns.max(self.timing.timeout_ns);
            self.timing.adaptive_floor_ns = None;
            // They were those of another interval.
            self.doublings = 0;
        }
        self.interval_max_ns = self.timing.timeout_max_ns;
    }

    /// Notes that a datagram went out and an answer is awaited. `timed`: its answer will tell the round trip.
    pub(crate) fn sent(&mut self, now_ns: u64, timed: bool) {
        self.sent_ns = now_ns;
        self.timed = timed;
        self.restart(now_ns);
    }

    /// Notes that the transfer moved on. `newest`: by the answer to what was sent last.
    pub(crate) fn progressed(&mut self, now_ns: u64, newest: bool) {
        if self.timed && newest {
            self.sample(now_ns.saturating_sub(self.sent_ns));
        }
        self.timed = false;
        self.timeouts = 0;
        // Karn: the longer interval stays for one more exchange, so that a sample can be had of a round trip
        // that is longer than the interval was.
        if !std::mem::replace(&mut self.ambiguous, false) {
            self.doublings = 0;
        } else {
            self.take_wait();
        }
        self.restart(now_ns);
    }

    /// Whether the time is up; if so, backs off.
    pub(crate) fn expire(&mut self, now_ns: u64) -> Expiry {
        if now_ns < self.deadline_ns || self.deadline_ns == u64::MAX {
            return Expiry::Early;
        }
        if self.timeouts == 0 {
            self.silent_since_ns = self.restarted_ns();
        }
        let left_ns = self.silence_max_ns.saturating_sub(now_ns.saturating_sub(self.silent_since_ns));
        let is_unanswered = self.silence_max_ns == UNANSWERED_MAX_NS;
        if self.timeouts >= self.timing.retries || left_ns == 0 && (is_unanswered || self.timeouts > 0) {
            self.stop();
            return Expiry::GiveUp;
        }
        if is_unanswered {
            self.interval_max_ns = self.interval_max_ns.min(left_ns);
        }
        self.timeouts += 1;
        self.ambiguous = true;
        self.double();
        self.take_wait();
        self.restart(now_ns);
        Expiry::Again
    }

    /// Waits half as long again as a peer that keeps our timing would before it sends again; gives up
    /// extending after as many calls as there are retries.
    pub(crate) fn dally(&mut self, now_ns: u64) {
        if self.timeouts > self.timing.retries {
            return;
        }
        if self.timeouts == 0 {
            self.doublings = 0;
        } else {
            self.double();
        }
        self.timeouts += 1;
        let interval_ns = self.backed_off(self.timing.timeout_ns);
        self.deadline_ns = now_ns.saturating_add(interval_ns.saturating_add(interval_ns / 2));
    }

    pub(crate) fn stop(&mut self) {
        self.deadline_ns = u64::MAX;
    }

    pub(crate) fn is_due(&self, now_ns: u64) -> bool {
        self.deadline_ns != u64::MAX && now_ns >= self.deadline_ns
    }

    /// Whether the transfer has not moved for long enough that a request of the peer begins it anew.
    /// `at_ns` may lie some time ago.
    pub(crate) fn is_silent(&self, at_ns: u64) -> bool {
        let (since_ns, interval_ns) = match self.timeouts {
            0 => (self.restarted_ns(), self.backed_off(self.base_ns())),
            _ => (self.silent_since_ns, self.base_ns()),
        };
        at_ns.saturating_sub(since_ns) >= interval_ns.min(LIVE_NS)
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        (self.deadline_ns != u64::MAX).then_some(self.deadline_ns)
    }

    /// Since the last datagram went out.
    pub(crate) fn elapsed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.sent_ns)
    }

    /// Takes in a time that holds a round trip and maybe more.
    pub(crate) fn lower_round_trip_min(&mut self, elapsed_ns: u64) {
        if self.round_trip_min_ns == 0 || elapsed_ns < self.round_trip_min_ns {
            self.round_trip_min_ns = elapsed_ns;
        }
    }

    /// A client's, where it has such.
    pub(crate) fn habits(&self) -> Option<&Habits> {
        self.habits.as_deref()
    }

    /// The shortest round trip so far; 0 while unknown.
    pub(crate) fn round_trip_min_ns(&self) -> u64 {
        self.round_trip_min_ns
    }

    /// Has the timer wait as long as the table in force says for what has been sent so often. Only where time has run
    /// out: it must cost a block nothing.
    #[cold]
    #[inline(never)]
    fn take_wait(&mut self) {
        let Some(habits) = &self.habits else { return };
        let table = if self.reading { &habits.waits_ns } else { &habits.opening_waits_ns };
        self.timing.timeout_ns = table.get(self.timeouts as usize).copied().unwrap_or(0);
        self.timing.retries = table.len().saturating_sub(1) as u32;
    }

    fn restart(&mut self, now_ns: u64) {
        self.deadline_ns = now_ns.saturating_add(self.backed_off(self.base_ns()));
    }

    /// When `restart` was last called.
    fn restarted_ns(&self) -> u64 {
        self.deadline_ns.saturating_sub(self.backed_off(self.base_ns()))
    }

    /// RFC 6298 section 2.
    fn sample(&mut self, round_trip_ns: u64) {
        let round_trip_ns = round_trip_ns.max(1);
        self.lower_round_trip_min(round_trip_ns);
        if self.srtt_ns == 0 {
            self.srtt_ns = round_trip_ns;
            self.rttvar_ns = round_trip_ns / 2;
        } else {
            let error_ns = self.srtt_ns.abs_diff(round_trip_ns);
            self.rttvar_ns = self.rttvar_ns - self.rttvar_ns / 4 + error_ns / 4;
            self.srtt_ns = (self.srtt_ns - self.srtt_ns / 8 + round_trip_ns / 8).max(1);
        }
    }

    fn base_ns(&self) -> u64 {
        match self.timing.adaptive_floor_ns {
            Some(floor_ns) if self.srtt_ns > 0 => (self.srtt_ns + 4 * self.rttvar_ns).max(floor_ns),
            _ => self.timing.timeout_ns,
        }
    }

    fn double(&mut self) {
        if self.timing.backoff == Backoff::Exponential {
            self.doublings = (self.doublings + 1).min(32);
        }
    }

    fn backed_off(&self, base_ns: u64) -> u64 {
        base_ns.saturating_mul(1 << self.doublings).min(self.interval_max_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const FIXED: Timing = Timing {
        timeout_ns: 100 * MS,
        retries: 9,
        backoff: Backoff::Exponential,
        adaptive_floor_ns: None,
        timeout_max_ns: 1000 * MS,
    };

    /// The interval, measured from now.
    fn interval_ms(rto: &Rto, now_ns: u64) -> u64 {
        (rto.deadline_ns - now_ns) / MS
    }

    #[test]
    fn exponential_backoff_doubles_up_to_the_most() {
        let mut rto = Rto::client(FIXED, 0);
        let mut intervals = vec![];
        for _ in 0..6 {
            let now_ns = rto.deadline_ns;
            assert_eq!(rto.expire(now_ns), Expiry::Again);
            intervals.push(interval_ms(&rto, now_ns));
        }
        assert_eq!(intervals, [200, 400, 800, 1000, 1000, 1000]);
    }

    #[test]
    fn constant_backoff_does_not_back_off() {
        let mut rto = Rto::client(Timing { backoff: Backoff::Constant, ..FIXED }, 0);
        assert_eq!(rto.expire(100 * MS), Expiry::Again);
        assert_eq!(interval_ms(&rto, 100 * MS), 100);
    }

    #[test]
    fn the_interval_follows_the_round_trip_but_not_below_the_floor() {
        let mut rto = Rto::client(Timing { adaptive_floor_ns: Some(20 * MS), ..FIXED }, 0);
        rto.sent(0, true);
        rto.progressed(40 * MS, true);
        assert_eq!(interval_ms(&rto, 40 * MS), 120, "RFC 6298 section 2.2: R + 4 R/2");
        let mut now_ns = 40 * MS;
        for _ in 0..100 {
            rto.sent(now_ns, true);
            now_ns += MS;
            rto.progressed(now_ns, true);
        }
        assert_eq!(interval_ms(&rto, now_ns), 20);
    }

    #[test]
    fn a_datagram_sent_again_gives_no_sample() {
        let mut rto = Rto::client(Timing { adaptive_floor_ns: Some(0), ..FIXED }, 0);
        rto.sent(0, false);
        rto.progressed(MS, true);
        rto.sent(MS, true);
        rto.progressed(2 * MS, false);
        assert_eq!(interval_ms(&rto, 2 * MS), 100);
    }

    #[test]
    fn the_longer_interval_outlives_an_ambiguous_answer_once() {
        let mut rto = Rto::client(FIXED, 0);
        assert_eq!(rto.expire(100 * MS), Expiry::Again);
        rto.progressed(101 * MS, true);
        assert_eq!(interval_ms(&rto, 101 * MS), 200);
        rto.progressed(102 * MS, true);
        assert_eq!(interval_ms(&rto, 102 * MS), 100);
    }

    #[test]
    fn a_negotiated_timeout_is_neither_adapted_nor_capped() {
        let mut rto = Rto::client(Timing { adaptive_floor_ns: Some(0), ..FIXED }, 0);
        rto.answered(Some(5));
        rto.sent(0, true);
        rto.progressed(MS, true);
        assert_eq!(interval_ms(&rto, MS), 5000);
    }

    /// When a timer without an answer has run out each time, and gives up at last.
    fn expiries_s(rto: &mut Rto) -> Vec<u64> {
        let mut all = vec![];
        while let Some(deadline_ns) = rto.deadline_ns() {
            all.push(deadline_ns / 1_000 / MS);
            if rto.expire(deadline_ns) == Expiry::Again {
                rto.sent(deadline_ns, false);
            }
        }
        all
    }

    #[test]
    fn a_clients_tables_are_its_waits_whatever_was_negotiated() {
        let tables = |opening: &[u64], reading: &[u64]| {
            let (opening_waits_ns, waits_ns) = (opening.into(), reading.into());
            Arc::new(Habits { opening_waits_ns, waits_ns, nack: Nack::Gap, asks_others: false })
        };
        let seconds = |all: &[u64]| all.iter().map(|s| s * 1000 * MS).collect::<Vec<_>>();
        let waits = tables(&seconds(&[4, 8, 16]), &seconds(&[5]));
        assert_eq!(
            expiries_s(&mut Rto::with_habits(waits.clone(), 0)),
            [4, 12, 28],
            "three sendings, then no more"
        );
        let mut rto = Rto::with_habits(waits, 0);
        assert_eq!(rto.expire(4000 * MS), Expiry::Again);
        rto.answered(Some(9));
        rto.progressed(5000 * MS, true);
        assert_eq!(interval_ms(&rto, 5000 * MS), 5000);
        rto.sent(6000 * MS, true);
        assert_eq!(expiries_s(&mut rto), [11], "one wait: it sends nothing again");
        let mut rto = Rto::with_habits(tables(&[MS], &seconds(&[1, 2])), 0);
        rto.answered(None);
        rto.sent(0, true);
        assert_eq!(rto.expire(1000 * MS), Expiry::Again);
        assert_eq!(interval_ms(&rto, 1000 * MS), 2000);
        rto.progressed(1500 * MS, true);
        assert_eq!(interval_ms(&rto, 1500 * MS), 1000, "what has moved on waits from the first wait on");
        assert_eq!(expiries_s(&mut Rto::with_habits(tables(&[], &[]), 0)), [0]);
    }

    #[test]
    fn a_server_gives_up_after_a_minute_without_an_answer() {
        let slow = |timeout_s: u64| Timing {
            timeout_ns: timeout_s * 1000 * MS,
            timeout_max_ns: timeout_s * 16_000 * MS,
            ..FIXED
        };
        for (timeout_s, due_s) in
            [(1, &[1, 3, 7, 15, 31, 47, 60][..]), (10, &[10, 30, 60]), (60, &[60]), (1000, &[60])]
        {
            assert_eq!(expiries_s(&mut Rto::server(slow(timeout_s), 0)), due_s, "{timeout_s}");
        }
        // A client has its own retries.
        assert_eq!(expiries_s(&mut Rto::client(Timing { retries: 1, ..slow(1000) }, 0)), [1000, 3000]);
    }

    #[test]
    fn a_server_gives_up_after_three_minutes_or_the_second_interval_without_progress() {
        for (timeout_s, due_s) in [
            (1, &[1, 2, 3, 4, 5, 6][..]),
            (30, &[30, 60, 90, 120, 150, 180]),
            (60, &[60, 120, 180]),
            (255, &[255, 510]),
        ] {
            let timing = Timing { backoff: Backoff::Constant, retries: 5, ..FIXED };
            let mut rto = Rto::server(timing, 0);
            rto.answered(Some(timeout_s));
            rto.sent(0, true);
            assert_eq!(expiries_s(&mut rto), due_s, "{timeout_s}");
        }
    }

    #[test]
    fn an_answer_gives_the_interval_all_the_room_again() {
        let timing = Timing { timeout_ns: 40_000 * MS, timeout_max_ns: 40_000 * MS, ..FIXED };
        let mut rto = Rto::server(timing, 0);
        assert_eq!(rto.expire(40_000 * MS), Expiry::Again);
        assert_eq!(interval_ms(&rto, 40_000 * MS), 20_000);
        rto.answered(None);
        rto.progressed(41_000 * MS, false);
        assert_eq!(interval_ms(&rto, 41_000 * MS), 40_000);
    }

    #[test]
    fn a_transfer_is_silent_after_a_second_or_an_interval() {
        for (timeout_ms, silent_ms) in [(100, 100), (5000, 1000)] {
            let timing = Timing { timeout_ns: timeout_ms * MS, timeout_max_ns: timeout_ms * MS, ..FIXED };
            let mut rto = Rto::server(timing, 0);
            rto.progressed(70 * MS, true);
            assert!(!rto.is_silent((70 + silent_ms) * MS - 1) && rto.is_silent((70 + silent_ms) * MS));
            rto.sent(80 * MS, true);
            assert!(!rto.is_silent((70 + silent_ms) * MS) && rto.is_silent((80 + silent_ms) * MS));
        }
    }

    #[test]
    fn extreme_configurations_do_not_overflow() {
        let timing = Timing { timeout_ns: u64::MAX / 2, timeout_max_ns: u64::MAX, retries: 100, ..FIXED };
        let mut rto = Rto::client(timing, u64::MAX / 2);
        for _ in 0..100 {
            rto.expire(u64::MAX - 1);
            rto.dally(u64::MAX - 1);
        }
        assert!(rto.deadline_ns > u64::MAX / 2);
    }
}
