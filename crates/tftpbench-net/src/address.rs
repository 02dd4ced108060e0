//! Addresses: between the standard library's form and the kernel's, as people write them, and this machine's own as the
//! destination or source of a datagram. Only the name of an interface takes a system call.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

/// One of this machine's addresses: where a datagram was sent to, and where its answer is to come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    ip: IpAddr,
    /// Index of the interface, for an address that means something on its link alone (fe80::/10); else 0.
    interface: u32,
}

impl LocalAddress {
    /// `interface`: the index of the one that the datagram came in by.
    pub(crate) fn new(ip: IpAddr, interface: u32) -> LocalAddress {
        let is_of_link = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        LocalAddress { ip, interface: if is_of_link { interface } else { 0 } }
    }

    /// Without its interface. IPv4 at an IPv6 socket is `::ffff:a.b.c.d`.
    pub fn ip(self) -> IpAddr {
        self.ip
    }

    /// Index of the interface of a link-local address, else 0.
    pub(crate) fn interface(self) -> u32 {
        self.interface
    }

    /// What a socket at this address and `port` is bound to.
    pub fn with_port(self, port: u16) -> SocketAddr {
        match self.ip {
            IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, 0, self.interface).into(),
        }
    }
}

impl From<Ipv4Addr> for LocalAddress {
    fn from(ip: Ipv4Addr) -> LocalAddress {
        LocalAddress { ip: ip.into(), interface: 0 }
    }
}

impl From<IpAddr> for LocalAddress {
    fn from(ip: IpAddr) -> LocalAddress {
        LocalAddress { ip, interface: 0 }
    }
}

/// A network whose addresses machines have, one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    base: IpAddr,
    host_bits: u32,
}

/// Bits that tell machines of a larger network apart, too.
const HOST_BITS_MAX: u32 = 31;

impl Subnet {
    /// The network that begins with `base` and has so many bits to tell its addresses apart.
    pub const fn new(base: IpAddr, host_bits: u32) -> Subnet {
        Subnet { base, host_bits }
    }

    /// Its first address.
    pub fn base(self) -> IpAddr {
        self.base
    }

    /// Bits of an address that are not the network's.
    pub fn host_bits(self) -> u32 {
        self.host_bits
    }

    /// How many machines can have an address of their own.
    pub fn machines_max(self) -> u64 {
        (1 << self.host_bits.min(HOST_BITS_MAX)) - 2
    }

    /// The address of a machine, by its number from 0: the network's first address is that of no machine.
    pub fn address(self, number: u32) -> IpAddr {
        self.at(number.wrapping_add(1))
    }

    /// The address whose last bits, as many as are not the network's, are these.
    pub fn at(self, bits: u32) -> IpAddr {
        match self.base {
            IpAddr::V4(base) => Ipv4Addr::from(u32::from(base) | bits).into(),
            IpAddr::V6(base) => Ipv6Addr::from(u128::from(base) | u128::from(bits)).into(),
        }
    }

    /// The number of the machine that has this address, which must be one of its network.
    pub fn number(self, address: IpAddr) -> u32 {
        low_bits(address).wrapping_sub(self.low_bits_of(0))
    }

    /// The last 32 bits of a machine's address.
    pub(crate) fn low_bits_of(self, number: u32) -> u32 {
        low_bits(self.address(number))
    }
}

/// The last 32 bits of an address.
pub fn low_bits(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(ip) => u32::from(ip),
        IpAddr::V6(ip) => u128::from(ip) as u32,
    }
}

impl FromStr for Subnet {
    type Err = io::Error;

    /// An address, a slash, and the length of the network's part of it: `10.0.0.0/9`.
    fn from_str(text: &str) -> io::Result<Subnet> {
        let parse = || {
            let (base, prefix) = text.split_once('/')?;
            let (base, prefix): (IpAddr, u32) = (base.parse().ok()?, prefix.parse().ok()?);
            let (bits, length) = match base {
                IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
                IpAddr::V6(ip) => (u128::from(ip), 128),
            };
            let host_bits = length - Some(prefix).filter(|prefix| (1..=length - 2).contains(prefix))?;
            (bits.trailing_zeros() >= host_bits).then_some(Subnet { base, host_bits })
        };
        let what = || format!("{text} is no network, as 10.0.0.0/9 is one");
        parse().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, what()))
    }
}

/// The socket address of a numeric `host`, which may name its zone as RFC 4007 section 11 has it: `fe80::1%eth0`, or by
/// the interface's index. None where it is no address, or the zone no interface of this machine.
pub fn parse_host(host: &str, port: u16) -> Option<SocketAddr> {
    let Some((ip, zone)) = host.split_once('%') else {
        return host.parse().ok().map(|ip| SocketAddr::new(ip, port));
    };
    let interface = zone.parse().ok().filter(|index| *index > 0).or_else(|| interface_named(zone))?;
    Some(SocketAddrV6::new(ip.parse().ok()?, port, 0, interface).into())
}

/// if_nametoindex(3).
fn interface_named(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends with NUL, only read.
    Some(unsafe { libc::if_nametoindex(name.as_ptr()) }).filter(|index| *index > 0)
}

/// Room for an IPv4 or IPv6 address as the kernel writes it (ip(7), ipv6(7)).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union RawAddress {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// The room that the kernel is given.
pub(crate) const RAW_ADDRESS_LEN: libc::socklen_t = size_of::<RawAddress>() as libc::socklen_t;

impl RawAddress {
    /// All zero: no family, so no address.
    pub(crate) const NONE: RawAddress = RawAddress {
        v6: libc::sockaddr_in6 {
            sin6_family: 0,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    /// The kernel's form of an address, and how long it is.
    pub(crate) fn encode(address: SocketAddr) -> (RawAddress, libc::socklen_t) {
        let mut raw = RawAddress::NONE;
        let len = match address {
            SocketAddr::V4(v4) => {
                raw.v4 = encode_v4(v4);
                size_of::<libc::sockaddr_in>()
            }
            SocketAddr::V6(v6) => {
                raw.v6 = encode_v6(v6);
                size_of::<libc::sockaddr_in6>()
            }
        };
        (raw, len as libc::socklen_t)
    }

    /// The address the kernel wrote; none where it wrote no Internet address.
    pub(crate) fn decode(&self) -> Option<SocketAddr> {
        // SAFETY: every bit pattern is a valid family, and all of the union is initialised always.
        match libc::c_int::from(unsafe { self.family }) {
            // SAFETY: as above, every bit pattern is a valid sockaddr_in.
            libc::AF_INET => Some(decode_v4(unsafe { &self.v4 }).into()),
            // SAFETY: as above, every bit pattern is a valid sockaddr_in6.
            libc::AF_INET6 => Some(decode_v6(unsafe { &self.v6 }).into()),
            _ => None,
        }
    }
}

fn encode_v4(address: SocketAddrV4) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

// The standard library keeps flow information in network order, as the kernel does.
fn encode_v6(address: SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
        sin6_scope_id: address.scope_id(),
    }
}

fn decode_v4(raw: &libc::sockaddr_in) -> SocketAddrV4 {
    let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
    SocketAddrV4::new(ip, u16::from_be(raw.sin_port))
}

fn decode_v6(raw: &libc::sockaddr_in6) -> SocketAddrV6 {
    let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
    SocketAddrV6::new(ip, u16::from_be(raw.sin6_port), raw.sin6_flowinfo, raw.sin6_scope_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_to_the_kernel_and_back() {
        for text in ["127.0.0.1:69", "255.1.2.3:65535", "[::1]:69", "[fe80::1%3]:1069"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::encode(address).0.decode(), Some(address));
        }
    }

    #[test]
    fn a_zone_is_the_name_or_the_index_of_an_interface() {
        let loopback = interface_named("lo").unwrap();
        for host in ["fe80::1%lo".to_owned(), format!("fe80::1%{loopback}")] {
            let due = SocketAddrV6::new("fe80::1".parse().unwrap(), 69, 0, loopback);
            assert_eq!(parse_host(&host, 69), Some(due.into()), "{host}");
        }
        assert_eq!(parse_host("::1", 69), Some("[::1]:69".parse().unwrap()));
        assert_eq!(parse_host("127.0.0.1", 0), Some("127.0.0.1:0".parse().unwrap()));
        for none in ["", "lo", "fe80::1%", "fe80::1%0", "fe80::1%absent", "fe80::1%l\0o", "127.0.0.1%lo"] {
            assert_eq!(parse_host(none, 69), None, "{none:?}");
        }
    }

    #[test]
    fn only_an_address_of_one_link_needs_its_interface() {
        let bound = |ip: &str| LocalAddress::new(ip.parse().unwrap(), 3).with_port(69).to_string();
        assert_eq!(bound("fe80::1"), "[fe80::1%3]:69");
        assert_eq!(bound("2001:db8::1"), "[2001:db8::1]:69");
        assert_eq!(bound("::ffff:192.0.2.1"), "[::ffff:192.0.2.1]:69");
        assert_eq!(bound("192.0.2.1"), "192.0.2.1:69");
    }

    #[test]
    fn machines_of_a_network_have_its_addresses_in_order_from_the_second_one_on() {
        for (network, number, address) in [
            ("10.0.0.0/9", 0, "10.0.0.1"),
            ("10.0.0.0/9", 8_388_605, "10.127.255.254"),
            ("10.64.0.0/10", 255, "10.64.1.0"),
            ("fd00:7::/64", 65_535, "fd00:7::1:0"),
        ] {
            let (subnet, address): (Subnet, IpAddr) = (network.parse().unwrap(), address.parse().unwrap());
            assert_eq!((subnet.address(number), subnet.number(address)), (address, number));
            assert!(u64::from(number) < subnet.machines_max());
        }
        for none in
            ["", "10.0.0.0", "10.0.0.0/33", "10.0.0.1/9", "10.0.0.0/0", "10.0.0.0/31", "fd00::1/64", "x/9"]
        {
            assert!(none.parse::<Subnet>().is_err(), "{none}");
        }
    }

    #[test]
    fn no_family_is_no_address() {
        assert_eq!(RawAddress::NONE.decode(), None);
    }
}
