//! What the memory store may take, and what has taken how much of it. What is held is charged before it is allocated,
//! and given back when it is freed; it knows nothing of files.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::refusal::Refusal;

/// What all files together may take.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes: AtomicU64,
    bytes_max: u64,
}

impl Budget {
    pub(crate) fn new(bytes_max: u64) -> Arc<Budget> {
        Arc::new(Budget { bytes: AtomicU64::new(0), bytes_max })
    }

    /// Refuses what cannot fit now, without taking it.
    pub(crate) fn check(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes <= self.bytes_max.saturating_sub(self.taken()) { Ok(()) } else { Err(Refusal::MEMORY_FULL) }
    }

    pub(crate) fn taken(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What one file has taken of it, given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Charge {
    /// Nothing yet.
    pub(crate) fn on(budget: &Arc<Budget>) -> Charge {
        Charge { budget: Arc::clone(budget), bytes: 0 }
    }

    /// So much from now on, more or less than before. What is refused changes nothing; less is never refused.
    pub(crate) fn set(&mut self, bytes: u64) -> Result<(), Refusal> {
        if bytes > self.bytes {
            let more = bytes - self.bytes;
            let before = self.budget.bytes.fetch_add(more, Ordering::Relaxed);
            if before.saturating_add(more) > self.budget.bytes_max {
                self.budget.bytes.fetch_sub(more, Ordering::Relaxed);
                return Err(Refusal::MEMORY_FULL);
            }
        } else {
            self.budget.bytes.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.set(self.bytes.saturating_add(bytes))
    }

    /// A part of what was taken.
    pub(crate) fn give_back(&mut self, bytes: u64) {
        // Less is never refused.
        let _ = self.set(self.bytes.saturating_sub(bytes));
    }

    /// Of which it takes.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
