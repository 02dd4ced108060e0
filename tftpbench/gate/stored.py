"""A stored run that others are held against: opened, and refused where the two could not be compared.

Two runs may be held against each other where they did the same work (cell_key), measured it the same way (method_key),
on machines alike (host_key); a refusal names the fields that differ, with both values. It must never judge a figure.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tftpbench.analysis.comparison.differences import COMMIT_DIGITS, differing, part, refuse_mixed, refuse_quick, shown
from tftpbench.host import machine
from tftpbench.model.arguments import SEED_MAX
from tftpbench.model.errors import BaselineMissing, NotComparable, ResultsError, ScenarioError, UsageError
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted, duration_text
from tftpbench.model.workload import Cell
from tftpbench.store import Run, load_run, recording

MAKE_ONE = "make one on this machine with: tftpbench run SCENARIO, and keep the folder that it names"
# strace would slow a trial down, so no trial has it.
NOT_IN_A_RUN = "syscalls_per_block"

Row = Mapping[str, Any]
Place = tuple[str, str]
"""(server, cell_key)"""


@dataclass(frozen=True)
class Stored:
    """A run on the disk, and the scenario and seed that it was run with. Built by `stored` and `baseline`."""

    run: Run
    scenario: Scenario
    seed: int

    @cached_property
    def servers(self) -> tuple[str, ...]:
        """Which servers should have been measured and which were, in the scenario's order."""
        return tuple(dict.fromkeys([*self.run.manifest.get("servers", {}), *map(server_name, self.run.rows)]))

    @cached_property
    def trials(self) -> Mapping[Place, Sequence[Row]]:
        """By server and cell, cells and servers in their scenario's order; trials of no cell of it are left out."""
        rows: dict[Place, list[Row]] = {}
        for row in self.run.rows:
            rows.setdefault((server_name(row), row["cell_key"]), []).append(row)
        places = [(server, cell.key) for cell in self.scenario.cells() for server in self.servers]
        return {place: rows[place] for place in places if place in rows}

    @cached_property
    def cells(self) -> Mapping[str, Cell]:
        """Those that have a trial, by cell_key."""
        measured = {key for _, key in self.trials}
        return {cell.key: cell for cell in self.scenario.cells() if cell.key in measured}

    def part(self, *names: str) -> Mapping[str, Any]:
        """A part of the manifest; empty where it has none."""
        return part(self.run.manifest, *names)


def stored(path: Path) -> Stored:
    """Open a run. Raises ResultsError or ScenarioError where it is none, or can't be read."""
    scenario, seed, _ = recording.recorded(path)
    if not 0 <= seed <= SEED_MAX:
        raise ResultsError(f"{path}/manifest.json: seed is {seed}; allowed: 0 to {SEED_MAX}")
    found = Stored(load_run(path), scenario, seed)
    if found.run.rows and not found.trials:
        raise ResultsError(f"{path}: no trial belongs to a cell of its own scenario; measure it again")
    return found


def baseline(path: Path) -> Stored:
    """Open the run that others are held against.

    Raises BaselineMissing where there is none or it has no valid trial, UsageError where its scenario gates nothing
    that a run measures.
    """
    try:
        found = stored(path)
    except (ResultsError, ScenarioError) as error:
        raise BaselineMissing(f"no baseline: {error}; {MAKE_ONE}") from None
    if not any(is_valid(row) for rows in found.trials.values() for row in rows):
        what = counted(len(found.run.rows), "trial")
        raise BaselineMissing(f"no baseline: {path}: none of its {what} is valid; {MAKE_ONE}")
    if not budgets_of(found.scenario):
        raise UsageError(
            f"{path}: its scenario gates {NOT_IN_A_RUN} only, which a run does not measure; "
            "use tftpbench gate ab, or a baseline with another budget"
        )
    return found


def refuse_here(base: Stored, servers: Sequence[str]) -> None:
    """Raises NotComparable where a run of these servers, here and now, could not be held against the baseline."""
    measured = dict.fromkeys(server for server, _ in base.trials)
    if not set(measured) & set(servers):
        raise NotComparable(
            f"{base.run.path} and a run here and now can't be compared: the servers differ ({', '.join(measured)} "
            f"and {', '.join(servers)}); measure one that the stored run has"
        )
    facts = machine.facts()
    keys = {"host_key": machine.host_key(facts), "method_key": base.scenario.method_key}
    here = {"machine": facts, "keys": keys, "build": machine.build()}
    refuse(base, here, base.scenario, "a run here and now")


def budgets_of(scenario: Scenario) -> dict[str, float]:
    """Budgets of the metrics that a run measures."""
    return {name: budget for name, budget in scenario.gate.gated.items() if name != NOT_IN_A_RUN}


def is_valid(row: Row) -> bool:
    """Whether its figures may be used."""
    return bool(row["verdict"] == "valid")


def refuse(base: Stored, manifest: Mapping[str, Any], scenario: Scenario, name: str) -> None:
    """Raises NotComparable for quick runs, or saying which fields of which key differ, with both values."""
    refuse_quick(base.run.manifest, base.run.path)
    refuse_quick(manifest, name)
    refuse_mixed(base.run.manifest, {**manifest, "scenario": scenario.document()}, (base.run.path, name))
    differences = [
        *_key_differs("host_key", base, manifest, *(
            {fact: part(each, "machine").get(fact) for fact in machine.HOST_KEY_FACTS}
            for each in (base.run.manifest, manifest)
        )),
        *_key_differs("method_key", base, manifest, _method(base.scenario), _method(scenario)),
        *_cells_differ(base, scenario),
    ]  # fmt: skip
    if differences:
        raise NotComparable(
            f"{base.run.path} and {name} can't be compared: {'; '.join(differences)}; "
            "measure both alike, or make a new baseline with tftpbench run"
        )


def _key_differs(
    key: str, base: Stored, manifest: Mapping[str, Any], fields: Mapping[str, object], others: Mapping[str, object]
) -> Iterator[str]:
    known, other = base.part("keys").get(key), part(manifest, "keys").get(key)
    if known and known == other:
        return
    if not known or not other:  # two unknown machines are not one machine
        yield f"{key} is not known of the {'second' if known else 'first'}"
        return
    differences = _differences(fields, others)
    if not differences and key == "method_key":
        builds = [build_of(each) for each in (base.run.manifest, manifest)]
        differences = f"order of trials or estimator, as versions of tftpbench do ({builds[0]} and {builds[1]})"
    yield f"{key} differs: {differences or 'their manifests do not say how'}"


def _method(scenario: Scenario) -> dict[str, object]:
    duration = None if scenario.duration_ns is None else duration_text(scenario.duration_ns)
    return {
        "duration": duration,
        "warm_up": duration_text(scenario.warm_up_effective_ns),
        "trials": scenario.trials,
    }


def _cells_differ(base: Stored, scenario: Scenario) -> Iterator[str]:
    """What the first cell and the one nearest to it differ in, where the two have no cell in common."""
    others = scenario.cells()
    if any(cell.key in base.cells for cell in others) or not base.cells:
        return
    ours = _work(next(iter(base.cells.values())))
    nearest = min(map(_work, others), key=lambda other: sum(ours.get(name) != value for name, value in other.items()))
    yield f"cell_key differs: {_differences(ours, nearest)}"


def _work(cell: Cell) -> dict[str, object]:
    """The fields of its cell_key, one by one."""
    found: dict[str, object] = {}
    for name, value in cell.key_fields.items():
        found |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _differences(one: Mapping[str, object], other: Mapping[str, object]) -> str:
    return ", ".join(f"{name} ({shown(a)} and {shown(b)})" for name, (a, b) in differing(one, other).items())


def build_of(manifest: Mapping[str, Any]) -> str:
    """Which tftpbench made a run: "0.1.0 at 1234567"."""
    build = part(manifest, "build")
    commit = build.get("git_commit")
    return f"{shown(build.get('tftpbench'))}{f' at {shown(commit)[:COMMIT_DIGITS]}' if commit else ''}"
