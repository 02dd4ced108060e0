"""What the commands have in common on the command line: options as types, and how their help is laid out.

It must never import what is heavy: the help of every command waits for it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from tftpbench.model.arguments import SEED_MAX

RESULTS = Path("results")


def checked_seed(seed: int | None) -> int | None:
    """The seed; BadParameter where the native core has no such number."""
    if seed is not None and not 0 <= seed <= SEED_MAX:
        raise typer.BadParameter(f"{seed} is not in the range 0 to 2^64 - 1.")
    return seed


ScenarioNames = Annotated[
    list[str] | None, typer.Argument(metavar="SCENARIO", help="Path of a scenario, or the name of a bundled one.")
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a stored run.")]
Servers = Annotated[
    list[str] | None,
    typer.Option("-s", "--server", metavar="NAME", help="Measure this server, not the scenario's; may be repeated."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the scenario, as in --set matrix.concurrency=[1,10]; may be repeated.",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(  # its range is checked without `max`, which help would write in twenty digits
        "--seed", metavar="N", callback=checked_seed, help="Order of trials and contents of files; random unless given."
    ),
]
ResultsFolder = Annotated[
    Path, typer.Option("-o", "--out", metavar="DIR", help="Folder in which the folder of results is made.")
]
AllowRemote = Annotated[
    bool, typer.Option("--allow-remote", help="Allow a server on another machine; else loopback only.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print the answer only, no progress.")]


class Command(TyperCommand):
    """A command whose help is laid out as a manual page: names without types, examples as they are typed."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The words after the command's name, without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then options."""
        shown: dict[str, list[tuple[str, str]]] = {}
        for each in self.get_params(ctx):
            if record := each.get_help_record(ctx):
                is_argument = each.param_type_name == "argument"
                name = each.metavar if is_argument and each.metavar else record[0]
                shown.setdefault("Arguments" if is_argument else "Options", []).append((name, record[1]))
        for heading, records in shown.items():
            with formatter.section(heading):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 # click's own signature
        """The examples, a line each."""
        if self.epilog:
            formatter.write("".join(f"{line}\n" for line in ("", "Examples:", *self.epilog.splitlines())))


def add(app: typer.Typer, command: Callable[..., int], examples: Sequence[str] = (), **settings: Any) -> None:
    """Make a function a command of the program, by its own name."""
    epilog = "\n".join(f"  {example}" for example in examples)
    app.command(name=command.__name__, cls=Command, epilog=epilog, **settings)(command)


def duration_ns(option: str, text: str) -> int:
    """The nanoseconds of "1.5s" and the like; raises BadParameter, naming the option."""
    from tftpbench.model.units import parse_duration_ns

    return _quantity(option, text, parse_duration_ns)


def size_bytes(option: str, text: str) -> int:
    """The bytes of "64KiB" and the like; raises BadParameter, naming the option."""
    from tftpbench.model.units import parse_bytes

    return _quantity(option, text, parse_bytes)


def _quantity(option: str, text: str, parse: Callable[[str], int]) -> int:
    try:
        return parse(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option} {error}") from None
