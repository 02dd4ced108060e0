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
