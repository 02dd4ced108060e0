//! Socket addresses between the standard library's form and the kernel's. Only this crate uses it.

use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an IPv4 or IPv6 address as the kernel writes it (ip(7), ipv6(7)).
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union RawAddress {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// What the kernel is told about the room there is.
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
    fn no_family_is_no_address() {
        assert_eq!(RawAddress::NONE.decode(), None);
    }
}
