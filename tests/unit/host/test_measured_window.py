"""The edges of a measured window, and the readings at them: nothing is generated and no server runs."""

import threading
import time
from collections.abc import Callable

import pytest

from tftpbench.host.measured_window import MeasuredWindow
from tftpbench.host.server import EdgeReader
from tftpbench.host.server.usage import Usage

MS = 1_000_000


class Counted:
    """A server's CPU time: 1, 2, ... at each reading, and when it was read."""

    def __init__(self, at_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self.readings = 0
        self.was_read = threading.Semaphore(0)
        self.at_ns = at_ns

    def __call__(self) -> Usage:
        self.readings += 1
        self.was_read.release()
        return Usage(self.at_ns(), self.readings)

    def wait(self) -> None:
        assert self.was_read.acquire(timeout=20), "never read"


def test_a_window_of_a_duration_is_read_at_both_edges_though_the_generator_says_no_more() -> None:
    window, counted = MeasuredWindow(), Counted()
    with EdgeReader(counted, window) as edges:
        open_ns = time.monotonic_ns() + 30 * MS
        window.announce(open_ns, open_ns + 40 * MS)
        counted.wait()
        counted.wait()
    assert (edges.opened.cpu_ns, edges.closed.cpu_ns) == (1, 2)
    assert edges.opened.at_ns >= open_ns
    assert edges.closed.at_ns >= open_ns + 40 * MS


def test_the_end_of_fixed_work_is_read_when_it_is_over_and_not_before() -> None:
    window, counted = MeasuredWindow(), Counted()
    with EdgeReader(counted, window) as edges:
        window.announce(time.monotonic_ns(), None)
        counted.wait()
        assert not counted.was_read.acquire(timeout=0.05)
        window.close(time.monotonic_ns())
        counted.wait()
    assert edges.late_ns(window.edges_ns) < 20_000 * MS


@pytest.mark.parametrize("announced", [None, (60_000 * MS, 120_000 * MS), (-1 * MS, 60_000 * MS), (-1 * MS, None)])
def test_a_load_that_ends_early_is_read_at_its_end(announced: tuple[int, int | None] | None) -> None:
    """Stopped in the warm-up or in the window, or failed before it could announce one."""
    window, counted, now_ns = MeasuredWindow(), Counted(), time.monotonic_ns()
    with EdgeReader(counted, window) as edges:
        if announced is not None:
            opens, closes = announced
            window.announce(now_ns + opens, None if closes is None else now_ns + closes)
    assert (edges.opened.cpu_ns, edges.closed.cpu_ns) == (1, 2)
    opened_ns, closed_ns = window.edges_ns
    assert opened_ns <= closed_ns <= time.monotonic_ns()


def test_a_window_that_was_closed_late_closed_when_it_was_to() -> None:
    window = MeasuredWindow()
    window.announce(10, 20)
    window.close(30)
    window.close(15)
    assert window.edges_ns == (10, 20)


@pytest.mark.parametrize(("edges_ns", "late_ns"), [((10, 20), 85), ((100, 120), 0), ((90, 100), 5), ((105, 70), 35)])
def test_the_later_of_both_readings_says_how_late_they_were(edges_ns: tuple[int, int], late_ns: int) -> None:
    times = iter((95, 105))
    window = MeasuredWindow()
    with EdgeReader(Counted(lambda: next(times)), window) as edges:
        pass
    assert edges.late_ns(edges_ns) == late_ns


def test_an_exception_of_the_load_is_passed_on_and_leaves_no_thread() -> None:
    with pytest.raises(KeyboardInterrupt), EdgeReader(Counted(), MeasuredWindow()):
        raise KeyboardInterrupt
    assert "tftpbench-edges" not in {thread.name for thread in threading.enumerate()}
