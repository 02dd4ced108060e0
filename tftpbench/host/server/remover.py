"""Removes one folder once the process that made it is gone, however it went: kill -9 included.

Run as a program by temporary_folder.py: ``python -I -S remover.py PATH DEVICE INODE``. Standard input is a pipe whose
other end is the maker's: a byte says that the folder is gone already, its end that the maker is. It imports nothing but
the standard library. It must never remove anything but the one folder that it was given, known by its name, its
device and its inode; links in it are not followed (shutil.rmtree).
"""

import os
import shutil
import signal
import stat
import sys
import time

# A server that is being ended may still write there. Its supervisor needs 5 s for that at most.
REMOVE_S = 15.0
_AGAIN_S = 0.05


def is_same(path: str, device: int, inode: int) -> bool:
    """Whether the folder is still there, and is the one that was made."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) == (device, inode)


def main(arguments: list[str]) -> int:
    """Wait for the maker's end, then remove the folder."""
    path, device, inode = arguments[0], int(arguments[1]), int(arguments[2])
    # What ends the maker in order is for it alone: the pipe says when it is over.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return 0
    deadline = time.monotonic() + REMOVE_S
    while is_same(path, device, inode) and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)
        if is_same(path, device, inode):
            time.sleep(_AGAIN_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
