"""What a notebook shows while a run goes on: one output of its cell, rewritten at each event.

Its lines are those of `render.progress`. It must never change the run, nor draw but when an event arrives.
"""

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

from tftpbench.measure import Event, LoadProgressed, RunFinished, RunStarted, TrialFinished, TrialStarted
from tftpbench.model.units import format_duration
from tftpbench.render import progress

LINES = 8  # the last ones: what fits under a cell without scrolling

Show = Callable[[str], object]


@contextmanager
def display(progress_: bool | None) -> Iterator[progress.Display]:
    """What shows a run to the caller of the API: True and False as asked; None: in a notebook alone."""
    show = _notebook() if progress_ is not False else None
    quiet = show is not None or not progress_
    with progress.display(io.StringIO() if quiet else sys.stderr, quiet=quiet) as shown:
        yield shown if show is None else InPlace(show)


class InPlace:
    """A bar, the time left, what is being measured, and the last lines; `show` replaces what was shown before."""

    def __init__(self, show: Show, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._clock_s = clock_s
        self._text = io.StringIO()
        self._began_s = 0.0
        self._resumed = self._done = self._total = 0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        with progress.display(self._text, quiet=False) as line:
            line(event)
        now = ""
        match event:
            case RunStarted():
                self._began_s = self._clock_s()
                self._resumed = self._done = event.done
                self._total = len(event.plan.trials)
            case TrialStarted(trial, _):
                now = f"{trial.contender.name}, {trial.cell.label}"
            case LoadProgressed(trial, _, _):
                now = f"{trial.contender.name}, {progress.progress_text(event)}"
            case TrialFinished(trial, _, _, _):
                self._done = trial.order
            case RunFinished():
                now = "interrupted" if event.interrupted else "done"
        parts = [f"{self._done} of {self._total} trials", self._left(), now]
        lines = self._text.getvalue().splitlines()[-LINES:]
        self._show(
            f'<progress value="{self._done}" max="{self._total or 1}"></progress> '
            f"{escape(' · '.join(filter(None, parts)))}"
            f'<pre style="white-space:pre-wrap">{escape(chr(10).join(lines))}</pre>'
        )

    def _left(self) -> str:
        finished, left = self._done - self._resumed, self._total - self._done
        each_s = (self._clock_s() - self._began_s) / finished if finished > 0 else 0
        return f"{format_duration(round(each_s * left) * 1e9)} left" if finished > 0 and left else ""


def _notebook() -> Show | None:
    """Replaces one output of the running cell; None where no notebook runs this."""
    ipython: Any = sys.modules.get("IPython")
    if getattr(ipython and ipython.get_ipython(), "kernel", None) is None:
        return None
    html = ipython.display.HTML
    output = ipython.display.display(html(""), display_id=True)
    return lambda text: output.update(html(text))
