//! What a load run is asked to do, and why it may refuse. Plain data: no sockets, no clocks.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tftpbench_net::{RingLink, SocketSource, Subnet, payload_max};
use tftpbench_proto::{
    BLKSIZE_DEFAULT, BLKSIZE_MAX, BLKSIZE_MIN, HEADER_LEN, Operation, Options, REQUEST_LEN_MAX, Timing,
};

use crate::boots::{BootPlan, NAME_BYTES_MAX};
use crate::brake::Brake;
use crate::load_error::LoadError;
use crate::open_loop::{HostShare, Spacing};
use crate::shape::{self, Starts};

/// An address keeps three bits at least to tell the boots of one place apart.
const PLACE_BITS_MAX: u32 = 20;

/// Clients kept after their end, to answer a lost last ACK or to keep a port from the next; beyond this the oldest go.
pub(crate) const DALLYING_MAX: usize = 1024;

/// One load run against one server. All durations are nanoseconds.
#[derive(Clone, Debug)]
pub struct LoadConfig {
    /// The server's listening address.
    pub server: SocketAddr,
    /// Traffic leaves the loopback range only when this is set.
    pub allow_remote: bool,
    /// Read (RRQ) or write (WRQ).
    pub operation: Operation,
    /// File name in the request; `{n}` becomes the file's number.
    pub name: String,
    /// Number of different files; 0 makes every transfer a file of its own.
    pub distinct_files: u64,
    /// Size of every file; for a read without verification the server decides, unless `size_is_known`.
    pub file_size_bytes: u64,
    /// A file that is read must have `file_size_bytes` even where nothing is compared.
    pub size_is_known: bool,
    /// Seed of the generated contents.
    pub seed: u64,
    /// Which transfers and machines have a row in the report.
    pub rows: Rows,
    /// Most rows of each kind that are kept; beyond it more and more of what completed has none.
    pub rows_max: usize,
    /// How much of what is read is compared.
    pub verify: Verify,
    /// Compare with these bytes instead of generated ones: file n with the one at n modulo their number.
    pub verify_against: Vec<Arc<[u8]>>,
    /// The example of a fault shows file contents, too.
    pub show_payload: bool,
    /// Options asked for. A `tsize` in a write is replaced by the file's size.
    pub options: Options,
    /// Retransmission of the virtual clients.
    pub timing: Timing,
    /// When transfers start: on all hosts, but for how many are in flight on this one.
    pub arrivals: Arrivals,
    /// Which of them this host starts.
    pub share: HostShare,
    /// Threads of the generator.
    pub workers: usize,
    /// CPUs to pin the workers to, in turn; empty leaves them to the scheduler.
    pub cpus: Vec<usize>,
    /// How the clients come to their sockets.
    pub sockets: Sockets,
    /// Where they are opened, where that is not the namespace of this process. Nothing leaves this machine then, whatever
    /// address the server has.
    pub network: Option<Network>,
    /// When the run ends and what its measured window is; of transfers how many all hosts start.
    pub extent: Extent,
    /// How long transfers in flight of a closed loop may go on after the window before they are interrupted.
    pub drain_ns: u64,
    /// Busy-poll for this long before sleeping.
    pub busy_poll_ns: u64,
    /// What bounds the load on a server that others may depend on.
    pub brake: Brake,
    /// Say whether anything answers, in notices: for a person who waits. Costs a system call a turn until something does.
    pub watch_for_answer: bool,
    /// Receive buffer to ask for on every client socket; 0 leaves the kernel's default.
    pub receive_buffer_bytes: usize,
    /// What starts is a machine that boots so, and not one transfer; operation, name, file, options and timing are those
    /// of its steps then.
    pub boots: Option<Arc<BootPlan>>,
}

/// When transfers start: what a `Schedule` is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// A fixed number in flight, over all workers: the end of one is the start of the next.
    ClosedLoop {
        /// How many on this host.
        concurrency: usize,
        /// The first starts are spread evenly over this time; 0 is a burst.
        ramp_ns: u64,
    },
    /// Starts at times of their own, whatever becomes of the transfers. What is due while as many are in flight as may be is
    /// shed: counted, and never started.
    OpenLoop {
        /// How many start when.
        starts: Starts,
        /// How the starts of a rate or a shape lie in it.
        spacing: Spacing,
        /// How many may be in flight on this host, over all workers.
        in_flight_max: usize,
        /// A transfer that has not ended so long after its intended start is ended, and counts as late.
        deadline_ns: u64,
    },
}

impl Arrivals {
    /// Most transfers in flight, over all workers.
    pub(crate) fn in_flight_max(&self) -> usize {
        match self {
            Arrivals::ClosedLoop { concurrency, .. } => *concurrency,
            Arrivals::OpenLoop { in_flight_max, .. } => *in_flight_max,
        }
    }
}

impl Starts {
    /// The extent of a run with these starts, where they have one of their own.
    pub fn extent(&self) -> Option<Extent> {
        match self {
            Starts::Rate(_) => None,
            // Every transfer has its deadline: none needs a limit.
            Starts::Storm { count, .. } => Some(Extent::Transfers { count: *count, limit_ns: u64::MAX }),
            Starts::Shape(pieces) => {
                Some(Extent::Duration { warm_up_ns: 0, window_ns: shape::length_ns(pieces) })
            }
        }
    }
}

/// Which transfers have a row, and which machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All, as long as there is room; then those of a sample.
    All,
    /// Those that did not complete, or did not boot.
    Failed,
    /// Those, and every k-th of the others.
    Sample,
}

/// When a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Fixed work: the window is first start to last completion, bounded by `limit_ns`.
    Transfers {
        /// How many transfers.
        count: u64,
        /// What is still in flight after this long is interrupted.
        limit_ns: u64,
    },
    /// Fixed time: the window is `window_ns` long and opens `warm_up_ns` after the first start.
    Duration {
        /// Time before the window.
        warm_up_ns: u64,
        /// Length of the window.
        window_ns: u64,
    },
}

/// How virtual clients come to their sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sockets {
    /// Few sockets carry many clients, each with an address of 127.0.0.0/8; only to a server on IPv4 loopback, or with
    /// addresses of their network.
    Shared,
    /// One socket for each transfer.
    PerTransfer,
    /// None: datagrams are written and read as frames, on a packet ring for each worker. Needs a network, and blocks one by
    /// one in datagrams that a frame holds.
    Ring,
}

impl Sockets {
    /// As configurations and results have it.
    pub fn name(self) -> &'static str {
        match self {
            Sockets::Shared => "shared",
            Sockets::PerTransfer => "per-transfer",
            Sockets::Ring => "ring",
        }
    }
}

/// A network of its own, with the generator in one namespace and the server in another.
#[derive(Clone, Debug)]
pub struct Network {
    /// Opens sockets in the generator's namespace.
    pub source: SocketSource,
    /// Where machines have their addresses: local ones in the generator's namespace, as far as UDP sockets are used.
    pub machines: Subnet,
    /// The way of frames, for rings.
    pub link: Option<RingLink>,
}

/// How much of the received contents is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Every byte of every transfer.
    Full,
    /// First block, last block and every sixteenth.
    Sample,
    /// Nothing.
    Off,
}

impl LoadConfig {
    /// How many of the transfers in flight are worker `index`'s.
    pub(crate) fn slots(&self, index: usize) -> usize {
        let in_flight = self.arrivals.in_flight_max();
        in_flight / self.workers + usize::from(index < in_flight % self.workers)
    }

    /// How long after its intended start a transfer is given up; `None` where it may take any time.
    pub(crate) fn patience_ns(&self) -> Option<u64> {
        match &self.arrivals {
            Arrivals::ClosedLoop { .. } => None,
            Arrivals::OpenLoop { deadline_ns, .. } => Some(*deadline_ns),
        }
    }

    /// Operation and options of each request: of all of them, or of each step of a boot.
    fn requests(&self) -> Vec<(Operation, Options)> {
        match &self.boots {
            None => vec![(self.operation, self.options)],
            Some(plan) => plan.all_steps().map(|step| (step.operation, step.asked().0)).collect(),
        }
    }

    /// Whether any request is of this operation.
    pub(crate) fn does(&self, operation: Operation) -> bool {
        self.requests().iter().any(|(known, _)| *known == operation)
    }

    /// The largest blksize that is asked for; 0 for none.
    pub(crate) fn blksize_max(&self) -> u16 {
        self.requests().iter().filter_map(|(_, options)| options.blksize).max().unwrap_or(0)
    }

    /// The largest windowsize that is asked for.
    pub(crate) fn windowsize_max(&self) -> u16 {
        self.requests().iter().filter_map(|(_, options)| options.windowsize).max().unwrap_or(1)
    }

    /// Whether all that is intended belongs to the cohort, whenever that is: the work is fixed, or a shape.
    pub(crate) fn is_one_cohort(&self) -> bool {
        let is_shape = matches!(self.arrivals, Arrivals::OpenLoop { starts: Starts::Shape(_), .. });
        is_shape || matches!(self.extent, Extent::Transfers { .. })
    }

    /// Whether blocks may arrive many at a time (RFC 7440).
    pub(crate) fn reads_windows(&self) -> bool {
        let is_one = |&(operation, options): &(Operation, Options)| {
            operation == Operation::Read && options.windowsize > Some(1)
        };
        self.requests().iter().any(is_one)
    }

    /// Most machines of one worker: of a closed loop its slots, of an open one all that may be in flight.
    pub(crate) fn machines_max(&self) -> usize {
        match self.arrivals {
            Arrivals::ClosedLoop { .. } => self.slots(0),
            Arrivals::OpenLoop { in_flight_max, .. } => in_flight_max,
        }
    }

    /// Places on the rings of all workers: clients of plain transfers dally beside those in flight.
    pub(crate) fn ring_places(&self) -> usize {
        let dallying = if self.boots.is_some() { 0 } else { DALLYING_MAX };
        self.arrivals.in_flight_max().saturating_add(dallying).saturating_mul(self.workers)
    }

    /// Bits of an address that tell the machines of all workers apart.
    pub(crate) fn machine_place_bits(&self) -> u32 {
        let places = self.machines_max().saturating_mul(self.workers);
        usize::BITS - places.saturating_sub(1).leading_zeros()
    }

    /// Refuses what cannot be run; after this the workers need not check again.
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let refuse = |text: &str| Err(LoadError::Config(text.to_owned()));
        let is_ours = self.network.is_some() || self.server.ip().to_canonical().is_loopback();
        if !self.allow_remote && !is_ours {
            return Err(LoadError::Remote(self.server));
        }
        if self.server.port() == 0 {
            return refuse("port: must be between 1 and 65535");
        }
        if self.arrivals.in_flight_max() == 0 || self.workers == 0 {
            return refuse("concurrency and workers: must be at least 1");
        }
        if self.workers > self.arrivals.in_flight_max() {
            return refuse("workers: more workers than concurrent transfers");
        }
        self.check_sockets()?;
        if self.boots.is_none() {
            self.check_request()?;
        }
        if let Arrivals::OpenLoop { starts, deadline_ns, .. } = &self.arrivals {
            starts.check().map_err(LoadError::Config)?;
            if starts.extent().is_some_and(|extent| extent != self.extent) {
                return refuse("machines and shape: have an extent of their own");
            }
            if *deadline_ns == 0 {
                return refuse("deadline: must be longer than 0");
            }
        }
        self.share.check().map_err(LoadError::Config)?;
        if self.rows_max == 0 {
            return refuse("rows_max: must be at least 1");
        }
        match self.extent {
            Extent::Transfers { count: 0, .. } => refuse("transfers: must be at least 1"),
            Extent::Duration { window_ns: 0, .. } => refuse("duration: must be longer than 0"),
            _ => Ok(()),
        }
    }

    /// The longest datagram of a run that keeps to its options.
    pub(crate) fn datagram_bytes_max(&self) -> usize {
        REQUEST_LEN_MAX.max(HEADER_LEN + usize::from(self.blksize_max().max(BLKSIZE_DEFAULT)))
    }

    /// Whether the clients can come to their sockets so.
    fn check_sockets(&self) -> Result<(), LoadError> {
        let refuse = |text: String| Err(LoadError::Config(text));
        if let Some(network) = &self.network
            && network.machines.base().is_ipv4() != self.server.is_ipv4()
        {
            return refuse("machines_network: is not of the server's family".into());
        }
        match self.sockets {
            Sockets::PerTransfer => Ok(()),
            Sockets::Shared if self.network.is_none() && !can_share_sockets(self.server) => {
                refuse("sockets: clients can share sockets only towards a server on 127.0.0.0/8".into())
            }
            Sockets::Shared if self.boots.is_some() && self.machine_place_bits() > PLACE_BITS_MAX => {
                let most = (1 << PLACE_BITS_MAX) / self.workers;
                refuse(format!("concurrency: at most {most} machines can be in flight from 127.0.0.0/8"))
            }
            Sockets::Shared => Ok(()),
            Sockets::Ring => self.check_ring(),
        }
    }

    /// Why a ring can't carry the datagrams of this run; none where it can.
    pub fn ring_refusal(&self) -> Option<String> {
        let most = payload_max(self.server.ip(), RingLink::MTU);
        if self.windowsize_max() > 1 {
            return Some("sockets: a ring carries blocks one by one, not windows".into());
        }
        let blksize = most - HEADER_LEN;
        let is_too_long = self.datagram_bytes_max() > most;
        is_too_long.then(|| format!("sockets: a ring carries blocks of up to {blksize} bytes"))
    }

    fn check_ring(&self) -> Result<(), LoadError> {
        let refuse = |text: String| Err(LoadError::Config(text));
        let Some(network) = self.network.as_ref().filter(|network| network.link.is_some()) else {
            return refuse("sockets: a ring needs a network of its own".into());
        };
        if let Some(text) = self.ring_refusal() {
            return refuse(text);
        }
        if self.ring_places() as u64 > network.machines.machines_max() {
            let most = network.machines.machines_max() / self.workers as u64;
            let most = most.saturating_sub(DALLYING_MAX as u64);
            return refuse(format!(
                "concurrency: at most {most} have an address of their own in the network"
            ));
        }
        Ok(())
    }

    /// What is the same for all transfers; a boot's steps were checked when its plan was made.
    fn check_request(&self) -> Result<(), LoadError> {
        let refuse = |text: &str| Err(LoadError::Config(text.to_owned()));
        let longest_name = self.name.replace("{n}", &u64::MAX.to_string());
        if self.name.is_empty() || longest_name.len() > NAME_BYTES_MAX || self.name.contains('\0') {
            return refuse("name: must have 1 to 255 bytes, numbers included, and no NUL");
        }
        let Options { blksize, windowsize, timeout_s, .. } = self.options;
        if blksize.is_some_and(|blksize| !(BLKSIZE_MIN..=BLKSIZE_MAX).contains(&blksize)) {
            return refuse("blksize: must be between 8 and 65464");
        }
        if windowsize == Some(0) || timeout_s == Some(0) {
            return refuse("windowsize and timeout option: must be at least 1");
        }
        if self.timing.timeout_ns == 0 {
            return refuse("timeout: must be longer than 0");
        }
        Ok(())
    }
}

/// Whether clients of this server can share sockets.
fn can_share_sockets(server: SocketAddr) -> bool {
    matches!(server.ip(), IpAddr::V4(ip) if ip.is_loopback())
}
