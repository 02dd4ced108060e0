"""Sizes, durations and rates: from text that people write to numbers, and back to text that they read.

It must never guess a unit: a bare number is a size in bytes, but it is no duration. A figure of results has the unit of
its column, so a bare number beside one has that unit, too.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

_SIZE_UNITS = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
}
_DURATION_UNITS_NS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "ms": 1000**2,
    "s": 1000**3,
    "min": 60 * 1000**3,
    "m": 60 * 1000**3,
    "h": 3600 * 1000**3,
}
_RATE_UNITS_S = {"s": 1, "min": 60, "h": 3600}
_RATE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,3})?)\s*/\s*(s|min|h)\s*", re.ASCII)
# Seconds of an hour in thousandths: rates of whole or thousandth events a second, minute or hour are exact ratios.
RATE_DENOMINATOR_MAX = 3_600_000
_QUANTITY = re.compile(r"\s*(\d{1,18})(?:\.(\d{1,9}))?\s*([A-Za-zµ]*)\s*", re.ASCII)

_BIT_UNITS = {"k": 1000, "M": 1000**2, "G": 1000**3}
_BITS = re.compile(r"\s*(\d{1,9}(?:\.\d{1,3})?)\s*([kMG])bit/s\s*", re.ASCII)
BANDWIDTH_ALLOWED = "bits or bytes a second: 500Mbit/s, 1Gbit/s, 60MiB/s"
SIZE_ALLOWED = "bytes as a number, or with a unit: 512, 64KiB, 10MB"
RATE_ALLOWED = "a number a second, minute or hour: 50/s, 3/min, 100/h"
DURATION_ALLOWED = "a number with a unit: 200ms, 1.5s, 2min"
# What may follow a number that is held against a figure, by the figure's unit, with its size in that unit.
_RATE_UNITS = {
    f"{prefix}{per}": size for prefix, size in (("", 1), ("k", 10**3), ("M", 10**6), ("G", 10**9)) for per in ("", "/s")
}
_FIGURE_UNITS: Mapping[str, tuple[Mapping[str, int | Decimal], str]] = {
    "ns": ({"": 1, **_DURATION_UNITS_NS}, "200ms, 1.5s"),
    "us": ({"": 1, **{unit: Decimal(ns) / 1000 for unit, ns in _DURATION_UNITS_NS.items()}}, "200us, 1ms"),
    "s": ({"": 1, **{unit: Decimal(ns) / 10**9 for unit, ns in _DURATION_UNITS_NS.items()}}, "200ms, 1.5s"),
    "bytes": (_SIZE_UNITS, "64KiB, 10MB"),
    "bytes/s": ({f"{unit}{per}": size for unit, size in _SIZE_UNITS.items() for per in ("", "/s")}, "80MiB/s"),
    "1/s": (_RATE_UNITS, "50k/s"),
    "share": ({"": 1, "%": Decimal("0.01")}, "95%"),
}


MIB = 1 << 20
# Thirty years in nanoseconds: no figure of a run is larger.
FIGURE_MAX = 1e18


def parse_figure(number: str, unit: str, of: str) -> float:
    """The number with its unit as a number of the unit `of` ("ns", "bytes/s", "share"); ValueError says what may be."""
    units, example = _FIGURE_UNITS.get(of, ({"": 1}, ""))
    if unit not in units:
        allowed = f"a number, or one with a unit: {example}" if example else "a number without a unit"
        raise ValueError(f"has the unit {unit!r}; allowed: {allowed}")
    figure = float(Decimal(number) * units[unit])
    if not abs(figure) <= FIGURE_MAX:
        raise ValueError(f"is beyond {FIGURE_MAX:g}{f' {of}' if example else ''}; allowed: a limit that can be reached")
    return figure


PERCENT_PATTERN = r"^\s*\d{1,3}(\.\d{1,6})?\s*%\s*$"


def parse_percent(text: str) -> float | None:
    """Read "5%" as 0.05; None for what is no percentage."""
    return float(text.strip()[:-1]) / 100 if re.fullmatch(PERCENT_PATTERN, text, re.ASCII) else None


def percent(share: float) -> str:
    """Write 0.05 as "5%"."""
    return f"{100 * share:.10g}%"


def format_figure(value: float, of: str) -> str:
    """Write a number of the unit `of` as people read it: "7.28 s", "80 MiB/s"; "0.95" where the unit has no form."""
    return _FIGURE_TEXTS[of](value) if of in _FIGURE_TEXTS else f"{value:g}"


def parse_bytes(text: str | int) -> int:
    """Read "64KiB", "1.5MB" or 512 as bytes; ValueError says what is wrong with it."""
    return _parse(text, _SIZE_UNITS, SIZE_ALLOWED)


def parse_duration_ns(text: str) -> int:
    """Read "1.5s" or "200ms" as nanoseconds; ValueError says what is wrong with it."""
    return _parse(text, _DURATION_UNITS_NS, DURATION_ALLOWED)


def parse_bytes_per_s(text: str) -> int:
    """Read "500Mbit/s" or "60MiB/s" as bytes a second; ValueError says what is wrong with it."""
    found = _BITS.fullmatch(text)
    if found is not None:
        return int(Fraction(found[1]) * _BIT_UNITS[found[2]] / 8)
    if text.strip().endswith("/s"):
        try:
            return parse_bytes(text.strip()[:-2])
        except ValueError:
            pass
    raise ValueError(f"is {text[:40]!r}; allowed: {BANDWIDTH_ALLOWED}")


def parse_rate_per_s(text: str) -> float:
    """Read "50/s" or "3/min" as events a second; ValueError says what is wrong with it."""
    found = _RATE.fullmatch(text)
    if found is None:
        raise ValueError(f"is {text!r}; allowed: {RATE_ALLOWED}")
    return float(Fraction(found[1]) / _RATE_UNITS_S[found[2]])


def rate_ratio(per_s: float) -> Fraction:
    """The rate that was meant, exactly: of 3 a minute no float says how many a second."""
    return Fraction(per_s).limit_denominator(RATE_DENOMINATOR_MAX)


def rate_text(per_s: float) -> str:
    """Write 50.0 as "50/s", 0.05 as "3/min": text that reads back equal."""
    for unit, seconds in _RATE_UNITS_S.items():
        count = rate_ratio(per_s) * seconds
        if 1000 % count.denominator == 0:
            return f"{float(count):.3f}".rstrip("0").rstrip(".") + f"/{unit}"
    return f"{per_s!r}/s"


def listed(parts: Sequence[str]) -> str:
    """Write ["a", "b", "c"] as "a, b and c"."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def counted(count: int, thing: str) -> str:
    """Write 1 as "1 trial", 2 as "2 trials"."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def format_bytes(count: float) -> str:
    """Write 65536 as "64 KiB", 10485760 as "10 MiB", 1500 as "1500 B"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024 or (unit == "B" and value % 1024 and abs(value) < 10_000):
            break
        value, unit = value / 1024, larger
    return f"{_short(value)} {unit}"


def format_duration(duration_ns: float) -> str:
    """Write nanoseconds as "950 ns", "12.3 ms", "1.5 s" or "3 min 5 s"; ten days and more as "2400 h"."""
    if abs(duration_ns) >= 240 * 3600e9:
        return f"{_short(duration_ns / 3600e9)} h"
    if abs(duration_ns) >= 60e9:
        minutes, seconds = divmod(round(duration_ns / 1e9), 60)
        return f"{minutes} min {seconds} s" if seconds else f"{minutes} min"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(duration_ns) >= size * 0.9995:
            return f"{_short(duration_ns / size)} {unit}"
    return f"{_short(duration_ns)} ns"


def about(seconds: float) -> str:
    """Write an estimate: "about 5 s", "about 4 min", "about 1.5 h"."""
    if seconds < 60:
        return f"about {max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {_short(round(minutes / 60, 1))} h"


def format_rate(per_s: float, unit: str = "") -> str:
    """Write 131072 with unit "data" as "131 k data/s"."""
    value, prefix = float(per_s), ""
    for larger in ("k", "M", "G"):
        if abs(value) < 999.5:
            break
        value, prefix = value / 1000, larger
    return " ".join(part for part in (_short(value), prefix, f"{unit}/s") if part)


def format_count(count: float) -> str:
    """Write 131072 as "131 k"."""
    return format_rate(count).removesuffix("/s").strip()


_FIGURE_TEXTS: Mapping[str, Callable[[float], str]] = {
    "ns": format_duration,
    "us": lambda value: format_duration(value * 1e3),
    "s": lambda value: format_duration(value * 1e9),
    "bytes": format_bytes,
    "bytes/s": lambda value: f"{format_bytes(value)}/s",
    "1/s": lambda value: f"{format_count(value)}/s",
}


def duration_text(duration_ns: int) -> str:
    """Write nanoseconds so that parse_duration_ns gives exactly the same number back."""
    for unit in ("s", "ms", "us"):
        if duration_ns % _DURATION_UNITS_NS[unit] == 0:
            return f"{duration_ns // _DURATION_UNITS_NS[unit]}{unit}"
    return f"{duration_ns}ns"


def _parse(text: str | int, units: dict[str, int], allowed: str) -> int:
    match = _QUANTITY.fullmatch(str(text))
    if match is not None and not match[3] and "" not in units:
        raise ValueError(f"is {str(text)[:40]!r}, without a unit; did you mean '{str(text).strip()[:40]}s'?")
    if match is None or match[3] not in units:
        raise ValueError(f"is {str(text)[:40]!r}; allowed: {allowed}")
    whole, fraction, scale = match[1], match[2] or "", units[match[3]]
    # Integers throughout: a float would lose bytes beyond 2**53.
    return int(whole) * scale + int(fraction.ljust(9, "0")) * scale // 10**9


def _short(value: float) -> str:
    """Three significant digits, without a tail of zeros: 64, 1.5, 12.3, 131."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1e9:  # beyond the largest prefixes
        return f"{value:.3g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
