"""The statistics of comparisons: paired log-ratios of interleaved trials.

Pure functions of numbers; it must never know what a server or a scenario is, and never average a
percentile. Called by whoever compares: the summary, comparisons, the gate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Part of method_key: to be changed with anything below that changes a figure.
ESTIMATOR = "paired log-ratio, 20 % trimmed mean, percentile bootstrap over pairs, 95 %/1"
# Wilcox, Introduction to Robust Estimation and Hypothesis Testing: 20 % keeps efficiency and shrugs off outliers.
TRIM = 0.2
CONFIDENCE = 0.95
RESAMPLES = 10_000
# A percentile bootstrap of fewer pairs covers far less than it promises: then only the range is told.
PAIRS_MIN = 6
SEED = 20190

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ratio:
    """a / b over pairs. low and high bound it with 95 % confidence; both are None under 6 pairs."""

    ratio: float
    low: float | None
    high: float | None
    n: int
    lowest: float
    highest: float

    @property
    def differs(self) -> bool | None:
        """Whether the interval excludes 1; None where there is no interval, so no verdict."""
        if self.low is None or self.high is None:
            return None
        return self.low > 1 or self.high < 1


def paired_ratio(a: Sequence[float], b: Sequence[float], seed: int = SEED) -> Ratio:
    """How a compares with b, pair by pair: exp of the trimmed mean of log(a/b).

    Both have one positive finite number per pair, in the same order and unit. ValueError otherwise.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"pairs need two equally long lists, not {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all() and (first > 0).all() and (second > 0).all()):
        raise ValueError("a ratio needs positive, finite numbers")
    logs = np.log(first / second)
    low, high = _interval(logs, seed) if logs.size >= PAIRS_MIN else (None, None)
    return Ratio(
        ratio=float(np.exp(trimmed_mean(logs))),
        low=low,
        high=high,
        n=int(logs.size),
        lowest=float(np.exp(logs.min())),
        highest=float(np.exp(logs.max())),
    )


def trimmed_mean(values: Floats) -> Floats:
    """Mean along the last axis without the lowest and highest fifth (each rounded down)."""
    ordered = np.sort(values, axis=-1)
    cut = int(TRIM * ordered.shape[-1])
    kept: Floats = ordered[..., cut : ordered.shape[-1] - cut].mean(axis=-1)
    return kept


def _interval(logs: Floats, seed: int) -> tuple[float, float]:
    """Percentile bootstrap over pairs (Efron & Tibshirani 1993, chapter 13), of the ratio."""
    draws = np.random.default_rng(seed).integers(0, logs.size, size=(RESAMPLES, logs.size))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(trimmed_mean(logs[draws]), [tail, 100 - tail])
    return float(np.exp(low)), float(np.exp(high))
