//! How a client's datagrams leave: through a socket of its own, one by one or a window at once, or queued on a shared
//! one, or on a ring.
//!
//! Reads the clock for one purpose: the stamp just before a send call. Never waits.

use std::io;
use std::net::SocketAddr;

use tftpbench_net::{Sent, clock};
use tftpbench_proto::{ErrorCode, HEADER_LEN, Packet, Transmit, emit_ack, emit_data_header, emit_error};

use super::{Client, Drained, Machine, Shared, either};
use crate::boots::Ends;
use crate::ended::TransferOutcome;
use crate::endpoints::Via;
use crate::recorder::Recorder;

/// Room for any ERROR of ours.
const ERROR_BYTES_MAX: usize = 64;

impl Client {
    /// Sends or queues what the machine has to say. Called after every input, and once to start.
    pub(crate) fn drain(&mut self, now_ns: u64, shared: &mut Shared<'_>) -> io::Result<Drained> {
        loop {
            let room = self.datagram_bytes_max();
            let has_room = match &self.via {
                Via::Shared { index, .. } => shared.sockets[*index].batch.has_room(room),
                Via::Ring { .. } => shared.ring.as_ref().is_some_and(|ring| ring.sender.has_room()),
                Via::Own(_) => true,
            };
            if !has_room {
                return Ok(Drained::SocketFull);
            }
            let Some(transmit) = either!(&mut self.machine, machine => machine.poll_transmit(now_ns)) else {
                break;
            };
            match self.via {
                Via::Shared { .. } => self.queue(now_ns, &transmit, room, shared),
                Via::Ring { .. } => self.queue_frame(now_ns, &transmit, room, shared),
                Via::Own(_) if self.windowsize() == 1 => self.send_one(now_ns, &transmit, shared)?,
                Via::Own(_) => self.send_batched(now_ns, &transmit, room, shared)?,
            }
        }
        if !shared.batch.is_empty() {
            self.flush_own(shared)?;
        }
        Ok(Drained::Complete)
    }

    /// RFC 1350 section 4: ERROR 5 to a stray TID, without disturbing the transfer; an ERROR is never answered.
    pub(crate) fn refuse_stray(
        &self,
        now_ns: u64,
        packet: &Packet<'_>,
        peer: SocketAddr,
        shared: &mut Shared<'_>,
    ) {
        if matches!(packet, Packet::Error { .. }) {
            return;
        }
        let length = emit_error(shared.scratch, ErrorCode::UNKNOWN_TID, "unknown transfer ID");
        let refusal = &shared.scratch[..length];
        // Losing this courtesy changes nothing for us.
        let sent = match &self.via {
            Via::Own(socket) => {
                let sent = socket.send_to(refusal, peer);
                shared.recorder.datagrams_sent += u64::from(matches!(sent, Ok(Sent::Done)));
                sent.is_ok()
            }
            Via::Shared { index, source, .. } => {
                shared.sockets[*index].batch.push_from(Some(*source), peer, length, |buf| {
                    buf.copy_from_slice(refusal);
                    length
                })
            }
            Via::Ring { source, .. } => shared.ring.as_mut().is_some_and(|ring| {
                ring.sender.push(*source, peer, length, |buf| {
                    buf.copy_from_slice(refusal);
                    length
                })
            }),
        };
        if sent {
            shared.recorder.datagram(now_ns, length);
        }
    }

    fn windowsize(&self) -> u16 {
        either!(&self.machine, machine => machine.agreed().windowsize)
    }

    fn datagram_bytes_max(&self) -> usize {
        let data = HEADER_LEN + usize::from(either!(&self.machine, machine => machine.agreed().blksize));
        data.max(self.opening.len()).max(ERROR_BYTES_MAX)
    }

    /// Queues on the shared socket; the stamp is taken when the shared socket is flushed.
    fn queue(&mut self, now_ns: u64, transmit: &Transmit, room: usize, shared: &mut Shared<'_>) {
        let Via::Shared { index, key, source } = self.via else { return };
        let peer = self.tid.unwrap_or(shared.config.server);
        let mut length = 0;
        let shared_socket = &mut shared.sockets[index];
        shared_socket.batch.push_from(Some(source), peer, room, |buf| {
            length = self.emit(transmit, buf);
            length
        });
        shared_socket.note_queued(key);
        self.note(now_ns, transmit, length, shared.recorder);
    }

    /// The same on the ring.
    fn queue_frame(&mut self, now_ns: u64, transmit: &Transmit, room: usize, shared: &mut Shared<'_>) {
        let (Via::Ring { key, source }, Some(ring)) = (&self.via, &mut shared.ring) else { return };
        let peer = self.tid.unwrap_or(shared.config.server);
        let mut length = 0;
        ring.sender.push(*source, peer, room, |buf| {
            length = self.emit(transmit, buf);
            length
        });
        ring.queued.push(*key);
        self.note(now_ns, transmit, length, shared.recorder);
    }

    fn send_one(&mut self, now_ns: u64, transmit: &Transmit, shared: &mut Shared<'_>) -> io::Result<()> {
        let length = self.emit(transmit, shared.scratch);
        self.note(now_ns, transmit, length, shared.recorder);
        self.exchange.flush(clock::monotonic_ns());
        let Via::Own(socket) = &self.via else { return Ok(()) };
        let peer = self.tid.unwrap_or(shared.config.server);
        let sent = socket.send_to(&shared.scratch[..length], peer)?;
        shared.recorder.unsent += u64::from(sent != Sent::Done);
        shared.recorder.datagrams_sent += u64::from(sent == Sent::Done);
        Ok(())
    }

    /// A window's datagrams go out with one call; their stamp is taken just before it.
    fn send_batched(
        &mut self,
        now_ns: u64,
        transmit: &Transmit,
        room: usize,
        shared: &mut Shared<'_>,
    ) -> io::Result<()> {
        if !shared.batch.has_room(room) {
            self.flush_own(shared)?;
        }
        let peer = self.tid.unwrap_or(shared.config.server);
        let mut length = 0;
        shared.batch.push(peer, room, |buf| {
            length = self.emit(transmit, buf);
            length
        });
        self.note(now_ns, transmit, length, shared.recorder);
        Ok(())
    }

    fn flush_own(&mut self, shared: &mut Shared<'_>) -> io::Result<()> {
        let now_ns = clock::monotonic_ns();
        shared.recorder.looked(now_ns); // a window may be thousands of these
        self.exchange.flush(now_ns);
        let Via::Own(socket) = &self.via else { return Ok(()) };
        shared.recorder.flushed(shared.batch.flush(socket)?);
        Ok(())
    }

    /// Writes down a datagram that is about to be sent.
    fn note(&mut self, now_ns: u64, transmit: &Transmit, length: usize, recorder: &mut Recorder) {
        let windowsize = self.windowsize();
        if self.exchange.queue(transmit, self.blocks, windowsize) {
            recorder.retransmission(now_ns);
        }
        recorder.datagram(now_ns, length);
    }

    /// What our ERROR says: where a client stops a transfer, its own words.
    #[cold]
    fn error_text<'a>(&'a self, message: &'a str) -> &'a str {
        match self.boot.as_ref().map(|boot| &boot.step().ends) {
            Some(Ends::Stop { text, .. }) if self.ended_as == Some(TransferOutcome::Completed) => text,
            _ => message,
        }
    }

    fn emit(&self, transmit: &Transmit, buf: &mut [u8]) -> usize {
        match *transmit {
            Transmit::Opening => {
                buf[..self.opening.len()].copy_from_slice(&self.opening);
                self.opening.len()
            }
            Transmit::Data { block, offset, len, .. } => {
                emit_data_header(buf, block);
                self.contents.fill(offset, &mut buf[HEADER_LEN..HEADER_LEN + len]);
                HEADER_LEN + len
            }
            Transmit::Ack { block, .. } => emit_ack(buf, block),
            Transmit::Error { code, message } => emit_error(buf, code, self.error_text(message)),
        }
    }
}
