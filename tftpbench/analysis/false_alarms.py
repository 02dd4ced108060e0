"""The false-alarm rate of a comparison, and what loss it would see: from equal trials of one server on one machine.

It speaks of that recording: another hour of the same machine may be quieter or noisier. Pure numbers: trials in the
order in which they were done go in, rates come out. The estimator is that of every comparison (`stats`), not one of its
own.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tftpbench.analysis.stats import PAIRS_MIN, SEED, Ratio, paired_ratio

if TYPE_CHECKING:  # pandas takes a second to import
    import pandas as pd

DRAWS = 400


def null_ratios(values: Sequence[float], pairs: int, draws: int = DRAWS, seed: int = SEED) -> list[Ratio]:
    """Comparisons of the server with itself: neighbours are a pair, and chance says which of the two is the head.

    `values`: one positive number per trial, in the order done; each comparison takes `pairs` of the neighbours at
    random. ValueError where there are fewer, or where `pairs` are too few for an interval.
    """
    base, head = np.asarray(values[0 : len(values) // 2 * 2 : 2]), np.asarray(values[1::2])
    if not PAIRS_MIN <= pairs <= base.size:
        raise ValueError(f"{len(values)} trials are {base.size} pairs of neighbours; allowed: {PAIRS_MIN} to that many")
    chance = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        chosen = chance.choice(base.size, pairs, replace=False)
        is_swapped = chance.random(pairs) < 0.5
        sides = np.where(is_swapped, base[chosen], head[chosen]), np.where(is_swapped, head[chosen], base[chosen])
        found.append(paired_ratio(sides[0].tolist(), sides[1].tolist()))
    return found


def alarm_rates(
    values: Sequence[float], losses: Sequence[float] = (0, 0.02, 0.05, 0.1), pairs: Sequence[int] = (7, 12),
    draws: int = DRAWS, seed: int = SEED,
) -> "pd.DataFrame":  # fmt: skip
    """How often the head is called slower for certain, were it slower by each of `losses`; at 0 that is a false alarm.

    One row per pairs and loss: `pairs loss draws alarms fraction`. The draws are of one recording, so no interval of
    theirs would say how far another recording may lie.
    """
    import pandas as pd

    rows: list[dict[str, float]] = []
    for count in pairs:
        # A loss moves every log ratio, and so the whole interval, by the same amount.
        highs = np.array([ratio.high for ratio in null_ratios(values, count, draws, seed)])
        for loss in losses:
            alarms = int((highs * (1 - loss) < 1).sum())
            rows.append({"pairs": count, "loss": loss, "draws": draws, "alarms": alarms, "fraction": alarms / draws})
    return pd.DataFrame(rows)
