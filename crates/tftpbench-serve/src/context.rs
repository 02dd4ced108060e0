//! What admission and every transfer share while a server runs: its configuration, its counters, the packet log, and
//! whether it is about to stop. Any thread may use it. It must never know a transfer.
//!
//! Counters only grow; any thread may add. At the end they become a `Summary`, in which
//! transfers_started = transfers_completed + transfers_failed + transfers_timed_out + transfers_interrupted.
//!
//! The packet log is every datagram, decoded and as a hex dump. It exists only when it was asked for, so that a server
//! without it pays one comparison a datagram. Writing it never fails a transfer.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tftpbench_proto::{Decoded, Malformed};

use crate::config::ServeConfig;

pub(crate) struct Context {
    pub(crate) config: ServeConfig,
    counters: Counters,
    log: Option<PacketLog>,
    draining: AtomicBool,
}

impl Context {
    pub(crate) fn new(config: ServeConfig, now_ns: u64) -> Context {
        let log = config.log_packets.then(|| PacketLog::new(Box::new(stderr()), now_ns));
        Context { config, counters: Counters::default(), log, draining: AtomicBool::new(false) }
    }

    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, counter: Counter, count: u64) {
        self.counters.add(counter, count);
    }

    pub(crate) fn count_malformed(&self, malformed: Malformed) {
        self.counters.add_malformed(malformed);
    }

    pub(crate) fn summary(&self) -> Summary {
        self.counters.summary()
    }

    /// One comparison where no log was asked for.
    #[inline]
    pub(crate) fn record(&self, now_ns: u64, direction: Direction, peer: SocketAddr, datagram: &[u8]) {
        if let Some(log) = &self.log {
            log.record(now_ns, direction, peer, datagram);
        }
    }
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    In,
    Out,
}

/// A log that any thread may write; whole datagrams never interleave.
pub(crate) struct PacketLog {
    out: Mutex<Box<dyn Write + Send>>,
    start_ns: u64,
}

impl PacketLog {
    pub(crate) fn new(out: Box<dyn Write + Send>, start_ns: u64) -> PacketLog {
        PacketLog { out: Mutex::new(out), start_ns }
    }

    pub(crate) fn record(&self, now_ns: u64, direction: Direction, peer: SocketAddr, datagram: &[u8]) {
        let text = describe(now_ns.saturating_sub(self.start_ns), direction, peer, datagram);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A closed pipe or a full disk at the log's end is no reason to stop serving.
        let _ = out.write_all(text.as_bytes());
    }
}

/// Seconds since the start, direction, peer and meaning on one line, then sixteen bytes a line.
fn describe(age_ns: u64, direction: Direction, peer: SocketAddr, datagram: &[u8]) -> String {
    let arrow = match direction {
        Direction::In => "<",
        Direction::Out => ">",
    };
    let (seconds, micros) = (age_ns / 1_000_000_000, age_ns / 1_000 % 1_000_000);
    // 16 bytes make a line of 75 characters.
    let mut text = String::with_capacity(128 + datagram.len() * 5);
    let decoded = Decoded(datagram);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{seconds}.{micros:06} {arrow} {peer} {decoded}");
    for (line, bytes) in datagram.chunks(16).enumerate() {
        let _ = write!(text, "  {:04x} ", line * 16);
        for byte in bytes {
            let _ = write!(text, " {byte:02x}");
        }
        text.extend(std::iter::repeat_n(' ', (16 - bytes.len()) * 3 + 2));
        text.extend(bytes.iter().map(|&byte| match byte {
            b' '..=b'~' => char::from(byte),
            _ => '.',
        }));
        text.push('\n');
    }
    text
}

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
    fn a_datagram_is_one_line_of_meaning_and_sixteen_bytes_a_line() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 4242));
        let datagram = [&[0, 3, 0, 7][..], b"sixteen bytes and\n"].concat();
        let text = describe(1_234_567_999, Direction::In, peer, &datagram);
        let expected = "\
1.234567 < 127.0.0.1:4242 DATA block 7, 18 bytes
  0000  00 03 00 07 73 69 78 74 65 65 6e 20 62 79 74 65  ....sixteen byte
  0010  73 20 61 6e 64 0a                                s and.
";
        assert_eq!(text, expected);
        assert!(describe(0, Direction::Out, peer, &[]).starts_with("0.000000 > 127.0.0.1:4242 "));
    }

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
