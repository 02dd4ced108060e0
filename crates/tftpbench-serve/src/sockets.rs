//! The sockets that a server needs and the descriptors that it may use, both set up the same way for every server.
//! Nothing here sends or receives.

use std::io;

use tftpbench_net::{LocalAddress, Socket, SocketOptions, limits};

use crate::config::{ServeConfig, ServeError};

/// Open files that one transfer of a server takes besides its own file, and those that the server takes once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// For each transfer: sockets, mostly.
    pub transfer: u64,
    /// Once.
    pub server: u64,
}

impl Descriptors {
    /// Open files that a server needs at most: its own, and a file for each transfer.
    pub fn needed(self, max_transfers: usize) -> u64 {
        let transfers = (max_transfers as u64).saturating_mul(1 + self.transfer);
        transfers.saturating_add(self.server + PROCESS_DESCRIPTORS)
    }
}

/// Makes room for `max_transfers`, so that the bound that people see is the one that counts.
pub fn raise_open_files(config: &ServeConfig, descriptors: Descriptors) -> Result<(), ServeError> {
    match limits::raise_open_files(descriptors.needed(config.max_transfers)) {
        Ok(_) => Ok(()),
        Err(shortfall) => Err(ServeError::OpenFiles {
            max_transfers: config.max_transfers,
            need: shortfall.need,
            hard: shortfall.hard,
        }),
    }
}

/// The socket that requests come to. Bound to all addresses, it tells which of them was asked: answers come from there.
pub fn listen(config: &ServeConfig) -> Result<Socket, ServeError> {
    Socket::bind(config.address, &options(config))
        .map_err(|source| ServeError::Bind { address: config.address, source })
}

/// As many more sockets as are asked for on the address of the first, which the kernel spreads requests over
/// (SO_REUSEPORT, socket(7)): always to the same one for the same address and port of a client, as long as none is
/// opened or closed. The first was bound alone, so it shares its port with these alone.
pub fn listen_too(config: &ServeConfig, first: &Socket, more: usize) -> Result<Vec<Socket>, ServeError> {
    let address = first.local_addr();
    let share = || {
        if more > 0 {
            first.share_address()?;
        }
        let shared = SocketOptions { reuse_port: true, ..options(config) };
        (0..more).map(|_| Socket::bind(address, &shared)).collect::<io::Result<_>>()
    };
    share().map_err(|source| ServeError::Bind { address, source })
}

/// A socket for replies on a port of its own: the server's TID (RFC 1350 section 4). The kernel picks the port at
/// random (`udp_lib_get_port` in net/ipv4/udp.c, as RFC 6056 asks), from the system's range (ip_local_port_range,
/// ip(7)).
///
/// `asked`: the address that the only transfer's request was sent to, where the listening socket knows it. Without one,
/// the socket answers from any address, as each datagram says. `awaits_windows`: blocks may come many at a time (RFC
/// 7440), and are to be read with a `ReceiveBatch::coalescing`; not with batches off.
pub fn reply_socket(
    config: &ServeConfig,
    asked: Option<LocalAddress>,
    awaits_windows: bool,
) -> io::Result<Socket> {
    let mut options =
        SocketOptions { receive_coalesced: awaits_windows && config.batch > 1, ..options(config) };
    options.packet_info &= asked.is_none();
    let mut any_port = config.address;
    any_port.set_port(0);
    Socket::bind(asked.map_or(any_port, |asked| asked.with_port(0)), &options)
}

/// Standard streams, the root, the poller, and what an interpreter around the server holds open.
const PROCESS_DESCRIPTORS: u64 = 64;

fn options(config: &ServeConfig) -> SocketOptions {
    SocketOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        send_buffer_bytes: config.send_buffer_bytes,
        // Costs control data a datagram, so only where there is more than one address.
        packet_info: config.address.ip().is_unspecified(),
        ..SocketOptions::default()
    }
}
