"""Fetches third-party servers, each into a folder of its own: nothing is installed, nothing needs root.

A `Fetch` says what to get from whom; afterwards `folder/bin` holds the programs, wherever they came from. The package
clients of the system do the work: apt-get and dpkg-deb, pip, cargo, go, npm. It must never touch the system's own
packages, nor the environment that tftpbench runs in.
"""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tftpbench.model.errors import FetchError
from tftpbench.model.manifest import Fetch

# A crate of some hundred dependencies compiles in 3 minutes on 2 slow cores.
COMMAND_TIMEOUT_S = 1200.0
# Most of a fetch is waiting for others' machines; compilers use the cores by themselves.
WORKERS = 4
# Lists of packages change daily, and a package of yesterday's list may be gone.
APT_LISTS_AGE_MAX_S = 86_400.0
_MARKER = ".fetched"
_WRAPPER = """\
#!/bin/sh
here=$(dirname "$0")/..
export LD_LIBRARY_PATH="{libraries}"
exec "$here/{program}" "$@"
"""


@dataclass(frozen=True)
class Wanted:
    """What a fetch is for: a name to call it by, its folder, where it comes from, and how else to get it."""

    name: str
    folder: Path
    source: Fetch
    get: str


def fetch_all(what: str, wanted: Sequence[Wanted], say: Callable[[str], None]) -> int:
    """The number that could not be fetched. `say` gets a line for each as it ends, and then one line for all `what`."""
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        waiting = {pool.submit(fetch, each.folder, each.source): each for each in wanted}
        try:
            for done in as_completed(waiting):
                each = waiting[done]
                try:
                    say(f"{each.name}: {'fetched into' if done.result() else 'is here already:'} {each.folder}")
                except FetchError as error:
                    failed[each.name] = str(error)
                    say(f"{each.name}: not fetched: {error}; get it: {each.get}")
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # those that have not begun
            raise
    reasons = "".join(f"; not {name}: {reason}" for name, reason in sorted(failed.items()))
    say(f"{len(wanted) - len(failed)} of {len(wanted)} {what} fetched{reasons}")
    return len(failed)


def fetch(folder: Path, wanted: Fetch) -> bool:
    """Get `wanted` into `folder`; False when it was there already. FetchError says in one line what went wrong."""
    try:
        with _lock(folder):
            return _fetch(folder, wanted)
    except OSError as error:
        raise FetchError(f"{folder}: {error.strerror}; name another place with TFTPBENCH_PEERS") from None


def _fetch(folder: Path, wanted: Fetch) -> bool:
    marker, aside = folder / _MARKER, folder.with_name(f".{folder.name}.old")
    content = json.dumps(wanted.model_dump(exclude_none=True))
    if marker.is_file() and marker.read_text(encoding="utf-8") == content:
        return False
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)  # it works until the new one does
    try:
        folder.mkdir(parents=True)
        _get(folder, wanted)
        marker.write_text(content, encoding="utf-8")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # half a server would be found, and fail
        if aside.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _get(folder: Path, wanted: Fetch) -> None:
    for kind, get in _KINDS.items():
        value = getattr(wanted, kind)
        if value is not None:
            get(folder, (value,) if isinstance(value, str) else value)


def _debian(folder: Path, packages: Sequence[str]) -> None:
    """Unpack packages, and the libraries that they need and this machine lacks."""
    apt = _apt(folder.parent / ".apt")
    simulated = _run([*apt, "-s", "install", "--no-install-recommends", *packages])
    lacking = [line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")]
    archives = folder / ".archives"
    archives.mkdir()
    _run([*apt, "download", *dict.fromkeys([*packages, *lacking])], cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(archive), str(folder)])
    shutil.rmtree(archives)
    _collect_programs(folder)


def _apt(state: Path) -> list[str]:
    """apt-get with lists and cache of its own, as an ordinary user may have them; the lists are renewed daily."""
    lists, cache = state / "lists", state / "cache"
    options = {"Dir::State::Lists": lists, "Dir::Cache": cache, "Debug::NoLocking": "1", "APT::Sandbox::User": ""}
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    renewed = state / "renewed"
    with _lock(state):
        age_s = time.time() - renewed.stat().st_mtime if renewed.is_file() else APT_LISTS_AGE_MAX_S + 1
        if age_s > APT_LISTS_AGE_MAX_S:
            for place in (lists / "partial", cache / "archives/partial"):
                place.mkdir(parents=True, exist_ok=True)
            _run([*apt, "update"])
            renewed.touch()
    return apt


def _collect_programs(folder: Path) -> None:
    """bin/ with a link to every unpacked program, or a wrapper that lets it find unpacked libraries."""
    places = [folder / place for place in ("usr/sbin", "usr/bin", "sbin", "bin")]
    programs = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
    libraries = [*sorted(folder.glob("usr/lib/*-linux-*")), *sorted(folder.glob("lib/*-linux-*"))]
    own = folder / "bin"
    if own in places and own.is_dir():  # a package with programs in /bin: make room for ours
        own.rename(folder / "bin.unpacked")
        programs = [folder / "bin.unpacked" / path.name if path.parent == own else path for path in programs]
    own.mkdir()
    for path in programs:
        inside = path.relative_to(folder)
        if libraries:
            text = _WRAPPER.format(
                program=inside, libraries=":".join(f"$here/{place.relative_to(folder)}" for place in libraries)
            )
            (own / path.name).write_text(text, encoding="utf-8")
            (own / path.name).chmod(0o755)
        else:
            (own / path.name).symlink_to(Path("..") / inside)


def _pypi(folder: Path, requirements: Sequence[str]) -> None:
    _run([sys.executable, "-m", "venv", str(folder)])
    _run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *requirements])


def _cargo(folder: Path, crates: Sequence[str]) -> None:
    target = folder / ".target"
    _run(
        ["cargo", "install", "--quiet", "--locked", "--root", str(folder), *crates],
        env={"CARGO_TARGET_DIR": str(target)},
    )
    shutil.rmtree(target, ignore_errors=True)


def _go(folder: Path, modules: Sequence[str]) -> None:
    _run(["go", "install", *modules], env={"GOBIN": str(folder / "bin")})


def _npm(folder: Path, packages: Sequence[str]) -> None:
    words = ["--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    _run(["npm", "install", *words, *packages])
    (folder / "bin").symlink_to("node_modules/.bin")


_KINDS: dict[str, Callable[[Path, Sequence[str]], None]] = {
    "debian": _debian,
    "pypi": _pypi,
    "cargo": _cargo,
    "go": _go,
    "npm": _npm,
}


def _run(command: Sequence[str], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """What the command printed; FetchError with the last line of its output where it failed."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise FetchError(f"needs {command[0]}, which is not here") from None
    except OSError as error:
        raise FetchError(f"{command[0]} can't be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{command[0]} did not end within {COMMAND_TIMEOUT_S:g} s") from None
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        spoken = [line.strip() for line in text.splitlines() if line.strip()]
        said = next((line for line in reversed(spoken) if line.lower().startswith(("e:", "error"))), "")
        raise FetchError(f"{' '.join(command[:2])} failed: {(said or ' '.join(spoken[-1:]))[:200]}")
    return text


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One fetch at a time for a folder, across processes (flock(2)). The lock's file lies beside the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_name(f".{folder.name}.lock"), "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
