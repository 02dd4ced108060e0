"""Files of a user's folders: opened and read where others may have made them, and written whole.

This is the one way in which tftpbench opens a file that may be a FIFO, a device or endless: a file of a run, a gate
document, a scenario, a manifest or the file of --verify-against. Regular files are read, up to a bound; anything else
is an OSError in words, at once. Symbolic links are followed, and the file that they lead to is judged. What is written
gets another name first and is then renamed into place, so that no reader sees half of it: no part is left behind, and
nothing that lies in the place of a file that is written is followed.
"""

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path

from tftpbench.model.errors import TftpbenchError

_PIECE_BYTES = 1 << 20


class UnfitFile(OSError):
    """No regular file, or one that is larger than allowed; `strerror` has the words, `filename` the path."""


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file at `path`, for reading unless `flags` (of open(2)) say otherwise.

    Raises OSError: UnfitFile for a FIFO, a device, a socket or a directory, else what open(2) says. Never waits.
    """
    try:
        # open(2) of a device may act on it (a tape is rewound): the type is looked at before, and again after.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise _not_regular(path)
        # NONBLOCK: a FIFO that has just taken the file's place opens at once, too.
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError:  # a NUL in the name
        raise UnfitFile(errno.EINVAL, "is no name of a file", str(path)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path)
    return descriptor


def read_regular(path: Path | str, max_bytes: int) -> bytes:
    """Everything in the regular file at `path`.

    Raises OSError as open_regular does, and UnfitFile for a file of more than `max_bytes`, without reading it whole.
    """
    descriptor = open_regular(path)
    try:
        pieces, left = [], max_bytes + 1  # not st_size: files of /proc have none
        while left > 0 and (piece := os.read(descriptor, min(left, _PIECE_BYTES))):
            pieces.append(piece)
            left -= len(piece)
    finally:
        os.close(descriptor)
    if left <= 0:
        raise UnfitFile(errno.EFBIG, f"is larger than {_size(max_bytes)}", str(path))
    return b"".join(pieces)


def is_regular(path: Path | str) -> bool:
    """Whether a regular file is there; a name that no file can have is no file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _not_regular(path: Path | str) -> UnfitFile:
    return UnfitFile(errno.EINVAL, "is no regular file", str(path))


def _size(count: int) -> str:
    return f"{count >> 20} MiB" if count >= 1 << 20 else f"{count >> 10} KiB"


def write_whole(path: Path, content: bytes, error: type[TftpbenchError], advice: str = "") -> Path:
    """The path, written; raises `error` in one line, with `advice` at its end, where that can't be done."""
    part = path.parent / f".{path.name}.{secrets.token_hex(8)}.part"
    try:
        with part.open("xb") as stream:
            stream.write(content)
        part.replace(path)
    except (OSError, ValueError) as why:
        with contextlib.suppress(OSError, ValueError):
            part.unlink()
        raise _worded(path, why, error, advice) from None
    return path


def write_chosen(path: Path, content: bytes, error: type[TftpbenchError], advice: str = "") -> Path:
    """The same for a place that the user chose: a device or a pipe there is written to, not replaced."""
    try:
        if not path.exists() or path.is_file():
            return write_whole(path, content, error, advice)
        path.write_bytes(content)  # /dev/stdout, a pipe
    except (OSError, ValueError) as why:
        raise _worded(path, why, error, advice) from None
    return path


def _worded(path: Path, why: OSError | ValueError, error: type[TftpbenchError], advice: str) -> TftpbenchError:
    # A ValueError is a NUL in the name.
    reason = f"can't be written: {why.strerror or why}" if isinstance(why, OSError) else "is no name of a file"
    return error(f"{path}: {reason}{f'; {advice}' if advice else ''}")
