"""A whole run: plan, folder, one trial after another, each saved before the next begins.

It emits events and prints nothing. A run that is killed at any moment has lost the trial it was in, and can
be resumed.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tftpbench.host import headroom, machine
from tftpbench.host.brake import USUAL, Limits, is_elsewhere, run_text, stopped_text
from tftpbench.host.conditions import Diagnosis, needs_of
from tftpbench.host.generator import LoadResult, is_of_hosts
from tftpbench.host.pinning import RUNNING, Pinning, pin, placement
from tftpbench.host.presence import Found
from tftpbench.host.server_host import RootFolders, ServerHost, has_server_hosts, is_other_host
from tftpbench.host.target import Target
from tftpbench.measure.capacity_trials import search_all
from tftpbench.measure.ceilings import Ceilings, Headrooms, ProbeNetwork
from tftpbench.measure.events import (
    CeilingUnknown,
    Event,
    RunFinished,
    RunStarted,
    SearchFinished,
    SearchStarted,
    ServerLeftOut,
    TrialFinished,
    TrialStarted,
)
from tftpbench.measure.files import fitted, target_files
from tftpbench.measure.plan import Contender, Plan, Trial, contenders, estimate_s, networked, on_hosts, plan
from tftpbench.measure.session import Bench, Tools, load_of
from tftpbench.measure.starts import LeftOut, Starts
from tftpbench.measure.trial import Outcome, run_trial
from tftpbench.measure.validity import SERVER_HOST_LOST
from tftpbench.model.capacity import FoundCapacity
from tftpbench.model.errors import HostsError, ServerHostLost, TftpbenchError, UsageError
from tftpbench.model.metrics import BOOT_COLUMNS, INTERVAL_COLUMNS, TRANSFER_COLUMNS
from tftpbench.model.programs import split_cluster, typed
from tftpbench.model.scenario import Scenario
from tftpbench.model.workload import Sought

# As the manifest calls servers that did not start.
LEFT_OUT = "left_out"
# And the rates at which the generator is full.
FULL = "generator_full"
# And what was asked for beyond the scenario's rounds.
UNTIL = "until"
# As a scenario may ask for.
ROUNDS_MAX = 1000

Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class RunReport:
    """What a run leaves: where it lies, and every finished trial's row, in the order of time."""

    folder: Path
    plan: Plan
    seed: int
    command: tuple[str, ...]
    """The command that began the run, with the load hosts that it has now."""
    rows: tuple[Mapping[str, Any], ...]


class RunInterrupted(TftpbenchError):
    """Ctrl-C. All finished trials are saved; `report` holds them."""

    exit_code = 130

    def __init__(self, report: RunReport) -> None:
        super().__init__(f"interrupted; {_left(report)}")
        self.report = report


@dataclass(frozen=True)
class Until:
    """How long rounds are added to those of the scenario.

    `width`: of the headline's interval, from its lower end, as a share; `width_of` gives it of a run's folder, None
    where there is no interval yet. `budget_s`: no round begins that would not end within so long, earlier parts of an
    interrupted run included.
    """

    width: float
    budget_s: float
    width_of: Callable[[Path], float | None]


class TrialStore(Protocol):
    """Where a run's trials are kept, each whole before the next begins."""

    path: Path
    manifest: dict[str, Any]
    notes: list[str]

    def finished_trials(self) -> list[dict[str, Any]]:
        """The rows of all finished trials, in the order in which they ended."""

    def amend(self, key: str, value: object) -> None:
        """Add to the manifest what the run learnt on its way."""

    def write_trial_files(
        self,
        trial: int,
        transfers: Arrays,
        intervals: Arrays,
        latency_hlog: str,
        server_log: bytes,
        boots: Arrays | None = None,
    ) -> object:
        """Keep the files of one trial; before `append_trial`."""

    def append_trial(self, row: Mapping[str, object]) -> None:
        """Keep the row of a finished trial."""

    def keep_searches(self, found: Sequence[FoundCapacity]) -> None:
        """Keep what searches for capacities found, all until now."""

    def finished_searches(self) -> list[FoundCapacity]:
        """What `keep_searches` has kept."""

    def close(self) -> None:
        """Close it; other processes may open it again."""


def run(
    scenario: Scenario,
    *,
    seed: int,
    open_store: Callable[[Mapping[str, object]], TrialStore],
    command: Sequence[str] = (),
    on_event: Callable[[Event], None] = lambda _: None,
    tools: Tools | None = None,
    allow_remote: bool = False,
    limits: Limits = USUAL,
    until: Until | None = None,
) -> RunReport:
    """Do every trial of the scenario that the store lacks, and keep each there; then the rounds that `until` asks for.

    `open_store` is called once, with the run's manifest, before the first trial. `allow_remote` lets a running server
    be on another machine, `limits` bound what is sent there. Where the generator of `tools` is a `HostsLoad`, the load
    comes from those of its hosts that the scenario names, else from all. Raises LoadError where the generator can't run
    here or a server elsewhere bears no load, HostsError where hosts can't, or one is lost (its trial is kept, and all
    before it), ManifestError for unknown servers, ServerNotReady where one that should be running has not the file,
    UsageError where no server is there, RunInterrupted on Ctrl-C, and what the store raises.
    """
    tools = tools or Tools()
    scenario, generator, hosts = on_hosts(scenario, tools.generator)
    load_hosts = dict(zip(hosts, generator.machines, strict=True)) if is_of_hosts(generator) else {}
    wanted = scenario.placement.network
    scenario, network_notes = networked(scenario)
    with ExitStack() as stack:
        tools = stack.enter_context(_serving(scenario, replace(tools, generator=generator)))
        servers = contenders(scenario, host=tools.host)
        files = stack.enter_context(target_files(servers, allow_remote))
        scenario = fitted(scenario, servers, files, on_event)
        whole = plan(scenario, servers, seed)
        _refuse_nothing(whole)
        running = [server.name for server in servers if isinstance(server.server, Target)]
        is_fallback = wanted == "auto" and scenario.placement.network == "loopback" and not running
        pinning = replace(_pinned(scenario, tools.host, hosts), is_fallback=is_fallback)
        where = placement(pinning.phrase, running, len(servers), len(hosts))
        base = stack.enter_context(tools.host.roots(scenario.cells(), seed))
        found = tools.conditions(needs_of(scenario))
        facts = _manifest(scenario, seed, servers, whole, pinning, load_hosts, base, command, found, tools.host)
        bench = Bench(base, files, pinning, seed, tools, allow_remote, scenario.is_quick, limits)
        store = stack.enter_context(closing(open_store(facts)))
        done = {row["trial"] for row in store.finished_trials()}
        added = _Rounds(until, scenario, servers, seed, store)
        whole = added.whole
        notes = (*network_notes, *_remote_notes(servers, limits), *store.notes, *files.notes(servers))
        on_event(RunStarted(store.path, scenario, whole, pinning, len(done), notes, where))
        left = [trial for trial in whole.trials if trial.number not in done or scenario.capacity]
        lost = ""
        try:
            if scenario.capacity:
                interrupted = _search_all(left, whole, bench, store, on_event)
            else:
                interrupted = _do_all(left, whole, bench, store, on_event, added.more)
        except _HostLost as error:
            interrupted, lost = True, str(error)
        except ServerHostLost as error:  # between two trials
            interrupted, lost = True, f"{SERVER_HOST_LOST}: {error}"
        rows = tuple(store.finished_trials())
        report = RunReport(store.path, added.whole, seed, tuple(command), rows)
    on_event(RunFinished(report.folder, interrupted))
    if lost:
        raise HostsError(f"{lost}; {_left(report)}")
    if interrupted:
        raise RunInterrupted(report)
    return report


@contextmanager
def _serving(scenario: Scenario, tools: Tools) -> Iterator[Tools]:
    """The tools with the machine on which the scenario's servers are started.

    Nothing is known of another one's conditions. Raises HostsError where it can't be used, UsageError where the load
    does not reach it.
    """
    name, generator = scenario.placement.server_host, tools.generator
    if name is None or not has_server_hosts(generator):
        yield tools
        return
    with generator.server_host(name) as host:
        yield replace(tools, host=host, calibrate=host.calibrate, conditions=lambda _: ())


def _pinned(scenario: Scenario, host: ServerHost, hosts: Sequence[str]) -> Pinning:
    if not is_other_host(host):
        return pin(scenario.placement, from_hosts=bool(hosts))
    pinning = pin(scenario.placement, host.cores, from_hosts=True)
    return replace(pinning, server_at=f"{host.name} ({host.address})")


class _HostLost(Exception):
    """A host was lost in a trial, which is kept; the message says which, and why. What would follow is another load."""


def _left(report: RunReport) -> str:
    """What of a run that ended early is there, and how to go on, with the hosts of its load where it had any."""
    resumed = typed(["tftpbench", "run", "--resume", str(report.folder), *split_cluster(report.command)[1]])
    is_search = any(isinstance(trial.cell.load, Sought) for trial in report.plan.trials)
    most = "" if is_search else f" of {len(report.plan.trials)}"  # how many a search takes is not known
    return f"{len(report.rows)}{most} trials are finished, in {report.folder}; go on with: {resumed}"


class _Rounds:
    """The rounds of a run: the scenario's, and those that were added, which an earlier part of it may have begun."""

    def __init__(
        self, until: Until | None, scenario: Scenario, servers: Sequence[Contender], seed: int, store: TrialStore
    ) -> None:
        self._until, self._store, self._began_s = until, store, time.monotonic()
        self._plan: Callable[[int], Plan] = partial(plan, scenario, servers, seed)
        before = store.manifest.get(UNTIL)
        self._before = before if isinstance(before, Mapping) else {}
        self._rounds = max(scenario.trials, *(row.get("round") or 0 for row in store.finished_trials()), 0)
        self.whole = self._plan(self._rounds)
        if until is not None:
            self._note()

    def more(self) -> Sequence[Trial]:
        """The next round; none where the interval is narrow enough, or the budget spent."""
        until = self._until
        if until is None or self._rounds >= ROUNDS_MAX:
            return ()
        width = until.width_of(self._store.path)
        following = [each for each in self._plan(self._rounds + 1).trials if each.round == self._rounds + 1]
        takes_s = max(estimate_s(following), self._spent_s / max(1, self._rounds))
        self._note(width)
        if (width is not None and width <= until.width) or self._spent_s + takes_s > until.budget_s:
            return ()
        self._rounds += 1
        last = len(self.whole.trials)
        following = [replace(each, order=last + place) for place, each in enumerate(following, 1)]
        self.whole = replace(self.whole, trials=(*self.whole.trials, *following))
        self._store.amend("trials_planned", len(self.whole.trials))
        return following

    @property
    def _spent_s(self) -> float:
        return float(self._before.get("spent_s") or 0.0) + time.monotonic() - self._began_s

    def _note(self, width: float | None = None) -> None:
        """What was asked for, what it came to so far, and the time that went into it."""
        assert self._until is not None
        asked = {"width": self._until.width, "budget_s": self._until.budget_s}
        self._store.amend(UNTIL, {**asked, "reached": width, "spent_s": round(self._spent_s, 1)})


def _do_all(
    trials: Sequence[Trial],
    whole: Plan,
    bench: Bench,
    folder: TrialStore,
    on_event: Callable[[Event], None],
    more: Callable[[], Sequence[Trial]],
) -> bool:
    """True when Ctrl-C ended it: the trial it hit is forgotten, its server gone.

    `more` gives a further round when all is done, or nothing. A server that does not start is left out, and tried again
    when the run goes on by --resume.
    """
    starts = Starts(trials, folder.manifest.get(LEFT_OUT))
    rounds = max((trial.round for trial in whole.trials), default=1)
    network = ProbeNetwork()
    probes = Ceilings(
        network, bench.pinning, bench.seed, 1 if bench.is_quick else rounds, bench.tools.probes,
        folder.manifest.get("ceilings"),
        store=lambda chosen: folder.amend("ceilings", chosen),
        warn=lambda cell, reason: on_event(CeilingUnknown(cell, reason)),
    )  # fmt: skip
    headrooms = Headrooms(
        network, trials, lambda cell, host: load_of(cell, bench, host, 0), bench.pinning, bench.seed,
        1 if bench.is_quick else headroom.ROUNDS, bench.tools.probes, folder.manifest.get(FULL),
        store=lambda found: folder.amend(FULL, found),
        warn=lambda cell, reason: on_event(CeilingUnknown(cell, reason, "generator_headroom")),
    )  # fmt: skip
    try:
        if LEFT_OUT in folder.manifest:
            folder.amend(LEFT_OUT, [])
        total = len(whole.trials)
        waiting = list(trials)
        while waiting or (not starts.is_none_left and (waiting := list(more()))):
            trial = waiting.pop(0)
            total = max(total, trial.order + len(waiting))
            if trial.contender.name in starts.left_out:
                continue
            beside = (None, None) if trial.cell.generators else (probes.before(trial), headrooms.before(trial))
            on_event(TrialStarted(trial, total))
            outcome = run_trial(trial, bench, beside[0], on_event, beside[1])
            _save(folder, trial, outcome)
            advice = tuple(finding.advice for finding in outcome.findings)
            on_event(TrialFinished(trial, total, outcome.row, advice))
            _end_without_its_hosts(outcome)
            left_out = starts.note(trial, outcome.failed_start) or _stopped(starts, trial, outcome)
            if left_out is not None:
                folder.amend(LEFT_OUT, starts.document())
                on_event(ServerLeftOut(left_out, starts.is_none_left))
    except KeyboardInterrupt:
        return True
    finally:
        network.close()
    return False


def _search_all(
    searches: Sequence[Trial],
    whole: Plan,
    bench: Bench,
    folder: TrialStore,
    on_event: Callable[[Event], None],
) -> bool:
    """Of `searches`, each a cell whose load is sought, those that are not finished; True when Ctrl-C ended it."""

    def do(trial: Trial) -> Outcome:
        on_event(TrialStarted(trial, 0))
        outcome = run_trial(trial, bench, None, on_event)
        _save(folder, trial, outcome)
        on_event(TrialFinished(trial, 0, outcome.row, tuple(finding.advice for finding in outcome.findings)))
        _end_without_its_hosts(outcome)
        return outcome

    try:
        for begun, found in search_all(searches, do, folder.finished_trials(), folder.finished_searches()):
            if found is None:
                on_event(SearchStarted(begun, len(whole.trials)))
                continue
            folder.keep_searches(found)
            on_event(SearchFinished(begun, len(whole.trials), found[-1]))
            if found[-1].is_interrupted:
                return True
    except KeyboardInterrupt:
        return True
    folder.amend("trials_planned", len(folder.finished_trials()))
    return False


def _remote_notes(servers: Sequence[Contender], limits: Limits) -> Iterator[str]:
    for target in (server.server for server in servers):
        if isinstance(target, Target) and is_elsewhere(target.host):
            yield run_text(target.host, limits)


def _end_without_its_hosts(outcome: Outcome) -> None:
    """Raises _HostLost where a host was lost: on the load hosts that are left it would be another load."""
    if outcome.result is not None and outcome.result.hosts_lost:
        raise _HostLost(f"load host lost: {outcome.result.hosts_lost}")
    if outcome.server_host_lost is not None:
        raise _HostLost(f"{SERVER_HOST_LOST}: {outcome.server_host_lost}")


def _stopped(starts: Starts, trial: Trial, outcome: Outcome) -> LeftOut | None:
    """A server that the brake has ended the load on gets no more."""
    reason = outcome.result and outcome.result.stopped
    return starts.leave_out(trial, stopped_text(reason, trial.contender.name)) if reason else None


def _save(folder: TrialStore, trial: Trial, outcome: Outcome) -> None:
    result = outcome.result
    nothing: dict[str, np.ndarray[Any, Any]] = {}
    folder.write_trial_files(
        trial.number,
        result.transfers if result else nothing | {name: np.empty(0, np.int64) for name in TRANSFER_COLUMNS},
        result.intervals if result else nothing | {name: np.empty(0, np.int64) for name in INTERVAL_COLUMNS},
        result.latency_hlog if result else "",
        outcome.server_log,
        _boots(trial, result) if trial.cell.shares else None,
    )
    folder.append_trial(outcome.row)


def _boots(trial: Trial, result: LoadResult | None) -> Arrays:
    """The columns of boots.parquet, with each machine's profile by name."""
    if result is None:
        return {name: np.empty(0, np.int64) for name in BOOT_COLUMNS}
    profiles = np.array([share.name for share in trial.cell.shares])
    others = {name: column for name, column in result.boots.items() if name != "share"}
    return {**others, "boot": profiles[result.boots["share"]]}


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
    load_hosts: Mapping[str, Mapping[str, object]],
    base: RootFolders,
    command: Sequence[str],
    conditions: Sequence[Diagnosis],
    host: ServerHost,
) -> dict[str, object]:
    """manifest.json: everything that a reader needs to judge the run, or to repeat it."""
    facts = machine.facts()
    host_key = machine.host_key(host.machine if is_other_host(host) else facts)
    there = {"name": host.name, "address": host.address, "machine": host.machine} if is_other_host(host) else None
    return {
        "scenario": scenario.document(),
        "seed": seed,
        "trials_planned": 0 if scenario.capacity else len(whole.trials),  # of searches it is not known before
        "servers": {server.name: _server_facts(server) for server in servers},
        "skipped": [
            {"server": skip.server, "cell_key": skip.cell.key if skip.cell else None, "reason": skip.reason}
            for skip in whole.skipped
        ],
        "placement": {
            "server_cpus": list(pinning.server),
            "generator_cpus": list(pinning.generator),
            "phrase": pinning.phrase,
            "network": pinning.network,
            **({"load_hosts": list(load_hosts)} if load_hosts else {}),
        },
        **({"server_host": there} if there else {}),
        "roots": dict(base.facts),
        "argv": list(command),
        "machine": facts,
        **({"load_hosts": load_hosts} if load_hosts else {}),
        "conditions": [each.document for each in conditions],
        "build": machine.build(),
        "keys": {
            "method_key": scenario.method_key,
            "host_key": host_key,
            **({"load_hosts_key": machine.host_keys(load_hosts.values())} if load_hosts else {}),
        },
    }


def _server_facts(contender: Contender) -> dict[str, object]:
    found, server = contender.found, contender.server
    if isinstance(server, Target):
        return {"version": None, "model": RUNNING, "manifest": server.source}
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
