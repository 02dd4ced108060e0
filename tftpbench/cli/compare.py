"""``tftpbench compare``: two runs side by side, cell by cell."""

import json
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import output
from tftpbench.model.escape import document_text
from tftpbench.render.terminal import output_of

if TYPE_CHECKING:
    from tftpbench.analysis.comparison import Comparison
    from tftpbench.model.capacity import FoundCapacity


class Format(StrEnum):
    """Form of the comparison."""

    text = "text"
    md = "md"
    json = "json"
    csv = "csv"


def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN_A", help="Folder of the run that is compared with.")],
    b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Folder of the run that is compared.")],
    within: Annotated[
        str, typer.Option("--within", metavar="N%", help="Differences up to this count as the same.")
    ] = "5%",
    format_: Annotated[Format, typer.Option("-f", "--format", help="Form of the comparison.")] = Format.text,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="File to write; -: standard output.")] = "-",
) -> int:
    """Compare two runs in the cells that both have.

    Prints the ratio of B to A in each cell, with its interval; of searches for capacities, the bounds of both.
    """
    share = _share(within)
    from tftpbench.analysis import comparison
    from tftpbench.model.errors import ResultsError, ResultsWarning
    from tftpbench.model.regular_file import write_chosen
    from tftpbench.store import load_run

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # they are among the notes
        found = [load_run(each).searches for each in (a, b)]
        if any(found):
            written = _of_searches(found, (str(a), str(b)), format_)
        else:
            written = _written(comparison.compare(a, b, within=share), format_)
    if out != "-":
        write_chosen(Path(out), document_text(f"{written}\n").encode(), ResultsError, output.ELSEWHERE)
    elif format_ is Format.text:
        typer.echo(written)
    else:
        output_of(sys.stdout).write_document(f"{written}\n")
    return 0


EXAMPLES = ("tftpbench compare results/before results/after", "tftpbench compare results/before results/after -f md")


def _share(text: str) -> float:
    """A share of 1 from "5%"; a bare number could be either."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / 100
    except ValueError:
        percent = False
    if not percent or not 0 <= share < 1:
        raise typer.BadParameter(f"--within is {text[:40]!r}; allowed: 0% to under 100%, as in 5%")
    return share


def _of_searches(found: "list[tuple[FoundCapacity, ...]]", paths: tuple[str, str], format_: Format) -> str:
    """Two runs that searched for capacities."""
    from tftpbench.analysis import capacity
    from tftpbench.render import capacity as rendered
    from tftpbench.render import markdown
    from tftpbench.render.plain import plain
    from tftpbench.render.report.forms import csv_text

    rows = capacity.compared(*found)
    if format_ is Format.json:
        return json.dumps(rendered.comparison_document(rows, paths), ensure_ascii=False, allow_nan=False)
    if format_ is Format.csv:
        names = ("search", "find", "a_lower", "a_upper", "b_lower", "b_upper", "verdict")
        return csv_text(names, ((each.title, each.find, *each.a, *each.b, each.verdict) for each in rows)).rstrip("\n")
    written = rendered.comparison(rows, paths)
    return markdown.written(written) if format_ is Format.md else plain(written)


def _written(found: "Comparison", format_: Format) -> str:
    from tftpbench.analysis import comparison
    from tftpbench.model.escape import csv_frame
    from tftpbench.render import markdown
    from tftpbench.render.comparison import sections
    from tftpbench.render.plain import plain

    if format_ is Format.json:
        return json.dumps(comparison.document(found), ensure_ascii=False, allow_nan=False)
    if format_ is Format.csv:
        return csv_frame(found.to_frame()).rstrip("\n")
    written = sections(found)
    return markdown.written(written) if format_ is Format.md else plain(written)
