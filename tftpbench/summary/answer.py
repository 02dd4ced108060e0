"""From rows of results to an Answer: medians, paired ratios, thresholds, and the exit code that follows.

Pure. It must never average a percentile: those come merged, from whoever can read histograms. Called by
`tftpbench.summary`.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tftpbench import thresholds
from tftpbench.scenario import Cell, Scenario
from tftpbench.stats import Ratio, paired_ratio
from tftpbench.summary.sentence import answer_sentence
from tftpbench.thresholds import Verdict, server_name
from tftpbench.units import counted

_EXAMPLE_MAX = 60  # of a datagram's hex dump, enough to know it; the whole is in trials.jsonl

Row = Mapping[str, Any]


class Quantiles(NamedTuple):
    """Of merged histograms, in ns."""

    p50: float
    p99: float


@dataclass(frozen=True)
class Line:
    """One server in one cell. `ratio` compares its data_pps with the first server's; None for the first one itself."""

    cell: Cell
    server: str
    valid: int
    trials: int
    data_pps: float | None
    ratio: Ratio | None
    block_rtt: Quantiles | None
    server_cpu_ns_per_block: float | None
    failed: int
    """Transfers that failed or timed out, over all trials."""


@dataclass(frozen=True)
class Invalid:
    """A trial that must not be used, and why."""

    trial: int
    server: str
    cell_label: str
    reason: str


@dataclass(frozen=True)
class Judged:
    """A threshold's verdict in one cell."""

    cell_label: str
    verdict: Verdict


@dataclass(frozen=True)
class Answer:
    """Everything that the end of a run says."""

    sentence: str
    thresholds: tuple[Judged, ...]
    lines: tuple[Line, ...]
    invalid: tuple[Invalid, ...]
    skipped: tuple[str, ...]
    incomplete: tuple[str, ...]
    """Cells that were left with too few valid trials to judge what was asked."""
    faults: tuple[str, ...] = ()
    """What the servers did against the RFCs in trials where transfers failed."""

    @property
    def exit_code(self) -> int:
        """0, 3 when a threshold was missed, else 6 when something asked for could not be judged."""
        states = {judged.verdict.state for judged in self.thresholds}
        if "missed" in states:
            return 3
        return 6 if "not known" in states or self.incomplete else 0


def summarise(
    scenario: Scenario,
    servers: Sequence[str],
    rows: Sequence[Row],
    placement: str,
    skipped: Sequence[tuple[str, str | None, str]] = (),
    block_rtt: Callable[[str, str], Quantiles | None] = lambda _key, _server: None,
) -> Answer:
    """Answer the scenario's question from the rows of its trials.

    `servers` in the scenario's order, the first being what the others are compared with; `placement` as in "on one
    core"; `skipped` as (server, cell key or None for all of them, reason); `block_rtt(cell_key, server)` gives
    quantiles of merged histograms.
    """
    cells = scenario.cells()
    left_out = {(server, key) for server, key, _ in skipped}
    present = [server for server in servers if (server, None) not in left_out]
    lines = tuple(
        _line(cell, server, present[0], rows, block_rtt)
        for cell in cells
        for server in present
        if (server, cell.key) not in left_out
    )
    labels = {cell.key: cell.label for cell in cells}
    return Answer(
        sentence=answer_sentence(lines, present, placement),
        thresholds=_judge(scenario, cells, rows, left_out),
        lines=lines,
        invalid=tuple(
            Invalid(row["trial"], server_name(row), labels[row["cell_key"]], str(row["verdict_reason"]))
            for row in rows
            if row["verdict"] != "valid"
        ),
        skipped=tuple(f"{server}{f', {labels[key]}' if key else ''}: {reason}" for server, key, reason in skipped),
        incomplete=_incomplete(lines) if scenario.trials > 1 else (),  # one trial a cell is a look, not a judgement
        faults=_faults(rows),
    )


def _line(
    cell: Cell, server: str, reference: str, rows: Sequence[Row], block_rtt: Callable[[str, str], Quantiles | None]
) -> Line:
    ours = [row for row in rows if row["cell_key"] == cell.key and server_name(row) == server]
    valid = [row for row in ours if row["verdict"] == "valid"]
    return Line(
        cell=cell,
        server=server,
        valid=len(valid),
        trials=len(ours),
        data_pps=_median(valid, "data_pps"),
        ratio=None if server == reference else _ratio(cell, server, reference, rows),
        block_rtt=block_rtt(cell.key, server) if valid else None,
        server_cpu_ns_per_block=_median(valid, "server_cpu_ns_per_block"),
        failed=sum((row.get("failed") or 0) + (row.get("timed_out") or 0) for row in ours),
    )


def _ratio(cell: Cell, server: str, reference: str, rows: Sequence[Row]) -> Ratio | None:
    """Over the rounds in which both sides have a valid trial that moved anything at all."""
    rates: dict[str, dict[int, float]] = {server: {}, reference: {}}
    for row in rows:
        name, pps = server_name(row), row.get("data_pps")
        if row["cell_key"] == cell.key and name in rates and row["verdict"] == "valid" and pps:
            rates[name][row["round"]] = float(pps)
    rounds = sorted(rates[server].keys() & rates[reference].keys())
    if not rounds:
        return None
    return paired_ratio([rates[server][each] for each in rounds], [rates[reference][each] for each in rounds])


def _judge(
    scenario: Scenario, cells: Sequence[Cell], rows: Sequence[Row], left_out: set[tuple[str, str | None]]
) -> tuple[Judged, ...]:
    """A threshold that speaks of a server which is left out of a cell asks nothing there."""
    judged: list[Judged] = []
    for cell in cells:
        here = [row for row in rows if row["cell_key"] == cell.key]
        absent = {server for server, key in left_out if key in (None, cell.key)}
        found = thresholds.evaluate(scenario.checks, here)
        judged += [
            Judged(cell.label, each)
            for each in found
            if each.threshold.server not in absent and not (each.server == "" and absent)
        ]
    return tuple(judged)


def _incomplete(lines: Sequence[Line]) -> tuple[str, ...]:
    """A server without a valid trial in a cell, or without a pair to compare it by."""
    found: list[str] = []
    for line in lines:
        compared = line.server != lines[0].server
        if line.valid == 0:
            found.append(f"{line.server}, {line.cell.label}: none of {line.trials} trials is valid")
        elif compared and line.ratio is None and line.data_pps:
            found.append(f"{line.server}, {line.cell.label}: no pair of valid trials to compare it by")
    return tuple(found)


def _faults(rows: Sequence[Row]) -> tuple[str, ...]:
    """Each kind of each server once, with the first example, over the trials that had something go wrong.

    Where nothing failed they are harmless: a late datagram, or a second answer to a request that was sent twice.
    """
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for row in rows:
        hurt = any(row.get(name) for name in ("failed", "timed_out", "content_mismatches"))
        for fault in (row.get("protocol_faults") or ()) if hurt else ():
            kind = (server_name(row), str(fault["kind"]))
            counts[kind] += int(fault["count"])
            examples.setdefault(kind, str(fault["example"]))
    return tuple(
        f"{server}, {kind}: {counted(count, 'time')}, as in: {examples[server, kind][:_EXAMPLE_MAX]}"
        for (server, kind), count in counts.items()
    )


def _median(rows: Sequence[Row], column: str) -> float | None:
    known = [float(row[column]) for row in rows if row.get(column) is not None]
    return statistics.median(known) if known else None
