"""Where a command's output goes: one document for programs, text for people, files in the folder of a run.

It must never decide what is said.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tftpbench.render.terminal import Output, output_of

if TYPE_CHECKING:
    from tftpbench.measure import RunReport
    from tftpbench.store import Run

ELSEWHERE = "choose another place with -o"


def print_json(documents: list[dict[str, object]]) -> None:
    """The document, or several as one."""
    document = documents[0] if len(documents) == 1 else {"runs": documents}
    typer.echo(json.dumps(document, ensure_ascii=False))


def print_text(render: Callable[[Output], str], *, json_: bool, quiet: bool) -> None:
    """The text that `render` makes for an output: beside a document on standard error, and not if quiet."""
    if json_ and quiet:
        return
    output = output_of(sys.stderr if json_ else sys.stdout)
    text = render(output)
    output.write_painted(f"{text}\n" if quiet else f"\n{text}\n")


def keep(text: str, path: Path, advice: str = ELSEWHERE) -> Path:
    """A file of the command's own, such as a report in a run's folder; raises ResultsError."""
    from tftpbench.model.errors import ResultsError
    from tftpbench.model.regular_file import write_whole

    return write_whole(path, text.encode(), ResultsError, advice)


def keep_page(run: "Run") -> Path:
    """RUN/report.html."""
    from tftpbench.api import write_page

    return write_page(run, ELSEWHERE)


def keep_answer(folder: Path, text: str) -> None:
    """Beside the trials, so that the folder alone has the answer."""
    from tftpbench.store.format import ANSWER

    keep(f"{text}\n", folder / ANSWER, "all trials are saved beside it")


def capacities(report: "RunReport", *, json_: bool, quiet: bool, prints_document: bool = True) -> int | None:
    """Print and keep what searches for capacities found; the exit code, None where none came to an end.

    `prints_document` False: the document is printed by the caller, among others.
    """
    from tftpbench.analysis import capacity
    from tftpbench.model.capacity import documents
    from tftpbench.model.programs import typed
    from tftpbench.render import capacity as rendered
    from tftpbench.store.format import read_searches

    found = read_searches(report.folder)
    if not found:
        return None
    folder, repeat = str(report.folder), typed(report.command)
    keep_answer(report.folder, rendered.text(found, folder, repeat))
    print_text(
        lambda out: rendered.text(found, folder, repeat, colour=out.has_colour, width=out.width),
        json_=json_, quiet=quiet,
    )  # fmt: skip
    if json_ and prints_document:
        typer.echo(json.dumps(documents(found), ensure_ascii=False))
    return capacity.exit_code(found)


def resuming(report: "RunReport") -> str:
    """The command that continues a search."""
    from tftpbench.model.programs import split_cluster, typed

    return typed(["tftpbench", "capacity", "--resume", str(report.folder), *split_cluster(report.command)[1]])
