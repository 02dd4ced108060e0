//! The epoll TFTP server: one thread, one epoll instance, a few sockets that transfers share and that are replaced
//! while it serves; or several such workers, or with a socket for each transfer, to measure what that contributes.
//!
//! It holds a concurrency strategy and nothing else; what a server does is in `tftpbench-serve`. A transfer is an entry
//! in a table, found by its peer's address. Datagrams are read until a socket is empty and answered in batches; on the
//! way from one to the other no system call is made but the batches' and the file's, and nothing is allocated but what
//! is read of it.
//!
//! Workers share the files, and the registry that each transfer asks at its start and end. All else is a worker's own:
//! its thread, epoll instance, listening and reply sockets, table and timers.
#![forbid(unsafe_code)]

mod ports;
mod table;
mod threads;
mod worker;

use std::net::SocketAddr;

use tftpbench_net::Stop;
use tftpbench_net::clock::monotonic_ns;
use tftpbench_serve::{
    BATCH_MAX, Descriptors, ServeConfig, ServeError, Service, SocketUse, Summary, WORKERS_MAX, listen,
    listen_too, raise_open_files,
};

use ports::shared_descriptors;
use worker::Worker;

/// Serves until `stop` is requested and the transfers in flight have ended, their grace is over, or `stop` is requested
/// again. `ready` is called with the bound address as soon as requests are answered.
pub fn run(config: ServeConfig, stop: Stop, ready: impl FnOnce(SocketAddr)) -> Result<Summary, ServeError> {
    check(&config)?;
    raise_open_files(&config, descriptors(&config))?;
    let first = listen(&config)?;
    let address = first.local_addr();
    // The kernel gives a client's requests to one of these by a hash of both addresses. A copy of a request so meets
    // the worker that serves it; and if sockets ever came or went in between, the registry, which all share, would
    // still know it for a copy.
    let more = listen_too(&config, &first, config.workers - 1)?;
    let service = Service::new(config, monotonic_ns())?;
    let workers = std::iter::once(first)
        .chain(more)
        .map(|listening| Worker::new(&service, listening, &stop))
        .collect::<Result<Vec<_>, _>>()?;
    ready(address);
    threads::run(workers.into_iter().map(|mut worker| move || worker.serve()).collect(), &stop)?;
    Ok(service.summary())
}

fn check(config: &ServeConfig) -> Result<(), ServeError> {
    let refused = |option, reason| Err(ServeError::Option { option, reason });
    if !(1..=BATCH_MAX).contains(&config.batch) {
        return refused("--batch", "allowed: 1 to 64 messages");
    }
    if !(1..=WORKERS_MAX).contains(&config.workers) {
        return refused("--workers", "allowed: 1 to 256 threads");
    }
    Ok(())
}

/// Open files that a server with this configuration needs at most. What `run` would refuse counts as what it would
/// allow.
pub fn open_files(config: &ServeConfig) -> u64 {
    let config = &ServeConfig { workers: config.workers.clamp(1, WORKERS_MAX), ..config.clone() };
    descriptors(config).needed(config.max_transfers)
}

/// An epoll instance and a listening socket a worker, and a few for the stop and the root. With a socket for each
/// transfer, as many more may wait to repeat their last ACK.
fn descriptors(config: &ServeConfig) -> Descriptors {
    let transfer = match config.sockets {
        SocketUse::Shared => 0,
        SocketUse::PerTransfer => 2,
    };
    Descriptors { transfer, server: (config.workers * (shared_descriptors(config) + 2)) as u64 + 3 }
}
