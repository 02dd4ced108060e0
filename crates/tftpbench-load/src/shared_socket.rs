//! One socket that many virtual clients share, each with a source address of its own.
//!
//! On loopback every address of 127.0.0.0/8 is this machine's, so one wildcard socket can send from, and hear for, any
//! of them (IP_PKTINFO, ip(7)). To the server each client is a peer of its own, as with a socket per client;
//! but datagrams of many clients leave and arrive in one system call. Only loopback over IPv4 can do this, or a network
//! of its own, where a route calls all addresses of machines local.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tftpbench_net::{Flushed, LocalAddress, SendBatch, Socket, SocketOptions, SocketSource, Subnet};

use crate::config::{DALLYING_MAX, LoadConfig};

/// Clients have addresses in 127.128.0.0/9: 11 bits for the place at the socket, 12 bits to tell
/// transfers apart.
const ON_LOOPBACK: Subnet = Subnet::new(IpAddr::V4(Ipv4Addr::new(127, 128, 0, 0)), ADDRESS_BITS);
pub(crate) const PLACE_BITS: u32 = 11;
/// As many of a larger network are used.
const ADDRESS_BITS: u32 = 23;
/// What may wait in one receive buffer, as a part of it: the rest is for bursts and for what is sent again.
const WAITING_PART: usize = 3;
/// What the kernel charges for a datagram beside its bytes: headers and shared info, rounded up to a power of two
/// together with them, and its descriptor (truesize in linux/skbuff.h). 516 bytes count as 1280.
const BESIDE_BYTES: usize = 448;
const DESCRIPTOR_BYTES: usize = 256;
/// What is asked for on a shared socket unless the user says otherwise; the kernel grants up to net.core.rmem_max.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;
pub(crate) const SHARED_SOCKETS_MAX: usize = 512;
const SEND_MESSAGES: usize = 64;

/// One shared socket, and what is queued on it.
pub(crate) struct SharedSocket {
    pub(crate) socket: Socket,
    pub(crate) batch: SendBatch,
    /// Keys of the clients with a datagram in the batch, whose stamp is taken just before it is sent.
    pub(crate) queued: Vec<usize>,
}

impl SharedSocket {
    /// A shared socket for what this run asks for.
    pub(crate) fn open(config: &LoadConfig) -> io::Result<SharedSocket> {
        let datagram_bytes = config.datagram_bytes_max();
        let buffer_bytes = match config.receive_buffer_bytes {
            0 => RECEIVE_BUFFER_BYTES,
            asked => asked,
        };
        let (source, machines) = machines(config);
        let options = SocketOptions {
            receive_buffer_bytes: buffer_bytes,
            send_buffer_bytes: buffer_bytes,
            receive_stamps: true,
            packet_info: true,
            any_source: config.network.is_some(),
            receive_coalesced: config.reads_windows(),
            ..SocketOptions::default()
        };
        let any: IpAddr = match machines.base() {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Ok(SharedSocket {
            socket: Socket::bind_in(&source, SocketAddr::new(any, 0), &options)?,
            batch: SendBatch::new(SEND_MESSAGES, SEND_MESSAGES * datagram_bytes),
            queued: Vec::with_capacity(SEND_MESSAGES),
        })
    }

    /// Notes whose datagram was queued last; a window is noted once.
    pub(crate) fn note_queued(&mut self, key: usize) {
        if self.queued.last() != Some(&key) {
            self.queued.push(key);
        }
    }

    /// Sends what is queued.
    pub(crate) fn flush(&mut self) -> io::Result<Flushed> {
        self.queued.clear();
        self.batch.flush(&self.socket)
    }
}

/// Where the sockets of a run are opened, and the network that its clients have their addresses in.
pub(crate) fn machines(config: &LoadConfig) -> (SocketSource, Subnet) {
    let own = config.network.as_ref().map(|network| (network.source.clone(), network.machines));
    own.unwrap_or((SocketSource::Here, ON_LOOPBACK))
}

/// How many sockets keep `slots` clients, for each of which up to `waiting` datagrams of `datagram_bytes` may arrive at
/// once, from overrunning receive buffers of `buffer_bytes`. As few as can be: more clients to a socket make larger
/// batches.
pub(crate) fn count(slots: usize, waiting: u16, datagram_bytes: usize, buffer_bytes: usize) -> usize {
    let charged = (datagram_bytes + BESIDE_BYTES).next_power_of_two() + DESCRIPTOR_BYTES;
    let waiting_bytes = slots.saturating_mul(usize::from(waiting)).saturating_mul(charged);
    let by_bytes = waiting_bytes.div_ceil((buffer_bytes / WAITING_PART).max(1));
    let by_places = slots.saturating_add(DALLYING_MAX).div_ceil(1 << PLACE_BITS);
    by_bytes.max(by_places).clamp(1, SHARED_SOCKETS_MAX)
}

/// The source address of the client at `place` of its socket. `generation` counts the transfers at that place: a late
/// answer to one of them must not reach the next, so an address comes again after 4,096 of them only.
/// So with 11 bits for the place; the more bits that has, the fewer are left for generations.
pub(crate) fn address(
    machines: Subnet,
    place: usize,
    generation: u32,
    place_bits: u32,
) -> Option<LocalAddress> {
    let place = u32::try_from(place).ok().filter(|place| *place < 1 << place_bits)?;
    let generations = 1 << machines.host_bits().min(ADDRESS_BITS).checked_sub(place_bits)?;
    Some(machines.at((generation % generations) << place_bits | place).into())
}

/// The bits of an address that are its place; the client there may have another one by now.
pub(crate) fn place_mask(place_bits: u32) -> u32 {
    (1 << place_bits) - 1
}

#[cfg(test)]
mod tests {
    use tftpbench_net::low_bits;

    use super::*;

    #[test]
    fn addresses_are_loopback_and_lead_back_to_their_place() {
        for (at, generation) in [(0, 0), (1, 1), (2_047, 4_095), (99, 4_096), (5, u32::MAX)] {
            let source = address(ON_LOOPBACK, at, generation, PLACE_BITS).unwrap().ip();
            assert!(source.is_loopback(), "{source}");
            assert_eq!((low_bits(source) & place_mask(PLACE_BITS)) as usize, at);
        }
        assert_eq!(address(ON_LOOPBACK, 2_048, 0, PLACE_BITS), None);
    }

    #[test]
    fn many_machines_leave_fewer_bits_to_tell_boots_apart_but_some() {
        let of = |place, generation| Some(address(ON_LOOPBACK, place, generation, 20)?.ip());
        let last: IpAddr = Ipv4Addr::new(127, 255, 255, 255).into();
        assert_eq!((of((1 << 20) - 1, 7), of(1 << 20, 0)), (Some(last), None));
        assert_ne!(of(5, 0), of(5, 7));
    }

    #[test]
    fn the_next_transfer_at_a_place_has_another_address() {
        let of = |generation| address(ON_LOOPBACK, 7, generation, PLACE_BITS);
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn in_a_small_network_there_are_fewer_transfers_until_an_address_comes_again_or_no_place() {
        let small: Subnet = "fd00::/116".parse().unwrap();
        assert_ne!(address(small, 7, 0, PLACE_BITS), address(small, 7, 1, PLACE_BITS));
        assert_eq!(address(small, 7, 0, PLACE_BITS), address(small, 7, 2, PLACE_BITS));
        assert_eq!(address(small, 7, 0, 20), None);
    }

    #[test]
    fn sockets_grow_with_what_can_be_waiting() {
        let usual = 212_992;
        let blocks_of_512 =
            [(1, 1), (100, 1), (1_000, 1), (10, 64)].map(|(slots, window)| count(slots, window, 516, usual));
        assert_eq!(blocks_of_512, [1, 2, 19, 12]);
        assert_eq!([count(10, 1, 4, usual), count(10, 1, 65_468, usual)], [1, 19]);
        assert_eq!(count(1_000, 1, 516, 8 << 20), 1);
        assert_eq!(count(usize::MAX, u16::MAX, 65_468, 0), SHARED_SOCKETS_MAX);
    }

    #[test]
    fn every_client_has_a_place_and_so_has_every_one_that_dallies() {
        for slots in [1, 1_024, 1_025, 10_000, 100_000] {
            assert!(count(slots, 1, 4, usize::MAX) << PLACE_BITS >= slots + DALLYING_MAX, "{slots}");
        }
    }
}
