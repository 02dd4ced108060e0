//! `run_load` and the generated contents, for `tftpbench.host.generator`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::call::PyCallArgs;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use tftpbench_load::contents;
use tftpbench_load::{
    Arrivals, BootPlan, BootRow, BootShare, BootStep, Brake, Ends, Extent, Fault, Figure, HostShare,
    Interval, LoadConfig, LoadReport, Network, Notice, Piece, Progress, Rate, Rows, Sockets, Spacing, Spread,
    Starts, Stopped, Then, TransferRow, Verify,
};
use tftpbench_net::{Broker, Mac, RingLink, Side, SocketSource};
use tftpbench_proto::{Backoff, Habits, Nack, Operation, Options, Rollover, Timing};

use crate::errors::{choice, from_load};
use crate::serve::{Stop, socket_address};

/// `tftpbench.host.generator.LoadConfig`, attribute by attribute.
#[derive(FromPyObject)]
pub(crate) struct LoadArguments {
    host: String,
    port: u16,
    allow_remote: bool,
    operation: String,
    name: String,
    distinct_files: u64,
    file_size_bytes: u64,
    size_is_known: bool,
    seed: u64,
    verify: String,
    verify_against: Option<PathBuf>,
    show_payload: bool,
    concurrency: usize,
    /// Transfers in so many nanoseconds; none in a closed loop.
    rate_ratio: Option<(u64, u64)>,
    /// A storm of `transfers` starts within this time.
    over_ns: Option<u64>,
    spread: String,
    /// A rate that changes; empty without.
    shape: Vec<PieceArguments>,
    arrivals: String,
    /// First, width, of.
    share: (u64, u64, u64),
    deadline_ns: u64,
    workers: usize,
    cpus: Vec<usize>,
    transfers: Option<u64>,
    limit_ns: u64,
    duration_ns: Option<u64>,
    warm_up_ns: u64,
    drain_ns: u64,
    ramp_ns: u64,
    blksize: u16,
    windowsize: u16,
    tsize: bool,
    timeout_option_s: Option<u8>,
    rollover: Option<u8>,
    timeout_ns: u64,
    retries: u32,
    backoff: String,
    sockets: String,
    /// A connection to the broker of network namespaces, as a descriptor; none for loopback.
    network_fd: Option<i32>,
    ring_interface: u32,
    ring_mac: Vec<u8>,
    server_mac: Vec<u8>,
    machines_network: String,
    busy_poll_us: u64,
    receive_buffer_bytes: usize,
    stops_when_failing: bool,
    bytes_per_s_max: Option<u64>,
    boots: Vec<ShareArguments>,
    rows: String,
    rows_max: usize,
}

/// `tftpbench.host.generator.Piece`. Ratios are starts in so many nanoseconds.
#[derive(FromPyObject)]
struct PieceArguments {
    kind: String,
    from_ratio: Option<(u64, u64)>,
    to_ratio: Option<(u64, u64)>,
    for_ns: u64,
    count: u64,
}

/// `tftpbench.model.boot.Share`, attribute by attribute.
#[derive(FromPyObject)]
struct ShareArguments {
    name: String,
    weight: u64,
    steps: Vec<StepArguments>,
}

/// `tftpbench.model.boot.Step`, attribute by attribute.
#[derive(FromPyObject)]
struct StepArguments {
    operation: String,
    name: String,
    options: Vec<(String, String)>,
    size_bytes: Option<u64>,
    file: i64,
    ends: String,
    stop_after: u64,
    stop_code: u16,
    stop_text: String,
    think_ns: u64,
    waits_ns: Vec<u64>,
    reading_waits_ns: Vec<u64>,
    then: String,
    restarts_max: u32,
    nack: String,
    contents: Option<PathBuf>,
    stop_acks: bool,
}

const OPERATIONS: [(&str, Operation); 2] = [("read", Operation::Read), ("write", Operation::Write)];

/// What a load run found: figures by column name, columns of little-endian int64, the latency log, the faults.
#[pyclass(frozen, module = "tftpbench._core")]
pub(crate) struct LoadOutcome(LoadReport, Option<Stopped>);

/// Runs one load to its end with the GIL released. `on_start` is called once everything is open, with the time on
/// CLOCK_MONOTONIC in ns at which the run starts; `on_close` when the measured window has closed; `on_answer` with
/// "answered", "unanswered" or "refused", whichever is known first; `on_progress` once a second with the ns since the
/// start and since the end of the window (None before), transfers started, ended and completed, file bytes, starts shed, and
/// machines begun, up, and lost.
/// `on_ready` is called before all others, once everything is open; it returns the time on CLOCK_MONOTONIC in ns at which
/// the run is to start, or None to give up, which is a ValueError here. Without it the run starts at once.
/// Raises ValueError, OSError, RuntimeError, or what a signal handler or a callback raised.
#[pyfunction]
#[pyo3(signature = (config, stop, on_start=None, on_close=None, on_answer=None, on_progress=None, on_ready=None))]
#[allow(clippy::too_many_arguments, reason = "Python gives them by name")]
pub(crate) fn run_load(
    py: Python<'_>,
    config: LoadArguments,
    stop: &Bound<'_, Stop>,
    on_start: Option<Py<PyAny>>,
    on_close: Option<Py<PyAny>>,
    on_answer: Option<Py<PyAny>>,
    on_progress: Option<Py<PyAny>>,
    on_ready: Option<Py<PyAny>>,
) -> PyResult<LoadOutcome> {
    let config = LoadConfig { watch_for_answer: on_answer.is_some(), ..config.into_config()? };
    let stop = stop.get().inner().clone();
    let (mut raised, mut stopped): (Option<PyErr>, Option<Stopped>) = (None, None);
    let mut unready: Option<PyErr> = None;
    let report = py.detach(|| {
        let notice = |notice: Notice| {
            let called = Python::attach(|py| match notice {
                Notice::Scheduled { start_ns } => call(py, &on_start, (start_ns,)),
                Notice::WindowClosed => call(py, &on_close, ()),
                Notice::Answered => call(py, &on_answer, ("answered",)),
                Notice::Unanswered => call(py, &on_answer, ("unanswered",)),
                Notice::Refused => call(py, &on_answer, ("refused",)),
                Notice::Progress(now) => {
                    let Progress { elapsed_ns, draining_ns, started, ended, completed, bytes, shed, .. } =
                        now;
                    let Progress { machines, booted, lost, .. } = now;
                    let counts = (
                        elapsed_ns,
                        draining_ns,
                        started,
                        ended,
                        completed,
                        bytes,
                        shed,
                        machines,
                        booted,
                        lost,
                    );
                    call(py, &on_progress, counts)
                }
                Notice::Braked(why) => {
                    stopped = Some(why);
                    Ok(())
                }
                Notice::Tick | Notice::Unreachable => py.check_signals(),
            });
            if let Err(error) = called {
                raised.get_or_insert(error);
                stop.request();
            }
        };
        let Some(on_ready) = &on_ready else { return tftpbench_load::run(&config, &stop, notice) };
        let ready = || match Python::attach(|py| agreed_start_ns(py, on_ready)) {
            Ok(start_ns) => start_ns,
            Err(error) => {
                unready = Some(error);
                None
            }
        };
        tftpbench_load::run_when_agreed(&config, &stop, ready, notice)
    });
    match unready.or(raised) {
        Some(error) => Err(error),
        None => report.map(|report| LoadOutcome(report, stopped)).map_err(from_load),
    }
}

/// The start that the callback returns; a time before all others of the clock is as past as that.
fn agreed_start_ns(py: Python<'_>, on_ready: &Py<PyAny>) -> PyResult<Option<u64>> {
    let returned = on_ready.call0(py)?;
    let start_ns: Option<i64> = returned.extract(py).map_err(|_| {
        PyValueError::new_err("on_ready: must return a time in ns on CLOCK_MONOTONIC, or None")
    })?;
    Ok(start_ns.map(|ns| u64::try_from(ns).unwrap_or(0)))
}

fn call<'py>(py: Python<'py>, callback: &Option<Py<PyAny>>, arguments: impl PyCallArgs<'py>) -> PyResult<()> {
    match callback {
        Some(callback) => callback.call1(py, arguments).map(drop),
        None => py.check_signals(),
    }
}

/// Why a packet ring can't carry what this load asks for, in one line; None where it can.
#[pyfunction]
pub(crate) fn ring_refusal(config: LoadArguments) -> PyResult<Option<String>> {
    Ok(config.into_config()?.ring_refusal())
}

/// Makes the file `path` with the contents f(seed, file, offset).
#[pyfunction]
pub(crate) fn write_contents(py: Python<'_>, path: PathBuf, seed: u64, file: u64, size: u64) -> PyResult<()> {
    Ok(py.detach(|| contents::write_file(&path, seed, file, size))?)
}

/// Offset of the first byte of `path` that differs from f(seed, file, offset); None if none does.
#[pyfunction]
pub(crate) fn first_difference(
    py: Python<'_>,
    path: PathBuf,
    seed: u64,
    file: u64,
    size: u64,
) -> PyResult<Option<u64>> {
    Ok(py.detach(|| contents::first_difference_in_file(&path, seed, file, size))?)
}

/// The name that machine `number` asks for. Raises ValueError where the template has another variable than those of a
/// machine.
#[pyfunction]
pub(crate) fn machine_name(template: &str, number: u64) -> PyResult<String> {
    tftpbench_load::machine_name(template, number).map_err(PyValueError::new_err)
}

#[pymethods]
impl LoadOutcome {
    /// Column name to int, float, bool or None.
    #[getter]
    fn figures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = PyDict::new(py);
        for (name, figure) in &self.0.figures {
            match figure {
                Some(Figure::Whole(value)) => figures.set_item(name, value)?,
                Some(Figure::Real(value)) => figures.set_item(name, value)?,
                Some(Figure::Truth(value)) => figures.set_item(name, value)?,
                None => figures.set_item(name, py.None())?,
            }
        }
        Ok(figures)
    }

    /// Columns of the transfers, each as little-endian int64.
    #[getter]
    fn transfers<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let rows = &self.0.transfers;
        let columns: [Column<TransferRow>; 11] = [
            ("number", |row| row.number as i64),
            ("intended_start_ns", |row| row.intended_start_ns),
            ("actual_start_ns", |row| row.actual_start_ns),
            ("first_response_ns", |row| row.first_response_ns),
            ("end_ns", |row| row.end_ns),
            ("bytes", |row| row.bytes as i64),
            ("retransmissions", |row| row.retransmissions as i64),
            ("outcome", |row| row.outcome as i64),
            ("error_code", |row| i64::from(row.error_code)),
            ("machine", |row| row.machine),
            ("step", |row| i64::from(row.step)),
        ];
        table(py, rows, &columns)
    }

    /// Columns of the machines that have a row, each as little-endian int64; none where no machine was to boot.
    #[getter]
    fn boots<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let columns: [Column<BootRow>; 15] = [
            ("machine", |row| row.machine as i64),
            ("share", |row| i64::from(row.share)),
            ("intended_start_ns", |row| row.intended_start_ns),
            ("actual_start_ns", |row| row.actual_start_ns),
            ("end_ns", |row| row.end_ns),
            ("bytes", |row| row.bytes as i64),
            ("requests", |row| row.requests as i64),
            ("misses", |row| row.misses as i64),
            ("misses_unanswered", |row| row.misses_unanswered as i64),
            ("retransmissions", |row| row.retransmissions as i64),
            ("restarts", |row| row.restarts as i64),
            ("outcome", |row| row.outcome as i64),
            ("failed_step", |row| row.failed_step),
            ("reason", |row| row.reason as i64),
            ("error_code", |row| i64::from(row.error_code)),
        ];
        match &self.0.boots {
            Some(rows) => table(py, rows, &columns),
            None => Ok(PyDict::new(py)),
        }
    }

    /// Columns of the intervals, each as little-endian int64.
    #[getter]
    fn intervals<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let columns: [Column<Interval>; 7] = [
            ("blocks", |row| row.blocks as i64),
            ("bytes", |row| row.bytes as i64),
            ("in_flight", |row| row.in_flight as i64),
            ("retransmissions", |row| row.retransmissions as i64),
            ("duration_ns", |row| row.duration_ns as i64),
            ("started", |row| row.started as i64),
            ("shed", |row| row.shed as i64),
        ];
        table(py, &self.0.intervals, &columns)
    }

    /// HdrHistogram V2 interval log.
    #[getter]
    fn latency_hlog(&self) -> &str {
        &self.0.latency_hlog
    }

    /// (kind, count, first example, RFC section or None) of everything the server did against the protocol.
    #[getter]
    fn faults(&self) -> Vec<FaultTuple> {
        let tuple = |fault: &Fault| (fault.kind, fault.count, fault.example.clone(), fault.rfc_section);
        self.0.faults.iter().map(tuple).collect()
    }

    /// (code, count, first message) of the ERRORs that ended transfers.
    #[getter]
    fn errors(&self) -> Vec<(u16, u64, String)> {
        self.0.errors.iter().map(|error| (error.code, error.count, error.message.clone())).collect()
    }

    /// Why the brake ended the load, "failing" or "unreachable"; None where it did not.
    #[getter]
    fn stopped(&self) -> Option<&'static str> {
        self.1.map(Stopped::name)
    }

    /// (share, step, machines), both from 0: of each step that expects no file, how many machines were served one.
    #[getter]
    fn served_misses(&self) -> Vec<(usize, usize, u64)> {
        self.0.served_misses.clone()
    }

    /// Transfers that were answered.
    #[getter]
    fn answered(&self) -> u64 {
        self.0.answered
    }

    /// In how many of them an OACK named each option: blksize, windowsize and tsize.
    #[getter]
    fn granted(&self) -> HashMap<&'static str, u64> {
        HashMap::from(self.0.granted)
    }
}

type FaultTuple = (&'static str, u64, String, Option<&'static str>);

/// Name of a column and how a row fills it.
type Column<Row> = (&'static str, fn(&Row) -> i64);

fn table<'py, Row>(py: Python<'py>, rows: &[Row], columns: &[Column<Row>]) -> PyResult<Bound<'py, PyDict>> {
    let made = PyDict::new(py);
    for (name, value) in columns {
        // Written where Python keeps them: no copy is made of a column.
        let bytes = PyBytes::new_with(py, rows.len() * size_of::<i64>(), |bytes| {
            let places = bytes.chunks_exact_mut(size_of::<i64>());
            rows.iter().zip(places).for_each(|(row, place)| place.copy_from_slice(&value(row).to_le_bytes()));
            Ok(())
        })?;
        made.set_item(name, bytes)?;
    }
    Ok(made)
}

impl LoadArguments {
    fn into_config(self) -> PyResult<LoadConfig> {
        let server = socket_address(&self.host, self.port)?;
        let arrivals = self.arrivals()?;
        let verify_against = self.verify_against()?;
        let extent = self.extent(&arrivals)?;
        let network = self.network()?;
        let (first, width, of) = self.share;
        Ok(LoadConfig {
            server,
            allow_remote: self.allow_remote,
            operation: choice("operation", &self.operation, &OPERATIONS)?,
            distinct_files: self.distinct_files,
            file_size_bytes: self.file_size_bytes,
            size_is_known: self.size_is_known,
            seed: self.seed,
            verify: choice(
                "verify",
                &self.verify,
                &[("full", Verify::Full), ("sample", Verify::Sample), ("off", Verify::Off)],
            )?,
            verify_against,
            show_payload: self.show_payload,
            options: self.options()?,
            timing: self.timing()?,
            name: self.name,
            arrivals,
            share: HostShare { first, width, of },
            workers: self.workers,
            cpus: self.cpus,
            sockets: choice(
                "sockets",
                &self.sockets,
                &[Sockets::Shared, Sockets::PerTransfer, Sockets::Ring].map(|way| (way.name(), way)),
            )?,
            network,
            extent,
            drain_ns: self.drain_ns,
            busy_poll_ns: self.busy_poll_us.saturating_mul(1_000),
            brake: Brake { stops: self.stops_when_failing, bytes_per_s_max: self.bytes_per_s_max },
            watch_for_answer: false,
            receive_buffer_bytes: self.receive_buffer_bytes,
            boots: boot_plan(self.boots)?,
            rows: choice(
                "rows",
                &self.rows,
                &[("all", Rows::All), ("failed", Rows::Failed), ("sample", Rows::Sample)],
            )?,
            rows_max: self.rows_max,
        })
    }

    fn extent(&self, arrivals: &Arrivals) -> PyResult<Extent> {
        let refuse = |text: &'static str| Err(PyValueError::new_err(text));
        let own = match arrivals {
            Arrivals::OpenLoop { starts, .. } => starts.extent(),
            Arrivals::ClosedLoop { .. } => None,
        };
        match (own, self.transfers, self.duration_ns) {
            (Some(_), _, _) if self.warm_up_ns > 0 => refuse("warm_up_ns: a storm and a shape have none"),
            (Some(own @ Extent::Transfers { .. }), Some(_), None) => Ok(own),
            (Some(own @ Extent::Duration { .. }), None, None) => Ok(own),
            (Some(_), _, _) => {
                refuse("transfers or duration_ns: a storm needs only transfers, a shape neither")
            }
            (None, Some(count), None) => Ok(Extent::Transfers { count, limit_ns: self.limit_ns }),
            (None, None, Some(window_ns)) => Ok(Extent::Duration { warm_up_ns: self.warm_up_ns, window_ns }),
            (None, _, _) => refuse("transfers or duration_ns: give exactly one"),
        }
    }

    fn arrivals(&self) -> PyResult<Arrivals> {
        let Some(starts) = self.starts()? else {
            return Ok(Arrivals::ClosedLoop { concurrency: self.concurrency, ramp_ns: self.ramp_ns });
        };
        if self.ramp_ns > 0 {
            return Err(PyValueError::new_err(
                "ramp_ns: the rate of an open loop spreads its starts already",
            ));
        }
        let kinds = [("even", Spacing::Even), ("poisson", Spacing::Poisson)];
        Ok(Arrivals::OpenLoop {
            starts,
            spacing: choice("arrivals", &self.arrivals, &kinds)?,
            in_flight_max: self.concurrency,
            deadline_ns: self.deadline_ns,
        })
    }

    /// How many start when; `None` in a closed loop.
    fn starts(&self) -> PyResult<Option<Starts>> {
        let spread = choice("spread", &self.spread, &[("even", Spread::Even), ("normal", Spread::Normal)])?;
        match (self.rate_ratio, self.over_ns, self.shape.as_slice()) {
            (None, None, []) => Ok(None),
            (Some((transfers, per_ns)), None, []) => Ok(Some(Starts::Rate(Rate { transfers, per_ns }))),
            (None, Some(over_ns), []) => {
                Ok(Some(Starts::Storm { count: self.transfers.unwrap_or(0), over_ns, spread }))
            }
            (None, None, pieces) => {
                let pieces: PyResult<Vec<Piece>> = pieces.iter().map(PieceArguments::piece).collect();
                Ok(Some(Starts::Shape(pieces?.into())))
            }
            _ => Err(PyValueError::new_err("rate_per_s, over_ns and shape: give one at most")),
        }
    }

    /// One file for all, or where its path has {n} one for each number.
    fn verify_against(&self) -> PyResult<Vec<Arc<[u8]>>> {
        let Some(path) = &self.verify_against else { return Ok(Vec::new()) };
        let each = path.to_str().filter(|path| path.contains("{n}"));
        let Some(path) = each else { return Ok(vec![std::fs::read(path)?.into()]) };
        if self.distinct_files == 0 {
            return Err(PyValueError::new_err("verify_against: {n} needs a number of distinct_files"));
        }
        let read = |file: u64| Ok(std::fs::read(path.replace("{n}", &file.to_string()))?.into());
        (0..self.distinct_files).map(read).collect()
    }

    /// The network of its own that the generator is in, if any.
    fn network(&self) -> PyResult<Option<Network>> {
        let Some(source) = socket_source(self.network_fd, Side::Generator)? else { return Ok(None) };
        let machines = self.machines_network.parse()?;
        // Without these there are only sockets.
        let ends = (Mac::try_from(&*self.ring_mac), Mac::try_from(&*self.server_mac));
        let link = match (self.ring_interface, ends) {
            (interface @ 1.., (Ok(ours), Ok(theirs))) => {
                Some(RingLink { source: source.clone(), interface, ours, theirs })
            }
            _ => None,
        };
        Ok(Some(Network { source, machines, link }))
    }

    /// Defaults are not asked for: RFC 2347 negotiation happens only where something differs from RFC 1350.
    fn options(&self) -> PyResult<Options> {
        let rollover = match self.rollover {
            None => None,
            Some(0) => Some(Rollover::Zero),
            Some(1) => Some(Rollover::One),
            Some(other) => {
                return Err(PyValueError::new_err(format!("rollover: {other} is not one of 0, 1")));
            }
        };
        Ok(Options {
            blksize: (self.blksize != tftpbench_proto::BLKSIZE_DEFAULT).then_some(self.blksize),
            windowsize: (self.windowsize != 1).then_some(self.windowsize),
            timeout_s: self.timeout_option_s,
            tsize: self.tsize.then_some(0),
            rollover,
        })
    }

    fn timing(&self) -> PyResult<Timing> {
        let backoff = choice(
            "backoff",
            &self.backoff,
            &[("exponential", Backoff::Exponential), ("constant", Backoff::Constant)],
        )?;
        Ok(Timing {
            timeout_ns: self.timeout_ns,
            retries: self.retries,
            backoff,
            // Clients in the field keep fixed time-outs, and an adaptive one would hide a slow server.
            adaptive_floor_ns: None,
            timeout_max_ns: self.timeout_ns.saturating_mul(64),
        })
    }
}

/// Where sockets of one side are opened: by the broker behind a descriptor, if there is one.
pub(crate) fn socket_source(network_fd: Option<i32>, side: Side) -> PyResult<Option<SocketSource>> {
    let broker = network_fd.map(Broker::inherited).transpose()?;
    Ok(broker.map(|broker| SocketSource::Behind(Arc::new(broker), side)))
}

/// The plan of what boots; none where nothing does. A file to compare with is read once.
fn boot_plan(shares: Vec<ShareArguments>) -> PyResult<Option<Arc<BootPlan>>> {
    if shares.is_empty() {
        return Ok(None);
    }
    let mut files = HashMap::new();
    let shares = shares.into_iter().map(|share| {
        let steps =
            share.steps.into_iter().map(|step| step.into_step(&mut files)).collect::<PyResult<_>>()?;
        Ok(BootShare { name: share.name, weight: share.weight, steps })
    });
    let plan = BootPlan::new(shares.collect::<PyResult<_>>()?).map_err(from_load)?;
    Ok(Some(Arc::new(plan)))
}

impl StepArguments {
    fn into_step(self, files: &mut HashMap<PathBuf, Arc<[u8]>>) -> PyResult<BootStep> {
        let (after, code, text) = (self.stop_after, self.stop_code, self.stop_text.into());
        let stop = Ends::Stop { after, code, text, acks: self.stop_acks };
        let contents = match self.contents {
            None => None,
            Some(path) => Some(match files.get(&path) {
                Some(bytes) => bytes.clone(),
                None => {
                    let bytes: Arc<[u8]> = std::fs::read(&path)?.into();
                    files.insert(path, bytes.clone());
                    bytes
                }
            }),
        };
        Ok(BootStep {
            operation: choice("operation", &self.operation, &OPERATIONS)?,
            name: self.name,
            options: self.options,
            size_bytes: self.size_bytes,
            // -1, of a miss, is a file that no comparison is made with.
            file: self.file as u64,
            contents,
            ends: match self.ends.as_str() {
                "stop" => stop,
                other => choice("ends", other, &[("whole", 0), ("missing", 1), ("stop", 2)])
                    .map(|ends| if ends == 0 { Ends::Whole } else { Ends::Missing })?,
            },
            think_ns: self.think_ns,
            then: choice(
                "then",
                &self.then,
                &[
                    ("give_up", Then::GiveUp),
                    ("restart_transfer", Then::RestartTransfer),
                    ("restart_boot", Then::RestartBoot),
                ],
            )?,
            restarts_max: self.restarts_max,
            habits: Arc::new(Habits {
                opening_waits_ns: self.waits_ns.into(),
                waits_ns: self.reading_waits_ns.into(),
                nack: choice(
                    "nack",
                    &self.nack,
                    &[("gap", Nack::Gap), ("block", Nack::Block), ("none", Nack::Nothing)],
                )?,
                asks_others: false,
            }),
        })
    }
}

impl PieceArguments {
    fn piece(&self) -> PyResult<Piece> {
        let rate = |ratio: Option<(u64, u64)>, name: &str| match ratio {
            Some((transfers, per_ns)) => Ok(Rate { transfers, per_ns }),
            None => Err(PyValueError::new_err(format!("shape: a {} needs {name}", self.kind))),
        };
        let for_ns = self.for_ns;
        match self.kind.as_str() {
            "ramp" => {
                let (from, to) = (rate(self.from_ratio, "from_ratio")?, rate(self.to_ratio, "to_ratio")?);
                Ok(Piece::Ramp { from, to, for_ns })
            }
            "hold" => Ok(Piece::Hold { rate: rate(self.from_ratio, "from_ratio")?, for_ns }),
            "burst" => Ok(Piece::Burst { count: self.count }),
            other => Err(PyValueError::new_err(format!("shape: {other} is not one of ramp, hold, burst"))),
        }
    }
}
