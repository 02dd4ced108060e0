//! Why a load could not be done: the caller's mistake, this machine's limits, or a fault of ours.

use std::io;
use std::net::SocketAddr;

use tftpbench_net::limits::OpenFilesShortfall;

/// Why a run could not be done. What a server does wrong is never here: it is part of the report.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A value out of range.
    #[error("{0}")]
    Config(String),
    /// The server is not on this machine.
    #[error("{0} is not a loopback address; pass --allow-remote to send load to another machine")]
    Remote(SocketAddr),
    /// The caller gave it up while it was ready to start.
    #[error("given up before the start: nothing was sent")]
    GivenUp,
    /// Too few file descriptors.
    #[error(transparent)]
    OpenFiles(#[from] OpenFilesShortfall),
    /// More transfers may be in flight than this machine can hold.
    #[error("{asked} {what} in flight are more than {limit} allow: at most {fits} fit{hint}")]
    TooMany {
        /// Transfers, or machines.
        what: &'static str,
        /// What was asked for.
        asked: usize,
        /// What limits it.
        limit: String,
        /// How many are possible.
        fits: u64,
        /// What else can be done about it, behind a semicolon; or nothing.
        hint: String,
    },
    /// The operating system refused something the generator needs.
    #[error("{what}: {source}")]
    Os {
        /// What was being done.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A worker thread panicked: a fault of ours.
    #[error("a load worker panicked: {0}")]
    Internal(String),
}

impl LoadError {
    /// Adapter for `map_err`: names what was being done.
    pub(crate) fn os(what: &'static str) -> impl FnOnce(io::Error) -> LoadError {
        move |source| LoadError::Os { what, source }
    }
}
