//! Sending frames by a packet ring: they are made in the memory that the kernel reads them from, and one call sends all
//! that wait. Never allocates after `open`, never waits.
//!
//! A frame is copied into the kernel's own buffer as a whole (the header length of PACKET_VNET_HDR, packet(7)): a veth
//! pair would otherwise first link to the slot's page and then copy the page to be rid of it.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use crate::errno::ErrorClass;
use crate::frame::{HEADERS_MAX, Headers, UDP_BYTES};
use crate::ring::{RingLink, Slots};
use crate::send::Flushed;
use crate::socket::set_option;

/// Where the kernel looks for what it sends: linux/af_packet.c, `tpacket_parse_header`.
const DATA_OFFSET: usize = size_of::<libc::tpacket2_hdr>();
/// `struct virtio_net_hdr`: flags, kind, and four 16-bit numbers, of which the header length is the first.
const VNET_BYTES: usize = 10;
const VNET_HEADER_LENGTH_AT: usize = 2;
const VNET_SUM_FROM_AT: usize = 6;
const VNET_SUM_TO_AT: usize = 8;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is the device's to complete.
const VNET_NEEDS_SUM: u8 = 1;
/// Of a UDP checksum in its header.
const SUM_OFFSET: u16 = 6;
const FRAME_OFFSET: usize = DATA_OFFSET + VNET_BYTES;
/// A send that is interrupted, or finds no memory, is tried so often.
const ATTEMPTS: usize = 4;

/// Frames from machines to the server.
#[derive(Debug)]
pub struct RingSender {
    slots: Slots,
    fd: OwnedFd,
    headers: Headers,
    /// The slot that the next frame goes into, and how many before it wait to be sent.
    next: usize,
    queued: usize,
    /// Datagrams that found their slot still in use since the last flush.
    lost: usize,
    /// Where those were written to instead.
    spare: Box<[u8]>,
}

impl RingSender {
    /// Frames that may wait for a flush.
    pub const QUEUE_MAX: usize = 64;

    /// Sends datagrams of up to `datagram_bytes` over IPv4 or IPv6, as `like` is.
    pub fn open(link: &RingLink, like: IpAddr, datagram_bytes: usize) -> io::Result<RingSender> {
        let fd = link.open()?;
        // Without a queueing discipline: veth has none by default. What the kernel refuses of these would cost the way.
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &1)?;
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_VNET_HDR, &1)?;
        let slot_bytes = FRAME_OFFSET + HEADERS_MAX + datagram_bytes;
        let slots = Slots::map(&fd, libc::PACKET_TX_RING, RingSender::QUEUE_MAX + 1, slot_bytes)?;
        // It hears nothing: that is the receiver's.
        link.bind(&fd, 0)?;
        let headers = Headers::new(link.ours, link.theirs, like);
        let spare = vec![0; slots.slot_bytes].into_boxed_slice();
        Ok(RingSender { slots, fd, headers, next: 0, queued: 0, lost: 0, spare })
    }

    /// Leaves UDP checksums to the device that takes the frames off this machine: from a veth pair none does, so they are
    /// never summed up, as of datagrams that a socket sends there. Before the first datagram.
    pub fn leave_checksums(&mut self) {
        self.headers = self.headers.clone().without_checksums();
        let sum_from = (self.headers.length() - UDP_BYTES) as u16;
        for index in 0..self.slots.count {
            // SAFETY: the slot is inside the mapping, and ours: nothing has been sent from it.
            let slot = unsafe { std::slice::from_raw_parts_mut(self.slots.at(index), self.slots.slot_bytes) };
            let header = &mut slot[DATA_OFFSET..FRAME_OFFSET];
            header[0] = VNET_NEEDS_SUM;
            header[VNET_SUM_FROM_AT..VNET_SUM_TO_AT].copy_from_slice(&sum_from.to_ne_bytes());
            header[VNET_SUM_TO_AT..VNET_BYTES].copy_from_slice(&SUM_OFFSET.to_ne_bytes());
        }
    }

    /// Whether another datagram can be queued without a flush.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.queued < RingSender::QUEUE_MAX
    }

    /// Whether nothing is queued.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queued == 0 && self.lost == 0
    }

    /// Datagrams queued.
    #[inline]
    pub fn len(&self) -> usize {
        self.queued
    }

    /// Queues one datagram: `fill` writes it into `len_max` bytes of stale contents and returns its length; 0 queues
    /// nothing. False: no room, flush first, or it is longer than those that it was opened for; `fill` was not called.
    #[inline]
    pub fn push(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        len_max: usize,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> bool {
        let before = self.headers.length();
        if !self.has_room() || FRAME_OFFSET + before + len_max > self.slots.slot_bytes {
            return false;
        }
        let is_free = self.slots.status(self.next) == libc::TP_STATUS_AVAILABLE;
        let slot = match is_free {
            // SAFETY: the slot is inside the mapping and ours as long as it is available; `&mut self` keeps it ours alone.
            true => unsafe {
                std::slice::from_raw_parts_mut(self.slots.at(self.next), self.slots.slot_bytes)
            },
            false => &mut *self.spare,
        };
        let frame = &mut slot[FRAME_OFFSET..];
        let length = fill(&mut frame[before..before + len_max]).min(len_max);
        if length == 0 {
            return true;
        }
        let frame_bytes = self.headers.write(frame, from, to, length);
        if frame_bytes == 0 || !is_free {
            self.lost += 1;
            return true;
        }
        let header_length = (frame_bytes as u16).to_ne_bytes();
        let at = DATA_OFFSET + VNET_HEADER_LENGTH_AT;
        slot[at..at + 2].copy_from_slice(&header_length);
        // SAFETY: the slot begins with this header, aligned, and is ours.
        unsafe {
            (*self.slots.at(self.next).cast::<libc::tpacket2_hdr>()).tp_len =
                (VNET_BYTES + frame_bytes) as u32
        };
        self.slots.set_status(self.next, libc::TP_STATUS_SEND_REQUEST);
        self.next = self.slots.step(self.next, 1);
        self.queued += 1;
        true
    }

    /// Sends what is queued with one call, more where that is interrupted. The queue is empty afterwards, whatever became
    /// of the datagrams.
    pub fn flush(&mut self) -> io::Result<Flushed> {
        let first = self.slots.step(self.next, self.slots.count - self.queued);
        let queued = std::mem::take(&mut self.queued);
        let (mut sent, mut calls) = (0, 0);
        let mut failed = None;
        while sent < queued && calls < ATTEMPTS {
            calls += 1;
            let error = self.send().err();
            while sent < queued && self.has_left(self.slots.step(first, sent)) {
                sent += 1;
            }
            match error.map(|error| (ErrorClass::sending(&error), error)) {
                Some((ErrorClass::Socket, error)) => {
                    failed = Some(error);
                    break;
                }
                _ if sent == queued => break,
                _ => {}
            }
        }
        // The kernel will look for the next frame where it stopped.
        (sent..queued).for_each(|ahead| {
            self.slots.set_status(self.slots.step(first, ahead), libc::TP_STATUS_AVAILABLE)
        });
        self.next = self.slots.step(first, sent);
        let unsent = queued - sent + std::mem::take(&mut self.lost);
        failed.map_or(Ok(Flushed { sent, unsent, calls }), Err)
    }

    /// Whether the kernel has taken the frame in a slot.
    #[inline]
    fn has_left(&self, index: usize) -> bool {
        !matches!(self.slots.status(index), libc::TP_STATUS_SEND_REQUEST | libc::TP_STATUS_WRONG_FORMAT)
    }

    /// sendto(2) of nothing: the kernel takes the frames from the ring.
    fn send(&self) -> io::Result<()> {
        // SAFETY: takes numbers only; neither a buffer nor an address is given.
        let status = unsafe {
            libc::sendto(self.fd.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if status >= 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
