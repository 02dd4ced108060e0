//! The single-threaded epoll TFTP server: one thread, one epoll instance, a few sockets made at start-up.
//!
//! It holds a concurrency strategy and nothing else; what a server does is in `tftpbench-serve`. A transfer is an entry
//! in a table, found by its peer's address. Datagrams are read until a socket is empty and answered in batches; on the
//! way from one to the other nothing is allocated and no system call is made but the batches' and the file's.
#![forbid(unsafe_code)]

mod hasher;
mod port;
mod server;
mod table;

use std::net::SocketAddr;

use tftpbench_net::Stop;
use tftpbench_net::clock::monotonic_ns;
use tftpbench_serve::{
    Descriptors, ServeConfig, ServeError, Service, Summary, listen, raise_open_files, reply_socket,
};

use port::Port;
use server::Server;

/// Transfers to a reply socket before the next one is used. Few sockets make large batches; but by default a socket's
/// buffer holds some 500 small datagrams, and each transfer in lock-step may have one waiting.
const TRANSFERS_PER_PORT: usize = 256;

/// More sockets than this would cost more than lost datagrams do.
const PORTS_MAX: usize = 64;

/// Serves until `stop` is requested and the transfers in flight have ended, their grace is over, or `stop` is requested
/// again. `ready` is called with the bound address as soon as requests are answered.
pub fn run(config: ServeConfig, stop: Stop, ready: impl FnOnce(SocketAddr)) -> Result<Summary, ServeError> {
    let ports = config.max_transfers.div_ceil(TRANSFERS_PER_PORT).clamp(1, PORTS_MAX);
    raise_open_files(&config, Descriptors { transfer: 0, server: ports as u64 + 3 })?;
    let listening = Port::new(listen(&config)?);
    let awaits_windows = config.write && config.limits.windowsize > 1;
    let ports = (0..ports)
        .map(|_| reply_socket(&config, awaits_windows).map(Port::new))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ServeError::Bind { address: config.address, source })?;
    let service = Service::new(config, monotonic_ns())?;
    let server = Server::new(service, listening, ports, stop);
    ready(server.local_addr());
    server.serve()
}
