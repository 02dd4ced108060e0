"""The gate: whether the head is slower than the base, and how sure that is (docs/gate.md).

    sides.py        what base and head are
    loop.py         a whole `gate ab`: blocks, looks, an end
    calibration.py  how much work a trial is
    block.py        a fresh base and head, loaded in turn
    syscalls.py     system calls per block, by passes under strace
    decision.py     from figures to words; the same for a gate that goes on and for a rehearsal
    result.py       what was found, as plain values
    told.py         the same in words
    document.py     the same as JSON, written and read
    folder.py       where blocks and documents are kept
    stored.py       a stored run, and why it can't be compared
    baseline.py     a run against a stored one
    slo.py          a run against its scenario's thresholds
    faults.py       servers made worse on purpose, by fault.c
    selftest.py     how often the gate cries wolf here, and what it catches
    rehearsal.py    the same on recorded blocks, thousands of times

It must never print, and never measure again because it did not like the outcome.
"""

from tftpbench.gate.loop import Begun, Event, GateInterrupted, Looked, Measured, ab
from tftpbench.gate.result import Block, FailOn, GateResult, Judgement, Noise, Side, Word
from tftpbench.gate.sides import both_sides, side
from tftpbench.gate.verdict import Decision, decide

__all__ = [
    "Begun",
    "Block",
    "Decision",
    "Event",
    "FailOn",
    "GateInterrupted",
    "GateResult",
    "Judgement",
    "Looked",
    "Measured",
    "Noise",
    "Side",
    "Word",
    "ab",
    "both_sides",
    "decide",
    "side",
]
