"""What a gate found, for a terminal: the sentence, a table, what must be known besides, where the files are.

Plain lines; colour only where asked for. It must never compute a figure.
"""

import shlex
from collections.abc import Sequence

from tftpbench.gate.result import GateResult, Judgement, Noise, Verdict
from tftpbench.gate.text import budget_text, interval, percent, signed
from tftpbench.model.escape import visible_line
from tftpbench.render.gate.markdown import figure_text, metric_of

_RED, _GREEN, _YELLOW, _BOLD, _OFF = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
_COLOURS: dict[Verdict, str] = {Verdict.REGRESSED: _RED, Verdict.PASS: _GREEN, Verdict.IMPROVED: _GREEN}
_MARKS: dict[Verdict, str] = {Verdict.REGRESSED: "✗", Verdict.PASS: "✓", Verdict.IMPROVED: "✓"}
_LISTED_MAX = 8


def render(result: GateResult, colour: bool) -> str:
    """The whole, without a last line end."""
    files = [f"Files:  {result.folder}"] if result.folder else []
    repeat = [f"Repeat: {shlex.join(result.facts.command)}"] if result.facts.command else []
    blocks = [
        [_paint(visible_line(result.sentence), _BOLD, colour)],
        _table(result, colour),
        _noise(result),
        [visible_line(remark) for remark in result.remarks],
        [visible_line(line) for line in (*files, *repeat)],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _table(result: GateResult, colour: bool) -> list[str]:
    several = len({each.cell for each in result.judgements}) > 1
    head = ["", "metric", "base", "head", "head / base (95 %)", "budget", "verdict", "caught from"]
    rows = [_cells(each, several) for each in result.judgements]
    if not rows:
        return []
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = []
    for row, judgement in zip((head, *rows), (None, *result.judgements), strict=True):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        verdict = judgement.verdict if judgement else None
        lines.append(_paint(line, _COLOURS.get(verdict, _YELLOW), colour) if verdict else line)
    return lines


def _cells(each: Judgement, several: bool) -> list[str]:
    return [
        _MARKS.get(each.verdict, "?") if each.verdict else " ",
        _name(each, several),
        figure_text(each.metric, each.base),
        figure_text(each.metric, each.head),
        interval(each),
        "" if each.budget is None else budget_text(each.budget),
        each.verdict or ("not judged" if each.budget is not None else "not gated"),
        "" if each.smallest_effect is None else percent(each.smallest_effect),
    ]


def _noise(result: GateResult) -> list[str]:
    """One line: how far apart two starts of the same base were."""
    several = len({each.cell for each in result.judgements}) > 1
    known = [
        f"{_name(each, several)} {signed(each.ratio)} ({signed(each.lowest)} to {signed(each.highest)})"
        for each in result.noise
        if each.ratio is not None and each.lowest is not None and each.highest is not None
    ]
    if not known:
        return []
    pairs = max(each.pairs for each in result.noise)
    return [
        f"Noise, a second base against the base, {pairs} times:",
        *(f"  {visible_line(line)}" for line in _some(known)),
    ]


def _some(lines: Sequence[str]) -> list[str]:
    return [*lines[:_LISTED_MAX], *([f"and {len(lines) - _LISTED_MAX} more"] if len(lines) > _LISTED_MAX else [])]


def _name(each: Judgement | Noise, several: bool) -> str:
    metric = metric_of(each.metric)
    words = metric.words if metric else each.metric
    return visible_line(f"{words}, {each.cell}" if several else words)


def _paint(text: str, colour: str, wanted: bool) -> str:
    return f"{colour}{text}{_OFF}" if wanted else text
