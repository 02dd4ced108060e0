"""What a run and a histogram look like in a notebook: small tables, every text escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape as escape_markup
from typing import Any

from tftpbench.model.escape import visible_line
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted


def run(
    name: str,
    manifest: Mapping[str, Any],
    answer: str | None,
    rows: Sequence[Mapping[str, Any]],
    problems: Sequence[str],
) -> str:
    """What a run is, how much of it is valid, and what is not whole."""
    valid = sum(row["verdict"] == "valid" for row in rows)
    told = [("trials", f"{len(rows)}, {valid} valid")]
    told += [("servers", ", ".join(dict.fromkeys(map(server_name, rows))))] if rows else []
    told += [("cells", str(len({row["cell_key"] for row in rows})))]
    machine = manifest.get("machine")
    if isinstance(machine, dict):
        cores = machine.get("cpus")
        facts = [machine.get("cpu_model"), counted(cores, "core") if isinstance(cores, int) else None]
        facts += [f"Linux {machine['kernel']}" if machine.get("kernel") else None]
        told += [("machine", ", ".join(str(fact) for fact in facts if fact))]
    return table(name, ([("answer", answer)] if answer else []) + told, problems)


def table(title: str, rows: Iterable[tuple[str, str]], notes: Iterable[str] = ()) -> str:
    """A table of names and values under a title, with notes under it."""
    body = "".join(
        f'<tr><th style="text-align:left">{_escaped(name)}</th><td style="text-align:left">{_escaped(value)}</td></tr>'
        for name, value in rows
    )
    listed = "".join(f"<li>{_escaped(note)}</li>" for note in notes)
    return f"<div><strong>{_escaped(title)}</strong><table>{body}</table>{f'<ul>{listed}</ul>' if listed else ''}</div>"


def _escaped(text: str) -> str:
    return escape_markup(visible_line(text))
