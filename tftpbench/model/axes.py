"""The axes of the matrix: what a scenario may vary, one record each. Everything else iterates over AXES.

A record makes the key of `matrix` in a scenario, its place in the JSON Schema and in docs, the column of results, the
part of a cell's label, the grouping of plots and comparisons, and the field of `cell_key`. What an axis *does* is in
`Cell` (model/workload.py) and where a load is made of it. It must never know a server or a result.

To add one: a record here, a field of `Cell`, and the line that makes the load of it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from tftpbench.model.columns import Column, Dtype
from tftpbench.model.keys import Added
from tftpbench.model.units import RATE_ALLOWED, SIZE_ALLOWED, format_bytes, rate_text
from tftpbench.model.values import RATE_MAX, RATE_MIN, Arrivals, Count, Operation, RatePerS, SizeBytes

BLKSIZE_DEFAULT = 512  # RFC 1350 section 2
WINDOWSIZE_DEFAULT = 1  # RFC 7440 section 3


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    `name`: the field of `Cell` and the column of results; `key`: as in a scenario's `matrix`. `value`: the pydantic
    type of one value, `allowed` and `description` what is said of it. `default`: None where it must be given, or where
    it says what the load is: one of those must. `usual`: the value that a label need not name; `unless`: an axis beside
    which it need not name this one at all. `after`: the column that it stands after; None: the end. `is_load`: how many
    transfers there are, or how often they start. `added`: the value that older runs implied, for an axis that schema 1
    did not hash into `cell_key`; fixed for good.
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
    unless: str | None = None
    after: str | None = None
    is_load: bool = False
    added: Added | None = None

    @property
    def column(self) -> Column:
        """Its column in the rows of results."""
        return Column(self.unit, self.meaning, self.dtype, nullable=self.added is not None)

    @property
    def is_option(self) -> bool:
        """Whether a server may be at its best with one of its values."""
        return self.usual is not None and self.added is None


AXES: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis(
            name="operation", key="operation", value=Operation, dtype="text", after="variant",
            allowed="read, write, or a list of both",
            description="read: clients download (RRQ); write: clients upload (WRQ).",
            meaning="read (RRQ) or write (WRQ).", label=str,
        ),
        Axis(
            name="concurrency", key="concurrency", value=Annotated[Count, Field(ge=1, le=50_000)], after="operation",
            allowed="1 to 50000, or a list", is_load=True, unless="rate_per_s",
            description="Transfers in flight at once. That is a closed loop; either this or rate.",
            meaning="Transfers in flight at once; with rate_per_s: at most.", label=lambda value: f"{value} at once",
        ),
        Axis(
            name="rate_per_s", key="rate", value=Annotated[RatePerS, Field(ge=RATE_MIN, le=RATE_MAX)], unit="1/s",
            dtype="float", is_load=True, added=Added(None),
            allowed=f"{RATE_MIN}/s to {RATE_MAX}/s, or a list; {RATE_ALLOWED}",
            description="Starts of transfers, whether or not others have ended (open loop). This or concurrency.",
            meaning="Transfers that were to start, of an open loop; null for a closed one.",
            label=rate_text, text=lambda value: "-" if value is None else rate_text(value),
        ),
        Axis(
            name="arrivals", key="arrivals", value=Arrivals, dtype="text", usual="even", is_load=True,
            added=Added(None), allowed="even, poisson, or a list of both; only beside rate",
            description="How starts lie in time: even unless given; poisson: as of machines that boot by themselves.",
            meaning="How the starts of an open loop lay in time, even or poisson; null for a closed one.", label=str,
        ),
        Axis(
            name="file_size_bytes", key="file_size", value=Annotated[SizeBytes, Field(ge=0, le=2**40)], unit="bytes",
            after="distinct_files", allowed=f"0 to 1TiB, or a list; {SIZE_ALLOWED}",
            description="Size of each file.",
            meaning="Size of each file.", label=format_bytes, text=format_bytes,
        ),
        Axis(
            name="blksize", key="blksize", value=Annotated[Count, Field(ge=8, le=65464)], unit="bytes",
            default=BLKSIZE_DEFAULT, usual=BLKSIZE_DEFAULT, after="file_size_bytes",
            allowed="8 to 65464 (RFC 2348), or a list",
            description="Bytes of a DATA block; 512 asks for no option.",
            meaning="Asked-for bytes of a DATA block (RFC 2348); 512 asks for no option.",
            label=lambda value: f"blksize {value}",
        ),
        Axis(
            name="windowsize", key="windowsize", value=Annotated[Count, Field(ge=1, le=65535)], unit="blocks",
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
# What each server may have its own best value of.
OPTIONS = tuple(name for name, axis in AXES.items() if axis.is_option)


def label(values: Mapping[str, Any], without: Iterable[str] = ()) -> str:
    """A cell, or what is known of one, for people: "read, 100 at once, 64 KiB"; usual values are not said."""
    return ", ".join(parts(values, without).values())


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
    return is_usual or is_implied or (axis.unless is not None and values.get(axis.unless) is not None)
