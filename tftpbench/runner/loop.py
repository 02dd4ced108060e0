"""A whole run: plan, folder, one trial after another, each saved before the next begins.

It emits events and prints nothing. A run that is killed at any moment has lost the trial it was in, and goes on with
`resume`. Called by the command line and by the public API.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tftpbench import machine
from tftpbench.columns import INTERVAL_COLUMNS, TRANSFER_COLUMNS
from tftpbench.errors import ResultsError, TftpbenchError, UsageError
from tftpbench.results import RunFolder, load_run
from tftpbench.runner.ceilings import Ceilings
from tftpbench.runner.events import (
    CeilingUnknown,
    Event,
    RunFinished,
    RunStarted,
    ServerLeftOut,
    TrialFinished,
    TrialStarted,
)
from tftpbench.runner.files import TargetFiles, fitted, target_files
from tftpbench.runner.order import Contender, Plan, Trial, contenders, plan
from tftpbench.runner.placement import Pinning, pin
from tftpbench.runner.roots import file_system, roots
from tftpbench.runner.session import Bench, Tools
from tftpbench.runner.starts import Starts
from tftpbench.runner.trial import Outcome, run_trial
from tftpbench.scenario import Scenario, from_document
from tftpbench.servers import Found, Target

# As the manifest calls servers that did not start.
LEFT_OUT = "left_out"


@dataclass(frozen=True)
class RunReport:
    """What a run leaves: where it lies, and every finished trial's row, in the order of time."""

    folder: Path
    scenario: Scenario
    plan: Plan
    pinning: Pinning
    seed: int
    command: tuple[str, ...]
    """The command that began the run."""
    rows: tuple[Mapping[str, Any], ...]
    placement: str
    """Where it was measured, as the end of a sentence: "on separate cores"."""


class RunInterrupted(TftpbenchError):
    """Ctrl-C. All finished trials are saved; `report` holds them."""

    exit_code = 130

    def __init__(self, report: RunReport) -> None:
        super().__init__(
            f"interrupted; {len(report.rows)} of {len(report.plan.trials)} trials are finished, in {report.folder}; "
            f"go on with: tftpbench run --resume {report.folder}"
        )
        self.report = report


def run(
    scenario: Scenario,
    *,
    seed: int,
    out: Path = Path("results"),
    resume: Path | None = None,
    command: Sequence[str] = (),
    on_event: Callable[[Event], None] = lambda _: None,
    tools: Tools | None = None,
    allow_remote: bool = False,
) -> RunReport:
    """Do every trial of the scenario, or, with `resume`, those that a run folder lacks (its own seed counts then).

    `allow_remote` lets a server that runs already be on another machine. Raises ResultsError where the folder can't be
    written or is another scenario's, LoadError where the generator can't run here, ManifestError for unknown servers,
    ServerNotReady where one that should be running has not the file, UsageError where no server is there,
    RunInterrupted on Ctrl-C.
    """
    if resume is not None:
        _, seed, command = recorded(resume)
    servers = contenders(scenario)
    with target_files(servers, allow_remote) as files:
        asked = _Asked(fitted(scenario, servers, files, on_event), servers, seed, out, resume, tuple(command))
        return _run(asked, files, tools or Tools(), allow_remote, on_event)


@dataclass(frozen=True)
class _Asked:
    """What `run` was asked for, with its servers found."""

    scenario: Scenario
    servers: Sequence[Contender]
    seed: int
    out: Path
    resume: Path | None
    command: tuple[str, ...]


def _run(
    asked: _Asked, files: TargetFiles, tools: Tools, allow_remote: bool, on_event: Callable[[Event], None]
) -> RunReport:
    scenario, servers, seed = asked.scenario, asked.servers, asked.seed
    whole = plan(scenario, servers, seed)
    _refuse_nothing(whole)
    pinning = pin(scenario.placement)
    where = _placement(pinning, servers)
    with roots(scenario.cells(), seed, tools.write_contents) as base:
        facts = _manifest(scenario, seed, servers, whole, pinning, base.base, asked.command)
        with _open(scenario, asked.out, asked.resume, facts) as folder:
            done = {row["trial"] for row in folder.finished_trials()}
            notes = (*folder.notes, *files.notes(servers))
            on_event(RunStarted(folder.path, scenario, whole, pinning, len(done), notes, where))
            bench = Bench(base, files, pinning, seed, tools, allow_remote)
            probes = Ceilings(
                pinning, seed, scenario.trials, tools.probes, folder.manifest.get("ceilings"),
                store=lambda chosen: folder.amend("ceilings", chosen),
                warn=lambda cell, reason: on_event(CeilingUnknown(cell, reason)),
            )  # fmt: skip
            left = [trial for trial in whole.trials if trial.number not in done]
            interrupted = _do_all(left, whole, bench, probes, folder, on_event)
            rows = tuple(folder.finished_trials())
            report = RunReport(folder.path, scenario, whole, pinning, seed, asked.command, rows, where)
    on_event(RunFinished(report.folder, interrupted))
    if interrupted:
        raise RunInterrupted(report)
    return report


def recorded(folder: Path) -> tuple[Scenario, int, tuple[str, ...]]:
    """Scenario, seed and command of an existing run. Raises ResultsError where there is no run."""
    manifest = load_run(folder).manifest
    try:
        scenario = from_document(manifest["scenario"], f"{folder}/manifest.json")
        return scenario, int(manifest["seed"]), tuple(map(str, manifest.get("argv", ())))
    except (KeyError, TypeError, ValueError):
        raise ResultsError(
            f"{folder}/manifest.json: has no scenario and seed to go on with; start the run again"
        ) from None


def _do_all(
    trials: Sequence[Trial],
    whole: Plan,
    bench: Bench,
    probes: Ceilings,
    folder: RunFolder,
    on_event: Callable[[Event], None],
) -> bool:
    """True when Ctrl-C ended it: the trial it hit is forgotten, its server gone.

    A server that does not start is left out, and tried again when the run goes on by --resume.
    """
    starts = Starts(trials, folder.manifest.get(LEFT_OUT))
    try:
        if LEFT_OUT in folder.manifest:
            folder.amend(LEFT_OUT, [])
        for trial in trials:
            if trial.contender.name in starts.left_out:
                continue
            on_event(TrialStarted(trial, len(whole.trials)))
            outcome = run_trial(trial, bench, probes.before(trial))
            _save(folder, trial, outcome)
            advice = tuple(finding.advice for finding in outcome.findings)
            on_event(TrialFinished(trial, len(whole.trials), outcome.row, advice))
            left_out = starts.note(trial, outcome.failed_start)
            if left_out is not None:
                folder.amend(LEFT_OUT, starts.document())
                on_event(ServerLeftOut(left_out, starts.is_none_left))
    except KeyboardInterrupt:
        return True
    return False


def _save(folder: RunFolder, trial: Trial, outcome: Outcome) -> None:
    result = outcome.result
    nothing: dict[str, np.ndarray[Any, Any]] = {}
    folder.write_trial_files(
        trial.number,
        result.transfers if result else nothing | {name: np.empty(0, np.int64) for name in TRANSFER_COLUMNS},
        result.intervals if result else nothing | {name: np.empty(0, np.int64) for name in INTERVAL_COLUMNS},
        result.latency_hlog if result else "",
        outcome.server_log,
    )
    folder.append_trial(outcome.row)


def _open(scenario: Scenario, out: Path, resume: Path | None, facts: Mapping[str, object]) -> RunFolder:
    if resume is None:
        return RunFolder.create(out, scenario.name, facts)
    folder = RunFolder.open_for_resume(resume)
    if folder.manifest.get("scenario") != facts["scenario"]:
        folder.close()
        name = folder.manifest.get("scenario", {}).get("name")
        other = (
            f"is a run of {name!r}"
            if name != scenario.name
            else f"was made with another version of {name!r}, or with other options"
        )
        raise ResultsError(f"{resume}: {other}; leave the scenario out to go on with the run's own, or start a new run")
    known = {cell.key for cell in scenario.cells()}
    for row in folder.finished_trials():
        if row["cell_key"] not in known:
            folder.close()
            raise ResultsError(f"{resume}: trial {row['trial']} is of no cell of its scenario; start a new run")
    return folder


def _refuse_nothing(whole: Plan) -> None:
    if whole.trials:
        return
    reasons = dict.fromkeys(
        f"{skip.server}: {skip.reason}{f' (get it: {skip.get})' if skip.get else ''}" for skip in whole.skipped
    )
    raise UsageError(f"nothing to run: {'; '.join(reasons)}")


def _manifest(
    scenario: Scenario,
    seed: int,
    servers: Sequence[Contender],
    whole: Plan,
    pinning: Pinning,
    base: Path,
    command: Sequence[str],
) -> dict[str, object]:
    """manifest.json: everything that a reader needs to judge the run, or to repeat it."""
    facts = machine.facts()
    return {
        "scenario": scenario.document(),
        "seed": seed,
        "trials_planned": len(whole.trials),
        "servers": {server.name: _server_facts(server) for server in servers},
        "skipped": [
            {"server": skip.server, "cell_key": skip.cell.key if skip.cell else None, "reason": skip.reason}
            for skip in whole.skipped
        ],
        "placement": {
            "server_cpus": list(pinning.server),
            "generator_cpus": list(pinning.generator),
            "phrase": pinning.phrase,
        },
        "roots": {"path": str(base.parent), "file_system": file_system(base)},
        "argv": list(command),
        "machine": facts,
        "build": machine.build(),
        "keys": {"method_key": scenario.method_key, "host_key": machine.host_key(facts)},
    }


def _placement(pinning: Pinning, servers: Sequence[Contender]) -> str:
    """We pin nobody who runs already, and don't know where he runs."""
    running = [server.name for server in servers if isinstance(server.server, Target)]
    if not running:
        return pinning.phrase
    elsewhere = f"{' and '.join(running)} wherever it runs"
    return elsewhere if len(running) == len(servers) else f"{pinning.phrase}, but {elsewhere}"


def _server_facts(contender: Contender) -> dict[str, object]:
    found, server = contender.found, contender.server
    if isinstance(server, Target):
        return {"version": None, "model": "running already", "manifest": server.source}
    argv = server.argv_of(contender.variant)
    return {
        "version": found.version if isinstance(found, Found) else None,
        "model": server.model,
        "homepage": server.homepage,
        "argv": list(argv),
        "argv_write": list(server.argv_write),
        "env": dict(server.env),
        "caps": {} if contender.variant == "as_shipped" else dict(server.caps),
        "manifest": server.origin,
    }
