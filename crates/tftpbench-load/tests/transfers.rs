//! The generator against a peer over real sockets: what it moves, what it measures, what it survives. Where the way to
//! the socket could matter, all arrangements are shown.
#![allow(clippy::unwrap_used, reason = "a panic is the report")]

mod endings;
mod peer;
mod place;

use std::collections::BTreeSet;

use peer::{Faults, Peer, SEED, Seen};
use place::{Place, has_ipv6_rings, ways};
use tftpbench_load::contents::Generated;
use tftpbench_load::{
    Arrivals, Extent, Figure, HostShare, LoadConfig, LoadReport, Notice, Rate, Rows, Sockets, Spacing,
    Starts, TransferOutcome, Verify, run,
};
use tftpbench_net::{Stop, clock};
use tftpbench_proto::{Backoff, Limits, Operation, Options, Rollover, Timing};

const MS: u64 = 1_000_000;
const SIZE: u64 = 20_000;
const BOTH: [Sockets; 2] = [Sockets::Shared, Sockets::PerTransfer];
const DIRECTIONS: [Operation; 2] = [Operation::Read, Operation::Write];

/// Six transfers of different files, three at a time, by clients with long timeouts.
/// So many transfers in flight, from the first moment on.
fn at_once(concurrency: usize) -> Arrivals {
    Arrivals::ClosedLoop { concurrency, ramp_ns: 0 }
}

fn config(sockets: Sockets) -> LoadConfig {
    LoadConfig {
        server: "127.0.0.1:1".parse().unwrap(),
        allow_remote: false,
        operation: Operation::Read,
        name: "f-{n}".to_owned(),
        distinct_files: 0,
        file_size_bytes: SIZE,
        size_is_known: false,
        seed: SEED,
        verify: Verify::Full,
        verify_against: Vec::new(),
        show_payload: false,
        options: Options::default(),
        timing: timing(2_000 * MS),
        arrivals: at_once(3),
        share: HostShare::WHOLE,
        workers: 1,
        cpus: Vec::new(),
        sockets,
        network: None,
        extent: Extent::Transfers { count: 6, limit_ns: 60_000 * MS },
        drain_ns: 1_000 * MS,
        busy_poll_ns: 0,
        brake: tftpbench_load::Brake::default(),
        watch_for_answer: false,
        receive_buffer_bytes: 0,
        boots: None,
        rows: Rows::All,
        rows_max: 5_000_000,
    }
}

fn timing(timeout_ns: u64) -> Timing {
    let backoff = Backoff::Constant;
    Timing { timeout_ns, retries: 1_000, backoff, adaptive_floor_ns: None, timeout_max_ns: timeout_ns }
}

/// Runs it against a peer of its own; what must hold of every run is checked here.
fn load(mut config: LoadConfig, faults: Faults) -> (LoadReport, Seen) {
    let place = Place::of(&mut config);
    let peer = Peer::start(&place, config.file_size_bytes, faults);
    config.server = peer.address;
    let report = run(&config, &Stop::new().unwrap(), |_| {}).unwrap();
    assert_adds_up(&report);
    let sent_again: u64 = report.intervals.iter().map(|interval| interval.retransmissions).sum();
    assert_eq!(whole(&report, "retransmissions"), sent_again, "rows and intervals agree");
    let moved: u64 = report.intervals.iter().map(|interval| interval.bytes).sum();
    assert_eq!(report.transfers.iter().map(|row| row.bytes).sum::<u64>(), moved, "rows and intervals agree");
    (report, peer.finish())
}

/// Every transfer that was intended is counted once, and intervals say the same.
fn assert_adds_up(report: &LoadReport) {
    let ended = ["completed", "failed", "timed_out", "interrupted", "late"].map(|name| whole(report, name));
    let [intended, started, shed] = ["intended", "started", "shed"].map(|name| whole(report, name));
    assert_eq!(started, ended.iter().sum::<u64>());
    assert_eq!(intended, started + shed);
    let sums = report.intervals.iter().fold((0, 0), |sum, each| (sum.0 + each.started, sum.1 + each.shed));
    assert_eq!((started, shed), sums, "figures and intervals agree");
}

/// As `load`, and every transfer is right to the last byte.
fn load_completely(config: LoadConfig, faults: Faults) -> (LoadReport, Seen) {
    let Extent::Transfers { count, .. } = config.extent else { panic!("fixed work only") };
    let (operation, size) = (config.operation, config.file_size_bytes);
    let (report, seen) = load(config, faults);
    assert_eq!(whole(&report, "completed"), count, "{:?}", report.faults);
    assert_eq!(whole(&report, "content_mismatches"), 0);
    match operation {
        Operation::Read => assert_eq!(whole(&report, "bytes_verified"), count * size),
        Operation::Write => {
            assert_eq!(seen.uploads.len() as u64, count);
            for (name, upload) in &seen.uploads {
                assert!(*upload == contents(name[2..].parse().unwrap(), size), "{name}");
            }
        }
    }
    (report, seen)
}

fn contents(file: u64, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    Generated::new(SEED, file).fill(0, &mut bytes);
    bytes
}

fn figure(report: &LoadReport, name: &str) -> f64 {
    match report.figures.iter().find(|(known, _)| *known == name) {
        Some((_, Some(Figure::Whole(value)))) => *value as f64,
        Some((_, Some(Figure::Real(value)))) => *value,
        _ => panic!("{name} is not known"),
    }
}

/// Whether a percentile is said to be never; its figure is null then, and known where it is not.
fn is_never(report: &LoadReport, name: &str) -> bool {
    let find =
        |name: &str| report.figures.iter().find(|(known, _)| *known == name).and_then(|(_, value)| *value);
    let Some(Figure::Truth(is_never)) = find(&format!("{name}_is_never")) else { panic!("{name}_is_never") };
    assert_eq!(find(name).is_none(), is_never, "{name}");
    is_never
}

fn whole(report: &LoadReport, name: &str) -> u64 {
    figure(report, name) as u64
}

fn blocks(report: &LoadReport) -> u64 {
    report.intervals.iter().map(|interval| interval.blocks).sum()
}

#[test]
fn a_window_is_acknowledged_once_in_both_directions() {
    // Beside other work the peer would send again, and be answered again.
    let patient = Faults { never_repeats: true, ..Faults::default() };
    for (sockets, operation) in ways().into_iter().flat_map(|sockets| DIRECTIONS.map(|way| (sockets, way))) {
        let options = Options { windowsize: Some(8), ..Options::default() };
        let (report, seen) = load_completely(LoadConfig { operation, options, ..config(sockets) }, patient);
        // 40 blocks are 5 windows; a read acknowledges the OACK, too.
        assert_eq!(blocks(&report), 6 * 40);
        match operation {
            Operation::Read => assert_eq!(seen.acks, 6 * 6),
            Operation::Write => assert_eq!(seen.blocks, 6 * 40),
        }
        assert_eq!(whole(&report, "retransmissions"), 0);
        assert_eq!(whole(&report, "block_rtt_left_out"), 0);
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

#[test]
fn every_blksize_moves_as_many_blocks_as_it_should() {
    for (sockets, operation) in ways().into_iter().flat_map(|sockets| DIRECTIONS.map(|way| (sockets, way))) {
        for (blksize, expected) in [(8, 2_501), (1_000, 21), (1_428, 15), (65_464, 1)] {
            let options = Options { blksize: Some(blksize), ..Options::default() };
            let (report, _) =
                load_completely(LoadConfig { operation, options, ..config(sockets) }, Faults::default());
            assert_eq!(blocks(&report), 6 * expected, "blksize {blksize}");
        }
    }
}

#[test]
fn rings_carry_ipv6_as_they_carry_ipv4_lost_datagrams_and_large_blocks_included() {
    if !has_ipv6_rings() {
        return;
    }
    let server = "[::1]:1".parse().unwrap();
    for operation in DIRECTIONS {
        for workers in [1, 2] {
            // The last one fills a frame.
            for (blksize, expected) in [(None, 40), (Some(1_448), 14)] {
                let options = Options { blksize, ..Options::default() };
                let config = LoadConfig { server, operation, options, workers, ..config(Sockets::Ring) };
                let (report, _) = load_completely(config, Faults::default());
                assert_eq!(blocks(&report), 6 * expected);
                assert!(report.faults.is_empty(), "{:?}", report.faults);
            }
            let lossy = Faults { lose_one_in: Some(11), ..Faults::default() };
            let timing = timing(15 * MS);
            let config = LoadConfig { server, operation, timing, workers, ..config(Sockets::Ring) };
            let (report, _) = load_completely(config, lossy);
            assert!(whole(&report, "retransmissions") > 0);
        }
    }
    let options = Options { blksize: Some(1_449), ..Options::default() };
    let too_large = LoadConfig { server, options, ..config(Sockets::Ring) };
    assert_eq!(too_large.ring_refusal().unwrap(), "sockets: a ring carries blocks of up to 1448 bytes");
}

#[test]
fn what_was_granted_is_told_and_not_what_was_asked_for() {
    let options = Options { blksize: Some(1_024), windowsize: Some(8), ..Options::default() };
    // An option whose limit is 0 is ignored; a server that ignores both sends no OACK at all.
    for (blksize, windowsize, granted) in
        [(u16::MAX, u16::MAX, (1_024, 8)), (0, 0, (512, 1)), (800, 0, (800, 1)), (0, 3, (512, 3))]
    {
        for operation in DIRECTIONS {
            let limits = Some(Limits { blksize, windowsize, ..Limits::NONE });
            let config = LoadConfig { operation, options, workers: 2, ..config(BOTH[0]) };
            let (report, _) = load_completely(config, Faults { limits, ..Faults::default() });
            assert_eq!((whole(&report, "blksize_granted"), whole(&report, "windowsize_granted")), granted);
        }
    }
    let options = Options { blksize: Some(1_024), ..Options::default() };
    for sockets in ways() {
        for (blksize, granted) in [(u16::MAX, 1_024), (0, 512), (800, 800)] {
            let limits = Some(Limits { blksize, ..Limits::NONE });
            let config = LoadConfig { options, ..config(sockets) };
            let (report, _) = load_completely(config, Faults { limits, ..Faults::default() });
            assert_eq!(whole(&report, "blksize_granted"), granted);
        }
        let (report, _) = load_completely(config(sockets), Faults::default());
        assert_eq!((whole(&report, "blksize_granted"), whole(&report, "windowsize_granted")), (512, 1));
    }
}

#[test]
fn tsize_asks_in_a_read_and_tells_in_a_write() {
    let both = [(Operation::Read, 0), (Operation::Write, SIZE)];
    for (sockets, (operation, tsize)) in ways().into_iter().flat_map(|way| both.map(|of| (way, of))) {
        let options = Options { tsize: Some(0), ..Options::default() };
        let (_, seen) =
            load_completely(LoadConfig { operation, options, ..config(sockets) }, Faults::default());
        assert!(seen.options.iter().all(|options| options.tsize == Some(tsize)), "{:?}", seen.options);
    }
}

/// Moves one file of more blocks than there are block numbers.
fn roll_over(operation: Operation, windowsize: Option<u16>, rollover: Option<Rollover>, sockets: Sockets) {
    let options = Options { blksize: Some(8), windowsize, rollover, ..Options::default() };
    let extent = Extent::Transfers { count: 1, limit_ns: 600_000 * MS };
    let (file_size_bytes, arrivals) = (8 * 65_600, at_once(1));
    let config = LoadConfig { operation, options, extent, file_size_bytes, arrivals, ..config(sockets) };
    let (report, _) = load_completely(config, Faults::default());
    assert_eq!(blocks(&report), 65_601);
}

#[test]
fn block_numbers_roll_over_as_agreed() {
    for rollover in [None, Some(Rollover::Zero), Some(Rollover::One)] {
        for operation in DIRECTIONS {
            roll_over(operation, Some(64), rollover, BOTH[0]);
        }
    }
    if ways().contains(&Sockets::Ring) {
        roll_over(Operation::Read, None, None, Sockets::Ring);
        roll_over(Operation::Write, None, Some(Rollover::One), Sockets::Ring);
    }
}

#[test]
fn lost_datagrams_are_recovered_and_counted() {
    for (sockets, operation) in ways().into_iter().flat_map(|sockets| DIRECTIONS.map(|way| (sockets, way))) {
        for windowsize in [None, Some(4)] {
            let options = Options { windowsize, ..Options::default() };
            let timing = timing(15 * MS);
            let lossy = Faults { lose_one_in: Some(11), ..Faults::default() };
            let config = LoadConfig { operation, options, timing, ..config(sockets) };
            let (report, _) = load_completely(config, lossy);
            assert!(whole(&report, "retransmissions") > 0);
            assert_eq!(blocks(&report), 6 * 40, "a block counts once, however often it was sent");
        }
    }
}

#[test]
fn a_client_that_has_its_file_answers_for_the_last_ack_that_was_lost() {
    for sockets in ways() {
        // The peer ends five transfers only by ACKs that come after their clients have completed. These stay for as long as
        // their timeout; the peer sends again much sooner.
        let lossy = Faults { lose_last_ack_until: Some(5), ..Faults::default() };
        let config = LoadConfig { timing: timing(60_000 * MS), ..config(sockets) };
        let (report, seen) = load_completely(config, lossy);
        assert!(seen.acks >= 6 * 40 + 5, "{}", seen.acks);
        assert!(whole(&report, "retransmissions") >= 5, "an ACK that is repeated is one");
        assert_eq!(blocks(&report), 6 * 40);
    }
}

#[test]
fn the_answer_to_a_block_that_was_sent_again_is_in_no_round_trip() {
    let timeout_ns = 250 * MS;
    for sockets in ways() {
        let lossy = Faults { lose_ack_of: Some(20), ..Faults::default() };
        let timing = timing(timeout_ns);
        let (report, _) = load_completely(LoadConfig { timing, ..config(sockets) }, lossy);
        assert_eq!(whole(&report, "retransmissions"), 6);
        assert_eq!(whole(&report, "block_rtt_left_out"), 6);
        assert!(figure(&report, "block_rtt_ns_p999") < timeout_ns as f64);
        assert!(figure(&report, "transfer_ns_p50") >= timeout_ns as f64, "but its time is the transfer's");
    }
}

#[test]
fn a_sample_is_the_first_block_every_sixteenth_and_the_last() {
    let blocks = [(1, true), (2, false), (16, false), (17, true), (39, false), (40, true)];
    for (sockets, (wrong, found)) in ways().into_iter().flat_map(|way| blocks.map(|block| (way, block))) {
        let verify = Verify::Sample;
        let faults = Faults { falsify_block: Some(wrong), ..Faults::default() };
        let (report, _) = load(LoadConfig { verify, ..config(sockets) }, faults);
        assert_eq!(whole(&report, "content_mismatches"), if found { 6 } else { 0 }, "block {wrong}");
        assert_eq!(whole(&report, "bytes_verified"), 6 * (3 * 512 + SIZE % 512));
    }
}

#[test]
fn a_ramp_spreads_the_first_starts() {
    for sockets in ways() {
        let extent = Extent::Transfers { count: 4, limit_ns: 60_000 * MS };
        let (report, _) = load_completely(
            // The first ones last longer than the ramp, so nothing else can start.
            LoadConfig {
                arrivals: Arrivals::ClosedLoop { concurrency: 4, ramp_ns: 40 * MS },
                extent,
                timing: timing(100 * MS),
                ..config(sockets)
            },
            Faults { lose_ack_of: Some(20), ..Faults::default() },
        );
        let mut rows: Vec<_> = report.transfers.iter().collect();
        rows.sort_by_key(|row| row.number);
        for (index, row) in rows.into_iter().enumerate() {
            assert_eq!(row.intended_start_ns, (index as u64 * 10 * MS) as i64);
            assert!(row.actual_start_ns >= row.intended_start_ns);
        }
    }
}

fn open(transfers_per_s: u64, spacing: Spacing, in_flight_max: usize, deadline_ns: u64) -> Arrivals {
    let rate = Rate { transfers: transfers_per_s, per_ns: 1_000 * MS };
    Arrivals::OpenLoop { starts: Starts::Rate(rate), spacing, in_flight_max, deadline_ns }
}

/// Number and intended start of all transfers of an open loop over 100 ms of warm-up and 200 ms, by number.
fn schedule(sockets: Sockets, spacing: Spacing, workers: usize) -> Vec<(u64, i64)> {
    let extent = Extent::Duration { warm_up_ns: 100 * MS, window_ns: 200 * MS };
    let config = LoadConfig {
        arrivals: open(1_000, spacing, 1_000, 60_000 * MS),
        extent,
        workers,
        file_size_bytes: 100,
        ..config(sockets)
    };
    let (report, _) = load(config, Faults::default());
    assert_eq!(whole(&report, "shed"), 0);
    assert_eq!(whole(&report, "completed"), whole(&report, "started"));
    assert!(report.transfers.iter().all(|row| row.actual_start_ns >= row.intended_start_ns));
    let inside = report.transfers.iter().filter(|row| row.intended_start_ns >= 100 * MS as i64).count();
    assert!((figure(&report, "offered_per_s") - inside as f64 / 0.2).abs() < 1e-6);
    assert!(figure(&report, "achieved_per_s") <= figure(&report, "offered_per_s"));
    assert!(figure(&report, "response_ns_p99") >= figure(&report, "service_ns_p99"));
    let mut starts: Vec<_> = report.transfers.iter().map(|row| (row.number, row.intended_start_ns)).collect();
    starts.sort_unstable();
    starts
}

#[test]
fn an_open_loop_intends_what_the_formula_says_with_any_number_of_workers() {
    for sockets in ways() {
        let even: Vec<_> = (0..300).map(|number| (number, number as i64 * MS as i64)).collect();
        let poisson = schedule(sockets, Spacing::Poisson, 1);
        assert_eq!(schedule(sockets, Spacing::Even, 1), even);
        assert!((200..400).contains(&poisson.len()) && poisson != even);
        for workers in [2, 4] {
            assert_eq!(schedule(sockets, Spacing::Even, workers), even);
            assert_eq!(schedule(sockets, Spacing::Poisson, workers), poisson);
        }
    }
}

#[test]
fn an_open_loop_of_fixed_work_offers_that_many_and_is_one_cohort() {
    for sockets in ways() {
        let extent = Extent::Transfers { count: 50, limit_ns: 60_000 * MS };
        let arrivals = open(500, Spacing::Even, 50, 60_000 * MS);
        let config = LoadConfig { arrivals, extent, workers: 2, ..config(sockets) };
        let (report, _) = load_completely(config, Faults::default());
        assert_eq!((whole(&report, "intended"), figure(&report, "offered_per_s")), (50, 500.0));
        let last_ns = report.transfers.iter().map(|row| row.intended_start_ns).max();
        assert_eq!(last_ns, Some(98 * MS as i64));
    }
}

#[test]
fn several_workers_share_the_work_and_are_counted_as_one() {
    for sockets in ways() {
        let extent = Extent::Transfers { count: 30, limit_ns: 60_000 * MS };
        let config = LoadConfig { workers: 3, arrivals: at_once(7), extent, ..config(sockets) };
        let (report, _) = load_completely(config, Faults::default());
        let numbers: BTreeSet<u64> = report.transfers.iter().map(|row| row.number).collect();
        assert_eq!(numbers, (0..30).collect());
        assert_eq!(blocks(&report), 30 * 40);
        let counted = figure(&report, "data_pps") * figure(&report, "duration_s");
        assert!((counted - 1_200.0).abs() < 0.5, "{counted}");
    }
}

#[test]
fn fixed_work_ends_with_the_last_completion_whatever_never_completes() {
    for sockets in ways() {
        let extent = Extent::Transfers { count: 6, limit_ns: 400 * MS };
        let faults = Faults { ignore_file: Some(2), ..Faults::default() };
        let (report, _) = load(LoadConfig { extent, ..config(sockets) }, faults);
        assert_eq!((whole(&report, "completed"), whole(&report, "interrupted")), (5, 1));
        let ends = report.transfers.iter().filter(|row| row.outcome == TransferOutcome::Completed);
        let last_ns = ends.map(|row| row.end_ns).max().unwrap();
        assert!((figure(&report, "duration_s") - last_ns as f64 / 1e9).abs() < 1e-9);
        assert!(figure(&report, "transfers_per_s") * figure(&report, "duration_s") > 4.99);
        assert!(is_never(&report, "response_ns_max"), "the one that never came counts");
        assert!(!is_never(&report, "response_ns_p50"));
        assert_eq!(
            figure(&report, "transfer_ns_max") as i64 / 1_000_000_000,
            0,
            "completed ones only, as ever"
        );
    }
}

#[test]
fn a_late_block_from_another_port_is_not_taken_for_the_answer() {
    for sockets in ways() {
        let (report, seen) =
            load_completely(config(sockets), Faults { late_block_first: true, ..Faults::default() });
        assert_eq!(seen.errors, 0, "the true server was refused");
        assert_eq!(
            report.faults.iter().map(|fault| (fault.kind, fault.count)).collect::<Vec<_>>(),
            [("out_of_place", 6)]
        );
    }
}

#[test]
fn only_what_lies_in_the_window_counts_and_the_rest_is_not_lost() {
    for sockets in ways() {
        let (warm_up_ns, window_ns) = (50 * MS, 150 * MS);
        let extent = Extent::Duration { warm_up_ns, window_ns };
        let (report, _) = load(LoadConfig { extent, ..config(sockets) }, Faults::default());
        assert_eq!(figure(&report, "duration_s"), 0.15);
        let inside = (figure(&report, "data_pps") * 0.15).round() as u64;
        assert!(0 < inside && inside < whole(&report, "blocks_to_window_end"));
        assert!(whole(&report, "blocks_to_window_end") <= blocks(&report));
        assert_eq!(whole(&report, "interrupted"), 0, "the drain is long enough");
    }
}

#[test]
fn a_stop_in_the_warm_up_closes_the_window_once() {
    for sockets in ways() {
        let extent = Extent::Duration { warm_up_ns: u64::MAX, window_ns: u64::MAX };
        let mut config = LoadConfig { extent, ..config(sockets) };
        let place = Place::of(&mut config);
        let peer = Peer::start(&place, SIZE, Faults::default());
        config.server = peer.address;
        let (stop, mut notices) = (Stop::new().unwrap(), Vec::new());
        let before_ns = clock::monotonic_ns();
        let report = run(&config, &stop, |notice| match notice {
            Notice::Tick => stop.request(),
            other => notices.push(other),
        });
        let [Notice::Scheduled { start_ns }, Notice::WindowClosed] = notices[..] else {
            panic!("{notices:?}")
        };
        assert!((before_ns..clock::monotonic_ns()).contains(&start_ns));
        assert_eq!(figure(&report.unwrap(), "duration_s"), 0.0);
    }
}

#[test]
fn a_thousand_clients_of_each_kind_of_socket_find_their_answers_from_one_listening_port() {
    for (sockets, operation) in ways().into_iter().flat_map(|sockets| DIRECTIONS.map(|way| (sockets, way))) {
        let extent = Extent::Transfers { count: 2_000, limit_ns: 60_000 * MS };
        // A burst overruns the peer's receive buffer, and the clients repeat what is lost.
        let (concurrency, file_size_bytes, timing) = (1_000, 1_500, timing(100 * MS));
        let config = LoadConfig {
            operation,
            arrivals: at_once(concurrency),
            file_size_bytes,
            timing,
            extent,
            ..config(sockets)
        };
        let (report, _) = load_completely(config, Faults { never_repeats: true, ..Faults::default() });
        // A repeated DATA is acknowledged again, maybe too late; a repeated ACK or RRQ is answered by nothing.
        assert!(operation == Operation::Write || report.faults.is_empty(), "{:?}", report.faults);
    }
}

#[test]
fn a_read_that_brings_more_than_the_file_has_is_ended_with_its_first_block_too_many() {
    for (sockets, verify) in ways().into_iter().flat_map(|way| [(way, Verify::Full), (way, Verify::Off)]) {
        // The peer serves 20,000 bytes, 1,000 more than the client expects.
        let expected = LoadConfig {
            verify,
            size_is_known: true,
            verify_against: vec![vec![0; SIZE as usize - 1_000].into()],
            ..config(sockets)
        };
        let (report, seen) = load(expected, Faults::default());
        assert_eq!((whole(&report, "failed"), whole(&report, "content_mismatches")), (6, 6));
        assert!(report.transfers.iter().all(|row| row.bytes == 38 * 512), "{:?}", report.transfers);
        let too_long = report.faults.iter().find(|fault| fault.kind == "longer_than_expected");
        assert_eq!(too_long.map(|fault| fault.count), Some(6));
        assert!(seen.errors <= 6, "one ERROR each");
    }
}
