"""An Answer for people: the sentence, thresholds with a tick or a cross, the table, what was left out, what next.

Plain lines of text; colour only where asked for. It must never compute a figure.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from tftpbench.analysis.summary.answer import Answer, Judged
from tftpbench.analysis.summary.lines import Line
from tftpbench.model.escape import visible_line
from tftpbench.model.thresholds import State
from tftpbench.model.units import format_count, format_duration

_GREEN, _RED, _YELLOW, _BOLD, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
# After so many of one sort, people want a number and not a longer list.
_LISTED_MAX = 8
_WIDTH_MAX = 100
# What servers did wrong, and who was left out, is what a run of many servers is made for.
_FINDINGS_MAX = 40


def render(answer: Answer, folder: str, repeat: str, *, colour: bool = False) -> str:
    """The end of a run as text, with where its files are and the command to repeat it."""
    blocks = [
        [_paint(visible_line(answer.sentence), _BOLD, colour)],
        _thresholds(answer.thresholds, colour),
        [visible_line(line) for line in _table(answer)],
        _listed("What servers did wrong:", list(answer.findings), _FINDINGS_MAX),
        _listed(
            "Invalid trials, kept and never used:",
            [f"trial {each.trial}, {each.server}, {each.cell_label}: {each.reason}" for each in answer.invalid],
        ),
        _listed("Protocol faults where transfers failed:", list(answer.faults)),
        _listed("Too few valid trials:", list(answer.incomplete)),
        _listed("Left out:", list(answer.skipped), _FINDINGS_MAX),
        [
            visible_line(line)
            for line in (f"Files:  {folder}", f"Report: tftpbench report {shlex.quote(folder)}", f"Repeat: {repeat}")
        ],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def html(answer: Answer) -> str:
    """The sentence and the table for a notebook; whatever a run may hold is escaped."""
    head, *body = [["", *header(answer)], *([line.label, *cells(answer, line)] for line in answer.lines)]
    rows = [f"<tr>{''.join(f'<th>{escape(visible_line(text))}</th>' for text in head)}</tr>"]
    rows += [f"<tr>{''.join(f'<td>{escape(visible_line(text))}</td>' for text in row)}</tr>" for row in body]
    table = f"<table>{''.join(rows)}</table>" if body else ""
    return f"<p><strong>{escape(visible_line(answer.sentence))}</strong></p>{table}"


@dataclass(frozen=True)
class Judgement:
    """One threshold over all cells: "held", "missed" or "not known", and where and why it does not hold."""

    threshold: str
    state: State
    judged: int
    reasons: tuple[str, ...]


def judgements(judged: Sequence[Judged]) -> list[Judgement]:
    """Each threshold once, in the scenario's order."""
    found: list[Judgement] = []
    for text in dict.fromkeys(str(each.verdict.threshold) for each in judged):
        every = [each for each in judged if str(each.verdict.threshold) == text]
        bad = [each for each in every if not each.verdict.held]
        missed = any(each.verdict.state == "missed" for each in bad)
        state: State = "missed" if missed else "not known" if bad else "held"
        found.append(Judgement(text, state, len(every), tuple(map(_why, bad))))
    return found


def header(answer: Answer, *, has_ceiling: bool = False) -> tuple[str, ...]:
    """Names of the table's columns; `has_ceiling`: with the share of the ceiling, beside a comparison of servers."""
    compared = f"against {answer.against}" if any(line.ratio for line in answer.lines) or _is_of_many(answer) else ""
    rate = ("at its best", "bytes/s") if _is_best(answer) else ("data/s",)
    share = ("of ceiling",) if has_ceiling else ()
    return ("server", *rate, *share, compared, "block rtt p50", "p99", "CPU/block", "lost", "valid")


def cells(answer: Answer, line: Line, *, has_ceiling: bool = False) -> tuple[str, ...]:
    """A line under that header."""
    share = f"{line.ceiling_ratio:.2f}x" if line.ceiling_ratio is not None else "-"
    rate = line.goodput_bytes_per_s if _is_best(answer) else line.data_pps
    return (
        line.server,
        *((", ".join(line.cell.options.values()) or "no options",) if _is_best(answer) else ()),
        format_count(rate) if rate is not None else "-",
        *((share,) if has_ceiling else ()),
        str(line.ratio or ""),
        format_duration(line.block_rtt.p50) if line.block_rtt else "-",
        format_duration(line.block_rtt.p99) if line.block_rtt else "-",
        format_duration(line.server_cpu_ns_per_block) if line.server_cpu_ns_per_block is not None else "-",
        str(line.lost),
        f"{line.valid}/{line.trials}",
    )


def columns_text(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines, the first column to the left and figures to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _thresholds(judged: Sequence[Judged], colour: bool) -> list[str]:
    """Each threshold once with a tick; every cell where it does not hold, by name."""
    marks = {"held": ("✓", _GREEN), "missed": ("✗", _RED), "not known": ("?", _YELLOW)}
    lines: list[str] = []
    for each in judgements(judged):
        lines.append(f"{_paint(*marks[each.state], colour)} {visible_line(each.threshold)}")
        lines += _shortened([f"    {visible_line(reason)}" for reason in each.reasons])
    return lines


def _why(judged: Judged) -> str:
    verdict = judged.verdict
    value = f"{verdict.value:g}, " if verdict.value is not None else ""
    return f"{verdict.server or verdict.threshold.server}, {judged.cell_label}: {value}{verdict.detail}"


def _table(answer: Answer) -> list[str]:
    if not answer.lines:
        return []
    first, *rest = _fitting(answer)
    out = [f"  {first}"]
    previous = None
    for line, text in zip(answer.lines, rest, strict=True):
        if line.label != previous:
            out.append(line.label)
            previous = line.label
        out.append(f"  {text}")
    return out


def _fitting(answer: Answer) -> list[str]:
    """With the share of the ceiling where it is known, is not what is compared anyway, and leaves the lines short."""
    is_known = any(line.ceiling_ratio is not None for line in answer.lines)
    tables = [
        columns_text(
            [
                header(answer, has_ceiling=has_ceiling),
                *(cells(answer, line, has_ceiling=has_ceiling) for line in answer.lines),
            ]
        )
        for has_ceiling in ((True, False) if is_known and answer.against == answer.reference else (False,))
    ]
    return next((lines for lines in tables if max(map(len, lines)) + 2 <= _WIDTH_MAX), tables[-1])


def _is_of_many(answer: Answer) -> bool:
    return len({line.server for line in answer.lines}) > 1


def _is_best(answer: Answer) -> bool:
    return answer.metric == "goodput_bytes_per_s"


def _listed(title: str, lines: list[str], most: int = _LISTED_MAX) -> list[str]:
    return [title, *_shortened([f"  {visible_line(line)}" for line in lines], most)] if lines else []


def _shortened(lines: list[str], most: int = _LISTED_MAX) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[:most], f"  ... and {len(lines) - most} more"]


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_OFF}" if colour else text
