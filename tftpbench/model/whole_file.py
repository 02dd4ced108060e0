"""Writing a file whole: under another name first, then renamed into place, so that no reader sees half of it.

It must never leave a part behind, and never follow what lies in the place of a file that it writes.
"""

import contextlib
import secrets
from pathlib import Path

from tftpbench.model.errors import TftpbenchError


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
