"""The gate: whether the head is slower than the base, and how sure that is (docs/gate.md).

    sides.py         what base and head are
    loop.py          a whole `gate ab`: how much work a trial is, pairs, looks, an end
    pair.py          a fresh base and head, loaded in turn
    syscalls.py      system calls per block, by passes under strace
    verdict.py       the rules, from figures to verdicts: for pairs, stored runs and resampling
    decision.py      the rules applied to pairs, look after look, with the figures behind each verdict
    result.py        what was found, as plain values
    text.py          the same in words
    document.py      the same as JSON, written and read, and the folder where it is kept
    stored.py        a stored run, and why it can't be compared
    baseline.py      a run against a stored one
    slo.py           a run against its scenario's thresholds
    selftest/        the gate's false-alarm rate here, and which injected faults it catches

It must never print, and never measure again because it did not like the outcome.

The package can be called: `tftpbench.gate(...)` is `tftpbench.gate_ab(...)`, whatever was imported before.
"""

import sys
from importlib import import_module
from types import ModuleType

from tftpbench.gate.decision import Decision, decide
from tftpbench.gate.loop import Event, GateInterrupted, GateStarted, InterimLook, PairFinished, ab
from tftpbench.gate.result import FailOn, GateResult, Judgement, Noise, Pair, Side, Verdict
from tftpbench.gate.sides import both_sides, side

__all__ = [
    "Decision",
    "Event",
    "FailOn",
    "GateInterrupted",
    "GateResult",
    "GateStarted",
    "InterimLook",
    "Judgement",
    "Noise",
    "Pair",
    "PairFinished",
    "Side",
    "Verdict",
    "ab",
    "both_sides",
    "decide",
    "side",
]


class _Callable(ModuleType):
    def __call__(self, *sides: object, **asked: object) -> GateResult:
        """As `tftpbench.gate_ab`."""
        result: GateResult = import_module("tftpbench.api").gate_ab(*sides, **asked)
        return result


sys.modules[__name__].__class__ = _Callable
