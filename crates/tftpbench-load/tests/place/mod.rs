//! Where a test's server and generator are: on loopback, or in a network of their own (docs/network.md), which the broker
//! that the runner uses makes. Without user namespaces, or without Python, there is no such network, and a test says so.
#![allow(clippy::print_stdout, reason = "a skip says why")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socketpair};
use tftpbench_load::{LoadConfig, Network, Sockets};
use tftpbench_net::{Broker, RingLink, Side, SocketSource};

const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 1);
const SERVER_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd74, 0x6674, 0x7000, 0, 0, 0, 0, 1);
const SERVER_MAC: [u8; 6] = [0x02, 0x74, 0x66, 0x74, 0x70, 0x01];
const ROUTER_MAC: [u8; 6] = [0x02, 0x74, 0x66, 0x74, 0x70, 0xfe];

/// The ways to a socket that this machine allows: both on loopback, and rings.
pub(crate) fn ways() -> Vec<Sockets> {
    static RINGS: OnceLock<Result<(), String>> = OnceLock::new();
    let mut ways = vec![Sockets::Shared, Sockets::PerTransfer];
    match RINGS.get_or_init(|| Made::new().map(drop)) {
        Ok(()) => ways.push(Sockets::Ring),
        Err(reason) => println!("skipped: rings: {reason}"),
    }
    ways
}

/// Whether there are rings here that IPv6 goes over.
pub(crate) fn has_ipv6_rings() -> bool {
    let found = Made::new().and_then(|made| match made.has_ipv6 {
        true => Ok(()),
        false => Err("no IPv6".to_owned()),
    });
    if let Err(reason) = &found {
        println!("skipped: rings: {reason}");
    }
    found.is_ok()
}

/// Where one run takes place.
pub(crate) struct Place {
    made: Option<Made>,
    is_ipv6: bool,
}

impl Place {
    /// Makes the place that a run needs, of the family of its server's address. What a ring can't carry is carried by sockets
    /// of the same network.
    pub(crate) fn of(config: &mut LoadConfig) -> Place {
        let is_ipv6 = config.server.is_ipv6();
        if config.sockets != Sockets::Ring {
            return Place { made: None, is_ipv6 };
        }
        if config.ring_refusal().is_some() {
            config.sockets = Sockets::Shared;
        }
        let made = Made::new().unwrap();
        config.network = Some(made.network(config.sockets == Sockets::Ring, is_ipv6));
        Place { made: Some(made), is_ipv6 }
    }

    /// A socket of the server's.
    pub(crate) fn bind(&self) -> UdpSocket {
        let Some(made) = &self.made else { return UdpSocket::bind("127.0.0.1:0").unwrap() };
        let (family, server) = match self.is_ipv6 {
            true => (AddressFamily::INET6, IpAddr::from(SERVER_IPV6)),
            false => (AddressFamily::INET, IpAddr::from(SERVER)),
        };
        let (family, kind) = (i32::from(family.as_raw()), SocketType::DGRAM.as_raw() as i32);
        let fd = made.broker.open(Side::Server, family, kind, 0).unwrap();
        bind(&fd, &SocketAddr::from((server, 0))).unwrap();
        UdpSocket::from(fd)
    }
}

/// A network, until it is dropped.
struct Made {
    broker: Arc<Broker>,
    interface: u32,
    has_ipv6: bool,
    control: Option<OwnedFd>,
    process: Child,
}

impl Made {
    fn new() -> Result<Made, String> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tftpbench/host/network/broker.py");
        let pair =
            || socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let ((control, its_control), (requests, its_requests)) = (pair(), pair());
        let process = Command::new("python3")
            .args(["-I", "-S"])
            .arg(program)
            .args(["0", "1", "0"])
            .stdin(its_control)
            .stdout(its_requests)
            .spawn()
            .map_err(|error| format!("python3: {error}"))?;
        let broker = Arc::new(Broker::new(requests).unwrap());
        let mut made = Made { broker, interface: 0, has_ipv6: false, control: Some(control), process };
        let text = made.description();
        // Its descriptors are not taken: the network lasts as long as the broker.
        let (_, rest) = text.split_once("\"interface\": ").ok_or_else(|| text.clone())?;
        made.interface = rest.split(',').next().and_then(|number| number.parse().ok()).ok_or(text.clone())?;
        made.has_ipv6 = text.contains("\"ipv6\": true");
        match text.contains("\"packet\": \"\"") {
            true => Ok(made),
            false => Err(text),
        }
    }

    fn description(&self) -> String {
        let mut message = [0; 4096];
        let Some(control) = &self.control else { return String::new() };
        let ready = poll(&mut [PollFd::new(control, PollFlags::IN)], Some(&PATIENCE)).unwrap();
        let length = if ready == 0 { 0 } else { rustix::io::read(control, &mut message).unwrap_or(0) };
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    fn network(&self, is_ring: bool, is_ipv6: bool) -> Network {
        let source = SocketSource::Behind(self.broker.clone(), Side::Generator);
        let link = RingLink {
            source: source.clone(),
            interface: self.interface,
            ours: ROUTER_MAC,
            theirs: SERVER_MAC,
        };
        let machines = match (is_ring, is_ipv6) {
            (true, false) => "10.0.0.0/9",
            (false, false) => "10.128.0.0/10",
            (true, true) => "fd74:6674:7000:1::/64",
            (false, true) => "fd74:6674:7000:2::/64",
        };
        Network { source, machines: machines.parse().unwrap(), link: is_ring.then_some(link) }
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Its end is the broker's.
        drop(self.control.take());
        let _ = self.process.wait();
    }
}
