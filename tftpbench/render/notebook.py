"""What a run, a histogram, an answer and a comparison look like in a notebook: small tables, every text escaped."""

from collections.abc import Iterable
from html import escape as escape_markup

from tftpbench.analysis.comparison import Comparison, words
from tftpbench.analysis.summary import Answer, text
from tftpbench.model.escape import visible_line
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.store import Latency, Run


def html(value: object) -> str:
    """The result as HTML. Raises TypeError for what is none of these four."""
    match value:
        case Run():
            return _run(value)
        case Latency():
            return _table("Latency", [("values", str(value.count)), *value.quantiles])
        case Answer():
            return text.html(value)
        case Comparison():
            return words.html(value)
        case _:
            raise TypeError(f"a value of type {type(value).__name__} is no result that is shown as HTML")


def _run(of: Run) -> str:
    """What a run is, how much of it is valid, and what is not whole."""
    rows = of.rows
    valid = sum(row["verdict"] == "valid" for row in rows)
    shown = [("answer", of.said)] if of.said else []
    shown += [("trials", f"{len(rows)}, {valid} valid")]
    shown += [("servers", ", ".join(dict.fromkeys(map(server_name, rows))))] if rows else []
    shown += [("cells", str(len({row["cell_key"] for row in rows})))]
    machine = of.manifest.get("machine")
    if isinstance(machine, dict):
        cores = machine.get("cpus")
        facts = [machine.get("cpu_model"), counted(cores, "core") if isinstance(cores, int) else None]
        facts += [f"Linux {machine['kernel']}" if machine.get("kernel") else None]
        shown += [("machine", ", ".join(str(fact) for fact in facts if fact))]
    return _table(of.name, shown, of.problems)


def _table(title: str, rows: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    """A table of names and values under a title, with notes under it."""
    body = "".join(
        f'<tr><th style="text-align:left">{_escaped(name)}</th><td style="text-align:left">{_escaped(value)}</td></tr>'
        for name, value in rows
    )
    listed = "".join(f"<li>{_escaped(note)}</li>" for note in notes)
    return f"<div><strong>{_escaped(title)}</strong><table>{body}</table>{f'<ul>{listed}</ul>' if listed else ''}</div>"


def _escaped(text: str) -> str:
    return escape_markup(visible_line(text))
