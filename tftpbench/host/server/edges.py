"""Reads a server at both edges of a measured window, on the machine that it runs on.

A thread of its own sleeps until each edge: it never polls, for the machine is being measured. It must never be late
without showing it: each reading says when it was taken.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.server.usage import Usage


class EdgeReader:
    """One load's readings: `opened` and `closed`, both there when the `with` block has ended.

    A load that ended without a word of its window, for a fault or for Ctrl-C, is read at its end. `cpus` are those that
    the thread may run on, empty for all.
    """

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
        if self._cpus:
            # sched_setaffinity(2): 0 is the calling thread, not the process
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self._cpus)
        self._window.wait_open()
        self.opened = self._read()
        self._window.wait_close()
        self.closed = self._read()
