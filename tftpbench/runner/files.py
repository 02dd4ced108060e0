"""Which files a trial's clients ask for, and what these must hold, at servers of ours and at those that run already.

A server that we start gets a root with files f-0, f-1, ... in it or, where it keeps files in memory, uploads of them. A
server that runs already has a file to read, of which a copy is taken first; or it lets us upload, and what we leave
there has names of its own. Called by the runner.
"""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from tftpbench.errors import ServerNotReady, UsageError
from tftpbench.loadgen import LoadConfig, LoadResult
from tftpbench.process import download
from tftpbench.runner.order import Contender, Trial
from tftpbench.scenario import Scenario
from tftpbench.servers import Manifest, Target
from tftpbench.units import format_bytes

OURS = "f-{n}"


@dataclass(frozen=True)
class Files:
    """What is asked for. `name` has {n}, from 0 to `distinct` - 1; with 0 every transfer has a number of its own.

    `contents`: a copy of the one file to read; None where each holds f(seed, n, offset).
    """

    name: str
    distinct: int
    contents: Path | None = None


class TargetFiles:
    """The files of servers that run already, for one run. Made by `target_files`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._copies: dict[str, Path] = {}
        self._uploaded: dict[tuple[str, int, int], str] = {}
        self._prefix = f"tftpbench-{secrets.token_hex(3)}"  # what earlier runs left there is not ours to overwrite

    def notes(self, servers: Sequence[Contender]) -> list[str]:
        """What must be known before files are left at a server."""
        written = [each.name for each in servers if isinstance(each.server, Target) and each.server.file is None]
        return [f"Files are uploaded to {name} as {self._prefix}-*, and stay there: delete them." for name in written]

    def take(self, target: Target) -> int:
        """Copy the file that is to be read; returns its size. Raises ServerNotReady."""
        copy = self._copies[target.entry] = self._folder / str(len(self._copies))
        return download(target, copy)

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
    """The files of those servers that run already. Raises UsageError where one is on another machine, unallowed."""
    for server in servers:
        target = server.server
        if isinstance(target, Target) and not (allow_remote or ip_address(target.host).is_loopback):
            raise UsageError(f"{target.name} is another machine than this one; allow it with --allow-remote")
    if not any(isinstance(server.server, Target) for server in servers):
        yield TargetFiles(Path())
        return
    with tempfile.TemporaryDirectory(prefix="tftpbench-target-") as folder:
        yield TargetFiles(Path(folder))


def fitted(scenario: Scenario, servers: Sequence[Contender], files: TargetFiles) -> Scenario:
    """The scenario with the size of the file that is there to be read, which all its servers then serve."""
    named = [server.server for server in servers if isinstance(server.server, Target) and server.server.file]
    sizes = {target.name: files.take(target) for target in named}
    if not sizes:
        return scenario
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {format_bytes(size)}" for name, size in sizes.items())
        raise UsageError(f"files of one size can be compared, and these are not: {told}")
    return scenario.with_file_size(next(iter(sizes.values())))


def upload_config(config: LoadConfig, name: str, files: int) -> LoadConfig:
    """The load that puts the files of a read cell where they will be read."""
    concurrency = min(files, config.concurrency, 16)
    return replace(
        config, operation="write", name=name, distinct_files=0, concurrency=concurrency, workers=1, transfers=files,
        duration_ns=None, warm_up_ns=0, ramp_ns=0, verify_against=None,
    )  # fmt: skip


def _refuse_incomplete(server: str, result: LoadResult, files: int) -> None:
    completed = len(result.completed_numbers)
    if completed < files:
        raise ServerNotReady(
            f"{server}: took {completed} of the {files} files that are to be read; does it allow uploads?"
        )
