"""What people see while a run goes on."""

import contextlib
import errno
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from tests.unit.builders import contender, scenario
from tftpbench.host.generator import LoadConfig, Progress
from tftpbench.host.presence import Missing
from tftpbench.measure import (
    CeilingUnknown,
    CopyStarted,
    Event,
    LeftOut,
    LoadProgressed,
    Pinning,
    RecoveryAwaited,
    RunFinished,
    RunStarted,
    ServerLeftOut,
    TrialFinished,
    TrialStarted,
)
from tftpbench.measure.plan import costs_s, plan
from tftpbench.measure.trial import reporter
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import format_duration
from tftpbench.model.workload import Piece
from tftpbench.render.progress import LiveBar, PlainLines, display, finished_text, progress_text


def events(done: int = 0) -> list[Event]:
    question = scenario(trials=1, matrix={"operation": "read", "concurrency": [1, 10], "file_size": 1024})
    servers = [contender("one"), contender("two", Missing("is not here", "apt install two"))]
    whole = plan(question, servers, 1)
    events: list[Event] = [RunStarted(Path("results/x"), question, whole, Pinning((1,), (0,), ()), done)]
    for trial in whole.trials:
        row: dict[str, object] = {"data_pps": 131_072.0, "failed": 0, "timed_out": 2, "verdict": "valid"}
        if trial is whole.trials[-1]:
            row |= {"verdict": "invalid", "verdict_reason": "stolen time", "data_pps": None}
        advice = ("repeat later",) if row["verdict"] != "valid" else ()
        events += [TrialStarted(trial, len(whole.trials)), TrialFinished(trial, len(whole.trials), row, advice)]
    return [*events, RunFinished(Path("results/x"), interrupted=False)]


def plain() -> list[str]:
    stream = io.StringIO()
    lines = PlainLines(stream)
    for event in events():
        lines(event)
    return stream.getvalue().splitlines()


def test_plain_lines_say_what_is_asked_what_is_left_out_and_one_line_a_trial() -> None:
    lines = plain()
    assert lines[0] == "order: In which order?"
    assert lines[1] == "2 trials (2 cells x 3 servers x 1), on separate cores, about 5 s"
    assert lines[2] == "left out: two: is not here; get it: apt install two"
    assert lines[3].startswith("[1/2] one, read, ")
    assert lines[3].endswith(" at once, 1 KiB: 131 k blocks/s, 2 timed out")
    assert lines[4].endswith(": no figures, 2 timed out; invalid: stolen time (repeat later)")
    assert len(lines) == 5


def test_a_trial_says_how_near_to_the_ceiling_it_came_and_an_unknown_ceiling_is_a_warning() -> None:
    stream = io.StringIO()
    trial = next(event for event in events() if isinstance(event, TrialFinished))
    for show in (PlainLines(stream), LiveBar(Console(file=stream, width=200))):
        show(replace(trial, row={**trial.row, "ceiling_ratio": 0.834, "verdict": "invalid", "verdict_reason": "x"}))
        show(CeilingUnknown(trial.trial.cell, "20128 open files are needed"))
    shown = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert [", 83 % of the ceiling, 2 timed out" in line for line in shown] == [True, False, True, False]
    assert all("warning: read, " in line and "no ceiling_ratio" in line for line in shown[1::2])
    PlainLines(stream)(replace(trial, row={**trial.row, "ceiling_ratio": 2.12}))
    assert ", 212 % of the ceiling (the share only: the machine changed; not usable), 2 timed out" in stream.getvalue()


def test_a_piece_of_advice_is_given_once() -> None:
    stream = io.StringIO()
    trial = next(event for event in events() if isinstance(event, TrialFinished))
    busy = "load average 10 on 2 cores: stop other programs"
    row = {**trial.row, "verdict": "invalid", "verdict_reason": "x"}
    PlainLines(stream)(replace(trial, row=row, advice=("stop other programs", busy, busy, "lower windowsize")))
    assert stream.getvalue().endswith(f"; invalid: x ({busy}; lower windowsize)\n")


def drawn(stream: io.StringIO) -> str:
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", stream.getvalue())


BUSY = {"verdict": "invalid", "verdict_reason": "the generator stood still for 80 ms at once"}


def test_what_a_busy_machine_spoils_is_one_line_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    bar = LiveBar(Console(file=stream, force_terminal=True, width=80, color_system=None))
    for event in events()[:-1]:
        bar(replace(event, row={**event.row, **BUSY}) if isinstance(event, TrialFinished) else event)
    bar.close()
    text = drawn(stream)
    assert "2 of 2 trials invalid so far: this machine was too busy for tftpbench's load" in text
    assert "80 ms at once" not in text


def test_the_bar_says_that_the_ceiling_is_measured_until_the_trial_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    bar = LiveBar(Console(file=stream, force_terminal=True, width=100, color_system=None))
    started, first, *_ = events()
    bar(started)
    assert drawn(stream).rstrip().endswith("left | measuring the ceiling")
    bar(first)
    assert drawn(stream).rstrip().endswith("at once, 1 KiB")
    bar.close()


def test_prose_is_wrapped_at_words() -> None:
    stream = io.StringIO()
    started = events()[0]
    assert isinstance(started, RunStarted)
    LiveBar(Console(file=stream, width=40))(replace(started, notes=("every byte of it was compared " * 3,)))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert "every byte of it was compared every byte" in lines
    assert max(map(len, lines)) <= 40


def test_a_copy_is_said_before_it_begins_for_it_may_take_minutes() -> None:
    line = "Copying 'boot.0' from 127.0.0.1:69, to compare with it what is read."
    plain_lines, live_lines = io.StringIO(), io.StringIO()
    for show in (PlainLines(plain_lines), LiveBar(Console(file=live_lines, width=120))):
        show(CopyStarted("127.0.0.1:69", "boot.0"))
    assert [plain_lines.getvalue(), live_lines.getvalue()] == [f"{line}\n"] * 2


def test_a_wait_for_a_server_to_recover_is_a_line_and_on_the_bar_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    started = events()[0]
    assert isinstance(started, RunStarted)
    trial = started.plan.trials[0]
    waits = [RecoveryAwaited(trial, waited_s, 60.0) for waited_s in (3.01, 7.0)]
    monkeypatch.setenv("TERM", "xterm")
    stream, written = io.StringIO(), io.StringIO()
    lines, bar = PlainLines(stream), LiveBar(Console(file=written, force_terminal=True, width=120))
    bar(started)
    for event in waits:
        lines(event)
        bar(event)
    text = f"waiting ({{}} s of 60 s) for one to recover from {trial.cell.concurrency} at once"
    assert stream.getvalue() == f"{text.format(3)}\n"
    assert text.format(3) in written.getvalue()
    assert text.format(7) in written.getvalue()
    bar.close()


def test_a_long_trial_says_how_far_it_is_and_a_log_hears_of_it_every_half_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started, begun = events()[:2]
    assert isinstance(begun, TrialStarted)
    stream = io.StringIO()
    lines = PlainLines(stream)
    monkeypatch.setenv("TERM", "xterm")
    bar = LiveBar(Console(file=(written := io.StringIO()), force_terminal=True, width=120))
    for show in (lines, bar):
        show(started)
        show(begun)
        for second in range(1, 61):
            now = Progress(second * 10**9, None, started=second * 20, ended=second * 10, completed=second * 9, bytes=0)
            show(LoadProgressed(begun.trial, now, (60 - second) * 10**9))
    reported = [line for line in stream.getvalue().splitlines() if "in flight" in line]
    assert reported == [
        "270 done, 300 in flight, 30 lost, 30 s left of this trial",
        "540 done, 600 in flight, 60 lost",
    ]
    assert "9 done, 10 in flight, 1 lost, 59 s left of this trial" in written.getvalue()
    bar.close()


def test_a_trial_of_machines_counts_machines_while_it_goes_on_and_at_its_end() -> None:
    question = Scenario.from_dict({
        "schema": "tftpbench.scenario/1", "name": "up", "description": "Who is up?", "servers": ["one"],
        "matrix": {"boot": "uefi", "machines": 1000, "over": "0s"}, "trials": 1,
    })  # fmt: skip
    trial = plan(question, [contender("one", options=["blksize", "tsize", "windowsize"])], 1).trials[0]
    now = Progress(10**9, None, started=9_000, ended=8_000, completed=6_000, bytes=0,
                   machines=1_000, booted=120, lost=3, shed=2)  # fmt: skip
    assert progress_text(LoadProgressed(trial, now, None)) == "120 up, 877 booting, 3 lost, 2 shed"

    def finished(**figures: object) -> str:
        row = {"machines": 1_000, "over_ns": 0, "data_pps": 9.0, "timed_out": 4, "verdict": "valid", **figures}
        return finished_text(TrialFinished(trial, 1, row, ())).partition(": ")[2]

    assert finished(booted=1_000, duration_s=1.3) == "all 1,000 up, the last after 1.3 s"
    assert finished(booted=990, boots_late=10) == "990 of 1,000 machines up, 10 late"
    assert finished(booted=1_000, over_ns=None) == "1,000 of 1,000 machines up"


def test_a_trial_shorter_than_ten_seconds_reports_nothing_and_one_of_unknown_length_after_ten() -> None:
    begun = next(event for event in events() if isinstance(event, TrialStarted))
    config = LoadConfig(host="127.0.0.1", port=69, operation="read", name="f", file_size_bytes=1, concurrency=1)

    def reported(config: LoadConfig) -> list[int]:
        found: list[LoadProgressed] = []
        report = reporter(begun.trial, config, lambda event: found.append(cast(LoadProgressed, event)))
        for second in range(1, 13):
            report(Progress(second * 10**9, None, 0, 0, 0, 0))
        return [event.now.elapsed_ns // 10**9 for event in found]

    assert reported(replace(config, duration_ns=9_900_000_000)) == [10, 11, 12]
    assert reported(replace(config, duration_ns=9_900_000_000, warm_up_ns=100_000_000)) == list(range(1, 13))
    assert reported(replace(config, transfers=1)) == [10, 11, 12]
    shape = tuple(Piece("hold", (5, 10**9), (5, 10**9), length_s * 10**9) for length_s in (20, 40))
    left: list[int | None] = []
    report = reporter(
        begun.trial, replace(config, shape=shape), lambda event: left.append(cast(LoadProgressed, event).left_ns)
    )
    report(Progress(10**9, None, 0, 0, 0, 0))
    assert left == [59 * 10**9], "a shape is as long as its pieces"


def test_quiet_is_silent_and_a_file_gets_plain_lines() -> None:
    stream = io.StringIO()
    with display(stream, quiet=True) as shown:
        for event in events():
            shown(event)
    assert stream.getvalue() == ""
    with display(stream, quiet=False) as shown:
        assert isinstance(shown, PlainLines)


class Terminal(io.StringIO):
    """A stream that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_run_that_fails_leaves_the_cursor_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with contextlib.suppress(OSError), display(stream, quiet=False) as shown:
        shown(events()[0])
        raise OSError(errno.ENOSPC, "the results folder is full")
    hidden, visible = "\x1b[?25l", "\x1b[?25h"
    assert stream.getvalue().rindex(visible) > stream.getvalue().rindex(hidden)


def test_the_bar_draws_only_when_an_event_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    now_s = iter(range(0, 1000, 10))
    bar = LiveBar(Console(file=stream, force_terminal=True, width=100), clock_s=lambda: next(now_s))
    *first, _ = events()
    for event in first[:3]:
        bar(event)
    assert bar._bar is not None
    assert bar._bar.live._refresh_thread is None, "a thread would draw inside measured windows"
    assert "10 s left" in stream.getvalue()
    assert "last 131 k blocks/s" in stream.getvalue()
    bar(events()[-1])


def test_square_brackets_of_a_server_are_shown_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    bar = LiveBar(Console(file=stream, force_terminal=True, width=200, color_system=None))
    words = "dlopen [/usr/lib/libx.so] failed [red]"
    for event in events():
        if isinstance(event, RunStarted):
            bar(replace(event, notes=(words,)))
        elif isinstance(event, TrialFinished):
            bar(replace(event, row={**event.row, "verdict": "invalid", "verdict_reason": words}))
        else:
            bar(event)
    assert stream.getvalue().count(words) == 3


def test_a_server_that_does_not_start_is_left_out_in_one_line_and_out_of_the_time_left() -> None:
    left_out = ServerLeftOut(LeftOut("[b]two[/b]", "did not answer", (1, 3), 1), is_last=False)
    stream = io.StringIO()
    for show in (PlainLines(stream), LiveBar(Console(file=stream, width=200))):
        show(left_out)
        show(replace(left_out, is_last=True))
    text = "left out from here on: [b]two[/b]: did not start again, 1 trial is not done"
    assert [line.rstrip() for line in stream.getvalue().splitlines()] == [
        text,
        f"{text}; no server is left, so the run ends",
    ] * 2


def test_the_time_left_is_that_of_the_servers_that_are_left() -> None:
    question = scenario(trials=3, matrix={"operation": "read", "concurrency": 1, "file_size": 1024})
    whole = plan(question, [contender("one"), contender("two")], 1)
    stream, clock = Terminal(), iter(range(0, 1000, 10))
    bar = LiveBar(Console(file=stream, width=200, force_terminal=True), lambda: next(clock))
    bar(RunStarted(Path("results/x"), question, whole, Pinning((1,), (0,), ()), 0))
    first, *rest = whole.trials
    costs = costs_s(whole.trials)
    assert f"{_left(sum(costs.values()))} left" in stream.getvalue(), "an estimate until a trial has been finished"
    bar(TrialFinished(first, 6, {"data_pps": 1.0, "verdict": "valid"}, ()))
    gone = next(name for name in ("one", "two") if name != first.contender.name)
    pace = 10 / costs[1]  # 10 s for the first
    assert f"{_left(pace * sum(costs[each.order] for each in rest))} left" in stream.getvalue()
    bar(ServerLeftOut(LeftOut(gone, "did not answer", (2,), 3), is_last=False))
    bar(TrialStarted(rest[0], 6))
    to_go = sum(costs[each.order] for each in rest if each.contender.name != gone)
    assert f"{_left(2 * pace * to_go)} left" in stream.getvalue(), "20 s have gone for the first"
    bar.close()


def _left(seconds: float) -> str:
    return format_duration(round(seconds) * 1e9)


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_count_is_never_cut_and_the_line_fits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    question = scenario(trials=50, matrix={"operation": "write", "concurrency": 10_000, "file_size": "64KiB"})
    whole = plan(question, [contender("a-server-of-a-long-name"), contender("other")], 1)
    stream = io.StringIO()
    bar = LiveBar(Console(file=stream, width=width, force_terminal=True, color_system=None))
    bar(RunStarted(Path("results/x"), question, whole, Pinning((1,), (0,), ()), 0))
    for trial in whole.trials:
        bar(TrialStarted(trial, 100))
        bar(TrialFinished(trial, 100, {"data_pps": 131_072.0, "verdict": "valid"}, ()))
    bar.close()
    lines = [line for line in re.split(r"[\r\n]", drawn(stream)) if "/100" in line]
    assert len(lines) >= 200
    assert all(re.search(r" {0,2}\d+/100( |$)", line) and len(line) <= width for line in lines)
    assert any(" 37/100 | " in line and " left" in line for line in lines)
    assert any("at once, 64 KiB | last 131 k blocks/s" in line for line in lines) == (width > 100)
