"""Which files a trial's clients ask for, and what these must hold, at servers that are started and at running ones.

A server that we start gets a root with files f-0, f-1, ... in it or, where it keeps files in memory, uploads of them. A
running server has a file to read, of which a copy is taken first; or it lets us upload, and what we leave
there has names of its own.
"""

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from tftpbench.host.generator import LoadConfig, LoadResult
from tftpbench.host.server import (
    CopyFailed,
    NothingListens,
    Options,
    RunningServer,
    TemporaryFolder,
    describe_options,
    download,
    request,
)
from tftpbench.host.target import Target
from tftpbench.measure.events import CopyStarted, Event
from tftpbench.measure.plan import Contender, Trial
from tftpbench.model.axes import BLKSIZE_DEFAULT, WINDOWSIZE_DEFAULT
from tftpbench.model.errors import ServerNotReady, UsageError
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import format_bytes
from tftpbench.model.workload import Cell

OURS = "f-{n}"
# A server that is silent to the first cell's options is asked once with those of each other cell.
_TRIES_FURTHER = 1
_REASONS_MAX = 3


@dataclass(frozen=True)
class Files:
    """What is asked for. `name` has {n}, from 0 to `distinct` - 1; with 0 every transfer has a number of its own.

    `contents`: a copy of the one file to read; None where each holds f(seed, n, offset).
    """

    name: str
    distinct: int
    contents: Path | None = None


class TargetFiles:
    """The files of running servers, for one run. Made by `target_files`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[str, Path] = {}
        self._uploaded: dict[tuple[str, int, int], str] = {}
        self._running: dict[str, RunningServer] = {}
        self._copied_otherwise: list[str] = []
        self._prefix = f"tftpbench-{secrets.token_hex(3)}"  # what earlier runs left there is not ours to overwrite

    def notes(self, servers: Sequence[Contender]) -> list[str]:
        """What must be known before files are left at a server."""
        written = [each.name for each in servers if isinstance(each.server, Target) and each.server.file is None]
        uploads = [
            f"Files are uploaded to {name} as {self._prefix}-*, and stay there: delete them." for name in written
        ]
        return [*self._copied_otherwise, *uploads]

    def take(self, target: Target, asked: Sequence[Options]) -> int:
        """Copy the file that is to be read, with the first of the options that the server does it with; its size.

        Raises ServerNotReady with what the server did instead.
        """
        copy = self._copies[target.entry] = self._folder / str(len(self._copies))
        failures: dict[str, str] = {}
        for options in asked:
            try:
                size = download(target, options, copy, *([_TRIES_FURTHER] if failures else []))
            except NothingListens as error:
                raise ServerNotReady(str(error)) from None
            except CopyFailed as error:
                failures.setdefault(str(error), describe_options(options))
                continue
            except OSError as error:
                raise ServerNotReady(f"{target.name}: {target.file!r} can't be copied: {error.strerror}") from None
            self.running(target).silent_s = 0.0
            if failures:
                self._copied_otherwise.append(
                    f"{target.name}: {target.file!r} was copied with {describe_options(options)}: {_reasons(failures)}."
                )
            return size
        raise ServerNotReady(
            f"{target.name}: {target.file!r} can't be read: {_reasons(failures)}; "
            "check the file's name, and that the server runs"
        )

    def running(self, target: Target, trial: Trial | None = None) -> RunningServer:
        """The server, to be asked with the first request of the trial: for a file that is there, or one of ours."""
        server = self._running.setdefault(target.entry, RunningServer(target))
        if trial is not None:
            server.asked = self._first_request(target, trial.cell)
        return server

    def _first_request(self, target: Target, cell: Cell) -> bytes:
        """For an upload it has a name of its own, so that no file that is measured has been started before."""
        uploaded = self._uploaded.get((target.name, cell.file_size_bytes, cell.distinct_files))
        name = target.file or (uploaded.replace("{n}", "0") if uploaded is not None else None)
        if name is None or cell.operation == "write":
            return request("write", f"{self._prefix}-first", asked_options(replace(cell, operation="write")))
        return request("read", name, asked_options(cell))

    def of(self, trial: Trial, upload: Callable[[str, int], LoadResult]) -> Files:
        """What the trial's clients ask for. `upload(name, files)` puts files there first, where that is needed.

        Raises ServerNotReady where the server takes no upload.
        """
        cell, target = trial.cell, trial.contender.server
        if not isinstance(target, Target):
            if cell.operation == "read" and keeps_its_files(target):
                _refuse_incomplete(target.name, upload(OURS, cell.distinct_files), cell.distinct_files)
            return Files(OURS, cell.distinct_files if cell.operation == "read" else 0)
        if target.file is not None:
            return Files(target.file, 1, self._copies[target.entry])
        if cell.operation == "write":
            return Files(f"{self._prefix}-{trial.number}-{{n}}", 0)
        wanted = (target.name, cell.file_size_bytes, cell.distinct_files)
        if wanted not in self._uploaded:
            name = f"{self._prefix}-r{len(self._uploaded)}-{{n}}"
            _refuse_incomplete(target.name, upload(name, cell.distinct_files), cell.distinct_files)
            self._uploaded[wanted] = name
        return Files(self._uploaded[wanted], cell.distinct_files)


def keeps_its_files(server: Manifest | Target) -> bool:
    """Whether its files are out of our reach, so that they are put and compared by transfers."""
    return isinstance(server, Target) or server.store == "memory"


@contextmanager
def target_files(servers: Sequence[Contender], allow_remote: bool) -> Iterator[TargetFiles]:
    """The files of the running servers among them. Raises UsageError where one is on another machine, unallowed."""
    for server in servers:
        target = server.server
        if isinstance(target, Target) and not (allow_remote or ip_address(target.host).is_loopback):
            raise UsageError(f"{target.name} is another machine than this one; allow it with --allow-remote")
    if not any(isinstance(server.server, Target) for server in servers):
        yield TargetFiles(Path())
        return
    with TemporaryFolder("tftpbench-target-") as folder:
        yield TargetFiles(folder.path)


def fitted(
    scenario: Scenario, servers: Sequence[Contender], files: TargetFiles, on_event: Callable[[Event], None]
) -> Scenario:
    """The scenario with the size of the file that is there to be read, which all its servers then serve."""
    asked, sizes = _reads(scenario), {}
    for target in (server.server for server in servers if asked):
        if isinstance(target, Target) and target.file:
            on_event(CopyStarted(target.name, target.file))
            sizes[target.name] = files.take(target, asked)
    if not sizes:
        return scenario
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items())
        raise UsageError(f"files of one size can be compared, and these are not: {listed}")
    return scenario.with_file_size(next(iter(sizes.values())))


def asked_options(cell: Cell) -> Options:
    """The options that the cell's clients ask for, as they stand in their requests."""
    client = cell.client
    known = {
        "tsize": (0 if cell.operation == "read" else cell.file_size_bytes) if client.tsize else None,
        "blksize": cell.blksize if cell.blksize != BLKSIZE_DEFAULT else None,
        "windowsize": cell.windowsize if cell.windowsize != WINDOWSIZE_DEFAULT else None,
        "timeout": client.timeout_option_s,
        "rollover": client.rollover,
    }
    return {name: value for name, value in known.items() if value is not None}


def upload_config(config: LoadConfig, name: str, files: int) -> LoadConfig:
    """The load that puts the files of a read cell where they will be read."""
    concurrency = min(files, config.concurrency, 16)
    return replace(
        config, operation="write", name=name, distinct_files=0, concurrency=concurrency, workers=1, transfers=files,
        duration_ns=None, warm_up_ns=0, ramp_ns=0, verify_against=None,
    )  # fmt: skip


def _reads(scenario: Scenario) -> list[Options]:
    """Each set of options that the scenario reads with, the largest blocks first: they get furthest, and soonest."""
    cells = [cell for cell in scenario.cells() if cell.operation == "read"]
    cells.sort(key=lambda cell: -cell.blksize)  # stable: among equals the scenario's order
    found: list[Options] = []
    for options in map(asked_options, cells):
        if options not in found:
            found.append(options)
    return found


def _reasons(failures: Mapping[str, str]) -> str:
    """What the server did, and to which options: "with blksize 1468 it answered with ERROR 1, 'File not found'"."""
    nothing = describe_options({})
    plain = "" if list(failures.values()) == [nothing] else f"with {nothing} "
    reasons = [
        f"{plain if options == nothing else f'with {options} '}it {reason}" for reason, options in failures.items()
    ]
    more = len(reasons) - _REASONS_MAX
    return "; ".join(reasons[:_REASONS_MAX] + ([f"and {more} more"] if more > 0 else []))


def _refuse_incomplete(server: str, result: LoadResult, files: int) -> None:
    completed = len(result.completed_numbers)
    if completed < files:
        raise ServerNotReady(
            f"{server}: took {completed} of the {files} files that are to be read; does it allow uploads?"
        )
