"""What a test may claim of a trial on a machine that does other things, too.

A busy machine spoils trials (the generator was late, the host took time), and then they are invalid: rightly, and
nothing that a test of the runner is about. What the server did is in the same column.
"""

from collections.abc import Iterable, Mapping
from typing import Any

# How reasons begin, or what they hold, that no busy machine brings about.
_NOT_THE_MACHINES = ("wrong contents", "add up", "Little", "debug build")


def fault_of(row: Mapping[str, Any]) -> str | None:
    """Why the trial is invalid, without what the machine did to it; None where nothing else is wrong."""
    reason = row["verdict_reason"] or ""
    name = f"{row['server']}: "
    if reason.startswith(name):
        return str(reason)
    parts = [part for part in reason.split("; ") if any(words in part for words in _NOT_THE_MACHINES)]
    return "; ".join(parts) or None


def is_sound(code: int, rows: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a run's exit code is 0, or 6 (too few valid trials) where the machine alone spoilt some."""
    rows = list(rows)
    spoilt = any(row["verdict"] != "valid" and fault_of(row) is None for row in rows)
    return code == 0 or (code == 6 and spoilt)
