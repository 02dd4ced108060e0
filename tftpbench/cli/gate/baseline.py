"""``tftpbench gate baseline``: a run, of now or of another day, against a stored run."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options
from tftpbench.cli.gate.options import (
    FailOn,
    FailOnOption,
    ReportOnly,
    RunFolder,
    StoredRun,
    command,
    keep,
    measured,
    refuse_beside_run,
    tell,
)

if TYPE_CHECKING:
    from tftpbench.gate.stored import Stored

# Beside the run's own files, in the run's folder.
FOLDER = "gate"


EXAMPLES = ("tftpbench gate baseline baselines/main", "tftpbench gate baseline baselines/main --run results/today")

Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", metavar="N", callback=options.checked_seed,
        help="Order of trials and contents of files; the stored run's unless given.",
    ),
]  # fmt: skip


def baseline(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the stored run: the baseline.")],
    new: StoredRun = None,
    server: options.Servers = None,
    seed: Seed = None,
    out: RunFolder = None,
    fail_on: FailOnOption = FailOn.regressed,
    report_only: ReportOnly = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Compare a run, a new one or one that is stored, with an older stored run of the same scenario."""
    from tftpbench.gate.baseline import judge
    from tftpbench.gate.stored import baseline as opened
    from tftpbench.gate.stored import stored
    from tftpbench.model.errors import ResultsWarning

    if new is not None:
        refuse_beside_run("--server" if server else "", "--seed" if seed is not None else "", "--out" if out else "")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # they are among the remarks
        base = opened(run)
        words = command("baseline", run, run=new, server=server or [], seed=seed, out=out, fail_on=fail_on)
        folder = new if new is not None else _again(base, server or [], seed, out or options.RESULTS, words, quiet)
        result = judge(base, stored(folder), words, str(folder / FOLDER))
    tell(result, json_=json_, quiet=quiet)
    keep(result, folder / FOLDER, fail_on)
    return 0 if report_only else result.exit_code(fail_on.value)


def _again(
    base: "Stored", servers: Sequence[str], seed: int | None, out: Path, words: Sequence[str], quiet: bool
) -> Path:
    """The stored run's scenario here and now; refused before anything is measured where the two could not be held."""
    from tftpbench import measure
    from tftpbench.gate.stored import refuse_here

    scenario = base.scenario.with_servers(servers) if servers else base.scenario
    refuse_here(base, [contender.name for contender in measure.contenders(scenario)])
    return measured(scenario, base.seed if seed is None else seed, out, words, quiet)
