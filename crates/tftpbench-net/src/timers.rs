//! Timers whose cost does not grow with their number: a hierarchical timing wheel (Varghese and Lauck,
//! 1987). Never reads a clock, never fires early, knows no cancelling. One per event loop.

/// A tick is 2^20 ns, about a millisecond: a shift instead of a division.
const TICK_SHIFT: u32 = 20;
/// Each level has 64 slots, so that its occupied ones fit one word.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 8 levels of 6 bits hold the 45 bits of the latest tick a `u64` of nanoseconds can name.
const LEVELS: usize = 8;
/// End of a list.
const NONE: u32 = u32::MAX;

/// Deadlines with a key each.
///
/// There is no cancelling: the owner compares a key that comes due with what it still wants, and
/// schedules again what was only postponed. A key may wait several times.
pub struct Timers {
    /// Every deadline up to and including this tick has been handed out.
    now_tick: u64,
    levels: [Level; LEVELS],
    /// Deadlines that had passed when they were scheduled; due with the next `expire`.
    overdue: u32,
    entries: Vec<Entry>,
    /// Entries not in use, linked like a slot's.
    free: u32,
    len: usize,
}

#[derive(Clone, Copy)]
struct Level {
    /// One bit for each slot that is not empty.
    occupied: u64,
    /// First entry of each slot.
    heads: [u32; SLOTS],
}

#[derive(Clone, Copy)]
struct Entry {
    key: u64,
    tick: u64,
    next: u32,
}

impl Timers {
    /// No timers; `now_ns` is the earliest time it will be asked about.
    pub fn new(now_ns: u64) -> Self {
        Timers {
            now_tick: now_ns >> TICK_SHIFT,
            levels: [Level { occupied: 0, heads: [NONE; SLOTS] }; LEVELS],
            overdue: NONE,
            entries: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    /// Has `key` come due at `deadline_ns`, or within the tick (about 1 ms) after it.
    pub fn schedule(&mut self, deadline_ns: u64, key: u64) {
        let tick = deadline_ns.div_ceil(1 << TICK_SHIFT);
        let entry = self.take_free(Entry { key, tick, next: NONE });
        self.link(entry);
        self.len += 1;
    }

    /// Appends the keys that are due to `due`, in order of ticks.
    pub fn expire(&mut self, now_ns: u64, due: &mut Vec<u64>) {
        let mut entry = std::mem::replace(&mut self.overdue, NONE);
        while entry != NONE {
            entry = self.hand_out(entry, due);
        }
        let now_tick = now_ns >> TICK_SHIFT;
        while let Some((level, slot, tick)) = self.next_slot().filter(|next| next.2 <= now_tick) {
            self.now_tick = tick;
            self.levels[level].occupied &= !(1 << slot);
            let mut entry = std::mem::replace(&mut self.levels[level].heads[slot], NONE);
            while entry != NONE {
                entry = if self.entries[entry as usize].tick <= tick {
                    self.hand_out(entry, due)
                } else {
                    self.move_down(entry)
                };
            }
        }
        self.now_tick = self.now_tick.max(now_tick);
    }

    /// When to call `expire` next; not later than the next deadline's tick, sometimes earlier.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        if self.overdue != NONE {
            return Some(self.now_tick << TICK_SHIFT);
        }
        self.next_slot().map(|(_, _, tick)| tick.saturating_mul(1 << TICK_SHIFT))
    }

    /// Timers waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is waiting.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Level, slot and first tick of the slot that comes first. It is the first occupied one of the
    /// lowest level that has any: a level holds only ticks that differ from now in its own six bits and
    /// agree in all higher ones, so each level comes before the next, and no slot wraps around.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.occupied != 0)?;
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        let shift = SLOT_BITS * level as u32;
        let above = self.now_tick >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((level, slot, above | (slot as u64) << shift))
    }

    /// Puts an entry where its tick belongs as of now.
    fn link(&mut self, entry: u32) {
        let tick = self.entries[entry as usize].tick;
        let head = if tick <= self.now_tick {
            &mut self.overdue
        } else {
            let level = ((tick ^ self.now_tick).ilog2() / SLOT_BITS) as usize;
            let slot = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
            self.levels[level].occupied |= 1 << slot;
            &mut self.levels[level].heads[slot]
        };
        self.entries[entry as usize].next = std::mem::replace(head, entry);
    }

    /// Links an entry anew, on a lower level. Returns the one behind it.
    fn move_down(&mut self, entry: u32) -> u32 {
        let next = self.entries[entry as usize].next;
        self.link(entry);
        next
    }

    /// Gives the key out and the entry back. Returns the one behind it.
    fn hand_out(&mut self, entry: u32, due: &mut Vec<u64>) -> u32 {
        let Entry { key, next, .. } = self.entries[entry as usize];
        due.push(key);
        self.entries[entry as usize].next = std::mem::replace(&mut self.free, entry);
        self.len -= 1;
        next
    }

    /// Keeps an entry, in a place that is free if there is one. Memory is that of the most timers that
    /// ever waited at once.
    fn take_free(&mut self, entry: Entry) -> u32 {
        if self.free == NONE {
            // 2^32 entries would take 96 GiB, so memory ends first.
            self.entries.push(entry);
            return (self.entries.len() - 1) as u32;
        }
        let place = self.free;
        self.free = std::mem::replace(&mut self.entries[place as usize], entry).next;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 1 << TICK_SHIFT;

    /// xorshift64*, enough to pick deadlines.
    struct Seeded(u64);

    impl Seeded {
        fn below(&mut self, end: u64) -> u64 {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
        }
    }

    fn expired(timers: &mut Timers, now_ns: u64) -> Vec<u64> {
        let mut due = Vec::new();
        timers.expire(now_ns, &mut due);
        due.sort_unstable();
        due
    }

    /// Against a plain list: everything whose tick has passed fires, and nothing else.
    fn check_against_list(seed: u64, span_ns: u64) {
        let mut random = Seeded(seed);
        let mut now_ns = random.below(1 << 50);
        let mut timers = Timers::new(now_ns);
        let mut list: Vec<(u64, u64)> = Vec::new();
        for key in 0..3000 {
            let deadline_ns = now_ns.saturating_sub(TICK_NS) + random.below(span_ns);
            timers.schedule(deadline_ns, key);
            list.push((deadline_ns, key));
            if random.below(3) == 0 {
                now_ns += random.below(span_ns / 16);
                let fires = |timer: &mut (u64, u64)| timer.0.div_ceil(TICK_NS) <= now_ns >> TICK_SHIFT;
                let mut expected: Vec<u64> = list.extract_if(.., fires).map(|(_, key)| key).collect();
                expected.sort_unstable();
                assert_eq!(expired(&mut timers, now_ns), expected, "seed {seed} at {now_ns}");
            }
            assert_eq!(timers.len(), list.len());
            let earliest_ns = list.iter().map(|&(ns, _)| ns.div_ceil(TICK_NS) * TICK_NS).min();
            let next_ns = timers.next_deadline_ns();
            assert_eq!(next_ns.is_some(), earliest_ns.is_some());
            let overdue_ns = now_ns >> TICK_SHIFT << TICK_SHIFT;
            assert!(next_ns <= earliest_ns.max(Some(overdue_ns)), "{next_ns:?} {earliest_ns:?}");
        }
    }

    #[test]
    fn fires_what_a_plain_list_would_at_every_time_scale() {
        for (seed, span_shift) in (1..=64).zip((21..=52).cycle()) {
            check_against_list(seed * 0x9E37_79B9, 1 << span_shift);
        }
    }

    #[test]
    fn never_fires_early() {
        let mut timers = Timers::new(0);
        timers.schedule(5 * TICK_NS + 1, 7);
        assert_eq!(expired(&mut timers, 5 * TICK_NS + 1), []);
        assert_eq!(timers.next_deadline_ns(), Some(6 * TICK_NS));
        assert_eq!(expired(&mut timers, 6 * TICK_NS - 1), []);
        assert_eq!(expired(&mut timers, 6 * TICK_NS), [7]);
        assert!(timers.is_empty());
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once() {
        let mut timers = Timers::new(100 * TICK_NS);
        timers.schedule(3, 1);
        assert!(timers.next_deadline_ns().unwrap() <= 100 * TICK_NS);
        assert_eq!(expired(&mut timers, 100 * TICK_NS), [1]);
        assert_eq!(timers.next_deadline_ns(), None);
    }

    #[test]
    fn the_end_of_time_can_be_waited_for() {
        let mut timers = Timers::new(0);
        timers.schedule(u64::MAX, 1);
        timers.schedule(1, 2);
        assert_eq!(expired(&mut timers, 1 << 40), [2]);
        assert!(timers.next_deadline_ns().is_some());
        assert_eq!(timers.len(), 1);
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_harms_nothing() {
        let mut timers = Timers::new(50 * TICK_NS);
        timers.schedule(60 * TICK_NS, 1);
        assert_eq!(expired(&mut timers, 55 * TICK_NS), []);
        assert_eq!(expired(&mut timers, 10 * TICK_NS), []);
        assert_eq!(expired(&mut timers, 60 * TICK_NS), [1]);
    }

    #[test]
    fn waking_only_when_asked_reaches_every_deadline_in_few_steps() {
        let mut timers = Timers::new(0);
        let deadlines_ns = [TICK_NS, 70 * TICK_NS, 5_000 * TICK_NS, 1 << 45];
        for (key, deadline_ns) in deadlines_ns.into_iter().enumerate() {
            timers.schedule(deadline_ns, key as u64);
        }
        let (mut due, mut wakes) = (Vec::new(), 0);
        while let Some(next_ns) = timers.next_deadline_ns() {
            timers.expire(next_ns, &mut due);
            wakes += 1;
        }
        assert_eq!(due, [0, 1, 2, 3]);
        assert!(wakes <= deadlines_ns.len() * LEVELS, "{wakes} wake-ups");
    }

    #[test]
    fn memory_is_that_of_the_most_that_ever_waited() {
        let mut timers = Timers::new(0);
        let mut due = Vec::new();
        for round in 0..100 {
            (0..10).for_each(|key| timers.schedule((round + 1) * TICK_NS, key));
            timers.expire((round + 1) * TICK_NS, &mut due);
        }
        assert_eq!((due.len(), timers.entries.len()), (1000, 10));
    }
}
