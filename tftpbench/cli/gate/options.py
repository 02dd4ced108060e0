"""What gate commands have in common on the command line: options as types, besides those of all commands.

It must never import what is heavy: the help of every command waits for it.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tftpbench.cli.options import scenario_argument


class FailOn(StrEnum):
    """The mildest verdict that is not let through; `tftpbench.gate.FailOn`, without importing it for --help."""

    regressed = "regressed"
    suspected = "suspected"
    inconclusive = "inconclusive"


Scenario = Annotated[str, scenario_argument()]
StoredRun = Annotated[
    Path | None, typer.Option("--run", metavar="RUN", help="Judge this stored run, and measure nothing.")
]
GateFolder = Annotated[
    Path, typer.Option("-o", "--out", metavar="DIR", help="Folder in which the folder of the gate is made.")
]
RunFolder = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", help="Folder in which the folder of the run is made; else results."),
]
FailOnOption = Annotated[
    FailOn,
    typer.Option("--fail-on", help="Verdict from which on the exit code is not 0: this one and all that are worse."),
]
ReportOnly = Annotated[
    bool, typer.Option("--report-only", help="Print the verdict, and exit with 0 instead of 3, 4 and 6.")
]


def fail_on_words(fail_on: FailOn) -> list[str]:
    """What of it to type to do the same again."""
    return ["--fail-on", fail_on.value] if fail_on is not FailOn.regressed else []
