"""A Comparison for people: plain text for a terminal, Markdown for a pull request, HTML for a notebook.

It must never compute a figure.
"""

from collections.abc import Iterator, Sequence
from html import escape

from tftpbench.analysis.comparison.cells import Compared
from tftpbench.analysis.comparison.result import Comparison
from tftpbench.model.escape import markdown as as_markdown
from tftpbench.model.escape import markdown_block, visible_line
from tftpbench.model.units import format_count

_HEADER = ("server", "A data/s", "B data/s", "B over A", "CPU/block", "verdict")


def text(comparison: Comparison) -> str:
    """Sentence, warnings, table, what was left out, notes."""
    blocks = [
        [comparison.sentence],
        *([title, *(f"  {line}" for line in lines)] for title, lines in _lists(comparison)),
    ]
    blocks.insert(2 if comparison.warnings else 1, _table(comparison.rows))
    names = [f"A: {comparison.a.path}", f"B: {comparison.b.path}"]
    return "\n\n".join("\n".join(map(visible_line, block)) for block in [*blocks, names])


def markdown(comparison: Comparison) -> str:
    """The same for GitHub."""
    head = ("cell", *_HEADER)
    rows = [(row.label, *_cells(row)) for row in comparison.rows]
    table = [head, tuple("---" for _ in head), *(tuple(as_markdown(cell) for cell in row) for row in rows)]
    lines = [f"**{as_markdown(comparison.sentence)}**", "", *(f"| {' | '.join(row)} |" for row in table)]
    for title, entries in _lists(comparison):
        lines += ["", title, "", *(f"- {markdown_block(entry)}" for entry in entries)]
    return "\n".join([*lines, "", f"A: {as_markdown(comparison.a.path)}<br>B: {as_markdown(comparison.b.path)}"])


def html(comparison: Comparison) -> str:
    """The same for a notebook; whatever a run may hold is escaped."""
    head = "".join(f"<th>{_escaped(name)}</th>" for name in ("cell", *_HEADER))
    rows = [(row.label, *_cells(row)) for row in comparison.rows]
    body = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    lists = "".join(
        f"<p>{_escaped(title)}</p><ul>{''.join(f'<li>{_escaped(line)}</li>' for line in lines)}</ul>"
        for title, lines in _lists(comparison)
    )
    return f"<p><strong>{_escaped(comparison.sentence)}</strong></p><table><tr>{head}</tr>{body}</table>{lists}"


def _lists(comparison: Comparison) -> Iterator[tuple[str, Sequence[str]]]:
    titled = (("Warnings:", comparison.warnings), ("Left out:", comparison.left_out), ("Notes:", comparison.notes))
    return ((title, lines) for title, lines in titled if lines)


def _table(rows: Sequence[Compared]) -> list[str]:
    cells = [_HEADER, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:-1], widths[1:-1]), row[-1]]) for row in cells
    ]
    out, previous = [f"  {header}"], None
    for row, line in zip(rows, lines, strict=True):
        if row.label != previous:
            out.append(row.label)
            previous = row.label
        out.append(f"  {line}")
    return out


def _cells(row: Compared) -> tuple[str, ...]:
    rates = [format_count(rate) for rate in (row.a_data_pps, row.b_data_pps)]
    return (row.contender, *rates, str(row.moved), f"{row.cpu.ratio:.2f}x" if row.cpu else "-", row.verdict)


def _escaped(words: str) -> str:
    return escape(visible_line(words))
