"""`gate slo`: the thresholds of a scenario as limits that a run must keep, whatever any other run did.

Each threshold is judged for each server that it speaks of in each cell, as at the end of `tftpbench run`, but a gate is
stricter with what is not known: a server without a trial, a threshold that no server was measured for, and figures of
fewer than half of the trials that were asked for hold nothing. Pure, of rows of results; it must never measure.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tftpbench.analysis.summary.lines import unusable
from tftpbench.gate.stored import Stored, is_valid
from tftpbench.model.errors import UsageError
from tftpbench.model.scenario import Scenario
from tftpbench.model.thresholds import NOT_DONE, Judged, State, Threshold, evaluate, not_known
from tftpbench.model.units import counted
from tftpbench.model.workload import Cell

# Of the trials that the scenario asks for: what is left of fewer is no measurement of the cell.
VALID_SHARE_MIN = 0.5
EVERYWHERE = "every cell"


@dataclass(frozen=True)
class Slo:
    """The whole: `state` is the most severe that any limit has, `sentence` says it with the first such limit."""

    limits: tuple[Judged, ...]

    @property
    def state(self) -> State:
        """Missed before not known, and that before held."""
        states = {limit.state for limit in self.limits}
        if "missed" in states:
            return "missed"
        return "held" if states == {"held"} else "not known"

    @property
    def exit_code(self) -> int:
        """0, 3 where a threshold was missed, else 6 where one could not be judged."""
        return {"held": 0, "missed": 3, "not known": 6}[self.state]

    @property
    def sentence(self) -> str:
        """The answer in one line."""
        alike = [limit for limit in self.limits if limit.state == self.state]
        if self.state == "held":
            count = len({str(limit.threshold) for limit in alike})
            return f"held: {counted(count, 'threshold')}, judged {counted(len(alike), 'time')}"
        more = f"; and {len(alike) - 1} more" if len(alike) > 1 else ""
        return f"{self.state}: {alike[0] if alike else 'nothing was judged'}{more}"


def refuse_nothing(scenario: Scenario, source: str) -> None:
    """Raises UsageError where the scenario sets no limit; `source` names it."""
    if scenario.thresholds and not scenario.judged_checks:
        raise UsageError(f"{source}: is a quick run, of which no speed is judged; measure it without --quick")
    if not scenario.thresholds:
        raise UsageError(
            f"{source}: has no thresholds, so there is nothing to hold; add some, as in "
            "--set 'thresholds=[\"failed == 0\"]', or under the key thresholds of the scenario"
        )


def judge(run: Stored) -> Slo:
    """Hold the run against its scenario's thresholds. Raises UsageError where that has none."""
    refuse_nothing(run.scenario, str(run.run.path))
    left_out = {(str(skip["server"]), skip.get("cell_key")): skip for skip in run.run.manifest.get("skipped", ())}
    limits: list[Judged] = []
    for threshold in run.scenario.judged_checks:
        spoken_of = [server for server in run.servers if threshold.server in (None, server, server.partition("@")[0])]
        found = [
            _limit(run, threshold, server, cell)
            for cell in run.scenario.cells()
            for server in spoken_of
            if not {(server, None), (server, cell.key)} & left_out.keys()
        ]
        limits += found or _not_measured(threshold, [left_out[key] for key in left_out if key[0] in spoken_of])
    return Slo(tuple(limits))


def _limit(run: Stored, threshold: Threshold, server: str, cell: Cell) -> Judged:
    rows = run.trials.get((server, cell.key), ())
    if not rows:
        return not_known(threshold, server, cell.label, NOT_DONE)
    is_quick = run.scenario.is_quick
    [judged] = evaluate([threshold], rows, cell.label, is_quick=is_quick, marked=unusable)
    valid, asked = sum(map(is_valid, rows)), run.scenario.trials
    if not is_quick and judged.held and valid < VALID_SHARE_MIN * asked:
        return replace(judged, state="not known", detail=f"only {valid} of {counted(asked, 'trial')} are valid")
    return judged


def _not_measured(threshold: Threshold, skips: "list[dict[str, object]]") -> Iterator[Judged]:
    """A threshold that was asked for and could be judged nowhere."""
    reasons = dict.fromkeys(f"{skip['server']}: {skip['reason']}" for skip in skips)
    why = f"no server was measured for it{f' ({next(iter(reasons))})' if reasons else ''}"
    yield not_known(threshold, threshold.server or "", EVERYWHERE, why)
