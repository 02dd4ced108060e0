"""System calls per DATA block: counted by strace in a pass of its own, which is not timed.

A server is slower by far while it is traced, so no other figure of such a pass may be used, and none leaves here. What
is counted is the whole server from its first process on, every thread and child: a pass without load tells what start
and READY alone cost. It must never guess: where the count can't be had, `SyscallsUnknown` says why.
"""

import functools
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from tftpbench.host.generator import LoadConfig, LoadResult, Stop
from tftpbench.host.target import Target
from tftpbench.measure import Bench, Trial, load_config, server_of
from tftpbench.model.errors import ServerError
from tftpbench.model.escape import one_line

# `true` under strace takes 10 ms; a machine under load gets a thousand times that.
_PROBE_TIMEOUT_S = 10.0
# 200 transfers of 64 KiB took 0.3 to 4 s on two cores, by server and operation: what takes longer than this is stuck.
LIMIT_NS = 60_000_000_000
# The clients of a pass start spread over this time, about a round of transfers under strace. If all started at once,
# all readers of a file would be at its end at once. How often a server that shares what it reads then reads it again is
# luck: passes of equal code had 0.095 to 0.114 calls a block so, and 0.090 to 0.098 with their starts spread.
SPREAD_NS = 200_000_000
# At SIGTERM strace lets go of every thread and writes its summary, within milliseconds where the machine is idle.
STOP_GRACE_S = 5.0
# A datagram sent again makes the server work again: more than this share of the blocks, and the count is of that.
RETRANSMISSIONS_MAX = 0.01
# 400 system calls at 100 bytes a line, for each of three kinds of programs, and much to spare.
_SUMMARY_BYTES_MAX = 1 << 20
# strace(1), -c: "% time, seconds, usecs/call, calls, errors (if any), syscall".
_ROW = re.compile(r"\s*\S+\s+[\d.]+\s+\d+\s+(?P<calls>\d+)(?:\s+\d+)?\s+\w+\s*")


class SyscallsUnknown(Exception):
    """A pass without a usable count; its text says why, in one line. It ends no gate."""


@dataclass(frozen=True)
class Counted:
    """One pass: system calls of the whole server, and DATA blocks acknowledged in order (none without load)."""

    calls: int
    blocks: int


@functools.cache
def unavailable() -> str | None:
    """Why system calls can't be counted here, in words with the mend; None where they can. Looked for once."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not in PATH; get it: apt install strace"
    with tempfile.TemporaryDirectory(prefix="tftpbench-strace-") as folder:
        summary = Path(folder) / "summary"
        try:
            tried = subprocess.run(
                [*_tracer(strace, summary), "true"], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                timeout=_PROBE_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"strace can't be used here: it did not end within {_PROBE_TIMEOUT_S:g} s"
        except OSError as error:
            return f"strace can't be used here: {error.strerror}"
        if tried.returncode != 0:
            said = tried.stderr.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            return f"strace can't be used here: {one_line(said[-1], 200)}"
        try:
            _read(summary)
        except SyscallsUnknown as unknown:
            return str(unknown)
    return None


def count(trial: Trial, bench: Bench, transfers: int) -> Counted:
    """One pass: a fresh server under strace and `transfers` transfers of the trial's cell; with 0, no load at all.

    Raises SyscallsUnknown where it tells nothing, LoadError where the generator itself can't run.
    """
    reason = unavailable()
    if reason is not None:
        raise SyscallsUnknown(reason)
    server = trial.contender.server
    if isinstance(server, Target):
        raise SyscallsUnknown(f"{server.name} runs already; only a server that is started here can be traced")
    summary = bench.roots.base / "strace-summary"
    summary.unlink(missing_ok=True)
    traced = server.wrapped(_tracer(str(shutil.which("strace")), summary))
    traced_trial = replace(trial, contender=replace(trial.contender, server=traced))
    try:
        with bench.folder_of(trial) as root:
            blocks = _pass(traced_trial, bench, root, transfers)
    except ServerError as error:
        raise SyscallsUnknown(f"under strace, {error}") from None
    return Counted(_read(summary), blocks)


def per_block(counted: Counted, idle: Counted) -> float:
    """System calls per DATA block of a pass, without those that a pass with no load takes. Raises SyscallsUnknown."""
    if counted.blocks <= 0:
        raise SyscallsUnknown("no DATA block was acknowledged under strace")
    if counted.calls <= idle.calls:
        raise SyscallsUnknown(
            f"strace counted {counted.calls} calls under load, and {idle.calls} without: "
            "the process that works is not one that was started here"
        )
    return (counted.calls - idle.calls) / counted.blocks


def _tracer(strace: str, summary: Path) -> list[str]:
    """The words before a command. -I2: with -o it would ignore SIGTERM, at which it is to write (strace(1))."""
    return [strace, "-f", "-qq", "-c", "-I2", "-o", str(summary), "--"]


def _pass(trial: Trial, bench: Bench, root: Path, transfers: int) -> int:
    """Start, load, stop; how many blocks were acknowledged."""
    stop = Stop()
    with server_of(trial, bench, root, bench.roots.base / "strace-server.log") as server:
        config = load_config(trial, bench, server, stop)  # what is uploaded first is in the pass without load, too
        result = None
        if transfers > 0:
            result = bench.tools.generator.run(_fixed(config, transfers), stop)
        server.check_alive()
        blocks = _blocks(result) if result is not None else 0
        server.stop(STOP_GRACE_S)  # what it does after the last answer is cut off, for both sides alike
    return blocks


def _fixed(config: LoadConfig, transfers: int) -> LoadConfig:
    """The cell's load as fixed work."""
    concurrency = min(config.concurrency, transfers)
    return replace(
        config, transfers=transfers, duration_ns=None, warm_up_ns=0, limit_ns=min(config.limit_ns, LIMIT_NS),
        concurrency=concurrency, workers=min(config.workers, concurrency), ramp_ns=max(config.ramp_ns, SPREAD_NS),
    )  # fmt: skip


def _blocks(result: LoadResult) -> int:
    """The blocks of a load that went as it should. Raises SyscallsUnknown for another."""
    figures = result.figures
    started, completed = figures.get("started") or 0, figures.get("completed") or 0
    if completed < started or not completed:
        raise SyscallsUnknown(
            f"only {completed:.0f} of {started:.0f} transfers completed under strace, which slows the server down; "
            "a longer client.timeout lets them"
        )
    blocks = int(figures.get("blocks_to_window_end") or 0)  # the window of fixed work is all of it
    again = figures.get("retransmissions") or 0
    if again > RETRANSMISSIONS_MAX * blocks:
        raise SyscallsUnknown(
            f"{again:.0f} datagrams were sent again for {blocks} blocks under strace, which slows the server down; "
            "a longer client.timeout avoids that"
        )
    return blocks


def _read(summary: Path) -> int:
    """All calls of a summary: one table for each kind of programs (64 and 32 bit), each with its total."""
    try:
        with summary.open("rb") as file:
            text = file.read(_SUMMARY_BYTES_MAX).decode("utf-8", "replace")
    except OSError:
        raise SyscallsUnknown("strace wrote no summary") from None
    calls = table = 0
    is_whole = False
    for line in text.splitlines():
        row = _ROW.fullmatch(line)
        words = line.split()
        if words[-1:] == ["total"]:
            # usecs/call and errors are there or not, by version and table: the sum must be one of the numbers
            if str(table) not in words[2:-1]:
                raise SyscallsUnknown(f"strace's total is not the sum of its calls, {table}: {line[:100]!r}")
            calls, table, is_whole = calls + table, 0, True
        elif row is not None:
            table, is_whole = table + int(row["calls"]), False
    if not is_whole or not calls:
        raise SyscallsUnknown("strace wrote no whole summary")
    return calls
