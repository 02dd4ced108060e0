"""The sentences that answer a scenario's question: who is faster and by how much, with the interval, and what was lost.

Pure words from figures. It must never claim a difference that the interval does not show, nor leave a loss out.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tftpbench.analysis.summary.lines import MANY_SERVERS, NOTHING_MEASURED, Line
from tftpbench.measure.validity import Cause
from tftpbench.model import axes
from tftpbench.model.axes import AXES, VARIED
from tftpbench.model.metrics import HEADLINE, METRICS
from tftpbench.model.units import counted, format_duration, listed, rate_text
from tftpbench.model.workload import Cell

CEILING = "the ceiling"
# Of many servers, those that follow the first one are named up to this place.
NAMED_MAX = 4


@dataclass(frozen=True)
class Served:
    """Transfers over all trials, valid or not; `wrong`: those of wrong bytes, by server.

    `is_compared`: whether each byte of those completed was compared with what it must be. `is_boots`: of machines.
    `nothing`: in which cells a server served nothing in any trial.
    """

    started: int
    completed: int
    lost: int
    wrong: Mapping[str, int]
    is_compared: bool
    is_boots: bool = False
    nothing: Sequence[tuple[str, Cell]] = ()


def served_sentence(lines: Sequence[Line], servers: Sequence[str], served: Served) -> str:
    """What was served, or else what was lost, moved wrong, or not served at all; no word on speed."""
    words = _words(lines, ())
    wrong = {server: counted(count, "transfer") for server, count in served.wrong.items() if count}
    parts = [f"{server} moved wrong bytes in {count}." for server, count in wrong.items()]
    if served.lost:
        losses = _losses(lines, servers, words)
        many = f"{served.lost:,} of {counted(served.started, 'machine' if served.is_boots else 'transfer')} were lost"
        parts.append(": ".join([many, " ".join(losses)]) if losses else f"{many}.")
    idle = [line for line in lines if line.asked and not line.done and not line.lost]
    parts += [f"{line.server} served {line.served} {words.at(line.cell)}." for line in idle[:NAMED_MAX]]
    if parts:
        return " ".join(parts)
    if not served.completed:
        return "No machine booted." if served.is_boots else "No transfer was served to its end."
    is_all = served.completed == served.started
    many = f"all {served.started:,}" if is_all else f"{served.completed:,} of {served.started:,}"
    right = ", every byte right" if served.is_compared else ""
    what = "machines booted" if served.is_boots else "transfers served"
    rest = f"{many} {what}{'' if is_all else ' and none lost'}{right}."
    return f"{_idle(served.nothing, words)} Otherwise {rest}" if served.nothing else f"Works: {rest}"


def _idle(nothing: Sequence[tuple[str, Cell]], words: "_Words") -> str:
    """Who served nothing, and in which cell, or in how many."""
    cells: dict[str, list[Cell]] = {}
    for server, cell in nothing:
        cells.setdefault(server, []).append(cell)
    if len(cells) > NAMED_MAX:
        return f"{len(cells)} servers served nothing."
    return " ".join(
        f"{server} served nothing {words.at(here[0]) if len(here) == 1 else f'in {len(here)} cells'}."
        for server, here in cells.items()
    )


def untimed_sentence(lines: Sequence[Line], servers: Sequence[str], served: Served, cause: Cause) -> str:
    """What was served in trials none of which shows how fast, why they do not, and what to do."""
    asked = "Which server is faster" if len(servers) > 1 else "Speed"
    if lines and all(line.cell.open_loop or line.cell.is_boots for line in lines):
        asked = "How long clients waited"
    return (
        f"{served_sentence(lines, servers, served)} {asked} is not known: {cause.text}. "
        f"{_capital(cause.advice)}, or use --quick."
    )


def answer_sentence(lines: Sequence[Line], servers: Sequence[str], best_of: Sequence[str] = ()) -> str:
    """Each server against the first, in the cell that says most: the far end of what was varied; then losses.

    Of many servers, who moves most, who comes next, and who is last. `best_of`: what each server has its own best of.
    """
    if not any(line.trials for line in lines):
        return NOTHING_MEASURED
    if opened := [line for line in lines if line.cell.open_loop]:
        closed = [line for line in lines if not line.cell.open_loop]
        others = [answer_sentence(closed, servers, best_of)] if closed else []
        return " ".join([*others, *_at_a_rate(opened, servers, _words(opened, best_of))])
    words = _words(lines, best_of)
    if len(servers) == 1:
        return _alone(lines, _headline(lines, words), words)
    if len(servers) > MANY_SERVERS:
        parts = _ranked(lines, servers, words)
    else:
        parts = [part for server in servers[1:] if (part := _compared(lines, server, servers[0], words))]
    if not parts:
        named = " and ".join(servers) if len(servers) <= MANY_SERVERS else f"any of {len(servers)} servers"
        parts = [f"No answer: no cell has valid trials of {named} to compare."]
    return " ".join([*parts, *_losses(lines, servers, words)])


def ceiling_sentence(lines: Sequence[Line], servers: Sequence[str]) -> str:
    """How near each server comes to the ceiling, in the cell where it is furthest from it."""
    if not any(line.trials for line in lines):
        return NOTHING_MEASURED
    words = _words(lines, ())
    parts = []
    for server in servers:
        ours = [line for line in lines if line.server == server and line.ratio is not None]
        usable = [line for line in ours if not line.ceiling_mark]
        if usable:
            least, most = min(usable, key=_times), max(usable, key=_times)
            bounds = least.ratio.bounds if least.ratio is not None else ""
            best = f" Its highest share is {_ratio(most)}, {words.at(most.cell)}." if least is not most else ""
            parts.append(
                f"{_capital(words.at(least.cell))}, {server} reaches {_ratio(least)} of the ceiling ({bounds}), "
                f"its lowest share.{best}"
            )
        if marked := [line for line in ours if line.ceiling_mark]:
            where = words.at(marked[0].cell) + (
                f" and in {counted(len(marked) - 1, 'other cell')}" if marked[1:] else ""
            )
            parts.append(f"Share of {server} {where}: {marked[0].ceiling_mark}.")
    if not parts:
        return f"No answer: no cell has valid trials of {' and '.join(servers)} and a ceiling to compare them with."
    return " ".join([*parts, *_losses(lines, servers, words)])


def conditions(lines: Sequence[Line], metric: str, placement: str, best_of: Sequence[str] = ()) -> str:
    """What holds for every figure: what is compared, what all cells have in common, and where it was measured."""
    words = _words(lines, best_of)
    common = (
        {name: text for name, text in words.named(lines[0].cell).items() if name not in words.varied} if lines else {}
    )
    compared = METRICS[metric].words
    if lines and lines[0].cell.is_boots:
        compared, common = "the time until a machine is up, from its intended start", _deadline(lines)
    elif lines and all(line.cell.open_loop for line in lines):
        compared, common = "response time, from each transfer's intended start", _operation(lines) | common
    return ", ".join([f"Compared by {compared}", *common.values(), placement]) + "."


def weakest(lines: Sequence[Line]) -> str:
    """The label of the cell that is furthest from the ceiling."""
    compared = [line for line in lines if line.ratio is not None]
    usable = [line for line in compared if not line.ceiling_mark] or compared
    return min(usable, key=_times).label if usable else lines[0].label if lines else ""


def headline(lines: Sequence[Line], best_of: Sequence[str] = ()) -> str:
    """The label of the cell that says most: the far end of what was varied, where there is something to compare."""
    comparable = [line for line in lines if line.ratio is not None] or lines
    return _headline(comparable, _words(lines, best_of)).label if comparable else ""


def axis_value(cell: Cell, axis: str) -> str:
    """A point of an axis in words: "1000", "64 KiB"."""
    return AXES[axis].text(getattr(cell, axis))


@dataclass(frozen=True)
class _Words:
    """How to speak of the cells: what each server has its own best of, the main axis and all that were varied."""

    best_of: tuple[str, ...]
    axis: str
    varied: frozenset[str]

    def named(self, cell: Cell) -> dict[str, str]:
        """What else there is to a cell than its number of transfers at once."""
        return axes.parts(cell.point, ("operation", *axes.LOAD, *self.best_of))

    def at(self, cell: Cell) -> str:
        """A cell, as in "with 1000 reads at once"; what all cells have in common is said once, elsewhere."""
        if cell.is_boots:
            return f"with {cell.label}"
        one = cell.concurrency == 1
        what = f"with one {cell.operation} at a time" if one else f"with {cell.concurrency} {cell.operation}s at once"
        if cell.open_loop:
            load = axes.label({name: cell.point[name] for name in axes.LOAD})
            what = f"with {load}" if cell.rate_per_s is None else f"at {load}"
            what = f"with {cell.operation}s {what.removeprefix('with ')}" if "operation" in self.varied else what
        named = [text for name, text in self.named(cell).items() if name in self.varied]
        hosts = axes.hosts_text(cell.load_hosts)
        return " ".join([what, *([f"({', '.join(named)})"] if named else []), *([hosts] if hosts else [])])

    @property
    def each(self) -> str:
        return f", each at its best {' and '.join(self.best_of)}" if self.best_of else ""


def _words(lines: Sequence[Line], best_of: Sequence[str]) -> _Words:
    varied = frozenset(axis for axis in AXES if len({getattr(line.cell, axis) for line in lines}) > 1)
    return _Words(tuple(best_of), _axis(lines, best_of), varied)


def _axis(lines: Sequence[Line], best_of: Sequence[str]) -> str:
    """The first thing that the scenario varies."""
    varied = [axis for axis in VARIED if axis not in best_of]
    return next((axis for axis in varied if len({getattr(line.cell, axis) for line in lines}) > 1), varied[0])


def _headline(lines: Sequence[Line], words: _Words) -> Line:
    """The furthest along the axis; among equals the scenario's first."""
    return max(lines, key=lambda line: getattr(line.cell, words.axis) or 0)  # a closed loop has no rate


def _alone(lines: Sequence[Line], line: Line, words: _Words) -> str:
    """The first figures of a server that is compared with none."""
    if "concurrency" in words.varied and any(each.figures["started"] is not None for each in lines):
        return _how_many([each for each in lines if each.trials], words)
    where = words.at(line.cell)
    if line.figures["data_pps"] is None:
        return " ".join(
            [f"No answer: {line.server} has no valid trial {where}.", *_losses(lines, [line.server], words)]
        )
    first = f"{_capital(where)}, {line.server} served {line.served} transfers: {_figures(line)}."
    return " ".join([first, *_losses([each for each in lines if each is not line], [line.server], words)])


def _how_many(lines: Sequence[Line], words: _Words) -> str:
    """How many transfers at once one server served without a loss, what it lost beyond, and how fast it was there."""
    levels = {
        n: [line for line in lines if line.cell.concurrency == n]
        for n in sorted({line.cell.concurrency for line in lines})
    }
    unknown = [n for n, here in levels.items() if all(line.figures["started"] is None for line in here)]
    short = {n: share for n, here in levels.items() if (share := _short(here))}
    whole = [n for n in levels if n not in unknown and n < min(short, default=n + 1)]
    server, parts = lines[0].server, []
    if whole:
        times = [line.figures["transfer_ns_max"] for line in levels[whole[-1]]]
        slowest = max((ns for ns in times if ns is not None), default=None)
        time = "not known: no valid trial" if slowest is None else METRICS["transfer_ns_max"].text(slowest)
        parts.append(f"{server} served every transfer up to {whole[-1]} at once (slowest {time})")
    if short:
        first, last = min(short), max(short)
        given = f"with {first} at once it" if whole else f"With {first} at once {server}"
        parts.append(f"{given} {short[first]}{f', with {last} it {short[last]}' if last != first else ''}")
    if unknown:
        parts.append(f"{' and '.join(map(str, unknown))} at once could not be measured")
    fast = next((line for line in levels[whole[-1] if whole else max(levels)] if line.valid), None)
    speed = f" {_capital(words.at(fast.cell))}: {_figures(fast)}." if fast else ""
    return f"{'; '.join(parts)}.{speed}"


def _short(here: Sequence[Line]) -> str:
    """What became of the started transfers that were not completed, "" for none; neither end is rounded to.

    What a trial's end cut off was not lost by the server.
    """
    completed, started = (sum(line.figures[name] or 0 for line in here) for name in ("completed", "started"))
    if completed == started:
        return ""
    lost = sum(line.lost for line in here)
    percent = f"{100 * (lost or started - completed) / started:.0f}"
    shown = "<1" if percent == "0" else ">99" if percent == "100" and completed else percent
    return f"{'lost' if lost else 'did not finish'} {shown} %"


def _figures(line: Line) -> str:
    spoken = [metric for metric in HEADLINE.values() if metric.headline and metric.headline.is_spoken]
    figures = [
        f"{metric.heading} {metric.text(value)}" if metric.unit == "ns" else f"{metric.text(value)} {metric.heading}"
        for metric in spoken
        if (value := line.figures[metric.name]) is not None
    ]
    return f"{', '.join(figures)} ({'one trial' if line.valid == 1 else f'{line.valid} trials'})"


def _operation(lines: Sequence[Line]) -> dict[str, str]:
    """What all lines do, where it is one thing."""
    found = {line.cell.operation for line in lines}
    return {"operation": f"{found.pop()}s"} if len(found) == 1 else {}


def _deadline(lines: Sequence[Line]) -> dict[str, str]:
    """After what time a machine is late, where that is one for all."""
    found = {line.cell.open_loop.deadline_ns for line in lines if line.cell.open_loop}
    return {"deadline": f"deadline {format_duration(found.pop())}"} if len(found) == 1 else {}


def _at_a_rate(lines: Sequence[Line], servers: Sequence[str], words: _Words) -> list[str]:
    """Of open loops: what was served of what was intended, and how long that took, at the highest rate."""
    head = _headline(lines, words)
    here = [line for line in lines if line.label == head.label]
    where = _capital(words.at(head.cell))
    if len(here) > MANY_SERVERS:
        whole = [line for line in here if not line.lost]
        parts = [f"{where}, {len(whole)} of {len(here)} servers served all that was intended."]
        parts += [f"First is {here[0].server}: it {_fared(here[0])}. Last is {here[-1].server}: it {_fared(here[-1])}."]
    else:
        parts = [f"{where}, {here[0].server} {_fared(here[0])}."]
        parts += [f"{line.server} {_fared(line)}." for line in here[1:]]
    return [*parts, *_rates_held(lines, head, servers), *_losses(_beside(lines, head), servers, words)]


def _fared(line: Line) -> str:
    p99 = METRICS["response_ns_p99"]
    time = line.figures[p99.name]
    return f"served {line.served}; " + ("no trial is valid" if time is None else f"{p99.words} {p99.text(time)}")


def _along(lines: Sequence[Line], head: Line) -> list[Line]:
    """What differs from the headline cell in its rate alone."""
    same = [name for name in AXES if name != "rate_per_s"]
    return [line for line in lines if all(getattr(line.cell, name) == getattr(head.cell, name) for name in same)]


def _beside(lines: Sequence[Line], head: Line) -> list[Line]:
    along = _along(lines, head)
    return [line for line in lines if line not in along]


def _rates_held(lines: Sequence[Line], head: Line, servers: Sequence[str]) -> list[str]:
    """Up to which of several rates each server served all that was intended."""
    along = _along(lines, head)
    rates = sorted({line.cell.rate_per_s or 0 for line in along})
    if len(rates) < 2 or len(servers) > NAMED_MAX:
        return []
    held = []
    for server in servers:
        ours = [line for line in along if line.server == server and line.asked]
        full = {line.cell.rate_per_s or 0 for line in ours if not line.lost}
        # A rate at which nothing is known of it is not one that it served.
        whole = list(itertools.takewhile(full.__contains__, rates))
        upto = f"up to {rate_text(whole[-1])}" if whole else "at none of the rates"
        upto = "at every rate" if whole == rates else upto
        held.append(f"{server} {upto}")
    return [f"Served in full: {', '.join(held)}."]


def _compared(lines: Sequence[Line], server: str, reference: str, words: _Words) -> str | None:
    ours = [line for line in lines if line.server == server and line.ratio is not None]
    if not ours:
        return None
    head = _headline(ours, words)
    assert head.ratio is not None  # chosen for having one
    ratio, where = head.ratio, _capital(words.at(head.cell))
    fast = "about as" if ratio.differs is False else f"{ratio.ratio:.2f} times as"
    found = f"{ratio.ratio:.2f} times, " if ratio.differs is False else ""
    first = f"{where}, {server} is {fast} fast as {reference}{words.each} ({found}{ratio.bounds})."
    return " ".join([first, *_elsewhere(ours, head, words)])


def _elsewhere(ours: Sequence[Line], head: Line, words: _Words) -> list[str]:
    """The same comparison along the axis, and for the other operation."""
    axis = words.axis
    others = [name for name in VARIED if name != axis and name not in words.best_of]
    same = [line for line in ours if all(getattr(line.cell, name) == getattr(head.cell, name) for name in others)]
    along = [line for line in same if line.cell.operation == head.cell.operation and line is not head]
    across = [line for line in same if getattr(line.cell, axis) == getattr(head.cell, axis) and line is not head]
    parts = []
    if along:
        values = [axis_value(line.cell, axis) for line in along]
        parts.append(f"At {listed(values)}: {', '.join(map(_ratio, along))}.")
    return parts + [f"{_capital(line.cell.operation)}s: {_ratio(line)}." for line in across]


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
    named, all_ = here[:NAMED_MAX], len(here) + 1
    if faster:
        lead = f"{len(faster)} of {all_} servers {'is' if len(faster) == 1 else 'are'} faster than {reference}"
    elif even:
        lead = f"none of {all_} servers is surely faster than {reference}"
    else:
        lead = f"{reference} is the fastest of {all_} servers"
    follow = ", ".join(f"{line.server} {_ratio(line)} ({line.ratio.bounds})" for line in named if line.ratio)
    parts = [f"{_capital(words.at(here[0].cell))}, {lead}{words.each}.", f"Times as fast as {reference}: {follow}."]
    if here[-1] not in named:
        parts.append(f"Last is {here[-1].server} with {_ratio(here[-1])}.")
    none = [line.server for line in lines if line.label == label and not line.figures["data_pps"]]
    return parts + ([f"No figures of {', '.join(none)}."] if none else [])


def _losses(lines: Sequence[Line], servers: Sequence[str], words: _Words) -> list[str]:
    """Who lost transfers, each by the cell in which most were lost; of many servers the one that lost most."""
    worst = [
        max(ours, key=_share_lost)
        for server in servers
        if (ours := [line for line in lines if line.server == server and line.lost])
    ]
    if len(worst) > MANY_SERVERS:
        line = max(worst, key=_share_lost)
        return [
            f"{len(worst)} servers lost transfers, {line.server} most: it served {line.served} {words.at(line.cell)}."
        ]
    return [f"{line.server} served {line.served} {words.at(line.cell)}." for line in worst]


def _share_lost(line: Line) -> float:
    return line.lost / (line.asked or line.lost)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _times(line: Line) -> float:
    return line.ratio.ratio if line.ratio is not None else 0.0


def _ratio(line: Line) -> str:
    return f"{line.ratio.ratio:.2f}" if line.ratio is not None else "unknown"
