"""``tftpbench doctor``: what on this machine makes figures wrong, how much, and the command that mends it."""

from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tftpbench.host.conditions import Diagnosis

EXAMPLES = ("tftpbench doctor", "tftpbench doctor --for concurrency --json")
# Figures of a machine with such a condition must not be used; as of a run with too little that is valid.
SPOILED = 6


def doctor(
    for_: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="SCENARIO", autocompletion=options.scenario_names,
            help="Check against what this scenario needs: a path, or the name of a bundled one.",
        ),
    ] = None,
    json_: options.Json = False,
) -> int:  # fmt: skip
    """Say what on this machine makes figures wrong, how much, and what mends it.

    Takes some seconds, changes nothing, and runs no remedy. Exit code 6 where something spoils figures.
    """
    from tftpbench.host.conditions import ORDINARY, diagnose, document, needs_of, worst
    from tftpbench.model.scenario_files import load_scenario

    needs = ORDINARY if for_ is None else needs_of(load_scenario(for_))
    try:
        found = diagnose(needs)
    except KeyboardInterrupt:
        raise typer.Abort from None
    if json_:
        output.print_json([document(found, needs)])
    else:
        for line in lines(found):
            typer.echo(line)
    return SPOILED if worst(found) == "spoils" else 0


def lines(found: "Sequence[Diagnosis]") -> "Iterator[str]":
    """A line a condition; where it is not ok two more, with what is expected and what mends it."""
    for each in found:
        if each.effect == "not known":
            continue
        yield f"{each.effect:6}  {each.id:18}  {each.found}{f': {each.costs}' if each.costs else ''}"
        if each.remedy:
            yield f"{'':8}expected: {each.expected}"
            yield f"{'':8}remedy:   {each.remedy}"
    unknown = [f"{each.id} ({each.found})" for each in found if each.effect == "not known"]
    if unknown:
        yield f"Not known here: {', '.join(unknown)}"
