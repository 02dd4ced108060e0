"""The folders that servers serve: fresh for each trial, on one file system for the whole run, and gone afterwards.

A run's folder is in memory (/dev/shm) where that has room, else where temporary files go. Contents are written once for
each size and linked into each trial's root, under every name that a machine of a boot asks for. It must never remove
anything that it did not make.
"""

import fcntl
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tftpbench.host.generator import machine_name
from tftpbench.host.server import TemporaryFolder
from tftpbench.model.boot import Share, files
from tftpbench.model.errors import UsageError
from tftpbench.model.units import format_bytes
from tftpbench.model.workload import MACHINES_IN_FLIGHT_MAX, Cell, OpenLoop, Shaped, Sought, Storm

PREFIX = "tftpbench-roots-"
# What a write cell of fixed duration may fill: the loopback interface carries some 250,000 datagrams a second between
# two cores, and no cell moved more than 4 GB/s.
_DATAGRAMS_PER_S_MAX = 250_000
_BYTES_PER_S_MAX = 4_000_000_000

# ext4 gives a file 65,000 names at most, and other file systems more.
LINKS_MAX = 60_000

WriteContents = Callable[[Path, int, int, int], None]


class Roots:
    """The run's folder for roots. Use as a context manager through `roots`."""

    def __init__(self, base: Path, seed: int, write_contents: WriteContents) -> None:
        self.base = base
        self._seed = seed
        self._write_contents = write_contents
        self._written: dict[Path, tuple[int, int] | None] = {}

    @property
    def facts(self) -> dict[str, str]:
        """Where they are, for a run's manifest."""
        return {"path": str(self.base.parent), "file_system": file_system(self.base)}

    @contextmanager
    def fresh(self, cell: Cell, *, empty: bool = False) -> Iterator[Path]:
        """A root for the cell: its files where it reads, as f-0 or as its boots name them; none where `empty`."""
        try:
            root = self.make(root_plan(cell, empty=empty))
        except OSError as error:
            raise UsageError(_not_written(self.base, cell, error)) from error
        try:
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def make(self, plan: "RootPlan") -> Path:
        """A root as it is planned, which the caller removes. Raises OSError, with nothing left."""
        root = Path(tempfile.mkdtemp(prefix="root-", dir=self.base))
        try:
            root.chmod(plan.mode)
            self._fill(root, plan)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise
        return root

    def _fill(self, root: Path, plan: "RootPlan") -> None:
        folders, mode = {root}, plan.mode
        for name in plan.uploads:
            _make_folder((root / name).parent, mode, folders)
        for file in plan.files:
            for first in range(0, len(file.names), LINKS_MAX):
                kept = self.base / f"contents-{file.size_bytes}-{file.number}-{first}"
                if kept not in self._written or self._state(kept) != self._written[kept]:
                    self._write(kept, file)
                for name in file.names[first : first + LINKS_MAX]:
                    path = root / name
                    _make_folder(path.parent, mode, folders)
                    os.link(kept, path)

    def _write(self, kept: Path, file: "Contents") -> None:
        """The first time, or when a server has altered what it was only to read."""
        kept.unlink(missing_ok=True)
        self._write_contents(kept, self._seed, file.number, file.size_bytes)
        kept.chmod(0o644)
        self._written[kept] = self._state(kept)

    def _state(self, kept: Path) -> tuple[int, int] | None:
        try:
            stat = kept.stat()
        except OSError:
            return None
        return stat.st_size, stat.st_mtime_ns


@contextmanager
def roots(
    cells: Sequence[Cell], seed: int, write_contents: WriteContents, candidates: Sequence[Path] | None = None
) -> Iterator[Roots]:
    """A folder with room for the cells' files, gone afterwards even if this process is killed.

    What earlier runs left there, whose remover was killed with them, is removed first.
    """
    with roots_with_room(room_needed_bytes(cells), seed, write_contents, candidates) as made:
        yield made


@contextmanager
def roots_with_room(
    needed_bytes: int, seed: int, write_contents: WriteContents, candidates: Sequence[Path] | None = None
) -> Iterator[Roots]:
    """The same with room for so much."""
    tried = places() if candidates is None else candidates
    for place in tried:
        _sweep(place)
    with _base(_roomiest(tried, needed_bytes)) as base:
        base.chmod(0o755)
        yield Roots(base, seed, write_contents)


def file_system(path: Path, proc_in: Path = Path("/")) -> str:
    """Type of the file system of `path`, as in "tmpfs"; "unknown" where proc does not say (proc_pid_mountinfo(5))."""
    best, kind = -1, "unknown"
    try:
        lines = (proc_in / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return kind
    for line in lines:
        before, _, after = line.partition(" - ")
        fields, mount_fields = after.split(), before.split()
        if not fields or len(mount_fields) < 5:
            continue
        mount = mount_fields[4]
        if len(mount) > best and path.resolve().is_relative_to(mount):
            best, kind = len(mount), fields[0]
    return kind


def room_needed_bytes(cells: Sequence[Cell]) -> int:
    """Contents of all sizes, which are kept, and the largest that one trial's uploads may come to."""
    kept = {
        (file.size_bytes, file.number, first)
        for cell in cells
        for file in _files(cell)
        for first in range(0, len(file.names), LINKS_MAX)
    }
    return sum(size for size, *_ in kept) + max(map(_uploads_bytes, cells), default=0)


def machines_max(cell: Cell) -> int:
    """How many machines boot in a cell of boots, at most. Raises UsageError where that can't be known."""
    load = cell.load
    if isinstance(load, Storm):
        return load.machines
    if isinstance(load, Sought):  # of the trials of a search each has a root of its own
        return MACHINES_IN_FLIGHT_MAX
    if cell.transfers is not None:
        return cell.transfers
    if isinstance(load, OpenLoop):
        expected = load.rate_per_s * (cell.warm_up_ns + (cell.duration_ns or 0)) / 1e9
    elif isinstance(load, Shaped):
        expected = load.starts
    elif any("{" in file.name for file in files(cell.shares)):
        raise UsageError(
            f"{cell.label}: how many machines boot is not known before, and each has files of its own; "
            "give machines, a rate, a shape or transfers"
        )
    else:
        expected = 1
    # Random arrivals may be more than on average: by so many standard deviations in one of 10^15 trials.
    return math.ceil(expected + (8 * math.sqrt(expected) + 8 if cell.arrivals == "poisson" else 1))


def machines_of(shares: Sequence[Share], machines: int) -> list[Sequence[int]]:
    """The numbers of the machines that boot each share."""
    divisor = math.gcd(*(share.weight for share in shares))
    weights = [share.weight // divisor for share in shares]
    waiting, order = [0] * len(weights), []
    for _ in range(sum(weights)):  # a smooth weighted round robin, as the generator's
        waiting = [left + weight for left, weight in zip(waiting, weights, strict=True)]
        turn = waiting.index(max(waiting))
        waiting[turn] -= sum(weights)
        order.append(turn)
    if len(shares) == 1:
        return [range(machines)]
    return [[n for n in range(machines) if order[n % len(order)] == share] for share in range(len(shares))]


class Contents(NamedTuple):
    """A file of a root: the names that it has there, and which contents of what size."""

    names: Sequence[str]
    number: int
    size_bytes: int


@dataclass(frozen=True)
class RootPlan:
    """What a root holds, on whatever machine it is made: files, and the names that clients will write.

    `mode`: of its folders. Where clients may write, so may the server, whichever user it has become by then.
    """

    files: tuple[Contents, ...]
    uploads: tuple[str, ...]
    mode: int


def root_plan(cell: Cell, *, empty: bool = False) -> RootPlan:
    """What a root for the cell holds: its files where it reads; none where `empty`."""
    mode = 0o777 if empty or cell.writes else 0o755
    return RootPlan((), (), mode) if empty else RootPlan(tuple(_files(cell)), tuple(_uploads(cell)), mode)


def _files(cell: Cell) -> list[Contents]:
    """What the cell's clients read."""
    if not cell.shares:
        count = cell.distinct_files if cell.operation == "read" else 0
        return [Contents([f"f-{number}"], number, cell.file_size_bytes) for number in range(count)]
    names: dict[tuple[int, int], dict[str, None]] = {}
    for share, machines in zip(cell.shares, machines_of(cell.shares, machines_max(cell)), strict=True):
        for file in files([share]):
            if file.operation == "read":
                names.setdefault((file.file, file.size_bytes), {}).update(dict.fromkeys(_named(file.name, machines)))
    return [Contents([*found], number, size) for (number, size), found in names.items()]


def _uploads(cell: Cell) -> list[str]:
    """Names of what the cell's boots write."""
    parts = zip(cell.shares, machines_of(cell.shares, machines_max(cell)), strict=True) if cell.shares else ()
    steps = [(step.name, machines) for share, machines in parts for step in share.steps if step.operation == "write"]
    return [name for template, machines in steps for name in _named(template, machines)]


def _named(template: str, machines: Sequence[int]) -> list[str]:
    """The names that these machines ask for, from the root."""
    numbers = machines if "{" in template else range(1)  # in a mix it may be the next machine's
    return [machine_name(template, number).lstrip("/") for number in numbers]


def _make_folder(folder: Path, mode: int, made: set[Path]) -> None:
    if folder not in made:
        _make_folder(folder.parent, mode, made)
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        made.add(folder)


def _not_written(base: Path, cell: Cell, error: OSError) -> str:
    if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
        name = "/".join(Path(error.filename2 or error.filename).relative_to(base).parts[1:])
        return f"{cell.label}: two of the files of its boots have the name {name!r}; map one of them to another name"
    size = format_bytes(sum(file.size_bytes for file in _files(cell)))
    if cell.shares:
        what, fewer = f"the files of {machines_max(cell):,} machines ({cell.label}), {size},", "machines"
    else:
        asked = f"{cell.distinct_files} files of {format_bytes(cell.file_size_bytes)}"
        what, fewer = asked, "distinct_files or file_size"
    return f"{base}: {what} can't be written: {error.strerror or error}; free some space, set TMPDIR, or lower {fewer}"


def _uploads_bytes(cell: Cell) -> int:
    if cell.shares:
        sizes = [step.size_bytes or 0 for share in cell.shares for step in share.steps if step.operation == "write"]
        return machines_max(cell) * sum(sizes)
    if cell.operation == "read":
        return 0
    if cell.duration_ns is None:
        return (cell.transfers or 0) * cell.file_size_bytes
    rate = min(_BYTES_PER_S_MAX, _DATAGRAMS_PER_S_MAX * cell.blksize)
    return int((cell.duration_ns + cell.warm_up_ns) / 1e9 * rate) + cell.concurrency * cell.file_size_bytes


def places() -> list[Path]:
    """Folders that roots may be made in, the best first."""
    memory = Path("/dev/shm")  # noqa: S108 (mkdtemp makes a folder of our own in it)
    return [place for place in (memory, Path(tempfile.gettempdir())) if os.access(place, os.W_OK | os.X_OK)]


def _roomiest(places: Sequence[Path], needed: int) -> Path:
    """The first with room for all; else the one with the most, for the need of uploads is an upper bound."""
    if not places:
        raise UsageError(
            "neither /dev/shm nor the folder for temporary files can be written; set TMPDIR to one that can"
        )
    free = {place: shutil.disk_usage(place).free for place in places}
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
