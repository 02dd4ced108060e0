//! The names of the options of RFC 2347 to 2349 and 7440, and where each is defined.
//!
//! Must never hold a value.

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
