//! The options of a request or OACK as they are on the wire: names and values, not yet judged.
//!
//! Must never allocate, nor panic on any bytes.

use crate::fault::{Malformed, OptionName};

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
