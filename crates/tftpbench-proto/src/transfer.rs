//! What both machines give out, and how a transfer ends.
//!
//! Must never know which side it serves. `Transmit`, `Outcome` and `Counts` are for the callers of the
//! machines, `Ending` for the machines.

use crate::fault::ProtocolFault;
use crate::packet::ErrorCode;

/// One datagram to send to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit {
    /// The datagram that opened this side, the first time or again: the request, or the server's OACK or ACK
    /// 0. The caller keeps its bytes.
    Opening,
    /// DATA: `len` bytes of the file from `offset` on.
    Data {
        /// Number on the wire.
        block: u16,
        /// Where in the file the payload begins, bytes.
        offset: u64,
        /// Payload bytes, 0 to blksize.
        len: usize,
        /// It was sent before.
        again: bool,
    },
    /// ACK.
    Ack {
        /// Number on the wire.
        block: u16,
        /// The same ACK was sent before.
        again: bool,
    },
    /// ERROR: the last datagram of this side.
    Error {
        /// Why.
        code: ErrorCode,
        /// For people.
        message: &'static str,
    },
}

/// How a transfer went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sender: the last block is acknowledged. Receiver: it is here, and its ACK went out.
    Completed,
    /// One side ended it.
    Failed(Failure),
    /// The peer fell silent.
    TimedOut,
}

/// Who ended a transfer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The peer, with an ERROR.
    Peer {
        /// Its code.
        code: ErrorCode,
        /// Its words: any bytes, at most 512 of them kept.
        message: Box<[u8]>,
    },
    /// We did, since the peer broke the protocol.
    Protocol(ProtocolFault),
    /// We did, since something failed on our side.
    Local {
        /// What the ERROR said.
        code: ErrorCode,
        /// What the ERROR said, in words.
        message: &'static str,
    },
}

/// What a server is to do about a copy of the request that it is serving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// Nothing: the transfer goes on.
    Ignored,
    /// The client may not have got the opening, which goes out again with the next drain.
    Answered,
    /// The client has lost the transfer: the request is to begin a new one in its place.
    Restart,
}

/// Copies of a request that a server answers before the client has acknowledged anything: as many as it sends openings
/// by itself, so that a request with a forged sender draws no more than twice as much by being repeated.
const REOPENINGS_MAX: u8 = 5;

/// Copies of the request that were answered with the opening again.
#[derive(Debug, Default)]
pub(crate) struct Reopenings(u8);

impl Reopenings {
    /// What a server does about a copy of the request. `is_silent`: nothing had moved for long when the copy came.
    pub(crate) fn judge(&mut self, is_decided: bool, answered: bool, is_silent: bool) -> Repeated {
        match (is_decided, answered) {
            (true, _) => Repeated::Ignored,
            (false, true) if is_silent => Repeated::Restart,
            (false, true) => Repeated::Ignored,
            (false, false) if self.0 == REOPENINGS_MAX => Repeated::Ignored,
            (false, false) => {
                self.0 += 1;
                Repeated::Answered
            }
        }
    }
}

/// What happened during a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams of ours that went out before, the opening one included.
    pub retransmissions: u64,
    /// Datagrams of the peer that brought nothing new.
    pub duplicates: u64,
    /// Times that our timer expired.
    pub timeouts: u64,
    /// Faults of the peer, one that ended the transfer included; malformed datagrams do not get here.
    pub faults: u64,
}

/// An ERROR longer than a request may be is cut here: it is kept until the transfer is dropped.
const MESSAGE_LEN_MAX: usize = 512;

/// How the transfer ended, and the ERROR that is still to be sent about it.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    pub(crate) outcome: Option<Outcome>,
    /// The peer's latest fault.
    pub(crate) fault: Option<ProtocolFault>,
    unsent_error: Option<ErrorCode>,
}

impl Ending {
    /// The peer sent an ERROR. It is never answered (RFC 1350 section 7).
    pub(crate) fn peer_error(&mut self, code: ErrorCode, message: &[u8]) {
        let message = message[..message.len().min(MESSAGE_LEN_MAX)].into();
        self.outcome = Some(Outcome::Failed(Failure::Peer { code, message }));
    }

    /// The peer broke the protocol.
    pub(crate) fn protocol_error(&mut self, code: ErrorCode, fault: ProtocolFault) {
        self.unsent_error = Some(code);
        self.fault = Some(fault);
        self.outcome = Some(Outcome::Failed(Failure::Protocol(fault)));
    }

    /// Our side gives up.
    pub(crate) fn local_error(&mut self, code: ErrorCode, message: &'static str) {
        self.unsent_error = Some(code);
        self.outcome = Some(Outcome::Failed(Failure::Local { code, message }));
    }

    /// The ERROR that announces the failure, once.
    pub(crate) fn take_error(&mut self) -> Option<Transmit> {
        let code = self.unsent_error.take()?;
        self.announce(code)
    }

    #[cold]
    #[inline(never)]
    fn announce(&self, code: ErrorCode) -> Option<Transmit> {
        let message = match &self.outcome {
            Some(Outcome::Failed(Failure::Protocol(fault))) => fault.message(),
            Some(Outcome::Failed(Failure::Local { message, .. })) => message,
            _ => return None,
        };
        Some(Transmit::Error { code, message })
    }

    pub(crate) fn is_decided(&self) -> bool {
        self.outcome.is_some()
    }

    /// Decided, and the peer knows.
    pub(crate) fn is_settled(&self) -> bool {
        self.outcome.is_some() && self.unsent_error.is_none()
    }
}
