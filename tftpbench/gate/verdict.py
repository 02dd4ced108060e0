"""The rules: from figures to a verdict for each metric, and one for the whole.

Pure, and the same for a gate that is going on, one that is read again, runs that were not measured in pairs, and a
resampling of recorded pairs: all figures may be of many gates at once, as arrays whose first axis is the gate. It must
never measure, and never look at a clock.

How it decides, in one place. A pair gives each metric one number: the log of how much worse the head was than the base
beside it. Its 20 % trimmed mean is held against the budget with a one-sided t (Tukey & McLaughlin 1963; Yuen 1974). The
error of a look is divided by Holm's method over all gated metrics of all cells; one that has not pairs enough yet
counts among them. What is called regressed at one look stays so: the looks' errors were added up for just that.

A pair whose clock can't be trusted counts for the metrics that need no clock. It counts, too, where one side did worse
by more than twice what the budget allows: the head as the worse one in pair after pair is regressed by a sign test that
may be looked at after every pair (pair.py).
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tftpbench.analysis.stats import PAIRS_MIN, Trimmed, holm, trimmed
from tftpbench.gate.pair import by_cell, figure, loaded, p_values, severe_sign
from tftpbench.gate.result import BASE, BY_SEVERITY, HEAD, Pair, Verdict
from tftpbench.model.gate_settings import METRICS, allowance
from tftpbench.model.metrics import Metric
from tftpbench.model.units import counted as amount

# Part of what a gate records: to be changed with anything below that changes a verdict.
METHOD = (
    "pairs in slices; 20 % trimmed mean of log ratios, one-sided t, Holm over metrics, error split over looks; "
    "sign test of severe losses after every pair/3"
)
# Of a whole run: about one false alarm in a hundred runs of identical code, were every budget nought.
ERROR = 0.01
# The sign tests' shares of it, each for all pairs together: of severe losses, and of transfers that were lost.
SEVERE_ERROR = ERROR / 5
LOST_ERROR = ERROR / 10
# What is left for all looks.
LOOKS_ERROR = ERROR - SEVERE_ERROR - LOST_ERROR
# How sure "pass" is that the loss is inside the budget, over all looks together.
PASS_ERROR = 0.05
# What is promised: a loss of twice the budget is seen nine times in ten.
POWER = 0.9
PROMISED = 2.0
# A metric that regressed by so many budgets ends the gate: what the others would say changes nothing.
MANY = 10.0
# A server that does not start was given three tries of ten seconds; so often, and the base never, is no accident.
UNSTARTED_MAX = 2
# Passes under strace may end early, and a server of many processes has no peak memory that could be measured; a
# remark says so. No other metric may pass without its figures.
OPTIONAL = ("syscalls_per_block", "server_rss_bytes_max")
# Two starts of the base: fewer tell nothing of whether they differ.
CONTROLS_MIN = 4

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Severities = NDArray[np.int64]
"""Verdicts of many gates, by Verdict.severity."""
Key = tuple[str, str]
"""A metric in a cell, by cell_key."""
_K = TypeVar("_K", bound=Hashable)
REGRESSED, INCONCLUSIVE, INVALID = (
    verdict.severity for verdict in (Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.INVALID)
)
_DECISIVE = [verdict.severity for verdict in Verdict if verdict.is_decisive]
# The first that holds is the verdict; where none does, it is inconclusive.
_PRECEDENCE = (Verdict.REGRESSED, Verdict.SUSPECTED, Verdict.IMPROVED, Verdict.PASS, Verdict.INVALID)


@dataclass(frozen=True)
class Loss:
    """How much worse one metric is, as trimmed means of log-ratios, against its budget; one mean for each gate."""

    metric: Metric
    of: Trimmed
    budget: float
    """As a share, the metric's floor looked at: see `held_budget`."""

    @property
    def limit(self) -> float:
        """The log-ratio that the budget allows."""
        return allowance(self.metric, self.budget)

    @property
    def is_beyond(self) -> Flags:
        """Whether the estimate is beyond the budget."""
        return np.atleast_1d(self.of.mean > self.limit)

    @property
    def is_many(self) -> Flags:
        """Whether it is so many times the budget that a gate ends where it has regressed."""
        return np.atleast_1d(self.of.mean > MANY * self.limit)

    @property
    def p_not_inside(self) -> Floats:
        """The p-value against a loss beyond the budget."""
        return np.atleast_1d(self.of.p_below(self.limit))

    def smallest_effect(self, error: float) -> Floats:
        """The least log-ratio that would have been called regressed with POWER; `error`: of this test alone."""
        from scipy.stats import t

        needed = t.isf(error, self.of.freedom) + t.isf(1 - POWER, self.of.freedom)
        return np.atleast_1d(self.limit + needed * self.of.error)

    def is_noisy(self, error: float) -> Flags:
        """Whether a loss of twice the budget could have gone unseen."""
        return self.smallest_effect(error) > allowance(self.metric, min(PROMISED * self.budget, 0.99))


def held_budget(metric: Metric, budget: float, base: Sequence[float]) -> float:
    """The budget as a share, no less than the metric's floor is of what the base has.

    One page more is no regression of a server of few pages, nor is a call in a hundred blocks of one with few calls.
    """
    return max(budget, metric.floor / float(np.median(base))) if base else budget


def held_budgets(cells: Mapping[str, Sequence[Pair]], budgets: Mapping[str, float]) -> dict[Key, float]:
    """The same of each metric in each cell of pairs."""
    return {
        (name, cell_key): held_budget(
            METRICS[name], budget, [value for pair in pairs if (value := figure(pair, BASE, name)) is not None]
        )
        for cell_key, pairs in cells.items()
        for name, budget in budgets.items()
    }


def verdicts(
    losses: Mapping[_K, Loss], *, last: Collection[_K], looks: int = 1, error: float = LOOKS_ERROR, waiting: int = 0
) -> dict[_K, Severities]:
    """The verdict of each loss at one of so many looks, which have the error together.

    `last`: those that no further look will be taken at; `waiting`: how many metrics have not pairs enough yet, and so
    share this look's error.
    """
    level, count = error / looks, len(losses) + waiting
    beyond = holm({key: np.atleast_1d(loss.of.p_above(loss.limit)) for key, loss in losses.items()}, waiting)
    worse = holm({key: np.atleast_1d(loss.of.p_above(0)) for key, loss in losses.items()}, waiting)
    better = holm({key: np.atleast_1d(loss.of.p_below(0)) for key, loss in losses.items()}, waiting)
    found: dict[_K, Severities] = {}
    for key, loss in losses.items():
        noisy = loss.is_noisy(level / count) if key in last else np.zeros(beyond[key].shape, bool)
        holds = (
            beyond[key] < level, (worse[key] < level) & loss.is_beyond, better[key] < level,
            loss.p_not_inside < PASS_ERROR / looks, noisy,
        )  # fmt: skip
        severities = [np.full(noisy.shape, verdict.severity) for verdict in _PRECEDENCE]
        found[key] = np.select(holds, severities, INCONCLUSIVE)
    return found


@dataclass(frozen=True)
class Sample:
    """What a look sees of one metric in one cell: log-ratios of worsening, of shape (gates, pairs).

    `controls`: of a second base instead of the head, NaN where a pair has none.
    """

    metric: str
    budget: float
    logs: Floats
    controls: Floats

    @property
    def loss(self) -> Loss | None:
        """None of fewer pairs than a trimmed mean takes."""
        if self.logs.shape[-1] < PAIRS_MIN:
            return None
        return Loss(METRICS[self.metric], trimmed(self.logs), self.budget)


def look(
    samples: Mapping[Key, Sample], earlier: Mapping[Key, Severities], *, looks: int, last: Collection[Key],
    waiting: int = 0, has_ended: bool = False,
) -> tuple[dict[Key, Severities], Flags]:  # fmt: skip
    """The verdicts after one look at these samples, and which gates it ends.

    `earlier`: the verdicts after the look before. `has_ended`: no more pairs are to come, so that what is not sure by
    its last look is invalid.
    """
    losses = {key: loss for key, sample in samples.items() if (loss := sample.loss) is not None}
    now = verdicts(losses, looks=looks, last=last, waiting=waiting)
    found, is_over = dict(earlier), np.zeros(len(next(iter(samples.values())).logs), dtype=bool)
    for key, sample in samples.items():
        said = now[key] if key in now else np.full(len(sample.logs), INCONCLUSIVE)
        if has_ended and key in last:
            said[said == INCONCLUSIVE] = INVALID
        said[control_differs(sample)] = INVALID
        found[key] = np.where(earlier[key] == REGRESSED, REGRESSED, said) if key in earlier else said
        if key in losses:
            is_over |= (found[key] == REGRESSED) & losses[key].is_many
    if not waiting:
        is_over |= np.all([np.isin(said, _DECISIVE) for said in found.values()], axis=0)
    return found, is_over


def control_differs(sample: Sample) -> Flags:
    """Whether two starts of the same base differ by more than the budget for certain: then nothing can be judged."""
    counts = np.isfinite(sample.controls).sum(axis=-1)
    logs = np.sort(sample.controls, axis=-1)  # what is no number comes last
    limit = allowance(METRICS[sample.metric], sample.budget)
    differs = np.zeros(len(logs), dtype=bool)
    for count in set(counts.tolist()):
        if count >= CONTROLS_MIN:
            rows = counts == count
            found = trimmed(logs[rows, :count])
            differs[rows] = np.minimum(found.p_above(limit), found.p_below(-limit)) < ERROR / 2
    return differs


def overall(found: Mapping[_K, Severities]) -> Severities:
    """The verdict of the whole: the most severe, but improved where others only passed."""
    table = np.array(list(found.values()))
    most_severe = table.max(axis=0)
    is_improved = (table == Verdict.IMPROVED.severity).any(axis=0)
    is_better = is_improved & (most_severe == Verdict.PASS.severity)
    return np.asarray(np.where(is_better, Verdict.IMPROVED.severity, most_severe))


def overall_verdict(found: Collection[Verdict], failure: str | None) -> Verdict:
    """The same of one gate; a failure is always red, and without a verdict nothing is known."""
    if failure is not None:
        return Verdict.REGRESSED
    if not found:
        return Verdict.INVALID
    return BY_SEVERITY[int(overall({place: np.array([each.severity]) for place, each in enumerate(found)})[0])]


# ---- what ends a gate without a look


@dataclass(frozen=True)
class Severe:
    """A severe loss that is certain: in `worse` of `pairs` pairs, spoilt ones as well."""

    worse: int
    pairs: int


def is_early(pairs: Sequence[Pair], budgets: Mapping[str, float]) -> bool:
    """Whether the pairs end the gate without a look: what fails outright, or a severe loss that is certain."""
    return failure_of(pairs) is not None or bool(severe(pairs, budgets))


def severe(pairs: Sequence[Pair], budgets: Mapping[str, float]) -> dict[Key, Severe]:
    """The metrics that need a clock in which the head is worse by far, for certain: by the sign test over all pairs.

    Of equal code either side is as often the worse one, on a busy machine, too; so no pair is left out.
    """
    signs = {
        (name, cell_key): np.array([severe_sign(pair, name, budget) for pair in loaded(ours)])
        for name, budget in budgets.items()
        if METRICS[name].needs_clock
        for cell_key, ours in by_cell(pairs).items()
    }
    certain = certainly_severe({key: p_values(each)[-1:] if each.size else np.ones(1) for key, each in signs.items()})
    return {key: Severe(int((each == 1).sum()), each.size) for key, each in signs.items() if certain[key][0]}


def certainly_severe(p_of: Mapping[_K, Floats]) -> dict[_K, Flags]:
    """In which gates a loss is severe for certain, by the p-values of the sign tests of all metrics and cells."""
    return {key: adjusted < SEVERE_ERROR for key, adjusted in holm(p_of).items()}


def failure_of(pairs: Sequence[Pair]) -> str | None:
    """What ends the gate whatever the figures say, in words."""
    return next((pair.failure for pair in pairs if pair.failure), None) or _unstarted(pairs) or _lost(pairs)


def _unstarted(pairs: Sequence[Pair]) -> str | None:
    """Whether the head often does not start, and the base always does, in words."""
    failed = [pair.unstarted for pair in pairs if pair.unstarted is not None]
    if failed.count(HEAD) <= UNSTARTED_MAX or failed.count(HEAD) < len(failed):
        return None
    return f"head: did not start in {len(failed)} of {amount(len(pairs), 'pair')}, and the base in all"


def _lost(pairs: Sequence[Pair]) -> str | None:
    """Whether the head loses more of its transfers than the base, by the sign test over all pairs, in words.

    A pair whose clock can't be trusted counts: of equal code either side loses as often the more.
    """
    pairs = loaded(pairs)
    shares = [(_share_lost(pair, HEAD), _share_lost(pair, BASE)) for pair in pairs]
    signs = np.array([int(head > base) - int(head < base) for head, base in shares])
    if not signs.size or p_values(signs)[-1] >= LOST_ERROR:
        return None
    head, base = (sum(figure(pair, arm, "lost") or 0 for pair in pairs) for arm in (HEAD, BASE))
    more = int((signs > 0).sum())
    return f"head: lost transfers in {more} of {amount(len(pairs), 'pair')}, {head:.0f} in all, the base {base:.0f}"


def _share_lost(pair: Pair, arm: str) -> float:
    return (figure(pair, arm, "lost") or 0) / (figure(pair, arm, "started") or 1)
