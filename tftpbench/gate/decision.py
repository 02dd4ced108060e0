"""A gate's decision: the rules of verdict.py applied look after look, with the figures behind each verdict.

Pure. It must never decide by a rule of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tftpbench.analysis.stats import PAIRS_MIN, paired_ratio, trimmed
from tftpbench.gate.pair import both, by_cell, counted, loaded, severe_loss, valid, worsening_log
from tftpbench.gate.result import BY_SEVERITY, CONTROL, HEAD, Judgement, Noise, Pair, Verdict, pairs_used
from tftpbench.gate.verdict import (
    INCONCLUSIVE,
    INVALID,
    LOOKS_ERROR,
    OPTIONAL,
    Floats,
    Key,
    Loss,
    Sample,
    Severe,
    Severities,
    failure_of,
    held_budgets,
    look,
    overall_verdict,
    severe,
)
from tftpbench.model.gate_settings import KNOWN, METRICS, worsening
from tftpbench.model.units import counted as amount

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


def decide(
    pairs: Sequence[Pair], budgets: Mapping[str, float], looks: Sequence[int], *, has_ended: bool = False
) -> Decision:
    """Look at the pairs as often as there are enough, and stop where every gated metric is decided.

    `budgets`: shares by metric; `looks`: rising numbers of pairs. With fewer pairs than the first look wants, nothing
    is called anything but invalid, unless the loss is severe. `has_ended`: no more pairs are to come, so what is not
    sure by now is invalid.
    """
    cells, failure, certain = by_cell(pairs), failure_of(pairs), severe(pairs, budgets)
    looked = _looked(cells, budgets, looks, has_ended=has_ended)
    found = looked.verdicts | dict.fromkeys(certain, Verdict.REGRESSED)
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


# ---- look after look


@dataclass(frozen=True)
class _Group:
    """Metrics for which the same pairs count. `looks`: those that there are enough pairs for."""

    budgets: Mapping[str, float]
    cells: Mapping[str, Sequence[Pair]]
    looks: tuple[int, ...]

    @property
    def keys(self) -> list[Key]:
        return [(name, cell_key) for name in self.budgets for cell_key in self.cells]

    def samples(self, size: int, least: int) -> dict[Key, Sample]:
        """What a look at so many pairs sees; none of a metric that has fewer than `least` and may."""
        seen = {cell_key: pairs[:size] for cell_key, pairs in self.cells.items()}
        budgets, found = held_budgets(seen, self.budgets), {}
        for name, cell_key in self.keys:
            logs = _logs(self.cells[cell_key], name)[:, :size]
            if logs.shape[-1] >= least or name not in OPTIONAL:
                controls = _logs(seen[cell_key], name, CONTROL)
                found[name, cell_key] = Sample(name, budgets[name, cell_key], logs, controls)
        return found


@dataclass
class _Looked:
    """What the looks said: the severities, by which look each, and the last that valid pairs were enough for."""

    found: dict[Key, Severities] = field(default_factory=dict)
    looks: dict[Key, int] = field(default_factory=dict)
    valid: int = 0
    is_final: bool = False

    @property
    def verdicts(self) -> dict[Key, Verdict]:
        return {key: BY_SEVERITY[int(severities[0])] for key, severities in self.found.items()}


def _logs(pairs: Sequence[Pair], metric: str, other: str = HEAD) -> Floats:
    """The log-ratios of worsening of the pairs that have the figure: one gate, (1, pairs)."""
    return np.array([[log for pair in pairs if (log := worsening_log(pair, metric, other)) is not None]], dtype=float)


def _groups(cells: Mapping[str, Sequence[Pair]], budgets: Mapping[str, float], looks: Sequence[int]) -> list[_Group]:
    groups = []
    for needs_clock, count in ((True, valid), (False, loaded)):
        ours = {name: budget for name, budget in budgets.items() if METRICS[name].needs_clock is needs_clock}
        counting = {key: count(pairs) for key, pairs in cells.items()}
        fewest = min(map(len, counting.values()), default=0)
        if ours:
            groups.append(_Group(ours, counting, tuple(size for size in looks if size <= fewest)))
    return groups


def _looked(
    cells: Mapping[str, Sequence[Pair]], budgets: Mapping[str, float], looks: Sequence[int], *, has_ended: bool
) -> _Looked:
    """Look after look, until all is decided, or the pairs are not enough for the next."""
    groups, result = _groups(cells, budgets, looks), _Looked()
    for size in max((group.looks for group in groups), key=len, default=()):
        _look(size, groups, result, looks, has_ended=has_ended)
        if result.is_final:
            break
    if result.found:  # what had not pairs enough for any look is no pass
        open_ = [key for group in groups for key in group.keys if not group.looks and key[0] not in OPTIONAL]
        result.found |= {key: np.array([INVALID if has_ended else INCONCLUSIVE]) for key in open_}
    result.is_final |= bool(groups) and all(looks[-1] in group.looks for group in groups)
    return result


def _look(size: int, groups: Sequence[_Group], result: _Looked, looks: Sequence[int], *, has_ended: bool) -> None:
    """One look of those groups that have pairs enough."""
    samples: dict[Key, Sample] = {}
    last: set[Key] = set()
    for group in (group for group in groups if size in group.looks):
        samples |= group.samples(size, looks[0])
        last.update(group.keys if size == looks[-1] or (has_ended and size == group.looks[-1]) else ())
        result.valid = size if any(METRICS[name].needs_clock for name in group.budgets) else result.valid
    if not any(sample.logs.size for sample in samples.values()):
        return  # nothing was measured: there is nothing to say
    waiting = sum(len(group.keys) for group in groups if size not in group.looks)
    result.found, is_over = look(
        samples, result.found, looks=len(looks), last=last, waiting=waiting, has_ended=has_ended
    )
    result.looks |= dict.fromkeys(samples, size)
    result.is_final = bool(is_over[0])


# ---- the figures behind the verdicts


@dataclass(frozen=True)
class _Judged:
    """The figures behind the verdicts: of the very pairs that each verdict was said of."""

    cells: Mapping[str, Sequence[Pair]]
    budgets: Mapping[str, float]
    looks: Sequence[int]
    looked: _Looked
    certain: Mapping[Key, Severe]

    def judgements(self, found: Mapping[Key, Verdict]) -> Iterator[Judgement]:
        """Gated metrics first, each in all cells."""
        for name in (*self.budgets, *(other for other in KNOWN if other not in self.budgets)):
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
        return key in self.certain and self.looked.verdicts.get(key) is not Verdict.REGRESSED

    def _pairs(self, key: Key) -> Sequence[Pair]:
        name, cell_key = key
        if self._is_severe(key):
            return loaded(self.cells[cell_key])
        size = self.looked.looks.get(key) or self.looked.valid
        pairs = counted(self.cells[cell_key], name)
        if name in OPTIONAL:
            pairs = [pair for pair in pairs if worsening_log(pair, name) is not None]
        return pairs[: size or len(pairs)]

    def _judgement(self, key: Key, verdict: Verdict | None, tests: int) -> Judgement:
        name, cell_key = key
        metric, pairs = KNOWN[name], self._pairs(key)
        figures = both(pairs, name)
        budget = held_budgets({cell_key: pairs}, {name: self.budgets[name]})[key] if name in self.budgets else None
        ratio = paired_ratio([head for _, head in figures], [base for base, _ in figures]) if figures else None
        worse = effect = None
        if len(figures) >= PAIRS_MIN and budget is not None:
            loss = Loss(metric, trimmed(_logs(pairs, name)), budget)
            effect = worsening(metric, float(loss.smallest_effect(LOOKS_ERROR / len(self.looks) / tests)[0]))
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
