//! A file in memory: whole, when it never changes, with its bytes, however they are held, and what they count against the
//! bound; and an upload while it comes, gathered in a buffer, and in shared memory beyond that. It must never hold more
//! than has been charged.

use std::io;
use std::mem;
use std::sync::Arc;

use rustix::io::Errno;
use tftpbench_net::{Deferrable, LARGE_BYTES, Mapping, Sealed, SharedMemory};

use super::budget::Charge;
use super::loaded::LoadedFile;
use crate::refusal::Refusal;

/// Blocks are gathered to this size. An upload that ends sooner is a plain buffer: shared memory would cost it five
/// system calls and one of the 65,530 mappings of a process. What is longer is written on, so that nothing that has
/// been stored is ever copied again, as a growing buffer would be.
pub(super) const GATHER_BYTES: usize = 64 * 1024;

/// What shared memory costs the kernel beside its pages: an inode, a name of its own, an open file and a mapping.
pub(super) const SHARED_COST_BYTES: u64 = 2048;

/// Shared memory is made of pages.
pub(super) const PAGE_BYTES: u64 = 4096;

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

/// An upload while it comes.
#[derive(Debug)]
pub(crate) struct Growing {
    /// Beside the bytes.
    cost: u64,
    /// Its last bytes.
    gathered: Vec<u8>,
    /// Those before, where they were too many to gather.
    shared: Option<SharedMemory>,
    charge: Charge,
}

impl Growing {
    /// `cost`: what the file costs beside its bytes, which `charge` has.
    pub(crate) fn new(cost: u64, charge: Charge) -> Growing {
        Growing { cost, gathered: Vec::new(), shared: None, charge }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.gathered.len() + bytes.len() > GATHER_BYTES {
            self.share_gathered()?;
        }
        self.gather(bytes)
    }

    pub(crate) fn is_large(&self) -> bool {
        self.shared_length() >= Some(LARGE_BYTES)
    }

    /// Whether some of it is in shared memory.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// Room is charged before it is there, and it is never more than twice what is in it.
    fn gather(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let (length, capacity) = (self.gathered.len() + bytes.len(), self.gathered.capacity());
        if length > capacity {
            let room = length.max((2 * capacity).min(GATHER_BYTES));
            self.charge.set(self.cost_with(room, self.shared_length()))?;
            let more = room - self.gathered.len();
            self.gathered.try_reserve_exact(more).map_err(|_| Refusal::MEMORY_FULL)?;
        }
        self.gathered.extend_from_slice(bytes);
        Ok(())
    }

    fn share_gathered(&mut self) -> Result<(), Refusal> {
        let length = self.shared_length().unwrap_or(0) + self.gathered.len() as u64;
        self.charge.set(self.cost_with(self.gathered.capacity(), Some(length)))?;
        let shared = match &mut self.shared {
            Some(shared) => shared,
            none => none.insert(SharedMemory::new().map_err(refusal)?),
        };
        shared.append(&self.gathered).map_err(refusal)?;
        self.gathered.clear();
        Ok(())
    }

    fn shared_length(&self) -> Option<u64> {
        self.shared.as_ref().map(|shared| shared.length() as u64)
    }

    /// What it costs with so much room to gather in, and so much in shared memory.
    fn cost_with(&self, room: usize, shared_length: Option<u64>) -> u64 {
        let shared = |length: u64| SHARED_COST_BYTES + length.next_multiple_of(PAGE_BYTES);
        self.cost + room as u64 + shared_length.map_or(0, shared)
    }

    /// Whole, in a buffer of its own.
    pub(crate) fn into_plain(mut self) -> Result<(Bytes, Charge, Option<Sealed>), Refusal> {
        // A copy, as a buffer that is cut leaves a remnant behind it that fits nothing.
        let bytes: Box<[u8]> = match self.gathered.capacity() == self.gathered.len() {
            true => mem::take(&mut self.gathered).into(),
            false => self.gathered.as_slice().into(),
        };
        self.charge.set(self.cost_with(bytes.len(), None))?;
        Ok((Bytes::Plain(bytes), self.charge, None))
    }

    /// Whole, in shared memory; of an empty file there is none.
    pub(crate) fn into_shared(mut self) -> Result<(Bytes, Charge, Option<Sealed>), Refusal> {
        self.share_gathered()?;
        self.gathered = Vec::new();
        self.charge.set(self.cost_with(0, self.shared_length()))?;
        let sealed = self.shared.take().map(SharedMemory::seal).transpose().map_err(refusal)?;
        let bytes = match &sealed {
            Some(sealed) => Bytes::Shared(sealed.map().map_err(refusal)?),
            None => Bytes::Plain(Box::default()),
        };
        Ok((bytes, self.charge, sealed))
    }
}

fn refusal(error: io::Error) -> Refusal {
    match Errno::from_io_error(&error) {
        // mmap(2): also too many mappings.
        None | Some(Errno::NOMEM | Errno::NOSPC) => Refusal::MEMORY_FULL,
        Some(errno) => errno.into(),
    }
}
