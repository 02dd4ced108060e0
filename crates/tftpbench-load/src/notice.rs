//! What a run says while it goes on. Plain data.

/// What the caller hears while a run goes on, on its own thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The run is still going.
    Tick,
    /// Everything is open, and the run starts at `start_ns` on the monotonic clock: the edges of the measured window
    /// follow from it. Once per run, before all others.
    Scheduled {
        /// CLOCK_MONOTONIC.
        start_ns: u64,
    },
    /// The measured window has just closed; the drain begins. Once per run.
    WindowClosed,
    /// The first datagram has arrived. Once per run; this and the next two only where the run watches for an answer.
    Answered,
    /// Nothing has arrived for a second, and nothing has been refused. Once per run; it goes on.
    Unanswered,
    /// Nothing listens on the server's port: a request came back as "port unreachable" before anything answered. Once per
    /// run; it goes on, for a server may be about to start.
    Refused,
}

/// A notice of a worker, and when it was given.
pub(crate) type Sent = (Notice, u64);
