"""What people see while a gate goes on: a line a look, and on a terminal a line for the pair that was just done.

It draws between pairs only, when nothing is measured.
"""

import time
from collections.abc import Callable
from typing import TextIO

from tftpbench.gate import Event, GateStarted, InterimLook, PairFinished
from tftpbench.gate.result import BASE, HEAD, Pair
from tftpbench.gate.text import alternatives, change
from tftpbench.model.escape import visible_line
from tftpbench.model.units import format_count, format_duration
from tftpbench.render.terminal import output_of


def watch(stream: TextIO, *, quiet: bool, clock_s: Callable[[], float] = time.monotonic) -> Callable[[Event], None]:
    """The fitting display for a stream."""
    return (lambda _event: None) if quiet else _Watch(stream, clock_s)


class _Watch:
    def __init__(self, stream: TextIO, clock_s: Callable[[], float]) -> None:
        self._stream = output_of(stream)
        self._clock_s = clock_s
        self._began_s = 0.0
        self._last = 0

    def __call__(self, event: Event) -> None:
        match event:
            case GateStarted():
                self._began_s, self._last = self._clock_s(), event.looks[-1]
                self._say(f"Base and head have started, {event.placement}.")
                self._say(f"  A verdict can come after {alternatives(event.looks)} pairs.")
                for line in (*event.work.values(), *event.notes):
                    self._say(f"  {line}")
                self._live(f"pair 1 of at most {self._last}")
            case PairFinished(pair, cells):
                if pair.invalid or pair.failure:
                    self._say(f"pair {pair.number} is invalid: {pair.failure or pair.invalid}")
                parts = [f"pair {pair.number} of at most {self._last}", self._left(pair.number), _rates(pair)]
                self._live(", ".join(filter(None, [*parts, pair.cell if cells > 1 else ""])))
            case InterimLook(decision) if not decision.is_final:  # the last one is printed with the verdict
                gated = [each for each in decision.judgements if each.budget is not None]
                self._say(f"after {decision.pairs} pairs:")
                for each in gated:
                    self._say(f"  {each.verdict or 'not judged'}: {change(each)}")

    def _left(self, done: int) -> str:
        """The time until the last look, if none before it decides; pairs that are made up for come on top."""
        left_s = round((self._clock_s() - self._began_s) / done * (self._last - done))
        return f"up to {format_duration(left_s * 1e9)} left" if left_s > 0 else ""

    def _say(self, line: str) -> None:
        self._stream.clear_line()
        self._stream.write(f"{visible_line(line)}\n")
        self._stream.flush()

    def _live(self, line: str) -> None:
        """One line that the next replaces, no longer than the terminal is wide; in a log it would be noise."""
        if self._stream.width is not None:
            self._stream.clear_line()
            self._stream.write(visible_line(line)[: self._stream.width - 1])
            self._stream.flush()


def _rates(pair: Pair) -> str:
    both = {name: pair.arms[name].figures.get("data_pps") for name in (BASE, HEAD) if name in pair.arms}
    known = [f"{name} {format_count(value)}" for name, value in both.items() if value]
    return f"{', '.join(known)} blocks/s" if known else ""
