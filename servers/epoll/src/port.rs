//! A socket and what waits to be sent on it. It must never block, nor allocate once it is made.

use std::net::SocketAddr;

use tftpbench_net::{Gathered, SendBatch, Socket};
use tftpbench_serve::{Counter, Service, Transfer};

/// Messages to a sendmmsg(2): with 64 the call itself costs nothing beside them. Each is a datagram, or a window's run.
const MESSAGES: usize = 64;

/// Datagrams of one transfer in one go: a window may be of 65,535 blocks (RFC 7440), and others are waiting.
const DRAIN_DATAGRAMS: usize = 256;

/// Room for 64 datagrams of 16 KiB; larger ones are flushed sooner. It must hold the largest, and costs memory only as
/// far as it has been filled.
const ARENA_BYTES: usize = 1024 * 1024;

/// One of the server's sockets.
pub(crate) struct Port {
    pub(crate) socket: Socket,
    /// How many transfers answer from here.
    pub(crate) transfers: usize,
    batch: SendBatch,
}

impl Port {
    pub(crate) fn new(socket: Socket) -> Port {
        Port { socket, transfers: 0, batch: SendBatch::new(MESSAGES, ARENA_BYTES) }
    }

    /// Puts what a transfer has to say into the batch; false if that was too much for one turn and there is more.
    pub(crate) fn drain(&mut self, transfer: &mut Transfer, service: &Service, now_ns: u64) -> bool {
        let (peer, room) = (transfer.peer(), transfer.datagram_bytes_max());
        let mut budget = DRAIN_DATAGRAMS;
        let mut drained = false;
        while !drained && budget > 0 {
            let pushed = self.batch.push_gathered(peer, room, |datagram| {
                let next = transfer.poll_transmit(now_ns, datagram);
                drained = next.is_none();
                next.unwrap_or(Gathered::NOTHING)
            });
            match pushed {
                true => budget -= 1,
                false => self.flush(service),
            }
        }
        drained
    }

    /// Puts one datagram into the batch; `fill` returns its length, 0 for none.
    pub(crate) fn reply(
        &mut self,
        peer: SocketAddr,
        room: usize,
        service: &Service,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) {
        let mut fill = Some(fill);
        while !self.batch.push(peer, room, |datagram| fill.take().map_or(0, |fill| fill(datagram))) {
            self.flush(service);
        }
    }

    pub(crate) fn flush(&mut self, service: &Service) {
        if self.batch.is_empty() {
            return;
        }
        // What could not be sent counts as lost; the protocol sends it again.
        if let Ok(flushed) = self.batch.flush(&self.socket) {
            service.count(Counter::DatagramsOut, flushed.sent as u64);
            service.count(Counter::DatagramsUnsent, flushed.unsent as u64);
        }
    }
}
