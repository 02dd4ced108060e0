"""Results and pairs of gates for tests, whose figures are known: nothing is measured, nothing is decided."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from tftpbench.gate.result import (
    BASE,
    CONTROL,
    HEAD,
    Arm,
    Facts,
    GateResult,
    Judgement,
    Noise,
    Pair,
    Side,
    Verdict,
)
from tftpbench.model.gate_settings import DEFAULTS, METRICS, REPORTED, worsening

CELL, CELL_KEY = "read, 10 at once, 64 KiB", "0123456789abcdef"
# What the base's trials have, about.
FIGURES: Mapping[str, float] = {
    "server_cpu_s_per_mib": 0.0123, "syscalls_per_block": 2.04, "data_pps": 131_072.0,
    "server_rss_bytes_max": 5_242_880.0, "block_rtt_ns_p50": 61_000.0, "block_rtt_ns_p99": 210_000.0,
    "transfer_ns_p99": 9_500_000.0,
}  # fmt: skip
# By how much a head of each verdict differs, as a log-ratio of worsening.
_SHIFTS: Mapping[Verdict, float] = {
    Verdict.REGRESSED: 0.12,
    Verdict.SUSPECTED: 0.06,
    Verdict.INCONCLUSIVE: 0.03,
    Verdict.INVALID: 0.0,
    Verdict.PASS: 0.004,
    Verdict.IMPROVED: -0.08,
}
_NOISES: Mapping[Verdict, float] = {Verdict.INCONCLUSIVE: 0.06, Verdict.INVALID: 0.3}
HOSTILE = (
    "</details><script>alert(1)</script> | `tick` $x^2$ **bold** [link](javascript:alert(1)) @everyone ]]> <!-- "
    "\x00\x07\x1b[31m \u202e &amp; {{ 7*7 }}"
)
# ---- what recorded pairs are made of: budgets, looks, levels and noise of the figures
BUDGETS = {"server_cpu_s_per_mib": 0.05, "syscalls_per_block": 0.02, "data_pps": 0.05, "server_rss_bytes_max": 0.10}
LOOKS = (12, 20, 30)
# Of identical code, standard deviation of a log figure in one arm: a pair's is larger by the root of 2.
NOISE = {"server_cpu_s_per_mib": 0.011, "syscalls_per_block": 0.0005, "data_pps": 0.011, "server_rss_bytes_max": 0.003}
LEVELS = {"server_cpu_s_per_mib": 0.01, "syscalls_per_block": 0.07, "data_pps": 2e5, "server_rss_bytes_max": 2e7}
# So that a median of memory is beyond the floor of 1 MiB where it is meant to be.
WORSE = {"server_cpu_s_per_mib": 1, "syscalls_per_block": 1, "data_pps": -1, "server_rss_bytes_max": 1}


def made_pairs(
    count: int, seed: int = 1, effects: dict[str, float] | None = None, noise: float = 1.0, straced: int | None = None,
    cell: str = "read",
) -> list[Pair]:  # fmt: skip
    """Recorded pairs; `effects`: how much worse the head is, as log-ratios; a third have a control."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(1, count + 1):
        drift = rng.normal(0, 0.05)  # what both sides of a pair share tells nothing
        names = [BASE, HEAD, *([CONTROL] if number % 3 == 0 else [])]
        arms = {}
        for name in names:
            figures: dict[str, float | None] = {}
            for metric, level in LEVELS.items():
                worse = (effects or {}).get(metric, 0.0) * WORSE[metric] if name == HEAD else 0.0
                shared = drift if metric in ("data_pps", "server_cpu_s_per_mib") else 0.0
                figures[metric] = level * float(np.exp(rng.normal(worse + shared, noise * NOISE[metric])))
            if straced is not None and number > straced:
                figures["syscalls_per_block"] = None
            arms[name] = Arm(figures)
        made.append(Pair(number, cell, cell, "2026-01-01T00:00:00Z", names[number % 2], 20, arms))
    return made


def gate(
    said: Mapping[str, Verdict | str] | None = None,
    *,
    pairs: int = 12,
    cells: Sequence[tuple[str, str]] = ((CELL, CELL_KEY),),
    syscalls: bool = True,
    failure: str | None = None,
) -> GateResult:
    """A gate that says `said` of its gated metrics, pass of those that are not named; in each of the cells."""
    verdicts = dict.fromkeys(DEFAULTS, Verdict.PASS)
    verdicts |= {name: Verdict(verdict) for name, verdict in (said or {}).items()}
    made = [pair for place, cell in enumerate(cells) for pair in _pairs(cell, verdicts, pairs, syscalls, place)]
    judgements = [_judgement(name, cell, made, verdicts, pairs) for name in verdicts for cell in cells]
    others = [name for name in (*METRICS, *REPORTED) if name not in verdicts]
    judgements += [_judgement(name, cell, made, verdicts, pairs) for name in others for cell in cells]
    said_of_all = [each.verdict for each in judgements if each.verdict is not None]
    verdict = max(said_of_all, key=lambda each: each.severity, default=Verdict.INVALID)
    if verdict == Verdict.PASS and Verdict.IMPROVED in verdicts.values():
        verdict = Verdict.IMPROVED
    verdict = Verdict.REGRESSED if failure else verdict
    return GateResult(
        method="ab",
        verdict=verdict,
        sentence=f"{verdict}: epoll (head) against epoll (base), {pairs} pairs",
        base=_side("base"),
        head=_side("head"),
        judgements=tuple(judgements),
        noise=tuple(_noise(name, cell, made) for name in METRICS for cell in cells),
        pairs=tuple(made),
        remarks=(() if syscalls else ("system calls were not counted: strace is not installed",)),
        failure=failure,
        facts=_facts(cells),
        folder=None,
    )


def every() -> dict[str, GateResult]:
    """One of each kind."""
    return {
        Verdict.PASS: gate(),
        Verdict.REGRESSED: gate({"server_cpu_s_per_mib": Verdict.REGRESSED, "data_pps": Verdict.REGRESSED}),
        Verdict.IMPROVED: gate({"server_cpu_s_per_mib": Verdict.IMPROVED}),
        Verdict.SUSPECTED: gate({"data_pps": Verdict.SUSPECTED}, pairs=30),
        Verdict.INCONCLUSIVE: gate({"data_pps": Verdict.INCONCLUSIVE}, pairs=30),
        Verdict.INVALID: gate({"data_pps": Verdict.INVALID}, pairs=30),
        "failure": gate(failure="head: 3 of 640 transfers had wrong contents in pair 4", pairs=4),
        "no syscalls": gate(syscalls=False),
        "cells": gate(
            {"data_pps": Verdict.REGRESSED}, cells=((CELL, CELL_KEY), ("write, 100 at once, 64 KiB", "f" * 16))
        ),
        "memory": gate({"server_rss_bytes_max": Verdict.PASS}),
        "hostile": hostile(),
        "empty": empty(),
    }


def hostile() -> GateResult:
    """Every text that comes from outside is meant to break something."""
    result = gate({"data_pps": Verdict.SUSPECTED}, cells=((HOSTILE, CELL_KEY), (HOSTILE + "2", "f" * 16)))
    side = Side(HOSTILE, HOSTILE, HOSTILE, (HOSTILE, "--port", "{port}"), HOSTILE)
    facts = replace(
        result.facts,
        scenario={"name": HOSTILE, "description": HOSTILE},
        machine={"cpu_model": HOSTILE},
        work={CELL_KEY: HOSTILE},
        command=("tftpbench", "gate", HOSTILE, "```\n# no block of code any more"),
        placement=HOSTILE,
    )
    judgements = tuple(replace(each, detail=HOSTILE) for each in result.judgements)
    return replace(
        result,
        sentence=HOSTILE,
        base=side,
        head=side,
        judgements=judgements,
        remarks=(HOSTILE,),
        failure=HOSTILE,
        facts=facts,
    )


def empty() -> GateResult:
    """A gate that was cut off before anything was measured."""
    return replace(gate(), verdict=Verdict.INVALID, sentence="invalid: no pair", judgements=(), noise=(), pairs=())


def _pairs(
    cell: tuple[str, str], verdicts: Mapping[str, Verdict], count: int, syscalls: bool, place: int
) -> list[Pair]:
    random = np.random.default_rng([20190, place])
    found = []
    for number in range(1, count + 2):  # the second does not count, as if the core had been taken away
        arms = [BASE, HEAD, *([CONTROL] if number % 3 == 1 else [])]
        found.append(
            Pair(
                number=number,
                cell=cell[0],
                cell_key=cell[1],
                started_at="2026-11-27T10:00:00Z",
                first=arms[int(random.integers(2))],
                slices=20,
                arms={arm: Arm(_figures(arm, verdicts, random, syscalls)) for arm in arms},
                invalid="the machine was taken away for 31 % of the time" if number == 2 else None,
            )
        )
    return found


def _figures(
    arm: str, verdicts: Mapping[str, Verdict], random: np.random.Generator, syscalls: bool
) -> dict[str, float | None]:
    figures: dict[str, float | None] = {}
    for name, usual in FIGURES.items():
        metric, verdict = METRICS.get(name) or REPORTED[name], verdicts.get(name, Verdict.PASS)
        worse = _SHIFTS[verdict] if arm == HEAD else 0.0
        sd = 0.0005 if name == "syscalls_per_block" else _NOISES.get(verdict, 0.012)
        log = (worse if metric.lower_is_better else -worse) + random.normal(0, sd)
        figures[name] = usual * math.exp(log)
    if not syscalls:
        figures["syscalls_per_block"] = None
    return figures


def _ratios(name: str, cell_key: str, pairs: Sequence[Pair], other: str) -> list[tuple[float, float]]:
    found = []
    for pair in pairs:
        if pair.cell_key == cell_key and pair.invalid is None and other in pair.arms:
            one, two = pair.arms[BASE].figures[name], pair.arms[other].figures[name]
            if one is not None and two is not None:
                found.append((one, two))
    return found


def _judgement(
    name: str, cell: tuple[str, str], pairs: Sequence[Pair], verdicts: Mapping[str, Verdict], count: int
) -> Judgement:
    metric, both = METRICS.get(name) or REPORTED[name], _ratios(name, cell[1], pairs, HEAD)
    budget = DEFAULTS.get(name, 0.1) if name in verdicts else None
    if not both:
        return Judgement(
            metric=name, cell=cell[0], cell_key=cell[1], verdict=None, base=None, head=None, ratio=None, low=None,
            high=None, worse=None, budget=budget, pairs=0, smallest_effect=None, detail="not measured",
        )  # fmt: skip
    logs = np.log([head / base for base, head in both])
    middle, error = float(logs.mean()), float(logs.std(ddof=1)) / math.sqrt(len(both))
    return Judgement(
        metric=name,
        cell=cell[0],
        cell_key=cell[1],
        verdict=verdicts.get(name),
        base=float(np.median([base for base, _ in both])),
        head=float(np.median([head for _, head in both])),
        ratio=math.exp(middle),
        low=math.exp(middle - 2.2 * error) if count >= 6 else None,
        high=math.exp(middle + 2.2 * error) if count >= 6 else None,
        worse=worsening(metric, middle if metric.lower_is_better else -middle),
        budget=budget,
        pairs=len(both),
        smallest_effect=None if budget is None else budget + 4 * error,
        detail="reported, never gated" if budget is None else f"{verdicts[name]} for a reason that tests give",
    )


def _noise(name: str, cell: tuple[str, str], pairs: Sequence[Pair]) -> Noise:
    ratios = [two / one for one, two in _ratios(name, cell[1], pairs, CONTROL)]
    return Noise(
        metric=name,
        cell=cell[0],
        cell_key=cell[1],
        pairs=len(ratios),
        ratio=float(np.median(ratios)) if ratios else None,
        lowest=min(ratios, default=None),
        highest=max(ratios, default=None),
    )


def _side(entry: str) -> Side:
    argv = ("{python}", "-m", "tftpbench.serve", "epoll", "--port", "{port}", "--root", "{root}")
    return Side(f"./{entry}", "epoll", "tftpbench 0.1.0 release", argv, "one thread, epoll")


def _facts(cells: Sequence[tuple[str, str]]) -> Facts:
    return Facts(
        scenario={"name": "gate", "description": "", "matrix": {"operation": ["read"], "concurrency": [10]}},
        seed=7,
        looks=(12, 20, 30),
        error=0.01,
        machine={"cpu_model": "Test CPU", "cpus": 2, "memory_bytes": 8 * 1024**3, "kernel": "6.1.0"},
        build={"tftpbench": "0.1.0", "build_profile": "release"},
        placement="on one core each",
        server_cpus=(1,),
        generator_cpus=(0,),
        keys={"method_key": "9462c1dc534b5efd", "host_key": "61ea0afe1ae7340e"},
        work={key: f"{label}, 160 transfers a slice, 20 slices" for label, key in cells},
        command=("tftpbench", "gate", "ab", "--base", "./base", "--head", "./head", "--seed", "7"),
        started_at="2026-11-27T10:00:00Z",
        duration_s=93.5,
    )
