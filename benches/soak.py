"""Does a long load need more and more? Memory and open files of both sides, minute by minute, and counters that add up.

    python -m benches.soak [--minutes 30] [--rate 1600] [--server epoll] [--settle 5]

Reads of 64 KiB at the rate, `rows: sample`, from the bundled server. From the minute after `settle` to the last one
neither side's memory may grow by more than 1 MiB, medians compared. The median number of open files of the last minute
must be one that the first of the two saw: a server replaces its sockets while they are in use, so its number varies.
Ask for 80 % of what `tftpbench load -c 100` moves here: some 1,600/s on two cores. The exit code is 1 where something
grew or was lost.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

_TFTPBENCH = [sys.executable, "-m", "tftpbench"]
GROWTH_MAX_KIB = 1024
_EVERY_S = 5.0


@dataclass(frozen=True)
class Used:
    """What a process holds: resident memory (proc_pid_status(5)), and open files."""

    rss_kib: int
    files: int

    def __str__(self) -> str:
        return f"{self.rss_kib / 1024:.1f} MiB, {self.files} files"


def used(pid: int) -> Used:
    """What it holds now. Raises OSError once it has ended."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return Used(int(rss), len(list(Path(f"/proc/{pid}/fd").iterdir())))


def main() -> int:
    """Print what both sides hold, then what became of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--settle", type=float, default=5.0)
    parser.add_argument("--rate", type=int, default=1600)
    parser.add_argument("--server", default="epoll")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "file").write_bytes(bytes(65536))
        serve = [*_TFTPBENCH, "serve", asked.server, "--root", folder, "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            port = server.stdout.readline().split()[2]
            words = ["load", f"127.0.0.1:{port}", "--read", "file", "--rate", f"{asked.rate}/s", "--rows", "sample"]
            words += ["-d", f"{asked.minutes * 60:.0f}s", "--json"]
            with subprocess.Popen([*_TFTPBENCH, *words], stdout=subprocess.PIPE, text=True) as loader:
                samples = _watch({"generator": loader.pid, "server": server.pid}, 60 * asked.minutes)
                out, _ = loader.communicate()
            server.terminate()
    found = [_grown(side, each, asked.settle) for side, each in samples.items()]
    figures = json.loads(out)
    counts = {name: figures[name] for name in ("intended", "started", "shed", "completed", "failed", "late")}
    ends = sum(figures[name] for name in ("completed", "failed", "timed_out", "late", "interrupted"))
    adds_up = counts["intended"] == counts["started"] + counts["shed"] and counts["started"] == ends
    _say(f"{counts}, {'they add up' if adds_up else 'THEY DO NOT ADD UP'}; verdict: {figures['verdict']}")
    return 0 if adds_up and not any(found) else 1


def _watch(pids: dict[str, int], seconds: float) -> dict[str, list[tuple[float, Used]]]:
    began_s = time.monotonic()
    samples: dict[str, list[tuple[float, Used]]] = {side: [] for side in pids}
    while (now_s := time.monotonic() - began_s) < seconds:
        for side, pid in pids.items():
            samples[side].append((now_s / 60, used(pid)))
        if len(samples["server"]) % 12 == 1:
            _say(f"minute {now_s / 60:.0f}: " + "; ".join(f"{side} {each[-1][1]}" for side, each in samples.items()))
        time.sleep(_EVERY_S)
    return samples


def _grown(side: str, samples: list[tuple[float, Used]], settle: float) -> bool:
    """Whether the last minute needs more than the one after `settle`; said either way."""
    first = [each for minute, each in samples if settle <= minute < settle + 1]
    last = [each for minute, each in samples if minute >= samples[-1][0] - 1]
    files = [each.files for each in first]
    now = Used(round(median(each.rss_kib for each in last)), round(median(each.files for each in last)))
    grown = now.rss_kib - round(median(each.rss_kib for each in first))
    held = f"{min(files)} to {max(files)} files"
    _say(f"{side}: {held} in the minute after {settle:g}; {now} in the last: {grown:+} KiB")
    return grown > GROWTH_MAX_KIB or not min(files) <= now.files <= max(files)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
