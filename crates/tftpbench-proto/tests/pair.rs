//! A sender against a receiver over a bad link, in virtual time; and one fault in an otherwise clean transfer, at each of
//! its datagrams in turn. The simulation checks each received byte.
//!
//! Last the snapshot grid: what windowsize and loss cost together. A change of the retransmission rules shows as a diff of
//! numbers to be judged, and accepted with `cargo insta review`.

mod simulation;

use std::fmt::Write as _;

use simulation::{ADAPTIVE, Fault, Impairment, MS, Report, Setup, simulate};
use tftpbench_proto::{Backoff, Limits, Operation, Options, Outcome, Rollover, Timing};

const BOTH: [Operation; 2] = [Operation::Read, Operation::Write];
const TIMEOUT_MS: u64 = 1_000;
const FIXED: Timing = Timing { adaptive_floor_ns: None, timeout_ns: TIMEOUT_MS * MS, ..ADAPTIVE };
/// Of 512 bytes without options; else the last window is shorter than the others.
const BLOCKS: u64 = 11;

fn options(blksize: u16, windowsize: u16) -> Options {
    Options { blksize: Some(blksize), windowsize: Some(windowsize), ..Options::default() }
}

fn complete(setup: &Setup) -> Report {
    let report = simulate(setup);
    assert!(report.completed(), "{setup:?}: {report:?}");
    assert_eq!(report.received_bytes, setup.length);
    report
}

#[test]
fn a_clean_link_carries_each_block_once() {
    for operation in BOTH {
        for windowsize in [1, 2, 3, 8, 64] {
            for length in [0, 1, 7, 8, 9, 16, 8 * 64, 8 * 64 + 1, 8 * 65] {
                let report = complete(&Setup::new(operation, length, options(8, windowsize)));
                assert_eq!(report.data_datagrams, length / 8 + 1);
                assert_eq!(report.sender_counts.retransmissions + report.receiver_counts.retransmissions, 0);
                assert_eq!(report.sender_counts.duplicates + report.receiver_counts.duplicates, 0);
            }
        }
    }
}

/// However small the first window's bound after a time-out may be: where nothing is lost, no side waits for a timer.
#[test]
fn a_clean_link_needs_no_timer_whatever_the_window() {
    for operation in BOTH {
        for windowsize in [2, 16, 64] {
            for windows in 1..=100 {
                for blocks in [windows * u64::from(windowsize) - 1, windows * u64::from(windowsize)] {
                    let report = complete(&Setup::new(operation, 8 * blocks, options(8, windowsize)));
                    let timeouts = report.sender_counts.timeouts + report.receiver_counts.timeouts;
                    assert_eq!((timeouts, report.data_datagrams), (0, blocks + 1), "{windowsize}: {blocks}");
                }
            }
        }
    }
}

/// An OACK, then a window on the round trip that it showed; nothing is known of the time that a receiver takes to
/// store.
#[test]
fn a_first_window_that_takes_longer_than_the_timer_costs_one_block_and_no_timer_of_the_receiver() {
    // 64 datagrams take 640 us of the link, and a round trip less than 200 us.
    let link = Impairment { delay_ns: MS / 20, ..Impairment::default() };
    let timing = Timing { adaptive_floor_ns: Some(MS / 2), ..ADAPTIVE };
    let report =
        complete(&Setup { link, timing, ..Setup::new(Operation::Read, 8 * 64 * 20, options(8, 64)) });
    assert_eq!(report.receiver_counts.timeouts, 0, "{report:?}");
    assert!(report.sender_counts.retransmissions < 2 * 64, "{report:?}");
}

/// The window that the receiver's report of a gap brought may be lost as the first one was, and so may what follows.
#[test]
fn the_first_block_may_be_lost_several_times() {
    for operation in BOTH {
        for windowsize in [1, 2, 16, 64] {
            for times in 1..=5 {
                let link = Impairment { data_lost: Some((1, times)), ..Impairment::default() };
                complete(&Setup { link, ..Setup::new(operation, 8 * 64 * 3, options(8, windowsize)) });
            }
        }
    }
}

#[test]
fn without_options_there_is_no_oack() {
    for (operation, datagrams) in [(Operation::Read, 1 + 2 * 3), (Operation::Write, 2 + 2 * 3)] {
        let report = complete(&Setup::new(operation, 1024, Options::default()));
        assert_eq!((report.datagrams, report.agreed.map(|agreed| agreed.blksize)), (datagrams, Some(512)));
    }
}

#[test]
fn a_window_has_one_ack() {
    let report = complete(&Setup::new(Operation::Read, 8 * 99, options(8, 10)));
    // RRQ, OACK, ACK 0, 100 DATA and an ACK for ten each.
    assert_eq!(report.datagrams, 3 + 100 + 10);
}

#[test]
fn the_servers_limits_hold() {
    let limits = Limits { blksize: 16, windowsize: 3, ..Limits::NONE };
    let report = complete(&Setup { limits, ..Setup::new(Operation::Write, 1000, options(1428, 64)) });
    assert_eq!(report.agreed.map(|agreed| (agreed.blksize, agreed.windowsize)), Some((16, 3)));
}

#[test]
fn every_transfer_survives_loss_doubling_reordering_and_delay() {
    for operation in BOTH {
        for windowsize in [1, 2, 5, 16, 64] {
            for (loss, duplicate, reorder) in [(100, 0, 0), (0, 200, 0), (0, 0, 200), (100, 100, 100)] {
                for seed in 0..4 {
                    let link = Impairment {
                        loss,
                        duplicate,
                        reorder,
                        delay_ns: seed * 3 * MS,
                        ..Impairment::default()
                    };
                    complete(&Setup { link, seed, ..Setup::new(operation, 8 * 200, options(8, windowsize)) });
                }
            }
        }
    }
}

/// The last ACK may be lost more often than a receiver dallies; but then the file is there.
#[test]
fn a_link_that_loses_a_third_ends_in_a_verdict_on_both_sides() {
    for operation in BOTH {
        for seed in 0..20 {
            let link = Impairment { loss: 333, delay_ns: MS, ..Impairment::default() };
            let report = simulate(&Setup { link, seed, ..Setup::new(operation, 8 * 50, options(8, 4)) });
            assert!(
                report.sender.is_some_and(|outcome| outcome != Outcome::Completed)
                    || report.received_bytes == 400
            );
        }
    }
}

/// RFC 1123 section 4.2.3.1: where every datagram is doubled, the file must not be.
#[test]
fn doubled_datagrams_do_not_raise_the_sorcerers_apprentice() {
    for operation in BOTH {
        let link = Impairment { duplicate: 1000, delay_ns: MS, ..Impairment::default() };
        let report = complete(&Setup { link, ..Setup::new(operation, 8 * 300, options(8, 1)) });
        assert_eq!((report.data_datagrams, report.sender_counts.retransmissions), (301, 0));
    }
}

#[test]
fn reordering_inside_windows_raises_no_storm() {
    for seed in 0..10 {
        let link = Impairment { reorder: 50, delay_ns: MS, ..Impairment::default() };
        let report = complete(&Setup { link, seed, ..Setup::new(Operation::Read, 8 * 1000, options(8, 4)) });
        assert!(report.data_datagrams < 1001 * 5 / 4, "{report:?}");
    }
}

#[test]
fn files_of_more_than_65535_blocks_roll_over() {
    for operation in BOTH {
        for rollover in [None, Some(Rollover::Zero), Some(Rollover::One)] {
            for windowsize in [1, 7, 64] {
                let asked = Options { rollover, ..options(8, windowsize) };
                let report = complete(&Setup::new(operation, 8 * 131_100, asked));
                assert_eq!(report.data_datagrams, 131_101);
            }
        }
    }
}

#[test]
fn windows_across_the_rollover_survive_loss() {
    for rollover in [Rollover::Zero, Rollover::One] {
        for seed in 0..3 {
            let link = Impairment { loss: 20, reorder: 20, delay_ns: MS / 10, ..Impairment::default() };
            let asked = Options { rollover: Some(rollover), ..options(8, 32) };
            complete(&Setup { link, seed, ..Setup::new(Operation::Read, 8 * 65_600, asked) });
        }
    }
}

#[test]
fn the_largest_window_holds_a_whole_round_of_numbers() {
    for rollover in [Rollover::Zero, Rollover::One] {
        let asked = Options { rollover: Some(rollover), ..options(8, 65_535) };
        // Such a window is longer under way than an adaptive timer's first guess.
        let timing = Timing { adaptive_floor_ns: None, ..ADAPTIVE };
        let report = complete(&Setup { timing, ..Setup::new(Operation::Read, 8 * 200_000, asked) });
        assert_eq!(report.data_datagrams, 200_001);
    }
}

#[test]
fn a_blackout_delays_but_does_not_end_a_transfer() {
    for operation in BOTH {
        let link = Impairment { delay_ns: MS, blackout_ns: (20 * MS, 3020 * MS), ..Impairment::default() };
        let report = complete(&Setup { link, ..Setup::new(operation, 8 * 100, options(8, 4)) });
        assert!((3020 * MS..8000 * MS).contains(&report.duration_ns), "{report:?}");
    }
}

#[test]
fn both_sides_give_up_on_a_dead_link() {
    for operation in BOTH {
        let link = Impairment { delay_ns: MS, blackout_ns: (20 * MS, u64::MAX), ..Impairment::default() };
        let timing = Timing { backoff: Backoff::Constant, retries: 4, ..ADAPTIVE };
        let report = simulate(&Setup { link, timing, ..Setup::new(operation, 8 * 100, options(8, 4)) });
        assert_eq!((report.sender, report.receiver), (Some(Outcome::TimedOut), Some(Outcome::TimedOut)));
        assert_eq!((report.sender_counts.timeouts, report.receiver_counts.timeouts), (5, 5));
    }
}

#[test]
fn an_adaptive_timer_recovers_sooner_than_a_fixed_one() {
    let link = Impairment { loss: 30, delay_ns: MS, ..Impairment::default() };
    let setup = Setup { link, ..Setup::new(Operation::Read, 8 * 500, options(8, 1)) };
    let fixed = Setup { timing: Timing { adaptive_floor_ns: None, ..ADAPTIVE }, ..setup };
    assert!(complete(&setup).duration_ns * 5 < complete(&fixed).duration_ns);
}

#[test]
fn a_round_trip_longer_than_the_first_interval_is_learned() {
    for operation in BOTH {
        let link = Impairment { delay_ns: 900 * MS, ..Impairment::default() };
        let report = complete(&Setup { link, ..Setup::new(operation, 8 * 50, options(8, 1)) });
        assert!(report.sender_counts.retransmissions < 5, "{report:?}");
    }
}

#[test]
fn a_seed_gives_the_same_transfer_twice() {
    let link = Impairment { loss: 100, duplicate: 100, reorder: 100, delay_ns: MS, ..Impairment::default() };
    let setup = Setup { link, seed: 7, ..Setup::new(Operation::Write, 8 * 300, options(8, 8)) };
    assert_eq!(format!("{:?}", simulate(&setup)), format!("{:?}", simulate(&setup)));
}

/// With each windowsize; lock-step also without any option.
fn setups() -> impl Iterator<Item = (u64, Setup)> {
    let asked = |windowsize| Options {
        blksize: Some(512),
        windowsize: (windowsize > 1).then_some(windowsize),
        ..Options::default()
    };
    let all = [(1, Options::default()), (1, asked(1)), (2, asked(2)), (4, asked(4)), (16, asked(16))];
    BOTH.into_iter().flat_map(move |operation| {
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
    for operation in BOTH {
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

const SEEDS: u64 = 5;

fn grid(timing: Timing, disorder: Impairment) -> String {
    let mut table = String::from("windowsize  loss %  duration ms  datagrams  retransmissions  timeouts\n");
    for windowsize in [1, 4, 16, 64] {
        for loss in [0, 10, 50, 100] {
            let link = Impairment { loss, delay_ns: MS, ..disorder };
            let reports: Vec<Report> =
                (0..SEEDS).map(|seed| transfer(windowsize, link, timing, seed)).collect();
            let mean = |figure: fn(&Report) -> u64| reports.iter().map(figure).sum::<u64>() / SEEDS;
            let _ = writeln!(
                table,
                "{windowsize:>10} {:>7} {:>12} {:>10} {:>16} {:>9}",
                loss / 10,
                mean(|report| report.duration_ns) / MS,
                mean(|report| report.datagrams),
                mean(|report| report.sender_counts.retransmissions + report.receiver_counts.retransmissions),
                mean(|report| report.sender_counts.timeouts + report.receiver_counts.timeouts),
            );
        }
    }
    table
}

/// 512 blocks and an empty one.
fn transfer(windowsize: u16, link: Impairment, timing: Timing, seed: u64) -> Report {
    let asked = Options { blksize: Some(512), windowsize: Some(windowsize), ..Options::default() };
    let setup = Setup { timing, link, seed, ..Setup::new(Operation::Read, 512 * 512, asked) };
    let report = simulate(&setup);
    assert!(report.completed(), "{setup:?}: {report:?}");
    report
}

#[test]
fn cost_of_windowsize_and_loss_with_an_adaptive_timer() {
    insta::assert_snapshot!(grid(ADAPTIVE, Impairment::default()), @r"
    windowsize  loss %  duration ms  datagrams  retransmissions  timeouts
             1       0         1039       1029                0         0
             1       1         1283       1053               24        18
             1       5         2329       1131              102        80
             1      10         4653       1257              228       189
             4       0          267        645                0         0
             4       1          361        682               35         6
             4       5          625        784              130        24
             4      10         1378        939              270        53
            16       0           74        549                0         0
            16       1           93        623               71         1
            16       5          241        862              299         6
            16      10          656       1269              689        19
            64       0           26        525                0         0
            64       1           41        823              295         0
            64       5          120       1894             1349         3
            64      10          620       3820             3250        17
    ");
}

#[test]
fn cost_of_windowsize_and_loss_with_a_fixed_timer() {
    insta::assert_snapshot!(grid(Timing { adaptive_floor_ns: None, ..ADAPTIVE }, Impairment::default()), @r"
    windowsize  loss %  duration ms  datagrams  retransmissions  timeouts
             1       0         1039       1029                0         0
             1       1        13239       1053               24        18
             1       5        65239       1132              103        80
             1      10       168039       1260              231       189
             4       0          267        645                0         0
             4       1         4673        682               35         6
             4       5        16697        786              131        24
             4      10        44326        937              269        55
            16       0           74        549                0         0
            16       1          681        623               71         1
            16       5         5903        871              308         6
            16      10        15932       1263              685        19
            64       0           26        525                0         0
            64       1          433        823              295         0
            64       5         3465       1927             1382         4
            64      10        14105       3735             3167        16
    ");
}

#[test]
fn cost_of_windowsize_and_loss_on_a_link_that_also_doubles_and_reorders() {
    insta::assert_snapshot!(grid(
        ADAPTIVE,
        Impairment { duplicate: 20, reorder: 20, ..Impairment::default() }
    ), @r"
    windowsize  loss %  duration ms  datagrams  retransmissions  timeouts
             1       0         1040       1040               11         0
             1       1         1268       1060               31        17
             1       5         2290       1148              119        84
             1      10         4620       1277              248       194
             4       0          276        668               20         0
             4       1          328        697               47         2
             4       5          717        821              163        25
             4      10         1522        986              312        57
            16       0           84        653               93         0
            16       1          114        716              154         1
            16       5          213        967              393         6
            16      10         1066       1424              830        21
            64       0           38        924              382         0
            64       1           55       1220              674         0
            64       5          168       2389             1826         4
            64      10          709       4689             4099        19
    ");
}
