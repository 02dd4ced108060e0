//! The ring of one worker, which stands for all machines of its clients: each has an address of its own, and another
//! port with each transfer. To the server they are as many machines; neither addresses nor sockets of this machine bound
//! their number.
//!
//! An address leads to the client's key, so no table is needed. It must never wait.

use std::net::SocketAddr;

use tftpbench_net::{Flushed, RingReceiver, RingSender, Subnet};

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
        })
    }

    /// Where the client with this key sends from in its so many-th transfer. A late answer to the last one must not reach
    /// it, so a port comes again after 40,000 of them only.
    pub(crate) fn source(&self, key: usize, transfer: u32) -> SocketAddr {
        let place = key * self.share.1 + self.share.0;
        let port = (key.wrapping_mul(PORT_STEP) as u32).wrapping_add(transfer) % PORTS + FIRST_PORT;
        SocketAddr::new(self.machines.address(place as u32), port as u16)
    }

    /// The key of the client that an address belongs or belonged to.
    pub(crate) fn key_at(&self, address: SocketAddr) -> usize {
        self.machines.number(address.ip()) as usize / self.share.1
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) -> std::io::Result<Flushed> {
        self.queued.clear();
        self.sender.flush()
    }
}
