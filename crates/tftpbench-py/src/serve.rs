//! `serve` and `Stop`, for `tftpbench.serve`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tftpbench_net::{Handover, parse_host};
use tftpbench_proto::{ErrorCode, Limits};
use tftpbench_serve::{ServeConfig, SocketUse, StoreKind, timing};

use crate::errors::choice;

/// A request to stop that other threads and signal handlers can make.
#[pyclass(frozen, module = "tftpbench._core")]
pub(crate) struct Stop(tftpbench_net::Stop);

impl Stop {
    pub(crate) fn inner(&self) -> &tftpbench_net::Stop {
        &self.0
    }
}

#[pymethods]
impl Stop {
    #[new]
    fn new() -> PyResult<Stop> {
        Ok(Stop(tftpbench_net::Stop::new()?))
    }

    /// The non-blocking write end of a pipe; each byte written is one request. For `signal.set_wakeup_fd`.
    fn fileno(&self) -> i32 {
        self.0.write_fd()
    }

    /// One more request: the first asks for an orderly end, the second for one at once.
    fn request(&self) {
        self.0.request();
    }
}

/// `tftpbench.serve.ServeConfig`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct ServeArguments {
    root: PathBuf,
    host: String,
    port: u16,
    write: bool,
    overwrite: bool,
    store: String,
    memory_max_bytes: u64,
    max_transfers: usize,
    blksize_max: u16,
    windowsize_max: u16,
    window_max_bytes: u32,
    timeout_s: f64,
    retries: u32,
    log_packets: bool,
    busy_poll_us: u64,
    sockets: String,
    batch: usize,
    workers: usize,
    grace_s: f64,
    receive_buffer_bytes: usize,
    send_buffer_bytes: usize,
}

/// Serves until stopped, with the GIL released, and returns the counters. `ready` gets host and port once. `handover`
/// is the descriptor of a UNIX socket to the process that takes each upload; only the memory store has something for
/// it. Raises ValueError for a bad value and OSError where the machine refuses (port taken, root unreadable).
#[pyfunction]
#[pyo3(signature = (name, config, stop, ready, handover = None))]
pub(crate) fn serve(
    py: Python<'_>,
    name: &str,
    config: ServeArguments,
    stop: &Bound<'_, Stop>,
    ready: Py<PyAny>,
    handover: Option<i32>,
) -> PyResult<Vec<(&'static str, u64)>> {
    let run = Strategy::named(name)?;
    // As it was given: with the name of its zone, if it has one.
    let host = config.host.clone();
    let mut config = config.into_config()?;
    if let Some(descriptor) = handover {
        if config.store != StoreKind::Memory {
            return Err(PyValueError::new_err("handover: needs store memory"));
        }
        let taker = Handover::inherited(descriptor)
            .map_err(|error| PyOSError::new_err(format!("handover: descriptor {descriptor}: {error}")))?;
        config.handover = Some(taker);
    }
    let stop = stop.get().inner().clone();
    let raised: Mutex<Option<PyErr>> = Mutex::new(None);
    let announce = |address: SocketAddr| {
        let called = Python::attach(|py| ready.call1(py, (host, address.port())).map(drop));
        if let (Err(error), Ok(mut slot)) = (called, raised.lock()) {
            *slot = Some(error);
            stop.request();
        }
    };
    let summary = py.detach(|| match run {
        Strategy::Epoll => tftpbench_epoll::run(config, stop.clone(), announce),
        Strategy::Threads => tftpbench_threads::run(config, stop.clone(), announce),
    });
    if let Ok(Some(error)) = raised.into_inner() {
        return Err(error);
    }
    summary.map(|summary| summary.0).map_err(|error| PyOSError::new_err(error.to_string()))
}

/// Open files that the server `name` needs at most with this configuration. Raises ValueError for a bad value.
#[pyfunction]
pub(crate) fn open_files(name: &str, config: ServeArguments) -> PyResult<u64> {
    let config = config.into_config()?;
    Ok(match Strategy::named(name)? {
        Strategy::Epoll => tftpbench_epoll::open_files(&config),
        Strategy::Threads => tftpbench_threads::open_files(&config),
    })
}

/// The defaults of the native half, under the names of `tftpbench.serve.ServeConfig`. That has the same, but for
/// `max_transfers`, which it chooses by the server and the machine.
#[pyfunction]
pub(crate) fn serve_defaults(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let config = ServeConfig::new("");
    let defaults = PyDict::new(py);
    defaults.set_item("host", config.address.ip().to_string())?;
    defaults.set_item("port", config.address.port())?;
    defaults.set_item("write", config.write)?;
    defaults.set_item("overwrite", config.overwrite)?;
    defaults.set_item("store", name_of(config.store, &STORES))?;
    defaults.set_item("memory_max_bytes", config.memory_bytes_max)?;
    defaults.set_item("blksize_max", config.limits.blksize)?;
    defaults.set_item("windowsize_max", config.limits.windowsize)?;
    defaults.set_item("window_max_bytes", config.limits.window_bytes)?;
    defaults.set_item("timeout_s", config.timing.timeout_ns as f64 / 1e9)?;
    defaults.set_item("retries", config.timing.retries)?;
    defaults.set_item("log_packets", config.log_packets)?;
    defaults.set_item("busy_poll_us", config.busy_poll_ns / 1_000)?;
    defaults.set_item("sockets", name_of(config.sockets, &SOCKETS))?;
    defaults.set_item("batch", config.batch)?;
    defaults.set_item("workers", config.workers)?;
    defaults.set_item("grace_s", config.grace_ns as f64 / 1e9)?;
    defaults.set_item("receive_buffer_bytes", config.receive_buffer_bytes)?;
    defaults.set_item("send_buffer_bytes", config.send_buffer_bytes)?;
    Ok(defaults)
}

/// What each code of an ERROR means, by its number.
#[pyfunction]
pub(crate) fn error_meanings() -> Vec<&'static str> {
    ErrorCode::MEANINGS.to_vec()
}

const STORES: [(&str, StoreKind); 2] = [("disk", StoreKind::Disk), ("memory", StoreKind::Memory)];
const SOCKETS: [(&str, SocketUse); 2] =
    [("shared", SocketUse::Shared), ("per-transfer", SocketUse::PerTransfer)];

fn name_of<T: Copy + PartialEq>(value: T, choices: &[(&'static str, T)]) -> Option<&'static str> {
    choices.iter().find(|(_, known)| *known == value).map(|(name, _)| *name)
}

enum Strategy {
    Epoll,
    Threads,
}

impl Strategy {
    fn named(name: &str) -> PyResult<Strategy> {
        match name {
            "epoll" => Ok(Strategy::Epoll),
            "threads" => Ok(Strategy::Threads),
            _ => Err(PyValueError::new_err(format!("{name} is not one of epoll, threads"))),
        }
    }
}

impl ServeArguments {
    fn into_config(self) -> PyResult<ServeConfig> {
        let address = socket_address(&self.host, self.port)?;
        let store = choice("store", &self.store, &STORES)?;
        let sockets = choice("sockets", &self.sockets, &SOCKETS)?;
        Ok(ServeConfig {
            root: self.root,
            address,
            write: self.write,
            overwrite: self.overwrite,
            store,
            memory_bytes_max: self.memory_max_bytes,
            max_transfers: self.max_transfers,
            limits: Limits {
                blksize: self.blksize_max,
                windowsize: self.windowsize_max,
                window_bytes: self.window_max_bytes,
            },
            timing: timing(nanoseconds(self.timeout_s), self.retries),
            log_packets: self.log_packets,
            busy_poll_ns: self.busy_poll_us.saturating_mul(1_000),
            sockets,
            batch: self.batch,
            workers: self.workers,
            grace_ns: nanoseconds(self.grace_s),
            receive_buffer_bytes: self.receive_buffer_bytes,
            send_buffer_bytes: self.send_buffer_bytes,
            handover: None,
        })
    }
}

/// A numeric host with its zone, if it has one, and a port.
pub(crate) fn socket_address(host: &str, port: u16) -> PyResult<SocketAddr> {
    parse_host(host, port)
        .ok_or_else(|| PyValueError::new_err(format!("host: {host} is no IP address, or names no interface")))
}

/// Negative and not-a-number become 0; `as` saturates at the top.
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
