//! Control messages, cmsg(3): what a header tells the kernel beside an address, and what the kernel tells back. Nothing
//! here makes a system call. And [`Fixed`], which the headers lie in.

use std::mem::{offset_of, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr::NonNull;

use crate::address::LocalAddress;
use crate::clock;

/// Control messages of one outgoing header: where it comes from, and what it is cut into. Either can be left out.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Outgoing {
    source: SourceMessage,
    segment: Segment,
}

/// Where a message says that it comes from. What an IPv4 source leaves of the room is in front of it, so that both end
/// where the next control message begins.
#[derive(Clone, Copy)]
#[repr(C)]
union SourceMessage {
    v4: BehindGap,
    v6: SourceV6,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct BehindGap {
    gap: [u8; size_of::<SourceV6>() - size_of::<SourceV4>()],
    source: SourceV4,
}

/// IP_PKTINFO, ip(7).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SourceV4 {
    header: libc::cmsghdr,
    info: libc::in_pktinfo,
}

/// IPV6_PKTINFO, ipv6(7).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SourceV6 {
    header: libc::cmsghdr,
    info: libc::in6_pktinfo,
}

/// UDP_SEGMENT, udp(7).
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Segment {
    header: libc::cmsghdr,
    bytes: u16,
}

/// Which of the sources a message has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// What the socket is bound to.
    #[default]
    Bound,
    V4,
    V6,
}

impl SourceKind {
    pub(crate) fn of(source: Option<LocalAddress>) -> SourceKind {
        match source.map(LocalAddress::ip) {
            None => SourceKind::Bound,
            Some(IpAddr::V4(_)) => SourceKind::V4,
            Some(IpAddr::V6(_)) => SourceKind::V6,
        }
    }
}

impl Outgoing {
    pub(crate) fn new() -> Outgoing {
        Outgoing {
            source: SourceMessage { v6: source_v6(Ipv6Addr::UNSPECIFIED, 0) },
            segment: Segment { header: header_of(&0u16, libc::SOL_UDP, libc::UDP_SEGMENT), bytes: 0 },
        }
    }

    pub(crate) fn set_source(&mut self, source: LocalAddress) {
        match source.ip() {
            IpAddr::V4(ip) => self.source.v4.source = source_v4(ip),
            IpAddr::V6(ip) => self.source.v6 = source_v6(ip, source.interface()),
        }
    }

    pub(crate) fn set_segment(&mut self, bytes: u16) {
        self.segment.bytes = bytes;
    }

    /// Where the messages that are wanted begin, as an offset in this struct, and how long they are together.
    fn span(source: SourceKind, has_segment: bool) -> (usize, usize) {
        let segment_at = offset_of!(Outgoing, segment);
        let start = match source {
            SourceKind::V6 => 0,
            SourceKind::V4 => offset_of!(BehindGap, source),
            SourceKind::Bound => segment_at,
        };
        let end = if has_segment { size_of::<Outgoing>() } else { segment_at };
        (start, end - start)
    }
}

/// Points a header at those of its control messages that it needs.
pub(crate) fn attach(
    header: &mut libc::msghdr,
    control: *mut Outgoing,
    source: SourceKind,
    has_segment: bool,
) {
    (header.msg_control, header.msg_controllen) = match source != SourceKind::Bound || has_segment {
        true => {
            let (start, len) = Outgoing::span(source, has_segment);
            (control.cast::<u8>().wrapping_add(start).cast(), len as _)
        }
        false => (std::ptr::null_mut(), 0),
    };
}

fn source_v4(ip: Ipv4Addr) -> SourceV4 {
    let ours = libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) };
    let info = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: ours, ipi_addr: libc::in_addr { s_addr: 0 } };
    SourceV4 { header: header_of(&info, libc::IPPROTO_IP, libc::IP_PKTINFO), info }
}

fn source_v6(ip: Ipv6Addr, interface: u32) -> SourceV6 {
    let info = libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: ip.octets() },
        ipi6_ifindex: interface as _,
    };
    SourceV6 { header: header_of(&info, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info }
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

/// Bytes for what the kernel may say: a stamp (32 with its header), a local address (32 for IPv4 and 40 for IPv6; a
/// socket of both gets both), a segment size (24).
pub(crate) const INCOMING_BYTES: usize = 128;

/// Room for control messages of one incoming header, aligned as cmsg(3) wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Incoming(pub(crate) [u8; INCOMING_BYTES]);

/// What the kernel said in control messages.
#[derive(Default)]
pub(crate) struct RecvControl {
    pub(crate) stamp_realtime_ns: Option<u64>,
    pub(crate) local: Option<LocalAddress>,
    /// It was sent to a broadcast or multicast address.
    pub(crate) is_to_many: bool,
    /// Length of each datagram but the last, where the message is a run of them.
    pub(crate) segment_bytes: Option<libc::c_int>,
}

impl RecvControl {
    /// SO_TIMESTAMPNS, socket(7), IP_PKTINFO, ip(7), IPV6_PKTINFO, ipv6(7), and UDP_GRO, udp(7), where the kernel gave
    /// them.
    #[inline]
    pub(crate) fn read(header: &libc::msghdr) -> RecvControl {
        // In lock-step a server's sockets get none.
        if header.msg_controllen == 0 { RecvControl::default() } else { RecvControl::read_list(header) }
    }

    fn read_list(header: &libc::msghdr) -> RecvControl {
        let mut control = RecvControl::default();
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
                    control.stamp_realtime_ns = Some(clock::timespec_ns(&stamp));
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // SAFETY: the kernel writes an in_pktinfo behind a header of this type.
                    let info =
                        unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
                    control.take_v4(&info);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    // SAFETY: the kernel writes an in6_pktinfo behind a header of this type.
                    let info =
                        unsafe { libc::CMSG_DATA(message).cast::<libc::in6_pktinfo>().read_unaligned() };
                    control.take_v6(&info);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    // SAFETY: the kernel writes an int behind a header of this type.
                    let bytes = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
                    control.segment_bytes = Some(bytes);
                }
                _ => {}
            }
            // SAFETY: `message` is a header of this list.
            message = unsafe { libc::CMSG_NXTHDR(header, message) };
        }
        control
    }

    /// ip(7): `ipi_addr` is the destination in the header. `ipi_spec_dst` is the same where that is an address of this
    /// machine, and one that an answer may come from where it is a broadcast or multicast address.
    fn take_v4(&mut self, info: &libc::in_pktinfo) {
        let ip = Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes());
        self.is_to_many |= info.ipi_addr.s_addr != info.ipi_spec_dst.s_addr;
        // An IPv6 socket tells it in its own form, too.
        self.local.get_or_insert_with(|| ip.into());
    }

    fn take_v6(&mut self, info: &libc::in6_pktinfo) {
        let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        self.is_to_many |= ip.is_multicast();
        self.local = Some(LocalAddress::new(ip.into(), info.ipi6_ifindex as _));
    }
}

/// An array that never moves and is reached by raw pointer, for what the kernel is handed pointers to: a `Box` or `Vec`
/// promises the compiler that no other pointer leads into it, and message headers do. `len` elements at a fixed address
/// until dropped; they are plain data without a destructor.
pub(crate) struct Fixed<T: Copy> {
    elements: NonNull<[T]>,
}

impl<T: Copy> Fixed<T> {
    /// Memory for `len` elements, made by `make`.
    pub(crate) fn new(len: usize, make: impl FnMut(usize) -> T) -> Self {
        Fixed::adopt((0..len).map(make).collect())
    }

    /// Takes over a box without touching its contents.
    pub(crate) fn adopt(elements: Box<[T]>) -> Self {
        Fixed { elements: NonNull::from(Box::leak(elements)) }
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.len()
    }

    /// Pointer to element `index`, valid as long as this array. `index` may be `len`: one past the end.
    pub(crate) fn at(&self, index: usize) -> *mut T {
        assert!(index <= self.len());
        // SAFETY: in bounds, or one past the end, of one allocation by the assertion.
        unsafe { self.elements.as_ptr().cast::<T>().add(index) }
    }
}

impl<T: Copy> Drop for Fixed<T> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from Box::leak, and only this drop gives it back.
        drop(unsafe { Box::from_raw(self.elements.as_ptr()) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outgoing_messages_lie_where_the_kernel_looks_for_them() {
        // SAFETY: each computes a length from a length.
        let [v4, v6, segment] =
            [size_of::<libc::in_pktinfo>(), size_of::<libc::in6_pktinfo>(), size_of::<u16>()]
                .map(|bytes| unsafe { libc::CMSG_SPACE(bytes as u32) } as usize);
        let span = Outgoing::span;
        assert_eq!(span(SourceKind::Bound, true), (v6, segment));
        assert_eq!([false, true].map(|cut| span(SourceKind::V6, cut)), [(0, v6), (0, v6 + segment)]);
        let gap = v6 - v4;
        assert_eq!([false, true].map(|cut| span(SourceKind::V4, cut)), [(gap, v4), (gap, v4 + segment)]);
    }

    #[test]
    fn what_was_sent_to_many_differs_from_where_an_answer_may_come_from() {
        let is_to_many = |addr: [u8; 4], spec_dst: [u8; 4]| {
            let [addr, spec_dst] =
                [addr, spec_dst].map(|ip| libc::in_addr { s_addr: u32::from_ne_bytes(ip) });
            let mut control = RecvControl::default();
            control.take_v4(&libc::in_pktinfo { ipi_ifindex: 1, ipi_spec_dst: spec_dst, ipi_addr: addr });
            control.is_to_many
        };
        assert!(!is_to_many([127, 0, 0, 9], [127, 0, 0, 9]));
        assert!(is_to_many([127, 255, 255, 255], [127, 0, 0, 1]));
    }
}
