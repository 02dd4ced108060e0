//! What the two threads of a pair share with the caller's: counters and the tick. Must never wait.

use std::sync::atomic::{AtomicU32, AtomicU64};

/// How often the caller's thread looks on; flows count their silence in these.
pub(crate) const TICK_NS: u64 = 25_000_000;

/// What the threads of a pair tell the caller's, and hear from it. On a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Progress {
    pub(crate) datagrams: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// Ticks since the start.
    pub(crate) tick: AtomicU32,
}
