"""The events that a run emits. Plain data: the runner emits, a display consumes, and nothing is answered.

An event must hold what a display needs and no way back into the run.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tftpbench.host.generator import Progress
from tftpbench.host.pinning import Pinning
from tftpbench.measure.plan import Plan, Trial
from tftpbench.measure.starts import LeftOut
from tftpbench.model.capacity import FoundCapacity
from tftpbench.model.scenario import Scenario
from tftpbench.model.workload import Cell


@dataclass(frozen=True)
class CopyStarted:
    """The file of a running server is about to be copied, which may take minutes; before RunStarted."""

    server: str
    file: str


@dataclass(frozen=True)
class RunStarted:
    """The plan is made and the folder exists. `done` trials were finished by an earlier part of the run.

    `notes`: what must be known before, a sentence each; `placement`: where it is measured, in words.
    """

    folder: Path
    scenario: Scenario
    plan: Plan
    pinning: Pinning
    done: int
    notes: tuple[str, ...] = ()
    placement: str = ""


@dataclass(frozen=True)
class TrialStarted:
    """A trial is about to begin; `total` counts those of the whole run."""

    trial: Trial
    total: int


@dataclass(frozen=True)
class LoadProgressed:
    """How far the load of a long trial is: once a second, in none that takes less than 10 s.

    `left_ns`: until its window closes; None where nothing says when that is.
    """

    trial: Trial
    now: Progress
    left_ns: int | None


@dataclass(frozen=True)
class TrialFinished:
    """`row` is the line of trials.jsonl, already on disk."""

    trial: Trial
    total: int
    row: Mapping[str, object]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class RecoveryAwaited:
    """A running server has answered no new request for `waited_s` since the trial's load, of `timeout_s` at most."""

    trial: Trial
    waited_s: float
    timeout_s: float


@dataclass(frozen=True)
class ServerLeftOut:
    """A server failed to start again: its remaining trials are not tried.

    `is_last`: no server is left, and the run ends.
    """

    left_out: LeftOut
    is_last: bool


@dataclass(frozen=True)
class CeilingUnknown:
    """What is measured beside a cell's trials could not be; they are done all the same. They lack `column` then."""

    cell: Cell
    reason: str
    column: str = "ceiling_ratio"


@dataclass(frozen=True)
class SearchStarted:
    """A search for a capacity begins, one of `total`; `base` has the cell whose load is sought.

    The `total` of its trials is 0: how many it takes is not known.
    """

    base: Trial
    total: int


@dataclass(frozen=True)
class SearchFinished:
    """What a search found, as capacity.json has it; already on disk."""

    base: Trial
    total: int
    found: FoundCapacity


@dataclass(frozen=True)
class RunFinished:
    """`interrupted` when Ctrl-C, or the loss of a load host, ended it early."""

    folder: Path
    interrupted: bool


Event = (
    CopyStarted
    | RunStarted
    | TrialStarted
    | LoadProgressed
    | RecoveryAwaited
    | TrialFinished
    | ServerLeftOut
    | CeilingUnknown
    | SearchStarted
    | SearchFinished
    | RunFinished
)
