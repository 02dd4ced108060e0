"""What gate commands do with what was found: print it, keep it, and hand it to the CI service."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tftpbench.cli.gate.options import FailOn
from tftpbench.render.terminal import output_of

if TYPE_CHECKING:
    from tftpbench.gate.result import GateResult

# GitHub shows this file's Markdown on the page of the job.
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def tell(result: "GateResult", *, json_: bool, quiet: bool) -> None:
    """The document for a program, the text for people, or both."""
    from tftpbench.cli.gate.text import render
    from tftpbench.gate.document import document

    if json_:
        typer.echo(json.dumps(document(result), ensure_ascii=False, allow_nan=False))
    if json_ and quiet:
        return
    output = output_of(sys.stderr if json_ else sys.stdout)
    text = render(result, output.has_colour)
    output.write_painted(f"{text}\n" if quiet else f"\n{text}\n")


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
