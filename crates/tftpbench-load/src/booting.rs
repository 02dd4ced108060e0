//! A machine that boots: where it is in its boot, what it has done so far, and what it does when a step has ended. It
//! must never send or read a clock.

use std::collections::VecDeque;
use std::sync::Arc;

use tftpbench_net::{LocalAddress, Socket};

use crate::boot_figures::{BootOutcome, BootReason, BootRecords, BootRow};
use crate::boots::{BootPlan, BootStep, Ends, Then};
use crate::config::{DALLYING_MAX, LoadConfig};
use crate::ended::TransferOutcome;
use crate::open_loop::Start;

/// One machine.
#[derive(Debug)]
pub(crate) struct Booting {
    plan: Arc<BootPlan>,
    pub(crate) share: usize,
    pub(crate) number: u64,
    intended_ns: u64,
    /// When its first request was sent; until then, when it started.
    actual_ns: u64,
    /// The step that it is at, from 0.
    pub(crate) step: usize,
    /// When its next request is due.
    pub(crate) due_ns: u64,
    /// Where it sends from on a shared socket.
    pub(crate) source: LocalAddress,
    /// Tells its timers from those of an earlier machine in the same place.
    pub(crate) generation: u32,
    pub(crate) requests: u64,
    bytes: u64,
    misses: u64,
    misses_unanswered: u64,
    /// Steps whose file was to be absent, and was served: each once.
    pub(crate) served_misses: Vec<usize>,
    retransmissions: u64,
    boot_restarts: u32,
    /// Of the step that it is at.
    transfer_restarts: u32,
    restarts: u64,
}

/// How a transfer of it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) outcome: TransferOutcome,
    pub(crate) error_code: i32,
    pub(crate) reason: BootReason,
    pub(crate) started_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) bytes: u64,
    pub(crate) retransmissions: u64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Its next request, when it is due.
    Request,
    /// Nothing: the boot has ended.
    End(End),
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) outcome: BootOutcome,
    pub(crate) reason: BootReason,
    pub(crate) error_code: i32,
}

impl End {
    pub(crate) fn of(outcome: BootOutcome) -> End {
        End { outcome, reason: BootReason::None, error_code: -1 }
    }
}

impl Booting {
    pub(crate) fn new(plan: &Arc<BootPlan>, start: Start, now_ns: u64, source: LocalAddress) -> Booting {
        Booting {
            plan: plan.clone(),
            share: plan.share_of(start.number),
            number: start.number,
            intended_ns: start.intended_ns,
            actual_ns: now_ns,
            step: 0,
            due_ns: start.intended_ns,
            source,
            generation: 0,
            requests: 0,
            bytes: 0,
            misses: 0,
            misses_unanswered: 0,
            served_misses: Vec::new(),
            retransmissions: 0,
            boot_restarts: 0,
            transfer_restarts: 0,
            restarts: 0,
        }
    }

    /// The step that it is at.
    pub(crate) fn step(&self) -> &BootStep {
        &self.plan.steps(self.share)[self.step]
    }

    /// Whether this end of its step is an ERROR that says what was expected: the file is not there.
    pub(crate) fn is_miss(&self, ended: &Ended) -> bool {
        self.step().ends == Ends::Missing && ended.reason == BootReason::Refused
    }

    /// The step that it is at has ended, in this way. `is_over`: so has the run.
    pub(crate) fn step_ended(&mut self, ended: &Ended, is_over: bool) -> Next {
        if self.requests == 1 {
            self.actual_ns = ended.started_ns;
        }
        self.bytes += ended.bytes;
        self.retransmissions += ended.retransmissions;
        let Ended { outcome, reason, error_code, .. } = *ended;
        let is_unanswered = self.step().ends == Ends::Missing && reason == BootReason::NoAnswer;
        self.misses += u64::from(is_unanswered || self.is_miss(ended));
        self.misses_unanswered += u64::from(is_unanswered);
        let is_served = self.step().ends == Ends::Missing
            && (outcome, reason) == (TransferOutcome::Completed, BootReason::None);
        if is_served && !self.served_misses.contains(&self.step) {
            self.served_misses.push(self.step);
        }
        match outcome {
            _ if is_over => Next::End(End::of(BootOutcome::Interrupted)),
            TransferOutcome::Interrupted => Next::End(End::of(BootOutcome::Interrupted)),
            TransferOutcome::Late => Next::End(End::of(BootOutcome::Late)),
            // It would start what it has read, and there is no second try.
            _ if reason == BootReason::WrongBytes => {
                Next::End(End { outcome: BootOutcome::Failed, reason, error_code })
            }
            TransferOutcome::Completed => self.after_step(ended.end_ns),
            // The server fell silent about a file that need not be there: the client asks for its next one.
            _ if is_unanswered && self.step().then != Then::RestartBoot => self.after_step(ended.end_ns),
            TransferOutcome::Failed | TransferOutcome::TimedOut => {
                if self.restart(ended.end_ns) {
                    return Next::Request;
                }
                Next::End(End { outcome: BootOutcome::Failed, reason, error_code })
            }
        }
    }

    fn after_step(&mut self, end_ns: u64) -> Next {
        self.transfer_restarts = 0;
        if self.step + 1 == self.plan.steps(self.share).len() {
            return Next::End(End::of(BootOutcome::Booted));
        }
        self.step += 1;
        self.due_ns = end_ns.saturating_add(self.step().think_ns);
        Next::Request
    }

    /// Begins the transfer or the boot anew, where the client does and has not done so too often.
    fn restart(&mut self, end_ns: u64) -> bool {
        let BootStep { then, restarts_max, .. } = *self.step();
        let done = match then {
            Then::GiveUp => return false,
            Then::RestartTransfer => &mut self.transfer_restarts,
            Then::RestartBoot => &mut self.boot_restarts,
        };
        if *done >= restarts_max {
            return false;
        }
        *done += 1;
        self.restarts += 1;
        self.due_ns = end_ns;
        if then == Then::RestartBoot {
            (self.step, self.transfer_restarts) = (0, 0);
            self.due_ns = end_ns.saturating_add(self.step().think_ns);
        }
        true
    }

    /// Its row. `start_ns`: that of the run.
    pub(crate) fn row(&self, end: End, end_ns: u64, start_ns: u64) -> BootRow {
        let since_start = |at_ns: u64| at_ns as i64 - start_ns as i64;
        let End { outcome, reason, error_code } = end;
        BootRow {
            machine: self.number,
            share: self.share as u32,
            intended_start_ns: since_start(self.intended_ns),
            actual_start_ns: since_start(self.actual_ns),
            end_ns: since_start(end_ns.max(self.actual_ns)),
            bytes: self.bytes,
            requests: self.requests,
            misses: self.misses,
            misses_unanswered: self.misses_unanswered,
            retransmissions: self.retransmissions,
            restarts: self.restarts,
            outcome,
            failed_step: if outcome == BootOutcome::Booted { -1 } else { self.step as i64 + 1 },
            reason,
            error_code,
        }
    }
}

/// The row of a machine that was to start, and did not.
pub(crate) fn shed_row(plan: &BootPlan, start: Start, start_ns: u64) -> BootRow {
    let intended_start_ns = start.intended_ns as i64 - start_ns as i64;
    BootRow {
        machine: start.number,
        share: plan.share_of(start.number) as u32,
        intended_start_ns,
        actual_start_ns: -1,
        end_ns: -1,
        bytes: 0,
        requests: 0,
        misses: 0,
        misses_unanswered: 0,
        retransmissions: 0,
        restarts: 0,
        outcome: BootOutcome::Shed,
        failed_step: -1,
        reason: BootReason::None,
        error_code: -1,
    }
}

/// What a worker keeps of its machines beside their clients.
pub(crate) struct Machines {
    pub(crate) plan: Arc<BootPlan>,
    pub(crate) records: BootRecords,
    /// The run is over: what ends now was interrupted.
    pub(crate) is_over: bool,
    /// Sockets of requests that did not complete, so that their ports do not come again soon.
    retired: VecDeque<Socket>,
}

impl Machines {
    pub(crate) fn new(plan: &Arc<BootPlan>, config: &LoadConfig) -> Machines {
        let records = BootRecords::new(config);
        Machines { plan: plan.clone(), records, is_over: false, retired: VecDeque::new() }
    }

    /// Keeps the port of a request that did not complete for a while.
    pub(crate) fn retire(&mut self, socket: Socket) {
        self.retired.push_back(socket);
        if self.retired.len() > DALLYING_MAX {
            self.retired.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boots::tests::{plan, read};

    const DONE: (TransferOutcome, BootReason) = (TransferOutcome::Completed, BootReason::None);
    const SILENT: (TransferOutcome, BootReason) = (TransferOutcome::TimedOut, BootReason::NoAnswer);
    const REFUSED: (TransferOutcome, BootReason) = (TransferOutcome::Failed, BootReason::Refused);
    const MISSED: (TransferOutcome, BootReason) = (TransferOutcome::Completed, BootReason::Refused);

    /// What a machine with these steps does when its transfers end so, one each second, and how it ended.
    fn booted(steps: Vec<BootStep>, ends: &[(TransferOutcome, BootReason)]) -> (Vec<(usize, u64)>, BootRow) {
        let plan = Arc::new(plan(steps).unwrap());
        let start = Start { number: 4, intended_ns: 1_000 };
        let mut booting = Booting::new(&plan, start, 1_000, std::net::Ipv4Addr::LOCALHOST.into());
        let mut asked = vec![];
        for (index, (outcome, reason)) in ends.iter().enumerate() {
            asked.push((booting.step, booting.due_ns));
            booting.requests += 1;
            let end_ns = (index as u64 + 1) * 10_000;
            let ended = Ended {
                outcome: *outcome,
                error_code: if *reason == BootReason::Refused { 1 } else { -1 },
                reason: *reason,
                started_ns: end_ns - 5_000,
                end_ns,
                bytes: 7,
                retransmissions: 1,
            };
            if let Next::End(end) = booting.step_ended(&ended, false) {
                assert_eq!(index + 1, ends.len(), "it ended early");
                return (asked, booting.row(end, end_ns, 1_000));
            }
        }
        panic!("it goes on: {booting:?}");
    }

    fn missing(name: &str) -> BootStep {
        BootStep { ends: Ends::Missing, size_bytes: None, ..read(name) }
    }

    #[test]
    fn steps_follow_each_other_after_their_pauses_and_the_last_one_ends_the_boot() {
        let steps = vec![read("a"), missing("b"), BootStep { think_ns: 300, ..read("c") }];
        let (asked, row) = booted(steps, &[DONE, MISSED, DONE]);
        assert_eq!(asked, [(0, 1_000), (1, 10_000), (2, 20_300)]);
        assert_eq!((row.outcome, row.failed_step, row.reason), (BootOutcome::Booted, -1, BootReason::None));
        assert_eq!((row.requests, row.misses, row.misses_unanswered, row.restarts), (3, 1, 0, 0));
        assert_eq!((row.bytes, row.retransmissions), (21, 3));
        assert_eq!(
            (row.machine, row.intended_start_ns, row.actual_start_ns, row.end_ns),
            (4, 0, 4_000, 29_000)
        );
    }

    #[test]
    fn a_miss_that_is_not_answered_is_counted_and_the_boot_goes_on() {
        let (_, row) = booted(vec![missing("a"), read("b")], &[SILENT, DONE]);
        assert_eq!((row.outcome, row.misses, row.misses_unanswered), (BootOutcome::Booted, 1, 1));
        let (asked, row) = booted(vec![missing("a"), read("b")], &[DONE, DONE]);
        assert_eq!((asked.len(), row.misses), (2, 0), "the file was there after all");
        assert_eq!(row.outcome, BootOutcome::Booted, "and the boot goes on");
        let (_, row) =
            booted(vec![missing("a"), read("b")], &[(TransferOutcome::TimedOut, BootReason::FellSilent)]);
        assert_eq!((row.outcome, row.failed_step, row.misses), (BootOutcome::Failed, 1, 0));
        let again = BootStep { then: Then::RestartBoot, restarts_max: 1, ..missing("a") };
        let (_, row) = booted(vec![again, read("b")], &[SILENT, MISSED, DONE]);
        assert_eq!((row.outcome, row.misses, row.restarts), (BootOutcome::Booted, 2, 1));
    }

    #[test]
    fn a_file_that_was_to_be_absent_and_is_served_is_noted_once_of_a_machine() {
        let again = BootStep { then: Then::RestartBoot, restarts_max: 1, ..read("b") };
        let plan = Arc::new(plan(vec![missing("a"), again]).unwrap());
        let mut booting =
            Booting::new(&plan, Start { number: 0, intended_ns: 0 }, 0, std::net::Ipv4Addr::LOCALHOST.into());
        let ended = |(outcome, reason)| Ended {
            outcome,
            reason,
            error_code: -1,
            started_ns: 0,
            end_ns: 1,
            bytes: 0,
            retransmissions: 0,
        };
        for (how, noted) in [(DONE, 1), (SILENT, 1), (DONE, 1)] {
            assert_eq!(booting.step_ended(&ended(how), false), Next::Request);
            assert_eq!(booting.served_misses.len(), noted);
        }
        let mut refused =
            Booting::new(&plan, Start { number: 1, intended_ns: 0 }, 0, std::net::Ipv4Addr::LOCALHOST.into());
        refused.step_ended(&ended(MISSED), false);
        assert!(refused.served_misses.is_empty(), "an ERROR is what was expected");
    }

    #[test]
    fn a_step_that_fails_is_begun_anew_as_often_as_the_client_does() {
        let transfer = BootStep { then: Then::RestartTransfer, restarts_max: 2, ..read("b") };
        let (asked, row) = booted(vec![transfer.clone(), transfer], &[SILENT, DONE, SILENT, REFUSED, DONE]);
        assert_eq!(asked.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
        assert_eq!((row.outcome, row.restarts), (BootOutcome::Booted, 3));

        let boot = BootStep { then: Then::RestartBoot, restarts_max: 1, ..read("b") };
        let first = BootStep { think_ns: 500, ..read("a") };
        let (asked, row) = booted(vec![first, boot], &[DONE, SILENT, DONE, REFUSED]);
        assert_eq!(asked, [(0, 1_000), (1, 10_000), (0, 20_500), (1, 30_000)]);
        assert_eq!((row.outcome, row.failed_step, row.restarts), (BootOutcome::Failed, 2, 1));
        assert_eq!((row.reason, row.error_code), (BootReason::Refused, 1));

        let (_, row) = booted(vec![read("a"), read("b")], &[SILENT]);
        assert_eq!(
            (row.outcome, row.failed_step, row.reason),
            (BootOutcome::Failed, 1, BootReason::NoAnswer)
        );
    }

    #[test]
    fn wrong_bytes_a_deadline_and_the_end_of_the_run_end_a_boot_whatever_the_client_would_do() {
        let again = BootStep { then: Then::RestartTransfer, restarts_max: 9, ..read("b") };
        for (ended, outcome, reason) in [
            (
                (TransferOutcome::Completed, BootReason::WrongBytes),
                BootOutcome::Failed,
                BootReason::WrongBytes,
            ),
            ((TransferOutcome::Failed, BootReason::WrongBytes), BootOutcome::Failed, BootReason::WrongBytes),
            ((TransferOutcome::Late, BootReason::FellSilent), BootOutcome::Late, BootReason::None),
            (
                (TransferOutcome::Interrupted, BootReason::FellSilent),
                BootOutcome::Interrupted,
                BootReason::None,
            ),
        ] {
            let (_, row) = booted(vec![read("a"), again.clone()], &[DONE, ended]);
            assert_eq!((row.outcome, row.reason, row.failed_step), (outcome, reason, 2));
        }
    }
}
