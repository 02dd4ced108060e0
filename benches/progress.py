"""Does showing how far a long trial is cost it anything? One long load, with the display in every other second.

    python -m benches.progress [--seconds 240]

100 reads of 64 KiB at once from the bundled epoll server, each side on a core of its own; the bar of `run` is drawn
in every even second, on a terminal that leads nowhere. Compared are the 300 ms about each time of drawing with those a
second before, where nothing was drawn: what drawing costs lies in them, and as a part of a whole second it is three
tenths of that. Prints what a second lost so, with its 95 % interval.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tftpbench.analysis.stats import paired_ratio
from tftpbench.host.generator import Column, LoadConfig, Progress, run_load
from tftpbench.measure import LoadProgressed, Pinning, RunStarted, TrialStarted, contenders
from tftpbench.measure.plan import plan
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.progress import LiveBar

_PART = 0.3  # of a second that is looked at


def main() -> int:
    """Print what drawing costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=240)
    seconds = parser.parse_args().seconds
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "file").write_bytes(bytes(65536))
        serve = [sys.executable, "-m", "tftpbench", "serve", "epoll", "--root", folder, "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline().split()[2])
            os.sched_setaffinity(server.pid, cores[:1])
            blocks = _blocks(port, seconds, cores[-1:])
            server.terminate()
    about = [int(blocks[10 * second - 1 : 10 * second + 2].sum()) for second in range(1, seconds)]
    shown, not_shown = about[1::2], about[::2]
    pairs = min(len(shown), len(not_shown))
    ratio = paired_ratio(shown[:pairs], not_shown[:pairs])
    if ratio.low is None or ratio.high is None:
        sys.exit("too few pairs: ask for at least 20 seconds")
    lost, most, least = (100 * _PART * (1 - each) for each in (ratio.ratio, ratio.low, ratio.high))
    sys.stdout.write(f"drawing costs {lost:.2f} % of a second's blocks ({least:.2f} to {most:.2f} %), {pairs} pairs\n")
    return 0


def _blocks(port: int, seconds: int, cpus: list[int]) -> Column:
    """Blocks of each 100 ms of a load that draws the bar in its even seconds."""
    config = LoadConfig(
        host="127.0.0.1", port=port, operation="read", name="file", file_size_bytes=65536, concurrency=100,
        duration_ns=seconds * 10**9, verify="off", sockets="shared", cpus=tuple(cpus), rows="sample",
    )  # fmt: skip
    scenario = load_scenario("concurrency")
    whole = plan(scenario, contenders(scenario, ask_version=False), 1)
    trial = whole.trials[0]
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        bar = LiveBar(Console(file=nowhere, force_terminal=True, width=120))
        bar(RunStarted(Path("results"), scenario, whole, Pinning((0,), (0,), ()), 0))
        bar(TrialStarted(trial, len(whole.trials)))

        def draw(now: Progress) -> None:
            if round(now.elapsed_ns / 1e9) % 2 == 0:
                bar(LoadProgressed(trial, now, 0))

        result = run_load(config, on_progress=draw)
        bar.close()
    if len(result.intervals["blocks"]) < 10 * seconds:
        sys.exit("intervals are longer than 100 ms: ask for less than ten minutes")
    return result.intervals["blocks"]


if __name__ == "__main__":
    sys.exit(main())
