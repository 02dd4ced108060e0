//! What a worker has opened and allocated before the run's clock starts, so that neither is measured.
//! It must never send a datagram.

use std::collections::VecDeque;
use std::sync::mpsc::Sender as Channel;

use slab::Slab;
use tftpbench_net::{Poller, ReceiveBatch, RingReceiver, SendBatch, Stop, Timers, clock, cpus};

use super::{SHARED_TOKENS, STOP_TOKEN, Worker};
use crate::booting::Machines;
use crate::brake::Throttle;
use crate::client::Client;
use crate::config::{Extent, LoadConfig};
use crate::endpoints::Endpoints;
use crate::faults::Faults;
use crate::load_error::LoadError;
use crate::notice::{Counters, Sent};
use crate::recorder::{Phase, Recorder};
use crate::report::WorkerReport;
use crate::schedule::{Schedule, Tickets};

/// Messages taken from one socket per call. A client's own socket has a window in flight at most.
const RECEIVE_MESSAGES: usize = 16;
const SHARED_RECEIVE_MESSAGES: usize = 64;
const SEND_MESSAGES: usize = 64;

/// A worker that has not started yet.
pub(crate) struct OpenedWorker<'a> {
    config: &'a LoadConfig,
    tickets: &'a Tickets,
    stop: &'a Stop,
    notices: Channel<Sent>,
    counters: &'a Counters,
    index: usize,
    poller: Poller,
    endpoints: Endpoints,
    clients: Slab<Client>,
    receive: ReceiveBatch,
    arrivals: Option<RingReceiver>,
    batch: SendBatch,
    scratch: Box<[u8]>,
}

impl<'a> OpenedWorker<'a> {
    /// Opens everything that the first transfers of worker `index` need.
    pub(crate) fn open(
        config: &'a LoadConfig,
        tickets: &'a Tickets,
        stop: &'a Stop,
        notices: Channel<Sent>,
        counters: &'a Counters,
        index: usize,
    ) -> Result<Self, LoadError> {
        let mut poller = Poller::new().map_err(LoadError::os("cannot make an epoll instance"))?;
        poller.add(stop, STOP_TOKEN).map_err(LoadError::os("cannot watch for a stop"))?;
        let slots = config.slots(index);
        let mut endpoints = Endpoints::open(config, index, slots)?;
        let arrivals = endpoints.ring.as_mut().and_then(|ring| ring.receiver.take());
        if let Some(arrivals) = &arrivals {
            poller.add(arrivals, SHARED_TOKENS).map_err(LoadError::os("cannot watch a ring"))?;
        }
        for (index, shared_socket) in endpoints.shared.iter().enumerate() {
            poller
                .add_busy(&shared_socket.socket, SHARED_TOKENS - index as u64)
                .map_err(LoadError::os("cannot watch a socket"))?;
        }
        let messages = match config.windowsize_max() {
            _ if !endpoints.shared.is_empty() => SHARED_RECEIVE_MESSAGES,
            2.. => RECEIVE_MESSAGES,
            _ => 1,
        };
        let datagram_bytes = config.datagram_bytes_max();
        // One byte more, so that a block that is too long is seen to be.
        let receive = match config.reads_windows() {
            true => ReceiveBatch::coalescing(messages, datagram_bytes + 1),
            false => ReceiveBatch::new(messages, datagram_bytes + 1),
        };
        Ok(OpenedWorker {
            config,
            tickets,
            stop,
            notices,
            counters,
            index,
            poller,
            endpoints,
            clients: Slab::with_capacity(slots),
            receive,
            arrivals,
            batch: SendBatch::new(SEND_MESSAGES, SEND_MESSAGES * datagram_bytes),
            scratch: vec![0; datagram_bytes].into_boxed_slice(),
        })
    }

    /// Runs from `start_ns` until everything has ended, on CPU `pin` if one is given.
    pub(crate) fn run(self, start_ns: u64, pin: Option<usize>) -> Result<WorkerReport, LoadError> {
        if let Some(cpu) = pin {
            cpus::pin_current_thread(&[cpu]).map_err(LoadError::os("cannot pin a load worker to its CPU"))?;
        }
        self.start(start_ns).run()
    }

    fn start(self, start_ns: u64) -> Worker<'a> {
        let config = self.config;
        let window = window(config, start_ns);
        Worker {
            config,
            stop: self.stop,
            notices: self.notices,
            counters: self.counters,
            poller: self.poller,
            timers: Timers::new(clock::monotonic_ns()),
            due: Vec::new(),
            clients: self.clients,
            generation: 0,
            receive_buffer_bytes: self.endpoints.granted_receive_buffer_bytes(),
            endpoints: self.endpoints,
            dallying: VecDeque::new(),
            active: 0,
            in_flight: &self.tickets.in_flight,
            schedule: Schedule::new(config, self.tickets, self.index, (start_ns, window.1)),
            throttle: config.brake.bytes_per_s_max.map(|most| Throttle::new(most, config.workers)),
            opens_ns: 0,
            phase: Phase::WarmUp,
            cpu_mark_ns: 0,
            drain_end_ns: u64::MAX,
            realtime_offset_ns: 0,
            recorder: Recorder::of(config, start_ns, window),
            faults: Faults::new(config.show_payload),
            receive: Some(self.receive),
            arrivals: self.arrivals,
            refused: false,
            idle_ns: 0,
            heard: false,
            awaits_answer: config.watch_for_answer,
            receives_since_poll: 0,
            batch: self.batch,
            scratch: self.scratch,
            machines: config.boots.as_ref().map(|plan| Box::new(Machines::new(plan, config))),
        }
    }
}

/// Open and close of the measured window.
fn window(config: &LoadConfig, start_ns: u64) -> (u64, u64) {
    match config.extent {
        Extent::Transfers { limit_ns, .. } => (start_ns, start_ns.saturating_add(limit_ns)),
        Extent::Duration { warm_up_ns, window_ns } => {
            let open_ns = start_ns.saturating_add(warm_up_ns);
            (open_ns, open_ns.saturating_add(window_ns))
        }
    }
}
