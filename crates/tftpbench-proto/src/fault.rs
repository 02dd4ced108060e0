//! What a peer can do against the protocol: each fault with its key, its words and where the RFC forbids it; and why a
//! datagram is no packet.
//!
//! Must never hold a byte of a datagram: the caller keeps it as evidence. The machines end transfers with
//! faults and count them; callers report them.

/// Why a datagram is not a TFTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the packet's fixed part.
    #[error("shorter than its header")]
    TooShort,
    /// Not one of 1 to 6.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u16),
    /// A request whose filename or mode has no NUL.
    #[error("request without a terminating NUL")]
    Unterminated,
    /// A request for nothing.
    #[error("empty filename")]
    EmptyFilename,
    /// Neither octet nor netascii.
    #[error("unknown transfer mode")]
    UnknownMode,
    /// The mail mode, which RFC 1350 declares obsolete.
    #[error("mail mode is not supported")]
    MailMode,
    /// A request or OACK of more than 512 bytes.
    #[error("request or OACK longer than 512 bytes")]
    TooLong,
    /// An option without its value, or without a NUL.
    #[error("truncated option")]
    TruncatedOption,
}

impl Malformed {
    /// Key of a counter.
    pub fn kind(&self) -> &'static str {
        match self {
            Malformed::TooShort => "too_short",
            Malformed::UnknownOpcode(_) => "unknown_opcode",
            Malformed::Unterminated => "unterminated",
            Malformed::EmptyFilename => "empty_filename",
            Malformed::UnknownMode => "unknown_mode",
            Malformed::MailMode => "mail_mode",
            Malformed::TooLong => "too_long",
            Malformed::TruncatedOption => "truncated_option",
        }
    }
}

/// One breach of the protocol by the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.message())]
pub enum ProtocolFault {
    /// A datagram that is no TFTP packet. Counted; the transfer goes on.
    Malformed(Malformed),
    /// An ERROR whose message has no NUL behind it. Counted: the ERROR ends the transfer as any other does.
    UnterminatedError,
    /// A datagram of another TID than the one that answered first. Counted, and answered with ERROR 5.
    StrayTid,
    /// A block number that cannot be due: DATA outside the window, or an ACK of what was not sent. Counted.
    OutOfPlace,
    /// DATA behind the last block. Counted: the transfer is complete.
    DataPastEnd,
    /// A packet that this side of a transfer never sends. Ends the transfer.
    UnexpectedOpcode,
    /// DATA above the agreed blksize. Ends the transfer.
    DataTooLarge,
    /// An OACK to a request without options. Ends the transfer.
    OackNotAsked,
    /// An OACK with an option that was not asked for. Ends the transfer.
    OptionNotAsked,
    /// An OACK with an option twice. Ends the transfer.
    OptionRepeated,
    /// An OACK with a value that is no number, or not one that the option can have. Ends the transfer.
    OptionOutOfRange(OptionName),
    /// An OACK with more than was asked for. Ends the transfer.
    OptionAboveAsked(OptionName),
    /// An OACK with another value where only the asked-for one is allowed. Ends the transfer, but for `tsize`.
    OptionChanged(OptionName),
    /// A file of more bytes than the OACK's tsize. Ends the transfer, but for a tsize of 0.
    LongerThanTsize,
    /// A file that ends before the OACK's tsize. Ends the transfer.
    ShorterThanTsize,
}

impl ProtocolFault {
    /// Key of a counter, stable.
    pub fn kind(self) -> &'static str {
        self.record().kind
    }

    /// The fault in words; where it ends a transfer, they go into the ERROR.
    pub fn message(self) -> &'static str {
        self.record().message
    }

    /// Which section of which RFC says otherwise. RFCs 2347 to 2349 have no numbered sections, so these are named.
    pub fn rfc_section(self) -> &'static str {
        self.record().rfc_section
    }

    /// Longer than 70 lines: a table.
    fn record(self) -> Record {
        let of = |kind, message, rfc_section| Record { kind, message, rfc_section };
        match self {
            ProtocolFault::Malformed(malformed) => of(
                malformed.kind(),
                "a datagram that is no TFTP packet",
                match malformed {
                    Malformed::TooLong | Malformed::TruncatedOption => "RFC 2347, Packet Formats",
                    _ => "RFC 1350 section 5",
                },
            ),
            ProtocolFault::UnterminatedError => of(
                "unterminated_error",
                "the message of an ERROR has no NUL at its end",
                "RFC 1350 section 5",
            ),
            ProtocolFault::StrayTid => {
                of("stray_tid", "a datagram of another TID than the transfer's", "RFC 1350 section 4")
            }
            ProtocolFault::OutOfPlace => of(
                "out_of_place",
                "a block number that cannot be due",
                "RFC 1350 section 2, RFC 7440 section 4",
            ),
            ProtocolFault::DataPastEnd => {
                of("data_past_end", "DATA behind the last block", "RFC 1350 section 6")
            }
            ProtocolFault::UnexpectedOpcode => of(
                "unexpected_opcode",
                "a packet that this side of a transfer never sends",
                "RFC 1350 section 2",
            ),
            ProtocolFault::DataTooLarge => of(
                "data_too_large",
                "DATA is larger than the agreed blksize",
                "RFC 2348, Blocksize Option Specification",
            ),
            ProtocolFault::OackNotAsked => of(
                "oack_not_asked",
                "OACK answers a request without options",
                "RFC 2347, Negotiation Protocol",
            ),
            ProtocolFault::OptionNotAsked => of(
                "option_not_asked",
                "OACK holds an option that was not asked for",
                "RFC 2347, Negotiation Protocol",
            ),
            ProtocolFault::OptionRepeated => {
                of("option_repeated", "OACK holds an option twice", "RFC 2347, Packet Formats")
            }
            ProtocolFault::OptionOutOfRange(name) => {
                of("option_out_of_range", "OACK holds a value out of range", name.rfc_section())
            }
            ProtocolFault::OptionAboveAsked(name) => {
                of("option_above_asked", "OACK grants more than was asked for", name.rfc_section())
            }
            ProtocolFault::OptionChanged(name) => {
                of("option_changed", "OACK changes a value that may only be echoed", name.rfc_section())
            }
            ProtocolFault::LongerThanTsize => of(
                "longer_than_tsize",
                "the file is longer than the tsize of the OACK",
                OptionName::Tsize.rfc_section(),
            ),
            ProtocolFault::ShorterThanTsize => of(
                "shorter_than_tsize",
                "the file is shorter than the tsize of the OACK",
                OptionName::Tsize.rfc_section(),
            ),
        }
    }
}

/// A line of the table above.
struct Record {
    kind: &'static str,
    message: &'static str,
    rfc_section: &'static str,
}

/// The options that this crate knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionName {
    /// Bytes of a DATA block.
    Blksize,
    /// Blocks for each ACK.
    Windowsize,
    /// Retransmission interval.
    Timeout,
    /// Size of the file.
    Tsize,
    /// What follows block 65,535.
    Rollover,
}

impl OptionName {
    pub(crate) const COUNT: usize = 5;

    /// What says which values it can have. `rollover` has no RFC: it is granted as RFC 2347 wants of any option.
    pub fn rfc_section(self) -> &'static str {
        match self {
            OptionName::Blksize => "RFC 2348, Blocksize Option Specification",
            OptionName::Windowsize => "RFC 7440 section 3",
            OptionName::Timeout => "RFC 2349, Timeout Interval Option Specification",
            OptionName::Tsize => "RFC 2349, Transfer Size Option Specification",
            OptionName::Rollover => "RFC 2347, Negotiation Protocol",
        }
    }

    pub(crate) fn parse(name: &[u8]) -> Option<OptionName> {
        // RFC 2347: case-insensitive.
        match name {
            name if name.eq_ignore_ascii_case(b"blksize") => Some(OptionName::Blksize),
            name if name.eq_ignore_ascii_case(b"windowsize") => Some(OptionName::Windowsize),
            name if name.eq_ignore_ascii_case(b"timeout") => Some(OptionName::Timeout),
            name if name.eq_ignore_ascii_case(b"tsize") => Some(OptionName::Tsize),
            name if name.eq_ignore_ascii_case(b"rollover") => Some(OptionName::Rollover),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_documented() {
        let docs = include_str!("../../../docs/results-format.md");
        let name = OptionName::Tsize;
        for fault in [
            ProtocolFault::Malformed(Malformed::TooShort),
            ProtocolFault::Malformed(Malformed::UnknownOpcode(9)),
            ProtocolFault::Malformed(Malformed::Unterminated),
            ProtocolFault::Malformed(Malformed::EmptyFilename),
            ProtocolFault::Malformed(Malformed::UnknownMode),
            ProtocolFault::Malformed(Malformed::MailMode),
            ProtocolFault::Malformed(Malformed::TooLong),
            ProtocolFault::Malformed(Malformed::TruncatedOption),
            ProtocolFault::UnterminatedError,
            ProtocolFault::StrayTid,
            ProtocolFault::OutOfPlace,
            ProtocolFault::DataPastEnd,
            ProtocolFault::UnexpectedOpcode,
            ProtocolFault::DataTooLarge,
            ProtocolFault::OackNotAsked,
            ProtocolFault::OptionNotAsked,
            ProtocolFault::OptionRepeated,
            ProtocolFault::OptionOutOfRange(name),
            ProtocolFault::OptionAboveAsked(name),
            ProtocolFault::OptionChanged(name),
            ProtocolFault::LongerThanTsize,
            ProtocolFault::ShorterThanTsize,
        ] {
            assert!(docs.contains(&format!("`{}`", fault.kind())), "{}", fault.kind());
            assert!(fault.rfc_section().starts_with("RFC "), "{fault:?}");
        }
    }
}
