"""``tftpbench gate selftest``: the gate's false-alarm rate on this machine, and what it catches."""

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options
from tftpbench.cli.gate.options import GateFolder, Scenario
from tftpbench.cli.signals import interrupt_on_end
from tftpbench.model.arguments import SEED_MAX

if TYPE_CHECKING:
    from tftpbench.gate.selftest.run import SelfTested

FAULTS = ("cpu", "syscalls", "drops", "memory")


EXAMPLES = ("tftpbench gate selftest --aa 30", "tftpbench gate selftest --replay results/gate")

Server = Annotated[str, typer.Option("-s", "--server", **options.SERVER, help="Server that is held against itself.")]
Gates = Annotated[int, typer.Option("--aa", min=0, metavar="N", help="Gates over equal code.")]
Faults = Annotated[
    list[str] | None,
    typer.Option("--fault", metavar="FAULT", help=f"Inject these only; none for none. Else {', '.join(FAULTS)}."),
]
Pairs = Annotated[
    int, typer.Option("--pairs", min=12, metavar="N", help="Pairs for each fault, from which gates are drawn.")
]
Replay = Annotated[
    Path | None, typer.Option("--replay", metavar="DIR", help="Judge a stored self-test again, and measure nothing.")
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", min=0, max=SEED_MAX - 10_000, help="Of all that is random; random unless given."
    ),
]


def selftest(
    scenario: Scenario = "gate",
    server: Server = "epoll",
    aa: Gates = 10,
    fault: Faults = None,
    pairs: Pairs = 40,
    set_: options.Overrides = None,
    replay: Replay = None,
    seed: Seed = None,
    out: GateFolder = options.RESULTS,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Hold a server against itself, and against itself made worse, and tell how often the gate is right."""
    from tftpbench.gate.selftest.run import evaluate

    if replay is not None:
        found = evaluate(replay)
    else:
        folder, notes = _recorded(scenario, server, aa, fault, pairs, set_ or [], seed, out, quiet)
        found = evaluate(folder, notes)
    if json_:
        typer.echo(json.dumps({**asdict(found), "holds": found.holds}, ensure_ascii=False))
    if not (json_ and quiet):
        print(render(found), file=sys.stderr if json_ else sys.stdout)
    return 6 if found.holds is None else 0 if found.holds else 3


def render(found: "SelfTested") -> str:
    """The figures as lines."""
    said = ", ".join(f"{verdict} {count}" for verdict, count in found.said.items())
    lines = [f"False alarms, live:         {found.alarms} gates over equal code{f': {said}' if said else ''}"]
    if found.permuted is not None:
        lines.append(f"False alarms, permutations: {found.permuted.rate()} gates of the same pairs, labels exchanged")
    for fault in found.faults:
        moved = "not measured" if fault.moved is None else f"{100 * (fault.moved - 1):+.1f} %"
        lines.append(f"Fault {fault.name}: {fault.words}; {fault.metric} {moved}, {fault.pairs} pairs")
        lines.append(f"  caught by it in {fault.found} gates drawn from them ({fault.resampled})")
    verdict = "The gate keeps its promise here." if found.holds else "The gate does not keep its promise here."
    if found.holds is None:
        verdict = "Nothing can be said: no gate had pairs enough to judge."
    return "\n".join([*lines, *found.notes, "", verdict, f"Files: {found.folder}"])


def _recorded(
    scenario: str, server: str, aa: int, fault: list[str] | None, pairs: int, overrides: list[str], seed: int | None,
    out: Path, quiet: bool,
) -> tuple[Path, list[str]]:  # fmt: skip
    from tftpbench import gate
    from tftpbench.api import random_seed
    from tftpbench.gate.selftest.run import record, refuse_unknown
    from tftpbench.model.errors import ResultsError, UsageError
    from tftpbench.model.escape import visible_line
    from tftpbench.model.scenario_files import load_scenario

    faults = [] if fault == ["none"] else list(fault or FAULTS)
    refuse_unknown(faults)
    if faults and not aa:
        raise UsageError("a fault is sized by what gates over equal code measured: --aa 1 at least, or --fault none")
    asked, side = load_scenario(scenario, overrides), gate.side(server)
    folder = out / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-selftest-{asked.name}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResultsError(f"{folder}: can't be made: {error.strerror}; choose another place with -o") from None
    interrupt_on_end()  # an orderly end for all: finished gates are kept

    def say(line: str) -> None:
        if not quiet:
            typer.echo(visible_line(line), err=True)

    seed = random_seed() % (SEED_MAX - 10_000) if seed is None else seed
    notes = record(side, asked, gates=aa, faults=faults, pairs=pairs, seed=seed, folder=folder, say=say)
    return folder, notes
