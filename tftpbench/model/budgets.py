"""What the gate looks at, and how much worse each figure may become: metrics and their budgets.

Names and numbers only; it must never know a server, a trial or a decision.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_PERCENT = re.compile(r"\s*(\d{1,3}(?:\.\d{1,6})?)\s*%\s*", re.ASCII)
PERCENT_ALLOWED = "over 0% and under 100%, as in 5%; off: reported and never gated"


@dataclass(frozen=True)
class Metric:
    """One figure of a trial, positive, and what it means for it to become worse.

    `budget`: what it may lose unless a scenario says otherwise, as a share; None: not gated unless a scenario does.
    `floor`: no budget is less than this, in the metric's unit. `needs_clock`: a pair whose clock can't be trusted does
    not count for it.
    """

    name: str
    words: str
    unit: str
    lower_is_better: bool
    budget: float | None
    floor: float = 0.0
    needs_clock: bool = True


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("server_cpu_s_per_mib", "CPU time per MiB", "s/MiB", lower_is_better=True, budget=0.05),
        # A server of batches makes few: a call in a hundred blocks costs less than 10 ns a block, and moves by itself.
        Metric("syscalls_per_block", "system calls per block", "calls", lower_is_better=True, budget=0.02,
               floor=0.01, needs_clock=False),
        Metric("data_pps", "blocks per second", "1/s", lower_is_better=False, budget=0.05),
        # One page more or less is no regression, and a small server has few pages.
        Metric("server_rss_bytes_max", "peak memory", "bytes", lower_is_better=True, budget=None,
               floor=1024 * 1024, needs_clock=False),
    )
}  # fmt: skip
# Told beside them and never gated: a tail of identical code differs from itself more than any budget.
REPORTED: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("block_rtt_ns_p50", "block round trip p50", "ns", lower_is_better=True, budget=None),
        Metric("block_rtt_ns_p99", "block round trip p99", "ns", lower_is_better=True, budget=None),
        Metric("transfer_ns_p99", "transfer time p99", "ns", lower_is_better=True, budget=None),
    )
}
DEFAULTS: Mapping[str, float] = {name: metric.budget for name, metric in METRICS.items() if metric.budget is not None}


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
