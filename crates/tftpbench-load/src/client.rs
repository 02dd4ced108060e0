//! A virtual client: one transfer, from request to outcome.
//!
//! Owns the protocol machine, the peer's TID and the verification of what is read; [`sending`] is how its datagrams
//! leave, [`ending`] what is written down of it, [`crate::exchange`] what their stamps mean. Never waits, never reads a
//! clock.

mod ending;
mod sending;

use std::net::SocketAddr;

use tftpbench_net::{Received, SendBatch};
use tftpbench_proto::{
    Block, ErrorCode, Mode, Operation, Options, Outcome, Packet, ProtocolFault, Receiver, Sender,
    emit_request,
};

use crate::booting::Booting;
use crate::boots::{self, Ends};
use crate::config::{LoadConfig, Verify};
use crate::contents::{Contents, Generated};
use crate::ended::TransferOutcome;
use crate::endpoints::Via;
use crate::exchange::{Answer, Exchange};
use crate::faults::{Faults, LONGER_THAN_EXPECTED};
use crate::recorder::Recorder;
use crate::ring::Ring;
use crate::shared_socket::SharedSocket;

/// A stamp may seem to lie this far ahead of our clock by the way the two clocks are compared.
const CLOCK_SLACK_NS: u64 = 100_000;
/// `Verify::Sample` compares one block in this many.
const SAMPLE_EVERY: u64 = 16;

/// What all clients of a worker share while one of them works.
pub(crate) struct Shared<'a> {
    pub(crate) config: &'a LoadConfig,
    pub(crate) recorder: &'a mut Recorder,
    pub(crate) faults: &'a mut Faults,
    pub(crate) sockets: &'a mut [SharedSocket],
    pub(crate) ring: Option<&'a mut Ring>,
    pub(crate) batch: &'a mut SendBatch,
    pub(crate) scratch: &'a mut [u8],
    /// CLOCK_REALTIME minus the monotonic clock, to bring kernel stamps into our time base.
    pub(crate) realtime_offset_ns: i64,
}

/// Whether everything could be queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drained {
    /// Nothing is left to say.
    Complete,
    /// The shared socket, or the ring, is full: flush it and drain again.
    SocketFull,
}

pub(crate) struct Client {
    pub(crate) via: Via,
    machine: Machine,
    /// The server's TID, once it has answered (RFC 1350 section 4).
    tid: Option<SocketAddr>,
    opening: Box<[u8]>,
    contents: Contents,
    /// Bytes of the file that is read, where that is known.
    expected_bytes: Option<u64>,
    /// More bytes than these are looked at.
    bytes_max: u64,
    verify: Verify,
    /// How long its peer may be silent before a run that ends calls it so.
    silence_ns: u64,
    /// The machine whose boot it is a step of.
    pub(crate) boot: Option<Box<Booting>>,
    pub(crate) exchange: Exchange,
    number: u64,
    intended_ns: u64,
    first_response_ns: Option<u64>,
    /// When the last datagram of the server arrived that came before the decision, or brought it.
    heard_ns: u64,
    blocks: u64,
    bytes: u64,
    duplicates: u64,
    verified_bytes: u64,
    mismatch: bool,
    /// What our ending it makes of the transfer; `None` while only the peer has decided anything.
    ended_as: Option<TransferOutcome>,
    /// Where in the recorder's rows the decided transfer is, or was; it may have none there.
    row: Option<usize>,
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
use either;

impl Client {
    pub(crate) fn new(config: &LoadConfig, via: Via, number: u64, intended_ns: u64, now_ns: u64) -> Client {
        let file = match config.distinct_files {
            0 => number,
            distinct => number % distinct,
        };
        let (machine, options) = machine(config, now_ns);
        let silence_ns = config.timing.timeout_ns;
        let (operation, name) = (config.operation, config.name.replace("{n}", &file.to_string()));
        let mut opening = Vec::with_capacity(64);
        emit_request(&mut opening, operation, name.as_bytes(), Mode::Octet, &options);
        let given = &config.verify_against;
        let contents = match given.get((file % given.len().max(1) as u64) as usize) {
            Some(bytes) => Contents::Given(bytes.clone()),
            None => Contents::Generated(Generated::new(config.seed, file)),
        };
        let expected_bytes = expected_bytes(config, operation, &contents, Some(config.file_size_bytes));
        Client {
            verify: config.verify,
            expected_bytes,
            bytes_max: expected_bytes.unwrap_or(u64::MAX),
            ..Client::blank(via, (machine, opening), contents, (number, intended_ns, now_ns), silence_ns)
        }
    }

    /// The step that a machine is at.
    pub(crate) fn of_boot(config: &LoadConfig, via: Via, boot: Box<Booting>, now_ns: u64) -> Client {
        let step = boot.step();
        let contents = match &step.contents {
            Some(bytes) => Contents::Given(bytes.clone()),
            None => Contents::Generated(Generated::new(config.seed, step.file)),
        };
        let opening = step.request(boot.number);
        let (asked, _) = boots::asked(&opening);
        let habits = step.habits.clone();
        let machine = match step.operation {
            Operation::Read => Machine::Receive(Receiver::client_with(asked, habits, now_ns)),
            Operation::Write => {
                let length = step.size_bytes.unwrap_or(0);
                Machine::Send(Sender::client_with(asked, length, habits, now_ns))
            }
        };
        let silence_ns = step.habits.opening_waits_ns.first().copied().unwrap_or(0);
        let (verify, expected_bytes, bytes_max) = match step.ends {
            Ends::Whole => {
                let expected = expected_bytes(config, step.operation, &contents, step.size_bytes);
                (config.verify, expected, expected.unwrap_or(u64::MAX))
            }
            Ends::Missing => (Verify::Off, None, u64::MAX),
            Ends::Stop { .. } => (config.verify, None, 0),
        };
        let times = (boot.number, boot.due_ns, now_ns);
        Client {
            verify,
            expected_bytes,
            bytes_max,
            boot: Some(boot),
            ..Client::blank(via, (machine, opening), contents, times, silence_ns)
        }
    }

    fn blank(
        via: Via,
        (machine, opening): (Machine, Vec<u8>),
        contents: Contents,
        (number, intended_ns, now_ns): (u64, u64, u64),
        silence_ns: u64,
    ) -> Client {
        Client {
            via,
            machine,
            tid: None,
            opening: opening.into_boxed_slice(),
            contents,
            expected_bytes: None,
            bytes_max: u64::MAX,
            verify: Verify::Off,
            silence_ns,
            boot: None,
            exchange: Exchange::new(),
            number,
            intended_ns,
            first_response_ns: None,
            heard_ns: now_ns,
            blocks: 0,
            bytes: 0,
            duplicates: 0,
            verified_bytes: 0,
            mismatch: false,
            ended_as: None,
            row: None,
            armed_ns: 0,
            generation: 0,
        }
    }

    /// Handles one datagram that arrived on this client's socket.
    pub(crate) fn handle_datagram(&mut self, now_ns: u64, received: &Received<'_>, shared: &mut Shared<'_>) {
        let datagram = received.payload;
        let received_ns = self.arrival_ns(received, now_ns, shared);
        shared.recorder.datagram(received_ns, datagram.len());
        let packet = match Packet::parse(datagram) {
            Ok(packet) => packet,
            Err(malformed) => return shared.faults.record(ProtocolFault::Malformed(malformed), received),
        };
        if !self.is_from_my_server(received.peer, shared.config.server) {
            self.count_stray(received, shared);
            return self.refuse_stray(now_ns, &packet, received.peer, shared);
        }
        let is_open = either!(&self.machine, machine => machine.outcome().is_none());
        if is_open {
            // Whatever follows the first answer is later, even where both have one stamp: see `TransferRow`.
            self.heard_ns =
                self.first_response_ns.map_or(received_ns, |first_ns| received_ns.max(first_ns + 1));
        }
        self.advance(now_ns, received_ns, &packet, received, shared);
        if let Packet::Error { code, message } = packet
            && is_open
        {
            if self.is_expected_miss() {
                self.ended_as = Some(TransferOutcome::Completed);
            } else {
                shared.faults.record_error(code, message);
            }
            if datagram.last() != Some(&0) {
                shared.faults.record(ProtocolFault::UnterminatedError, received);
            }
        }
        // What answers nothing is no TID to hold on to: it may be late, for a transfer that had our port before.
        if self.tid.is_none()
            && either!(&self.machine, machine => machine.answered() || machine.outcome().is_some())
        {
            self.tid = Some(received.peer);
            self.first_response_ns = Some(received_ns);
            self.record_granted(&packet, shared.recorder);
            if self.boot.is_some() {
                self.stop_if_due();
            }
        }
    }

    pub(crate) fn handle_timeout(&mut self, now_ns: u64) {
        either!(&mut self.machine, machine => machine.handle_timeout(now_ns));
    }

    /// Ends the transfer from our side because the run is over. Where the server was silent for our own timeout it has
    /// timed out, however many retries were left. Silence begins with the last datagram that came, or with what we sent
    /// since for the first time; while our loop stood still, an answer may have come that was not read.
    pub(crate) fn interrupt(&mut self, now_ns: u64, recorder: &Recorder) {
        let agreed_ns = either!(&self.machine, machine => machine.agreed().timeout_s).map(seconds_ns);
        let since_ns = self.heard_ns.max(self.exchange.earliest_answer_ns());
        let still_ns = recorder.stood_still_ns(since_ns, now_ns);
        let silent_ns = now_ns.saturating_sub(since_ns).saturating_sub(still_ns);
        if silent_ns >= agreed_ns.unwrap_or(self.silence_ns) {
            self.ended_as = Some(TransferOutcome::TimedOut);
        }
        either!(&mut self.machine, machine => machine.abort(ErrorCode::NOT_DEFINED, "the load run is over"));
    }

    /// Ends the transfer from our side because it has taken too long.
    pub(crate) fn give_up(&mut self) {
        self.ended_as = Some(TransferOutcome::Late);
        either!(&mut self.machine, machine => machine.abort(ErrorCode::NOT_DEFINED, "the deadline has passed"));
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
        self.row.is_some()
    }

    /// A late answer to a transfer that did not complete must find this socket, not the next transfer's on its port. A
    /// machine that boots keeps its place.
    pub(crate) fn keeps_its_port(&self) -> bool {
        self.boot.is_some()
            || matches!(self.via, Via::Own(_))
                && either!(&self.machine, machine => machine.outcome()) != Some(&Outcome::Completed)
    }

    /// RFC 1350 section 4: the first answer's port becomes the server's TID; the address must be the server's own.
    fn is_from_my_server(&self, peer: SocketAddr, server: SocketAddr) -> bool {
        match self.tid {
            Some(tid) => tid == peer,
            None => peer.ip() == server.ip(),
        }
    }

    fn advance(
        &mut self,
        now_ns: u64,
        received_ns: u64,
        packet: &Packet<'_>,
        received: &Received<'_>,
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
                if let Some(block) = block
                    && self.expected_bytes.is_none_or(|expected| moved.1 <= expected)
                {
                    self.verify(&block, moved.0, received, shared);
                }
                moved
            }
        };
        if blocks > self.blocks {
            self.record_round_trip(received_ns, blocks, shared.recorder);
            shared.recorder.progress(received_ns, blocks - self.blocks, bytes - self.bytes);
            (self.blocks, self.bytes) = (blocks, bytes);
            if bytes > self.bytes_max {
                self.pass_bytes_max(received, shared);
            }
        }
        if either!(&self.machine, machine => machine.counts().faults) > faults
            && let Some(fault) = either!(&self.machine, machine => machine.latest_fault())
        {
            shared.faults.record(fault, received);
        }
    }

    /// A file that goes on behind its end may never end. ERROR 3, "allocation exceeded", tells the server why. A client
    /// that has what it wanted ends it, too.
    #[cold]
    #[inline(never)]
    fn pass_bytes_max(&mut self, received: &Received<'_>, shared: &mut Shared<'_>) {
        if self.expected_bytes.is_none() {
            return self.stop_if_due();
        }
        self.mismatch = true;
        self.ended_as = Some(TransferOutcome::Failed);
        shared.faults.record(LONGER_THAN_EXPECTED, received);
        let message = "the file is longer than expected";
        either!(&mut self.machine, machine => machine.abort(ErrorCode::DISK_FULL, message));
    }

    /// Whether the ERROR that has come is the one that this step should end with: the first answer.
    fn is_expected_miss(&self) -> bool {
        let is_first = self.tid.is_none();
        is_first && self.boot.as_ref().is_some_and(|boot| boot.step().ends == Ends::Missing)
    }

    /// Ends a transfer that the client stops, once it has what it wanted.
    #[cold]
    fn stop_if_due(&mut self) {
        let Some(Ends::Stop { after, code, acks, .. }) = self.boot.as_ref().map(|boot| &boot.step().ends)
        else {
            return;
        };
        if self.blocks < *after || either!(&self.machine, machine => machine.outcome().is_some()) {
            return;
        }
        let (code, acks) = (ErrorCode(*code), *acks);
        self.ended_as = Some(TransferOutcome::Completed);
        // The words are the step's: see `emit`.
        match &mut self.machine {
            Machine::Receive(receiver) if acks => receiver.close(code, ""),
            machine => either!(machine, machine => machine.abort(code, "")),
        }
    }

    /// RFC 1350 section 4 draws a request that comes twice and is answered by two TIDs: where we sent ours again, a
    /// second TID of the server is our own doing.
    fn count_stray(&self, received: &Received<'_>, shared: &mut Shared<'_>) {
        shared.faults.strays += 1;
        let is_my_servers = received.peer.ip() == shared.config.server.ip();
        if !(is_my_servers && self.exchange.request_was_repeated()) {
            shared.faults.record(ProtocolFault::StrayTid, received);
        }
    }

    fn record_round_trip(&mut self, received_ns: u64, blocks: u64, recorder: &mut Recorder) {
        let acknowledges = matches!(self.machine, Machine::Send(_));
        match self.exchange.answer(received_ns, blocks, acknowledges) {
            Answer::Took(rtt_ns) => recorder.block_rtt(received_ns, rtt_ns),
            Answer::Ambiguous => recorder.totals(received_ns).rtt_left_out += 1,
            Answer::Later => {}
        }
    }

    /// When the datagram arrived: by the kernel's stamp where there is one; its distance to now is our own lag.
    fn arrival_ns(&self, received: &Received<'_>, now_ns: u64, shared: &mut Shared<'_>) -> u64 {
        let Some(stamp_ns) = received.stamp_realtime_ns else { return now_ns };
        let stamp_ns = stamp_ns.saturating_add_signed(shared.realtime_offset_ns.saturating_neg());
        let Some(arrived_ns) = believable(stamp_ns, self.exchange.earliest_answer_ns(), now_ns) else {
            return now_ns;
        };
        shared.recorder.lag(now_ns, now_ns - arrived_ns);
        arrived_ns
    }

    fn verify(&mut self, block: &Block<'_>, index: u64, received: &Received<'_>, shared: &mut Shared<'_>) {
        let wanted = match self.verify {
            Verify::Full => true,
            Verify::Sample => block.last || index % SAMPLE_EVERY == 1,
            Verify::Off => false,
        };
        if !wanted {
            return;
        }
        if let Some(index) = self.contents.first_difference(block.offset, block.payload) {
            self.mismatch = true;
            shared.faults.record_wrong_contents(received, block.offset + index as u64);
        }
        self.verified_bytes += block.payload.len() as u64;
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

/// How many bytes a read must bring, where the caller or the file to compare with says so.
fn expected_bytes(
    config: &LoadConfig,
    operation: Operation,
    contents: &Contents,
    size_bytes: Option<u64>,
) -> Option<u64> {
    let is_known = config.size_is_known || config.verify != Verify::Off;
    match (operation, contents) {
        (Operation::Write, _) => None,
        (Operation::Read, Contents::Given(bytes)) => Some(bytes.len() as u64),
        (Operation::Read, Contents::Generated(_)) => size_bytes.filter(|_| is_known),
    }
}

fn seconds_ns(seconds: u8) -> u64 {
    u64::from(seconds) * 1_000_000_000
}

/// A stamp that lies in the future, or before what it answers was sent, tells that the real-time clock was set
/// meanwhile.
fn believable(stamp_ns: u64, earliest_ns: u64, now_ns: u64) -> Option<u64> {
    (earliest_ns..=now_ns + CLOCK_SLACK_NS).contains(&stamp_ns).then_some(stamp_ns.min(now_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_of_a_clock_that_was_set_is_not_believed() {
        let (sent_ns, now_ns) = (5_000_000, 6_000_000);
        assert_eq!(believable(5_500_000, sent_ns, now_ns), Some(5_500_000));
        assert_eq!(believable(now_ns + 50, sent_ns, now_ns), Some(now_ns), "reading two clocks takes time");
        assert_eq!(believable(4_999_999, sent_ns, now_ns), None, "set back");
        assert_eq!(believable(1_000_000_000, sent_ns, now_ns), None, "set forward");
    }
}
