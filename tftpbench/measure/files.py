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

from tftpbench.host.generator import LoadConfig, LoadResult, machine_name
from tftpbench.host.server import (
    COPY_BYTES_MAX,
    TRIES,
    CopyFailed,
    NothingListens,
    Options,
    Refused,
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
from tftpbench.model.boot import BootFacts, Share, Step, boot_facts, is_served, not_comparable
from tftpbench.model.errors import ServerNotReady, UsageError
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario import Scenario
from tftpbench.model.units import counted, format_bytes
from tftpbench.model.workload import Cell

OURS = "f-{n}"
# What is read is compared with copies that are held in memory: together no more than most machines have to spare.
COMPARED_BYTES_MAX = 1 << 30
# A server that is silent to the first cell's options is asked once with those of each other cell.
_TRIES_FURTHER = 1
_REASONS_MAX = 3


@dataclass(frozen=True)
class Files:
    """What is asked for. `name` has {n}, from 0 to `distinct` - 1; with 0 every transfer has a number of its own.

    `contents`: a copy of the one file to read; None where each holds f(seed, n, offset). `shares`: what machines ask
    for instead, where they boot.
    """

    name: str
    distinct: int
    contents: Path | None = None
    shares: tuple[Share, ...] = ()


class TargetFiles:
    """The files of running servers, for one run. Made by `target_files`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[str, Path] = {}
        self._boots: dict[tuple[str, tuple[Share, ...]], tuple[Share, ...]] = {}
        self._uploaded: dict[tuple[str, int, int], str] = {}
        self._running: dict[str, RunningServer] = {}
        self._copied_otherwise: list[str] = []
        self._prefix = f"tftpbench-{secrets.token_hex(3)}"  # what earlier runs left there is not ours to overwrite

    def notes(self, servers: Sequence[Contender]) -> list[str]:
        """What must be known before files are left at a server."""
        if self._boots:
            return [
                f"Nothing that is read from {entry} is compared: {why}. {only_of_the_first(shares)}"
                for entry, shares in self._boots
                if (why := not_comparable(shares))
            ]
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

    def take_boots(
        self, target: Target, shares: tuple[Share, ...], on_event: Callable[[Event], None] = lambda _: None
    ) -> tuple[Share, ...]:
        """Copy what the machines of these shares read; the shares with the sizes of these files.

        Raises ServerNotReady where files are not there, in one line.
        """
        folder = self._folder / f"boots-{len(self._boots)}"
        folder.mkdir()
        copied = self._boots[target.entry, shares] = copied_boots(
            target, shares, folder, on_file=lambda name: on_event(CopyStarted(target.name, name)),
            is_compared=not not_comparable(shares),
        )  # fmt: skip
        self.running(target).silent_s = 0.0
        return copied

    def running(self, target: Target, trial: Trial | None = None) -> RunningServer:
        """The server, to be asked with the first request of the trial: for a file that is there, or one of ours."""
        server = self._running.setdefault(target.entry, RunningServer(target))
        if trial is not None:
            server.asked = self._first_request(target, trial.cell)
        return server

    def _first_request(self, target: Target, cell: Cell) -> bytes:
        """For an upload it has a name of its own, so that no file that is measured has been started before."""
        if cell.shares:
            first = next(filter(is_served, cell.shares[0].steps), cell.shares[0].steps[0])
            return request(first.operation, machine_name(first.name, 0), _numbers(first))
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
        if cell.shares:
            shares = self._boots[target.entry, cell.shares] if isinstance(target, Target) else cell.shares
            return Files("", 0, shares=shares)
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
    """The scenario with the size of the file that is there to be read, which all its servers then serve.

    Of boots the files that are there are copied; their sizes at the first of these servers are what machines ask for.
    """
    boots = {cell.shares: cell.parts for cell in scenario.cells() if cell.shares}
    if boots:
        facts: dict[str, BootFacts] = {}
        for running in (each.server for each in servers if isinstance(each.server, Target)):
            for shares, parts in boots.items():
                copied = files.take_boots(running, shares, on_event)
                found = ((name, boot_facts([share])) for (name, _), share in zip(parts, copied, strict=True))
                facts = {**dict(found), **facts}
        return scenario.asking(facts) if facts else scenario
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


def copied_boots(
    target: Target,
    shares: Sequence[Share],
    folder: Path,
    *,
    on_file: Callable[[str], object] = lambda _: None,
    first_tries: int = TRIES,
    is_compared: bool = True,
) -> tuple[Share, ...]:
    """The shares with the files of a running server: each is read once, by machine 0, and has the size that it has.

    `is_compared`: what is read must be what these copies hold; see `not_comparable`. Raises ServerNotReady in one line:
    for the files that the server refuses, all of them, for what else it does instead of serving one, and where they are
    too large to be compared.
    """
    copies: dict[str, Path] = {}
    absent: list[tuple[str, Step]] = []
    left = COMPARED_BYTES_MAX if is_compared else COPY_BYTES_MAX
    wanted = _wanted(shares)
    for name, step in wanted.items():
        copy = folder / str(len(copies))
        on_file(name)
        try:
            size = download(replace(target, file=name), _numbers(step), copy, first_tries, left)
        except Refused:
            absent.append((name, step))
            continue
        except NothingListens as error:
            raise ServerNotReady(str(error)) from None
        except (CopyFailed, OSError) as error:
            raise ServerNotReady(f"{target.name}: {_why_no_copy(name, copy, left, error)}") from None
        copies[name] = copy
        left -= size if is_compared else 0
    if absent:
        own = [step.name for _, step in absent if "{" in step.name]
        each = f" (each machine asks for its own {own[0]}, these are machine 0's)" if own else ""
        show = f"tftpbench boots show {shares[0].name if len(shares) == 1 else 'BOOT'}"
        raise ServerNotReady(
            f"{target.name} lacks {len(absent)} of the {counted(len(wanted), 'file')} that "
            f"{' and '.join(share.name for share in shares)} {'asks' if len(shares) == 1 else 'ask'} for: "
            f"{', '.join(name for name, _ in absent)}{each}; put them there, or name others with --map (its names: "
            f"{show})"
        )
    return tuple(
        replace(share, steps=tuple(_of_copy(step, copies, is_compared) for step in share.steps)) for share in shares
    )


def only_of_the_first(shares: Sequence[Share]) -> str:
    """What was looked for at a running server where each machine has files of its own; "" where none has."""
    own = next((step.name for share in shares for step in share.steps if is_served(step) and "{" in step.name), None)
    if own is None:
        return ""
    return (
        f"Of {own} only machine 0's was looked for: the next machine asks for {machine_name(own, 1)}, and stops there "
        "where that is not served; --map can give all of them one name."
    )


def _why_no_copy(name: str, copy: Path, left: int, error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{name!r} can't be copied: {error.strerror}"
    if copy.stat().st_size > left:
        most = format_bytes(COMPARED_BYTES_MAX)
        return f"{name!r} is too large: what is compared is held in memory, {most} at most; pass --verify off"
    return f"{name!r} can't be read: it {error}"


def _wanted(shares: Sequence[Share]) -> dict[str, Step]:
    """The files that machine 0 of each share reads, each with the first step that does, whole where one is."""
    steps = [step for share in shares for step in share.steps if is_served(step)]
    found: dict[str, Step] = {}
    for step in sorted(steps, key=lambda step: step.ends != "whole"):  # stable
        found.setdefault(machine_name(step.name, 0), step)
    return found


def _numbers(step: Step) -> Options:
    """The options of its request that a copy asks for."""
    return {name.lower(): int(value) for name, value in step.options if value.isdecimal()}


def _of_copy(step: Step, copies: Mapping[str, Path], is_compared: bool) -> Step:
    if not is_served(step):
        return step
    copy = copies[machine_name(step.name, 0)]
    return replace(step, size_bytes=copy.stat().st_size, contents=copy if is_compared else None)


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
        duration_ns=None, warm_up_ns=0, ramp_ns=0, rate_per_s=None, over_ns=None, shape=(), rows="all",
        verify_against=None,
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
