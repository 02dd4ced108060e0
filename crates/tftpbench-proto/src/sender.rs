//! The side that sends the file: an RRQ server or a WRQ client.
//!
//! Must never hold a byte of the file, allocate for a datagram, or answer an ERROR. It is driven by the loop of the
//! crate's documentation.
//!
//! # Theory of operation
//!
//! Blocks have an index from 1 to `last`; the last one is shorter than blksize, so empty where the file is a
//! multiple of it (RFC 1350 section 6). Three indices tell everything about a transfer under way:
//!
//! ```text
//!   1 ........ acked | acked+1 .... next-1 | next .... window's end      sent: the highest ever sent
//!   acknowledged       sent in this flight   to send now
//! ```
//!
//! Where the length is not known before the file has been read (netascii), `last` is out of reach until `set_length`.
//! The window's end is `acked + windowsize`, or `last`. `poll_transmit` sends `next` until it is past that. All else is
//! how the three move:
//!
//! | event                               | acked | next        | rule                                       |
//! |-------------------------------------|-------|-------------|--------------------------------------------|
//! | ACK of `sent`                       | moves | goes on     | RFC 1350 section 2                         |
//! | ACK inside the window               | moves | `acked + 1` | RFC 7440 section 4; see below              |
//! | ACK of `acked` again, lock-step     |       |             | RFC 1123 section 4.2.3.1: must not send    |
//! | ACK of `acked` again, larger window |       | `acked + 1` | RFC 7440 section 4: first block lost; once |
//! | ACK of an older block               |       |             | a late one                                 |
//! | ACK of a block not sent             |       |             | a fault                                    |
//! | time-out                            |       | `acked + 1` | RFC 1350 section 2, RFC 7440 section 4     |
//! | time-out before any ACK of DATA     |       | `sent`      | that block and no more; see below          |
//!
//! Before any DATA was acknowledged the peer may be one that never asked, so a time-out sends one block. It is the
//! newest: a receiver that has the others acknowledges the window, and one that has not reports the gap.
//!
//! Going back to `acked + 1` starts a new *flight*. An ACK surely is about this flight if it is for a block
//! that no earlier one held, or if it comes later than half the shortest round trip after its start. Any
//! other was under way before and never starts another flight: one loss costs one resend, and a receiver that
//! acknowledges every block cannot raise a storm.

use std::sync::Arc;

use crate::block::{self, HALF};
use crate::fault::OptionName;
use crate::fault::ProtocolFault;
use crate::options::OptionList;
use crate::options::{Agreed, Options, accept, accept_known};
use crate::packet::{ErrorCode, Packet};
use crate::timing::{Expiry, Habits, Rto, Timing};
use crate::transfer::{Counts, Ending, Outcome, Reopenings, Repeated, Transmit};

/// Sends one file.
#[derive(Debug)]
pub struct Sender {
    stage: Stage,
    /// The opening datagram is to be sent.
    opening_due: bool,
    answered: bool,
    agreed: Agreed,
    /// Only a client asks.
    asked: Option<Options>,
    length: u64,
    last: u64,
    acked: u64,
    next: u64,
    sent: u64,
    /// Blocks behind `acked` that may be out now: the windowsize, but for a time-out before any ACK of DATA.
    window: u64,
    /// An ACK that repeats an older block's than this is none that reports a loss.
    repeats_count_from: u64,
    /// What was sent before the flight; only this flight can have brought an ACK of a later block.
    sent_before: u64,
    /// When an ACK started the flight.
    flight_ns: u64,
    rto: Rto,
    /// Copies of the request that were answered.
    reopenings: Reopenings,
    counts: Counts,
    ending: Ending,
}

/// No file has as many bytes.
const UNKNOWN_LENGTH: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The opening datagram is out; ACK 0, or for a client an OACK, is awaited.
    Opening,
    Sending,
}

impl Sender {
    /// An RRQ server's. With `oack` it opens with the caller's OACK and awaits ACK 0; else with DATA 1.
    pub fn server(agreed: Agreed, oack: bool, length: u64, timing: Timing, now_ns: u64) -> Sender {
        let mut sender = Sender::new(agreed, None, length, Rto::server(timing, now_ns), now_ns);
        if !oack {
            sender.stage = Stage::Sending;
            sender.opening_due = false;
        }
        sender
    }

    /// An RRQ server's of a file whose end is found on the way: `set_length` with the block that may be the last one.
    /// Of that block alone `poll_transmit` gives a `len` that may be too large.
    pub fn server_of_unknown_length(agreed: Agreed, oack: bool, timing: Timing, now_ns: u64) -> Sender {
        Sender::server(agreed, oack, UNKNOWN_LENGTH, timing, now_ns)
    }

    /// A WRQ client's. Opens with the caller's WRQ and awaits ACK 0, or an OACK if it asked for options.
    pub fn client(asked: Options, length: u64, timing: Timing, now_ns: u64) -> Sender {
        Sender::new(Agreed::default(), Some(asked), length, Rto::client(timing, now_ns), now_ns)
    }

    /// The same of a client with habits of its own.
    pub fn client_with(asked: Options, length: u64, habits: Arc<Habits>, now_ns: u64) -> Sender {
        Sender::new(Agreed::default(), Some(asked), length, Rto::with_habits(habits, now_ns), now_ns)
    }

    /// Takes in a packet of the peer. Drain afterwards.
    pub fn handle_packet(&mut self, now_ns: u64, packet: &Packet<'_>) {
        if self.ending.is_decided() {
            return;
        }
        match (self.stage, packet) {
            (Stage::Sending, &Packet::Ack { block }) => self.handle_ack(now_ns, block),
            (Stage::Opening, Packet::Ack { block: 0 }) => self.start(now_ns),
            (Stage::Opening, Packet::Ack { .. }) => self.count_fault(ProtocolFault::OutOfPlace),
            (Stage::Opening, &Packet::Oack(oack)) if self.asked.is_some() => self.handle_oack(now_ns, oack),
            // RFC 2347: a repeated OACK means that DATA 1 was lost; our timer sends it again.
            (Stage::Sending, Packet::Oack(_)) if self.asked.is_some() => self.counts.duplicates += 1,
            (_, Packet::Error { code, message }) => {
                self.answered = true;
                self.ending.peer_error(*code, message);
            }
            (_, Packet::Request(_)) if self.asked.is_none() => self.counts.duplicates += 1,
            (_, Packet::Data { .. } | Packet::Oack(_) | Packet::Request(_)) => {
                self.end(ErrorCode::ILLEGAL_OPERATION, ProtocolFault::UnexpectedOpcode);
            }
        }
    }

    /// Whether the end of the file is still to be found.
    pub fn awaits_length(&self) -> bool {
        self.length == UNKNOWN_LENGTH
    }

    /// The file's end has been found: between `poll_transmit`, which gave a block up to the last one, and whatever
    /// comes next. A length that was known stays.
    pub fn set_length(&mut self, length: u64) {
        if self.awaits_length() {
            self.length = length;
            self.last = self.last_block();
        }
    }

    /// Sends again if the deadline has come; harmless before. Drain afterwards.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        if self.ending.is_decided() {
            return;
        }
        let expiry = self.rto.expire(now_ns);
        self.counts.timeouts += u64::from(expiry != Expiry::Early);
        match (expiry, self.stage) {
            (Expiry::Early, _) => {}
            (Expiry::GiveUp, _) => self.ending.outcome = Some(Outcome::TimedOut),
            // Any ACK of what was sent before is lost by now, so `flight_ns` stays.
            (Expiry::Again, Stage::Sending) if self.acked > 0 => self.go_back(),
            (Expiry::Again, _) => self.reopen(),
        }
    }

    /// Judges a copy of the request that this server's transfer began with, and that came at `now_ns`, which may be
    /// some time ago. Drain afterwards.
    pub fn handle_repeated_request(&mut self, now_ns: u64) -> Repeated {
        self.counts.duplicates += 1;
        let is_silent = self.is_silent(now_ns);
        let judged = self.reopenings.judge(self.ending.is_decided(), self.answered, is_silent);
        if judged == Repeated::Answered {
            self.reopen();
        }
        judged
    }

    /// Whether the transfer has not moved for a second, or a retransmission interval if that is shorter.
    pub fn is_silent(&self, now_ns: u64) -> bool {
        self.rto.is_silent(now_ns)
    }

    /// Ends the transfer from our side with one ERROR, unless it is decided already. Drain afterwards.
    pub fn abort(&mut self, code: ErrorCode, message: &'static str) {
        if !self.ending.is_decided() {
            self.ending.local_error(code, message);
        }
    }

    /// The next datagram to send now, `None` when there is no more.
    pub fn poll_transmit(&mut self, now_ns: u64) -> Option<Transmit> {
        if self.ending.is_decided() {
            return self.ending.take_error();
        }
        if std::mem::take(&mut self.opening_due) {
            self.rto.sent(now_ns, self.counts.retransmissions == 0);
            return Some(Transmit::Opening);
        }
        (self.stage == Stage::Sending && self.left_of_window() > 0).then(|| self.send_next(now_ns))
    }

    /// Sends up to `blocks_max` blocks more of the window, in the same go as the DATA that `poll_transmit` has just
    /// given, and tells how many: the same as asking `poll_transmit` so often, for callers that have a run of blocks at
    /// hand.
    pub fn poll_run(&mut self, now_ns: u64, blocks_max: u64) -> u64 {
        if self.ending.is_decided() || self.stage != Stage::Sending {
            return 0;
        }
        let count = self.left_of_window().min(blocks_max);
        if count > 0 {
            self.send(now_ns, count);
        }
        count
    }

    /// When `handle_timeout` is due; `None` once decided.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.rto.deadline_ns().filter(|_| !self.ending.is_decided())
    }

    /// How the transfer went, as soon as that is decided.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.ending.outcome.as_ref()
    }

    /// Decided, and nothing is left to send.
    pub fn is_finished(&self) -> bool {
        self.ending.is_settled()
    }

    /// What holds for this transfer; RFC 1350's values until a client has its answer.
    pub fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// The options of the request; `None` of a server.
    pub fn asked(&self) -> Option<&Options> {
        self.asked.as_ref()
    }

    /// What happened so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The latest fault that `counts` has.
    pub fn latest_fault(&self) -> Option<ProtocolFault> {
        self.ending.fault
    }

    /// Whether the peer has sent anything valid.
    pub fn answered(&self) -> bool {
        self.answered
    }

    /// Blocks acknowledged, in order.
    pub fn acked_blocks(&self) -> u64 {
        self.acked
    }

    /// Bytes acknowledged, in order.
    pub fn acked_bytes(&self) -> u64 {
        self.acked.saturating_mul(u64::from(self.agreed.blksize)).min(self.length)
    }

    fn new(agreed: Agreed, asked: Option<Options>, length: u64, rto: Rto, now_ns: u64) -> Sender {
        let mut sender = Sender {
            stage: Stage::Opening,
            opening_due: true,
            answered: false,
            agreed,
            asked,
            length,
            last: 0,
            acked: 0,
            next: 1,
            sent: 0,
            window: 1,
            repeats_count_from: 0,
            sent_before: 0,
            flight_ns: now_ns,
            rto,
            reopenings: Reopenings::default(),
            counts: Counts::default(),
            ending: Ending::default(),
        };
        sender.agree(agreed);
        sender
    }

    fn agree(&mut self, agreed: Agreed) {
        self.agreed = agreed.workable();
        self.last = self.last_block();
        self.window = u64::from(self.agreed.windowsize);
    }

    /// RFC 1350 section 6: one block more than the full ones. Nothing overflows: blocks are of at least 8 bytes.
    fn last_block(&self) -> u64 {
        self.length / u64::from(self.agreed.blksize) + 1
    }

    #[cold]
    #[inline(never)]
    fn handle_oack(&mut self, now_ns: u64, oack: OptionList<'_>) {
        let asked = self.asked.unwrap_or_default();
        let asks_others = self.rto.habits().is_some_and(|habits| habits.asks_others);
        let accept = if asks_others { accept_known } else { accept };
        match accept(&asked, oack) {
            Ok(granted) => {
                // RFC 2349: in a write the server echoes it. Nothing hangs on that, so the transfer goes on.
                if granted.tsize.is_some() && granted.tsize != asked.tsize {
                    self.count_fault(ProtocolFault::OptionChanged(OptionName::Tsize));
                }
                self.agree(Agreed::from(&granted));
                self.start(now_ns);
            }
            // RFC 2347: ERROR 8 ends the transfer.
            Err(fault) => self.end(ErrorCode::OPTION_REFUSED, fault),
        }
    }

    /// Ends the transfer with one ERROR, since the peer broke the protocol. Cold, as `count_fault`: it must cost a
    /// block nothing.
    #[cold]
    #[inline(never)]
    fn end(&mut self, code: ErrorCode, fault: ProtocolFault) {
        self.counts.faults += 1;
        self.ending.protocol_error(code, fault);
    }

    #[cold]
    #[inline(never)]
    fn count_fault(&mut self, fault: ProtocolFault) {
        self.counts.faults += 1;
        self.ending.fault = Some(fault);
    }

    fn start(&mut self, now_ns: u64) {
        self.hear();
        self.opening_due = false;
        self.stage = Stage::Sending;
        self.flight_ns = now_ns;
        self.rto.progressed(now_ns, true);
    }

    /// The peer has answered for the first time.
    #[cold]
    fn hear(&mut self) {
        self.answered = true;
        self.rto.answered(self.agreed.timeout_s);
    }

    /// Sends once more what the peer, as far as is known, may never have got any of.
    #[cold]
    fn reopen(&mut self) {
        if self.stage == Stage::Opening {
            self.opening_due = true;
            self.counts.retransmissions += 1;
            return;
        }
        self.next = self.sent.max(1);
        self.window = self.next;
        self.sent_before = self.sent;
        // The window that the last such ACK brought is lost, too, so the next one counts. The retries bound how often.
        self.repeats_count_from = 0;
    }

    /// The table above, top to bottom.
    fn handle_ack(&mut self, now_ns: u64, number: u16) {
        match block::ahead(self.acked, number, self.agreed.rollover) {
            Some(0) => self.handle_repeated_ack(now_ns),
            Some(step) if step <= self.sent - self.acked => self.advance(now_ns, self.acked + step),
            Some(step) if step > HALF => self.counts.duplicates += 1,
            _ => self.count_fault(ProtocolFault::OutOfPlace),
        }
    }

    fn advance(&mut self, now_ns: u64, index: u64) {
        let whole = index == self.sent;
        let about_this_flight = self.is_about_this_flight(now_ns, index);
        if self.acked == 0 {
            self.start_windows();
        }
        self.acked = index;
        self.rto.progressed(now_ns, whole);
        if index == self.last {
            self.ending.outcome = Some(Outcome::Completed);
        } else if whole || about_this_flight {
            self.go_back();
            self.flight_ns = now_ns;
        } else {
            self.next = self.next.max(index + 1);
        }
    }

    /// The first DATA is acknowledged: there is a peer, and it is receiving.
    #[cold]
    fn start_windows(&mut self) {
        self.window = u64::from(self.agreed.windowsize);
        if !self.answered {
            self.hear();
        }
    }

    fn handle_repeated_ack(&mut self, now_ns: u64) {
        self.counts.duplicates += 1;
        // With one block in flight, which lock-step always has, no later block can have reported the receiver of
        // a loss.
        let reports_loss = self.sent - self.acked > 1 && self.acked >= self.repeats_count_from;
        if reports_loss && self.is_about_this_flight(now_ns, self.acked) {
            // Of what goes out again the receiver may have most already, and may repeat the ACK of that.
            self.repeats_count_from = self.sent + 1;
            self.window = u64::from(self.agreed.windowsize);
            self.go_back();
            self.flight_ns = now_ns;
        }
    }

    fn is_about_this_flight(&mut self, now_ns: u64, index: u64) -> bool {
        let elapsed_ns = now_ns.saturating_sub(self.flight_ns);
        if index > self.sent_before {
            self.rto.lower_round_trip_min(elapsed_ns);
            return true;
        }
        elapsed_ns >= self.rto.round_trip_min_ns() / 2
    }

    /// The next flight starts behind what is acknowledged.
    fn go_back(&mut self) {
        self.next = self.acked + 1;
        self.sent_before = self.sent;
    }

    /// Blocks that may go out before the next ACK.
    fn left_of_window(&self) -> u64 {
        // Nothing overflows: blocks are of at least 8 bytes.
        let end = self.last.min(self.acked + self.window);
        (end + 1).saturating_sub(self.next)
    }

    fn send_next(&mut self, now_ns: u64) -> Transmit {
        let index = self.next;
        let again = index <= self.sent;
        self.send(now_ns, 1);
        let blksize = u64::from(self.agreed.blksize);
        let offset = (index - 1) * blksize;
        Transmit::Data {
            block: block::wire(index, self.agreed.rollover),
            offset,
            len: (self.length - offset).min(blksize) as usize,
            again,
        }
    }

    /// Notes that the next `count` blocks, at least one, leave.
    fn send(&mut self, now_ns: u64, count: u64) {
        let newest = self.next + count - 1;
        self.counts.retransmissions += (self.sent.min(newest) + 1).saturating_sub(self.next);
        self.rto.sent(now_ns, newest > self.sent);
        self.next = newest + 1;
        self.sent = self.sent.max(newest);
    }
}
