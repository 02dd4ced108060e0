"""The gate tested on this machine: its false-alarm rate over equal code, and whether it finds faults of known size.

    faults.py      servers made worse on purpose, by fault.c
    resampling.py  gates drawn from recorded pairs, thousands of times

Gates of a server against itself say the first; of a server against itself made worse by twice the budget, the second.
All of them are kept, so that the figures can be had again without measuring. Recorded pairs are used more than once
where that is said: labels of equal code exchanged at random, and gates drawn from the pairs of a fault. It must never
choose among gates by what they said.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tftpbench.gate.document import FILE, load, text
from tftpbench.gate.loop import ab
from tftpbench.gate.pair import figure
from tftpbench.gate.result import BASE, HEAD, GateResult, Pair, Verdict
from tftpbench.gate.selftest.faults import (
    BUDGETS,
    METRIC_OF,
    Fault,
    FaultsUnavailable,
    calibrated,
    compile_shim,
    with_fault,
)
from tftpbench.gate.selftest.resampling import DRAWS, Rate, Rates, detected, permuted
from tftpbench.measure import Contender
from tftpbench.model.arguments import SEED_MAX
from tftpbench.model.errors import ResultsError, UsageError
from tftpbench.model.regular_file import write_whole
from tftpbench.model.scenario import Scenario, from_document

# What the project's issue asks: caught in 18 of 20.
FAULT_GATES = 20
DETECTED_MIN = 0.9
# One false alarm in a hundred gates is what is promised: more than this would be seen in one of 20 self-tests only.
FALSE_ALARMS, ALPHA = 0.01, 0.05
AA = "aa"
# A lost datagram keeps its client waiting for a timer, all of it in one slice. With the usual second, a loss of 10 %
# would be one datagram in every fourth trial, which is no loss of 10 % but a rare stall; so, it is several in each.
DROPS_TIMEOUT = "100ms"
# A fault is sized by its cost in theory, then once more by what it did to so many pairs, within these bounds.
PILOT_PAIRS = 8
SCALES = 0.3, 3.0


@dataclass(frozen=True)
class FaultFound:
    """What came of one fault. `words`: its size; `moved`: what it did to its metric, as head / base."""

    name: str
    metric: str
    words: str
    pairs: int
    moved: float | None
    found: Rate
    resampled: Rate


@dataclass(frozen=True)
class SelfTested:
    """The whole. `alarms`: of live gates over equal code that could judge; `said`: of all of them.

    `permuted`: over their pairs with labels exchanged.
    """

    alarms: Rate
    said: Mapping[str, int]
    permuted: Rates | None
    faults: tuple[FaultFound, ...]
    notes: tuple[str, ...]
    folder: str

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept, as far as so many gates can tell; None where none of them could judge."""
        from scipy.stats import binom

        if not self.alarms.draws and not any(fault.found.draws for fault in self.faults):
            return None
        p_value = float(binom.sf(self.alarms.alarms - 1, self.alarms.draws, FALSE_ALARMS))
        quiet = self.permuted is None or (self.permuted.rate().share or 0) <= FALSE_ALARMS
        return p_value >= ALPHA and quiet and all((fault.found.share or 0) >= DETECTED_MIN for fault in self.faults)


def record(
    contender: Contender, scenario: Scenario, *, gates: int, faults: Sequence[str], pairs: int, seed: int, folder: Path,
    say: Callable[[str], object],
) -> list[str]:  # fmt: skip
    """Measure: `gates` gates over equal code, then `pairs` pairs for each fault. What could not be done, in words.

    Each gate is kept in `folder` as soon as it ends. Raises as `ab` does.
    """
    done: list[GateResult] = []
    for number in range(1, gates + 1):
        done.append(_gate(contender, contender, scenario, seed + number, folder / AA, (contender.name, contender.name)))
        say(f"gate {number} of {gates} over equal code: {done[-1].sentence}")
    if not faults:
        return []
    try:
        shim = compile_shim(folder)
    except FaultsUnavailable as reason:
        return [f"No fault was injected: {reason}."]
    notes = []
    cell = scenario.cells()[0]
    recorded = [pair for result in done for pair in result.pairs if pair.cell_key == cell.key]
    base = {name: _median(recorded, name) for name in scenario.gate.gated}
    for number, name in enumerate(faults):
        sized = _for_fault(scenario, name, pairs)
        try:
            fault = calibrated(name, scenario.gate.gated, base, sized.cells()[0])
        except FaultsUnavailable as reason:
            notes.append(f"{reason}.")
            continue
        pilot = ab(contender, with_fault(contender, shim, fault), _for_fault(scenario, name, PILOT_PAIRS), seed=seed)
        fault = _twice_the_budget(fault, pilot)
        entries = contender.name, f"{contender.name}, {fault.words}"
        worse = with_fault(contender, shim, fault)
        result = _gate(contender, worse, sized, seed + gates + number + 1, folder / name, entries)
        say(f"fault {name} ({fault.words}): {result.sentence}")
    return notes


def evaluate(folder: Path, notes: Sequence[str] = (), seed: int = 1, draws: int = DRAWS) -> SelfTested:
    """What the gates in a folder of `record` say together. Raises ResultsError where it holds none."""
    equal = _stored(folder / AA)
    by_fault = {name: found for name in METRIC_OF if (found := _stored(folder / name))}
    if not equal and not by_fault:
        raise ResultsError(f"{folder}: holds no gate of a self-test; make one with tftpbench gate selftest")
    verdicts = [result.verdict for result in equal if result.verdict != Verdict.INVALID]
    return SelfTested(
        alarms=Rate(verdicts.count(Verdict.REGRESSED), len(verdicts)),
        said=dict(Counter(result.verdict for result in equal)),
        permuted=_permuted(equal, seed, draws),
        faults=tuple(_found(name, found, equal, seed, draws) for name, found in by_fault.items()),
        notes=tuple(notes),
        folder=str(folder),
    )


def has_gates(folder: Path) -> bool:
    """Whether there is anything to evaluate."""
    return any(folder.glob(f"*/*/{FILE}"))


def refuse_unknown(names: Sequence[str]) -> None:
    """UsageError for an unknown fault."""
    for name in names:
        if name not in METRIC_OF:
            raise UsageError(f"{name!r} is no fault; allowed: {', '.join(METRIC_OF)}")


def _gate(
    base: Contender, head: Contender, scenario: Scenario, seed: int, out: Path, entries: tuple[str, str]
) -> GateResult:
    result = ab(base, head, scenario, seed=seed % (SEED_MAX + 1), out=out, entries=entries)
    if result.folder is not None:
        write_whole(Path(result.folder) / FILE, text(result).encode(), ResultsError, "choose another -o")
    return result


def _twice_the_budget(fault: Fault, pilot: GateResult) -> Fault:
    """Sized by what it did: a slower server finds more datagrams waiting, and so saves some of what it wastes."""
    judged = next((each for each in pilot.judgements if each.metric == fault.metric), None)
    worse, budget = (judged.worse, judged.budget) if judged else (None, None)
    if not worse or not budget or worse < 0:
        return fault
    low, high = SCALES
    return fault.scaled(min(max(BUDGETS * budget / worse, low), high))


def _for_fault(scenario: Scenario, name: str, pairs: int) -> Scenario:
    """One look at the end: the pairs are drawn from afterwards."""
    document = scenario.document()
    document["gate"] = {**scenario.gate.model_dump(mode="json", by_alias=True), "looks": [pairs]}
    if name == "drops":
        document["client"] = {**document.get("client", {}), "timeout": DROPS_TIMEOUT}
    return from_document(document, "selftest")


def _stored(folder: Path) -> list[GateResult]:
    return [load(path.parent) for path in sorted(folder.glob(f"*/{FILE}"))]


def _permuted(equal: Sequence[GateResult], seed: int, draws: int) -> Rates | None:
    pairs = [pair for result in equal for pair in result.pairs]
    if not equal:
        return None
    gate = from_document(equal[0].facts.scenario, "selftest").gate
    try:
        return permuted(pairs, gate.gated, gate.looks, draws, seed)
    except ValueError:
        return None  # too few pairs for a look


def _found(name: str, found: Sequence[GateResult], equal: Sequence[GateResult], seed: int, draws: int) -> FaultFound:
    """Gates drawn from the fault's pairs, with the looks of those over equal code."""
    asked = from_document((equal or found)[0].facts.scenario, "selftest").gate
    pairs = [pair for result in found for pair in result.pairs]
    usable = sum(pair.invalid is None for pair in pairs)
    looks = [look for look in asked.looks if look <= usable]
    metric = METRIC_OF[name]
    judged = next((each for each in found[0].judgements if each.metric == metric), None)
    return FaultFound(
        name=name,
        metric=metric,
        words=found[0].head.entry.partition(", ")[2],
        pairs=usable,
        moved=judged.ratio if judged else None,
        found=detected(pairs, metric, asked.gated, looks, FAULT_GATES, seed) if looks else Rate(0, 0),
        resampled=detected(pairs, metric, asked.gated, looks, draws, seed) if looks else Rate(0, 0),
    )


def _median(pairs: Sequence[Pair], metric: str) -> float | None:
    known = [value for pair in pairs for arm in (BASE, HEAD) if (value := figure(pair, arm, metric)) is not None]
    return float(np.median(known)) if known else None
