//! What a worker's clients send through: lanes for all of them, or a socket for each.
//!
//! Opened before the start, so that opening is not measured; sockets beyond the first ones are opened as transfers
//! need them. Knows nothing of transfers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tftpbench_net::{Socket, SocketOptions};
use tftpbench_proto::{BLKSIZE_DEFAULT, HEADER_LEN, Operation, REQUEST_LEN_MAX};

use crate::config::{LoadConfig, LoadError, Sockets};
use crate::lane::{self, Lane};

/// What a client sends through.
pub(crate) enum Via {
    /// A socket of its own.
    Own(Socket),
    /// A shared one, from an address of its own.
    Lane {
        /// Which lane.
        index: usize,
        /// The client's key, for the stamp at the lane's flush.
        key: usize,
        /// Its address.
        source: Ipv4Addr,
    },
}

pub(crate) struct Endpoints {
    /// Shared sockets; none where each transfer has its own.
    pub(crate) lanes: Vec<Lane>,
    /// Sockets for the first transfers.
    spare: Vec<Socket>,
    /// Transfers so far at each key, for addresses that do not come again soon.
    uses: Vec<u32>,
}

impl Endpoints {
    /// All that the first `slots` transfers need.
    pub(crate) fn open(config: &LoadConfig, slots: usize) -> Result<Endpoints, LoadError> {
        let (mut lanes, mut spare): (Vec<Lane>, _) = (Vec::new(), Vec::new());
        match config.sockets {
            Sockets::PerTransfer => {
                spare = (0..slots).map(|_| open_socket(config)).collect::<Result<_, _>>()?;
            }
            Sockets::Shared => {
                let bytes = datagram_bytes_max(config);
                let (waiting, waiting_bytes) = match config.operation {
                    Operation::Read => (config.options.windowsize.unwrap_or(1), bytes),
                    Operation::Write => (1, HEADER_LEN),
                };
                let open = || {
                    Lane::open(config.receive_buffer_bytes, bytes, config.reads_windows())
                        .map_err(LoadError::os("cannot open a shared client socket"))
                };
                lanes.push(open()?);
                let buffer_bytes = lanes[0].socket.granted_receive_buffer_bytes();
                for _ in 1..lane::count(slots, waiting, waiting_bytes, buffer_bytes) {
                    lanes.push(open()?);
                }
            }
        }
        Ok(Endpoints { lanes, spare, uses: Vec::new() })
    }

    /// The socket that the first transfer sends through, before it has started.
    pub(crate) fn first(&self) -> Option<&Socket> {
        self.lanes.first().map(|lane| &lane.socket).or(self.spare.last())
    }

    /// What the next client, whose key will be `key`, sends through.
    pub(crate) fn next(&mut self, config: &LoadConfig, key: usize) -> Result<Via, LoadError> {
        if self.lanes.is_empty() {
            return self.spare.pop().map_or_else(|| open_socket(config), Ok).map(Via::Own);
        }
        if self.uses.len() <= key {
            self.uses.resize(key + 1, 0);
        }
        self.uses[key] = self.uses[key].wrapping_add(1);
        let (index, place) = (key % self.lanes.len(), key / self.lanes.len());
        let source = lane::address(place, self.uses[key]);
        let source =
            source.ok_or_else(|| LoadError::Config("concurrency: too many for shared sockets".into()))?;
        Ok(Via::Lane { index, key, source })
    }

    /// The key of the client that an address of a lane belongs or belonged to.
    pub(crate) fn key_at(&self, lane: usize, address: Ipv4Addr) -> usize {
        lane::place(address) * self.lanes.len() + lane
    }

    /// Of one of the sockets, all being alike.
    pub(crate) fn granted_receive_buffer_bytes(&self) -> usize {
        let first = self.spare.first().or(self.lanes.first().map(|lane| &lane.socket));
        first.map_or(0, Socket::granted_receive_buffer_bytes)
    }

    /// Datagrams that the kernel dropped at the lanes; a client counts those at its own socket.
    pub(crate) fn lane_drops(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.socket.drops()).sum()
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
