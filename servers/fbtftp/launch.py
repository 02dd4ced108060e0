"""Serves a folder with fbtftp, a library that leaves the files to its users. Called through server.yaml alone."""

import argparse
import logging
import multiprocessing
from pathlib import Path

from fbtftp.base_handler import BaseHandler, ResponseData
from fbtftp.base_server import BaseServer

# Those of the example server that fbtftp comes with.
RETRIES = 5
TIMEOUT_S = 2


def main() -> None:
    """Serve until killed; --loud logs to stderr at DEBUG, as the example that comes with fbtftp does."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--loud", action="store_true")
    asked = parser.parse_args()
    if asked.loud:
        logging.basicConfig(level=logging.DEBUG)
    else:
        logging.disable(logging.WARNING)
    # What it was written for, and no longer the default since Python 3.14.
    multiprocessing.set_start_method("fork")
    FolderServer(asked.host, asked.port, asked.root.resolve()).run()


class FolderServer(BaseServer):  # type: ignore[misc]  # it comes without types
    """Answers each request with a process for a file beneath the root."""

    def __init__(self, host: str, port: int, root: Path) -> None:
        self._root = root
        super().__init__(host, port, RETRIES, TIMEOUT_S)

    def get_handler(
        self, server: tuple[str, int], peer: tuple[str, int], path: str, options: dict[str, str]
    ) -> BaseHandler:
        """The process of one transfer, not yet started."""
        return FileHandler(self._root, server, peer, path, options)


class FileHandler(BaseHandler):  # type: ignore[misc]  # it comes without types
    """One transfer."""

    def __init__(
        self, root: Path, server: tuple[str, int], peer: tuple[str, int], path: str, options: dict[str, str]
    ) -> None:
        self._root = root
        super().__init__(server, peer, path, options, lambda _stats: None)

    def get_response_data(self) -> ResponseData:
        """The file; FileNotFoundError, here for a path that leaves the root too, becomes ERROR 1."""
        path = (self._root / self._path.lstrip("/")).resolve()
        if not path.is_relative_to(self._root):
            raise FileNotFoundError(self._path)
        return FileData(path)


class FileData(ResponseData):  # type: ignore[misc]  # it comes without types
    """A file as fbtftp wants to read it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = path.stat().st_size

    def read(self, count: int) -> bytes:
        """The next bytes, fewer than `count` at the end only."""
        return self._file.read(count)

    def size(self) -> int:
        """Bytes, for the tsize option."""
        return self._size

    def close(self) -> None:
        """Called once, at the end of the transfer."""
        self._file.close()


if __name__ == "__main__":
    main()
