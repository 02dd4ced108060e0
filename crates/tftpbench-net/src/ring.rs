//! Packet rings, packet(7): memory that the kernel shares with us, in which whole frames lie in slots. A machine's
//! datagrams pass through them without a UDP socket, so one ring speaks for any number of machines.
//!
//! Here is what both directions are made of: the link that frames cross, the memory, and the filter by which the kernel
//! drops frames of others before it copies them. Version 2 of the interface (TPACKET_V2): its slots are handed over one
//! by one, where version 3 hands over blocks and so lets a frame wait for its neighbours.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::address::Subnet;
use crate::broker::SocketSource;
use crate::frame::Mac;
use crate::socket::set_option;

const CACHE_LINE: usize = 64;

/// The interface that frames leave and arrive by, and the Ethernet addresses of its two ends.
#[derive(Clone, Debug)]
pub struct RingLink {
    /// Where its sockets are opened.
    pub source: SocketSource,
    /// The interface's index there.
    pub interface: u32,
    /// The address that frames to machines have. Not the interface's own: then its IP stack drops them at once, and only
    /// the ring sees them.
    pub ours: Mac,
    /// The address that frames to the server must have.
    pub theirs: Mac,
}

impl RingLink {
    /// What a frame holds behind its Ethernet header, on the links that such networks are made of.
    pub const MTU: usize = 1_500;

    /// A packet socket that hears nothing yet, with version 2 of the ring interface.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let fd = self.source.open(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        let version = libc::tpacket_versions::TPACKET_V2 as libc::c_int;
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_VERSION, &version)?;
        Ok(fd)
    }

    /// Binds to the interface; frames of this protocol are heard from now on, of 0 none.
    pub(crate) fn bind(&self, fd: &OwnedFd, protocol: u16) -> io::Result<()> {
        // SAFETY: sockaddr_ll is numbers, for which zero is valid.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = libc::c_int::try_from(self.interface).unwrap_or(-1);
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the address is as long as stated and only read.
        let status = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Slots that the kernel and we share, one behind another.
#[derive(Debug)]
pub(crate) struct Slots {
    start: NonNull<u8>,
    pub(crate) slot_bytes: usize,
    pub(crate) count: usize,
}

// SAFETY: shared with the kernel only, and used through one owner; it belongs to no thread.
unsafe impl Send for Slots {}

impl Slots {
    /// Makes the ring `name` of this socket and maps it: `count` slots at least, for `bytes` each. The socket must have
    /// no other ring.
    pub(crate) fn map(fd: &OwnedFd, name: libc::c_int, count: usize, bytes: usize) -> io::Result<Slots> {
        let page_bytes = page_bytes();
        // An odd number of cache lines: at a power of two all slots would share a few cache sets.
        let slot_bytes = (bytes.div_ceil(CACHE_LINE) | 1) * CACHE_LINE;
        // So many of them fill whole pages, and so leave no gap behind a block.
        let in_a_block = page_bytes / CACHE_LINE;
        let blocks = count.div_ceil(in_a_block).max(1);
        let (block_bytes, count) = (in_a_block * slot_bytes, blocks * in_a_block);
        let number = |value: usize| libc::c_uint::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
        let request = libc::tpacket_req {
            tp_block_size: number(block_bytes)?,
            tp_block_nr: number(blocks)?,
            tp_frame_size: number(slot_bytes)?,
            tp_frame_nr: number(count)?,
        };
        set_option(fd, libc::SOL_PACKET, name, &request)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // Faulted in here, not on the way of a datagram.
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: the kernel chooses the place, so nothing that is mapped already is touched.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), blocks * block_bytes, protection, flags, fd.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Slots { start, slot_bytes, count })
    }

    /// Where a slot begins.
    #[inline]
    pub(crate) fn at(&self, index: usize) -> *mut u8 {
        debug_assert!(index < self.count);
        // SAFETY: inside the mapping, which is `count` slots long.
        unsafe { self.start.as_ptr().add(index * self.slot_bytes) }
    }

    /// The slot that is `ahead` slots behind another, round the ring.
    #[inline]
    pub(crate) fn step(&self, index: usize, ahead: usize) -> usize {
        let next = index + ahead;
        if next < self.count { next } else { next - self.count }
    }

    /// Whose a slot is: TP_STATUS_KERNEL and the others of packet(7).
    #[inline]
    pub(crate) fn status(&self, index: usize) -> u32 {
        // SAFETY: a tpacket2_hdr begins with its status, aligned, inside the mapping; the kernel may write it meanwhile.
        unsafe { AtomicU32::from_ptr(self.at(index).cast()) }.load(Ordering::Acquire)
    }

    /// Hands a slot over. What was written into it before is seen first.
    #[inline]
    pub(crate) fn set_status(&self, index: usize, status: u32) {
        // SAFETY: as in `status`.
        unsafe { AtomicU32::from_ptr(self.at(index).cast()) }.store(status, Ordering::Release);
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: a mapping of our own, and no reference into it outlives what holds this value.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.count * self.slot_bytes) };
    }
}

fn page_bytes() -> usize {
    // SAFETY: takes a number only.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Classic BPF, which bpf(2) does not speak of but socket(7) does: `code`, `jt`, `jf`, `k` of each instruction.
type Instruction = libc::sock_filter;

// linux/bpf_common.h, spelt out: load 32 bits, 16, 8; ...
const LOAD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const SUBTRACT: u16 = 0x14;
const MODULO: u16 = 0x94;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Which frames are for a ring: those to its Ethernet address, UDP or ICMP, whole, and to some of the machines.
pub(crate) struct Filter(Vec<Instruction>);

impl Filter {
    /// Of the machines those whose number, from 0, leaves `share.0` when divided by `share.1`.
    pub(crate) fn new(ours: Mac, machines: Subnet, share: (usize, usize)) -> Filter {
        let mut filter = Filter(Vec::new());
        let [a, b, c, d, e, f] = ours;
        filter.require(LOAD, 0, u32::MAX, u32::from_be_bytes([a, b, c, d]));
        filter.require(LOAD_HALF, 4, u32::MAX, u32::from(u16::from_be_bytes([e, f])));
        let last_word = match machines.base() {
            IpAddr::V4(base) => {
                filter.require_either(LOAD_BYTE, 23, [17, 1]);
                filter.require(LOAD_HALF, 20, 0x3fff, 0);
                let mask = u32::MAX.checked_shl(machines.host_bits()).unwrap_or(0);
                filter.require(LOAD, 30, mask, u32::from(base) & mask);
                30
            }
            IpAddr::V6(base) => {
                filter.require_either(LOAD_BYTE, 20, [17, 58]);
                let mask = u128::MAX.checked_shl(machines.host_bits()).unwrap_or(0);
                for word in 0..4 {
                    let of = |bits: u128| (bits >> (96 - 32 * word)) as u32;
                    filter.require(LOAD, 38 + 4 * word, of(mask), of(u128::from(base) & mask));
                }
                50
            }
        };
        if share.1 > 1 {
            let first = machines.low_bits_of(0);
            filter.0.extend([
                instruction(LOAD, 0, 0, last_word),
                instruction(SUBTRACT, 0, 0, first),
                instruction(MODULO, 0, 0, share.1 as u32),
            ]);
            filter.or_drop(share.0 as u32);
        }
        // As much of it as a slot holds.
        filter.0.push(instruction(RETURN, 0, 0, u32::MAX));
        filter
    }

    /// What lies at `offset`, without the bits that are not in `mask`, must be `value`.
    fn require(&mut self, load: u16, offset: u32, mask: u32, value: u32) {
        if mask == 0 {
            return;
        }
        self.0.push(instruction(load, 0, 0, offset));
        if mask != u32::MAX {
            self.0.push(instruction(AND, 0, 0, mask));
        }
        self.or_drop(value);
    }

    fn require_either(&mut self, load: u16, offset: u32, values: [u32; 2]) {
        self.0.push(instruction(load, 0, 0, offset));
        // Over the next comparison and its drop.
        self.0.push(instruction(JUMP_IF_EQUAL, 2, 0, values[0]));
        self.or_drop(values[1]);
    }

    fn or_drop(&mut self, value: u32) {
        self.0.push(instruction(JUMP_IF_EQUAL, 1, 0, value));
        self.0.push(instruction(RETURN, 0, 0, 0));
    }

    /// SO_ATTACH_FILTER, socket(7).
    pub(crate) fn attach(mut self, fd: &OwnedFd) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: self.0.as_mut_ptr() };
        set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
    }
}

fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> Instruction {
    Instruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Headers;

    const OURS: Mac = [2, 9, 8, 7, 6, 5];

    /// What the kernel's interpreter would make of it.
    fn passes(filter: &Filter, frame: &[u8]) -> bool {
        let (mut a, mut at) = (0_u32, 0);
        loop {
            let Instruction { code, jt, jf, k } = filter.0[at];
            at += 1;
            let load = |length: usize| {
                let bytes = frame.get(k as usize..k as usize + length)?;
                Some(bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)))
            };
            let loaded = match code {
                LOAD => load(4),
                LOAD_HALF => load(2),
                LOAD_BYTE => load(1),
                AND => Some(a & k),
                SUBTRACT => Some(a.wrapping_sub(k)),
                MODULO => Some(a % k),
                JUMP_IF_EQUAL => {
                    at += usize::from(if a == k { jt } else { jf });
                    continue;
                }
                RETURN => return k > 0,
                other => panic!("{other:#x}"),
            };
            // A load behind the end drops the frame.
            let Some(loaded) = loaded else { return false };
            a = loaded;
        }
    }

    fn frame(to: &str) -> Vec<u8> {
        let to: std::net::SocketAddr = to.parse().unwrap();
        let from = if to.is_ipv4() { "10.255.255.1:69" } else { "[fd01::1]:69" }.parse().unwrap();
        let headers = Headers::new([2, 0, 0, 0, 0, 9], OURS, to.ip());
        let mut frame = vec![0; headers.length() + 4];
        headers.write(&mut frame, from, to, 4);
        frame
    }

    #[test]
    fn frames_to_machines_pass_and_those_of_others_do_not() {
        for (network, inside, outside) in [
            ("10.0.0.0/9", ["10.0.0.1:7", "10.127.255.254:7"], ["10.128.0.1:7", "11.0.0.1:7"]),
            (
                "fd00:1:2:3::/64",
                ["[fd00:1:2:3::1]:7", "[fd00:1:2:3:9::1]:7"],
                ["[fd00:1:2:4::1]:7", "[fd01::1]:7"],
            ),
        ] {
            let filter = Filter::new(OURS, network.parse().unwrap(), (0, 1));
            assert!(inside.iter().all(|to| passes(&filter, &frame(to))), "{network}");
            assert!(!outside.iter().any(|to| passes(&filter, &frame(to))), "{network}");
            let good = frame(inside[0]);
            let protocol = if network.starts_with("10") { 23 } else { 20 };
            for (at, wrong) in [(0, 1), (5, 0), (protocol, 6)] {
                let mut frame = good.clone();
                frame[at] = wrong;
                assert!(!passes(&filter, &frame), "{network} {at}");
            }
            assert!((0..30).all(|length| !passes(&filter, &good[..length])));
        }
        let filter = Filter::new(OURS, "10.0.0.0/9".parse().unwrap(), (0, 1));
        for (at, fragment) in [(20, 0x20), (21, 1)] {
            let mut frame = frame("10.0.0.1:7");
            frame[at] |= fragment;
            assert!(!passes(&filter, &frame), "a fragment");
        }
    }

    #[test]
    fn each_machine_is_in_the_share_of_one_ring() {
        for network in ["10.0.0.0/9", "10.64.0.0/10", "fd00:1:2:3::/64"] {
            let machines: Subnet = network.parse().unwrap();
            for number in [0, 1, 2, 3, 100, 65_535, 65_536, 4_000_000] {
                let frame = frame(&std::net::SocketAddr::new(machines.address(number), 7).to_string());
                let takers: Vec<_> = (0..3)
                    .filter(|share| passes(&Filter::new(OURS, machines, (*share, 3)), &frame))
                    .collect();
                assert_eq!(takers, [number as usize % 3], "{network} {number}");
            }
        }
    }
}
