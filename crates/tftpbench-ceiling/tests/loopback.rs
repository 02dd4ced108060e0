//! Real exchanges over loopback, as short as they can be.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use tftpbench_ceiling::{Arrangement, Asking, CeilingError, Cell, Operation, Report, Window, measure};
use tftpbench_net::Stop;

const MS: u64 = 1_000_000;
const SHORT: Window = Window { warm_up_ns: 20 * MS, window_ns: 50 * MS };
const PLAIN: Arrangement = Arrangement {
    asking: Asking::Shared(1),
    answering_sockets: 1,
    batch: 64,
    waits_in_receive: false,
    is_connected: false,
    pairs: 1,
};
const OPERATIONS: [Operation; 2] = [Operation::Read, Operation::Write];

fn cell(operation: Operation, flows: usize, windowsize: usize, blksize: usize) -> Cell {
    Cell {
        operation,
        flows,
        windowsize,
        blksize,
        answering_cpus: Vec::new(),
        asking_cpus: Vec::new(),
        answering_spin_ns: 0,
        asking_spin_ns: 0,
        network: None,
    }
}

/// On a busy machine a side may not get to run inside a short window, so the next one is longer.
fn measured(cell: &Cell, arrangement: Arrangement) -> Report {
    let (mut window, stop) = (SHORT, Stop::new().unwrap());
    loop {
        let report = measure(cell, &arrangement, window, &stop, || {}).unwrap().unwrap();
        window.window_ns *= 4;
        if report.datagrams > (cell.flows * cell.windowsize) as u64 || window.window_ns > 10_000 * MS {
            return report;
        }
    }
}

#[test]
fn every_arrangement_moves_datagrams_both_ways() {
    for operation in OPERATIONS {
        for asking in [Asking::Shared(1), Asking::Shared(3), Asking::PerFlow] {
            for (answering_sockets, waits_in_receive) in [(1, false), (1, true), (2, true), (7, false)] {
                let arrangement = Arrangement { asking, answering_sockets, waits_in_receive, ..PLAIN };
                let report = measured(&cell(operation, 7, 1, 512), arrangement);
                assert!(report.datagrams > 7, "{operation:?} {arrangement:?} {report:?}");
                assert!(report.window_ns >= SHORT.window_ns && report.data_pps() > 0.0);
            }
        }
    }
}

#[test]
fn windows_move_whole_also_where_a_run_is_longer_than_the_kernel_takes() {
    for operation in OPERATIONS {
        for (windowsize, blksize) in [(16, 512), (64, 1428), (100, 8), (3, 65_464)] {
            for batch in [1, 64] {
                let report =
                    measured(&cell(operation, 3, windowsize, blksize), Arrangement { batch, ..PLAIN });
                assert!(
                    report.datagrams > windowsize as u64,
                    "{operation:?} {windowsize} x {blksize}: {report:?}"
                );
                if operation == Operation::Write {
                    assert_eq!(report.datagrams % windowsize as u64, 0);
                }
            }
        }
    }
}

#[test]
fn both_sides_may_poll_without_sleeping() {
    for waits_in_receive in [false, true] {
        let spinning =
            Cell { answering_spin_ns: u64::MAX, asking_spin_ns: MS, ..cell(Operation::Read, 3, 1, 512) };
        assert!(measured(&spinning, Arrangement { waits_in_receive, ..PLAIN }).datagrams > 3);
    }
}

#[test]
fn sockets_that_know_their_peer_move_datagrams_both_ways_asleep_or_not() {
    for operation in OPERATIONS {
        for (windowsize, spin_ns, waits_in_receive) in
            [(1, 0, false), (1, u64::MAX, true), (1, MS, true), (16, 0, false)]
        {
            let cell = Cell {
                answering_spin_ns: spin_ns,
                asking_spin_ns: spin_ns.min(MS),
                ..cell(operation, 3, windowsize, 512)
            };
            let arrangement = Arrangement {
                asking: Asking::PerFlow,
                answering_sockets: 3,
                batch: 1,
                waits_in_receive,
                is_connected: true,
                pairs: 1,
            };
            let report = measured(&cell, arrangement);
            assert!(report.datagrams > 3, "{operation:?} {windowsize} {spin_ns} {report:?}");
        }
    }
}

#[test]
fn pairs_share_the_flows() {
    let cpus = tftpbench_net::cpus::allowed().unwrap();
    let cell = Cell { answering_cpus: cpus.clone(), asking_cpus: cpus, ..cell(Operation::Read, 5, 1, 512) };
    assert!(measured(&cell, Arrangement { pairs: 2, ..PLAIN }).datagrams > 5);
}

#[test]
fn many_flows_all_get_going() {
    // One socket a side would be overrun; each flow has at most one datagram waiting.
    let arrangement = Arrangement { asking: Asking::Shared(16), answering_sockets: 16, ..PLAIN };
    let report = measured(&cell(Operation::Read, 5_000, 1, 512), arrangement);
    assert!(report.datagrams > 5_000, "{report:?}");
}

#[test]
fn a_stop_ends_it_at_once() {
    let stop = Stop::new().unwrap();
    let long = Window { warm_up_ns: 0, window_ns: 3_600_000 * MS };
    let mut looks = 0;
    let report = measure(&cell(Operation::Read, 2, 1, 512), &PLAIN, long, &stop, || {
        looks += 1;
        if looks == 3 {
            stop.request();
        }
    });
    assert_eq!(report.unwrap(), None);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_name_of_the_value() {
    let refused = |cell: &Cell, arrangement: Arrangement| match measure(
        cell,
        &arrangement,
        SHORT,
        &Stop::new().unwrap(),
        || {},
    ) {
        Err(CeilingError::Config(text)) => text.split(':').next().unwrap().to_owned(),
        other => panic!("{other:?}"),
    };
    let good = cell(Operation::Read, 2, 1, 512);
    assert_eq!(refused(&cell(Operation::Read, 0, 1, 512), PLAIN), "flows");
    assert_eq!(refused(&cell(Operation::Read, 1, 0, 512), PLAIN), "windowsize");
    assert_eq!(refused(&cell(Operation::Read, 1, 1, 0), PLAIN), "blksize");
    assert_eq!(refused(&good, Arrangement { pairs: 3, ..PLAIN }), "pairs");
    assert_eq!(refused(&good, Arrangement { is_connected: true, ..PLAIN }), "is_connected");
    assert_eq!(refused(&good, Arrangement { batch: 0, ..PLAIN }), "batch");
    assert_eq!(refused(&good, Arrangement { answering_sockets: 0, ..PLAIN }), "answering_sockets");
    assert_eq!(refused(&good, Arrangement { asking: Asking::Shared(0), ..PLAIN }), "shared_sockets");
    assert_eq!(refused(&good, Arrangement { asking: Asking::Ring, ..PLAIN }), "ring");
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_and_not_a_hang() {
    let nowhere = Cell { answering_cpus: vec![8_191], ..cell(Operation::Read, 2, 1, 512) };
    let refused = measure(&nowhere, &PLAIN, SHORT, &Stop::new().unwrap(), || {});
    assert!(matches!(refused, Err(CeilingError::Os { .. })), "{refused:?}");
}
