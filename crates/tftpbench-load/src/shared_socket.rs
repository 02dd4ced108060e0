//! One socket that many virtual clients share, each with a source address of its own.
//!
//! On loopback every address of 127.0.0.0/8 is this machine's, so one wildcard socket can send from, and hear for, any
//! of them (IP_PKTINFO, ip(7)). To the server each client is a peer of its own, as with a socket per client;
//! but datagrams of many clients leave and arrive in one system call. Only loopback over IPv4 can do this.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tftpbench_net::{Flushed, SendBatch, Socket, SocketOptions};

use crate::config::DALLYING_MAX;

/// Clients have addresses in 127.128.0.0/9: 11 bits for the place at the socket, 12 bits to tell
/// transfers apart.
const BASE: u32 = 0x7f80_0000;
pub(crate) const PLACE_BITS: u32 = 11;
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
    /// A shared socket for datagrams of up to `datagram_bytes`, which may arrive as windows.
    pub(crate) fn open(
        receive_buffer_bytes: usize,
        datagram_bytes: usize,
        reads_windows: bool,
    ) -> io::Result<SharedSocket> {
        let buffer_bytes =
            if receive_buffer_bytes == 0 { RECEIVE_BUFFER_BYTES } else { receive_buffer_bytes };
        let options = SocketOptions {
            receive_buffer_bytes: buffer_bytes,
            send_buffer_bytes: buffer_bytes,
            receive_stamps: true,
            packet_info: true,
            receive_coalesced: reads_windows,
            ..SocketOptions::default()
        };
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        Ok(SharedSocket {
            socket: Socket::bind(any, &options)?,
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
pub(crate) fn address(place: usize, generation: u32, place_bits: u32) -> Option<Ipv4Addr> {
    let place = u32::try_from(place).ok().filter(|place| *place < 1 << place_bits)?;
    let generations = 1 << (ADDRESS_BITS - place_bits);
    Some(Ipv4Addr::from(BASE | (generation % generations) << place_bits | place))
}

/// The bits of an address that are its place; the client there may have another one by now.
pub(crate) fn place_mask(place_bits: u32) -> u32 {
    (1 << place_bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_loopback_and_lead_back_to_their_place() {
        for (at, generation) in [(0, 0), (1, 1), (2_047, 4_095), (99, 4_096), (5, u32::MAX)] {
            let source = address(at, generation, PLACE_BITS).unwrap();
            assert!(source.is_loopback() && !source.is_broadcast(), "{source}");
            assert_eq!((u32::from(source) & place_mask(PLACE_BITS)) as usize, at);
        }
        assert_eq!(address(2_048, 0, PLACE_BITS), None);
    }

    #[test]
    fn many_machines_leave_fewer_bits_to_tell_boots_apart_but_some() {
        let last = address((1 << 20) - 1, 7, 20).unwrap();
        assert_eq!((last, address(1 << 20, 0, 20)), (Ipv4Addr::new(127, 255, 255, 255), None));
        assert_ne!(address(5, 0, 20), address(5, 7, 20));
    }

    #[test]
    fn the_next_transfer_at_a_place_has_another_address() {
        assert_ne!(address(7, 1, PLACE_BITS), address(7, 2, PLACE_BITS));
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
