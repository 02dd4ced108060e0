"""A comparison of two runs as sections: the sentence, warnings, the table, what was left out, notes."""

from tftpbench.analysis.comparison import Comparison
from tftpbench.analysis.comparison.differences import Compared
from tftpbench.model.metrics import METRICS
from tftpbench.render.answer import figure
from tftpbench.render.sections import Heading, Listing, Paragraph, Section, Table, Value


def sections(comparison: Comparison) -> list[Section]:
    """What is to be known before the table stands before it."""
    return [
        Paragraph((comparison.sentence,), is_answer=True),
        Listing("Warnings:", comparison.warnings),
        _table(comparison),
        Listing("Left out:", comparison.left_out),
        Listing("Notes:", comparison.notes),
        Paragraph((f"A: {comparison.a.path}", f"B: {comparison.b.path}")),
    ]


def _table(comparison: Comparison) -> Table:
    rate, cost = METRICS["data_pps"].heading, METRICS["server_cpu_ns_per_block"].heading
    figures = (f"A {rate}", f"B {rate}", "B over A", cost)
    headings = (
        Heading("cell", is_figure=False),
        Heading("server", is_figure=False),
        *map(Heading, figures),
        Heading("verdict", is_figure=False),
    )
    rows = tuple(_row(row) for row in comparison.rows)
    return Table("comparison", "Figures", headings, rows, is_grouped=True)


def _row(row: Compared) -> tuple[Value, ...]:
    rate = METRICS["data_pps"]
    cost = Value(f"{row.cpu.ratio:.2f}x", row.cpu.ratio) if row.cpu else Value("-")
    rates = figure(row.a_data_pps, rate), figure(row.b_data_pps, rate)
    return (
        Value(row.label), Value(row.contender), *rates, Value(str(row.moved), row.moved.ratio), cost, Value(row.verdict)
    )  # fmt: skip
