//! A hash for peers' addresses, once a datagram: a folded multiplication a word, seeded at random when the server
//! starts so that colliding ports cannot be chosen.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with one server's seed.
#[derive(Clone, Debug)]
pub(crate) struct Seeded {
    seed: u64,
}

impl Seeded {
    pub(crate) fn random() -> Seeded {
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
pub(crate) struct Folded {
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
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

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
