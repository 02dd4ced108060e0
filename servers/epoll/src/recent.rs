//! Which shared socket each client was answered from last, as far as a fixed table remembers.

use std::hash::BuildHasher;
use std::net::IpAddr;

use foldhash::quality::RandomState;

/// Places in the table: 16 KiB a worker. Clients that share a place forget one another's socket; which ones do cannot
/// be chosen, and the next place is a transfer's own again.
const PLACES: usize = 4096;

/// Clients are distinguished by their address alone: most take another port for each transfer.
pub(crate) struct Recent {
    serials: Box<[u32; PLACES]>,
    hashes: RandomState,
}

impl Recent {
    pub(crate) fn new() -> Recent {
        Recent { serials: Box::new([0; PLACES]), hashes: RandomState::default() }
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
}
