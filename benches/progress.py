"""Does showing how far a long trial is cost it anything? Loads with the display and without it, in turn.

    python -m benches.progress [--pairs 8] [--seconds 10]

100 reads of 64 KiB at once from the bundled epoll server; half of the loads draw the bar of `run` once a second, on
a terminal that leads nowhere. Prints the ratio of each pair and their mean with a 95 % interval.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from tftpbench.analysis.stats import paired_ratio
from tftpbench.host.generator import LoadConfig, run_load
from tftpbench.measure import LoadProgressed, Pinning, RunStarted, TrialStarted, contenders
from tftpbench.measure.plan import plan
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.progress import LiveBar


def main() -> int:
    """Print each pair, then all of them together."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        (Path(folder) / "file").write_bytes(bytes(65536))
        serve = [sys.executable, "-m", "tftpbench", "serve", "epoll", "--root", folder, "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            port = int(server.stdout.readline().split()[2])
            pairs = [_pair(port, asked.seconds, number) for number in range(asked.pairs)]
            server.terminate()
    shown, quiet = (list(each) for each in zip(*pairs, strict=True))
    sys.stdout.write(f"with the display / without: {paired_ratio(shown, quiet)}\n")
    return 0


def _pair(port: int, seconds: float, number: int) -> tuple[float, float]:
    """Blocks a second with the display and without it; which comes first is a matter of chance."""
    rates = {is_shown: _rate(port, seconds, is_shown=is_shown) for is_shown in random.sample([True, False], 2)}
    sys.stdout.write(f"pair {number + 1}: {rates[True] / rates[False]:.4f}\n")
    sys.stdout.flush()
    return rates[True], rates[False]


def _rate(port: int, seconds: float, *, is_shown: bool) -> float:
    config = LoadConfig(
        host="127.0.0.1", port=port, operation="read", name="file", file_size_bytes=65536, concurrency=100,
        duration_ns=round(seconds * 1e9), verify="off", sockets="shared",
    )  # fmt: skip
    scenario = load_scenario("concurrency")
    whole = plan(scenario, contenders(scenario, ask_version=False), 1)
    trial = whole.trials[0]
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        bar = LiveBar(Console(file=nowhere, force_terminal=True, width=120))
        bar(RunStarted(Path("results"), scenario, whole, Pinning((0,), (0,), ()), 0))
        bar(TrialStarted(trial, len(whole.trials)))
        result = run_load(config, on_progress=(lambda now: bar(LoadProgressed(trial, now, 0))) if is_shown else None)
        bar.close()
    return float(result.figures["data_pps"] or 0)


if __name__ == "__main__":
    sys.exit(main())
