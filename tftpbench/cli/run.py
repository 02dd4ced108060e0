"""``tftpbench run``: scenarios in, a results folder and an answer out."""

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli.address import numeric_address
from tftpbench.cli.signals import interrupt_on_end
from tftpbench.render.terminal import output_of

if TYPE_CHECKING:
    from tftpbench.model.scenario import Scenario

SEED_MAX = 2**64 - 1  # the generator's word
ANSWER = "answer.txt"


def run(
    scenario: Annotated[
        list[str] | None, typer.Argument(metavar="SCENARIO...", help="A path, or the name of a bundled scenario.")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option("-s", "--server", metavar="NAME", help="Measure these instead of the scenario's servers."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", metavar="HOST:PORT", help="Measure a server that is running already.")
    ] = None,
    target_file: Annotated[
        str | None, typer.Option("--target-file", metavar="NAME", help="The file to read there, over and over.")
    ] = None,
    target_write: Annotated[
        bool, typer.Option("--target-write", help="Upload files there, which stay, to read or to write.")
    ] = False,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Let the target be another machine than this one.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key, as in --set matrix.concurrency=[1,10]."),
    ] = None,
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Trials of each cell on each server.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Every cell, one trial, short windows, no verdicts.")] = False,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=SEED_MAX, help="Order of the trials, contents of files; else random."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the run's folder is made.")] = Path(
        "results"
    ),
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Go on with an interrupted run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the trials in their order and measure nothing.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the answer only, no progress.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Write the run's report.html at its end, or when it is interrupted.")
    ] = False,
) -> int:
    """Run the matrix of one scenario or more and answer its question."""
    from tftpbench.model.errors import UsageError

    overrides = [*(set_ or []), *([f"trials={trials}"] if trials is not None else [])]
    server = [*(server or []), *_target(target, target_file, target_write)]
    if resume is not None:
        if len(scenario or []) > 1 or seed is not None:
            raise UsageError("--resume goes on with one run, in its own order: leave --seed and further scenarios out")
        chosen = [_resumed(resume, scenario, overrides, server, quick)]
    elif scenario:
        chosen = [_load(name, overrides, server, quick) for name in scenario]
    else:
        raise UsageError("no scenario given; name a file or a bundled scenario, as in: tftpbench run concurrency")
    seed = _seed(seed)
    if dry_run:
        return _dry_run(chosen, seed, json_)
    interrupt_on_end()  # an orderly end for all: finished trials are saved
    documents, code = [], 0
    for each, name in zip(chosen, scenario or [""], strict=True):
        command = _command(name, overrides, server, quick, seed, out) + (["--allow-remote"] if allow_remote else [])
        document, one = _run_one(each, seed, out, resume, command, json_, quiet, allow_remote, report)
        documents.append(document)
        code = _graver(code, one)
    if json_:
        _print_json(documents[0] if len(documents) == 1 else {"runs": documents})
    return code


def _load(name: str, overrides: list[str], servers: list[str] | None, quick: bool) -> "Scenario":
    from tftpbench.model.scenario_files import load_scenario

    scenario = load_scenario(name, overrides)
    if servers:
        scenario = scenario.with_servers(servers)
    return scenario.quick() if quick else scenario


def _resumed(
    resume: Path, names: list[str] | None, overrides: list[str], servers: list[str] | None, quick: bool
) -> "Scenario":
    """The run's own scenario, unless one is named: the runner then refuses a different one."""
    from tftpbench.model.errors import UsageError
    from tftpbench.store import recording

    if names:
        return _load(names[0], overrides, servers, quick)
    if overrides or servers or quick:
        raise UsageError(
            "--resume goes on with the scenario as it was run: leave --set, --trials, --server and --quick out"
        )
    return recording.recorded(resume)[0]


def _target(address: str | None, file: str | None, write: bool) -> list[str]:
    """The entry of a scenario's servers that means the running server at this address."""
    if address is None:
        if file is not None or write:
            raise typer.BadParameter("--target-file and --target-write go with --target HOST:PORT")
        return []
    if (file is None) != write:
        raise typer.BadParameter(
            "--target needs a file to read: name one that the server has with --target-file NAME, "
            "or allow uploads with --target-write; not both"
        )
    if file is not None and (not file.isprintable() or not file or "{n}" in file):
        raise typer.BadParameter(f"--target-file is {file!r}; allowed: the name of one file, without {{n}}")
    from tftpbench.host.target import Target

    return [Target(*numeric_address(address), file).entry]


def _seed(seed: int | None) -> int:
    if seed is not None:
        return seed
    from tftpbench.api import random_seed

    return random_seed()


def _run_one(
    scenario: "Scenario",
    seed: int,
    out: Path,
    resume: Path | None,
    command: list[str],
    json_: bool,
    quiet: bool,
    allow_remote: bool,
    page: bool,
) -> tuple[dict[str, object], int]:
    from tftpbench import measure
    from tftpbench.analysis import summary
    from tftpbench.model.errors import ResultsWarning
    from tftpbench.render import answer as rendered
    from tftpbench.render import progress
    from tftpbench.store import load_run, recording

    try:
        with progress.display(sys.stderr, quiet=quiet) as shown:
            report = recording.run(
                scenario,
                seed=seed,
                out=out,
                resume=resume,
                command=command,
                on_event=shown,
                allow_remote=allow_remote,
            )
    except measure.RunInterrupted as interrupted:
        if page and interrupted.report.rows:
            _page(interrupted.report.folder)
        raise
    folder, repeat = str(report.folder), shlex.join(report.command)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # told below, for people
        stored = load_run(report.folder)
        answer, rows = summary.answer_of(stored), stored.rows
    for problem in stored.problems:
        typer.echo(f"{folder}: {problem}", err=True)
    _keep(report.folder / ANSWER, rendered.text(answer, folder, repeat))
    if page:
        _page(report.folder)
    stream = sys.stderr if json_ else sys.stdout
    if not (json_ and quiet):
        output = output_of(stream)
        text = rendered.text(answer, folder, repeat, colour=output.has_colour)
        output.write_painted(f"{text}\n" if quiet else f"\n{text}\n")
    return summary.document(answer, folder, report.seed, rows), answer.exit_code


def _page(folder: Path) -> None:
    """Told on standard error, as it is no part of the answer."""
    from tftpbench.cli.report import write_page
    from tftpbench.store import load_run

    typer.echo(f"Report written: {write_page(load_run(folder))}", err=True)


def _keep(path: Path, text: str) -> None:
    """Beside the trials, so that the folder alone tells what came of the run."""
    from tftpbench.cli.report import keep
    from tftpbench.model.errors import ResultsError

    try:
        keep(f"{text}\n", path)
    except ResultsError as error:
        reason = error.__context__.strerror if isinstance(error.__context__, OSError) else "no such place"
        raise ResultsError(f"{path} can't be written: {reason}; all trials are saved beside it") from None


def _dry_run(scenarios: list["Scenario"], seed: int, json_: bool) -> int:
    from tftpbench import measure
    from tftpbench.measure.plan import plan
    from tftpbench.render import progress

    documents: list[dict[str, object]] = []
    for scenario in scenarios:
        planned = plan(scenario, measure.contenders(scenario), seed)
        if not json_:
            for line in progress.skipped_lines(planned.skipped):
                typer.echo(line)
            for trial in planned.trials:
                typer.echo(f"{trial.order:5}  {trial.contender.name}, {trial.cell.label}")
        rows = [
            {"order": t.order, "trial": t.number, "server": t.contender.name, "cell_key": t.cell.key}
            for t in planned.trials
        ]
        documents.append({"scenario": scenario.document(), "seed": seed, "trials": rows})
    if json_:
        _print_json(documents[0] if len(documents) == 1 else {"runs": documents})
    return 0


def _command(
    name: str, overrides: list[str], servers: list[str] | None, quick: bool, seed: int, out: Path
) -> list[str]:
    """What to type to do the same again: the same cells in the same order on the same contents."""
    words = ["tftpbench", "run", name]
    words += [word for assignment in overrides for word in ("--set", assignment)]
    words += [word for server in servers or [] for word in ("--server", server)]
    words += ["--quick"] if quick else []
    words += ["--seed", str(seed)]
    return words + (["--out", str(out)] if out != Path("results") else [])


def _graver(one: int, other: int) -> int:
    """Of several scenarios: a missed threshold goes before too few valid trials, and that before all well."""
    return min(code for code in (one, other) if code) if one or other else 0


def _print_json(document: object) -> None:
    typer.echo(json.dumps(document, ensure_ascii=False))
