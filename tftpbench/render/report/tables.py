"""Tables of a report: texts for people, each with the figure or word that it sorts by.

Figures come from an Answer or are medians of valid trials; nothing else is computed.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tftpbench.analysis.summary import Answer, Line
from tftpbench.model.metrics import COLUMNS
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import format_bytes, format_count, format_duration

Row = Mapping[str, Any]
# What says that something got lost, in the order in which one asks: whose doing was it?
LOSSES = {
    "failed": "failed",
    "timed_out": "timed out",
    "interrupted": "cut off",
    "unanswered": "unanswered",
    "content_mismatches": "wrong bytes",
    "retransmissions": "sent again",
    "duplicates": "duplicates",
    "udp_drops_server": "drops: server",
    "udp_drops_generator": "generator",
    "udp_drops_host": "host",
}


class Value(NamedTuple):
    """What is read, and what it sorts by: a number, or else the text itself."""

    text: str
    sort: float | None = None


class Heading(NamedTuple):
    """A column: its title, what it means, and whether it holds figures."""

    title: str
    meaning: str = ""
    is_figure: bool = True


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
        Heading("bytes/s" if is_best else "data/s", f"Median over valid trials. {COLUMNS[answer.metric].meaning}"),
        *([Heading("of ceiling", "Median of data_pps over that of the bare kernel.")] if shares else ()),
        *([Heading(f"against {answer.against}", _RATIO)] if compared else ()),
        Heading("block rtt p50", "Round trip of a block, median over all valid trials together."),
        Heading("p99", "Round trip of a block, 99th percentile over all valid trials together."),
        Heading("CPU/block", COLUMNS["server_cpu_ns_per_block"].meaning),
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
            _value(rate, _rate),
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
    columns: list[tuple[str, str, Callable[[float], str]]] = [
        ("first_response_ns_p50", "first answer", format_duration),
        ("transfer_ns_p50", "transfer", format_duration),
        ("server_cpu_ns_per_block", "CPU/block", format_duration),
        ("switches_per_block", "switches/block", lambda value: f"{value:.2g}"),
        ("server_busy_fraction", "server busy", _percent),
        ("generator_busy_fraction", "generator busy", _percent),
        ("server_threads_max", "threads", _whole),
        ("server_rss_bytes_max", "memory", format_bytes),
        ("fairness", "slowest/median", _times),
        ("retransmissions", "sent again", _whole),
    ]
    headings = [Heading("cell", is_figure=False), Heading("server", is_figure=False)]
    headings += [Heading(title, _meaning(name)) for name, title, _ in columns]
    body = []
    for line in answer.lines:
        valid = [row for row in _of(rows, line.cell.key, line.server) if row["verdict"] == "valid"]
        figures = [_value(_median(valid, name), written) for name, _, written in columns]
        body.append((Value(line.label), Value(line.server), *figures))
    return Table("cost", "What it cost the server", tuple(headings), tuple(body))


def loss_table(scenario: Scenario, rows: Sequence[Row]) -> tuple[Table, int]:
    """Where transfers and datagrams were lost, and by whom: sums over all trials, valid or not.

    Only servers and cells that lost anything; the other result is how many lost nothing.
    """
    headings = [Heading("cell", is_figure=False), Heading("server", is_figure=False)]
    headings += [Heading("started", COLUMNS["started"].meaning)]
    headings += [Heading(title, _meaning(name)) for name, title in LOSSES.items()]
    body, clean = [], 0
    for cell in scenario.cells():
        cell_key = cell.key
        here = [row for row in rows if row["cell_key"] == cell_key]
        for server in dict.fromkeys(map(server_name, here)):
            ours = _of(here, cell_key, server)
            sums = [_sum(ours, name) for name in LOSSES]
            if not any(sums):
                clean += 1
                continue
            figures = [_value(value, _whole) for value in (_sum(ours, "started"), *sums)]
            body.append((Value(cell.label), Value(server), *figures))
    return Table("losses", "What was lost, and where", tuple(headings), tuple(body)), clean


def trials_table(scenario: Scenario, rows: Sequence[Row]) -> Table:
    """Every trial, in the order of time."""
    labels = {cell.key: cell.label for cell in scenario.cells()}
    names = ("data_pps", "block_rtt_ns_p50", "block_rtt_ns_p99", "transfer_ns_p50", "server_cpu_ns_per_block",
             "completed", "failed", "timed_out", "generator_busy_fraction")  # fmt: skip
    ways: dict[str, Callable[[float], str]] = {"data_pps": _rate, "generator_busy_fraction": _percent}
    titles = ("order", "trial", "cell", "server", "data/s", "block rtt p50", "p99", "transfer p50", "CPU/block",
              "completed", "failed", "timed out", "generator busy", "verdict")  # fmt: skip
    body = []
    for row in sorted(rows, key=lambda row: row.get("order") or 0):
        verdict = "valid" if row["verdict"] == "valid" else f"invalid: {row.get('verdict_reason') or 'no reason given'}"
        figures = [
            _value(row.get(name), ways.get(name, format_duration if "_ns_" in name else _whole)) for name in names
        ]
        where = labels.get(row["cell_key"], "no cell of the scenario")
        numbers = [_value(row.get(name), _whole) for name in ("order", "trial")]
        body.append((*numbers, Value(where), Value(server_name(row)), *figures, Value(verdict)))
    words = {"cell", "server", "verdict"}
    headings = tuple(Heading(title, is_figure=title not in words) for title in titles)
    bad = frozenset(number for number, row in enumerate(body) if row[-1].text != "valid")
    return Table("trials", "Every trial", headings, tuple(body), bad)


def _against(line: Line, reference: str) -> Value:
    if line.server == reference:
        return Value("reference", 1.0)
    return Value(str(line.ratio or "-"), line.ratio.ratio if line.ratio else None)


def _of(rows: Sequence[Row], cell_key: str, server: str) -> list[Row]:
    return [row for row in rows if row["cell_key"] == cell_key and server_name(row) == server]


def _median(rows: Sequence[Row], name: str) -> float | None:
    if name == "switches_per_block":
        known = [switches for row in rows if (switches := _switches(row)) is not None]
    else:
        known = [float(row[name]) for row in rows if row.get(name) is not None]
    return statistics.median(known) if known else None


def _switches(row: Row) -> float | None:
    """Both are counted from READY to the end of the window; the blocks are what the CPU time was divided by."""
    switches, cpu_s, per_block = (
        row.get(name) for name in ("server_context_switches", "server_cpu_s", "server_cpu_ns_per_block")
    )
    if switches is None or not cpu_s or not per_block:
        return None
    return float(switches / (cpu_s * 1e9 / per_block))


def _sum(rows: Sequence[Row], name: str) -> int | None:
    known = [row[name] for row in rows if row.get(name) is not None]
    return sum(known) if known else None


def _meaning(name: str) -> str:
    if name == "switches_per_block":
        return "Context switches of the server for each DATA block acknowledged in order."
    return COLUMNS[name].meaning


def _value(value: float | None, written: Callable[[float], str]) -> Value:
    return Value("-") if value is None else Value(written(value), value)


def _rate(value: float) -> str:
    return format_count(value)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _times(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _whole(value: float) -> str:
    return f"{value:.0f}"
