"""The kinds of values that a scenario holds: text as people write it, read into integers with their unit."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic import Strict as StrictType

from tftpbench.model.strict import Allowed, Checked, KeyFault, Strict
from tftpbench.model.units import (
    DURATION_ALLOWED,
    RATE_ALLOWED,
    SIZE_ALLOWED,
    duration_text,
    parse_bytes,
    parse_duration_ns,
    parse_rate_per_s,
    rate_text,
)

MS = 1_000_000  # nanoseconds
# Starts of an open loop a second: one in a quarter of an hour, and more than any generator makes.
RATE_MIN, RATE_MAX = 0.001, 1_000_000
# Of a storm or a burst, at once: more than a generator has ports and descriptors for.
STARTS_MAX = 1_000_000
# What any load may have in flight: more than the ports and descriptors that a generator usually gets.
IN_FLIGHT_LIMIT = 50_000
# More load hosts than one coordinator is for.
HOSTS_MAX = 1_000


def _as_duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"is {value!r}; allowed: {DURATION_ALLOWED}")
    return parse_duration_ns(str(value))


def _as_size(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"is {value!r}; allowed: {SIZE_ALLOWED}")
    return parse_bytes(value)


def _as_rate(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"is {value!r}; allowed: {RATE_ALLOWED}")
    return parse_rate_per_s(value)


def _as_ramp_of_rates(value: object) -> object:
    """From a rate to another: one end may be 0, which no steady rate may."""
    if isinstance(value, (list, tuple)) and len(value) == 2:  # as the model keeps it
        return tuple(value)
    first, dots, last = value.partition("..") if isinstance(value, str) else ("", "", "")
    try:
        ends = (parse_rate_per_s(first), parse_rate_per_s(last)) if dots else ()
    except ValueError:
        ends = ()
    if not ends or not 0 < max(ends) <= RATE_MAX or any(0 < end < RATE_MIN for end in ends):
        raise ValueError(f"is {value!r}; allowed: {RAMP_ALLOWED}")
    return ends


def _as_list(value: object) -> object:
    """A single value stands for a list of one; a value twice would measure one cell twice."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    if not items:
        raise ValueError("is an empty list; allowed: one value or more")
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(f"lists {item!r} twice")
    return tuple(items)


def _as_ramp(value: object) -> object:
    if value == "burst" or (value == 0 and not isinstance(value, bool)):
        return 0
    if not isinstance(value, str):
        raise ValueError(f"is {value!r}; allowed: burst, or a duration to spread the first starts over, as in 500ms")
    return parse_duration_ns(value)


def _as_busy_poll(value: object) -> object:
    return None if value in (None, "auto") else _as_duration(value)


def _as_cpus(value: object) -> int | Literal["all"]:
    if value == "all":
        return "all"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4096:
        return value
    raise ValueError(f"is {value!r}; allowed: a number of cores from 1, or all")


def _as_hosts(value: object) -> int | tuple[str, ...]:
    """A number of hosts, or their names, each once."""
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= HOSTS_MAX:
        return value
    names = value if isinstance(value, (list, tuple)) else ()
    are_names = all(isinstance(name, str) and name.strip() == name and name.isprintable() and name for name in names)
    if are_names and 1 <= len({*names}) == len(names) <= HOSTS_MAX:
        return tuple(names)
    raise ValueError(f"is {repr(value)[:60]}; allowed: {HOSTS_ALLOWED}")


HOSTS_ALLOWED = f"a number from 1 to {HOSTS_MAX}, or a list of names, each once"
RAMP_ALLOWED = f"one rate to another, each 0/s to {RATE_MAX}/s, as in 10/s..500/s"
_DURATION_SCHEMA = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ns|us|µs|ms|s|m|min|h)\s*$"}
_RATE = r"\s*\d+(\.\d+)?\s*/\s*(s|min|h)\s*"
_RATE_SCHEMA = {"type": "string", "pattern": f"^{_RATE}$"}
_SIZE_SCHEMA = {
    "oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[kKMGT]?i?B?\s*$"}]
}

Count = Annotated[int, StrictType()]
DurationNs = Annotated[
    int, BeforeValidator(_as_duration), PlainSerializer(duration_text), WithJsonSchema(_DURATION_SCHEMA)
]
SizeBytes = Annotated[int, BeforeValidator(_as_size), WithJsonSchema(_SIZE_SCHEMA)]
RatePerS = Annotated[float, BeforeValidator(_as_rate), PlainSerializer(rate_text), WithJsonSchema(_RATE_SCHEMA)]
RateRamp = Annotated[
    tuple[float, float],
    BeforeValidator(_as_ramp_of_rates),
    PlainSerializer(lambda ends: "..".join(map(rate_text, ends))),
    WithJsonSchema({"type": "string", "pattern": rf"^{_RATE}\.\.{_RATE}$"}),
]
RampNs = Annotated[
    int,
    BeforeValidator(_as_ramp),
    PlainSerializer(lambda ns: duration_text(ns) if ns else "burst"),
    WithJsonSchema({"anyOf": [{"const": "burst"}, _DURATION_SCHEMA]}),
]
BusyPollNs = Annotated[
    int | None,
    BeforeValidator(_as_busy_poll),
    PlainSerializer(lambda ns: "auto" if ns is None else duration_text(ns)),
    WithJsonSchema({"anyOf": [{"const": "auto"}, _DURATION_SCHEMA]}),
]
Cpus = Annotated[
    int | Literal["all"],
    PlainValidator(_as_cpus),
    WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 1}]}),
]
Hosts = Annotated[
    int | tuple[str, ...],
    PlainValidator(_as_hosts),
    PlainSerializer(lambda hosts: hosts if isinstance(hosts, int) else list(hosts)),
    WithJsonSchema({
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": HOSTS_MAX},
            {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": HOSTS_MAX},
        ]
    }),
]  # fmt: skip
OneOrMore = BeforeValidator(_as_list)
# Unlike OneOrMore it may be empty, and repeat itself.
TextOrList = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
Operation = Literal["read", "write"]
Verify = Literal["full", "sample", "off"]
Arrivals = Literal["even", "poisson"]
Spread = Literal["even", "normal"]
Rows = Literal["all", "failed", "sample"]


class MixPart(Strict):
    """A part of a mix: a boot profile, and how many of the machines boot it."""

    boot: Annotated[str, Allowed("the name of a boot profile, or the path of one")] = Field(
        pattern=r"^\S[^\n]*$", description="A boot profile, by its name or its path."
    )
    weight: Annotated[Count, Allowed("1 to 1000")] = Field(
        default=1, ge=1, le=1000, description="Its machines for each sum of all weights."
    )


class ShapePiece(Checked):
    """A piece of a shape: one of ramp and hold, which last a time, and burst, which does not."""

    ramp: Annotated[RateRamp | None, Allowed(RAMP_ALLOWED)] = Field(
        default=None, description="Starts at a rate that rises or falls evenly, from the first to the second."
    )
    hold: Annotated[RatePerS | None, Allowed(f"{RATE_MIN}/s to {RATE_MAX}/s; {RATE_ALLOWED}")] = Field(
        default=None, ge=RATE_MIN, le=RATE_MAX, description="Starts at a steady rate."
    )
    burst: Annotated[Count | None, Allowed(f"1 to {STARTS_MAX}")] = Field(
        default=None, ge=1, le=STARTS_MAX, description="So many starts at once."
    )
    for_ns: Annotated[DurationNs | None, Allowed(f"1ms to 24h; {DURATION_ALLOWED}")] = Field(
        default=None, alias="for", ge=MS, le=86_400_000 * MS, description="How long a ramp or a hold lasts."
    )

    def _faults(self) -> Iterator[KeyFault]:
        given = [key for key in ("ramp", "hold", "burst") if getattr(self, key) is not None]
        if len(given) != 1:
            what = f"is both {' and '.join(given)}" if given else "is nothing that starts"
            yield KeyFault((), f"{what}; allowed: exactly one of ramp, hold and burst")
        elif self.burst is None and self.for_ns is None:
            yield KeyFault((), f"has a {given[0]} without a length; allowed: with `for`, as in for: 60s")
        elif self.burst is not None and self.for_ns is not None:
            yield KeyFault(("for",), "has no meaning beside burst, which is at once; allowed: beside ramp or hold")

    def __str__(self) -> str:
        """Exactly, in words: it names the shape in results."""
        if self.burst is not None:
            return f"{self.burst} at once"
        for_text = re.sub(r"(?<=\d)(?=[a-z])", " ", duration_text(self.for_ns or 0))
        if self.ramp is not None:
            return f"{' to '.join(map(rate_text, self.ramp))} in {for_text}"
        return f"{rate_text(self.hold or 0)} for {for_text}"
