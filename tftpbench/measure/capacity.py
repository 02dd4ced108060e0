"""What a server can bear: one search, from a ramp to its two bounds and what is measured there.

The order is a budget's: bounds first, then confirmation, latencies and recovery, as far as time is left. It decides by
what `Trials` sees, and touches no clock, server or folder itself. It must never lose what was measured: an end before
its time gives an irregular result, which says so.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tftpbench.measure.search import GROWTH_MIN, Bounds, Measured, SearchEnded, Seen, classes, relevant, search
from tftpbench.model.capacity import MACHINES, Bound, Goal, Stage, goal_of
from tftpbench.model.units import format_duration, rate_ratio
from tftpbench.model.values import IN_FLIGHT_LIMIT
from tftpbench.model.workload import Arriving, OpenLoop, Piece, Shaped, Sought, Storm

# The ramp: steps of a second or so, each at four times the last one's load, until this share is lost or waits.
RAMP_FIRST, RAMP_FACTOR, RAMP_S, RAMP_BEHIND = 16.0, 4.0, 1.0, 0.1
# Of a spread, from twice the rate at which a storm was served, in smaller steps: each takes as long as all before it.
SPREAD_FACTOR = 2.0
RATE_MAX = 262_144.0
STARTS_MIN = 20
# What the bounds lie between, beside the load at which the ramp fell behind.
ABOVE_KNEE, BELOW_KNEE = 1.5, 20.0
# Where the ramp was wrong, so often the search goes on above or below, and so often a trial of no use is repeated.
EXTENSIONS_MAX, REPEATS_MAX = 4, 5
# Others on the machine may end soon: they are waited for so long, as a share of the budget.
BUSY_SHARE = 0.1
GENERATOR_MARGIN = 0.75
# The next search knows nothing of the trials before it: it is not to measure the same load again.
OTHER_LOAD = 1.0001
# So many trials, each so long, must hold at the lower bound; it is lowered by one width at most so often.
CONFIRMING, CONFIRMING_S, LOWERED_MAX = 3, 60.0, 5
LATENCY_SHARES = (0.9, 0.5, 0.1)
OVERLOAD, OVERLOAD_S, CALM, CALM_S = 1.1, 10.0, 0.5, 20.0
# A second's p99 is normal again at twice that of the calm load, or where it lies this little above it.
NORMAL_TIMES, NORMAL_NS = 2.0, 10_000_000
# What comes while a side stands still is added to the backlog, and growth over a trial is twice that over its half.
HELD_UP_TIMES = 2.0
# Stages in which a loss changes a bound.
DECISIVE = ("bounds", "confirmation")
# Around a trial: a start, a stop, its files.
AROUND_S = 0.7


class Asked(NamedTuple):
    """A trial to do: what starts, how many in all (None where the load says it), and when it ends at the latest.

    `left_s`: of the budget.
    """

    stage: Stage
    load: float
    duration_s: float
    arriving: Arriving
    starts: int | None
    limit_s: float
    left_s: float = math.inf


class Trials(Protocol):
    """What a search needs of the world."""

    def now_s(self) -> float:
        """A clock."""

    def run(self, asked: Asked) -> Seen:
        """Do a trial, and keep it. KeyboardInterrupt passes through."""


class Omitted(NamedTuple):
    """A stage that was not done, and why."""

    stage: Stage
    reason: str


@dataclass
class Result:
    """What a search found. `lower` is borne, `upper` is not; of a spread both are machines a second.

    `is_regular`: both bounds are there, as close as was asked, and nothing stood in the way (RFC 9971). `reasons`: why
    it is not. `limit`: the load that the generator could not offer. `is_dead`: the target no longer answers.
    `recovered_s`: from the end of the overload; None where it did not.
    """

    asked: Sought
    goal: Goal
    lower: float | None = None
    upper: float | None = None
    conditional: float | None = None
    is_regular: bool = False
    is_confirmed: bool = False
    is_interrupted: bool = False
    is_dead: bool = False
    limit: float | None = None
    reasons: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    omitted: list[Omitted] = field(default_factory=list)
    trials: list[Seen] = field(default_factory=list)
    classes: tuple[tuple[float, Bound], ...] = ()
    latencies: list[tuple[float, Seen]] = field(default_factory=list)
    recovered_s: float | None = None
    has_recovery: bool = False
    took_s: float = 0.0
    bounds_took_s: float = 0.0


# A load that says nothing about the server: the generator can't make it, or the server is not started for so much.
_NOT_OFFERED = ("generator", "not started")


class _GeneratorLimit(SearchEnded):
    def __init__(self, load: float, reason: str) -> None:
        super().__init__(reason)
        self.load = load


class _MachineBusy(SearchEnded):
    pass


class _BudgetSpent(SearchEnded):
    pass


class _Gone(SearchEnded):
    """The server can't be asked any more."""


class Search:
    """One search. `text`: how a load is written for people."""

    def __init__(self, asked: Sought, trials: Trials, text: Callable[[float], str]) -> None:
        self._asked, self._trials, self._text = asked, trials, text
        self._began_s = trials.now_s()
        self._ends_s = self._began_s + asked.asked.budget_ns / 1e9
        self._at_once_per_s = 0.0
        self._tried = 0
        self._goal = goal_of(asked.asked, asked.find)
        self.result = Result(asked, self._goal)

    def run(self) -> Result:
        """From the ramp to the last stage that there is time for."""
        result = self.result
        left: list[tuple[Stage, Callable[[], None]]] = [
            ("bounds", self._find_bounds),
            ("confirmation", self._confirm),
            ("latencies", self._latencies),
            ("recovery", self._recover),
        ]
        if self._asked.find != "rate":
            left.pop()  # an overload is of a rate
        try:
            while left:
                stage, do = left[0]
                if stage != "bounds" and result.lower is None:
                    result.omitted += [Omitted(each, "no lower bound") for each, _ in left]
                    break
                try:
                    try:
                        do()
                    finally:
                        if stage == "bounds":
                            result.bounds_took_s = self._trials.now_s() - self._began_s
                except SearchEnded as ended:
                    self._note(stage, ended)
                    if isinstance(ended, _Gone):
                        result.omitted += [Omitted(each, str(ended)) for each, _ in left[1:]]
                        break
                left.pop(0)
        except KeyboardInterrupt:
            result.is_interrupted, result.is_regular = True, False
            result.reasons.append("interrupted")
            if left and left[0][0] == "bounds":
                self._take_bounds_so_far()
            result.omitted += [Omitted(stage, "interrupted") for stage, _ in left]
        result.took_s = self._trials.now_s() - self._began_s
        return result

    # Bounds

    def _find_bounds(self) -> None:
        result = self.result
        if self._asked.find == "spread" and self._is_borne_at_once():
            return
        least, most = self._ramp()
        for _ in range(EXTENSIONS_MAX):
            found = search(self._goal, least, most, self._measure)
            ended = found.ended
            if isinstance(ended, _GeneratorLimit) and found.lower is None and ended.load * GENERATOR_MARGIN > least:
                result.limit = min(ended.load, result.limit or ended.load)
                least, most = least * OTHER_LOAD, ended.load * GENERATOR_MARGIN
            elif ended is None and found.upper is None and result.limit is None and most < self._most:
                least, most = most / RAMP_FACTOR, min(most * RAMP_FACTOR, self._most)
            elif ended is None and found.lower is None and least > self._least:
                least, most = max(least / BELOW_KNEE, self._least), least / OTHER_LOAD
            else:
                break
        self._take(found)
        if ended is not None:
            raise ended

    def _is_borne_at_once(self) -> bool:
        """Whether no time is needed at all; then both bounds are that."""
        first = self._repeated("ramp", math.inf, 1.0)
        self._at_once_per_s = first.done_per_s
        if (first.fault and not _is_good_enough(first)) or first.measured.loss_ratio > self._goal.lost:
            return False
        more = [self._useful("bounds", math.inf, 1.0) for _ in range(CONFIRMING)]
        if any(each.measured.loss_ratio > self._goal.lost for each in more):
            return False
        self.result.lower = self.result.upper = math.inf
        self.result.is_regular = True
        return True

    def _take(self, found: Bounds) -> None:
        result = self.result
        result.lower, result.upper, result.conditional = found.lower, found.upper, found.conditional
        result.is_regular, result.classes = found.is_regular and not result.reasons, found.classes
        if found.upper is None and found.lower is not None and found.ended is None:
            of = "more could not be offered" if result.limit is not None else "more is not tried"
            result.reasons.append(f"no load was too much, and {of}")
        elif found.lower is None and found.ended is None:
            result.reasons.append("no load was borne")
        elif not found.is_regular and found.ended is None:
            result.reasons.append("the bounds are further apart than was asked")
        if dead := [seen for seen in self.result.trials if seen.fault in ("died", "wrong bytes")]:
            bad = [seen for seen in dead if seen.stage == "bounds"]
            line = f"{dead[0].reason} (trial {dead[0].trial}, {self._text(dead[0].load)})"
            result.is_regular = result.is_regular and not bad
            (result.reasons if bad else result.remarks).append(line)

    def _take_bounds_so_far(self) -> None:
        """What the trials say that there are, where the search itself did not come to tell."""
        done = [seen.measured for seen in self.result.trials if seen.stage == "bounds" and seen.counts]
        self.result.classes = classes(self._goal, done)
        self.result.lower, self.result.upper = relevant(self.result.classes)

    @property
    def _most(self) -> float:
        return RATE_MAX if self._asked.find == "rate" else float(IN_FLIGHT_LIMIT)

    @property
    def _least(self) -> float:
        if self._asked.find == "machines":
            return 1.0
        return 0.01 if self._asked.find == "spread" else 0.1

    def _measure(self, duration_s: float, load: float) -> Measured:
        return self._useful("bounds", load, duration_s).measured

    def _ramp(self) -> tuple[float, float]:
        """The loads between which the search is to look."""
        kept, seen, boot_s = 0.0, None, 0.0
        for load in self._steps():
            seen = self._repeated("ramp", load, max(RAMP_S, 5 * boot_s, STARTS_MIN / load))
            is_first = kept == 0.0
            has_failed = seen.fault and not _is_good_enough(seen)
            if (has_failed and self._asked.find != "spread") or self._is_behind(seen, is_first=is_first):
                break
            kept = load
            if is_first and seen.service_ns_p50:
                boot_s = seen.service_ns_p50 / 1e9
        assert seen is not None
        if seen.fault in _NOT_OFFERED:
            self.result.limit = seen.load
        is_behind = kept != seen.load
        if self._asked.find == "rate":
            knee = max(kept, min(seen.done_per_s, seen.load) if not has_failed else 0.0) or seen.load / RAMP_FACTOR
            self._goal = self.result.goal = goal_of(self._asked.asked, "rate", boot_s, STARTS_MIN / knee)
            most = knee * (2.0 if is_behind and has_failed else ABOVE_KNEE)
            return max(self._least, knee / BELOW_KNEE), min(max(most, kept * 1.2), self._most)
        if self._asked.find == "machines":
            most = kept * 2 if has_failed else seen.load
            return max(self._least, kept / RAMP_FACTOR), most if is_behind else self._most
        # Of a spread, in descending loads: the last one that was too much lies a step above.
        return max(self._least, seen.load / SPREAD_FACTOR), seen.load * SPREAD_FACTOR

    def _steps(self) -> Iterator[float]:
        if self._asked.find == "spread":
            load = max(self._at_once_per_s, 1.0) * SPREAD_FACTOR
            while load > self._least:
                yield load
                load /= SPREAD_FACTOR
            return
        load = RAMP_FIRST
        while load < self._most:
            yield load
            load *= RAMP_FACTOR

    def _is_behind(self, seen: Seen, *, is_first: bool) -> bool:
        if self._asked.find == "spread":  # the other way round: it ends where nothing is lost any more
            return seen.measured.loss_ratio <= self._goal.lost
        missing = seen.lost if is_first else seen.missing  # how long a boot takes is not known before
        return missing > RAMP_BEHIND * seen.intended

    # What follows

    def _confirm(self) -> None:
        result = self.result
        length_s = CONFIRMING_S if self._asked.find == "rate" else 1.0
        for _ in range(LOWERED_MAX):
            assert result.lower is not None
            self._afford("confirmation", [result.lower] * CONFIRMING, length_s)
            seen = [self._useful("confirmation", result.lower, length_s) for _ in range(CONFIRMING)]
            worst = max(each.measured.loss_ratio for each in seen)
            if worst <= self._goal.lost:
                result.is_confirmed = True
                result.conditional = result.conditional or result.lower * (1.0 - worst)
                return
            if math.isinf(result.lower):
                result.is_regular = False
                raise SearchEnded("machines were lost when it was tried again")
            result.upper, result.lower = result.lower, result.lower * (1.0 - self._goal.width)
            result.conditional = None
            result.remarks.append(f"{self._text(result.upper)} did not hold when it was tried again for longer")

    def _latencies(self) -> None:
        assert self.result.lower is not None
        if math.isinf(self.result.lower):
            raise SearchEnded("the machines need no time to start in")
        loads = [share * self.result.lower for share in LATENCY_SHARES]
        self._afford("latencies", loads, self._goal.trial_s)
        for share, load in zip(LATENCY_SHARES, loads, strict=True):
            self.result.latencies.append((share, self._useful("latencies", load, self._goal.trial_s)))

    def _recover(self) -> None:
        result = self.result
        assert result.lower is not None
        calm = next((seen for share, seen in result.latencies if share == CALM), None)
        if calm is None or calm.response_ns_p99 is None:
            raise SearchEnded("it needs the latency at half the load")
        length_s = OVERLOAD_S + CALM_S
        self._afford("recovery", [result.lower], length_s)
        high, low = OVERLOAD * result.lower, CALM * result.lower
        pieces = (_hold(high, OVERLOAD_S), _hold(low, CALM_S))
        text = f"{self._text(high)} for {OVERLOAD_S:g} s, {self._text(low)} for {CALM_S:g} s"
        arriving = Shaped(pieces, "even", self._asked.in_flight_max, self._asked.deadline_ns, text)
        limit_s = self._limit_s(length_s)
        seen = self._run(Asked("recovery", result.lower, length_s, arriving, None, limit_s, self._left_s))
        if seen.starts_ns is None or seen.ends_ns is None or seen.fault:
            raise SearchEnded(seen.reason or "its trial kept no times")
        normal_ns = max(NORMAL_TIMES * calm.response_ns_p99, calm.response_ns_p99 + NORMAL_NS)
        result.has_recovery = True
        result.recovered_s = recovered_s(seen.starts_ns, seen.ends_ns, normal_ns)

    # Trials

    def _useful(self, stage: Stage, load: float, duration_s: float) -> Seen:
        """A trial that says something about the server."""
        seen = self._repeated(stage, load, duration_s)
        if seen.fault in _NOT_OFFERED:
            raise _GeneratorLimit(load, seen.reason)
        if seen.fault == "machine":
            raise _MachineBusy(f"this machine was too busy for {self._tried} trials in a row: {seen.reason}")
        return seen

    def _repeated(self, stage: Stage, load: float, duration_s: float) -> Seen:
        """A trial; one that says nothing about the server is repeated a few times, on a busy machine for a while."""
        calm_s = self._trials.now_s() + BUSY_SHARE * self._asked.asked.budget_ns / 1e9
        for self._tried in itertools.count(1):
            seen = self._once(stage, load, duration_s)
            is_over = self._tried >= REPEATS_MAX and (seen.fault == "generator" or self._trials.now_s() >= calm_s)
            if seen.fault not in ("generator", "machine") or _is_good_enough(seen) or is_over:
                break
        return seen

    def _once(self, stage: Stage, load: float, duration_s: float) -> Seen:
        arriving, starts, lasts_s = self._arriving(load, duration_s)
        # One that is cut off says nothing, and a storm may take as long as any until now.
        storms_s = [seen.took_s for seen in self.result.trials] if self._asked.find != "rate" else []
        if self._left_s < max(lasts_s, 1.0, *storms_s):
            raise _BudgetSpent("the budget was spent")
        return self._run(Asked(stage, load, duration_s, arriving, starts, self._limit_s(lasts_s), self._left_s))

    def _run(self, asked: Asked) -> Seen:
        seen = self._judged(self._trials.run(asked))
        self.result.trials.append(seen)
        if seen.fault == "cut":
            raise _BudgetSpent("the budget was spent")
        has_started = any(each.counts for each in self.result.trials)
        if seen.fault == "dead target" or (seen.fault == "not started" and not has_started):
            self.result.is_dead = seen.fault == "dead target"
            raise _Gone(seen.reason)
        return seen

    def _judged(self, seen: Seen) -> Seen:
        """As it is, or as a trial of a busy machine: where that alone may have made it lose what it lost.

        One that was good in spite of it is good, and one that lost more is bad. So is one whose backlog grew all the
        time, where the machine took too little of that to move a bound by half of what it may be off.
        """
        if seen.fault or seen.stage not in DECISIVE or seen.measured.loss_ratio <= self._goal.lost:
            return seen
        has_grown = (seen.steady or 0.0) > max(GROWTH_MIN, self._goal.lost * seen.intended)
        if has_grown and seen.held_up_s <= self._goal.width / 2 * seen.duration_s:
            return seen
        per_s = seen.load if self._asked.find == "rate" else seen.done_per_s
        if seen.missing > HELD_UP_TIMES * per_s * seen.held_up_s + (GROWTH_MIN if seen.held_up_s else 0.0):
            return seen
        held_up = format_duration(round(seen.held_up_s * 1e9))
        reason = f"this machine held server or generator up for {held_up}, which explains the {seen.missing:,} lost"
        return replace(seen, fault="machine", reason=reason)

    def _arriving(self, load: float, duration_s: float) -> tuple[Arriving, int | None, float]:
        """What starts, how many, and how long the starts take."""
        deadline_ns, most = self._asked.deadline_ns, self._asked.in_flight_max
        if self._asked.find == "rate":
            starts = max(1, round(load * duration_s))
            return OpenLoop(float(f"{load:.5g}"), "even", most, deadline_ns), starts, starts / load
        if self._asked.find == "machines":
            return Storm(max(1, round(load)), 0, "even", deadline_ns), None, 0.0
        machines = self._asked.asked.machines or MACHINES
        over_ns = 0 if math.isinf(load) else round(machines / load * 1e9)
        return Storm(machines, over_ns, "even", deadline_ns), None, over_ns / 1e9

    @property
    def _left_s(self) -> float:
        return self._ends_s - self._trials.now_s()

    def _limit_s(self, lasts_s: float) -> float:
        """When a trial is ended at the latest: its last start's deadline, or the budget."""
        return max(0.1, min(lasts_s + self._asked.deadline_ns / 1e9, self._left_s))

    def _afford(self, stage: Stage, loads: Sequence[float], length_s: float) -> None:
        """Raises _BudgetSpent where a stage would not end within the budget."""
        before = [seen.took_s for seen in self.result.trials if seen.stage == "bounds"]
        least_s = max(before, default=0.0) if self._asked.find == "machines" else 0.0
        each_s = [max(least_s, self._arriving(load, length_s)[2]) for load in loads]
        wanted_s = sum(each_s) + AROUND_S * len(loads)
        if wanted_s > self._left_s:
            raise _BudgetSpent(f"{stage} takes {format_duration(round(wanted_s) * 1e9)}, and the budget has no more")

    def _note(self, stage: Stage, ended: SearchEnded) -> None:
        """Why a stage did not come to its end."""
        result, reason = self.result, str(ended)
        if isinstance(ended, _GeneratorLimit):
            result.limit = min(ended.load, result.limit or ended.load)
            reason = f"{self._text(ended.load)} could not be offered: {reason}"
        if stage == "bounds":
            result.is_regular = False
            result.reasons.append(reason)
            if not result.classes:
                self._take_bounds_so_far()
        else:
            result.omitted.append(Omitted(stage, reason))
            if isinstance(ended, _Gone):
                result.is_regular = False
                result.reasons.append(reason)


def _is_good_enough(seen: Seen) -> bool:
    """Whether a trial of a busy machine is used all the same: a ramp only says where to look."""
    return seen.stage == "ramp" and seen.fault == "machine"


def recovered_s(starts_ns: NDArray[np.int64], ends_ns: NDArray[np.int64], normal_ns: float) -> float | None:
    """How long after an overload the p99 of each second's starts is normal and stays so; None where it never is.

    Times in ns since the first start; an end below 0 never came.
    """
    took = np.where(ends_ns >= 0, ends_ns - starts_ns, np.inf)
    begin_ns, worst = OVERLOAD_S * 1e9, 0.0
    for second in range(int(CALM_S)):
        first_ns = begin_ns + second * 1e9
        here = took[(starts_ns >= first_ns) & (starts_ns < first_ns + 1e9)]
        if here.size and np.sort(here)[math.ceil(0.99 * here.size) - 1] > normal_ns:
            worst = second + 1.0
    return None if worst >= int(CALM_S) else worst


def _hold(per_s: float, length_s: float) -> Piece:
    ratio = (rate_ratio(float(f"{per_s:.5g}")) / 10**9).as_integer_ratio()
    return Piece("hold", ratio, ratio, round(length_s * 1e9))
