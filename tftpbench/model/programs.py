"""Where programs and Python environments are looked for: those of servers, and our own. It must never start one."""

import importlib.util
import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

PROGRAM = "tftpbench"

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


def typed(words: Sequence[str]) -> str:
    """A command line as it can be pasted where this program runs. `words`: "tftpbench" first.

    The program is a name where the shell finds this one by it, else the path that was typed or that lies beside Python.
    """
    first, *rest = words or [""]
    return shlex.join([*(_called() if first == PROGRAM else [first]), *rest])


def split_cluster(command: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command without the options of its load hosts, as --dask, and these with their values."""
    kept, options, words = [], [], iter(command)
    for word in words:
        if word.startswith("--dask"):
            options += [word, *itertools.islice(words, 1)]
        else:
            kept.append(word)
    return kept, options


def _called() -> list[str]:
    """The words that start this program; its name where another program, as a notebook, has loaded it."""
    started = Path(sys.argv[0])
    as_module = started.parts[-2:] == (PROGRAM, "__main__.py")
    if started.name != PROGRAM and not as_module:
        return [PROGRAM]
    own = Path(sys.executable).with_name(PROGRAM) if as_module else started
    found = shutil.which(PROGRAM)
    if found is not None and own.exists() and os.path.samefile(found, own):
        return [PROGRAM]
    known, python = (_from_here(path) for path in (own, Path(sys.executable)))
    return [known] if own.exists() else [python, "-m", PROGRAM]


def _from_here(path: Path) -> str:
    """As short as it can be typed in this folder, with a slash, so that the shell does not look for it in PATH."""
    here = Path.cwd()
    below = path.relative_to(here) if path.is_relative_to(here) else path
    return str(below) if len(below.parts) > 1 else f"./{below}"
