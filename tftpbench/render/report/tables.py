"""Tables of a report: texts for people, each with the figure or word that it sorts by.

Figures come from an Answer or are medians of valid trials; nothing else is computed.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tftpbench.analysis.summary import Answer, Line
from tftpbench.model.metrics import METRICS, Metric, in_table
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import format_duration

Row = Mapping[str, Any]


class Value(NamedTuple):
    """What is read, and what it sorts by: a number, or else the text itself."""

    text: str
    sort: float | None = None


class Heading(NamedTuple):
    """A column: its title, what it means, and whether it holds figures."""

    title: str
    meaning: str = ""
    is_figure: bool = True


_WHO = (Heading("cell", is_figure=False), Heading("server", is_figure=False))


@dataclass(frozen=True)
class Table:
    """One table. `name` is its id; `marked` are the numbers of rows to stand out."""

    name: str
    title: str
    headings: tuple[Heading, ...]
    rows: tuple[tuple[Value, ...], ...]
    marked: frozenset[int] = frozenset()


def headline_table(answer: Answer) -> Table:
    """Medians and ratios, a row per server and cell."""
    is_best = answer.metric == "goodput_bytes_per_s"
    shares = answer.against == answer.reference and any(line.ceiling_ratio is not None for line in answer.lines)
    compared = any(line.ratio for line in answer.lines) or len({line.server for line in answer.lines}) > 1
    headings = [
        Heading("cell", "What was asked of the server.", is_figure=False),
        Heading("server", is_figure=False),
        *([Heading("at its best", "The options at which this server moves most.", is_figure=False)] if is_best else ()),
        Heading(METRICS[answer.metric].heading, f"Median over valid trials. {METRICS[answer.metric].meaning}"),
        *([Heading("of ceiling", "Median of data_pps over that of the bare kernel.")] if shares else ()),
        *([Heading(f"against {answer.against}", _RATIO)] if compared else ()),
        Heading("block rtt p50", "Round trip of a block, median over all valid trials together."),
        Heading("p99", "Round trip of a block, 99th percentile over all valid trials together."),
        _heading(METRICS["server_cpu_ns_per_block"]),
        Heading("lost", "Transfers that failed, timed out or never got an answer, over all trials."),
        Heading("valid", "Trials that count, of those that were done."),
    ]

    def cells(line: Line) -> list[Value]:
        rtt = line.block_rtt
        rate = line.goodput_bytes_per_s if is_best else line.data_pps
        return [
            Value(line.label),
            Value(line.server),
            *([Value(", ".join(line.cell.options.values()) or "no options")] if is_best else ()),
            _value(rate, METRICS[answer.metric].text),
            *([_value(line.ceiling_ratio, _times)] if shares else ()),
            *([_against(line, answer.against)] if compared else ()),
            _value(rtt.p50 if rtt else None, format_duration),
            _value(rtt.p99 if rtt else None, format_duration),
            _value(line.server_cpu_ns_per_block, format_duration),
            Value(str(line.lost), line.lost),
            Value(f"{line.valid}/{line.trials}", line.valid),
        ]

    marked = frozenset(number for number, line in enumerate(answer.lines) if line.server == answer.against)
    rows = tuple(tuple(cells(line)) for line in answer.lines)
    return Table("headline", "Figures", tuple(headings), rows, marked if compared else frozenset())


_RATIO = (
    "Blocks (or bytes) of this server for each of the other's, over pairs of trials of one round: a 20 % "
    "trimmed mean, and in brackets its 95 % interval. Under six pairs there is only the range that was seen."
)


def cost_table(answer: Answer, rows: Sequence[Row]) -> Table:
    """What the work cost the server: medians over valid trials, which is where reasons are found."""
    metrics = in_table("cost")
    body = []
    for line in answer.lines:
        valid = [row for row in _of(rows, line.cell.key, line.server) if row["verdict"] == "valid"]
        figures = [_value(_median(valid, metric), metric.text) for metric in metrics]
        body.append((Value(line.label), Value(line.server), *figures))
    return Table("cost", "What it cost the server", (*_WHO, *map(_heading, metrics)), tuple(body))


def loss_table(scenario: Scenario, rows: Sequence[Row]) -> tuple[Table, int]:
    """Where transfers and datagrams were lost, and by whom: sums over all trials, valid or not.

    Only servers and cells that lost anything; the other result is how many lost nothing.
    """
    metrics = in_table("losses")
    headings = (*_WHO, _heading(METRICS["started"]), *map(_heading, metrics))
    body, clean = [], 0
    for cell in scenario.cells():
        cell_key = cell.key
        here = [row for row in rows if row["cell_key"] == cell_key]
        for server in dict.fromkeys(map(server_name, here)):
            ours = _of(here, cell_key, server)
            sums = [_sum(ours, metric.name) for metric in metrics]
            if not any(sums):
                clean += 1
                continue
            figures = [_value(value, _whole) for value in (_sum(ours, "started"), *sums)]
            body.append((Value(cell.label), Value(server), *figures))
    return Table("losses", "What was lost, and where", headings, tuple(body)), clean


def trials_table(scenario: Scenario, rows: Sequence[Row]) -> Table:
    """Every trial, in the order of time."""
    labels = {cell.key: cell.label for cell in scenario.cells()}
    metrics = in_table("trials")
    body = []
    for row in sorted(rows, key=lambda row: row.get("order") or 0):
        verdict = "valid" if row["verdict"] == "valid" else f"invalid: {row.get('verdict_reason') or 'no reason given'}"
        figures = [_value(metric.of(row), metric.text) for metric in metrics]
        where = labels.get(row["cell_key"], "no cell of the scenario")
        numbers = [_value(row.get(name), _whole) for name in ("order", "trial")]
        body.append((*numbers, Value(where), Value(server_name(row)), *figures, Value(verdict)))
    headings = (
        Heading("order"), Heading("trial"), *_WHO, *map(_heading, metrics), Heading("verdict", is_figure=False)
    )  # fmt: skip
    bad = frozenset(number for number, row in enumerate(body) if row[-1].text != "valid")
    return Table("trials", "Every trial", headings, tuple(body), bad)


def _against(line: Line, reference: str) -> Value:
    if line.server == reference:
        return Value("reference", 1.0)
    return Value(str(line.ratio or "-"), line.ratio.ratio if line.ratio else None)


def _of(rows: Sequence[Row], cell_key: str, server: str) -> list[Row]:
    return [row for row in rows if row["cell_key"] == cell_key and server_name(row) == server]


def _median(rows: Sequence[Row], metric: Metric) -> float | None:
    known = [float(value) for row in rows if (value := metric.of(row)) is not None]
    return statistics.median(known) if known else None


def _sum(rows: Sequence[Row], name: str) -> int | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return sum(known) if known else None


def _heading(metric: Metric) -> Heading:
    return Heading(metric.heading, metric.meaning)


def _value(value: float | None, written: Callable[[float], str]) -> Value:
    return Value("-") if value is None else Value(written(value), value)


def _times(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _whole(value: float) -> str:
    return f"{value:.0f}"
