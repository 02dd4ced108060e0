//! The snapshot grid: what windowsize and loss cost together. A change of the retransmission rules shows as a
//! diff of numbers to be judged, and accepted with `INSTA_UPDATE=always cargo test -p tftpbench-proto --test
//! grid`.

mod simulation;

use std::fmt::Write as _;

use simulation::{ADAPTIVE, Impairment, MS, Report, Setup, simulate};
use tftpbench_proto::{Operation, Options, Timing};

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
    insta::assert_snapshot!(grid(ADAPTIVE, Impairment::default()));
}

#[test]
fn cost_of_windowsize_and_loss_with_a_fixed_timer() {
    insta::assert_snapshot!(grid(Timing { adaptive_floor_ns: None, ..ADAPTIVE }, Impairment::default()));
}

#[test]
fn cost_of_windowsize_and_loss_on_a_link_that_also_doubles_and_reorders() {
    insta::assert_snapshot!(grid(
        ADAPTIVE,
        Impairment { duplicate: 20, reorder: 20, ..Impairment::default() }
    ));
}
