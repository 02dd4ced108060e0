"""Merged histograms: percentiles by nearest rank, whoever wrote them; the native generator's come through unchanged."""

import math
from collections.abc import Iterable

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from tests.loopback.peer import peer, serve_bytes
from tftpbench.host.generator import LoadConfig, run_load
from tftpbench.model.errors import ResultsError
from tftpbench.model.metrics import COLUMNS, LATENCY_KINDS
from tftpbench.store import Latency

# As the native generator records: 64 ns to an hour, three significant figures.
LOWEST_NS, HIGHEST_NS, FIGURES = 64, 3_600_000_000_000, 3


def encoded(values: Iterable[int], lowest: int = 1, highest: int = HIGHEST_NS, figures: int = FIGURES) -> str:
    histogram = HdrHistogram(lowest, highest, figures)
    for value in values:
        histogram.record_value(value)
    return str(histogram.encode().decode("ascii"))


def nearest_rank(values: Iterable[int], p: float) -> int:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(round(p * len(ordered) / 100, 9))) - 1]


@pytest.mark.parametrize("bounds", [(1, 10**10, 3), (LOWEST_NS, HIGHEST_NS, FIGURES), (1000, 10**9, 2)])
def test_buckets_are_those_of_the_library(bounds: tuple[int, int, int]) -> None:
    values = [int(value) for value in np.random.default_rng(1).lognormal(13, 3, 5000)] + [1, bounds[0], bounds[1] - 1]
    histogram = HdrHistogram(*bounds)
    for value in values:
        histogram.record_value(value)
    expected = {
        histogram.get_highest_equivalent_value(histogram.get_value_from_index(index)): histogram.counts[index]
        for index in range(histogram.counts_len)
        if histogram.counts[index]
    }
    latency = Latency.of([histogram.encode().decode("ascii")])
    assert dict(zip(latency.values_ns.tolist(), latency.counts.tolist(), strict=True)) == expected
    assert latency.count == histogram.get_total_count()
    assert latency.max_ns == histogram.get_highest_equivalent_value(histogram.get_max_value())


@pytest.mark.parametrize("p", [0, 0.1, 50, 66.7, 90, 99, 99.9, 99.99, 100])
def test_a_percentile_is_the_nearest_rank(p: float) -> None:
    values = range(1, 1001)  # each in a bucket of its own
    assert Latency.of([encoded(values)]).percentile(p) == nearest_rank(values, p)


def test_a_rank_that_is_whole_is_not_rounded_up() -> None:
    assert 99.9 / 100 * 1000 > 999  # in floats
    assert Latency.of([encoded(range(1, 1001))]).percentile(99.9) == 999


@pytest.mark.parametrize("p", [-1, 100.1, math.nan, math.inf])
def test_what_is_no_percentile_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="is no percentile; allowed: 0 to 100"):
        Latency.of([encoded([1])]).percentile(p)


def test_a_merged_histogram_is_that_of_all_values_and_no_mean_of_percentiles() -> None:
    one, other = Latency.of([encoded([100] * 99)]), Latency.of([encoded([9000])])
    merged = one.merge(other, one)
    assert (merged.count, one.count, other.count) == (199, 99, 1)
    assert merged.percentile(99) == 100
    assert merged.percentile(100) == merged.max_ns == pytest.approx(9000, rel=0.001)
    same = Latency.of([encoded([100] * 99), encoded([9000]), encoded([100] * 99)])
    assert same.to_frame().equals(merged.to_frame())


def test_histograms_of_different_bounds_are_merged_value_by_value() -> None:
    fine, coarse = encoded([10**6] * 3), encoded([10**6] * 2 + [5], LOWEST_NS)
    merged = Latency.of([fine, coarse])
    assert merged.count == 6
    assert merged.percentile(0) == LOWEST_NS - 1
    assert merged.percentile(99) == pytest.approx(10**6, rel=0.001)


def test_a_frame_has_a_row_per_bucket_that_holds_something() -> None:
    frame = Latency.of([encoded([7, 7, 7, 1_000_000])]).to_frame()
    assert list(frame.columns) == ["value_ns", "count", "cumulative", "percentile"]
    assert frame["value_ns"].tolist() == [7, 1_000_447]
    assert frame["count"].tolist() == [3, 1]
    assert frame["cumulative"].tolist() == [3, 4]
    assert frame["percentile"].tolist() == [75.0, 100.0]


def test_nothing_recorded_has_no_percentile() -> None:
    for empty in (Latency.of([]), Latency.of([encoded([])])):
        assert (empty.count, empty.max_ns) == (0, 0)
        assert math.isnan(empty.percentile(50))
        assert len(empty.to_frame()) == 0
        assert repr(empty) == "Latency(0 values)"
        assert empty.merge(Latency.of([encoded([5])])).percentile(50) == 5


def test_it_shows_itself() -> None:
    latency = Latency.of([encoded([1000] * 99 + [10**6])])
    assert repr(latency) == "Latency(100 values, p50 1 us, p90 1 us, p99 1 us, p99.9 1 ms, max 1 ms)"
    assert "<td" in latency._repr_html_()


@pytest.mark.parametrize("text", ["", "HISTnonsense", "äöü", encoded([1, 2, 3])[:-12]])
def test_what_is_no_histogram_is_one_line(text: str) -> None:
    with pytest.raises(ResultsError, match=r"^can't be read: .+"):
        Latency.of([text])


def test_a_latency_is_never_changed() -> None:
    latency = Latency.of([encoded([1])])
    with pytest.raises(ValueError, match="read-only"):
        latency.counts[0] = 2


def test_histograms_of_the_native_generator_come_through_unchanged() -> None:
    """Written in Rust, read in Python: the same counts, its own percentiles, and those of the raw times."""
    size = 2_000
    asked = {"operation": "read", "name": "f-{n}", "file_size_bytes": size, "concurrency": 4, "transfers": 200}
    with peer(serve_bytes(bytes(size))) as server:
        result = run_load(LoadConfig(host="127.0.0.1", port=server.port, **asked))  # type: ignore[arg-type]
    figures, table = result.figures, result.transfers
    assert figures["completed"] == 200
    histograms = {kind: Latency.of(_tagged(result.latency_hlog, kind)) for kind in LATENCY_KINDS}
    percents = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9, "max": 100}
    named = [name for name in COLUMNS if name.partition("_ns_")[0] in LATENCY_KINDS]
    # Those of boots are not there: none were made.
    reported = {name: value for name in named if "never" not in name and (value := figures.get(name)) is not None}
    assert len(reported) == 15
    for name, value in reported.items():
        kind, _, percent = name.partition("_ns_")
        assert histograms[kind].percentile(percents[percent]) == value, name
    raw = {
        "transfer": table["end_ns"] - table["actual_start_ns"],
        "first_response": table["first_response_ns"] - table["actual_start_ns"],
        "response": table["end_ns"] - table["intended_start_ns"],
        "service": table["end_ns"] - table["actual_start_ns"],
    }
    for kind, times in raw.items():
        latency = histograms[kind]
        assert latency.count == times.size
        for p in (0, 50, 90, 99, 100):
            exact = nearest_rank(times.tolist(), p)
            # A bucket goes by its highest value: never less than the raw one, and at most 0.1 % or 64 ns more.
            assert exact <= latency.percentile(p) <= exact + max(exact / 1000, LOWEST_NS)
    # The first block answers the request: its time is in first_response.
    assert histograms["block_rtt"].count == 200 * (size // 512) - (figures["block_rtt_left_out"] or 0)


def _tagged(log: str, kind: str) -> list[str]:
    return [line.rpartition(",")[2] for line in log.splitlines() if line.startswith(f"Tag={kind},")]
