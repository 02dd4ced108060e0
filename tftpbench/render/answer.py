"""The answer of a run as sections: the sentence, thresholds, the table, what was found, what was left out, what next.

The first figures and their order are those of `HEADLINE`. It must never leave the first columns out for want of room.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tftpbench.analysis.summary import Answer, JudgedEverywhere, Line, judgements
from tftpbench.measure.findings import Origin
from tftpbench.model.metrics import BOOTS, HEADLINE, METRICS, OPEN_LOOP, Metric
from tftpbench.model.programs import typed
from tftpbench.model.thresholds import State
from tftpbench.render.plain import plain, table_lines
from tftpbench.render.sections import UNKNOWN, Checks, Heading, Listing, Mark, Paragraph, Section, Table, Value

MARKS: dict[State, Mark] = {"held": "good", "missed": "bad", "not known": "unclear"}
IN_FLIGHT = "Most transfers in flight at once, as client.start spreads them"
# A wide terminal, and what a file of text should fit in.
WIDTH = 120
# What is looked for, where there is no room for all: how fast it was served, who is faster, and what was lost (a column
# of zeros is not needed for that). The rest is left out from the right.
_NEEDED = (
    "boot_ns_max", "boot_ns_p99", "boot_ns_p50", "ratio", "transfer_ns_p50", "transfer_ns_max", "transfer_ns_p99",
    "lost", "transfers_per_s", "goodput_bytes_per_s", "data_pps", "valid",
)  # fmt: skip
# After so many of one sort, people want a number and not a longer list.
_LISTED_MAX = 8
# What servers did wrong, and who was left out, is what a run of many servers is made for.
_FINDINGS_MAX = 40
FINDINGS: Mapping[Origin, str] = {
    "server": "What servers did wrong:",
    "test": "Where the test was too short:",
    "option": "Options that were not granted, which RFC 2347 allows:",
    "profile": "Files that were served, and that the boot profile expects to be absent:",
    "unmeasured": "What could not be measured:",
}
_RATIO = (
    "Blocks (or bytes) of this server for each of the other's, over pairs of trials of one round: a 20 % "
    "trimmed mean, and in brackets its 95 % interval. Under six pairs there is only the range that was seen."
)
_RATIO_OF_TIMES = (
    "How many times as long as with the other server it took until the last machine was up (at a rate, 99 % of them), "
    "over pairs of trials of one round: a 20 % trimmed mean, and in brackets its 95 % interval. Under six pairs there "
    "is only the range that was seen. Where machines were lost there is none."
)
_Column = tuple[Heading, Callable[[Line], Value]]


def text(answer: Answer, folder: str, repeat: str, *, colour: bool = False, width: int | None = None) -> str:
    """The end of a run for a terminal so wide, with where its files are and the command to repeat it.

    `width` None: for a file, with a table of WIDTH, and sentences in one line.
    """
    next_ = (f"Files:  {folder}", f"Report: {typed(['tftpbench', 'report', folder])}", f"Repeat: {repeat}")
    shown = [_fitting(each, width or WIDTH) if isinstance(each, Table) else each for each in sections(answer)]
    note = [Paragraph((answer.note,), is_prose=True)] if answer.note else []
    return plain([*shown, Paragraph(next_), *note], colour=colour, width=width)


def sections(answer: Answer) -> list[Section]:
    """The sentence and the table first, but for the thresholds between them where there are any."""
    checks = tuple((MARKS[each.state], _check(each), each.reasons) for each in judgements(answer.thresholds))
    return [
        Paragraph((answer.sentence,), is_answer=True),
        *([Paragraph((answer.wire,), is_prose=True)] if answer.wire else []),
        *([Paragraph((answer.conditions,), is_prose=True)] if answer.lines else []),
        *([Checks(checks)] if checks else []),
        headline_table(answer),
        *([Paragraph((answer.why_invalid,), is_prose=True)] if answer.why_invalid else []),
        *([Paragraph((answer.headroom,), is_prose=True)] if answer.headroom else []),
        *([Paragraph((answer.noise,), is_prose=True)] if answer.noise else []),
        Listing(f"{IN_FLIGHT}:", answer.in_flight, _LISTED_MAX),
        *found(answer),
        Listing("Protocol faults where transfers failed:", answer.faults, _LISTED_MAX),
        Listing("Too few valid trials:", answer.too_few, _LISTED_MAX),
        Listing("Left out:", answer.skipped, _FINDINGS_MAX),
    ]


def _check(judgement: JudgedEverywhere) -> str:
    """The threshold, and in how many cases of each kind it does not hold where there are several kinds."""
    is_mixed = 0 < judgement.missed < len(judgement.reasons)
    return f"{judgement.threshold} ({judgement.cases})" if is_mixed else judgement.threshold


def found(answer: Answer) -> list[Listing]:
    """What was found of servers, a list for each origin."""
    return [Listing(FINDINGS[origin], lines, _FINDINGS_MAX) for origin, lines in answer.findings_by_origin.items()]


def invalid(answer: Answer) -> tuple[str, ...]:
    """Each trial that does not count, and why."""
    return tuple(f"trial {each.trial}, {each.server}, {each.cell_label}: {each.reason}" for each in answer.invalid)


def headline_table(answer: Answer) -> Table:
    """The first figures, a row per server and cell; those of a cell are a group."""
    columns = [*_WHO, *_at_best(answer), (_SERVED, _served)]
    if _is_of_boots(answer):
        return _boots_table(answer)
    is_open, is_closed = (any(bool(line.cell.open_loop) is each for line in answer.lines) for each in (True, False))
    if is_open:
        columns += [_of_open_loop(each) for each in OPEN_LOOP.values() if each.name not in ("intended", "completed")]
    for metric in HEADLINE.values() if is_closed or not is_open else ():
        if is_open and metric.name in OPEN_LOOP:
            continue
        if metric.name == "ceiling_ratio":
            columns += [_share_of_ceiling(metric)] if _has_shares(answer) else []
        elif not metric.is_count:
            columns.append(_plain_figure(metric))
        columns += _ratio(answer) if metric.name == answer.metric else []
    columns += [*([] if is_open else [_plain_figure(METRICS["failed"])]), _lost(_LOST), _VALID]
    return _table(answer, columns)


def _boots_table(answer: Answer) -> Table:
    """The first figures of machines; of counts only what `lost` does not hold."""
    shown = [_plain_figure(each) for each in BOOTS.values() if each.name not in _BOOTS_IN_OTHERS]
    before = next((place for place, (heading, _) in enumerate(shown) if answer.metric in heading.names), -1) + 1
    columns = [*_WHO, (_BOOTED, _served), *shown[:before], *_ratio(answer), *shown[before:], _lost(_NOT_UP), _VALID]
    return _table(answer, columns)


def _table(answer: Answer, columns: Sequence[_Column]) -> Table:
    marked = frozenset(number for number, line in enumerate(answer.lines) if line.server == answer.against)
    rows = tuple(tuple(value(line) for _, value in columns) for line in answer.lines)
    has_marks = any(value.text.endswith("*") for row in rows for value in row)
    marks = dict.fromkeys(line.ceiling_mark for line in answer.lines if line.ceiling_mark and has_marks)
    notes = tuple(f"* share of the ceiling: {mark}" for mark in marks)
    return Table(
        "headline", "Figures", tuple(heading for heading, _ in columns), rows,
        marked if _is_compared(answer) else frozenset(), is_grouped=True, notes=notes,
    ).known()  # fmt: skip


def figure(value: float | None, metric: Metric) -> Value:
    """A figure in a table; UNKNOWN where it is not known. What is never sorts behind any number."""
    return Value(UNKNOWN) if value is None else Value(metric.text(value), min(value, sys.float_info.max))


_BOOTED = Heading(
    "booted",
    f"Machines that came up, of those that were to boot: {METRICS['booted'].combined}.",
    names=("booted", "machines"),
)
_NOT_UP = Heading(
    "lost",
    "Machines that gave up, were late, were not begun or were cut off, over all trials.",
    names=("lost",),
)
# They stand in "booted" and in "lost".
_BOOTS_IN_OTHERS = {"machines", "booted", "boots_failed", "boots_late", "boots_shed", "boots_interrupted"}
_SERVED = Heading(
    "served",
    f"Transfers that ended with the last ACK, of those begun: {METRICS['completed'].combined}. At a rate: of "
    "those that were to begin.",
    names=("started", "completed"),
)
_LOST = Heading(
    "lost",
    "Transfers that failed, timed out or never got an answer, over all trials. At a rate: all that did not complete.",
    names=("lost",),
)


def _served(line: Line) -> Value:
    done, asked = line.done, line.asked
    return Value(line.served, done / asked if done is not None and asked and done <= asked else None)


def _lost(heading: Heading) -> _Column:
    return heading, lambda line: Value(f"{line.lost:,}", line.lost)


def _plain_figure(metric: Metric) -> _Column:
    meaning = f"{metric.meaning} {metric.combined[:1].upper()}{metric.combined[1:]}."
    heading = Heading(metric.heading, meaning, names=(metric.name,))
    return heading, lambda line: figure(None if _is_alien(line, metric) else line.figures[metric.name], metric)


def _of_open_loop(metric: Metric) -> _Column:
    heading, _ = _plain_figure(metric)
    return heading, lambda line: figure(line.figures.get(metric.name), metric)


def _is_alien(line: Line, metric: Metric) -> bool:
    """Whether a figure would flatter a server at a rate that drops its slowest: it is of what completed only."""
    return (
        line.cell.open_loop is not None
        and bool(metric.histogram or metric.is_max)
        and metric.name not in OPEN_LOOP | BOOTS
    )


def _at_best(answer: Answer) -> list[_Column]:
    if answer.metric != "goodput_bytes_per_s":
        return []
    heading = Heading("at its best", "The options at which this server moves most.", is_figure=False)
    return [(heading, lambda line: Value(", ".join(line.cell.options.values()) or "no options"))]


def _is_compared(answer: Answer) -> bool:
    return any(line.ratio for line in answer.lines) or len({line.server for line in answer.lines}) > 1


def _is_of_boots(answer: Answer) -> bool:
    return any(line.cell.is_boots for line in answer.lines)


def _is_of_ceiling(answer: Answer) -> bool:
    return answer.against != answer.reference


def _has_shares(answer: Answer) -> bool:
    """Where they are no ratios already."""
    return not _is_of_ceiling(answer) and any(line.figures["ceiling_ratio"] is not None for line in answer.lines)


def _ratio(answer: Answer) -> list[_Column]:
    def against(line: Line) -> Value:
        if line.server == answer.against:
            return Value("", 1.0)
        star = "*" if _is_of_ceiling(answer) and line.ceiling_mark else ""
        return Value(f"{line.ratio}{star}", line.ratio.ratio) if line.ratio else Value(UNKNOWN)

    meaning = _RATIO_OF_TIMES if _is_of_boots(answer) else _RATIO
    return [(Heading(f"against {answer.against}", meaning, names=("ratio",)), against)] if _is_compared(answer) else []


def _share_of_ceiling(metric: Metric) -> _Column:
    heading, value = _plain_figure(metric)
    return heading, lambda line: value(line)._replace(text=value(line).text + ("*" if line.ceiling_mark else ""))


def _valid(line: Line) -> Value:
    return Value(f"{line.valid}/{line.trials}", line.valid)


_WHO: tuple[_Column, ...] = (
    (Heading("cell", "What was asked of the server.", is_figure=False), lambda line: Value(line.label)),
    (Heading("server", is_figure=False), lambda line: Value(line.server)),
)
_VALID: _Column = (Heading("valid", "Trials that count, of those that were done.", names=("valid",)), _valid)


def _fitting(table: Table, width: int) -> Table:
    """As many of its columns as fit, those of _NEEDED first; those up to what was served stay whatever the width is."""
    names = [heading.names[0] if heading.names else "" for heading in table.headings]
    least = next(place for place, heading in enumerate(table.headings) if heading.is_figure) + 1
    is_lossless = "lost" in names and not any(row[names.index("lost")].sort for row in table.rows)
    needed = {name: rank for rank, name in enumerate(_NEEDED) if not (is_lossless and name == "lost")}
    by_need = sorted(range(least, len(names)), key=lambda place: (needed.get(names[place], len(needed)), place))
    kept = list(range(len(names)))
    while by_need and max(map(len, table_lines(table.keeping(kept))), default=0) > width:
        kept.remove(by_need.pop())
    left_out = [heading.title for place, heading in enumerate(table.headings) if place not in kept]
    if not left_out:
        return table
    if not any(row[place].text.endswith("*") for row in table.rows for place in kept):
        table = replace(table, notes=tuple(note for note in table.notes if not note.startswith("* ")))
    return table.keeping(kept, f"Not shown for lack of room: {', '.join(left_out)}.")
