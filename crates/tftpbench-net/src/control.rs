//! Control messages, cmsg(3): what a header tells the kernel beside an address, and what the kernel tells back. Only the
//! batches use it; nothing here makes a system call.

use std::mem::{offset_of, size_of};
use std::net::Ipv4Addr;

use crate::clock;

/// Control messages of one outgoing header: where it comes from, and what it is cut into. Either can be left out.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Outgoing {
    source: Source,
    segment: Segment,
}

/// IP_PKTINFO, ip(7).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Source {
    header: libc::cmsghdr,
    info: libc::in_pktinfo,
}

/// UDP_SEGMENT, udp(7).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Segment {
    header: libc::cmsghdr,
    bytes: u16,
}

impl Outgoing {
    pub(crate) fn new() -> Outgoing {
        let nowhere = libc::in_addr { s_addr: 0 };
        let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: nowhere, ipi_addr: nowhere };
        Outgoing {
            source: Source { header: header_of(&info, libc::IPPROTO_IP, libc::IP_PKTINFO), info },
            segment: Segment { header: header_of(&0u16, libc::SOL_UDP, libc::UDP_SEGMENT), bytes: 0 },
        }
    }

    pub(crate) fn set_source(&mut self, source: Ipv4Addr) {
        self.source.info.ipi_spec_dst.s_addr = u32::from_ne_bytes(source.octets());
    }

    pub(crate) fn set_segment(&mut self, bytes: u16) {
        self.segment.bytes = bytes;
    }

    /// Where the messages that are wanted begin, as an offset in this struct, and how long they are together.
    pub(crate) fn span(has_source: bool, has_segment: bool) -> (usize, usize) {
        let segment_at = offset_of!(Outgoing, segment);
        let start = if has_source { 0 } else { segment_at };
        let end = if has_segment { size_of::<Outgoing>() } else { segment_at };
        (start, end - start)
    }
}

/// The header of a message that holds `value`.
fn header_of<T>(_value: &T, level: libc::c_int, kind: libc::c_int) -> libc::cmsghdr {
    // SAFETY: cmsghdr is numbers, for which zero is valid; it may have private padding.
    let mut header: libc::cmsghdr = unsafe { std::mem::zeroed() };
    // SAFETY: computes a length from a length.
    header.cmsg_len = unsafe { libc::CMSG_LEN(size_of::<T>() as u32) } as _;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    header
}

/// Bytes for what the kernel may tell: a stamp (32 with its header), a local address (32), a segment size (24).
pub(crate) const INCOMING_BYTES: usize = 96;

/// Room for control messages of one incoming header, aligned as cmsg(3) wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Incoming(pub(crate) [u8; INCOMING_BYTES]);

/// What the kernel told in control messages.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) stamp_realtime_ns: Option<u64>,
    pub(crate) local: Option<Ipv4Addr>,
    /// Length of each datagram but the last, where the message is a run of them.
    pub(crate) segment_bytes: Option<libc::c_int>,
}

impl Told {
    /// SO_TIMESTAMPNS, socket(7), IP_PKTINFO, ip(7), and UDP_GRO, udp(7), where the kernel gave them.
    #[inline]
    pub(crate) fn read(header: &libc::msghdr) -> Told {
        // In lock-step a server's sockets are told nothing.
        if header.msg_controllen == 0 { Told::default() } else { Told::read_list(header) }
    }

    fn read_list(header: &libc::msghdr) -> Told {
        let mut told = Told::default();
        // SAFETY: `msg_control` is null or holds `msg_controllen` bytes as the kernel wrote them, aligned.
        let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
        // The kernel ends the list by its length; the bound is for a reader's peace of mind.
        for _ in 0..INCOMING_BYTES / size_of::<libc::cmsghdr>() {
            // SAFETY: null, or a whole header inside the control room, as CMSG_FIRSTHDR and NXTHDR promise.
            let Some(found) = (unsafe { message.as_ref() }) else { break };
            match (found.cmsg_level, found.cmsg_type) {
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    // SAFETY: the kernel writes a timespec behind a header of this type.
                    let stamp = unsafe { libc::CMSG_DATA(message).cast::<libc::timespec>().read_unaligned() };
                    told.stamp_realtime_ns = Some(clock::timespec_ns(&stamp));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: the kernel writes an in_pktinfo behind a header of this type.
                    let info =
                        unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
                    told.local = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: the kernel writes an int behind a header of this type.
                    let bytes = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
                    told.segment_bytes = Some(bytes);
                }
                _ => {}
            }
            // SAFETY: `message` is a header of this list.
            message = unsafe { libc::CMSG_NXTHDR(header, message) };
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outgoing_messages_lie_where_the_kernel_looks_for_them() {
        // SAFETY: each computes a length from a length.
        let (source, segment) = unsafe {
            (
                libc::CMSG_SPACE(size_of::<libc::in_pktinfo>() as u32),
                libc::CMSG_SPACE(size_of::<u16>() as u32),
            )
        };
        let (source, segment) = (source as usize, segment as usize);
        assert_eq!(Outgoing::span(true, false), (0, source));
        assert_eq!(Outgoing::span(false, true), (source, segment));
        assert_eq!(Outgoing::span(true, true), (0, source + segment));
    }
}
