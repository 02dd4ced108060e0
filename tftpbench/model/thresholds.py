"""Thresholds: "epoll.failed == 0", read from text and judged on the trials of one cell.

    [server.]column operator number        operators: == != < <= > >=

A figure that isn't known never satisfies a threshold. Pure; it must never read a file or know what a trial is beyond
its row.
"""

import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tftpbench.model.errors import ThresholdError, suggest
from tftpbench.model.invariants import number
from tftpbench.model.metrics import COLUMNS, METRICS

GRAMMAR = "[server.]column operator number, as in 'epoll.failed == 0' or 'data_pps > 50000'"
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_TEXT = re.compile(
    r"\s*(?:(?P<server>[A-Za-z0-9][\w.@-]*)\.)?(?P<column>\w+)"
    r"\s*(?P<op>[=!<>]{1,2})\s*(?P<limit>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?)\s*",
    re.ASCII,
)

Row = Mapping[str, object]
State = Literal["held", "missed", "not known"]


@dataclass(frozen=True)
class Threshold:
    """One threshold, understood. server None means each server."""

    server: str | None
    column: str
    op: str
    limit: float

    def __str__(self) -> str:
        prefix = f"{self.server}." if self.server else ""
        return f"{prefix}{self.column} {self.op} {self.limit:.15g}"


@dataclass(frozen=True)
class Verdict:
    """What became of a threshold on one server in one cell. value: the figure that decided, None if not known."""

    threshold: Threshold
    server: str
    state: State
    value: float | None
    detail: str

    @property
    def held(self) -> bool:
        """Whether it may pass: what isn't known may not."""
        return self.state == "held"


def parse(text: str) -> Threshold:
    """Understand one threshold; ThresholdError says in one line what is wrong with it."""
    match = _TEXT.fullmatch(text)
    if match is None or match["op"] not in OPERATORS:
        raise ThresholdError(f"{text!r} is no threshold; allowed: {GRAMMAR}, with {' '.join(OPERATORS)}")
    column = COLUMNS.get(match["column"])
    if column is None:
        numbers = [name for name, known in COLUMNS.items() if known.is_number]
        hint = suggest(match["column"], numbers)
        raise ThresholdError(f"{text!r} names no column of the results{hint}; allowed: {', '.join(numbers)}")
    if not column.is_number:
        raise ThresholdError(f"{text!r}: {match['column']} is no number; allowed: {GRAMMAR}")
    return Threshold(match["server"], match["column"], match["op"], float(match["limit"]))


def evaluate(thresholds: Iterable[Threshold], rows: Sequence[Row]) -> tuple[Verdict, ...]:
    """Judge the trials of one cell, all servers together: a verdict per threshold and server it speaks of.

    A count (failed, content_mismatches, ...) must hold in every trial, invalid ones too, for an invalid trial
    may be invalid just because of it; where none is valid, as when the server died, it is not known to hold. A
    measurement (data_pps, ...) is the median of the valid trials.
    """
    return tuple(verdict for threshold in thresholds for verdict in _judge(threshold, rows))


def server_name(row: Row) -> str:
    """How a threshold calls the server of a row: its name, or name@variant."""
    return f"{row['server']}@{row['variant']}" if row.get("variant") else str(row["server"])


def _judge(threshold: Threshold, rows: Sequence[Row]) -> Iterable[Verdict]:
    servers = dict.fromkeys(server_name(row) for row in rows)
    if threshold.server is not None:
        servers = {name: None for name in servers if threshold.server in (name, name.partition("@")[0])}
    if not servers:
        yield Verdict(threshold, threshold.server or "", "not known", None, "no trial of it was done")
    for server in servers:
        yield _judge_server(threshold, server, [row for row in rows if server_name(row) == server])


def _judge_server(threshold: Threshold, server: str, rows: Sequence[Row]) -> Verdict:
    valid = [row for row in rows if row.get("verdict") == "valid"]
    is_count = _is_count(threshold.column)
    judged = rows if is_count else valid
    known = [value for row in judged if (value := _figure(row, threshold.column)) is not None]
    state, value, detail = _count(threshold, known, len(rows)) if is_count else _median(threshold, known)
    if not valid and state != "missed":
        state, value, detail = "not known", None, "no valid trial"
    return Verdict(threshold, server, state, value, detail)


def _figure(row: Row, column: str) -> float | None:
    """The figure; infinite where it is never, which no limit allows."""
    return math.inf if row.get(f"{column}_is_never") else number(row, column)


def _is_count(column: str) -> bool:
    return column in METRICS and METRICS[column].is_count


def _count(threshold: Threshold, known: Sequence[float], trials: int) -> tuple[State, float | None, str]:
    missed = [value for value in known if not OPERATORS[threshold.op](value, threshold.limit)]
    if missed:
        worst = max(missed, key=lambda value: abs(value - threshold.limit))
        return "missed", worst, f"missed in {len(missed)} of {trials} trials"
    if len(known) < trials:
        return "not known", None, f"not known in {trials - len(known)} of {trials} trials"
    return "held", max(known), f"in all {trials} trials"


def _median(threshold: Threshold, known: Sequence[float]) -> tuple[State, float | None, str]:
    if not known:
        return "not known", None, "not known in any valid trial"
    middle = statistics.median(known)
    if math.isinf(middle):
        return "missed", None, f"never in the median of {len(known)} valid trials"
    holds = OPERATORS[threshold.op](middle, threshold.limit)
    return "held" if holds else "missed", middle, f"median of {len(known)} valid trials"
