"""``tftpbench gate selftest``: the gate's false-alarm rate on this machine, and what it catches."""

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.cli.gate.options import GateFolder, Scenario
from tftpbench.cli.options import interrupt_on_end
from tftpbench.model.units import counted

if TYPE_CHECKING:
    from tftpbench.gate.selftest import SelfTested

FAULTS = ("cpu", "syscalls", "drops", "memory")
INTERRUPTED = 130


EXAMPLES = ("tftpbench gate selftest --aa 30", "tftpbench gate selftest --replay results/gate")

Server = Annotated[str, typer.Option("-s", "--server", **options.SERVER, help="Server that is compared with itself.")]
Gates = Annotated[int, typer.Option("--aa", min=0, metavar="N", help="Number of gates of the server against itself.")]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault", metavar="NAME", help=f"Fault to inject, or none; repeatable. Default: {', '.join(FAULTS)}."
    ),
]
Pairs = Annotated[int, typer.Option("--pairs", min=12, metavar="N", help="Pairs to measure for each fault.")]
Replay = Annotated[
    Path | None, typer.Option("--replay", metavar="DIR", help="Judge a stored self-test again instead of measuring.")
]


def selftest(
    scenario: Scenario = "gate",
    server: Server = "epoll",
    aa: Gates = 10,
    fault: Faults = None,
    pairs: Pairs = 40,
    set_: options.Overrides = None,
    replay: Replay = None,
    seed: options.Seed = None,
    out: GateFolder = options.RESULTS,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Test the gate here: how often it gives a false alarm, and whether it finds faults that are injected."""
    from tftpbench.gate.selftest import evaluate

    folder, notes, is_whole = (
        _recorded(scenario, server, aa, fault, pairs, set_ or [], seed, out, quiet)
        if replay is None
        else (replay, [], True)
    )
    found = evaluate(folder, notes)
    if json_:
        output.print_json([{**asdict(found), "holds": found.holds}])
    if not (json_ and quiet):
        print(render(found), file=sys.stderr if json_ else sys.stdout)
    if not is_whole:
        return INTERRUPTED
    return 6 if found.holds is None else 0 if found.holds else 3


def render(found: "SelfTested") -> str:
    """The figures as lines."""
    gates = counted(sum(found.said.values()), "gate")
    said = ", ".join(f"{count} {verdict}" for verdict, count in found.said.items())
    lines = [f"Gates over equal code: {f'{gates} ({said})' if found.said else 'none'}."]
    if found.alarms.draws:
        lines.append(f"False alarms: {found.alarms} of those that gave a verdict.")
    if found.permuted is not None:
        lines.append(f"False alarms with the labels of each pair exchanged at random: {found.permuted.rate()}.")
    for fault in found.faults:
        moved = "not measured" if fault.moved is None else f"{100 * (fault.moved - 1):+.1f} %"
        lines.append(f"Fault {fault.name} ({fault.words}): {fault.metric} {moved} over {fault.pairs} pairs.")
        lines.append(f"  Found by {fault.found} gates drawn from these pairs; in the long run {fault.resampled}.")
    verdict = "The gate keeps its promise here." if found.holds else "The gate does not keep its promise here."
    if found.holds is None:
        verdict = "Nothing can be said: no gate had enough pairs for a verdict."
    return "\n".join([*lines, *found.notes, "", verdict, f"Files: {found.folder}"])


def _recorded(
    scenario: str, server: str, aa: int, fault: list[str] | None, pairs: int, overrides: list[str], seed: int | None,
    out: Path, quiet: bool,
) -> tuple[Path, list[str], bool]:  # fmt: skip
    """The folder, what could not be done, and whether all was measured: not where Ctrl-C came after a whole gate."""
    from tftpbench import gate
    from tftpbench.api import random_seed
    from tftpbench.gate.selftest import has_gates, record, refuse_unknown
    from tftpbench.model.errors import ResultsError, UsageError
    from tftpbench.model.escape import visible_line
    from tftpbench.model.scenario_files import load_scenario

    faults = [] if fault == ["none"] else list(fault or FAULTS)
    refuse_unknown(faults)
    if faults and not aa:
        raise UsageError("--aa is 0; allowed: 1 at least, as they size the faults; or 0 with --fault none")
    asked = load_scenario(scenario, overrides)
    side = gate.side(server, in_network=asked.in_network)
    folder = out / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-selftest-{asked.name}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ResultsError(f"{folder}: can't be made: {error.strerror}; choose another place with -o") from None
    interrupt_on_end()  # an orderly end for all: finished gates are kept

    def say(line: str) -> None:
        if not quiet:
            typer.echo(visible_line(line), err=True)

    seed = random_seed() if seed is None else seed
    try:
        notes = record(side, asked, gates=aa, faults=faults, pairs=pairs, seed=seed, folder=folder, say=say)
    except gate.GateInterrupted:
        if not has_gates(folder):
            raise
        return folder, ["Interrupted: these are the gates that had ended."], False
    return folder, notes, True
