//! A bound UDP socket. Never waits, and is connected only where it is asked to be.

use std::io;
use std::mem::{size_of, size_of_val};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::address::{LocalAddress, RAW_ADDRESS_LEN, RawAddress};
use crate::broker::SocketSource;
use crate::control::{Outgoing, SourceKind, attach};
use crate::errno::ErrorClass;

/// What is asked of the kernel for a socket. What it refuses is done without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Receive buffer to ask for; 0 leaves the kernel's. It grants at most `net.core.rmem_max`, socket(7).
    pub receive_buffer_bytes: usize,
    /// Send buffer to ask for; 0 leaves the kernel's.
    pub send_buffer_bytes: usize,
    /// Have the kernel stamp each datagram on arrival (SO_TIMESTAMPNS).
    pub receive_stamps: bool,
    /// Have the kernel tell which local address each datagram was sent to (IP_PKTINFO, ip(7), IPV6_RECVPKTINFO,
    /// ipv6(7)).
    pub packet_info: bool,
    /// Have the kernel hand over what one peer sent in a row as one message (UDP_GRO, udp(7)). For sockets that a
    /// [`ReceiveBatch::coalescing`](crate::ReceiveBatch::coalescing) reads: any other has no room for such messages.
    pub receive_coalesced: bool,
    /// Let it be bound to, and send from, addresses that no interface has (IP_FREEBIND, ip(7)): those of a network that a
    /// route calls local.
    pub any_source: bool,
    /// Let several sockets be bound to one address, the kernel spreading peers over them (SO_REUSEPORT).
    pub reuse_port: bool,
}

/// What became of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel took it.
    Done,
    /// The send buffer is full; the datagram is lost.
    WouldBlock,
    /// The way to this peer is closed (unreachable, filtered, no such address); the datagram is lost.
    Refused,
}

/// A bound UDP socket, IPv4 or IPv6.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    local: SocketAddr,
    /// The kernel adds control messages to what is received.
    has_control: bool,
    /// One message may hold several datagrams.
    coalesces: bool,
    /// SO_RCVTIMEO as last set; 0 is the kernel's initial "wait for ever".
    receive_timeout_ns: AtomicU64,
}

impl Socket {
    /// Binds to `address`; port 0 takes a free one. An IPv6 socket bound to `[::]` also receives IPv4,
    /// its peers then being written as `[::ffff:a.b.c.d]`.
    pub fn bind(address: SocketAddr, options: &SocketOptions) -> io::Result<Socket> {
        Socket::bind_in(&SocketSource::Here, address, options)
    }

    /// As `bind`, in another network namespace where the source is of one.
    pub fn bind_in(
        source: &SocketSource,
        address: SocketAddr,
        options: &SocketOptions,
    ) -> io::Result<Socket> {
        let domain = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let fd = source.open(domain, libc::SOCK_DGRAM, libc::IPPROTO_UDP)?;
        if let SocketAddr::V6(v6) = address {
            // ipv6(7). Where it can't be changed the system's default decides.
            let is_of_both = v6.ip().is_unspecified() || v6.ip().to_ipv4_mapped().is_some();
            let v6_only = libc::c_int::from(!is_of_both);
            let _ = set_option(&fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, &v6_only);
        }
        // Before bind(2), or it does not count for the bind. Without it a second bind fails and says so.
        if options.reuse_port {
            let _ = set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1);
        }
        ask_for_buffer(&fd, libc::SO_RCVBUF, options.receive_buffer_bytes);
        ask_for_buffer(&fd, libc::SO_SNDBUF, options.send_buffer_bytes);
        let has_stamps =
            options.receive_stamps && set_option(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1).is_ok();
        if options.any_source {
            ask_for_any_source(&fd, address);
        }
        // Unlike a stamp this cannot be done without: its user tells its peers apart by it.
        if options.packet_info {
            ask_for_packet_info(&fd, address)?;
        }
        let_routers_fragment(&fd);
        let coalesces =
            options.receive_coalesced && set_option(&fd, libc::SOL_UDP, libc::UDP_GRO, &1).is_ok();
        bind(&fd, address)?;
        let local = local_address(&fd)?;
        let has_control = has_stamps || options.packet_info || coalesces;
        Ok(Socket { fd, local, has_control, coalesces, receive_timeout_ns: AtomicU64::new(0) })
    }

    /// The address it is bound to, with the port that was picked.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// From now on sockets with `reuse_port` may be bound to the same address. Unlike one bound with that option, this
    /// one was alone there: with it, the kernel may pick a port that others of this user share already.
    pub fn share_address(&self) -> io::Result<()> {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1)
    }

    /// The receive buffer as the kernel accounts it: twice what was granted, its own overhead
    /// included, socket(7). 0 where unknown.
    pub fn granted_receive_buffer_bytes(&self) -> usize {
        let granted = option::<libc::c_int>(&self.fd, libc::SOL_SOCKET, libc::SO_RCVBUF);
        granted.ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
    }

    /// Messages the kernel has thrown away at this socket so far, mostly for want of buffer: datagrams, or coalesced
    /// runs of them. 0 where unknown (SO_MEMINFO is Linux 4.12; the counter has 32 bits).
    pub fn drops(&self) -> u64 {
        // linux/sock_diag.h: SK_MEMINFO_VARS numbers, drops the last of them.
        type MemoryInfo = [u32; libc::SK_MEMINFO_DROPS as usize + 1];
        let info = option::<MemoryInfo>(&self.fd, libc::SOL_SOCKET, libc::SO_MEMINFO);
        info.map_or(0, |info| u64::from(info[libc::SK_MEMINFO_DROPS as usize]))
    }

    /// Hears from `peer` only from now on, and knows the way to it: what is sent without an address goes there.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        let (raw, raw_len) = RawAddress::encode(peer);
        // connect(2) on a datagram socket sends nothing and does not wait.
        // SAFETY: the address is at least `raw_len` long and only read.
        let status = unsafe { libc::connect(self.fd.as_raw_fd(), (&raw const raw).cast(), raw_len) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends one datagram without waiting. An error is a fault of the socket or of the caller.
    pub fn send_to(&self, datagram: &[u8], peer: SocketAddr) -> io::Result<Sent> {
        let (raw, raw_len) = RawAddress::encode(peer);
        // SAFETY: datagram and address are as long as stated and only read while the call runs.
        send_twice(|| unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                datagram.as_ptr().cast(),
                datagram.len(),
                libc::MSG_DONTWAIT,
                (&raw const raw).cast(),
                raw_len,
            )
        })
    }

    /// As `send_to`, from another address of this machine than the one that the socket is bound to, where one is given.
    pub fn send_from(
        &self,
        source: Option<LocalAddress>,
        datagram: &[u8],
        peer: SocketAddr,
    ) -> io::Result<Sent> {
        let Some(source) = source else { return self.send_to(datagram, peer) };
        let (mut raw, raw_len) = RawAddress::encode(peer);
        let mut control = Outgoing::new();
        control.set_source(source);
        let mut vector =
            libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
        // SAFETY: msghdr is numbers and pointers, for which zero is valid; it may have private padding.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        (header.msg_name, header.msg_namelen) = ((&raw mut raw).cast(), raw_len);
        (header.msg_iov, header.msg_iovlen) = (&raw mut vector, 1);
        attach(&mut header, &raw mut control, SourceKind::of(Some(source)), false);
        // SAFETY: what the header leads to lives until the calls are over, and they only read it.
        send_twice(|| unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) })
    }

    /// Has the kernel keep what ICMP says of datagrams that were sent, for [`take_error`](Socket::take_error), or not:
    /// then what is kept is thrown away (IP_RECVERR, ip(7)). An unconnected socket hears nothing of it otherwise. While
    /// it does, a poller finds the socket ready as long as something is kept.
    pub fn keep_errors(&self, keep: bool) -> io::Result<()> {
        let (level, name) = match self.local {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_RECVERR),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        };
        set_option(&self.fd, level, name, &libc::c_int::from(keep))
    }

    /// The oldest error that is kept: where the datagram was sent to, and what became of it.
    pub fn take_error(&self) -> Option<(SocketAddr, io::Error)> {
        let mut raw = RawAddress::NONE;
        let mut control = ErrorControl([0; ERROR_CONTROL_BYTES]);
        // SAFETY: msghdr is numbers and pointers, for which zero is valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = (&raw mut raw).cast();
        header.msg_namelen = RAW_ADDRESS_LEN;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: address and control room live longer than the call, and it writes no more than their lengths.
        let read = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, flags) };
        if read < 0 {
            return None;
        }
        Some((raw.decode()?, io::Error::from_raw_os_error(error_number(&header)?)))
    }

    pub(crate) fn has_control(&self) -> bool {
        self.has_control
    }

    pub(crate) fn coalesces(&self) -> bool {
        self.coalesces
    }

    /// Whether the kernel knows UDP_SEGMENT, udp(7). One that does not (before 4.18) ignores it and would send a run of
    /// datagrams as one.
    pub(crate) fn knows_segments(&self) -> bool {
        option::<libc::c_int>(&self.fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
    }

    /// Has the kernel refuse segments, and nothing else: it can't cut what bears no checksum (SO_NO_CHECK, socket(7)).
    #[cfg(test)]
    pub(crate) fn refuse_segments(&self) {
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_NO_CHECK, &1).unwrap();
    }

    /// Bounds how long a blocking receive waits. Costs a system call only when the bound in force is
    /// under half of `timeout_ns` (which would wake for nothing) or more than an eighth above it: a
    /// deadline that shifts a little with every datagram must not cost a call per datagram.
    pub(crate) fn set_receive_timeout(&self, timeout_ns: u64) -> io::Result<()> {
        let set_ns = self.receive_timeout_ns.load(Ordering::Relaxed);
        if set_ns >= timeout_ns / 2 && set_ns <= timeout_ns.saturating_add(timeout_ns / 8) && set_ns > 0 {
            return Ok(());
        }
        // socket(7): a zero timeval means for ever, so the least is one microsecond.
        let timeout_us = timeout_ns.div_ceil(1000).max(1);
        let timeout = libc::timeval {
            tv_sec: (timeout_us / 1_000_000).try_into().unwrap_or(libc::time_t::MAX),
            tv_usec: (timeout_us % 1_000_000) as libc::suseconds_t,
        };
        set_option(&self.fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
        self.receive_timeout_ns.store(timeout_ns.max(1), Ordering::Relaxed);
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kernel may report an earlier datagram's ICMP error instead of sending, ip(7): tries twice.
fn send_twice(call: impl Fn() -> libc::ssize_t) -> io::Result<Sent> {
    for _ in 0..2 {
        if call() >= 0 {
            return Ok(Sent::Done);
        }
        let error = io::Error::last_os_error();
        match ErrorClass::sending(&error) {
            ErrorClass::WouldBlock => return Ok(Sent::WouldBlock),
            ErrorClass::Interrupted | ErrorClass::Path => {}
            ErrorClass::Socket => return Err(error),
        }
    }
    Ok(Sent::Refused)
}

/// An IPv6 socket that is bound to `[::]` receives IPv4, too, and learns that by either option: only that of IPv4 tells
/// a broadcast.
fn ask_for_packet_info(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let of_v4 = set_option(fd, libc::IPPROTO_IP, libc::IP_PKTINFO, &1);
    match address {
        SocketAddr::V4(_) => of_v4,
        SocketAddr::V6(_) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, &1),
    }
}

/// Leaves "don't fragment" off in IPv4, ip(7): a router before a narrower link then fragments, where it would otherwise
/// drop the datagram and tell us by ICMP, which many paths filter. What such messages say is not heeded either, so a
/// forged one cannot make datagrams smaller. Where the kernel refuses, its default decides. In IPv6 routers fragment
/// nothing, and the kernel goes on to heed ICMPv6 (RFC 8201).
fn let_routers_fragment(fd: &OwnedFd) {
    let _ = set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, &libc::IP_PMTUDISC_OMIT);
}

/// What the kernel refuses shows when such an address is used.
fn ask_for_any_source(fd: &OwnedFd, address: SocketAddr) {
    let _ = match address {
        SocketAddr::V4(_) => set_option(fd, libc::IPPROTO_IP, libc::IP_FREEBIND, &1),
        SocketAddr::V6(_) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_FREEBIND, &1),
    };
}

/// Room for a sock_extended_err with an address behind it, and for what else the socket reports, aligned as cmsg(3)
/// wants it.
#[repr(C, align(8))]
struct ErrorControl([u8; ERROR_CONTROL_BYTES]);
const ERROR_CONTROL_BYTES: usize = 256;

/// The errno in a message of the error queue, ip(7).
fn error_number(header: &libc::msghdr) -> Option<libc::c_int> {
    // SAFETY: `msg_control` holds `msg_controllen` bytes as the kernel wrote them, aligned.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // The kernel ends the list by its length; the bound is for a reader's peace of mind.
    for _ in 0..ERROR_CONTROL_BYTES / size_of::<libc::cmsghdr>() {
        // SAFETY: null, or a whole header inside the control room, as CMSG_FIRSTHDR and NXTHDR promise.
        let found = unsafe { message.as_ref() }?;
        let kind = (found.cmsg_level, found.cmsg_type);
        if kind == (libc::IPPROTO_IP, libc::IP_RECVERR) || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) {
            // SAFETY: the kernel writes a sock_extended_err behind a header of these types; it begins with a u32 errno.
            let errno = unsafe { libc::CMSG_DATA(message).cast::<u32>().read_unaligned() };
            return libc::c_int::try_from(errno).ok();
        }
        // SAFETY: `message` is a header of this list.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// bind(2).
fn bind(fd: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    let (raw, raw_len) = RawAddress::encode(address);
    // SAFETY: the address is at least `raw_len` long and only read.
    let status = unsafe { libc::bind(fd.as_raw_fd(), (&raw const raw).cast(), raw_len) };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// getsockname(2).
fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let mut raw = RawAddress::NONE;
    let mut raw_len = RAW_ADDRESS_LEN;
    // SAFETY: the address has room for `raw_len` bytes, and the call writes no more than that.
    let status = unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut raw).cast(), &mut raw_len) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    raw.decode().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// SO_RCVBUF or SO_SNDBUF, socket(7): granted up to the system's limit, which asks no privilege.
fn ask_for_buffer(fd: &OwnedFd, name: libc::c_int, bytes: usize) {
    if bytes > 0 {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
        let _ = set_option(fd, libc::SOL_SOCKET, name, &bytes);
    }
}

/// setsockopt(2). `T` is what the option takes: plain numbers without padding.
pub(crate) fn set_option<T: Copy>(
    fd: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: the value is as long as stated and only read.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of_val(value) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A value that is all zero before the kernel fills it in.
trait Zeroed: Copy {
    const ZERO: Self;
}

impl Zeroed for libc::c_int {
    const ZERO: Self = 0;
}

impl<const N: usize> Zeroed for [u32; N] {
    const ZERO: Self = [0; N];
}

/// getsockopt(2). What an older kernel leaves out stays zero.
fn option<T: Zeroed>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int) -> io::Result<T> {
    let mut value = T::ZERO;
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the value has room for `len` bytes, and any bytes make a valid number.
    let status = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
    if status == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// PACKET_STATISTICS, packet(7): counted since the last look.
pub(crate) fn packet_statistics(fd: &OwnedFd) -> io::Result<libc::tpacket_stats> {
    let [tp_packets, tp_drops] = option::<[u32; 2]>(fd, libc::SOL_PACKET, libc::PACKET_STATISTICS)?;
    Ok(libc::tpacket_stats { tp_packets, tp_drops })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn bound() -> Socket {
        Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap()
    }

    #[test]
    fn a_wait_that_shifts_a_little_keeps_the_timeout_in_force() {
        let socket = bound();
        let in_force_after = |timeout_ns| {
            socket.set_receive_timeout(timeout_ns).unwrap();
            socket.receive_timeout_ns.load(Ordering::Relaxed)
        };
        assert_eq!(in_force_after(200_000_000), 200_000_000);
        assert_eq!(in_force_after(190_000_000), 200_000_000, "a little late");
        assert_eq!(in_force_after(399_000_000), 200_000_000, "early");
        assert_eq!(in_force_after(150_000_000), 150_000_000, "too late otherwise");
        assert_eq!(in_force_after(500_000_000), 500_000_000, "too early otherwise");
    }

    #[test]
    fn no_wait_is_mistaken_for_for_ever() {
        let socket = bound();
        for timeout_ns in [0, 1, 999] {
            socket.set_receive_timeout(timeout_ns).unwrap();
            assert_eq!(socket.receive_timeout_ns.load(Ordering::Relaxed), timeout_ns.max(1));
        }
    }

    #[test]
    fn what_icmp_says_of_an_unconnected_socket_is_kept_only_where_that_is_asked_for() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = Socket::bind(address.parse().unwrap(), &SocketOptions::default()) else {
                continue; // No IPv6 here.
            };
            let closed =
                Socket::bind(address.parse().unwrap(), &SocketOptions::default()).unwrap().local_addr();
            socket.send_to(b"x", closed).unwrap();
            assert!(socket.take_error().is_none());
            socket.keep_errors(true).unwrap();
            socket.send_to(b"x", closed).unwrap();
            // On loopback it is there when the send returns, unless the kernel is too busy for that.
            let deadline = Instant::now() + Duration::from_secs(20);
            let kept = std::iter::repeat_with(|| socket.take_error())
                .find(|kept| kept.is_some() || Instant::now() > deadline);
            let (peer, error) = kept.flatten().unwrap();
            assert_eq!((peer, error.kind()), (closed, io::ErrorKind::ConnectionRefused));
            socket.send_to(b"x", closed).unwrap();
            socket.keep_errors(false).unwrap();
            assert!(socket.take_error().is_none());
        }
    }

    #[test]
    fn a_buffer_beyond_the_limit_is_granted_as_far_as_it_goes() {
        let options = SocketOptions { receive_buffer_bytes: usize::MAX, ..SocketOptions::default() };
        let socket = Socket::bind("127.0.0.1:0".parse().unwrap(), &options).unwrap();
        assert!(socket.granted_receive_buffer_bytes() >= bound().granted_receive_buffer_bytes());
    }

    #[test]
    fn a_bound_socket_may_come_to_share_its_address() {
        let (alone, shared) = (bound(), SocketOptions { reuse_port: true, ..SocketOptions::default() });
        assert!(Socket::bind(alone.local_addr(), &shared).is_err());
        alone.share_address().unwrap();
        let second = Socket::bind(alone.local_addr(), &shared).unwrap();
        // The kernel spreads peers over both.
        let peers: Vec<_> = (0..64).map(|_| bound()).collect();
        peers.iter().for_each(|peer| assert_eq!(peer.send_to(b"x", alone.local_addr()).unwrap(), Sent::Done));
        let mut batch = crate::ReceiveBatch::new(64, 16);
        let counts = [&alone, &second].map(|socket| batch.receive(socket).unwrap());
        assert_eq!(counts[0] + counts[1], 64);
        // Each by the toss of a coin: 1 in 2^63 that one gets none.
        assert!(counts[0] > 0 && counts[1] > 0, "{counts:?}");
    }

    #[test]
    fn an_address_is_bound_once_unless_shared() {
        let shared = SocketOptions { reuse_port: true, ..SocketOptions::default() };
        let first = Socket::bind("127.0.0.1:0".parse().unwrap(), &shared).unwrap();
        assert!(Socket::bind(first.local_addr(), &shared).is_ok());
        let error = Socket::bind(first.local_addr(), &SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
