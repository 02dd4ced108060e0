//! `measure_ceiling`, for `tftpbench.host.ceiling`.

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tftpbench_ceiling::{Arrangement, Asking, Cell, Operation, Window};

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
}

/// `tftpbench.host.ceiling.Arrangement`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct ArrangementArguments {
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
        })
    }
}

impl ArrangementArguments {
    fn into_arrangement(self) -> Arrangement {
        Arrangement {
            asking: if self.shared_sockets == 0 {
                Asking::PerFlow
            } else {
                Asking::Shared(self.shared_sockets)
            },
            answering_sockets: self.answering_sockets,
            batch: self.batch,
            waits_in_receive: self.waits_in_receive,
            is_connected: self.is_connected,
            pairs: self.pairs,
        }
    }
}
