"""What only a busy machine does to a trial, taken out of its verdict: most tests ask what a server or a run did.
And how tests wait for another process.

`IGNORED` is for tests that call the package; `PROGRAM` for those that start it, in the place of `-m tftpbench`.
Tests of the rules themselves, test_stalls above all, use neither.
"""

import math
import threading
import time
from pathlib import Path

from tftpbench.measure import validity

IGNORED = {
    "GAP_NS_MAX": math.inf,
    "GAP_FRACTION_MAX": math.inf,
    "GENERATOR_LAG_NS_MAX": math.inf,
    "GENERATOR_BUSY_FRACTION_MAX": 1,
    "STEAL_FRACTION_MAX": 1,
}
assert all(hasattr(validity, name) for name in IGNORED)

PROGRAM = "\n".join(
    [
        "from math import inf",
        "from tftpbench.measure import validity",
        *(f"validity.{name} = {limit}" for name, limit in IGNORED.items()),
        "from tftpbench.cli import main",
        "main()",
    ]
)


def until(condition: object, what: str, seconds: float = 60) -> None:
    """Waits for what another process does; fails, never hangs."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.005)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
