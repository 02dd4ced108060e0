"""Counters add up, and Little's law holds: on rows as they are stored, with all that may be unknown in them."""

import math

import pytest

from tftpbench.model import invariants

STEADY: dict[str, object] = {
    "transfers": None,
    "concurrency": 10,
    "file_size_bytes": 65536,
    "duration_s": 1.0,
    "goodput_bytes_per_s": 65_536_000.0,
    "transfer_ns_max": 20_000_000,
}
COUNTERS: dict[str, object] = {"started": 10, "completed": 7, "failed": 1, "timed_out": 1, "interrupted": 1}


def test_counters_add_up() -> None:
    assert invariants.counters_fault(COUNTERS) is None
    for name in COUNTERS:
        assert invariants.counters_fault({**COUNTERS, name: 5}) is not None
    assert (
        invariants.counters_fault({**COUNTERS, "completed": 8}) == "10 transfers were started, but 11 are accounted for"
    )


def test_what_is_late_has_ended_and_what_is_shed_has_not_started() -> None:
    loaded = {**COUNTERS, "completed": 5, "late": 2, "intended": 13, "shed": 3}
    assert invariants.counters_fault(loaded) is None
    assert invariants.counters_fault({**loaded, "late": 0}) == "10 transfers were started, but 8 are accounted for"
    assert invariants.counters_fault({**loaded, "shed": 0}) == "13 transfers were intended, but 10 were started or shed"


def test_machines_are_the_sum_of_what_became_of_them() -> None:
    boots = {"booted": 5, "boots_failed": 1, "boots_late": 1, "boots_shed": 2, "boots_interrupted": 1, "machines": 10}
    assert invariants.counters_fault({**COUNTERS, **boots}) is None
    for name in boots:
        assert invariants.counters_fault({**COUNTERS, **boots, name: 9}) is not None
        assert invariants.counters_fault({**COUNTERS, **boots, name: None}) is None
    said = "10 machines were to boot, but 8 are accounted for"
    assert invariants.counters_fault({**COUNTERS, **boots, "boots_shed": 0}) == said


@pytest.mark.parametrize("name", sorted(COUNTERS))
@pytest.mark.parametrize("unknown", [None, math.nan, "many"])
def test_what_is_unknown_breaks_no_law(name: str, unknown: object) -> None:
    assert invariants.counters_fault({**COUNTERS, "completed": 0, name: unknown}) is None


def test_transfers_in_flight_are_rate_times_time() -> None:
    assert invariants.littles_law_fault(STEADY, 10_000_000) is None
    said = "rate and transfer time speak of 20 transfers in flight, not 10"
    assert invariants.littles_law_fault(STEADY, 20_000_000) == said


@pytest.mark.parametrize("changes", [{name: None} for name in STEADY if name != "transfers"] + [{"transfers": 5}])
def test_littles_law_needs_every_figure_and_a_window_of_fixed_time(changes: dict[str, object]) -> None:
    assert invariants.littles_law_fault({**STEADY, **changes}, 20_000_000) is None


@pytest.mark.parametrize("mean_ns", [None, 0.0])
def test_littles_law_needs_a_mean(mean_ns: float | None) -> None:
    assert invariants.littles_law_fault(STEADY, mean_ns) is None


@pytest.mark.parametrize("name", ["rate_per_s", "machines_asked", "shape", "boot", "mix"])
def test_only_a_closed_loop_of_transfers_asks_for_a_number_in_flight(name: str) -> None:
    assert invariants.littles_law_fault({**STEADY, name: 5}, 20_000_000) is None


OPEN: dict[str, object] = {
    "rate_per_s": 200.0,
    "duration_s": 10.0,
    "achieved_per_s": 200.0,
    "in_flight_mean": 10.0,
    "interrupted": 0,
    "response_ns_max": 200_000_000,
    "deadline_ns": 30_000_000_000,
}
OF_BOOTS = {**OPEN, "boot": "pi4", "boots_interrupted": 0, "boot_ns_max": 200_000_000, "response_ns_max": None}


@pytest.mark.parametrize("row", [OPEN, OF_BOOTS])
def test_in_flight_at_a_rate_are_starts_times_time(row: dict[str, object]) -> None:
    for in_flight, broken in ((9.4, True), (9.6, False), (10.4, False), (10.6, True)):
        fault = invariants.open_loop_law_fault({**row, "in_flight_mean": in_flight}, 50_000_000)
        assert (fault is not None) == broken, (in_flight, fault)
    said = "rate and time in flight speak of 20 in flight on average, not 10"
    assert invariants.open_loop_law_fault(row, 100_000_000) == said
    assert invariants.open_loop_law_fault(row, None) is None
    for name in row.keys() - {"deadline_ns", "boot", "interrupted", "response_ns_max"}:
        assert invariants.open_loop_law_fault({**row, name: None}, 100_000_000) is None, name


def test_a_rate_is_steady_where_the_window_is_long_and_nothing_was_cut_off() -> None:
    for changes in ({"response_ns_max": 201_000_000}, {"response_ns_max": None}, {"interrupted": 1}):
        assert invariants.open_loop_law_fault({**OPEN, **changes}, 100_000_000) is None
    never = {**OPEN, "response_ns_max": None, "response_ns_max_is_never": True}
    assert invariants.open_loop_law_fault(never, 100_000_000) is None, "30 s of 10 s"
    assert invariants.open_loop_law_fault({**never, "deadline_ns": 100_000_000}, 100_000_000) is not None
    storm = {**OPEN, "rate_per_s": None, "machines_asked": 100}
    assert invariants.open_loop_law_fault(storm, 100_000_000) is None
    short = {**OPEN, "in_flight_mean": 0.03}  # in which making a request takes a share of the time
    assert invariants.open_loop_law_fault(short, 100_000) is None
