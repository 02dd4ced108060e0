"""Pairs as numbers: which count for a metric, how much worse the head was, and a sign test after every pair.

Pure. It must never give a verdict.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tftpbench.gate.result import BASE, CONTROL, HEAD, Pair
from tftpbench.model.budgets import KNOWN, METRICS, allowance, worsening

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
