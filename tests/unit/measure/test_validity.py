"""What makes a trial's figures untrue, and what is noticed of a server in them."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from tftpbench.measure import findings, validity
from tftpbench.measure.validity import Kind, Surroundings
from tftpbench.model.boot import Share, Step
from tftpbench.model.metrics import BOOT_OUTCOMES, BOOT_REASONS, OUTCOMES
from tftpbench.model.workload import Piece

GOOD: dict[str, object] = {
    "transfers": None,
    "started": 1000,
    "completed": 990,
    "failed": 0,
    "timed_out": 0,
    "interrupted": 10,
    "content_mismatches": 0,
    "concurrency": 10,
    "file_size_bytes": 65536,
    "duration_s": 1.0,
    "goodput_bytes_per_s": 65_536_000.0,
    "data_pps": 129_000.0,
    "transfer_ns_max": 20_000_000,
    "generator_busy_fraction": 0.6,
    "generator_lag_ns_p99": 40_000,
    "udp_drops_generator": 0,
    "udp_drops_server": 500,
    "generator_gap_ns_max": 12_000_000,
    "generator_gap_ns_sum": 19_000_000,
    "runner_gap_ns_max": 3_000_000,
    "server_cpus": "1",
    "generator_cpus": "0",
}
STEADY = Surroundings(mean_transfer_ns=10_000_000)


def kinds(around: Surroundings = STEADY, **changes: object) -> list[Kind]:
    return [finding.kind for finding in validity.findings({**GOOD, **changes}, around)]


def test_a_good_trial_is_valid_even_if_the_server_dropped_datagrams() -> None:
    found = validity.findings(GOOD, STEADY)
    assert validity.verdict(found) == ("valid", None)


def test_answers_to_ten_thousand_transfers_may_wait_for_each_other() -> None:
    storm = {
        **GOOD,
        "concurrency": 10_000,
        "data_pps": 200_000.0,
        "transfers": 10_000,
        "generator_lag_ns_p99": 90_000_000,
    }
    assert Kind.GENERATOR_LAG not in [finding.kind for finding in validity.findings(storm, STEADY)]
    late = {**storm, "generator_lag_ns_p99": 120_000_000}
    assert Kind.GENERATOR_LAG in [finding.kind for finding in validity.findings(late, STEADY)]
    boots = {**storm, "machines_asked": 10_000, "over_ns": 60_000_000_000, "in_flight_max": 9_000}
    assert Kind.GENERATOR_LAG not in [finding.kind for finding in validity.findings(boots, STEADY)]
    few = {**boots, "in_flight_max": 30}
    assert Kind.GENERATOR_LAG in [finding.kind for finding in validity.findings(few, STEADY)], "so few can't all wait"


def test_a_busy_generator_is_no_fault_where_the_server_had_nothing_left_either() -> None:
    both_full = {**GOOD, "generator_busy_fraction": 0.99, "server_busy_fraction": 0.97}
    assert validity.findings(both_full, STEADY) == ()
    [finding] = validity.findings({**both_full, "server_busy_fraction": 0.9}, STEADY)
    assert finding.kind is Kind.GENERATOR_SATURATED


@pytest.mark.parametrize(
    ("changes", "kind", "said"),
    [
        ({"generator_busy_fraction": 0.99}, Kind.GENERATOR_SATURATED, "saturated, busy 99.0% of the time"),
        ({"generator_lag_ns_p99": 80_000_000}, Kind.GENERATOR_LAG, "80 ms late"),
        ({"udp_drops_generator": 7}, Kind.GENERATOR_DROPS, "7 datagrams were dropped at the generator's"),
        ({"content_mismatches": 2}, Kind.CONTENT_MISMATCH, "2 transfers had wrong contents"),
        ({"started": 1001}, Kind.COUNTERS, "1001 transfers were started, but 1000 are accounted for"),
        ({"generator_gap_ns_max": 1_203_400_000}, Kind.GENERATOR_STOPPED, "stood still for 1203 ms at once"),
        (
            {"generator_gap_ns_sum": 31_000_000},
            Kind.GENERATOR_GAPS,
            "stood still for 3.1% of the window, 31 ms",
        ),
        ({"runner_gap_ns_max": 250_000_000}, Kind.RUNNER_STOPPED, "the runner watched the trial 250 ms late"),
        ({"goodput_bytes_per_s": 32_000_000.0}, Kind.LITTLES_LAW, "4.88 transfers in flight, not 10"),
        ({"hosts_lost": "b: no answer for 3 s"}, Kind.HOST_LOST, "load host lost: b: no answer for 3 s"),
        (
            {"clock_error_ns_max": 6_200_000},
            Kind.CLOCKS_APART,
            "clocks apart: those of hosts are known to within 6",
        ),
        ({"start_spread_ns": 7_100_000}, Kind.STARTED_LATE, "started late: a load host began up to 7.1 ms off the"),
    ],
)
def test_each_fault_makes_a_trial_invalid_and_says_why(changes: dict[str, object], kind: Kind, said: str) -> None:
    found = validity.findings({**GOOD, **changes}, STEADY)
    assert [finding.kind for finding in found] == [kind]
    verdict, reason = validity.verdict(found)
    assert verdict == "invalid"
    assert said in str(reason)
    assert found[0].advice
    cause = validity.commonest([str(reason)])
    assert cause
    assert cause.kind, "known again by its words"
    assert cause.is_of_rates == (kind in validity.LIMITS or kind is Kind.LITTLES_LAW)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"generator_gap_ns_max": 50_000_000}, None),
        ({"generator_gap_ns_max": 50_000_001}, Kind.GENERATOR_STOPPED),
        ({"generator_gap_ns_sum": 20_000_000}, None),
        ({"generator_gap_ns_sum": 20_000_001}, Kind.GENERATOR_GAPS),
        ({"runner_gap_ns_max": 50_000_000}, None),
        # One core for both: the generator's short gaps are the server's turns, its long ones are not.
        ({"generator_gap_ns_sum": 400_000_000, "server_cpus": "0,1"}, None),
        ({"generator_gap_ns_max": 60_000_000, "server_cpus": "0,1"}, Kind.GENERATOR_STOPPED),
        # Cores of a server that ran already, or of `load`, are not known.
        ({"generator_gap_ns_sum": 400_000_000, "server_cpus": None, "generator_cpus": None}, Kind.GENERATOR_GAPS),
        # Runs of older versions have none of these columns.
        ({"generator_gap_ns_max": None, "generator_gap_ns_sum": None, "runner_gap_ns_max": None}, None),
    ],
)
def test_a_generator_may_stand_still_for_50_ms_at_once_and_2_percent_of_the_window(
    changes: dict[str, object], kind: Kind | None
) -> None:
    assert kinds(STEADY, **changes) == ([] if kind is None else [kind])


@pytest.mark.parametrize(
    ("error_ns", "spread_ns", "piece_ns", "kinds_"),
    [
        (None, None, 0, []),
        (5_000_000, 5_000_000, 0, []),
        (100_000, 5_000_001, 0, [Kind.STARTED_LATE]),
        (100_000, 20_000_000, 2_000_000_000, []),
        (100_000, 20_000_001, 2_000_000_000, [Kind.STARTED_LATE]),
        (100_000, 5_000_001, 100_000_000, [Kind.STARTED_LATE]),
        (5_000_001, 5_300_000, 0, [Kind.CLOCKS_APART]),
        (5_000_001, 5_300_000, 60_000_000_000, [Kind.CLOCKS_APART]),
    ],
)
def test_load_hosts_begin_within_5_ms_or_a_hundredth_of_a_shapes_shortest_piece(
    error_ns: int | None, spread_ns: int | None, piece_ns: int, kinds_: list[Kind]
) -> None:
    around = replace(STEADY, shortest_piece_ns=piece_ns)
    assert kinds(around, clock_error_ns_max=error_ns, start_spread_ns=spread_ns) == kinds_


def test_the_shortest_piece_of_a_shape_is_none_where_it_has_a_burst() -> None:
    rate = (1, 1_000_000)
    long, short = Piece("hold", rate, rate, 5_000_000_000), Piece("ramp", rate, rate, 2_000_000_000)
    assert validity.shortest_piece_ns((long, short)) == 2_000_000_000
    assert validity.shortest_piece_ns((long, Piece("burst", count=5))) == 0
    assert validity.shortest_piece_ns(()) == 0


def test_a_lost_load_host_comes_before_what_follows_from_it_and_counts_in_a_quick_run() -> None:
    lost = {"hosts_lost": "b: no answer for 3 s", "started": 1001, "start_spread_ns": 9_000_000}
    assert kinds(STEADY, **lost) == [Kind.HOST_LOST, Kind.STARTED_LATE, Kind.COUNTERS]
    assert kinds(replace(STEADY, is_quick=True), **lost) == [Kind.HOST_LOST, Kind.COUNTERS]
    reason = validity.verdict(validity.findings({**GOOD, **lost}, STEADY))[1]
    cause = validity.commonest([str(reason)])
    assert cause
    assert (cause.text, cause.is_of_rates) == ("a load host was lost", False)


def test_every_finding_has_advice_of_its_own() -> None:
    assert len({kind.value for kind in Kind}) == len(Kind.__members__), "two of one value are one kind to Python"


@pytest.mark.parametrize(("fraction", "ticks", "invalid"), [(0.06, 10, True), (0.06, 2, False), (0.04, 10, False)])
def test_stolen_time_counts_when_it_is_more_than_the_grain_of_the_clock(
    fraction: float, ticks: int, invalid: bool
) -> None:
    around = Surroundings(10_000_000, steal_fraction=fraction, steal_ticks=ticks)
    assert (kinds(around) == [Kind.STEAL]) is invalid


def test_a_lost_server_comes_first_and_keeps_its_words() -> None:
    found = validity.findings({**GOOD, "content_mismatches": 1}, Surroundings(server_lost="epoll: died with SIGSEGV"))
    assert [finding.kind for finding in found] == [Kind.SERVER_LOST, Kind.CONTENT_MISMATCH]
    assert validity.verdict(found)[1] == "epoll: died with SIGSEGV; 1 transfers had wrong contents"


@pytest.mark.parametrize(
    "changes",
    [
        {"transfers": 1000},
        {"transfer_ns_max": 200_000_000},
        {"failed": 1, "interrupted": 9},
        {"timed_out": 1, "interrupted": 9},
        {"file_size_bytes": 0},
        {"goodput_bytes_per_s": None},
    ],
)
def test_littles_law_is_judged_on_steady_windows_only(changes: dict[str, object]) -> None:
    assert validity.findings({**GOOD, "goodput_bytes_per_s": 1000.0, **changes}, STEADY) == ()


@pytest.mark.parametrize(("in_flight", "broken"), [(8.3, True), (8.6, False), (11.4, False), (11.6, True)])
def test_littles_law_has_a_tolerance_of_15_percent(in_flight: float, broken: bool) -> None:
    assert (kinds(goodput_bytes_per_s=in_flight * 65536 * 100) == [Kind.LITTLES_LAW]) is broken


def test_the_time_between_two_transfers_of_a_client_does_not_break_littles_law() -> None:
    short = Surroundings(mean_transfer_ns=130_000)
    changes: dict[str, object] = {"file_size_bytes": 512, "transfer_ns_max": 1_000_000}
    for in_flight, broken in ((8.0, False), (3.0, True)):
        row = {**GOOD, **changes, "goodput_bytes_per_s": in_flight * 512 / 130e-6}
        assert bool(validity.findings(row, short)) is broken


OPEN: dict[str, object] = {
    "rate_per_s": 1000.0, "intended": 1200, "shed": 200, "schedule_lag_ns_p99": 900_000, "deadline_ns": 30 * 10**9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"generator_busy_fraction": 1.0, "failed": 10, "interrupted": 0}, []),
        ({"shed": 1100, "intended": 2100}, []),
        ({"schedule_lag_ns_p99": 299_000_000}, []),
        ({"schedule_lag_ns_p99": 301_000_000}, [Kind.SCHEDULE_LAG]),
        ({"schedule_lag_ns_p99": 1_100_000, "deadline_ns": 10**8}, [Kind.SCHEDULE_LAG]),
        ({"schedule_lag_ns_p99": 900_000, "deadline_ns": 10**7}, []),
        ({"intended": 1211}, [Kind.COUNTERS]),
        ({"intended": 1213}, [Kind.COUNTERS, Kind.STARTS_MISSING]),
        ({"generator_lag_ns_p99": 60_000_000}, [Kind.GENERATOR_LAG]),
    ],
)
def test_an_open_loop_is_valid_where_its_starts_were_those_asked_for(
    changes: dict[str, object], found: list[Kind]
) -> None:
    assert [finding.kind for finding in validity.findings({**GOOD, **OPEN, **changes}, STEADY)] == found


STORM: dict[str, object] = {
    "machines_asked": 1000, "machines": 1000, "booted": 700, "boots_failed": 100, "boots_late": 100, "boots_shed": 100,
    "boots_interrupted": 0, "over_ns": 10 * 10**9, "burst_ns": 10_090_000_000, "deadline_ns": 5 * 10**9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"generator_busy_fraction": 1.0}, []),
        ({"burst_ns": 10_110_000_000}, [Kind.BURST]),
        ({"burst_ns": 10_290_000_000, "deadline_ns": 30 * 10**9}, []),
        ({"burst_ns": 10_310_000_000, "deadline_ns": 30 * 10**9}, [Kind.BURST]),
        ({"over_ns": 0, "burst_ns": 90_000_000}, []),
        ({"over_ns": 0, "burst_ns": 110_000_000}, [Kind.BURST]),
        ({"machines_asked": 1011}, [Kind.STARTS_MISSING]),
    ],
)
def test_a_storm_is_valid_where_its_machines_started_within_its_time(
    changes: dict[str, object], found: list[Kind]
) -> None:
    assert [finding.kind for finding in validity.findings({**GOOD, **STORM, **changes}, STEADY)] == found
    cut_off = validity.findings({**GOOD, **STORM, **changes}, replace(STEADY, was_cut_off=True))
    assert Kind.STARTS_MISSING not in [finding.kind for finding in cut_off], "its server died, or its brake ended it"


def test_why_an_open_loop_is_invalid_is_known_again_by_its_words() -> None:
    row = {**GOOD, **STORM, "machines_asked": 1011, "burst_ns": 10_310_000_000, "schedule_lag_ns_p99": 301_000_000}
    found = validity.findings(row, replace(STEADY, gap_distance=0.2))
    causes = [validity.commonest([each.text]) for each in found]
    assert [cause and cause.kind for cause in causes] == [each.kind for each in found]
    assert len(found) == 4


@pytest.mark.parametrize(("shed", "missing"), [(195, False), (180, True)])
def test_machines_at_a_rate_are_missing_where_they_were_neither_started_nor_shed(shed: int, missing: bool) -> None:
    machines = {"machines": 1000, "boots_shed": shed, "booted": 1000 - shed, "boots_failed": 0, "boots_late": 0}
    rates = {"boots_interrupted": 0, "rate_per_s": 1000.0, "offered_per_s": 1000.0, "achieved_per_s": 800.0}
    row = {**GOOD, **machines, **rates, "deadline_ns": 10**9, "duration_s": 1.0}
    assert (Kind.STARTS_MISSING in [finding.kind for finding in validity.findings(row, STEADY)]) is missing


@pytest.mark.parametrize(("in_flight", "broken"), [(9.4, True), (9.6, False), (10.4, False), (10.8, True)])
def test_littles_law_holds_within_5_percent_for_what_starts_at_a_rate(in_flight: float, broken: bool) -> None:
    row = {
        **GOOD,
        **OPEN,
        "intended": 1000,
        "shed": 0,
        "interrupted": 0,
        "completed": 1000,
        "response_ns_max": 15_000_000,
    }
    row |= {"response_ns_max": 15_000_000, "achieved_per_s": 1000.0, "in_flight_mean": in_flight}
    around = replace(STEADY, mean_in_flight_ns=10_000_000)
    assert ([finding.kind for finding in validity.findings(row, around)] == [Kind.LITTLES_LAW]) is broken


def test_poisson_arrivals_are_told_from_even_ones_by_their_gaps() -> None:
    rng, rate = np.random.default_rng(1), 1000.0
    poisson = np.cumsum(rng.exponential(1e9 / rate, 5_000)).astype(np.int64)
    even = np.arange(5_000, dtype=np.int64) * 1_000_000
    distances = [validity.gap_distance(starts, rate) for starts in (poisson, even, poisson[:400])]
    assert distances[0] is not None
    assert distances[0] < 0.05
    assert distances[1] == pytest.approx(1 - math.exp(-1), abs=0.01)
    assert distances[2] is None, "too few to tell"
    found = [validity.findings({**GOOD, **OPEN}, Surroundings(gap_distance=distance)) for distance in distances]
    assert [[finding.kind for finding in some] for some in found] == [[], [Kind.ARRIVALS], []]


def test_random_arrivals_of_a_shape_are_judged_in_its_longest_hold() -> None:
    rng, second = np.random.default_rng(1), 10**9
    rate, slow = (1000, second), (10, second)
    pieces = [Piece("ramp", slow, rate, second), Piece("hold", rate, rate, 3 * second), Piece("burst", count=500)]
    ramp = np.linspace(0, second - 1, 400).astype(np.int64)
    burst = np.full(500, 4 * second)
    poisson = second + np.sort(rng.uniform(0, 3 * second, 3000)).astype(np.int64)
    even = second + np.arange(3000) * second // 1000
    for hold, limits in ((poisson, (0, 0.06)), (even, (0.3, 1))):
        distance = validity.gap_distance(np.concatenate([ramp, hold, burst]), None, pieces)
        assert distance is not None
        assert limits[0] < distance < limits[1]
    assert validity.gap_distance(even, None, pieces[:1]) is None


def test_a_load_that_moved_nothing_saturates_nothing() -> None:
    assert kinds(generator_busy_fraction=1.0, data_pps=0.0, goodput_bytes_per_s=0.0) == []


def test_a_row_without_figures_has_only_what_is_known_of_it() -> None:
    bare = {"started": None, "concurrency": 10, "transfers": None}
    assert validity.findings(bare, Surroundings(server_lost="x: did not answer"))[0].kind is Kind.SERVER_LOST
    assert validity.findings(bare, Surroundings()) == ()


def test_no_figure_of_a_debug_build_is_valid() -> None:
    found = validity.findings(GOOD, Surroundings(debug_build=True))
    assert [finding.kind for finding in found] == [Kind.DEBUG_BUILD]
    assert "make setup" in found[0].advice


@pytest.mark.parametrize(
    ("changes", "around", "advice"),
    [
        ({"generator_lag_ns_p99": 80_000_000}, {"load_1min": 86.0, "cpus": 2},
         "load average 86 on 2 cores: stop other programs"),
        ({"generator_gap_ns_max": 90_000_000}, {"load_1min": 86.0, "cpus": 2},
         "load average 86 on 2 cores: stop other programs"),
        ({"runner_gap_ns_max": 90_000_000}, {"load_1min": 5.0, "cpus": 1},
         "load average 5 on 1 core: stop other programs"),
        ({"generator_lag_ns_p99": 80_000_000, "server_threads_max": 100}, {"load_1min": 86.0, "cpus": 2},
         "stop other programs"),
        ({"generator_lag_ns_p99": 80_000_000, "server_cpus": "0"}, {"load_1min": 1.0, "cpus": 1},
         "server and generator share the only core: measure on a machine with two or more"),
        ({"generator_busy_fraction": 0.99}, {"cpus": 4},
         "give the generator more cores: --set placement.generator_cpus=2 --set client.workers=2"),
        ({"generator_busy_fraction": 0.99}, {"cpus": 2},
         "this machine's 2 cores are all in use: lower the concurrency, or take a larger machine"),
        ({"generator_busy_fraction": 0.99, "generator_cpus": None, "clock_error_ns_max": 1000}, {},
         "take more load hosts, or give the generator more cores there (generators.cores, client.workers)"),
        ({"generator_lag_ns_p99": 80_000_000, "generator_cpus": None, "clock_error_ns_max": 1000}, {},
         "stop other programs"),
        ({"udp_drops_generator": 7, "windowsize": 16}, {},
         "raise net.core.rmem_max and net.core.rmem_default, or lower windowsize"),
        ({"udp_drops_generator": 7, "windowsize": 1}, {},
         "raise net.core.rmem_max and net.core.rmem_default, or lower concurrency"),
        ({"content_mismatches": 1, "operation": "write"}, {},
         "the server stores wrong bytes; upload a file by hand, and compare what is stored with it"),
        ({"trial": 7}, {"server_lost": "x: died with SIGSEGV; its last log line: help"},
         "look at its log, trials/7/server.log in the run's folder"),
        ({"trial": 7}, {"server_lost": "x: did not answer in time; it said nothing"},
         "its log is empty: start it by hand, with its argv in the run's manifest.json"),
        ({"trial": 7, "server": "127.0.0.1:69", "server_cpus": None}, {"server_lost": "127.0.0.1:69: did not answer"},
         "see whether that server still runs, and what its own log says"),
        ({}, {"server_lost": "x: UDP port 69 on 127.0.0.1 is taken by another process; stop that first"},
         "the program that has the port must end before the server can be measured"),
    ],
)  # fmt: skip
def test_the_advice_fits_what_was_seen(changes: dict[str, object], around: dict[str, object], advice: str) -> None:
    [finding] = validity.findings({**GOOD, **changes}, Surroundings(10_000_000, **around))  # type: ignore[arg-type]
    assert finding.advice == advice


def test_a_quick_run_is_invalid_by_what_was_lost_and_not_by_a_limit_of_its_rates() -> None:
    slow = {"generator_busy_fraction": 1.0, "generator_lag_ns_p99": 8e7, "generator_gap_ns_max": 9e7}
    slow |= {"runner_gap_ns_max": 9e7, "udp_drops_generator": 5, "generator_gap_ns_sum": 4e7}
    around = Surroundings(10_000_000, steal_fraction=0.5, steal_ticks=50)
    assert len(validity.findings({**GOOD, **slow}, around)) == 6
    quick = replace(around, is_quick=True)
    assert validity.findings({**GOOD, **slow}, quick) == ()
    assert [each.kind for each in validity.findings({**GOOD, **slow, "content_mismatches": 1}, quick)] == [
        Kind.CONTENT_MISMATCH
    ]


COUNTED: dict[str, object] = {
    "network": "namespace", "windowsize": 1, "datagrams_sent": 5000, "datagrams_received": 4990,
    "server_udp_received": 4980, "server_udp_no_buffer": 15, "server_udp_no_port": 0, "server_udp_bad_checksum": 5,
    "server_udp_sent": 4990,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "around", "said"),
    [
        ({}, {}, None),
        ({"datagrams_sent": 5010}, {}, None),
        ({"datagrams_sent": 5011}, {}, "sent 5,011 datagrams, and 5,000 were counted in the server's network"),
        ({"datagrams_sent": 5011, "timed_out": 5, "completed": 985}, {}, None),
        ({"datagrams_sent": 4989, "timed_out": 5, "completed": 985}, {}, "sent 4,989 datagrams, and 5,000 were"),
        ({"datagrams_received": 4979}, {}, "received 4,979 datagrams, and 4,990 were counted in"),
        ({"datagrams_received": 4979, "udp_drops_generator": 11}, {}, "dropped at the generator's"),
        ({"datagrams_received": 4979}, {"strays": 11}, None),
        ({"server_udp_sent": None}, {}, "nothing was counted in the server's network: its process was killed"),
        ({}, {"strays": None}, "nothing was counted in the server's network"),
        ({"datagrams_sent": 9000, "network": "loopback"}, {}, None),
        ({"datagrams_sent": 9000, "windowsize": 4}, {}, None),
        *(({"datagrams_sent": 9000, "windowsize": None, each: "pi4"}, {}, None) for each in ("boot", "mix")),
        ({"datagrams_sent": 9000, "datagrams_received": None}, {}, None),
    ],
)
def test_generator_and_kernel_must_have_counted_the_same(
    changes: dict[str, object], around: dict[str, int | None], said: str | None
) -> None:
    seen = validity.findings({**GOOD, **COUNTED, **changes}, replace(STEADY, **around))  # type: ignore[arg-type]
    if said is None:
        assert seen == ()
    else:
        [finding] = seen
        assert said in finding.text
        assert validity.commonest([finding.text]) is not None


TIMEOUT_NS = 1_000_000_000
COMPLETED, FAILED, TIMED_OUT, INTERRUPTED, LATE = range(len(OUTCOMES))


def transfers(*ends: tuple[int, int, int, int]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Columns of transfers: outcome, first response, end, ERROR code."""
    columns = np.array(ends, np.int64).reshape(-1, 4).T
    return dict(zip(("outcome", "first_response_ns", "end_ns", "error_code"), columns, strict=True))


def found(row: dict[str, object], *ends: tuple[int, int, int, int]) -> list[tuple[str, int, str]]:
    listed = findings.of_a_load(row, transfers(*ends), TIMEOUT_NS)
    return [(finding.kind, finding.count, finding.text) for finding in listed]


def test_a_server_that_does_its_work_has_no_findings() -> None:
    row: dict[str, object] = {"completed": 100, "fairness": 3.0, "content_mismatches": 0, "blksize": 1468}
    assert found(row | {"blksize_granted": 1468}, (COMPLETED, 5, 99, -1)) == []


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ((FAILED, 5, 5, 0), ("refused", 1, "refused 1 of 2 transfers (ERROR 0, not defined)")),
        ((FAILED, 5, 6, 0), ("failed", 1, "broke off 1 of 2 transfers (ERROR 0, not defined)")),
        ((FAILED, 5, 5, -1), ("failed", 1, "broke off 1 of 2 transfers (protocol fault)")),
        ((TIMED_OUT, -1, 99, -1), ("silent", 1, "never answered 1 of 2 transfers")),
        ((INTERRUPTED, -1, 20_004_000_000, -1), ("unfinished", 1, "1 of 2 done in 20 s")),
        ((INTERRUPTED, 7, 1_500_000_000, -1), ("unfinished", 1, "1 of 2 done in 1.5 s")),
        ((TIMED_OUT, 7, 99, -1), ("timed_out", 1, "fell silent in 1 of 2 transfers")),
    ],
)
def test_each_way_to_lose_a_transfer_is_told_from_the_others(
    end: tuple[int, int, int, int], expected: tuple[str, int, str]
) -> None:
    assert found({}, (COMPLETED, 5, 99, -1), end) == [expected]


def test_transfers_without_a_row_are_counted_all_the_same() -> None:
    row: dict[str, object] = {"started": 1_000, "completed": 998}
    assert found(row, (TIMED_OUT, -1, 99, -1), (INTERRUPTED, 7, 99, -1)) == [
        ("silent", 1, "never answered 1 of 1000 transfers"),
        ("unfinished", 1, "998 of 1000 done in 99 ns"),
    ]


def test_what_a_rate_is_too_much_for_is_the_servers_and_never_invalid() -> None:
    row: dict[str, object] = {"deadline_ns": 2_000_000_000, "intended": 8, "shed": 5, "concurrency": 3}
    late = "had not finished 2 of 3 transfers at their deadline, 2 s after their intended start"
    assert found(row, (COMPLETED, 5, 99, -1), (LATE, 5, 99, -1), (LATE, -1, 99, -1)) == [
        ("late", 2, f"{late}, 1 of them without any answer"),
        ("shed", 5, "did not keep up: 5 of 8 transfers not begun, as 3 were in flight"),
    ]
    assert findings.ORIGINS["late"] == findings.ORIGINS["shed"] == "server"
    (all_late,) = found({"deadline_ns": 1_000_000, "intended": 1, "started": 1}, (LATE, 5, 99, -1))
    assert all_late[2].endswith(
        " 1 of 1 transfers at their deadline, 1 ms after their intended start; give a longer deadline"
    )


def test_a_broken_rule_is_named_with_its_rfc_the_most_frequent_first() -> None:
    faults = [
        {"kind": "stray_tid", "count": 1, "example": "x", "rfc_section": "RFC 1350 section 4"},
        {"kind": "wrong_contents", "count": 9, "example": "x", "rfc_section": None},
        {"kind": "data_too_large", "count": 3, "example": "x", "rfc_section": "RFC 2348"},
        {"kind": "late", "count": 30, "example": "of a run before rfc_section"},
    ]
    assert found({"protocol_faults": faults}, (FAILED, 5, 5, -1))[0][2] == (
        "broke off 1 of 1 transfers (protocol fault: data_too_large, RFC 2348; stray_tid, RFC 1350 section 4)"
    )


def test_the_most_frequent_errors_are_named_first() -> None:
    ends = [(FAILED, 1, 1, code) for code in (2, 9, 9, 0, 0, 0, 5)]
    assert found({}, *ends)[0][2] == (
        "refused 7 of 7 transfers (ERROR 0, not defined; ERROR 9, unknown; ERROR 2, access violation)"
    )


def test_wrong_bytes_options_and_unfairness_come_from_the_row() -> None:
    row: dict[str, object] = {
        "completed": 20, "content_mismatches": 2, "fairness": 10.5, "transfer_ns_max": 1.1e9,
        "blksize": 1468, "blksize_granted": 512, "windowsize": 16, "windowsize_granted": 16,
    }  # fmt: skip
    assert found(row) == [
        ("wrong_bytes", 2, "wrong bytes in 2 of 20 transfers"),
        ("not_granted", 1, "granted blksize 512 where 1468 was asked for"),
        ("unfair", 1, "the slowest transfer took 10 times as long as the median one"),
    ]


@pytest.mark.parametrize(("completed", "slowest_ns"), [(19, 2e9), (1000, 0.9e9)])
def test_of_few_transfers_or_short_of_the_clients_timer_the_slowest_says_nothing(
    completed: int, slowest_ns: float
) -> None:
    assert found({"completed": completed, "fairness": 100.0, "transfer_ns_max": slowest_ns}) == []


def test_work_that_the_trial_had_no_time_for_is_counted_whole_even_where_it_was_not_begun() -> None:
    ends = [(COMPLETED, 5, 99, -1)] * 209 + [(INTERRUPTED, 7, 20_000_000_000, -1)] * 100
    assert found({"transfers": 800}, *ends) == [("unfinished", 100, "209 of 800 done in 20 s")]


def test_what_a_server_that_died_left_unfinished_is_its_own_doing() -> None:
    ends = transfers((COMPLETED, 5, 99, -1), (INTERRUPTED, 7, 100, -1), (INTERRUPTED, -1, 100, -1))
    listed = findings.of_a_load({}, ends, TIMEOUT_NS, died="died with SIGSEGV")
    assert [(each.kind, each.text) for each in listed] == [
        ("died", "died with SIGSEGV"),
        ("silent", "never answered 1 of 3 transfers"),
        ("timed_out", "fell silent in 1 of 3 transfers"),
    ]
    assert {findings.ORIGINS[each.kind] for each in listed} == {"server"}


def test_every_kind_has_an_origin_and_only_some_are_the_servers() -> None:
    assert set(findings.ORIGINS) == set(get_args(findings.Kind))
    assert {kind: origin for kind, origin in findings.ORIGINS.items() if origin != "server"} == {
        "unfinished": "test", "boots_unfinished": "test", "not_granted": "option", "port_taken": "unmeasured",
        "misses_served": "profile",
    }  # fmt: skip


def test_a_dead_and_a_deaf_server_are_told_first() -> None:
    dead = findings.of_a_load({"content_mismatches": 1}, transfers(), TIMEOUT_NS, died="x: died with SIGSEGV")
    assert (dead[0].kind, dead[0].text) == ("died", "x: died with SIGSEGV")
    for silent_s, said in ((math.inf, "after the load"), (17.2, "for 17 s after the load")):
        found = findings.of_a_load({}, transfers(), TIMEOUT_NS, silent_s=silent_s)
        assert [(finding.kind, finding.text) for finding in found] == [
            ("unresponsive", f"answered no new request {said}")
        ]


def share(name: str, *steps: str) -> Share:
    one = Step("read", "", (), 1, 0, "whole", 0, 0, "", 0, (1,), (1,), "give_up", 0, "gap")
    return Share(name, 1, tuple(replace(one, name=step) for step in steps))


def boots(*machines: tuple[str, int, int, str]) -> dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Columns of boots: outcome, share, step that it failed at, reason."""
    known = [(BOOT_OUTCOMES.index(out), part, step, BOOT_REASONS.index(why)) for out, part, step, why in machines]
    columns = np.array(known, np.int64).reshape(-1, 4).T
    return dict(zip(("outcome", "share", "failed_step", "reason"), columns, strict=True))


GRUB, PI = share("grub", "shim.efi", "grub.cfg-{mac-}", "grub.cfg"), share("pi", "start4.elf")
UP = ("booted", 0, -1, "")


def found_of_boots(row: dict[str, object], *machines: tuple[str, int, int, str]) -> list[tuple[str, int, str]]:
    listed = findings.of_boots(row, boots(*machines), [GRUB, PI])
    return [(finding.kind, finding.count, finding.text) for finding in listed]


def test_machines_that_did_not_boot_are_grouped_by_where_they_stopped_the_most_frequent_first() -> None:
    silent, refused = ("failed", 0, 3, "no answer"), ("failed", 1, 1, "refused")
    assert found_of_boots({}, UP, refused, *[silent] * 17, ("failed", 0, 2, "fell silent")) == [
        ("boots_unanswered", 17, "17 machines stopped at grub.cfg: no answer"),
        ("boots_refused", 1, "1 machine stopped at start4.elf: refused"),
        ("boots_silent", 1, "1 machine stopped at grub.cfg-{mac-}: fell silent"),
    ]
    assert found_of_boots({}, UP, UP) == []
    kinds = {str(kind) for kind, _, _ in found_of_boots({}, *[("failed", 0, 1, why) for why in BOOT_REASONS[1:]])}
    assert kinds <= {*get_args(findings.Kind)}
    assert len(kinds) == len(BOOT_REASONS) - 1


def test_no_more_than_eight_places_are_listed_and_no_machine_is_left_out() -> None:
    many = share("many", *(f"file-{number}" for number in range(12)))
    machines = [("failed", 0, step, "no answer") for step in range(1, 13) for _ in range(13 - step)]
    listed = findings.of_boots({}, boots(*machines), [many])
    assert len(listed) == 9
    assert listed[0].text == "12 machines stopped at file-0: no answer"
    assert listed[-1].text == "10 machines more stopped at 4 other places"
    assert sum(finding.count for finding in listed) == len(machines)


def test_late_shed_and_cut_off_machines_and_misses_are_the_servers_or_the_tests() -> None:
    row: dict[str, object] = {"deadline_ns": 2_000_000_000, "machines": 9, "boots_shed": 1, "concurrency": 3}
    late = [("late", 0, 3, "")] * 2 + [("late", 1, 1, "")]
    shed, cut_off = ("shed", 0, -1, ""), ("interrupted", 0, 1, "")
    assert found_of_boots(row | {"misses_unanswered": 4}, UP, *late, shed, cut_off) == [
        (
            "boots_late", 3,
            "3 machines had not booted 2 s after the intended start: 2 at grub.cfg, 1 at start4.elf",
        ),
        ("boots_shed", 1, "did not keep up: 1 of 9 machines did not begin, as 3 were booting"),
        ("misses_unanswered", 4, "left 4 requests for absent files unanswered"),
        ("boots_unfinished", 1, "1 machine had not booted when the trial ended: 1 at shim.efi"),
    ]  # fmt: skip
    assert findings.ORIGINS["boots_late"] == "server"
    (all_late,) = found_of_boots({"deadline_ns": 1_000_000, "machines": 3}, *late)
    assert all_late[2].endswith("2 at grub.cfg, 1 at start4.elf; give a longer deadline")
    assert findings.ORIGINS["boots_unfinished"] == "test"


def test_files_that_were_to_be_absent_and_were_served_are_named_and_not_the_servers_doing() -> None:
    served = [(0, 0, 2), (1, 0, 3), (0, 2, 1)]
    listed = findings.of_boots({}, boots(UP, UP, UP), [GRUB, PI], served)
    assert [(each.kind, each.count, each.text) for each in listed] == [
        ("misses_served", 3, "3 machines were served start4.elf, which the profile expects to be absent"),
        ("misses_served", 2, "2 machines were served shim.efi, which the profile expects to be absent"),
        ("misses_served", 1, "1 machine was served grub.cfg, which the profile expects to be absent"),
    ]
    assert findings.ORIGINS["misses_served"] == "profile"
    assert [findings.place_of(each.text) for each in listed] == [("start4.elf",), ("shim.efi",), ("grub.cfg",)]


def test_machines_that_a_server_left_when_it_died_are_its_own_doing() -> None:
    listed = findings.of_boots({}, boots(UP, ("interrupted", 0, 1, "")), [GRUB, PI], died="died: signal 9")
    assert [(each.kind, each.text) for each in listed] == [
        ("died", "died: signal 9"),
        ("boots_silent", "1 machine had not booted when the server died: 1 at shim.efi"),
    ]


def test_wrong_bytes_of_machines_are_said_once() -> None:
    row: dict[str, object] = {"content_mismatches": 2, "started": 10}
    listed = found_of_boots(row, *[("failed", 0, 1, "wrong bytes")] * 2)
    assert listed == [("wrong_bytes", 2, "2 machines stopped at shim.efi: wrong bytes")]
