"""Does a stall ever pass unseen? Programs that are stopped by SIGSTOP while they measure must all say so.

    python -m benches.stalls [--stalls 30] [--undisturbed 10] [--window 3] [--seed 1]

Half of the stalls hit `tftpbench load`, half `tftpbench run`; each server has half of both. A stall begins at a random
moment of the window and lasts 100 ms to 2 s, so some reach beyond its end. Trials that are not disturbed must be valid,
which holds on a quiet machine only. The exit code is 1 where a stall was missed or an undisturbed trial is invalid.
tests/loopback/test_stalls.py does the same, shorter.
"""

import argparse
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Command = Literal["load", "run"]

WARM_UP_S = 0.2  # of `run`
SHORTEST_S, LONGEST_S = 0.1, 2.0
# One that begins while the loop sleeps is seen 5 ms shorter (docs/results-format.md); the rest is for the edges.
SHORTER_S = 0.01
ATTEMPTS = 5
DEADLINE_S = 60.0
_ROOT = Path(__file__).parents[1]
_TFTPBENCH = [sys.executable, "-m", "tftpbench"]


@dataclass(frozen=True)
class Stall:
    """When it begins after the load has, and how long it lasts."""

    after_s: float
    length_s: float


@dataclass(frozen=True)
class Trial:
    """What a program says of the trial that it did."""

    verdict: str
    reason: str | None
    gap_s: float

    def has_found(self, stall: Stall) -> bool:
        """Whether it knows of the stall, whole."""
        known = self.verdict == "invalid" and "the generator stood still" in str(self.reason)
        return known and self.gap_s >= stall.length_s - SHORTER_S


def measured(command: Command, server: str, window_s: float, stall: Stall | None) -> Trial:
    """One trial, done by the program, which is stopped in the middle of it."""
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory() as folder:
            trial = (_load if command == "load" else _run)(Path(folder), server, window_s, stall)
        if trial is not None:
            return trial
    raise RuntimeError(f"the load was over before it could be stopped, {ATTEMPTS} times: is the machine busy?")


def _load(folder: Path, server: str, window_s: float, stall: Stall | None) -> Trial | None:
    (folder / "file").write_bytes(bytes(65536))
    with _started("serve", server, "--root", str(folder), "--port", "0") as serving:
        assert serving.stdout is not None
        port = serving.stdout.readline().split()[2]
        words = ["load", f"127.0.0.1:{port}", "--read", "file", "--duration", f"{window_s * 1000:.0f}ms", "--json"]
        with _started(*words) as process:
            if not _stop(process, stall):
                return None
            out, _ = process.communicate(timeout=DEADLINE_S)
    return _trial(json.loads(out))


def _run(folder: Path, server: str, window_s: float, stall: Stall | None) -> Trial | None:
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "stalls",
        "description": "Is a stall seen?",
        "servers": [server],
        "matrix": {"operation": "read", "concurrency": 10, "file_size": "64KiB"},
        "duration": f"{window_s * 1000:.0f}ms",
        "warm_up": f"{WARM_UP_S * 1000:.0f}ms",
        "trials": 1,
    }
    (folder / "stalls.yaml").write_text(json.dumps(document))  # JSON is YAML
    with _started("run", str(folder / "stalls.yaml"), "--quiet", "--out", str(folder / "out")) as process:
        if not _stop(process, stall):
            return None
        process.communicate(timeout=DEADLINE_S)
    [line] = next((folder / "out").glob("*/trials.jsonl")).read_text().splitlines()
    return _trial(json.loads(line))


def _trial(row: dict[str, object]) -> Trial:
    gap_ns = row["generator_gap_ns_max"]
    assert isinstance(gap_ns, int)
    return Trial(str(row["verdict"]), None if row["verdict"] == "valid" else str(row["verdict_reason"]), gap_ns / 1e9)


@contextlib.contextmanager
def _started(*words: str) -> "Iterator[subprocess.Popen[str]]":
    process = subprocess.Popen(
        [*_TFTPBENCH, *words], cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


def _stop(process: "subprocess.Popen[str]", stall: Stall | None) -> bool:
    """Stop the process for a while, beginning some time after its load did. False: the load was over by then."""
    deadline = time.monotonic() + DEADLINE_S
    while not has_load_threads(process.pid):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the program never began its load; run it by hand")
        time.sleep(0.002)  # without it the looking would disturb what is measured
    if stall is None:
        return True
    time.sleep(stall.after_s)
    process.send_signal(signal.SIGSTOP)
    still_loads = has_load_threads(process.pid)
    time.sleep(stall.length_s)
    process.send_signal(signal.SIGCONT)
    return still_loads


def has_load_threads(pid: int) -> bool:
    """Whether the process has a thread of the generator's (proc_pid_comm(5))."""
    with contextlib.suppress(OSError):  # a thread, or all of it, ends while we look
        return any(path.read_text() == "tftp-load-0\n" for path in Path(f"/proc/{pid}/task").glob("*/comm"))
    return False


def main(arguments: argparse.Namespace) -> int:
    """Print a line for each trial, and what they come to."""
    rng, bad = random.Random(arguments.seed), 0
    commands: tuple[Command, ...] = ("load", "run")
    for number in range(arguments.stalls + arguments.undisturbed):
        command, server = commands[number % 2], ("epoll", "threads")[number // 2 % 2]
        stall = None
        if number < arguments.stalls:
            after_s = rng.uniform(0, arguments.window - SHORTEST_S) + (WARM_UP_S if command == "run" else 0)
            stall = Stall(after_s, rng.uniform(SHORTEST_S, LONGEST_S))
        trial = measured(command, server, arguments.window, stall)
        is_right = trial.verdict == "valid" if stall is None else trial.has_found(stall)
        bad += not is_right
        done = (
            "not stopped" if stall is None else f"stopped at {stall.after_s:.2f} s for {stall.length_s * 1000:.0f} ms"
        )
        sys.stdout.write(
            f"{command} {server}, {done}: {trial.verdict}, longest gap {trial.gap_s * 1000:.0f} ms"
            f"{'' if is_right else f'; WRONG ({trial.reason})'}\n"
        )
    sys.stdout.write(f"{arguments.stalls} stalls, {arguments.undisturbed} undisturbed trials: {bad} wrong\n")
    return 1 if bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benches.stalls", description=__doc__.splitlines()[0])
    parser.add_argument("--stalls", type=int, default=30)
    parser.add_argument("--undisturbed", type=int, default=10)
    parser.add_argument("--window", type=float, default=3.0, help="seconds")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main(_arguments()))
