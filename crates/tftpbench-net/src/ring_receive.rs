//! Receiving frames from a packet ring. What is looked at lies where the kernel has put it: nothing is copied, nothing
//! allocates, and no system call is made while frames keep coming.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::address::Subnet;
use crate::clock::NS_PER_S;
use crate::frame::{ETHERNET_BYTES, Frame, HEADERS_MAX, IPV4_BYTES_MAX, Mac, parse};
use crate::poller::Source;
use crate::ring::{Filter, RingLink, Slots};
use crate::socket::packet_statistics;

/// Frames that one receive takes: those that are being looked at are not the kernel's to fill again.
const BATCH: usize = 64;
/// Where a frame begins in its slot (linux/af_packet.c, `tpacket_rcv`): behind its header and an address, aligned so that
/// the IP header is at a multiple of 16.
const FRAME_OFFSET: usize = 80 - ETHERNET_BYTES;

/// A frame that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// What it is.
    pub frame: Frame<'a>,
    /// When the kernel received it, in real time.
    pub stamp_realtime_ns: u64,
}

/// Frames to some machines, until it is dropped.
#[derive(Debug)]
pub struct RingReceiver {
    slots: Slots,
    fd: OwnedFd,
    ours: Mac,
    /// The first slot that was not given back to the kernel.
    first: usize,
    /// Slots from there on that hold the frames of the last receive.
    taken: usize,
    drops: u64,
}

impl RingReceiver {
    /// Hears the frames to those of the machines whose number leaves `share.0` when divided by `share.1`. `waiting`
    /// frames of up to `datagram_bytes` may wait to be received; what comes beyond that is dropped, and counted.
    pub fn open(
        link: &RingLink,
        machines: Subnet,
        share: (usize, usize),
        waiting: usize,
        datagram_bytes: usize,
    ) -> io::Result<RingReceiver> {
        let fd = link.open()?;
        // Options of IPv4 may stand in front of it.
        let headers = HEADERS_MAX.max(ETHERNET_BYTES + IPV4_BYTES_MAX + 8);
        let slots = Slots::map(&fd, libc::PACKET_RX_RING, waiting, FRAME_OFFSET + headers + datagram_bytes)?;
        // Before it hears anything.
        Filter::new(link.ours, machines, share).attach(&fd)?;
        let protocol = match machines.base() {
            IpAddr::V4(_) => libc::ETH_P_IP,
            IpAddr::V6(_) => libc::ETH_P_IPV6,
        };
        link.bind(&fd, protocol as u16)?;
        Ok(RingReceiver { slots, fd, ours: link.ours, first: 0, taken: 0, drops: 0 })
    }

    /// Whether a frame waits behind those that were received last. No system call.
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.is_filled(self.slots.step(self.first, self.taken))
    }

    /// Gives the frames of the last receive back, takes what has arrived since, and tells how many frames that is. Never
    /// waits.
    #[inline]
    pub fn receive(&mut self) -> usize {
        self.release();
        let mut taken = 0;
        while taken < BATCH && self.is_filled(self.slots.step(self.first, taken)) {
            taken += 1;
        }
        self.taken = taken;
        taken
    }

    /// Gives the frames of the last receive back.
    pub fn release(&mut self) {
        for ahead in 0..self.taken {
            self.slots.set_status(self.slots.step(self.first, ahead), libc::TP_STATUS_KERNEL);
        }
        self.first = self.slots.step(self.first, self.taken);
        self.taken = 0;
    }

    /// What the last receive took, in order of arrival, without what is broken or nothing for us.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = Arrived<'_>> {
        (0..self.taken).filter_map(|ahead| self.arrived(self.slots.step(self.first, ahead)))
    }

    /// How many frames may wait.
    pub fn capacity(&self) -> usize {
        self.slots.count
    }

    /// Frames that the kernel has thrown away so far because no slot was free (PACKET_STATISTICS, packet(7)).
    pub fn drops(&mut self) -> u64 {
        // The kernel counts from the last look on.
        self.drops += packet_statistics(&self.fd).map_or(0, |statistics| u64::from(statistics.tp_drops));
        self.drops
    }

    #[inline]
    fn is_filled(&self, index: usize) -> bool {
        self.slots.status(index) & libc::TP_STATUS_USER != 0
    }

    #[inline]
    fn arrived(&self, index: usize) -> Option<Arrived<'_>> {
        let slot = self.slots.at(index);
        // SAFETY: the slot is ours as long as it is taken, and begins with this header, aligned.
        let header = unsafe { &*slot.cast::<libc::tpacket2_hdr>() };
        let (start, length) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        // The kernel keeps to it; no frame is worth a look beyond the slot if it ever did not.
        let fits = start >= size_of::<libc::tpacket2_hdr>() && start + length <= self.slots.slot_bytes;
        if !fits || header.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
            return None;
        }
        // SAFETY: inside the slot, which the kernel filled before it handed it over and does not write before it is given
        // back, for which `&mut self` is needed.
        let frame = unsafe { std::slice::from_raw_parts(slot.add(start), length) };
        if !frame.starts_with(&self.ours) {
            return None;
        }
        let is_checked = header.tp_status & (libc::TP_STATUS_CSUMNOTREADY | libc::TP_STATUS_CSUM_VALID) != 0;
        let stamp_realtime_ns = u64::from(header.tp_sec) * NS_PER_S + u64::from(header.tp_nsec);
        parse(frame, is_checked).map(|frame| Arrived { frame, stamp_realtime_ns })
    }
}

impl AsFd for RingReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Ready once a frame has arrived behind those that were received.
impl Source for RingReceiver {}
