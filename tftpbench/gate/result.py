"""What a gate found, as plain values: verdicts, figures, pairs, and where all that was measured.

Frozen and pure. It must never decide; reports, JSON and exit codes are made from it. The line under each field is its
description in the JSON Schema of gate.json (`tftpbench schema gate`).
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tftpbench.model.gate_settings import KNOWN

if TYPE_CHECKING:  # pandas takes a second to import
    import pandas as pd

FailOn = Literal["regressed", "suspected", "inconclusive"]

BASE, HEAD, CONTROL = "base", "head", "control"
_PAIR_COLUMNS = ("cell", "cell_key", "pair", "metric", "compared", "base", "other", "ratio", "base_first", "valid")


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
# What is an error, by the least severe verdict that is to be one; without a verdict nothing is known, which is none.
ERRORS: Mapping[FailOn, tuple[Verdict, ...]] = {
    "regressed": (Verdict.REGRESSED,),
    "suspected": (Verdict.REGRESSED, Verdict.SUSPECTED),
    "inconclusive": (Verdict.REGRESSED, Verdict.SUSPECTED, Verdict.INCONCLUSIVE),
}


@dataclass(frozen=True)
class Side:
    """Base or head: what was asked for, and what was found."""

    entry: str
    """As it was typed."""
    name: str
    """The server's name, or name@variant."""
    version: str
    """As it says itself."""
    argv: tuple[str, ...]
    """Its command, with placeholders."""
    model: str
    """How it handles transfers at once."""


@dataclass(frozen=True)
class Judgement:
    """One metric in one cell."""

    metric: str
    """Its name."""
    cell: str
    """The cell, in words."""
    cell_key: str
    """The cell's hash: equal for equal work."""
    verdict: Verdict | None
    """What was decided; null: nothing, as of a metric that is never gated."""
    base: float | None
    """Median over the pairs, in the metric's unit."""
    head: float | None
    """Median over the pairs, in the metric's unit."""
    ratio: float | None
    """head / base; null where there is no figure."""
    low: float | None
    """Lower end of its 95 % interval; null under six pairs."""
    high: float | None
    """Upper end of its 95 % interval; null under six pairs."""
    worse: float | None
    """How much worse the head is, as a share; negative: better."""
    budget: float | None
    """How much worse it may be, as a share; null: reported and never gated."""
    pairs: int
    """Pairs that count."""
    smallest_effect: float | None
    """The least loss, as a share, that so many pairs at this noise would have caught nine times in ten."""
    detail: str
    """Why the verdict, in words."""


def pairs_used(judgements: Iterable[Judgement]) -> int:
    """How many pairs the figures are made of: those of the metric that has most."""
    return max((each.pairs for each in judgements), default=0)


@dataclass(frozen=True)
class Noise:
    """A metric of two starts of the same base: how far apart equal code was."""

    metric: str
    """Its name."""
    cell: str
    """The cell, in words."""
    cell_key: str
    """The cell's hash: equal for equal work."""
    pairs: int
    """Pairs of a base and a second base."""
    ratio: float | None
    """Second base / base, which are equal code; null where no pair had both."""
    lowest: float | None
    """Lowest ratio of a pair."""
    highest: float | None
    """Highest ratio of a pair."""


@dataclass(frozen=True)
class Arm:
    """One server process's trial in a pair."""

    figures: Mapping[str, float | None]
    """By the names of metrics and of columns of trials.jsonl."""


@dataclass(frozen=True)
class Pair:
    """One fresh base and head (and in every third pair a second base), loaded in turn."""

    number: int
    """In the order done."""
    cell: str
    """The cell, in words."""
    cell_key: str
    """The cell's hash: equal for equal work."""
    started_at: str
    """UTC, as ISO 8601 has it."""
    first: str
    """Which arm was loaded first: base, head or control."""
    slices: int
    """How often each was loaded."""
    arms: Mapping[str, Arm]
    """base, head and, in every third pair, control: a second base."""
    invalid: str | None = None
    """Why it does not count."""
    failure: str | None = None
    """What ended the gate at once, as wrong contents."""
    unstarted: str | None = None
    """Which arm did not start."""


@dataclass(frozen=True)
class Facts:
    """Where and how it was measured: everything that a reader needs to judge the gate, or to repeat it."""

    scenario: Mapping[str, Any]
    """The scenario as run."""
    seed: int
    """Of the order and of the files' contents."""
    looks: tuple[int, ...]
    """After how many pairs it could decide."""
    error: float
    """The error of a whole run."""
    machine: Mapping[str, Any]
    """What was found of it; unknown facts are null."""
    build: Mapping[str, Any]
    """Versions, build profile and git commit of tftpbench."""
    placement: str
    """Which cores each side had, in words."""
    server_cpus: tuple[int, ...]
    generator_cpus: tuple[int, ...]
    keys: Mapping[str, str]
    """method_key and host_key: equal for an equal method, and for equal machines."""
    work: Mapping[str, str]
    """By cell_key: the work of a trial, in words."""
    command: tuple[str, ...]
    """What began it."""
    started_at: str
    """UTC, as ISO 8601 has it; empty where no trial says it."""
    duration_s: float
    """How long it all took."""


@dataclass(frozen=True)
class GateResult:
    """The whole."""

    # For the document's schema: descriptions are the lines under the fields, and every key stands in every document.
    __pydantic_config__: ClassVar[Mapping[str, bool]] = {
        "use_attribute_docstrings": True,
        "json_schema_serialization_defaults_required": True,
    }

    method: Literal["ab", "baseline"]
    """How it was measured: in pairs, or against a stored run."""
    verdict: Verdict
    """Of the whole: the most severe of any gated metric."""
    sentence: str
    """The verdict in one sentence."""
    base: Side
    head: Side
    judgements: tuple[Judgement, ...]
    """Gated ones first, then those that are only reported."""
    noise: tuple[Noise, ...]
    pairs: tuple[Pair, ...]
    remarks: tuple[str, ...]
    """What a reader must know besides."""
    failure: str | None
    """What ended it at once whatever the metrics say, as wrong contents."""
    facts: Facts
    folder: str | None = None
    """Where it was kept."""

    @property
    def gated(self) -> tuple[Judgement, ...]:
        """The judgements that decide."""
        return tuple(each for each in self.judgements if each.verdict is not None)

    def to_frame(self) -> "pd.DataFrame":
        """Tidy: a row per pair, metric and pairing of the base with another arm, where either side has the figure.

        Columns: cell, cell_key, pair, metric; compared ("head" or "control"); base and other, in the metric's unit;
        ratio (other / base); base_first, whether the base was the first to be loaded; valid, whether it counts.
        """
        import pandas as pd

        rows = [row for pair in self.pairs for row in _pairings(pair)]
        frame = pd.DataFrame(rows, columns=list(_PAIR_COLUMNS))
        types = dict.fromkeys(("base", "other", "ratio"), "float64") | dict.fromkeys(_PAIR_COLUMNS[-2:], bool)
        return frame.astype(types)

    def exit_code(self, fail_on: FailOn = "regressed") -> int:
        """0, 3, 4 or 6, as DESIGN's exit codes have it; `fail_on`: the least severe verdict that is an error."""
        if self.verdict is Verdict.INVALID:
            return 6
        if self.verdict not in ERRORS[fail_on]:
            return 0
        return 4 if self.verdict is Verdict.INCONCLUSIVE else 3


def judgements_frame(result: GateResult) -> "pd.DataFrame":
    """A row per judgement: the fields of Judgement."""
    import pandas as pd

    names = [each.name for each in fields(Judgement)]
    frame = pd.DataFrame(map(asdict, result.judgements), columns=names)
    figures = ("base", "head", "ratio", "low", "high", "worse", "budget", "smallest_effect")
    return frame.astype(dict.fromkeys(figures, "float64"))


def _pairings(pair: Pair) -> Iterator[tuple[object, ...]]:
    for metric in KNOWN:
        for compared in (HEAD, CONTROL):
            if BASE not in pair.arms or compared not in pair.arms:
                continue
            base, other = (pair.arms[arm].figures.get(metric) for arm in (BASE, compared))
            if base is None and other is None:
                continue
            ratio = other / base if base and other is not None else None
            yield (
                pair.cell, pair.cell_key, pair.number, metric, compared, base, other, ratio, pair.first == BASE,
                pair.invalid is None,
            )  # fmt: skip
