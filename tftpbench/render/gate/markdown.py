"""The gate's report as Markdown for GitHub: a comment on a pull request, verdict first.

GitHub refuses a comment of more than 65,536 characters, so rows and lines are limited.
"""

import shlex
from collections.abc import Mapping

from tftpbench.gate.result import GateResult, Judgement, Side, Verdict, pairs_used
from tftpbench.gate.text import alternatives, budget_text, invalid_pairs, metric_words
from tftpbench.model.escape import markdown, visible
from tftpbench.model.units import counted, format_duration
from tftpbench.render.gate.sections import noise, shortened, table
from tftpbench.render.markdown import LISTED_MAX, bullets, table_lines, written
from tftpbench.render.report import environment
from tftpbench.render.sections import shortened as listed

MARKS: Mapping[Verdict | None, str] = {
    Verdict.REGRESSED: "❌",
    Verdict.INVALID: "🚫",
    Verdict.SUSPECTED: "⚠️",
    Verdict.INCONCLUSIVE: "❔",
    Verdict.PASS: "✅",
    Verdict.IMPROVED: "🚀",
    None: "❔",
}
_ROWS_MAX = 60
# Keys of a scenario that mean nothing in a gate.
_NOT_OF_A_GATE = ("trials", "warm_up", "servers")


def write_markdown(result: GateResult) -> str:
    """Verdict, figures, noise floor, remarks, environment, and the command that does the same again."""
    blocks = [
        [f"**{MARKS[result.verdict]} {_text(result.sentence)}**"],
        [f"❌ {_text(result.failure)}"] if result.failure else [],
        [_ran(result)],
        _figures(result),
        _reasons(result),
        [written([noise(result, LISTED_MAX)])],
        bullets("Remarks", [shortened(remark) for remark in result.remarks]),
        _environment(result),
        _repeat(result),
        ["How it decides, and what it can't see: docs/gate.md of tftpbench."],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if any(block)) + "\n"


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
    if not result.judgements:
        return ["No figure was measured."]
    rows = sorted(result.judgements, key=_by_severity)
    more = len(rows) - _ROWS_MAX
    lines = table_lines(table(rows[:_ROWS_MAX]))
    return [*lines, *(["", f"and {counted(more, 'row')} more in gate.json"] if more > 0 else [])]


def _reasons(result: GateResult) -> list[str]:
    """Why, for each verdict that asks something of the reader."""
    named = len({each.cell for each in result.judgements}) > 1
    lines = [
        f"{MARKS[row.verdict]} {_text(f'{metric_words(row, named=named)}: {row.detail}')}"
        for row in sorted(result.judgements, key=_by_severity)
        if row.budget is not None and row.detail and row.verdict not in {Verdict.PASS, Verdict.IMPROVED}
    ]
    return [f"- {line}" for line in listed(lines, LISTED_MAX)]


def _environment(result: GateResult) -> list[str]:
    facts = result.facts
    asked = {name: value for name, value in facts.scenario.items() if name not in _NOT_OF_A_GATE}
    manifest = {
        "scenario": asked, "seed": facts.seed, "keys": facts.keys, "machine": facts.machine,
        "build": facts.build,
        "placement": {"server_cpus": list(facts.server_cpus), "generator_cpus": list(facts.generator_cpus)},
    }  # fmt: skip
    lines = [f"- {_text(side)}: {_side(each)}" for side, each in (("base", result.base), ("head", result.head))]
    lines += [f"- work: {_text(words)}" for words in listed(list(facts.work.values()), LISTED_MAX)]
    if result.method == "ab":
        false_alarms = f"in at most {budget_text(facts.error)} of gates equal code is called regressed"
        lines.append(f"- could decide after: {alternatives(facts.looks)} pairs; {false_alarms}")
    lines.append(f"- started: {_text(facts.started_at)}")
    left_out = [f"pair {each.number}: {each.invalid}" for each in result.pairs if each.invalid is not None]
    lines += [f"- invalid: {_text(each)}" for each in listed(left_out, LISTED_MAX)]
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


def _duration(seconds: float) -> str:
    """An altered file may hold more than anyone ever waited."""
    return format_duration(seconds * 1e9) if abs(seconds) < 1e9 else f"{seconds:.4g} s"


def _text(text: object) -> str:
    return markdown(shortened(text))
