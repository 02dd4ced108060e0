"""What gate commands have in common on the command line: options as types, besides those of all commands.

It must never import what is heavy: the help of every command waits for it.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tftpbench.cli.options import scenario_argument


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
