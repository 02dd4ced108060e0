//! A virtual client: one transfer, from request to outcome.
//!
//! Owns the protocol machine, the peer's TID, the stamps of the exchange in flight and the verification of what is
//! read. It sends through a socket of its own or queues on a lane that it shares. Never waits, and reads the
//! clock only for the stamp just before a send call.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tftpbench_net::{Received, SendBatch, Sent, Socket, clock};
use tftpbench_proto::{
    Block, ErrorCode, HEADER_LEN, Mode, Operation, Options, Outcome as Decided, Packet, Receiver, Sender,
    Transmit, emit_ack, emit_data_header, emit_error, emit_request,
};

use crate::config::{LoadConfig, Verify};
use crate::contents::{Contents, Generated};
use crate::faults::Faults;
use crate::lane::Lane;
use crate::recorder::{Outcome, Recorder, TransferRow};

/// The largest TFTP datagram: header and the largest blksize (RFC 2348).
pub(crate) const DATAGRAM_MAX: usize = HEADER_LEN + tftpbench_proto::BLKSIZE_MAX as usize;
/// Room for any ERROR of ours.
const ERROR_BYTES_MAX: usize = 64;
/// `Verify::Sample` compares one block in this many.
const SAMPLE_EVERY: u64 = 16;

/// What all clients of a worker share while one of them works.
pub(crate) struct Shared<'a> {
    pub(crate) config: &'a LoadConfig,
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) faults: &'a mut Faults,
    pub(crate) lanes: &'a mut [Lane],
    pub(crate) batch: &'a mut SendBatch,
    pub(crate) scratch: &'a mut [u8],
    /// CLOCK_REALTIME minus the monotonic clock, to bring kernel stamps into our time base.
    pub(crate) realtime_offset_ns: i64,
}

/// What a client sends through.
pub(crate) enum Via {
    /// A socket of its own.
    Own(Socket),
    /// A shared one, from an address of its own.
    Lane {
        /// Which lane.
        index: usize,
        /// The client's key, for the stamp at the lane's flush.
        key: usize,
        /// Its address.
        source: Ipv4Addr,
    },
}

/// Whether everything could be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left to say.
    Wholly,
    /// The lane is full: flush it and drain again.
    LaneFull,
}

pub(crate) struct Client {
    pub(crate) via: Via,
    machine: Machine,
    /// The server's TID, once it has answered (RFC 1350 section 4).
    tid: Option<SocketAddr>,
    opening: Box<[u8]>,
    contents: Contents,
    number: u64,
    intended_ns: u64,
    started_ns: u64,
    first_response_ns: Option<u64>,
    /// When the datagram was sent whose answer will be the next round trip; `None` while none is timed.
    sent_ns: Option<u64>,
    /// A datagram of the exchange in flight was sent again, so its round trip is ambiguous (Karn).
    ambiguous: bool,
    blocks: u64,
    bytes: u64,
    verified_bytes: u64,
    mismatch: bool,
    recorded: bool,
    /// When the timer wheel holds an entry for this client; 0 for none.
    pub(crate) armed_ns: u64,
    /// Tells this client's tokens from those of an earlier one in the same place.
    pub(crate) generation: u32,
}

enum Machine {
    Send(Sender),
    Receive(Receiver),
}

/// Calls the method that both machines have.
macro_rules! either {
    ($machine:expr, $inner:ident => $call:expr) => {
        match $machine {
            Machine::Send($inner) => $call,
            Machine::Receive($inner) => $call,
        }
    };
}

impl Client {
    pub(crate) fn new(config: &LoadConfig, via: Via, number: u64, intended_ns: u64, now_ns: u64) -> Client {
        let file = match config.distinct_files {
            0 => number,
            distinct => number % distinct,
        };
        let (machine, options) = machine(config, now_ns);
        let (operation, name) = (config.operation, config.name.replace("{n}", &file.to_string()));
        let mut opening = Vec::with_capacity(64);
        emit_request(&mut opening, operation, name.as_bytes(), Mode::Octet, &options);
        let contents = match &config.verify_against {
            Some(bytes) => Contents::Given(bytes.clone()),
            None => Contents::Generated(Generated::new(config.seed, file)),
        };
        Client {
            via,
            machine,
            tid: None,
            opening: opening.into_boxed_slice(),
            contents,
            number,
            intended_ns,
            started_ns: now_ns,
            first_response_ns: None,
            sent_ns: None,
            ambiguous: false,
            blocks: 0,
            bytes: 0,
            verified_bytes: 0,
            mismatch: false,
            recorded: false,
            armed_ns: 0,
            generation: 0,
        }
    }

    /// Sends or queues what the machine has to say. Called after every input, and once to start.
    pub(crate) fn drain(&mut self, now_ns: u64, shared: &mut Shared<'_>) -> io::Result<Drained> {
        loop {
            let room = self.datagram_bytes_max();
            if matches!(&self.via, Via::Lane { index, .. } if !shared.lanes[*index].batch.has_room(room)) {
                return Ok(Drained::LaneFull);
            }
            let Some(transmit) = either!(&mut self.machine, machine => machine.poll_transmit(now_ns)) else {
                break;
            };
            match self.via {
                Via::Lane { .. } => self.queue(&transmit, room, shared),
                Via::Own(_) if self.windowsize() == 1 => self.send_one(&transmit, shared)?,
                Via::Own(_) => self.send_batched(&transmit, room, shared)?,
            }
        }
        if !shared.batch.is_empty() {
            self.flush_own(shared)?;
        }
        Ok(Drained::Wholly)
    }

    /// The lane is about to send what this client has queued.
    pub(crate) fn stamp_queued(&mut self, now_ns: u64) {
        if self.sent_ns.is_some() {
            self.sent_ns = Some(now_ns);
        }
    }

    /// Handles one datagram that arrived on this client's socket.
    pub(crate) fn handle_datagram(&mut self, now_ns: u64, received: &Received<'_>, shared: &mut Shared<'_>) {
        let datagram = received.payload;
        shared.recorder.datagram(datagram.len());
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(malformed) => return shared.faults.record(malformed.kind(), datagram),
        };
        if !self.is_from_my_server(received.peer, shared.config.server) {
            shared.faults.record("stray_tid", datagram);
            return self.refuse_stray(&packet, received.peer, shared);
        }
        self.tid = Some(received.peer);
        let received_ns = arrival_ns(received, now_ns, shared);
        self.first_response_ns.get_or_insert(received_ns);
        self.advance(now_ns, received_ns, &packet, datagram, shared);
    }

    pub(crate) fn handle_timeout(&mut self, now_ns: u64) {
        either!(&mut self.machine, machine => machine.handle_timeout(now_ns));
    }

    /// Ends the transfer from our side because the run is over.
    pub(crate) fn interrupt(&mut self) {
        either!(&mut self.machine, machine => machine.abort(ErrorCode::NOT_DEFINED, "the load run is over"));
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        either!(&self.machine, machine => machine.deadline_ns())
    }

    /// Nothing more will happen; the socket can go.
    pub(crate) fn is_finished(&self) -> bool {
        either!(&self.machine, machine => machine.is_finished())
    }

    /// The transfer is decided and its row has been written.
    pub(crate) fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Writes the row of a transfer that has just been decided; true exactly once.
    pub(crate) fn record_outcome(
        &mut self,
        now_ns: u64,
        config: &LoadConfig,
        recorder: &mut Recorder,
    ) -> bool {
        let (outcome, error_code) = match either!(&self.machine, machine => machine.outcome()) {
            Some(decided) if !self.recorded => classify(decided),
            _ => return false,
        };
        self.recorded = true;
        if outcome == Outcome::Completed {
            recorder.totals().completed += 1;
            self.verify_size(config);
        }
        recorder.bytes_verified += self.verified_bytes;
        recorder.content_mismatches += u64::from(self.mismatch);
        if let Via::Own(socket) = &self.via {
            recorder.receive_drops += socket.drops();
        }
        let counts = either!(&self.machine, machine => *machine.counts());
        recorder.duplicates += counts.duplicates;
        let since_start = |at_ns: u64| at_ns as i64 - recorder.start_ns as i64;
        recorder.transfers.push(TransferRow {
            number: self.number,
            intended_start_ns: since_start(self.intended_ns),
            actual_start_ns: since_start(self.started_ns),
            first_response_ns: self.first_response_ns.map_or(-1, since_start),
            end_ns: since_start(now_ns),
            bytes: self.bytes,
            retransmissions: counts.retransmissions,
            outcome,
            error_code,
        });
        true
    }

    /// RFC 1350 section 4: the first answer's port becomes the server's TID; the address must be the server's own.
    fn is_from_my_server(&self, peer: SocketAddr, server: SocketAddr) -> bool {
        match self.tid {
            Some(tid) => tid == peer,
            None => peer.ip() == server.ip(),
        }
    }

    /// RFC 1350 section 4: ERROR 5 to a stray TID, without disturbing the transfer; an ERROR is never answered.
    fn refuse_stray(&self, packet: &Packet<'_>, peer: SocketAddr, shared: &mut Shared<'_>) {
        if matches!(packet, Packet::Error { .. }) {
            return;
        }
        let length = emit_error(shared.scratch, ErrorCode::UNKNOWN_TID, "unknown transfer ID");
        let refusal = &shared.scratch[..length];
        // Losing this courtesy changes nothing for us.
        let sent = match &self.via {
            Via::Own(socket) => socket.send_to(refusal, peer).is_ok(),
            Via::Lane { index, source, .. } => {
                shared.lanes[*index].batch.push_from(Some(*source), peer, length, |buf| {
                    buf.copy_from_slice(refusal);
                    length
                })
            }
        };
        if sent {
            shared.recorder.datagram(length);
        }
    }

    fn advance(
        &mut self,
        now_ns: u64,
        received_ns: u64,
        packet: &Packet<'_>,
        datagram: &[u8],
        shared: &mut Shared<'_>,
    ) {
        let faults = either!(&self.machine, machine => machine.counts().faults);
        let (blocks, bytes) = match &mut self.machine {
            Machine::Send(sender) => {
                sender.handle_packet(now_ns, packet);
                (sender.acked_blocks(), sender.acked_bytes())
            }
            Machine::Receive(receiver) => {
                let block = receiver.handle_packet(now_ns, packet);
                let moved = (receiver.received_blocks(), receiver.received_bytes());
                if let Some(block) = block {
                    self.verify(&block, moved.0, datagram, shared);
                }
                moved
            }
        };
        if blocks > self.blocks {
            self.record_round_trip(now_ns, received_ns, shared.recorder);
            shared.recorder.progress(blocks - self.blocks, bytes - self.bytes);
            (self.blocks, self.bytes) = (blocks, bytes);
        }
        if either!(&self.machine, machine => machine.counts().faults) > faults {
            shared.faults.record("out_of_place", datagram);
        }
    }

    fn record_round_trip(&mut self, now_ns: u64, received_ns: u64, recorder: &mut Recorder) {
        if std::mem::take(&mut self.ambiguous) {
            recorder.totals().rtt_left_out += 1;
        } else if let Some(sent_ns) = self.sent_ns {
            recorder.block_rtt(now_ns, received_ns.saturating_sub(sent_ns));
        }
        self.sent_ns = None;
    }

    fn verify(&mut self, block: &Block<'_>, index: u64, datagram: &[u8], shared: &mut Shared<'_>) {
        let wanted = match shared.config.verify {
            Verify::Full => true,
            Verify::Sample => block.last || index % SAMPLE_EVERY == 1,
            Verify::Off => false,
        };
        if !wanted {
            return;
        }
        if self.contents.first_difference(block.offset, block.payload).is_some() {
            self.mismatch = true;
            shared.faults.record("wrong_contents", datagram);
        }
        self.verified_bytes += block.payload.len() as u64;
    }

    /// A read that ended too early or too late has wrong contents even if every byte of it was right.
    fn verify_size(&mut self, config: &LoadConfig) {
        let expected = match &self.contents {
            Contents::Given(bytes) => bytes.len() as u64,
            Contents::Generated(_) => config.file_size_bytes,
        };
        let is_checked = config.operation == Operation::Read && config.verify != Verify::Off;
        self.mismatch |= is_checked && self.bytes != expected;
    }

    fn windowsize(&self) -> u16 {
        either!(&self.machine, machine => machine.agreed().windowsize)
    }

    fn datagram_bytes_max(&self) -> usize {
        let data = HEADER_LEN + usize::from(either!(&self.machine, machine => machine.agreed().blksize));
        data.max(self.opening.len()).max(ERROR_BYTES_MAX)
    }

    /// Queues on the lane; the stamp is taken when the lane is flushed.
    fn queue(&mut self, transmit: &Transmit, room: usize, shared: &mut Shared<'_>) {
        let Via::Lane { index, key, source } = self.via else { return };
        let peer = self.tid.unwrap_or(shared.config.server);
        let mut length = 0;
        let lane = &mut shared.lanes[index];
        lane.batch.push_from(Some(source), peer, room, |buf| {
            length = self.emit(transmit, buf);
            length
        });
        lane.queued.push(key);
        self.stamp(transmit, 0, shared.recorder);
        shared.recorder.datagram(length);
    }

    fn send_one(&mut self, transmit: &Transmit, shared: &mut Shared<'_>) -> io::Result<()> {
        let length = self.emit(transmit, shared.scratch);
        self.stamp(transmit, clock::monotonic_ns(), shared.recorder);
        let Via::Own(socket) = &self.via else { return Ok(()) };
        let peer = self.tid.unwrap_or(shared.config.server);
        match socket.send_to(&shared.scratch[..length], peer)? {
            Sent::Done => shared.recorder.datagram(length),
            Sent::WouldBlock | Sent::Refused => shared.recorder.totals().unsent += 1,
        }
        Ok(())
    }

    /// A window's datagrams go out with one call; their stamp is taken just before it.
    fn send_batched(&mut self, transmit: &Transmit, room: usize, shared: &mut Shared<'_>) -> io::Result<()> {
        if !shared.batch.has_room(room) {
            self.flush_own(shared)?;
        }
        let peer = self.tid.unwrap_or(shared.config.server);
        let mut length = 0;
        shared.batch.push(peer, room, |buf| {
            length = self.emit(transmit, buf);
            length
        });
        self.stamp(transmit, 0, shared.recorder);
        shared.recorder.datagram(length);
        Ok(())
    }

    fn flush_own(&mut self, shared: &mut Shared<'_>) -> io::Result<()> {
        self.stamp_queued(clock::monotonic_ns());
        let Via::Own(socket) = &self.via else { return Ok(()) };
        let flushed = shared.batch.flush(socket)?;
        shared.recorder.totals().unsent += flushed.unsent as u64;
        Ok(())
    }

    /// Notes which send the next round trip begins with: the last fresh DATA or ACK before the answer.
    fn stamp(&mut self, transmit: &Transmit, now_ns: u64, recorder: &mut Recorder) {
        match transmit {
            Transmit::Data { again: false, .. } | Transmit::Ack { again: false, .. } => {
                self.sent_ns = Some(now_ns)
            }
            Transmit::Data { again: true, .. } | Transmit::Ack { again: true, .. } => {
                self.ambiguous = true;
                recorder.current.retransmissions += 1;
            }
            Transmit::Opening | Transmit::Error { .. } => {}
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
            Transmit::Error { code, message } => emit_error(buf, code, message),
        }
    }
}

/// The machine for the configured operation, and the options its request asks for.
fn machine(config: &LoadConfig, now_ns: u64) -> (Machine, Options) {
    match config.operation {
        Operation::Read => {
            (Machine::Receive(Receiver::client(config.options, config.timing, now_ns)), config.options)
        }
        Operation::Write => {
            // RFC 2349: in a WRQ, tsize tells the size of the file that is coming.
            let tsize = config.options.tsize.map(|_| config.file_size_bytes);
            let options = Options { tsize, ..config.options };
            (Machine::Send(Sender::client(options, config.file_size_bytes, config.timing, now_ns)), options)
        }
    }
}

/// When the datagram arrived: by the kernel's stamp where there is one; its distance to now is our own lag.
fn arrival_ns(received: &Received<'_>, now_ns: u64, shared: &mut Shared<'_>) -> u64 {
    let Some(stamp_ns) = received.stamp_realtime_ns else { return now_ns };
    let arrived_ns = (stamp_ns as i64 - shared.realtime_offset_ns) as u64;
    shared.recorder.lag(now_ns.saturating_sub(arrived_ns));
    arrived_ns.min(now_ns)
}

fn classify(decided: &Decided) -> (Outcome, i32) {
    use tftpbench_proto::Failure;
    match decided {
        Decided::Completed => (Outcome::Completed, -1),
        Decided::TimedOut => (Outcome::TimedOut, -1),
        Decided::Failed(Failure::Peer { code, .. }) => (Outcome::Failed, i32::from(code.0)),
        Decided::Failed(Failure::Protocol(_)) => (Outcome::Failed, -1),
        Decided::Failed(Failure::Local { .. }) => (Outcome::Interrupted, -1),
    }
}
