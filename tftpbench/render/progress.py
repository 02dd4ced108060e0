"""What people see while a run goes on: a bar on a terminal, a line per trial otherwise.

It consumes the runner's events and draws only when one arrives, which is between trials: no display work ever falls
into a measured window. It must never change the run.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tftpbench.measure import (
    CeilingUnknown,
    CopyStarted,
    Event,
    RecoveryAwaited,
    RunFinished,
    RunStarted,
    ServerLeftOut,
    Skipped,
    Trial,
    TrialFinished,
    TrialStarted,
)
from tftpbench.measure.plan import costs_s, estimate_s
from tftpbench.model.escape import visible_line
from tftpbench.model.metrics import METRICS
from tftpbench.model.units import about, counted, format_duration, format_rate
from tftpbench.render.terminal import console

if TYPE_CHECKING:
    from rich.console import Console

Display = Callable[[Event], None]
# A bar for those who look from afar; where lines are short, what is measured needs the room more.
_BAR, _SHORT_BAR, _SHORT_LINE = 24, 10, 100


@contextmanager
def display(stream: TextIO, *, quiet: bool) -> Iterator[Display]:
    """The fitting display for a stream: nothing, a live bar, or plain lines. Leaves the terminal as it was."""
    if quiet:
        yield lambda _: None
    elif not stream.isatty():
        yield PlainLines(stream)
    else:
        bar = LiveBar(console(stream, highlight=False))
        try:
            yield bar
        finally:
            bar.close()


class PlainLines:
    """One line per finished trial, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._awaited: Trial | None = None

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case CopyStarted():
                self._say(copy_text(event))
            case RunStarted():
                self._say(*started_lines(event))
            case RecoveryAwaited(trial) if trial is not self._awaited:
                self._awaited = trial
                self._say(recovery_text(event))
            case TrialFinished(trial, total, _, _):
                width = len(str(total))
                self._say(f"[{trial.order:{width}}/{total}] {finished_text(event)}")
            case ServerLeftOut():
                self._say(left_out_text(event))
            case CeilingUnknown():
                self._say(unknown_text(event))

    def _say(self, *lines: str) -> None:
        for line in lines:
            self._stream.write(f"{visible_line(line)}\n")
        self._stream.flush()


class LiveBar:
    """A bar with the time left, what is being measured, and the last trial's rate."""

    def __init__(self, console: "Console", clock_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock_s = clock_s
        self._began_s = 0.0
        self._estimated_s = 0.0  # of what has been finished since then
        self._last = ""
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._trials: Sequence[Trial] = ()
        self._costs_s: Mapping[int, float] = {}
        self._gone: set[str] = set()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case CopyStarted():
                self._console.print(copy_text(event), soft_wrap=True, markup=False)
            case RunStarted():
                self._start(event)
            case TrialStarted(trial, _):
                self._draw(f"{trial.contender.name}, {trial.cell.label}", trial.order - 1)
            case RecoveryAwaited(trial):
                self._draw(recovery_text(event), trial.order - 1)
            case TrialFinished(trial, _, row, _):
                self._estimated_s += self._costs_s.get(trial.order, 0.0)
                self._last = _rate(row)
                if row["verdict"] != "valid":
                    self._console.print(finished_text(event), style="yellow", soft_wrap=True, markup=False)
                self._draw("", trial.order)
            case ServerLeftOut(left_out, _):
                self._gone.add(left_out.server)
                self._console.print(left_out_text(event), style="yellow", soft_wrap=True, markup=False)
            case CeilingUnknown():
                self._console.print(unknown_text(event), style="yellow", soft_wrap=True, markup=False)
            case RunFinished():
                self.close()

    def close(self) -> None:
        """Take the bar away and show the cursor again; however the run ended."""
        if self._bar is not None:
            self._bar.stop()

    def _start(self, event: RunStarted) -> None:
        for line in started_lines(event):
            self._console.print(line, soft_wrap=True, markup=False)  # foreign words: square brackets are theirs
        self._began_s = self._clock_s()
        self._trials = event.plan.trials
        self._costs_s = costs_s(self._trials)
        # auto_refresh would redraw from a thread, ten times a second, inside measured windows
        self._bar = Progress(
            BarColumn(bar_width=self._bar_width), TextColumn("{task.description}", markup=False),
            console=self._console, auto_refresh=False, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=len(event.plan.trials), completed=event.done)
        self._bar.start()
        self._draw("", event.done)

    @property
    def _bar_width(self) -> int:
        return _BAR if self._console.width >= _SHORT_LINE else _SHORT_BAR

    def _draw(self, what: str, completed: int) -> None:
        """The count first, for it is never cut; what there is no room for is left out from the end."""
        if self._bar is None:
            return
        total = str(len(self._trials))
        room = self._console.width - self._bar_width - 1
        text = f"{completed:{len(total)}}/{total}"
        for part in (self._left(completed), what, self._last and f"last {self._last}"):
            longer = f"{text} | {visible_line(part)}" if part else text
            if len(longer) > room and part is not what:
                break
            text = longer if len(longer) <= room else f"{longer[: room - 3]}..."
        self._bar.update(self._task, completed=completed, description=text)
        self._bar.refresh()

    def _left(self, completed: int) -> str:
        """Estimated before the first trial has ended, then by how long the trials until now took for their estimate."""
        left_s = sum(
            self._costs_s[each.order]
            for each in self._trials
            if each.order > completed and each.contender.name not in self._gone
        )
        if not left_s:
            return ""
        pace = (self._clock_s() - self._began_s) / self._estimated_s if self._estimated_s else 1.0
        return f"{format_duration(max(1, round(pace * left_s)) * 1e9)} left"


def copy_text(event: CopyStarted) -> str:
    """Said before a copy, which may take a while."""
    return f"Copying {event.file!r} from {event.server}, to compare with it what is read."


def started_lines(event: RunStarted) -> list[str]:
    """The head of a run: what is asked, how much there is to do, what is left out."""
    scenario, total = event.scenario, len(event.plan.trials)
    product = (
        f"{counted(len(scenario.cells()), 'cell')} x {counted(len(scenario.servers), 'server')} x {scenario.trials}"
    )
    takes = about(estimate_s(event.plan.trials[event.done :]))
    lines = [
        f"{scenario.name}: {scenario.description}",
        f"{counted(total, 'trial')} ({product}), {event.placement or event.pinning.phrase}, {takes}",
        *event.notes,
    ]
    if event.done:
        lines.append(f"{event.done} of them {'is' if event.done == 1 else 'are'} finished already")
    if not event.pinning.separate:
        lines.append("Server and generator take time from each other: ratios still compare, absolute figures are low.")
    return lines + skipped_lines(event.plan.skipped)


def skipped_lines(skipped: Sequence[Skipped]) -> list[str]:
    """Why something is not measured, and the mend: a server and reason once, however many cells it is about."""
    cells: dict[tuple[str, str, str | None], list[str]] = {}
    for skip in skipped:
        cells.setdefault((skip.server, skip.reason, skip.get), []).extend([skip.cell.label] if skip.cell else [])
    return [_skipped(server, where, reason, get) for (server, reason, get), where in cells.items()]


def _skipped(server: str, where: Sequence[str], reason: str, get: str | None) -> str:
    place = f", {where[0] if len(where) == 1 else counted(len(where), 'cell')}" if where else ""
    return f"left out: {server}{place}: {reason}{f'; get it: {get}' if get else ''}"


def finished_text(event: TrialFinished) -> str:
    """One finished trial."""
    row, trial = event.row, event.trial
    text = f"{trial.contender.name}, {trial.cell.label}: {_rate(row)}{_of_ceiling(row)}"
    lost = [f"{row[name]} {name.replace('_', ' ')}" for name in ("failed", "timed_out") if row.get(name)]
    text = ", ".join([text, *lost])
    if row["verdict"] == "valid":
        return text
    return f"{text}; invalid: {row['verdict_reason']} ({'; '.join(event.advice)})"


def recovery_text(event: RecoveryAwaited) -> str:
    """What a run waits for after an overload; the time first, for a bar that is cut."""
    server, load = event.trial.contender.name, event.trial.cell.concurrency
    return f"waiting ({event.waited_s:.0f} s of {event.timeout_s:g} s) for {server} to recover from {load} at once"


def left_out_text(event: ServerLeftOut) -> str:
    """A server that is not tried any more; why it did not start, the line of its trial has just said."""
    left_out = event.left_out
    text = f"left out from here on: {left_out.server}: did not start again, {_not_done(left_out.not_done)}"
    return f"{text}; no server is left, so the run ends" if event.is_last else text


def _not_done(trials: int) -> str:
    return f"{counted(trials, 'trial')} {'is' if trials == 1 else 'are'} not done"


def unknown_text(event: CeilingUnknown) -> str:
    """A ceiling that could not be measured."""
    return f"warning: {event.cell.label}: {event.reason}; its trials have no ceiling_ratio"


def _of_ceiling(row: Mapping[str, object]) -> str:
    ratio = row.get("ceiling_ratio")
    if not isinstance(ratio, (int, float)):
        return ""
    mark = METRICS["ceiling_ratio"].mark(ratio)
    return f", {100 * ratio:.0f} % of the ceiling{f' ({mark})' if mark else ''}"


def _rate(row: Mapping[str, object]) -> str:
    pps = row.get("data_pps")
    return format_rate(pps, "blocks") if isinstance(pps, (int, float)) else "no figures"
