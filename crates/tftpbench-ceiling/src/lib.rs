//! The ceiling: raw UDP throughput for the datagrams of a cell, without TFTP or a file, over loopback or in a network of
//! two namespaces, as the trial has it.
//!
//! Two pinned threads exchange datagrams through the same kernel paths as a trial. The *asking* side
//! stands for the generator, the *answering* side for the server. A read: 4 bytes are asked, a window of DATA-sized
//! datagrams is answered, as one run that the kernel cuts where a window is more than one; when all have arrived, the
//! flow asks again. A write is the mirror image. The first 4 bytes of every datagram name the flow; nothing else is
//! written, read, stamped or checked. A flow that lost a datagram, and so fell silent, is started again, and counted.
//!
//! The loops are the shortest that can do this: an index where a server needs a table, no allocation and no clock
//! on the way of a datagram. The caller's thread looks at the counters when the window opens and when it closes.
//! It must never print, judge, or choose an [`Arrangement`], nor leave loopback or such a network.

mod answering;
mod asking;
mod config;
mod null_server;
mod side;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::thread::{self, Scope, ScopedJoinHandle};

use tftpbench_net::{Poller, Stop, clock, limits};

pub use config::{Arrangement, Asking, CeilingError, Cell, Network, Operation, Window};
pub use null_server::{Answered, NullServer, NullServerConfig};

use answering::Answerer;
use asking::Asker;
use side::{Progress, TICK_NS};

/// Descriptors that are no sockets: pollers, stop pipes, standard streams, files of the caller.
const OTHER_FILES: u64 = 128;
/// A tick that is so much late tells that this process stood still, or this thread did: what the flows did meanwhile is
/// no ceiling. A time slice of another program takes 3 to 4 ms.
const STANDSTILL_NS: u64 = 5_000_000;
/// Ticks that are left out for that and made up for. Where there are more the machine is always so.
const LATE_TICKS_MAX: u32 = 16;

/// What an exchange came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// DATA-sized datagrams that moved inside the window.
    pub datagrams: u64,
    /// The window as it was, without what was left out.
    pub window_ns: u64,
    /// Time that was left out, for something stood still in it.
    pub gap_ns: u64,
    /// How often a flow fell silent and was started again, warm-up included.
    pub restarts: u64,
}

impl Report {
    /// DATA-sized datagrams per second.
    pub fn data_pps(&self) -> f64 {
        self.datagrams as f64 * 1e9 / self.window_ns.max(1) as f64
    }
}

/// Runs one exchange. `look_on` is called a few dozen times a second, on the caller's thread. None: `stop` came first.
pub fn measure(
    cell: &Cell,
    arrangement: &Arrangement,
    window: Window,
    stop: &Stop,
    look_on: impl FnMut(),
) -> Result<Option<Report>, CeilingError> {
    config::check(cell, arrangement, window)?;
    limits::raise_open_files(config::sockets(cell, arrangement) as u64 + OTHER_FILES)?;
    let end = Stop::new().map_err(CeilingError::os("cannot make a stop pipe"))?;
    let progress: Vec<Progress> = (0..arrangement.pairs).map(|_| Progress::default()).collect();
    let mut pairs = Vec::new();
    for (index, progress) in progress.iter().enumerate() {
        let answerer = Answerer::open(cell, arrangement, index, &end)?;
        let asker = Asker::open(cell, arrangement, index, &end, &answerer.addresses(), progress)?;
        if arrangement.is_connected {
            asker.connect(&answerer)?;
        }
        pairs.push((answerer, asker));
    }
    thread::scope(|scope| {
        let end = &end;
        let mut threads = Vec::new();
        for (answerer, asker) in pairs {
            threads.push(spawn(scope, "ceiling-answer", move || guarded(end, || answerer.run())));
            threads.push(spawn(scope, "ceiling-ask", move || guarded(end, || asker.run())));
        }
        if threads.iter().any(Result::is_err) {
            end.request();
        }
        let report = watch(&progress, window, stop, end, look_on);
        end.request();
        for thread in threads {
            thread?.join().unwrap_or_else(|panic| Err(fault(&*panic)))?;
        }
        report
    })
}

type Ended = Result<(), CeilingError>;

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> Ended + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Ended>, CeilingError> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, body);
    spawned.map_err(CeilingError::os("cannot start a thread"))
}

/// Runs one side; where it fails the others must not go on for ever. A panic is a fault of ours and an ordinary error.
fn guarded(end: &Stop, run: impl FnOnce() -> Ended) -> Ended {
    let ended = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| Err(fault(&*panic)));
    if ended.is_err() {
        end.request();
    }
    ended
}

fn fault(panic: &(dyn Any + Send)) -> CeilingError {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    CeilingError::Internal(text.unwrap_or_else(|| "no message".to_owned()))
}

/// The caller's thread: what the counters move in each tick of the window, by its own clock.
fn watch(
    progress: &[Progress],
    window: Window,
    stop: &Stop,
    end: &Stop,
    mut look_on: impl FnMut(),
) -> Result<Option<Report>, CeilingError> {
    let mut poller = Poller::new().map_err(CeilingError::os("cannot make a poller"))?;
    poller.add(stop, 0).map_err(CeilingError::os("cannot watch the stop pipe"))?;
    let start_ns = clock::monotonic_ns();
    let mut wait_until = |until_ns: u64| -> Result<bool, CeilingError> {
        loop {
            let now_ns = clock::monotonic_ns();
            let ticks = u32::try_from((now_ns - start_ns) / TICK_NS).unwrap_or(u32::MAX);
            progress.iter().for_each(|pair| pair.tick.store(ticks, Ordering::Relaxed));
            look_on();
            if now_ns >= until_ns || stop.requests() > 0 || end.requests() > 0 {
                return Ok(now_ns >= until_ns);
            }
            let waited = poller.wait(Some((until_ns - now_ns).min(TICK_NS)), 0);
            waited.map_err(CeilingError::os("cannot wait for the window"))?;
        }
    };
    let moved = || progress.iter().map(|pair| pair.datagrams.load(Ordering::Relaxed)).sum::<u64>();
    if !wait_until(start_ns + window.warm_up_ns)? {
        return Ok(None);
    }
    let (mut datagrams, mut window_ns, mut gap_ns, mut late_ticks) = (0, 0, 0, 0);
    while window_ns < window.window_ns {
        let (begin_ns, before) = (clock::monotonic_ns(), moved());
        let tick_ns = (window.window_ns - window_ns).min(TICK_NS);
        if !wait_until(begin_ns + tick_ns)? {
            return Ok(None);
        }
        let (took_ns, after) = (clock::monotonic_ns() - begin_ns, moved());
        if took_ns - tick_ns >= STANDSTILL_NS && late_ticks < LATE_TICKS_MAX {
            late_ticks += 1;
            gap_ns += took_ns;
            continue;
        }
        datagrams += after - before;
        window_ns += took_ns;
    }
    Ok(Some(Report {
        datagrams,
        window_ns,
        gap_ns,
        restarts: progress.iter().map(|pair| pair.restarts.load(Ordering::Relaxed)).sum(),
    }))
}
