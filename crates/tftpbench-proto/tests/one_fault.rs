//! One fault in an otherwise clean transfer, at each of its datagrams in turn: the request, the OACK, ACK 0, the first
//! block, those in the middle, the last, and every ACK; both ways, in virtual time.

mod simulation;

use simulation::{Fault, Impairment, MS, Report, Setup, simulate};
use tftpbench_proto::{Operation, Options, Timing};

const TIMEOUT_MS: u64 = 1_000;
const FIXED: Timing = Timing { adaptive_floor_ns: None, timeout_ns: TIMEOUT_MS * MS, ..simulation::ADAPTIVE };
/// Of 512 bytes without options; else the last window is shorter than the others.
const BLOCKS: u64 = 11;

/// With each windowsize; lock-step also without any option.
fn setups() -> impl Iterator<Item = (u64, Setup)> {
    let asked = |windowsize| Options {
        blksize: Some(512),
        windowsize: (windowsize > 1).then_some(windowsize),
        ..Options::default()
    };
    let all = [(1, Options::default()), (1, asked(1)), (2, asked(2)), (4, asked(4)), (16, asked(16))];
    let ways = [Operation::Read, Operation::Write];
    ways.into_iter().flat_map(move |operation| {
        all.map(|(windowsize, asked)| {
            (windowsize, Setup { timing: FIXED, ..Setup::new(operation, 512 * (BLOCKS - 1), asked) })
        })
    })
}

/// Completes it with this fault at this datagram.
fn with_fault(setup: &Setup, number: u64, fault: Fault) -> Report {
    let link = Impairment { fault: Some((number, fault)), ..setup.link };
    let report = simulate(&Setup { link, ..*setup });
    assert!(report.completed(), "{fault:?} at {number}: {setup:?}: {report:?}");
    assert_eq!(report.received_bytes, setup.length, "{fault:?} at {number}: {setup:?}");
    report
}

/// The cost of a fault at each datagram, beside that of none.
fn each(fault: Fault, mut check: impl FnMut(u64, u64, &Report, &Report)) {
    for (windowsize, setup) in setups() {
        let clean = simulate(&setup);
        assert_eq!(clean.data_datagrams, BLOCKS);
        for number in 0..clean.datagrams {
            check(windowsize, number, &clean, &with_fault(&setup, number, fault));
        }
    }
}

/// Where a window's last block is lost the timers of both sides run out, and each repeats its last word.
#[test]
fn any_lost_datagram_costs_a_time_out_and_less_than_two_windows() {
    each(Fault::Lost, |windowsize, number, clean, report| {
        let again = report.data_datagrams - clean.data_datagrams;
        assert!(again < 2 * windowsize, "datagram {number}, windowsize {windowsize}: {report:?}");
        let lost_ns = report.duration_ns - clean.duration_ns;
        assert!(lost_ns < (TIMEOUT_MS + 10) * MS, "datagram {number}, windowsize {windowsize}: {report:?}");
    });
}

/// RFC 1123 section 4.2.3.1 for lock-step. A larger window must take a repeated ACK for the report of a loss, once.
#[test]
fn any_doubled_datagram_costs_no_time_and_a_window_at_most() {
    each(Fault::Doubled, |windowsize, number, clean, report| {
        let again = report.data_datagrams - clean.data_datagrams;
        let due = if windowsize == 1 { 0 } else { windowsize };
        assert!(again <= due, "datagram {number}, windowsize {windowsize}: {report:?}");
        assert!(report.duration_ns < clean.duration_ns + MS, "datagram {number}: {report:?}");
    });
}

/// Later than several round trips, but sooner than any deadline.
#[test]
fn any_late_datagram_costs_a_window_at_most() {
    each(Fault::Late(20 * MS), |windowsize, number, clean, report| {
        let again = report.data_datagrams - clean.data_datagrams;
        assert!(again <= windowsize, "datagram {number}, windowsize {windowsize}: {report:?}");
        assert!(report.duration_ns <= clean.duration_ns + 21 * MS, "datagram {number}: {report:?}");
    });
}

/// It was sent again meanwhile, and is a stray from the past when it comes.
#[test]
fn any_datagram_later_than_the_time_out_costs_a_time_out_and_two_windows_at_most() {
    each(Fault::Late((TIMEOUT_MS + 1) * MS), |windowsize, number, clean, report| {
        let again = report.data_datagrams - clean.data_datagrams;
        assert!(again <= 2 * windowsize, "datagram {number}, windowsize {windowsize}: {report:?}");
        let lost_ns = report.duration_ns - clean.duration_ns;
        assert!(lost_ns < (TIMEOUT_MS + 10) * MS, "datagram {number}: {report:?}");
    });
}

/// RFC 7440 section 4: the block behind the gap tells. Only a window's last block has none behind it.
#[test]
fn a_block_lost_inside_a_window_costs_no_time_out() {
    for operation in [Operation::Read, Operation::Write] {
        let asked = Options { blksize: Some(512), windowsize: Some(4), ..Options::default() };
        let setup = Setup { timing: FIXED, ..Setup::new(operation, 512 * 15, asked) };
        // The first block leaves behind the request, the OACK and, in a read, ACK 0.
        let first = if operation == Operation::Read { 3 } else { 2 };
        for index in 0..16 {
            // Four blocks and their ACK a window.
            let report = with_fault(&setup, first + index / 4 * 5 + index % 4, Fault::Lost);
            let timed_out = report.sender_counts.timeouts + report.receiver_counts.timeouts > 0;
            assert_eq!(timed_out, index % 4 == 3, "block {}: {report:?}", index + 1);
        }
    }
}
