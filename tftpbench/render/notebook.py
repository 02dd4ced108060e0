"""Sections as HTML for a notebook: whatever they hold is escaped, and nothing is styled but by the notebook."""

from collections.abc import Iterable, Sequence
from html import escape

from tftpbench.model.escape import visible_line
from tftpbench.render.sections import Checks, Listing, Paragraph, Section, Table


def html(sections: Sequence[Section]) -> str:
    """The sections that have something to say."""
    return "".join(map(_block, sections))


def facts(title: str, rows: Iterable[tuple[str, str]], notes: Sequence[str] = ()) -> str:
    """A table of names and values under a title, with notes under it."""
    left = 'style="text-align:left"'
    body = "".join(
        f"<tr><th {left}>{_escaped(name)}</th><td {left}>{_escaped(value)}</td></tr>" for name, value in rows
    )
    listed = _items(notes) if notes else ""
    return f"<div><strong>{_escaped(title)}</strong><table>{body}</table>{listed}</div>"


def _block(section: Section) -> str:
    if isinstance(section, Paragraph):
        inner = "<br>".join(map(_escaped, section.lines))
        return f"<p><strong>{inner}</strong></p>" if section.is_answer else f"<p>{inner}</p>"
    if isinstance(section, Listing):
        return f"<p>{_escaped(section.title)}</p>{_items(section.shown)}" if section.lines else ""
    if isinstance(section, Checks):
        return _items(text for _, text, _ in section.entries)
    return _table(section) if section.rows else ""


def _table(table: Table) -> str:
    head = "".join(f"<th>{_escaped(heading.title)}</th>" for heading in table.headings)
    body = "".join(f"<tr>{''.join(f'<td>{_escaped(value.text)}</td>' for value in row)}</tr>" for row in table.rows)
    notes = "".join(f"<p>{_escaped(note)}</p>" for note in table.notes)
    return f"<table><tr>{head}</tr>{body}</table>{notes}"


def _items(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_escaped(line)}</li>' for line in lines)}</ul>"


def _escaped(text: str) -> str:
    return escape(visible_line(text))
