//! The ring of one worker, which stands for all machines of its clients: each has an address of its own, and another
//! port with each transfer. To the server they are as many machines; neither addresses nor sockets of this machine bound
//! their number.
//!
//! An address leads to the client's key, so no table is needed. A machine that boots keeps its address for all its
//! requests, and the next one at its place has another. It must never wait.

use std::net::SocketAddr;

use tftpbench_net::{Flushed, LocalAddress, RingReceiver, RingSender, Subnet};

use crate::config::{DALLYING_MAX, LoadConfig};
use crate::load_error::LoadError;

/// Packet sockets of one worker: one to receive, one to send.
pub(crate) const SOCKETS: usize = 2;
/// Ports of machines: as wide a range as Linux clients have, ip(7), and none that a server listens on.
const FIRST_PORT: u32 = 20_000;
const PORTS: u32 = 40_000;
/// Machines do not all begin with the same port: neighbours are so far apart.
const PORT_STEP: usize = 7_919;
/// Frames that may wait for each client in flight, and at least: in lock-step it is one, and more where a server sends
/// again. Beyond that the kernel drops.
const WAITING_EACH: usize = 2;
const WAITING_MIN: usize = 512;
const WAITING_MAX: usize = 1 << 17;

/// What a worker sends by, until it starts what it receives by, too.
pub(crate) struct Ring {
    pub(crate) sender: RingSender,
    pub(crate) receiver: Option<RingReceiver>,
    /// Keys of the clients with a datagram that waits, whose stamp is taken just before it is sent.
    pub(crate) queued: Vec<usize>,
    machines: Subnet,
    /// Which worker of how many: machines are dealt out to them in turn.
    share: (usize, usize),
    /// Places of all workers: machines that boot at one place, one after the other, are so far apart.
    places: usize,
}

impl Ring {
    /// The ring of this worker.
    pub(crate) fn open(config: &LoadConfig, worker: usize) -> Result<Ring, LoadError> {
        let network = config.network.as_ref().and_then(|network| Some((network.link.as_ref()?, network)));
        let Some((link, network)) = network else {
            return Err(LoadError::Config("sockets: a ring needs a network of its own".into()));
        };
        let (machines, share) = (network.machines, (worker, config.workers));
        let in_flight = config.machines_max().saturating_add(DALLYING_MAX.min(config.machines_max()));
        let waiting = in_flight.saturating_mul(WAITING_EACH).clamp(WAITING_MIN, WAITING_MAX);
        let bytes = config.datagram_bytes_max();
        // One byte more, so that a block that is too long is seen to be.
        let receiver = RingReceiver::open(link, machines, share, waiting, bytes + 1)
            .map_err(LoadError::os("cannot open a ring to receive by"))?;
        let sender = RingSender::open(link, machines.base(), bytes)
            .map_err(LoadError::os("cannot open a ring to send by"))?;
        Ok(Ring {
            sender,
            receiver: Some(receiver),
            queued: Vec::with_capacity(RingSender::QUEUE_MAX),
            machines,
            share,
            places: config.ring_places(),
        })
    }

    /// Where the client with this key sends from in its so many-th transfer. A late answer to the last one must not reach
    /// it, so a port comes again after 40,000 of them only.
    pub(crate) fn source(&self, key: usize, transfer: u32) -> SocketAddr {
        SocketAddr::new(self.machines.address(self.place(key) as u32), port(key, transfer))
    }

    /// The address of the so many-th machine that boots at this key: it has it for itself, until the network has no more
    /// of them.
    pub(crate) fn machine_source(&self, key: usize, machine: u32) -> LocalAddress {
        let turns = (self.machines.machines_max() / self.places as u64).max(1);
        let number = u64::from(machine) % turns * self.places as u64 + self.place(key) as u64;
        self.machines.address(number as u32).into()
    }

    /// Where that machine sends its so many-th request from.
    pub(crate) fn source_of_machine(&self, key: usize, machine: LocalAddress, request: u64) -> SocketAddr {
        machine.with_port(port(key, request as u32))
    }

    /// The key of the client that an address belongs or belonged to.
    pub(crate) fn key_at(&self, address: SocketAddr) -> usize {
        self.machines.number(address.ip()) as usize % self.places / self.share.1
    }

    fn place(&self, key: usize) -> usize {
        key * self.share.1 + self.share.0
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) -> std::io::Result<Flushed> {
        self.queued.clear();
        self.sender.flush()
    }
}

fn port(key: usize, transfer: u32) -> u16 {
    ((key.wrapping_mul(PORT_STEP) as u32).wrapping_add(transfer) % PORTS + FIRST_PORT) as u16
}
