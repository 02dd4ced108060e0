"""The one sentence that answers a scenario's question, with its ratio, its interval and where it was measured.

Pure words from figures. It must never claim a difference that the interval does not show. Called by
`tftpbench.summary`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tftpbench.stats import Ratio
from tftpbench.units import format_bytes, format_rate

if TYPE_CHECKING:
    from tftpbench.scenario import Cell
    from tftpbench.summary.answer import Line

AXES = ("concurrency", "file_size_bytes", "blksize", "windowsize")


def answer_sentence(lines: Sequence["Line"], servers: Sequence[str], placement: str) -> str:
    """Each server against the first, in the cell that says most: the far end of what was varied."""
    if not lines:
        return "No answer: nothing was measured."
    axis = _axis(lines)
    if len(servers) == 1:
        return _alone(_headline(lines, axis), placement)
    parts = [part for server in servers[1:] if (part := _compared(lines, server, servers[0], axis))]
    if not parts:
        return f"No answer: no cell has valid trials of {' and '.join(servers)} to compare."
    return f"{'; '.join(parts)}, {placement}."


def axis_value(cell: "Cell", axis: str) -> str:
    """A point of an axis in words: "1000", "64 KiB"."""
    value = getattr(cell, axis)
    return format_bytes(value) if axis == "file_size_bytes" else str(value)


def interval_text(ratio: Ratio) -> str:
    """How sure a ratio is: an interval, or, under six pairs, only what was seen."""
    if ratio.n == 1:
        return "one pair"
    if ratio.low is None or ratio.high is None:
        return f"range of {ratio.n}: {ratio.lowest:.2f} to {ratio.highest:.2f}"
    return f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}, {ratio.n} pairs"


def _axis(lines: Sequence["Line"]) -> str:
    """The first thing that the scenario varies."""
    return next((axis for axis in AXES if len({getattr(line.cell, axis) for line in lines}) > 1), AXES[0])


def _headline(lines: Sequence["Line"], axis: str) -> "Line":
    """The furthest along the axis; among equals the scenario's first."""
    return max(lines, key=lambda line: getattr(line.cell, axis))


def _alone(line: "Line", placement: str) -> str:
    if line.data_pps is None:
        return f"No answer: {line.server} has no valid trial {_at(line.cell)}."
    rate = format_rate(line.data_pps, "blocks")
    measured = "one trial" if line.valid == 1 else f"median of {line.valid} trials"
    return f"{line.server} moves {rate} {_at(line.cell)} ({measured}), {placement}."


def _compared(lines: Sequence["Line"], server: str, reference: str, axis: str) -> str | None:
    ours = [line for line in lines if line.server == server and line.ratio is not None]
    if not ours:
        return None
    head = _headline(ours, axis)
    assert head.ratio is not None  # chosen for having one
    details = "; ".join([interval_text(head.ratio), *_elsewhere(ours, head, axis)])
    ratio, where = head.ratio, _at(head.cell)
    if ratio.differs is False:
        return f"{server} moves about as many blocks as {reference} {where} ({ratio.ratio:.2f}x, {details})"
    return f"{server} moves {ratio.ratio:.2f}x the blocks of {reference} {where} ({details})"


def _elsewhere(ours: Sequence["Line"], head: "Line", axis: str) -> list[str]:
    """The same comparison along the axis, and for the other operation."""
    others = [axis_name for axis_name in AXES if axis_name != axis]
    same = [line for line in ours if all(getattr(line.cell, name) == getattr(head.cell, name) for name in others)]
    along = [line for line in same if line.cell.operation == head.cell.operation and line is not head]
    across = [line for line in same if getattr(line.cell, axis) == getattr(head.cell, axis) and line is not head]
    parts = []
    if along:
        parts.append(", ".join(f"{_ratio(line)} at {axis_value(line.cell, axis)}" for line in along))
    parts += [f"{line.cell.operation}s {_ratio(line)}" for line in across]
    return parts


def _ratio(line: "Line") -> str:
    return f"{line.ratio.ratio:.2f}x" if line.ratio is not None else "unknown"


def _at(cell: "Cell") -> str:
    extras = [format_bytes(cell.file_size_bytes)]
    if cell.blksize != 512:
        extras.append(f"blksize {cell.blksize}")
    if cell.windowsize != 1:
        extras.append(f"windowsize {cell.windowsize}")
    what = f"at {cell.concurrency} concurrent" if cell.concurrency > 1 else "in single"
    return f"{what} {cell.operation}s of {', '.join(extras)}"
