"""Tables of a report: texts for people, each with the figure or word that it sorts by.

Figures come from an Answer or are medians of valid trials; nothing else is computed.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tftpbench.analysis.summary import Answer
from tftpbench.model import axes
from tftpbench.model.metrics import METRICS, Metric, in_table
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import server_name
from tftpbench.render.answer import figure
from tftpbench.render.sections import UNKNOWN, Heading, Table, Value

Row = Mapping[str, Any]


# In place of others where times of completed transfers would flatter: at a rate, and of machines that boot.
_AT_A_RATE = {"transfer_ns_p50": replace(METRICS["response_ns_p99"], short="response p99")}
_OF_BOOTS = {
    "completed": METRICS["booted"],
    "failed": METRICS["boots_failed"],
    "timed_out": METRICS["boots_late"],
    "transfer_ns_p50": replace(METRICS["boot_ns_p99"], short="boot p99"),
}
_WHO = (Heading("cell", is_figure=False), Heading("server", is_figure=False))


def cost_table(answer: Answer, rows: Sequence[Row]) -> Table:
    """What the work cost the server: medians over valid trials, which is where reasons are found."""
    metrics = in_table("cost")
    body = []
    for line in answer.lines:
        valid = [row for row in _of(rows, line.cell.key, line.server) if row["verdict"] == "valid"]
        figures = [figure(_median(valid, metric), metric) for metric in metrics]
        body.append((Value(line.label), Value(line.server), *figures))
    return Table("cost", "What it cost the server", (*_WHO, *map(_heading, metrics)), tuple(body)).known()


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
            figures = [
                figure(value, metric)
                for value, metric in zip((_sum(ours, "started"), *sums), (METRICS["started"], *metrics), strict=True)
            ]
            body.append((Value(cell.label), Value(server), *figures))
    return Table("losses", "What was lost, and where", headings, tuple(body)).known(), clean


def unharmed(cells: int, is_any_harmed: bool) -> str:
    """In how many rows that the table of losses leaves out nothing was lost."""
    if not cells:
        return ""
    others = "other cells" if is_any_harmed else "cells"
    return f"Nothing was lost or sent again in {cells} {others} (each server's cells counted)."


def trials_table(scenario: Scenario, rows: Sequence[Row]) -> Table:
    """Every trial, in the order of time."""
    labels = {cell.key: cell.label for cell in scenario.cells()}
    cells = scenario.cells()
    others = _OF_BOOTS if cells[0].is_boots else _AT_A_RATE if all(cell.open_loop for cell in cells) else {}
    metrics = [others.get(each.name, each) for each in in_table("trials")]
    body = []
    for row in sorted(rows, key=lambda row: row.get("order") or 0):
        verdict = "valid" if row["verdict"] == "valid" else f"invalid: {row.get('verdict_reason') or 'no reason given'}"
        figures = [figure(metric.of(row), metric) for metric in metrics]
        where = labels.get(row["cell_key"]) or _elsewhere(scenario, row)
        numbers = [
            Value(str(row[name]), row[name]) if row.get(name) is not None else Value(UNKNOWN)
            for name in ("order", "trial")
        ]
        body.append((*numbers, Value(where), Value(server_name(row)), *figures, Value(verdict)))
    headings = (
        Heading("order"), Heading("trial"), *_WHO, *map(_heading, metrics), Heading("verdict", is_figure=False)
    )  # fmt: skip
    bad = frozenset(number for number, row in enumerate(body) if row[-1].text != "valid")
    return Table("trials", "Every trial", headings, tuple(body), bad).known()


def _elsewhere(scenario: Scenario, row: Row) -> str:
    """Where a trial was that is of no cell: of a search, at the load that it tried."""
    if not scenario.capacity:
        return "no cell of the scenario"
    return axes.label({name: row.get(name) for name in axes.AXES})


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
