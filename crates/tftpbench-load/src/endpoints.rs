//! What a worker's clients send through: shared sockets for all of them, a socket for each, or a ring.
//!
//! Opened before the start, so that opening is not measured; sockets beyond the first ones are opened as transfers
//! need them. Knows nothing of transfers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tftpbench_net::{LocalAddress, Socket, SocketOptions, SocketSource, Subnet, low_bits};
use tftpbench_proto::{HEADER_LEN, Operation};

use crate::booting::Booting;
use crate::config::{Arrivals, LoadConfig, Sockets};
use crate::load_error::LoadError;
use crate::ring::Ring;
use crate::shared_socket::{self, SharedSocket};

/// Sockets that an open loop has at the start: opened in some milliseconds, and enough for its first second or so.
const FIRST_SOCKETS: usize = 1024;

/// What a client sends through.
pub(crate) enum Via {
    /// A socket of its own.
    Own(Socket),
    /// A shared one, from an address of its own.
    Shared {
        /// Which shared socket.
        index: usize,
        /// The client's key, for the stamp at the shared socket's flush.
        key: usize,
        /// Its address.
        source: LocalAddress,
    },
    /// The worker's ring, from an address and port of its own.
    Ring {
        /// The client's key, for the stamp at the ring's flush.
        key: usize,
        /// Its address and port.
        source: SocketAddr,
    },
}

impl Via {
    /// The socket of its own, if it has one.
    pub(crate) fn own_socket(&self) -> Option<&Socket> {
        match self {
            Via::Own(socket) => Some(socket),
            Via::Shared { .. } | Via::Ring { .. } => None,
        }
    }

    /// Nothing, of a transfer that is over: what comes late finds no client.
    pub(crate) fn gone(key: usize) -> Via {
        Via::Shared { index: usize::MAX, key, source: Ipv4Addr::UNSPECIFIED.into() }
    }
}

pub(crate) struct Endpoints {
    /// Shared sockets; none where each transfer has its own.
    pub(crate) shared: Vec<SharedSocket>,
    /// Where there is one, nothing else is used.
    pub(crate) ring: Option<Ring>,
    /// Sockets for the first transfers, and how more of them are opened.
    spare: Vec<Socket>,
    own: OwnSockets,
    machines: Subnet,
    /// Transfers so far at each key, for addresses that do not come again soon.
    uses: Vec<u32>,
    /// Of an address: the bits that are the place, and what leads from that to the key at each shared socket: its own
    /// first key, and the distance of two. All sockets have the same machines.
    place_bits: u32,
    place_mask: u32,
    first_keys: Vec<usize>,
    stride: usize,
}

/// Shared sockets of machines at least: so many requests later a machine's port comes again.
const MACHINE_PORTS: usize = 4;

impl Endpoints {
    /// All that the first `slots` transfers need; of an open loop's, which may never be so many, that the first ones do.
    pub(crate) fn open(config: &LoadConfig, worker: usize, slots: usize) -> Result<Endpoints, LoadError> {
        let (mut shared, mut spare): (Vec<SharedSocket>, _) = (Vec::new(), Vec::new());
        let (mut own, mut ring) = (OwnSockets::new(config, worker), None);
        match config.sockets {
            Sockets::Ring => ring = Some(Ring::open(config, worker)?),
            Sockets::PerTransfer => {
                let first = match &config.arrivals {
                    Arrivals::ClosedLoop { .. } => slots,
                    Arrivals::OpenLoop { .. } => slots.min(FIRST_SOCKETS),
                };
                spare = (0..first).map(|_| own.open()).collect::<Result<_, _>>()?;
            }
            Sockets::Shared => {
                let (waiting, waiting_bytes) = match config.does(Operation::Read) {
                    true => (config.windowsize_max(), config.datagram_bytes_max()),
                    false => (1, HEADER_LEN),
                };
                let open = || {
                    SharedSocket::open(config).map_err(LoadError::os("cannot open a shared client socket"))
                };
                shared.push(open()?);
                let buffer_bytes = shared[0].socket.granted_receive_buffer_bytes();
                let count = shared_socket::count(slots, waiting, waiting_bytes, buffer_bytes);
                let least = if config.boots.is_some() { MACHINE_PORTS } else { 1 };
                for _ in 1..count.max(least) {
                    shared.push(open()?);
                }
            }
        }
        let (stride, place_bits, first_keys) = match config.boots {
            None => (shared.len(), shared_socket::PLACE_BITS, (0..shared.len()).collect()),
            // A machine has its place among those of all workers, whichever socket it sends through.
            Some(_) => {
                let first = 0_usize.wrapping_sub(worker * config.machines_max());
                (1, config.machine_place_bits(), vec![first; shared.len()])
            }
        };
        let place_mask = shared_socket::place_mask(place_bits);
        Ok(Endpoints {
            shared,
            ring,
            spare,
            own,
            machines: shared_socket::machines(config).1,
            uses: Vec::new(),
            place_bits,
            place_mask,
            first_keys,
            stride,
        })
    }

    /// The socket that the first transfer sends through, before it has started.
    pub(crate) fn first(&self) -> Option<&Socket> {
        self.shared.first().map(|shared_socket| &shared_socket.socket).or(self.spare.last())
    }

    /// What the next client, whose key will be `key`, sends through.
    pub(crate) fn next(&mut self, key: usize) -> Result<Via, LoadError> {
        let transfer = self.ring.is_some().then(|| self.use_of(key));
        if let (Some(ring), Some(transfer)) = (&self.ring, transfer) {
            return Ok(Via::Ring { key, source: ring.source(key, transfer) });
        }
        if self.shared.is_empty() {
            return self.own();
        }
        let (index, place) = (key % self.shared.len(), key / self.shared.len());
        let source = self.address(place, key)?;
        Ok(Via::Shared { index, key, source })
    }

    /// The address of the next machine whose clients will have this key; any where each request has a socket of its own.
    pub(crate) fn machine_source(&mut self, key: usize) -> Result<LocalAddress, LoadError> {
        let machine = self.ring.is_some().then(|| self.use_of(key));
        if let (Some(ring), Some(machine)) = (&self.ring, machine) {
            return Ok(ring.machine_source(key, machine));
        }
        match self.first_keys.first() {
            Some(first) => self.address(key.wrapping_sub(*first), key),
            None => Ok(Ipv4Addr::UNSPECIFIED.into()),
        }
    }

    /// What a machine's next request goes through: its own address, and another port than the last one's.
    pub(crate) fn next_of_machine(&mut self, key: usize, booting: &Booting) -> Result<Via, LoadError> {
        if let Some(ring) = &self.ring {
            let source = ring.source_of_machine(key, booting.source, booting.requests);
            return Ok(Via::Ring { key, source });
        }
        if self.shared.is_empty() {
            return self.own();
        }
        let index = (key + booting.requests as usize) % self.shared.len();
        Ok(Via::Shared { index, key, source: booting.source })
    }

    fn own(&mut self) -> Result<Via, LoadError> {
        self.spare.pop().map_or_else(|| self.own.open(), Ok).map(Via::Own)
    }

    /// An address for the client at this place, another one than its last ones.
    fn address(&mut self, place: usize, key: usize) -> Result<LocalAddress, LoadError> {
        let address = shared_socket::address(self.machines, place, self.use_of(key), self.place_bits);
        address.ok_or_else(|| LoadError::Config("concurrency: too many for shared sockets".into()))
    }

    /// Counts another transfer at this key.
    fn use_of(&mut self, key: usize) -> u32 {
        if self.uses.len() <= key {
            self.uses.resize(key + 1, 0);
        }
        self.uses[key] = self.uses[key].wrapping_add(1);
        self.uses[key]
    }

    /// The key of the client that an address of a shared socket belongs or belonged to.
    pub(crate) fn key_at(&self, shared_socket: usize, address: IpAddr) -> usize {
        let place = (low_bits(address) & self.place_mask) as usize;
        (place * self.stride).wrapping_add(self.first_keys[shared_socket])
    }

    /// Of one of the sockets, all being alike.
    pub(crate) fn granted_receive_buffer_bytes(&self) -> usize {
        let first = self.spare.first().or(self.shared.first().map(|shared_socket| &shared_socket.socket));
        first.map_or(0, Socket::granted_receive_buffer_bytes)
    }

    /// Datagrams that the kernel dropped at the shared sockets; a client counts those at its own socket.
    pub(crate) fn shared_drops(&self) -> u64 {
        self.shared.iter().map(|shared_socket| shared_socket.socket.drops()).sum()
    }
}

/// How a client's own socket is opened.
struct OwnSockets {
    source: SocketSource,
    /// Where it is bound; in a network of its own to the next machine's address.
    local: IpAddr,
    machines: Option<Subnet>,
    opened: u32,
    workers: u32,
    options: SocketOptions,
}

impl OwnSockets {
    fn new(config: &LoadConfig, worker: usize) -> OwnSockets {
        let loopback = config.server.ip().is_loopback();
        let local: IpAddr = match config.server.ip() {
            IpAddr::V4(_) if loopback => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) if loopback => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let send_buffer_bytes = if config.does(Operation::Write) { config.receive_buffer_bytes } else { 0 };
        let options = SocketOptions {
            receive_buffer_bytes: config.receive_buffer_bytes,
            send_buffer_bytes,
            receive_stamps: true,
            receive_coalesced: config.reads_windows(),
            any_source: config.network.is_some(),
            ..SocketOptions::default()
        };
        let machines = config.network.as_ref().map(|network| network.machines);
        let source = shared_socket::machines(config).0;
        OwnSockets { source, local, machines, opened: worker as u32, workers: config.workers as u32, options }
    }

    fn open(&mut self) -> Result<Socket, LoadError> {
        let local = self
            .machines
            .map_or(self.local, |machines| machines.address(self.opened % machines.machines_max() as u32));
        self.opened = self.opened.wrapping_add(self.workers);
        Socket::bind_in(&self.source, SocketAddr::new(local, 0), &self.options)
            .map_err(LoadError::os("cannot open a client socket"))
    }
}
