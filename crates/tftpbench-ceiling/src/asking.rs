//! The asking side: stands for the generator. It keeps every flow going and counts what moves.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering;

use tftpbench_net::{Socket, Stop};

use crate::answering::Answerer;
use crate::config::{Arrangement, Asking, CeilingError, Cell, HEADER_BYTES, Operation};
use crate::side::{Plan, Progress, Side, TICK_NS, flow_index};

/// Flows that are started between two looks at what has arrived, so that starting overruns no buffer.
const STARTED_AT_ONCE: usize = 64;
/// A flow that is silent for so long has lost a datagram: 50 ms, and more where many are waiting for their turn
/// (20 us a datagram is an order of magnitude slower than any exchange).
const SILENCE_NS: u64 = 50_000_000;
const SILENCE_A_DATAGRAM_NS: u64 = 20_000;
const SILENCE_NS_MAX: u64 = 1_000_000_000;

/// The next start of the same flow: the upper half of its key counts them, see `flow_index`.
const START: u32 = 1 << 16;

pub(crate) struct Asker<'a> {
    cell: &'a Cell,
    side: Side,
    flows: Vec<Flow>,
    /// The flows from here on have not been started yet.
    unstarted: usize,
    silent_ticks: u32,
    /// When silence was last looked for.
    looked: u32,
    progress: &'a Progress,
    datagrams: u64,
}

struct Flow {
    key: u32,
    /// Datagrams of the current window that have arrived.
    arrived: usize,
    /// The tick at which it was last heard of.
    heard: u32,
    socket: usize,
    source: Option<IpAddr>,
    to: SocketAddr,
}

impl<'a> Asker<'a> {
    pub(crate) fn open(
        cell: &'a Cell,
        arrangement: &Arrangement,
        pair: usize,
        end: &Stop,
        answering: &[SocketAddr],
        progress: &'a Progress,
    ) -> Result<Asker<'a>, CeilingError> {
        let flows = cell.flows_of(pair, arrangement.pairs);
        let (sockets, are_shared) = match arrangement.asking {
            Asking::Shared(shared_sockets) => (shared_sockets.min(flows), true),
            Asking::PerFlow => (flows, false),
            Asking::Ring => (1, false),
        };
        let ring = (arrangement.asking == Asking::Ring).then_some((pair, arrangement.pairs));
        let plan = Plan {
            sockets,
            are_shared,
            asks: true,
            ring,
            receives_data: cell.operation == Operation::Read,
            spin_ns: cell.asking_spin_ns,
            cpu: cell.asking_cpus.iter().rev().nth(pair % cell.asking_cpus.len().max(1)).copied(),
            end,
        };
        // A ring hears those flows whose number leaves the pair's when divided by that of pairs.
        let source = |index: usize| match (cell.ring(), ring) {
            (Some((_, machines)), Some((pair, pairs))) => {
                Some(machines.address((index * pairs + pair) as u32))
            }
            _ => are_shared.then(|| cell.machines().address(index as u32)),
        };
        let flow = |index: usize| Flow {
            key: index as u32,
            arrived: 0,
            heard: 0,
            socket: index % sockets,
            source: source(index),
            to: answering[index % answering.len()],
        };
        let silence_ns = SILENCE_NS + (flows * cell.windowsize) as u64 * SILENCE_A_DATAGRAM_NS;
        Ok(Asker {
            cell,
            side: Side::open(cell, arrangement, &plan)?,
            flows: (0..flows).map(flow).collect(),
            unstarted: 0,
            silent_ticks: silence_ns.min(SILENCE_NS_MAX).div_ceil(TICK_NS) as u32,
            looked: 0,
            progress,
            datagrams: 0,
        })
    }

    /// Each flow has a socket of its own: it and that of the answering side know each other from now on.
    pub(crate) fn connect(&self, answerer: &Answerer<'_>) -> Result<(), CeilingError> {
        self.side.connect(&answerer.addresses())?;
        let ours: Vec<SocketAddr> = self.side.sockets().iter().map(Socket::local_addr).collect();
        answerer.connect(&ours)
    }

    pub(crate) fn run(mut self) -> Result<(), CeilingError> {
        self.side.pin()?;
        while !self.side.is_over() {
            let turned = self.start_some().and_then(|()| match self.cell.operation {
                Operation::Read => self.take_windows(),
                Operation::Write => self.send_windows(),
            });
            turned.map_err(CeilingError::os("the asking side's socket failed"))?;
            self.progress.datagrams.store(self.datagrams, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Starts flows that were never started, or else those that have fallen silent.
    fn start_some(&mut self) -> io::Result<()> {
        let tick = self.progress.tick.load(Ordering::Relaxed);
        if self.unstarted < self.flows.len() {
            let end = (self.unstarted + STARTED_AT_ONCE).min(self.flows.len());
            (self.unstarted..end).try_for_each(|index| self.start(index, tick))?;
            self.unstarted = end;
        } else if tick != self.looked {
            self.looked = tick;
            for index in 0..self.flows.len() {
                if tick - self.flows[index].heard > self.silent_ticks {
                    self.start(index, tick)?;
                    self.progress.restarts.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    fn start(&mut self, index: usize, tick: u32) -> io::Result<()> {
        let (bytes, count) = self.question();
        let flow = &mut self.flows[index];
        (flow.key, flow.arrived, flow.heard) = (flow.key.wrapping_add(START), 0, tick);
        self.side.send(flow.socket, |out| out.push(flow.source, flow.to, flow.key, bytes, count))
    }

    /// What a flow asks with: the length of a datagram, and how many.
    fn question(&self) -> (usize, usize) {
        match self.cell.operation {
            Operation::Read => (HEADER_BYTES, 1),
            Operation::Write => (self.cell.data_bytes(), self.cell.windowsize),
        }
    }

    fn timeout_ns(&self) -> Option<u64> {
        Some(if self.unstarted < self.flows.len() { 0 } else { TICK_NS })
    }

    /// A turn of a read: each window that is complete is answered by asking for the next.
    fn take_windows(&mut self) -> io::Result<()> {
        let (tick, timeout_ns) = (self.progress.tick.load(Ordering::Relaxed), self.timeout_ns());
        let (flows, datagrams, windowsize) = (&mut self.flows, &mut self.datagrams, self.cell.windowsize);
        self.side.turn(timeout_ns, |out, message| {
            let flow = flows.get_mut(flow_index(message.key)).filter(|flow| flow.key == message.key);
            let Some(flow) = flow else { return Ok(()) };
            *datagrams += message.datagrams as u64;
            flow.arrived += message.datagrams;
            flow.heard = tick;
            if flow.arrived < windowsize {
                return Ok(());
            }
            flow.arrived = 0;
            out.push(flow.source, flow.to, flow.key, HEADER_BYTES, 1)
        })
    }

    /// A turn of a write: each answer is followed by the next window.
    fn send_windows(&mut self) -> io::Result<()> {
        let (tick, timeout_ns) = (self.progress.tick.load(Ordering::Relaxed), self.timeout_ns());
        let (bytes, windowsize) = self.question();
        let (flows, datagrams) = (&mut self.flows, &mut self.datagrams);
        self.side.turn(timeout_ns, |out, message| {
            let flow = flows.get_mut(flow_index(message.key)).filter(|flow| flow.key == message.key);
            let Some(flow) = flow else { return Ok(()) };
            *datagrams += windowsize as u64;
            flow.heard = tick;
            out.push(flow.source, flow.to, flow.key, bytes, windowsize)
        })
    }
}

#[cfg(test)]
mod tests {
    use tftpbench_net::{ReceiveBatch, SocketOptions};

    use super::*;
    use crate::config::{PLAIN, example};

    const FLOWS: usize = 3;

    #[test]
    fn a_flow_that_is_not_answered_is_started_again_under_another_key() {
        let cell = example(Operation::Read, FLOWS, 1, 512);
        let mute = Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let (end, progress) = (Stop::new().unwrap(), Progress::default());
        let mut asker = Asker::open(&cell, &PLAIN, 0, &end, &[mute.local_addr()], &progress).unwrap();
        let mut ticks = |tick| {
            progress.tick.store(tick, Ordering::Relaxed);
            asker.start_some().unwrap();
            progress.restarts.load(Ordering::Relaxed)
        };
        assert_eq!([0, 1, 3].map(&mut ticks), [0, 0, 0], "50 ms are 3 ticks and not yet over");
        assert_eq!(ticks(4), FLOWS as u64);
        assert_eq!([4, 5].map(&mut ticks), [FLOWS as u64; 2], "they were heard of at tick 4");

        let mut asked = ReceiveBatch::new(64, HEADER_BYTES);
        assert_eq!(asked.receive(&mute).unwrap(), 2 * FLOWS);
        let mut keys: Vec<_> = asked.iter().map(|datagram| datagram.payload.to_owned()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 2 * FLOWS);
    }
}
