"""One pair: a fresh base and a fresh head side by side, and only one of them loaded at a time, in turns.

The turns (slices) are so short that what the machine does meanwhile hits both alike: whole trials after each other
differ by 6 to 13 % of nothing, slices by 1 to 2 % (docs/gate.md). A server that has no load sleeps, so the other has
the core to itself. Whatever a server does wrong is part of the pair; it must never judge figures, and never leave a
process behind.
"""

import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tftpbench.gate.result import BASE, CONTROL, HEAD, Arm, Pair
from tftpbench.host import generator
from tftpbench.host.generator import LoadConfig, LoadResult, Stop
from tftpbench.host.server_host import Sampling, Server
from tftpbench.measure import (
    Bench,
    Contender,
    Counted,
    Trial,
    compared_uploads,
    how_lost,
    load_config,
    run_watched,
    server_of,
    udp_columns,
    validity,
)
from tftpbench.model.errors import ServerError
from tftpbench.model.gate_settings import KNOWN, METRICS, allowance, worsening
from tftpbench.model.invariants import number
from tftpbench.model.latency import Latency, encoded_histograms
from tftpbench.model.units import MIB
from tftpbench.model.workload import Cell

STOP_GRACE_S = 0.3  # as in a trial: the load is over
# An arm has this much time besides its multiple of the base's: a datagram that was lost costs one or two timeouts, and
# that is not yet a server that is slow.
GRACE_TIMEOUTS = 2
GRACE_NS_MIN, GRACE_NS_MAX = 200_000_000, 2_000_000_000
# A server that moves nothing at all may be one that the machine kept waiting: it is asked once more, and longer than
# the usual client is patient (a second, and five retries in exponential steps).
SILENT_NS = 70_000_000_000
# The grain of the generator's intervals.
INTERVAL_NS = 100_000_000
# An arm that lost more of its slices than this says nothing of the rest.
INVALID_SLICES_MAX = 0.25
# Loopback has addresses enough: servers that know one port only stand beside each other on addresses of their own. In
# network namespaces each has the same, of a network of its own.
_HOSTS = {BASE: "127.0.0.1", HEAD: "127.0.0.2", CONTROL: "127.0.0.3"}


@dataclass(frozen=True)
class Work:
    """The fixed work of a trial: `slices` loads of `transfers` each, after one that is not counted.

    `slice_ns`: what a slice takes the base; an arm that takes `slow_factor` times as long, and some grace, is stopped.
    """

    transfers: int
    slices: int
    slice_ns: int
    slow_factor: float


@dataclass
class _Loaded:
    """One arm while its pair lasts."""

    trial: Trial
    server: Server
    sampler: Sampling
    config: LoadConfig
    root: Path
    stop: Stop
    turns: list["_Turn"] = field(default_factory=list)

    @property
    def has_lost(self) -> bool:
        """Whether it lost transfers: what it left unread then it may read, and answer, in a later slice."""
        return any(number(turn.figures, name) for turn in self.turns for name in ("failed", "timed_out", "stuck"))

    def limit_ns(self, work: Work) -> int:
        """How long the next slice may take: what is left of the arm's time, which grows with every slice."""
        counted = self.turns[1:]
        grace_ns = min(max(GRACE_TIMEOUTS * self.config.timeout_ns, GRACE_NS_MIN), GRACE_NS_MAX)
        used_ns = 1e9 * sum(number(turn.figures, "duration_s") or 0 for turn in counted)
        left_ns = work.slow_factor * work.slice_ns * (len(counted) + 1) + grace_ns - used_ns
        return int(min(self.config.limit_ns, max(left_ns, work.slice_ns)))


@dataclass(frozen=True)
class _Turn:
    """One slice of one arm. `is_stopped`: its time was up before its work was done."""

    figures: Mapping[str, object]
    latency_hlog: str
    cpu_ns: int | None
    fault: str | None
    is_stopped: bool
    is_stalled: bool = False
    """The generator or the runner stood still, so that no arm's figures may hold this slice."""


class ArmFailed(Exception):
    """A server was lost, or delivered wrong bytes: the pair ends here. `is_fault`: as no server may under load."""

    def __init__(self, arm: str, why: str, *, is_fault: bool = True) -> None:
        super().__init__(f"{arm}: {why}")
        self.arm = arm
        self.is_fault = is_fault


def measure(
    number_: int, cell: Cell, work: Work, sides: Mapping[str, Contender], rng: random.Random, bench: Bench
) -> Pair:
    """Load the sides (base, head and perhaps control) in turn, from fresh processes to their ends.

    Raises LoadError where the generator itself can't run; KeyboardInterrupt leaves nothing behind.
    """
    order = rng.sample(list(sides), len(sides))
    started_at = datetime.now(UTC).isoformat(timespec="milliseconds")
    made = Pair(number_, cell.label, cell.key, started_at, order[0], 0, {})
    try:
        with contextlib.ExitStack() as stack:
            arms = {name: _start(number_, cell, sides[name], name, bench, stack) for name in order}
            done = _take_turns(order, arms, work, bench)
    except ArmFailed as lost:
        # A base that can't do it says nothing of the head; a second base is a base. One start that fails may be the
        # machine's doing; many spoil the gate.
        failure = str(lost) if lost.arm == HEAD and lost.is_fault else None
        return replace(made, failure=failure, invalid=str(lost), unstarted=None if lost.is_fault else lost.arm)
    invalid = _invalid(arms, done)
    counted = _counted(arms) if invalid is None else range(1, done + 1)
    return replace(
        made,
        slices=done,
        arms={name: Arm(_figures(arms[name], counted)) for name in sides},
        invalid=invalid,
    )


def _take_turns(order: Sequence[str], arms: Mapping[str, _Loaded], work: Work, bench: Bench) -> int:
    """Load all arms slice by slice; how many slices count. The pair ends with the first in which an arm is stopped.

    The rule is the same for all arms, so that it favours none of them. What was moved until then is a figure of the
    arm, and by the time it took one of a slow arm: evidence, and no spoilt data.
    """
    for index in range(work.slices + 1):
        # Mirrored every other time: a drift within the pair cancels out.
        turn = order if index % 2 else order[::-1]
        for name in turn:
            arms[name].turns.append(_turn(name, arms[name], index, work, bench))
        if index and any(arm.turns[-1].is_stopped for arm in arms.values()):
            return index
    return work.slices


def sliced(config: LoadConfig, label: int | str, transfers: int) -> LoadConfig:
    """The load of one slice: fixed work, and uploads under names that no other slice has."""
    fixed = replace(config, transfers=transfers, duration_ns=None, warm_up_ns=0)
    return replace(fixed, name=f"s{label}-{fixed.name}") if fixed.operation == "write" else fixed


def _invalid(arms: Mapping[str, _Loaded], slices: int) -> str | None:
    for name, arm in arms.items():
        faults = [turn.fault for turn in arm.turns[1:] if turn.fault]
        if len(faults) > INVALID_SLICES_MAX * slices:
            return f"{name}: {faults[0]}; {len(faults)} of {slices} slices could not be used"
    return None


def _counted(arms: Mapping[str, _Loaded]) -> list[int]:
    """The slices that count: without the first, which warms up, and without those in which we stood still for any arm.

    All arms go without the same slices, so that the others are still each other's neighbours in time. An invalid pair
    goes without none: on a busy machine all may be such slices, and as a whole they are evidence of a severe loss.
    """
    turns = [arm.turns for arm in arms.values()]
    together = enumerate(zip(*turns, strict=True))
    return [index for index, same in together if index and not any(turn.is_stalled for turn in same)]


def _start(
    number_: int, cell: Cell, contender: Contender, name: str, bench: Bench, stack: contextlib.ExitStack
) -> _Loaded:
    trial, stop = Trial(number_, number_, number_, cell, contender), Stop()
    root = stack.enter_context(bench.folder_of(trial))
    log = bench.roots.base / f"{name}.log"
    log.unlink(missing_ok=True)
    server = server_of(trial, bench, root, log, host=_host(contender, name))
    stack.callback(server.stop, STOP_GRACE_S)
    try:
        server.start()
    except ServerError as error:
        raise ArmFailed(name, str(error), is_fault=False) from None
    config = load_config(trial, bench, server, stop)
    sampler = stack.enter_context(server.sampler(bench.pinning.spare or bench.pinning.generator, stop.request))
    return _Loaded(trial, server, sampler, config, root, stop)


def _host(contender: Contender, name: str) -> str:
    fixed = getattr(contender.server, "fixed_port", None)
    return _HOSTS[name] if fixed is not None else _HOSTS[BASE]


def _turn(name: str, arm: _Loaded, index: int, work: Work, bench: Bench) -> _Turn:
    """One slice. Raises ArmFailed where the server is gone, or what it delivered is wrong."""
    turn = _load(name, arm, f"{index}", arm.limit_ns(work), work.transfers, bench)
    if index == 0 and turn.is_stopped and not number(turn.figures, "blocks_to_window_end"):
        limit_ns = min(arm.config.limit_ns, SILENT_NS)
        again = _load(name, arm, f"{index}-again", limit_ns, work.transfers, bench)
        if again.is_stopped and not number(again.figures, "blocks_to_window_end"):
            raise _nothing(name, work.transfers)
        return again
    return turn


def _load(name: str, arm: _Loaded, label: str, limit_ns: int, transfers: int, bench: Bench) -> _Turn:
    """A slice's load, stopped after `limit_ns`."""
    config = replace(sliced(arm.config, label, transfers), limit_ns=limit_ns)
    cores = sorted({*bench.pinning.server, *bench.pinning.generator})
    before, counted = bench.tools.host.stolen_ticks(cores), Counted.of(arm.server)
    result, edges = run_watched(config, arm.stop, bench, arm.server)
    after = bench.tools.host.stolen_ticks(cores)
    counted = counted.now(arm.server, result)
    opened_ns, closed_ns = edges.opened.cpu_ns, edges.closed.cpu_ns
    lost = how_lost(arm.server)
    if lost is not None:
        raise ArmFailed(name, str(lost))
    is_stopped = _is_stopped(result, limit_ns)
    figures: dict[str, object] = dict(result.figures)
    figures |= _stopped(result, limit_ns) if is_stopped else {}
    uploads, _ = compared_uploads(arm.trial, bench, arm.root, config, result)
    figures |= uploads
    if config.operation == "write":
        _remove(arm.root)
    wrong = number(figures, "content_mismatches")
    if wrong:
        raise ArmFailed(name, f"{wrong:.0f} transfers had wrong contents")
    if not is_stopped and not number(figures, "completed"):
        raise _nothing(name, transfers)
    stolen = after[0] - before[0], after[1] - before[1]
    asked = {"concurrency": config.concurrency, "windowsize": config.windowsize}
    counts = {"network": arm.trial.cell.placement.network, **udp_columns(counted.udp)}
    found = _faults(figures | asked | ({} if arm.has_lost else counts), stolen, counted.strays)
    return _Turn(
        figures=figures,
        latency_hlog=result.latency_hlog,
        cpu_ns=closed_ns - opened_ns if closed_ns is not None and opened_ns is not None else None,
        fault=found[0].text if found else None,
        is_stopped=is_stopped,
        is_stalled=any(each.kind in validity.STALLS for each in found),
    )


def _nothing(name: str, transfers: int) -> ArmFailed:
    return ArmFailed(name, f"completed none of {transfers} transfers")


def _is_stopped(result: LoadResult, limit_ns: int) -> bool:
    """Whether its time was up. A transfer that had heard nothing for its timeout by then counts as timed out."""
    if number(result.figures, "interrupted"):
        return True
    ends = result.transfers["end_ns"]
    return bool(number(result.figures, "timed_out")) and bool((ends >= limit_ns).any())


def _stopped(result: LoadResult, limit_ns: int) -> dict[str, object]:
    """The figures of a slice that was stopped, over all of its time: the generator's own end at the last completion.

    Where nothing moved any more at its end, what was open counts as lost: it was stuck, and not slow.
    """
    window_s = limit_ns / 1e9
    blocks, bytes_ = (result.intervals[name] for name in ("blocks", "bytes"))
    is_stuck = not blocks[max(limit_ns // INTERVAL_NS - 1, 1) :].sum()
    return {
        "duration_s": window_s,
        "blocks_to_window_end": int(blocks.sum()),
        "data_pps": float(blocks.sum()) / window_s,
        "goodput_bytes_per_s": float(bytes_.sum()) / window_s,
        "stuck": number(result.figures, "interrupted") if is_stuck else 0,
    }


def _faults(figures: Mapping[str, object], stolen: tuple[int, int], strays: int | None) -> list[validity.Finding]:
    """Why the slice must not be used. A generator with no time left understates a loss, which a remark tells.

    Short gaps are the noise of the machine, which hits all arms alike: 2 % of a slice is less than a time slice.
    """
    around = validity.Surroundings(
        steal_fraction=stolen[0] / stolen[1] if stolen[1] else 0.0,
        steal_ticks=stolen[0],
        debug_build=generator.IS_DEBUG_BUILD,
        strays=strays,
    )
    no_faults = {validity.Kind.GENERATOR_SATURATED, validity.Kind.GENERATOR_GAPS}
    return [each for each in validity.findings(figures, around) if each.kind not in no_faults]


def _figures(arm: _Loaded, counted: Sequence[int]) -> dict[str, float | None]:
    """The arm's totals over the slices that count: without the first, which warmed it up."""
    turns = [arm.turns[index] for index in counted]
    blocks, window_s, started = (_sum(turns, name) for name in ("blocks_to_window_end", "duration_s", "started"))
    lost = _sum(turns, "failed") + _sum(turns, "timed_out") + _sum(turns, "stuck")
    stopped = sum(turn.is_stopped for turn in turns)
    if stopped and not blocks:
        blocks = 1.0  # less than that in all of its time: so the arm is at least so slow
    mib = sum((number(turn.figures, "goodput_bytes_per_s") or 0) * (number(turn.figures, "duration_s") or 0)
              for turn in turns) / MIB  # fmt: skip
    cpu_ns = [turn.cpu_ns for turn in turns]
    cpu_s = sum(each for each in cpu_ns if each is not None) / 1e9 if None not in cpu_ns else None
    busy = [number(turn.figures, "generator_busy_fraction") for turn in turns]
    known_busy = [each for each in busy if each is not None]
    samples = arm.sampler.samples
    return {
        "server_cpu_s_per_mib": cpu_s / mib if cpu_s is not None and mib else None,
        "data_pps": blocks / window_s if window_s else None,
        # Of many short-lived processes a look sees now few and now many: their peak is luck.
        "server_rss_bytes_max": samples.rss_bytes_max if samples.processes_max == 1 else None,
        "server_processes_max": samples.processes_max,
        **_latencies(turns),
        "started": started,
        "lost": lost,
        "slices_stopped": stopped,
        "retransmissions": _sum(turns, "retransmissions"),
        "udp_drops_server": samples.udp_drops,
        "bytes_verified": _sum(turns, "bytes_verified"),
        "duration_s": window_s,
        "server_cpu_s": cpu_s,
        "generator_busy_fraction": sum(known_busy) / len(known_busy) if known_busy else None,
    }


def _latencies(turns: Sequence[_Turn]) -> dict[str, float | None]:
    wanted = {"block_rtt_ns_p50": ("block_rtt", 50), "block_rtt_ns_p99": ("block_rtt", 99),
              "transfer_ns_p99": ("transfer", 99)}  # fmt: skip
    merged = {
        kind: Latency.of(text for turn in turns for text in encoded_histograms(turn.latency_hlog, kind))
        for kind in ("block_rtt", "transfer")
    }
    return {name: merged[kind].percentile(p) if merged[kind].count else None for name, (kind, p) in wanted.items()}


def _sum(turns: Sequence[_Turn], name: str) -> float:
    return sum(number(turn.figures, name) or 0 for turn in turns)


def _remove(root: Path) -> None:
    """What was uploaded and compared: a pair's uploads would fill the memory that it lies in."""
    for path in root.iterdir():
        with contextlib.suppress(OSError):
            path.unlink()


# A pair is evidence of a severe loss from this factor on, beyond what the budget allows. The clock of a busy machine
# can't be trusted for some percent, and seldom for half.
SEVERE = 2.0


def by_cell(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs by cell_key, in their order."""
    cells: dict[str, list[Pair]] = {}
    for pair in pairs:
        cells.setdefault(pair.cell_key, []).append(pair)
    return cells


def loaded(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs whose servers were all loaded, whether their clock can be trusted or not."""
    return [pair for pair in pairs if pair.arms]


def valid(pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs that count for every metric."""
    return [pair for pair in pairs if pair.invalid is None]


def counted(pairs: Sequence[Pair], metric: str) -> list[Pair]:
    """Pairs that count for the metric: a count of calls or bytes is not spoilt by a clock that can't be trusted."""
    return valid(pairs) if KNOWN[metric].needs_clock else loaded(pairs)


def figure(pair: Pair, arm: str, metric: str) -> float | None:
    """A positive, finite figure of an arm; None where it has none."""
    value = pair.arms[arm].figures.get(metric) if arm in pair.arms else None
    return value if value is not None and np.isfinite(value) and value > 0 else None


def both(pairs: Sequence[Pair], metric: str, other: str = HEAD) -> list[tuple[float, float]]:
    """The figures of the base and of `other`, of the pairs that have both."""
    found = [(figure(pair, BASE, metric), figure(pair, other, metric)) for pair in pairs]
    return [(base, head) for base, head in found if base is not None and head is not None]


def worsening_log(pair: Pair, metric: str, other: str = HEAD) -> float | None:
    """The log of how much worse `other` was than the base in this pair; None where one has not the figure."""
    base, head = figure(pair, BASE, metric), figure(pair, other, metric)
    if base is None or head is None:
        return None
    sign = 1 if KNOWN[metric].lower_is_better else -1
    return sign * float(np.log(head) - np.log(base))


def severe_limit(metric: str, budget: float) -> float:
    """The log-ratio of worsening from which a pair is evidence of a severe loss."""
    return allowance(METRICS[metric], budget) + float(np.log(SEVERE))


def severe_loss(metric: str, budget: float) -> float:
    """The same as a share."""
    return worsening(METRICS[metric], severe_limit(metric, budget))


def severe_sign(pair: Pair, metric: str, budget: float) -> int:
    """1 where the head was worse by far, -1 where the base was, 0 where neither was, or the control was so as well.

    Exchanging base and head gives exactly the opposite, so that with equal code both are equally probable.
    """
    logs = [worsening_log(pair, metric, other) for other in (HEAD, CONTROL)]
    worse, control = (np.array(np.nan if log is None else log) for log in logs)
    return int(severe_signs(worse, control, severe_limit(metric, budget)))


def severe_signs(worse: NDArray[np.float64], control: NDArray[np.float64], limit: float) -> NDArray[np.int64]:
    """The same of many pairs: log-ratios of worsening of the head and of the control, NaN where there is none."""
    with np.errstate(invalid="ignore"):  # what is no number is never at or beyond a limit
        # A second base is as slow as the slow one: two starts of the same code differ.
        is_alike = control - np.minimum(worse, 0) >= limit
        return np.where(is_alike, 0, (worse >= limit).astype(np.int64) - (worse <= -limit))


# The share of the wealth that each pair puts on the head. At an error of 1 in 1,000 eleven pairs to none decide, or
# fifteen to one; a larger share would decide one pair earlier, and never recover from a pair that went the other way.
STAKE = 0.9

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


def p_values(signs: NDArray[np.int_] | Numbers) -> Floats:
    """The p-value after each pair, valid at all of them together; of the shape of `signs`, pairs along the last axis.

    `signs`: 1 where the head was the worse one, -1 where the base was, 0 for a pair that says nothing. The hypothesis:
    1 is no more probable than -1.
    """
    given = np.asarray(signs)
    gains = np.where(given > 0, np.log1p(STAKE), np.where(given < 0, np.log1p(-STAKE), 0.0))
    wealth = np.maximum.accumulate(np.cumsum(gains, axis=-1), axis=-1)
    return np.asarray(np.exp(-np.maximum(wealth, 0.0)), dtype=np.float64)
