//! What is exchanged, by which sockets, and why that may be refused. Plain data: no sockets, no clocks.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use tftpbench_net::limits::OpenFilesShortfall;
use tftpbench_net::{RingLink, SocketSource, Subnet, payload_max};

/// What TFTP puts before a block, and all there is of an ACK (RFC 1350 section 5).
pub(crate) const HEADER_BYTES: usize = 4;
/// A flow's number must fit into half of that.
const FLOWS_MAX: usize = 1 << 16;
/// A UDP datagram over IPv4 holds 65,507 bytes.
const BLKSIZE_MAX: usize = 65_507 - HEADER_BYTES;
/// Messages that a system call takes at most (UIO_MAXIOV, sendmmsg(2)).
const BATCH_MAX: usize = 1_024;
/// Segments and payload of one message that the kernel cuts, udp(7).
const SEGMENTS_MAX: usize = 64;
const RUN_BYTES_MAX: usize = 65_507;
/// Flows have addresses in here: all of 127.0.0.0/8 is this machine's.
const ON_LOOPBACK: Subnet = Subnet::new(IpAddr::V4(Ipv4Addr::new(127, 128, 0, 0)), 23);
/// Packet sockets of a ring: one to receive, one to send.
const RING_SOCKETS: usize = 2;

/// Which way the DATA-sized datagrams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To the asking side.
    Read,
    /// To the answering side.
    Write,
}

/// The work whose ceiling is sought.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Which way.
    pub operation: Operation,
    /// Exchanges in flight: the cell's concurrency.
    pub flows: usize,
    /// DATA-sized datagrams to one of 4 bytes.
    pub windowsize: usize,
    /// They have 4 bytes more than this.
    pub blksize: usize,
    /// CPUs of the answering side; empty leaves it to the scheduler.
    pub answering_cpus: Vec<usize>,
    /// CPUs of the asking side.
    pub asking_cpus: Vec<usize>,
    /// How long the answering side polls before it sleeps.
    pub answering_spin_ns: u64,
    /// How long the asking side polls before it sleeps.
    pub asking_spin_ns: u64,
    /// What lies between the sides; none for loopback.
    pub network: Option<Network>,
}

/// Two namespaces with a link between them, one for each side.
#[derive(Clone, Debug)]
pub struct Network {
    /// Opens the answering side's sockets.
    pub answering: SocketSource,
    /// Opens the asking side's sockets.
    pub asking: SocketSource,
    /// Where the answering side listens.
    pub server: IpAddr,
    /// Where flows have their addresses over sockets: local ones of the asking side.
    pub machines: Subnet,
    /// The way of frames, and where flows have their addresses over rings; none where there are only sockets.
    pub ring: Option<(RingLink, Subnet)>,
}

/// How the asking side comes to its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// So many sockets carry all flows, each flow with a loopback address of its own.
    Shared(usize),
    /// One socket for each flow.
    PerFlow,
    /// None: frames on a packet ring, each flow with an address of its own. In lock-step, in a network.
    Ring,
}

/// One way for both sides to do the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrangement {
    /// Of the asking side, in each pair.
    pub asking: Asking,
    /// Sockets of the answering side, in each pair; as many as flows is one for each.
    pub answering_sockets: usize,
    /// Messages in one system call, at most.
    pub batch: usize,
    /// A side with one socket waits in the receiving call instead of epoll; one with several asks each in turn as long
    /// as it polls.
    pub waits_in_receive: bool,
    /// Both sides have a socket for each flow, and each knows its peer (connect(2)).
    pub is_connected: bool,
    /// Pairs of threads, which share the flows.
    pub pairs: usize,
}

/// When it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Time before the window.
    pub warm_up_ns: u64,
    /// Length of the window.
    pub window_ns: u64,
}

/// Why an exchange could not be had.
#[derive(Debug, thiserror::Error)]
pub enum CeilingError {
    /// A value out of range.
    #[error("{0}")]
    Config(&'static str),
    /// Too few file descriptors.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesShortfall),
    /// The operating system refused something that is needed.
    #[error("{what}: {source}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A thread panicked: a fault of ours.
    #[error("a thread of the ceiling panicked: {0}")]
    Internal(String),
}

impl CeilingError {
    /// Adapter for `map_err`: names what was being done.
    pub(crate) fn os(what: &'static str) -> impl FnOnce(io::Error) -> CeilingError {
        move |source| CeilingError::Os { what, source }
    }
}

impl Cell {
    /// Length of a DATA-sized datagram.
    pub(crate) fn data_bytes(&self) -> usize {
        HEADER_BYTES + self.blksize
    }

    /// Where the asking side's flows have their addresses over sockets.
    pub(crate) fn machines(&self) -> Subnet {
        self.network.as_ref().map_or(ON_LOOPBACK, |network| network.machines)
    }

    /// The way of frames, for an asking side that has it.
    pub(crate) fn ring(&self) -> Option<&(RingLink, Subnet)> {
        self.network.as_ref()?.ring.as_ref()
    }

    /// Whether frames can carry it: one by one, each whole.
    fn fits_a_ring(&self) -> bool {
        let fits = |(_, machines): &(RingLink, Subnet)| {
            self.data_bytes() <= payload_max(machines.base(), RingLink::MTU)
                && self.flows as u64 <= machines.machines_max()
        };
        self.windowsize == 1 && self.ring().is_some_and(fits)
    }

    /// How many of the flows are this pair's.
    pub(crate) fn flows_of(&self, pair: usize, pairs: usize) -> usize {
        self.flows / pairs + usize::from(pair < self.flows % pairs)
    }

    /// Messages that a window takes, and whether one can be a run of many datagrams.
    pub(crate) fn messages_in_a_window(&self) -> usize {
        self.windowsize.div_ceil((RUN_BYTES_MAX / self.data_bytes()).clamp(1, SEGMENTS_MAX))
    }
}

/// Refuses what cannot be run; after this nothing is checked again.
pub(crate) fn check(cell: &Cell, arrangement: &Arrangement, window: Window) -> Result<(), CeilingError> {
    let refused = [
        (!(1..=FLOWS_MAX).contains(&cell.flows), "flows: must be between 1 and 65536"),
        (!(1..=usize::from(u16::MAX)).contains(&cell.windowsize), "windowsize: must be between 1 and 65535"),
        (!(1..=BLKSIZE_MAX).contains(&cell.blksize), "blksize: must be between 1 and 65503"),
        (!(1..=cell.flows).contains(&arrangement.pairs), "pairs: must be between 1 and the number of flows"),
        (!(1..=BATCH_MAX).contains(&arrangement.batch), "batch: must be between 1 and 1024"),
        (arrangement.answering_sockets == 0, "answering_sockets: must be at least 1"),
        (arrangement.asking == Asking::Shared(0), "shared_sockets: must be at least 1"),
        (
            arrangement.asking == Asking::Ring && !cell.fits_a_ring(),
            "ring: needs a network of its own, and blocks that fit a frame, one by one",
        ),
        (
            arrangement.is_connected
                && (arrangement.asking != Asking::PerFlow
                    || arrangement.answering_sockets < cell.flows.div_ceil(arrangement.pairs.max(1))),
            "is_connected: needs a socket for each flow on both sides",
        ),
        (window.window_ns == 0, "window_ns: must be longer than 0"),
    ];
    match refused.iter().find(|(is_refused, _)| *is_refused) {
        Some((_, text)) => Err(CeilingError::Config(text)),
        None => Ok(()),
    }
}

/// Sockets that are open at one time.
pub(crate) fn sockets(cell: &Cell, arrangement: &Arrangement) -> usize {
    let asking = match arrangement.asking {
        Asking::Shared(shared_sockets) => shared_sockets.saturating_mul(arrangement.pairs),
        Asking::PerFlow => cell.flows,
        Asking::Ring => RING_SOCKETS * arrangement.pairs,
    };
    asking.saturating_add(arrangement.answering_sockets.saturating_mul(arrangement.pairs))
}

/// The plainest arrangement, and a cell on any CPU whose sides sleep.
#[cfg(test)]
pub(crate) const PLAIN: Arrangement = Arrangement {
    asking: Asking::Shared(1),
    answering_sockets: 1,
    batch: 64,
    waits_in_receive: false,
    is_connected: false,
    pairs: 1,
};

#[cfg(test)]
pub(crate) fn example(operation: Operation, flows: usize, windowsize: usize, blksize: usize) -> Cell {
    Cell {
        operation,
        flows,
        windowsize,
        blksize,
        answering_cpus: Vec::new(),
        asking_cpus: Vec::new(),
        answering_spin_ns: 0,
        asking_spin_ns: 0,
        network: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(flows: usize, windowsize: usize, blksize: usize) -> Cell {
        example(Operation::Read, flows, windowsize, blksize)
    }

    #[test]
    fn the_flows_of_all_pairs_are_all_flows() {
        for (flows, pairs) in [(1, 1), (10, 3), (7, 7), (10_000, 16)] {
            let shared: usize = (0..pairs).map(|pair| cell(flows, 1, 512).flows_of(pair, pairs)).sum();
            assert_eq!(shared, flows);
        }
    }

    #[test]
    fn a_window_is_as_many_messages_as_the_kernel_asks_for() {
        let messages = [(1, 512), (64, 512), (65, 512), (64, 1428), (3, 65_464)]
            .map(|(windowsize, blksize)| cell(1, windowsize, blksize).messages_in_a_window());
        assert_eq!(messages, [1, 1, 2, 2, 3]);
    }
}
