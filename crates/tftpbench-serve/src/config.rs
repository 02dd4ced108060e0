//! The options of a server, and the reasons why it may refuse to start.
//! Plain data: nothing here opens, binds or checks anything.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use tftpbench_net::Handover;
use tftpbench_proto::Limits;
use tftpbench_proto::{Backoff, Timing};

/// Where files live while a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// Files are read from and written to the root.
    Disk,
    /// A file is read from the root once, then served from memory; uploads never touch the disk.
    Memory,
}

/// Which sockets transfers answer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketUse {
    /// A few, opened at start-up; datagrams of many transfers share system calls.
    Shared,
    /// One each, opened when the transfer starts and closed when it ends.
    PerTransfer,
}

/// Most messages to a system call: with 64 the call itself costs nothing beside them. Each is a datagram, or a window's
/// run.
pub const BATCH_MAX: usize = 64;

/// More loops than this have no cores to run on.
pub const WORKERS_MAX: usize = 256;

/// The whole configuration of one server. `ServeConfig::new` gives the documented defaults.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The folder that is served. Nothing outside it can be named by a client.
    pub root: PathBuf,
    /// Where requests arrive; port 0 picks a free one.
    pub address: SocketAddr,
    /// Whether WRQ is answered at all.
    pub write: bool,
    /// Whether an upload may replace an existing file.
    pub overwrite: bool,
    /// Where files live.
    pub store: StoreKind,
    /// What the memory store may hold: files, uploads under way, and what each costs beside its bytes.
    pub memory_bytes_max: u64,
    /// Most undecided transfers at one time; a request beyond it is answered with an ERROR.
    pub max_transfers: usize,
    /// The largest blksize, windowsize and window that are granted.
    pub limits: Limits,
    /// Retransmission.
    pub timing: Timing,
    /// Print every datagram, decoded and in hex, to standard error.
    pub log_packets: bool,
    /// How long to poll without sleeping before the server sleeps (epoll only).
    pub busy_poll_ns: u64,
    /// Which sockets transfers answer from (epoll only).
    pub sockets: SocketUse,
    /// Most messages to a system call, 1 to `BATCH_MAX`; with 1 each datagram takes a call of its own (epoll only).
    pub batch: usize,
    /// Threads, each with an event loop and sockets of its own, 1 to `WORKERS_MAX` (epoll only).
    pub workers: usize,
    /// How long transfers in flight may go on after the first stop request.
    pub grace_ns: u64,
    /// SO_RCVBUF asked for on each socket; 0 keeps the kernel's default.
    pub receive_buffer_bytes: usize,
    /// SO_SNDBUF asked for on each socket; 0 keeps the kernel's default.
    pub send_buffer_bytes: usize,
    /// The process that takes each upload as soon as it is whole, in memory that both map (memory store only).
    pub handover: Option<Handover>,
}

impl ServeConfig {
    /// Loopback, a free port, read-only, on disk; one second and five retries.
    pub fn new(root: impl Into<PathBuf>) -> ServeConfig {
        ServeConfig {
            root: root.into(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            write: false,
            overwrite: false,
            store: StoreKind::Disk,
            // A stranger's uploads must not take the machine down.
            memory_bytes_max: 4 << 30,
            max_transfers: 4096,
            limits: Limits::default(),
            timing: timing(1_000_000_000, 5),
            log_packets: false,
            busy_poll_ns: 0,
            sockets: SocketUse::Shared,
            batch: BATCH_MAX,
            workers: 1,
            grace_ns: 3_000_000_000,
            // Clamped by the kernel to net.core.rmem_max without privilege (socket(7)).
            receive_buffer_bytes: 4 << 20,
            send_buffer_bytes: 0,
            handover: None,
        }
    }
}

/// A server's retransmission, from its first wait and how often it sends again.
pub fn timing(timeout_ns: u64, retries: u32) -> Timing {
    Timing {
        timeout_ns,
        retries,
        backoff: Backoff::Exponential,
        // 200 ms by default; lower, a busy server takes its own queue for lost datagrams.
        adaptive_floor_ns: Some(timeout_ns / 5),
        timeout_max_ns: timeout_ns.saturating_mul(16),
    }
}

/// Why a server could not start or go on. Each is one line with the name of what is wrong and the mend.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The root is missing, not a folder, or not readable.
    #[error("root {}: {source}: give a folder that this user can read", path.display())]
    Root {
        /// The root as given.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address could not be bound.
    #[error("address {address}: {source}: choose another --host or --port (0 picks a free one)")]
    Bind {
        /// The address as given.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// An option that this server does not have, or with a value that it does not take.
    #[error("{option}: {reason}")]
    Option {
        /// As it is spelt on the command line.
        option: &'static str,
        /// What is wrong, and what is allowed.
        reason: &'static str,
    },
    /// The limit of open files is too low for `max_transfers`.
    #[error(
        "--max-transfers {max_transfers} needs {need} open files and the hard limit is {hard}: \
         lower --max-transfers or raise the limit (ulimit -Hn {need})"
    )]
    OpenFiles {
        /// The configured bound.
        max_transfers: usize,
        /// Descriptors needed at most.
        need: u64,
        /// What this process may have.
        hard: u64,
    },
    /// The kernel refused something that a server cannot do without.
    #[error("{action}: {source}")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl ServeError {
    /// For `map_err`: `action` is the call that the kernel refused.
    pub fn kernel(action: &'static str) -> impl Fn(io::Error) -> ServeError {
        move |source| ServeError::Kernel { action, source }
    }
}
