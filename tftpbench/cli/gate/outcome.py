"""What gate commands do with what was found: print it, keep it, and hand it to the CI service."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from tftpbench.cli import output
from tftpbench.cli.gate.options import FailOn

if TYPE_CHECKING:
    from tftpbench.gate.result import GateResult

# GitHub shows this file's Markdown on the page of the job.
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"


def tell(result: "GateResult", *, json_: bool, quiet: bool) -> None:
    """The document for a program, the text for people, or both."""
    from tftpbench.gate.document import document
    from tftpbench.render.gate.sections import WIDTH, sections
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
