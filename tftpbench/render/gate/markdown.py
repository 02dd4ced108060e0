"""The gate's report as Markdown for GitHub: a comment on a pull request, verdict first.

GitHub refuses a comment of more than 65,536 characters, so rows and lines are limited.
"""

import math
import shlex
from collections.abc import Iterator, Mapping

from tftpbench.gate.result import GateResult, Judgement, Noise, Side, Verdict, pairs_used
from tftpbench.gate.text import alternatives, budget_text, invalid_pairs, percent
from tftpbench.model.budgets import METRICS, REPORTED
from tftpbench.model.escape import markdown, visible
from tftpbench.model.metrics import Metric
from tftpbench.model.units import counted, format_duration
from tftpbench.render.markdown import LISTED_MAX, bullets
from tftpbench.render.markdown import row as table_row
from tftpbench.render.report import environment
from tftpbench.render.sections import shortened

MARKS: Mapping[Verdict, str] = {
    Verdict.REGRESSED: "❌",
    Verdict.INVALID: "🚫",
    Verdict.SUSPECTED: "⚠️",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.PASS: "✅",
    Verdict.IMPROVED: "🚀",
}
_HEADINGS = ("metric", "base", "head", "head / base (95 % interval)", "budget", "verdict", "pairs",
             "smallest loss it would have caught")  # fmt: skip
_ROWS_MAX = 60
_CELL_MAX = 100
# Of a text from outside: a version or a command may be a page long.
_TEXT_MAX = 400
_UNKNOWN = "-"
# An altered file may hold more than anything ever was, in any unit.
_FIGURE_MAX = 1e18
# Keys of a scenario that mean nothing in a gate.
_NOT_OF_A_GATE = ("trials", "warm_up", "servers")
_NOT_JUDGED = "❔"


def write_markdown(result: GateResult) -> str:
    """Verdict, figures, noise floor, remarks, environment, and the command that does the same again."""
    blocks = [
        [f"**{MARKS[result.verdict]} {_text(result.sentence)}**"],
        [f"❌ {_text(result.failure)}"] if result.failure else [],
        [_ran(result)],
        _figures(result),
        _reasons(result),
        _noise(result),
        bullets("Remarks", [_short(remark) for remark in result.remarks]),
        _environment(result),
        _repeat(result),
        ["How it decides, and what it can't see: docs/gate.md of tftpbench."],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def metric_of(name: str) -> Metric | None:
    """What a metric is; None for one of a newer version."""
    return METRICS.get(name) or REPORTED.get(name)


def ratio_text(ratio: float | None, low: float | None, high: float | None) -> str:
    """As "1.012 (0.998 to 1.026)"."""
    if ratio is None:
        return _UNKNOWN
    bounds = "" if low is None or high is None else f" ({_digits(low)} to {_digits(high)})"
    return f"{_digits(ratio)}{bounds}"


def _ran(result: GateResult) -> str:
    """That it ran, and how much: silence could be a gate that is broken."""
    used = pairs_used(result.judgements)
    amount = f"{counted(used, 'trial')} a side"
    if result.method == "ab":
        amount = f"{counted(used, 'pair')} of fresh processes"
    amount = f"{amount}, {_duration(result.facts.duration_s)}"
    left_out = invalid_pairs(result.pairs)
    besides = f"; {left_out}" if left_out else ""
    if result.verdict == Verdict.PASS and result.failure is None:
        return f"It ran, and found nothing: {amount}{besides}."
    return f"It ran: {amount}{besides}."


def _figures(result: GateResult) -> list[str]:
    rows = sorted(result.judgements, key=_by_severity)
    if not rows:
        return ["No figure was measured."]
    several = has_cells(result)
    lines = [table_row(_HEADINGS), "| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: |"]
    lines += [table_row(map(_short, _cells(each, several))) for each in rows[:_ROWS_MAX]]
    more = len(rows) - _ROWS_MAX
    return [*lines, *(["", f"and {counted(more, 'row')} more in gate.json"] if more > 0 else [])]


def _cells(row: Judgement, several: bool) -> Iterator[str]:
    yield named(row, several)
    yield figure_text(row.metric, row.base)
    yield figure_text(row.metric, row.head)
    yield ratio_text(row.ratio, row.low, row.high)
    yield _UNKNOWN if row.budget is None else budget_text(row.budget)
    yield _verdict(row)
    yield str(row.pairs)
    yield _UNKNOWN if row.smallest_effect is None else percent(row.smallest_effect)


def _verdict(row: Judgement) -> str:
    if row.verdict is None:
        return "never gated" if row.budget is None else f"{_NOT_JUDGED} not judged"
    amount = ""
    if row.worse is not None and row.verdict in {Verdict.REGRESSED, Verdict.SUSPECTED, Verdict.IMPROVED}:
        amount = f", {percent(abs(row.worse))} {'worse' if row.worse > 0 else 'better'}"
    return f"{MARKS[row.verdict]} {row.verdict}{amount}"


def _reasons(result: GateResult) -> list[str]:
    """Why, for each verdict that asks something of the reader."""
    several = has_cells(result)
    asking = [row for row in sorted(result.judgements, key=_by_severity) if row.budget is not None and row.detail]
    asking = [row for row in asking if row.verdict not in {Verdict.PASS, Verdict.IMPROVED}]
    lines = []
    for row in asking:
        mark = MARKS[row.verdict] if row.verdict else _NOT_JUDGED
        lines.append(f"{mark} {_text(f'{named(row, several)}: {row.detail}')}")
    return [f"- {line}" for line in shortened(lines, LISTED_MAX)]


def _noise(result: GateResult) -> list[str]:
    """How far apart two starts of the same base were."""
    known = [each for each in result.noise if each.ratio is not None]
    several = has_cells(result)
    lines = [
        _short(f"{named(each, several)}: {_digits(each.ratio)}{_range(each)}, {counted(each.pairs, 'pair')}")
        for each in known
        if each.ratio is not None
    ]
    return bullets("Noise floor: a second start of the same base / the base", lines)


def _range(each: Noise) -> str:
    if each.lowest is None or each.highest is None or each.pairs < 2:
        return ""
    return f" ({_digits(each.lowest)} to {_digits(each.highest)})"


def _environment(result: GateResult) -> list[str]:
    facts = result.facts
    asked = {name: value for name, value in facts.scenario.items() if name not in _NOT_OF_A_GATE}
    manifest = {
        "scenario": asked, "seed": facts.seed, "keys": facts.keys, "machine": facts.machine,
        "build": facts.build,
        "placement": {"server_cpus": list(facts.server_cpus), "generator_cpus": list(facts.generator_cpus)},
    }  # fmt: skip
    lines = [f"- {_text(side)}: {_side(each)}" for side, each in (("base", result.base), ("head", result.head))]
    lines += [f"- work: {_text(words)}" for words in shortened(list(facts.work.values()), LISTED_MAX)]
    if result.method == "ab":
        false_alarms = f"in at most {budget_text(facts.error)} of gates equal code is called regressed"
        lines.append(f"- could decide after: {alternatives(facts.looks)} pairs; {false_alarms}")
    lines.append(f"- started: {_text(facts.started_at)}")
    left_out = [f"pair {each.number}: {each.invalid}" for each in result.pairs if each.invalid is not None]
    lines += [f"- invalid: {_text(each)}" for each in shortened(left_out, LISTED_MAX)]
    for heading, known in environment.groups(manifest, facts.placement).items():
        if known:
            lines.append(f"- {_text(heading)}: " + "; ".join(_text(f"{fact.name} {fact.value}") for fact in known))
    return ["<details><summary>Environment</summary>", "", *lines, "", "</details>"]


def _side(side: Side) -> str:
    command = " ".join(word if word.startswith("{") else shlex.quote(word) for word in side.argv)
    parts = [" ".join(filter(None, (side.name, side.version))), side.model, command]
    if side.entry != side.name:
        parts.insert(0, side.entry)
    return "; ".join(_text(each) for each in parts if each)


def _repeat(result: GateResult) -> list[str]:
    if not result.facts.command:
        return []
    words = shlex.join(result.facts.command)
    # In a block of code only its end means anything.
    return ["To repeat it:", "", "```sh", visible(" ".join(words.split("\n"))).replace("```", "`` `"), "```"]


def _by_severity(row: Judgement) -> int:
    """The most severe first; what is never gated last."""
    if row.verdict is None:
        return 1 + (row.budget is None)
    return -row.verdict.severity


def has_cells(result: GateResult) -> bool:
    """Whether a metric alone does not name a row."""
    return len({each.cell for each in result.judgements}) > 1


def named(row: Judgement | Noise, several: bool) -> str:
    """A row in words: the metric and, where there are several, the cell."""
    metric = metric_of(row.metric)
    words = metric.words if metric else row.metric
    return f"{words}, {_short(row.cell, _CELL_MAX)}" if several else words


def figure_text(name: str, value: float | None) -> str:
    """A metric's value, with its unit where the metric's words do not say it."""
    metric = metric_of(name)
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    return metric.text(value) if metric and abs(value) < _FIGURE_MAX else f"{value:.4g}"


def _duration(seconds: float) -> str:
    """An altered file may hold more than anyone ever waited."""
    return format_duration(seconds * 1e9) if abs(seconds) < 1e9 else f"{seconds:.4g} s"


def _digits(ratio: float) -> str:
    """Three decimals, zeros too: 1 beside 0.996 looks exact, 1.000 does not."""
    return f"{ratio:.3f}" if 0.1 <= ratio < 100 else f"{ratio:.4g}"


def _text(text: object) -> str:
    return markdown(_short(text))


def _short(text: object, longest: int = _TEXT_MAX) -> str:
    whole = str(text)
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"
