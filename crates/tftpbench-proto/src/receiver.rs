//! The side that receives the file: a WRQ server or an RRQ client.
//!
//! Must never hold a byte of the file, allocate for a datagram, acknowledge a block before its caller had the
//! time to store it, or answer an ERROR. It is driven by the loop of the crate's documentation.
//!
//! # Theory of operation
//!
//! `received` is the index of the newest block that arrived in order, `acked` the one last acknowledged. Only
//! the block `received + 1` is ever taken; blocks behind a gap are dropped, since the sender goes back for
//! them anyway.
//!
//! | DATA                            | what we do                                | rule                         |
//! |---------------------------------|-------------------------------------------|------------------------------|
//! | `received + 1`                  | take it; ACK if a window or the file ends | RFC 1350 s. 2, RFC 7440 s. 4 |
//! | further ahead, inside a window  | ACK `received`, once until it moves; see [`Nack`] | RFC 7440 section 4   |
//! | `received` again, already ACKed | ACK it again: the ACK was lost            | RFC 1350 section 2           |
//! | older                           | nothing: the sender has passed it         |                              |
//! | outside the window              | nothing; it is a fault                    |                              |
//! | larger than blksize             | ERROR 4                                   | RFC 2348                     |
//! | more than the OACK's tsize      | ERROR 3                                   | RFC 2349                     |
//! | the last, less than the tsize   | ERROR 0 in place of its ACK               | RFC 2349                     |
//!
//! On a time-out the last datagram of ours goes out again: the opening one until the peer has answered, then
//! the ACK of `received`. Once the last block's ACK is out the transfer is completed; the receiver stays a
//! while to repeat that ACK ("dallying", RFC 1350 section 6).

use std::sync::Arc;

use crate::block::{self, HALF};
use crate::fault::ProtocolFault;
use crate::options::OptionList;
use crate::options::{Agreed, Options, accept, accept_known};
use crate::packet::{ErrorCode, Packet};
use crate::timing::{Expiry, Habits, Nack, Rto, Timing};
use crate::transfer::{Counts, Ending, Outcome, Reopenings, Repeated, Transmit};

/// Receives one file.
#[derive(Debug)]
pub struct Receiver {
    reply: Reply,
    answered: bool,
    /// `received` was acknowledged on account of a gap behind it.
    gap_reported: bool,
    /// The last block is here.
    complete: bool,
    /// Completed, and still there to repeat the last ACK.
    dallying: bool,
    /// The ACK that was due goes out before the ERROR.
    acks_first: bool,
    agreed: Agreed,
    /// Only a client asks.
    asked: Option<Options>,
    tsize: Option<u64>,
    received: u64,
    received_bytes: u64,
    acked: u64,
    rto: Rto,
    /// Copies of the request that were answered.
    reopenings: Reopenings,
    counts: Counts,
    ending: Ending,
}

/// The part of a file that a DATA brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Where it belongs, bytes from the file's start.
    pub offset: u64,
    /// Empty only in a last block.
    pub payload: &'a [u8],
    /// The file ends with it. Its ACK, which tells the peer that the file is safe, goes out with the next
    /// drain.
    pub last: bool,
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reply {
    #[default]
    Nothing,
    Opening,
    /// Of `received`.
    Ack {
        again: bool,
    },
}

impl Receiver {
    /// A WRQ server's. Opens with the caller's OACK or ACK 0 and awaits DATA 1.
    pub fn server(agreed: Agreed, timing: Timing, now_ns: u64) -> Receiver {
        Receiver::new(agreed, None, Rto::server(timing, now_ns))
    }

    /// An RRQ client's. Opens with the caller's RRQ and awaits an OACK, which it acknowledges with ACK 0, or
    /// DATA 1.
    pub fn client(asked: Options, timing: Timing, now_ns: u64) -> Receiver {
        Receiver::new(Agreed::default(), Some(asked), Rto::client(timing, now_ns))
    }

    /// The same of a client with habits of its own. It never dallies.
    pub fn client_with(asked: Options, habits: Arc<Habits>, now_ns: u64) -> Receiver {
        Receiver::new(Agreed::default(), Some(asked), Rto::with_habits(habits, now_ns))
    }

    /// Takes in a packet of the peer. The block, if any, is to be stored before draining; where that fails,
    /// `abort`.
    pub fn handle_packet<'a>(&mut self, now_ns: u64, packet: &Packet<'a>) -> Option<Block<'a>> {
        if self.ending.is_decided() {
            self.handle_late_packet(now_ns, packet);
            return None;
        }
        match packet {
            &Packet::Data { block, payload } => return self.handle_data(now_ns, block, payload),
            &Packet::Oack(oack) if self.asked.is_some() => self.handle_oack(now_ns, oack),
            Packet::Error { code, message } => {
                self.answered = true;
                self.ending.peer_error(*code, message);
            }
            Packet::Request(_) if self.asked.is_none() => self.counts.duplicates += 1,
            Packet::Ack { .. } | Packet::Oack(_) | Packet::Request(_) => {
                self.end(ErrorCode::ILLEGAL_OPERATION, ProtocolFault::UnexpectedOpcode);
            }
        }
        None
    }

    /// Sends again if the deadline has come, or ends the dallying; harmless before. Drain afterwards.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        if self.dallying {
            self.dallying = !self.rto.is_due(now_ns);
        }
        if self.ending.is_decided() {
            return;
        }
        let expiry = self.rto.expire(now_ns);
        self.counts.timeouts += u64::from(expiry != Expiry::Early);
        match expiry {
            Expiry::Early => {}
            Expiry::GiveUp => self.ending.outcome = Some(Outcome::TimedOut),
            Expiry::Again if self.answered => self.reply = Reply::Ack { again: self.acked == self.received },
            Expiry::Again => self.reopen(),
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

    /// Ends the transfer from our side with one ERROR in place of what was to be sent, unless it is decided
    /// already.
    pub fn abort(&mut self, code: ErrorCode, message: &'static str) {
        if !self.ending.is_decided() {
            self.ending.local_error(code, message);
        }
    }

    /// The same, but what came last is acknowledged first, where an ACK is due.
    pub fn close(&mut self, code: ErrorCode, message: &'static str) {
        self.acks_first = true;
        self.abort(code, message);
    }

    /// The next datagram to send now, `None` when there is no more.
    pub fn poll_transmit(&mut self, now_ns: u64) -> Option<Transmit> {
        if self.ending.is_decided() && !self.dallying {
            if std::mem::take(&mut self.acks_first)
                && let Reply::Ack { again } = std::mem::take(&mut self.reply)
            {
                return Some(self.send_ack(now_ns, again));
            }
            return self.ending.take_error();
        }
        match std::mem::take(&mut self.reply) {
            Reply::Nothing => None,
            Reply::Opening => {
                self.rto.sent(now_ns, self.counts.retransmissions == 0);
                Some(Transmit::Opening)
            }
            Reply::Ack { again } => Some(self.send_ack(now_ns, again)),
        }
    }

    /// When `handle_timeout` is due; `None` once there is nothing more to wait for.
    pub fn deadline_ns(&self) -> Option<u64> {
        self.rto.deadline_ns().filter(|_| self.dallying || !self.ending.is_decided())
    }

    /// How the transfer went, as soon as that is decided.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.ending.outcome.as_ref()
    }

    /// Decided, dallied, and nothing is left to send.
    pub fn is_finished(&self) -> bool {
        self.ending.is_settled() && !self.dallying
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

    /// Blocks received, in order.
    pub fn received_blocks(&self) -> u64 {
        self.received
    }

    /// Bytes received, in order.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// The file's size as the server's OACK tells it.
    pub fn tsize(&self) -> Option<u64> {
        self.tsize
    }

    fn new(agreed: Agreed, asked: Option<Options>, rto: Rto) -> Receiver {
        Receiver {
            reply: Reply::Opening,
            answered: false,
            gap_reported: false,
            complete: false,
            dallying: false,
            acks_first: false,
            agreed: agreed.workable(),
            asked,
            tsize: None,
            received: 0,
            received_bytes: 0,
            acked: 0,
            rto,
            reopenings: Reopenings::default(),
            counts: Counts::default(),
            ending: Ending::default(),
        }
    }

    /// The peer has answered for the first time.
    #[cold]
    fn hear(&mut self) {
        self.answered = true;
        self.rto.answered(self.agreed.timeout_s);
    }

    fn reopen(&mut self) {
        self.reply = Reply::Opening;
        self.counts.retransmissions += 1;
    }

    #[cold]
    #[inline(never)]
    fn handle_oack(&mut self, now_ns: u64, oack: OptionList<'_>) {
        if self.answered {
            self.counts.duplicates += 1;
            // RFC 2347: the server repeats its OACK until it has ACK 0.
            if self.received == 0 {
                self.reply = Reply::Ack { again: true };
            }
            return;
        }
        let asks_others = self.rto.habits().is_some_and(|habits| habits.asks_others);
        let accept = if asks_others { accept_known } else { accept };
        match accept(&self.asked.unwrap_or_default(), oack) {
            Ok(granted) => {
                self.tsize = granted.tsize;
                self.agreed = Agreed::from(&granted).workable();
                self.hear();
                self.rto.progressed(now_ns, true);
                self.reply = Reply::Ack { again: false };
            }
            // RFC 2347: ERROR 8 ends the transfer.
            Err(fault) => self.end(ErrorCode::OPTION_REFUSED, fault),
        }
    }

    /// The table above, top to bottom.
    fn handle_data<'a>(&mut self, now_ns: u64, number: u16, payload: &'a [u8]) -> Option<Block<'a>> {
        if payload.len() > usize::from(self.agreed.blksize) {
            self.end(ErrorCode::ILLEGAL_OPERATION, ProtocolFault::DataTooLarge);
            return None;
        }
        match block::ahead(self.received, number, self.agreed.rollover) {
            Some(1) if self.is_against_tsize(payload.len()) => self.answered = true,
            Some(1) => return Some(self.take(now_ns, payload)),
            Some(0) if self.received > 0 => self.handle_repeated_data(now_ns),
            Some(step) if (2..=u64::from(self.agreed.windowsize)).contains(&step) => self.report_gap(),
            Some(step) if step > HALF && self.received > 0 => self.counts.duplicates += 1,
            _ => self.count_fault(ProtocolFault::OutOfPlace),
        }
        None
    }

    fn take<'a>(&mut self, now_ns: u64, payload: &'a [u8]) -> Block<'a> {
        let offset = self.received_bytes;
        if !self.answered {
            self.hear();
        }
        self.gap_reported = false;
        self.received += 1;
        self.received_bytes += payload.len() as u64;
        self.complete = payload.len() < usize::from(self.agreed.blksize);
        self.rto.progressed(now_ns, true);
        let window_ends = self.received - self.acked >= u64::from(self.agreed.windowsize);
        if self.complete || window_ends {
            self.reply = Reply::Ack { again: false };
        }
        Block { offset, payload, last: self.complete }
    }

    fn is_against_tsize(&mut self, length: usize) -> bool {
        match self.tsize {
            Some(tsize) => self.breaks_tsize(tsize, length),
            None => false,
        }
    }

    /// RFC 2349: the tsize is the size of the file, so in octet mode as many bytes must come. Whether the next block,
    /// of `length` bytes, ends the transfer for that. A call of its own, since most transfers agree on none.
    #[inline(never)]
    fn breaks_tsize(&mut self, tsize: u64, length: usize) -> bool {
        let received_bytes = self.received_bytes + length as u64;
        let is_last = length < usize::from(self.agreed.blksize);
        match tsize {
            // A server that echoes the request's 0 does not know the size, which is no reason to fail.
            0 if is_last && received_bytes > 0 => self.count_fault(ProtocolFault::LongerThanTsize),
            0 => {}
            _ if received_bytes > tsize => self.end(ErrorCode::DISK_FULL, ProtocolFault::LongerThanTsize),
            _ if is_last && received_bytes < tsize => {
                self.end(ErrorCode::NOT_DEFINED, ProtocolFault::ShorterThanTsize);
            }
            _ => {}
        }
        self.ending.is_decided()
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

    fn handle_repeated_data(&mut self, now_ns: u64) {
        self.counts.duplicates += 1;
        // In mid-window no ACK can have been lost: the network doubled the block. Nor may a window's block
        // have been sent because of a lost ACK before that could be missed: it belongs to a flight that
        // overlaps another.
        let ack_missed =
            self.agreed.windowsize == 1 || self.rto.elapsed_ns(now_ns) >= 2 * self.rto.round_trip_min_ns();
        if self.acked == self.received && ack_missed {
            self.reply = Reply::Ack { again: true };
        }
    }

    fn report_gap(&mut self) {
        self.counts.duplicates += 1;
        if !self.answered {
            self.hear();
        }
        let is_news = !std::mem::replace(&mut self.gap_reported, true);
        let nack = self.rto.habits().map_or(Nack::Gap, |habits| habits.nack);
        if nack == Nack::Block || nack == Nack::Gap && is_news {
            self.reply = Reply::Ack { again: self.acked == self.received };
        }
    }

    /// After the decision only one thing is ever answered: the last DATA again, while dallying.
    #[cold]
    #[inline(never)]
    fn handle_late_packet(&mut self, now_ns: u64, packet: &Packet<'_>) {
        let Packet::Data { block, .. } = *packet else { return };
        if !self.dallying {
            return;
        }
        match block::ahead(self.received, block, self.agreed.rollover) {
            Some(0) => {
                self.counts.duplicates += 1;
                self.reply = Reply::Ack { again: true };
                self.rto.dally(now_ns);
            }
            Some(step) if step <= u64::from(self.agreed.windowsize) => {
                self.count_fault(ProtocolFault::DataPastEnd);
            }
            _ => {}
        }
    }

    /// A call of its own: inlined, its registers would be saved for each block of a window that needs no ACK.
    #[inline(never)]
    fn send_ack(&mut self, now_ns: u64, again: bool) -> Transmit {
        self.counts.retransmissions += u64::from(again);
        self.acked = self.received;
        if !self.complete {
            // After a gap the next block may be one of the old flight and tell no round trip.
            self.rto.sent(now_ns, !again && !self.gap_reported);
        } else if !self.dallying {
            self.ending.outcome = Some(Outcome::Completed);
            self.dallying = self.rto.habits().is_none();
            if self.dallying {
                self.rto.dally(now_ns);
            }
        }
        Transmit::Ack { block: block::wire(self.received, self.agreed.rollover), again }
    }
}
