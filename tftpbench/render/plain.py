"""Sections as plain lines for a terminal; colour only where asked for. What is said is a maker's."""

import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby

from tftpbench.model.escape import visible_line
from tftpbench.render.sections import Checks, Listing, Mark, Paragraph, Section, Table, shortened, unmarked
from tftpbench.render.terminal import has_ticks

# ECMA-48, SGR; `terminal` lets these and no other sequence through.
_BOLD, _OFF = "\x1b[1m", "\x1b[0m"
_COLOURS: dict[Mark, str] = {"good": "\x1b[32m", "bad": "\x1b[31m", "unclear": "\x1b[33m"}
_SIGNS: dict[Mark, str] = {"good": "✓", "bad": "✗", "unclear": "?", "": " "}
# The same where the terminal has no ticks: words before a check, one character in a table.
_WORDS: dict[Mark, str] = {"good": "ok", "bad": "missed", "unclear": "?", "": " "}
_LETTERS: dict[Mark, str] = {"good": "+", "bad": "x", "unclear": "?", "": " "}
# Under a check, people want a few places and not all.
_REASONS_MAX = 8


def plain(sections: Sequence[Section], *, colour: bool = False, width: int | None = None) -> str:
    """The sections that have something to say, an empty line between them; no last line end.

    Answers, prose and lists are wrapped to `width`, where there is one. Commands are not, as people copy them.
    """
    blocks = [_block(section, colour=colour, width=width) for section in sections]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def table_lines(table: Table, *, colour: bool = False) -> list[str]:
    """The table's lines without its notes, figures to the right; what a group has in common stands above its rows."""
    first = 1 if table.is_grouped else 0
    head = [heading.title for heading in table.headings[first:]]
    rows = [[visible_line(value.text) for value in row[first:]] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    left = [not heading.is_figure for heading in table.headings[first:]]
    known = _SIGNS if has_ticks(sys.stdout.encoding) else _LETTERS
    signs = [f"{known[mark]} " for mark in table.marks] if table.marks else [""] * len(rows)

    no_marks = unmarked(len(rows))

    def line(texts: Sequence[str]) -> str:
        fitted = zip(texts, widths, left, strict=True)
        return "  ".join(
            text.ljust(width) if is_left else text.rjust(width) for text, width, is_left in fitted
        ).rstrip()

    painted = [
        _painted(f"{sign}{line(row)}", _COLOURS.get(mark, ""), colour=colour)
        for sign, row, mark in zip(signs, rows, table.marks or no_marks, strict=True)
    ]
    header = f"{'  ' if table.marks else ''}{line(head)}"
    if not table.is_grouped:
        return [header, *painted]
    out = [f"  {header}"]
    for group, members in groupby(zip(table.rows, painted, strict=True), key=lambda each: each[0][0].text):
        out += [visible_line(group), *(f"  {text}" for _, text in members)]
    return out


def _block(section: Section, *, colour: bool, width: int | None) -> list[str]:
    if isinstance(section, Paragraph):
        room, code = width if section.is_answer or section.is_prose else None, _BOLD if section.is_answer else ""
        return [_painted(part, code, colour=colour) for line in section.lines for part in _wrapped(line, room)]
    if isinstance(section, Listing):
        listed = [part for line in section.shown for part in _wrapped(line, width, "  ")]
        return [visible_line(section.title), *listed] if section.lines else []
    if isinstance(section, Checks):
        return _checks(section, colour=colour, width=width)
    if not section.rows:
        return []
    notes = [part for note in section.notes for part in _wrapped(note, width)]
    return [*table_lines(section, colour=colour), *notes]


def _wrapped(line: str, width: int | None, indent: str = "") -> list[str]:
    text = indent + visible_line(line)
    return textwrap.wrap(text, width, subsequent_indent=2 * indent, break_on_hyphens=False) if width else [text]


def _checks(section: Checks, *, colour: bool, width: int | None) -> list[str]:
    lines = []
    signs = _SIGNS if has_ticks(sys.stdout.encoding) else _WORDS
    for mark, text, reasons in section.entries:
        lines.append(f"{_painted(signs[mark], _COLOURS.get(mark, ''), colour=colour)} {visible_line(text)}")
        lines += [part for reason in shortened(reasons, _REASONS_MAX) for part in _wrapped(reason, width, "    ")]
    return lines


def _painted(text: str, code: str, *, colour: bool) -> str:
    return f"{code}{text}{_OFF}" if colour and code else text
