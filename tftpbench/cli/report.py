"""``tftpbench report``: a stored run as one HTML page, or as Markdown, JSON, CSV or JUnit XML."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.render.terminal import output_of

STDOUT = Path("-")


class Form(StrEnum):
    """What can be written; `tftpbench.render.report.FORMATS`, without importing it for --help."""

    html = "html"
    md = "md"
    json = "json"
    csv = "csv"
    junit = "junit"


def report(
    run: options.RunFolder,
    form: Annotated[
        Form, typer.Option("-f", "--format", help="html: one page with plots, which needs no network.")
    ] = Form.html,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="File to write; -: standard output. Unless given, html goes to RUN/report.html, others to "
            "standard output.",
        ),
    ] = None,
) -> int:
    """Write a stored run as a report: answer, figures, plots, machine."""
    from tftpbench.model.errors import ResultsError
    from tftpbench.model.regular_file import write_chosen
    from tftpbench.render.report import report as written
    from tftpbench.store import load_run

    stored = load_run(run)
    if out is None and form is Form.html:
        typer.echo(output.keep_page(stored))
        return 0
    text = written(stored, form.value)
    if out is None or out == STDOUT:
        output_of(sys.stdout).write_document(text)
    else:
        typer.echo(write_chosen(out, text.encode(), ResultsError, output.ELSEWHERE))
    return 0


EXAMPLES = (
    "tftpbench report results/20260102T120000Z-concurrency",
    "tftpbench report results/20260102T120000Z-concurrency --format md --out report.md",
)
