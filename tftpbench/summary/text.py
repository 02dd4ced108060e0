"""An Answer for people: the sentence, thresholds with a tick or a cross, the table, what was left out, what next.

Plain lines of text; colour only where asked for. It must never compute a figure. Called by the command line.
"""

from collections.abc import Sequence

from tftpbench.stats import Ratio
from tftpbench.summary.answer import Answer, Judged
from tftpbench.summary.lines import Line
from tftpbench.units import format_duration, format_rate

_GREEN, _RED, _YELLOW, _BOLD, _OFF = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
# After so many of one sort, people want a number and not a longer list.
_LISTED_MAX = 8
# What servers did wrong, and who was left out, is what a run of many servers is made for.
_FINDINGS_MAX = 40


def render(answer: Answer, folder: str, repeat: str, *, colour: bool = False) -> str:
    """The end of a run as text, with where its files are and the command to repeat it."""
    blocks = [
        [_paint(answer.sentence, _BOLD, colour)],
        _thresholds(answer.thresholds, colour),
        _table(answer),
        _listed("What servers did wrong:", list(answer.findings), _FINDINGS_MAX),
        _listed(
            "Invalid trials, kept and never used:",
            [f"trial {each.trial}, {each.server}, {each.cell_label}: {each.reason}" for each in answer.invalid],
        ),
        _listed("Protocol faults where transfers failed:", list(answer.faults)),
        _listed("Too few valid trials:", list(answer.incomplete)),
        _listed("Left out:", list(answer.skipped), _FINDINGS_MAX),
        [f"Files:  {folder}", f"Repeat: {repeat}"],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def ratio_text(ratio: Ratio | None) -> str:
    """As a cell of the table: "0.61x (0.58 to 0.64)", or with the range where there is no interval."""
    if ratio is None:
        return ""
    if ratio.n == 1:
        return f"{ratio.ratio:.2f}x (one pair)"
    if ratio.low is None or ratio.high is None:
        return f"{ratio.ratio:.2f}x (range of {ratio.n}: {ratio.lowest:.2f} to {ratio.highest:.2f})"
    return f"{ratio.ratio:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


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
    lines: list[str] = []
    for text in dict.fromkeys(str(each.verdict.threshold) for each in judged):
        every = [each for each in judged if str(each.verdict.threshold) == text]
        bad = [each for each in every if not each.verdict.held]
        if not bad:
            lines.append(f"{_paint('✓', _GREEN, colour)} {text}")
            continue
        missed = any(each.verdict.state == "missed" for each in bad)
        lines.append(f"{_paint('✗', _RED, colour) if missed else _paint('?', _YELLOW, colour)} {text}")
        lines += _shortened([f"    {_why(each)}" for each in bad])
    return lines


def _why(judged: Judged) -> str:
    verdict = judged.verdict
    value = f"{verdict.value:g}, " if verdict.value is not None else ""
    return f"{verdict.server or verdict.threshold.server}, {judged.cell_label}: {value}{verdict.detail}"


def _table(answer: Answer) -> list[str]:
    lines, is_best = answer.lines, answer.metric == "goodput_bytes_per_s"
    if not lines:
        return []
    header, *rest = columns_text([_header(answer, is_best), *(_cells(line, is_best) for line in lines)])
    out = [f"  {header}"]
    previous = None
    for line, text in zip(lines, rest, strict=True):
        if line.label != previous:
            out.append(line.label)
            previous = line.label
        out.append(f"  {text}")
    return out


def _header(answer: Answer, is_best: bool) -> tuple[str, ...]:
    compared = f"against {answer.reference}" if len({line.server for line in answer.lines}) > 1 else ""
    rate = ("at its best", "bytes/s") if is_best else ("data/s",)
    return ("server", *rate, compared, "block rtt p50", "p99", "CPU/block", "lost", "valid")


def _cells(line: Line, is_best: bool) -> tuple[str, ...]:
    rate = line.goodput_bytes_per_s if is_best else line.data_pps
    return (
        line.server,
        *((", ".join(line.cell.options.values()) or "no options",) if is_best else ()),
        format_rate(rate).removesuffix("/s").strip() if rate is not None else "-",
        ratio_text(line.ratio),
        format_duration(line.block_rtt.p50) if line.block_rtt else "-",
        format_duration(line.block_rtt.p99) if line.block_rtt else "-",
        format_duration(line.server_cpu_ns_per_block) if line.server_cpu_ns_per_block is not None else "-",
        str(line.lost),
        f"{line.valid}/{line.trials}",
    )


def _listed(title: str, lines: list[str], most: int = _LISTED_MAX) -> list[str]:
    return [title, *_shortened([f"  {line}" for line in lines], most)] if lines else []


def _shortened(lines: list[str], most: int = _LISTED_MAX) -> list[str]:
    if len(lines) <= most:
        return lines
    return [*lines[:most], f"  ... and {len(lines) - most} more"]


def _paint(text: str, code: str, colour: bool) -> str:
    return f"{code}{text}{_OFF}" if colour else text
