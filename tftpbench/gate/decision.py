"""The decision: from blocks of figures to a word for each metric, and one for the whole.

Pure, and the same for a gate that is going on, one that is read again, and a rehearsal on recorded blocks. It must
never measure, and never look at a clock. Called by `tftpbench.gate`.

How it decides, in one place. A pair gives each metric one number: the log of how much worse the head was than the base
beside it. Its 20 % trimmed mean is held against the budget with a one-sided t (Tukey & McLaughlin 1963; Yuen 1974).
The error of 1 % a run is divided by the number of looks, and by Holm's method over all gated metrics of all cells. What
is called regressed at one look stays so: the looks' errors were added up for just that.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tftpbench.budgets import METRICS, REPORTED, allowance, worsening
from tftpbench.gate.result import BASE, CONTROL, HEAD, WORDS, Block, Judgement, Noise, Word
from tftpbench.stats import PAIRS_MIN, Trimmed, holm, paired_ratio, trimmed
from tftpbench.units import counted

# Part of what a gate records: to be changed with anything below that changes a word.
METHOD = "pairs in slices; 20 % trimmed mean of log ratios, one-sided t, Holm over metrics, error split over looks/2"
# Of a whole run: about one false alarm in a hundred runs of identical code, were every budget nought.
ERROR = 0.01
# How sure "pass" is that the loss is inside the budget, over all looks together.
PASS_ERROR = 0.05
# What is promised: a loss of twice the budget is seen nine times in ten.
POWER = 0.9
PROMISED = 2.0
# Transfers that fail come in bursts, so pairs are counted: ten in which the head lost more, to none, are certain.
LOST_ERROR = ERROR / 10
# A server that does not start was given three tries of ten seconds; so often, and the base never, is no accident.
UNSTARTED_MAX = 2
# Passes under strace may end early, and a server of many processes has no peak memory that could be told; a remark says
# so. Of any other metric nobody may believe that it passed.
OPTIONAL = ("syscalls_per_block", "server_rss_bytes_max")
# Two starts of the base: fewer tell nothing of whether they differ.
CONTROLS_MIN = 4

Floats = NDArray[np.float64]
# A metric in a cell, by cell_key.
Key = tuple[str, str]
_SURE: tuple[Word, ...] = ("regressed", "pass", "improved")
_ORDER: tuple[Word, ...] = ("regressed", "suspected", "improved", "pass", "invalid")
_ELSE: Word = "inconclusive"
_NOTHING: Word = "invalid"
DETAILS: Mapping[Word, str] = {
    "regressed": "worse by more than the budget, for certain",
    "suspected": "worse for certain, and by the estimate by more than the budget",
    "inconclusive": "neither a loss beyond the budget nor one within it is certain",
    "invalid": "too noisy: a loss of twice the budget could have gone unseen, or two starts of the base differ",
    "pass": "any loss is within the budget, with 95 % certainty",
    "improved": "better, for certain",
}


@dataclass(frozen=True)
class Decision:
    """What the blocks say. `pairs`: in each cell at the last look; `is_final`: no further pair would be used."""

    word: Word
    judgements: tuple[Judgement, ...]
    noise: tuple[Noise, ...]
    failure: str | None
    pairs: int
    is_final: bool


def decide(
    blocks: Sequence[Block], budgets: Mapping[str, float], looks: Sequence[int], *, has_ended: bool = False
) -> Decision:
    """Look at the blocks as often as there are pairs for, and stop where every gated metric is decided.

    `budgets`: shares by metric; `looks`: rising numbers of pairs. With fewer pairs than the first look wants, nothing
    is called anything but invalid. `has_ended`: no more pairs are to come, so what is not sure by now is invalid.
    """
    cells = _cells(blocks)
    failure = next((block.failure for block in blocks if block.failure), None) or _unstarted(blocks) or _lost(blocks)
    usable = {key: [block for block in ours if block.invalid is None] for key, ours in cells.items()}
    reached = [look for look in looks if usable and all(len(ours) >= look for ours in usable.values())]
    regressed: set[Key] = set()
    found: dict[Key, Word] = {}
    used = 0
    for look in reached:
        used = look
        seen = {key: ours[:look] for key, ours in usable.items()}
        held = effective(seen, budgets)
        is_last = look == looks[-1] or (has_ended and look == reached[-1])
        found = _words(_pairs(seen, held, looks[0]), held, len(looks), is_last=is_last)
        if has_ended and is_last:
            found = {key: "invalid" if word == "inconclusive" else word for key, word in found.items()}
        found = {key: "invalid" if _is_uneven(seen[key[1]], key[0], held[key]) else word for key, word in found.items()}
        regressed |= {key for key, word in found.items() if word == "regressed"}
        found |= dict.fromkeys(regressed & found.keys(), "regressed")
        if all(word in _SURE for word in found.values()):
            break
    shown = {key: ours[: used or len(ours)] for key, ours in usable.items()}
    judgements = tuple(_judgements(shown, found, budgets, len(looks)))
    is_sure = bool(found) and all(word in _SURE for word in found.values())
    return Decision(
        word=whole(found.values(), failure),
        judgements=judgements,
        noise=tuple(_noise(shown)),
        failure=failure,
        pairs=used,
        is_final=failure is not None or is_sure or used == looks[-1],
    )


def effective(cells: Mapping[str, Sequence[Block]], budgets: Mapping[str, float]) -> dict[Key, float]:
    """The budget of each metric in each cell, as a share: no less than the metric's floor is of what the base has.

    One page more is no regression of a server of few pages, nor is a call in a hundred blocks of one with few calls.
    """
    held = {}
    for cell_key, blocks in cells.items():
        for name, budget in budgets.items():
            base = [value for block in blocks if (value := figure(block, BASE, name)) is not None]
            floor = METRICS[name].floor / float(np.median(base)) if base else 0.0
            held[name, cell_key] = max(budget, floor)
    return held


def words(
    logs: Mapping[Key, Floats], budgets: Mapping[Key, float], looks: int, *, is_last: bool
) -> dict[Key, list[Word]]:
    """The word of each metric for many gates at once: `logs` are log-ratios of worsening, of shape (gates, pairs)."""
    tests = {key: _Test(METRICS[key[0]].name, trimmed(values), budgets[key]) for key, values in logs.items()}
    error = ERROR / looks
    beyond = _holm({key: test.p_beyond for key, test in tests.items()})
    worse = _holm({key: test.p_worse for key, test in tests.items()})
    better = _holm({key: test.p_better for key, test in tests.items()})
    told: dict[Key, list[Word]] = {}
    for key, test in tests.items():
        noisy = test.smallest_effect(looks, len(tests)) > test.promised if is_last else np.zeros(test.size, bool)
        told[key] = [
            _word(*each)
            for each in zip(
                beyond[key] < error, (worse[key] < error) & test.is_beyond, better[key] < error, test.p_not_inside
                < PASS_ERROR / looks, noisy, strict=True,
            )
        ]  # fmt: skip
    return told


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

        needed = t.isf(ERROR / looks / tests, self.of.freedom) + t.isf(1 - POWER, self.of.freedom)
        return np.atleast_1d(self.limit + needed * self.of.error)


def _word(*said: bool) -> Word:
    """The first of _ORDER that holds; the last is whether a loss of twice the budget could have gone unseen."""
    return next((word for word, holds in zip(_ORDER, said, strict=True) if holds), _ELSE)


def _holm(p_values: Mapping[Key, Floats]) -> dict[Key, Floats]:
    table = np.array(list(p_values.values()))
    adjusted = np.array([holm(column) for column in table.T]) if len(table) > 1 else table.T
    return {key: adjusted[:, place] for place, key in enumerate(p_values)}


def _words(
    logs: Mapping[Key, Sequence[float]], budgets: Mapping[Key, float], looks: int, *, is_last: bool
) -> dict[Key, Word]:
    given = {key: np.array([values]) for key, values in logs.items() if len(values) >= PAIRS_MIN}
    found: dict[Key, Word] = {key: each[0] for key, each in words(given, budgets, looks, is_last=is_last).items()}
    return {key: found.get(key, "inconclusive") for key in logs}


def _cells(blocks: Sequence[Block]) -> dict[str, list[Block]]:
    cells: dict[str, list[Block]] = {}
    for block in blocks:
        cells.setdefault(block.cell_key, []).append(block)
    return cells


def _pairs(seen: Mapping[str, Sequence[Block]], held: Mapping[Key, float], least: int) -> dict[Key, list[float]]:
    """Log-ratios of worsening of each gated metric; none of one that has fewer than `least` and may."""
    found = {}
    for name, cell_key in held:
        logs = [log for block in seen[cell_key] if (log := worsening_log(block, name)) is not None]
        if len(logs) >= least or name not in OPTIONAL:
            found[name, cell_key] = logs
    return found if any(found.values()) else {}  # nothing was measured: there is nothing to say


def worsening_log(block: Block, metric: str, other: str = HEAD) -> float | None:
    """The log of how much worse `other` was than the base in this block; None where one has not the figure."""
    base, head = figure(block, BASE, metric), figure(block, other, metric)
    if base is None or head is None:
        return None
    known = METRICS.get(metric) or REPORTED[metric]
    sign = 1 if known.lower_is_better else -1
    return sign * float(np.log(head) - np.log(base))


def figure(block: Block, arm: str, metric: str) -> float | None:
    """A positive, finite figure of an arm; None where it has none."""
    value = block.arms[arm].figures.get(metric) if arm in block.arms else None
    return value if value is not None and np.isfinite(value) and value > 0 else None


def _both(blocks: Sequence[Block], metric: str, other: str = HEAD) -> list[tuple[float, float]]:
    found = [(figure(block, BASE, metric), figure(block, other, metric)) for block in blocks]
    return [(base, head) for base, head in found if base is not None and head is not None]


def _unstarted(blocks: Sequence[Block]) -> str | None:
    """Whether the head often does not start, and the base always does, in words."""
    failed = [block.unstarted for block in blocks if block.unstarted is not None]
    if failed.count(HEAD) <= UNSTARTED_MAX or failed.count(HEAD) < len(failed):
        return None
    return f"head: did not start in {len(failed)} of {counted(len(blocks), 'pair')}, and the base in all"


def _lost(blocks: Sequence[Block]) -> str | None:
    """Whether the head loses more of its transfers than the base, by the sign test over pairs that count, in words."""
    valid = [block for block in blocks if block.invalid is None]
    shares = [(_share_lost(block, HEAD), _share_lost(block, BASE)) for block in valid]
    more, less = sum(head > base for head, base in shares), sum(head < base for head, base in shares)
    from scipy.stats import binom

    if not more or binom.sf(more - 1, more + less, 0.5) >= LOST_ERROR:
        return None
    head, base = (sum(figure(block, arm, "lost") or 0 for block in valid) for arm in (HEAD, BASE))
    return f"head: lost transfers in {more} of {counted(len(valid), 'pair')}, {head:.0f} in all, the base {base:.0f}"


def _share_lost(block: Block, arm: str) -> float:
    return (figure(block, arm, "lost") or 0) / (figure(block, arm, "started") or 1)


def _is_uneven(blocks: Sequence[Block], metric: str, budget: float) -> bool:
    """Whether two starts of the same base differ by more than the budget for certain: then nothing can be told."""
    logs = [log for block in blocks if (log := worsening_log(block, metric, CONTROL)) is not None]
    if len(logs) < CONTROLS_MIN:
        return False
    found, limit = trimmed(np.array(logs)), allowance(METRICS[metric], budget)
    return bool(min(found.p_above(limit), found.p_below(-limit)) < ERROR / 2)


def whole(told: Collection[Word], failure: str | None) -> Word:
    """The gravest; nothing told is nothing known."""
    if failure is not None:
        return "regressed"
    gravest = min(told, key=WORDS.index, default=_NOTHING)
    return "improved" if gravest == "pass" and "improved" in told else gravest


def _judgements(
    shown: Mapping[str, Sequence[Block]], found: Mapping[Key, Word], budgets: Mapping[str, float], looks: int
) -> Iterator[Judgement]:
    tests, held = max(len(found), 1), effective(shown, budgets)
    for name in (*budgets, *(other for other in (*METRICS, *REPORTED) if other not in budgets)):
        for cell_key, blocks in shown.items():
            key = name, cell_key
            yield _judgement(key, blocks, found.get(key), held.get(key), looks, tests)


def _judgement(
    key: Key, blocks: Sequence[Block], word: Word | None, budget: float | None, looks: int, tests: int
) -> Judgement:
    name, cell_key = key
    metric, both = METRICS.get(name) or REPORTED[name], _both(blocks, name)
    ratio = paired_ratio([head for _, head in both], [base for base, _ in both]) if both else None
    mean = effect = None
    if len(both) >= PAIRS_MIN and budget is not None:
        logs = np.array([log for block in blocks if (log := worsening_log(block, name)) is not None])
        effect = worsening(metric, float(_Test(name, trimmed(logs), budget).smallest_effect(looks, tests)[0]))
    if ratio is not None:
        mean = worsening(metric, float(np.log(ratio.ratio)) * (1 if metric.lower_is_better else -1))
    return Judgement(
        metric=name,
        cell=blocks[0].cell if blocks else "",
        cell_key=cell_key,
        word=word,
        base=float(np.median([base for base, _ in both])) if both else None,
        head=float(np.median([head for _, head in both])) if both else None,
        ratio=ratio.ratio if ratio else None,
        low=ratio.low if ratio else None,
        high=ratio.high if ratio else None,
        worse=mean,
        budget=budget,
        pairs=len(both),
        smallest_effect=effect,
        detail=_detail(word, budget, len(both)),
    )


def _detail(word: Word | None, budget: float | None, pairs: int) -> str:
    if budget is None:
        return "reported, never gated"
    if word is None:
        return "not measured" if not pairs else f"{counted(pairs, 'pair')}: too few to judge"
    return DETAILS[word]


def _noise(shown: Mapping[str, Sequence[Block]]) -> Iterator[Noise]:
    for name in METRICS:
        for cell_key, blocks in shown.items():
            both = _both(blocks, name, CONTROL)
            ratios = sorted(other / base for base, other in both)
            middle = paired_ratio([other for _, other in both], [base for base, _ in both]).ratio if both else None
            yield Noise(
                metric=name,
                cell=blocks[0].cell if blocks else "",
                cell_key=cell_key,
                pairs=len(both),
                ratio=middle,
                lowest=ratios[0] if ratios else None,
                highest=ratios[-1] if ratios else None,
            )
