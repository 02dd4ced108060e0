"""What makes a trial's figures untrue."""

from dataclasses import replace

import pytest

from tftpbench.measure import validity
from tftpbench.measure.validity import Kind, Surroundings

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
