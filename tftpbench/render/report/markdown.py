"""The report as Markdown for GitHub: short enough for a pull request, without pictures."""

from collections.abc import Iterable, Sequence

from tftpbench.model.escape import markdown, markdown_block, visible
from tftpbench.model.units import counted
from tftpbench.render.report.contents import Contents
from tftpbench.render.report.tables import Table

_MARKS = {"held": "✅", "missed": "❌", "not known": "❔"}
# GitHub refuses a comment of more than 65,536 characters; what is longer than this is told as a number.
_LISTED_MAX = 20


def write_markdown(contents: Contents) -> str:
    """Every section of the report that has something to say."""
    answer, (losses, clean) = contents.answer, contents.losses
    blocks = [
        [f"# {markdown(contents.name)}"],
        _bullets("The run is not whole", contents.problems),
        [f"**{markdown(answer.sentence)}**"],
        [markdown_block(contents.scenario.description)],
        _thresholds(contents),
        ["## Validity", "", f"{contents.valid} of {counted(len(contents.rows), 'trial')} count."],
        _bullets("Invalid trials, kept and never used", contents.invalid),
        _bullets("Too few valid trials", answer.incomplete),
        _bullets("Left out", answer.skipped),
        _table(contents.headline),
        _table(contents.cost),
        _table(losses, _unharmed(clean, bool(losses.rows))),
        _bullets("What servers did wrong", answer.findings),
        _bullets("Protocol faults where transfers failed", answer.faults),
        _environment(contents),
        ["## To repeat it", "", "```sh", _fenced(contents.repeat), "```"] if contents.repeat else [],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _thresholds(contents: Contents) -> list[str]:
    lines = ["## Thresholds", ""] if contents.judgements else []
    for each in contents.judgements:
        lines.append(f"- {_MARKS[each.state]} {markdown(each.threshold)}")
        lines += [f"  - {markdown_block(reason)}" for reason in _some(each.reasons)]
    return lines


def _table(table: Table, after: str = "") -> list[str]:
    lines = [f"## {markdown(table.title)}", ""]
    if table.rows:
        lines.append(_line(heading.title for heading in table.headings))
        lines.append("|" + "|".join(" ---: " if heading.is_figure else " --- " for heading in table.headings) + "|")
        lines += [_line(value.text for value in row) for row in table.rows]
    else:
        lines += [] if after else ["None."]
    return [*lines, *(["", after] if after and table.rows else [after] if after else [])]


def _unharmed(cells: int, is_any_harmed: bool) -> str:
    if not cells:
        return ""
    return f"Nothing was lost in {counted(cells, 'other cell' if is_any_harmed else 'cell')} of a server."


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(map(markdown, texts)) + " |"


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    return [f"**{title}**", "", *(f"- {markdown_block(line)}" for line in _some(lines))] if lines else []


def _some(lines: Sequence[str]) -> list[str]:
    return [*lines[:_LISTED_MAX], *([f"and {len(lines) - _LISTED_MAX} more"] if len(lines) > _LISTED_MAX else [])]


def _environment(contents: Contents) -> list[str]:
    lines = ["<details><summary>Environment</summary>", ""]
    for heading, facts in contents.facts.items():
        lines += [f"- {markdown(heading)}: " + "; ".join(markdown(f"{fact.name} {fact.value}") for fact in facts)]
    lines += [f"- {markdown(' '.join(filter(None, (each.name, each.version))))}" for each in contents.servers]
    return [*lines, "", "</details>"]


def _fenced(text: str) -> str:
    """In a block of code only its end means anything, and that is at the start of a line."""
    return visible(" ".join(text.split("\n"))).replace("```", "`` `")
