"""Types of the native half, checked against the built module by mypy's stubtest."""

from collections.abc import Callable
from os import PathLike
from typing import final

__all__ = [
    "BUILD_PROFILE",
    "VERSION",
    "LoadOutcome",
    "Stop",
    "error_meanings",
    "first_difference",
    "machine_name",
    "measure_ceiling",
    "open_files",
    "run_load",
    "serve",
    "serve_defaults",
    "write_contents",
]

VERSION: str
BUILD_PROFILE: str

@final
class Stop:
    def __new__(cls) -> Stop: ...
    def fileno(self) -> int: ...
    def request(self) -> None: ...

@final
class LoadOutcome:
    @property
    def figures(self) -> dict[str, int | float | None]: ...
    @property
    def transfers(self) -> dict[str, bytes]: ...
    @property
    def boots(self) -> dict[str, bytes]: ...
    @property
    def intervals(self) -> dict[str, bytes]: ...
    @property
    def latency_hlog(self) -> str: ...
    @property
    def faults(self) -> list[tuple[str, int, str, str | None]]: ...
    @property
    def errors(self) -> list[tuple[int, int, str]]: ...
    @property
    def stopped(self) -> str | None: ...
    @property
    def answered(self) -> int: ...
    @property
    def granted(self) -> dict[str, int]: ...

def measure_ceiling(
    cell: object, arrangement: object, warm_up_ns: int, window_ns: int, stop: Stop
) -> dict[str, int | float] | None: ...
def error_meanings() -> list[str]: ...
def open_files(name: str, config: object) -> int: ...
def machine_name(template: str, number: int) -> str: ...
def run_load(
    config: object,
    stop: Stop,
    on_start: Callable[[int], object] | None = None,
    on_close: Callable[[], object] | None = None,
    on_answer: Callable[[str], object] | None = None,
    on_progress: Callable[[int, int | None, int, int, int, int, int, int, int, int], object] | None = None,
) -> LoadOutcome: ...
def serve(
    name: str, config: object, stop: Stop, ready: Callable[[str, int], object], handover: int | None = None
) -> list[tuple[str, int]]: ...
def serve_defaults() -> dict[str, str | int | float | bool]: ...
def write_contents(path: str | PathLike[str], seed: int, file: int, size: int) -> None: ...
def first_difference(path: str | PathLike[str], seed: int, file: int, size: int) -> int | None: ...
