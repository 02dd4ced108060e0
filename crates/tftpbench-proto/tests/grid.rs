//! The snapshot grid: what windowsize and loss cost together. A change of the retransmission rules shows as a
//! diff of numbers to be judged, and accepted with `cargo insta review`.

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
