"""Thresholds: "epoll.failed == 0", read from text and judged on the trials of one cell.

    [server.]column operator number        operators: == != < <= > >=

The number may have a unit that fits the column's: 5s, 80MiB/s, 95%. A figure that isn't known, or is marked as
not usable, never satisfies a threshold. A maximum, as transfer_ns_max, is the largest of the valid trials, not their
median. Pure; it must never read a file or know what a trial is beyond its row.
"""

import math
import operator
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tftpbench.model.errors import ThresholdError, suggest
from tftpbench.model.invariants import counters_fault, number
from tftpbench.model.metrics import COLUMNS, METRICS
from tftpbench.model.units import counted, format_figure, parse_figure

GRAMMAR = "[server.]column operator number, as in 'epoll.failed == 0' or 'transfer_ns_max <= 5s'"
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
LOST = frozenset({"died", "not_ready", "port_taken"})
"""Kinds of findings of a trial that had no server, or not to its end: what did not happen then means nothing."""
NOT_DONE = "no trial of it was done"
_TEXT = re.compile(
    r"\s*(?:(?P<server>[A-Za-z0-9][\w.@-]*)\.)?(?P<column>\w+)"
    r"\s*(?P<op>[=!<>]{1,2})\s*(?P<limit>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?)\s*(?P<unit>[A-Za-zµ/%]{0,9})\s*",
    re.ASCII,
)

Row = Mapping[str, object]
# (column, trials of one server in one cell) to why the figure of these trials is not usable, "" where it is.
Marked = Callable[[str, Sequence[Row]], str]
State = Literal["held", "missed", "not known"]


@dataclass(frozen=True)
class Threshold:
    """One threshold, understood. server None means each server; `written` is a limit as it was, where it has a unit."""

    server: str | None
    column: str
    op: str
    limit: float
    written: str = field(default="", compare=False)

    def __str__(self) -> str:
        prefix = f"{self.server}." if self.server else ""
        return f"{prefix}{self.column} {self.op} {self.written or f'{self.limit:.15g}'}"

    @property
    def is_count(self) -> bool:
        """Whether it speaks of a count of events, which must hold in every trial."""
        return self.column in METRICS and METRICS[self.column].is_count

    def beside_limit(self, value: float) -> str:
        """A figure with its unit, and the limit where that has one: "7.28 s, limit 5 s", or "3"."""
        unit = _unit(self.column)
        texts = [format_figure(each, unit) for each in (value, self.limit)]
        if texts[0] == texts[1] and value != self.limit:
            texts = [f"{each:.15g} {COLUMNS[self.column].unit}".strip() for each in (value, self.limit)]
        # Who writes 10 for a time seldom means nanoseconds.
        hint = f" (a number alone is {unit})" if unit in {"ns", "us"} and not self.written else ""
        return f"{texts[0]}, limit {texts[1]}{hint}" if COLUMNS[self.column].unit and not self.is_count else texts[0]


@dataclass(frozen=True)
class Judged:
    """What became of a threshold on one server in one cell. value: the figure that decided, None if not known.

    `server` is "" where no server was measured for it; `cell` is its label, or "" where there is one cell only.
    """

    threshold: Threshold
    server: str
    cell: str
    state: State
    value: float | None
    detail: str

    @property
    def held(self) -> bool:
        """Whether it may pass: what isn't known may not."""
        return self.state == "held"

    @property
    def text(self) -> str:
        """How it came about, for people: "7.28 s, limit 5 s, median of 7 valid trials"."""
        return self.detail if self.value is None else f"{self.threshold.beside_limit(self.value)}, {self.detail}"

    @property
    def place(self) -> str:
        """Server and cell, as far as it speaks of some."""
        return ", ".join(filter(None, (self.server or self.threshold.server, self.cell)))

    @property
    def document(self) -> dict[str, object]:
        """For programs: plain JSON values."""
        names = ("server", "cell", "state", "value", "detail")
        return {"threshold": str(self.threshold), **{name: getattr(self, name) for name in names}}

    def __str__(self) -> str:
        return f"{self.threshold} [{self.place}]: {self.text}"


def parse(text: str, *, is_brief: bool = False) -> Threshold:
    """Understand one threshold; ThresholdError says in one line what is wrong with it.

    `is_brief`: without a suggestion, of which thousands would take seconds.
    """
    match = _TEXT.fullmatch(text)
    if match is None or match["op"] not in OPERATORS:
        raise ThresholdError(f"{text!r} is no threshold; allowed: {GRAMMAR}, with {' '.join(OPERATORS)}")
    column = COLUMNS.get(match["column"])
    if column is None:
        numbers = [name for name, known in COLUMNS.items() if known.is_number]
        hint = "" if is_brief else suggest(match["column"], numbers)
        raise ThresholdError(f"{text!r} names no column of the results{hint}")
    if not column.is_number:
        raise ThresholdError(f"{text!r}: {match['column']} is no number; allowed: {GRAMMAR}")
    try:
        limit = parse_figure(match["limit"], match["unit"], _unit(match["column"]))
    except ValueError as error:
        raise ThresholdError(f"{text!r} {error}") from None
    written = f"{match['limit']}{match['unit']}" if match["unit"] else ""
    return Threshold(match["server"], match["column"], match["op"], limit, written)


def evaluate(
    thresholds: Iterable[Threshold],
    rows: Sequence[Row],
    cell: str = "",
    *,
    is_quick: bool = False,
    marked: Marked = lambda *_: "",
) -> tuple[Judged, ...]:
    """Judge the trials of one cell, `cell` by its label, all servers together: each threshold for each server it means.

    A count (failed, content_mismatches, ...) must hold in every trial, invalid ones too: a busy machine makes a rate
    untrue and no count. Where the server was lost in each, or nothing was served and none is valid, it is not known
    to hold. A measurement (data_pps, ...) is the median of the valid trials. `is_quick`: a count needs no such trial.
    """
    found = (judged for threshold in thresholds for judged in _judge(threshold, rows, cell, is_quick))
    return tuple(_unless_marked(judged, rows, marked) for judged in found)


def server_name(row: Row) -> str:
    """How a threshold calls the server of a row: its name, or name@variant."""
    return f"{row['server']}@{row['variant']}" if row.get("variant") else str(row["server"])


def _unit(column: str) -> str:
    """Of the figures of a column, for units.py; a float without a unit may be a share."""
    known = COLUMNS[column]
    return known.unit or ("share" if known.dtype == "float" else "")


def not_known(threshold: Threshold, server: str, cell: str, why: str) -> Judged:
    """One that could not be judged."""
    return Judged(threshold, server, cell, "not known", None, why)


def _unless_marked(judged: Judged, rows: Sequence[Row], marked: Marked) -> Judged:
    mark = marked(judged.threshold.column, [row for row in rows if server_name(row) == judged.server])
    return not_known(judged.threshold, judged.server, judged.cell, mark) if mark else judged


def _judge(threshold: Threshold, rows: Sequence[Row], cell: str, is_quick: bool) -> Iterable[Judged]:
    servers = dict.fromkeys(server_name(row) for row in rows)
    if threshold.server is not None:
        servers = {name: None for name in servers if threshold.server in (name, name.partition("@")[0])}
    if not servers:
        yield not_known(threshold, threshold.server or "", cell, NOT_DONE)
    for server in servers:
        yield _judge_server(threshold, server, [row for row in rows if server_name(row) == server], cell, is_quick)


def _judge_server(threshold: Threshold, server: str, rows: Sequence[Row], cell: str, is_quick: bool) -> Judged:
    valid = [row for row in rows if row.get("verdict") == "valid"]
    is_count = threshold.is_count
    judged = rows if is_count else valid
    known = [value for row in judged if (value := _figure(row, threshold.column)) is not None]
    state, value, detail = _count(threshold, known, len(rows)) if is_count else _median(threshold, known)
    if is_count and state == "held" and not is_quick and not any(map(_is_counted, rows)):
        return not_known(threshold, server, cell, "no trial in which the server served to the end")
    return Judged(threshold, server, cell, state, value, detail)


def _figure(row: Row, column: str) -> float | None:
    """The figure; infinite where it is never, which no limit allows."""
    return math.inf if row.get(f"{column}_is_never") else number(row, column)


def _is_counted(row: Row) -> bool:
    """Whether its counts are true: where a trial is invalid for its server or its counters, none of them is."""
    if row.get("verdict") == "valid":
        return True
    findings = row.get("server_findings")
    kinds = {str(each["kind"]) for each in findings} if isinstance(findings, list) else set()
    return bool(number(row, "completed")) and kinds.isdisjoint(LOST) and counters_fault(row) is None


def _count(threshold: Threshold, known: Sequence[float], trials: int) -> tuple[State, float | None, str]:
    missed = [value for value in known if not OPERATORS[threshold.op](value, threshold.limit)]
    if missed:
        worst = max(missed, key=lambda value: abs(value - threshold.limit))
        return "missed", worst, f"missed in {len(missed)} of {counted(trials, 'trial')}"
    if len(known) < trials:
        return "not known", None, f"not known in {trials - len(known)} of {counted(trials, 'trial')}"
    return "held", max(known), f"in all {trials} trials" if trials > 1 else "in its trial"


def _median(threshold: Threshold, known: Sequence[float]) -> tuple[State, float | None, str]:
    """Of a maximum the largest: half of the trials would hide the slowest transfer of the others."""
    if not known:
        return "not known", None, "not known in any valid trial"
    is_max = threshold.column in METRICS and METRICS[threshold.column].is_max
    value, which = (max(known), "largest") if is_max else (statistics.median(known), "median")
    if math.isinf(value):
        return "missed", None, f"never in the {which} of {len(known)} valid trials"
    holds = OPERATORS[threshold.op](value, threshold.limit)
    return "held" if holds else "missed", value, f"{which} of {counted(len(known), 'valid trial')}"
