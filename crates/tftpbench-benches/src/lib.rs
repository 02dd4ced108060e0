//! The hot loops as fixed amounts of work: what is timed by criterion is what is counted under callgrind.
//!
//! Must never hold a copy of what it measures, and never sends off this machine. Called by the two programs of this
//! crate: `benches/loops.rs` times every loop, `one-loop` runs one of them so that its instructions can be counted
//! (`tests/instructions`).
//!
//! What a unit costs holds the loop around it, a few instructions, and `black_box`, which keeps the compiler from
//! seeing through the work.

mod loops;

use std::io;

/// A loop that is prepared: does as many units of its work as it is asked for, and may be called again.
pub type Work = Box<dyn FnMut(u64) -> io::Result<()>>;

/// One hot loop.
pub struct Loop {
    /// Crate's part, and which case of it.
    pub name: &'static str,
    /// Opens what it needs; no part of the work.
    pub prepare: fn() -> io::Result<Work>,
}

/// All of them. A unit is a packet, block, timer or datagram.
pub const LOOPS: [Loop; 23] = [
    Loop { name: "parse/data", prepare: loops::parse_data },
    Loop { name: "parse/ack", prepare: loops::parse_ack },
    Loop { name: "parse/request", prepare: loops::parse_request },
    Loop { name: "emit/data_header", prepare: loops::emit_data_header },
    Loop { name: "emit/ack", prepare: loops::emit_ack },
    Loop { name: "emit/request", prepare: loops::emit_request },
    Loop { name: "emit/oack", prepare: loops::emit_oack },
    Loop { name: "sender/lock_step", prepare: || loops::sender(1) },
    Loop { name: "sender/window_64", prepare: || loops::sender(64) },
    Loop { name: "receiver/lock_step", prepare: || loops::receiver(1) },
    Loop { name: "receiver/window_64", prepare: || loops::receiver(64) },
    Loop { name: "timers/10", prepare: || loops::timers(10) },
    Loop { name: "timers/100", prepare: || loops::timers(100) },
    Loop { name: "timers/1000", prepare: || loops::timers(1000) },
    Loop { name: "timers/10000", prepare: || loops::timers(10_000) },
    Loop { name: "datagrams/single", prepare: loops::single_datagrams },
    Loop { name: "datagrams/batch_64", prepare: loops::batches },
    Loop { name: "datagrams/run_64", prepare: loops::runs },
    Loop { name: "contents/fill_512", prepare: || loops::fill(512) },
    Loop { name: "contents/fill_1428", prepare: || loops::fill(1428) },
    Loop { name: "contents/first_difference_512", prepare: || loops::first_difference(512) },
    Loop { name: "contents/first_difference_1428", prepare: || loops::first_difference(1428) },
    Loop { name: "contents/first_difference_given_512", prepare: || loops::first_difference_given(512) },
];

/// The loop has stopped doing its work, so what it would cost means nothing.
fn stuck(what: &str) -> io::Error {
    io::Error::other(format!("{what} stands still"))
}
