//! The peers that are being served: at most one transfer a peer, and at most `max_transfers` that are undecided.
//! It holds the rule about requests that come twice, the same for every server. It never touches a socket or a file.
//!
//! A decided upload that still waits to repeat its last ACK (dallying) is outside that bound but inside one of its own
//! of the same size; beyond that it ends without waiting, so that small servers do not drown in finished work. Inside
//! that bound, too, is a transfer whose peer has asked for something else at a full server, until its driver sees that.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Ended transfers that are remembered; their requests are of 512 bytes at most, so this is 2 MiB at most.
const ENDED: usize = 4096;

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
    ended: Ended,
}

/// What peers were served last, of which late copies may come. Peers that share a slot overwrite each other's.
#[derive(Debug)]
struct Ended {
    /// Made at the start: a server that is short of memory must still be able to end a transfer.
    slots: Box<[Slot]>,
    hashes: RandomState,
}

/// A peer and its request.
type Slot = Option<(SocketAddr, Arc<[u8]>)>;

impl Default for Ended {
    fn default() -> Ended {
        Ended { slots: vec![None; ENDED].into_boxed_slice(), hashes: RandomState::new() }
    }
}

impl Ended {
    fn put(&mut self, peer: SocketAddr, request: Arc<[u8]>) {
        let slot = self.slot(peer);
        self.slots[slot] = Some((peer, request));
    }

    fn of(&self, peer: SocketAddr) -> Option<Arc<[u8]>> {
        let (known, request) = self.slots.get(self.slot(peer))?.as_ref()?;
        (*known == peer).then(|| Arc::clone(request))
    }

    fn slot(&self, peer: SocketAddr) -> usize {
        self.hashes.hash_one(peer) as usize % ENDED
    }
}

#[derive(Debug)]
struct Holder {
    request: Arc<[u8]>,
    /// What the peer was being served before: a late copy of that may still come.
    request_before: Option<Arc<[u8]>>,
    decided: AtomicBool,
    /// Its count among the undecided is its peer's next transfer's; it counts as one that dallies. Changes with the
    /// lock.
    is_counted_as_dallying: AtomicBool,
    /// What the peer has asked for since, as `Since`.
    since: AtomicU8,
    /// When that came.
    since_ns: AtomicU64,
    /// Where its transfer receives, if that has a socket of its own.
    socket: OnceLock<SocketAddr>,
}

/// What a peer has asked for while its transfer was running. The thread that drives the transfer looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Since {
    Nothing,
    /// The same.
    Copy,
    /// What it had asked for before.
    CopyOfBefore,
    /// Something else, and is served that.
    Other,
}

impl Holder {
    /// `ended`: what the peer was served last, if that has ended.
    fn new(request: Arc<[u8]>, old: Option<&Holder>, ended: Option<Arc<[u8]>>) -> Arc<Holder> {
        let request_before = match old {
            Some(old) if old.request == request => old.request_before.clone(),
            Some(old) => Some(Arc::clone(&old.request)),
            None => ended.filter(|ended| *ended != request),
        };
        let since = AtomicU8::new(Since::Nothing as u8);
        let (decided, is_counted_as_dallying) = (AtomicBool::new(false), AtomicBool::new(false));
        let (since_ns, socket) = (AtomicU64::new(0), OnceLock::new());
        Arc::new(Holder { request, request_before, decided, is_counted_as_dallying, since, since_ns, socket })
    }

    /// Which copy a request is.
    fn copy(&self, request: &[u8]) -> Option<Since> {
        let is_before = || self.request_before.as_deref() == Some(request);
        match *self.request == *request {
            true => Some(Since::Copy),
            false => is_before().then_some(Since::CopyOfBefore),
        }
    }

    fn note(&self, now_ns: u64, since: Since) {
        self.since_ns.store(now_ns, Ordering::Relaxed);
        // A thread that sees what came sees when.
        self.since.store(since as u8, Ordering::Release);
    }

    fn since(&self) -> Since {
        let noted = self.since.load(Ordering::Acquire);
        let all = [Since::Copy, Since::CopyOfBefore, Since::Other];
        all.into_iter().find(|since| *since as u8 == noted).unwrap_or(Since::Nothing)
    }
}

/// What a request may do.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Start a transfer, which keeps the place.
    Place(Place),
    /// The transfer that is running for it, or for what came after it, is to be asked. Where that has a socket of its
    /// own, this is its address.
    Repeated(Option<SocketAddr>),
    /// Nothing: all places are taken.
    Full,
}

/// One transfer's place; given back when dropped, however the transfer ends.
#[derive(Debug)]
pub(crate) struct Place {
    registry: Arc<Registry>,
    peer: SocketAddr,
    holder: Arc<Holder>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Undecided,
    Dallying,
    Over,
}

impl Registry {
    pub(crate) fn new(max_transfers: usize) -> Arc<Registry> {
        Arc::new(Registry { max_transfers, places: Mutex::default() })
    }

    /// A peer that asks for something else has given its old transfer up, so that one ends; at a full server its count
    /// goes over to the new one.
    pub(crate) fn claim(self: &Arc<Registry>, now_ns: u64, peer: SocketAddr, request: &[u8]) -> Claim {
        let mut places = self.places();
        let (mut running, mut ended) = (None, places.ended.of(peer));
        if let Some(old) = places.peers.get(&peer) {
            // The same bytes after the end are a new request, not a late copy: loops over one file do that.
            if old.decided.load(Ordering::Relaxed) {
                ended = Some(Arc::clone(&old.request));
            } else if let Some(copy) = old.copy(request) {
                old.note(now_ns, copy);
                return Claim::Repeated(old.socket.get().copied());
            } else {
                running = Some(Arc::clone(old));
            }
            old.note(now_ns, Since::Other);
            places.peers.remove(&peer);
        }
        if places.undecided < self.max_transfers {
            places.undecided += 1;
        } else if let Some(old) = &running
            && places.dallying < self.max_transfers
        {
            old.is_counted_as_dallying.store(true, Ordering::Relaxed);
            places.dallying += 1;
        } else {
            return Claim::Full;
        }
        Claim::Place(self.place(&mut places, peer, Holder::new(request.into(), running.as_deref(), ended)))
    }

    /// Which is counted already.
    fn place(self: &Arc<Registry>, places: &mut Places, peer: SocketAddr, holder: Arc<Holder>) -> Place {
        places.peers.insert(peer, Arc::clone(&holder));
        Place { registry: Arc::clone(self), peer, holder, standing: Standing::Undecided }
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

    /// Its transfer has a socket of its own with this address.
    pub(crate) fn set_socket(&self, address: SocketAddr) {
        // A transfer has one socket, so it is set once.
        let _ = self.holder.socket.set(address);
    }

    /// The request that is being served.
    pub(crate) fn request(&self) -> Arc<[u8]> {
        Arc::clone(&self.holder.request)
    }

    /// What the peer has asked for since.
    pub(crate) fn since(&self) -> Since {
        self.holder.since()
    }

    /// When that came.
    pub(crate) fn since_ns(&self) -> u64 {
        self.holder.since_ns.load(Ordering::Relaxed)
    }

    /// The copy that came was nothing to begin anew for.
    pub(crate) fn forget_copy(&self) {
        let forget = |noted| (noted != Since::Other as u8).then_some(Since::Nothing as u8);
        // It fails where something else was asked for meanwhile, which counts.
        let _ = self.holder.since.fetch_update(Ordering::Relaxed, Ordering::Relaxed, forget);
    }

    /// The place of a new transfer for the copy that came, in place of this one. None: there was none, or something
    /// else was asked for meanwhile, or all places are taken.
    pub(crate) fn renew(&mut self) -> Option<Place> {
        let request = match self.since() {
            Since::Copy => Arc::clone(&self.holder.request),
            Since::CopyOfBefore => Arc::clone(self.holder.request_before.as_ref()?),
            Since::Nothing | Since::Other => return None,
        };
        let registry = Arc::clone(&self.registry);
        let mut places = registry.places();
        if !places.peers.get(&self.peer).is_some_and(|holder| Arc::ptr_eq(holder, &self.holder)) {
            return None;
        }
        if self.standing == Standing::Undecided {
            // Its count is the new one's.
            self.standing = Standing::Over;
        } else if places.undecided < registry.max_transfers {
            places.undecided += 1;
        } else {
            return None;
        }
        let holder = Holder::new(request, Some(&self.holder), None);
        Some(registry.place(&mut places, self.peer, holder))
    }

    pub(crate) fn decided(&self) -> bool {
        self.standing != Standing::Undecided
    }

    /// The transfer's outcome is known: its place is free again. False: there is no room to dally.
    pub(crate) fn decide(&mut self) -> bool {
        let mut places = self.registry.places();
        if self.standing == Standing::Undecided {
            self.holder.decided.store(true, Ordering::Relaxed);
            self.standing = self.counted_as();
            if self.standing == Standing::Undecided {
                places.undecided -= 1;
                self.standing = Standing::Over;
                if places.dallying < self.registry.max_transfers {
                    places.dallying += 1;
                    self.standing = Standing::Dallying;
                }
            }
        }
        self.standing == Standing::Dallying
    }

    /// The count that it has; true as long as the lock is held.
    fn counted_as(&self) -> Standing {
        match self.standing {
            Standing::Undecided if self.holder.is_counted_as_dallying.load(Ordering::Relaxed) => {
                Standing::Dallying
            }
            standing => standing,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.registry.places();
        match self.counted_as() {
            Standing::Undecided => places.undecided -= 1,
            Standing::Dallying => places.dallying -= 1,
            Standing::Over => {}
        }
        // The peer's entry may already be that of its next transfer.
        if places.peers.get(&self.peer).is_some_and(|holder| Arc::ptr_eq(holder, &self.holder)) {
            places.peers.remove(&self.peer);
            places.ended.put(self.peer, Arc::clone(&self.holder.request));
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
        match registry.claim(0, peer(port), request) {
            Claim::Place(place) => place,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_undecided_transfers_fill_places() {
        let registry = Registry::new(2);
        let mut first = place(&registry, 1, b"a");
        let second = place(&registry, 2, b"a");
        assert!(matches!(registry.claim(0, peer(3), b"a"), Claim::Full));
        assert!(first.decide());
        let third = place(&registry, 3, b"a");
        assert!(matches!(registry.claim(0, peer(4), b"a"), Claim::Full));
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
        assert!(matches!(registry.claim(0, peer(1), b"a"), Claim::Repeated(None)));
        first.decide();
        let _second = place(&registry, 1, b"a");
        assert_eq!(first.since(), Since::Other);
        // The old place's end must not forget the new one.
        drop(first);
        assert!(matches!(registry.claim(0, peer(1), b"a"), Claim::Repeated(None)));
    }

    #[test]
    fn other_bytes_supersede_at_once() {
        let registry = Registry::new(9);
        let first = place(&registry, 1, b"a");
        let second = place(&registry, 1, b"b");
        assert_eq!((first.since(), second.since()), (Since::Other, Since::Nothing));
        drop((first, second));
        assert_eq!(registry.undecided(), 0);
        assert!(registry.places().peers.is_empty());
    }

    #[test]
    fn at_a_full_server_a_peer_that_asks_for_something_else_keeps_its_own_place() {
        let registry = Registry::new(1);
        let mut first = place(&registry, 1, b"a");
        let mut second = place(&registry, 1, b"b");
        assert_eq!((first.since(), registry.undecided()), (Since::Other, 1));
        assert!(matches!(registry.claim(0, peer(2), b"a"), Claim::Full));
        // Those that are still to end are as few as those that dally.
        assert!(matches!(registry.claim(0, peer(1), b"c"), Claim::Full));
        assert_eq!(second.since(), Since::Other);
        for place in [&mut first, &mut second] {
            place.decide();
            assert!(place.decided());
        }
        assert_eq!((registry.undecided(), registry.places().dallying), (0, 1));
        drop((first, second));
        assert_eq!((registry.undecided(), registry.places().dallying), (0, 0));
        // One that ends before it was decided gives back the same.
        let (first, second) = (place(&registry, 1, b"a"), place(&registry, 1, b"b"));
        drop(first);
        assert_eq!((registry.undecided(), registry.places().dallying), (1, 0));
        drop(second);
        assert_eq!((registry.undecided(), registry.places().peers.len()), (0, 0));
    }

    #[test]
    fn a_late_copy_of_what_was_asked_before_supersedes_nothing() {
        let registry = Registry::new(9);
        let (_first, second) = (place(&registry, 1, b"a"), place(&registry, 1, b"b"));
        assert!(matches!(registry.claim(0, peer(1), b"a"), Claim::Repeated(None)));
        assert_eq!(second.since(), Since::CopyOfBefore);
        second.forget_copy();
        assert_eq!(second.since(), Since::Nothing);
        // Only one request before this one is remembered.
        let third = place(&registry, 1, b"c");
        let _fourth = place(&registry, 1, b"a");
        third.forget_copy();
        assert_eq!(third.since(), Since::Other);
    }

    #[test]
    fn a_renewed_place_counts_once_and_is_for_the_copy_that_came() {
        let registry = Registry::new(1);
        let mut first = place(&registry, 1, b"a");
        assert!(first.renew().is_none());
        registry.claim(0, peer(1), b"a");
        let mut second = first.renew().unwrap();
        assert_eq!((&*second.request(), second.since()), (&b"a"[..], Since::Nothing));
        drop(first);
        assert_eq!(registry.undecided(), 1);
        // A decided one's needs room.
        registry.claim(0, peer(1), b"a");
        second.decide();
        let other = place(&registry, 2, b"a");
        assert!(second.renew().is_none());
        drop(other);
        let third = second.renew().unwrap();
        drop((second, third));
        assert_eq!(registry.undecided(), 0);
        assert!(registry.places().peers.is_empty());
    }

    #[test]
    fn a_place_is_not_renewed_for_a_peer_that_asked_for_something_else() {
        let registry = Registry::new(9);
        let mut first = place(&registry, 1, b"a");
        registry.claim(0, peer(1), b"a");
        let _second = place(&registry, 1, b"b");
        assert!(first.renew().is_none());
    }
}
