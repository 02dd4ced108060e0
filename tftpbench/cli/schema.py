"""``tftpbench schema``: JSON Schema of the files that people write, of the results, and of what commands print."""

from enum import StrEnum
from typing import Annotated

import typer


class Which(StrEnum):
    """What has a schema."""

    scenario = "scenario"
    server = "server"
    boot = "boot"
    results = "results"
    manifest = "manifest"
    transfers = "transfers"
    boots = "boots"
    intervals = "intervals"
    summary = "summary"
    comparison = "comparison"
    gate = "gate"
    doctor = "doctor"


def schema(
    which: Annotated[Which, typer.Argument(metavar="SCHEMA", help=f"One of {', '.join(Which)}.", show_choices=False)],
) -> int:
    """Print the JSON Schema of a file or of what a command prints."""
    from tftpbench.render.schema import text

    typer.echo(text(which.value), nl=False)
    return 0


EXAMPLES = ("tftpbench schema scenario > scenario.json", "tftpbench schema results")
