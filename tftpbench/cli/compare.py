"""``tftpbench compare``: two runs side by side, cell by cell."""

import json
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli.report import keep
from tftpbench.model.escape import document_text
from tftpbench.render.terminal import output_of

if TYPE_CHECKING:
    from tftpbench.analysis.comparison import Comparison


class Format(StrEnum):
    """How it is written."""

    text = "text"
    md = "md"
    json = "json"
    csv = "csv"


def compare(
    a: Annotated[Path, typer.Argument(metavar="RUN_A", help="A run's folder: what is compared with.")],
    b: Annotated[Path, typer.Argument(metavar="RUN_B", help="Another run's folder: what is compared.")],
    within: Annotated[
        str, typer.Option("--within", metavar="N%", help="Differences up to this are called the same.")
    ] = "5%",
    format_: Annotated[Format, typer.Option("-f", "--format", help="How it is written.")] = Format.text,
    out: Annotated[
        str, typer.Option("-o", "--out", metavar="FILE", help="Where it is written; -: standard output.")
    ] = "-",
) -> int:
    """Compare run B with run A in all cells that both have: how many times the blocks, and how sure that is."""
    share = _share(within)
    from tftpbench.analysis import comparison
    from tftpbench.model.errors import ResultsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # they are among the notes
        written = _written(comparison.compare(a, b, within=share), format_)
    if out != "-":
        keep(document_text(f"{written}\n"), Path(out), is_chosen=True)
    elif format_ is Format.text:
        typer.echo(written)
    else:
        output_of(sys.stdout).write_document(f"{written}\n")
    return 0


def _share(text: str) -> float:
    """A share of 1 from "5%"; a bare number could be either."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        share = float(number) / 100
    except ValueError:
        percent = False
    if not percent or not 0 <= share <= 1:
        raise typer.BadParameter(f"--within is {text[:40]!r}; allowed: 0% to under 100%, as in 5%")
    return share


def _written(found: "Comparison", format_: Format) -> str:
    from tftpbench.analysis import comparison
    from tftpbench.model.escape import csv_frame

    if format_ is Format.json:
        return json.dumps(comparison.document(found), ensure_ascii=False, allow_nan=False)
    if format_ is Format.csv:
        return csv_frame(found.to_frame()).rstrip("\n")
    return comparison.markdown(found) if format_ is Format.md else comparison.text(found)
