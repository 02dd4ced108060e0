//! What a server did, counted. Counters only grow; any thread may add. At the end they become a `Summary`, in which
//! transfers_started = transfers_completed + transfers_failed + transfers_timed_out + transfers_interrupted.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tftpbench_proto::Malformed;

/// The counters at the end of a run, in a fixed order, the kinds of malformed datagrams behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary(pub Vec<(&'static str, u64)>);

impl Summary {
    /// One counter by its name; 0 where nothing of the kind was counted.
    pub fn count(&self, name: &str) -> u64 {
        self.0.iter().find(|(known, _)| *known == name).map_or(0, |(_, count)| *count)
    }
}

/// What is counted. The order is that of `NAMES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Datagrams that parsed as RRQ or WRQ.
    Requests,
    /// Requests answered with an ERROR.
    Refused,
    /// Requests that came again while their transfer was running.
    DuplicateRequests,
    /// Datagrams of no transfer to a broadcast or multicast address, requests above all. They are not answered (RFC
    /// 1123 section 4.2.3.5).
    Broadcasts,
    /// Transfers begun.
    Started,
    /// Transfers whose last block was acknowledged.
    Completed,
    /// Transfers ended by an ERROR of either side.
    Failed,
    /// Transfers whose peer fell silent.
    TimedOut,
    /// Transfers ended by a stop, or by their peer asking for something else.
    Interrupted,
    /// Datagrams of no transfer on a transfer's port.
    Strays,
    /// Our datagrams that were sent again.
    Retransmissions,
    /// Timeouts of all transfers.
    Timeouts,
    /// Datagrams received.
    DatagramsIn,
    /// Datagrams handed to the kernel.
    DatagramsOut,
    /// Datagrams that the kernel did not take; the protocol sends them again.
    DatagramsUnsent,
    /// Datagrams that the kernel dropped at our sockets.
    UdpDrops,
    /// Datagrams that are no TFTP packet.
    Malformed,
}

const NAMES: [&str; 17] = [
    "requests",
    "refused",
    "duplicate_requests",
    "broadcast_requests",
    "transfers_started",
    "transfers_completed",
    "transfers_failed",
    "transfers_timed_out",
    "transfers_interrupted",
    "strays",
    "retransmissions",
    "timeouts",
    "datagrams_in",
    "datagrams_out",
    "datagrams_unsent",
    "udp_drops",
    "malformed",
];

/// The growing counters. They change with each transfer, so they share no cache line with what each datagram looks at;
/// 128 bytes, as processors fetch lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    counts: [AtomicU64; NAMES.len()],
    malformed: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counters {
    pub(crate) fn add(&self, counter: Counter, count: u64) {
        self.counts[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn add_malformed(&self, malformed: Malformed) {
        self.add(Counter::Malformed, 1);
        let mut kinds = self.malformed.lock().unwrap_or_else(PoisonError::into_inner);
        *kinds.entry(malformed.kind()).or_default() += 1;
    }

    pub(crate) fn summary(&self) -> Summary {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let mut all: Vec<_> = NAMES.into_iter().zip(counts).collect();
        let kinds = self.malformed.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(kinds.iter().map(|(kind, count)| (*kind, *count)));
        Summary(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_name() {
        let counters = Counters::default();
        counters.add(Counter::Requests, 1);
        counters.add(Counter::Completed, 2);
        counters.add(Counter::UdpDrops, 3);
        counters.add_malformed(Malformed::MailMode);
        counters.add_malformed(Malformed::UnknownOpcode(9));
        counters.add_malformed(Malformed::UnknownOpcode(8));
        let summary = counters.summary();
        let nonzero: Vec<_> = summary.0.iter().copied().filter(|(_, count)| *count > 0).collect();
        let expected = [
            ("requests", 1),
            ("transfers_completed", 2),
            ("udp_drops", 3),
            ("malformed", 3),
            ("mail_mode", 1),
            ("unknown_opcode", 2),
        ];
        assert_eq!(nonzero, expected);
        assert_eq!(Counter::Malformed as usize, NAMES.len() - 1);
    }
}
