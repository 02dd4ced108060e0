"""The axes of the matrix: what a scenario may vary, one record each. Everything else iterates over AXES.

A record makes the key of `matrix` in a scenario, its place in the JSON Schema and in docs, the column of results, the
part of a cell's label, the grouping of plots and comparisons, and the field of `cell_key`. What an axis *does* is in
`Cell` (model/workload.py) and where a load is made of it. It must never know a server or a result.

To add one: a record here, a field of `Cell`, and the line that makes the load of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any

from pydantic import Field

from tftpbench.model.keys import Added
from tftpbench.model.shown import Column, Dtype
from tftpbench.model.units import DURATION_ALLOWED, RATE_ALLOWED, SIZE_ALLOWED, format_bytes, format_duration, rate_text
from tftpbench.model.values import (
    IN_FLIGHT_LIMIT,
    MS,
    RATE_MAX,
    RATE_MIN,
    STARTS_MAX,
    Arrivals,
    Count,
    DurationNs,
    MixPart,
    Operation,
    RatePerS,
    ShapePiece,
    SizeBytes,
    Spread,
)

BLKSIZE_DEFAULT = 512  # RFC 1350 section 2
WINDOWSIZE_DEFAULT = 1  # RFC 7440 section 3
DAY_NS = 86_400_000 * MS
# More profiles than there are kinds of clients, more pieces than a day has quarters of an hour.
PARTS_MAX = 100


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    `name`: the field of `Cell` and the column of results; `key`: as in a scenario's `matrix`. `value`: the pydantic
    type of one value, `allowed` and `description` what is said of it. `default`: None where it must be given, or where
    it says what the load is: one of those must. `usual`: the value that a label need not name; `unless`: axes beside
    which it need not name this one at all. `joins`: axes after which its part of a label stands without a comma, as
    `joined` words it. `after`: the column that it stands after; None: the end. `is_load`: how many transfers there are,
    or how often they start. `of_files`: it says which files are moved how, which a boot says itself. `is_one`: its key
    holds one value, which is a list. `added`: the value that older runs implied, for an axis that schema 1 did not hash
    into `cell_key`; fixed for good.
    """

    name: str
    key: str
    value: Any
    allowed: str
    description: str
    meaning: str
    label: Callable[[Any], str]
    text: Callable[[Any], str] = str
    unit: str = ""
    dtype: Dtype = "int"
    default: object = None
    usual: object = None
    unless: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    joined: Callable[[Any], str] = str
    after: str | None = None
    is_load: bool = False
    of_files: bool = False
    is_one: bool = False
    added: Added | None = None

    @property
    def column(self) -> Column:
        """Its column in the rows of results."""
        return Column(self.unit, self.meaning, self.dtype, nullable=self.added is not None or self.of_files)

    @property
    def is_option(self) -> bool:
        """Whether a server may be at its best with one of its values."""
        return self.usual is not None and self.added is None


def _seconds(value_ns: int) -> str:
    return format_duration(value_ns) if value_ns else "0 s"


def _over_text(value_ns: int) -> str:
    return f"within {format_duration(value_ns)}" if value_ns else "at once"


def boot_name(name_or_path: str) -> str:
    """How people call a boot profile: a bundled one by its name, a file by that without folder and ending."""
    return PurePath(name_or_path).stem if "/" in name_or_path else name_or_path


def mix_text(mix: Sequence[tuple[str, int]] | str) -> str:
    """Write a mix as "8 uefi-grub : 2 pi4"; a text, as results have it, is left as it is."""
    return mix if isinstance(mix, str) else " : ".join(f"{weight} {boot_name(name)}" for name, weight in mix)


_FILES_UNLESS = ("boot", "mix")
AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            name="operation", key="operation", value=Operation, dtype="text", after="variant",
            of_files=True, unless=_FILES_UNLESS,
            allowed="read, write, or a list of both",
            description="read: clients download (RRQ); write: clients upload (WRQ).",
            meaning="read (RRQ) or write (WRQ); null where boots start.", label=str,
        ),
        Axis(
            name="machines_asked", key="machines", value=Annotated[Count, Field(ge=1, le=STARTS_MAX)], unit="machines",
            is_load=True, added=Added(None), allowed=f"1 to {STARTS_MAX}, or a list",
            description="Machines of a storm, which start once each within `over`; transfers where none boot.",
            meaning="Machines of a storm, or its transfers; null for other loads.",
            label=lambda value: f"{value} machine{'' if value == 1 else 's'}",
            text=lambda value: "-" if value is None else f"{value}",
        ),
        Axis(
            name="boot", key="boot", value=Annotated[str, Field(pattern=r"^\S[^\n]*$")], dtype="text",
            added=Added(None), allowed="the name of a boot profile, the path of one, or a list",
            description="Start boots of this profile, not single transfers (tftpbench boots lists them).",
            meaning="The boot profile of its machines; null for transfers, and for a mix.",
            label=lambda value: f"machines of {boot_name(value)}", text=boot_name,
            joins=("machines_asked",), joined=lambda value: f"of {boot_name(value)}",
        ),
        Axis(
            name="mix", key="mix", value=Annotated[tuple[MixPart, ...], Field(min_length=1, max_length=PARTS_MAX)],
            dtype="text", is_one=True, added=Added(None),
            allowed="a list of boots with their weights, as in [{boot: uefi-grub, weight: 8}, {boot: pi4, weight: 2}]",
            description="Machines of several boot profiles, in turn and by their weights.",
            meaning="The boot profiles of its machines with their weights; null for transfers, and for one profile.",
            label=lambda value: f"machines of {mix_text(value)}", text=mix_text,
            joins=("machines_asked",), joined=lambda value: f"of {mix_text(value)}",
        ),
        Axis(
            name="concurrency", key="concurrency", value=Annotated[Count, Field(ge=1, le=IN_FLIGHT_LIMIT)],
            after="operation",
            allowed=f"1 to {IN_FLIGHT_LIMIT}, or a list", is_load=True, unless=("rate_per_s", "over_ns", "shape"),
            description="Transfers in flight at once, machines where they boot: a closed loop.",
            meaning="Transfers in flight at once (machines where they boot); with another load: at most.",
            label=lambda value: f"{value} at once",
        ),
        Axis(
            name="rate_per_s", key="rate", value=Annotated[RatePerS, Field(ge=RATE_MIN, le=RATE_MAX)], unit="1/s",
            dtype="float", is_load=True, added=Added(None),
            allowed=f"{RATE_MIN}/s to {RATE_MAX}/s, or a list; {RATE_ALLOWED}",
            description="Starts of transfers, or machines, whether or not others have ended (open loop).",
            meaning="Transfers (machines where they boot) to start, of an open loop; null for other loads.",
            label=rate_text, text=lambda value: "-" if value is None else rate_text(value),
            joins=("boot", "mix"), joined=lambda value: f"at {rate_text(value)}",
        ),
        Axis(
            name="arrivals", key="arrivals", value=Arrivals, dtype="text", usual="even", is_load=True,
            added=Added(None), allowed="even, poisson, or a list of both; only beside rate or shape",
            description="How starts lie in time: even unless given; poisson: as of machines that boot by themselves.",
            meaning="How the starts of a rate or a shape lay in time, even or poisson; null for other loads.",
            label=str,
        ),
        Axis(
            name="over_ns", key="over", value=Annotated[DurationNs, Field(ge=0, le=DAY_NS)], unit="ns",
            is_load=True, added=Added(None),
            allowed=f"0s to 24h, or a list, only beside machines; {DURATION_ALLOWED}",
            description="Within what time all machines start; 0s, all at once, unless given.",
            meaning="Within what time the machines of a storm were to start; null for other loads.",
            label=_over_text, text=lambda value: "-" if value is None else _seconds(value),
            joins=("machines_asked", "boot", "mix"), joined=_over_text,
        ),
        Axis(
            name="spread", key="spread", value=Spread, dtype="text", usual="even", is_load=True, added=Added(None),
            allowed="even, normal, or a list of both; only beside machines",
            description="How the starts lie within `over`: even unless given; normal: most in its middle.",
            meaning="How the starts of a storm lay in its time, even or normal; null for other loads.",
            label=lambda value: f"{value} spread",
        ),
        Axis(
            name="shape", key="shape", dtype="text",
            value=Annotated[tuple[ShapePiece, ...], Field(min_length=1, max_length=PARTS_MAX)],
            is_one=True, is_load=True, added=Added(None),
            allowed="a list of pieces, as in [{ramp: 10/s..500/s, for: 60s}, {hold: 500/s, for: 5min}, {burst: 2000}]",
            description="Starts at a rate that changes: its pieces, one after the other.",
            meaning="The pieces of a shape, in words; null for other loads.",
            label=lambda value: f"shape {value}",
        ),
        Axis(
            name="file_size_bytes", key="file_size", value=Annotated[SizeBytes, Field(ge=0, le=2**40)], unit="bytes",
            of_files=True, unless=_FILES_UNLESS,
            after="distinct_files", allowed=f"0 to 1TiB, or a list; {SIZE_ALLOWED}",
            description="Size of each file.",
            meaning="Size of each file; null where boots start.", label=format_bytes, text=format_bytes,
        ),
        Axis(
            name="blksize", key="blksize", value=Annotated[Count, Field(ge=8, le=65464)], unit="bytes",
            of_files=True, unless=_FILES_UNLESS,
            default=BLKSIZE_DEFAULT, usual=BLKSIZE_DEFAULT, after="file_size_bytes",
            allowed="8 to 65464 (RFC 2348), or a list",
            description="Bytes of a DATA block; 512 asks for no option.",
            meaning="Asked-for bytes of a DATA block (RFC 2348); 512 asks for no option.",
            label=lambda value: f"blksize {value}",
        ),
        Axis(
            name="windowsize", key="windowsize", value=Annotated[Count, Field(ge=1, le=65535)], unit="blocks",
            of_files=True, unless=_FILES_UNLESS,
            default=WINDOWSIZE_DEFAULT, usual=WINDOWSIZE_DEFAULT, after="blksize",
            allowed="1 to 65535 (RFC 7440), or a list",
            description="Blocks per ACK; 1, lock-step, asks for no option.",
            meaning="Asked-for blocks per ACK (RFC 7440); 1 asks for no option.",
            label=lambda value: f"windowsize {value}",
        ),
    )
}  # fmt: skip
# What all transfers of a cell have in common, whatever the load; and the same with the load, which varies fastest.
WORK = tuple(name for name, axis in AXES.items() if not axis.is_load)
LOAD = tuple(name for name, axis in AXES.items() if axis.is_load)
CELL = (*WORK, *LOAD)
# What people vary first; the sentence of an answer goes along the first of them that was varied.
VARIED = tuple(name for name in AXES if name != "operation")
# No axis, as a scenario has one number of them: how many hosts a load came from, as the column of results.
LOAD_HOSTS = "load_hosts"
# What each server may have its own best value of.
OPTIONS = tuple(name for name, axis in AXES.items() if axis.is_option)


def label(values: Mapping[str, Any], without: Iterable[str] = ()) -> str:
    """A cell, or what is known of one, for people: "read, 100 at once, 64 KiB"; usual values are not said.

    At its end stands how many load hosts it came from, where `values` say so and it is not one.
    """
    text, before = "", ""
    for name, part in parts(values, without).items():
        is_joined = before in AXES[name].joins
        text += f" {AXES[name].joined(values[name])}" if is_joined else f"{', ' if text else ''}{part}"
        before = name
    return ", ".join(filter(None, (text, hosts_text(values.get(LOAD_HOSTS)))))


def hosts_text(load_hosts: int | None) -> str:
    """How many hosts a load came from, as in "from 3 load hosts"; "" for one, which needs no word, or not known."""
    return "" if load_hosts in (None, 1) else f"from {load_hosts} load hosts"


def parts(values: Mapping[str, Any], without: Iterable[str] = ()) -> dict[str, str]:
    """The parts of the label by axis; a value that is there and not known is named."""
    skipped = set(without)
    return {
        name: f"{name} not known" if values[name] is None else axis.label(values[name])
        for name, axis in AXES.items()
        if name in values and name not in skipped and not _is_unsaid(axis, values)
    }


def in_order(columns: Mapping[str, Column]) -> dict[str, Column]:
    """The columns with those of the axes, each in its place."""
    found: dict[str, Column] = {}

    def add(name: str, column: Column) -> None:
        found[name] = column
        for axis in AXES.values():
            if axis.after == name:
                add(axis.name, axis.column)

    for name, column in columns.items():
        add(name, column)
    return found | {axis.name: axis.column for axis in AXES.values() if axis.name not in found}


def _is_unsaid(axis: Axis, values: Mapping[str, Any]) -> bool:
    value = values[axis.name]
    is_usual = axis.usual is not None and value == axis.usual
    is_implied = axis.added is not None and value == axis.added.implied
    return is_usual or is_implied or any(values.get(other) is not None for other in axis.unless)
