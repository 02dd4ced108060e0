//! What both TFTP servers share: admission, path rules, file stores, counters.
//!
//! A server owns its sockets, threads and timers, and nothing else. For each datagram on its listening socket it asks
//! [`Service::admit`]; a [`Transfer`] that comes out of that is driven with the peer's datagrams and the time:
//!
//! 1. `handle_datagram` or `handle_timeout`, once.
//! 2. `poll_transmit` until it gives `None`; each time one datagram for the peer, the end of which may lie in a file.
//! 3. `is_finished`: drop it. Else wait until `deadline_ns` or the next datagram from `peer`.
//!
//! A request that has to do with a running transfer is `Admission::Repeated`: the server asks that transfer what to do
//! about it ([`Transfer::take_repeated_request`]), and may put a new one in its place ([`Service::restart`]).
//!
//! A datagram on a transfer's port from another address goes to [`Service::answer_stray`]. On a stop,
//! [`Service::drain`] refuses what is new; [`Transfer::interrupt`] ends what is left.
//!
//! This crate must never start a thread, wait, read a clock, or send and receive, so that two servers over it differ in
//! their concurrency strategy only.
#![forbid(unsafe_code)]

mod config;
mod context;
mod paths;
mod refusal;
mod registry;
mod service;
mod store;
mod transfer;

pub use config::{BATCH_MAX, ServeConfig, ServeError, SocketUse, StoreKind, WORKERS_MAX, timing};
pub use context::{Counter, Summary};
pub use refusal::REPLY_BYTES_MAX;
pub use service::{
    Admission, Descriptors, REQUEST_BYTES, Service, listen, listen_too, raise_open_files, reply_socket,
};
pub use tftpbench_proto::Repeated;
pub use transfer::{Transfer, receive_bytes_max};
