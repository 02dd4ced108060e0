"""``tftpbench schema``: JSON Schema of the files that people write and of the results."""

from enum import StrEnum
from typing import Annotated

import typer


class Which(StrEnum):
    """What has a schema."""

    scenario = "scenario"
    server = "server"
    results = "results"


def schema(which: Annotated[Which, typer.Argument(help="Of which file.")]) -> int:
    """Print a JSON Schema, for editors and for programs that read results."""
    from tftpbench.schema import text

    typer.echo(text(which.value), nl=False)
    return 0
