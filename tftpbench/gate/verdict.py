"""The decision: from pairs of figures to a verdict for each metric, and one for the whole.

Pure, and the same for a gate that is going on, one that is read again, and a resampling of recorded pairs. It must
never measure, and never look at a clock.

How it decides, in one place. A pair gives each metric one number: the log of how much worse the head was than the base
beside it. Its 20 % trimmed mean is held against the budget with a one-sided t (Tukey & McLaughlin 1963; Yuen 1974). The
error of a look is divided by Holm's method over all gated metrics of all cells; one that has not pairs enough yet
counts among them. What is called regressed at one look stays so: the looks' errors were added up for just that.

A pair whose clock can't be trusted counts for the metrics that need no clock. It counts, too, where one side did worse
by more than twice what the budget allows: the head as the worse one in pair after pair is regressed by a sign test that
may be looked at after every pair (sign_test.py).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tftpbench.analysis.stats import PAIRS_MIN, Trimmed, holm, paired_ratio, trimmed
from tftpbench.gate.pair_figures import (
    both,
    by_cell,
    counted,
    figure,
    loaded,
    severe_loss,
    severe_sign,
    valid,
    worsening_log,
)
from tftpbench.gate.result import BASE, BY_SEVERITY, CONTROL, HEAD, Judgement, Noise, Pair, Verdict, pairs_used
from tftpbench.gate.sign_test import p_values
from tftpbench.model.budgets import METRICS, REPORTED, allowance, worsening
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
Numbers = NDArray[np.int64]
# A metric in a cell, by cell_key.
Key = tuple[str, str]
# The first that holds is the verdict; where none does, it is inconclusive.
_PRECEDENCE = (Verdict.REGRESSED, Verdict.SUSPECTED, Verdict.IMPROVED, Verdict.PASS, Verdict.INVALID)
DETAILS: Mapping[Verdict, str] = {
    Verdict.REGRESSED: "worse by more than the budget, for certain",
    Verdict.SUSPECTED: "worse for certain, and by the estimate by more than the budget",
    Verdict.INCONCLUSIVE: "neither a loss beyond the budget nor one within it is certain",
    Verdict.INVALID: "too noisy: a loss of twice the budget could have gone unseen, or two starts of the base differ",
    Verdict.PASS: "any loss is within the budget, with 95 % certainty",
    Verdict.IMPROVED: "better, for certain",
}


@dataclass(frozen=True)
class Decision:
    """What the pairs say. `pairs`: how many the figures are made of; `is_final`: no further pair would be used."""

    verdict: Verdict
    judgements: tuple[Judgement, ...]
    noise: tuple[Noise, ...]
    failure: str | None
    pairs: int
    is_final: bool


@dataclass(frozen=True)
class Severe:
    """A severe loss that is certain: in `worse` of `pairs` pairs, spoilt ones as well."""

    worse: int
    pairs: int


def decide(
    pairs: Sequence[Pair], budgets: Mapping[str, float], looks: Sequence[int], *, has_ended: bool = False
) -> Decision:
    """Look at the pairs as often as there are enough, and stop where every gated metric is decided.

    `budgets`: shares by metric; `looks`: rising numbers of pairs. With fewer pairs than the first look wants, nothing
    is called anything but invalid, unless the loss is severe. `has_ended`: no more pairs are to come, so what is not
    sure by now is invalid.
    """
    cells, failure, certain = by_cell(pairs), _failure(pairs), severe(pairs, budgets)
    looked = _looked(cells, budgets, looks, has_ended=has_ended)
    found = looked.found | dict.fromkeys(certain, Verdict.REGRESSED)
    judged = _Judged(cells, budgets, looks, looked, certain)
    judgements = tuple(judged.judgements(found))
    return Decision(
        verdict=overall_verdict(found.values(), failure),
        judgements=judgements,
        noise=tuple(judged.noise()),
        failure=failure,
        pairs=pairs_used(judgements),
        is_final=failure is not None or bool(certain) or looked.is_final,
    )


def is_early(pairs: Sequence[Pair], budgets: Mapping[str, float]) -> bool:
    """Whether the pairs end the gate without a look: what fails outright, or a severe loss that is certain."""
    return _failure(pairs) is not None or bool(severe(pairs, budgets))


def severe(pairs: Sequence[Pair], budgets: Mapping[str, float]) -> dict[Key, Severe]:
    """The metrics that need a clock in which the head is worse by far, for certain: by the sign test over all pairs.

    Of equal code either side is as often the worse one, on a busy machine, too; so no pair is left out.
    """
    signs = {
        (name, cell_key): [severe_sign(pair, name, budget) for pair in loaded(ours)]
        for name, budget in budgets.items()
        if METRICS[name].needs_clock
        for cell_key, ours in by_cell(pairs).items()
    }
    least = [float(p_values(np.array(each))[-1]) if each else 1.0 for each in signs.values()]
    return {
        key: Severe(each.count(1), len(each))
        for (key, each), p in zip(signs.items(), holm(least) if least else [], strict=True)
        if p < SEVERE_ERROR
    }


@dataclass(frozen=True)
class _Group:
    """Metrics for which the same pairs count. `looks`: those that there are enough pairs for."""

    budgets: Mapping[str, float]
    cells: Mapping[str, Sequence[Pair]]
    looks: tuple[int, ...]

    @property
    def keys(self) -> list[Key]:
        return [(name, cell_key) for name in self.budgets for cell_key in self.cells]


@dataclass
class _Looks:
    """What the looks said: the verdicts, by which look each, and the last look that valid pairs were enough for."""

    found: dict[Key, Verdict] = field(default_factory=dict)
    looks: dict[Key, int] = field(default_factory=dict)
    valid: int = 0
    is_final: bool = False


def _groups(cells: Mapping[str, Sequence[Pair]], budgets: Mapping[str, float], looks: Sequence[int]) -> list[_Group]:
    groups = []
    for needs_clock, count in ((True, valid), (False, loaded)):
        ours = {name: budget for name, budget in budgets.items() if METRICS[name].needs_clock is needs_clock}
        counting = {key: count(pairs) for key, pairs in cells.items()}
        fewest = min(map(len, counting.values()), default=0)
        if ours:
            groups.append(_Group(ours, counting, tuple(look for look in looks if look <= fewest)))
    return groups


def _looked(
    cells: Mapping[str, Sequence[Pair]], budgets: Mapping[str, float], looks: Sequence[int], *, has_ended: bool
) -> _Looks:
    """Look after look, until all is decided, or the pairs are not enough for the next."""
    groups, result = _groups(cells, budgets, looks), _Looks()
    for look in max((group.looks for group in groups), key=len, default=()):
        result.is_final = _look(look, groups, result, looks, has_ended=has_ended)
        if result.is_final:
            break
    if result.found:  # what had not pairs enough for any look is no pass
        open_ = [key for group in groups for key in group.keys if not group.looks and key[0] not in OPTIONAL]
        result.found |= dict.fromkeys(open_, Verdict.INVALID if has_ended else Verdict.INCONCLUSIVE)
    result.is_final |= bool(groups) and all(looks[-1] in group.looks for group in groups)
    return result


def _look(look: int, groups: Sequence[_Group], result: _Looks, looks: Sequence[int], *, has_ended: bool) -> bool:
    """One look of those groups that have pairs enough; whether it ends the gate."""
    reached = [group for group in groups if look in group.looks]
    waiting = sum(len(group.keys) for group in groups if look not in group.looks)
    held: dict[Key, float] = {}
    logs: dict[Key, list[float]] = {}
    last: set[Key] = set()
    for group in reached:
        held |= effective({key: pairs[:look] for key, pairs in group.cells.items()}, group.budgets)
        logs |= _logs(group, look, looks[0])
        is_last = look == looks[-1] or (has_ended and look == group.looks[-1])
        last.update(group.keys if is_last else ())
        result.valid = look if any(METRICS[name].needs_clock for name in group.budgets) else result.valid
    if not any(logs.values()):
        return False  # nothing was measured: there is nothing to say
    now = _verdicts(logs, held, len(looks), last=last, waiting=waiting)
    if has_ended:
        now = {
            key: Verdict.INVALID if verdict == Verdict.INCONCLUSIVE and key in last else verdict
            for key, verdict in now.items()
        }
    cells = {key: group.cells[key[1]][:look] for group in reached for key in group.keys}
    now = {
        key: Verdict.INVALID if _control_differs(cells[key], key[0], held[key]) else verdict
        for key, verdict in now.items()
    }
    regressed = {key for key in now if Verdict.REGRESSED in (now[key], result.found.get(key))}
    result.found |= now | dict.fromkeys(regressed, Verdict.REGRESSED)
    result.looks |= dict.fromkeys(now, look)
    is_sure = not waiting and all(verdict.is_decisive for verdict in result.found.values())
    return is_sure or any(is_many(key[0], np.array(logs[key]), held[key]) for key in regressed)


def is_many(metric: str, logs: Floats, budget: float) -> NDArray[np.bool_]:
    """Whether the loss is so many times the budget that a gate ends where it has regressed; pairs along the last axis.

    Never of fewer pairs than a trimmed mean takes.
    """
    if logs.shape[-1] < PAIRS_MIN:
        return np.zeros(logs.shape[:-1], dtype=bool)
    return np.asarray(trimmed(logs).mean > MANY * allowance(METRICS[metric], budget))


def effective(cells: Mapping[str, Sequence[Pair]], budgets: Mapping[str, float]) -> dict[Key, float]:
    """The budget of each metric in each cell, as a share: no less than the metric's floor is of what the base has.

    One page more is no regression of a server of few pages, nor is a call in a hundred blocks of one with few calls.
    """
    held = {}
    for cell_key, pairs in cells.items():
        for name, budget in budgets.items():
            base = [value for pair in pairs if (value := figure(pair, BASE, name)) is not None]
            floor = METRICS[name].floor / float(np.median(base)) if base else 0.0
            held[name, cell_key] = max(budget, floor)
    return held


def verdicts(
    logs: Mapping[Key, Floats], budgets: Mapping[Key, float], looks: int, *, last: Collection[Key], waiting: int = 0
) -> dict[Key, Numbers]:
    """The verdict of each metric for many gates at once, as severities, of shape (gates,).

    `logs`: log-ratios of worsening, of shape (gates, pairs). `last`: those that no further look will be taken at;
    `waiting`: how many metrics have not pairs enough yet, and so share this look's error.
    """
    tests = {key: _Test(key[0], trimmed(values), budgets[key]) for key, values in logs.items()}
    error, count = LOOKS_ERROR / looks, len(tests) + waiting
    beyond = holm_of({key: test.p_beyond for key, test in tests.items()}, waiting)
    worse = holm_of({key: test.p_worse for key, test in tests.items()}, waiting)
    better = holm_of({key: test.p_better for key, test in tests.items()}, waiting)
    found: dict[Key, Numbers] = {}
    for key, test in tests.items():
        noisy = test.smallest_effect(looks, count) > test.promised if key in last else np.zeros(test.size, bool)
        said = (
            beyond[key] < error, (worse[key] < error) & test.is_beyond, better[key] < error,
            test.p_not_inside < PASS_ERROR / looks, noisy,
        )  # fmt: skip
        severities = [np.full(test.size, verdict.severity) for verdict in _PRECEDENCE]
        found[key] = np.select(said, severities, Verdict.INCONCLUSIVE.severity)
    return found


@dataclass(frozen=True)
class _Test:
    """One metric's trimmed means against its budget."""

    metric: str
    of: Trimmed
    budget: float

    @property
    def limit(self) -> float:
        return allowance(METRICS[self.metric], self.budget)

    @property
    def promised(self) -> float:
        return allowance(METRICS[self.metric], min(PROMISED * self.budget, 0.99))

    @property
    def size(self) -> int:
        return int(np.size(self.of.mean))

    @property
    def is_beyond(self) -> NDArray[np.bool_]:
        return np.atleast_1d(self.of.mean > self.limit)

    @property
    def p_beyond(self) -> Floats:
        return np.atleast_1d(self.of.p_above(self.limit))

    @property
    def p_worse(self) -> Floats:
        return np.atleast_1d(self.of.p_above(0))

    @property
    def p_better(self) -> Floats:
        return np.atleast_1d(self.of.p_below(0))

    @property
    def p_not_inside(self) -> Floats:
        return np.atleast_1d(self.of.p_below(self.limit))

    def smallest_effect(self, looks: int, tests: int) -> Floats:
        """The least log-ratio that would have been called regressed with POWER, were it the first in Holm's order."""
        from scipy.stats import t

        needed = t.isf(LOOKS_ERROR / looks / tests, self.of.freedom) + t.isf(1 - POWER, self.of.freedom)
        return np.atleast_1d(self.limit + needed * self.of.error)


def holm_of(p_values: Mapping[Key, Floats], waiting: int = 0) -> dict[Key, Floats]:
    """Holm 1979 for many gates at once, as `stats.holm` for one; `waiting` more tests have a p-value of 1 so far."""
    if not p_values:
        return {}
    table = np.array(list(p_values.values()))
    order = np.argsort(table, axis=0, kind="stable")
    factors = np.arange(len(table), 0, -1)[:, np.newaxis] + waiting
    raised = np.maximum.accumulate(np.take_along_axis(table, order, axis=0) * factors, axis=0)
    adjusted = np.empty_like(table)
    np.put_along_axis(adjusted, order, np.minimum(raised, 1), axis=0)
    return dict(zip(p_values, adjusted, strict=True))


def _verdicts(
    logs: Mapping[Key, Sequence[float]], budgets: Mapping[Key, float], looks: int, *, last: Collection[Key],
    waiting: int,
) -> dict[Key, Verdict]:  # fmt: skip
    given = {key: np.array([values]) for key, values in logs.items() if len(values) >= PAIRS_MIN}
    found = verdicts(given, budgets, looks, last=last, waiting=waiting)
    return {key: BY_SEVERITY[int(found[key][0])] if key in found else Verdict.INCONCLUSIVE for key in logs}


def _logs(group: _Group, look: int, least: int) -> dict[Key, list[float]]:
    """Log-ratios of worsening of the group's metrics; none of one that has fewer than `least` and may."""
    found = {}
    for name, cell_key in group.keys:
        logs = [log for pair in group.cells[cell_key] if (log := worsening_log(pair, name)) is not None][:look]
        if len(logs) >= least or name not in OPTIONAL:
            found[name, cell_key] = logs
    return found


def _failure(pairs: Sequence[Pair]) -> str | None:
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


def _control_differs(pairs: Sequence[Pair], metric: str, budget: float) -> bool:
    """Whether two starts of the same base differ by more than the budget for certain: then nothing can be judged."""
    logs = [log for pair in pairs if (log := worsening_log(pair, metric, CONTROL)) is not None]
    if len(logs) < CONTROLS_MIN:
        return False
    found, limit = trimmed(np.array(logs)), allowance(METRICS[metric], budget)
    return bool(min(found.p_above(limit), found.p_below(-limit)) < ERROR / 2)


def overall_verdict(verdicts: Collection[Verdict], failure: str | None) -> Verdict:
    """The most severe; without a verdict nothing is known."""
    if failure is not None:
        return Verdict.REGRESSED
    most_severe = max(verdicts, key=lambda each: each.severity, default=Verdict.INVALID)
    return Verdict.IMPROVED if most_severe is Verdict.PASS and Verdict.IMPROVED in verdicts else most_severe


@dataclass(frozen=True)
class _Judged:
    """The figures behind the verdicts: of the very pairs that each verdict was said of."""

    cells: Mapping[str, Sequence[Pair]]
    budgets: Mapping[str, float]
    looks: Sequence[int]
    looked: _Looks
    certain: Mapping[Key, Severe]

    def judgements(self, found: Mapping[Key, Verdict]) -> Iterator[Judgement]:
        """Gated metrics first, each in all cells."""
        for name in (*self.budgets, *(other for other in (*METRICS, *REPORTED) if other not in self.budgets)):
            for cell_key in self.cells:
                yield self._judgement((name, cell_key), found.get((name, cell_key)), max(len(found), 1))

    def noise(self) -> Iterator[Noise]:
        """How far apart two starts of the base were."""
        for name in METRICS:
            for cell_key in self.cells:
                pairs = both(self._pairs((name, cell_key)), name, CONTROL)
                ratios = sorted(other / base for base, other in pairs)
                middle = paired_ratio([other for _, other in pairs], [base for base, _ in pairs]) if pairs else None
                yield Noise(
                    metric=name,
                    cell=self._cell(cell_key),
                    cell_key=cell_key,
                    pairs=len(pairs),
                    ratio=middle.ratio if middle else None,
                    lowest=ratios[0] if ratios else None,
                    highest=ratios[-1] if ratios else None,
                )

    def _cell(self, cell_key: str) -> str:
        return next((pair.cell for pair in self.cells[cell_key]), "")

    def _is_severe(self, key: Key) -> bool:
        """Whether the sign test alone calls it regressed: then its figures are of all pairs."""
        return key in self.certain and self.looked.found.get(key) != Verdict.REGRESSED

    def _pairs(self, key: Key) -> Sequence[Pair]:
        name, cell_key = key
        if self._is_severe(key):
            return loaded(self.cells[cell_key])
        look = self.looked.looks.get(key) or self.looked.valid
        pairs = counted(self.cells[cell_key], name)
        if name in OPTIONAL:
            pairs = [pair for pair in pairs if worsening_log(pair, name) is not None]
        return pairs[: look or len(pairs)]

    def _judgement(self, key: Key, verdict: Verdict | None, tests: int) -> Judgement:
        name, cell_key = key
        metric, pairs = METRICS.get(name) or REPORTED[name], self._pairs(key)
        figures = both(pairs, name)
        budget = effective({cell_key: pairs}, {name: self.budgets[name]})[key] if name in self.budgets else None
        ratio = paired_ratio([head for _, head in figures], [base for base, _ in figures]) if figures else None
        worse = effect = None
        if len(figures) >= PAIRS_MIN and budget is not None:
            logs = np.array([log for pair in pairs if (log := worsening_log(pair, name)) is not None])
            test = _Test(name, trimmed(logs), budget)
            effect = worsening(metric, float(test.smallest_effect(len(self.looks), tests)[0]))
        if ratio is not None:
            worse = worsening(metric, float(np.log(ratio.ratio)) * (1 if metric.lower_is_better else -1))
        return Judgement(
            metric=name,
            cell=self._cell(cell_key),
            cell_key=cell_key,
            verdict=verdict,
            base=float(np.median([base for base, _ in figures])) if figures else None,
            head=float(np.median([head for _, head in figures])) if figures else None,
            ratio=ratio.ratio if ratio else None,
            low=ratio.low if ratio else None,
            high=ratio.high if ratio else None,
            worse=worse,
            budget=budget,
            pairs=len(figures),
            smallest_effect=effect,
            detail=self._detail(key, verdict, budget, len(figures)),
        )

    def _detail(self, key: Key, verdict: Verdict | None, budget: float | None, pairs: int) -> str:
        if budget is None:
            return "reported, never gated"
        if self._is_severe(key):
            seen, loss = self.certain[key], severe_loss(key[0], budget)
            return f"worse by more than {100 * loss:.0f} % in {seen.worse} of {amount(seen.pairs, 'pair')}, for certain"
        if verdict is None or (verdict in (Verdict.INVALID, Verdict.INCONCLUSIVE) and key not in self.looked.looks):
            return "not measured" if not pairs else f"{amount(pairs, 'pair')}: too few to judge"
        return DETAILS[verdict]
