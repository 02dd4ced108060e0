"""The Answer of a run as it lies on the disk: from its folder alone; and for programs, as JSON.

It must never guess what a run folder does not hold; a trial of no cell of the scenario is named and left out.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from tftpbench.analysis import capacity
from tftpbench.analysis.summary.answer import Answer, LeftOut, summarise
from tftpbench.analysis.summary.lines import record
from tftpbench.host.pinning import RUNNING, placement
from tftpbench.model.errors import ResultsError, ScenarioError, UsageError
from tftpbench.model.scenario import Scenario, from_document
from tftpbench.model.thresholds import server_name
from tftpbench.model.units import counted
from tftpbench.store import Latency, Run


def answer_of(run: Run) -> Answer:
    """The Answer to the question of the scenario of `run`, from its trials, finished or cut off.

    Raises ResultsError where the manifest holds no scenario that can be read, UsageError for what is no Run.
    """
    if not isinstance(run, Run):
        raise UsageError(f"a value of type {type(run).__name__} is no run; allowed: what tftpbench.load_run returns")
    scenario = scenario_of(run)
    if scenario.capacity:
        return _of_searches(run, scenario)
    known = {cell.key for cell in scenario.cells()}
    servers = dict.fromkeys([*run.manifest.get("servers", {}), *map(server_name, run.rows)])
    valid = run.valid_trials  # looked up once for each line, of which there may be thousands
    merged = lru_cache(maxsize=1)(partial(_merged, run))  # a line asks for two percentiles of one histogram in turn
    answer = summarise(
        scenario,
        list(servers),
        [row for row in run.rows if row["cell_key"] in known],
        placement_of(run.manifest),
        [skip for skip in _skipped(run.manifest) if skip[1] is None or skip[1] in known],
        lambda kind, cell_key, server: merged(kind, tuple(valid.get((cell_key, server), ()))),
        [LeftOut(**{name: each[name] for name in LeftOut._fields}) for each in run.manifest.get("left_out", ())],
    )
    strange = Counter(server_name(row) for row in run.rows if row["cell_key"] not in known)
    strangers = [f"{server}: {counted(count, 'trial')} of no cell of the scenario" for server, count in strange.items()]
    return replace(answer, skipped=(*answer.skipped, *strangers))


def _of_searches(run: Run, scenario: Scenario) -> Answer:
    """What the searches for capacities found; their trials are of no cell of the scenario, whose load was sought."""
    skipped = [skip for skip in _skipped(run.manifest) if skip[1] is None]
    answer = summarise(scenario, [*run.manifest.get("servers", {})], [], placement_of(run.manifest), skipped)
    said = " ".join(capacity.sentences(run.searches)) or "No search has come to its end."
    return replace(answer, sentence=said, incomplete=())


def scenario_of(run: Run) -> Scenario:
    """The scenario as it was run, every default in it. Raises ResultsError where the manifest has none."""
    known = run.manifest.get("scenario")
    if not isinstance(known, Mapping):
        raise ResultsError(f"{run.path}/manifest.json: has no scenario, so what was asked is not known")
    try:
        return from_document(known, f"{run.path}/manifest.json: scenario")
    except ScenarioError as error:
        raise ResultsError(*error.args) from None


def placement_of(manifest: Mapping[str, Any]) -> str:
    """Where it was measured, in words."""
    servers: Mapping[str, Any] = manifest.get("servers", {})
    running = [name for name, facts in servers.items() if facts.get("model") == RUNNING]
    where: Mapping[str, Any] = manifest.get("placement", {})
    hosts = where.get("load_hosts")
    phrase, count = str(where.get("phrase", "on cores unknown")), len(hosts) if isinstance(hosts, list) else 0
    return placement(phrase, running, len(servers), count)


def _skipped(manifest: Mapping[str, Any]) -> Iterable[tuple[str, str | None, str]]:
    return [(str(skip["server"]), skip.get("cell_key"), str(skip["reason"])) for skip in manifest.get("skipped", ())]


def _merged(run: Run, kind: str, trials: tuple[int, ...]) -> Latency | None:
    try:
        found = run.merged(kind, trials, "such a cell")
    except ResultsError:  # none was recorded, or it can't be read, which the run's problems tell
        return None
    return found if found.count else None


SCHEMA = "tftpbench.summary/1"


def document(answer: Answer, folder: str, seed: int, rows: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Plain JSON values."""
    return {
        "schema": SCHEMA,
        "run": folder,
        "seed": seed,
        "answer": answer.sentence,
        "exit_code": answer.exit_code,
        "quick": answer.is_quick,
        "thresholds": [each.document for each in answer.thresholds],
        "cells": [record(line) for line in answer.lines],
        "ratios_of": answer.metric,
        "reference": answer.against,
        "headline": answer.headline,
        "conditions": answer.conditions,
        "wire": answer.wire,
        "noise": answer.noise,
        "headroom": answer.headroom,
        "findings": list(answer.findings),
        "findings_by_origin": {origin: list(texts) for origin, texts in answer.findings_by_origin.items()},
        "faults": list(answer.faults),
        "skipped": list(answer.skipped),
        "incomplete": list(answer.incomplete),
        "trials": [dict(row) for row in rows],
    }
