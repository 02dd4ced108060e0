//! The answering side: stands for the server. It knows no peer before it hears from it.

use std::net::SocketAddr;

use tftpbench_net::{Socket, Stop};

use crate::config::{Arrangement, CeilingError, Cell, HEADER_BYTES, Operation};
use crate::side::{Plan, Side, flow_index};

pub(crate) struct Answerer<'a> {
    cell: &'a Cell,
    side: Side,
    /// What has arrived of each flow's window, for writes in windows.
    windows: Vec<Arrived>,
}

#[derive(Clone, Copy, Default)]
struct Arrived {
    key: u32,
    datagrams: usize,
}

impl<'a> Answerer<'a> {
    pub(crate) fn open(
        cell: &'a Cell,
        arrangement: &Arrangement,
        pair: usize,
        end: &Stop,
    ) -> Result<Answerer<'a>, CeilingError> {
        let flows = cell.flows_of(pair, arrangement.pairs);
        let plan = Plan {
            sockets: arrangement.answering_sockets.min(flows),
            are_shared: false,
            asks: false,
            ring: None,
            receives_data: cell.operation == Operation::Write,
            spin_ns: cell.answering_spin_ns,
            cpu: cell.answering_cpus.get(pair % cell.answering_cpus.len().max(1)).copied(),
            end,
        };
        let side = Side::open(cell, arrangement, &plan)?;
        Ok(Answerer { cell, side, windows: vec![Arrived::default(); flows] })
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.side.sockets().iter().map(Socket::local_addr).collect()
    }

    /// From now on each socket hears from its peer only.
    pub(crate) fn connect(&self, peers: &[SocketAddr]) -> Result<(), CeilingError> {
        self.side.connect(peers)
    }

    pub(crate) fn run(mut self) -> Result<(), CeilingError> {
        self.side.pin()?;
        while !self.side.is_over() {
            let turned = match self.cell.operation {
                Operation::Read => self.answer_with_windows(),
                Operation::Write if self.cell.windowsize == 1 => self.answer_each(),
                Operation::Write => self.answer_windows(),
            };
            turned.map_err(CeilingError::os("the answering side's socket failed"))?;
        }
        Ok(())
    }

    fn answer_with_windows(&mut self) -> std::io::Result<()> {
        let (bytes, count) = (self.cell.data_bytes(), self.cell.windowsize);
        self.side.turn(None, |out, message| out.push(None, message.peer, message.key, bytes, count))
    }

    fn answer_each(&mut self) -> std::io::Result<()> {
        self.side.turn(None, |out, message| out.push(None, message.peer, message.key, HEADER_BYTES, 1))
    }

    /// A key that is new means that the flow was started again: what came before is not part of its window.
    fn answer_windows(&mut self) -> std::io::Result<()> {
        let (windows, windowsize) = (&mut self.windows, self.cell.windowsize);
        self.side.turn(None, |out, message| {
            let Some(window) = windows.get_mut(flow_index(message.key)) else { return Ok(()) };
            if window.key != message.key {
                *window = Arrived { key: message.key, datagrams: 0 };
            }
            window.datagrams += message.datagrams;
            if window.datagrams < windowsize {
                return Ok(());
            }
            window.datagrams = 0;
            out.push(None, message.peer, message.key, HEADER_BYTES, 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use tftpbench_net::{ReceiveBatch, SendBatch, SocketOptions};

    use super::*;
    use crate::config::{PLAIN, example};

    /// The window that lost a datagram is forgotten, whatever of it arrived.
    #[test]
    fn a_flow_that_was_started_again_begins_its_window_anew() {
        let cell = example(Operation::Write, 1, 4, 8);
        let end = Stop::new().unwrap();
        let mut answerer = Answerer::open(&cell, &PLAIN, 0, &end).unwrap();
        let client = Socket::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let (mut batch, mut answers) = (SendBatch::new(8, 1_000), ReceiveBatch::new(8, HEADER_BYTES));
        let mut answered = |key: u32, datagrams| {
            for _ in 0..datagrams {
                assert!(batch.push(answerer.addresses()[0], 12, |room| {
                    room[..HEADER_BYTES].copy_from_slice(&key.to_ne_bytes());
                    12
                }));
            }
            batch.flush(&client).unwrap();
            answerer.answer_windows().unwrap();
            answers.receive(&client).unwrap()
        };
        let (first, second) = (1 << 16, 2 << 16);
        assert_eq!(
            [answered(first, 3), answered(second, 3), answered(second, 1), answered(second, 4)],
            [0, 0, 1, 1]
        );
    }
}
