"""Each value that a notebook shows, as HTML. Asked for by name by `tftpbench.model.shown`."""

from functools import singledispatch

from tftpbench.analysis.comparison import Comparison
from tftpbench.analysis.summary import Answer
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.render import answer, comparison, notebook
from tftpbench.render.sections import Paragraph, Table
from tftpbench.store import Latency, Run


@singledispatch
def html(value: object) -> str:
    """The value as HTML, whatever it holds escaped."""
    raise TypeError(f"a value of type {type(value).__name__} has no HTML")


@html.register
def _(value: Answer) -> str:
    return notebook.html([each for each in answer.sections(value) if isinstance(each, Paragraph | Table)])


@html.register
def _(value: Comparison) -> str:
    return notebook.html(comparison.sections(value))


@html.register
def _(value: Latency) -> str:
    return notebook.facts("Latency", [("values", str(value.count)), *value.quantiles])


@html.register
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
        facts = [machine.get("cpu_model"), counted(cores, "core") if isinstance(cores, int) else None]
        facts += [f"Linux {machine['kernel']}" if machine.get("kernel") else None]
        shown += [("machine", ", ".join(str(fact) for fact in facts if fact))]
    return notebook.facts(value.name, shown, value.problems)
