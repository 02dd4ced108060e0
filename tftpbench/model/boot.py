"""A boot: the transfers of one machine in order, as a real client asks for them, read from boots/NAME.yaml.

Data about one client; it must never send a datagram.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tftpbench.model.values import Operation

Ends = Literal["whole", "missing", "stop"]
Then = Literal["give_up", "restart_transfer", "restart_boot"]
Nack = Literal["gap", "block", "none"]
Certainty = Literal["documented", "less certain"]


@dataclass(frozen=True)
class Step:
    """One request of a boot. Times in ns.

    `name`: with variables of the machine alone. `options`: in the order of the wire; a put's tsize is "{size}".
    `size_bytes`: of the file that is read or written; None for an expected miss. `file`: the number of its contents,
    equal for equal names; -1 for a miss. `ends`: read or written to its end, expected to be refused with an ERROR, or
    ended by the client `stop_after` 0, the first answer, or DATA block k, with ERROR `stop_code` and `stop_text`.
    `think_ns`: pause after the step before it. `waits_ns`: how long each sending of the request waits for an answer;
    `reading_waits_ns`: the same of every later datagram. `then`: what follows when they are used up, at most
    `restarts_max` times. `nack`: what it answers to DATA out of order: an ACK for each gap, for each such block, or
    nothing. `contents`: compared with this file instead of made contents.
    """

    operation: Operation
    name: str
    options: tuple[tuple[str, str], ...]
    size_bytes: int | None
    file: int
    ends: Ends
    stop_after: int
    stop_code: int
    stop_text: str
    think_ns: int
    waits_ns: tuple[int, ...]
    reading_waits_ns: tuple[int, ...]
    then: Then
    restarts_max: int
    nack: Nack
    contents: Path | None = None


@dataclass(frozen=True)
class Boot:
    """A boot profile. `sources`: by the names that its steps use; `step_sources`: such a name for each step."""

    name: str
    description: str
    certainty: Certainty
    steps: tuple[Step, ...]
    sources: Mapping[str, str]
    step_sources: tuple[str, ...]


@dataclass(frozen=True)
class Share:
    """One part of a mix; a single boot is one share of weight 1."""

    name: str
    weight: int
    steps: tuple[Step, ...]


class File(NamedTuple):
    """A file that a root must hold, by the template of its name."""

    name: str
    file: int
    size_bytes: int
    operation: Operation


class BootFacts(NamedTuple):
    """What one machine asks for, the mean of a mix. `blocks`: DATA at each step's blksize, on the wire."""

    requests: float
    files: float
    misses: float
    bytes: float
    blocks: float


def load_boot(name_or_path: str | Path) -> Boot:
    """The boot profile in a file, or the bundled one of this name. Raises BootError, a line for each mistake."""
    raise NotImplementedError(name_or_path)


def mapped(boot: Boot, names: Mapping[str, str]) -> Boot:
    """The boot with other names of its files, as in {"loader": "pxelinux.0"}. Raises BootError."""
    raise NotImplementedError(boot, names)


def shares(parts: Sequence[tuple[Boot, int]]) -> tuple[Share, ...]:
    """The shares of a mix, their files numbered over all of them; BootError where one name has two sizes."""
    raise NotImplementedError(parts)


def files(parts: Sequence[Share]) -> list[File]:
    """What a root must hold, each once."""
    raise NotImplementedError(parts)


def boot_facts(parts: Sequence[Share]) -> BootFacts:
    """What a machine asks for: the mean over the weights."""
    raise NotImplementedError(parts)
