//! The TFTP load generator: N virtual clients in flight, every byte checked, every round trip stamped.
//!
//! `run` does one trial against one server and gives back what it found. It never prints, never judges whether the
//! figures are good, and never writes a file; what the server does wrong is data in the report, not an error here.
//!
//! The way of a transfer: [`schedule`] says when, [`worker`] runs it, [`endpoints`] gives it a socket or a place in a
//! [shared one](shared_socket) or on a [ring], [`client`] drives the protocol machine, checks the bytes and sends, [`exchange`] knows
//! what its stamps mean, [`recorder`] and [`latency`] write down what happened, [`ended`] a row per transfer as long as
//! there is room, all in memory that does not grow with time, and [`report`] turns the records of all workers into figures.

mod boot_figures;
mod booting;
mod boots;
mod brake;
mod client;
mod config;
pub mod contents;
mod ended;
mod endpoints;
mod exchange;
mod faults;
mod figures;
mod latency;
mod load_error;
mod machine_name;
mod notice;
mod open_loop;
mod recorder;
mod report;
mod ring;
mod schedule;
mod shape;
mod shared_socket;
mod worker;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tftpbench_net::{Stop, clock, limits};

pub use boot_figures::{BootOutcome, BootReason, BootRow};
pub use boots::{BootPlan, BootShare, BootStep, Ends, Then};
pub use brake::{Brake, Stopped};
pub use config::{Arrivals, Extent, LoadConfig, Network, Rows, Sockets, Verify};
pub use ended::{TransferOutcome, TransferRow};
pub use faults::{Fault, PeerError};
pub use figures::Figure;
pub use load_error::LoadError;
pub use machine_name::machine_name;
pub use notice::{Notice, Progress};
pub use open_loop::{HostShare, Spacing};
pub use recorder::{INTERVAL_NS, Interval};
pub use report::LoadReport;
pub use shape::{Piece, Rate, Spread, Starts};

use brake::StopRule;
use config::DALLYING_MAX;
use notice::{Counters, Sent};
use report::WorkerReport;
use schedule::Tickets;
use worker::opened::OpenedWorker;

/// Descriptors that are not client sockets: epoll, stop pipe, standard streams, files of the caller.
const OTHER_FILES: u64 = 128;
/// Memory of a transfer in flight: the client's and its socket's, in the kernel some 3 KB with file and inode.
const CLIENT_BYTES: u64 = 4096;
/// Memory of what has a row: the row and its mark, and columns for the caller, made while the row is still there.
const ROW_BYTES: u64 = 2 * size_of::<TransferRow>() as u64 + 24;
const BOOT_ROW_BYTES: u64 = 2 * size_of::<BootRow>() as u64 + 24;
/// What a machine has beside the client of its transfer.
const MACHINE_BYTES: u64 = 1024;
/// How often the caller hears from a run that has nothing to say; later than that is a gap of the runner's.
const TICK: Duration = Duration::from_millis(100);
/// How long a person waits for an answer without a word.
const UNANSWERED: Duration = Duration::from_secs(1);
/// How often the caller hears how far a run is: as often as a person reads a line.
const PROGRESS: Duration = Duration::from_secs(1);
/// From the moment everything is open to the first start, for each thread that has to be started.
const LEAD_NS: u64 = 1_000_000;
/// A start that others gave lies no further ahead: what waits for longer has been forgotten.
const AHEAD_MAX_NS: u64 = 600_000_000_000;

/// Runs one load to its end and reports. `stop` ends it early: what is in flight becomes `interrupted`.
pub fn run(config: &LoadConfig, stop: &Stop, notice: impl FnMut(Notice)) -> Result<LoadReport, LoadError> {
    run_from(config, stop, || Ok(clock::monotonic_ns() + LEAD_NS * config.workers as u64), notice)
}

/// The same, from a moment that several hosts agree on. `ready` is called on this thread once everything is open, and may
/// take its time. It returns the start on CLOCK_MONOTONIC of this machine, which is refused unless it lies ahead, by ten
/// minutes at most; or `None` to give up, with nothing sent.
pub fn run_when_agreed(
    config: &LoadConfig,
    stop: &Stop,
    ready: impl FnOnce() -> Option<u64>,
    notice: impl FnMut(Notice),
) -> Result<LoadReport, LoadError> {
    run_from(config, stop, || agreed(ready(), clock::monotonic_ns()), notice)
}

/// The start that others gave, if it can be kept.
fn agreed(start_ns: Option<u64>, now_ns: u64) -> Result<u64, LoadError> {
    let start_ns = start_ns.ok_or(LoadError::GivenUp)?;
    let refuse = |why: String| Err(LoadError::Config(format!("start: {start_ns} ns {why}")));
    match start_ns.checked_sub(now_ns) {
        None | Some(0) => refuse(format!("is past by {} ns: agree on a later one", now_ns - start_ns)),
        Some(ahead_ns) if ahead_ns > AHEAD_MAX_NS => refuse(format!(
            "is {} s ahead: at most {} s are allowed",
            ahead_ns / 1_000_000_000,
            AHEAD_MAX_NS / 1_000_000_000
        )),
        Some(_) => Ok(start_ns),
    }
}

fn run_from(
    config: &LoadConfig,
    stop: &Stop,
    start: impl FnOnce() -> Result<u64, LoadError>,
    mut notice: impl FnMut(Notice),
) -> Result<LoadReport, LoadError> {
    config.check()?;
    check_room(config)?;
    let count = match config.extent {
        Extent::Transfers { count, .. } => Some(count),
        Extent::Duration { .. } => None,
    };
    let tickets = Tickets::new(config.share, count, config.arrivals.in_flight_max());
    let (notices, heard) = mpsc::channel::<Sent>();
    let counters: Vec<Counters> = (0..config.workers).map(|_| Counters::default()).collect();
    // All sockets are opened here, before the clock of the run starts.
    let workers: Vec<OpenedWorker<'_>> = (0..config.workers)
        .map(|index| OpenedWorker::open(config, &tickets, stop, notices.clone(), &counters[index], index))
        .collect::<Result<_, _>>()?;
    drop(notices);
    let start_ns = start()?;
    let mut runner_gap_ns_max = 0;
    let reports = thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(index, worker)| {
                let pin = config.cpus.get(index % config.cpus.len().max(1)).copied();
                let body = move || catch_unwind(AssertUnwindSafe(|| worker.run(start_ns, pin)));
                thread::Builder::new().name(format!("tftp-load-{index}")).spawn_scoped(scope, body)
            })
            .collect();
        notice(Notice::Scheduled { start_ns });
        runner_gap_ns_max = listen(&heard, &counters, config, stop, start_ns, &mut notice);
        threads.into_iter().map(join).collect::<Result<Vec<_>, LoadError>>()
    })?;
    LoadReport::new(config, start_ns, reports, runner_gap_ns_max, stop.requests() > 0)
        .map_err(LoadError::os("cannot make the report"))
}

/// Sees to it that all transfers in flight find descriptors, ports and memory. An open loop opens its sockets as it needs
/// them: in the middle of it is too late to find out.
fn check_room(config: &LoadConfig) -> Result<(), LoadError> {
    let raised = limits::raise_open_files((sockets(config) as u64).saturating_add(OTHER_FILES));
    let Arrivals::OpenLoop { starts, in_flight_max, .. } = &config.arrivals else {
        return Ok(raised.map(drop)?);
    };
    let in_flight_max = *in_flight_max;
    let refuse = |limit: String, fits: u64, hint: &str| {
        let (asked, hint) = (in_flight_max, hint.to_owned());
        let what = if config.boots.is_some() { "machines" } else { "transfers" };
        Err(LoadError::TooMany { what, asked, limit, fits, hint })
    };
    let dallying = (DALLYING_MAX * config.workers) as u64;
    if config.sockets == Sockets::PerTransfer {
        if let Err(shortfall) = raised {
            let fits = shortfall.hard.saturating_sub(OTHER_FILES + dallying);
            let hint = "; a higher hard limit (`ulimit -Hn`, LimitNOFILE in systemd) allows more";
            return refuse(format!("{} open files", shortfall.hard), fits, hint);
        }
        // In a network of its own each transfer has an address of its own, and all ports of that.
        let ports = limits::local_ports().filter(|_| config.network.is_none()).unwrap_or(u64::MAX);
        if (in_flight_max as u64).saturating_add(dallying) > ports {
            let hint = "; a wider net.ipv4.ip_local_port_range allows more";
            return refuse(format!("{ports} local ports"), ports.saturating_sub(dallying), hint);
        }
    }
    raised?;
    let memory = limits::available_memory_bytes().unwrap_or(u64::MAX);
    let Some(rest) = memory.checked_sub(row_bytes(config, starts)) else {
        return Err(LoadError::Config(format!(
            "rows: as many as this run may have need more than the {} MiB of memory that are free; \
             `rows: sample` keeps fewer",
            memory >> 20
        )));
    };
    let fits = rest / (CLIENT_BYTES + config.boots.as_ref().map_or(0, |_| MACHINE_BYTES));
    if in_flight_max as u64 > fits {
        return refuse(format!("{} MiB of free memory", memory >> 20), fits, "");
    }
    Ok(())
}

/// Memory for the rows of an open loop: of transfers and of machines as many as are kept.
fn row_bytes(config: &LoadConfig, starts: &Starts) -> u64 {
    let started = match (starts, config.extent) {
        (Starts::Shape(pieces), _) => shape::Shape::new(pieces).count(),
        (_, Extent::Transfers { count, .. }) => count,
        (Starts::Rate(rate), Extent::Duration { warm_up_ns, window_ns }) => {
            ((warm_up_ns as f64 + window_ns as f64) / 1e9 * rate.per_second()) as u64
        }
        (Starts::Storm { count, .. }, _) => *count,
    };
    let started = config.share.part_of(started);
    let (steps, machines) = config.boots.as_ref().map_or((1, 0), |plan| (plan.steps_max() as u64, started));
    let most = ended::rows_max(config) as u64;
    let transfers = started.saturating_mul(steps).min(most);
    transfers.saturating_mul(ROW_BYTES).saturating_add(machines.min(most).saturating_mul(BOOT_ROW_BYTES))
}

/// Sockets that can be open at one time: shared sockets, or those of clients in flight and of clients that dally.
fn sockets(config: &LoadConfig) -> usize {
    match config.sockets {
        Sockets::Shared => config.workers * shared_socket::SHARED_SOCKETS_MAX,
        Sockets::Ring => config.workers * ring::SOCKETS,
        Sockets::PerTransfer => config.arrivals.in_flight_max().saturating_add(DALLYING_MAX * config.workers),
    }
}

/// Passes on what the workers say until all of them have gone, the end of the window once, and ends the load by its
/// brake. Returns the longest time from when the caller should have heard something until it had dealt with it.
fn listen(
    heard: &mpsc::Receiver<Sent>,
    counters: &[Counters],
    config: &LoadConfig,
    stop: &Stop,
    start_ns: u64,
    notice: &mut impl FnMut(Notice),
) -> u64 {
    let mut awaits_close = true;
    let ahead = Duration::from_nanos(start_ns.saturating_sub(clock::monotonic_ns()));
    let (began, mut awaits_answer) = (Instant::now() + ahead, config.watch_for_answer);
    let (mut rule, mut next_look) = (config.brake.stops.then(StopRule::default), began + TICK);
    let (mut closed, mut next_progress) = (None, began + PROGRESS);
    let mut gap_ns_max = 0;
    loop {
        let mut stopped = None;
        let tick_ns = clock::monotonic_ns() + TICK.as_nanos() as u64;
        let due_ns = match heard.recv_timeout(TICK) {
            Ok((Notice::WindowClosed, sent_ns)) if awaits_close => {
                awaits_close = false;
                notice(Notice::WindowClosed);
                let now = Instant::now();
                (closed, next_progress) = (Some(now), now + PROGRESS);
                sent_ns
            }
            // Each worker says so; the first one's word is the news.
            Ok((news @ (Notice::Answered | Notice::Refused), sent_ns)) if awaits_answer => {
                awaits_answer = false;
                notice(news);
                sent_ns
            }
            Ok((Notice::Unreachable, sent_ns)) => {
                stopped = Some(Stopped::Unreachable);
                sent_ns
            }
            Ok((_, sent_ns)) => sent_ns,
            Err(RecvTimeoutError::Timeout) => {
                notice(Notice::Tick);
                tick_ns
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        gap_ns_max = gap_ns_max.max(clock::monotonic_ns().saturating_sub(due_ns));
        if awaits_answer && began.elapsed() >= UNANSWERED {
            awaits_answer = false;
            notice(Notice::Unanswered);
        }
        if let Some(rule) = &mut rule
            && Instant::now() >= next_look
        {
            next_look = Instant::now() + TICK;
            let now = counters.iter().fold(Progress::default(), Progress::add);
            let (ended, lost) = now.ended_and_lost(config.boots.is_some());
            let is_failing = rule.look(clock::monotonic_ns(), ended, lost);
            stopped = stopped.or(is_failing.then_some(Stopped::Failing));
        }
        if let Some(why) = stopped.filter(|_| rule.take().is_some()) {
            stop.request();
            notice(Notice::Braked(why));
        }
        if Instant::now() >= next_progress {
            next_progress += PROGRESS;
            let elapsed_ns = began.elapsed().as_nanos() as u64;
            let draining_ns = closed.map(|closed: Instant| closed.elapsed().as_nanos() as u64);
            let nothing = Progress { elapsed_ns, draining_ns, ..Progress::default() };
            notice(Notice::Progress(counters.iter().fold(nothing, Progress::add)));
        }
    }
    // Fixed work ends before its time has come.
    let begin_ns = clock::monotonic_ns();
    if awaits_close {
        notice(Notice::WindowClosed);
    }
    gap_ns_max.max(clock::monotonic_ns() - begin_ns)
}

type Ended = thread::Result<Result<WorkerReport, LoadError>>;

/// A panic in a worker is a fault of ours, and an ordinary error to the caller.
fn join(spawned: io::Result<thread::ScopedJoinHandle<'_, Ended>>) -> Result<WorkerReport, LoadError> {
    let thread = spawned.map_err(LoadError::os("cannot start a load worker"))?;
    match thread.join() {
        Ok(Ok(report)) => report,
        Ok(Err(panic)) | Err(panic) => Err(LoadError::Internal(panic_text(&*panic))),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_others_gave_lies_ahead_and_not_too_far() {
        let now_ns = 5_000_000_000;
        let latest_ns = now_ns + AHEAD_MAX_NS;
        for start_ns in [now_ns + 1, latest_ns] {
            assert_eq!(agreed(Some(start_ns), now_ns).ok(), Some(start_ns));
        }
        for (start_ns, text) in [
            (now_ns, "start: 5000000000 ns is past by 0 ns"),
            (now_ns - 7, "start: 4999999993 ns is past by 7 ns"),
            (0, "is past"),
            (latest_ns + 1, "is 600 s ahead: at most 600 s are allowed"),
            (u64::MAX, "at most 600 s"),
        ] {
            let refused = agreed(Some(start_ns), now_ns).unwrap_err().to_string();
            assert!(refused.contains(text) && !refused.contains('\n'), "{refused}");
        }
        assert!(matches!(agreed(None, now_ns), Err(LoadError::GivenUp)));
    }
}
