"""Writing a run folder so that a kill at any moment loses no finished trial and shows no unfinished one.

manifest.json is there from the moment the folder has its name. A trial's files are renamed into place before its line
is appended, and the line is on the disk before append_trial returns: a line means that all is there.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tftpbench.model.capacity import FoundCapacity, documents
from tftpbench.model.errors import ResultsError
from tftpbench.model.metrics import BOOT_COLUMNS, COLUMNS, INTERVAL_COLUMNS, TRANSFER_COLUMNS
from tftpbench.model.regular_file import UnfitFile, open_regular
from tftpbench.store import format as form
from tftpbench.store import tables

# More runs of one scenario than this never start within one second.
SAME_SECOND_MAX = 1000
_UNFINISHED = ".unfinished-"
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


class RunFolder(AbstractContextManager["RunFolder", None]):
    """One run's folder, open for writing by one process. Close it, or use it as a context manager."""

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Not for callers: use create or open_for_resume."""
        self.path = path
        self.manifest = manifest
        self.notes: list[str] = []  # what was mended on opening, for people
        with form.explained(path, "written"):
            (path / form.TRIAL_FILES).mkdir(exist_ok=True)
            self._stream = _open_trials(path / form.TRIALS)
        try:
            _lock(self._stream, path)
            trials = form.read_trials(path)
            _refuse_faults(path, trials)
        except ResultsError:
            self.close()
            raise
        self._rows, self._length = trials.rows, trials.length

    @classmethod
    def create(
        cls, out_dir: Path | str, scenario_name: str, manifest: Mapping[str, object], now: datetime | None = None
    ) -> Self:
        """Make out_dir/<UTC>-<scenario_name>, a name of its own even if two runs start in one second.

        `schema` is added to the manifest. Raises ResultsError, naming the folder, where it can't be written.
        """
        out = Path(out_dir)
        stamp = (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        whole = {"schema": form.SCHEMA, **manifest}
        with form.explained(out, "written"):
            out.mkdir(parents=True, exist_ok=True)
            made = out / f"{_UNFINISHED}{secrets.token_hex(8)}"
            made.mkdir()
            try:
                _write_whole(made / form.MANIFEST, form.json_text(whole, indent=2) + "\n")
                path = first_free(out / f"{stamp}-{scenario_name}", made.rename)  # never over one with files, rename(2)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        return cls(path, whole)

    @classmethod
    def open_for_resume(cls, path: Path | str) -> Self:
        """Open an existing run to go on with it; a torn last line and unfinished files of a kill are dropped."""
        manifest = form.read_manifest(Path(path))
        form.refuse_packed(Path(path), manifest)
        folder = cls(Path(path), manifest)
        with form.explained(folder.path, "written"):
            if os.fstat(folder._stream).st_size > folder._length:
                os.ftruncate(folder._stream, folder._length)
                folder.notes.append(f"{folder.path / form.TRIALS}: the last line was torn, its trial is done again")
            for left in (folder.path / form.TRIAL_FILES).glob(f"{_UNFINISHED}*"):
                _remove(left)
        return folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder. Everything is on the disk already."""
        if self._stream >= 0:
            os.close(self._stream)
            self._stream = -1

    def finished_trials(self) -> list[dict[str, Any]]:
        """The rows of all finished trials, in the order in which they ended."""
        return list(self._rows)

    def amend(self, key: str, value: object) -> None:
        """Add to the manifest what the run learnt on its way. The old one is there until the new one is whole."""
        manifest = {**self.manifest, key: value}
        made = self.path / f"{_UNFINISHED}{form.MANIFEST}"
        with form.explained(self.path, "written"):
            try:
                _write_whole(made, form.json_text(manifest, indent=2) + "\n")
                made.replace(self.path / form.MANIFEST)
            except BaseException:
                made.unlink(missing_ok=True)
                raise
        self.manifest = manifest

    def keep_searches(self, found: Sequence[FoundCapacity]) -> None:
        """Write capacity.json whole: what searches found, all until now."""
        made = self.path / f"{_UNFINISHED}{form.CAPACITY}"
        with form.explained(self.path, "written"):
            try:
                _write_whole(made, form.json_text(documents(found), indent=2) + "\n")
                made.replace(self.path / form.CAPACITY)
            except BaseException:
                made.unlink(missing_ok=True)
                raise

    def finished_searches(self) -> list[FoundCapacity]:
        """What `keep_searches` has kept."""
        return list(form.read_searches(self.path))

    def append_trial(self, row: Mapping[str, object]) -> None:
        """Add a finished trial's row: columns in documented order, absent ones null; others follow.

        On the disk when this returns. On failure the file is as it was, and ResultsError names the folder.
        """
        ordered = {name: row.get(name) for name in COLUMNS} | dict(row)
        line = (form.json_text(ordered) + "\n").encode("utf-8")
        with form.explained(self.path, "written"):
            try:
                _write_all(self._stream, line, self._length)
                os.fsync(self._stream)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._stream, self._length)
                raise
        self._length += len(line)
        self._rows.append(json.loads(line))

    def write_trial_files(
        self,
        trial: int,
        transfers: tables.Arrays,
        intervals: tables.Arrays,
        latency_hlog: str,
        server_log: bytes,
        boots: tables.Arrays | None = None,
    ) -> Path:
        """Write the files of one trial whole, then rename their folder into place; call it before append_trial.

        transfers, intervals and boots: an array per column (TRANSFER_COLUMNS, INTERVAL_COLUMNS, BOOT_COLUMNS) of
        integers; a negative number means null where the column may be null; words as such, or as indices of
        metrics.OUTCOMES, BOOT_OUTCOMES and BOOT_REASONS. `boots`: None where no machine boots.
        """
        place = self.path / form.TRIAL_FILES / str(trial)
        made = place.with_name(f"{_UNFINISHED}{trial}")
        with form.explained(self.path, "written"):
            try:
                _remove(made)
                made.mkdir()
                tables.write(made / form.TRANSFERS, transfers, TRANSFER_COLUMNS)
                tables.write(made / form.INTERVALS, intervals, INTERVAL_COLUMNS)
                if boots is not None:
                    tables.write(made / form.BOOTS, boots, BOOT_COLUMNS, tables.BOOT_WORDS)
                (made / form.LATENCY).write_text(latency_hlog, encoding="utf-8")
                (made / form.SERVER_LOG).write_bytes(server_log)
                # Files without a line in trials.jsonl are of a trial that a kill cut off just before its line.
                _remove(place)
                made.rename(place)
            except BaseException:
                shutil.rmtree(made, ignore_errors=True)
                raise
        return place


def _open_trials(path: Path) -> int:
    """A descriptor for reading and writing; of a file of its own where there was none."""
    try:
        return open_regular(path, os.O_RDWR)
    except UnfitFile as error:
        raise ResultsError(f"{path}: can't be written: it {error.strerror}; remove it, or start a new run") from None
    except FileNotFoundError:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)


def _lock(stream: int, path: Path) -> None:
    """The lock dies with the process that holds it (man 2 flock), so a kill leaves none behind."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ResultsError(f"{path}: is being written by another run; wait for its end") from None
    except OSError:
        pass  # a file system without locks; two runs in one folder are then the user's to avoid


def _refuse_faults(path: Path, trials: form.Trials) -> None:
    for number, fault in trials.faults:
        where = f"{path / form.TRIALS}:{number}"
        raise ResultsError(f"{where}: {fault}; remove the line, and --resume does the trial again")


def _remove(path: Path) -> None:
    """Take away what is there, if anything is. Not by rmtree alone: it opens a FIFO, and waits for its other end."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def first_free(wanted: Path, take: Callable[[Path], object]) -> Path:
    """The first of wanted, wanted-2, ... that `take` gets: it raises OSError where the name is taken."""
    for number in range(1, SAME_SECOND_MAX + 1):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        try:
            take(path)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            return path
    raise ResultsError(f"{wanted}: and {SAME_SECOND_MAX} names like it are taken; choose another place with -o")


def _write_whole(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)  # what a kill left, or a FIFO that was put there
    with path.open("x", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _write_all(stream: int, content: bytes, offset: int) -> None:
    """A short write is how a disk that fills up first shows (man 2 write); the next one tells why."""
    view = memoryview(content)
    while view:
        written = os.pwrite(stream, view, offset)
        view, offset = view[written:], offset + written
