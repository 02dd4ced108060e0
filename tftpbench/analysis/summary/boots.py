"""The sentences about machines that boot: who has all up first, when half and 99 % are, how many gave up, and where.

Pure words from figures, and the arithmetic of the wire. It must never leave a machine out that was lost, nor claim a
difference that the interval does not show.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tftpbench.analysis.stats import Ratio
from tftpbench.analysis.summary.lines import MANY_SERVERS, NOTHING_MEASURED, Line
from tftpbench.model.axes import AXES, hosts_text
from tftpbench.model.errors import BootError, ScenarioError
from tftpbench.model.metrics import METRICS
from tftpbench.model.units import counted, format_bytes, format_duration, listed, rate_text
from tftpbench.model.workload import Cell

# On the wire around the bytes of a DATA block: Ethernet's preamble, header, FCS and gap (IEEE 802.3: 8 + 14 + 4 + 12),
# IPv4 (RFC 791: 20), UDP (RFC 768: 8), opcode and block number (RFC 1350: 4).
BLOCK_OVERHEAD_BYTES = 38 + 20 + 8 + 4
# Of networks that machines boot from, in Gb/s.
WIRES_GBIT = (1, 10, 25)
# What became of a machine that did not come up, by its figure; the first is followed by where most of them stopped.
_LOST = {
    "boots_failed": "gave up",
    "boots_late": "came late",
    "boots_shed": "were not begun",
    "boots_interrupted": "were cut off",
}
# Of one server, loads that are described one by one.
_EACH_MAX = 4


def wire_bytes(cell: Cell) -> float | None:
    """Bytes of one machine on the wire, all headers included; None where the run did not write it down."""
    try:
        facts = cell.boot_facts
    except (BootError, ScenarioError):
        return None
    return facts.bytes + BLOCK_OVERHEAD_BYTES * facts.blocks


def boots_sentence(lines: Sequence[Line], servers: Sequence[str]) -> str:
    """Of each profile who has the last machine up first, or which rate each server holds; then each by itself."""
    said = [part for ours in _profiles(lines) for part in _of_profile(ours, servers)]
    return " ".join(said) or NOTHING_MEASURED


def headline_of_boots(lines: Sequence[Line]) -> Line:
    """The hardest load that was tried: most machines in the shortest time, or at the highest rate."""

    def hardness(line: Line) -> tuple[float, ...]:
        cell = line.cell
        return cell.machines_asked or 0, -(cell.over_ns or 0), cell.rate_per_s or 0, cell.concurrency

    return max([line for line in lines if line.trials] or lines, key=hardness)


def wire_sentence(lines: Sequence[Line]) -> str:
    """What the wire alone needs at 1, 10 and 25 Gb/s in each profile's hardest cell, and whether the network limits it.

    Nothing of a profile of which it is not known what a machine asked for, or that is nothing.
    """
    profiles = _profiles(lines)
    return " ".join(filter(None, (_wire(ours, is_named=len(profiles) > 1) for ours in profiles)))


def _profiles(lines: Sequence[Line]) -> list[list[Line]]:
    """Those that were tried, by what their machines boot and whether that is at a rate, in the scenario's order."""
    found: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        if line.trials:
            cell = line.cell
            found.setdefault((cell.boot, cell.mix, cell.rate_per_s is not None), []).append(line)
    return list(found.values())


def _of_profile(lines: Sequence[Line], servers: Sequence[str]) -> Iterator[str]:
    """All that is said of one profile."""
    head = headline_of_boots(lines)
    ours = [server for server in servers if any(line.server == server for line in lines)]
    if head.cell.rate_per_s is not None:
        yield from (_at_rates(lines, head, server) for server in ours)
        return
    yield from _race(_beside(lines, head), servers[0])
    yield from _each(lines, head, ours)


def _wire(lines: Sequence[Line], *, is_named: bool) -> str:
    here = _beside(lines, headline_of_boots(lines))
    cell = here[0].cell
    size, of = wire_bytes(cell), f" of {_profile(cell)}" if is_named else ""
    if not size:
        return ""
    if cell.machines_asked is None:
        return _wire_of_a_rate(cell, size, of)
    total = cell.machines_asked * size
    needed = {gbit: total * 8 / gbit for gbit in WIRES_GBIT}  # ns: a gigabit a second is a bit a nanosecond
    times = listed([f"{format_duration(ns)} at {gbit} Gb/s" for gbit, ns in needed.items()])
    limits = {
        line.server: max((gbit for gbit, ns in needed.items() if ns > taken), default=0)
        for line in here
        if (taken := _taken_ns(line)) is not None
    }
    over_ns = cell.over_ns or 0
    if limits and not any(limits.values()) and all(2 * over_ns > (_taken_ns(line) or 0) for line in here):
        # Most of the time is what the machines were given to start in: it says nothing of who is the limit.
        limit = f": at none of them is the network the limit, and machines start within {format_duration(over_ns)}"
    else:
        limit = _limit(limits)
    return f"The wire alone needs {times} for these {format_bytes(total)}{of}{limit}."


def _wire_of_a_rate(cell: Cell, size: float, of: str) -> str:
    rate = cell.rate_per_s
    if rate is None:
        return f"On the wire a machine{of} needs {format_bytes(size)}."
    gbit = rate * size * 8 / 1e9
    fits = next((each for each in WIRES_GBIT if each >= gbit), None)
    where = f"a network of {fits} Gb/s carries that" if fits else f"more than {WIRES_GBIT[-1]} Gb/s carries"
    return f"At {rate_text(rate)} the files{of} need {gbit:.3g} Gb/s on the wire: {where}."


def _taken_ns(line: Line) -> float | None:
    """How long a server took for a storm, from the first start; for 99 % of it where fewer were lost, else None."""
    times = (line.figures[name] for name in ("boot_ns_max", "boot_ns_p99"))
    known = [time for time in times if time is not None and math.isfinite(time)]
    return (line.cell.over_ns or 0) + known[0] if known else None


def _limit(limits: Mapping[str, int]) -> str:
    """Where the network is the limit and where the server: by the highest speed at which the wire takes longer."""
    if not limits:
        return ""
    if len(set(limits.values())) == 1:
        whose = " or ".join(limits) if len(limits) <= MANY_SERVERS else "any server"
        most = next(iter(limits.values()))
        if most == 0:
            return f": at none of them is the network the limit, but {listed(list(limits)[:MANY_SERVERS])}"
        if most == WIRES_GBIT[-1]:
            return f": at all of them the network is the limit, not {whose}"
        return f": up to {most} Gb/s the network is the limit, not {whose}"
    named = [f"with {server} {f'up to {most} Gb/s' if most else 'at none'}" for server, most in limits.items()]
    return f": the network is the limit {listed(named)}"


def _race(here: Sequence[Line], reference: str) -> list[str]:
    """Of several servers under one storm: who has the last machine up first, how many it lost, and how far the others.

    Times are compared by the ratio to the first server; one that lost machines never has the last one up.
    """
    tried = [line for line in here if line.trials]
    if len(tried) < 2:
        return []
    what = f"With {tried[0].label}"
    timed = [line for line in tried if line.figures["boot_ns_max"] is not None]
    whole = [line for line in timed if math.isfinite(line.figures["boot_ns_max"] or 0)]
    if not timed:
        return [f"No answer: no trial is valid {what[:1].lower()}{what[1:]}."]
    if not whole:
        best = min(timed, key=lambda line: line.lost)
        return [f"{what}, no server has all of them up; fewest are lost with {best.server}: {_count(best.lost, best)}."]
    first = min(whole, key=_pace)
    even = [line for line in whole if line is not first and _is_even(line, first)]
    names = listed([first.server, *(line.server for line in even)])
    after = METRICS["boot_ns_max"].text(first.figures["boot_ns_max"] or 0)
    beside = f", {_ratio(first.ratio, reference)}" if first.ratio is not None else ""
    # Where machines start at different times, each has a clock of its own: the last one up may be a fast one.
    at_once = not first.cell.over_ns
    who = f"{names} {'have their' if even else 'has its'} {'last' if at_once else 'slowest'} machine up first"
    lead = f"{what}, {who}, {f'after {after}' if at_once else f'within {after} of its start'}{beside}"
    others = [line for line in tried if line is not first]
    if len(tried) > MANY_SERVERS:
        lossy = [line for line in tried if line.lost]
        worst = max(lossy, key=lambda line: line.lost, default=None)
        many = counted(len(lossy), "server")
        more = f" {many} lost machines, {worst.server} most: {_count(worst.lost, worst)}." if worst else ""
        compared = [f"{line.server} {line.ratio}" for line in others if line.ratio is not None][:_EACH_MAX]
        times = f" Times as long as {reference}: {listed(compared)}." if compared else ""
        return [f"{lead}.{times}{more}"]
    return [f"{'; '.join([lead, *map(_behind, others)])}."]


def _behind(line: Line) -> str:
    """How another server compares, or what it lost: then it never has the last one up."""
    if line.lost:
        return f"{line.server} loses {_count(line.lost, line)}"
    if line.ratio is None:
        last = line.figures["boot_ns_max"]
        text = "has no valid trial" if last is None else f"after {METRICS['boot_ns_max'].text(last)}"
        return f"{line.server} {text}"
    return f"{line.server} takes {_ratio(line.ratio)}"


def _ratio(ratio: Ratio, reference: str = "") -> str:
    """As in "2.38 times as long (95 % interval 2.21 to 2.58)"; no difference is claimed that the interval has not."""
    than = f" as {reference}" if reference else ""
    is_even = _shows_none(ratio)
    words = f"about as long{than} ({ratio.ratio:.2f} times, " if is_even else f"{ratio.ratio:.2f} times as long{than} ("
    return f"{words}{ratio.bounds})"


def _each(lines: Sequence[Line], head: Line, servers: Sequence[str]) -> Iterator[str]:
    """Each server in the headline load; of one server every load, where there are few; and what else was lost."""
    here = _beside(lines, head)
    if len(here) > MANY_SERVERS:
        yield _fared(here[0])
        return
    shown = [line for line in lines if line.trials] if len(servers) == 1 and len(lines) <= _EACH_MAX else here
    for line in shown:
        yield _fared(line, with_label=len(here) == 1)
    others = [line for line in lines if line not in shown and line.trials]
    for server in servers:
        lossy = [line for line in others if line.server == server and line.lost]
        if lossy:
            worst = max(lossy, key=lambda line: line.lost)
            yield f"{server} lost {_count(worst.lost, worst)} with {worst.label}."


def _fared(line: Line, *, with_label: bool = False) -> str:
    """One server under one load, in machines: when half, 99 % and the last are up, how many gave up, and where."""
    return f"{line.server}: {f'{line.label}: ' if with_label else ''}{_times(line)}; {_losses(line)}."


def _times(line: Line) -> str:
    """Until a share of the machines is up, which is never where more than that did not come up."""
    p50, p99, last = (line.figures[f"boot_ns_{name}"] for name in ("p50", "p99", "max"))
    if p50 is None or p99 is None or last is None:
        return "no trial is valid"
    # Where machines start at different times, each has a clock of its own.
    after, end = ("after", "the last") if line.cell.over_ns == 0 else ("within", "the slowest")
    if math.isinf(p50):
        return "fewer than half come up"
    parts = [f"half are up {after} {format_duration(p50)}"]
    parts += [f"99 % {after} {format_duration(p99)}"] if math.isfinite(p99) else []
    parts += [f"{end} {after} {format_duration(last)}"] if math.isfinite(last) else []
    return ", ".join(parts)


def _losses(line: Line) -> str:
    """How many did not come up, of all trials: "6 gave up, 4 of them at grub.cfg (no answer), and 2 came late"."""
    counts = {name: int(line.figures.get(name) or 0) for name in _LOST}
    if not any(counts.values()):
        return "none gave up"
    parts: list[str] = []
    for name, count in counts.items():
        if count:
            many = f"{count:,}" if parts else _count(count, line)
            where = _where(line.stopped, count) if name == "boots_failed" else ""
            parts.append(f"{many} {_LOST[name]}{where}")
    comma = "," if "," in parts[0] else ""
    return ", ".join(parts[:-1]) + (f"{comma} and " if len(parts) > 1 else "") + parts[-1]


def _where(stopped: Mapping[tuple[str, str], int], failed: int) -> str:
    """Where most of those that gave up stopped, and why."""
    if not stopped:
        return ""
    (step, reason), count = Counter(stopped).most_common(1)[0]
    many = f"{count:,} of them " if count < failed else "all " if failed > 1 else ""
    return f", {many}at {step} ({reason})"


def _at_rates(lines: Sequence[Line], head: Line, server: str) -> str:
    """The highest rate at which 99 % come up, and what became of the next one: of the headline's profile."""
    same = [name for name in AXES if name != "rate_per_s"]
    ours = sorted(
        (
            line for line in lines
            if line.server == server and line.trials
            and all(getattr(line.cell, name) == getattr(head.cell, name) for name in same)
        ),
        key=lambda line: line.cell.rate_per_s or 0,
    )  # fmt: skip
    held, beyond = [], None
    for line in ours:
        p99 = line.figures["boot_ns_p99"]
        if p99 is not None and math.isinf(p99):
            beyond = line
            break
        held += [line] if p99 is not None else []
    parts = []
    if held:
        best = held[-1]
        within = METRICS["boot_ns_p99"].text(best.figures["boot_ns_p99"] or 0)
        lost = f" and {_losses(best)}" if best.lost else ""
        parts.append(f"{server} boots {_rate(best)}, 99 % within {within}{lost}")
    if beyond is not None:
        at = rate_text(beyond.cell.rate_per_s or 0)
        found = _shares_lost(beyond)
        parts.append(f"at {at} {found}" if held else f"{server} does not hold {_rate(beyond)}: {found}")
    if not parts:
        return f"No answer: {server} has no valid trial."
    return f"{'; '.join(parts)}."


def _rate(line: Line) -> str:
    """As in "200 machines a second of uefi-grub"."""
    number, _, unit = rate_text(line.cell.rate_per_s or 0).partition("/")
    per = {"s": "a second", "min": "a minute", "h": "an hour"}[unit]
    hosts = hosts_text(line.cell.load_hosts)
    return f"{number} machines {per} of {_profile(line.cell)}{f' {hosts}' if hosts else ''}"


def _profile(cell: Cell) -> str:
    """What its machines boot, in words."""
    return AXES["boot"].text(cell.boot) if cell.boot else AXES["mix"].text(cell.mix)


def _shares_lost(line: Line) -> str:
    asked = line.asked or 0
    counts = {name: int(line.figures.get(name) or 0) for name in _LOST}
    return listed([f"{_percent(count, asked)} {words}" for name, words in _LOST.items() if (count := counts[name])])


def _percent(count: float, whole: float) -> str:
    shown = f"{100 * count / whole:.0f}" if whole else "?"
    return f"{'<1' if shown == '0' else shown} %"


def _count(count: int, line: Line) -> str:
    """Of one trial the number alone; of several with how many machines they had in all."""
    return f"{count:,}" if line.trials == 1 else f"{count:,} of {line.asked or 0:,.0f}"


def _beside(lines: Sequence[Line], head: Line) -> list[Line]:
    return [line for line in lines if line.label == head.label]


def _pace(line: Line) -> tuple[float, float]:
    """By the ratio to the first server, which is 1 to itself; else by the longest time."""
    return (line.ratio.ratio if line.ratio is not None else 1.0), line.figures["boot_ns_max"] or math.inf


def _is_even(line: Line, first: Line) -> bool:
    """Whether the trials show no difference between a server and the one that was first."""
    ratio = line.ratio or first.ratio
    return (line.ratio is None or first.ratio is None) and ratio is not None and _shows_none(ratio)


def _shows_none(ratio: Ratio) -> bool:
    """Whether the pairs show no difference: their interval has 1 in it, or, where there is none, their range."""
    return ratio.lowest < 1 < ratio.highest if ratio.differs is None else not ratio.differs
