//! One transfer: a protocol machine and the file behind it. Datagrams and the time go in, whole datagrams come out.
//! It must never touch a socket or wait. A server drives it from one thread: after each change it drains
//! `poll_transmit`, and only then asks `is_finished` and `deadline_ns`. Dropping it counts it and frees its place.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tftpbench_net::{Payload, SendBatch};
use tftpbench_proto::netascii::Decoder;
use tftpbench_proto::{
    Agreed, Block, Counts, ErrorCode, HEADER_LEN, Limits, Mode, Options, Outcome, Packet, Receiver, Repeated,
    Sender, Transmit, emit_ack, emit_error, emit_oack,
};

use crate::context::{Context, Counter, Direction};
use crate::refusal::{REPLY_BYTES_MAX, Refusal};
use crate::registry::{Place, Since};
use crate::store::block_encoder::BlockEncoder;
use crate::store::{Source, Upload};

/// What was agreed with a client about a file.
pub(crate) enum Job {
    Read { source: Source, granted: Options, agreed: Agreed },
    Write { upload: Upload, mode: Mode, granted: Options, agreed: Agreed },
}

/// One file on its way.
pub struct Transfer {
    role: Role,
    /// The OACK, or the ACK 0 that accepts an upload without options.
    opening: Box<[u8]>,
    place: Place,
    slice_datagrams: usize,
    may_dally: bool,
    interrupted: bool,
    context: Arc<Context>,
}

enum Role {
    Send { machine: Sender, encoder: BlockEncoder },
    Receive { machine: Receiver, inbox: Inbox },
}

impl Transfer {
    pub(crate) fn start(now_ns: u64, context: Arc<Context>, place: Place, job: Job) -> Transfer {
        context.count(Counter::Started, 1);
        let timing = context.config.timing;
        let (granted, role) = match job {
            Job::Read { source, granted, agreed } => {
                let oack = !granted.is_empty();
                let machine = match source.length() {
                    Some(length) => Sender::server(agreed, oack, length, timing, now_ns),
                    None => Sender::server_of_unknown_length(agreed, oack, timing, now_ns),
                };
                let encoder = BlockEncoder::new(source, *machine.agreed());
                (granted, Role::Send { machine, encoder })
            }
            Job::Write { upload, mode, granted, agreed } => {
                let machine = Receiver::server(agreed, timing, now_ns);
                (granted, Role::Receive { machine, inbox: Inbox::new(upload, mode, &agreed) })
            }
        };
        let opening = opening(&granted);
        let slice_datagrams = slice_datagrams(Agreed::from(&granted).blksize);
        Transfer { role, opening, place, slice_datagrams, may_dally: true, interrupted: false, context }
    }

    /// The address and port that this transfer talks to, and no other.
    pub fn peer(&self) -> SocketAddr {
        self.place.peer()
    }

    /// The transfer has a socket of its own with this address: `Admission::Repeated` names it.
    pub fn set_socket(&self, address: SocketAddr) {
        self.place.set_socket(address);
    }

    /// Takes a datagram of the peer.
    pub fn handle_datagram(&mut self, now_ns: u64, datagram: &[u8]) {
        self.context.record(now_ns, Direction::In, self.place.peer(), datagram);
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            // Not worth ending a transfer for: its sender may not be the peer.
            Err(malformed) => return self.context.count_malformed(malformed),
        };
        match &mut self.role {
            Role::Send { machine, .. } => machine.handle_packet(now_ns, &packet),
            Role::Receive { machine, inbox } => {
                if let Some(block) = machine.handle_packet(now_ns, &packet)
                    && let Err(refusal) = inbox.store(&block)
                {
                    machine.abort(refusal.code, refusal.message);
                }
            }
        }
        self.settle();
    }

    /// The deadline has come; harmless before.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        match &mut self.role {
            Role::Send { machine, .. } => machine.handle_timeout(now_ns),
            Role::Receive { machine, .. } => machine.handle_timeout(now_ns),
        }
        self.settle();
    }

    /// Judges a copy of this transfer's request, if one came. A copy of the peer's request before this one counts, too:
    /// a transfer that moves ignores either. Drain after `Answered`; after `Restart` only `restart` may follow. Without
    /// a copy the cost is one comparison, so a server may call this at each wake-up.
    pub fn take_repeated_request(&mut self, now_ns: u64) -> Repeated {
        let since = self.place.since();
        // Behind its end the copy is a request like any other, for the caller that ends the transfer: `is_asked_again`.
        if matches!(since, Since::Nothing | Since::Other) || self.place.decided() {
            return Repeated::Ignored;
        }
        // What counts is how long the client had been silent when the copy came, however late it is looked at.
        let came_ns = self.place.since_ns().min(now_ns);
        let is_silent = self.is_silent(came_ns);
        let judged = match &mut self.role {
            _ if since == Since::CopyOfBefore && is_silent => Repeated::Restart,
            _ if since == Since::CopyOfBefore => Repeated::Ignored,
            Role::Send { machine, .. } => machine.handle_repeated_request(came_ns),
            Role::Receive { machine, .. } => machine.handle_repeated_request(came_ns),
        };
        if judged != Repeated::Restart {
            self.place.forget_copy();
        }
        judged
    }

    /// Whether a copy came that has not been judged.
    pub fn is_asked_again(&self) -> bool {
        matches!(self.place.since(), Since::Copy | Since::CopyOfBefore)
    }

    /// Ends this transfer without a word; the place of the next one, for the copy of its request that came.
    pub(crate) fn into_renewed_place(mut self) -> Option<Place> {
        // Dropped here, it gives back what an unfinished upload has reserved.
        self.place.renew()
    }

    /// The next datagram or run of them: written into `room`, which must hold `room_bytes`, or lying elsewhere.
    pub fn poll_transmit(&mut self, now_ns: u64, room: &mut [u8]) -> Option<Payload> {
        let emitted = loop {
            let transmit = match &mut self.role {
                Role::Send { machine, encoder } => machine.poll_transmit(now_ns).or_else(|| {
                    encoder.trim();
                    None
                }),
                Role::Receive { machine, .. } => machine.poll_transmit(now_ns),
            }?;
            match self.emit(now_ns, transmit, room) {
                Ok(emitted) => break emitted,
                // The machine now has an ERROR for us in place of that block.
                Err(refusal) => self.abort(refusal.code, refusal.message),
            }
        };
        // An upload completes by its last ACK's leaving.
        self.settle();
        match &emitted {
            Payload::Written(length) => self.record_sent(now_ns, &room[..*length]),
            Payload::Run { of, first, count } if self.context.config.log_packets => {
                of.datagrams(*first, *count).for_each(|datagram| self.record_sent(now_ns, datagram));
            }
            Payload::Run { .. } => {}
        }
        Some(emitted)
    }

    /// When `handle_timeout` is due.
    pub fn deadline_ns(&self) -> Option<u64> {
        match &self.role {
            Role::Send { machine, .. } => machine.deadline_ns(),
            Role::Receive { machine, .. } => machine.deadline_ns(),
        }
    }

    /// Nothing is left to do; it can be dropped.
    pub fn is_finished(&self) -> bool {
        let machine = match &self.role {
            Role::Send { machine, .. } => machine.is_finished(),
            Role::Receive { machine, .. } => machine.is_finished(),
        };
        machine || (!self.may_dally && self.place.decided())
    }

    /// `is_finished`, or of no use any more: the peer asked for something else, or while this one only dallies it asked
    /// once more or the server stops. Costlier to ask than `is_finished`; once a wake-up is often enough.
    pub fn is_over(&self) -> bool {
        self.is_finished()
            || self.place.since() == Since::Other
            || (self.place.decided() && (self.context.draining() || self.is_asked_again()))
    }

    /// The server stops now: drain the ERROR that tells the peer.
    pub fn interrupt(&mut self) {
        if self.outcome().is_none() {
            self.interrupted = true;
            self.abort(Refusal::STOPPING.code, Refusal::STOPPING.message);
        }
    }

    /// Room that `poll_transmit` needs. DATA lie elsewhere.
    pub fn room_bytes(&self) -> usize {
        self.opening.len().max(REPLY_BYTES_MAX)
    }

    /// Room that a datagram of the peer needs, so that one byte too many is still seen.
    pub fn receive_bytes_max(&self) -> usize {
        match &self.role {
            Role::Send { .. } => RECEIVE_BYTES_MIN,
            Role::Receive { machine, .. } => receive_bytes_max(machine.agreed().blksize),
        }
    }

    /// Blocks that may go out at one time.
    pub fn windowsize(&self) -> u16 {
        self.agreed().windowsize
    }

    /// Datagrams that may leave in one go before others have their turn: a window as it is granted by default, and one
    /// more, so that the end of such a window is seen in the same go.
    pub fn slice_datagrams(&self) -> usize {
        self.slice_datagrams
    }

    /// The peer may send several blocks at one time.
    pub fn awaits_windows(&self) -> bool {
        matches!(self.role, Role::Receive { .. }) && self.windowsize() > 1
    }

    fn agreed(&self) -> &Agreed {
        match &self.role {
            Role::Send { machine, .. } => machine.agreed(),
            Role::Receive { machine, .. } => machine.agreed(),
        }
    }

    fn is_silent(&self, now_ns: u64) -> bool {
        match &self.role {
            Role::Send { machine, .. } => machine.is_silent(now_ns),
            Role::Receive { machine, .. } => machine.is_silent(now_ns),
        }
    }

    fn outcome(&self) -> Option<&Outcome> {
        match &self.role {
            Role::Send { machine, .. } => machine.outcome(),
            Role::Receive { machine, .. } => machine.outcome(),
        }
    }

    fn counts(&self) -> &Counts {
        match &self.role {
            Role::Send { machine, .. } => machine.counts(),
            Role::Receive { machine, .. } => machine.counts(),
        }
    }

    fn abort(&mut self, code: ErrorCode, message: &'static str) {
        match &mut self.role {
            Role::Send { machine, .. } => machine.abort(code, message),
            Role::Receive { machine, inbox } => {
                inbox.upload = None;
                machine.abort(code, message);
            }
        }
        self.settle();
    }

    /// Gives the place to others as soon as the outcome is known, and the unfinished file back.
    fn settle(&mut self) {
        if self.outcome().is_some() && !self.place.decided() {
            self.may_dally = self.place.decide();
            if let Role::Receive { inbox, .. } = &mut self.role {
                inbox.upload = None;
            }
        }
    }

    fn emit(&mut self, now_ns: u64, transmit: Transmit, room: &mut [u8]) -> Result<Payload, Refusal> {
        let written = match transmit {
            Transmit::Opening => {
                room[..self.opening.len()].copy_from_slice(&self.opening);
                self.opening.len()
            }
            Transmit::Data { offset, .. } => return self.emit_data(now_ns, offset),
            Transmit::Ack { block, .. } => emit_ack(room, block),
            Transmit::Error { code, message } => emit_error(room, code, message),
        };
        Ok(Payload::Written(written))
    }

    /// The block at `offset`, and what of its window goes with it.
    fn emit_data(&mut self, now_ns: u64, offset: u64) -> Result<Payload, Refusal> {
        let Role::Send { machine, encoder } = &mut self.role else { return Ok(Payload::NONE) };
        let (run, first) = encoder.at(offset)?;
        let run = Arc::clone(run);
        if machine.awaits_length()
            && let Some(length) = encoder.length()
        {
            machine.set_length(length);
        }
        let max_segments = SendBatch::max_segments(HEADER_LEN + usize::from(machine.agreed().blksize));
        let further = max_segments.min(run.count() - first) - 1;
        let count = 1 + machine.poll_run(now_ns, further as u64) as usize;
        let emitted = Payload::Run { of: run, first, count };
        encoder.release(first + count);
        Ok(emitted)
    }

    fn record_sent(&self, now_ns: u64, datagram: &[u8]) {
        self.context.record(now_ns, Direction::Out, self.place.peer(), datagram);
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let counter = match self.outcome() {
            _ if self.interrupted => Counter::Interrupted,
            None => Counter::Interrupted,
            Some(Outcome::Completed) => Counter::Completed,
            Some(Outcome::Failed(_)) => Counter::Failed,
            Some(Outcome::TimedOut) => Counter::TimedOut,
        };
        let counts = *self.counts();
        self.context.count(counter, 1);
        self.context.count(Counter::Retransmissions, counts.retransmissions);
        self.context.count(Counter::Timeouts, counts.timeouts);
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transfer").field("peer", &self.peer()).finish_non_exhaustive()
    }
}

/// Room for a datagram that carries blocks of `blksize`, so that one byte too many is still seen.
pub fn receive_bytes_max(blksize: u16) -> usize {
    (HEADER_LEN + usize::from(blksize) + 1).max(RECEIVE_BYTES_MIN)
}

fn slice_datagrams(blksize: u16) -> usize {
    let limits = Limits::default();
    let blocks = limits.window_bytes / u32::from(blksize.max(1));
    blocks.clamp(1, u32::from(limits.windowsize)) as usize + 1
}

/// Room for an ACK, or an ERROR with a long text.
const RECEIVE_BYTES_MIN: usize = 576;

fn opening(granted: &Options) -> Box<[u8]> {
    let mut datagram = Vec::new();
    if granted.is_empty() {
        datagram.resize(HEADER_LEN, 0);
        emit_ack(&mut datagram, 0);
    } else {
        emit_oack(&mut datagram, granted);
    }
    datagram.into_boxed_slice()
}

/// Where the blocks of an upload go.
struct Inbox {
    /// Gone as soon as the upload is whole, or lost.
    upload: Option<Upload>,
    /// netascii only: its state between blocks, and a buffer for the decoded bytes.
    decoder: Option<(Decoder, Box<[u8]>)>,
}

impl Inbox {
    fn new(mut upload: Upload, mode: Mode, agreed: &Agreed) -> Inbox {
        upload.expect(agreed);
        // Decoding never makes more bytes than it was given, but for a CR held back from the block before.
        let decoded = || vec![0; usize::from(agreed.blksize) + 1].into_boxed_slice();
        let decoder = (mode == Mode::Netascii).then(|| (Decoder::default(), decoded()));
        Inbox { upload: Some(upload), decoder }
    }

    /// The file has its name before the last ACK is made, or the ACK is not made at all.
    fn store(&mut self, block: &Block<'_>) -> Result<(), Refusal> {
        let stored = self.append(block);
        if stored.is_err() {
            self.upload = None;
        }
        stored?;
        match self.upload.take_if(|_| block.last) {
            Some(whole) => whole.commit(),
            None => Ok(()),
        }
    }

    fn append(&mut self, block: &Block<'_>) -> Result<(), Refusal> {
        let Some(upload) = &mut self.upload else {
            return Ok(());
        };
        let Some((decoder, decoded)) = &mut self.decoder else {
            return upload.append(block.payload);
        };
        let progress = decoder.decode(block.payload, decoded);
        upload.append(&decoded[..progress.written])?;
        let held_back = block.last.then(|| decoder.finish()).flatten();
        held_back.map_or(Ok(()), |byte| upload.append(&[byte]))
    }
}
