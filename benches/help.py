"""How long `tftpbench --help` and the help of each command take: DESIGN asks for under 0.3 s.

    python -m benches.help [--rounds N]

The best of so many rounds, the wall's clock and the CPU's: on a machine that does other things the first one is larger.
"""

import argparse
import os
import subprocess
import sys
import time

COMMANDS = ("", "run", "serve", "load", "compare", "report", "gate", "scenarios", "servers", "ceiling", "schema")


def main() -> int:
    """Measure, and print a line a command; 1 where one takes longer than is allowed."""
    parser = argparse.ArgumentParser(prog="python -m benches.help", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="how often (default: 10)")
    parser.add_argument("--allowed", type=float, default=0.3, help="seconds (default: 0.3)")
    asked = parser.parse_args()
    slowest = 0.0
    for command in COMMANDS:
        times = [_once(command) for _ in range(asked.rounds)]
        wall_s, cpu_s = min(wall for wall, _ in times), min(cpu for _, cpu in times)
        slowest = max(slowest, wall_s)
        sys.stdout.write(f"tftpbench {command} --help: {1000 * wall_s:.0f} ms, CPU {1000 * cpu_s:.0f} ms\n")
    return int(slowest > asked.allowed)


def _once(command: str) -> tuple[float, float]:
    before, began = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "tftpbench", *command.split(), "--help"], stdout=subprocess.DEVNULL, check=True
    )
    wall_s, after = time.perf_counter() - began, os.times()
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return wall_s, cpu_s


if __name__ == "__main__":
    sys.exit(main())
