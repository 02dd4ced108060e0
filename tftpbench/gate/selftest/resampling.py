"""The gate without a machine: what it would have said of recorded pairs, thousands of times.

Each draw is a whole gate with the decision of a real one (`verdict.look`, look after look). Identical code with
base and head exchanged at random gives the false-alarm rate; a recorded fault, how often it is found. It must never
measure, and never judge by rules of its own.

What it can't tell: draws come from the pairs that were recorded, so their intervals hold for such pairs, and none of
a machine that behaves otherwise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tftpbench.analysis.stats import CONFIDENCE
from tftpbench.gate.pair import by_cell, figure, p_values, severe_limit, severe_signs, valid
from tftpbench.gate.result import BASE, BY_SEVERITY, CONTROL, HEAD, Pair, Verdict
from tftpbench.gate.verdict import (
    INCONCLUSIVE,
    OPTIONAL,
    REGRESSED,
    SEVERE_ERROR,
    Flags,
    Floats,
    Key,
    Sample,
    Severities,
    certainly_severe,
    held_budgets,
    look,
    overall,
)
from tftpbench.model.gate_settings import CONTROL_EVERY, METRICS

DRAWS = 10_000

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Rate:
    """So many of so many gates, and what share that may be with 95 % confidence (Clopper & Pearson 1934)."""

    alarms: int
    draws: int

    @property
    def share(self) -> float | None:
        """What was seen; None where there was no gate."""
        return self.alarms / self.draws if self.draws else None

    @property
    def low(self) -> float:
        """The least that the share may be."""
        return self._interval()[0]

    @property
    def high(self) -> float:
        """The most that it may be."""
        return self._interval()[1]

    def _interval(self) -> tuple[float, float]:
        from scipy.stats import binomtest

        if not self.draws:
            return 0.0, 1.0
        found = binomtest(self.alarms, self.draws).proportion_ci(CONFIDENCE, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        """As in a table: "1 of 30 (0.1 to 17 %)"."""
        if not self.draws:
            return "none"
        return f"{self.alarms} of {self.draws} ({_percent(self.low)} to {_percent(self.high)} %)"


@dataclass(frozen=True)
class Rates:
    """What many gates said: the whole of each, and each metric of it (the most severe verdict of its cells)."""

    draws: int
    said: tuple[Verdict, ...]
    by_metric: Mapping[str, tuple[Verdict, ...]]

    @property
    def verdicts(self) -> Mapping[Verdict, int]:
        """How often each was the verdict of the whole, the most severe first."""
        counts = Counter(self.said)
        return {verdict: counts[verdict] for verdict in Verdict}

    def rate(self, verdict: Verdict = Verdict.REGRESSED, metric: str | None = None) -> Rate:
        """How often the verdict, or that of one metric, was this one."""
        verdicts = self.said if metric is None else self.by_metric.get(metric, ())
        return Rate(verdicts.count(verdict), len(verdicts))


def _percent(share: float) -> str:
    return f"{100 * share:.2g}" if share < 0.1 else f"{100 * share:.0f}"


def permuted(
    pairs: Sequence[Pair], budgets: Mapping[str, float], looks: Sequence[int], draws: int = DRAWS, seed: int = 1
) -> Rates:
    """Gates of recorded pairs in random order, base and head of each exchanged or not by the toss of a coin.

    `pairs`: of base and head that are the same code. ValueError where they are too few for a look.
    """
    return _gates(pairs, budgets, looks, draws, seed, swaps=True)


def drawn(
    pairs: Sequence[Pair], budgets: Mapping[str, float], looks: Sequence[int], draws: int = DRAWS, seed: int = 1
) -> Rates:
    """Gates of recorded pairs in random order, base and head as they were. ValueError as in `permuted`.

    Draws share pairs: where few more were recorded than a gate takes, they hardly differ.
    """
    return _gates(pairs, budgets, looks, draws, seed, swaps=False)


def detected(
    pairs: Sequence[Pair], metric: str, budgets: Mapping[str, float], looks: Sequence[int], draws: int = DRAWS,
    seed: int = 1,
) -> Rate:  # fmt: skip
    """How often gates drawn from pairs with a faulty head are regressed by the metric that is meant to show it."""
    return drawn(pairs, budgets, looks, draws, seed).rate(Verdict.REGRESSED, metric)


@dataclass(frozen=True)
class _Draw:
    """Of each draw and place in it: which pair of the cell, and whether its sides are exchanged: (draws, pairs)."""

    order: Numbers
    swapped: NDArray[np.bool_]

    def first(self, pairs: int) -> "_Draw":
        """The first pairs of each draw."""
        return _Draw(self.order[:, :pairs], self.swapped[:, :pairs])

    def known(self, known: NDArray[np.bool_], pairs: int) -> "_Draw":
        """The first pairs of each draw that have a figure: passes under strace end before the pairs do."""
        places = np.argsort(~known[self.order], axis=-1, kind="stable")[:, : min(pairs, int(known.sum()))]
        return _Draw(np.take_along_axis(self.order, places, -1), np.take_along_axis(self.swapped, places, -1))


@dataclass(frozen=True)
class _Recorded:
    """One metric of a cell, by pair; NaN where an arm has no figure."""

    metric: str
    base: Floats
    head: Floats
    control: Floats

    def sample(self, draw: _Draw, size: int, budget: float) -> Sample:
        """What a look sees: of a figure that some pairs have not, as far as the others reach."""
        known, seen = np.isfinite(self.base) & np.isfinite(self.head), draw.first(size)
        logs = self._worse(*self._sides(seen if known.all() else draw.known(known, size)))
        return Sample(self.metric, budget, logs, self._worse(self._sides(seen)[0], self.control[seen.order]))

    def signs(self, draw: _Draw, pairs: int, budget: float) -> Numbers:
        """As `severe_sign` has it, of the first pairs of each draw: (draws, pairs)."""
        seen = draw.first(pairs)
        base, head = self._sides(seen)
        control = self._worse(base, self.control[seen.order])
        return severe_signs(self._worse(base, head), control, severe_limit(self.metric, budget))

    def _sides(self, draw: _Draw) -> tuple[Floats, Floats]:
        base, head = self.base[draw.order], self.head[draw.order]
        return np.where(draw.swapped, head, base), np.where(draw.swapped, base, head)

    def _worse(self, base: Floats, other: Floats) -> Floats:
        logs = np.log(other) - np.log(base)
        return logs if METRICS[self.metric].lower_is_better else -logs


def _gates(
    pairs: Sequence[Pair], budgets: Mapping[str, float], looks: Sequence[int], draws: int, seed: int, *, swaps: bool
) -> Rates:
    cells = by_cell([pair for pair in valid(pairs) if pair.failure is None])
    fewest = min((len(ours) for ours in cells.values()), default=0)
    reached = [look for look in looks if look <= fewest]
    if not reached or not fewest:
        raise ValueError(f"a gate of these looks needs {looks[0]} valid pairs of each cell, and there are {fewest}")
    rng = np.random.default_rng(seed)
    drawing = {key: _draw([CONTROL in pair.arms for pair in ours], draws, rng, swaps) for key, ours in cells.items()}
    recorded = {(name, key): _recorded(ours, name) for key, ours in cells.items() for name in budgets}
    found = _look_by_look(recorded, drawing, held_budgets(cells, budgets), looks, reached)
    return _rates(found, draws)


def _draw(controlled: Sequence[bool], draws: int, rng: np.random.Generator, swaps: bool) -> _Draw:
    """Pairs in random order, but those with a control in the places where a gate has them."""
    places = _controlled_places(controlled)
    order = np.empty((draws, len(places)), dtype=np.int64)
    for is_controlled in (True, False):
        ours = np.flatnonzero(np.array(controlled) == is_controlled)
        order[:, places == is_controlled] = rng.permuted(np.tile(ours, (draws, 1)), axis=1)
    swapped = rng.random(order.shape) < 0.5 if swaps else np.zeros(order.shape, dtype=bool)
    return _Draw(order, swapped)


def _controlled_places(controlled: Sequence[bool]) -> NDArray[np.bool_]:
    with_control, without = sum(controlled), len(controlled) - sum(controlled)
    places = []
    for number in range(1, len(controlled) + 1):
        is_due = number % CONTROL_EVERY == 0
        places.append(with_control > 0 if is_due else without == 0)
        with_control, without = with_control - places[-1], without - (not places[-1])
    return np.array(places, dtype=bool)


def _recorded(pairs: Sequence[Pair], metric: str) -> _Recorded:
    def column(arm: str) -> Floats:
        found = [figure(pair, arm, metric) for pair in pairs]
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    return _Recorded(metric, column(BASE), column(HEAD), column(CONTROL))


def _look_by_look(
    recorded: Mapping[Key, _Recorded], drawing: Mapping[str, _Draw], budgets: Mapping[Key, float],
    looks: Sequence[int], reached: Sequence[int],
) -> dict[Key, Severities]:  # fmt: skip
    """The verdict of each metric in each draw: as `decide` has it, for all draws at once.

    Where a severe loss ends a gate before its first look, the other metrics are inconclusive here.
    """
    draws = len(next(iter(drawing.values())).order)
    found: dict[Key, Severities] = {}
    ended = np.zeros(draws, dtype=bool)
    severe = _severe(recorded, drawing, budgets, looks[-1])
    before = 0
    for size in reached:
        for each in severe[before : size - 1]:  # at `size` itself there is a look, too
            now_severe = np.any(list(each.values()), axis=0) & ~ended
            for key, is_severe in each.items():
                earlier = found.setdefault(key, np.full(draws, INCONCLUSIVE))
                found[key] = np.where(is_severe & now_severe, REGRESSED, earlier)
            ended |= now_severe
        samples = {key: each.sample(drawing[key[1]], size, budgets[key]) for key, each in recorded.items()}
        samples = {key: sample for key, sample in samples.items() if _is_judged(sample, looks[0])}
        before = size
        if not samples:
            continue
        now, is_over = look(samples, found, looks=len(looks), last=samples if size == looks[-1] else ())
        for key, is_severe in (severe[size - 1] if size <= len(severe) else {}).items():
            now[key] = np.where(is_severe, REGRESSED, now[key])
            is_over |= is_severe
        found = {key: np.where(ended, found.get(key, INCONCLUSIVE), said) for key, said in now.items()}
        ended |= is_over
    return found


def _is_judged(sample: Sample, least: int) -> bool:
    """Whether a look has pairs enough of it; what is optional is left out where it has not."""
    return sample.metric not in OPTIONAL or sample.logs.shape[-1] >= least


def _severe(
    recorded: Mapping[Key, _Recorded], drawing: Mapping[str, _Draw], budgets: Mapping[Key, float], pairs: int
) -> list[dict[Key, Flags]]:
    """After each pair: in which draws which metric is a severe loss for certain, as `verdict.severe` has it.

    Empty where that is so in none.
    """
    keys = [key for key in recorded if METRICS[key[0]].needs_clock]
    tables = {key: p_values(recorded[key].signs(drawing[key[1]], pairs, budgets[key])) for key in keys}
    if not tables or min(float(table.min()) for table in tables.values()) * len(keys) >= SEVERE_ERROR:
        return []
    fewest = min(table.shape[-1] for table in tables.values())
    return [certainly_severe({key: table[:, pair] for key, table in tables.items()}) for pair in range(fewest)]


def _rates(found: Mapping[Key, Severities], draws: int) -> Rates:
    if not found:
        return Rates(draws, (Verdict.INVALID,) * draws, {})
    by_metric: dict[str, Severities] = {}
    for (metric, _), severities in found.items():
        by_metric[metric] = np.maximum(by_metric.get(metric, severities), severities)
    return Rates(draws, _decoded(overall(found)), {metric: _decoded(each) for metric, each in by_metric.items()})


def _decoded(severities: Severities) -> tuple[Verdict, ...]:
    return tuple(BY_SEVERITY[severity] for severity in severities)
