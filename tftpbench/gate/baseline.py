"""`gate baseline`: a run against a stored run of the same work, measured the same way, on the same machine.

The two were measured at different times, so there are no pairs: they are two independent samples of trials. The 20 %
trimmed means of each metric's logs are held against the budget with Yuen's t (Yuen 1974; degrees of freedom after
Welch), in one look, with Holm's correction over metrics, servers and cells; the verdicts are those of `gate ab`. What
the machine did between the runs looks like a regression, and nothing here can tell the two apart: every result says so.

By simulation of 40,000 times two samples of the same noise, how often one test calls the second worse, at 1 % and at
what the least of eight tests must reach:

    trials  noise               p < 1 %  p < 0.125 %
         6  normal                0.7 %       0.07 %
         7  normal                0.8 %       0.07 %
         7  t, 3 degrees          0.6 %       0.05 %
         7  normal, 5 % spikes    0.7 %       0.08 %
        20  normal                1.0 %       0.12 %

It must never judge runs whose keys differ, and never measure.
"""

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from tftpbench.analysis.comparison.differences import shown
from tftpbench.analysis.stats import CONFIDENCE, PAIRS_MIN, Trimmed, trimmed
from tftpbench.gate.decision import DETAILS
from tftpbench.gate.result import BY_SEVERITY, Facts, GateResult, Judgement, Side, Verdict
from tftpbench.gate.stored import NOT_IN_A_RUN, Place, Row, Stored, budgets_of, build_of, is_valid, refuse
from tftpbench.gate.text import change
from tftpbench.gate.verdict import ERROR, Loss, held_budget, overall_verdict, verdicts
from tftpbench.model.errors import NotComparable
from tftpbench.model.gate_settings import KNOWN, worsening
from tftpbench.model.invariants import number
from tftpbench.model.metrics import METRICS as RECORDS
from tftpbench.model.metrics import Metric
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import counted, format_duration
from tftpbench.model.workload import Cell

# A trimmed mean of fewer trials has an error that can't be relied on.
TRIALS_MIN = PAIRS_MIN
# Findings of a trial in which the server was not there.
_GONE = {"died", "not_ready"}
# So many servers and cells that can't be judged are named; the others are counted.
_NAMED_MAX = 4
# A sentence of more figures is none.
_SENTENCE_FIGURES_MAX = 3


def judge(base: Stored, head: Stored, command: Sequence[str] = (), folder: str | None = None) -> GateResult:
    """Hold the run `head` against the run `base`. Raises NotComparable where their keys differ, naming what does."""
    refuse(base, head.run.manifest, head.scenario, str(head.run.path))
    shared = [place for place in base.trials if place in head.trials]
    if not shared:
        raise NotComparable(
            f"{base.run.path} and {head.run.path} can't be compared: they have no server and cell in common "
            f"({_servers(base)} in the first, {_servers(head)} in the second)"
        )
    budgets = budgets_of(base.scenario)
    samples = [_sample(metric, place, base, head) for metric in KNOWN.values() for place in shared]
    found = _verdicts(samples, budgets)
    tests = sum(samples[number].is_enough for number in found)
    judgements = [
        _judgement(each, found.get(number), each.held(budgets), tests)
        for number, each in enumerate(samples)
        if each.metric.name in budgets or each.base or each.head or _is_asked(each.metric.name, base.scenario)
    ]
    judgements.sort(key=lambda each: each.verdict is None)  # stable: the order of metrics and cells stays
    failure = _failure(base, head)
    verdict = overall_verdict(found.values(), failure)
    return GateResult(
        method="baseline",
        verdict=verdict,
        sentence=_sentence(verdict, failure, judgements, base),
        base=_side(base, shared),
        head=_side(head, shared),
        judgements=tuple(judgements),
        noise=(),
        pairs=(),
        remarks=tuple(_remarks(base, head, shared)),
        failure=failure,
        facts=_facts(head, shared, command),
        folder=folder,
    )


def difference(one: Trimmed, other: Trimmed) -> Trimmed:
    """`one` - `other`, each of a sample of its own (Yuen 1974).

    Degrees of freedom are rounded down, to the safe side.
    """
    both = float(one.error**2 + other.error**2)
    freedom = one.freedom + other.freedom
    if both > 0:
        share = float(one.error**2) / both
        freedom = int(1 / (share**2 / one.freedom + (1 - share) ** 2 / other.freedom))
    return Trimmed(one.mean - other.mean, np.asarray(math.sqrt(both)), freedom)


def figure(row: Row, metric: str) -> float | None:
    """A metric of a trial, in its unit; None where it is unknown, or no positive number."""
    value = number({metric: RECORDS[metric].of(row)}, metric)
    return value if value is not None and value > 0 else None


# ---- the judgement


@dataclass(frozen=True)
class _Sample:
    """A metric of one server in one cell: its figures in the valid trials of both runs that know it."""

    metric: Metric
    place: Place
    cell: Cell
    base: Sequence[float]
    head: Sequence[float]
    trials: tuple[int, int]
    """Trials of both, valid or not."""

    @property
    def is_enough(self) -> bool:
        return min(len(self.base), len(self.head)) >= TRIALS_MIN

    @cached_property
    def moved(self) -> Trimmed:
        """The log-ratio head / base."""
        return difference(trimmed(np.log(self.head)), trimmed(np.log(self.base)))

    def loss(self, budget: float) -> Loss:
        """How much worse the head is, against the budget."""
        sign = 1 if self.metric.lower_is_better else -1
        return Loss(self.metric, Trimmed(sign * self.moved.mean, self.moved.error, self.moved.freedom), budget)

    def held(self, budgets: Mapping[str, float]) -> float | None:
        """The budget as a share, as it is judged: no less than the metric's floor. None where it is not gated."""
        share = budgets.get(self.metric.name)
        return None if share is None else held_budget(self.metric, share, self.base)


def _sample(metric: Metric, place: Place, base: Stored, head: Stored) -> _Sample:
    sides = [
        [value for row in run.trials[place] if is_valid(row) and (value := figure(row, metric.name)) is not None]
        for run in (base, head)
    ]
    counts = len(base.trials[place]), len(head.trials[place])
    return _Sample(metric, place, base.cells[place[1]], sides[0], sides[1], counts)


def _verdicts(samples: Sequence[_Sample], budgets: Mapping[str, float]) -> dict[int, Verdict]:
    """A verdict for each sample whose metric is gated, by its place in the list."""
    gated = {number: budget for number, each in enumerate(samples) if (budget := each.held(budgets)) is not None}
    losses = {number: samples[number].loss(budget) for number, budget in gated.items() if samples[number].is_enough}
    found = verdicts(losses, last=losses, error=ERROR)
    return {number: BY_SEVERITY[int(found[number][0])] if number in found else Verdict.INCONCLUSIVE for number in gated}


def _judgement(sample: _Sample, verdict: Verdict | None, budget: float | None, tests: int) -> Judgement:
    metric, server = sample.metric, sample.place[0]
    both = bool(sample.base and sample.head)
    base, head = (statistics.median(side) if side else None for side in (sample.base, sample.head))
    log = low = high = effect = None
    if sample.is_enough:
        log = float(sample.moved.mean)
        low, high = _interval(sample.moved)
        effect = (
            None if budget is None else worsening(metric, float(sample.loss(budget).smallest_effect(ERROR / tests)[0]))
        )
    elif both and base and head:
        log = math.log(head / base)
    sign = 1 if metric.lower_is_better else -1
    return Judgement(
        metric=metric.name, cell=f"{server}, {sample.cell.label}", cell_key=sample.place[1], verdict=verdict, base=base,
        head=head, ratio=None if log is None else math.exp(log), low=low, high=high,
        worse=None if log is None else worsening(metric, sign * log), budget=budget,
        pairs=min(len(sample.base), len(sample.head)), smallest_effect=effect, detail=_detail(sample, verdict),
    )  # fmt: skip


def _interval(moved: Trimmed) -> tuple[float, float]:
    from scipy.stats import t

    reach = float(t.isf((1 - CONFIDENCE) / 2, moved.freedom) * moved.error)
    return math.exp(float(moved.mean) - reach), math.exp(float(moved.mean) + reach)


def _detail(sample: _Sample, verdict: Verdict | None) -> str:
    known = f"{len(sample.base)} and {len(sample.head)} trials"
    if sample.metric.name == NOT_IN_A_RUN:
        return "not measured in a run"
    if verdict is None:
        return f"reported, never gated; {known}"
    if not sample.is_enough:
        return (
            f"too few to judge: {len(sample.base)} of {counted(sample.trials[0], 'trial')} of the stored run and "
            f"{len(sample.head)} of {sample.trials[1]} of the new one are valid and know it; "
            f"{TRIALS_MIN} of each are needed"
        )
    reason = "too noisy here: take more or longer trials" if verdict == Verdict.INVALID else DETAILS[verdict]
    return f"{reason}; {known}"


def _failure(base: Stored, head: Stored) -> str | None:
    """Wrong contents anywhere, or a server that did its work in the baseline and moves nothing now."""
    found = []
    for place, rows in head.trials.items():
        label = f"{place[0]}, {head.cells[place[1]].label}"
        if wrong := sum(row.get("content_mismatches") or 0 for row in rows):
            found.append(f"{label}: wrong contents in {counted(wrong, 'transfer')}")
        elif any(_has_moved(row) for row in base.trials.get(place, ())) and all(_is_lost(row) for row in rows):
            found.append(f"{label}: the server moved nothing in any trial, and did in the stored run")
    return f"{found[0]}{f'; and {len(found) - 1} more like it' if len(found) > 1 else ''}" if found else None


def _has_moved(row: Row) -> bool:
    return is_valid(row) and figure(row, "data_pps") is not None


def _is_lost(row: Row) -> bool:
    """By the server's own doing: a trial that is invalid for another reason says nothing of it."""
    if is_valid(row):
        return row.get("data_pps") == 0
    findings = row.get("server_findings") or ()
    return not _GONE.isdisjoint(each["kind"] for each in findings)


def _is_asked(metric: str, scenario: Scenario) -> bool:
    """Whether people will look for it, though a run does not have it."""
    return metric == NOT_IN_A_RUN and metric in scenario.gate.gated


# ---- in words, and where it was measured


def _sentence(verdict: Verdict, failure: str | None, judgements: Sequence[Judgement], base: Stored) -> str:
    """The verdict with the figures that decided, the most severe first."""
    against = f"against the stored run {base.run.name}"
    if failure is not None:
        return f"regressed: {failure}; {against}."
    wanted = {Verdict.IMPROVED, Verdict.PASS} if verdict == Verdict.IMPROVED else {verdict}
    alike = [each for each in judgements if each.verdict in wanted]
    alike.sort(key=lambda each: -(each.worse or 0) / (each.budget or 1))
    more = f"; and {len(alike) - _SENTENCE_FIGURES_MAX} more" if len(alike) > _SENTENCE_FIGURES_MAX else ""
    return (
        f"{verdict}: {'; '.join(change(each, named=True) for each in alike[:_SENTENCE_FIGURES_MAX])}{more}; {against}."
    )


def _remarks(base: Stored, head: Stored, shared: Sequence[Place]) -> Iterator[str]:
    since = next((str(row["started_at"])[:19] for row in base.run.rows if row.get("started_at")), "an unknown time")
    yield (
        f"The stored run was measured at another time ({since}), not beside the new one. So a change of the machine "
        "can look like a regression, or hide one. To decide on a merge, use tftpbench gate ab."
    )
    if base.run.path.resolve() == head.run.path.resolve():
        yield "Both are the same run."
    for one, other, name in ((base, head, "stored"), (head, base, "new")):
        alone = [f"{server}, {one.cells[key].label}" for server, key in one.trials if (server, key) not in other.trials]
        if alone:
            more = f"; and {len(alone) - _NAMED_MAX} more" if len(alone) > _NAMED_MAX else ""
            yield f"Only in the {name} run, so not judged: {'; '.join(alone[:_NAMED_MAX])}{more}."
        yield from (f"The {name} run: {problem}." for problem in one.run.broken)
    for place in shared:
        lost = [sum(_lost(row) for row in run.trials[place]) for run in (base, head)]
        if lost[1] > lost[0]:
            label = f"{place[0]}, {head.cells[place[1]].label}"
            yield f"{label}: {counted(lost[1], 'transfer')} failed or timed out; {lost[0]} in the stored run."
    builds = [build_of(run.run.manifest) for run in (base, head)]
    if builds[0] != builds[1]:
        yield f"tftpbench itself: {builds[0]} in the stored run, {builds[1]} in the new one."


def _lost(row: Row) -> int:
    return int((row.get("failed") or 0) + (row.get("timed_out") or 0))


def _servers(of: Stored) -> str:
    return ", ".join(dict.fromkeys(server for server, _ in of.trials)) or "none"


def _side(of: Stored, shared: Sequence[Place]) -> Side:
    names = list(dict.fromkeys(server for server, _ in shared))
    known = [of.part("servers", name) for name in names]
    argv = known[0].get("argv") if len(known) == 1 else None
    return Side(
        entry=str(of.run.path),
        name=", ".join(names),
        version=_all_of(known, "version"),
        argv=tuple(map(str, argv)) if isinstance(argv, list) else (),
        model=_all_of(known, "model"),
    )


def _all_of(known: Sequence[Mapping[str, Any]], fact: str) -> str:
    return "; ".join(dict.fromkeys(shown(each.get(fact) or "unknown") for each in known))


def _facts(head: Stored, shared: Sequence[Place], command: Sequence[str]) -> Facts:
    rows = head.run.rows
    times = [datetime.fromisoformat(row["started_at"]) for row in rows if row.get("started_at")]
    aware = sorted(time if time.tzinfo else time.replace(tzinfo=UTC) for time in times)
    placement = head.part("placement")
    cells = {key: head.cells[key] for _, key in shared}
    return Facts(
        scenario=head.scenario.document(),
        seed=head.seed,
        looks=(head.scenario.trials,),
        error=ERROR,
        machine=dict(head.part("machine")),
        build=dict(head.part("build")),
        placement=shown(placement.get("phrase") or "on cores unknown"),
        server_cpus=_cpus(placement.get("server_cpus")),
        generator_cpus=_cpus(placement.get("generator_cpus")),
        keys={str(name): str(value) for name, value in head.part("keys").items()},
        work={key: f"{cell.label}, {_amount(cell)} a trial" for key, cell in cells.items()},
        command=tuple(command),
        started_at=aware[0].isoformat(timespec="milliseconds") if aware else "",
        duration_s=(aware[-1] - aware[0]).total_seconds() + float(rows[-1].get("duration_s") or 0) if aware else 0.0,
    )


def _amount(cell: Cell) -> str:
    return format_duration(cell.duration_ns) if cell.duration_ns else counted(cell.transfers or 0, "transfer")


def _cpus(value: object) -> tuple[int, ...]:
    return tuple(each for each in value if type(each) is int) if isinstance(value, list) else ()
