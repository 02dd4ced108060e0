//! What admission and every transfer share while a server runs: its configuration, its counters, the packet log, and
//! whether it is about to stop. Any thread may use it. It must never know a transfer.
//!
//! The packet log is every datagram, decoded and as a hex dump. It exists only when it was asked for, so that a server
//! without it pays one comparison a datagram. Writing it never fails a transfer.

use std::fmt::Write as _;
use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tftpbench_proto::{Decoded, Malformed};

use crate::config::ServeConfig;
use crate::counters::{Counter, Counters, Summary};

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
}
