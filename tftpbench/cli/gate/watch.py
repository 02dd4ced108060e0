"""What people see while a gate goes on: a line a look, and on a terminal a line for the pair that was just done.

It draws between pairs only, when nothing is measured.
"""

from collections.abc import Callable
from typing import TextIO

from tftpbench.gate import Event, GateStarted, InterimLook, PairFinished
from tftpbench.gate.result import BASE, HEAD
from tftpbench.gate.text import change
from tftpbench.model.escape import visible_line
from tftpbench.render.terminal import output_of


def watch(stream: TextIO, *, quiet: bool) -> Callable[[Event], None]:
    """The fitting display for a stream."""
    return (lambda _event: None) if quiet else _Watch(stream)


class _Watch:
    def __init__(self, stream: TextIO) -> None:
        self._stream = output_of(stream)
        self._is_live = stream.isatty()
        self._last = 0

    def __call__(self, event: Event) -> None:
        match event:
            case GateStarted():
                self._last = event.looks[-1]
                looks = ", ".join(map(str, event.looks))
                self._say(f"Base and head answer; looks after {looks} pairs, {event.placement}.")
                for line in (*event.work.values(), *event.notes):
                    self._say(f"  {line}")
            case PairFinished(pair, cells):
                text = f"pair {pair.number} of at most {self._last}"
                text += f", {pair.cell}" if cells > 1 else ""
                self._live(f"{text}: {_rates(event)}")
                if pair.invalid or pair.failure:
                    self._say(f"pair {pair.number} is invalid: {pair.failure or pair.invalid}")
            case InterimLook(decision) if not decision.is_final:  # the last one is printed with the verdict
                gated = [each for each in decision.judgements if each.budget is not None]
                self._say(f"after {decision.pairs} pairs:")
                for each in gated:
                    self._say(f"  {each.verdict or 'not judged'}: {change(each)}")

    def _say(self, line: str) -> None:
        self._clear()
        self._stream.write(f"{visible_line(line)}\n")
        self._stream.flush()

    def _live(self, line: str) -> None:
        """One line that the next replaces; in a log it would be noise."""
        if self._is_live:
            self._clear()
            self._stream.write(visible_line(line)[:100])
            self._stream.flush()

    def _clear(self) -> None:
        self._stream.clear_line()


def _rates(event: PairFinished) -> str:
    both = [event.pair.arms[name].figures.get("data_pps") for name in (BASE, HEAD) if name in event.pair.arms]
    return " against ".join(f"{value / 1000:.1f} k blocks/s" for value in both if value)
