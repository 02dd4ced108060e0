//! The hot loops as fixed amounts of work: what is timed by criterion is what is counted under callgrind.
//!
//! Must never hold a copy of what it measures, and never sends off this machine. Called by the two programs of this
//! crate: `benches/loops.rs` times every loop, `one-loop` runs one of them so that its instructions can be counted
//! (`tests/instructions`).
//!
//! What a unit costs holds the loop around it, a few instructions, and `black_box`, which keeps the compiler from
//! seeing through the work.

mod load;
mod net;
mod proto;

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
    Loop { name: "parse/data", prepare: proto::parse_data },
    Loop { name: "parse/ack", prepare: proto::parse_ack },
    Loop { name: "parse/request", prepare: proto::parse_request },
    Loop { name: "emit/data_header", prepare: proto::emit_data_header },
    Loop { name: "emit/ack", prepare: proto::emit_ack },
    Loop { name: "emit/request", prepare: proto::emit_request },
    Loop { name: "emit/oack", prepare: proto::emit_oack },
    Loop { name: "sender/lock_step", prepare: || proto::sender(1) },
    Loop { name: "sender/window_64", prepare: || proto::sender(64) },
    Loop { name: "receiver/lock_step", prepare: || proto::receiver(1) },
    Loop { name: "receiver/window_64", prepare: || proto::receiver(64) },
    Loop { name: "timers/10", prepare: || net::timers(10) },
    Loop { name: "timers/100", prepare: || net::timers(100) },
    Loop { name: "timers/1000", prepare: || net::timers(1000) },
    Loop { name: "timers/10000", prepare: || net::timers(10_000) },
    Loop { name: "datagrams/single", prepare: net::single_datagrams },
    Loop { name: "datagrams/batch_64", prepare: net::batches },
    Loop { name: "datagrams/run_64", prepare: net::runs },
    Loop { name: "contents/fill_512", prepare: || load::fill(512) },
    Loop { name: "contents/fill_1428", prepare: || load::fill(1428) },
    Loop { name: "contents/first_difference_512", prepare: || load::first_difference(512) },
    Loop { name: "contents/first_difference_1428", prepare: || load::first_difference(1428) },
    Loop { name: "contents/first_difference_given_512", prepare: || load::first_difference_given(512) },
];

/// The loop has stopped doing its work, so what it would cost means nothing.
fn stuck(what: &str) -> io::Error {
    io::Error::other(format!("{what} stands still"))
}
