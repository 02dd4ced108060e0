"""A whole run in a folder of its own: the runner's trials, each kept by a RunFolder before the next begins.

A run that is killed at any moment has lost the trial it was in, and can be resumed. It must never judge.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tftpbench.host.brake import USUAL, Limits
from tftpbench.host.machine import HOST_KEY_FACTS
from tftpbench.measure import Event, RunReport, Tools, Until, runner
from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import one_line
from tftpbench.model.programs import split_cluster
from tftpbench.model.scenario import Scenario, from_document
from tftpbench.store.run import load_run
from tftpbench.store.writer import RunFolder


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
    limits: Limits = USUAL,
    until: Until | None = None,
) -> RunReport:
    """Do every trial of the scenario, or, with `resume`, those that a run folder lacks (its own seed counts then).

    Raises ResultsError where the folder can't be written or is another scenario's, and what `runner.run` raises.
    """
    if resume is not None:
        _, seed, begun = recorded(resume)
        command = (*split_cluster(begun)[0], *split_cluster(command)[1])
    return runner.run(
        scenario,
        seed=seed,
        open_store=lambda facts: _open(out, resume, facts),
        command=command,
        on_event=on_event,
        tools=tools,
        allow_remote=allow_remote,
        limits=limits,
        until=until,
    )


def recorded_until(folder: Path) -> tuple[float, float] | None:
    """The width and the budget in seconds that a run was asked to go on to; None where it was not."""
    asked = load_run(folder).manifest.get(runner.UNTIL)
    try:
        return (float(asked["width"]), float(asked["budget_s"])) if isinstance(asked, Mapping) else None
    except (KeyError, TypeError, ValueError):
        return None


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


def _question(document: Mapping[str, object], source: str) -> Scenario:
    """Without what follows from it: a run of an older version did not write that down."""
    return from_document({key: value for key, value in document.items() if key != "asks"}, source)


def _elsewhere(begun: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Why a run can't go on here: trials of two machines, or from two sets of load hosts, would look like one's.

    Empty where it can, or where an older run does not say.
    """
    keys, names, machines = [], [], []
    for manifest in (begun, now):
        keys.append(_mapping(manifest, "keys"))
        names.append(_mapping(manifest, "placement").get("load_hosts"))
        of_server = _mapping(_mapping(manifest, "server_host"), "machine")
        machines.append(of_server or _mapping(manifest, "machine"))
    if names[0] != names[1] and isinstance(names[0], list):
        before, after = (", ".join(map(str, each)) if isinstance(each, list) else "this machine" for each in names)
        return f"its load came from {one_line(before)}, and this one would come from {after}; give the same hosts"
    if keys[0].get("load_hosts_key") not in (None, keys[1].get("load_hosts_key")):
        return "its load hosts are other machines now, or have changed"
    if keys[0].get("host_key") in (None, keys[1].get("host_key")):
        return ""
    changed = [name for name in HOST_KEY_FACTS if machines[0].get(name) != machines[1].get(name)]
    said = ", ".join(f"{name} was {one_line(machines[0].get(name))}, is {machines[1].get(name)}" for name in changed)
    return f"it was begun on another machine ({said or 'host_key differs'})"


def _mapping(manifest: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = manifest.get(name)
    return found if isinstance(found, Mapping) else {}


def _open(out: Path, resume: Path | None, facts: Mapping[str, object]) -> RunFolder:
    known = facts["scenario"]
    assert isinstance(known, Mapping)
    scenario = from_document(known, "the scenario")
    if resume is None:
        return RunFolder.create(out, scenario.name, facts)
    folder = RunFolder.open_for_resume(resume)
    if elsewhere := _elsewhere(folder.manifest, facts):
        folder.close()
        raise ResultsError(f"{resume}: {elsewhere}; start a new run")
    begun = folder.manifest.get("scenario")
    if not isinstance(begun, Mapping) or _question(begun, f"{resume}/manifest.json: scenario") != _question(known, ""):
        folder.close()
        name = begun.get("name") if isinstance(begun, Mapping) else None
        other = (
            f"is a run of {name!r}"
            if name != scenario.name
            else f"was made with another version of {name!r}, or with other options"
        )
        raise ResultsError(f"{resume}: {other}; leave the scenario out to go on with the run's own, or start a new run")
    keys = {cell.key for cell in scenario.cells()}
    for row in folder.finished_trials():
        if row["cell_key"] not in keys and not scenario.capacity:  # whose trials are of the loads that were tried
            folder.close()
            raise ResultsError(f"{resume}: trial {row['trial']} is of no cell of its scenario; start a new run")
    return folder
