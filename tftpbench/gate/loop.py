"""A whole `gate ab`: how much work a trial is, pair after pair, a look now and then, an end as soon as all is decided.

It emits events and prints nothing; every finished pair is kept. It must never measure again because it did not like
the outcome.
"""

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from tftpbench.gate import pair, syscalls
from tftpbench.gate.decision import Decision, decide
from tftpbench.gate.document import GateFolder
from tftpbench.gate.pair import STOP_GRACE_S, Work, loaded, severe_sign, sliced, valid, worsening_log
from tftpbench.gate.result import BASE, CONTROL, HEAD, Arm, Facts, GateResult, Pair
from tftpbench.gate.sides import describe, refuse_unfit
from tftpbench.gate.syscalls import Counted, SyscallsUnknown
from tftpbench.gate.text import remarks, sentence
from tftpbench.gate.verdict import ERROR, METHOD, is_early
from tftpbench.host import machine
from tftpbench.host.generator import Stop
from tftpbench.host.server_host import Server
from tftpbench.measure import (
    Bench,
    Contender,
    Pinning,
    Tools,
    Trial,
    load_config,
    networked,
    pin,
    server_of,
    target_files,
)
from tftpbench.model.errors import ServerError, TftpbenchError
from tftpbench.model.gate_settings import CONTROL_EVERY, METRICS, Gate
from tftpbench.model.invariants import number as figure
from tftpbench.model.keys import stable_key
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import format_duration
from tftpbench.model.workload import Cell

SYSCALLS = "syscalls_per_block"
# Pairs that don't count are made up for, but not for ever: a machine that spoils a third of them ends the gate.
SPOILT_MAX = 0.5
SPOILT_AT_FIRST = 4
# A pass under strace takes as long as its calls. A server of batches makes few, and their number moves with the
# batches: it gets more rounds of transfers (sd of 4 to 11 % with 2, 1.3 % with 10), which is half a second.
STRACED_ROUNDS = (2, 6)
STRACED_CALLS = 20_000
# One pass may fail, as where the slow server lets a transfer time out. What fails twice running is left.
STRACED_FAILURES_MAX = 2
# A pair's slices: fewer don't interleave, more gain nothing.
SLICES_MIN, SLICES_MAX = 4, 40
RATE = "data_pps"
# An arm is stopped at so many times what the budget allows: beyond what a pair needs to show a severe loss
# (pair.SEVERE), since the base itself is now and then half as fast as it was before the first pair.
SLOW_FACTOR = 3.0


@dataclass(frozen=True)
class GateStarted:
    """Both sides answer, the work is known. `work`: of a trial, in words, by cell_key."""

    looks: tuple[int, ...]
    work: Mapping[str, str]
    placement: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class PairFinished:
    """A pair is done, and on the disk."""

    pair: Pair
    cells: int


@dataclass(frozen=True)
class InterimLook:
    """There were pairs enough for a look."""

    decision: Decision


Event = GateStarted | PairFinished | InterimLook


class GateInterrupted(TftpbenchError):
    """Ctrl-C. Finished pairs are kept, and nothing is judged."""

    exit_code = 130

    def __init__(self, pairs: int, folder: Path | None) -> None:
        kept = f"; what was measured is in {folder}" if folder else ""
        super().__init__(f"interrupted after {pairs} pairs, so there is no verdict{kept}")


def ab(
    base: Contender,
    head: Contender,
    scenario: Scenario,
    *,
    seed: int,
    out: Path | None = None,
    entries: tuple[str, str] | None = None,
    command: Sequence[str] = (),
    on_event: Callable[[Event], object] = lambda _: None,
    tools: Tools | None = None,
) -> GateResult:
    """Hold the head against the base in every cell of the scenario.

    `out`: where the gate's folder is made, None to keep nothing. `entries`: base and head as they were typed. Raises
    UsageError where a side can't do a cell, ServerError where one can't be started, LoadError where the generator can't
    run, ResultsError where the folder can't be written, GateInterrupted on Ctrl-C.
    """
    scenario, notes = networked(scenario)
    refuse_unfit(base, head, scenario.cells())
    folder = GateFolder(out, scenario.name)
    entries = entries or (base.name, head.name)
    pinning = pin(scenario.placement)
    began, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    with ExitStack() as stack:
        files = stack.enter_context(target_files((base, head), allow_remote=False))
        base_folder = stack.enter_context((tools or Tools()).host.roots(scenario.cells(), seed))
        bench = Bench(base_folder, files, pinning, seed, tools or Tools())
        gate = _Gate(base, head, scenario, seed, bench, folder, on_event)
        gate.notes += notes
        try:
            decision = gate.run()
        except KeyboardInterrupt:
            raise GateInterrupted(len(gate.pairs), folder.path) from None
    described = describe(base, entries[0]), describe(head, entries[1])
    facts = _facts(scenario, seed, pinning, gate.work_texts, command, started_at, time.monotonic() - began)
    return GateResult(
        method="ab",
        verdict=decision.verdict,
        sentence=sentence(decision, described, scenario, pinning.phrase),
        base=described[0],
        head=described[1],
        judgements=decision.judgements,
        noise=decision.noise,
        pairs=tuple(gate.pairs),
        remarks=remarks(gate.pairs, gate.notes, pinning),
        failure=decision.failure,
        facts=facts,
        folder=str(folder.path) if folder.path else None,
    )


class _Gate:
    """The state of one gate: its pairs so far, and what was learnt before them."""

    def __init__(
        self, base: Contender, head: Contender, scenario: Scenario, seed: int, bench: Bench, folder: GateFolder,
        on_event: Callable[[Event], object],
    ) -> None:  # fmt: skip
        self.pairs: list[Pair] = []
        self.notes: list[str] = []
        self.work_texts: dict[str, str] = {}
        self._sides = {BASE: base, HEAD: head}
        self._scenario = scenario
        self._rng = random.Random(seed)
        self._bench = bench
        self._folder = folder
        self._on_event = on_event
        self._work: dict[str, Work] = {}
        self._idle: dict[tuple[str, str], Counted] = {}
        self._rounds: dict[str, int] = {}
        self._failures: dict[str, int] = dict.fromkeys((cell.key for cell in scenario.cells()), 0)
        self._counts_syscalls = SYSCALLS in scenario.gate.gated

    def run(self) -> Decision:
        """Pairs and looks to the end."""
        self._begin()
        gate, cells = self._scenario.gate, self._scenario.cells()
        decision, seen, number = decide((), gate.gated, gate.looks), (0, 0), 0
        while not decision.is_final and not self._is_spoilt(number):
            number += 1
            for cell in self._rng.sample(cells, len(cells)):
                self._measure(number, cell)
            before, seen = seen, self._pairs()
            is_look = any(now > then and now in gate.looks for then, now in zip(before, seen, strict=True))
            if is_look or is_early(self.pairs, gate.gated):
                decision = decide(self.pairs, gate.gated, gate.looks)
                if is_look:
                    self._on_event(InterimLook(decision))
                self._settle(decision)
        return decision if decision.is_final else decide(self.pairs, gate.gated, gate.looks, has_ended=True)

    def _begin(self) -> None:
        for cell in self._scenario.cells():
            transfer_s = pilot_transfer_s(cell, self._sides[BASE], BASE, self._bench)
            starts(cell, self._sides[HEAD], HEAD, self._bench)
            found = self._work[cell.key] = work(cell, self._scenario.gate, transfer_s)
            slice_text = format_duration(found.slice_ns)
            self.work_texts[cell.key] = (
                f"{cell.label}: {found.slices} slices of {found.transfers} transfers, {slice_text} each for the base"
            )
        reason = syscalls.unavailable() if self._counts_syscalls else None
        if reason is not None:
            self._counts_syscalls = False
            self.notes.append(f"System calls were not counted: {reason}.")
        self._folder.make()  # not before: what can't be started leaves no empty folder
        where, notes = self._bench.pinning.phrase, tuple(self.notes)
        self._on_event(GateStarted(self._scenario.gate.looks, self.work_texts, where, notes))

    def _measure(self, number: int, cell: Cell) -> None:
        sides = dict(self._sides)
        if number % CONTROL_EVERY == 0:
            sides[CONTROL] = self._sides[BASE]
        made = pair.measure(number, cell, self._work[cell.key], sides, self._rng, self._bench)
        if self._counts_syscalls and self._failures[cell.key] < STRACED_FAILURES_MAX and not self._is_severe(made):
            try:
                made = self._with_syscalls(made, cell, sides)
            except KeyboardInterrupt:
                self._folder.append(made)
                raise
        self._folder.append(made)
        self.pairs.append(made)
        self._on_event(PairFinished(made, len(self._scenario.cells())))

    def _with_syscalls(self, made: Pair, cell: Cell, sides: Mapping[str, Contender]) -> Pair:
        """The pair with a pass under strace for each arm."""
        arms = {}
        try:
            for name in self._rng.sample(list(sides), len(sides)):
                figures = {**made.arms[name].figures, SYSCALLS: self._syscalls(made.number, cell, name, sides[name])}
                arms[name] = Arm(figures)
        except SyscallsUnknown as reason:
            self._failures[cell.key] += 1
            if self._failures[cell.key] == STRACED_FAILURES_MAX:
                self.notes.append(f"System calls were not counted from pair {made.number} on: {reason}.")
            return made
        self._failures[cell.key] = 0
        return replace(made, arms={name: arms[name] for name in sides})

    def _syscalls(self, number: int, cell: Cell, name: str, contender: Contender) -> float:
        trial = Trial(number, number, number, cell, contender)
        side = BASE if name == CONTROL else name
        if (side, cell.key) not in self._idle:
            self._idle[side, cell.key] = syscalls.count(trial, self._bench, 0)
        if cell.key not in self._rounds:
            self._rounds[cell.key] = self._fitting(trial)
        counted = syscalls.count(trial, self._bench, self._rounds[cell.key] * cell.concurrency)
        return syscalls.per_block(counted, self._idle[side, cell.key])

    def _fitting(self, trial: Trial) -> int:
        """Rounds of a pass, the same for both sides: what start costs each must weigh as much."""
        transfers = STRACED_ROUNDS[0] * trial.cell.concurrency
        calls = [
            syscalls.count(replace(trial, contender=each), self._bench, transfers).calls
            for each in self._sides.values()
        ]
        fitting = round(STRACED_CALLS * STRACED_ROUNDS[0] / max(calls))
        return min(max(fitting, STRACED_ROUNDS[0]), STRACED_ROUNDS[1])

    def _settle(self, decision: Decision) -> None:
        """Passes under strace end once they have decided: they take as long as the pairs."""
        verdicts = [each.verdict for each in decision.judgements if each.metric == SYSCALLS]
        if all(verdict is not None and verdict.is_decisive for verdict in verdicts):
            self._counts_syscalls = False

    def _is_severe(self, made: Pair) -> bool:
        """Whether the pair tells nothing by its calls that its clock does not: it failed, or one side is far slower.

        A pass under strace takes long then, and if it goes on so, the clock decides before enough calls are counted.
        """
        gated = self._scenario.gate.gated.items()
        clocked = [(name, budget) for name, budget in gated if METRICS[name].needs_clock]
        return not made.arms or any(severe_sign(made, name, budget) for name, budget in clocked)

    def _is_spoilt(self, number: int) -> bool:
        """Whether so many pairs can't be trusted that no more are worth their time.

        But not before the first look, where they do count: for what needs no clock, or as pairs of a severe loss.
        """
        spoilt = sum(each.invalid is not None for each in self.pairs)
        if spoilt <= max(SPOILT_AT_FIRST, SPOILT_MAX * (len(self.pairs) - spoilt)):
            return False
        return number >= self._scenario.gate.looks[0] or not any(map(self._counts_nevertheless, self.pairs))

    def _counts_nevertheless(self, pair: Pair) -> bool:
        gated = self._scenario.gate.gated
        unclocked = [name for name in gated if not METRICS[name].needs_clock]
        is_known = any(worsening_log(pair, name) is not None for name in unclocked)
        return is_known or (bool(pair.arms) and self._is_severe(pair))

    def _pairs(self) -> tuple[int, int]:
        """How many pairs there are of the cell that has fewest: valid ones; and, for what needs no clock, all."""
        cells = [[each for each in self.pairs if each.cell_key == cell.key] for cell in self._scenario.cells()]
        fewest = min(len(valid(pairs)) for pairs in cells)
        if all(METRICS[name].needs_clock for name in self._scenario.gate.gated):
            return fewest, 0
        return fewest, min(len(loaded(pairs)) for pairs in cells)


def _facts(
    scenario: Scenario, seed: int, pinning: Pinning, work: Mapping[str, str], command: Sequence[str], started_at: str,
    duration_s: float,
) -> Facts:  # fmt: skip
    known = machine.facts()
    method = {"method": METHOD, "error": ERROR, **scenario.gate.model_dump(mode="json")}
    return Facts(
        scenario=scenario.document(),
        seed=seed,
        looks=scenario.gate.looks,
        error=ERROR,
        machine=known,
        build=machine.build(),
        placement=pinning.phrase,
        server_cpus=pinning.server,
        generator_cpus=pinning.generator,
        keys={"method_key": stable_key(method), "host_key": machine.host_key(known)},
        work=dict(work),
        command=tuple(command),
        started_at=started_at,
        duration_s=duration_s,
    )


def pilot_transfer_s(cell: Cell, contender: Contender, name: str, bench: Bench) -> float:
    """Seconds that one transfer of the cell takes when all of them are at it: the window / the transfers.

    Raises ServerError where the server can't be started, or completes nothing.
    """
    with _started(cell, contender, name, bench) as (trial, server):
        stop = Stop()
        config = load_config(trial, bench, server, stop)
        # Once cold, once warm: the second says how long it takes.
        for index in (1, 2):
            load = sliced(config, index, index * cell.concurrency)
            figures = bench.tools.generator.run(load, stop).figures
    completed, window_s = figure(figures, "completed"), figure(figures, "duration_s")
    if not completed or not window_s:
        asked = figure(figures, "started") or 0
        raise ServerError(f"{name}: completed none of {asked:.0f} transfers; try it by hand with tftpbench load")
    return window_s / completed


def starts(cell: Cell, contender: Contender, name: str, bench: Bench) -> None:
    """Raises ServerError where the server can't be started. What it does under load is for the pairs to show."""
    with _started(cell, contender, name, bench):
        pass


@contextmanager
def _started(cell: Cell, contender: Contender, name: str, bench: Bench) -> Iterator[tuple[Trial, Server]]:
    trial = Trial(0, 0, 0, cell, contender)
    with bench.folder_of(trial) as root:
        server = server_of(trial, bench, root, bench.roots.base / f"{name}.log")
        try:
            server.start()
            yield trial, server
        except ServerError as error:
            raise type(error)(f"{name}: {error}") from None
        finally:
            server.stop(STOP_GRACE_S)


def work(cell: Cell, gate: Gate, transfer_s: float) -> Work:
    """Slices of about `gate.slice` that together are the cell's transfers, or take the base the cell's duration."""
    wanted = cell.transfers or max(1, round((cell.duration_ns or 0) / 1e9 / transfer_s))
    in_a_slice = max(cell.concurrency, round(gate.slice_ns / 1e9 / transfer_s))
    slices = min(max(round(wanted / in_a_slice), SLICES_MIN), SLICES_MAX)
    transfers = max(cell.concurrency, round(wanted / slices))
    allowed = 1 / (1 - gate.gated.get(RATE, 0.0))
    return Work(transfers, slices, round(1e9 * transfers * transfer_s), SLOW_FACTOR * allowed)
