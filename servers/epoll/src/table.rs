//! The transfers under way, found by their peer, with their deadlines; and which shared socket each client was answered
//! from last, as far as a fixed table remembers. It knows no sockets.
//!
//! Deadlines move with every datagram, but the timing wheel is not changed: an entry that comes due is compared with
//! what its transfer wants now and put back. A block so costs one comparison and no change to the wheel.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, SocketAddr};

use slab::Slab;
use tftpbench_net::{LocalAddress, Timers};
use tftpbench_serve::Transfer;

/// Places in the table: 16 KiB a worker. Clients that share a place forget one another's socket; which ones do cannot
/// be chosen, and the next place is a transfer's own again.
const PLACES: usize = 4096;

/// One transfer and where it answers from.
pub(crate) struct Entry {
    pub(crate) transfer: Transfer,
    /// Number of its reply socket.
    pub(crate) port: usize,
    /// Which address it answers from, where the socket has several.
    pub(crate) source: Option<LocalAddress>,
    /// It has more to say than fitted into one turn.
    pub(crate) is_unfinished: bool,
    /// When the wheel will name it next; `u64::MAX` if it will not.
    timer_ns: u64,
}

impl Entry {
    /// Its deadline comes before the wheel would name it.
    pub(crate) fn wakes_too_late(&self) -> bool {
        self.transfer.deadline_ns().is_some_and(|deadline_ns| deadline_ns < self.timer_ns)
    }
}

/// Every transfer of one worker.
pub(crate) struct Table {
    entries: Slab<Entry>,
    /// A peer has one transfer at most: a new request ends the old one.
    keys: HashMap<SocketAddr, usize, Seeded>,
    timers: Timers,
    due: Vec<u64>,
}

impl Table {
    pub(crate) fn new(now_ns: u64) -> Table {
        Table {
            entries: Slab::new(),
            keys: HashMap::with_hasher(Seeded::random()),
            timers: Timers::new(now_ns),
            due: Vec::new(),
        }
    }

    /// Adds a transfer; the old one of its peer must have been removed.
    pub(crate) fn insert(&mut self, transfer: Transfer, port: usize, source: Option<LocalAddress>) -> usize {
        let peer = transfer.peer();
        let entry = Entry { transfer, port, source, is_unfinished: false, timer_ns: u64::MAX };
        let key = self.entries.insert(entry);
        let old = self.keys.insert(peer, key);
        debug_assert!(old.is_none(), "{peer} had a transfer already");
        key
    }

    /// The transfer of a peer.
    pub(crate) fn find(&self, peer: SocketAddr) -> Option<usize> {
        self.keys.get(&peer).copied()
    }

    pub(crate) fn port_of(&self, key: usize) -> Option<usize> {
        self.entries.get(key).map(|entry| entry.port)
    }

    pub(crate) fn entry(&mut self, key: usize) -> Option<&mut Entry> {
        self.entries.get_mut(key)
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<Entry> {
        let entry = self.entries.try_remove(key)?;
        self.keys.remove(&entry.transfer.peer());
        Some(entry)
    }

    /// Keys of all transfers; for a stop only.
    pub(crate) fn keys(&self) -> Vec<usize> {
        self.entries.iter().map(|(key, _)| key).collect()
    }

    /// Tells the wheel about a deadline, but only one that is earlier than what it knows.
    pub(crate) fn arm(&mut self, key: usize) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        if let Some(deadline_ns) = entry.transfer.deadline_ns()
            && deadline_ns < entry.timer_ns
        {
            entry.timer_ns = deadline_ns;
            self.timers.schedule(deadline_ns, key as u64);
        }
    }

    /// When the wheel wants to be looked at.
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.timers.next_deadline_ns()
    }

    /// The next transfer whose deadline has come; `expire` first.
    pub(crate) fn next_due(&mut self, now_ns: u64) -> Option<usize> {
        while let Some(key) = self.due.pop() {
            let key = key as usize;
            let Some(entry) = self.entries.get_mut(key) else { continue };
            // Left behind by an earlier deadline, or by the transfer that had this key before.
            if entry.timer_ns > now_ns {
                continue;
            }
            entry.timer_ns = u64::MAX;
            if entry.transfer.deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                return Some(key);
            }
            self.arm(key);
        }
        None
    }

    /// Collects what is due.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        self.timers.expire(now_ns, &mut self.due);
    }
}

/// Clients are distinguished by their address alone: most take another port for each transfer.
pub(crate) struct Recent {
    serials: Box<[u32; PLACES]>,
    hashes: Seeded,
}

impl Recent {
    pub(crate) fn new() -> Recent {
        Recent { serials: Box::new([0; PLACES]), hashes: Seeded::random() }
    }

    /// The serial number of the socket that this client had last; 0 for none.
    pub(crate) fn serial(&mut self, client: IpAddr) -> &mut u32 {
        let place = self.hashes.hash_one(client) as usize % PLACES;
        &mut self.serials[place]
    }
}

/// A hash for peers' addresses, once a datagram: a folded multiplication a word, seeded at random when the server starts
/// so that colliding ports cannot be chosen. This makes hashers with one server's seed.
#[derive(Clone, Debug)]
struct Seeded {
    seed: u64,
}

impl Seeded {
    fn random() -> Seeded {
        // RandomState is the standard library's only source of randomness.
        Seeded { seed: RandomState::new().hash_one(0) }
    }
}

impl BuildHasher for Seeded {
    type Hasher = Folded;

    fn build_hasher(&self) -> Folded {
        Folded { state: self.seed }
    }
}

#[derive(Debug)]
struct Folded {
    state: u64,
}

/// Odd, with its bits well mixed: 2^64 divided by the golden ratio.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

impl Folded {
    fn fold(&mut self, word: u64) {
        let wide = u128::from(self.state ^ word) * u128::from(MULTIPLIER);
        self.state = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.fold(u64::from_le_bytes(word));
        }
    }

    fn write_u16(&mut self, word: u16) {
        self.fold(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.fold(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.fold(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.fold(word as u64);
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn each_client_is_remembered_by_its_address() {
        let mut recent = Recent::new();
        let clients: Vec<IpAddr> = (0..4).map(|last| [192, 0, 2, last].into()).collect();
        assert!(clients.iter().all(|&client| *recent.serial(client) == 0));
        *recent.serial(clients[0]) = 7;
        assert_eq!(*recent.serial(clients[0]), 7);
        // At most one more in its place but for a probability of 1 in 4096 to the third.
        assert!(clients[1..].iter().any(|&client| *recent.serial(client) == 0));
    }

    /// Clients that share a place crowd onto one socket: batches get smaller, and the slowest transfer takes twice as
    /// long (measured with a hash that spreads at random).
    #[test]
    fn neighbouring_clients_have_places_of_their_own() {
        let mut recent = Recent::new();
        for last in 0..=255 {
            *recent.serial([192, 0, 2, last].into()) = 1 + u32::from(last);
        }
        let remembered =
            (0..=255).filter(|&last| *recent.serial([192, 0, 2, last].into()) == 1 + u32::from(last));
        assert!(remembered.count() >= 250);
    }

    fn buckets_of_4096(peers: impl Iterator<Item = SocketAddr>) -> usize {
        let hashes = Seeded::random();
        // hashbrown takes the low bits for the bucket and the top seven for the tag.
        peers.map(|peer| hashes.hash_one(peer) & 0xfff).collect::<HashSet<_>>().len()
    }

    #[test]
    fn neighbouring_ports_spread_over_the_buckets() {
        // 4096 balls in 4096 random buckets fill 63 % of them, 2589; half of that is far beyond random variation.
        let v4 = (0..4096).map(|n| SocketAddr::from((Ipv4Addr::LOCALHOST, 20_000 + n)));
        assert!(buckets_of_4096(v4) > 2300);
        let v6 = (0..4096).map(|n| SocketAddr::from((Ipv6Addr::LOCALHOST, 20_000 + n)));
        assert!(buckets_of_4096(v6) > 2300);
        let addresses = (0..4096_u32).map(|n| SocketAddr::from((Ipv4Addr::from(0x7f00_0001 + n), 69)));
        assert!(buckets_of_4096(addresses) > 2300);
    }

    #[test]
    fn two_servers_hash_differently() {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 69));
        assert_ne!(Seeded::random().hash_one(peer), Seeded::random().hash_one(peer));
    }
}
