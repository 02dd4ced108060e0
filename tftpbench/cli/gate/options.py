"""What gate commands have in common: options as types, the run that is judged, and what is done with what was found.

It must never import what is heavy: the help of every command waits for it.
"""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import output
from tftpbench.cli.options import interrupt_on_end, scenario_argument


class FailOn(StrEnum):
    """The least severe verdict that is an error; `tftpbench.gate.FailOn`, without importing it for --help."""

    regressed = "regressed"
    suspected = "suspected"
    inconclusive = "inconclusive"


Scenario = Annotated[str, scenario_argument()]
StoredRun = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="Judge this run instead of measuring a new one.")
]
GateFolder = Annotated[
    Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to make the gate's own folder in.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", help="Folder to make the run's own folder in; results unless given."),
]
FailOnOption = Annotated[
    FailOn, typer.Option("--fail-on", help="Exit with an error for this verdict, and for more severe ones.")
]
ReportOnly = Annotated[bool, typer.Option("--report-only", help="Print the verdict, and exit with 0 whatever it is.")]


def command(name: str, argument: object, /, **options: object) -> list[str]:
    """What to type to do the same again: `gate NAME ARGUMENT` with the options that are given, lists as often."""
    words = ["tftpbench", "gate", name, *([] if argument is None else [str(argument)])]
    for option, value in options.items():
        for each in value if isinstance(value, list) else [value]:
            # A server may be called "regressed": a text equals the member of that value.
            is_default = isinstance(each, FailOn) and each is FailOn.regressed
            if each is not None and not is_default:
                words += [f"--{option.strip('_').replace('_', '-')}", str(each)]
    return words


if TYPE_CHECKING:
    from tftpbench.model.scenario import Scenario as Asked


def measured(scenario: "Asked", seed: int, out: Path, command: Sequence[str], quiet: bool) -> Path:
    """Run a scenario; its folder. A run that is interrupted says how to go on with it."""
    from tftpbench.render import progress
    from tftpbench.store import recording

    interrupt_on_end()  # an orderly end for all: finished trials are saved
    with progress.display(sys.stderr, quiet=quiet) as shown:
        return recording.run(scenario, seed=seed, out=out, command=command, on_event=shown).folder


def refuse_beside_run(*options: str) -> None:
    """With --run nothing is measured, so what says how to measure has no meaning."""
    from tftpbench.model.errors import UsageError

    given = [option for option in options if option]
    if given:
        raise UsageError(f"--run judges a run that exists: leave {' and '.join(given)} out")


if TYPE_CHECKING:
    from tftpbench.gate.result import GateResult

# GitHub shows this file's Markdown on the page of the job.
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def tell(result: "GateResult", *, json_: bool, quiet: bool) -> None:
    """The document for a program, the text for people, or both."""
    from tftpbench.gate.document import document
    from tftpbench.render.gate import WIDTH, sections
    from tftpbench.render.plain import plain

    if json_:
        output.print_json([document(result)])
    output.print_text(
        lambda out: plain(sections(result, out.width or WIDTH), colour=out.has_colour, width=out.width),
        json_=json_, quiet=quiet,
    )  # fmt: skip


def keep(result: "GateResult", folder: Path, fail_on: FailOn) -> None:
    """Reports, document and plots in the gate's folder, and the report in the job's summary where there is one.

    Raises ResultsError. The verdict has been printed by then.
    """
    from tftpbench.model.errors import ResultsError
    from tftpbench.render.gate import write, write_markdown

    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise ResultsError(f"{folder}: can't be made: {error.strerror}; the verdict stands above") from None
    write(result, folder, fail_on.value)
    summary = os.environ.get(STEP_SUMMARY)
    if not summary:
        return
    try:
        with Path(summary).open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(f"{write_markdown(result)}\n")
    except OSError as error:
        raise ResultsError(f"${STEP_SUMMARY}: {summary} can't be written: {error.strerror}") from None
