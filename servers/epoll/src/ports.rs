//! The sockets of one worker, and what waits to be sent on them. It must never block.
//!
//! All of them share one batch, which is sent before a datagram of another socket goes in: what is being filled so
//! stays in the cache, and a turn need not look at every socket. Transfers of one shared socket come one after another
//! anyway.
//!
//! A shared socket's port is the TID of many transfers, so it must not be one that a client had just before, nor one
//! that can be learnt and used for long (RFC 1350 section 4). So a client is answered from another socket than the last
//! time, and a socket that has been in use for long is *retired*: one on a new random port takes its place, and it is
//! closed as soon as its last transfer has ended. Both are decided when a transfer begins; a block costs nothing more.

use std::io;
use std::net::{IpAddr, SocketAddr};

use slab::Slab;
use tftpbench_net::{LocalAddress, Payload, Poller, SendBatch, Socket};
use tftpbench_serve::{Counter, ServeConfig, ServeError, Service, SocketUse, Transfer, reply_socket};

use crate::table::Recent;

/// The port that requests come to.
pub(crate) const LISTENING: usize = 0;

/// Transfers to a reply socket before the next one is used. Few sockets make large batches; but by default a socket's
/// buffer holds some 500 small datagrams, and each transfer in lock-step may have one waiting.
const TRANSFERS_PER_PORT: usize = 256;

/// The next transfer of a client has another one than its last.
const PORTS_MIN: usize = 2;

/// More sockets than this would cost more than lost datagrams do.
const PORTS_MAX: usize = 64;

/// Transfers that begin on a shared socket before it is retired. A new socket costs some 20 us, so less than 10 ns
/// each.
const TRANSFERS_A_LIFE: u32 = 4096;

/// How long transfers begin on a shared socket before it is retired: longer than a client needs from one file to the
/// next, and shorter than a transfer takes to be given up.
const LIFE_NS: u64 = 10_000_000_000;

/// Room for a full batch of replies; DATA lie elsewhere.
const ARENA_BYTES: usize = 64 * 1024;

/// Reply sockets that each worker opens at start-up.
fn shared_ports(config: &ServeConfig) -> usize {
    let ports = config.max_transfers.div_ceil(TRANSFERS_PER_PORT).div_ceil(config.workers);
    ports.clamp(PORTS_MIN, PORTS_MAX)
}

/// Descriptors of a worker's reply sockets: as many retired ones may still serve, and the poller keeps a few twice.
pub(crate) fn shared_descriptors(config: &ServeConfig) -> usize {
    match config.sockets {
        SocketUse::Shared => 2 * shared_ports(config) + shared_ports(config).min(Poller::BUSY_MAX),
        SocketUse::PerTransfer => 0,
    }
}

/// Every socket of a worker.
pub(crate) struct Ports {
    open: Slab<Port>,
    sockets: SocketUse,
    /// Those that new transfers share; few transfers crowd at the front.
    shared: Vec<usize>,
    /// Shared ones that take no new transfers.
    retired: usize,
    /// Of the last shared one that was opened; 0 is none's.
    last_serial: u32,
    recent: Recent,
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
    /// Tells shared ones apart: numbers of ports are used again.
    serial: u32,
    /// Transfers that have begun here.
    begun: u32,
    /// When the first of them did.
    since_ns: u64,
    is_retired: bool,
}

impl Port {
    fn new(socket: Socket, is_busy: bool, serial: u32) -> Port {
        Port {
            socket,
            transfers: 0,
            is_busy,
            is_watched: false,
            serial,
            begun: 0,
            since_ns: 0,
            is_retired: false,
        }
    }

    fn has_served_long(&self, now_ns: u64) -> bool {
        self.begun >= TRANSFERS_A_LIFE || self.begun > 0 && now_ns.saturating_sub(self.since_ns) >= LIFE_NS
    }
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
            shared: Vec::new(),
            retired: 0,
            last_serial: 0,
            recent: Recent::new(),
            outbox: SendBatch::new(config.batch, ARENA_BYTES),
            sender: LISTENING,
            tally: Tally::default(),
        };
        ports.add(listening, true, poller).map_err(ServeError::kernel("epoll_ctl"))?;
        if config.sockets == SocketUse::Shared {
            for _ in 0..shared_ports(config) {
                let port = ports
                    .open_shared(config)
                    .map_err(|source| ServeError::Bind { address: config.address, source })?;
                ports.shared.push(port);
            }
        }
        Ok(ports)
    }

    /// None for one that has been closed.
    pub(crate) fn socket(&self, port: usize) -> Option<&Socket> {
        self.open.get(port).map(|port| &port.socket)
    }

    /// Whether several datagrams may be waiting. In lock-step a socket for one transfer alone has one; if a stranger's
    /// ever comes in between, the poller names the socket again.
    pub(crate) fn is_busy(&self, port: usize) -> bool {
        self.open.get(port).is_some_and(|port| port.is_busy)
    }

    /// Whether several transfers answer from it now.
    pub(crate) fn is_shared(&self, port: usize) -> bool {
        self.open.get(port).is_some_and(|port| port.transfers > 1)
    }

    /// All sockets that transfers share.
    pub(crate) fn shared(&self) -> impl Iterator<Item = usize> {
        let are_shared = self.sockets == SocketUse::Shared;
        self.open.iter().map(|(port, _)| port).filter(move |port| are_shared && *port != LISTENING)
    }

    /// Where a new transfer answers from: a shared socket, or one of its own; and from which address, where that has
    /// several. `asked`: the address that the request was sent to, where that is known.
    pub(crate) fn assign(
        &mut self,
        config: &ServeConfig,
        transfer: &Transfer,
        asked: Option<LocalAddress>,
        now_ns: u64,
        poller: &mut Poller,
    ) -> io::Result<(usize, Option<LocalAddress>)> {
        if self.sockets == SocketUse::PerTransfer {
            let awaits_windows = transfer.awaits_windows();
            let port = self.add(reply_socket(config, asked, awaits_windows)?, awaits_windows, poller)?;
            self.open[port].transfers += 1;
            return Ok((port, None));
        }
        let port = self.share(config, transfer.peer().ip(), now_ns, poller)?;
        Ok((port, asked))
    }

    /// One transfer less answers from a port; a socket that is not needed any more goes, with what waits on it sent.
    pub(crate) fn release(&mut self, port: usize) {
        self.open[port].transfers -= 1;
        let is_retired = self.open[port].is_retired && self.open[port].transfers == 0;
        self.retired -= usize::from(is_retired);
        if is_retired || self.sockets == SocketUse::PerTransfer {
            self.close(port);
        }
    }

    /// Puts what a transfer has to say into the batch; false if that was too much for one turn and there is more.
    pub(crate) fn drain(
        &mut self,
        port: usize,
        source: Option<LocalAddress>,
        transfer: &mut Transfer,
        now_ns: u64,
    ) -> bool {
        self.send_from(port);
        let (peer, room) = (transfer.peer(), transfer.room_bytes());
        let mut budget = transfer.slice_datagrams();
        let mut drained = false;
        while !drained && budget > 0 {
            let pushed = self.outbox.push_with(source, peer, room, |datagram| {
                let next = transfer.poll_transmit(now_ns, datagram);
                drained = next.is_none();
                let next = next.unwrap_or(Payload::NONE);
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
        source: Option<LocalAddress>,
        peer: SocketAddr,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        self.send_from(port);
        let mut fill = Some(fill);
        let mut once = |datagram: &mut [u8]| fill.take().map_or(0, |fill| fill(datagram));
        while !self.outbox.push_from(source, peer, room, &mut once) {
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

    /// The first shared socket that still has room, so that few transfers make large batches, else the emptiest; but
    /// not the one that this client had last.
    fn share(
        &mut self,
        config: &ServeConfig,
        client: IpAddr,
        now_ns: u64,
        poller: &mut Poller,
    ) -> io::Result<usize> {
        let last = *self.recent.serial(client);
        let places = (0..self.shared.len()).filter(|&place| self.open[self.shared[place]].serial != last);
        let transfers_at = |place: &usize| self.open[self.shared[*place]].transfers;
        let roomy = places.clone().find(|place| transfers_at(place) < TRANSFERS_PER_PORT);
        let place = roomy.or_else(|| places.min_by_key(transfers_at)).unwrap_or(0);
        if self.open[self.shared[place]].has_served_long(now_ns) {
            self.renew(config, place, poller)?;
        }
        let port = self.shared[place];
        let chosen = &mut self.open[port];
        if !chosen.is_watched {
            poller.add_busy(&chosen.socket, port as u64)?;
            chosen.is_watched = true;
        }
        if chosen.begun == 0 {
            chosen.since_ns = now_ns;
        }
        chosen.begun += 1;
        chosen.transfers += 1;
        *self.recent.serial(client) = chosen.serial;
        Ok(port)
    }

    /// Retires the shared socket at this place and puts a new one there. Not while as many retired ones still serve as
    /// others are in use, so that long transfers do not end up with small batches; and not without a new one.
    fn renew(&mut self, config: &ServeConfig, place: usize, poller: &mut Poller) -> io::Result<()> {
        let in_use = self.shared.iter().filter(|&&port| self.open[port].transfers > 0).count();
        if self.retired >= in_use.max(PORTS_MIN) {
            return Ok(());
        }
        let Ok(new) = self.open_shared(config) else { return Ok(()) };
        let old = std::mem::replace(&mut self.shared[place], new);
        // The few places among the busy ones are for those that take new transfers.
        let was_busy = poller.remove_busy(old as u64);
        if self.open[old].transfers == 0 {
            self.close(old);
            return Ok(());
        }
        self.open[old].is_retired = true;
        self.retired += 1;
        if was_busy { poller.add(&self.open[old].socket, old as u64) } else { Ok(()) }
    }

    fn open_shared(&mut self, config: &ServeConfig) -> io::Result<usize> {
        let awaits_windows = config.write && config.limits.windowsize > 1;
        let socket = reply_socket(config, None, awaits_windows)?;
        // 0 is for clients that are not known.
        self.last_serial = self.last_serial.wrapping_add(1).max(1);
        Ok(self.open.insert(Port::new(socket, true, self.last_serial)))
    }

    fn close(&mut self, port: usize) {
        if self.sender == port {
            self.flush();
            self.sender = LISTENING;
        }
        self.tally.udp_drops += self.open.remove(port).socket.drops();
    }

    fn add(&mut self, socket: Socket, is_busy: bool, poller: &Poller) -> io::Result<usize> {
        poller.add(&socket, self.open.vacant_key() as u64)?;
        let port = Port { is_watched: true, ..Port::new(socket, is_busy, 0) };
        Ok(self.open.insert(port))
    }

    fn send_from(&mut self, port: usize) {
        if self.sender != port {
            self.flush();
            self.sender = port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tftpbench_net::SocketOptions;

    #[test]
    fn a_shared_socket_has_served_long_after_some_thousand_transfers_or_some_seconds() {
        let socket = Socket::bind(([127, 0, 0, 1], 0).into(), &SocketOptions::default()).unwrap();
        let mut port = Port::new(socket, true, 1);
        assert!(!port.has_served_long(u64::MAX), "it was never used");
        (port.begun, port.since_ns) = (1, 5);
        assert_eq!([LIFE_NS + 4, LIFE_NS + 5].map(|now_ns| port.has_served_long(now_ns)), [false, true]);
        port.begun = TRANSFERS_A_LIFE;
        assert!(port.has_served_long(5));
    }
}
