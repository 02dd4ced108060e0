"""The folders that servers serve: fresh for each trial, on one file system for the whole run, and gone afterwards.

A run's folder is in memory (/dev/shm) where that has room, else where temporary files go. Contents are written once for
each size and linked into each trial's root. It must never remove anything that it did not make.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tftpbench.host.server import TemporaryFolder
from tftpbench.model.errors import UsageError
from tftpbench.model.units import format_bytes
from tftpbench.model.workload import Cell

PREFIX = "tftpbench-roots-"
# What a write cell of fixed duration may fill: the loopback interface carries some 250,000 datagrams a second between
# two cores, and no cell moved more than 4 GB/s.
_DATAGRAMS_PER_S_MAX = 250_000
_BYTES_PER_S_MAX = 4_000_000_000

WriteContents = Callable[[Path, int, int, int], None]


class Roots:
    """The run's folder for roots. Use as a context manager through `roots`."""

    def __init__(self, base: Path, seed: int, write_contents: WriteContents) -> None:
        self.base = base
        self._seed = seed
        self._write_contents = write_contents
        self._written: dict[tuple[int, int], list[tuple[int, int]]] = {}

    @contextmanager
    def fresh(self, cell: Cell, *, empty: bool = False) -> Iterator[Path]:
        """An empty root for a write cell, or where that is wanted; else one with the cell's files, f-0 and so on."""
        is_filled = cell.operation == "read" and not empty
        root = Path(tempfile.mkdtemp(prefix="root-", dir=self.base))
        try:
            # A server may have become another user by the time it opens a file.
            root.chmod(0o755 if is_filled else 0o777)
            if is_filled:
                self._link(root, cell.file_size_bytes, cell.distinct_files)
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _link(self, root: Path, size: int, files: int) -> None:
        kept = self.base / f"contents-{size}-{files}"
        if self._state(kept, files) != self._written.get((size, files), ()):
            self._write(kept, size, files)
        for file in range(files):
            os.link(kept / f"f-{file}", root / f"f-{file}")

    def _write(self, kept: Path, size: int, files: int) -> None:
        """The first time, or when a server has altered what it was only to read."""
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(mode=0o755)
        try:
            for file in range(files):
                self._write_contents(kept / f"f-{file}", self._seed, file, size)
                (kept / f"f-{file}").chmod(0o644)
        except OSError as error:
            raise UsageError(
                f"{self.base}: {files} files of {format_bytes(size)} can't be written: {error.strerror}; "
                "free some space, set TMPDIR, or lower distinct_files or file_size"
            ) from error
        self._written[size, files] = self._state(kept, files)

    def _state(self, kept: Path, files: int) -> list[tuple[int, int]]:
        try:
            stats = [(kept / f"f-{file}").stat() for file in range(files)]
        except OSError:
            return []
        return [(stat.st_size, stat.st_mtime_ns) for stat in stats]


@contextmanager
def roots(
    cells: Sequence[Cell], seed: int, write_contents: WriteContents, candidates: Sequence[Path] | None = None
) -> Iterator[Roots]:
    """A folder with room for the cells' files, gone afterwards even if this process is killed.

    What earlier runs left there, whose remover was killed with them, is removed first.
    """
    places = _places() if candidates is None else candidates
    for place in places:
        _sweep(place)
    with _base(_roomiest(places, cells)) as base:
        base.chmod(0o755)
        yield Roots(base, seed, write_contents)


def file_system(path: Path) -> str:
    """Type of the file system of `path`, as in "tmpfs"; "unknown" where proc does not say (proc_pid_mountinfo(5))."""
    best, kind = -1, "unknown"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return kind
    for line in lines:
        before, _, after = line.partition(" - ")
        mount = before.split()[4]
        if len(mount) > best and path.resolve().is_relative_to(mount):
            best, kind = len(mount), after.split()[0]
    return kind


def room_needed_bytes(cells: Sequence[Cell]) -> int:
    """Contents of all sizes, which are kept, and the largest that one trial's uploads may come to."""
    contents = {(cell.file_size_bytes, cell.distinct_files) for cell in cells if cell.operation == "read"}
    uploads = [_uploads_bytes(cell) for cell in cells if cell.operation == "write"]
    return sum(size * files for size, files in contents) + max(uploads, default=0)


def _uploads_bytes(cell: Cell) -> int:
    if cell.duration_ns is None:
        return (cell.transfers or 0) * cell.file_size_bytes
    rate = min(_BYTES_PER_S_MAX, _DATAGRAMS_PER_S_MAX * cell.blksize)
    return int((cell.duration_ns + cell.warm_up_ns) / 1e9 * rate) + cell.concurrency * cell.file_size_bytes


def _places() -> list[Path]:
    memory = Path("/dev/shm")  # noqa: S108 (mkdtemp makes a folder of our own in it)
    return [place for place in (memory, Path(tempfile.gettempdir())) if os.access(place, os.W_OK | os.X_OK)]


def _roomiest(places: Sequence[Path], cells: Sequence[Cell]) -> Path:
    """The first with room for all; else the one with the most, for the need of uploads is an upper bound."""
    if not places:
        raise UsageError(
            "neither /dev/shm nor the folder for temporary files can be written; set TMPDIR to one that can"
        )
    free = {place: shutil.disk_usage(place).free for place in places}
    needed = room_needed_bytes(cells)
    return next((place for place in places if free[place] > needed), max(places, key=lambda place: free[place]))


@contextmanager
def _base(place: Path) -> Iterator[Path]:
    """A new folder, locked. Until it is locked, a run that begins at the same time may take it for a leftover."""
    while True:
        with TemporaryFolder(f"{PREFIX}{os.getuid()}-", place) as folder:
            try:
                descriptor = _locked(folder.path)
            except (BlockingIOError, FileNotFoundError):
                continue
            try:
                yield folder.path
            finally:
                os.close(descriptor)
            return


def _sweep(place: Path) -> None:
    for left in place.glob(f"{PREFIX}{os.getuid()}-*"):
        with suppress(OSError):  # a run of ours that is going on, or not ours
            descriptor = _locked(left)
            try:
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(descriptor)


def _locked(folder: Path) -> int:
    """A descriptor that holds the folder while it is in use; released on process death (flock(2)).

    OSError: another process holds it, or has removed it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.lstat(folder)):
            raise FileNotFoundError(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
