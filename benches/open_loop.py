"""What does a stall of the server do to percentiles? An open loop and a closed loop over the same stall, in turn.

    python -m benches.open_loop [--rounds 5] [--seconds 10] [--stall 1] [--rate 200]

In each round the bundled epoll server is stopped by SIGSTOP in the middle of a load: once of an open loop at the rate,
once of a closed loop with one transfer in flight. By arithmetic the open loop's 95th percentile is what is left of the
stall for the arrival at that rank: at 200/s, 10 s and a stall of 1 s it is 0.5 s. docs/open-loop.md has the figures.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

_TFTPBENCH = [sys.executable, "-m", "tftpbench"]
_NAMES = ("response_ns_p50", "response_ns_p95", "response_ns_p99", "response_ns_max")


def measured(load: list[str], seconds: float, stall_s: float) -> dict[str, float]:
    """The response times of one load over one stall, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(bytes(2_000))
        serve = [*_TFTPBENCH, "serve", "epoll", "--root", folder, "--port", "0"]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
            assert server.stdout is not None
            port = server.stdout.readline().split()[2]
            words = [*_TFTPBENCH, "load", f"127.0.0.1:{port}", "--read", "file", "-d", f"{seconds * 1000:.0f}ms"]
            # Longer than the stall: no client asks again, so that the arithmetic is about the server alone.
            words += ["--timeout", "20s", "--json", *load]
            with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as loader:
                threading.Event().wait(seconds / 2)  # some time in the middle: the load has begun long ago
                server.send_signal(signal.SIGSTOP)
                threading.Event().wait(stall_s)
                server.send_signal(signal.SIGCONT)
                out, _ = loader.communicate()
            server.send_signal(signal.SIGINT)
    figures = json.loads(out)
    return {name: figures[name] / 1e6 for name in _NAMES}


def main() -> int:
    """Print each round, then the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stall", type=float, default=1.0)
    parser.add_argument("--rate", type=int, default=200)
    asked = parser.parse_args()
    loads = {"open": ["--rate", f"{asked.rate}/s"], "closed": ["-c", "1"]}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
    for number in range(asked.rounds):
        for name, load in loads.items():
            times = measured(load, asked.seconds, asked.stall)
            found[name].append(times)
            _say(f"round {number + 1}, {name}: {_text(times)}")
    for name, rounds in found.items():
        medians = {key: statistics.median(each[key] for each in rounds) for key in _NAMES}
        _say(f"{name}, median of {len(rounds)}: {_text(medians)}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _text(times: dict[str, float]) -> str:
    return ", ".join(f"{name.removeprefix('response_ns_')} {ms:.2f} ms" for name, ms in times.items())


if __name__ == "__main__":
    sys.exit(main())
