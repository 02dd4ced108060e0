//! The options of RFC 2347 to 2349 and 7440: as they are on the wire, names and values; and what is asked, granted and
//! agreed.
//!
//! An `OptionList` must never allocate, nor panic on any bytes.
//! Must never hold a value that its RFC forbids once it came through `from_list`, `negotiate` or `accept`.

use std::io::Write as _;

use crate::block::{self, Rollover};
use crate::fault::{Malformed, OptionName, ProtocolFault};

/// Smallest blksize (RFC 2348).
pub const BLKSIZE_MIN: u16 = 8;
/// The blksize where none was agreed (RFC 1350 section 2).
pub const BLKSIZE_DEFAULT: u16 = 512;
/// Largest blksize (RFC 2348).
pub const BLKSIZE_MAX: u16 = 65464;

/// The options of a request or OACK as they came: complete pairs, nothing else checked. NULs behind the last pair, which
/// some boot loaders fill their requests up with, are no part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptionList<'a>(&'a [u8]);

impl<'a> OptionList<'a> {
    /// Name and value of each option, in order, without their NULs.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (name, value, tail) = split_pair(rest)?;
            rest = tail;
            Some((name, value))
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one that this crate does not know.
    pub fn has_unknown(&self) -> bool {
        self.iter().any(|(name, _)| OptionName::parse(name).is_none())
    }

    pub(crate) fn parse(bytes: &'a [u8]) -> Result<OptionList<'a>, Malformed> {
        let mut rest = bytes;
        while let Some(&first) = rest.first() {
            if first == 0 && rest.iter().all(|&byte| byte == 0) {
                return Ok(OptionList(&bytes[..bytes.len() - rest.len()]));
            }
            rest = split_pair(rest).ok_or(Malformed::TruncatedOption)?.2;
        }
        Ok(OptionList(bytes))
    }
}

/// What comes before the first NUL, and what behind it.
pub(crate) fn split_nul(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

fn split_pair(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = split_nul(bytes)?;
    let (value, rest) = split_nul(rest)?;
    Some((name, value, rest))
}

/// A set of options, as asked for or as granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Payload bytes of a full DATA, 8 to 65464 (RFC 2348).
    pub blksize: Option<u16>,
    /// Blocks sent for each ACK, 1 to 65535 (RFC 7440).
    pub windowsize: Option<u16>,
    /// Retransmission interval in seconds, 1 to 255 (RFC 2349).
    pub timeout_s: Option<u8>,
    /// Size of the file in bytes; 0 in an RRQ asks for it (RFC 2349).
    pub tsize: Option<u64>,
    /// What follows block 65,535; an extension that tftp-hpa introduced.
    pub rollover: Option<Rollover>,
}

impl Options {
    /// Reads what a client asks for. Names may be in any case; options that are unknown, out of range or not
    /// a number are left out, which refuses them politely (RFC 2347). Of a repeated option the first counts.
    pub fn from_list(list: OptionList<'_>) -> Options {
        let mut options = Options::default();
        let mut seen = [false; OptionName::COUNT];
        for (name, value) in list.iter() {
            let Some(name) = OptionName::parse(name) else { continue };
            if !std::mem::replace(&mut seen[name as usize], true) {
                options.set(name, value);
            }
        }
        options
    }

    /// Whether no option is there.
    pub fn is_empty(&self) -> bool {
        *self == Options::default()
    }

    /// Whether this option is there.
    fn has(&self, name: OptionName) -> bool {
        match name {
            OptionName::Blksize => self.blksize.is_some(),
            OptionName::Windowsize => self.windowsize.is_some(),
            OptionName::Timeout => self.timeout_s.is_some(),
            OptionName::Tsize => self.tsize.is_some(),
            OptionName::Rollover => self.rollover.is_some(),
        }
    }

    /// Appends each option as `name NUL value NUL`.
    pub(crate) fn append_to(&self, buf: &mut Vec<u8>) {
        let rollover = self.rollover.map(|rollover| rollover as u64);
        let values = [
            ("tsize", self.tsize),
            ("blksize", self.blksize.map(u64::from)),
            ("windowsize", self.windowsize.map(u64::from)),
            ("timeout", self.timeout_s.map(u64::from)),
            ("rollover", rollover),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                // Writing to a Vec cannot fail.
                let _ = write!(buf, "{name}\0{value}\0");
            }
        }
    }

    /// Takes a value if it is a number in the option's range, and says whether it was.
    fn set(&mut self, name: OptionName, value: &[u8]) -> bool {
        let Some(number) = parse_number(value) else { return false };
        match name {
            OptionName::Blksize => {
                store(&mut self.blksize, u16::try_from(number).ok().filter(in_blksize_range))
            }
            OptionName::Windowsize => {
                store(&mut self.windowsize, u16::try_from(number).ok().filter(|&size| size > 0))
            }
            OptionName::Timeout => {
                store(&mut self.timeout_s, u8::try_from(number).ok().filter(|&seconds| seconds > 0))
            }
            OptionName::Tsize => store(&mut self.tsize, Some(number)),
            OptionName::Rollover => store(
                &mut self.rollover,
                match number {
                    0 => Some(Rollover::Zero),
                    1 => Some(Rollover::One),
                    _ => None,
                },
            ),
        }
    }
}

/// The most that a server grants. A limit below an option's range (0, say) refuses the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest blksize.
    pub blksize: u16,
    /// Largest windowsize.
    pub windowsize: u16,
    /// Most payload bytes of one window, windowsize times blksize. A window of one block is always granted.
    pub window_bytes: u32,
}

impl Limits {
    /// Everything that the RFCs allow.
    pub const NONE: Limits = Limits { blksize: BLKSIZE_MAX, windowsize: u16::MAX, window_bytes: u32::MAX };

    /// The most blocks of this size that a window may have; 0 refuses the option.
    fn blocks_of(&self, blksize: u16) -> u16 {
        let blocks = self.window_bytes / u32::from(blksize.max(1));
        self.windowsize.min(u16::try_from(blocks).unwrap_or(u16::MAX).max(1))
    }
}

impl Default for Limits {
    /// What a server grants unless it is configured otherwise. The size of a window is what a client that is silent, or
    /// another in its name, draws with two datagrams.
    fn default() -> Limits {
        Limits { windowsize: 64, window_bytes: 128 * 1024, ..Limits::NONE }
    }
}

/// What a server's OACK grants; where it [is empty](Options::is_empty), no OACK is sent. `length` answers
/// `tsize`: in an RRQ the file's (`None` leaves it out, as for a netascii file of unknown size), in a WRQ
/// what was asked.
pub fn negotiate(asked: &Options, limits: &Limits, length: Option<u64>) -> Options {
    // RFC 2348 and 7440: at most what was asked.
    let blksize = asked.blksize.map(|size| size.min(limits.blksize)).filter(in_blksize_range);
    let blocks_max = limits.blocks_of(blksize.unwrap_or(BLKSIZE_DEFAULT));
    let windowsize = asked.windowsize.map(|size| size.min(blocks_max)).filter(|&size| size > 0);
    Options {
        blksize,
        windowsize: windowsize.map(|size| distinct_window(size, asked.rollover)),
        // RFC 2349: the same value or none.
        timeout_s: asked.timeout_s.filter(|&seconds| seconds > 0),
        tsize: asked.tsize.and(length),
        rollover: asked.rollover,
    }
}

/// What a client has from the server's OACK: each option once, only what it asked for, and within what it
/// asked.
pub fn accept(asked: &Options, oack: OptionList<'_>) -> Result<Options, ProtocolFault> {
    if asked.is_empty() {
        return Err(ProtocolFault::OackNotAsked);
    }
    accept_pairs(asked, oack.iter())
}

fn accept_pairs<'a>(
    asked: &Options,
    pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Result<Options, ProtocolFault> {
    let mut granted = Options::default();
    let mut seen = [false; OptionName::COUNT];
    for (name, value) in pairs {
        let name =
            OptionName::parse(name).filter(|name| asked.has(*name)).ok_or(ProtocolFault::OptionNotAsked)?;
        if std::mem::replace(&mut seen[name as usize], true) {
            return Err(ProtocolFault::OptionRepeated);
        }
        if !granted.set(name, value) {
            return Err(ProtocolFault::OptionOutOfRange(name));
        }
    }
    // `None` is less than any `Some`, so an option that was not granted passes.
    let is_changed = |same: bool, name| (!same).then_some(ProtocolFault::OptionChanged(name));
    let is_above = |more: bool, name| more.then_some(ProtocolFault::OptionAboveAsked(name));
    is_above(granted.blksize > asked.blksize, OptionName::Blksize)
        .or(is_above(granted.windowsize > asked.windowsize, OptionName::Windowsize))
        .or(is_changed(granted.timeout_s.is_none_or(|s| Some(s) == asked.timeout_s), OptionName::Timeout))
        .or(is_changed(
            granted.rollover.is_none_or(|rollover| Some(rollover) == asked.rollover),
            OptionName::Rollover,
        ))
        .map_or(Ok(granted), Err)
}

/// The same where the request has options beside `asked` that are not known here: what an OACK says of such is for the
/// client alone.
pub(crate) fn accept_known(asked: &Options, oack: OptionList<'_>) -> Result<Options, ProtocolFault> {
    let is_known = |(name, _): &(&[u8], &[u8])| OptionName::parse(name).is_some();
    accept_pairs(asked, oack.iter().filter(is_known))
}

/// What both sides go by: the granted options, and RFC 1350 where none was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Payload bytes of a full DATA.
    pub blksize: u16,
    /// Blocks for each ACK; 1 is lock-step.
    pub windowsize: u16,
    /// Retransmission interval, where the option was agreed.
    pub timeout_s: Option<u8>,
    /// What follows block 65,535.
    pub rollover: Rollover,
}

impl Agreed {
    /// The number that the block with this index has on the wire. Blocks count from 1.
    pub fn block_number(&self, index: u64) -> u16 {
        block::wire(index, self.rollover)
    }

    /// The same with values that the machines can work with, whatever the caller put in.
    pub(crate) fn workable(self) -> Agreed {
        Agreed {
            blksize: self.blksize.clamp(BLKSIZE_MIN, BLKSIZE_MAX),
            windowsize: distinct_window(self.windowsize.max(1), Some(self.rollover)),
            timeout_s: self.timeout_s.filter(|&seconds| seconds > 0),
            rollover: self.rollover,
        }
    }
}

impl From<&Options> for Agreed {
    fn from(granted: &Options) -> Agreed {
        Agreed {
            blksize: granted.blksize.unwrap_or(BLKSIZE_DEFAULT),
            windowsize: granted.windowsize.unwrap_or(1),
            timeout_s: granted.timeout_s,
            rollover: granted.rollover.unwrap_or_default(),
        }
    }
}

impl Default for Agreed {
    fn default() -> Agreed {
        Agreed::from(&Options::default())
    }
}

/// Digits only: no sign, no space, nothing above 64 bits.
fn parse_number(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn store<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

fn in_blksize_range(size: &u16) -> bool {
    (BLKSIZE_MIN..=BLKSIZE_MAX).contains(size)
}

/// Rolling over to 1 leaves 65,535 numbers; the ACKs before and behind a window need different ones.
fn distinct_window(windowsize: u16, rollover: Option<Rollover>) -> u16 {
    match rollover {
        Some(Rollover::One) => windowsize.min(65_534),
        _ => windowsize,
    }
}
