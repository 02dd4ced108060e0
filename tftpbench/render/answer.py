"""The answer of a run as sections: the sentence, thresholds, the table, what was left out, what next."""

import shlex

from tftpbench.analysis.summary import Answer, Line, judgements
from tftpbench.model.metrics import METRICS, Metric
from tftpbench.model.thresholds import State
from tftpbench.model.units import format_duration
from tftpbench.render.plain import plain, table_lines
from tftpbench.render.sections import Checks, Heading, Listing, Mark, Paragraph, Section, Table, Value

MARKS: dict[State, Mark] = {"held": "good", "missed": "bad", "not known": "unclear"}
OF_CEILING = "of ceiling"
IN_FLIGHT = "Most transfers in flight at once, as client.start spreads them"
# After so many of one sort, people want a number and not a longer list.
_LISTED_MAX = 8
_WIDTH_MAX = 100
# What servers did wrong, and who was left out, is what a run of many servers is made for.
_FINDINGS_MAX = 40
_RATIO = (
    "Blocks (or bytes) of this server for each of the other's, over pairs of trials of one round: a 20 % "
    "trimmed mean, and in brackets its 95 % interval. Under six pairs there is only the range that was seen."
)


def text(answer: Answer, folder: str, repeat: str, *, colour: bool = False) -> str:
    """The end of a run for a terminal, with where its files are and the command to repeat it."""
    next_ = (f"Files:  {folder}", f"Report: tftpbench report {shlex.quote(folder)}", f"Repeat: {repeat}")
    note = [Paragraph((answer.note,))] if answer.note else []
    return plain([*sections(answer), Paragraph(next_), *note], colour=colour)


def sections(answer: Answer) -> list[Section]:
    """The sentence and the table first, but for the thresholds between them where there are any."""
    checks = tuple((MARKS[each.state], each.threshold, each.reasons) for each in judgements(answer.thresholds))
    invalid = tuple(f"trial {each.trial}, {each.server}, {each.cell_label}: {each.reason}" for each in answer.invalid)
    return [
        Paragraph((answer.sentence,), is_answer=True),
        *([Checks(checks)] if checks else []),
        _fitting(headline_table(answer)),
        Listing(f"{IN_FLIGHT}:", answer.in_flight, _LISTED_MAX),
        Listing("What servers did wrong:", answer.findings, _FINDINGS_MAX),
        Listing("Invalid trials, kept and never used:", invalid, _LISTED_MAX),
        Listing("Protocol faults where transfers failed:", answer.faults, _LISTED_MAX),
        Listing("Too few valid trials:", answer.incomplete, _LISTED_MAX),
        Listing("Left out:", answer.skipped, _FINDINGS_MAX),
    ]


def headline_table(answer: Answer) -> Table:
    """Medians and ratios, a row per server and cell; those of a cell are a group."""
    is_best = answer.metric == "goodput_bytes_per_s"
    shares = answer.against == answer.reference and any(line.ceiling_ratio is not None for line in answer.lines)
    compared = any(line.ratio for line in answer.lines) or len({line.server for line in answer.lines}) > 1
    rate, cost = METRICS[answer.metric], METRICS["server_cpu_ns_per_block"]
    headings = [
        Heading("cell", "What was asked of the server.", is_figure=False),
        Heading("server", is_figure=False),
        *([Heading("at its best", "The options at which this server moves most.", is_figure=False)] if is_best else ()),
        Heading(rate.heading, f"Median over valid trials. {rate.meaning}"),
        *([Heading(OF_CEILING, METRICS["ceiling_ratio"].meaning)] if shares else ()),
        *([Heading(f"against {answer.against}", _RATIO)] if compared else ()),
        Heading("block rtt p50", "Round trip of a block, median over all valid trials together."),
        Heading("p99", "Round trip of a block, 99th percentile over all valid trials together."),
        Heading(cost.heading, cost.meaning),
        Heading("lost", "Transfers that failed, timed out or never got an answer, over all trials."),
        Heading("valid", "Trials that count, of those that were done."),
    ]

    def cells(line: Line) -> list[Value]:
        rtt = line.block_rtt
        return [
            Value(line.label),
            Value(line.server),
            *([Value(", ".join(line.cell.options.values()) or "no options")] if is_best else ()),
            figure(line.goodput_bytes_per_s if is_best else line.data_pps, rate),
            *([_times(line.ceiling_ratio)] if shares else ()),
            *([_against(line, answer.against)] if compared else ()),
            _duration(rtt.p50 if rtt else None),
            _duration(rtt.p99 if rtt else None),
            figure(line.server_cpu_ns_per_block, cost),
            Value(str(line.lost), line.lost),
            Value(f"{line.valid}/{line.trials}", line.valid),
        ]

    marked = frozenset(number for number, line in enumerate(answer.lines) if line.server == answer.against)
    rows = tuple(tuple(cells(line)) for line in answer.lines)
    return Table(
        "headline", "Figures", tuple(headings), rows, marked if compared else frozenset(), is_grouped=True
    )  # fmt: skip


def figure(value: float | None, metric: Metric) -> Value:
    """A figure in a table; "-" where it is not known."""
    return Value("-") if value is None else Value(metric.text(value), value)


def _fitting(table: Table) -> Table:
    """Without the share of the ceiling where the lines would be too long with it."""
    longest = max(map(len, table_lines(table)), default=0) if table.rows else 0
    return table if longest <= _WIDTH_MAX else table.without([OF_CEILING])


def _against(line: Line, reference: str) -> Value:
    if line.server == reference:
        return Value("", 1.0)
    return Value(str(line.ratio or "-"), line.ratio.ratio if line.ratio else None)


def _times(value: float | None) -> Value:
    return Value("-") if value is None else Value(f"{value:.2f}x", value)


def _duration(value: float | None) -> Value:
    return Value("-") if value is None else Value(format_duration(value), value)
