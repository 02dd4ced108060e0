//! UDP datagrams as Ethernet frames: what a packet ring sends, and what it finds in a frame that has arrived.
//!
//! Whatever arrives is hostile: every length is checked against the frame before a field behind it is looked at. Options
//! of IPv4 (RFC 791 section 3.1) are stepped over; fragments, other protocols and extension headers of IPv6 are not for
//! us. It makes no system call and never allocates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// An Ethernet address.
pub type Mac = [u8; 6];

pub(crate) const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
/// With all the options that its length field has room for.
pub(crate) const IPV4_BYTES_MAX: usize = 60;
const IPV6_BYTES: usize = 40;
pub(crate) const UDP_BYTES: usize = 8;
/// Headers of a frame that is sent, at most.
pub(crate) const HEADERS_MAX: usize = ETHERNET_BYTES + IPV6_BYTES + UDP_BYTES;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
/// "Destination unreachable": RFC 792, RFC 4443 section 3.1.
const ICMP_UNREACHABLE: u8 = 3;
const ICMPV6_UNREACHABLE: u8 = 1;
/// In front of the packet that an ICMP message quotes.
const ICMP_BYTES: usize = 8;
/// As Linux sends: don't fragment, 64 hops.
const DO_NOT_FRAGMENT: u8 = 0x40;
const HOPS: u8 = 64;

/// How long the longest payload is that goes into a frame of this MTU.
pub fn payload_max(ip: IpAddr, mtu: usize) -> usize {
    mtu.saturating_sub(UDP_BYTES + if ip.is_ipv4() { IPV4_BYTES } else { IPV6_BYTES })
}

/// What a frame turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A UDP datagram.
    Datagram {
        /// Who sent it.
        from: SocketAddr,
        /// Whom it was sent to.
        to: SocketAddr,
        /// As much of it as the frame holds.
        payload: &'a [u8],
        /// The frame was cut off: this is not all of it.
        truncated: bool,
    },
    /// ICMP says that a datagram did not arrive.
    Unreachable {
        /// Where that had been sent from.
        from: SocketAddr,
        /// Where it was to go.
        to: SocketAddr,
    },
}

/// What is in a frame: none where it is nothing for us, or where it is broken. `is_checked`: the kernel vouches for the
/// UDP checksum, or left it to the receiver, which is on this machine.
#[inline]
pub fn parse(frame: &[u8], is_checked: bool) -> Option<Frame<'_>> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET_BYTES)?;
    match [ethernet[12], ethernet[13]] {
        ETHERTYPE_IPV4 => parse_ipv4(packet, is_checked),
        ETHERTYPE_IPV6 => parse_ipv6(packet, is_checked),
        _ => None,
    }
}

/// The parts of an IP packet that matter.
struct Packet<'a> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Behind the header, as far as the frame holds it; what Ethernet pads short frames with is left out.
    rest: &'a [u8],
    /// Behind the header, as the header says.
    length: usize,
}

#[inline]
fn parse_ipv4(packet: &[u8], is_checked: bool) -> Option<Frame<'_>> {
    let packet = ipv4(packet)?;
    match packet.protocol {
        PROTOCOL_UDP => datagram(&packet, is_checked),
        PROTOCOL_ICMP => unreachable(&packet, ICMP_UNREACHABLE, ipv4),
        _ => None,
    }
}

#[inline]
fn parse_ipv6(packet: &[u8], is_checked: bool) -> Option<Frame<'_>> {
    let packet = ipv6(packet)?;
    match packet.protocol {
        PROTOCOL_UDP => datagram(&packet, is_checked),
        PROTOCOL_ICMPV6 => unreachable(&packet, ICMPV6_UNREACHABLE, ipv6),
        _ => None,
    }
}

/// RFC 791 section 3.1. The header's checksum is the kernel's to look at for a socket; a packet socket is before that,
/// so it is looked at here.
#[inline]
fn ipv4(packet: &[u8]) -> Option<Packet<'_>> {
    let header = packet.first_chunk::<IPV4_BYTES>()?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_bytes < IPV4_BYTES || total < header_bytes {
        return None;
    }
    // More fragments, or not the first one.
    if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
        return None;
    }
    let (whole_header, rest) = packet.split_at_checked(header_bytes)?;
    if fold(sum(whole_header)) != 0xffff {
        return None;
    }
    let length = total - header_bytes;
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
    let rest = &rest[..length.min(rest.len())];
    Some(Packet { source: address(12), destination: address(16), protocol: header[9], rest, length })
}

/// RFC 8200 section 3.
#[inline]
fn ipv6(packet: &[u8]) -> Option<Packet<'_>> {
    let (header, rest) = packet.split_first_chunk::<IPV6_BYTES>()?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let address = |at: usize| {
        let mut octets = [0; 16];
        octets.copy_from_slice(&header[at..at + 16]);
        IpAddr::from(Ipv6Addr::from(octets))
    };
    let rest = &rest[..length.min(rest.len())];
    Some(Packet { source: address(8), destination: address(24), protocol: header[6], rest, length })
}

/// RFC 768. A datagram may be shorter than its packet, never longer.
#[inline]
fn datagram<'a>(packet: &Packet<'a>, is_checked: bool) -> Option<Frame<'a>> {
    let (header, rest) = packet.rest.split_first_chunk::<UDP_BYTES>()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    if length < UDP_BYTES || length > packet.length {
        return None;
    }
    let payload_bytes = length - UDP_BYTES;
    let payload = &rest[..payload_bytes.min(rest.len())];
    let truncated = payload.len() < payload_bytes;
    // What was cut off can't be summed.
    if !is_checked && !truncated && !is_right(packet, length) {
        return None;
    }
    let (from, to) = ports(header);
    Some(Frame::Datagram {
        from: SocketAddr::new(packet.source, from),
        to: SocketAddr::new(packet.destination, to),
        payload,
        truncated,
    })
}

fn ports(header: &[u8; UDP_BYTES]) -> (u16, u16) {
    (u16::from_be_bytes([header[0], header[1]]), u16::from_be_bytes([header[2], header[3]]))
}

/// Whether a datagram's checksum is right. IPv4 may leave it out as 0 (RFC 768), IPv6 may not (RFC 8200 section 8.1).
#[cold]
fn is_right(packet: &Packet<'_>, length: usize) -> bool {
    let Some(datagram) = packet.rest.get(..length) else { return false };
    if packet.source.is_ipv4() && datagram[6..8] == [0, 0] {
        return true;
    }
    let is_zero = datagram[6..8] == [0, 0];
    !is_zero && fold(pseudo_header(packet.source, packet.destination, length) + sum(datagram)) == 0xffff
}

/// What an ICMP message quotes of the datagram that did not arrive.
#[cold]
fn unreachable<'a>(
    packet: &Packet<'a>,
    kind: u8,
    inner: impl FnOnce(&'a [u8]) -> Option<Packet<'a>>,
) -> Option<Frame<'a>> {
    let (head, quoted) = packet.rest.split_first_chunk::<ICMP_BYTES>()?;
    let quoted = inner(quoted).filter(|quoted| head[0] == kind && quoted.protocol == PROTOCOL_UDP)?;
    let (from, to) = ports(quoted.rest.first_chunk()?);
    Some(Frame::Unreachable {
        from: SocketAddr::new(quoted.source, from),
        to: SocketAddr::new(quoted.destination, to),
    })
}

/// Writes headers of one family: most of them is the same in every frame, and so is its part of the checksums.
#[derive(Clone, Debug)]
pub struct Headers {
    bytes: [u8; HEADERS_MAX],
    /// 42 or 62 bytes.
    length: usize,
    /// Sum of the IPv4 header's words that never change.
    constant_sum: u64,
    /// UDP checksums are of whole datagrams; else of what a device sums up from, the pseudo header.
    is_summed: bool,
}

impl Headers {
    /// Headers of frames from one Ethernet address to another, of IPv4 or IPv6 as `like` is.
    pub fn new(from: Mac, to: Mac, like: IpAddr) -> Headers {
        let mut bytes = [0; HEADERS_MAX];
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
        let length = match like {
            IpAddr::V4(_) => {
                bytes[12..14].copy_from_slice(&ETHERTYPE_IPV4);
                bytes[14] = 0x45;
                bytes[20] = DO_NOT_FRAGMENT;
                (bytes[22], bytes[23]) = (HOPS, PROTOCOL_UDP);
                ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES
            }
            IpAddr::V6(_) => {
                bytes[12..14].copy_from_slice(&ETHERTYPE_IPV6);
                bytes[14] = 0x60;
                (bytes[20], bytes[21]) = (PROTOCOL_UDP, HOPS);
                HEADERS_MAX
            }
        };
        let constant_sum = sum(&bytes[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES]);
        Headers { bytes, length, constant_sum, is_summed: true }
    }

    /// The same, with UDP checksums that a device is to complete: their field holds the sum of the pseudo header.
    pub(crate) fn without_checksums(self) -> Headers {
        Headers { is_summed: false, ..self }
    }

    /// How many bytes they take in front of a payload.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Completes a frame whose payload is in place behind the room for these headers, and returns how long it is. Both
    /// ends must be of the family that the headers are of; others make no frame, which is 0 bytes.
    #[inline]
    pub fn write(&self, frame: &mut [u8], from: SocketAddr, to: SocketAddr, payload_bytes: usize) -> usize {
        let end = self.length + payload_bytes;
        let Some(frame) = frame.get_mut(..end) else { return 0 };
        frame[..self.length].copy_from_slice(&self.bytes[..self.length]);
        let datagram_bytes = UDP_BYTES + payload_bytes;
        match (from.ip(), to.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) if self.length < HEADERS_MAX => {
                let ip = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV4_BYTES];
                let total = ((IPV4_BYTES + datagram_bytes) as u16).to_be_bytes();
                ip[2..4].copy_from_slice(&total);
                ip[12..16].copy_from_slice(&source.octets());
                ip[16..20].copy_from_slice(&destination.octets());
                let words = self.constant_sum + sum(&total) + sum(&ip[12..20]);
                ip[10..12].copy_from_slice(&(!fold(words)).to_ne_bytes());
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) if self.length == HEADERS_MAX => {
                let ip = &mut frame[ETHERNET_BYTES..ETHERNET_BYTES + IPV6_BYTES];
                ip[4..6].copy_from_slice(&(datagram_bytes as u16).to_be_bytes());
                ip[8..24].copy_from_slice(&source.octets());
                ip[24..40].copy_from_slice(&destination.octets());
            }
            _ => return 0,
        }
        let datagram = &mut frame[self.length - UDP_BYTES..];
        datagram[..2].copy_from_slice(&from.port().to_be_bytes());
        datagram[2..4].copy_from_slice(&to.port().to_be_bytes());
        datagram[4..6].copy_from_slice(&(datagram_bytes as u16).to_be_bytes());
        let before = pseudo_header(from.ip(), to.ip(), datagram_bytes);
        if !self.is_summed {
            datagram[6..8].copy_from_slice(&fold(before).to_ne_bytes());
            return end;
        }
        let words = before + sum(datagram);
        // 0 would say that there is none: RFC 768, RFC 8200 section 8.1.
        let checksum = match !fold(words) {
            0 => 0xffff,
            other => other,
        };
        datagram[6..8].copy_from_slice(&checksum.to_ne_bytes());
        end
    }
}

/// What a UDP checksum covers beside the datagram: RFC 768, RFC 8200 section 8.1.
#[inline]
fn pseudo_header(source: IpAddr, destination: IpAddr, datagram_bytes: usize) -> u64 {
    let addresses = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => sum(&source.octets()) + sum(&destination.octets()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => sum(&source.octets()) + sum(&destination.octets()),
        _ => 0,
    };
    addresses + u64::from((datagram_bytes as u16).to_be()) + u64::from(u16::from(PROTOCOL_UDP).to_be())
}

/// Sum of the bytes as words of this machine's order: a one's complement sum has the same bytes in either (RFC 1071
/// section 2). A last odd byte has a zero behind it.
#[inline]
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    total
}

/// The one's complement sum in 16 bits.
#[inline]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
#[path = "../../fuzz/fuzz_targets/frame.rs"]
mod fuzzed;

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = [2, 0, 0, 0, 0, 1];
    const THEIRS: Mac = [2, 0, 0, 0, 0, 2];

    fn ends(is_ipv4: bool) -> (SocketAddr, SocketAddr) {
        match is_ipv4 {
            true => ("10.1.2.3:20001".parse().unwrap(), "10.255.255.1:69".parse().unwrap()),
            false => ("[fd00::7]:20001".parse().unwrap(), "[fd01::1]:69".parse().unwrap()),
        }
    }

    fn frame(is_ipv4: bool, payload: &[u8]) -> Vec<u8> {
        let (from, to) = ends(is_ipv4);
        let headers = Headers::new(OURS, THEIRS, from.ip());
        let mut frame = vec![0xee; headers.length() + payload.len()];
        frame[headers.length()..].copy_from_slice(payload);
        assert_eq!(headers.write(&mut frame, from, to, payload.len()), frame.len());
        frame
    }

    /// Changes an IPv4 frame's header and makes its checksum right again.
    fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = frame(true, b"\0\x04\0\x01");
        change(&mut frame);
        let end = ETHERNET_BYTES + usize::from(frame[14] & 0x0f) * 4;
        if frame.len() >= end && end > 26 {
            frame[24..26].fill(0);
            let checksum = !fold(sum(&frame[ETHERNET_BYTES..end]));
            frame[24..26].copy_from_slice(&checksum.to_ne_bytes());
        }
        frame
    }

    #[test]
    fn what_is_written_is_read_with_any_payload_in_both_families() {
        for is_ipv4 in [true, false] {
            for length in [0, 1, 2, 3, 4, 5, 7, 8, 100, 516, 1428, 1452] {
                let payload: Vec<u8> = (0..length).map(|byte| (byte * 7) as u8).collect();
                let (from, to) = ends(is_ipv4);
                let due = Frame::Datagram { from, to, payload: &payload, truncated: false };
                assert_eq!(parse(&frame(is_ipv4, &payload), false), Some(due), "{length}");
            }
        }
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_written_as_all_ones() {
        for is_ipv4 in [true, false] {
            let is_ones = |word: u16| {
                let frame = frame(is_ipv4, &word.to_be_bytes());
                let at = frame.len() - 4;
                assert_ne!(frame[at..at + 2], [0, 0]);
                frame[at..at + 2] == [0xff, 0xff]
            };
            // Exactly one word makes the sum all ones; its complement would be 0.
            assert_eq!((0..=u16::MAX).filter(|word| is_ones(*word)).count(), 1);
        }
    }

    #[test]
    fn a_wrong_checksum_is_no_datagram_unless_the_kernel_vouches_for_it() {
        for is_ipv4 in [true, false] {
            let mut frame = frame(is_ipv4, b"\0\x04\0\x01");
            *frame.last_mut().unwrap() ^= 1;
            assert_eq!(parse(&frame, false), None);
            assert!(parse(&frame, true).is_some());
            let at = frame.len() - 6;
            frame[at..at + 2].fill(0);
            assert_eq!(parse(&frame, false).is_some(), is_ipv4, "IPv4 may leave it out");
        }
    }

    #[test]
    fn no_prefix_of_a_frame_is_more_than_a_datagram_that_was_cut_off() {
        for is_ipv4 in [true, false] {
            let whole = frame(is_ipv4, b"\0\x03\0\x01contents");
            for length in 0..whole.len() {
                match parse(&whole[..length], false) {
                    None => assert!(length < whole.len() - 12),
                    Some(Frame::Datagram { payload, truncated, .. }) => {
                        assert!(truncated && payload.len() == length + 12 - whole.len());
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_no_datagram() {
        let is_none = |change: fn(&mut Vec<u8>)| assert_eq!(parse(&changed(change), true), None);
        is_none(|frame| frame[14] = 0x44); // a header of 16 bytes
        is_none(|frame| frame[14] = 0x65); // version 6
        is_none(|frame| frame[16..18].copy_from_slice(&19_u16.to_be_bytes())); // shorter than its header
        is_none(|frame| frame[14] = 0x4f); // options behind the end
        is_none(|frame| frame[38..40].copy_from_slice(&7_u16.to_be_bytes())); // a datagram shorter than its header
        is_none(|frame| frame[38..40].copy_from_slice(&13_u16.to_be_bytes())); // and longer than its packet
        is_none(|frame| frame[16..18].copy_from_slice(&27_u16.to_be_bytes()));
        is_none(|frame| frame[20] = 0x20); // more fragments
        is_none(|frame| frame[21] = 1); // a later fragment
        is_none(|frame| frame[23] = 6); // TCP
        is_none(|frame| frame[12] = 0x81); // a VLAN tag
        let mut frame = frame(true, b"\0\x04\0\x01");
        frame[22] -= 1; // a router forgot the checksum
        assert_eq!(parse(&frame, true), None);
    }

    #[test]
    fn options_and_padding_are_stepped_over() {
        let padded = changed(|frame| frame.resize(60, 0));
        let with_options = changed(|frame| {
            frame.splice(34..34, [1; 8]);
            frame[14] = 0x47;
            frame[17] += 8;
        });
        for frame in [padded, with_options] {
            let Some(Frame::Datagram { payload, truncated, .. }) = parse(&frame, true) else {
                panic!("no datagram")
            };
            assert_eq!((payload, truncated), (b"\0\x04\0\x01".as_slice(), false));
        }
    }

    #[test]
    fn an_unreachable_tells_which_datagram_it_speaks_of_and_nothing_else_of_icmp_does() {
        for (is_ipv4, kind, protocol) in [(true, 3, 1), (false, 1, 58)] {
            let quoted = &frame(is_ipv4, b"\0\x01f")[ETHERNET_BYTES..];
            // Its own datagram header is an ICMP one here: type, code, checksum, unused.
            let message = |kind: u8| {
                let mut frame = frame(is_ipv4, quoted);
                let at = if is_ipv4 { 34 } else { 54 };
                frame[at..at + 8].copy_from_slice(&[kind, 3, 0, 0, 0, 0, 0, 0]);
                frame[if is_ipv4 { 23 } else { 20 }] = protocol;
                if is_ipv4 {
                    frame[24..26].fill(0);
                    let checksum = !fold(sum(&frame[14..34]));
                    frame[24..26].copy_from_slice(&checksum.to_ne_bytes());
                }
                frame
            };
            let (from, to) = ends(is_ipv4);
            assert_eq!(parse(&message(kind), false), Some(Frame::Unreachable { from, to }));
            assert_eq!(parse(&message(0), false), None);
            let cut = message(kind);
            for length in 0..cut.len() - 11 {
                assert_eq!(parse(&cut[..length], false), None, "{length}");
            }
        }
    }

    #[test]
    fn whatever_arrives_is_a_frame_or_none() {
        // Numbers of splitmix64.
        let mut state = 2347_u64;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes()
        };
        for _ in 0..50_000 {
            let length = usize::from(next()[0]) % 120;
            let mut input: Vec<u8> = std::iter::repeat_with(&mut next).flatten().take(length).collect();
            fuzzed::frame(&input);
            // As it would have to begin to be IP at all.
            if let Some(head) = input.get_mut(..25).filter(|head| head[0] & 2 == 0) {
                let kind: &[u8] = if head[1] % 2 == 0 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] };
                head[14..17].copy_from_slice(kind);
                fuzzed::frame(&input);
            }
        }
    }

    #[test]
    fn a_checksum_that_is_left_to_a_device_is_right_once_it_has_summed_the_datagram() {
        for is_ipv4 in [true, false] {
            let (from, to) = ends(is_ipv4);
            let headers = Headers::new(OURS, THEIRS, from.ip()).without_checksums();
            let mut made = vec![7; headers.length() + 5];
            assert_eq!(headers.write(&mut made, from, to, 5), made.len());
            assert_eq!(parse(&made, false), None, "it is not summed yet");
            let at = headers.length() - UDP_BYTES;
            let checksum = !fold(sum(&made[at..]));
            made[at + 6..at + 8].copy_from_slice(&checksum.to_ne_bytes());
            assert!(parse(&made, false).is_some());
        }
    }

    #[test]
    fn ends_of_two_families_make_no_frame() {
        let ((v4, _), (v6, _)) = (ends(true), ends(false));
        let headers = Headers::new(OURS, THEIRS, v4.ip());
        let mut room = [0; 100];
        assert_eq!([(v4, v6), (v6, v4), (v6, v6)].map(|(a, b)| headers.write(&mut room, a, b, 4)), [0; 3]);
        assert_eq!(headers.write(&mut [0; 45], v4, v4, 4), 0, "no room");
        assert_eq!([v4, v6].map(|end| payload_max(end.ip(), 1500)), [1472, 1452]);
    }
}
