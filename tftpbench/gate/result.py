"""What a gate found, as plain values: verdicts, figures, pairs, and where all that was measured.

Frozen and pure. It must never decide; reports, JSON and exit codes are made from it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # pandas takes a second to import
    import pandas as pd

FailOn = Literal["regressed", "suspected", "inconclusive"]

BASE, HEAD, CONTROL = "base", "head", "control"


class Verdict(StrEnum):
    """What was decided of one metric, or of the whole gate; the most severe first."""

    REGRESSED = "regressed"
    INVALID = "invalid"
    SUSPECTED = "suspected"
    INCONCLUSIVE = "inconclusive"
    PASS = "pass"  # noqa: S105 (no password)
    IMPROVED = "improved"

    @property
    def severity(self) -> int:
        """The place in the order of severity, from 0: the greater, the more severe."""
        return BY_SEVERITY.index(self)

    @property
    def is_decisive(self) -> bool:
        """Whether a metric of which this is said needs no further pairs."""
        return self in (Verdict.REGRESSED, Verdict.PASS, Verdict.IMPROVED)


BY_SEVERITY: tuple[Verdict, ...] = tuple(reversed(Verdict))


@dataclass(frozen=True)
class Side:
    """Base or head: what was asked for, and what was found. `entry`: as it was typed."""

    entry: str
    name: str
    version: str
    argv: tuple[str, ...]
    model: str


@dataclass(frozen=True)
class Judgement:
    """One metric in one cell. `base` and `head` are medians over the pairs' trials, in the metric's unit.

    `ratio` is head / base with its 95 % interval, None where there are too few pairs or no figure. `worse` is how much
    worse the head is, as a share (negative: better). `budget` None: reported, never gated, and `verdict` is None too.
    `smallest_effect`: the least worsening that this many pairs, at this noise, would have called regressed nine times
    in ten, as a share; None where it is not known. `detail`: why, in words.
    """

    metric: str
    cell: str
    cell_key: str
    verdict: Verdict | None
    base: float | None
    head: float | None
    ratio: float | None
    low: float | None
    high: float | None
    worse: float | None
    budget: float | None
    pairs: int
    smallest_effect: float | None
    detail: str


def pairs_used(judgements: Iterable[Judgement]) -> int:
    """How many pairs the figures are made of: those of the metric that has most."""
    return max((each.pairs for each in judgements), default=0)


@dataclass(frozen=True)
class Noise:
    """A metric of two starts of the same base: how far apart equal code was. Ratios are control / base.

    None where no pair had a control with this figure.
    """

    metric: str
    cell: str
    cell_key: str
    pairs: int
    ratio: float | None
    lowest: float | None
    highest: float | None


@dataclass(frozen=True)
class Arm:
    """One server process's trial in a pair: `figures` by the names of metrics and of results' columns."""

    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class Pair:
    """One fresh base and head (and in every third pair a second base), loaded in turn.

    `arms` by base, head, control. `invalid`: why its pairs do not count. `failure`: what ends the gate at once, as
    wrong contents. `slices`: how often each was loaded. `first`: the arm loaded first. `unstarted`: an arm that did
    not start.
    """

    number: int
    cell: str
    cell_key: str
    started_at: str
    first: str
    slices: int
    arms: Mapping[str, Arm]
    invalid: str | None = None
    failure: str | None = None
    unstarted: str | None = None


@dataclass(frozen=True)
class Facts:
    """Where and how it was measured: everything that a reader needs to judge the gate, or to repeat it."""

    scenario: Mapping[str, Any]
    seed: int
    looks: tuple[int, ...]
    error: float
    machine: Mapping[str, Any]
    build: Mapping[str, Any]
    placement: str
    server_cpus: tuple[int, ...]
    generator_cpus: tuple[int, ...]
    keys: Mapping[str, str]
    work: Mapping[str, str]
    """By cell_key: the work of a trial, in words."""
    command: tuple[str, ...]
    started_at: str
    duration_s: float


@dataclass(frozen=True)
class GateResult:
    """The whole. `method`: "ab" or "baseline". `sentence`: the verdict in one sentence. `folder`: where it is kept.

    `judgements`: gated ones first, then those that are only reported. `remarks`: what a reader must know besides.
    `failure`: what ended it at once, whatever the metrics say: wrong contents, a head that died; None otherwise.
    """

    method: Literal["ab", "baseline"]
    verdict: Verdict
    sentence: str
    base: Side
    head: Side
    judgements: tuple[Judgement, ...]
    noise: tuple[Noise, ...]
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]
    failure: str | None
    facts: Facts
    folder: str | None = None

    @property
    def gated(self) -> tuple[Judgement, ...]:
        """The judgements that decide."""
        return tuple(each for each in self.judgements if each.verdict is not None)

    def to_frame(self) -> "pd.DataFrame":
        """One row per pair, metric and comparison (head, control): base, other, ratio, base_first, valid."""
        from tftpbench.gate.document import pairs_frame

        return pairs_frame(self)

    def exit_code(self, fail_on: FailOn = "regressed") -> int:
        """0, 3, 4 or 6, as DESIGN's exit codes have it; `fail_on` names the mildest verdict that is not let through."""
        if self.verdict is Verdict.REGRESSED or (self.verdict is Verdict.SUSPECTED and fail_on != "regressed"):
            return 3
        if self.verdict is Verdict.INVALID:
            return 6
        return 4 if self.verdict is Verdict.INCONCLUSIVE and fail_on == "inconclusive" else 0
