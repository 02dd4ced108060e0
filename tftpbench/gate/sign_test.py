"""A sign test that may be looked at after every pair: whether one arm does worse in pair after pair.

Of two arms of equal code either is as likely to be the worse one, whatever the machine did meanwhile, since the order
of loading is random. So pairs whose clock can't be trusted count, too. The test is a test martingale (Ville 1939;
Shafer et al. 2011): its error holds for all numbers of pairs together. Pure.
"""

import numpy as np
from numpy.typing import NDArray

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
