"""Latency: the merged histogram of some trials, in nanoseconds. The only thing that percentiles are taken from.

Trials are merged bucket by bucket; percentiles are never averaged. Decoding is the HdrHistogram library's. It must
never open a file. Made by `Run.latency`; called by everybody who shows a percentile.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from tftpbench.errors import ResultsError
from tftpbench.results import html
from tftpbench.units import counted, format_duration

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
_SHOWN = (50, 90, 99, 99.9, 100)


@dataclass(frozen=True, eq=False, repr=False)
class Latency:
    """A histogram in ns: non-empty buckets in rising order, named by the highest value that each stands for."""

    values_ns: Integers
    counts: Integers

    @classmethod
    def of(cls, encoded: Iterable[str]) -> Self:
        """Merge histograms in version 2 encoding; ResultsError where one can't be decoded."""
        return cls._sum([_buckets(text) for text in encoded])

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return int(self.counts.sum())

    @property
    def max_ns(self) -> int:
        """The largest value, to the bucket; 0 where nothing was recorded."""
        return int(self.values_ns[-1]) if self.values_ns.size else 0

    def percentile(self, p: float) -> float:
        """The least value, in ns, that p percent of all values do not exceed: nearest rank, as the generator takes it.

        NaN where nothing was recorded. Raises ValueError where p is not within 0 to 100.
        """
        if not 0 <= p <= 100:
            raise ValueError(f"{p} is no percentile; allowed: 0 to 100")
        if not self.values_ns.size:
            return math.nan
        # Decimal: 99.9 / 100 * 1000 is a little more than 999 in floats, which would be another rank.
        rank = max(1, math.ceil(Decimal(str(p)) * self.count / 100))
        return float(self.values_ns[np.searchsorted(np.cumsum(self.counts), rank)])

    def merge(self, *others: "Latency") -> "Latency":
        """A new histogram of all values of this one and the others."""
        return Latency._sum([(each.values_ns, each.counts) for each in (self, *others)])

    def to_frame(self) -> "pd.DataFrame":
        """One row per non-empty bucket: value_ns, count, cumulative, and the percentile that it reaches."""
        import pandas as pd

        cumulative = np.cumsum(self.counts)
        return pd.DataFrame(
            {
                "value_ns": self.values_ns,
                "count": self.counts,
                "cumulative": cumulative,
                "percentile": 100 * cumulative / self.count if self.counts.size else cumulative.astype(float),
            }
        )

    def __repr__(self) -> str:
        shown = [f"{name} {value}" for name, value in self._shown()]
        return f"Latency({', '.join([counted(self.count, 'value'), *shown])})"

    def _repr_html_(self) -> str:
        return html.table("Latency", [("values", str(self.count)), *self._shown()])

    def _shown(self) -> list[tuple[str, str]]:
        if not self.values_ns.size:
            return []
        return [(f"p{p:g}" if p < 100 else "max", format_duration(self.percentile(p))) for p in _SHOWN]

    @classmethod
    def _sum(cls, parts: Iterable[tuple[Integers, Integers]]) -> Self:
        parts = [(np.empty(0, np.int64), np.empty(0, np.int64)), *parts]
        values_ns, places = np.unique(np.concatenate([part[0] for part in parts]), return_inverse=True)
        counts = np.zeros(values_ns.size, np.int64)
        np.add.at(counts, places, np.concatenate([part[1] for part in parts]))
        values_ns.flags.writeable = counts.flags.writeable = False
        return cls(values_ns, counts)


def _buckets(text: str) -> tuple[Integers, Integers]:
    """Highest equivalent values and counts of the buckets that hold something."""
    try:
        histogram = HdrHistogram.decode(text)
    except Exception as error:  # hdrh lets zlib, struct, base64 and its own errors through
        raise ResultsError(f"can't be read: {str(error) or type(error).__name__}") from None
    counts = np.ctypeslib.as_array(histogram.counts).astype(np.int64)
    filled = np.flatnonzero(counts)
    # As HdrHistogram.get_highest_equivalent_value has it, for all at once: asked one by one, a big run takes seconds.
    half = histogram.sub_bucket_half_count
    exponents = np.maximum((filled >> histogram.sub_bucket_half_count_magnitude) - 1, 0)
    within = filled - exponents * half
    shift = exponents + histogram.unit_magnitude
    return ((within + 1) << shift) - 1, counts[filled]
