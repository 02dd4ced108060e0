"""A gate as sections: the sentence, the table of figures, noise, remarks, and how to have it again.

It must never compute a figure.
"""

import math
from collections.abc import Mapping, Sequence

from tftpbench.gate.result import GateResult, Judgement, Verdict
from tftpbench.gate.text import budget_text, interval, metric_words, percent, signed
from tftpbench.model.budgets import KNOWN
from tftpbench.model.programs import typed
from tftpbench.model.units import counted
from tftpbench.render.plain import table_lines
from tftpbench.render.sections import Heading, Listing, Mark, Paragraph, Section, Table, Value

_MARKS: Mapping[Verdict, Mark] = {Verdict.REGRESSED: "bad", Verdict.PASS: "good", Verdict.IMPROVED: "good"}
_LISTED_MAX = 8
# Where the output is no terminal: logs show long lines.
WIDTH = 120
# What a narrow terminal goes without, the first one first: gate.json and report.md have all of it.
_DISPENSABLE = ("pairs", "caught from", "head", "base", "budget")
_HEADINGS = (
    Heading("cell", is_figure=False), Heading("metric", is_figure=False), Heading("base"), Heading("head"),
    Heading("change (95 % interval)"), Heading("budget"), Heading("verdict", is_figure=False), Heading("caught from"),
    Heading("pairs"),
)  # fmt: skip
# Of a text from outside: a version or a command may be a page long.
_TEXT_MAX = 400
_CELL_MAX = 100
# An altered file may hold more than anything ever was, in any unit.
_FIGURE_MAX = 1e18


def sections(result: GateResult, width: int = WIDTH) -> list[Section]:
    """The verdict in one sentence comes first. `width`: of the terminal; the table has the columns that fit."""
    files = (f"Files:  {result.folder}",) if result.folder else ()
    repeat = (f"Repeat: {typed(result.facts.command)}",) if result.facts.command else ()
    return [
        Paragraph((result.sentence,), is_answer=True),
        fitting(result, width),
        noise(result, _LISTED_MAX),
        Listing("Remarks:", result.remarks),
        Paragraph((*files, *repeat)),
    ]


def fitting(result: GateResult, width: int) -> Table:
    """The table for a terminal: those of a cell are a group, and columns that there is no room for are left out."""
    cells = list(dict.fromkeys(each.cell for each in result.judgements))
    found = table(sorted(result.judgements, key=lambda each: cells.index(each.cell)))
    for title in _DISPENSABLE:
        if not found.rows or max(map(len, table_lines(found))) <= width:
            break
        found = found.without(title)
    return found


def table(judgements: Sequence[Judgement]) -> Table:
    """A row for each of the judgements, in their order, with the cell where there are several."""
    several = len({each.cell for each in judgements}) > 1
    marks: tuple[Mark, ...] = tuple(mark(each) for each in judgements)
    whole = Table("gate", "Figures", _HEADINGS, tuple(map(_row, judgements)), is_grouped=several, marks=marks)
    return whole if several else whole.without("cell")


def mark(judgement: Judgement) -> Mark:
    """Whether it is good news; of what is never gated, neither."""
    if judgement.budget is None:
        return ""
    return "unclear" if judgement.verdict is None else _MARKS.get(judgement.verdict, "unclear")


def noise(result: GateResult, most: int) -> Listing:
    """How far apart two starts of the same base were."""
    named = len({each.cell for each in result.judgements}) > 1
    known = tuple(
        shortened(
            f"{metric_words(each, named=named)} {signed(each.ratio)} ({signed(each.lowest)} to {signed(each.highest)})"
        )
        for each in result.noise
        if each.ratio is not None and each.lowest is not None and each.highest is not None
    )
    pairs = max((each.pairs for each in result.noise), default=0)
    title = f"Noise: a second start of the base against the first, in {counted(pairs, 'pair')}:"
    return Listing(title, known, most)


def shortened(text: object, longest: int = _TEXT_MAX) -> str:
    """A text of bounded length."""
    whole = str(text)
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"


def _row(each: Judgement) -> tuple[Value, ...]:
    return (
        Value(shortened(each.cell, _CELL_MAX)),
        Value(metric_words(each, named=False)),
        _figure(each.metric, each.base),
        _figure(each.metric, each.head),
        Value(interval(each), each.ratio),
        Value("" if each.budget is None else budget_text(each.budget), each.budget),
        Value(each.verdict or ("not judged" if each.budget is not None else "not gated")),
        Value("" if each.smallest_effect is None else percent(each.smallest_effect), each.smallest_effect),
        Value(str(each.pairs), each.pairs),
    )


def _figure(name: str, value: float | None) -> Value:
    """With its unit where the metric's words do not say it."""
    metric = KNOWN.get(name)
    if value is None or not math.isfinite(value):
        return Value("-")
    return Value(metric.text(value) if metric and abs(value) < _FIGURE_MAX else f"{value:.4g}", value)
