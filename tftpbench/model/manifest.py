"""A manifest: the keys of a server.yaml, the rules between them, and the command that follows from it.

Data about one server; it must never start it.
"""

import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator
from pydantic import Strict as StrictType

from tftpbench.model import programs, strict, yaml
from tftpbench.model.axes import BLKSIZE_DEFAULT, WINDOWSIZE_DEFAULT
from tftpbench.model.errors import ManifestError, suggest
from tftpbench.model.strict import Allowed, Checked, KeyFault, Strict

SCHEMA = "tftpbench.server/1"
PLACEHOLDERS = ("python", "program", "folder", "peer", "host", "port", "root", "concurrency")
PLACEHOLDERS_OF_HANDOVER = (*PLACEHOLDERS, "handover")
PLACEHOLDERS_OF_VERSION = PLACEHOLDERS[:4]  # nothing is served when it is asked
OPTIONS = ("blksize", "windowsize", "tsize", "timeout", "rollover")
BUNDLED = Path(__file__).parents[1] / "_bundled" / "servers"
_PLACEHOLDER = re.compile(r"\{(\w*)\}")

Word = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # execve(2) takes no other
Argv = Annotated[tuple[Annotated[Word, Field(min_length=1)], ...], Allowed("a list of words")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
VariantName = Annotated[str, Field(pattern=r"^[a-z_]+$")]
Line = Annotated[str, Field(pattern=r"^\S[^\n]*$"), Allowed("one line of text")]
# It becomes a word of a package client's command line: no option, no space.
Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9@][^\s]*$")]
Packages = Annotated[tuple[Package, ...] | None, Field(min_length=1), Allowed("a list of names of packages")]


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
        default=None,
        description="A program that was fetched, in PATH, /usr/sbin or /sbin, or a path from this file: {program}.",
    )
    python_module: Annotated[Line | None, Allowed("the name of a Python module")] = Field(
        default=None, description="A module of the environment that was fetched, else of the Python of tftpbench."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.program is None) == (self.python_module is None):
            raise KeyFault((), "is not clear; allowed: exactly one of program and python_module")
        return self


class Fetch(Strict):
    """What `tftpbench servers --fetch` gets into a folder of the server's own: exactly one of these."""

    debian: Packages = Field(
        default=None, description="Packages of Debian or Ubuntu, unpacked and never installed, with missing libraries."
    )
    pypi: Packages = Field(
        default=None, description="Python packages, as in tftpy==0.8.7, in an environment of its own."
    )
    cargo: Annotated[Package | None, Allowed("crate@version")] = Field(
        default=None, description="A crate, as in tftpd@1.0.0."
    )
    go: Annotated[Package | None, Allowed("module@version")] = Field(
        default=None, description="A Go module with its version."
    )
    npm: Packages = Field(default=None, description="Packages of Node; {peer}/node_modules has them.")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_dump(exclude_none=True)) != 1:
            raise KeyFault((), f"is not clear; allowed: exactly one of {', '.join(type(self).model_fields)}")
        return self


class Variant(Strict):
    """Another way to start the same server."""

    argv: Argv = Field(min_length=1, description="The whole command, in place of the usual argv.")
    busy_polls: Annotated[bool, StrictType(), Allowed("true, false")] = Field(
        default=False, description="It polls without sleeping, so its CPU time tells nothing."
    )


class Manifest(Checked):
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
    argv_write: Argv = Field(
        default=(), description="Words added where clients write, or files are uploaded to be read."
    )
    argv_handover: Argv = Field(
        default=(),
        description="Words added where uploads are handed to a program in memory; {handover} is a socket's descriptor.",
    )
    env: Annotated[dict[Variable, Word], Allowed("names of variables, each with a word")] = Field(
        default={}, description="Variables added to its environment, with placeholders."
    )
    find: Find = Field(description="How its presence is known.")
    version: Annotated[Argv | None, Allowed("a list of words, or null")] = Field(
        default=None,
        min_length=1,
        description="A command whose first line of output is its version; null where it has none.",
    )
    get: Line = Field(description="How to get it, one line.")
    fetch: Fetch | None = Field(
        default=None, description="What `tftpbench servers --fetch` gets; null where only its user can."
    )
    ready: Annotated[Literal["line", "answer"], Allowed("line, answer")] = Field(
        default="answer",
        description="line: it prints `READY host port pid`; answer: it answers an RRQ for an absent name.",
    )
    store: Annotated[Literal["root", "memory"], Allowed("root, memory")] = Field(
        default="root",
        description="memory: it serves nothing but what was uploaded to it; files to read are uploaded first.",
    )
    fixed_port: Annotated[Annotated[int, StrictType()] | None, Allowed("1 to 65535, or null")] = Field(
        default=None, ge=1, le=65535, description="The only port it can listen on, where it can't be given another."
    )
    privileges: Annotated[Line | None, Allowed("one line of text, or null")] = Field(
        default=None, description="Why it needs root, in words; without root it is skipped. null: it needs none."
    )
    caps: Annotated[dict[str, str], Allowed("names of limits, each with one line of text")] = Field(
        default={}, description="Limits it has by default, and how argv lifts them."
    )
    as_shipped: Variant | None = Field(
        default=None, description="The variant without lifting: chosen as name@as_shipped."
    )
    other_variants: Annotated[
        dict[VariantName, Variant], Allowed("names of small letters and _, each with a mapping with argv")
    ] = Field(alias="variants", default={}, description="Other ways to start it: chosen as name@variant.")

    _source: Path = PrivateAttr(default=Path("server.yaml"))
    _given_executable: str | None = PrivateAttr(default=None)
    _prefix: tuple[str, ...] = PrivateAttr(default=())

    def _faults(self) -> Iterator[KeyFault]:
        commands = [("argv", self.argv, True), ("argv_write", self.argv_write, False)]
        commands += [("argv_handover", self.argv_handover, False)]
        commands += [("version", self.version or (), False), ("env", tuple(self.env.values()), False)]
        for key, words, whole in commands:
            yield from self._faults_of_words((key,), words, whole)
        if self.as_shipped is not None:
            yield from self._faults_of_words(("as_shipped", "argv"), self.as_shipped.argv, True)
        for name, variant in self.other_variants.items():
            yield from self._faults_of_words(("variants", name, "argv"), variant.argv, True)
        if "as_shipped" in self.other_variants:
            yield KeyFault(("variants", "as_shipped"), "is a key of its own; allowed: as_shipped beside variants")
        if self.store == "memory" and "write" not in self.capabilities.operations:
            yield KeyFault(
                ("store",),
                "is memory, but it has no write; allowed: memory where operations has write",
                ["capabilities"],
            )

    @property
    def source(self) -> Path:
        """The server.yaml it was read from."""
        return self._source

    @property
    def origin(self) -> str:
        """The same for results: where it lies in tftpbench, for one that comes with it, else its path."""
        bundled = BUNDLED.resolve()
        inside = self.source.is_relative_to(bundled)
        return str(Path("servers") / self.source.relative_to(bundled)) if inside else str(self.source)

    @property
    def peer(self) -> Path:
        """The folder that `tftpbench servers --fetch` fills for it."""
        return programs.peers_folder() / self.name

    @property
    def variants(self) -> Mapping[str, Variant]:
        """By the names that may follow the @ in a choice of this server; as_shipped is one of them."""
        shipped = {} if self.as_shipped is None else {"as_shipped": self.as_shipped}
        return shipped | self.other_variants

    def argv_of(self, variant: str | None) -> tuple[str, ...]:
        """The words of its command with their placeholders; ManifestError for a variant that it has not."""
        return self.argv if variant is None else self._variant(variant).argv

    def busy_polls(self, variant: str | None) -> bool:
        """Whether it does not sleep while it waits: then its CPU time tells nothing."""
        return variant is not None and self._variant(variant).busy_polls

    def with_executable(self, path: Path) -> "Manifest":
        """The same server, but this program, or the Python of this environment, and none that would be found."""
        copy = self.model_copy()
        copy._given_executable = str(path.absolute())  # noqa: SLF001 (its own, of a copy)
        return copy

    def wrapped(self, words: Sequence[str]) -> "Manifest":
        """The same server, started by another program: `words` come before its command."""
        copy = self.model_copy()
        copy._prefix = (*words, *self._prefix)  # noqa: SLF001 (its own, of a copy)
        return copy

    def with_env(self, more: Mapping[str, str]) -> "Manifest":
        """The same server with more variables in its environment."""
        return self.model_copy(update={"env": {**self.env, **more}})

    def version_command(self, executable: str) -> list[str]:
        """The argv that prints its version; empty where there is none."""
        return _fill(self.version or (), self._places(executable))

    @property
    def wanted(self) -> str:
        """What is looked for, in words."""
        return self.find.program or f"Python module {self.find.python_module}"

    def executable(self) -> str | None:
        """Path of its program, or of the Python that has its module; None where neither is found."""
        if self._given_executable is not None:
            return shutil.which(self._given_executable)
        if self.find.program is not None:
            name = self.find.program
            # a path starts at the manifest, wherever tftpbench is run
            return programs.find_program(str(self.source.parent / name) if "/" in name else name, self.peer)
        return programs.find_python(str(self.find.python_module), self.peer if self.fetch else None)

    def command(
        self,
        host: str,
        port: int,
        root: Path | str,
        concurrency: int,
        write: bool,
        variant: str | None = None,
        handover: int | None = None,
    ) -> list[str]:
        """The argv that serves `root` on host:port, fit for `concurrency` transfers and the harness's head-room.

        `handover` is the descriptor of the socket that uploads are handed to.
        """
        places = self._running_places(host, port, root, concurrency)
        words = self.argv_of(variant) + (self.argv_write if write else ())
        if handover is None:
            return [*self._prefix, *_fill(words, places)]
        return [*self._prefix, *_fill(words + self.argv_handover, places | {"handover": str(handover)})]

    def environment(self, host: str, port: int, root: Path | str, concurrency: int) -> dict[str, str]:
        """The variables of `env`, with the same places as its command."""
        places = self._running_places(host, port, root, concurrency)
        return dict(zip(self.env, _fill(tuple(self.env.values()), places), strict=True))

    def cannot(
        self,
        operation: str | None = None,
        blksize: int | None = None,
        windowsize: int | None = None,
        ipv6: bool = False,
        options: Sequence[str] = (),
    ) -> str | None:
        """Why a cell is beyond it, as words after its name; None where it isn't. `options`: others that it needs."""
        able = self.capabilities
        if operation is not None and operation not in able.operations:
            return f"has no {operation}"
        wanted = [*options]
        if blksize not in (None, BLKSIZE_DEFAULT):
            wanted.append("blksize")
        if windowsize not in (None, WINDOWSIZE_DEFAULT):
            wanted.append("windowsize")
        for option in wanted:
            if option not in able.options:
                return f"does not know {option}"
        if ipv6 and not able.ipv6:
            return "has no IPv6"
        return None

    def _variant(self, name: str) -> Variant:
        if name not in self.variants:
            allowed = ", ".join(self.variants) or "none"
            raise ManifestError(f"{self.source}: has no variant {name!r}; allowed: {allowed}")
        return self.variants[name]

    def _faults_of_words(self, key: tuple[str, ...], words: Sequence[str], whole: bool) -> Iterator[KeyFault]:
        used = {name for word in words for name in _PLACEHOLDER.findall(word)}
        known = {"version": PLACEHOLDERS_OF_VERSION, "argv_handover": PLACEHOLDERS_OF_HANDOVER}.get(
            key[0], PLACEHOLDERS
        )
        unknown = sorted(used - set(known))
        for name in unknown:
            hint = suggest(name, known, f"; allowed: {', '.join(f'{{{place}}}' for place in known)}")
            yield KeyFault(key, f"has the placeholder {{{name}}}{hint}")
        if unknown:
            return  # a misspelt one is lacking, too
        if "program" in used and self.find.program is None:
            yield KeyFault(key, "has {program}, but find names none; allowed: {program} beside find.program", ["find"])
        if key == ("argv_handover",) and words and "handover" not in used:
            yield KeyFault(key, "has no {handover}; allowed: a word with {handover}")
        if whole and "root" not in used and self.store == "root":
            yield KeyFault(
                key,
                "has no {root}, so the server can't know which files to serve; allowed: a word with {root}",
                ["store"],
            )
        if whole and "port" not in used and self.fixed_port is None:
            yield KeyFault(key, "has no {port}; allowed: a word with {port}, or fixed_port", ["fixed_port"])

    def _running_places(self, host: str, port: int, root: Path | str, concurrency: int) -> dict[str, str]:
        places = self._places(self.executable() or self.wanted)
        return places | {"host": host, "port": str(port), "root": str(root), "concurrency": str(concurrency)}

    def _places(self, executable: str) -> dict[str, str]:
        python = executable if self.find.python_module is not None else sys.executable
        return {
            "python": python,
            "program": executable,
            "folder": str(self.source.parent),
            "peer": str(self.peer),
        }


def load_manifest(path: Path) -> Manifest:
    """Read a server.yaml, or the folder that holds one; ManifestError says what is wrong with it, a line each."""
    path = path / "server.yaml" if path.is_dir() else path
    loaded = strict.parse(yaml.read(path, ManifestError), Manifest)
    loaded._source = path.resolve()  # noqa: SLF001 (a private attribute, so that no file can set it)
    return loaded


def _fill(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    return [_PLACEHOLDER.sub(lambda match: places.get(match[1], match[0]), word) for word in words]
