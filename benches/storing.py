"""What storing costs an upload: writing new files to a tmpfs, beside the bare exchange of the same blocks.

    python -m benches.storing [--rounds N]

A server that stores can't be faster than both together, whatever else it does. Writing is from one thread on the core
that `ceiling` gives the answering side: new files of 1 MiB, as the bundled servers write them: 64 KiB a call, 8 KiB in
lock-step. As in a trial they stay until the round is over. Exchange and writing take turns.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tftpbench.host.ceiling import CeilingCell, Effort, calibrate, measure
from tftpbench.model.errors import TftpbenchError

TMPFS = Path("/dev/shm")  # noqa: S108 (a folder of its own is made in it)
FILE_BYTES = 1 << 20
LOCK_STEP_CALL_BYTES, WINDOWS_CALL_BYTES = 8 * 1024, 64 * 1024
FILES = 256  # some 100 ms
EFFORT = Effort()


def main() -> int:
    """Measure, and print nanoseconds a block."""
    parser = argparse.ArgumentParser(prog="python -m benches.storing", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="how often (default: 9)")
    rounds = parser.parse_args().rounds
    asking, answering = cores()
    sys.stdout.write(f"ns a block, medians of {rounds} rounds (lowest to highest); exchange as part of both\n")
    sys.stdout.write(f"{'blksize':>8}{'windowsize':>12}{'exchange':>22}{'writing':>22}{'both':>7}{'part':>7}\n")
    for blksize in (512, 1428):
        for windowsize in (1, 16, 64):
            cell = CeilingCell(
                operation="write", flows=10, windowsize=windowsize, blksize=blksize,
                answering_cpus=(answering,), asking_cpus=(asking,), asking_spin_us=1000,
            )  # fmt: skip
            arrangement = calibrate(cell, effort=EFFORT)
            call_bytes = WINDOWS_CALL_BYTES if windowsize > 1 else LOCK_STEP_CALL_BYTES
            exchange, writing = [], []
            for _ in range(rounds):
                found = measure(cell, arrangement, warm_up_ns=EFFORT.warm_up_ns, window_ns=EFFORT.window_ns)
                exchange.append(1e9 / found.data_pps)
                writing.append(write_ns(blksize, call_bytes, answering))
            both = [own + other for own, other in zip(exchange, writing, strict=True)]
            part = statistics.median(own / whole for own, whole in zip(exchange, both, strict=True))
            line = f"{blksize:8}{windowsize:12}{spread(exchange):>22}{spread(writing):>22}"
            sys.stdout.write(f"{line}{statistics.median(both):7.0f}{part:7.2f}\n")
    return 0


def cores() -> tuple[int, int]:
    """One for each side, or the only one for both."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[0], allowed[min(1, len(allowed) - 1)]


def write_ns(blksize: int, call_bytes: int, core: int) -> float:
    """Nanoseconds for the bytes of one block."""
    data, before = bytes(call_bytes), os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(dir=TMPFS) as folder:
        os.sched_setaffinity(0, {core})
        try:
            started = time.perf_counter_ns()
            for number in range(FILES):
                file = os.open(Path(folder, str(number)), os.O_CREAT | os.O_WRONLY)
                written = sum(os.write(file, data) for _ in range(FILE_BYTES // call_bytes))
                os.close(file)
                if written < FILE_BYTES:
                    raise OSError(f"{TMPFS} is full")
            spent_ns = time.perf_counter_ns() - started
        finally:
            os.sched_setaffinity(0, before)
    return spent_ns / (FILES * FILE_BYTES) * blksize


def spread(figures: list[float]) -> str:
    """The median, and how far it was from the others."""
    return f"{statistics.median(figures):.0f} ({min(figures):.0f} to {max(figures):.0f})"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (TftpbenchError, OSError) as error:
        sys.exit(f"benches.storing: {error}")
