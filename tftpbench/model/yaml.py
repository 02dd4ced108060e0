"""One YAML file as plain data, with the line and column of each key.

YAML 1.2's core types only: `off`, `yes` and `1:30` are text here, as they look. Size, depth and number of
values are bounded, so that neither a large file nor aliases of aliases can fill the memory. It must never
build an object that the text names.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tftpbench.model.errors import UsageError
from tftpbench.model.regular_file import UnfitFile, read_regular

# The largest file that we ship has 1 KiB; these limits are far from any honest file.
SIZE_MAX_BYTES = 256 * 1024
VALUES_MAX = 20_000
# A scenario that is written out has a list for each single value, and every default.
DATA_VALUES_MAX = 10 * VALUES_MAX
DEPTH_MAX = 20
DIGITS_MAX = 30

Key = str | int
KeyPath = tuple[Key, ...]


@dataclass(frozen=True)
class Origin:
    """Where a value was written: a file's line and column (both from 1), or the how manieth --set, without a line."""

    source: str
    line: int = 0
    column: int = 0

    @property
    def is_set(self) -> bool:
        """Whether a --set wrote it."""
        return self.column > 0 and not self.line

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass
class Document:
    """A mapping read from a file, the origin of each key, and the error to raise when it is wrong.

    `mistakes`: keys that are written twice, of which the first counts; anything else that is wrong is no document.
    """

    source: str
    data: dict[str, object]
    fault: type[UsageError]
    origins: dict[KeyPath, Origin] = field(default_factory=dict)
    mistakes: list[tuple[KeyPath, Origin, str]] = field(default_factory=list)

    def origin(self, path: KeyPath) -> Origin:
        """Where `path` was written, or the nearest key around it that was."""
        return self.origins.get(path[: self._known(path)], Origin(self.source))

    def written(self, path: KeyPath) -> tuple[Origin, KeyPath]:
        """What was written and which part of it is at `path`: equal for all places that one --set reaches."""
        origin = self.origin(path)
        reached = self._known(path) if origin.is_set else 0  # what a file wrote is at one place
        return origin, (*(part for part in path[:reached] if isinstance(part, str)), *path[reached:])

    def _known(self, path: KeyPath) -> int:
        """The length of the nearest key at or around `path` whose origin is known."""
        return next((length for length in range(len(path), -1, -1) if path[:length] in self.origins), 0)

    def assign(self, assignment: str) -> None:
        """Apply one `--set KEY=VALUE`: KEY has dots between its parts, VALUE is YAML.

        Where a part holds a list of mappings, it means each of them.
        """
        earlier = max((each.column for each in self.origins.values() if each.is_set), default=0)
        origin = Origin(f"--set {assignment}", column=earlier + 1)
        key, equals, text = assignment.partition("=")
        parts = tuple(key.strip().split(".", DEPTH_MAX))
        if not equals or not all(parts) or len(parts) > DEPTH_MAX:
            raise self.fault(f"{origin}: is no assignment; allowed: KEY=VALUE, as in matrix.concurrency=[3,10]")
        reader = _Reader(str(origin), self.fault)
        value = reader.read(text)
        self.mistakes += [((*parts, *path), origin, wrong) for path, _, wrong in reader.mistakes]
        inners: list[tuple[KeyPath, dict[str, object]]] = [((), self.data)]
        for part in parts[:-1]:
            inners = [found for path, inner in inners for found in self._below(inner, part, (*path, part), origin)]
        for path, inner in inners:
            inner[parts[-1]] = value
            self._set((*path, parts[-1]), origin)

    def _below(
        self, inner: dict[str, object], part: str, path: KeyPath, origin: Origin
    ) -> list[tuple[KeyPath, dict[str, object]]]:
        """The mappings at a key, with their paths; what is no mapping gives way to one, which `origin` then wrote."""
        value = inner.get(part)
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            return [((*path, index), each) for index, each in enumerate(value)]
        if not isinstance(value, dict):
            inner[part] = value = {}
            self._set(path, origin)
        return [(path, value)]

    def _set(self, place: KeyPath, origin: Origin) -> None:
        for known in [known for known in self.origins if known[: len(place)] == place]:
            del self.origins[known]
        self.origins[place] = origin


def value(text: str, source: str, fault: type[UsageError]) -> object:
    """What a text in YAML says, read as a document is; `source` names it. Raises `fault` with one line."""
    reader = _Reader(source, fault)
    found = reader.read(text)
    for _, _, wrong in reader.mistakes:
        raise fault(f"{source}: {wrong}")
    return found


def read(path: Path, fault: type[UsageError], max_bytes: int = SIZE_MAX_BYTES) -> Document:
    """Read one YAML mapping from a regular file; raises `fault` with one line where that fails."""
    source = str(path)
    try:
        content = read_regular(path, max_bytes)
    except (FileNotFoundError, NotADirectoryError):
        raise fault(f"{source}: there is no such file") from None
    except UnfitFile as error:
        raise fault(f"{source}: {error.strerror}") from None
    except OSError as error:
        raise fault(f"{source}: can't be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(f"{source}: byte {error.start} is not UTF-8") from None
    reader = _Reader(source, fault)
    data = reader.read(text)
    if not isinstance(data, dict):
        raise fault(f"{source}:1:1: the file is {_kind(data)}; allowed: a mapping of keys to values")
    return Document(source, data, fault, reader.origins, reader.mistakes)


def from_data(data: Mapping[str, object], source: str, fault: type[UsageError]) -> Document:
    """A document of data that came from elsewhere (a run's manifest.json); it has no lines.

    Raises `fault` where it is deeper or larger than any that a file makes.
    """
    left = DATA_VALUES_MAX
    inner: list[tuple[object, int]] = [(data, 0)]
    while inner:
        value, depth = inner.pop()
        below = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
        left -= len(below)
        if depth > DEPTH_MAX:
            raise fault(f"{source}: is nested deeper than {DEPTH_MAX}")
        if left < 0:
            raise fault(f"{source}: holds more than {DATA_VALUES_MAX} values")
        inner += [(each, depth + 1) for each in below]
    return Document(source, dict(data), fault)


class _CoreLoader(yaml.SafeLoader):
    """The node composer of PyYAML with YAML 1.2's core types in place of YAML 1.1's."""

    # YAML 1.1, PyYAML's default, reads `off` as false and `1:30` as 90 (YAML 1.2.2 section 10.3 does not). ruamel.yaml
    # would need a table, too: its YAML 1.2 reads `1_000` and `0b11` as numbers and `2001-12-14` as a date.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own name and way)


# Escapes of YAML can make what UTF-8 lacks, and what execve(2) and open(2) refuse. U+DC80 to U+DCFF stand for the bytes
# of a file's name that is no UTF-8 (PEP 383): --set may hold them.
_NO_TEXT = re.compile("[\x00\ud800-\udc7f\udd00-\udfff]")

_PLAIN_TYPES = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
}
_TAG = "tag:yaml.org,2002:"
for _name, (_pattern, _first) in _PLAIN_TYPES.items():
    _CoreLoader.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_pattern})$"), _first)


class _Reader:
    """Turns one text into plain data once, within the limits."""

    def __init__(self, source: str, fault: type[UsageError]) -> None:
        self.source = source
        self.fault = fault
        self.origins: dict[KeyPath, Origin] = {}
        self.mistakes: list[tuple[KeyPath, Origin, str]] = []
        self._values = 0

    def read(self, text: str) -> object:
        if len(text) > SIZE_MAX_BYTES:  # of a --set
            raise self.fault(f"{self.source}: is larger than {SIZE_MAX_BYTES // 1024} KiB")
        try:
            node = yaml.compose(text, Loader=_CoreLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            raise self.fault(f"{self.source}{place}: is not YAML: {error.problem or error.context}") from None
        except yaml.reader.ReaderError as error:
            raise self.fault(f"{self.source}: is not YAML: character {error.character!r} at {error.position}") from None
        except RecursionError:
            raise self.fault(f"{self.source}: is nested too deeply") from None
        return None if node is None else self._plain(node, ())

    def _plain(self, node: yaml.Node, path: KeyPath) -> object:
        self._values += 1
        if self._values > VALUES_MAX:
            self._refuse(node, f"the file holds more than {VALUES_MAX} values, aliases counted")
        if len(path) > DEPTH_MAX:
            self._refuse(node, f"is nested deeper than {DEPTH_MAX}")
        self.origins.setdefault(path, self._origin(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        return self._refuse(node, f"has the tag {node.tag!r}; allowed: no tags")

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, "a key is a list or a mapping; allowed: a word")
            key = key_node.value
            if key in mapping:
                self.mistakes.append(((*path, key), self._origin(key_node), "is written twice"))
                continue
            self.origins[(*path, key)] = self._origin(key_node)
            mapping[key] = self._plain(value_node, (*path, key))
        return mapping

    def _scalar(self, node: yaml.ScalarNode) -> object:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if found := _NO_TEXT.search(text):
            self._refuse(node, f"holds {found[0]!r}, which is in no name and in no text")
        if tag == "str":
            return text
        if tag == "null":
            return None
        if tag == "bool" and text.lower() in {"true", "false"}:
            return text.lower() == "true"
        try:
            if tag == "int" and len(text) <= DIGITS_MAX:
                return int(text, 16) if text.startswith("0x") else int(text)
            if tag == "float" and len(text) <= DIGITS_MAX:
                return float(text)
        except ValueError:
            pass
        return self._refuse(node, f"{text[:40]!r} is no value of type {tag!r}")

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(self.source, node.start_mark.line + 1, node.start_mark.column + 1)

    def _refuse(self, node: yaml.Node, message: str) -> "object":
        raise self.fault(f"{self._origin(node)}: {message}")


def _kind(data: object) -> str:
    return {list: "a list", str: "text", type(None): "empty"}.get(type(data), "a single value")
