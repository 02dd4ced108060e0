//! `measure_ceiling`, for `tftpbench.host.ceiling`, and `answer_datagrams`, for `tftpbench.host.headroom`.

use std::net::IpAddr;
use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tftpbench_ceiling::{
    Arrangement, Asking, Cell, Network, NullServer, NullServerConfig, Operation, Window,
};
use tftpbench_net::{Broker, Mac, RingLink, Side, SocketSource};

use crate::errors::{choice, from_ceiling};
use crate::serve::Stop;

/// `tftpbench.host.ceiling.CeilingCell`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct CellArguments {
    operation: String,
    flows: usize,
    windowsize: usize,
    blksize: usize,
    answering_cpus: Vec<usize>,
    asking_cpus: Vec<usize>,
    answering_spin_us: u64,
    asking_spin_us: u64,
    /// None for loopback.
    network: Option<NetworkArguments>,
}

/// `tftpbench.host.ceiling.CeilingNetwork`, attribute by attribute.
#[derive(FromPyObject)]
struct NetworkArguments {
    requests_fd: i32,
    server: String,
    machines: String,
    /// 0 where there are no packet sockets.
    ring_interface: u32,
    ring_machines: String,
    ring_mac: Vec<u8>,
    server_mac: Vec<u8>,
}

/// `tftpbench.host.headroom.NullServerConfig`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct NullServerArguments {
    requests_fd: i32,
    interface: u32,
    mac: Vec<u8>,
    answers_mac: Vec<u8>,
    address: String,
    port: u16,
    contents: Vec<u8>,
    blksize: usize,
    waiting: usize,
    cpu: Option<usize>,
}

/// `tftpbench.host.ceiling.Arrangement`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct ArrangementArguments {
    /// Frames instead of sockets.
    ring: bool,
    /// 0: a socket for each flow.
    shared_sockets: usize,
    answering_sockets: usize,
    batch: usize,
    waits_in_receive: bool,
    is_connected: bool,
    pairs: usize,
}

/// Runs one exchange with the GIL released. Returns figures by name; None where `stop` came before the end.
/// Raises ValueError, OSError, RuntimeError, or what a signal handler raised.
#[pyfunction]
pub(crate) fn measure_ceiling<'py>(
    py: Python<'py>,
    cell: CellArguments,
    arrangement: ArrangementArguments,
    warm_up_ns: u64,
    window_ns: u64,
    stop: &Bound<'py, Stop>,
) -> PyResult<Option<Bound<'py, PyDict>>> {
    let (cell, arrangement) = (cell.into_cell()?, arrangement.into_arrangement());
    let stop = stop.get().inner().clone();
    let mut raised: Option<PyErr> = None;
    let report = py.detach(|| {
        tftpbench_ceiling::measure(&cell, &arrangement, Window { warm_up_ns, window_ns }, &stop, || {
            if let Err(error) = Python::attach(|py| py.check_signals()) {
                raised.get_or_insert(error);
                stop.request();
            }
        })
    });
    if let Some(error) = raised {
        return Err(error);
    }
    let Some(report) = report.map_err(from_ceiling)? else { return Ok(None) };
    let figures = PyDict::new(py);
    figures.set_item("data_pps", report.data_pps())?;
    figures.set_item("datagrams", report.datagrams)?;
    figures.set_item("window_ns", report.window_ns)?;
    figures.set_item("gap_ns", report.gap_ns)?;
    figures.set_item("restarts", report.restarts)?;
    Ok(Some(figures))
}

/// Answers datagrams with the GIL released until `stop` is asked for; `ready` is called once, when they will be. Returns
/// figures by name. Raises ValueError, OSError, RuntimeError.
#[pyfunction]
pub(crate) fn answer_datagrams<'py>(
    py: Python<'py>,
    config: NullServerArguments,
    stop: &Bound<'py, Stop>,
    ready: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyDict>> {
    let server = NullServer::open(config.into_config()?).map_err(from_ceiling)?;
    ready.call0()?;
    let stop = stop.get().inner().clone();
    let answered = py.detach(|| server.run(&stop)).map_err(from_ceiling)?;
    let figures = PyDict::new(py);
    figures.set_item("datagrams", answered.datagrams)?;
    figures.set_item("elapsed_ns", answered.elapsed_ns)?;
    figures.set_item("idle_ns", answered.idle_ns)?;
    figures.set_item("drops", answered.drops)?;
    Ok(figures)
}

fn link(source: SocketSource, interface: u32, ours: &[u8], theirs: &[u8]) -> PyResult<RingLink> {
    let mac = |bytes: &[u8]| Mac::try_from(bytes).map_err(|_| PyValueError::new_err("mac: must be 6 bytes"));
    Ok(RingLink { source, interface, ours: mac(ours)?, theirs: mac(theirs)? })
}

impl NullServerArguments {
    fn into_config(self) -> PyResult<NullServerConfig> {
        let source = SocketSource::Behind(Arc::new(Broker::inherited(self.requests_fd)?), Side::Server);
        Ok(NullServerConfig {
            link: link(source, self.interface, &self.mac, &self.answers_mac)?,
            address: (self.address.parse::<IpAddr>()?, self.port).into(),
            contents: self.contents,
            blksize: self.blksize,
            waiting: self.waiting,
            cpu: self.cpu,
        })
    }
}

impl NetworkArguments {
    fn into_network(self) -> PyResult<Network> {
        let broker = Arc::new(Broker::inherited(self.requests_fd)?);
        let asking = SocketSource::Behind(Arc::clone(&broker), Side::Generator);
        let ring = match self.ring_interface {
            0 => None,
            interface => Some((
                link(asking.clone(), interface, &self.ring_mac, &self.server_mac)?,
                self.ring_machines.parse()?,
            )),
        };
        Ok(Network {
            answering: SocketSource::Behind(broker, Side::Server),
            asking,
            server: self.server.parse()?,
            machines: self.machines.parse()?,
            ring,
        })
    }
}

impl CellArguments {
    fn into_cell(self) -> PyResult<Cell> {
        let operations = [("read", Operation::Read), ("write", Operation::Write)];
        Ok(Cell {
            operation: choice("operation", &self.operation, &operations)?,
            flows: self.flows,
            windowsize: self.windowsize,
            blksize: self.blksize,
            answering_cpus: self.answering_cpus,
            asking_cpus: self.asking_cpus,
            answering_spin_ns: self.answering_spin_us.saturating_mul(1_000),
            asking_spin_ns: self.asking_spin_us.saturating_mul(1_000),
            network: self.network.map(NetworkArguments::into_network).transpose()?,
        })
    }
}

impl ArrangementArguments {
    fn into_arrangement(self) -> Arrangement {
        Arrangement {
            asking: match self.shared_sockets {
                _ if self.ring => Asking::Ring,
                0 => Asking::PerFlow,
                count => Asking::Shared(count),
            },
            answering_sockets: self.answering_sockets,
            batch: self.batch,
            waits_in_receive: self.waits_in_receive,
            is_connected: self.is_connected,
            pairs: self.pairs,
        }
    }
}
