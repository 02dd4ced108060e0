"""What a notebook shows, a value or sections, as HTML: whatever they hold is escaped, and nothing is styled.

`value_html` is asked for by name by `tftpbench.model.shown`.
"""

from collections.abc import Iterable, Sequence
from functools import singledispatch
from html import escape

from tftpbench.analysis.comparison import Comparison
from tftpbench.analysis.summary import Answer
from tftpbench.model.escape import visible_line
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.render import answer, comparison
from tftpbench.render.sections import Checks, Listing, Paragraph, Section, Table
from tftpbench.store import Latency, Run


@singledispatch
def value_html(value: object) -> str:
    """The value as HTML, whatever it holds escaped."""
    raise TypeError(f"a value of type {type(value).__name__} has no HTML")


@value_html.register
def _(value: Answer) -> str:
    return html([each for each in answer.sections(value) if isinstance(each, Paragraph | Table)])


@value_html.register
def _(value: Comparison) -> str:
    return html(comparison.sections(value))


@value_html.register
def _(value: Latency) -> str:
    return facts("Latency", [("values", str(value.count)), *value.quantiles])


@value_html.register
def _(value: Run) -> str:
    """What a run is, how much of it is valid, and what is not whole."""
    rows = value.rows
    valid = sum(row["verdict"] == "valid" for row in rows)
    shown = [("answer", value.said)] if value.said else []
    shown += [("trials", f"{len(rows)}, {valid} valid")]
    shown += [("servers", ", ".join(dict.fromkeys(map(server_name, rows))))] if rows else []
    shown += [("cells", str(len({row["cell_key"] for row in rows})))]
    machine = value.manifest.get("machine")
    if isinstance(machine, dict):
        cores = machine.get("cpus")
        known = [machine.get("cpu_model"), counted(cores, "core") if isinstance(cores, int) else None]
        known += [f"Linux {machine['kernel']}" if machine.get("kernel") else None]
        shown += [("machine", ", ".join(str(fact) for fact in known if fact))]
    return facts(value.name, shown, value.problems)


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
