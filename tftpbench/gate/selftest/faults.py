"""Faults of a known size, to see whether the gate finds them: what is made worse, by how much, and how it is injected.

A fault is a shared object (fault.c) that the server loads before its own libraries, and variables that tell it what to
do. It must never reach a server that is measured for its own sake, nor guess how large it is: each is sized by what the
base was measured to need.
"""

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tftpbench.measure import Contender
from tftpbench.model.errors import UsageError
from tftpbench.model.gate_settings import METRICS
from tftpbench.model.manifest import Manifest
from tftpbench.model.units import MIB
from tftpbench.model.workload import Cell

SOURCE = Path(__file__).with_name("fault.c")
# The gate promises to find a loss of so many budgets; so that is what is injected.
BUDGETS = 2.0
COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")
# One file of 200 lines takes 0.2 s; a machine under load gets a hundred times that.
_TIMEOUT_S = 30.0

SPIN_NS = "TFTPBENCH_FAULT_SPIN_NS"
SYSCALLS_PER_1000 = "TFTPBENCH_FAULT_SYSCALLS_PER_1000"
PAUSE_NS = "TFTPBENCH_FAULT_PAUSE_NS"
DATAGRAMS_PER_S = "TFTPBENCH_FAULT_DATAGRAMS_PER_S"
DROP_PER_MILLION = "TFTPBENCH_FAULT_DROP_PER_MILLION"
MEMORY_BYTES = "TFTPBENCH_FAULT_MEMORY_BYTES"
# What fault.c takes at most; a larger number means nothing to it.
_MOST = {
    SPIN_NS: 10**9,
    SYSCALLS_PER_1000: 10**6,
    PAUSE_NS: 10**9,
    DATAGRAMS_PER_S: 10**8,
    DROP_PER_MILLION: 10**6,
    MEMORY_BYTES: 2**36,
}


class FaultsUnavailable(UsageError):
    """No fault, or not this one, can be injected here; the message says why and what helps."""


@dataclass(frozen=True)
class Fault:
    """One way to be worse. `metric`: the one that is meant to show it; `environment`: the settings of fault.c."""

    name: str
    metric: str
    environment: Mapping[str, str]

    @property
    def words(self) -> str:
        """What it does, and how much of it: "1 250 ns more CPU time a datagram"."""
        return "; ".join(_WORDS[name].format(int(value)) for name, value in self.environment.items())

    def scaled(self, factor: float) -> "Fault":
        """The same fault, `factor` times as large."""
        return replace(
            self, environment={name: _setting(name, int(value) * factor) for name, value in self.environment.items()}
        )


# By the name that the command line takes.
METRIC_OF: Mapping[str, str] = {
    "cpu": "server_cpu_s_per_mib",
    "syscalls": "syscalls_per_block",
    "drops": "data_pps",
    "memory": "server_rss_bytes_max",
    "pause": "data_pps",
}
_WORDS = {
    SPIN_NS: "{} ns more CPU time a datagram",
    SYSCALLS_PER_1000: "{} more system calls in 1000 datagrams",
    PAUSE_NS: "{} ns asleep a datagram",
    DATAGRAMS_PER_S: "{} datagrams a second at most",
    DROP_PER_MILLION: "{} of a million datagrams lost",
    MEMORY_BYTES: "{} bytes more memory",
}


def calibrated(name: str, budgets: Mapping[str, float], base: Mapping[str, float | None], cell: Cell) -> Fault:
    """The fault that costs twice the budget of its metric, by the figures that the base was measured to have.

    `base`: by metric, in its unit, for this cell. FaultsUnavailable where the metric has no budget or no figure;
    UsageError for an unknown name.
    """
    if name not in METRIC_OF:
        raise UsageError(f"{name!r} is no fault; allowed: {', '.join(METRIC_OF)}")
    metric = METRIC_OF[name]
    if metric not in budgets:
        raise FaultsUnavailable(f"{name}: {metric} has no budget to size the fault by; add it to gate.budgets")
    value = base.get(metric)
    if value is None or not math.isfinite(value) or value <= 0:
        raise FaultsUnavailable(f"{name}: the base has no {metric} here, so the fault can't be sized")
    # As the gate holds it: no budget is less than its metric's floor.
    budget = max(budgets[metric], METRICS[metric].floor / value)
    # Twice nearly all is all: the most that a rate can lose.
    share = min(BUDGETS * budget, 0.9) if metric == "data_pps" else BUDGETS * budget
    variable, size = _SIZES[name](share, value, cell)
    return Fault(name, metric, {variable: _setting(variable, size)})


def limited(datagrams_per_s: float) -> Fault:
    """A server that sends so many datagrams a second at most: how fast it is, is then known."""
    return Fault("limit", "data_pps", {DATAGRAMS_PER_S: _setting(DATAGRAMS_PER_S, datagrams_per_s)})


def compile_shim(folder: Path) -> Path:
    """Compile fault.c into the folder. FaultsUnavailable where there is no C compiler, or what it made isn't loaded."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise FaultsUnavailable(f"no C compiler in PATH (looked for {', '.join(COMPILERS)}); get it: apt install gcc")
    shim = folder.absolute() / "fault.so"
    made = _run([compiler, *_FLAGS, "-o", str(shim), str(SOURCE), "-ldl"])
    if made.returncode != 0:
        raise FaultsUnavailable(f"{compiler} can't compile {SOURCE.name}: {_first_line(made.stderr)}")
    # The loader passes over what it can't load, and a fault that is not there would look like one that was not found.
    maps = _run([sys.executable, "-I", "-c", "print(open('/proc/self/maps').read())"], {"LD_PRELOAD": str(shim)})
    if str(shim) not in maps.stdout:
        raise FaultsUnavailable(f"{shim} can't be preloaded: {_first_line(maps.stderr)}; set TMPDIR to another folder")
    return shim


def with_fault(contender: Contender, shim: Path, fault: Fault) -> Contender:
    """The same server, made worse. A statically linked one stays as it is: nothing can be loaded before it."""
    if not isinstance(contender.server, Manifest):
        raise FaultsUnavailable(
            f"{contender.name} runs already; a fault can only be injected where a server is started"
        )
    before = contender.server.env.get("LD_PRELOAD")
    preload = f"{shim}:{before}" if before else str(shim)
    faulty = contender.server.with_env({**fault.environment, "LD_PRELOAD": preload})
    return replace(contender, server=faulty)


def _sent_per_block(cell: Cell) -> float:
    """Datagrams that the server sends for a DATA block: the block, or the ACK of a window."""
    return 1.0 if cell.operation == "read" else 1.0 / cell.windowsize


def _spin(share: float, cpu_s_per_mib: float, cell: Cell) -> tuple[str, float]:
    ns_per_block = cpu_s_per_mib * 1e9 * min(cell.blksize, cell.file_size_bytes or 1) / MIB
    return SPIN_NS, share * ns_per_block / _sent_per_block(cell)


def _syscalls(share: float, calls_per_block: float, cell: Cell) -> tuple[str, float]:
    return SYSCALLS_PER_1000, share * calls_per_block * 1000 / _sent_per_block(cell)


def _memory(share: float, rss_bytes: float, _cell: Cell) -> tuple[str, float]:
    return MEMORY_BYTES, share * rss_bytes


def _pause(share: float, data_pps: float, cell: Cell) -> tuple[str, float]:
    return PAUSE_NS, _longer(share) * 1e9 / data_pps / _sent_per_block(cell)


def _drops(share: float, data_pps: float, cell: Cell) -> tuple[str, float]:
    """A lost DATA keeps its client, and the slice with it, waiting for a timer: repeated ACKs are ignored (RFC 1123).

    The client's timeout stands for whichever fires first.
    """
    per_block = _longer(share) / data_pps / (cell.client.timeout_ns / 1e9)
    return DROP_PER_MILLION, per_block / _sent_per_block(cell) * 1e6


def _longer(share: float) -> float:
    """How much longer the same work takes at a rate that is less by this share."""
    return share / (1 - share)


_SIZES: Mapping[str, Callable[[float, float, Cell], tuple[str, float]]] = {
    "cpu": _spin,
    "syscalls": _syscalls,
    "drops": _drops,
    "memory": _memory,
    "pause": _pause,
}


def _setting(variable: str, size: float) -> str:
    """As fault.c reads it: a whole number, and never nothing."""
    return str(min(max(round(size), 1), _MOST[variable]))


def _run(command: list[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S,
            check=False, env={**os.environ, "LC_ALL": "C", **(env or {})},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FaultsUnavailable(f"{command[0]} can't be run: {error}") from None


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return "".join(letter for letter in lines[0][:200] if letter.isprintable()) if lines else "it said nothing"
