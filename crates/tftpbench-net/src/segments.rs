//! Which paths have refused segments (UDP_SEGMENT, udp(7)), and from which length on. A refusal is one path's, so that one
//! client behind a narrow link does not cost the others their batches. Only `SendBatch` asks; it makes no system call.

use std::net::IpAddr;

/// Refusals that are remembered. Where there are more, the oldest is tried again, which costs it one call for nothing.
const PATHS_MAX: usize = 16;

/// What is known of segments.
#[derive(Debug)]
pub(crate) struct Segments {
    /// Peers, and the shortest segment that the way to each has refused.
    refused: Vec<(IpAddr, usize)>,
    /// Whose place the next refusal takes, once all are taken.
    oldest: usize,
    /// The kernel knows how to cut at all; assumed until it is asked.
    are_known: bool,
}

impl Segments {
    pub(crate) fn new() -> Segments {
        Segments { refused: Vec::with_capacity(PATHS_MAX), oldest: 0, are_known: true }
    }

    /// Nothing has been refused so far, so no peer has to be looked up.
    pub(crate) fn are_unrefused(&self) -> bool {
        self.are_known && self.refused.is_empty()
    }

    /// Whether segments of this length are worth trying on the way to a peer.
    pub(crate) fn are_worth_trying(&self, peer: IpAddr, segment_bytes: usize) -> bool {
        let has_refused =
            |(refuser, shortest): &(IpAddr, usize)| *refuser == peer && segment_bytes >= *shortest;
        self.are_known && !self.refused.iter().any(has_refused)
    }

    /// The way to a peer has refused segments of this length, and taken them as datagrams.
    pub(crate) fn refuse(&mut self, peer: IpAddr, segment_bytes: usize) {
        if let Some((_, shortest)) = self.refused.iter_mut().find(|(refuser, _)| *refuser == peer) {
            *shortest = segment_bytes.min(*shortest);
        } else if self.refused.len() < PATHS_MAX {
            self.refused.push((peer, segment_bytes));
        } else {
            self.refused[self.oldest] = (peer, segment_bytes);
            self.oldest = (self.oldest + 1) % PATHS_MAX;
        }
    }

    /// The kernel does not know them, so none is tried towards any peer.
    pub(crate) fn refuse_all(&mut self) {
        self.are_known = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn one_path_that_refuses_leaves_the_others_alone() {
        let mut segments = Segments::new();
        segments.refuse(peer(1), 1432);
        assert!(!segments.are_worth_trying(peer(1), 1432) && !segments.are_worth_trying(peer(1), 9000));
        assert!(segments.are_worth_trying(peer(1), 516) && segments.are_worth_trying(peer(2), 9000));
        segments.refuse(peer(1), 516);
        assert!(!segments.are_worth_trying(peer(1), 516) && segments.are_worth_trying(peer(1), 515));
    }

    #[test]
    fn the_oldest_refusal_is_forgotten_first() {
        let mut segments = Segments::new();
        (0..=PATHS_MAX as u8).for_each(|last| segments.refuse(peer(last), 516));
        assert!(segments.are_worth_trying(peer(0), 516));
        assert!((1..=PATHS_MAX as u8).all(|last| !segments.are_worth_trying(peer(last), 516)));
        assert_eq!(segments.refused.len(), PATHS_MAX);
    }

    #[test]
    fn a_kernel_without_segments_gets_none() {
        let mut segments = Segments::new();
        assert!(segments.are_unrefused());
        segments.refuse_all();
        assert!(!segments.are_unrefused() && !segments.are_worth_trying(peer(1), 1));
    }
}
