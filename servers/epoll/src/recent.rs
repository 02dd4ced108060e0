//! Which shared socket each client was answered from last, as far as a fixed table remembers.

use std::hash::BuildHasher;
use std::net::IpAddr;

use crate::hasher::Seeded;

/// Places in the table: 16 KiB a worker. Clients that share a place forget one another's socket; which ones do cannot
/// be chosen, and the next place is a transfer's own again.
const PLACES: usize = 4096;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
