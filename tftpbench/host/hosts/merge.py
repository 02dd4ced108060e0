"""The results of all load hosts as one: as if one host had done the load, by the same definitions.

Histograms are added bucket by bucket and percentiles taken from the sum; counters are summed; rates are sums over the
common window; what can't be made of that is made of the rows, where none is missing, and else it is None: never a
guess. The rule of each figure stands in its record (`ACROSS_HOSTS`); what "recompute" means for it stands here, beside
crates/tftpbench-load/src/report.rs and figures.rs, which say it for the workers of one host. Pure: it must never read
a clock.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from tftpbench.host.generator import Column, Fault, LoadConfig, LoadResult, PeerError
from tftpbench.host.hosts.calls import TABLES, Returned
from tftpbench.model.errors import ResultsError
from tftpbench.model.latency import Latency, encoded_histograms, merged_log
from tftpbench.model.metrics import ACROSS_HOSTS, BOOT_OUTCOMES, INTERVAL_COLUMNS, OUTCOMES

HOST = "host"
"""The column of rows that says which host it was, as its number in `Carrier.hosts`."""

Figure = int | float | bool | None
Mask = npt.NDArray[np.bool_]

# Percentiles of single histograms, as report.rs has them: the kind and the quantile.
_QUANTILES: Mapping[str, tuple[str, float]] = {
    "block_rtt_ns_p50": ("block_rtt", 0.5),
    "block_rtt_ns_p99": ("block_rtt", 0.99),
    "block_rtt_ns_p999": ("block_rtt", 0.999),
    "transfer_ns_p50": ("transfer", 0.5),
    "transfer_ns_p99": ("transfer", 0.99),
    "transfer_ns_max": ("transfer", 1.0),
    "first_response_ns_p50": ("first_response", 0.5),
    "first_response_ns_p99": ("first_response", 0.99),
    "miss_ns_p50": ("miss", 0.5),
    "miss_ns_p99": ("miss", 0.99),
}
# Lowest and highest value and digits of the generator's histograms: LATENCY_LOW_NS and so on in latency.rs.
_BOUNDS = (64, 3_600_000_000_000, 3)
_SECOND_NS = 1_000_000_000
# Of cohorts, as figures.rs has them, in thousandths.
_THOUSANDTHS = {"p50": 500, "p95": 950, "p99": 990, "max": 1000}


class Unmergeable(Exception):
    """One host's result does not go with the others'; `host` is its number, `why` one line."""

    def __init__(self, host: int, why: str) -> None:
        super().__init__(why)
        self.host, self.why = host, why


@dataclass(frozen=True)
class Part:
    """What one host found. `host`: its number; `config`: its part of the load."""

    host: int
    config: LoadConfig
    returned: Returned

    @property
    def result(self) -> LoadResult:
        """What it found."""
        return self.returned.result

    def count(self, name: str) -> int:
        """A figure that counts, 0 where it has none."""
        return int(self.result.figures.get(name) or 0)


def merge(
    config: LoadConfig, parts: Sequence[Part], start_ns: int, window_ns: tuple[int, int], *, of_several: bool = True
) -> LoadResult:
    """The result of the whole load. `start_ns`, `window_ns`: in this machine's time.

    `of_several`: rows have the column HOST. Raises Unmergeable.
    """
    if not of_several:
        (only,) = parts
        _alone(only)
        figures = {**only.result.figures, "first_start_ns": start_ns}
        return replace(only.result, figures=figures, window_ns=window_ns)
    whole = _Whole(config, parts)
    transfers = whole.kept()
    recomputed = {**whole.figures(), "first_start_ns": start_ns, "rows_kept": len(transfers[HOST])}
    granted = {name for part in parts for name in part.result.granted}
    return LoadResult(
        figures={name: _across(name, parts, recomputed) for name in whole.names},
        transfers=transfers,
        intervals=_intervals([part.result.intervals for part in parts]),
        latency_hlog=whole.log,
        faults=_faults(parts),
        errors=_errors(parts),
        window_ns=window_ns,
        answered=sum(part.result.answered for part in parts),
        granted={name: sum(part.result.granted.get(name, 0) for part in parts) for name in sorted(granted)},
        stopped=next((part.result.stopped for part in parts if part.result.stopped), None),
        boots=whole.boots,
        served_misses=_served_misses(parts),
    )


def nothing(config: LoadConfig, start_ns: int = 0) -> LoadResult:
    """The result of a load that never began: nothing was started, and no time is known."""
    figures: dict[str, int | float | None] = {
        name: 0 if rule == "sum" else None
        for name, rule in ACROSS_HOSTS.items()
        if config.boots or not _is_of_boots(name)
    }
    figures |= {"first_start_ns": start_ns, "window_open_ns": 0, "window_close_ns": 0, "duration_s": 0.0}
    tables = {kind: {name: np.empty(0, np.int64) for name in columns} for kind, columns in TABLES.items()}
    return LoadResult(
        figures, tables["transfers"], tables["intervals"], "", (), boots=tables["boots"] if config.boots else {}
    )


def start_spread_ns(parts: Sequence[Part], errors_ns: Mapping[int, int]) -> int | None:
    """The largest distance of a host's first start from when it was intended, its clock's error included.

    `errors_ns`: of each host's clock. None where one is not known.
    """
    found = [
        None if late_ns is None else abs(late_ns) + errors_ns[part.host]
        for part in parts
        if part.count("started")
        for late_ns in [_first_late_ns(part)]
    ]
    return max((each for each in found if each is not None), default=None) if None not in found else None


def _first_late_ns(part: Part) -> int | None:
    said = part.result.figures.get("first_start_late_ns")
    if said is not None:
        return int(said)
    table = part.result.boots or part.result.transfers
    begun = np.flatnonzero(table["actual_start_ns"] >= 0)
    if not begun.size or not part.result.has_every_start:
        return None
    first = begun[np.argmin(table["intended_start_ns"][begun])]
    return int(table["actual_start_ns"][first] - table["intended_start_ns"][first])


def _across(name: str, parts: Sequence[Part], recomputed: Mapping[str, Figure]) -> int | float | None:
    """The figure of all hosts, by its rule."""
    rule, each = ACROSS_HOSTS[name], [part.result.figures.get(name) for part in parts]
    known = [value for value in each if value is not None]
    if rule == "recompute":
        return recomputed.get(name)
    if rule == "sum":
        return sum(known) if len(known) == len(parts) else None
    return (max if rule == "max" else min)(known, default=None)


class _Starters(NamedTuple):
    """What starts: transfers, or the machines that boot; its rows, the names of its counts, its histograms."""

    rows: dict[str, Column]
    all: int
    started: int
    completed: int
    shed: int
    interrupted: str
    shed_outcome: int | None
    interrupted_outcome: int
    kinds: tuple[str, str]

    @property
    def incomplete(self) -> Mask:
        """The rows of what did not come to its end as it should."""
        lost: Mask = self.rows["outcome"] != 0
        return lost

    @property
    def has_all(self) -> bool:
        """Whether each has a row."""
        return len(self.rows["outcome"]) == self.all

    @property
    def has_incomplete(self) -> bool:
        """Whether each that did not complete has one."""
        return int(np.count_nonzero(self.incomplete)) == self.all - self.completed

    @property
    def begun(self) -> dict[str, Column]:
        """The rows of what was started, their times alone."""
        began = self.rows["actual_start_ns"] >= 0
        return {name: self.rows[name][began] for name in ("intended_start_ns", "actual_start_ns", "end_ns")}


class _Lost(NamedTuple):
    """Of a cohort, how many never came to their end (of those that started, and with those shed), and were cut off."""

    begun: int
    all: int
    cut_off: int


class _Whole:
    """The parts put together."""

    def __init__(self, config: LoadConfig, parts: Sequence[Part]) -> None:
        self.config, self.parts = config, parts
        self.names = list(dict.fromkeys(name for part in parts for name in part.result.figures))
        self.transfers = _rows(parts, [part.result.transfers for part in parts])
        self.boots = _rows(parts, [part.result.boots for part in parts]) if config.boots else {}
        self.open_ns, self.close_ns = self._window()
        self.log = _log(parts, self.close_ns if self._ends_with_completion else None)

    def figures(self) -> dict[str, Figure]:
        """All that is made anew."""
        found: dict[str, Figure] = {
            "window_open_ns": self.open_ns,
            "window_close_ns": self.close_ns,
            "duration_s": self.seconds,
            "blocks_to_window_end": self._counted("blocks_to_window_end"),
            "block_rtt_left_out": self._counted("block_rtt_left_out"),
            **self._rates(),
            **self._shape(),
            **{name: _at_quantile(self._latency(kind), share) for name, (kind, share) in _QUANTILES.items()},
            **self._cohort(self._transfers, ("response", "service")),
        }
        if self.config.boots:
            found |= self._cohort(self._machines, ("boot", "boot_service"))
        return {**found, **self._starts(), **self._in_flight()}

    def kept(self) -> dict[str, Column]:
        """The rows of transfers: of a host that kept more of them, as many as of the one that kept fewest."""
        keeps = np.ones(len(self.transfers[HOST]), np.bool_)
        is_lost = self.transfers["outcome"] != 0
        for name, of_class in (("rows_every", ~is_lost), ("rows_every_failed", is_lost)):
            each, at = [part.count(name) or 1 for part in self.parts], 0
            for part, every in zip(self.parts, each, strict=True):  # rows are host by host
                end = at + len(part.result.transfers["outcome"])
                if (step := max(each) // every) > 1:
                    places = at + np.flatnonzero(of_class[at:end])
                    keeps[places] = np.arange(places.size) % step == 0
                at = end
        return self.transfers if keeps.all() else {name: column[keeps] for name, column in self.transfers.items()}

    @property
    def seconds(self) -> float:
        """Length of the common window."""
        return (self.close_ns - self.open_ns) / 1e9

    @property
    def is_fixed(self) -> bool:
        """Whether the work is fixed, so that the window ends with the last completion."""
        return self.config.transfers is not None

    @property
    def _ends_with_completion(self) -> bool:
        return self.is_fixed and any(map(_completes, self.parts))

    @property
    def is_one_cohort(self) -> bool:
        """Whether all that is intended belongs to the cohort, whenever that is."""
        return self.is_fixed or bool(self.config.shape)

    @cached_property
    def _transfers(self) -> _Starters:
        started = self._sum("started")
        return _Starters(
            self.transfers, started, started, self._sum("completed"), self._sum("shed"), "interrupted",
            None, OUTCOMES.index("interrupted"), ("response", "service"),
        )  # fmt: skip

    @cached_property
    def _machines(self) -> _Starters:
        machines, shed = self._sum("machines"), self._sum("boots_shed")
        return _Starters(
            self.boots, machines, machines - shed, self._sum("booted"), shed, "boots_interrupted",
            BOOT_OUTCOMES.index("shed"), BOOT_OUTCOMES.index("interrupted"), ("boot", "boot_service"),
        )  # fmt: skip

    @property
    def _starters(self) -> _Starters:
        return self._machines if self.config.boots else self._transfers

    def _sum(self, name: str) -> int:
        return sum(part.count(name) for part in self.parts)

    def _latency(self, kind: str) -> Latency:
        if kind not in self._latencies:
            self._latencies[kind] = Latency.of(encoded_histograms(self.log, kind))
        return self._latencies[kind]

    @cached_property
    def _latencies(self) -> dict[str, Latency]:
        return {}

    # The window ------------------------------------------------------------------------------------------------------

    def _window(self) -> tuple[int, int]:
        """Open and close since the start: of fixed work the last completion of any host."""
        close_ns = max(part.count("window_close_ns") for part in self.parts)
        if self._ends_with_completion:
            close_ns = max(map(_last_ns, self.parts))
        return min(close_ns, max(part.count("window_open_ns") for part in self.parts)), close_ns

    @cached_property
    def _counting(self) -> list[Part] | None:
        """The hosts whose counts of the window are those of the common one; None where one has others.

        What never completed does not count after the last completion. Of machines, some requests may have.
        """
        if not self._ends_with_completion:
            return list(self.parts)
        if any(part.count("completed") for part in self.parts if not _completes(part)):
            return None
        return [part for part in self.parts if _completes(part)]

    def _counted(self, name: str) -> int | None:
        """A count up to the window's end."""
        parts = self._counting
        return None if parts is None else sum(part.count(name) for part in parts)

    def _inside(self, name: str) -> int | None:
        """What all hosts counted inside the window, out of their rates; None where that can't be known."""
        found = 0
        for part in self._counting or ():
            rate = part.result.figures.get(name)
            if rate is None and _seconds(part) > 0:
                return None
            found += round((rate or 0) * _seconds(part))
        return None if self._counting is None else found

    def _rates(self) -> dict[str, Figure]:
        names = ("data_pps", "pps", "goodput_bytes_per_s", "transfers_per_s")
        counts = {name: self._inside(name) for name in names}
        sums = {name: None if count is None else _share(count, self.seconds) for name, count in counts.items()}
        wire, moved = self._wire_bytes(), counts["goodput_bytes_per_s"]
        return {**sums, "amplification": None if wire is None or moved is None else _share(wire, moved)}

    def _wire_bytes(self) -> int | None:
        """UDP payload inside the window, out of what each host says of it for a byte of a file."""
        found = 0
        for part in self._counting or ():
            each, moved = part.result.figures.get("amplification"), part.result.figures.get("goodput_bytes_per_s")
            if each is not None and moved is not None:
                found += round(each * round(moved * _seconds(part)))
            elif part.result.figures.get("pps"):
                return None
        return None if self._counting is None else found

    # Times -----------------------------------------------------------------------------------------------------------

    def _shape(self) -> dict[str, Figure]:
        """How evenly transfers were served."""
        if not self._transfers.has_all:
            latency = self._latency("transfer")
            slowest, median = latency.max_ns, _at_quantile(latency, 0.5) or 0
            return {"fairness": _share(slowest, median), "transfer_ns_mean": self._mean_ns()}
        rows = self.transfers
        inside = (rows["outcome"] == 0) & (rows["end_ns"] >= self.open_ns) & (rows["actual_start_ns"] < self.close_ns)
        times = np.sort(rows["end_ns"][inside] - rows["actual_start_ns"][inside])
        if not times.size:
            return {"fairness": None, "transfer_ns_mean": None}
        mean = int(np.maximum(times, 0).sum()) / times.size
        return {"fairness": _share(int(times[-1]), int(times[times.size // 2])), "transfer_ns_mean": mean}

    def _mean_ns(self) -> float | None:
        """Each host's mean counts for as many as it is of."""
        total, count = 0.0, 0
        for part in self.parts:
            mean = part.result.figures.get("transfer_ns_mean")
            try:
                values = Latency.of(encoded_histograms(part.result.latency_hlog, "transfer")).count
            except ResultsError as error:
                raise Unmergeable(part.host, f"its latency log {error}") from None
            if mean is None and values:
                return None
            total, count = total + (mean or 0) * values, count + values
        return _share(total, count)

    def _cohort(self, starters: _Starters, names: tuple[str, str]) -> dict[str, Figure]:
        """Percentiles over all of a cohort, as figures.rs has them."""
        lost = self._lost(starters)
        found: dict[str, Figure] = {}
        for name, kind in zip(names, starters.kinds, strict=True):
            for percent, thousandths in _THOUSANDTHS.items():
                figure = f"{name}_ns_{percent}"
                value: Figure = None
                is_never: Figure = None
                if lost is not None:
                    never = lost.all if kind == starters.kinds[0] else lost.begun
                    at = _of_cohort(self._latency(kind), never, lost.cut_off, thousandths)
                    value, is_never = at, None if math.isnan(at) else math.isinf(at)
                    value = int(at) if math.isfinite(at) else None
                found |= {figure: value, f"{figure}_is_never": is_never}
        return found

    def _lost(self, starters: _Starters) -> _Lost | None:
        """Of the cohort, what did not complete: out of the rows, or where one is missing out of the counts."""
        interrupted = sum(part.count(starters.interrupted) for part in self.parts if part.returned.was_stopped)
        if starters.has_incomplete:
            in_cohort = starters.incomplete & self._is_of_cohort(starters.rows["intended_start_ns"])
            outcome, shed = starters.rows["outcome"], 0
            is_shed = outcome == (-1 if starters.shed_outcome is None else starters.shed_outcome)
            stopped = np.isin(starters.rows[HOST], [part.host for part in self.parts if part.returned.was_stopped])
            cut_off = int(np.count_nonzero(in_cohort & stopped & (outcome == starters.interrupted_outcome)))
            begun = int(np.count_nonzero(in_cohort & ~is_shed)) - cut_off
            if starters.shed_outcome is not None:
                shed = int(np.count_nonzero(in_cohort & is_shed))
            elif starters.shed:
                known = self._latency(starters.kinds[0]).count + begun + cut_off
                counted = starters.shed if self.is_one_cohort else _less(self._intended_inside(), known)
                if counted is None:
                    return None
                shed = counted
            return _Lost(begun, begun + shed, cut_off)
        if self.is_one_cohort:
            begun = starters.started - starters.completed - interrupted
            return _Lost(begun, begun + starters.shed, interrupted)
        counted = _less(self._intended_inside(), self._latency(starters.kinds[0]).count)
        is_known = starters is self._starters and not starters.shed and not interrupted
        return _Lost(counted, counted, 0) if is_known and counted is not None else None

    def _is_of_cohort(self, intended_ns: Column) -> Mask:
        if self.is_one_cohort:
            return np.ones(intended_ns.size, np.bool_)
        return (intended_ns >= self.open_ns) & (intended_ns < self.close_ns)

    def _intended_inside(self) -> int | None:
        """Starts that a rate intended inside the window."""
        offered = [part.result.figures.get("offered_per_s") for part in self.parts]
        if self.is_one_cohort or self.config.rate_per_s is None or None in offered:
            return None
        pairs = zip(offered, self.parts, strict=True)
        return sum(round((each or 0) * _seconds(part)) for each, part in pairs)

    # Starts ----------------------------------------------------------------------------------------------------------

    def _starts(self) -> dict[str, Figure]:
        """How the starts came about."""
        offered, achieved = self._offered_and_achieved() if self.config.is_open_loop else (None, None)
        starters = self._starters
        found: dict[str, Figure] = {"offered_per_s": offered, "achieved_per_s": achieved, "burst_ns": None}
        if not starters.has_all:
            # Of all starts it is no larger than the worst host's.
            late = [part.result.figures.get("schedule_lag_ns_p99") for part in self.parts]
            worst = max((each for each in late if each is not None), default=None)
            return {**found, "schedule_lag_ns_p50": None, "schedule_lag_ns_p99": worst}
        rows = starters.begun
        inside = self._is_of_cohort(rows["intended_start_ns"])
        actual, intended = (rows[f"{name}_start_ns"][inside] for name in ("actual", "intended"))
        lag = np.sort(np.maximum(actual - intended, 0))
        found |= {f"schedule_lag_ns_p{percent}": _recorded(lag, percent / 100) for percent in (50, 99)}
        if self.config.over_ns is not None and actual.size:
            found["burst_ns"] = int(actual.max() - actual.min())
        return found

    def _offered_and_achieved(self) -> tuple[float | None, float | None]:
        """Starts a second that were intended, and that came about in time: `rates` in figures.rs."""
        config, starters = self.config, self._starters
        shaped_ns = sum(piece.for_ns for piece in config.shape)
        asked_ns = config.over_ns if config.over_ns is not None else shaped_ns or None
        intended, started = starters.started + starters.shed, starters.started
        if config.rate_ratio is not None and self.is_fixed:
            transfers, per_ns = config.rate_ratio
            asked_ns = intended * per_ns // transfers
        if asked_ns == 0:
            return None, None
        if asked_ns is not None:
            last_ns = max(map(_longest_ns, self.parts))
            if starters.has_all:
                last_ns = int(starters.begun["actual_start_ns"].max(initial=0))
            return _share(intended * 1e9, asked_ns), _share(started * 1e9, max(asked_ns, last_ns))
        inside = self._intended_inside()
        achieved = [part.result.figures.get("achieved_per_s") for part in self.parts]
        in_time = sum(round((each or 0) * _seconds(part)) for each, part in zip(achieved, self.parts, strict=True))
        window_ns = self.close_ns - self.open_ns
        in_time_per_s = None if None in achieved else _share(in_time * 1e9, window_ns)
        return None if inside is None else _share(inside * 1e9, window_ns), in_time_per_s

    def _in_flight(self) -> dict[str, Figure]:
        """Most at once, and the mean over the window."""
        starters, window_ns = self._starters, self.close_ns - self.open_ns
        if not starters.has_all:
            each = [part.result.figures.get("in_flight_mean") for part in self.parts]
            windows = {(part.count("window_open_ns"), part.count("window_close_ns")) for part in self.parts}
            is_common = windows == {(self.open_ns, self.close_ns)} and None not in each
            return {"in_flight_max": None, "in_flight_mean": sum(each) if is_common else None}  # type: ignore[arg-type] # none is None
        rows = starters.begun
        starts = np.sort(rows["actual_start_ns"])
        ends = np.where(rows["end_ns"] < 0, np.iinfo(np.int64).max, rows["end_ns"])
        ended = np.searchsorted(np.sort(ends), starts, side="right")
        most = int((np.arange(1, starts.size + 1) - ended).max(initial=0))
        inside = np.minimum(rows["end_ns"], self.close_ns) - np.maximum(rows["actual_start_ns"], self.open_ns)
        together = int(np.maximum(inside, 0).sum())
        return {"in_flight_max": most, "in_flight_mean": _share(together, window_ns)}


def _is_of_boots(name: str) -> bool:
    """Whether only loads of machines have the figure."""
    return name.startswith(("boot", "machines", "miss", "restarts"))


def _completes(part: Part) -> bool:
    """Whether its window ended with a completion: of machines only where one of them is up."""
    return part.count("booted" if part.config.boots else "completed") > 0


def _last_ns(part: Part) -> int:
    """When the last transfer of a host completed, 0 where none did: of machines none of which is up, as rows say it."""
    if _completes(part):
        return part.count("window_close_ns")
    ends = part.result.transfers["end_ns"][part.result.transfers["outcome"] == 0]
    if len(ends) == part.count("completed"):
        return int(ends.max(initial=0))
    return part.count("window_close_ns")  # later than that; its counts can't be used then


def _seconds(part: Part) -> float:
    return (part.count("window_close_ns") - part.count("window_open_ns")) / 1e9


def _longest_ns(part: Part) -> int:
    """The time that a host's starts were achieved in: that asked for, or until its last one; 0 where it has none.

    And 0 where a fixed number at a rate was done in the time of all hosts' turns that it is a part of (`rates` in
    figures.rs): the last turn may be one of some hosts only.
    """
    config, achieved = part.config, part.result.figures.get("achieved_per_s")
    known, left_out = ("machines", "boots_shed") if config.boots else ("started", "shed")
    started = part.count(known) - (part.count(left_out) if config.boots else 0)
    longest_ns = round(started * 1e9 / achieved) if achieved and started else 0
    if config.rate_ratio is not None and config.transfers is not None:
        (transfers, per_ns), (_, width, of) = config.rate_ratio, config.share
        turns_ns = (started + part.count(left_out)) * of // width * per_ns // transfers
        return longest_ns if longest_ns > turns_ns + 1 else 0
    return longest_ns


def _share(part: float, of: float) -> float | None:
    return part / of if of > 0 else None


def _less(count: int | None, known: int) -> int | None:
    return count - known if count is not None and count >= known else None


def _at_quantile(latency: Latency, quantile: float) -> int | None:
    """As `value_at_quantile` of the generator's histograms: the top of the bucket that reaches the rank."""
    count = latency.count
    return _at_rank(latency, max(1, math.ceil(quantile * count))) if count else None


def _at_rank(latency: Latency, rank: int) -> int:
    return int(latency.values_ns[np.searchsorted(np.cumsum(latency.counts), rank)])


def _of_cohort(latency: Latency, never: int, cut_off: int, thousandths: int) -> float:
    """The least time that so many thousandths do not exceed; infinite for never, NaN where it is not known."""
    known = latency.count
    total = known + cut_off + never
    rank = -(-total * thousandths // 1000)
    if not total or known < rank <= known + cut_off:
        return math.nan
    return math.inf if rank > known else _at_rank(latency, max(1, rank))


def _recorded(values: Column, quantile: float) -> int | None:
    """The quantile of sorted values as a histogram of the generator says it, to the bucket; None of none."""
    if not values.size:
        return None
    histogram = HdrHistogram(*_BOUNDS)
    value = int(values[max(1, math.ceil(quantile * values.size)) - 1])
    return int(histogram.get_highest_equivalent_value(min(value, histogram.highest_trackable_value)))


def _rows(parts: Sequence[Part], tables: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """All rows, host by host, and whose they are."""
    found = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    lengths = [len(table["outcome"]) for table in tables]
    return {**found, HOST: np.repeat(np.array([part.host for part in parts], np.int64), lengths)}


def _intervals(tables: Sequence[Mapping[str, Column]]) -> dict[str, Column]:
    """Added up, in rows as long as the longest host's: all count from the common start."""
    longest = max((int(table["duration_ns"].max(initial=0)) for table in tables), default=0)
    alike = [_as_long(table, longest) for table in tables]
    rows = max(len(table["duration_ns"]) for table in alike)
    summed = {
        name: sum((_padded(table[name], rows) for table in alike), np.zeros(rows, np.int64))
        for name, column in INTERVAL_COLUMNS.items()
        if column.across == "sum"
    }
    return {name: summed.get(name, np.full(rows, longest, np.int64)) for name in INTERVAL_COLUMNS}


def _as_long(table: Mapping[str, Column], longest: int) -> Mapping[str, Column]:
    """The intervals in rows of that length, which is theirs times a power of two."""
    length = int(table["duration_ns"][0]) if len(table["duration_ns"]) else longest
    while length < longest:
        table = {name: _coarser(name, column) for name, column in table.items()}
        length *= 2
    return table


def _coarser(name: str, column: Column) -> Column:
    """Rows twice as long: what is in flight is in flight at the end of the second."""
    padded = _padded(column, len(column) + len(column) % 2)
    if name == "in_flight":
        return np.array([pair[-1] for pair in _pairs(column)], np.int64)
    return padded[::2] + padded[1::2]


def _pairs(column: Column) -> Iterable[Column]:
    return (column[at : at + 2] for at in range(0, len(column), 2))


def _padded(column: Column, rows: int) -> Column:
    return np.concatenate([column, np.zeros(rows - len(column), np.int64)])


def _log(parts: Sequence[Part], close_ns: int | None) -> str:
    """The latency logs of all hosts as one. `close_ns`: the last completion of all, where that ends the window."""
    logs = [part.result.latency_hlog for part in parts]
    if close_ns is not None:
        answered = [_answered(part, close_ns) for part in parts]
        logs = [_without(log, _ANSWERS) for log in logs] + [log for log in answered if log is not None]
        if None in answered:  # of some nothing is known, so of all
            logs = logs[: len(parts)]
    try:
        return merged_log(logs)
    except ResultsError as error:
        for part in parts:  # whose it is
            _alone(part)
        raise Unmergeable(parts[-1].host, f"its latency log {error}") from None


_ANSWERS = "first_response"


def _answered(part: Part, close_ns: int) -> str | None:
    """A host's log of first answers up to the common end; None where that can't be known.

    What started after its own last completion is not in its log, and is added from the rows: it did not complete.
    """
    table, own_ns = part.result.transfers, part.count("window_close_ns")
    lost = table["outcome"] != 0
    started, lasts = table["actual_start_ns"], table["first_response_ns"] >= 0
    if _completes(part) and own_ns >= close_ns:
        return _only(part.result.latency_hlog, _ANSWERS)
    if len(lost) == part.count("started") and not _completes(part):
        log, chosen = "", lasts & (started < close_ns)
    elif int(np.count_nonzero(lost)) == part.count("started") - part.count("completed") and _completes(part):
        log, chosen = (
            _only(part.result.latency_hlog, _ANSWERS),
            lost & lasts & (started >= own_ns) & (started < close_ns),
        )
    else:
        return None
    samples: dict[int, HdrHistogram] = {}
    for at_ns, start_ns in zip(table["first_response_ns"][chosen].tolist(), started[chosen].tolist(), strict=True):
        histogram = samples.setdefault(at_ns // _SECOND_NS, HdrHistogram(*_BOUNDS))
        histogram.record_value(min(max(0, at_ns - start_ns), _BOUNDS[1]))
    lines = [
        f"Tag={_ANSWERS},{second}.000,1.000,{each.get_max_value() / 1e6:.3f},{each.encode().decode('ascii')}"
        for second, each in sorted(samples.items())
    ]
    return "\n".join([log, *lines]) + "\n"


def _only(log: str, kind: str) -> str:
    return "\n".join(line for line in log.splitlines() if line.startswith(f"Tag={kind},"))


def _without(log: str, kind: str) -> str:
    return "\n".join(line for line in log.splitlines() if not line.startswith(f"Tag={kind},"))


def _alone(part: Part) -> None:
    try:
        merged_log([part.result.latency_hlog])
    except ResultsError as error:
        raise Unmergeable(part.host, f"its latency log {error}") from None


def _faults(parts: Sequence[Part]) -> tuple[Fault, ...]:
    """By kind, with the first example."""
    return tuple(_first([fault for part in parts for fault in part.result.faults], lambda fault: fault.kind).values())


def _errors(parts: Sequence[Part]) -> tuple[PeerError, ...]:
    """By code, with the first message."""
    return tuple(_first([error for part in parts for error in part.result.errors], lambda error: error.code).values())


def _first(all_: Iterable, key: Callable) -> dict:  # type: ignore[type-arg]
    found: dict = {}  # type: ignore[type-arg]
    for each in all_:
        known = found.get(key(each))
        found[key(each)] = each if known is None else replace(known, count=known.count + each.count)
    return found


def _served_misses(parts: Sequence[Part]) -> tuple[tuple[int, int, int], ...]:
    found: dict[tuple[int, int], int] = {}
    for part in parts:
        for share, step, machines in part.result.served_misses:
            found[share, step] = found.get((share, step), 0) + machines
    return tuple((*place, machines) for place, machines in sorted(found.items()))
