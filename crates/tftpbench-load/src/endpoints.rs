//! What a worker's clients send through: shared sockets for all of them, or a socket for each.
//!
//! Opened before the start, so that opening is not measured; sockets beyond the first ones are opened as transfers
//! need them. Knows nothing of transfers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tftpbench_net::{Socket, SocketOptions};
use tftpbench_proto::{BLKSIZE_DEFAULT, HEADER_LEN, Operation, REQUEST_LEN_MAX};

use crate::config::{Arrivals, LoadConfig, LoadError, Sockets};
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
        source: Ipv4Addr,
    },
}

pub(crate) struct Endpoints {
    /// Shared sockets; none where each transfer has its own.
    pub(crate) shared: Vec<SharedSocket>,
    /// Sockets for the first transfers.
    spare: Vec<Socket>,
    /// Transfers so far at each key, for addresses that do not come again soon.
    uses: Vec<u32>,
}

impl Endpoints {
    /// All that the first `slots` transfers need; of an open loop's, which may never be so many, that the first ones do.
    pub(crate) fn open(config: &LoadConfig, slots: usize) -> Result<Endpoints, LoadError> {
        let (mut shared, mut spare): (Vec<SharedSocket>, _) = (Vec::new(), Vec::new());
        match config.sockets {
            Sockets::PerTransfer => {
                let first = match &config.arrivals {
                    Arrivals::ClosedLoop { .. } => slots,
                    Arrivals::OpenLoop { .. } => slots.min(FIRST_SOCKETS),
                };
                spare = (0..first).map(|_| open_socket(config)).collect::<Result<_, _>>()?;
            }
            Sockets::Shared => {
                let bytes = datagram_bytes_max(config);
                let (waiting, waiting_bytes) = match config.operation {
                    Operation::Read => (config.options.windowsize.unwrap_or(1), bytes),
                    Operation::Write => (1, HEADER_LEN),
                };
                let open = || {
                    SharedSocket::open(config.receive_buffer_bytes, bytes, config.reads_windows())
                        .map_err(LoadError::os("cannot open a shared client socket"))
                };
                shared.push(open()?);
                let buffer_bytes = shared[0].socket.granted_receive_buffer_bytes();
                for _ in 1..shared_socket::count(slots, waiting, waiting_bytes, buffer_bytes) {
                    shared.push(open()?);
                }
            }
        }
        Ok(Endpoints { shared, spare, uses: Vec::new() })
    }

    /// The socket that the first transfer sends through, before it has started.
    pub(crate) fn first(&self) -> Option<&Socket> {
        self.shared.first().map(|shared_socket| &shared_socket.socket).or(self.spare.last())
    }

    /// What the next client, whose key will be `key`, sends through.
    pub(crate) fn next(&mut self, config: &LoadConfig, key: usize) -> Result<Via, LoadError> {
        if self.shared.is_empty() {
            return self.spare.pop().map_or_else(|| open_socket(config), Ok).map(Via::Own);
        }
        if self.uses.len() <= key {
            self.uses.resize(key + 1, 0);
        }
        self.uses[key] = self.uses[key].wrapping_add(1);
        let (index, place) = (key % self.shared.len(), key / self.shared.len());
        let source = shared_socket::address(place, self.uses[key]);
        let source =
            source.ok_or_else(|| LoadError::Config("concurrency: too many for shared sockets".into()))?;
        Ok(Via::Shared { index, key, source })
    }

    /// The key of the client that an address of a shared socket belongs or belonged to.
    pub(crate) fn key_at(&self, shared_socket: usize, address: Ipv4Addr) -> usize {
        shared_socket::place(address) * self.shared.len() + shared_socket
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

/// The longest datagram of a run that keeps to its options.
pub(crate) fn datagram_bytes_max(config: &LoadConfig) -> usize {
    REQUEST_LEN_MAX.max(HEADER_LEN + usize::from(config.options.blksize.unwrap_or(0).max(BLKSIZE_DEFAULT)))
}

fn open_socket(config: &LoadConfig) -> Result<Socket, LoadError> {
    let loopback = config.server.ip().is_loopback();
    let local: IpAddr = match config.server.ip() {
        IpAddr::V4(_) if loopback => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) if loopback => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let send_buffer_bytes = match config.operation {
        Operation::Read => 0,
        Operation::Write => config.receive_buffer_bytes,
    };
    let options = SocketOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        send_buffer_bytes,
        receive_stamps: true,
        receive_coalesced: config.reads_windows(),
        ..SocketOptions::default()
    };
    Socket::bind(SocketAddr::new(local, 0), &options).map_err(LoadError::os("cannot open a client socket"))
}
