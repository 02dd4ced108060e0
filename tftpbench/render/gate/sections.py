"""A gate as sections: the sentence, the table of figures, noise, remarks, and how to have it again.

It must never compute a figure.
"""

import shlex
from collections.abc import Mapping

from tftpbench.gate.result import GateResult, Judgement, Verdict
from tftpbench.gate.text import budget_text, interval, percent, signed
from tftpbench.model.units import counted
from tftpbench.render.gate.markdown import figure_text, has_cells, metric_of, named
from tftpbench.render.plain import table_lines
from tftpbench.render.sections import Heading, Listing, Mark, Paragraph, Section, Table, Value

_MARKS: Mapping[Verdict, Mark] = {Verdict.REGRESSED: "bad", Verdict.PASS: "good", Verdict.IMPROVED: "good"}
_LISTED_MAX = 8
# Of a narrow terminal. What is left out there first: gate.json and report.md have all of it.
WIDTH = 80
_DISPENSABLE = ("caught from", "head", "base", "budget")


def sections(result: GateResult, width: int = WIDTH) -> list[Section]:
    """The verdict in one sentence comes first. `width`: of the terminal; the table has the columns that fit."""
    files = (f"Files:  {result.folder}",) if result.folder else ()
    repeat = (f"Repeat: {shlex.join(result.facts.command)}",) if result.facts.command else ()
    return [
        Paragraph((result.sentence,), is_answer=True),
        _fitting(_table(result), width),
        _noise(result),
        Paragraph(result.remarks),
        Paragraph((*files, *repeat)),
    ]


def _table(result: GateResult) -> Table:
    """A row a metric; where there are several cells, those of a cell are a group."""
    cells = list(dict.fromkeys(each.cell for each in result.judgements))
    judgements = sorted(result.judgements, key=lambda each: cells.index(each.cell))
    headings = (
        Heading("cell", is_figure=False), Heading("metric", is_figure=False), Heading("base"), Heading("head"),
        Heading("change (95 % interval)"), Heading("budget"), Heading("verdict", is_figure=False),
        Heading("caught from"),
    )  # fmt: skip
    marks: tuple[Mark, ...] = tuple(
        "" if each.verdict is None else _MARKS.get(each.verdict, "unclear") for each in judgements
    )
    table = Table("gate", "Figures", headings, tuple(map(_row, judgements)), is_grouped=len(cells) > 1, marks=marks)
    return table if table.is_grouped else table.without(["cell"])


def _fitting(table: Table, width: int) -> Table:
    """The table without the columns that there is no room for."""
    for title in _DISPENSABLE:
        if not table.rows or max(map(len, table_lines(table))) <= width:
            break
        table = table.without([title])
    return table


def _row(each: Judgement) -> tuple[Value, ...]:
    metric = metric_of(each.metric)
    return (
        Value(each.cell),
        Value(metric.words if metric else each.metric),
        Value(figure_text(each.metric, each.base), each.base),
        Value(figure_text(each.metric, each.head), each.head),
        Value(interval(each), each.ratio),
        Value("" if each.budget is None else budget_text(each.budget), each.budget),
        Value(each.verdict or ("not judged" if each.budget is not None else "not gated")),
        Value("" if each.smallest_effect is None else percent(each.smallest_effect), each.smallest_effect),
    )


def _noise(result: GateResult) -> Listing:
    """How far apart two starts of the same base were."""
    several = has_cells(result)
    known = tuple(
        f"{named(each, several)} {signed(each.ratio)} ({signed(each.lowest)} to {signed(each.highest)})"
        for each in result.noise
        if each.ratio is not None and each.lowest is not None and each.highest is not None
    )
    pairs = max((each.pairs for each in result.noise), default=0)
    title = f"Noise: a second start of the base against the first, in {counted(pairs, 'pair')}:"
    return Listing(title, known, _LISTED_MAX)
