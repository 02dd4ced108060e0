"""The measured window of one load: two points in time, which its generator announces to whatever reads at them.

Times are nanoseconds of CLOCK_MONOTONIC on the machine that waits for them. It must never poll, and never wait for
what the generator cannot say any more: a window that was closed keeps no thread waiting.
"""

import threading
import time


class MeasuredWindow:
    """The edges of one load's window. The generator announces and closes it; others wait for its edges, on any thread.

    A generator on another machine translates its own times: the two clocks differ by an offset that it measures.
    """

    def __init__(self) -> None:
        self._open_ns: int | None = None
        self._close_ns: int | None = None
        self._announced = threading.Event()
        self._closed = threading.Event()

    def announce(self, open_ns: int, close_ns: int | None) -> None:
        """It opens at `open_ns` and closes at `close_ns`, or None where it closes with the end of the work."""
        self._open_ns, self._close_ns = open_ns, close_ns
        self._announced.set()

    def close(self, at_ns: int) -> None:
        """It was over by `at_ns`, as announced or before. Only the first call counts."""
        if not self._closed.is_set():
            self._close_ns = at_ns if self._close_ns is None else min(self._close_ns, at_ns)
            self._closed.set()
            self._announced.set()

    def wait_announced(self) -> tuple[int, int | None] | None:
        """When it opens and closes, as soon as that is known; None where it was closed without a word of it."""
        self._announced.wait()
        return None if self._open_ns is None else (self._open_ns, self._close_ns)

    def wait_open(self) -> None:
        """Return when it opens, or when it is closed without having opened."""
        self._announced.wait()
        self._closed.wait(_until(self._open_ns or 0))

    def wait_close(self) -> None:
        """Return when it closes; after `wait_open`."""
        self._closed.wait(None if self._close_ns is None else _until(self._close_ns))

    @property
    def edges_ns(self) -> tuple[int, int]:
        """When it really opened and closed; equal where it was closed before it opened. Known once it is closed."""
        assert self._close_ns is not None
        return min(self._open_ns or self._close_ns, self._close_ns), self._close_ns


def _until(at_ns: int) -> float:
    """Seconds from now on, none where it is past."""
    return max(0, at_ns - time.monotonic_ns()) / 1e9
