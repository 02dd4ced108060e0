"""How much worse each figure may become, as the gate judges it: views of the metrics' records.

Names and numbers only; it must never know a server, a trial or a decision.
"""

import math
import re
from collections.abc import Mapping

from tftpbench.model.metrics import METRICS as ALL
from tftpbench.model.metrics import Metric

_PERCENT = re.compile(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*", re.ASCII)
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


def parse_percent(text: str) -> float:
    """Read "5%" as 0.05; ValueError says what is allowed."""
    match = _PERCENT.fullmatch(text)
    share = float(match[1]) / 100 if match else 0.0
    if not 0 < share < 1:
        raise ValueError(f"is {text!r}; allowed: {PERCENT_ALLOWED}")
    return share


def percent(share: float) -> str:
    """Write 0.05 as "5%"."""
    return f"{100 * share:.10g}%"


def allowance(metric: Metric, budget: float) -> float:
    """The budget as a log-ratio of worsening: 5 % more of a cost, or 5 % less of a rate."""
    return math.log1p(budget) if metric.lower_is_better else -math.log1p(-budget)


def worsening(metric: Metric, log_ratio: float) -> float:
    """How much worse, as a share, a log-ratio of worsening is: the inverse of `allowance`."""
    return math.expm1(log_ratio) if metric.lower_is_better else -math.expm1(-log_ratio)
