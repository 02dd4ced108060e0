"""Servers under test, as their manifests describe them (docs/manifest-format.md).

A manifest is data: how to find a server, what it can do, which command starts it. No Python code names a
server, and nothing here starts one; only the version command is run, briefly. Called by the runner and the
command line.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic import Strict as StrictType

from tftpbench import documents
from tftpbench.documents import Allowed, KeyFault, Strict
from tftpbench.errors import ManifestError
from tftpbench.spelling import did_you_mean

SCHEMA = "tftpbench.server/1"
PLACEHOLDERS = ("python", "program", "folder", "host", "port", "root", "concurrency")
OPTIONS = ("blksize", "windowsize", "tsize", "timeout", "rollover")
VERSION_TIMEOUT_S = 10.0
VERSION_LENGTH_MAX = 120
# Servers live where a user's PATH often doesn't look.
EXTRA_PATH = ("/usr/local/sbin", "/usr/sbin", "/sbin")
BLKSIZE_DEFAULT = 512
WINDOWSIZE_DEFAULT = 1
_PLACEHOLDER = re.compile(r"\{(\w*)\}")

Argv = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Allowed("a list of words")]
Line = Annotated[str, Field(pattern=r"^\S[^\n]*$"), Allowed("one line of text")]


@dataclass(frozen=True)
class Found:
    """A server that is installed: the first line its version command printed, and what would be run."""

    version: str
    executable: str


@dataclass(frozen=True)
class Missing:
    """A server that can't be run here, why, and how to get it."""

    reason: str
    get: str


class Capabilities(Strict):
    """What the server can do; cells beyond it are skipped."""

    operations: Annotated[tuple[Literal["read", "write"], ...], Allowed("a list of read, write")] = Field(
        min_length=1, description="read: answers RRQ; write: answers WRQ."
    )
    options: Annotated[
        tuple[Literal["blksize", "windowsize", "tsize", "timeout", "rollover"], ...],
        Allowed(f"a list of {', '.join(OPTIONS)}"),
    ] = Field(default=(), description="Options it negotiates.")
    ipv6: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False, description="Whether it can listen on an IPv6 address."
    )


class Find(Strict):
    """How its presence is known: exactly one of the two."""

    program: Annotated[Line | None, Allowed("the name or path of a program")] = Field(
        default=None, description="A program in PATH, /usr/sbin or /sbin; {program} in argv is its path."
    )
    python_module: Annotated[Line | None, Allowed("the name of a Python module")] = Field(
        default=None, description="A module of the Python that runs tftpbench."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.program is None) == (self.python_module is None):
            raise KeyFault((), "is not clear; allowed: exactly one of program and python_module")
        return self


class Variant(Strict):
    """Another way to start the same server."""

    argv: Argv = Field(min_length=1, description="The whole command, in place of the usual argv.")


class Manifest(Strict):
    """A whole server.yaml. Built by load_manifest."""

    schema_id: Annotated[Literal["tftpbench.server/1"], Allowed(SCHEMA)] = Field(
        alias="schema", description="The version of this format."
    )
    name: Annotated[str, Allowed("small letters, digits, - and _, at most 40 of them")] = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$", description="What scenarios and results call it."
    )
    homepage: Line = Field(description="Where it comes from.")
    license: Line = Field(description="Its licence.")
    model: Line = Field(description="Its concurrency model, in words.")
    capabilities: Capabilities = Field(description="What it can do.")
    argv: Argv = Field(min_length=1, description="The command, word by word, with placeholders.")
    argv_write: Argv = Field(default=(), description="Words added where clients write.")
    find: Find = Field(description="How its presence is known.")
    version: Argv | None = Field(
        default=None, description="A command whose first line of output is its version; null where it has none."
    )
    get: Line = Field(description="How to get it, one line.")
    ready: Annotated[Literal["line", "answer"], Allowed("line, answer")] = Field(
        default="answer",
        description="line: it prints `READY host port pid`; answer: it answers an RRQ for an absent name.",
    )
    fixed_port: Annotated[Annotated[int, StrictType()] | None, Allowed("1 to 65535, or null")] = Field(
        default=None, ge=1, le=65535, description="The only port it can listen on, where it can't be told another."
    )
    privileges: Annotated[Line | None, Allowed("one line of text, or null")] = Field(
        default=None, description="What it needs beyond an ordinary user, in words."
    )
    caps: Annotated[dict[str, str], Allowed("names of limits, each with one line of text")] = Field(
        default={}, description="Limits it has by default, and how argv lifts them."
    )
    as_shipped: Variant | None = Field(
        default=None, description="The variant without lifting: chosen as name@as_shipped."
    )

    _source: Path = PrivateAttr(default=Path("server.yaml"))

    @model_validator(mode="after")
    def _check_commands(self) -> Self:
        commands = [("argv", self.argv, True), ("argv_write", self.argv_write, False)]
        commands += [("version", self.version or (), False)]
        for key, words, whole in commands:
            self._check_words((key,), words, whole)
        if self.as_shipped is not None:
            self._check_words(("as_shipped", "argv"), self.as_shipped.argv, True)
        return self

    @property
    def source(self) -> Path:
        """The server.yaml it was read from."""
        return self._source

    @property
    def variants(self) -> tuple[str, ...]:
        """Names that may follow the @ in a choice of this server."""
        return ("as_shipped",) if self.as_shipped is not None else ()

    def locate(self) -> Found | Missing:
        """Look for the server on this machine, and ask it its version (at most VERSION_TIMEOUT_S)."""
        executable = self._executable()
        if executable is None:
            return Missing(f"{self._wanted()} was not found", self.get)
        if self.version is None:
            return Found("unknown", executable)
        command = _fill(self.version, self._places(executable))
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=VERSION_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return self._broken(command, f"did not end within {VERSION_TIMEOUT_S:g} s")
        except OSError as error:
            return self._broken(command, f"can't be run: {error.strerror}")
        line = next((text for text in done.stdout.decode("utf-8", "replace").splitlines() if text.strip()), "")
        line = line.strip()[:VERSION_LENGTH_MAX]
        if done.returncode != 0 or not line:
            return self._broken(command, f"ended with {done.returncode}, saying {line!r}")
        return Found(line, executable)

    def command(
        self, host: str, port: int, root: Path | str, concurrency: int, write: bool, variant: str | None = None
    ) -> list[str]:
        """The argv that serves `root` on host:port, fit for `concurrency` transfers and the harness's head-room."""
        argv = self.argv
        if variant is not None:
            if self.as_shipped is None or variant not in self.variants:
                allowed = ", ".join(self.variants) or "none"
                raise ManifestError(f"{self.source}: has no variant {variant!r}; allowed: {allowed}")
            argv = self.as_shipped.argv
        places = self._places(self._executable() or self._wanted())
        places |= {"host": host, "port": str(port), "root": str(root), "concurrency": str(concurrency)}
        return _fill(argv + (self.argv_write if write else ()), places)

    def cannot(
        self,
        operation: str | None = None,
        blksize: int | None = None,
        windowsize: int | None = None,
        ipv6: bool = False,
        options: Sequence[str] = (),
    ) -> str | None:
        """Why a cell is beyond this server, in words; None where it isn't. `options`: others that clients ask for."""
        able = self.capabilities
        if operation is not None and operation not in able.operations:
            return f"{self.name} has no {operation}"
        wanted = [*options]
        if blksize not in (None, BLKSIZE_DEFAULT):
            wanted.append("blksize")
        if windowsize not in (None, WINDOWSIZE_DEFAULT):
            wanted.append("windowsize")
        for option in wanted:
            if option not in able.options:
                return f"{self.name} does not know {option}"
        if ipv6 and not able.ipv6:
            return f"{self.name} has no IPv6"
        return None

    def _check_words(self, key: tuple[str, ...], words: Sequence[str], whole: bool) -> None:
        used = {name for word in words for name in _PLACEHOLDER.findall(word)}
        for name in sorted(used - set(PLACEHOLDERS)):
            hint = did_you_mean(name, PLACEHOLDERS)
            allowed = ", ".join(f"{{{place}}}" for place in PLACEHOLDERS)
            raise KeyFault(key, f"has the placeholder {{{name}}}{hint}; allowed: {allowed}")
        if "program" in used and self.find.program is None:
            raise KeyFault(key, "has {program}, but find names none; allowed: {program} beside find.program")
        if whole and "root" not in used:
            raise KeyFault(
                key, "has no {root}, so the server can't know which files to serve; allowed: a word with {root}"
            )
        if whole and "port" not in used and self.fixed_port is None:
            raise KeyFault(key, "has no {port}; allowed: a word with {port}, or fixed_port")

    def _executable(self) -> str | None:
        if self.find.program is not None:
            return shutil.which(self.find.program) or shutil.which(self.find.program, path=":".join(EXTRA_PATH))
        try:
            spec = importlib.util.find_spec(str(self.find.python_module))
        except (ImportError, ValueError):
            return None
        return sys.executable if spec is not None else None

    def _places(self, executable: str) -> dict[str, str]:
        return {"python": sys.executable, "program": executable, "folder": str(self.source.parent)}

    def _wanted(self) -> str:
        return self.find.program or f"Python module {self.find.python_module}"

    def _broken(self, command: Sequence[str], what: str) -> Missing:
        return Missing(f"its version command ({' '.join(command)}) {what}"[:300], self.get)


def load_manifest(path: Path) -> Manifest:
    """Read a server.yaml, or the folder that holds one; ManifestError says in one line what is wrong with it."""
    path = path / "server.yaml" if path.is_dir() else path
    loaded = documents.parse(documents.read(path, ManifestError), Manifest)
    loaded._source = path.resolve()  # noqa: SLF001 (a private attribute, so that no file can set it)
    return loaded


def bundled_manifests() -> dict[str, Manifest]:
    """The manifests that come with tftpbench, by name."""
    loaded = [load_manifest(path) for path in _bundled_paths().values()]
    return {each.name: each for each in loaded}


def manifest(name_or_path: str) -> Manifest:
    """A bundled manifest by name, or one from a path (anything with a slash or .yaml)."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return load_manifest(Path(name_or_path))
    known = _bundled_paths()
    if name_or_path in known:
        return load_manifest(known[name_or_path])
    hint = did_you_mean(name_or_path, known)
    raise ManifestError(
        f"no server is called {name_or_path!r}{hint}; allowed: {', '.join(known)}, or the path of a server.yaml"
    )


def choose(entry: str) -> tuple[Manifest, str | None]:
    """The manifest and variant of an entry of a scenario's `servers`: name, name@variant, path or path@variant."""
    name, at, variant = entry.rpartition("@") if re.search(r"@[a-z_]+$", entry) else (entry, "", "")
    chosen = manifest(name)
    if at and variant not in chosen.variants:
        allowed = ", ".join(f"{chosen.name}@{known}" for known in chosen.variants) or chosen.name
        raise ManifestError(f"{chosen.name} has no variant {variant!r}; allowed: {allowed}")
    return chosen, variant or None


def _bundled_paths() -> dict[str, Path]:
    """Folder name to server.yaml; a bundled manifest's name is its folder's."""
    folder = Path(__file__).parent / "_bundled" / "servers"
    return {path.parent.name: path for path in sorted(folder.glob("*/server.yaml"))}


def _fill(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    return [_PLACEHOLDER.sub(lambda match: places.get(match[1], match[0]), word) for word in words]
