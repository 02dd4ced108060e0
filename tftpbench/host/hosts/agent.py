"""The child process on a load host that holds its generator: ``python -P -m tftpbench.host.hosts.agent``.

Questions come as frames on standard input, answers go as frames to standard output (calls.py has both). It does one
load, ever: a `go` that is repeated answers with what the first one did. One thread talks, on cores that the load does
not have where there are any; another waits in the native generator, whose threads do the load. Where no question comes
for POLL_LOST_S, or its input ends, it stops sending at once and ends. It must never start a load by itself.
"""

import argparse
import contextlib
import ctypes
import fcntl
import os
import select
import signal
import sys
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from tftpbench.host.generator import LoadConfig, Progress, Stop, run_load
from tftpbench.host.hosts import calls
from tftpbench.host.hosts.calls import BadDocument, Refused, State
from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.server import TemporaryFolder
from tftpbench.model.errors import LoadError

# From a request to stop at once to the end of the generator's threads: they look at the clock every few ms.
STOP_S = 2.0
_READ_BYTES = 1 << 20
_PR_SET_PDEATHSIG = 1  # prctl(2)


class Load:
    """The one load of this process: what it waits for, and what has become of it. Its methods may be called anywhere.

    `on_change` is called, on any thread, when a poll may have something to say.
    """

    def __init__(self, on_change: Callable[[], object]) -> None:
        self.stop = Stop()
        self._on_change = on_change
        self._changed = threading.Condition()
        self._state: State = "opening"
        self._go: calls.Went | None = None
        self._start_ns: int | None = None
        self._stops = 0
        self._progress: Progress | None = None
        self._closed_ns: int | None = None
        self._stopped: str | None = None
        self._problem: calls.Problem | None = None
        self._result = b""
        self._thread: threading.Thread | None = None

    def begin(self, config: LoadConfig, asked: calls.Prepare, files: list[bytes]) -> None:
        """Open all that it needs, on a thread of its own. Raises Refused the second time."""
        if self._thread is not None:
            raise Refused("used", "this load was prepared already, and none is done twice")
        # A daemon: this process ends by itself, whatever the thread does.
        self._thread = threading.Thread(target=self._run, args=(config, asked, files), name="load", daemon=True)
        self._thread.start()

    def go(self, start_ns: int) -> calls.Went:
        """Start then; what the first call of this did."""
        with self._changed:
            if self._go is None:
                late_ns = time.monotonic_ns() - start_ns
                if self._state != "ready":
                    self._go = calls.Went(started=False, why=f"it was {self._state}, not ready")
                elif late_ns >= 0:
                    self._go = calls.Went(started=False, why=f"go came {late_ns / 1e6:.0f} ms after its start")
                else:
                    self._go, self._start_ns = calls.Went(started=True), start_ns
                self._changed.notify_all()
            return self._go

    def end(self, requests: int) -> None:
        """End it, by so many requests in all."""
        with self._changed:
            while self._stops < requests:
                self._stops += 1
                self.stop.request()
            self._changed.notify_all()

    def standing(self) -> calls.Standing:
        """How it is."""
        with self._changed:
            return calls.Standing(
                state=self._state,
                progress=self._progress,
                closed_ns=self._closed_ns,
                stopped=self._stopped,
                problem=self._problem,
            )

    def has_news(self, poll: calls.Poll) -> bool:
        """Whether it is otherwise than who asks knows."""
        with self._changed:
            has_closed = self._closed_ns is not None and not poll.closed
            has_gone_on = self._progress is not None and self._progress.elapsed_ns > poll.elapsed_ns
            return self._state != poll.state or has_closed or has_gone_on

    def chunk(self, collect: calls.Collect) -> bytes:
        """The part of the result, as an answer. Raises Refused where there is no result."""
        with self._changed:
            if self._state != "over" or not self._result:
                raise Refused("bad", "there is no result to collect")
            part = self._result[collect.offset : collect.offset + collect.bytes_max]
            return calls.packed(calls.Chunk(total=len(self._result)), part)

    def wait(self, timeout_s: float) -> None:
        """Return when the generator has ended, or after this time."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self, config: LoadConfig, asked: calls.Prepare, files: list[bytes]) -> None:
        problem, result = None, b""
        folder = TemporaryFolder("tftpbench-load-host-") if files else None
        try:
            for number, content in enumerate(files):
                ((folder.path if folder else Path()) / str(number)).write_bytes(content)
            whole = calls.with_files(config, asked, folder.path if folder else Path(), len(files))
            found = run_load(
                whole, self.stop, _Window(self._close), on_progress=self._show, on_ready=lambda: self._ready(folder)
            )
            self._stopped = found.stopped
            result = calls.result_bytes(calls.Returned(found, was_stopped=requests(self.stop) > 0))
        except LoadError as error:
            problem = calls.problem("load", error)
        except BadDocument as error:
            problem = calls.problem("bad", error)
        except BaseException as error:  # a border: the coordinator must hear of it, whatever it is
            problem = calls.problem("internal", f"{type(error).__name__}: {error}")
        if folder is not None:
            folder.remove()
        with self._changed:
            self._state, self._problem, self._result = "over", problem, result
        self._on_change()

    def _ready(self, folder: TemporaryFolder | None) -> int | None:
        """All is open, and files are read: when to start; None where it was stopped, or go came too late."""
        if folder is not None:
            folder.remove()
        with self._changed:
            self._state = "ready"
        self._on_change()
        with self._changed:
            self._changed.wait_for(lambda: self._go is not None or self._stops)
            if self._start_ns is None or self._stops:
                # What comes later must not start it any more.
                self._go = self._go or calls.Went(started=False, why="it was stopped before")
                return None
            self._state = "running"
        self._on_change()
        return self._start_ns

    def _show(self, progress: Progress) -> None:
        self._progress = progress
        self._on_change()

    def _close(self, at_ns: int) -> None:
        with self._changed:
            self._closed_ns = at_ns if self._closed_ns is None else self._closed_ns
        self._on_change()


class _Window(MeasuredWindow):
    """One that says at once when it has closed."""

    def __init__(self, on_close: Callable[[int], object]) -> None:
        super().__init__()
        self._on_close = on_close

    def close(self, at_ns: int) -> None:
        super().close(at_ns)
        self._on_close(self.edges_ns[1])


class Serving(Protocol):
    """What an agent does."""

    def serve(self) -> None:
        """Answer until the end, which is the end of all that it started."""


class Agent:
    """What reads questions and answers them, until its input ends or no more come."""

    def __init__(self, questions: int, answers: int, poll_lost_s: float) -> None:
        self._questions, self._answers = questions, answers
        self._poll_lost_s = poll_lost_s
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._load = Load(self._has_changed)
        self._files: list[bytearray] = []
        self._polls: list[tuple[int, calls.Poll, float]] = []
        """Those that wait: the number of the question, what it knows, and until when."""

    def serve(self) -> None:
        """Answer until the end, which is the end of all that it started."""
        heard_s = time.monotonic()
        frames = calls.Frames()
        while True:
            now_s = time.monotonic()
            lost_s = heard_s + self._poll_lost_s
            if now_s >= lost_s:
                break
            until_s = min([lost_s, *(until_s for _, _, until_s in self._polls)])
            readable, _, _ = select.select([self._questions, self._woken], [], [], max(0.0, until_s - now_s))
            if self._woken in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._woken, 4096)
            if self._questions in readable:
                read = os.read(self._questions, _READ_BYTES)
                if not read:
                    break
                heard_s = time.monotonic()
                for number, body in frames.feed(read):
                    self._take(number, body)
            self._answer_polls()
        self._load.end(2)
        self._load.wait(STOP_S)

    def _take(self, number: int, body: bytes) -> None:
        try:
            call, document = calls.asked(body)
            if call == "poll":
                poll, _ = calls.unpacked(document, calls.Poll)
                self._polls.append((number, poll, time.monotonic() + poll.wait_ms / 1e3))
                return
            answer = self._answer(call, document)
        except (Refused, BadDocument) as error:
            answer = calls.refusal(error)
        self._say(number, answer)

    def _answer(self, call: str, document: bytes) -> bytes:
        if call == "clock":
            return calls.packed(calls.Clock(monotonic_ns=time.monotonic_ns()))
        if call == "file":
            chunk, payload = calls.unpacked(document, calls.FileChunk)
            self._keep(chunk, payload)
        elif call == "prepare":
            asked, _ = calls.unpacked(document, calls.Prepare)
            config = calls.config_of(asked)
            self._load.begin(self._pinned(config), asked, [bytes(file) for file in self._files])
            self._files.clear()
        elif call == "go":
            return calls.packed(self._load.go(calls.unpacked(document, calls.Go)[0].start_ns))
        elif call == "stop":
            self._load.end(calls.unpacked(document, calls.StopAsked)[0].requests)
        elif call == "collect":
            return self._load.chunk(calls.unpacked(document, calls.Collect)[0])
        else:
            raise BadDocument(f"no agent answers {call!r}")
        return calls.packed(calls.Done())

    def _keep(self, chunk: calls.FileChunk, payload: memoryview) -> None:
        """Put the bytes where they belong: files come in order, and each from its beginning."""
        if chunk.file == len(self._files):
            self._files.append(bytearray())
        if chunk.file != len(self._files) - 1 or chunk.offset != len(self._files[-1]):
            raise BadDocument("a file does not come in order")
        if sum(map(len, self._files)) + len(payload) > calls.FILES_MAX_BYTES:
            raise BadDocument(f"files of more than {calls.FILES_MAX_BYTES} bytes")
        self._files[-1] += payload

    def _pinned(self, config: LoadConfig) -> LoadConfig:
        """The load on the cores that it asks for, else on the last ones of this host where it leaves others free.

        This thread goes to the others. Raises Refused for a core that is not to be had.
        """
        allowed = sorted(os.sched_getaffinity(0))
        if lacking := [core for core in config.cpus if core not in allowed]:
            raise Refused("load", f"core {lacking[0]} is not to be had; allowed: {', '.join(map(str, allowed))}")
        cpus = config.cpus or (tuple(allowed[-config.workers :]) if config.workers < len(allowed) else ())
        if others := [core for core in allowed if core not in cpus]:
            os.sched_setaffinity(0, others)
        return replace(config, cpus=cpus)

    def _answer_polls(self) -> None:
        now_s, waiting = time.monotonic(), []
        for number, poll, until_s in self._polls:
            if now_s >= until_s or self._load.has_news(poll):
                self._say(number, calls.packed(self._load.standing()))
            else:
                waiting.append((number, poll, until_s))
        self._polls = waiting

    def _say(self, number: int, document: bytes) -> None:
        write(self._answers, calls.frame(number, document))

    def _has_changed(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake
            os.write(self._wake, b"\0")


def write(descriptor: int, content: bytes) -> None:
    """All of it."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def requests(stop: Stop) -> int:
    """How often the stop was asked for: each is an unread byte in its pipe (ioctl_tty(2), FIONREAD)."""
    count = fcntl.ioctl(stop.fileno(), termios.FIONREAD, b"\0\0\0\0")
    return int.from_bytes(count, sys.byteorder)


def talk(description: str, make: Callable[[int, int, float], Serving]) -> None:
    """Talk on what are standard input and output, to the end of this process; whatever prints writes to standard error.

    `make`: what answers, of the descriptors that questions come from and answers go to, and after how many seconds
    without a question it ends.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--poll-lost-s", type=float, default=calls.POLL_LOST_S)
    asked = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the coordinator's to hear
    # Suspended, it would not see the end of its input. Of the worker's thread that started it: its event loop's.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    questions, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    status = 0
    try:
        make(questions, answers, asked.poll_lost_s).serve()
    except BrokenPipeError:
        pass  # the worker is gone
    except BadDocument as error:
        sys.stderr.write(f"{error}\n")
        status = 1
    sys.stderr.flush()
    os._exit(status)  # not by way of threads that still work


if __name__ == "__main__":
    talk("The generator of a load host; a worker starts it.", Agent)
