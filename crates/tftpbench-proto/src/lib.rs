//! TFTP without I/O: packets, options, and the two state machines of a transfer.
//!
//! This crate must never open a socket or a file, start a thread, read a clock or contain unsafe code. Bytes
//! and the caller's time go in; datagrams to send, a deadline and an outcome come out. Servers, the load
//! generator and tests drive the same code.
//!
//! # The four jobs and the two machines
//!
//! | job        | machine                | opens with     | then waits for      |
//! |------------|------------------------|----------------|---------------------|
//! | RRQ server | [`Sender::server`]     | OACK or DATA 1 | ACK 0 or ACK 1      |
//! | WRQ client | [`Sender::client`]     | WRQ            | OACK or ACK 0       |
//! | WRQ server | [`Receiver::server`]   | OACK or ACK 0  | DATA 1              |
//! | RRQ client | [`Receiver::client`]   | RRQ            | OACK or DATA 1      |
//!
//! # The drive loop
//!
//! A machine changes only through `handle_packet`, `handle_timeout`, `handle_repeated_request` and `abort`. After *one* such change the
//! caller drains `poll_transmit` until it gives `None`, and only then looks at `outcome` and `deadline_ns`.
//! So:
//!
//! 1. Build the machine. Drain.
//! 2. Wait for a datagram *from this transfer's peer* or for `deadline_ns`, whichever comes first.
//! 3. A datagram: [`Packet::parse`] it, count it if it is [`Malformed`], else pass it to `handle_packet`. If
//!    a receiver gives back a [`Block`], store it now; if that fails, `abort`.
//! 4. The deadline: `handle_timeout`. Calling it too early is harmless.
//! 5. Drain: each [`Transmit`] becomes one datagram. For [`Transmit::Opening`] the caller sends the request,
//!    OACK or ACK 0 that it keeps for the purpose; for [`Transmit::Data`] it copies the bytes at `offset`
//!    behind the header.
//! 6. `outcome` says how the transfer went as soon as that is decided. `is_finished` says that the machine
//!    can be dropped; a receiver that has completed still answers a repeated last DATA for a while
//!    (dallying).
//!
//! Who the peer is, is the caller's business: machines never see addresses. A datagram from any other address
//! or port gets an ERROR 5 from the caller and must not reach the machine (RFC 1350 section 4).
//!
//! Time is a `u64` of nanoseconds on any clock that does not run backwards. A datagram may be lost at any
//! step, so a caller that could not send one simply goes on.
//!
//! # Whose fault
//!
//! [`Malformed`], [`ProtocolFault`], [`Failure::Peer`] and [`Failure::Protocol`] are the peer's;
//! [`Failure::Local`] is ours. Nothing that a peer sends makes this crate panic.
//!
//! # Deliberate deviations from the RFCs
//!
//! * An ACK that repeats the last one resends nothing in lock-step (RFC 1123 section 4.2.3.1). With a larger
//!   window it is also how a receiver reports that the window's first block was lost (RFC 7440 section 4), so
//!   there it may cause *one* resend; the next one only once everything sent until then is acknowledged.
//! * An ACK inside the window resumes behind it (RFC 7440 section 4), unless it may belong to what was sent
//!   before the last such ACK. The ACKs of a receiver that acknowledges every block would otherwise send the
//!   window again each.
//! * A receiver reports a gap once, then waits for the missing block or its timer; a client with [`Habits`] does as they
//!   say, and never dallies.
//! * A receiver repeats its ACK for a duplicate of the newest block only: the sender of an older one has its
//!   ACK already. With a window larger than one, not within two round trips of that ACK either: such a
//!   duplicate was under way before.
//! * The port of a server's side may be that of many transfers at once, but not the one that the same client had last
//!   (RFC 1350 section 4). That, and what DATA do on narrow paths, is for callers; see `docs/serve.md`.
//! * Windows above 32,767 blocks cannot tell a late duplicate from a block of the future; both count as a
//!   gap. Rolling over to 1 leaves 65,535 numbers, so a windowsize of 65,535 becomes 65,534 there.
//! * A server grants less than was asked: by default a windowsize of 64 and windows of 128 KiB ([`Limits`]).
//! * Until the first DATA is acknowledged, a time-out sends one block again, the newest: a client with a forged
//!   address so draws one window. An ACK 0 that reports the first block lost brings the window again, once until the
//!   next time-out.
//! * A negotiated `timeout` is in force from the client's first answer on. Until then a server's own timer runs,
//!   and a minute is the most (RFC 2349 leaves open since when).
//! * A server gives a client up that makes no progress for three minutes, even where the negotiated `timeout`
//!   would leave more retries; but it sends again once at least.
//! * A copy of the request is answered with the opening again while nothing was acknowledged, up to five times.
//!   After progress and a second of silence, or a shorter retransmission interval, it begins the transfer anew.
//!   Otherwise it changes nothing, nor does a late copy of the request that the client sent before this one.
//! * NULs behind a request or an OACK are tolerated: some boot loaders pad with them.
//! * The `rollover` option (0 or 1) is tftp-hpa's, not an RFC's. Unless agreed, 65,535 rolls over to 0.
//! * An ERROR without its terminating NUL, and bytes behind an ACK, are tolerated.
//! * OACKs, like requests, may be 512 bytes at most (RFC 2347 limits only the latter).
//! * `tsize` is left out of the OACK for a netascii file whose size on the wire is not cheaply known: it is another than the
//!   file's, and counting it takes reading all of the file (RFC 2349 lets a server decline). The bundled servers count up
//!   to 1 MiB; a longer file is encoded while it is sent, and its end is found on the way.
//! * A client ends a read whose bytes differ from the OACK's tsize, with ERROR 3 where there are more and
//!   ERROR 0 where there are fewer. A tsize of 0 is only counted: some servers echo what they were asked.
//! * A client counts a changed tsize in the answer to a WRQ and goes on.
//! * An expired transfer ends in silence: nothing suggests that the peer still listens.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod block;
mod fault;
pub mod netascii;
mod options;
mod packet;
mod receiver;
mod sender;
mod timing;
mod transfer;

pub use block::Rollover;
pub use fault::{Malformed, OptionName, ProtocolFault};
pub use options::{
    Agreed, BLKSIZE_DEFAULT, BLKSIZE_MAX, BLKSIZE_MIN, Limits, OptionList, Options, accept, negotiate,
};
pub use packet::{
    Decoded, ErrorCode, HEADER_LEN, Mode, Operation, Packet, REQUEST_LEN_MAX, Request, emit_ack,
    emit_data_header, emit_error, emit_oack, emit_request, emit_request_pairs,
};
pub use receiver::{Block, Receiver};
pub use sender::Sender;
pub use timing::{Backoff, Habits, Nack, Timing};
pub use transfer::{Counts, Failure, Outcome, Repeated, Transmit};
