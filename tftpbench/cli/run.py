"""``tftpbench run``: scenarios in, a results folder and an answer out."""

import json
import re
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.cli.options import interrupt_on_end

if TYPE_CHECKING:
    from tftpbench import measure
    from tftpbench.host.brake import Limits
    from tftpbench.measure import RunReport
    from tftpbench.model.scenario import Scenario

Target = Annotated[
    str | None, typer.Option("--target", metavar="HOST:PORT", help="Measure a running server at this address.")
]
TargetFile = Annotated[
    str | None, typer.Option("--target-file", metavar="NAME", help="File that the target has; every transfer reads it.")
]
TargetWrite = Annotated[
    bool,
    typer.Option(
        "--target-write",
        help="In place of --target-file: upload the scenario's files to the target, then read or write them. "
        "They stay there.",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", min=1, max=options.TRIALS_MAX, metavar="N", help="Trials of each cell on each server."),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Measure every cell once, in short windows: is all served? Speed is not judged.")
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="N%", help="Add rounds until the headline's interval is at most so wide."),
]
Budget = Annotated[
    str | None, typer.Option("--budget", metavar="TIME", help="With --until: add none that would end later; 10min.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the trials in their order and measure nothing.")]
Report = Annotated[bool, typer.Option("--report", help="Write RUN/report.html at the end, also when interrupted.")]


def run(
    scenario: options.ScenarioNames = None,
    server: options.Servers = None,
    target: Target = None,
    target_file: TargetFile = None,
    target_write: TargetWrite = False,
    map_: options.Map = None,
    allow_remote: options.AllowRemote = False,
    max_rate: options.MaxRate = None,
    keep_going: options.KeepGoing = False,
    dask: options.Dask = None,
    dask_ca: options.DaskCa = None,
    dask_cert: options.DaskCert = None,
    dask_key: options.DaskKey = None,
    server_host: options.ServerHost = None,
    set_: options.Overrides = None,
    trials: Trials = None,
    quick: Quick = False,
    seed: options.Seed = None,
    out: options.ResultsFolder = options.RESULTS,
    resume: options.Resume = None,
    until: Until = None,
    budget: Budget = None,
    dry_run: DryRun = False,
    report: Report = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Measure the servers of a scenario and answer its question."""
    from tftpbench.api import random_seed, until_of

    width, budget_s = _asked_until(until, budget)
    overrides = [*(set_ or []), *([f"trials={trials}"] if trials is not None else [])]
    overrides += options.on_server_host(server_host)
    overrides += [f"map={json.dumps(names)}"] if (names := options.names(map_)) else []
    changes = _Changes(overrides, server or [], (target, target_file, target_write), quick)
    limits = options.limits(max_rate, keep_going=keep_going)
    chosen = _chosen(scenario or [], changes, resume, seed)
    seed = random_seed() if seed is None else seed
    if dry_run:
        return _dry_run(chosen, seed, json_)
    interrupt_on_end()  # an orderly end for all: finished trials are saved
    answers = []
    cluster = (dask, dask_ca, dask_cert, dask_key)
    with options.tools(cluster) as tools:
        for each, name in zip(chosen, scenario or [""], strict=True):
            remote = (allow_remote, max_rate, keep_going)
            command = changes.command(name, each, seed, out, remote) + options.cluster_words(cluster)
            command += ["--until", until] if until is not None else []
            command += ["--budget", budget] if budget is not None else []
            goes_on = until_of(resume, width, budget_s, is_quick=each.is_quick)
            answered = _measured(
                each, command, seed, out, resume, allow_remote, limits, tools, goes_on, report, json_, quiet
            )
            answers.append(answered)
    if json_:
        output.print_json([document for document, _ in answers])
    # Of several scenarios: a missed threshold goes before too few valid trials, and that before all well.
    return min((code for _, code in answers if code), default=0)


EXAMPLES = (
    "tftpbench run concurrency --server epoll --server dnsmasq --set matrix.operation=read",
    "tftpbench run how-many --target 192.0.2.1:69 --target-file pxelinux.0 --allow-remote",
)


def _asked_until(until: str | None, budget: str | None) -> tuple[float | None, float]:
    """The share of --until and the seconds of --budget. Raises BadParameter."""
    if budget is not None and until is None:
        raise typer.BadParameter("--budget bounds the rounds that --until adds: give both, as in --until 5%")
    budget_s = options.duration_ns("--budget", "10min" if budget is None else budget) / 1e9
    if budget_s <= 0:
        raise typer.BadParameter("--budget is 0; allowed: a time above 0, as in 10min")
    if until is None:
        return None, budget_s
    number, percent, rest = until.strip().partition("%")
    if not (percent and not rest and re.fullmatch(r"\d+(\.\d+)?", number.strip()) and 0 < float(number) <= 100):
        raise typer.BadParameter(f"--until is {until[:40]!r}; allowed: above 0% to 100%, as in 5%")
    return float(number) / 100, budget_s


@dataclass(frozen=True)
class _Changes:
    """What the command line changes in every scenario."""

    overrides: list[str]
    servers: list[str]
    target: tuple[str | None, str | None, bool]
    """A running server's address, its file to read, and whether files may be uploaded to it."""
    quick: bool

    def entries(self, scenario: "Scenario") -> list[str]:
        """The servers in place of the scenario's. Raises UsageError where it can't be measured on the target so."""
        from tftpbench.host.target import target_entries

        return [*self.servers, *target_entries(*self.target, boots=scenario.cells()[0].is_boots)]

    def load(self, name: str) -> "Scenario":
        """The scenario of a path or name, changed."""
        from tftpbench.host.target import measuring
        from tftpbench.model.scenario_files import load_scenario, sets

        scenario = load_scenario(name, self.overrides)
        scenario = measuring(scenario, self.entries(scenario), self.overrides)
        return scenario.quick(keeps_trials=sets(self.overrides, "trials")) if self.quick else scenario

    def command(
        self, name: str, scenario: "Scenario", seed: int, out: Path, remote: tuple[bool, str | None, bool]
    ) -> list[str]:
        """What to type to do the same again: the same cells in the same order on the same contents.

        `remote`: --allow-remote, --max-rate and --keep-going.
        """
        allow_remote, max_rate, keep_going = remote
        words = ["tftpbench", "run", name]
        words += [word for assignment in self.overrides for word in ("--set", assignment)]
        words += [word for server in self.entries(scenario) for word in ("--server", server)]
        words += ["--quick"] if self.quick else []
        words += ["--seed", str(seed)]
        words += ["--out", str(out)] if out != options.RESULTS else []
        words += ["--allow-remote"] if allow_remote else []
        words += ["--max-rate", max_rate] if max_rate is not None else []
        return words + (["--keep-going"] if keep_going else [])


def _chosen(names: list[str], changes: _Changes, resume: Path | None, seed: int | None) -> list["Scenario"]:
    """The scenarios to run; of --resume the run's own, unless one is named: the runner then refuses another one."""
    from tftpbench.model.errors import UsageError
    from tftpbench.model.programs import typed
    from tftpbench.store import recording

    if resume is not None and (len(names) > 1 or seed is not None):
        raise UsageError("--resume continues one run, in its own order: leave --seed and further scenarios out")
    if names:
        return [changes.load(name) for name in names]
    if resume is None:
        raise UsageError(
            f"run needs a SCENARIO, as in: {typed(['tftpbench', 'run', 'smoke'])}; "
            f"all of them: {typed(['tftpbench', 'scenarios'])}"
        )
    if changes.overrides or changes.servers or changes.target != (None, None, False) or changes.quick:
        raise UsageError(
            "--resume continues the scenario as it was run: leave --set, --trials, --server, --server-host and --quick "
            "out"
        )
    return [recording.recorded(resume)[0]]


def _measured(
    scenario: "Scenario",
    command: list[str],
    seed: int,
    out: Path,
    resume: Path | None,
    allow_remote: bool,
    limits: "Limits",
    tools: "measure.Tools | None",
    until: "measure.Until | None",
    page: bool,
    json_: bool,
    quiet: bool,
) -> tuple[dict[str, object], int]:
    """The document and the exit code of a scenario that is measured, after its answer has been printed and kept."""
    from tftpbench import measure
    from tftpbench.render import progress
    from tftpbench.store import recording

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
                limits=limits,
                tools=tools,
                until=until,
            )
    except measure.RunInterrupted as interrupted:
        if scenario.capacity:
            output.capacities(interrupted.report, json_=False, quiet=quiet)
        if page and interrupted.report.rows:
            _write_page(interrupted.report.folder)
        raise
    if scenario.capacity:
        return _found(report, page, json_, quiet)
    return _answered(report, page, json_, quiet)


def _found(report: "RunReport", page: bool, json_: bool, quiet: bool) -> tuple[dict[str, object], int]:
    """The same of searches for capacities."""
    from tftpbench.model.capacity import documents
    from tftpbench.store.format import read_searches

    code = output.capacities(report, json_=json_, quiet=quiet, prints_document=False)
    if page:
        _write_page(report.folder)
    return documents(read_searches(report.folder)), code or 0


def _answered(report: "RunReport", page: bool, json_: bool, quiet: bool) -> tuple[dict[str, object], int]:
    from tftpbench.analysis import summary
    from tftpbench.model.errors import ResultsWarning
    from tftpbench.model.programs import typed
    from tftpbench.render import answer as rendered
    from tftpbench.store import load_run

    folder, repeat = str(report.folder), typed(report.command)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResultsWarning)  # printed below, for people
        stored = load_run(report.folder)
        answer, rows = summary.answer_of(stored), stored.rows
    for problem in stored.problems:
        typer.echo(f"{folder}: {problem}", err=True)
    output.keep_answer(report.folder, rendered.text(answer, folder, repeat))
    if page:
        _write_page(report.folder)
    output.print_text(
        lambda out: rendered.text(answer, folder, repeat, colour=out.has_colour, width=out.width),
        json_=json_, quiet=quiet,
    )  # fmt: skip
    return summary.document(answer, folder, report.seed, rows), answer.exit_code


def _write_page(folder: Path) -> None:
    """Said on standard error, as it is no part of the answer."""
    from tftpbench.store import load_run

    typer.echo(f"Report written: {output.keep_page(load_run(folder))}", err=True)


def _before_copies(scenario: "Scenario") -> tuple["Scenario", tuple[str, ...]]:
    """The scenario with one cell for all sizes where a file is there to be read, and what is not known of its cells."""
    from tftpbench.host.target import is_read_only

    if not any(map(is_read_only, scenario.servers)):
        return scenario, ()
    return scenario.with_file_size(scenario.cells()[0].file_size_bytes), ("file_size_bytes",)


def _dry_run(scenarios: list["Scenario"], seed: int, json_: bool) -> int:
    from tftpbench import measure
    from tftpbench.measure.plan import estimate_s, plan
    from tftpbench.model.units import about, counted
    from tftpbench.render import progress

    documents: list[dict[str, object]] = []
    count, seconds = 0, 0.0
    for scenario, unknown in map(_before_copies, scenarios):
        scenario, notes = measure.networked(scenario)  # noqa: PLW2901 (as it would be measured)
        if (name := scenario.placement.server_host) is not None:
            notes = (*notes, f"servers are looked for on this machine: --dry-run does not ask {name}")
        for note in notes:
            typer.echo(note, err=True)
        planned = plan(scenario, measure.contenders(scenario), seed)
        takes_s = estimate_s(planned.trials)
        count, seconds = count + len(planned.trials), seconds + takes_s
        if not json_:
            for line in progress.skipped_lines(planned.skipped):
                typer.echo(line)
            for trial in planned.trials:
                typer.echo(f"{trial.order:5}  {trial.contender.name}, {trial.cell.label_without(unknown)}")
        rows = [
            {
                "order": t.order, "trial": t.number, "server": t.contender.name,
                "cell_key": None if unknown else t.cell.key,  # the size of the file that is there is part of it
            }
            for t in planned.trials
        ]  # fmt: skip
        documents.append(
            {"scenario": scenario.document(), "seed": seed, "trials": rows, "estimated_s": round(takes_s, 1)}
        )
    if json_:
        output.print_json(documents)
    else:
        typer.echo(f"{counted(count, 'trial')}, {about(seconds)}")
    return 0
