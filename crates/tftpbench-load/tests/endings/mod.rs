//! A run ends on time and its figures are sane even where the server never says a word.
#![allow(clippy::print_stdout, reason = "a skip says why")]

use std::io::ErrorKind;

use tftpbench_load::{
    Extent, Figure, LoadConfig, LoadError, LoadReport, Notice, Progress, Sockets, Spacing, TransferOutcome,
    run,
};
use tftpbench_net::Stop;
use tftpbench_proto::Timing;

use super::peer::{Faults, Peer};
use super::place::{Place, has_ipv6_rings, ways};
use super::{MS, assert_adds_up, at_once, config, figure, is_never, open, timing, whole};

/// How much later than asked a run may end on a busy machine. Without its limit it would take a quarter of an hour.
const SLACK_NS: i64 = 10_000 * MS as i64;

/// Runs it against a socket that is not read; `None` where the machine has too few file descriptors or ports for that.
fn load_in_vain(mut config: LoadConfig) -> Option<LoadReport> {
    let place = Place::of(&mut config);
    let silent = place.bind();
    let server = silent.local_addr().unwrap();
    let lacks = |error: &LoadError| match error {
        LoadError::OpenFiles(_) => true,
        LoadError::Os { source, .. } => source.kind() == ErrorKind::AddrInUse,
        _ => false,
    };
    match run(&LoadConfig { server, ..config }, &Stop::new().unwrap(), |_| {}) {
        Err(error) if lacks(&error) => {
            println!("skipped: {error}");
            None
        }
        report => Some(report.unwrap()),
    }
}

/// Everything that is in flight ends at `at_ns`, or as soon after it as the machine can.
fn assert_ended_at(report: &LoadReport, outcome: TransferOutcome, at_ns: u64) {
    let at_ns = at_ns as i64;
    for row in report.transfers.iter().filter(|row| row.outcome == outcome) {
        assert!((at_ns..at_ns + SLACK_NS).contains(&row.end_ns), "{row:?}");
    }
}

/// No figure is infinite or no number; counters add up; and nothing is said of answers that never came.
fn assert_sane(report: &LoadReport) {
    for (name, value) in &report.figures {
        assert!(!matches!(value, Some(Figure::Real(value)) if !value.is_finite()), "{name} is {value:?}");
    }
    assert_eq!(whole(report, "started"), report.transfers.len() as u64);
    assert_adds_up(report);
    assert_eq!((whole(report, "completed"), whole(report, "failed")), (0, 0));
    let sent_again: u64 = report.intervals.iter().map(|interval| interval.retransmissions).sum();
    assert_eq!(whole(report, "retransmissions"), sent_again);
    assert!(report.transfers.iter().all(|row| row.first_response_ns == -1 && row.bytes == 0));
    for rate in ["data_pps", "goodput_bytes_per_s", "transfers_per_s"] {
        assert_eq!(figure(report, rate), 0.0);
    }
    let unknown = |(name, value): &(&'static str, Option<Figure>)| value.is_none().then_some(*name);
    let unknown: Vec<_> = report.figures.iter().filter_map(unknown).collect();
    for name in ["blksize_granted", "windowsize_granted", "block_rtt_ns_p50", "fairness", "amplification"] {
        assert!(unknown.contains(&name), "{name}");
    }
}

#[test]
fn fixed_work_against_silence_ends_at_its_limit() {
    for sockets in ways() {
        let limit_ns = 1_000 * MS;
        let extent = Extent::Transfers { count: 1_000, limit_ns };
        let timing = timing(60_000 * MS);
        let report = load_in_vain(LoadConfig {
            extent,
            timing,
            arrivals: at_once(100),
            workers: 2,
            ..config(sockets)
        });
        let report = report.unwrap();
        assert_sane(&report);
        assert_ended_at(&report, TransferOutcome::Interrupted, limit_ns);
        assert_eq!((whole(&report, "started"), whole(&report, "interrupted")), (100, 100));
        assert_eq!(figure(&report, "duration_s"), 1.0, "what interrupting takes is not of the window");
        assert_eq!(figure(&report, "pps"), 100.0, "a request each, and no ERROR");
    }
}

#[test]
fn transfers_that_time_out_are_replaced_until_the_limit_and_no_longer() {
    for sockets in ways() {
        let limit_ns = 1_000 * MS;
        let extent = Extent::Transfers { count: u64::MAX, limit_ns };
        let timing = Timing { retries: 1, ..timing(10 * MS) };
        let report =
            load_in_vain(LoadConfig { extent, timing, arrivals: at_once(50), ..config(sockets) }).unwrap();
        assert_sane(&report);
        assert_ended_at(&report, TransferOutcome::Interrupted, limit_ns);
        assert!(whole(&report, "started") > 50);
        assert!(whole(&report, "interrupted") <= 50, "what is in flight at the limit");
        assert_eq!(figure(&report, "duration_s"), 1.0);
    }
}

#[test]
fn a_window_over_ten_thousand_silent_transfers_ends_with_its_drain() {
    // With a port each it is fewer, so that other tests find one: Linux has 28,232 of them by default, ip(7).
    for sockets in ways() {
        let concurrency = if sockets == Sockets::PerTransfer { 4_000 } else { 10_000 };
        // Time in which a busy machine runs none of it does not count as waiting, so there is plenty.
        let (warm_up_ns, window_ns, drain_ns) = (250 * MS, 750 * MS, 750 * MS);
        let extent = Extent::Duration { warm_up_ns, window_ns };
        // All of them send again and again, also in the drain.
        let timing = timing(200 * MS);
        let config = LoadConfig {
            extent,
            drain_ns,
            timing,
            arrivals: at_once(concurrency),
            workers: 2,
            ..config(sockets)
        };
        let Some(report) = load_in_vain(config) else { continue };
        assert_sane(&report);
        assert_ended_at(&report, TransferOutcome::TimedOut, warm_up_ns + window_ns + drain_ns);
        assert_eq!(whole(&report, "started"), concurrency as u64);
        // Each has waited for more than its 200 ms: that the run ends first does not excuse the server.
        assert_eq!(whole(&report, "timed_out"), concurrency as u64);
        assert_eq!(figure(&report, "duration_s"), 0.75);
        assert!(whole(&report, "retransmissions") > 0);
    }
}

#[test]
fn what_the_end_of_a_run_makes_of_a_silent_server_depends_on_the_clients_own_timeout() {
    for (sockets, (timeout_ms, outcome)) in
        ways().into_iter().flat_map(|way| [(1, "timed_out"), (60_000, "interrupted")].map(|end| (way, end)))
    {
        let extent = Extent::Duration { warm_up_ns: 0, window_ns: 100 * MS };
        let config =
            LoadConfig { extent, drain_ns: 100 * MS, timing: timing(timeout_ms * MS), ..config(sockets) };
        let report = load_in_vain(config).unwrap();
        assert_sane(&report);
        assert_eq!((whole(&report, "started"), whole(&report, outcome)), (3, 3), "{timeout_ms} ms");
    }
}

#[test]
fn of_an_open_loop_what_reaches_its_deadline_is_late_and_what_finds_no_room_is_shed() {
    for (sockets, workers) in ways().into_iter().flat_map(|way| [(way, 1), (way, 2)]) {
        let extent = Extent::Duration { warm_up_ns: 100 * MS, window_ns: 400 * MS };
        let arrivals = open(500, Spacing::Even, 10, 300 * MS);
        let config = LoadConfig { extent, arrivals, workers, timing: timing(60_000 * MS), ..config(sockets) };
        let report = load_in_vain(config).unwrap();
        assert_sane(&report);
        let [intended, shed, late] = ["intended", "shed", "late"].map(|name| whole(&report, name));
        assert_eq!((intended, late), (250, whole(&report, "started")));
        assert!(late >= 10 && shed > 0, "{late} late, {shed} shed");
        for row in &report.transfers {
            let deadline_ns = row.intended_start_ns + 300 * MS as i64;
            assert!((deadline_ns..deadline_ns + SLACK_NS).contains(&row.end_ns), "{row:?}");
        }
        assert_eq!(whole(&report, "in_flight_max"), 10, "over all workers");
        // Workers look at their own part of it at times of their own.
        assert!(workers > 1 || report.intervals.iter().all(|interval| interval.in_flight <= 10));
        assert_eq!(figure(&report, "offered_per_s"), 500.0);
        assert!(figure(&report, "achieved_per_s") < 500.0);
        assert!(is_never(&report, "response_ns_p50") && is_never(&report, "service_ns_p50"));
    }
}

#[test]
fn a_stop_ends_an_open_loop_and_what_was_not_yet_due_was_not_intended() {
    for sockets in ways() {
        let extent = Extent::Duration { warm_up_ns: 0, window_ns: 3_600_000 * MS };
        let arrivals = open(100, Spacing::Poisson, 3, 3_600_000 * MS);
        let timing = timing(600_000 * MS);
        let (stop, mut config) =
            (Stop::new().unwrap(), LoadConfig { extent, arrivals, timing, ..config(sockets) });
        let place = Place::of(&mut config);
        let silent = place.bind();
        config.server = silent.local_addr().unwrap();
        let report = run(&config, &stop, |notice| {
            if notice == Notice::Tick {
                stop.request();
            }
        })
        .unwrap();
        assert_sane(&report);
        assert_eq!(whole(&report, "interrupted"), whole(&report, "started"));
        assert!(whole(&report, "intended") < 360_000);
    }
}

#[test]
fn an_open_loop_that_does_not_fit_is_refused_with_the_number_that_does() {
    let of = |arrivals| LoadConfig {
        arrivals,
        extent: Extent::Duration { warm_up_ns: 0, window_ns: 1_000 * MS },
        ..config(Sockets::PerTransfer)
    };
    let refusal = |config: &LoadConfig| run(config, &Stop::new().unwrap(), |_| {}).unwrap_err();
    let most = |in_flight_max| of(open(100, Spacing::Even, in_flight_max, 1_000 * MS));
    let LoadError::TooMany { asked, fits, .. } = refusal(&most(10_000_000)) else { panic!("it fits") };
    assert_eq!(asked, 10_000_000);
    assert!(fits < 65_536, "there are no more ports");
    if fits > 0 {
        let next = refusal(&most(fits as usize + 1));
        assert!(matches!(next, LoadError::TooMany { fits: again, .. } if again == fits), "{next}");
    }
    let soak = LoadConfig {
        extent: Extent::Duration { warm_up_ns: 0, window_ns: 24 * 3_600_000 * MS },
        ..of(open(1_000_000, Spacing::Even, 1, 1_000 * MS))
    };
    let all = LoadConfig { rows_max: usize::MAX, ..soak.clone() };
    assert!(refusal(&all).to_string().starts_with("rows: "));
    let stopped = Stop::new().unwrap();
    stopped.request();
    assert!(
        run(&LoadConfig { server: "127.0.0.1:9".parse().unwrap(), ..soak }, &stopped, |_| {}).is_ok(),
        "it has room for its rows"
    );
    let never = of(open(0, Spacing::Even, 1, 1));
    assert_eq!(refusal(&never).to_string(), "rate: must be between 0.001/s and 1000000/s");
}

/// What a run that watches for an answer says about it.
fn news(config: LoadConfig) -> Vec<Notice> {
    let (mut news, stop) = (Vec::new(), Stop::new().unwrap());
    run(&LoadConfig { watch_for_answer: true, ..config }, &stop, |notice| {
        if matches!(notice, Notice::Answered | Notice::Unanswered | Notice::Refused) {
            news.push(notice);
            stop.request();
        }
    })
    .unwrap();
    news
}

#[test]
fn a_port_where_nothing_listens_is_told_and_so_is_silence_and_so_is_an_answer() {
    for (sockets, workers) in ways().into_iter().flat_map(|way| [(way, 1), (way, 3)]) {
        let timing = timing(60_000 * MS);
        let mut slow = LoadConfig { timing, workers, ..config(sockets) };
        let place = Place::of(&mut slow);
        let closed = place.bind().local_addr().unwrap();
        assert_eq!(news(LoadConfig { server: closed, ..slow.clone() }), [Notice::Refused]);
        let silent = place.bind();
        let server = silent.local_addr().unwrap();
        assert_eq!(news(LoadConfig { server, ..slow.clone() }), [Notice::Unanswered]);
        let peer = Peer::start(&place, slow.file_size_bytes, Faults::default());
        assert_eq!(news(LoadConfig { server: peer.address, ..slow }), [Notice::Answered]);
    }
    if has_ipv6_rings() {
        let mut slow = LoadConfig { server: "[::1]:1".parse().unwrap(), ..config(Sockets::Ring) };
        let place = Place::of(&mut slow);
        let server = place.bind().local_addr().unwrap();
        assert_eq!(news(LoadConfig { server, ..slow }), [Notice::Refused]);
    }
}

#[test]
fn a_run_says_how_far_it_is_in_its_window_and_in_its_drain() {
    let both = [(10 * MS, true), (60_000 * MS, false)];
    for (sockets, (window_ns, is_draining)) in ways().into_iter().flat_map(|way| both.map(|of| (way, of))) {
        let extent = Extent::Duration { warm_up_ns: 0, window_ns };
        let (timing, drain_ns) = (timing(60_000 * MS), 60_000 * MS);
        let mut config = LoadConfig { extent, timing, drain_ns, ..config(sockets) };
        let place = Place::of(&mut config);
        let silent = place.bind();
        config.server = silent.local_addr().unwrap();
        let (mut progress, stop) = (None, Stop::new().unwrap());
        run(&config, &stop, |notice| {
            if let Notice::Progress(how_far) = notice {
                progress.get_or_insert(how_far);
                stop.request();
            }
        })
        .unwrap();
        let Progress { elapsed_ns, draining_ns, started, ended, completed, bytes, .. } = progress.unwrap();
        assert!(elapsed_ns >= 1_000 * MS, "{elapsed_ns}");
        assert_eq!((draining_ns.is_some(), started, ended, completed, bytes), (is_draining, 3, 0, 0, 0));
        assert!(draining_ns.is_none_or(|draining_ns| draining_ns >= 1_000 * MS), "{draining_ns:?}");
    }
}
