"""How `tftpbench gate` holds two servers against each other: budgets, views of the metrics' records, and when it looks.

Names and numbers only; it must never know a server, a trial or a decision.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from tftpbench.model.errors import suggest
from tftpbench.model.metrics import METRICS as ALL
from tftpbench.model.metrics import Metric
from tftpbench.model.strict import Allowed, Checked, KeyFault
from tftpbench.model.units import DURATION_ALLOWED, PERCENT_PATTERN, parse_percent, percent
from tftpbench.model.values import MS, Count, DurationNs

PERCENT_ALLOWED = "over 0% and under 100%, as in 5%; off: reported and never gated"


_GATED = sorted(
    ((metric.gate, metric) for metric in ALL.values() if metric.gate is not None), key=lambda each: each[0].place
)
METRICS: Mapping[str, Metric] = {metric.name: metric for rule, metric in _GATED if rule.is_judged}
# Reported beside them and never gated.
REPORTED: Mapping[str, Metric] = {metric.name: metric for rule, metric in _GATED if not rule.is_judged}
KNOWN: Mapping[str, Metric] = {**METRICS, **REPORTED}
DEFAULTS: Mapping[str, float] = {
    metric.name: rule.budget for rule, metric in _GATED if rule.is_judged and rule.budget is not None
}


def allowance(metric: Metric, budget: float) -> float:
    """The budget as a log-ratio of worsening: 5 % more of a cost, or 5 % less of a rate."""
    return math.log1p(budget) if metric.lower_is_better else -math.log1p(-budget)


def worsening(metric: Metric, log_ratio: float) -> float:
    """How much worse, as a share, a log-ratio of worsening is: the inverse of `allowance`."""
    return math.expm1(log_ratio) if metric.lower_is_better else -math.expm1(-log_ratio)


# The least of three looks' errors is reached with 10 pairs (docs/gate.md); a control is every third block.
PAIRS_MIN = 6
LOOKS = (12, 20, 30)
CONTROL_EVERY = 3
# Long enough that the few milliseconds between slices are little, short beside what the machine does for a second.
SLICE_NS = 100 * MS


def _as_share(value: object) -> object:
    """A share of 1 from "5%", None from off; a bare number could be either."""
    if value is None or value is False or value == "off":
        return None
    share = parse_percent(value) if isinstance(value, str) else None
    if share is None or not 0 < share < 1:
        raise ValueError(f"is {value!r}; allowed: {PERCENT_ALLOWED}")
    return share


_SHARE_SCHEMA = {"anyOf": [{"const": "off"}, {"type": "string", "pattern": PERCENT_PATTERN}]}
Budget = Annotated[
    float | None,
    BeforeValidator(_as_share),
    PlainSerializer(lambda share: "off" if share is None else percent(share)),
    WithJsonSchema(_SHARE_SCHEMA),
]


class Gate(Checked):
    """The keys of `gate`."""

    budgets: Annotated[dict[str, Budget], Allowed(f"{', '.join(METRICS)}, each with {PERCENT_ALLOWED}")] = Field(
        default={}, description="How much worse each metric may become; those that are not named keep their default."
    )
    looks: Annotated[
        tuple[Annotated[Count, Field(ge=PAIRS_MIN, le=1000)], ...],
        Field(min_length=1, max_length=10),
        Allowed(f"a list of rising numbers of pairs, {PAIRS_MIN} to 1000, at most 10 of them"),
    ] = Field(default=LOOKS, description="After how many pairs it may decide.")
    slice_ns: Annotated[DurationNs, Allowed(f"10ms to 1min; {DURATION_ALLOWED}")] = Field(
        default=SLICE_NS, alias="slice", ge=10 * MS, le=60_000 * MS,
        description="How long base and head are loaded in turn within a pair, about.",
    )  # fmt: skip

    def _faults(self) -> Iterator[KeyFault]:
        for name in self.budgets:
            if name in REPORTED:
                yield KeyFault(("budgets", name), f"is never gated; allowed: {', '.join(METRICS)}")
            elif name not in METRICS:
                yield KeyFault(("budgets", name), f"unknown metric{suggest(name, METRICS)}")
        if list(self.looks) != sorted(set(self.looks)):
            yield KeyFault(("looks",), f"is {list(self.looks)}; allowed: rising numbers")
        if not self.gated:
            yield KeyFault(("budgets",), f"gates nothing; allowed: a budget for one of {', '.join(METRICS)}")

    @property
    def gated(self) -> dict[str, float]:
        """Budget of each metric that is gated, as a share, in the order of the metrics."""
        asked = {**DEFAULTS, **self.budgets}
        return {name: budget for name in METRICS if (budget := asked.get(name)) is not None}
