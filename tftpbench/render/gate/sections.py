"""A gate as sections: the sentence, the table of figures, noise, remarks, and how to have it again.

It must never compute a figure.
"""

from collections.abc import Mapping

from tftpbench.gate.result import GateResult, Judgement, Noise, Verdict
from tftpbench.gate.text import budget_text, interval, percent, signed
from tftpbench.model.programs import typed
from tftpbench.render.gate.markdown import figure_text, metric_of
from tftpbench.render.sections import Heading, Listing, Mark, Paragraph, Section, Table, Value

_MARKS: Mapping[Verdict, Mark] = {Verdict.REGRESSED: "bad", Verdict.PASS: "good", Verdict.IMPROVED: "good"}
_LISTED_MAX = 8


def sections(result: GateResult) -> list[Section]:
    """The verdict in one sentence comes first."""
    files = (f"Files:  {result.folder}",) if result.folder else ()
    repeat = (f"Repeat: {typed(result.facts.command)}",) if result.facts.command else ()
    return [
        Paragraph((result.sentence,), is_answer=True),
        _table(result),
        _noise(result),
        Paragraph(result.remarks),
        Paragraph((*files, *repeat)),
    ]


def _table(result: GateResult) -> Table:
    several = len({each.cell for each in result.judgements}) > 1
    headings = (
        Heading("metric", is_figure=False), Heading("base"), Heading("head"), Heading("head / base (95 %)"),
        Heading("budget"), Heading("verdict", is_figure=False), Heading("caught from"),
    )  # fmt: skip
    rows = tuple(_row(each, several) for each in result.judgements)
    marks: tuple[Mark, ...] = tuple(
        "" if each.verdict is None else _MARKS.get(each.verdict, "unclear") for each in result.judgements
    )
    return Table("gate", "Figures", headings, rows, marks=marks)


def _row(each: Judgement, several: bool) -> tuple[Value, ...]:
    return (
        Value(_name(each, several)),
        Value(figure_text(each.metric, each.base), each.base),
        Value(figure_text(each.metric, each.head), each.head),
        Value(interval(each), each.ratio),
        Value("" if each.budget is None else budget_text(each.budget), each.budget),
        Value(each.verdict or ("not judged" if each.budget is not None else "not gated")),
        Value("" if each.smallest_effect is None else percent(each.smallest_effect), each.smallest_effect),
    )


def _noise(result: GateResult) -> Listing:
    """How far apart two starts of the same base were."""
    several = len({each.cell for each in result.judgements}) > 1
    known = tuple(
        f"{_name(each, several)} {signed(each.ratio)} ({signed(each.lowest)} to {signed(each.highest)})"
        for each in result.noise
        if each.ratio is not None and each.lowest is not None and each.highest is not None
    )
    pairs = max((each.pairs for each in result.noise), default=0)
    return Listing(f"Noise, a second base against the base, {pairs} times:", known, _LISTED_MAX)


def _name(each: Judgement | Noise, several: bool) -> str:
    metric = metric_of(each.metric)
    words = metric.words if metric else each.metric
    return f"{words}, {each.cell}" if several else words
