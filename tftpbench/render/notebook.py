"""What a notebook shows: a value or sections as HTML, and a run that goes on as one output that is rewritten.

Whatever they hold is escaped, and nothing is styled. `value_html` is asked for by name by `tftpbench.model.shown`. The
lines of a run are those of `render.progress`; it must never change the run, nor draw but when an event arrives.
"""

import io
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import singledispatch
from html import escape
from typing import Any

from tftpbench.analysis.comparison import Comparison
from tftpbench.analysis.summary import Answer
from tftpbench.measure import Event, LoadProgressed, RunFinished, RunStarted, TrialFinished, TrialStarted
from tftpbench.model.escape import visible_line
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted, format_duration
from tftpbench.render import answer, comparison, progress
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


LINES = 8  # the last ones: what fits under a cell without scrolling

Show = Callable[[str], object]


@contextmanager
def display(progress_: bool | None) -> Iterator[progress.Display]:
    """What shows a run to the caller of the API: True and False as asked; None: in a notebook alone."""
    show = _notebook() if progress_ is not False else None
    quiet = show is not None or not progress_
    with progress.display(io.StringIO() if quiet else sys.stderr, quiet=quiet) as shown:
        yield shown if show is None else InPlace(show)


class InPlace:
    """A bar, the time left, what is being measured, and the last lines; `show` replaces what was shown before."""

    def __init__(self, show: Show, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock_s = clock_s
        self._text = io.StringIO()
        self._began_s = 0.0
        self._resumed = self._done = self._total = 0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        with progress.display(self._text, quiet=False) as line:
            line(event)
        now = ""
        match event:
            case RunStarted():
                self._began_s = self._clock_s()
                self._resumed = self._done = event.done
                self._total = len(event.plan.trials)
            case TrialStarted(trial, _):
                now = f"{trial.contender.name}, {trial.cell.label}"
            case LoadProgressed(trial, _, _):
                now = f"{trial.contender.name}, {progress.progress_text(event)}"
            case TrialFinished(trial, _, _, _):
                self._done = trial.order
            case RunFinished():
                now = "interrupted" if event.interrupted else "done"
        parts = [f"{self._done} of {self._total} trials", self._left(), now]
        lines = self._text.getvalue().splitlines()[-LINES:]
        self._show(
            f'<progress value="{self._done}" max="{self._total or 1}"></progress> '
            f"{escape(' · '.join(filter(None, parts)))}"
            f'<pre style="white-space:pre-wrap">{escape(chr(10).join(lines))}</pre>'
        )

    def _left(self) -> str:
        finished, left = self._done - self._resumed, self._total - self._done
        each_s = (self._clock_s() - self._began_s) / finished if finished > 0 else 0
        return f"{format_duration(round(each_s * left) * 1e9)} left" if finished > 0 and left else ""


def _notebook() -> Show | None:
    """Replaces one output of the running cell; None where no notebook runs this."""
    ipython: Any = sys.modules.get("IPython")
    if getattr(ipython and ipython.get_ipython(), "kernel", None) is None:
        return None
    html = ipython.display.HTML
    output = ipython.display.display(html(""), display_id=True)
    return lambda text: output.update(html(text))
