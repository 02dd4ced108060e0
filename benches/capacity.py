"""Does a search find a capacity that is known? The bundled epoll server, slowed to a rate, searched at several rates.

    python -m benches.capacity [--searches 10] [--budget 3min] [--rates 40,90,200] [--boots uefi,bios-pxelinux]

The server sends so many datagrams a second at most (gate/selftest/fault.c), and a boot needs a known number of them: an
answer to each request, and each block. The true rate is their quotient. It must lie within 2 % of the bounds, which
must be within 6 % of each other and regular, and be found within 5 minutes. `--budget` bounds the whole of a search:
10 of 3 minutes take half an hour at most. Exit code 1 where one is out.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from tftpbench.gate.selftest.faults import compile_shim, limited
from tftpbench.measure import second_opinion
from tftpbench.model.boot import boot_facts, load_boot, shares
from tftpbench.model.capacity import FoundCapacity

SLACK, RATIO_MAX, BOUNDS_S_MAX = 0.02, 1.06, 300.0


class Case(NamedTuple):
    """A boot, how many of it a second the server is slowed to, and how many datagrams that is."""

    boot: str
    per_s: float
    datagrams_per_s: float


def case(boot: str, per_s: float) -> Case:
    """The case of a boot all of whose requests have options, or are answered by an ERROR."""
    facts = boot_facts(shares([(load_boot(boot), 1)]))
    return Case(boot, per_s, per_s * (facts.requests + facts.blocks))


def slowed(folder: Path, asked: Case) -> Path:
    """A server.yaml of the epoll server that is so slow."""
    shim = compile_shim(folder)
    fault = limited(asked.datagrams_per_s)
    source = Path(__file__).parent.parent / "servers/epoll/server.yaml"
    lines = source.read_text(encoding="utf-8").split("as_shipped:")[0].replace("name: epoll", "name: slowed")
    env = json.dumps({**fault.environment, "LD_PRELOAD": str(shim)})
    place = folder / "slowed"
    place.mkdir()
    (place / "server.yaml").write_text(f"{lines}env: {env}\n", encoding="utf-8")
    return place / "server.yaml"


def searched(asked: Case, budget: str, out: Path) -> FoundCapacity:
    """What a search says of it."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tftpbench", "capacity", str(slowed(Path(folder), asked))]
        words += ["--boot", asked.boot, "--budget", budget, "--json", "--quiet", "-o", str(out)]
        made = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    return FoundCapacity.model_validate(json.loads(made.stdout))


def faults(asked: Case, found: FoundCapacity) -> list[str]:
    """What is wrong with it."""
    lower, upper = found.bounds
    if lower is None or upper is None:
        return ["no bounds", *found.reasons]
    checks = {
        "outside the bounds": not (1 - SLACK) * lower <= asked.per_s <= (1 + SLACK) * upper,
        "bounds too far apart": upper / lower > RATIO_MAX,
        f"irregular: {'; '.join(found.reasons)}": not found.is_regular,
        "too slow": found.bounds_took_s > BOUNDS_S_MAX,
        "another opinion": bool(second_opinion(found)),
    }  # fmt: skip
    return [text for text, is_wrong in checks.items() if is_wrong]


def main() -> int:
    """Print a line for each search, then the verdict; 0 where all are in, 1 where one is out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("--budget", default="3min")
    parser.add_argument("--rates", default="40,90,200")
    parser.add_argument("--boots", default="uefi,bios-pxelinux")
    parser.add_argument("--out", type=Path, default=Path("results"))
    asked = parser.parse_args()
    boots, rates = asked.boots.split(","), [float(rate) for rate in asked.rates.split(",")]
    cases = [case(boot, rate) for rate, boot in itertools.product(rates, boots)]
    right = 0
    _say(
        f"{'boot':16} {'true/s':>8} {'lower':>8} {'upper':>8} {'ratio':>6} {'regular':>7} {'trials':>6} "
        f"{'repeated':>8} {'bounds':>7} {'all':>7}  verdict"
    )
    for each in itertools.islice(itertools.cycle(cases), asked.searches):
        found = searched(each, asked.budget, asked.out)
        wrong = faults(each, found)
        right += not wrong
        _say(_line(each, found, wrong))
    _say(f"{right} of {asked.searches} are in")
    return 0 if right == asked.searches else 1


def _line(asked: Case, found: FoundCapacity, wrong: list[str]) -> str:
    lower, upper = found.bounds
    figures: list[Any] = [f"{each:8.2f}" if each is not None else f"{'-':>8}" for each in (lower, upper)]
    ratio = f"{upper / lower:6.3f}" if lower and upper else f"{'-':>6}"
    verdict = f"out: {'; '.join(wrong)}" if wrong else "in"
    # This machine's own noise, which counts for nothing.
    repeated = sum(each.fault == "machine" for each in found.trials)
    bounds = f"{asked.boot:16} {asked.per_s:8.2f} {figures[0]} {figures[1]} {ratio}"
    counts = f"{'yes' if found.is_regular else 'no':>7} {len(found.trials):6} {repeated:8}"
    return f"{bounds} {counts} {found.bounds_took_s:6.0f}s {found.took_s:6.0f}s  {verdict}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
