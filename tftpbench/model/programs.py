"""Where programs and Python environments of servers are looked for. It must never start one."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path

# Servers live where a user's PATH often doesn't look.
EXTRA_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def peers_folder() -> Path:
    """Where fetched servers are: $TFTPBENCH_PEERS, else peers/ of the clone, else the user's data folder (XDG)."""
    chosen = os.environ.get("TFTPBENCH_PEERS")
    if chosen:
        return Path(chosen).absolute()
    clone = Path(__file__).resolve().parents[2]
    if (clone / "pyproject.toml").is_file():
        return clone / "peers"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share") / "tftpbench/peers"


def find_program(name: str, peer: Path) -> str | None:
    """Path of a program: fetched, else in PATH, else where servers are."""
    return shutil.which(name, path=":".join([str(peer / "bin"), os.environ.get("PATH", ""), *EXTRA_PATH]))


def find_python(module: str, peer: Path | None) -> str | None:
    """The Python that has a module: the peer's own environment where it was fetched, else the one that runs this.

    Without `peer` its package comes with tftpbench, and what an earlier version fetched is not used.
    """
    if peer is not None and os.access(peer / "bin/python", os.X_OK):
        return str(peer / "bin/python")
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return sys.executable if spec is not None else None
