"""`TemporaryFolder`: a folder of our own that is gone afterwards, however this process ends.

A small process beside it (`remover.py`) removes it when this one is killed. It must never remove what it did not make.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from tftpbench.host.server import remover

_END_S = 5.0


class TemporaryFolder(AbstractContextManager["TemporaryFolder", None]):
    """Made at once, below `place` or where temporary files go; gone with `remove`, a `with` block, or this process."""

    def __init__(self, prefix: str, place: Path | None = None) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        try:
            process = _remover(self.path)
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        self._remove = weakref.finalize(self, _end, self.path, process, os.getpid())

    def remove(self) -> None:
        """Remove it with all that is in it. May be called again."""
        self._remove()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _remover(path: Path) -> "subprocess.Popen[bytes]":
    made = path.stat()
    return subprocess.Popen(
        [sys.executable, "-I", "-S", remover.__file__, str(path), str(made.st_dev), str(made.st_ino)],
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",  # it must hold no file system that a user wants to unmount
        start_new_session=True,  # Ctrl-C in the terminal, and its end, are for this process alone
    )


def _end(path: Path, process: "subprocess.Popen[bytes]", maker: int) -> None:
    if os.getpid() != maker:
        return  # a forked child: the folder is its parent's
    assert process.stdin is not None
    with contextlib.closing(process.stdin) as pipe:  # without the byte, as after a second Ctrl-C, the other removes it
        shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):
            pipe.write(b".")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_S)
