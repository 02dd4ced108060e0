"""The kinds of values that a scenario holds: text as people write it, read into integers with their unit."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, PlainSerializer, PlainValidator, Strict, WithJsonSchema

from tftpbench.model.units import DURATION_ALLOWED, SIZE_ALLOWED, duration_text, parse_bytes, parse_duration_ns

MS = 1_000_000  # nanoseconds


def _as_duration(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(f"is {value!r}; allowed: {DURATION_ALLOWED}")
    return parse_duration_ns(str(value))


def _as_size(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"is {value!r}; allowed: {SIZE_ALLOWED}")
    return parse_bytes(value)


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


_DURATION_SCHEMA = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ns|us|µs|ms|s|m|min|h)\s*$"}
_SIZE_SCHEMA = {
    "oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[kKMGT]?i?B?\s*$"}]
}

Count = Annotated[int, Strict()]
DurationNs = Annotated[
    int, BeforeValidator(_as_duration), PlainSerializer(duration_text), WithJsonSchema(_DURATION_SCHEMA)
]
SizeBytes = Annotated[int, BeforeValidator(_as_size), WithJsonSchema(_SIZE_SCHEMA)]
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
OneOrMore = BeforeValidator(_as_list)
# Unlike OneOrMore it may be empty, and repeat itself.
TextOrList = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
Operation = Literal["read", "write"]
Verify = Literal["full", "sample", "off"]
