"""Reads a server where it runs: at both edges of a measured window, and now and then while a load runs.

At the edges a thread of its own sleeps: it never polls, for the machine is being measured. It must never be late
without showing it: each reading says when it was taken. Between them all looks together cost less than 1 % of a core:
what a look has cost decides when the next one may be. A server of a thousand processes is looked at every few seconds
instead of five times in one.
"""

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self

from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.server.client import SupervisorClient
from tftpbench.host.server.usage import Samples, Usage, UsageReader

SAMPLE_INTERVAL_S = 0.2
PSS_INTERVAL_S = 1.0
# Shares of one core, below 1 % together. Proportional memory has one of its own: at 0.4 ms a process it would make all
# else rare, and with many processes it is out of reach while the load runs.
LOOK_SHARE_MAX = 0.006
PSS_SHARE_MAX = 0.003


class Pace:
    """How often something may be done: every `interval_s` at most, for less CPU time than `share` of a core."""

    def __init__(self, interval_s: float, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._share = share
        self._clock = clock
        self._last_s = clock()
        self._due_s = self._last_s + interval_s

    def pause_s(self) -> float:
        """How long to wait until it may be done again."""
        return max(0.0, self._due_s - self._clock())

    def allowance_s(self) -> float:
        """CPU time that it may cost now: what its share has come to since it was done last; none before it is due."""
        return 0.0 if self.pause_s() > 0 else (self._clock() - self._last_s) * self._share

    def done(self, cost_s: float) -> None:
        """It was done and has cost so much CPU time."""
        self._last_s = self._clock()
        self._due_s = self._last_s + max(self._interval_s, cost_s / self._share)


class Sampler:
    """Looks at a server from a thread of its own while a load runs, and once at its end.

    `cpus` keeps the thread off the server's cores where there are others. `on_death` is called once, on the sampler's
    thread, when no process of the server is left.
    """

    def __init__(
        self, reader: UsageReader, supervisor: SupervisorClient, cpus: Iterable[int], on_death: Callable[[], object]
    ) -> None:
        self.samples = Samples()
        self._reader = reader
        self._supervisor = supervisor
        self._cpus = tuple(cpus)
        self._on_death = on_death
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tftpbench-sampler", daemon=True)

    def __enter__(self) -> Self:
        self.samples.take(self._reader.look())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        self._look(math.inf)

    def _run(self) -> None:
        _stay_on(self._cpus)
        pace, pss_pace = Pace(SAMPLE_INTERVAL_S, LOOK_SHARE_MAX), Pace(PSS_INTERVAL_S, PSS_SHARE_MAX)
        while not self._end.wait(pace.pause_s()):
            began_s = time.thread_time()
            self._look(pss_pace.allowance_s())
            pss_cost_s = self._reader.pss_cost_s
            if pss_cost_s > 0:
                pss_pace.done(pss_cost_s)
            pace.done(time.thread_time() - began_s - pss_cost_s)

    def _look(self, pss_cost_s_max: float) -> None:
        if not self.samples.died and not self._supervisor.alive():
            self.samples.died = True
            self._on_death()
        self.samples.take(self._reader.look(pss_cost_s_max))


class EdgeReader:
    """One load's readings: `opened` and `closed`, both there when the `with` block has ended.

    A load that ended without a word of its window, for a fault or for Ctrl-C, is read at its end. `cpus` are those that
    the thread may run on, empty for all.
    """

    clock_error_ns: int | None = None

    def __init__(self, read: Callable[[], Usage], window: MeasuredWindow, cpus: Iterable[int] = ()) -> None:
        self.opened = self.closed = Usage(0)
        self._read = read
        self._window = window
        self._cpus = tuple(cpus)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._kept, name="tftpbench-edges", daemon=True)

    def late_ns(self, edges_ns: tuple[int, int]) -> int:
        """How late the later reading was, for a window that opened and closed then."""
        opened_ns, closed_ns = edges_ns
        return max(0, self.opened.at_ns - opened_ns, self.closed.at_ns - closed_ns)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._window.close(time.monotonic_ns())
        self._thread.join()
        if self._failure is not None and error is None:
            raise self._failure

    def _kept(self) -> None:
        """What goes wrong in a thread would end in a traceback beside a trial without figures."""
        try:
            self._run()
        except BaseException as error:
            self._failure = error

    def _run(self) -> None:
        _stay_on(self._cpus)
        self._window.wait_open()
        self.opened = self._read()
        self._window.wait_close()
        self.closed = self._read()


def _stay_on(cpus: Sequence[int]) -> None:
    """Keep the calling thread on these CPUs, if any are named."""
    if cpus:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, cpus)  # sched_setaffinity(2): 0 is the calling thread, not the process
