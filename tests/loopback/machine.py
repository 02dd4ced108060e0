"""What only a busy machine does to a trial, taken out of its verdict: most tests ask what a server or a run did.
And how tests wait for another process; and manifests of servers that are made for a test, in a folder.

`IGNORED` is for tests that call the package; `PROGRAM` for those that start it, in the place of `-m tftpbench`.
Tests of the rules themselves, test_stalls above all, use neither.
"""

import math
import sys
import threading
import time
from pathlib import Path

from tftpbench.measure import validity
from tftpbench.model.manifest import Manifest, load_manifest

TINY = Path(__file__).with_name("tiny_server.py")

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


def written(folder: Path, name: str, argv: list[str], ready: str, capabilities: str) -> Path:
    """A server.yaml in a folder of its own."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    path = place / "server.yaml"
    path.write_text(
        "\n".join(
            [
                "schema: tftpbench.server/1",
                f"name: {name}",
                "homepage: none",
                "license: MIT",
                "model: for tests",
                f"capabilities: {capabilities}",
                f"argv: {argv}",
                "find: {python_module: sys}",
                f"get: it comes with the tests\nready: {ready}",
            ]
        )
    )
    return path


def tiny(folder: Path, mode: str, ready: str = "line") -> Path:
    """tiny_server.py in one of its modes."""
    argv = [sys.executable, str(TINY), mode, "{host}", "{port}", "{root}"]
    return written(folder, mode, argv, ready, "{operations: [read]}")


def tiny_manifest(folder: Path, mode: str, ready: str = "line") -> Manifest:
    return load_manifest(tiny(folder, mode, ready))


def bundled(folder: Path, name: str) -> Path:
    """One of our servers, writable."""
    argv = [sys.executable, "-m", "tftpbench.serve", name, "--host", "{host}", "--port", "{port}", "--root", "{root}"]
    can = "{operations: [read, write], options: [blksize, windowsize, tsize, timeout], ipv6: true}"
    return written(folder, name, [*argv, "--write", "--max-transfers", "{concurrency}"], "line", can)
