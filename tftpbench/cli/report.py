"""``tftpbench report``: a stored run as one HTML page, or as Markdown, JSON, CSV or JUnit XML."""

import contextlib
import secrets
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.render.terminal import output_of

if TYPE_CHECKING:
    from tftpbench.store import Run

PAGE = "report.html"
STDOUT = Path("-")


class Form(StrEnum):
    """What can be written; `tftpbench.render.report.FORMATS`, without importing it for --help."""

    html = "html"
    md = "md"
    json = "json"
    csv = "csv"
    junit = "junit"


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    form: Annotated[
        Form, typer.Option("-f", "--format", help="html: one page, no network; the others for programs and reviews.")
    ] = Form.html,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Where to write it, - for standard output; html goes to RUN/report.html unless given.",
        ),
    ] = None,
) -> int:
    """Tell what a stored run found: its answer, figures with intervals, plots, losses, where it was measured."""
    from tftpbench.render.report import report as written
    from tftpbench.store import load_run

    stored = load_run(run)
    if out is None and form is not Form.html:
        out = STDOUT
    text = written(stored, form.value)
    if out == STDOUT:
        output_of(sys.stdout).write_document(text)
        return 0
    typer.echo(keep(text, run / PAGE) if out is None else keep(text, out, is_chosen=True))
    return 0


def write_page(run: "Run") -> Path:
    """RUN/report.html; ResultsError where it can't be written."""
    from tftpbench.render.report import report as written

    return keep(written(run), run.path / PAGE)


def keep(text: str, path: Path, *, is_chosen: bool = False) -> Path:
    """Write the file whole, then rename it into place; ResultsError in one line where that can't be done.

    A place that the user chose (`is_chosen`) may be a device or a pipe, and is then written to. A FIFO in the folder of
    a run may have no reader: it is replaced.
    """
    from tftpbench.model.errors import ResultsError

    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        if is_chosen and path.exists() and not path.is_file():  # /dev/stdout, a pipe
            path.write_bytes(text.encode())
            return path
        with part.open("xb") as stream:
            stream.write(text.encode())
        part.replace(path)
    except ValueError:  # a NUL in the name
        raise ResultsError(f"{path}: is no name of a file; choose another place with -o") from None
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ResultsError(f"{path}: can't be written: {error.strerror}; choose another place with -o") from None
    return path
