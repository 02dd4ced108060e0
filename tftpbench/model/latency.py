"""Latency: the merged histogram of some trials, in nanoseconds. The only thing that percentiles are taken from.

Trials are merged bucket by bucket; percentiles are never averaged. Decoding is the HdrHistogram library's, which
believes a histogram whatever it says of its own size: what is decoded is held to bounds before. It must never open a
file.
"""

import base64
import math
import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import one_line
from tftpbench.model.metrics import LATENCY_KINDS
from tftpbench.model.shown import Shown
from tftpbench.model.units import counted, format_duration

if TYPE_CHECKING:
    import pandas as pd

Integers = NDArray[np.int64]
_SHOWN = (50, 90, 99, 99.9, 100)

# Bounds of a histogram, in ns (docs/results-format.md, "Bounds"). The generator records from 64 ns to an hour with
# three significant digits (crates/tftpbench-load, LATENCY_LOW_NS); from 1 ns that would be 33,792 counters.
LOWEST_MAX_NS = 1_000_000
HIGHEST_MAX_NS = 3_600_000_000_000
DIGITS_MAX = 3
VALUE_MAX_NS = 2 * HIGHEST_MAX_NS  # the highest bucket may reach beyond its histogram's highest value
# Of one, decompressed: a header and 33,792 counters of up to 9 bytes.
PAYLOAD_MAX_BYTES = 40 + 33_792 * 9
# Of all in a log; those of a second have 10 KB at most, so hours fit.
DECODED_MAX_BYTES = 64 << 20
COUNT_MAX = 2**53  # sums stay exact in int64
_ENVELOPE_BYTES = 8  # cookie and length, before what is compressed
# cookie, length, offset, digits, lowest, highest, ratio
_HEADER = struct.Struct(">IIIIQQd")
_REASON_MAX = 200
# Of one tag in a log (crates/tftpbench-load, INTERVALS_MAX).
INTERVALS_MAX = 128
_LINE = re.compile(r"Tag=(\w{1,40}),(\d{1,9}\.\d{3}),(\d{1,9}\.\d{3}),\d{1,15}\.\d{3},([A-Za-z0-9+/]+=*)", re.ASCII)
_LINE_SHOWN = 60
_LOG_HEAD = "#[Latencies in nanoseconds; times in seconds since the first start]"


@dataclass(frozen=True, eq=False, repr=False)
class Latency(Shown):
    """A histogram in ns: non-empty buckets in rising order, named by the highest value that each stands for.

    `values_ns` and `counts` are read-only integers, one for each bucket. A bucket is less than 0.1 % wide, or 64 ns.
    """

    values_ns: Integers
    counts: Integers

    @classmethod
    def of(cls, encoded: Iterable[str]) -> Self:
        """All of `encoded`, histograms in HdrHistogram's version 2 encoding, merged.

        Raises ResultsError where one can't be decoded or is out of bounds.
        """
        sums: dict[tuple[int, int, int], _Sum] = {}
        left = DECODED_MAX_BYTES
        for text in encoded:
            left -= _payload_bytes(text)
            if left < 0:
                raise ResultsError(f"can't be read: it holds more than {DECODED_MAX_BYTES >> 20} MiB of histograms")
            one = _decoded(text)
            sums.setdefault(_bounds(one), _Sum()).add(one)
        return cls._sum([_buckets(HdrHistogram(*bounds), each.counts) for bounds, each in sums.items()])

    @classmethod
    def from_steps(cls, steps_ns: Integers, counts: Integers) -> Self:
        """A histogram from `steps_ns`, each bucket's value less the one before, and `counts`, as packed runs have it.

        Raises ResultsError for what is no histogram, or is out of bounds.
        """
        if steps_ns.size and (steps_ns.min() < 1 or counts.min() < 1):
            raise ResultsError("can't be read: a histogram in it has a bucket without a value or a count")
        # As floats first: no sum of integers can then be too large.
        highest = steps_ns.sum(dtype=np.float64)
        if highest > VALUE_MAX_NS:
            raise ResultsError(f"can't be read: a histogram in it goes to {highest:.0f}; allowed: {VALUE_MAX_NS}")
        _refuse_large(counts)
        return cls._sum([(np.cumsum(steps_ns), counts)])

    @property
    def count(self) -> int:
        """How many values were recorded."""
        return int(self.counts.sum())

    @property
    def max_ns(self) -> int:
        """The largest value, to the bucket; 0 where nothing was recorded."""
        return int(self.values_ns[-1]) if self.values_ns.size else 0

    def percentile(self, p: float) -> float:
        """The least value, in ns, that `p` percent of all values do not exceed: the nearest rank.

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
        """A new histogram of all values of this one and `others`."""
        return Latency._sum([(each.values_ns, each.counts) for each in (self, *others)])

    def to_frame(self) -> "pd.DataFrame":
        """One row per non-empty bucket: `value_ns`, `count`, `cumulative` count, and `percentile` that it reaches."""
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
        shown = [f"{name} {value}" for name, value in self.quantiles]
        return f"Latency({', '.join([counted(self.count, 'value'), *shown])})"

    @property
    def quantiles(self) -> list[tuple[str, str]]:
        """Names and values in words, p50 to max; empty where nothing was recorded."""
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


def encoded_histograms(log: str, kind: str) -> list[str]:
    """The histograms of one tag of an interval log, whose lines are `Tag=<kind>,start,length,max,histogram`."""
    return [line.rpartition(",")[2] for line in log.splitlines() if line.startswith(f"Tag={kind},")]


def merged_log(logs: Sequence[str]) -> str:
    """One interval log of several whose times count from the same start, as the generator merges its workers' logs.

    The histograms of each tag are added bucket by bucket, in intervals as long as the longest of that tag. Raises
    ResultsError where a log can't be read, or holds histograms that can't be added.
    """
    found: dict[str, list[_Line]] = {kind: [] for kind in LATENCY_KINDS}
    for log in logs:
        for line in log.splitlines():
            if line and line[0] not in '#"':
                tag, parsed = _parsed(line)
                found[tag].append(parsed)
    written = [_LOG_HEAD]
    for kind, lines in found.items():
        decoded = _Decoder(kind, DECODED_MAX_BYTES * len(logs))
        for start_ms, length_ms, encoded in _intervals(lines):
            whole = decoded.sum(encoded)
            if whole.total_count:
                most, packed = whole.get_max_value() / 1e6, whole.encode().decode("ascii")
                written.append(f"Tag={kind},{start_ms / 1e3:.3f},{length_ms / 1e3:.3f},{most:.3f},{packed}")
    return "\n".join(written) + "\n"


class _Decoder:
    """Decodes histograms of one kind and adds them, all of the same bounds and together of so many bytes at most."""

    def __init__(self, kind: str, bytes_max: int) -> None:
        self._kind, self._left = kind, bytes_max
        self._bounds: tuple[int, int, int] | None = None

    def sum(self, encoded: Sequence[str]) -> HdrHistogram:
        whole = _Sum()
        for text in encoded:
            whole.add(self._one(text))
        assert self._bounds is not None
        made = HdrHistogram(*self._bounds)
        np.ctypeslib.as_array(made.counts)[:] = whole.counts
        filled = np.flatnonzero(whole.counts)
        if filled.size:
            made.set_internal_tacking_values(int(filled[0]), int(filled[-1]), int(whole.counts.sum()))
        return made

    def _one(self, text: str) -> HdrHistogram:
        self._left -= _payload_bytes(text)
        if self._left < 0:
            raise ResultsError(f"can't be merged: it holds too many histograms of {self._kind}")
        one = _decoded(text)
        bounds = _bounds(one)
        if bounds != (self._bounds or bounds):
            raise ResultsError(f"can't be merged: histograms of {self._kind} have unlike bounds")
        self._bounds = bounds
        return one


class _Line(NamedTuple):
    start_ms: int
    length_ms: int
    encoded: str


def _parsed(line: str) -> tuple[str, _Line]:
    """Tag and parts of a line. An interval is some seconds long, a power of two, and begins at a multiple of that."""
    match = _LINE.fullmatch(line)
    if match is None or match[1] not in LATENCY_KINDS:
        raise ResultsError(f"can't be read: {one_line(line, _LINE_SHOWN)!r} is no line of a latency log")
    start_ms, length_ms = (int(match[number].replace(".", "")) for number in (2, 3))
    seconds, rest = divmod(length_ms, 1000)
    if rest or not seconds or seconds & (seconds - 1) or start_ms % length_ms:
        raise ResultsError(f"can't be read: an interval in it has {length_ms} ms from {start_ms} ms on")
    return match[1], _Line(start_ms, length_ms, match[4])


def _intervals(lines: Sequence[_Line]) -> list[tuple[int, int, list[str]]]:
    """Start, length and histograms of each interval, in order: as long as the longest, longer where they are many."""
    length_ms = max((line.length_ms for line in lines), default=1000)
    while len({line.start_ms // length_ms for line in lines}) > INTERVALS_MAX:
        length_ms *= 2
    parts: dict[int, list[str]] = {}
    for line in sorted(lines, key=lambda line: line.start_ms):
        parts.setdefault(line.start_ms // length_ms, []).append(line.encoded)
    return [(place * length_ms, length_ms, encoded) for place, encoded in parts.items()]


def _payload_bytes(text: str) -> int:
    """Size of the histogram decompressed. ResultsError where it or its header is out of bounds."""
    try:
        packed = base64.b64decode(text)[_ENVELOPE_BYTES:]
        content = zlib.decompressobj().decompress(packed, PAYLOAD_MAX_BYTES + 1)
        header = _HEADER.unpack_from(content)
    except (ValueError, zlib.error, struct.error):
        raise ResultsError("can't be read: it holds no histogram in version 2 encoding") from None
    digits, lowest, highest = header[3:6]
    if len(content) > PAYLOAD_MAX_BYTES:
        raise ResultsError(f"can't be read: a histogram in it has more than {PAYLOAD_MAX_BYTES} bytes")
    if not (1 <= digits <= DIGITS_MAX and 1 <= lowest <= LOWEST_MAX_NS and 2 * lowest <= highest <= HIGHEST_MAX_NS):
        raise ResultsError(
            f"can't be read: a histogram in it goes from {lowest} to {highest} with {digits} digits; allowed: from at "
            f"most {LOWEST_MAX_NS}, to at most {HIGHEST_MAX_NS}, with 1 to {DIGITS_MAX} digits"
        )
    return len(content)


def _decoded(text: str) -> HdrHistogram:
    try:
        return HdrHistogram.decode(text)
    except Exception as error:  # hdrh lets zlib, struct, base64 and its own errors through
        raise ResultsError(f"can't be read: {one_line(error, _REASON_MAX) or type(error).__name__}") from None


class _Sum:
    """Histograms of equal bounds, added: an array at a time, for a run of many hosts has 100,000 of them."""

    def __init__(self) -> None:
        self.counts = np.empty(0, np.int64)
        self._count = 0.0

    def add(self, histogram: HdrHistogram) -> None:
        """Raises ResultsError where they count too much."""
        counts = np.ctypeslib.as_array(histogram.counts)
        self._count += counts.sum(dtype=np.float64)  # no sum of floats is too large
        if self._count > COUNT_MAX:
            raise ResultsError(f"can't be read: its histograms count more than {COUNT_MAX}")
        if not self.counts.size:
            self.counts = np.zeros(counts.size, np.int64)
        self.counts += counts.view(np.int64)


def _bounds(histogram: HdrHistogram) -> tuple[int, int, int]:
    return histogram.lowest_trackable_value, histogram.highest_trackable_value, histogram.significant_figures


def _refuse_large(counts: Integers) -> None:
    if counts.sum(dtype=np.float64) > COUNT_MAX:
        raise ResultsError(f"can't be read: its histograms count more than {COUNT_MAX}")


def _buckets(histogram: HdrHistogram, counts: Integers) -> tuple[Integers, Integers]:
    """Highest equivalent values and counts of the buckets that hold something."""
    filled = np.flatnonzero(counts)
    # As HdrHistogram.get_highest_equivalent_value has it, for all at once: asked one by one, a big run takes seconds.
    half = histogram.sub_bucket_half_count
    exponents = np.maximum((filled >> histogram.sub_bucket_half_count_magnitude) - 1, 0)
    within = filled - exponents * half
    shift = exponents + histogram.unit_magnitude
    return ((within + 1) << shift) - 1, counts[filled]
