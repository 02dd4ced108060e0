//! What admission and every transfer share while a server runs: its configuration, its counters, the packet log, and
//! whether it is about to stop. Any thread may use it. It must never know a transfer.

use std::io::stderr;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use tftpbench_proto::Malformed;

use crate::config::ServeConfig;
use crate::counters::{Counter, Counters, Summary};
use crate::packet_log::{Direction, PacketLog};

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
