"""What a gate says on a terminal, in a pull request and to a CI server, and what it leaves in its folder.

GitHub refuses a comment of more than 65,536 characters, so rows and lines are limited. In JUnit, what ends the gate red
is a failure, what could not be judged is skipped with its reason. Names of servers and what they say are hostile. It
must never decide, or compute a figure of its own; its pictures are gate_figures.py's.
"""

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from tftpbench.gate.document import FILE, text
from tftpbench.gate.result import ERRORS, FailOn, GateResult, Judgement, Side, Verdict, pairs_used
from tftpbench.gate.text import (
    alternatives,
    budget_text,
    change,
    interval,
    invalid_pairs,
    metric_words,
    percent,
    signed,
)
from tftpbench.model.errors import ResultsError
from tftpbench.model.escape import markdown, visible, xml
from tftpbench.model.gate_settings import KNOWN
from tftpbench.model.programs import typed
from tftpbench.model.regular_file import write_whole
from tftpbench.model.units import FIGURE_MAX, counted, format_duration
from tftpbench.render.markdown import LISTED_MAX, bullets, written
from tftpbench.render.markdown import table_lines as markdown_table
from tftpbench.render.plain import table_lines
from tftpbench.render.report import contents
from tftpbench.render.sections import Heading, Listing, Mark, Paragraph, Section, Table, Value
from tftpbench.render.sections import shortened as listed

__all__ = ["JUNIT", "REPORT", "write", "write_junit", "write_markdown"]

REPORT = "report.md"
JUNIT = "junit.xml"


def write(result: GateResult, folder: Path, fail_on: FailOn = "regressed") -> None:
    """Write gate.json, report.md, junit.xml and the figures, each whole and then renamed.

    Raises ResultsError, naming the file, where that can't be done.
    """
    from tftpbench.render.gate_figures import save_figures  # matplotlib takes a second to import

    for name, content in (
        (FILE, text(result)),
        (REPORT, write_markdown(result)),
        (JUNIT, write_junit(result, fail_on)),
    ):
        write_whole(folder / name, content.encode("utf-8", "backslashreplace"), ResultsError)
    save_figures(result, folder)


_MARKS: Mapping[Verdict, Mark] = {Verdict.REGRESSED: "bad", Verdict.PASS: "good", Verdict.IMPROVED: "good"}
_LISTED_MAX = 8
# Where the output is no terminal: logs show long lines.
WIDTH = 120
# What a narrow terminal goes without, the first one first: gate.json and report.md have all of it.
_DISPENSABLE = ("pairs", "caught from", "head", "base", "budget")
_HEADINGS = (
    Heading("cell", is_figure=False), Heading("metric", is_figure=False), Heading("base"), Heading("head"),
    Heading("change (95 % interval)"), Heading("budget"), Heading("verdict", is_figure=False), Heading("caught from"),
    Heading("pairs"),
)  # fmt: skip
# Of a text from outside: a version or a command may be a page long.
_TEXT_MAX = 400
_CELL_MAX = 100


def sections(result: GateResult, width: int = WIDTH) -> list[Section]:
    """The verdict in one sentence comes first. `width`: of the terminal; the table has the columns that fit."""
    files = (f"Files:  {result.folder}",) if result.folder else ()
    repeat = (f"Repeat: {typed(result.facts.command)}",) if result.facts.command else ()
    return [
        Paragraph((result.sentence,), is_answer=True),
        fitting(result, width),
        noise(result, _LISTED_MAX),
        Listing("Remarks:", result.remarks),
        Paragraph((*files, *repeat)),
    ]


def fitting(result: GateResult, width: int) -> Table:
    """The table for a terminal: those of a cell are a group, and columns that there is no room for are left out."""
    cells = list(dict.fromkeys(each.cell for each in result.judgements))
    found = table(sorted(result.judgements, key=lambda each: cells.index(each.cell)))
    for title in _DISPENSABLE:
        if not found.rows or max(map(len, table_lines(found))) <= width:
            break
        found = found.without(title)
    return found


def table(judgements: Sequence[Judgement]) -> Table:
    """A row for each of the judgements, in their order, with the cell where there are several."""
    several = len({each.cell for each in judgements}) > 1
    marks: tuple[Mark, ...] = tuple(mark(each) for each in judgements)
    whole = Table("gate", "Figures", _HEADINGS, tuple(map(_row, judgements)), is_grouped=several, marks=marks)
    return whole if several else whole.without("cell")


def mark(judgement: Judgement) -> Mark:
    """Whether it is good news; of what is never gated, neither."""
    if judgement.budget is None:
        return ""
    return "unclear" if judgement.verdict is None else _MARKS.get(judgement.verdict, "unclear")


def noise(result: GateResult, most: int) -> Listing:
    """How far apart two starts of the same base were."""
    named = len({each.cell for each in result.judgements}) > 1
    known = tuple(
        shortened(
            f"{metric_words(each, named=named)} {signed(each.ratio)} ({signed(each.lowest)} to {signed(each.highest)})"
        )
        for each in result.noise
        if each.ratio is not None and each.lowest is not None and each.highest is not None
    )
    pairs = max((each.pairs for each in result.noise), default=0)
    title = f"Noise: a second start of the base against the first, in {counted(pairs, 'pair')}:"
    return Listing(title, known, most)


def shortened(text: object, longest: int = _TEXT_MAX) -> str:
    """A text of bounded length."""
    whole = str(text)
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"


def _row(each: Judgement) -> tuple[Value, ...]:
    return (
        Value(shortened(each.cell, _CELL_MAX)),
        Value(metric_words(each, named=False)),
        _figure(each.metric, each.base),
        _figure(each.metric, each.head),
        Value(interval(each), each.ratio),
        Value("" if each.budget is None else budget_text(each.budget), each.budget),
        Value(each.verdict or ("not judged" if each.budget is not None else "not gated")),
        Value("" if each.smallest_effect is None else percent(each.smallest_effect), each.smallest_effect),
        Value(str(each.pairs), each.pairs),
    )


def _figure(name: str, value: float | None) -> Value:
    """With its unit where the metric's words do not say it."""
    metric = KNOWN.get(name)
    if value is None or not math.isfinite(value):
        return Value("-")
    return Value(metric.text(value) if metric and abs(value) < FIGURE_MAX else f"{value:.4g}", value)


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
    lines = markdown_table(table(rows[:_ROWS_MAX]))
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
    for heading, known in contents.groups(manifest, facts.placement).items():
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


_NOT_JUDGED: tuple[Verdict | None, ...] = (Verdict.INVALID, Verdict.INCONCLUSIVE, None)


def write_junit(result: GateResult, fail_on: FailOn = "regressed") -> str:
    """The whole document. `fail_on`: the least severe verdict that is a failure, as for the exit code."""
    name = str(result.facts.scenario.get("name") or "gate")
    root = ET.Element("testsuites", name=xml(f"gate: {result.base.entry} and {result.head.entry}"))
    suite = ET.SubElement(root, "testsuite", name=xml(f"{name}.gate"))
    suite.set("time", f"{result.facts.duration_s:.3f}")
    suite.set("timestamp", xml(result.facts.started_at[:19]))
    _contents(suite, result)
    for judgement in result.judgements:
        if judgement.budget is not None:
            _judged(suite, judgement, fail_on)
    for count, kind in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error"),
                        ("skipped", "testcase/skipped")):  # fmt: skip
        suite.set(count, str(len(suite.findall(kind))))
        root.set(count, suite.get(count, "0"))
    ET.SubElement(suite, "system-out").text = xml("\n".join([result.sentence, *result.remarks]))
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _contents(suite: ET.Element, result: GateResult) -> None:
    """Whether every byte was right, and both servers lived."""
    case = _case(suite, "contents")
    if result.failure is not None:
        ET.SubElement(case, "failure", type="contents", message=xml(result.failure))


def _judged(suite: ET.Element, judgement: Judgement, fail_on: FailOn) -> None:
    case = _case(suite, f"{judgement.metric} [{judgement.cell}]")
    text = _description(judgement)
    if judgement.verdict in ERRORS[fail_on]:
        ET.SubElement(case, "failure", type=str(judgement.verdict), message=xml(text))
    elif judgement.verdict in _NOT_JUDGED:
        ET.SubElement(case, "skipped", message=xml(text))
    else:
        ET.SubElement(case, "system-out").text = xml(text)


def _description(judgement: Judgement) -> str:
    text = f"{judgement.verdict or 'not judged'}: {judgement.detail}"
    return text if judgement.ratio is None else f"{text}; {change(judgement)}, {counted(judgement.pairs, 'pair')}"


def _case(suite: ET.Element, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=xml(name))
