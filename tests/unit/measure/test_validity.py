"""What makes a trial's figures untrue."""

import math
from dataclasses import replace

import numpy as np
import pytest

from tftpbench.measure import validity
from tftpbench.measure.validity import Kind, Surroundings
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
        ({"datagrams_received": 4979}, {}, "received 4,979 datagrams, and 4,990 were counted in"),
        ({"datagrams_received": 4979, "udp_drops_generator": 11}, {}, "dropped at the generator's"),
        ({"datagrams_received": 4979}, {"strays": 11}, None),
        ({"server_udp_sent": None}, {}, "nothing was counted in the server's network: its process was killed"),
        ({}, {"strays": None}, "nothing was counted in the server's network"),
        ({"datagrams_sent": 9000, "network": "loopback"}, {}, None),
        ({"datagrams_sent": 9000, "windowsize": 4}, {}, None),
        ({"datagrams_sent": 9000, "datagrams_received": None}, {}, None),
    ],
)
def test_generator_and_kernel_must_have_counted_the_same(
    changes: dict[str, object], around: dict[str, int | None], said: str | None
) -> None:
    found = validity.findings({**GOOD, **COUNTED, **changes}, replace(STEADY, **around))  # type: ignore[arg-type]
    if said is None:
        assert found == ()
    else:
        [finding] = found
        assert said in finding.text
        assert validity.commonest([finding.text]) is not None
