//! A whole file in memory: its bytes, however they are held, and what they count against the bound. It never changes.

use std::sync::Arc;

use tftpbench_net::{Deferrable, Mapping};

use super::budget::Charge;
use super::loaded::LoadedFile;
use super::rules::LARGE_BYTES;

/// One file, which never changes. It counts against the bound for as long as anything here holds it.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) held: Deferrable<Held>,
}

/// The bytes go before what they have taken of the bound is given back.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    _charge: Option<Charge>,
}

#[derive(Debug)]
pub(crate) enum Bytes {
    Plain(Box<[u8]>),
    Shared(Mapping),
    /// It has its own charge, which grows.
    Loaded(Box<LoadedFile>),
}

impl Contents {
    pub(crate) fn new(bytes: Bytes, charge: Option<Charge>) -> Arc<Contents> {
        let mut held = Deferrable::new(Held { bytes, _charge: charge });
        let is_large = held.length() >= LARGE_BYTES;
        held.defer(is_large);
        Arc::new(Contents { held })
    }

    pub(crate) fn loaded(&self) -> Option<&LoadedFile> {
        match &self.held.bytes {
            Bytes::Loaded(file) => Some(file),
            _ => None,
        }
    }

    pub(crate) fn is_outdated(&self) -> bool {
        self.loaded().is_some_and(LoadedFile::is_outdated)
    }
}

impl Held {
    pub(crate) fn length(&self) -> u64 {
        match &self.bytes {
            Bytes::Plain(bytes) => bytes.len() as u64,
            Bytes::Shared(mapping) => mapping.len() as u64,
            Bytes::Loaded(file) => file.length(),
        }
    }
}
