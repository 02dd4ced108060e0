"""One load from several hosts: its calls, its clocks, its merge, and its coordinator in virtual time.

Results of hosts are made of rows here by definitions written anew (`found`), so that what is merged of any split can be
held against what one host would have found of all.
"""

import json
import math
import os
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from tests.unit.builders import buckets
from tftpbench.host.generator import Fault, LoadConfig, LoadResult, PeerError, Progress, Stop, run_load
from tftpbench.host.hosts import agent, calls, carrier, merge
from tftpbench.host.hosts.calls import BadDocument, Returned
from tftpbench.host.hosts.carrier import HostLost
from tftpbench.host.hosts.clock import Offset, RoundTrip, apart_ns
from tftpbench.host.hosts.generator import HostsGenerator, Limits, split
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.model.boot import Share, Step
from tftpbench.model.errors import HostsError, LoadError, ResultsError
from tftpbench.model.latency import merged_log
from tftpbench.model.metrics import ACROSS_HOSTS, BOOT_OUTCOMES, LATENCY_KINDS, OUTCOMES
from tftpbench.model.workload import Piece

SECOND = 1_000_000_000
MS = 1_000_000
READ = Step("read", "f", (), 512, 0, "whole", 0, 0, "", 0, (SECOND,), (SECOND,), "give_up", 0, "gap")
BOOTS = (Share("one", 1, (READ,)), Share("other", 2, (READ, replace(READ, name="g", size_bytes=None, ends="missing"))))


def config(**changes: Any) -> LoadConfig:
    """A closed loop of a hundred reads."""
    values: dict[str, Any] = {
        "host": "192.0.2.1", "port": 69, "operation": "read", "name": "f-{n}", "file_size_bytes": 2_000,
        "concurrency": 10, "transfers": 100, "allow_remote": True,
    }  # fmt: skip
    return LoadConfig(**(values | changes))


def rate(**changes: Any) -> LoadConfig:
    """An open loop of 100 a second for 2 s after a second."""
    return config(transfers=None, rate_per_s=100.0, duration_ns=2 * SECOND, warm_up_ns=SECOND, **changes)


LOADS: dict[str, LoadConfig] = {
    "closed, fixed": config(),
    "closed, a window": config(transfers=None, duration_ns=2 * SECOND, warm_up_ns=SECOND),
    "a rate": rate(),
    "a rate, fixed": config(rate_per_s=100.0, transfers=200),
    "a storm": config(transfers=200, over_ns=SECOND),
    "a burst": config(transfers=50, over_ns=0),
    "a shape": config(transfers=None, shape=(Piece("hold", (100, SECOND), (100, SECOND), 2 * SECOND),)),
    "boots, a storm": config(transfers=100, over_ns=SECOND, boots=BOOTS),
    "boots, a rate": rate(boots=BOOTS),
}


# What one host finds -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A transfer, or in boots a machine with one transfer; what was shed has no actual start."""

    number: int
    intended: int
    actual: int
    first: int
    end: int
    outcome: str

    @property
    def is_up(self) -> bool:
        return self.outcome == "completed"

    @property
    def blocks(self) -> int:
        return 4 if self.is_up else 0


def rows_of(asked: LoadConfig, seed: int, *, lost: float = 0.2, shed: float = 0.0) -> list[Row]:
    """What may have happened: some fail in every way, a few at the very end."""
    rng = random.Random(seed)
    count = asked.transfers or 300
    made = []
    for number in range(count):
        intended = number * 10 * MS if asked.over_ns is None else number * asked.over_ns // count
        actual = intended + int(rng.expovariate(1 / 50_000))
        first = actual + int(rng.uniform(50_000, 2 * MS))
        end = first + int(rng.lognormvariate(15, 1.5))
        outcome = "completed"
        if asked.is_open_loop and rng.random() < shed:
            outcome = "shed"
        elif rng.random() < lost:
            outcome = rng.choice(["failed", "late", "timed_out"] if not asked.boots else ["failed", "late"])
            if outcome == "timed_out":
                first = -1
            end += int(rng.uniform(0, SECOND))
        made.append(Row(number, intended, -1 if outcome == "shed" else actual, first, end, outcome))
    return made


def hlog(kinds: dict[str, list[tuple[int, int]]]) -> str:
    """A log of (time, value), a histogram for each second."""
    lines = ["#[Histogram log format version 1.3]", '"StartTimestamp","Interval_Length"']
    for kind, samples in kinds.items():
        for second in sorted({at // SECOND for at, _ in samples}):
            histogram = HdrHistogram(64, 3_600_000_000_000, 3)
            for at, value in samples:
                if at // SECOND == second:
                    histogram.record_value(value)
            most = histogram.get_max_value() / 1e6
            lines.append(f"Tag={kind},{second}.000,1.000,{most:.3f},{histogram.encode().decode()}")
    return "\n".join(lines) + "\n"


def percentile(values: Sequence[int], rank: int) -> int:
    """The value of that rank, to the bucket."""
    histogram = HdrHistogram(64, 3_600_000_000_000, 3)
    return int(histogram.get_highest_equivalent_value(sorted(values)[rank - 1]))


def quantile(values: Sequence[int], share: float) -> int | None:
    return percentile(values, max(1, math.ceil(share * len(values)))) if values else None


def found(asked: LoadConfig, rows: Sequence[Row], *, kept: str = "all", seed: int = 0) -> Returned:
    """The result of a host that saw these rows. `kept`: which have one in the tables: all, failed, or few of either."""
    rng = random.Random(seed)
    begun = [row for row in rows if row.outcome != "shed"]
    up = [row for row in begun if row.is_up]
    last = max((row.end for row in up), default=max((row.end for row in begun), default=0))
    opens, closes = (0, last) if asked.transfers is not None else (asked.warm_up_ns, asked.window_ns(0)[1] or 0)
    seconds = (closes - opens) / 1e9
    is_whole = asked.transfers is not None or bool(asked.shape)

    def counts(row: Row) -> bool:
        return is_whole or opens <= row.intended < closes

    inside = [row for row in up if opens <= row.end < closes + (asked.transfers is not None)]
    overlapping = [row for row in up if row.end >= opens and row.actual < closes]
    times = sorted(row.end - row.actual for row in overlapping)
    blocks = sum(row.blocks for row in inside)
    cohort = [row for row in begun if counts(row)]
    intended = [row for row in rows if counts(row)]
    response = [(row.end, row.end - row.intended) for row in cohort if row.is_up]
    service = [(row.end, row.end - row.actual) for row in cohort if row.is_up]
    first = [(row.first, row.first - row.actual) for row in begun if row.first >= 0 and row.end >= opens]
    first = [each for each, row in zip(first, [r for r in begun if r.first >= 0 and r.end >= opens], strict=True)
             if row.actual < closes]  # fmt: skip
    rtt = [(row.first, 1_000 + row.number) for row in up]
    lag = [max(0, row.actual - row.intended) for row in cohort]
    logs = {
        "block_rtt": rtt, "transfer": [(row.end, row.end - row.actual) for row in overlapping], "first_response": first,
        "response": response, "service": service,
    }  # fmt: skip
    offered, achieved = rates(asked, intended, cohort, seconds, (opens, closes))
    in_flight = sum(max(0, min(row.end, closes) - max(row.actual, opens)) for row in begun)
    figures: dict[str, Any] = {
        "intended": len(rows), "shed": len(rows) - len(begun), "started": len(begun), "late": 0,
        **{name: sum(row.outcome == name for row in begun) for name in OUTCOMES},
        "unanswered": sum(row.first < 0 for row in begun), "retransmissions": len(begun) * 2, "duplicates": 1,
        "strays": 2, "late_datagrams": 0, "bytes_verified": len(up) * 2_000, "content_mismatches": 0,
        "blksize_granted": 512 + rng.randrange(900), "windowsize_granted": None, "duration_s": seconds,
        **{name: value / seconds if seconds else None for name, value in (
            ("data_pps", blocks), ("pps", 2 * blocks), ("goodput_bytes_per_s", 500 * blocks),
            ("transfers_per_s", len(inside)))},
        "blocks_to_window_end": sum(row.blocks for row in up if row.end < closes + (asked.transfers is not None)),
        "block_rtt_left_out": 3,
        "fairness": fairness(times, kept),
        "transfer_ns_mean": sum(times) / len(times) if times else None,
        "amplification": 516 * 2 * blocks / (500 * blocks) if blocks else None,
        "generator_busy_fraction": rng.random(), "generator_lag_ns_p99": rng.randrange(MS), "generator_unsent": 0,
        "datagrams_sent": 5 * len(begun), "datagrams_received": 4 * len(begun), "udp_drops_generator": 1,
        "generator_receive_buffer_bytes": 1 << rng.randrange(15, 20), "first_start_ns": 5 * SECOND,
        "window_open_ns": opens, "window_close_ns": closes, "generator_gap_ns_max": rng.randrange(MS),
        "generator_gap_ns_sum": rng.randrange(MS), "runner_gap_ns_max": rng.randrange(MS),
        "in_flight_max": len(begun), "in_flight_mean": in_flight / (closes - opens) if closes > opens else None,
        "rows_every": 1, "rows_every_failed": 1,
        **{f"block_rtt_ns_{name}": quantile([value for _, value in rtt], share)
           for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))},
        **{f"transfer_ns_{name}": quantile(times, share)
           for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))},
        **{f"first_response_ns_{name}": quantile([value for _, value in first], share)
           for name, share in (("p50", 0.5), ("p99", 0.99))},
        "offered_per_s": offered, "achieved_per_s": achieved,
        "burst_ns": max(row.actual for row in cohort) - min(row.actual for row in cohort)
        if asked.over_ns is not None and cohort else None,
        "schedule_lag_ns_p50": quantile(lag, 0.5), "schedule_lag_ns_p99": quantile(lag, 0.99),
    }  # fmt: skip
    names = ("boot", "boot_service") if asked.boots else ("response", "service")
    of_cohort(figures, names[0], [value for _, value in response], len(intended), ("p50", "p95", "p99", "max"))
    of_cohort(figures, names[1], [value for _, value in service], len(cohort), ("p50", "p95", "p99"))
    boots: dict[str, Any] = {}
    if asked.boots:
        # The one transfer of a machine is intended when it starts; what is shed is a machine alone.
        of_cohort(figures, "response", [value for _, value in response], len(cohort), ("p50", "p95", "p99", "max"))
        of_cohort(figures, "service", [value for _, value in service], len(cohort), ("p50", "p95", "p99"))
        logs |= {"boot": response, "boot_service": service, "miss": [(row.end, 7_000 + row.number) for row in up]}
        misses = [value for _, value in logs["miss"]]
        figures |= {
            "machines": len(rows), "booted": len(up), "boots_failed": figures["failed"], "shed": 0,
            "boots_late": figures["late"], "boots_shed": len(rows) - len(begun), "boots_interrupted": 0,
            "misses": len(up), "misses_unanswered": 1, "restarts": 2, "intended": len(begun),
            "miss_ns_p50": quantile(misses, 0.5), "miss_ns_p99": quantile(misses, 0.99),
        }  # fmt: skip
        for name in [name for name in figures if name.startswith(("boot_ns_p95", "boot_service_ns_p95"))]:
            del figures[name]
        boots = machines(rows, kept, rng)
    tables = transfers(begun, kept, rng)
    figures["rows_kept"] = len(tables["number"])
    return Returned(
        LoadResult(
            figures, tables, intervals(begun, rows, rng), hlog(logs),
            (Fault("stray_tid", 2, "first", "RFC 1350 section 4"),), (PeerError(1, figures["failed"], "no"),),
            (0, 0), len(begun), {"blksize": len(up), "tsize": 1}, None, boots,
            ((1, 1, len(up)),) if asked.boots else (),
        ),
        was_stopped=False,
    )  # fmt: skip


def fairness(times: Sequence[int], kept: str) -> float | None:
    """Slowest to median, out of the rows where all are there, else out of the histogram."""
    if not times:
        return None
    if kept == "all":
        return times[-1] / times[len(times) // 2]
    return (quantile(times, 1.0) or 0) / (quantile(times, 0.5) or 1)


def rates(
    asked: LoadConfig, intended: Sequence[Row], cohort: Sequence[Row], seconds: float, window: tuple[int, int]
) -> tuple[float | None, float | None]:
    """Offered and achieved."""
    if not asked.is_open_loop:
        return None, None
    length = asked.over_ns if asked.over_ns is not None else sum(piece.for_ns for piece in asked.shape) or None
    if asked.rate_ratio and asked.transfers is not None:
        _, width, of = asked.share
        length = len(intended) * of // width * asked.rate_ratio[1] // asked.rate_ratio[0]
    if length == 0:
        return None, None
    if length is not None:
        longest = max([length, *(row.actual for row in cohort)])
        return len(intended) * 1e9 / length, len(cohort) * 1e9 / longest
    in_time = sum(window[0] <= row.actual < window[1] for row in cohort)
    return len(intended) / seconds, in_time / seconds


def of_cohort(figures: dict[str, Any], name: str, known: Sequence[int], total: int, percents: Sequence[str]) -> None:
    """Percentiles over a cohort; of an empty one nothing is known."""
    for percent in percents:
        thousandths = {"p50": 500, "p95": 950, "p99": 990, "max": 1000}[percent]
        rank = -(-total * thousandths // 1000)
        is_never = rank > len(known)
        figures[f"{name}_ns_{percent}"] = percentile(known, rank) if total and not is_never else None
        figures[f"{name}_ns_{percent}_is_never"] = is_never if total else None


def wanted(rows: Sequence[Row], kept: str, rng: random.Random) -> list[Row]:
    if kept == "all":
        return list(rows)
    return [row for row in rows if not row.is_up and (kept == "failed" or rng.random() < 0.5)]


def transfers(begun: Sequence[Row], kept: str, rng: random.Random) -> dict[str, Any]:
    rows = wanted(begun, kept, rng)
    return {
        name: np.array([value(row) for row in rows], np.int64)
        for name, value in (
            ("number", lambda row: row.number), ("intended_start_ns", lambda row: row.intended),
            ("actual_start_ns", lambda row: row.actual), ("first_response_ns", lambda row: row.first),
            ("end_ns", lambda row: row.end), ("bytes", lambda row: 500 * row.blocks),
            ("retransmissions", lambda _: 2), ("outcome", lambda row: OUTCOMES.index(row.outcome)),
            ("error_code", lambda _: -1), ("machine", lambda row: row.number), ("step", lambda _: 1),
        )
    }  # fmt: skip


def machines(rows: Sequence[Row], kept: str, rng: random.Random) -> dict[str, Any]:
    known = wanted(rows, kept, rng)
    outcomes = [BOOT_OUTCOMES.index("booted" if row.is_up else row.outcome) for row in known]
    columns = {name: np.zeros(len(known), np.int64) for name in calls.TABLES["boots"]}
    return columns | {
        "machine": np.array([row.number for row in known], np.int64),
        "intended_start_ns": np.array([row.intended for row in known], np.int64),
        "actual_start_ns": np.array([row.actual for row in known], np.int64),
        "end_ns": np.array([row.intended if row.outcome == "shed" else row.end for row in known], np.int64),
        "outcome": np.array(outcomes, np.int64), "share": np.array([row.number % 2 for row in known], np.int64),
    }  # fmt: skip


def intervals(begun: Sequence[Row], rows: Sequence[Row], rng: random.Random) -> dict[str, Any]:
    """Of 100 ms, or twice that."""
    length = rng.choice([100, 200]) * MS
    count = max((row.end for row in begun), default=0) // length + 1
    made = {name: np.zeros(count, np.int64) for name in calls.TABLES["intervals"]}
    made["duration_ns"][:] = length
    for row in begun:
        made["blocks"][row.end // length] += row.blocks
        made["started"][row.actual // length] += 1
    for row in rows:
        made["shed"][row.intended // length] += row.outcome == "shed" and row.intended // length < count
    return made


# Merging -------------------------------------------------------------------------------------------------------------


def parts_of(
    asked: LoadConfig, rows: Sequence[Row], weights: Sequence[int], kept: str = "all"
) -> tuple[list[merge.Part], list[Row]]:
    """What hosts with these shares of the schedule find of the rows."""
    parts = []
    for host, part in split(asked, weights).items():
        first, width, of = part.share
        theirs = [row for row in rows if first <= row.number % of < first + width]
        parts.append(merge.Part(host, part, found(part, theirs, kept=kept, seed=host)))
    return parts, list(rows)


def merged(asked: LoadConfig, parts: Sequence[merge.Part]) -> LoadResult:
    return merge.merge(asked, parts, 5 * SECOND, (0, 0))


def most_at_once(rows: Sequence[Row]) -> int:
    """In flight at each start, those that end just then not among them."""
    return max((sum(o.actual <= row.actual < o.end for o in rows) for row in rows), default=0)


# What differs between one host and several: of each host's own loop, and of how rows were counted as they came.
OF_EACH_HOST = {
    "blksize_granted", "generator_busy_fraction", "generator_lag_ns_p99", "generator_receive_buffer_bytes",
    "generator_gap_ns_max", "generator_gap_ns_sum", "runner_gap_ns_max", "in_flight_max", "duplicates", "strays",
    "udp_drops_generator", "block_rtt_left_out", "misses_unanswered", "restarts",
}  # fmt: skip


RULES: dict[str, Callable[[Any], Any]] = {"sum": sum, "max": max, "min": min}
BY_RULE = {name: RULES[rule] for name, rule in ACROSS_HOSTS.items() if rule in RULES}


@pytest.mark.parametrize("weights", [(1, 1), (3, 1, 2)], ids=str)
@pytest.mark.parametrize("kept", ["all", "failed", "few"])
@pytest.mark.parametrize("name", LOADS)
def test_any_split_merges_to_what_one_host_would_have_found(name: str, kept: str, weights: tuple[int, ...]) -> None:
    asked = LOADS[name]
    for seed, (lost, shed) in enumerate([(0.2, 0.0), (0.0, 0.0), (0.6, 0.2), (0.02, 0.0), (1.0, 0.0), (0.2, 0.05)]):
        rows = rows_of(asked, seed, lost=lost, shed=shed)
        parts, _ = parts_of(asked, rows, weights, kept)
        result, whole = merged(asked, parts), found(asked, rows, kept=kept).result
        for kind in LATENCY_KINDS:
            values = buckets(result.latency_hlog, kind)
            if values or (kept, kind) != ("few", "first_response"):  # of fixed work, rows that fail tell it
                assert values == buckets(whole.latency_hlog, kind), kind
        left_out = OF_EACH_HOST | {"rows_kept"} | (set() if kept == "all" else {"schedule_lag_ns_p99"})
        figures = {figure: value for figure, value in whole.figures.items() if figure not in left_out}
        unknown = {name for name, value in figures.items() if value is not None and result.figures[name] is None}
        assert unknown <= may_be_unknown(name, kept, shed), seed
        for figure in figures.keys() - unknown:
            expected = figures[figure]
            assert result.figures[figure] == (expected if expected is None else pytest.approx(expected, rel=1e-9)), (
                figure, seed,
            )  # fmt: skip
        for figure in OF_EACH_HOST & BY_RULE.keys() & whole.figures.keys():
            known = [value for part in parts if (value := part.result.figures.get(figure)) is not None]
            assert result.figures[figure] == (BY_RULE[figure](known) if known else None), figure
        assert result.answered == whole.answered
        assert result.granted == {"blksize": whole.granted["blksize"], "tsize": len(parts)}
        assert sum(error.count for error in result.errors) == whole.errors[0].count
        assert sum(misses for *_, misses in result.served_misses) == sum(misses for *_, misses in whole.served_misses)
        if kept == "all":
            assert result.figures["in_flight_max"] == most_at_once([row for row in rows if row.actual >= 0])
        else:
            lags = [part.result.figures["schedule_lag_ns_p99"] for part in parts]
            worst = max((lag for lag in lags if lag is not None), default=None)
            assert result.figures["schedule_lag_ns_p99"] in (worst, whole.figures["schedule_lag_ns_p99"])


def may_be_unknown(name: str, kept: str, shed: float) -> set[str]:
    """Figures that rows are needed for, and that are null where these are missing."""
    if kept == "all":
        return set()
    found = {"schedule_lag_ns_p50", "in_flight_mean", "burst_ns"}
    if kept == "few" and LOADS[name].transfers is not None:
        found |= {"first_response_ns_p50", "first_response_ns_p99"}
    if kept == "few" and name in ("closed, a window", "boots, a rate", "a rate"):
        times = ["response", "service"] if name != "boots, a rate" else ["response", "service", "boot", "boot_service"]
        if name != "a rate" or shed:
            found |= {f"{time}_ns_{at}{end}" for time in times for at in ("p50", "p95", "p99", "max")
                      for end in ("", "_is_never")}  # fmt: skip
    return found


def test_rows_have_a_host_and_intervals_are_added_in_the_longest_rows() -> None:
    asked = rate()
    parts, _ = parts_of(asked, rows_of(asked, 1), (1, 1))
    result = merged(asked, parts)
    assert set(result.transfers["host"].tolist()) == {0, 1}
    for host, part in enumerate(parts):
        own = result.transfers["host"] == host
        for name, column in part.result.transfers.items():
            assert (result.transfers[name][own] == column).all()
    lengths = [int(part.result.intervals["duration_ns"][0]) for part in parts]
    assert set(result.intervals["duration_ns"].tolist()) == {max(lengths)}
    for name in ("blocks", "started", "shed", "in_flight"):
        assert result.intervals[name].sum() == sum(part.result.intervals[name].sum() for part in parts)


def test_what_is_in_flight_in_a_longer_interval_is_so_at_its_end() -> None:
    table = {name: np.array([1, 2, 3], np.int64) for name in calls.TABLES["intervals"]}
    table["duration_ns"] = np.full(3, 100 * MS)
    longer = {name: np.array([10, 10], np.int64) for name in table} | {"duration_ns": np.full(2, 200 * MS)}
    made = merge._intervals([table, longer])
    assert made["in_flight"].tolist() == [12, 13]
    assert made["blocks"].tolist() == [13, 13]


def test_of_unlike_samples_as_many_rows_are_kept_as_of_the_coarser_one() -> None:
    asked = config(rows="sample")
    parts, _ = parts_of(asked, rows_of(asked, 3, lost=0.1), (1, 1))
    fine, coarse = parts
    lost = coarse.result.transfers["outcome"] != 0
    keeps = lost | (np.cumsum(~lost) % 4 == 1)
    thinned = {name: column[keeps] for name, column in coarse.result.transfers.items()}
    figures = {**coarse.result.figures, "rows_every": 4, "rows_kept": int(keeps.sum())}
    coarse = replace(coarse, returned=replace(coarse.returned, result=replace(coarse.result, transfers=thinned,
                                                                             figures=figures)))  # fmt: skip
    result = merged(asked, [fine, coarse])
    assert result.figures["rows_every"] == 4
    assert result.figures["rows_every_failed"] == 1
    rows = result.transfers
    completed = [int(np.count_nonzero((rows["host"] == host) & (rows["outcome"] == 0))) for host in (0, 1)]
    all_completed = [part.result.figures["completed"] for part in parts]
    assert completed == [-(-(count or 0) // 4) for count in all_completed]
    assert result.figures["rows_kept"] == len(rows["outcome"])
    assert np.count_nonzero(rows["outcome"]) == sum((p.result.figures["failed"] or 0)
        + (p.result.figures["late"] or 0) + (p.result.figures["timed_out"] or 0) for p in parts)  # fmt: skip
    assert result.figures["in_flight_max"] is None


def test_what_a_stop_cut_off_is_neither_done_nor_never() -> None:
    asked = config(transfers=10, rate_per_s=100.0)
    rows = [Row(number, number, number, number + 1, number + 100, "completed" if number < 6 else "interrupted")
            for number in range(10)]  # fmt: skip
    parts, _ = parts_of(asked, rows, (1, 1))
    stopped = [replace(part, returned=replace(part.returned, was_stopped=True)) for part in parts]
    result = merged(asked, stopped).figures
    assert (result["response_ns_p50"], result["response_ns_p50_is_never"]) == (127, False)
    assert (result["response_ns_p95"], result["response_ns_p95_is_never"]) == (None, None)
    by_its_limit = merged(asked, parts).figures
    assert (by_its_limit["response_ns_p95"], by_its_limit["response_ns_p95_is_never"]) == (None, True)


def test_rates_are_null_where_machines_of_one_host_completed_requests_and_none_came_up() -> None:
    asked = LOADS["boots, a storm"]
    rows = rows_of(asked, 1, lost=0.0)
    parts, _ = parts_of(asked, rows, (1, 1))
    first, second = parts
    table = {**second.result.boots, "outcome": np.ones_like(second.result.boots["outcome"])}
    figures = {**second.result.figures, "booted": 0, "boots_failed": second.result.figures["machines"],
               "window_close_ns": 60 * SECOND}  # fmt: skip
    second = replace(second, returned=replace(second.returned, result=replace(second.result, boots=table,
                                                                              figures=figures)))  # fmt: skip
    result = merged(asked, [first, second]).figures
    assert result["window_close_ns"] == max(row.end for row in rows)  # the last completion, and not the last failure
    assert [result[name] for name in ("data_pps", "pps", "goodput_bytes_per_s", "amplification")] == [None] * 4
    assert result["machines"] == 100


def test_one_that_starts_as_another_ends_is_not_in_flight_with_it() -> None:
    asked = config(transfers=4)
    rows = [Row(number, 0, number * 10, number * 10 + 1, number * 10 + 10, "completed") for number in range(4)]
    parts, _ = parts_of(asked, rows, (1, 1))
    assert merged(asked, parts).figures["in_flight_max"] == 1


def test_histograms_of_unlike_bounds_are_no_result() -> None:
    asked = config()
    parts, _ = parts_of(asked, rows_of(asked, 1), (1, 1))
    other = HdrHistogram(1, 10**9, 3)
    other.record_value(5)
    log = f"Tag=response,0.000,1.000,0.000,{other.encode().decode()}\n"
    broken = replace(parts[1], returned=replace(parts[1].returned, result=replace(parts[1].result, latency_hlog=log)))
    with pytest.raises(merge.Unmergeable, match="unlike bounds"):
        merged(asked, [parts[0], broken])
    garbled = replace(broken, returned=replace(broken.returned, result=replace(broken.result, latency_hlog="Tag=x")))
    with pytest.raises(merge.Unmergeable, match="no line of a latency log") as error:
        merged(asked, [parts[0], garbled])
    assert error.value.host == 1
    with pytest.raises(merge.Unmergeable):
        merged(asked, [garbled])


@pytest.mark.parametrize(
    "line",
    ["Tag=response,0.000,1.500,0.1,HIST", "Tag=response,0.500,1.000,0.100,HIST", "Tag=response,0.000,3.000,0.100,HIST",
     "Tag=other,0.000,1.000,0.100,HIST", "response,0.000,1.000,0.100,HIST", "Tag=response,-1.000,1.000,0.100,HIST",
     "Tag=response,0.000,1.000,0.100,!!", "Tag=response,0.000,1.000,0.100,SElTVA=="],
)  # fmt: skip
def test_a_log_that_the_generator_does_not_write_is_refused(line: str) -> None:
    with pytest.raises(ResultsError):
        merged_log([line])


def test_a_log_has_few_lines_however_many_hosts_and_seconds_it_is_of() -> None:
    logs = [hlog({"transfer": [(second * SECOND, 1_000 + second) for second in range(start, 200, 2)]})
            for start in (0, 1)]  # fmt: skip
    whole = merged_log(logs)
    lines = [line for line in whole.splitlines() if line.startswith("Tag=")]
    assert len(lines) == 100
    assert lines[1].startswith("Tag=transfer,2.000,2.000,")
    assert buckets(whole, "transfer") == buckets(logs[0], "transfer") + buckets(logs[1], "transfer")


def test_every_figure_of_a_generator_has_a_rule_for_several_hosts() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        asked = config(host="127.0.0.1", port=port, transfers=2, concurrency=1, timeout_ns=MS, retries=0, over_ns=0,
                       deadline_ns=10 * MS)  # fmt: skip
        plain = run_load(asked)
        boots = run_load(replace(asked, boots=BOOTS))
    names = {*plain.figures, *boots.figures}
    assert {name for name in names if name not in ACROSS_HOSTS} == set()
    assert {name for name in ACROSS_HOSTS if name not in names} == set()
    assert {*calls.TABLES["transfers"]} == {*plain.transfers}
    assert {*calls.TABLES["boots"]} == {*boots.boots}
    assert {*calls.TABLES["intervals"]} == {*plain.intervals}
    for result in (plain, boots):  # what it writes is what is read
        lines = [line for line in result.latency_hlog.splitlines() if line.startswith("Tag=")]
        again = merged_log([result.latency_hlog])
        assert [line for line in again.splitlines() if line.startswith("Tag=")] == lines
        assert again.splitlines()[: len(again.splitlines()) - len(lines)] == result.latency_hlog.splitlines()[
            : len(result.latency_hlog.splitlines()) - len(lines)]  # fmt: skip


# Shares --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "count"), [((1, 1), 10), ((3, 1, 2), 37), ((1,) * 7, 3), ((0, 2, 1), 20)], ids=str)
def test_shares_are_the_whole_schedule_and_no_start_is_in_two(weights: tuple[int, ...], count: int) -> None:
    parts = split(config(transfers=count, concurrency=40), weights)
    numbers = [
        number
        for part in parts.values()
        for first, width, of in [part.share]
        for j in range(count)
        if (number := j // width * of + first + j % width) < count
    ]
    assert sorted(numbers) == list(range(count))
    assert all(any(n % p.share[2] in range(p.share[0], sum(p.share[:2])) for n in range(count)) for p in parts.values())


def test_what_is_in_flight_is_split_and_a_host_without_any_has_no_share() -> None:
    parts = split(config(concurrency=3, workers=2, bytes_per_s_max=1_000), (1, 1, 1, 1, 1))
    assert [part.concurrency for part in parts.values()] == [1, 1, 1]
    assert [part.share for part in parts.values()] == [(0, 1, 3), (1, 1, 3), (2, 1, 3)]
    assert [part.workers for part in parts.values()] == [1, 1, 1]
    assert sum(part.bytes_per_s_max or 0 for part in parts.values()) == 1_000
    assert [part.concurrency for part in split(config(concurrency=10), (3, 1)).values()] == [8, 2]
    assert [part.cpus for part in split(config(cpus=(3,)), (1, 1)).values()] == [(3,), (3,)]


# Clocks --------------------------------------------------------------------------------------------------------------


def test_an_offset_is_wrong_by_its_error_at_most_and_the_shortest_trip_tells_it() -> None:
    rng = random.Random(3)
    for _ in range(500):
        true, now, trips = rng.randrange(-(10**12), 10**12), rng.randrange(10**15), []
        for _ in range(32):
            there, back = int(rng.expovariate(1e-6)), int(rng.expovariate(1e-5))
            trips.append(RoundTrip(now, now + there + true, now + there + back))
            now += there + back + 1
        found = Offset.of(trips)
        assert abs(found.offset_ns - true) <= found.error_ns
        shortest = min(trip.received_ns - trip.sent_ns for trip in trips)
        assert found.error_ns == -(-shortest // 2)
        assert found.here(found.there(7)) == 7


def test_what_clocks_drift_apart_is_part_of_the_error() -> None:
    assert apart_ns(Offset(100, 7), None) == 7
    assert apart_ns(Offset(100, 7), Offset(100, 3)) == 7
    assert apart_ns(Offset(100, 7), Offset(-900, 3)) == 1_003


# Documents -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOADS)
def test_a_load_and_its_result_come_back_as_they_were_sent(name: str) -> None:
    for part in split(LOADS[name], (1, 2)).values():
        document = calls.prepare(part, calls.files_of(part))
        asked, _ = calls.unpacked(document, calls.Prepare)
        assert calls.with_files(calls.config_of(asked), asked, Path(), 0) == part
        first, width, of = part.share
        theirs = [row for row in rows_of(part, 5) if first <= row.number % of < first + width]
        sent = found(part, theirs)
        back = calls.result_of(calls.result_bytes(sent), part)
        assert back.result.figures == sent.result.figures
        assert back.was_stopped == sent.was_stopped
        assert back.result.latency_hlog == sent.result.latency_hlog
        assert (back.result.faults, back.result.errors) == (sent.result.faults, sent.result.errors)
        for table, before in ((back.result.transfers, sent.result.transfers), (back.result.boots, sent.result.boots),
                              (back.result.intervals, sent.result.intervals)):  # fmt: skip
            assert {name: column.tolist() for name, column in table.items()} == {
                name: before[name].tolist() for name in table
            }


def test_files_travel_and_stand_where_they_stood(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"f-{number}").write_bytes(b"x" * number)
    one = config(verify_against=tmp_path / "f-1")
    each = config(verify_against=tmp_path / "f-{n}", distinct_files=3)
    boots = config(boots=(replace(BOOTS[0], steps=(replace(READ, contents=tmp_path / "f-2"), READ)), BOOTS[1]))
    for asked, files in ((one, 1), (each, 3), (boots, 1)):
        found = calls.files_of(asked)
        assert len(found.paths) == files
        document, _ = calls.unpacked(calls.prepare(asked, found), calls.Prepare)
        back = calls.with_files(calls.config_of(document), document, Path("/there"), files)
        if asked is one:
            assert back == replace(one, verify_against=Path("/there/0"))
        elif asked is each:
            assert back == replace(each, verify_against=Path("/there/{n}"))
        else:
            assert back.boots[0].steps[0].contents == Path("/there/0")
            assert back.boots[0].steps[1].contents is None
        with pytest.raises(BadDocument):
            calls.with_files(calls.config_of(document), document, Path("/there"), 0)
    with pytest.raises(LoadError, match="can't be read"):
        calls.files_of(config(verify_against=tmp_path / "none"))


def test_too_many_bytes_to_compare_with_are_refused_in_one_line(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(calls.FILES_MAX_BYTES + 1)
    with pytest.raises(LoadError, match=r"^the files to compare with have 256 MiB; .*: compare fewer, or none"):
        calls.files_of(config(verify_against=large))


def test_what_only_this_machine_has_is_refused() -> None:
    for changes in (
        {"network_fd": 3},
        {"sockets": "ring"},
        {"ring_mac": b"abcdef"},
        {"machines_network": "10.0.0.0/8"},
    ):
        asked = config(**changes)
        with pytest.raises(LoadError):
            calls.prepare(asked, calls.files_of(asked))


def altered(document: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    head, _, payload = document.partition(b"\n")
    known = json.loads(head)
    change(known)
    return json.dumps(known).encode() + b"\n" + payload


HOSTILE_CONFIGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown key": lambda head: head.update(more=1),
    "unknown key in config": lambda head: head["config"].update(more=1),
    "missing key": lambda head: head["config"].pop("seed"),
    "text for a number": lambda head: head["config"].update(seed="1"),
    "nan": lambda head: head["config"].update(rate_per_s=math.nan),
    "a path of the host": lambda head: head["config"].update(verify_against="/etc/passwd"),
    "no share": lambda head: head["config"].update(share=[1, 1, 1]),
    "many workers": lambda head: head["config"].update(workers=100_000),
    "a huge number": lambda head: head["config"].update(file_size_bytes=10**4_000),
    "a file for no step": lambda head: head.update(contents=[[9, 0, 0]]),
}


@pytest.mark.parametrize("name", HOSTILE_CONFIGS)
def test_an_agent_refuses_a_load_that_no_coordinator_sends(name: str) -> None:
    asked = config(rate_per_s=5.0, over_ns=None)
    document = calls.prepare(asked, calls.files_of(asked))
    with pytest.raises(BadDocument) as error:
        received(altered(document, HOSTILE_CONFIGS[name]))
    assert len(str(error.value).splitlines()) == 1


def received(document: bytes) -> LoadConfig:
    """The load of a call, as an agent reads it."""
    head, _ = calls.unpacked(document, calls.Prepare)
    return calls.with_files(calls.config_of(head), head, Path("/there"), 1)


HOSTILE_RESULTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "unknown key": lambda head: head.update(more=1),
    "unknown figure": lambda head: head["figures"].update(made_up=1),
    "nan": lambda head: head["figures"].update(data_pps=math.nan),
    "infinite": lambda head: head["figures"].update(data_pps=math.inf),
    "negative": lambda head: head["figures"].update(started=-1),
    "huge": lambda head: head["figures"].update(started=2**70),
    "text": lambda head: head["figures"].update(started="1"),
    "missing": lambda head: head["figures"].pop("started"),
    "more rows than bytes": lambda head: head["rows"].update(transfers=10**12),
    "no rows": lambda head: head["rows"].pop("boots"),
    "boots without boots": lambda head: head.update(has_boots=True),
    "a long log": lambda head: head.update(log_bytes=calls.LOG_MAX_BYTES + 1),
    "a log of rows": lambda head: head.update(log_bytes=head["log_bytes"] + 8),
    "many faults": lambda head: head.update(faults=[["a", 1, "", None]] * 1_000),
    "a fault of no count": lambda head: head.update(faults=[["a", -1, "", None]]),
    "a miss of no share": lambda head: head.update(served_misses=[[0, 0, 1]]),
}


@pytest.mark.parametrize("name", HOSTILE_RESULTS)
def test_a_result_that_no_host_has_found_is_refused_in_one_line(name: str) -> None:
    asked = config()
    whole = calls.result_bytes(found(asked, rows_of(asked, 1)))
    with pytest.raises(BadDocument) as error:
        calls.result_of(altered(whole, HOSTILE_RESULTS[name]), asked)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("outcome", 5),
        ("outcome", -1),
        ("end_ns", -2),
        ("bytes", -1),
        ("number", 101),
        ("number", 1),
        ("error_code", 70_000),
    ],
)
def test_rows_are_held_to_their_bounds_and_to_the_share(column: str, value: int) -> None:
    asked = split(config(), (1, 1))[0]
    sent = found(asked, [row for row in rows_of(asked, 1) if row.number % 2 == 0])
    changed = sent.result.transfers[column].copy()
    changed[3] = value
    result = replace(sent.result, transfers={**sent.result.transfers, column: changed})
    with pytest.raises(BadDocument):
        calls.result_of(calls.result_bytes(replace(sent, result=result)), asked)


def test_a_start_that_is_there_twice_is_refused() -> None:
    asked = config()
    sent = found(asked, rows_of(asked, 1))
    twice = sent.result.transfers["number"].copy()
    twice[1] = twice[0]
    result = replace(sent.result, transfers={**sent.result.transfers, "number": twice})
    with pytest.raises(BadDocument, match="a start twice"):
        calls.result_of(calls.result_bytes(replace(sent, result=result)), asked)


@pytest.mark.parametrize(
    "document",
    [b"", b"\n", b"{}", b"[]\n", b"{\n", b"\xff\n", b"null\n", b"[" * 100_000 + b"\n", b"{" + b" " * (33 << 20),
     b'{"error":"gone"}\n', b'{"error":"made up","why":""}\n', b'{"monotonic_ns":NaN}\n', b'{"monotonic_ns":-1}\n',
     b'{"monotonic_ns":1e400}\n', b'{"monotonic_ns":true}\n', b'{"monotonic_ns":1,"more":2}\n'],
    ids=lambda document: str(document[:20]),
)  # fmt: skip
def test_what_is_no_document_is_refused_in_one_line(document: bytes) -> None:
    with pytest.raises(BadDocument) as error:
        calls.unpacked(document, calls.Clock)
    assert len(str(error.value).splitlines()) == 1


def test_frames_come_whole_however_they_are_cut() -> None:
    sent = [(number, bytes([number]) * number) for number in range(50)]
    stream = b"".join(calls.frame(number, body) for number, body in sent)
    for size in (1, 3, 1_000, len(stream)):
        frames = calls.Frames()
        assert [each for at in range(0, len(stream), size) for each in frames.feed(stream[at : at + size])] == sent
    with pytest.raises(BadDocument):
        list(calls.Frames().feed(b"\xff" * 8))


# The coordinator, in virtual time ------------------------------------------------------------------------------------


class Time:
    """What all clocks of a test follow."""

    def __init__(self) -> None:
        self.ns = 10_000_000 * SECOND

    def __call__(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


class AtOnce(Executor):
    """Everything is done where it is asked for."""

    def __init__(self, _threads: int) -> None:
        super().__init__()

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **named))
        except Exception as error:
            future.set_exception(error)
        return future


@dataclass
class Host:
    """An agent as it should be, but for what the script of a test says."""

    time: Time
    offset_ns: int = 0
    rtt_ns: int = 200_000
    opens_ns: int = 50 * MS
    lasts_ns: int = 2 * SECOND
    script: Callable[["Host", str], bytes | None] = lambda _host, _call: None
    asked: list[str] = field(default_factory=list)
    config: LoadConfig | None = None
    prepared_ns: int = 0
    went: calls.Went | None = None
    start_ns: int | None = None
    stopped_ns: int | None = None
    stops: int = 0
    is_ended: bool = False
    hello: calls.Hello = field(default_factory=carrier.ours)

    @property
    def now(self) -> int:
        return self.time.ns + self.offset_ns

    def answer(self, call: str, document: bytes) -> bytes:
        self.asked.append(call)
        scripted = self.script(self, call)
        return scripted if scripted is not None else self.usual(call, document)

    def usual(self, call: str, document: bytes) -> bytes:
        answer = getattr(self, f"_{call}", None)
        return answer(document) if answer else calls.packed(calls.Done())

    def _hello(self, _document: bytes) -> bytes:
        return calls.packed(self.hello)

    def _clock(self, _document: bytes) -> bytes:
        return calls.packed(calls.Clock(monotonic_ns=self.now))

    def _prepare(self, document: bytes) -> bytes:
        asked, _ = calls.unpacked(document, calls.Prepare)
        self.config, self.prepared_ns = calls.config_of(asked), self.now
        return calls.packed(calls.Done())

    def _go(self, document: bytes) -> bytes:
        start_ns = calls.unpacked(document, calls.Go)[0].start_ns
        if self.went is None:
            is_early = start_ns > self.now
            self.went = calls.Went(started=is_early, why="" if is_early else "go came late")
            self.start_ns = start_ns if is_early else None
        return calls.packed(self.went)

    def _stop(self, document: bytes) -> bytes:
        self.stops = calls.unpacked(document, calls.StopAsked)[0].requests
        self.stopped_ns = self.stopped_ns or self.now
        return calls.packed(calls.Done())

    def _poll(self, document: bytes) -> bytes:
        asked, _ = calls.unpacked(document, calls.Poll)
        has_gone_on = self.progress is not None and (self.progress[0] or 0) > asked.elapsed_ns
        if self.state == asked.state and (self.closed is None or asked.closed) and not has_gone_on:
            self.time.ns += asked.wait_ms * MS
        return calls.packed(calls.Standing(state=self.state, closed_ns=self.closed, progress=self.progress))

    def _end(self, _document: bytes) -> bytes:
        self.is_ended = True
        return calls.packed(calls.Done())

    @property
    def over_ns(self) -> int | None:
        over = [ns for ns in (self.start_ns and self.start_ns + self.lasts_ns, self.stopped_ns) if ns is not None]
        return min(over, default=None)

    @property
    def state(self) -> calls.State:
        if self.over_ns is not None and self.now >= self.over_ns:
            return "over"
        if self.start_ns is not None:
            return "running"
        return "ready" if self.now >= self.prepared_ns + self.opens_ns else "opening"

    @property
    def closed(self) -> int | None:
        return self.over_ns if self.state == "over" else None

    @property
    def progress(self) -> tuple[int | None, ...] | None:
        """As of the last whole second."""
        elapsed_ns = 0 if self.start_ns is None else (self.now - self.start_ns) // SECOND * SECOND
        return (elapsed_ns, None, 1, 1, 1, 500, 0, 0, 0, 0) if elapsed_ns > 0 else None

    def _collect(self, document: bytes) -> bytes:
        collect, _ = calls.unpacked(document, calls.Collect)
        assert self.config is not None
        first, width, of = self.config.share
        rows = [row for row in rows_of(self.config, 1) if first <= row.number % of < first + width]
        rows = [] if self.start_ns is None else rows
        whole = calls.result_bytes(replace(found(self.config, rows), was_stopped=self.stopped_ns is not None))
        part = whole[collect.offset :][: min(collect.bytes_max, 7_000)]
        return calls.packed(calls.Chunk(total=len(whole)), part)


class Scripted:
    """A carrier to hosts in this process, which takes their round trips in virtual time."""

    def __init__(self, **hosts: Host) -> None:
        self.by_name, self.hosts = hosts, tuple(hosts)
        self.called: list[tuple[str, str]] = []

    def call(self, host: str, load_id: str, call: str, document: bytes, timeout_s: float) -> bytes:
        assert len(load_id) == 32
        there = self.by_name[host]
        self.called.append((host, call))
        there.time.ns += there.rtt_ns // 2
        try:
            answer = there.answer(call, document)
        except TimeoutError:
            there.time.ns += round(timeout_s * 1e9)
            raise HostLost(host, f"did not answer within {timeout_s:.0f} s") from None
        there.time.ns += there.rtt_ns - there.rtt_ns // 2
        return answer

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.setattr(calls, "CHUNK_MAX_BYTES", 7_000)
    time = Time()
    return Scripted(a=Host(time), b=Host(time, offset_ns=-(10**15)), c=Host(time, offset_ns=77 * SECOND, rtt_ns=MS))


def over(hosts: Scripted, **changes: Any) -> HostsGenerator:
    time = next(iter(hosts.by_name.values())).time
    return HostsGenerator(hosts, limits=Limits(**changes), clock=time, sleep=time.sleep, executor=AtOnce)


def script(**answers: Callable[[Host], bytes | None]) -> Callable[[Host, str], bytes | None]:
    """What a host does otherwise: at a call by its name, or at the n-th of them, as in poll_3."""

    def follow(host: Host, call: str) -> bytes | None:
        count = host.asked.count(call)
        answer = answers.get(f"{call}_{count}") or answers.get(call)
        return answer(host) if answer else None

    return follow


def silent(_host: Host) -> bytes | None:
    raise TimeoutError


def lose(_host: Host) -> bytes | None:
    raise HostLost("b", "its worker is gone")


def gone(_host: Host) -> bytes | None:
    return calls.packed(calls.problem("gone", "its agent was ended by SIGKILL"))


def run(
    hosts: Scripted, asked: LoadConfig | None = None, stop: Stop | None = None, **limits: float
) -> tuple[LoadResult, MeasuredWindow]:
    window = MeasuredWindow()
    result = over(hosts, **limits).run(asked or rate(), stop or Stop(), window)
    return result, window


def assert_ended(hosts: Scripted) -> None:
    for name, host in hosts.by_name.items():
        assert host.is_ended or "prepare" not in host.asked, name
        assert host.asked.count("go") <= 1, name
        assert host.asked.count("prepare") <= 1, name


def test_all_hosts_start_at_one_instant_and_give_one_result(hosts: Scripted) -> None:
    for host in hosts.by_name.values():
        host.lasts_ns = 20 * SECOND
    seen: list[Progress] = []
    window, one = MeasuredWindow(), over(hosts)
    before_ns = hosts.by_name["a"].time.ns
    result = one.run(rate(), Stop(), window, seen.append)
    starts = [(host.start_ns or 0) - host.offset_ns for host in hosts.by_name.values()]
    assert max(starts) - min(starts) <= result.figures["clock_error_ns_max"] * 2  # type: ignore[operator]
    assert starts[0] - before_ns > 2 * SECOND
    assert result.figures["clock_error_ns_max"] == MS // 2
    assert (result.figures["load_hosts"], result.hosts_lost, result.stopped) == (3, None, None)
    assert result.figures["intended"] == 300
    assert sorted(result.transfers["number"].tolist()) == list(range(300))
    assert result.transfers["host"].tolist() == (result.transfers["number"] % 3).tolist()
    # The window is in this machine's time, and so is the start.
    start_ns = result.figures["first_start_ns"]
    assert start_ns is not None
    assert result.window_ns == window.edges_ns
    assert window.edges_ns[0] == start_ns + SECOND
    assert abs(start_ns - starts[0]) <= MS
    assert len(seen) >= 2
    assert {now.started for now in seen} == {3}
    assert [now.elapsed_ns for now in seen] == sorted(now.elapsed_ns for now in seen)
    assert_ended(hosts)
    one.run(rate(), Stop())
    assert [host.asked.count("hello") for host in hosts.by_name.values()] == [1, 1, 1]


def test_the_window_of_fixed_work_closes_with_the_last_host_in_this_machine_s_time(hosts: Scripted) -> None:
    for number, host in enumerate(hosts.by_name.values()):
        host.lasts_ns = (number + 1) * SECOND
    result, window = run(hosts, config(transfers=30, over_ns=SECOND))
    start_ns = result.figures["first_start_ns"] or 0
    assert window.edges_ns[0] == start_ns
    assert abs(window.edges_ns[1] - start_ns - 3 * SECOND) <= MS


def test_a_host_whose_go_comes_late_does_not_start_and_stops_all(hosts: Scripted) -> None:
    hosts.by_name["b"].script = script(go=lambda host: host.time.sleep(4))
    result, _ = run(hosts)
    assert result.hosts_lost is not None
    assert "b: did not start: go came late" in result.hosts_lost
    assert result.stopped == f"load host lost: {result.hosts_lost}"
    assert hosts.by_name["a"].stops == 2
    assert_ended(hosts)


@pytest.mark.parametrize("how", [silent, lose, gone], ids=["silent", "unreachable", "its agent gone"])
@pytest.mark.parametrize("when", ["prepare", "poll_1", "clock_1", "clock_20"])
def test_a_host_that_is_lost_before_the_start_is_a_load_that_never_was(
    hosts: Scripted, when: str, how: Callable[[Host], bytes | None]
) -> None:
    hosts.by_name["b"].script = script(**{when: how})
    result, window = run(hosts)
    assert result.hosts_lost is not None
    assert result.hosts_lost.startswith("b: ")
    assert len(result.hosts_lost.splitlines()) == 1
    assert result.figures["started"] == 0
    assert result.figures["response_ns_p50"] is None
    assert [len(column) for column in result.transfers.values()] == [0] * len(calls.TABLES["transfers"])
    assert all("go" not in host.asked for host in hosts.by_name.values())
    assert window.edges_ns[0] == window.edges_ns[1]
    assert_ended(hosts)


@pytest.mark.parametrize("how", [silent, lose, gone], ids=["silent", "unreachable", "its agent gone"])
@pytest.mark.parametrize("when", ["go", "poll_4", "poll_6", "collect"])
def test_a_host_that_is_lost_later_stops_all_others_whose_results_are_kept(
    hosts: Scripted, when: str, how: Callable[[Host], bytes | None]
) -> None:
    for host in hosts.by_name.values():
        host.lasts_ns = 60 * SECOND if when != "collect" else 3 * SECOND
    hosts.by_name["b"].script = script(**{when: how})
    before_ns = hosts.by_name["a"].time.ns
    result, _ = run(hosts, lead_s=10)  # in real time, no host's silence delays the others
    assert result.hosts_lost is not None
    assert result.hosts_lost.startswith("b: ")
    assert set(result.transfers["host"].tolist()) == {0, 2}
    assert result.figures["intended"] == 200
    assert result.figures["load_hosts"] == 3
    if when != "collect":
        assert hosts.called.index(("b", "end")) < hosts.called.index(("a", "collect"))
        assert [hosts.by_name[name].stops for name in "ac"] == [2, 2]
        assert hosts.by_name["a"].time.ns - before_ns < 30 * SECOND
    assert_ended(hosts)


def test_where_all_hosts_are_lost_nothing_is_known(hosts: Scripted) -> None:
    for host in hosts.by_name.values():
        host.script = script(poll_5=silent)
    result, _ = run(hosts)
    assert result.hosts_lost is not None
    assert result.hosts_lost.count("did not answer within 3 s") == 3
    assert result.figures["started"] == 0
    assert_ended(hosts)


@pytest.mark.parametrize(
    "field", ["protocol", "version", "core", "build_profile", "code"],
)  # fmt: skip
def test_another_tftpbench_is_refused_before_anything_is_sent(hosts: Scripted, field: str) -> None:
    there = hosts.by_name["c"]
    there.hello = there.hello.model_copy(update={field: 99 if field == "protocol" else "other\n"})
    with pytest.raises(
        HostsError, match=r"^c: has another tftpbench: .* is (other|99) there and .* here; install"
    ) as error:
        run(hosts)
    assert error.value.exit_code == 3
    assert all("prepare" not in host.asked for host in hosts.by_name.values())


@pytest.mark.parametrize("how", [silent, lose, gone], ids=["silent", "unreachable", "gone"])
def test_a_host_that_can_not_be_reached_is_one_line(hosts: Scripted, how: Callable[[Host], bytes | None]) -> None:
    hosts.by_name["b"].script = script(hello=how)
    with pytest.raises(HostsError, match=r"^b: can't be used as a load host: ") as error:
        run(hosts)
    assert len(str(error.value).splitlines()) == 1


def test_a_generator_that_can_not_run_is_an_error_and_no_host_starts(hosts: Scripted) -> None:
    problem = calls.problem("load", "1000 transfers need more than 20 open files")
    hosts.by_name["b"].script = script(poll=lambda _: calls.packed(calls.Standing(state="over", problem=problem)))
    with pytest.raises(LoadError, match=r"^b: 1000 transfers need"):
        run(hosts)
    assert all("go" not in host.asked for host in hosts.by_name.values())
    assert_ended(hosts)


def test_a_core_that_a_host_lacks_is_an_error(hosts: Scripted) -> None:
    hosts.by_name["b"].script = script(prepare=lambda _: calls.packed(calls.problem("load", "core 9 is not to be had")))
    with pytest.raises(LoadError, match=r"^b: core 9"):
        run(hosts)
    assert_ended(hosts)


def test_a_host_without_a_share_takes_no_part(hosts: Scripted) -> None:
    result, _ = run(hosts, config(transfers=2, over_ns=0))
    assert hosts.by_name["c"].asked.count("prepare") == 0
    assert result.figures["load_hosts"] == 2
    assert sorted(result.transfers["number"].tolist()) == [0, 1]
    only, _ = run(Scripted(a=hosts.by_name["a"]), config(transfers=1, over_ns=0))
    assert only.figures["load_hosts"] == 1
    assert "host" not in only.transfers


def test_a_stop_before_the_start_starts_nothing(hosts: Scripted) -> None:
    stop = Stop()
    stop.request()
    result, _ = run(hosts, stop=stop)
    assert (result.hosts_lost, result.stopped, result.figures["started"]) == (None, None, 0)
    assert all("go" not in host.asked for host in hosts.by_name.values())
    assert_ended(hosts)


def test_a_stop_goes_to_every_host_and_each_request_once(hosts: Scripted) -> None:
    for host in hosts.by_name.values():
        host.lasts_ns = 600 * SECOND
    stop = Stop()
    result = over(hosts).run(rate(), stop, None, lambda _: None if agent.requests(stop) else stop.request())
    assert (result.hosts_lost, result.stopped) == (None, None)
    assert [(host.stops, host.asked.count("stop")) for host in hosts.by_name.values()] == [(1, 1)] * 3
    assert_ended(hosts)


def test_the_brake_of_one_host_ends_the_load_of_all(hosts: Scripted) -> None:
    for name, host in hosts.by_name.items():
        host.lasts_ns = SECOND if name == "b" else 600 * SECOND

    def braked(host: Host) -> bytes | None:
        if host.state != "over":
            return None
        return calls.packed(calls.Standing(state="over", closed_ns=host.closed, stopped="failing"))

    hosts.by_name["b"].script = script(poll=braked)
    result, _ = run(hosts)
    assert [hosts.by_name[name].stops for name in "ac"] == [1, 1]
    assert result.hosts_lost is None


def test_the_agent_of_a_load_that_is_gone_is_waited_for(hosts: Scripted) -> None:
    def busy(host: Host) -> bytes | None:
        return calls.packed(calls.problem("busy", "another")) if host.asked.count("prepare") < 20 else None

    hosts.by_name["b"].script = script(prepare=busy)
    assert run(hosts)[0].hosts_lost is None
    for_ever = Host(hosts.by_name["b"].time, script=script(prepare=lambda _: calls.packed(calls.problem("busy", "x"))))
    lost = run(Scripted(a=hosts.by_name["a"], b=for_ever))[0].hosts_lost
    assert lost == "b: x"


def test_a_host_that_is_never_ready_or_never_over_is_lost(hosts: Scripted) -> None:
    hosts.by_name["b"].opens_ns = 10**15
    result, _ = run(hosts)
    assert result.hosts_lost == "b: was not ready within 60 s"
    hosts.by_name["b"].opens_ns = MS
    hosts.by_name["b"].prepared_ns = 0
    stop = Stop()
    fresh = Scripted(a=Host(hosts.by_name["a"].time), b=Host(hosts.by_name["a"].time))
    fresh.by_name["b"].script = script(stop=lambda _: calls.packed(calls.Done()))
    fresh.by_name["b"].lasts_ns = 10**15
    result = over(fresh).run(rate(), stop, None, lambda _: stop.request())
    assert result.hosts_lost == "b: did not end within 30 s"


def test_a_slow_way_to_a_host_makes_its_clock_uncertain_and_is_said(hosts: Scripted) -> None:
    hosts.by_name["b"].rtt_ns = 200 * MS
    result, _ = run(hosts)
    assert result.figures["clock_error_ns_max"] == 100 * MS
    assert (result.figures["start_spread_ns"] or 0) >= 100 * MS
    assert hosts.by_name["b"].asked.count("clock") < 64


GARBAGE: dict[str, bytes] = {
    "nothing": b"",
    "no document": b"\x80\x04\x95",
    "no json": b"{\n",
    "another answer": b'{"made_up": 1}\n',
    "infinity": b'{"started": true, "total": Infinity, "monotonic_ns": Infinity, "state": "ready"}\n',
    "an unknown problem": b'{"error":"made up","why":"x"}\n',
    "a problem of many lines": calls.packed(calls.Problem(error="internal", why="a\nb\x1b[2J")),
}


@pytest.mark.parametrize("call", ["hello", "prepare", "poll", "clock", "go", "collect"])
@pytest.mark.parametrize("name", GARBAGE)
def test_whatever_a_host_answers_is_one_line_and_no_traceback(hosts: Scripted, call: str, name: str) -> None:
    hosts.by_name["b"].script = script(**{call: lambda _: GARBAGE[name]})
    try:
        said = run(hosts)[0].hosts_lost
    except HostsError as error:
        said = str(error)
        assert call == "hello"
    assert said is not None
    assert said.startswith("b: ")
    assert said.isprintable()
    assert_ended(hosts)


def chunk_of(total: int, length: int) -> bytes:
    return calls.packed(calls.Chunk(total=total), b"x" * length)


@pytest.mark.parametrize(
    "answers",
    [{"collect": lambda _: chunk_of(10, 11)}, {"collect": lambda _: chunk_of(20_000, 1)},
     {"collect_1": lambda _: chunk_of(20_000, 7_000), "collect_2": lambda _: chunk_of(30_000, 7_000)},
     {"collect": lambda _: chunk_of(5, 5)}],
    ids=["too long", "too short", "another total", "no result"],
)  # fmt: skip
def test_chunks_that_make_no_result_lose_the_host(hosts: Scripted, answers: dict[str, Any]) -> None:
    hosts.by_name["b"].script = script(**answers)
    said = run(hosts)[0].hosts_lost
    assert said is not None
    assert said.startswith("b: sent ")


def many(count: int, **changes: Any) -> Scripted:
    """So many hosts, whose rows come from few starts."""
    time = Time()
    return Scripted(**{f"h{number:04}": Host(time, rtt_ns=20_000, opens_ns=0, **changes) for number in range(count)})


def test_calls_grow_with_the_hosts_and_no_faster() -> None:
    counted = {}
    for count in (10, 100):
        hosts = many(count)
        result = over(hosts).run(config(transfers=count, concurrency=count), Stop(), MeasuredWindow())
        assert (result.hosts_lost, result.figures["load_hosts"]) == (None, count)
        assert_ended(hosts)
        counted[count] = Counter(call for _, call in hosts.called)
    for call in ("hello", "prepare", "clock", "go", "collect", "end"):
        assert counted[100][call] == 10 * counted[10][call], call
    # In virtual time one host's poll is another's delay; each host has some for each second, and no more.
    assert counted[100]["poll"] <= 20 * counted[10]["poll"]


def test_the_results_of_a_thousand_hosts_merge_whose_shares_are_empty() -> None:
    asked = rate(concurrency=1_000)
    rows = rows_of(asked, 1)
    parts, _ = parts_of(asked, rows[:3], (1,) * 1_000)
    result = merged(asked, parts)
    assert result.figures["started"] == sum(row.outcome != "shed" for row in rows[:3])
    assert len(parts) == 1_000
    assert set(result.transfers["host"].tolist()) <= {0, 1, 2}


class Waited(Scripted):
    """Hosts on real threads, the first of which answers a call only when all others have been polled meanwhile."""

    def __init__(self, call: str) -> None:
        super().__init__(**many(3).by_name)
        self._waiting, self._lock = ("h0000", call), threading.Lock()
        self._left, self.were_polled = {"h0001", "h0002"}, threading.Event()

    def call(self, host: str, load_id: str, call: str, document: bytes, timeout_s: float) -> bytes:
        if (host, call) == self._waiting:
            assert self.were_polled.wait(60), "their agents would have ended"
        with self._lock:
            if call == "poll":
                self._left.discard(host)
                if not self._left:
                    self.were_polled.set()
            return super().call(host, load_id, call, document, timeout_s)


def test_agents_are_polled_while_another_host_still_prepares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "CHUNK_MAX_BYTES", 7_000)
    hosts = Waited("prepare")
    time = hosts.by_name["h0000"].time
    result = HostsGenerator(hosts, limits=Limits(keep_s=0.0, lead_s=60.0), clock=time, sleep=time.sleep).run(
        rate(), Stop(), MeasuredWindow()
    )
    assert result.hosts_lost is None
    assert_ended(hosts)


def test_only_the_hosts_that_are_taken_load_and_weights_are_checked(hosts: Scripted) -> None:
    result = over(hosts).taking(["c", "a"], [1, 3]).run(rate(), Stop())
    assert "prepare" not in hosts.by_name["b"].asked
    assert Counter(result.transfers["host"].tolist()) == {0: 75, 1: 225}
    with pytest.raises(HostsError, match=r"^d: is no load host; allowed: a, b, c$"):
        over(hosts).taking(["d"])
    for weights in ([1], [0, 0, 0], [-1, 1, 1], [1, 9_999, 1]):
        with pytest.raises(HostsError):
            HostsGenerator(hosts, weights)
    assert over(hosts).taking(["a", "b", "c"], [2_000, 4_000, 6_000]).hosts == ("a", "b", "c")


def test_hosts_are_here_where_machine_and_network_are_ours(hosts: Scripted) -> None:
    assert over(hosts).is_here
    there = hosts.by_name["c"]
    there.hello = there.hello.model_copy(update={"network": "4:1"})
    assert not over(hosts).is_here


# The agent, with a generator that waits for the test ------------------------------------------------------------------


class Waiting:
    """Stands in for the native generator: opens at once, waits for its start, runs until the test or a stop ends it."""

    def __init__(self) -> None:
        self.starts: list[int | None] = []
        self.runs = threading.Event()
        self.fails: Exception | None = None

    def __call__(self, asked: LoadConfig, stop: Stop, window: MeasuredWindow, **more: Any) -> LoadResult:
        if self.fails:
            raise self.fails
        start_ns = more["on_ready"]()
        self.starts.append(start_ns)
        if start_ns is None:
            raise LoadError("given up before the start: nothing was sent")
        more["on_progress"](Progress(1, None, 1, 0, 0, 0))
        while not agent.requests(stop) and not self.runs.wait(0.01):
            pass
        window.announce(start_ns, None)
        window.close(start_ns + 5)
        return found(asked, rows_of(asked, 1)).result


@dataclass
class Asking:
    """An agent in a thread, and questions to it."""

    to_agent: int
    from_agent: int
    thread: threading.Thread
    generator: Waiting
    frames: calls.Frames = field(default_factory=calls.Frames)
    number: int = 0

    def send(self, call: calls.Call, document: bytes) -> int:
        self.number += 1
        os.write(self.to_agent, calls.frame(self.number, calls.question(call, document)))
        return self.number

    def answers(self, count: int) -> dict[int, bytes]:
        got: dict[int, bytes] = {}
        while len(got) < count:
            got |= dict(self.frames.feed(os.read(self.from_agent, 1 << 20)))
        return got

    def ask(self, call: calls.Call, model: Any, expected: Any) -> Any:
        number = self.send(call, calls.packed(model))
        return calls.unpacked(self.answers(1)[number], expected)[0]

    def prepare(self, asked: LoadConfig | None = None) -> Any:
        number = self.send("prepare", calls.prepare(asked or config(), calls.Files()))
        return calls.unpacked(self.answers(1)[number], calls.Done)[0]

    def state(self, known: calls.State = "opening", wait_ms: int = 5_000) -> calls.Standing:
        said: calls.Standing = self.ask("poll", calls.Poll(state=known, wait_ms=wait_ms), calls.Standing)
        return said

    def start(self) -> int:
        """Prepared, ready and gone; when it was to start."""
        self.prepare()
        assert self.state().state == "ready"
        later = self.ask("clock", calls.Done(), calls.Clock).monotonic_ns + 3_600 * SECOND
        assert self.ask("go", calls.Go(start_ns=later), calls.Went).started
        assert self.state("ready").state == "running"
        return int(later)


def asking(poll_lost_s: float) -> Iterator[Asking]:
    (questions, to_agent), (from_agent, answers) = os.pipe(), os.pipe()
    generator_there = Waiting()
    made = agent.Agent(questions, answers, poll_lost_s)
    thread = threading.Thread(target=made.serve)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "run_load", generator_there)
        patch.setattr(os, "sched_setaffinity", lambda *_: None)
        thread.start()
        yield Asking(to_agent, from_agent, thread, generator_there)
        os.close(to_agent)
        thread.join(20)
        assert not thread.is_alive()
        for end in (questions, from_agent, answers):
            os.close(end)


@pytest.fixture
def there() -> Iterator[Asking]:
    yield from asking(60)


@pytest.fixture
def impatient() -> Iterator[Asking]:
    yield from asking(0.2)


def test_a_go_that_is_repeated_answers_with_what_the_first_one_did(there: Asking) -> None:
    first = there.start()
    for start_ns in (first, first + 1, 0):
        assert there.ask("go", calls.Go(start_ns=start_ns), calls.Went).started
    assert there.generator.starts == [first]


def test_a_go_that_is_late_starts_nothing_and_a_later_one_neither(there: Asking) -> None:
    there.prepare()
    assert there.state().state == "ready"
    now = there.ask("clock", calls.Done(), calls.Clock).monotonic_ns
    late = there.ask("go", calls.Go(start_ns=now), calls.Went)
    assert (late.started, "ms after its start" in late.why) == (False, True)
    again = there.ask("go", calls.Go(start_ns=now + 3_600 * SECOND), calls.Went)
    assert again == late
    with pytest.raises(calls.Refused, match="no agent answers 'end'"):
        there.ask("end", calls.Done(), calls.Done)
    with pytest.raises(calls.Refused, match="start_ns"):
        there.ask("go", calls.Done(), calls.Went)


def test_a_go_before_it_is_ready_starts_nothing(there: Asking) -> None:
    went = there.ask("go", calls.Go(start_ns=2**62), calls.Went)
    assert (went.started, went.why) == (False, "it was opening, not ready")
    there.prepare()
    while there.state().state != "over":
        pass
    assert there.generator.starts == [None]


def test_a_load_is_prepared_once(there: Asking) -> None:
    there.start()
    with pytest.raises(calls.Refused, match="none is done twice"):
        there.prepare()


def test_a_poll_is_answered_when_there_is_news_and_others_pass_it(there: Asking) -> None:
    there.start()
    waiting = there.send("poll", calls.packed(calls.Poll(state="running", elapsed_ns=1, wait_ms=5_000)))
    assert there.ask("clock", calls.Done(), calls.Clock).monotonic_ns > 0  # passes the one that waits
    there.generator.runs.set()
    said, _ = calls.unpacked(there.answers(1)[waiting], calls.Standing)
    assert said.closed_ns is not None
    assert there.state("running").state in ("running", "over")


def test_a_result_is_collected_in_parts_and_only_when_it_is_there(there: Asking) -> None:
    there.start()
    with pytest.raises(calls.Refused, match="no result"):
        there.ask("collect", calls.Collect(offset=0, bytes_max=100), calls.Chunk)
    there.generator.runs.set()
    while (now := there.state("running")).state != "over":
        pass
    assert now.counters is not None
    assert now.counters.started == 1
    content, total = b"", 1
    while len(content) < total:
        number = there.send("collect", calls.packed(calls.Collect(offset=len(content), bytes_max=5_000)))
        chunk, part = calls.unpacked(there.answers(1)[number], calls.Chunk)
        content, total = content + bytes(part), chunk.total
    returned = calls.result_of(content, config())
    assert returned.result.figures["intended"] == 100
    assert not returned.was_stopped


def test_a_stop_ends_a_load_that_waits_and_one_that_runs(there: Asking) -> None:
    there.prepare()
    assert there.state().state == "ready"
    there.ask("stop", calls.StopAsked(), calls.Done)
    assert there.state("ready").state == "over"
    assert there.generator.starts == [None]
    assert not there.ask("go", calls.Go(start_ns=2**62), calls.Went).started


def test_a_load_that_was_stopped_says_so(there: Asking) -> None:
    there.start()
    there.ask("stop", calls.StopAsked(), calls.Done)
    while there.state("running").state != "over":
        pass
    number = there.send("collect", calls.packed(calls.Collect(offset=0, bytes_max=1 << 20)))
    _, content = calls.unpacked(there.answers(1)[number], calls.Chunk)
    assert calls.result_of(bytes(content), config()).was_stopped


@pytest.mark.parametrize(
    ("error", "kind"),
    [(LoadError("too few open files"), "load"), (RuntimeError("a\nb"), "internal")],
    ids=["ours", "not"],
)
def test_a_generator_that_fails_is_said_in_one_line(there: Asking, error: Exception, kind: str) -> None:
    there.generator.fails = error
    there.prepare()
    problem = there.state().problem
    assert problem is not None
    assert problem.error == kind
    assert len(problem.why.splitlines()) == 1


@pytest.mark.parametrize("started", [False, True], ids=["ready", "running"])
def test_where_no_question_comes_it_stops_and_ends(impatient: Asking, started: bool) -> None:
    if started:
        impatient.start()
    else:
        impatient.prepare()
    impatient.thread.join(20)
    assert not impatient.thread.is_alive()
    assert len(impatient.generator.starts) == 1


def test_a_core_that_is_not_there_is_refused(there: Asking) -> None:
    with pytest.raises(calls.Refused, match="core 4095 is not to be had"):
        there.prepare(config(cpus=(4095,)))


def test_files_come_in_order_or_not_at_all(there: Asking) -> None:
    for chunk in (calls.FileChunk(file=1, offset=0), calls.FileChunk(file=0, offset=5)):
        number = there.send("file", calls.packed(chunk, b"abc"))
        with pytest.raises(calls.Refused, match="in order"):
            calls.unpacked(there.answers(1)[number], calls.Done)
