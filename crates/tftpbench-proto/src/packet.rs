//! The five packets of RFC 1350 and the OACK of RFC 2347: borrowed views of a datagram, and emitters into a
//! buffer.
//!
//! Must never allocate for a DATA or ACK, nor panic on any bytes.

use std::fmt;

use crate::fault::Malformed;
use crate::options::Options;
use crate::options::{OptionList, split_nul};

/// Bytes in front of a DATA payload; an ACK is nothing else.
pub const HEADER_LEN: usize = 4;
/// Longest request (RFC 2347, "the maximum size of a request packet is 512 octets").
pub const REQUEST_LEN_MAX: usize = 512;

// RFC 1350 section 5 and RFC 2347.
const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// RRQ: the client receives.
    Read,
    /// WRQ: the client sends.
    Write,
}

/// How bytes cross the wire (RFC 1350 section 1). `mail` is not supported (RFC 1123 section 4.2.2.3 frees us
/// from it).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// As they are.
    Octet,
    /// With line ends as CR LF and CR as CR NUL; see [`netascii`](crate::netascii).
    Netascii,
}

impl Mode {
    /// The word in a request.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Octet => "octet",
            Mode::Netascii => "netascii",
        }
    }

    fn parse(word: &[u8]) -> Result<Mode, Malformed> {
        // RFC 1350 section 2: in any combination of upper and lower case.
        match word {
            word if word.eq_ignore_ascii_case(b"octet") => Ok(Mode::Octet),
            word if word.eq_ignore_ascii_case(b"netascii") => Ok(Mode::Netascii),
            word if word.eq_ignore_ascii_case(b"mail") => Err(Malformed::MailMode),
            _ => Err(Malformed::UnknownMode),
        }
    }
}

/// An RRQ or WRQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Which of the two.
    pub operation: Operation,
    /// As sent; not empty, no NUL inside, otherwise any bytes.
    pub filename: &'a [u8],
    /// Transfer mode.
    pub mode: Mode,
    /// What the client offers.
    pub options: OptionList<'a>,
}

/// A datagram that obeys the formats of RFC 1350 and 2347.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// RRQ or WRQ.
    Request(Request<'a>),
    /// One block of the file.
    Data {
        /// Number on the wire.
        block: u16,
        /// May be empty, and longer than what was agreed.
        payload: &'a [u8],
    },
    /// Acknowledges a block and all before it.
    Ack {
        /// Number on the wire.
        block: u16,
    },
    /// Ends the transfer.
    Error {
        /// Why.
        code: ErrorCode,
        /// For people; without the NUL, any bytes.
        message: &'a [u8],
    },
    /// The options that a server grants.
    Oack(OptionList<'a>),
}

impl<'a> Packet<'a> {
    /// Reads one UDP payload.
    pub fn parse(datagram: &'a [u8]) -> Result<Packet<'a>, Malformed> {
        let (opcode, body) = split_u16(datagram)?;
        match opcode {
            DATA => split_u16(body).map(|(block, payload)| Packet::Data { block, payload }),
            ACK => split_u16(body).map(|(block, _)| Packet::Ack { block }),
            RRQ => parse_request(Operation::Read, datagram.len(), body).map(Packet::Request),
            WRQ => parse_request(Operation::Write, datagram.len(), body).map(Packet::Request),
            ERROR => split_u16(body).map(|(code, text)| Packet::Error {
                code: ErrorCode(code),
                message: until_nul(text).unwrap_or(text),
            }),
            OACK if datagram.len() > REQUEST_LEN_MAX => Err(Malformed::TooLong),
            OACK => OptionList::parse(body).map(Packet::Oack),
            unknown => Err(Malformed::UnknownOpcode(unknown)),
        }
    }
}

/// The code of an ERROR. Codes without a name may come from the wire, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    /// See the message.
    pub const NOT_DEFINED: ErrorCode = ErrorCode(0);
    /// No such file.
    pub const FILE_NOT_FOUND: ErrorCode = ErrorCode(1);
    /// Not allowed.
    pub const ACCESS_VIOLATION: ErrorCode = ErrorCode(2);
    /// Disk full or allocation exceeded.
    pub const DISK_FULL: ErrorCode = ErrorCode(3);
    /// The packet has no business here.
    pub const ILLEGAL_OPERATION: ErrorCode = ErrorCode(4);
    /// To a stranger that sent to a transfer's port.
    pub const UNKNOWN_TID: ErrorCode = ErrorCode(5);
    /// It would be overwritten.
    pub const FILE_EXISTS: ErrorCode = ErrorCode(6);
    /// For mail.
    pub const NO_SUCH_USER: ErrorCode = ErrorCode(7);
    /// The options cannot be agreed on (RFC 2347).
    pub const OPTION_REFUSED: ErrorCode = ErrorCode(8);

    /// What each code means, by its number (RFC 1350 section 5, RFC 2347).
    pub const MEANINGS: [&str; 9] = [
        "not defined",
        "file not found",
        "access violation",
        "disk full",
        "illegal operation",
        "unknown transfer ID",
        "file already exists",
        "no such user",
        "option refused",
    ];

    /// What the RFCs say that it means.
    pub fn meaning(self) -> &'static str {
        ErrorCode::MEANINGS.get(usize::from(self.0)).copied().unwrap_or("unknown code")
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {} ({})", self.0, self.meaning())
    }
}

/// Writes the header of a DATA into the first 4 bytes; the payload follows it. Does nothing in a shorter
/// buffer.
pub fn emit_data_header(buf: &mut [u8], block: u16) {
    write_header(buf, DATA, block);
}

/// Writes an ACK and returns its length: 4, or 0 where the buffer is shorter.
pub fn emit_ack(buf: &mut [u8], block: u16) -> usize {
    write_header(buf, ACK, block)
}

/// Writes an ERROR and returns its length. The message ends where the buffer or the message's first NUL does;
/// a buffer under 5 bytes stays as it is, and the length is 0.
pub fn emit_error(buf: &mut [u8], code: ErrorCode, message: &str) -> usize {
    if buf.len() <= HEADER_LEN {
        return 0;
    }
    write_header(buf, ERROR, code.0);
    let text = until_nul(message.as_bytes()).unwrap_or(message.as_bytes());
    let text = &text[..text.len().min(buf.len() - HEADER_LEN - 1)];
    let end = HEADER_LEN + text.len();
    buf[HEADER_LEN..end].copy_from_slice(text);
    buf[end] = 0;
    end + 1
}

/// Replaces what is in `buf` by an RRQ or WRQ. The filename must hold no NUL, and whether the whole is longer
/// than [`REQUEST_LEN_MAX`] is for the caller to see.
pub fn emit_request(buf: &mut Vec<u8>, operation: Operation, filename: &[u8], mode: Mode, options: &Options) {
    let opcode = match operation {
        Operation::Read => RRQ,
        Operation::Write => WRQ,
    };
    buf.clear();
    buf.extend_from_slice(&opcode.to_be_bytes());
    for word in [filename, mode.name().as_bytes()] {
        buf.extend_from_slice(word);
        buf.push(0);
    }
    options.append_to(buf);
}

/// The same with any names and values, in this order: as a certain client asks.
pub fn emit_request_pairs<'a>(
    buf: &mut Vec<u8>,
    operation: Operation,
    filename: &[u8],
    mode: Mode,
    pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) {
    emit_request(buf, operation, filename, mode, &Options::default());
    for word in pairs.into_iter().flat_map(|(name, value)| [name, value]) {
        buf.extend_from_slice(word);
        buf.push(0);
    }
}

/// Replaces what is in `buf` by an OACK.
pub fn emit_oack(buf: &mut Vec<u8>, options: &Options) {
    buf.clear();
    buf.extend_from_slice(&OACK.to_be_bytes());
    options.append_to(buf);
}

/// Displays any datagram in one line, as for a packet log: `DATA block 7, 512 bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a>(pub &'a [u8]);

impl fmt::Display for Decoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Packet::parse(self.0) {
            Ok(Packet::Request(request)) => {
                let opcode = match request.operation {
                    Operation::Read => "RRQ",
                    Operation::Write => "WRQ",
                };
                write!(f, "{opcode} \"{}\" {}", request.filename.escape_ascii(), request.mode.name())?;
                write_options(f, request.options)
            }
            Ok(Packet::Data { block, payload }) => write!(f, "DATA block {block}, {} bytes", payload.len()),
            Ok(Packet::Ack { block }) => write!(f, "ACK block {block}"),
            Ok(Packet::Error { code, message }) => write!(f, "{code} \"{}\"", message.escape_ascii()),
            Ok(Packet::Oack(options)) => {
                write!(f, "OACK")?;
                write_options(f, options)
            }
            Err(malformed) => write!(f, "malformed, {} bytes: {malformed}", self.0.len()),
        }
    }
}

fn write_options(f: &mut fmt::Formatter<'_>, options: OptionList<'_>) -> fmt::Result {
    options
        .iter()
        .try_for_each(|(name, value)| write!(f, " {}={}", name.escape_ascii(), value.escape_ascii()))
}

fn parse_request(operation: Operation, datagram_len: usize, body: &[u8]) -> Result<Request<'_>, Malformed> {
    if datagram_len > REQUEST_LEN_MAX {
        return Err(Malformed::TooLong);
    }
    let (filename, rest) = split_nul(body).ok_or(Malformed::Unterminated)?;
    let (mode, rest) = split_nul(rest).ok_or(Malformed::Unterminated)?;
    if filename.is_empty() {
        return Err(Malformed::EmptyFilename);
    }
    Ok(Request { operation, filename, mode: Mode::parse(mode)?, options: OptionList::parse(rest)? })
}

fn write_header(buf: &mut [u8], opcode: u16, number: u16) -> usize {
    let Some(header) = buf.first_chunk_mut::<HEADER_LEN>() else { return 0 };
    let ([a, b], [c, d]) = (opcode.to_be_bytes(), number.to_be_bytes());
    *header = [a, b, c, d];
    HEADER_LEN
}

fn split_u16(bytes: &[u8]) -> Result<(u16, &[u8]), Malformed> {
    let (head, rest) = bytes.split_first_chunk::<2>().ok_or(Malformed::TooShort)?;
    Ok((u16::from_be_bytes(*head), rest))
}

fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    split_nul(bytes).map(|(text, _)| text)
}
