"""Holds the hot loops to the instructions in bounds.yaml: `python -m tests.instructions.bounds [--renew] [NAME...]`.

A loop that takes more than its bound allows fails, with one line; one that takes less is named, so that the bound can
follow. `--renew` writes what was counted as the new bounds. A NAME is the beginning of a loop's name.

Never fails for what a machine lacks: it says so and ends well. Called by `make bench` and by its own tests.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.instructions import counts
from tests.instructions.counts import CannotCountError

BOUNDS = Path(__file__).with_name("bounds.yaml")
LOOP_TOLERANCE = 0.02  # they repeat exactly: room for a harmless change beside them
SERVER_TOLERANCE = 0.05  # they repeat within 2 %
# Another compiler or C library decides otherwise here and there; this much more is a change of ours.
ELSEWHERE_TOLERANCE = 0.25
HEADER = """\
# Instructions of user space for a unit of each hot loop's work: a packet, timer, datagram or block.
# `make bench-instructions RENEW=1` writes this file; a commit that raises a bound says what it buys.
"""


@dataclass(frozen=True)
class Bounds:
    """What each loop may take, and where it was counted."""

    taken_with: Mapping[str, str]
    instructions: Mapping[str, float]

    def tolerance(self, name: str, here: Mapping[str, str]) -> float:
        """How far a count may lie above the bound, as a part of it."""
        if here != self.taken_with:
            return ELSEWHERE_TOLERANCE
        return SERVER_TOLERANCE if name in counts.SERVER else LOOP_TOLERANCE


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
    lack = counts.missing()
    if lack:
        print(f"instructions are not counted: {lack}")
        return 0
    bounds, here = load(BOUNDS.read_text()), counts.environment()
    if here["machine"] != bounds.taken_with["machine"] and not asked.renew:
        print(f"instructions are not counted: the bounds are of {bounds.taken_with['machine']}")
        return 0
    if here != bounds.taken_with:
        print(f"here is {here}, the bounds are of {bounds.taken_with}: {ELSEWHERE_TOLERANCE:.0%} are allowed")
    program = counts.built()
    everything = [*counts.loops(program), *counts.SERVER]
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
            reads = counts.SERVER.get(name)
            yield name, counts.of_server(reads) if reads else counts.of_loop(program, name)
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
