//! Who is being served: at most one transfer a peer, and at most `max_transfers` that are undecided.
//! It holds the rule about requests that come twice, the same for every server. It never touches a socket or a file.
//!
//! A decided upload that still waits to repeat its last ACK (dallying) is outside that bound but inside one of its own
//! of the same size; beyond that it ends without waiting, so that small servers do not drown in finished work.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The transfers that hold a place.
#[derive(Debug)]
pub(crate) struct Registry {
    max_transfers: usize,
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    peers: HashMap<SocketAddr, Arc<Holder>>,
    undecided: usize,
    dallying: usize,
}

#[derive(Debug)]
struct Holder {
    request: Box<[u8]>,
    decided: AtomicBool,
    superseded: AtomicBool,
}

/// What a request may do.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Start a transfer, which keeps the place.
    Place(Place),
    /// Nothing: the same request is being served, and its transfer repeats its own opening.
    Duplicate,
    /// Nothing: all places are taken.
    Full,
}

/// One transfer's place; given back when dropped, however the transfer ends.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    peer: SocketAddr,
    holder: Arc<Holder>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Undecided,
    Dallying,
    Over,
}

impl Registry {
    pub(crate) fn new(max_transfers: usize) -> Arc<Registry> {
        Arc::new(Registry { max_transfers, places: Mutex::default() })
    }

    /// A peer that asks for something else has given its old transfer up, so that one ends.
    pub(crate) fn claim(self: &Arc<Registry>, peer: SocketAddr, request: &[u8]) -> Claim {
        let mut places = self.places();
        if let Some(old) = places.peers.get(&peer) {
            // The same bytes after the end are a new request, not a late copy: loops over one file do that.
            if *old.request == *request && !old.decided.load(Ordering::Relaxed) {
                return Claim::Duplicate;
            }
            old.superseded.store(true, Ordering::Relaxed);
            places.peers.remove(&peer);
        }
        if places.undecided >= self.max_transfers {
            return Claim::Full;
        }
        let holder = Arc::new(Holder {
            request: request.into(),
            decided: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
        });
        places.undecided += 1;
        places.peers.insert(peer, Arc::clone(&holder));
        Claim::Place(Place { registry: Arc::clone(self), peer, holder, phase: Phase::Undecided })
    }

    pub(crate) fn undecided(&self) -> usize {
        self.places().undecided
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Counters and map change together without a panic in between, so a poisoned lock is still sound.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The peer has asked for something else since.
    pub(crate) fn superseded(&self) -> bool {
        self.holder.superseded.load(Ordering::Relaxed)
    }

    pub(crate) fn decided(&self) -> bool {
        self.phase != Phase::Undecided
    }

    /// The transfer's outcome is known: its place is free again. False: there is no room to dally.
    pub(crate) fn decide(&mut self) -> bool {
        let mut places = self.registry.places();
        if self.phase == Phase::Undecided {
            self.holder.decided.store(true, Ordering::Relaxed);
            places.undecided -= 1;
            self.phase = Phase::Over;
            if places.dallying < self.registry.max_transfers {
                places.dallying += 1;
                self.phase = Phase::Dallying;
            }
        }
        self.phase == Phase::Dallying
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.registry.places();
        match self.phase {
            Phase::Undecided => places.undecided -= 1,
            Phase::Dallying => places.dallying -= 1,
            Phase::Over => {}
        }
        // The peer's entry may already be that of its next transfer.
        if places.peers.get(&self.peer).is_some_and(|holder| Arc::ptr_eq(holder, &self.holder)) {
            places.peers.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn place(registry: &Arc<Registry>, port: u16, request: &[u8]) -> Place {
        match registry.claim(peer(port), request) {
            Claim::Place(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_undecided_transfers_fill_places() {
        let registry = Registry::new(2);
        let mut first = place(&registry, 1, b"a");
        let second = place(&registry, 2, b"a");
        assert!(matches!(registry.claim(peer(3), b"a"), Claim::Full));
        assert!(first.decide());
        let third = place(&registry, 3, b"a");
        assert!(matches!(registry.claim(peer(4), b"a"), Claim::Full));
        drop((second, third));
        assert_eq!(registry.undecided(), 0);
    }

    #[test]
    fn only_so_many_may_dally() {
        let registry = Registry::new(1);
        let mut first = place(&registry, 1, b"a");
        assert!(first.decide());
        let mut second = place(&registry, 2, b"a");
        assert!(!second.decide());
        drop(first);
        let mut third = place(&registry, 3, b"a");
        assert!(third.decide());
    }

    #[test]
    fn the_same_bytes_are_a_copy_until_the_transfer_is_decided() {
        let registry = Registry::new(9);
        let mut first = place(&registry, 1, b"a");
        assert!(matches!(registry.claim(peer(1), b"a"), Claim::Duplicate));
        first.decide();
        let _second = place(&registry, 1, b"a");
        assert!(first.superseded());
        // The old place's end must not forget the new one.
        drop(first);
        assert!(matches!(registry.claim(peer(1), b"a"), Claim::Duplicate));
    }

    #[test]
    fn other_bytes_supersede_at_once() {
        let registry = Registry::new(9);
        let first = place(&registry, 1, b"a");
        let second = place(&registry, 1, b"b");
        assert!(first.superseded() && !second.superseded());
        drop((first, second));
        assert_eq!(registry.undecided(), 0);
        assert!(registry.places().peers.is_empty());
    }
}
