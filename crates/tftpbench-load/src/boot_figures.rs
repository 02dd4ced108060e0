//! What is written down of boots: a row for each machine, and the figures of all of them.
//!
//! The cohort is every machine that was intended inside the measured window: what failed, came late, was shed or was
//! interrupted never booted. It must never leave out a machine.

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BootOutcome {
    /// Every step ended as it should.
    Booted,
    /// A step did not, and the client gave up.
    Failed,
    /// Its deadline passed first.
    Late,
    /// It was due while as many machines were booting as may be, and never started.
    Shed,
    /// The run was over first.
    Interrupted,
}

impl BootOutcome {
    /// Names in the order of the discriminants.
    pub const NAMES: [&'static str; 5] = ["booted", "failed", "late", "shed", "interrupted"];
}

/// Why a boot failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum BootReason {
    /// It did not.
    #[default]
    None,
    /// An ERROR.
    Refused,
    /// Nothing answered.
    NoAnswer,
    /// The server had answered, and fell silent.
    FellSilent,
    /// The server broke a rule.
    BrokeProtocol,
    /// What came was not the file.
    WrongBytes,
}

impl BootReason {
    /// Names in the order of the discriminants.
    pub const NAMES: [&'static str; 6] =
        ["", "refused", "no answer", "fell silent", "broke the protocol", "wrong bytes"];
}

/// One machine. Times are nanoseconds since the first start of the run; -1 stands for "never".
#[derive(Clone, Copy, Debug)]
pub struct BootRow {
    /// Its number.
    pub machine: u64,
    /// Which share of the mix it boots.
    pub share: u32,
    /// When the schedule wanted it to start.
    pub intended_start_ns: i64,
    /// When its first request was sent.
    pub actual_start_ns: i64,
    /// When its boot was decided; when it was intended, of one that was shed.
    pub end_ns: i64,
    /// File bytes moved in order, in all its transfers.
    pub bytes: u64,
    /// Requests, without those that were sent again for want of an answer.
    pub requests: u64,
    /// Of these, how many were refused or not answered as expected.
    pub misses: u64,
    /// Of these, how many were not answered.
    pub misses_unanswered: u64,
    /// Datagrams of its own sent again.
    pub retransmissions: u64,
    /// Transfers and boots begun anew.
    pub restarts: u64,
    /// How it ended.
    pub outcome: BootOutcome,
    /// The step that it was at, from 1; -1 of one that booted or was shed.
    pub failed_step: i64,
    /// Why it failed.
    pub reason: BootReason,
    /// Code of the ERROR that it failed with; -1 without one.
    pub error_code: i32,
}
