"""The search between two loads: a controller of RFC 9971 around one function that measures, and a second opinion.

The controller is MLRsearch 1.2.1 of PyPI (FD.io CSIT), which measures its first trial at the highest load, throws its
bounds away when it raises, and has a warm-up trial by default. All that it is asked for is asked here, and nothing
of it leaves this module. It must never know a server.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from MLRsearch import AbstractMeasurer, Config, MeasurementResult, MultipleLossRatioSearch, SearchGoal
from numpy.typing import NDArray

from tftpbench.model.capacity import Bound, Fault, FoundCapacity, Goal, Stage

# Coarser targets before the goal's own, as the library's authors have it.
PRECEDING_TARGETS = 2
# Loads of the library are a rounded scale; two that are this close are one.
SAME_LOAD = 1e-9
# Of in flight that grows by one: a straggler, not a backlog.
GROWTH_MIN = 2.0


@dataclass(frozen=True)
class Measured:
    """A trial as a search sees it: so many were intended in `duration_s`, and so many of them were lost."""

    load: float
    duration_s: float
    intended: int
    lost: int

    @property
    def loss_ratio(self) -> float:
        """Of all that were intended."""
        return min(self.lost / self.intended, 1.0) if self.intended else 0.0


@dataclass(frozen=True)
class Seen:
    """One trial of a search. `load`: starts a second, machines at once, or machines a second of a spread.

    `lost`: failed, late or shed. `growth`: by how much the backlog grew over the trial. `done_per_s`: what came to its
    end / the time until the last did. Times in ns; None for never, and for not known. `reason`: of a fault.
    `steady`: the growth that no stall explains; None for not known.
    `held_up_s`: for how long the machine kept server or generator from running. `took_s`: from its server's start to
    its end. Of a storm `duration_s` is 1.
    """

    trial: int
    stage: Stage
    load: float
    duration_s: float
    intended: int
    lost: int
    growth: float = 0.0
    fault: Fault = ""
    reason: str = ""
    done_per_s: float = 0.0
    service_ns_p50: float | None = None
    response_ns_p50: float | None = None
    response_ns_p99: float | None = None
    held_up_s: float = 0.0
    steady: float | None = None
    took_s: float = 0.0
    starts_ns: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    ends_ns: NDArray[np.int64] | None = field(default=None, repr=False, compare=False)
    """Of each start, in ns since the first; negative for an end that never came."""

    @property
    def missing(self) -> int:
        """What the trial counts as lost: the larger of what was lost, and what was added to the backlog."""
        if self.fault in ("died", "wrong bytes"):
            return self.intended
        grown = math.ceil(self.growth) if self.growth > GROWTH_MIN else 0
        return min(self.intended, max(self.lost, grown))

    @property
    def counts(self) -> bool:
        """Whether it says something about the server."""
        return self.fault in ("", "died", "wrong bytes")

    @property
    def measured(self) -> Measured:
        """As a search sees it."""
        return Measured(self.load, self.duration_s, self.intended, self.missing)


class SearchEnded(Exception):  # no error: an end before the goal
    """Raised by what measures, to end a search before its goal; what it found until then is kept."""


@dataclass(frozen=True)
class Bounds:
    """What a search found: the highest load that was borne, the lowest that was not, None where there is none.

    `conditional`: the load at the lower bound less what is lost there (RFC 9971, Conditional Throughput). `is_regular`:
    both are there, and as close as the goal asks. `classes`: each load that was measured, in order.
    """

    lower: float | None
    upper: float | None
    conditional: float | None
    is_regular: bool
    classes: tuple[tuple[float, Bound], ...]
    ended: SearchEnded | None = None


def search(goal: Goal, min_load: float, max_load: float, measure: Callable[[float, float], Measured]) -> Bounds:
    """Find the bounds by `measure(duration_s, load)`, which may raise SearchEnded.

    0 < `min_load` < `max_load`; no load outside them is measured.
    """
    asked = SearchGoal(
        loss_ratio=goal.lost, exceed_ratio=goal.exceed, relative_width=goal.width,
        initial_trial_duration=goal.short_s, final_trial_duration=goal.trial_s, duration_sum=goal.sum_s,
        preceding_targets=PRECEDING_TARGETS, fail_fast=False,
    )  # fmt: skip
    # The lower one first: its default is 9001, and no other may be at or above it.
    config = Config()
    config.min_load = min_load
    config.max_load = max_load
    config.goals = [asked]
    config.warmup_duration = None
    config.search_duration_max = math.inf
    library = MultipleLossRatioSearch(config=config)
    ended: SearchEnded | None = None
    try:
        library.search(_Measurer(measure), debug=lambda _: None)
    except SearchEnded as error:
        ended = error
    return _bounds(library, asked, goal, ended)


def classify(goal: Goal, trials: Iterable[Measured]) -> Bound:
    """What the trials at one load make it: RFC 9971 Appendix A, written from its text, without the library."""
    long_good = long_bad = short_good = short_bad = 0.0
    for trial in trials:
        is_good = trial.loss_ratio <= goal.lost
        if trial.duration_s >= goal.trial_s:
            long_good += trial.duration_s * is_good
            long_bad += trial.duration_s * (not is_good)
        else:
            short_good += trial.duration_s * is_good
            short_bad += trial.duration_s * (not is_good)
    # A short trial that was good makes up for bad ones, by as much as the exceed ratio lets one long trial do so.
    excess = max(0.0, short_bad - short_good * goal.exceed / (1.0 - goal.exceed))
    bad = long_bad + excess
    whole = max(long_good + bad, goal.sum_s)
    if bad / whole > goal.exceed:  # even if all that is missing were good
        return "upper"
    return "lower" if (whole - long_good) / whole <= goal.exceed else "undecided"


def classes(goal: Goal, trials: Iterable[Measured]) -> tuple[tuple[float, Bound], ...]:
    """`classify` for each load that was measured, in order."""
    loads: dict[float, list[Measured]] = {}
    for trial in trials:
        loads.setdefault(trial.load, []).append(trial)
    return tuple((load, classify(goal, loads[load])) for load in sorted(loads))


def second_opinion(found: FoundCapacity) -> tuple[float, ...]:
    """The loads of a search that its trials make another bound of, by `classify`, than was written down."""
    trials = [
        Measured(each.load, each.duration_s, each.intended, each.missing)
        for each in found.trials
        if each.stage == "bounds" and each.counts and each.load is not None
    ]
    ours = dict(classes(found.goal.goal, trials))
    return tuple(each.load for each in found.loads if ours.get(each.load) != each.bound)


def relevant(found: Iterable[tuple[float, Bound]]) -> tuple[float | None, float | None]:
    """The Relevant Lower and Upper Bound of RFC 9971: the lowest upper bound, and the highest lower one below it."""
    lower = None
    for load, bound in found:
        if bound == "upper":
            return lower, load
        lower = load if bound == "lower" else lower
    return lower, None


class _Measurer(AbstractMeasurer):  # type: ignore[misc] # the library has no types
    """Our function, as the library wants it."""

    def __init__(self, measure: Callable[[float, float], Measured]) -> None:
        self._measure = measure

    def measure(self, intended_duration: float, intended_load: float) -> MeasurementResult:
        """Measure once."""
        seen = self._measure(intended_duration, intended_load)
        # Its sums are of what a trial was asked to take: with the wait for the last one, short overloads would weigh
        # more.
        return MeasurementResult(
            intended_duration=intended_duration, intended_load=intended_load, intended_count=seen.intended,
            offered_count=seen.intended, loss_count=min(seen.lost, seen.intended),
            duration_with_overheads=intended_duration,
        )  # fmt: skip


def _bounds(library: Any, asked: Any, goal: Goal, ended: SearchEnded | None) -> Bounds:
    """As the library's own records have them, which it keeps however its search ended."""
    target = library.scaling.goal_to_final_target[asked]
    found = library.database.get_relevant_bounds(target)
    lower, upper = (None if each is None else float(each) for each in (found.clo, found.chi))
    conditional = None
    if found.clo is not None:
        (stat,) = found.clo.target_to_stat.values()
        conditional = float(found.clo) * (1.0 - stat.pessimistic_loss_ratio)
    known: list[tuple[float, Bound]] = []
    for load, stats in library.database.load_to_stats.items():
        optimistic, pessimistic = stats.estimates(target)
        bound: Bound = "undecided" if optimistic != pessimistic else "lower" if optimistic else "upper"
        known.append((float(load), bound))
    is_close = lower is not None and upper is not None and (upper - lower) / upper <= goal.width * (1 + SAME_LOAD)
    return Bounds(lower, upper, conditional, is_close and ended is None, tuple(known), ended)
