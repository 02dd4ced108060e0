"""Holds the hot loops to the instructions in bounds.yaml: `python -m tests.instructions.bounds [--renew] [NAME...]`.

A loop that takes more than its bound allows fails, with one line; one that takes less is named, so that the bound can
follow. `--renew` writes what was counted as the new bounds. A NAME is the beginning of a loop's name.

Counted are instructions of user space for a unit of the work, by valgrind's callgrind. Each is counted in two runs, one
of twice the work: the difference holds no start-up. Nothing of the machine's speed or of what else runs on it is in
such a count, and the loops repeat to the instruction. Those of a whole process, server or generator, are as the two
happen to meet: how many datagrams a system call brings differs a little from run to run. The kernel's instructions are
not counted, so none of these figures is a cost in time. The C library chooses its memcpy by the processor that valgrind
shows it, which knows AVX2 and no AVX-512, whatever the machine has.

Never fails for what a machine lacks: it says so and ends well. Called by `make bench` and by its own tests.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml

from tftpbench.host.generator import IS_DEBUG_BUILD, write_contents

ROOT = Path(__file__).parents[2]
UNITS = 100_000  # of a loop's work: five intervals of the wheel that holds the most timers
FILE_BYTES = 64 << 10
FILE_BLOCKS = FILE_BYTES // 512 + 1
BUILD_LIMIT_S = 600.0
RUN_LIMIT_S = 300.0  # of one run under valgrind, which is some 50 times slower
TIMEOUT_S = 60.0  # of both sides: a server that slow must not be given up
BOUNDS = Path(__file__).with_name("bounds.yaml")
LOOP_TOLERANCE = 0.02  # they repeat exactly: room for a harmless change beside them
PROCESS_TOLERANCE = 0.05  # they repeat within 2 %
# Another compiler or C library decides otherwise here and there; this much more is a change of ours.
ELSEWHERE_TOLERANCE = 0.25
HEADER = """\
# Instructions of user space for a unit of each hot loop's work: a packet, timer, datagram or block.
# `make bench-instructions RENEW=1` writes this file; a commit that raises a bound says what it buys.
"""


class CannotCountError(Exception):
    """Nothing can be counted, or what was counted is not the work that was meant; the message says why."""


@dataclass(frozen=True)
class Reads:
    """Reads of a 64 KiB file with blocks of 512 bytes from the epoll server: `transfers` of them, and twice as many.

    `counted`: the side whose process is counted.
    """

    concurrency: int
    transfers: int
    windowsize: int = 1
    counted: Literal["server", "generator"] = "server"


# Their unit is a block, so a count holds 1/129 of a transfer's beginning and end. 100 and more clients in lock-step
# keep batches full; with fewer, how full they are varies at random, and the count with it. The side that is counted is
# some 50 times slower than the other one, so it never waits for it.
PROCESSES: Mapping[str, Reads] = {
    "server/window_16_1": Reads(1, 100, windowsize=16),
    "server/lock_step_100": Reads(100, 400),
    "server/lock_step_1000": Reads(1000, 1000),
    "generator/lock_step_100": Reads(100, 400, counted="generator"),
    "generator/lock_step_1000": Reads(1000, 1000, counted="generator"),
    "generator/window_16_100": Reads(100, 400, windowsize=16, counted="generator"),
}
# One load in a process of its own; what it does in user space is counted, the interpreter's start with it.
LOAD = """\
import json, sys
from tftpbench.host.generator import LoadConfig, run_load
print(json.dumps(run_load(LoadConfig(**json.loads(sys.argv[1]))).figures))
"""


def missing() -> str | None:
    """What this machine lacks for counting; None if nothing."""
    for program, where in (("valgrind", "apt install valgrind"), ("cargo", "https://rustup.rs")):
        if shutil.which(program) is None:
            return f"no {program} here: {where}"
    return None


def environment() -> dict[str, str]:
    """What a count depends on beside our own code: the compiler, and the C library, whose memcpy is called."""
    return {
        "rustc": _first_line("rustc", "--version").split()[1],
        "libc": " ".join(platform.libc_ver()),
        "valgrind": _first_line("valgrind", "--version"),
        "machine": platform.machine(),
    }


def built() -> Path:
    """The program that runs one loop, from a release build of now."""
    command = ["cargo", "build", "--locked", "--release", "--package", "tftpbench-benches", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, timeout=BUILD_LIMIT_S, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotCountError(f"cargo build failed: {done.stderr.strip()}")
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    return next(Path(message["executable"]) for message in messages if message.get("executable"))


def loops(program: Path) -> list[str]:
    """Names of the loops that the program can run."""
    done = subprocess.run([program], stdout=subprocess.PIPE, text=True, timeout=RUN_LIMIT_S, check=True)
    return done.stdout.split()


def of_loop(program: Path, name: str, units: int = UNITS) -> float:
    """Instructions a unit of one loop's work."""

    def run(times: int) -> int:
        with TemporaryDirectory(prefix="tftpbench-") as folder:
            out = Path(folder) / "callgrind.out"
            command = [*_callgrind(out), str(program), name, str(times * units)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
            if done.returncode:
                raise CannotCountError(f"{name}: {done.stderr.strip()}")
            return total(out.read_text())

    return _per_unit(run, units)


def of_process(reads: Reads) -> float:
    """Instructions a block of one side's process, everything counted that it does in user space."""
    if IS_DEBUG_BUILD:
        raise CannotCountError("the native core is a debug build: make setup builds one that counts")
    return _per_unit(lambda times: _process_total(reads, times * reads.transfers), reads.transfers * FILE_BLOCKS)


def total(out: str) -> int:
    """The instructions that a file of callgrind's holds."""
    found = re.search(r"^totals: (\d+)$", out, re.MULTILINE)
    if not found:
        raise CannotCountError("callgrind has left a file without totals")
    return int(found[1])


def _per_unit(run: Callable[[int], int], units: int) -> float:
    once, twice = run(1), run(2)
    return (twice - once) / units


def _process_total(reads: Reads, transfers: int) -> int:
    with TemporaryDirectory(prefix="tftpbench-") as folder:
        served, out = Path(folder) / "served", Path(folder) / "callgrind.out"
        served.mkdir()
        write_contents(served / "file", seed=1, file=0, size=FILE_BYTES)
        counting = _callgrind(out)
        with _server(served, counting if reads.counted == "server" else []) as (host, port):
            config = {
                "host": host, "port": port, "operation": "read", "name": "file", "file_size_bytes": FILE_BYTES,
                "sockets": "shared", "concurrency": reads.concurrency, "transfers": transfers,
                "windowsize": reads.windowsize, "limit_ns": int(RUN_LIMIT_S * 1e9), "timeout_ns": int(TIMEOUT_S * 1e9),
                "busy_poll_us": 0,  # a wait that is polled takes as many instructions as it is long
            }  # fmt: skip
            figures = _load(config, counting if reads.counted == "generator" else [])
        faults = ("content_mismatches", "retransmissions", "duplicates")
        found = {name: figures[name] for name in ("completed", *faults)}
        if found != {"completed": transfers, **dict.fromkeys(faults, 0)}:
            raise CannotCountError(f"of {transfers} transfers: {found}")
        return total(out.read_text())


def _load(config: Mapping[str, Any], counting: list[str]) -> Mapping[str, Any]:
    """The figures of a load, by a process that `counting` runs."""
    command = [*counting, sys.executable, "-c", LOAD, json.dumps(config)]
    done = subprocess.run(
        command, cwd=ROOT, env=_steady(), capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False
    )
    if done.returncode:
        raise CannotCountError(f"the load ended with {done.stderr.strip()[-200:]}")
    figures: Mapping[str, Any] = json.loads(done.stdout)
    return figures


@contextmanager
def _server(root: Path, counting: list[str]) -> Iterator[tuple[str, int]]:
    arguments = ["--root", str(root), "--port", "0", "--timeout", str(TIMEOUT_S)]
    command = [*counting, sys.executable, "-m", "tftpbench.serve", "epoll", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=_steady(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = process.stdout.readline().split()  # ends with the process, whatever becomes of it
            if ready[:1] != ["READY"]:
                raise CannotCountError("the epoll server does not start under valgrind")
            yield ready[1], int(ready[2])
            process.terminate()
            process.wait(RUN_LIMIT_S)
        finally:
            process.kill()


def _steady() -> dict[str, str]:
    """The interpreter's own start would differ from run to run by the order of its sets."""
    return {**os.environ, "PYTHONHASHSEED": "0"}


def _callgrind(out: Path) -> list[str]:
    # Its own log only says which system calls it does not know; a program that asks for one has another way.
    return ["valgrind", "--log-file=/dev/null", "--tool=callgrind", f"--callgrind-out-file={out}"]


def _first_line(*command: str) -> str:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=RUN_LIMIT_S, check=True)
    return done.stdout.splitlines()[0]


@dataclass(frozen=True)
class Bounds:
    """What each loop may take, and where it was counted."""

    taken_with: Mapping[str, str]
    instructions: Mapping[str, float]

    def tolerance(self, name: str, here: Mapping[str, str]) -> float:
        """How far a count may lie above the bound, as a part of it."""
        if here != self.taken_with:
            return ELSEWHERE_TOLERANCE
        return PROCESS_TOLERANCE if name in PROCESSES else LOOP_TOLERANCE


@dataclass(frozen=True)
class Judgement:
    """One loop's count beside its bound."""

    name: str
    counted: float
    bound: float | None
    tolerance: float

    @property
    def is_over(self) -> bool:
        """Whether it takes too many."""
        return self.bound is None or self.counted > self.bound * (1 + self.tolerance)

    def __str__(self) -> str:
        """One line."""
        line = f"{self.name:<36} {self.counted:>9.1f} instructions"
        if self.bound is None:
            return f"{line}, and no bound: RENEW=1 writes one"
        line += f", bound {self.bound:>8.1f} ({self.counted / self.bound - 1:+.1%})"
        if self.is_over:
            return f"{line}: too many, {self.tolerance:.0%} are allowed"
        if self.counted < self.bound * (1 - self.tolerance):
            return f"{line}: RENEW=1 lowers the bound"
        return line


def main(arguments: list[str] | None = None) -> int:
    """Counts, prints a line for each loop, and returns the exit code: 1 where one takes too many."""
    parser = argparse.ArgumentParser(prog="python -m tests.instructions.bounds", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="beginning of a loop's name; all without any")
    parser.add_argument("--renew", action="store_true", help="write what is counted as the new bounds")
    asked = parser.parse_args(arguments)
    lack = missing()
    if lack:
        print(f"instructions are not counted: {lack}")
        return 0
    bounds, here = load(BOUNDS.read_text()), environment()
    if here["machine"] != bounds.taken_with["machine"] and not asked.renew:
        print(f"instructions are not counted: the bounds are of {bounds.taken_with['machine']}")
        return 0
    if here != bounds.taken_with:
        print(f"here is {here}, the bounds are of {bounds.taken_with}: {ELSEWHERE_TOLERANCE:.0%} are allowed")
    program = built()
    everything = [*loops(program), *PROCESSES]
    wanted = [name for name in everything if name.startswith(tuple(asked.names) or "")]
    judgements = []
    for name, counted in count(program, wanted):
        judgements.append(Judgement(name, counted, bounds.instructions.get(name), bounds.tolerance(name, here)))
        print(judgements[-1], flush=True)
    if asked.renew:
        known = {**bounds.instructions, **{judgement.name: judgement.counted for judgement in judgements}}
        BOUNDS.write_text(text(Bounds(here, {name: known[name] for name in everything if name in known})))
        return 0
    return int(any(judgement.is_over for judgement in judgements))


def count(program: Path, names: list[str]) -> Iterator[tuple[str, float]]:
    """Each name and its instructions a unit; what cannot be counted is named instead."""
    for name in names:
        try:
            reads = PROCESSES.get(name)
            yield name, of_process(reads) if reads else of_loop(program, name)
        except CannotCountError as error:
            print(f"{name:<36} not counted: {error}", flush=True)


def load(document: str) -> Bounds:
    """Reads the file of bounds."""
    content = yaml.safe_load(document)
    return Bounds(content["taken_with"], {name: float(bound) for name, bound in content["instructions"].items()})


def text(bounds: Bounds) -> str:
    """The file of bounds."""
    content = {
        "taken_with": dict(bounds.taken_with),
        "instructions": {name: round(instructions, 1) for name, instructions in bounds.instructions.items()},
    }
    return HEADER + yaml.safe_dump(content, sort_keys=False)


if __name__ == "__main__":
    sys.exit(main())
