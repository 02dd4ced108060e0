"""`Handover`: uploads of a server, mapped into this program without a copy.

The server gets one end of a UNIX socket and sends a datagram for each upload that is whole: its size, its name, and the
descriptor of sealed memory (crates/tftpbench-net/src/handover.rs). It must never give out memory that could still
change or shrink, which would be a SIGBUS of the program, and never wait without being woken by the server's end.
"""

import contextlib
import fcntl
import mmap
import os
import select
import socket
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tftpbench.model.errors import ServerError

_F_SEAL_FUTURE_WRITE = 0x0010  # fcntl(2), Linux 5.1; Python has no name for it yet
_SIZE = struct.Struct("<Q")
_MESSAGE_BYTES_MAX = _SIZE.size + 4096  # a request is shorter, and so is the name in it


@dataclass(frozen=True)
class Upload:
    """A file that a client has uploaded whole.

    `name` is its path below the server's root; bytes that are no UTF-8 are kept as os.fsdecode keeps them. `data` is a
    read-only view of memory that the server maps too: nothing was copied, it is sealed against writing, and it stays
    valid when the server has ended.
    """

    name: str
    data: memoryview


class Handover:
    """Our end of the socket. Safe to use from several threads; each upload goes to one of them."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()

    @property
    def their_fd(self) -> int:
        """The descriptor that the server is to inherit."""
        return self._theirs.fileno()

    def was_inherited(self) -> None:
        """The server has its end; when all its processes are gone, so is the last copy."""
        self._theirs.close()

    def receive(self, timeout_s: float | None) -> Upload | None:
        """The next upload; None when none came in time, or none can come any more.

        Raises ServerError for what is no upload, or can't be mapped here.
        """
        with self._lock:
            if self._ours.fileno() < 0:
                return None
            poll = select.poll()
            poll.register(self._ours, select.POLLIN)
            if not poll.poll(None if timeout_s is None else timeout_s * 1000):
                return None
            self._check_descriptors()
            message, fds, flags, _ = socket.recv_fds(self._ours, _MESSAGE_BYTES_MAX, 1, socket.MSG_CMSG_CLOEXEC)
        try:
            if not message and not fds:
                return None
            if len(fds) != 1 or len(message) <= _SIZE.size or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                raise ServerError(f"handed over what is no upload: {len(message)} bytes, {len(fds)} descriptors")
            (size,) = _SIZE.unpack_from(message)
            name = os.fsdecode(message[_SIZE.size :])
            return Upload(name, _map(name, fds[0], size))
        finally:
            _close(fds)

    def close(self) -> None:
        """Give up what has not been taken. A thread waiting in `receive` gets what is there already, and then None."""
        self._theirs.close()
        with contextlib.suppress(OSError):  # closed already
            self._ours.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._ours.close()

    def _check_descriptors(self) -> None:
        """An upload whose descriptor found no place would be lost: see first whether there is room for two.

        The second is for mmap, which keeps one for as long as its memory is used.
        """
        spare: list[int] = []
        try:
            spare += [os.dup(self._ours.fileno())]
            spare += [os.dup(self._ours.fileno())]
        except OSError as error:
            raise ServerError(
                f"has an upload for which no descriptor is left ({error.strerror}): each takes one while its data is "
                "used; release some, or raise the limit (ulimit -n)"
            ) from None
        finally:
            _close(spare)


def _map(name: str, fd: int, size: int) -> memoryview:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if not (seals & fcntl.F_SEAL_SHRINK and seals & (fcntl.F_SEAL_WRITE | _F_SEAL_FUTURE_WRITE)):
        raise ServerError(f"handed over {name!r} in something other than sealed memory")
    if os.fstat(fd).st_size != size:
        raise ServerError(f"handed over {name!r} with {size} bytes, but its memory has {os.fstat(fd).st_size}")
    if size == 0:
        return memoryview(b"")  # mmap(2) has no empty mappings
    try:
        # MAP_PRIVATE shows the same pages: before Linux 6.7 a shared mapping of write-sealed memory may be refused.
        return memoryview(mmap.mmap(fd, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
    except (OSError, OverflowError, ValueError) as error:
        raise ServerError(f"handed over {name!r} with {size} bytes, which can't be mapped: {error}") from None


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
