"""The one sentence that answers a scenario's question, with its ratio, its interval and where it was measured.

Pure words from figures. It must never claim a difference that the interval does not show.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tftpbench.analysis.summary.lines import MANY_SERVERS, Line
from tftpbench.model import axes
from tftpbench.model.axes import AXES, VARIED
from tftpbench.model.units import format_rate
from tftpbench.model.workload import Cell

CEILING = "the ceiling"
# Of many servers, those that follow the first one are named up to this place.
NAMED_MAX = 4


def answer_sentence(lines: Sequence[Line], servers: Sequence[str], placement: str, best_of: Sequence[str] = ()) -> str:
    """Each server against the first, in the cell that says most: the far end of what was varied.

    Of many servers, who moves most, who comes next, and who is last. `best_of`: what each server has its own best of.
    """
    if not any(line.trials for line in lines):
        return "No answer: nothing was measured."
    words = _Words(tuple(best_of), _axis(lines, best_of))
    if len(servers) == 1:
        return _alone(_headline(lines, words), words, placement)
    if len(servers) > MANY_SERVERS:
        parts = _ranked(lines, servers, words)
    else:
        parts = [part for server in servers[1:] if (part := _compared(lines, server, servers[0], words))]
    if not parts:
        named = " and ".join(servers) if len(servers) <= MANY_SERVERS else f"any of {len(servers)} servers"
        return f"No answer: no cell has valid trials of {named} to compare."
    return f"{'; '.join(parts)}, {placement}."


def ceiling_sentence(lines: Sequence[Line], servers: Sequence[str], placement: str) -> str:
    """How near each server comes to the ceiling, in the cell where it is furthest from it."""
    if not any(line.trials for line in lines):
        return "No answer: nothing was measured."
    words = _Words((), "concurrency")
    parts = []
    for server in servers:
        ours = [line for line in lines if line.server == server and line.ratio is not None]
        if not ours:
            continue
        least, most = min(ours, key=_times), max(ours, key=_times)
        best = f"; {_ratio(most)} {_at_best(most)}, {words.at(most.cell)}" if least is not most else ""
        certainty = least.ratio.certainty if least.ratio is not None else ""
        parts.append(
            f"{server} moves {_ratio(least)} the blocks of the ceiling where it is furthest from it, "
            f"{words.at(least.cell)} ({certainty}{best})"
        )
    if not parts:
        return f"No answer: no cell has valid trials of {' and '.join(servers)} and a ceiling to compare them with."
    return f"{'; '.join(parts)}, {placement}, over loopback."


def _at_best(line: Line) -> str:
    """No server is faster than its ceiling: where it seems so, the probe had less of the machine."""
    surely = 0.0 if line.ratio is None else line.ratio.lowest if line.ratio.low is None else line.ratio.low
    return "where the probe was disturbed, so that it is no ceiling" if surely > 1 else "at its best"


def weakest(lines: Sequence[Line]) -> str:
    """The label of the cell that is furthest from the ceiling."""
    compared = [line for line in lines if line.ratio is not None]
    return min(compared, key=_times).label if compared else lines[0].label if lines else ""


def headline(lines: Sequence[Line], best_of: Sequence[str] = ()) -> str:
    """The label of the cell that says most: the far end of what was varied, where there is something to compare."""
    comparable = [line for line in lines if line.ratio is not None] or lines
    return _headline(comparable, _Words(tuple(best_of), _axis(lines, best_of))).label if comparable else ""


def axis_value(cell: Cell, axis: str) -> str:
    """A point of an axis in words: "1000", "64 KiB"."""
    return AXES[axis].text(getattr(cell, axis))


@dataclass(frozen=True)
class _Words:
    """How to speak of the cells: what each server has its own best of, and the axis that was varied."""

    best_of: tuple[str, ...]
    axis: str

    @property
    def moved(self) -> str:
        return "bytes" if self.best_of else "blocks"

    def at(self, cell: Cell) -> str:
        named = axes.parts(cell.point, ("operation", *axes.LOAD, *self.best_of))
        many = f"at {cell.concurrency} concurrent" if cell.concurrency > 1 else "in single"
        load = ", ".join(axes.parts({name: cell.point[name] for name in axes.LOAD}).values())
        what = f"in {cell.operation}s at {load}" if cell.open_loop else f"{many} {cell.operation}s"
        best = f", each at its best {' and '.join(self.best_of)}" if self.best_of else ""
        return f"{what} of {', '.join(named.values())}{best}"


def _axis(lines: Sequence[Line], best_of: Sequence[str]) -> str:
    """The first thing that the scenario varies."""
    varied = [axis for axis in VARIED if axis not in best_of]
    return next((axis for axis in varied if len({getattr(line.cell, axis) for line in lines}) > 1), varied[0])


def _headline(lines: Sequence[Line], words: _Words) -> Line:
    """The furthest along the axis; among equals the scenario's first."""
    return max(lines, key=lambda line: getattr(line.cell, words.axis) or 0)  # a closed loop has no rate


def _alone(line: Line, words: _Words, placement: str) -> str:
    if line.data_pps is None:
        return f"No answer: {line.server} has no valid trial {words.at(line.cell)}."
    rate = format_rate(line.data_pps, "blocks")
    measured = "one trial" if line.valid == 1 else f"median of {line.valid} trials"
    return f"{line.server} moves {rate} {words.at(line.cell)} ({measured}), {placement}."


def _compared(lines: Sequence[Line], server: str, reference: str, words: _Words) -> str | None:
    ours = [line for line in lines if line.server == server and line.ratio is not None]
    if not ours:
        return None
    head = _headline(ours, words)
    assert head.ratio is not None  # chosen for having one
    details = "; ".join([head.ratio.certainty, *_elsewhere(ours, head, words)])
    ratio, where, moved = head.ratio, words.at(head.cell), words.moved
    if ratio.differs is False:
        return f"{server} moves about as many {moved} as {reference} {where} ({ratio.ratio:.2f}x, {details})"
    return f"{server} moves {ratio.ratio:.2f}x the {moved} of {reference} {where} ({details})"


def _elsewhere(ours: Sequence[Line], head: Line, words: _Words) -> list[str]:
    """The same comparison along the axis, and for the other operation."""
    axis = words.axis
    others = [name for name in VARIED if name != axis and name not in words.best_of]
    same = [line for line in ours if all(getattr(line.cell, name) == getattr(head.cell, name) for name in others)]
    along = [line for line in same if line.cell.operation == head.cell.operation and line is not head]
    across = [line for line in same if getattr(line.cell, axis) == getattr(head.cell, axis) and line is not head]
    parts = []
    if along:
        parts.append(", ".join(f"{_ratio(line)} at {axis_value(line.cell, axis)}" for line in along))
    parts += [f"{line.cell.operation}s {_ratio(line)}" for line in across]
    return parts


def _ranked(lines: Sequence[Line], servers: Sequence[str], words: _Words) -> list[str]:
    """The order of many servers in the headline cell, by their ratio to the first of the scenario."""
    reference = servers[0]
    compared = [line for line in lines if line.ratio is not None]
    if not compared:
        return []
    label = _headline(compared, words).label
    here = sorted((line for line in compared if line.label == label), key=lambda line: -_times(line))
    even = [line for line in here if line.ratio is not None and line.ratio.differs is False]
    faster = [line for line in here if _times(line) > 1 and line not in even]
    named = here[:NAMED_MAX]
    place = words.at(here[0].cell)
    follow = ", ".join(f"{line.server} {_ratio(line)} ({line.ratio.certainty})" for line in named if line.ratio)
    if faster:
        lead = (
            f"{len(faster)} of {len(here) + 1} servers move more {words.moved} than {reference}; of its {words.moved}"
        )
    elif even:
        lead = f"none of {len(here) + 1} servers surely moves more {words.moved} than {reference}; of its {words.moved}"
    else:
        lead = f"{reference} moves the most {words.moved} of {len(here) + 1} servers; of its {words.moved}, next come"
    parts = [f"{place[0].upper()}{place[1:]}, {lead} {follow}"]
    if here[-1] not in named:
        parts.append(f"last is {here[-1].server} with {_ratio(here[-1])}")
    lost = [line.server for line in lines if line.label == label and not line.data_pps]
    if lost:
        parts.append(f"{', '.join(lost)} moved none")
    return parts


def _times(line: Line) -> float:
    return line.ratio.ratio if line.ratio is not None else 0.0


def _ratio(line: Line) -> str:
    return f"{line.ratio.ratio:.2f}x" if line.ratio is not None else "unknown"
