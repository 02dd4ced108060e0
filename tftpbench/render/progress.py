"""What people see while a run goes on: a bar on a terminal, a line per trial otherwise.

It consumes the runner's events and draws only when one arrives, which is between trials: no display work ever falls
into a measured window. It must never change the run.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.text import Text

from tftpbench.host.target import Target
from tftpbench.measure import (
    CeilingUnknown,
    CopyStarted,
    Event,
    LoadProgressed,
    RecoveryAwaited,
    RunFinished,
    RunStarted,
    SearchFinished,
    SearchStarted,
    ServerLeftOut,
    Skipped,
    Trial,
    TrialFinished,
    TrialStarted,
)
from tftpbench.measure.plan import costs_s, estimate_s
from tftpbench.measure.validity import commonest
from tftpbench.model.escape import visible_line
from tftpbench.model.metrics import METRICS
from tftpbench.model.units import about, counted, format_duration, format_rate
from tftpbench.model.workload import Sought
from tftpbench.render import capacity
from tftpbench.render.terminal import console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Display = Callable[[Event], None]
# A bar for those who look from afar; where lines are short, what is measured needs the room more.
_BAR, _SHORT_BAR, _SHORT_LINE = 24, 10, 100
# Between two trials; the next one follows at once where its cell has a ceiling already.
_CEILING = "measuring the ceiling"
# A log that is read afterwards needs fewer lines than a person who waits.
_PLAIN_EVERY_NS = 30_000_000_000


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
        self._told_ns = 0

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case CopyStarted():
                self._say(copy_text(event))
            case RunStarted():
                self._say(*started_lines(event))
            case LoadProgressed(_, now, _) if now.elapsed_ns >= self._told_ns + _PLAIN_EVERY_NS:
                self._told_ns = now.elapsed_ns
                self._say(progress_text(event))
            case TrialStarted():
                self._told_ns = 0
            case RecoveryAwaited(trial) if trial is not self._awaited:
                self._awaited = trial
                self._say(recovery_text(event))
            case TrialFinished(trial, total, _, _):
                width = len(str(total))
                place = f"{trial.order:{width}}/{total}" if total else f"{trial.order}"
                self._say(f"[{place}] {finished_text(event)}")
            case SearchStarted() | SearchFinished():
                self._say(search_text(event))
            case ServerLeftOut():
                self._say(left_out_text(event))
            case CeilingUnknown():
                self._say(unknown_text(event))

    def _say(self, *lines: str) -> None:
        for line in lines:
            self._stream.write(f"{visible_line(line)}\n")
        self._stream.flush()


class _Bar(Progress):
    """A bar with a line below it, where there is something to say."""

    below = ""

    def get_renderables(self) -> "Iterable[RenderableType]":
        """What is drawn."""
        yield from super().get_renderables()
        if self.below:
            yield Text(self.below, style="yellow")


class LiveBar:
    """A bar with the time left, what is being measured, and the last trial's rate."""

    def __init__(self, console: "Console", clock_s: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock_s = clock_s
        self._began_s = 0.0
        self._estimated_s = 0.0  # of what has been finished since then
        self._last = ""
        self._bar: _Bar | None = None
        self._task = TaskID(0)
        self._trials: Sequence[Trial] = ()
        self._costs_s: Mapping[int, float] = {}
        self._gone: set[str] = set()
        self._invalid: list[str] = []  # why
        self._search: Trial | None = None  # the one that goes on

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case CopyStarted():
                self._say(copy_text(event))
            case RunStarted():
                self._start(event)
            case SearchStarted() | SearchFinished():
                self._note_search(event)
            case TrialStarted(trial, _):
                self._draw(f"{trial.contender.name}, {trial.cell.label}", self._done(trial))
            case LoadProgressed(trial):
                self._draw(f"{trial.contender.name}, {progress_text(event)}", self._done(trial))
            case RecoveryAwaited(trial):
                self._draw(recovery_text(event), self._done(trial))
            case TrialFinished(trial, _, row, _):
                self._last = _rate(row)
                if self._search is not None:
                    self._draw(f"{trial.contender.name}, {trial.cell.label}", self._done(trial))
                    return
                self._estimated_s += self._costs_s.get(trial.order, 0.0)
                self._note_verdict(event)
                self._draw(self._between, trial.order)
            case ServerLeftOut(left_out, _):
                self._gone.add(left_out.server)
                self._say(left_out_text(event), style="yellow")
            case _:
                self._note_rest(event)

    def close(self) -> None:
        """Take the bar away and show the cursor again; however the run ended."""
        if self._bar is not None:
            self._bar.stop()

    def _note_rest(self, event: Event) -> None:
        match event:
            case CopyStarted():
                self._say(copy_text(event))
            case CeilingUnknown():
                self._say(unknown_text(event), style="yellow")
            case RunFinished():
                self.close()

    def _note_search(self, event: SearchStarted | SearchFinished) -> None:
        if isinstance(event, SearchFinished):
            self._say(search_text(event))
            self._draw("", event.base.order)
        else:
            self._search = event.base
            self._draw(search_text(event), event.base.order - 1)

    def _done(self, trial: Trial) -> int:
        """What the bar has behind it: trials, or searches."""
        return (trial if self._search is None else self._search).order - 1

    def _say(self, text: str, style: str | None = None) -> None:
        """Wrapped at words; foreign words may have square brackets, which are no markup."""
        self._console.print(Text(text, style=style or ""))

    def _note_verdict(self, event: TrialFinished) -> None:
        """A busy machine spoils many trials: one line that grows. What is wrong with a server is said at once."""
        if event.row["verdict"] == "valid":
            return
        reason = str(event.row["verdict_reason"])
        self._invalid.append(reason)
        if not (cause := commonest([reason])) or not cause.is_of_rates:
            self._say(finished_text(event), style="yellow")
        elif self._bar is not None and (most := commonest(self._invalid)):
            self._bar.below = visible_line(
                f"{len(self._invalid)} of {event.trial.order} trials invalid so far: {most.text}"
            )

    def _start(self, event: RunStarted) -> None:
        for line in started_lines(event):
            self._say(line)
        self._began_s = self._clock_s()
        self._trials = event.plan.trials
        self._costs_s = costs_s(self._trials)
        # auto_refresh would redraw from a thread, ten times a second, inside measured windows
        self._bar = _Bar(
            BarColumn(bar_width=self._bar_width), TextColumn("{task.description}", markup=False),
            console=self._console, auto_refresh=False, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=len(event.plan.trials), completed=event.done)
        self._bar.start()
        self._draw(self._between, event.done)

    @property
    def _between(self) -> str:
        """What goes on between two trials. No ceiling is known of a server whose place is not."""
        has_none = all(isinstance(each.contender.server, Target) for each in self._trials)
        return "" if has_none or any(isinstance(each.cell.load, Sought) for each in self._trials) else _CEILING

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
    takes = about(estimate_s(event.plan.trials[0 if scenario.capacity else event.done :]))
    what = f"{total} {'search' if total == 1 else 'searches'}" if scenario.capacity else counted(total, "trial")
    most = "at most " if scenario.capacity else ""
    lines = [
        f"{scenario.name}: {scenario.description}",
        f"{what} ({product}), {event.placement or event.pinning.phrase}, {most}{takes}",
        *event.notes,
    ]
    if event.done and scenario.capacity:
        lines.append(f"{counted(event.done, 'trial')} of them {'is' if event.done == 1 else 'are'} finished already")
    elif event.done:
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


def search_text(event: SearchStarted | SearchFinished) -> str:
    """A search that begins, or what it found."""
    if isinstance(event, SearchFinished):
        return capacity.progress_text(event.found)
    base = event.base
    return f"Search {base.order} of {event.total}: {base.contender.name}, {base.cell.label}"


def finished_text(event: TrialFinished) -> str:
    """One finished trial."""
    row, trial = event.row, event.trial
    text = f"{trial.contender.name}, {trial.cell.label}: {_rate(row)}{_of_ceiling(row)}"
    names = ("boots_failed", "boots_late", "boots_shed") if trial.cell.is_boots else ("failed", "timed_out")
    lost = [f"{row[name]} {name.removeprefix('boots_').replace('_', ' ')}" for name in names if row.get(name)]
    text = ", ".join([text, *lost])
    if row["verdict"] == "valid":
        return text
    # One piece of advice is often a part of another one.
    advice = [each for each in dict.fromkeys(event.advice) if not any(each in more != each for more in event.advice)]
    return f"{text}; invalid: {row['verdict_reason']} ({'; '.join(advice)})"


def progress_text(event: LoadProgressed) -> str:
    """How far a long trial is; what matters most first, for a bar that is cut."""
    now = event.now
    lost = now.ended - now.completed
    transfers = [f"{now.completed:,} done", f"{now.open:,} in flight", *([f"{lost:,} lost"] if lost else [])]
    parts = [
        *([now.machines_text] if event.trial.cell.is_boots else transfers),
        *([f"{now.shed:,} shed"] if now.shed else []),
        *([f"{format_duration(round(event.left_ns, -9))} left of this trial"] if event.left_ns else []),
    ]
    return ", ".join(parts)


def recovery_text(event: RecoveryAwaited) -> str:
    """What a run waits for after an overload; the time first, for a bar that is cut."""
    server, load = event.trial.contender.name, event.trial.cell.concurrency
    return f"waiting ({event.waited_s:.0f} s of {event.timeout_s:g} s) for {server} to recover from {load} at once"


def left_out_text(event: ServerLeftOut) -> str:
    """A server that is not tried any more; why it did not start, the line of its trial has just said."""
    left_out = event.left_out
    why = "did not start again" if left_out.failed_trials else left_out.reason
    text = f"left out from here on: {left_out.server}: {why}, {_not_done(left_out.not_done)}"
    return f"{text}; no server is left, so the run ends" if event.is_last else text


def _not_done(trials: int) -> str:
    return f"{counted(trials, 'trial')} {'is' if trials == 1 else 'are'} not done"


def unknown_text(event: CeilingUnknown) -> str:
    """What could not be measured beside the trials of a cell."""
    return f"warning: {event.cell.label}: {event.reason}; its trials have no {event.column}"


def _of_ceiling(row: Mapping[str, object]) -> str:
    ratio = row.get("ceiling_ratio")
    if not isinstance(ratio, (int, float)):
        return ""
    mark = METRICS["ceiling_ratio"].mark(ratio)
    return f", {100 * ratio:.0f} % of the ceiling{f' (the share only: {mark})' if mark else ''}"


def _rate(row: Mapping[str, object]) -> str:
    machines, booted, up_s = (row.get(name) for name in ("machines", "booted", "duration_s"))
    if isinstance(machines, int) and row.get("over_ns") is not None and booted == machines and isinstance(up_s, float):
        return f"all {machines:,} up, the last after {format_duration(round(up_s * 1e9))}"
    if isinstance(machines, int):
        return f"{booted:,} of {machines:,} machines up"
    pps = row.get("data_pps")
    return format_rate(pps, "blocks") if isinstance(pps, (int, float)) else "no figures"
