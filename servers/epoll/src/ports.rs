//! The sockets of one worker, and what waits to be sent on them. It must never block.
//!
//! All of them share one batch, which is sent before a datagram of another socket goes in: what is being filled so stays
//! in the cache, and a turn need not look at every socket. Transfers of one shared socket come one after another anyway.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;

use slab::Slab;
use tftpbench_net::{Datagrams, Poller, SendBatch, Socket};
use tftpbench_serve::{Counter, ServeConfig, ServeError, Service, SocketUse, Transfer, reply_socket};

use crate::kernel;

/// The port that requests come to.
pub(crate) const LISTENING: usize = 0;

/// Transfers to a reply socket before the next one is used. Few sockets make large batches; but by default a socket's
/// buffer holds some 500 small datagrams, and each transfer in lock-step may have one waiting.
const TRANSFERS_PER_PORT: usize = 256;

/// More sockets than this would cost more than lost datagrams do.
const PORTS_MAX: usize = 64;

/// Room for a full batch of replies; DATA lie elsewhere.
const ARENA_BYTES: usize = 64 * 1024;

/// Reply sockets that each worker opens at start-up.
pub(crate) fn shared_ports(config: &ServeConfig) -> usize {
    match config.sockets {
        SocketUse::Shared => {
            config.max_transfers.div_ceil(TRANSFERS_PER_PORT).div_ceil(config.workers).clamp(1, PORTS_MAX)
        }
        SocketUse::PerTransfer => 0,
    }
}

/// Every socket of a worker.
pub(crate) struct Ports {
    open: Slab<Port>,
    sockets: SocketUse,
    outbox: SendBatch,
    /// Where the outbox goes.
    sender: usize,
    tally: Tally,
}

struct Port {
    socket: Socket,
    /// How many transfers answer from here.
    transfers: usize,
    /// Several datagrams may be waiting.
    is_busy: bool,
    /// The poller knows it. A shared one becomes known with its first transfer.
    is_watched: bool,
}

/// Counted here and added up at the end: shared counters would travel between the cores with every batch.
#[derive(Default)]
struct Tally {
    datagrams_in: u64,
    datagrams_out: u64,
    datagrams_unsent: u64,
    udp_drops: u64,
}

impl Ports {
    /// Has the poller name each port by its number; `LISTENING` is the listening one's.
    pub(crate) fn open(
        config: &ServeConfig,
        listening: Socket,
        poller: &Poller,
    ) -> Result<Ports, ServeError> {
        let mut ports = Ports {
            open: Slab::new(),
            sockets: config.sockets,
            outbox: SendBatch::new(config.batch, ARENA_BYTES),
            sender: LISTENING,
            tally: Tally::default(),
        };
        ports.add(listening, true, poller).map_err(kernel("epoll_ctl"))?;
        let awaits_windows = config.write && config.limits.windowsize > 1;
        for _ in 0..shared_ports(config) {
            let socket = reply_socket(config, awaits_windows)
                .map_err(|source| ServeError::Bind { address: config.address, source })?;
            ports.open.insert(Port { socket, transfers: 0, is_busy: true, is_watched: false });
        }
        Ok(ports)
    }

    /// None for one that has been closed.
    pub(crate) fn socket(&self, port: usize) -> Option<&Socket> {
        self.open.get(port).map(|port| &port.socket)
    }

    /// Whether several datagrams may be waiting. In lock-step a socket for one transfer alone has one; if a stranger's ever
    /// comes in between, the poller names the socket again.
    pub(crate) fn is_busy(&self, port: usize) -> bool {
        self.open.get(port).is_some_and(|port| port.is_busy)
    }

    /// Whether several transfers answer from it now.
    pub(crate) fn is_shared(&self, port: usize) -> bool {
        self.open.get(port).is_some_and(|port| port.transfers > 1)
    }

    /// All sockets that transfers may share.
    pub(crate) fn shared(&self) -> Range<usize> {
        match self.sockets {
            SocketUse::Shared => LISTENING + 1..self.open.len(),
            SocketUse::PerTransfer => 0..0,
        }
    }

    /// Where a new transfer answers from: the first shared socket that still has room, so that few transfers share large
    /// batches, else the emptiest; or a socket of its own.
    pub(crate) fn assign(
        &mut self,
        config: &ServeConfig,
        transfer: &Transfer,
        poller: &mut Poller,
    ) -> io::Result<usize> {
        let port = match self.sockets {
            SocketUse::Shared => {
                let shared = self.shared();
                let roomy = shared.clone().find(|&port| self.open[port].transfers < TRANSFERS_PER_PORT);
                let emptiest = || shared.min_by_key(|&port| self.open[port].transfers);
                roomy.or_else(emptiest).unwrap_or(LISTENING)
            }
            SocketUse::PerTransfer => {
                let awaits_windows = transfer.awaits_windows();
                self.add(reply_socket(config, awaits_windows)?, awaits_windows, poller)?
            }
        };
        let chosen = &mut self.open[port];
        if !chosen.is_watched {
            poller.add_busy(&chosen.socket, port as u64)?;
            chosen.is_watched = true;
        }
        chosen.transfers += 1;
        Ok(port)
    }

    /// One transfer less answers from a port; a socket that was its own goes, with what waits on it sent.
    pub(crate) fn release(&mut self, port: usize) {
        self.open[port].transfers -= 1;
        if self.sockets == SocketUse::PerTransfer {
            if self.sender == port {
                self.flush();
                self.sender = LISTENING;
            }
            self.tally.udp_drops += self.open.remove(port).socket.drops();
        }
    }

    /// Puts what a transfer has to say into the batch; false if that was too much for one turn and there is more.
    pub(crate) fn drain(&mut self, port: usize, transfer: &mut Transfer, now_ns: u64) -> bool {
        self.send_from(port);
        let (peer, room) = (transfer.peer(), transfer.room_bytes());
        let mut budget = transfer.slice_datagrams();
        let mut drained = false;
        while !drained && budget > 0 {
            let pushed = self.outbox.push_with(peer, room, |datagram| {
                let next = transfer.poll_transmit(now_ns, datagram);
                drained = next.is_none();
                let next = next.unwrap_or(Datagrams::NONE);
                budget = budget.saturating_sub(next.count());
                next
            });
            if !pushed {
                self.flush();
            }
        }
        drained
    }

    /// Puts one datagram into the batch; `fill` returns its length, 0 for none.
    pub(crate) fn reply(
        &mut self,
        port: usize,
        peer: SocketAddr,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        self.send_from(port);
        let mut fill = Some(fill);
        while !self.outbox.push(peer, room, |datagram| fill.take().map_or(0, |fill| fill(datagram))) {
            self.flush();
        }
    }

    pub(crate) fn flush(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        // What could not be sent counts as lost; the protocol sends it again.
        if let Ok(flushed) = self.outbox.flush(&self.open[self.sender].socket) {
            self.tally.datagrams_out += flushed.sent as u64;
            self.tally.datagrams_unsent += flushed.unsent as u64;
        }
    }

    pub(crate) fn count_received(&mut self, datagrams: usize) {
        self.tally.datagrams_in += datagrams as u64;
    }

    /// At the end of a worker.
    pub(crate) fn count(&self, service: &Service) {
        let drops = self.open.iter().map(|(_, port)| port.socket.drops()).sum::<u64>();
        service.count(Counter::DatagramsIn, self.tally.datagrams_in);
        service.count(Counter::DatagramsOut, self.tally.datagrams_out);
        service.count(Counter::DatagramsUnsent, self.tally.datagrams_unsent);
        service.count(Counter::UdpDrops, self.tally.udp_drops + drops);
    }

    fn add(&mut self, socket: Socket, is_busy: bool, poller: &Poller) -> io::Result<usize> {
        poller.add(&socket, self.open.vacant_key() as u64)?;
        Ok(self.open.insert(Port { socket, transfers: 0, is_busy, is_watched: true }))
    }

    fn send_from(&mut self, port: usize) {
        if self.sender != port {
            self.flush();
            self.sender = port;
        }
    }
}
