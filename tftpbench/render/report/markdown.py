"""The report as Markdown for GitHub: short enough for a pull request, without pictures."""

from collections.abc import Sequence

from tftpbench.model.escape import markdown, markdown_block, visible
from tftpbench.model.units import counted
from tftpbench.render.answer import IN_FLIGHT, MARKS
from tftpbench.render.markdown import LISTED_MAX, SIGNS, bullets, table_lines, written
from tftpbench.render.report.contents import Contents
from tftpbench.render.report.tables import unharmed
from tftpbench.render.sections import Table, shortened


def write_markdown(contents: Contents) -> str:
    """Every section of the report that has something to say."""
    answer, (losses, clean) = contents.answer, contents.losses
    blocks = [
        [f"# {markdown(contents.name)}"],
        bullets("The run is not whole", contents.problems),
        [f"**{markdown(answer.sentence)}**"],
        [markdown_block(answer.wire)] if answer.wire else [],
        [markdown_block(answer.conditions)] if answer.lines else [],
        [markdown_block(contents.scenario.description)],
        [markdown_block(answer.note)] if answer.note else [],
        _thresholds(contents),
        [written(contents.searches)] if contents.searches else _table(contents.headline),
        ["## Validity", "", f"{contents.valid} of {counted(len(contents.rows), 'trial')} count."],
        [markdown_block(answer.why_invalid)] if answer.why_invalid else [],
        bullets("Too few valid trials", answer.too_few),
        bullets("Left out", answer.skipped),
        bullets(IN_FLIGHT, answer.in_flight),
        _folded("Invalid trials, kept and never used", contents.invalid),
        *([] if contents.searches else [_table(contents.cost), _table(losses, unharmed(clean, bool(losses.rows)))]),
        *(bullets(each.title.rstrip(":"), each.lines) for each in contents.found),
        bullets("Protocol faults where transfers failed", answer.faults),
        _environment(contents),
        ["## To repeat it", "", "```sh", _fenced(contents.repeat), "```"] if contents.repeat else [],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _thresholds(contents: Contents) -> list[str]:
    lines = ["## Thresholds", ""] if contents.judgements else []
    for each in contents.judgements:
        lines.append(f"- {SIGNS[MARKS[each.state]]} {markdown(each.threshold)}")
        lines += [f"  - {markdown_block(reason)}" for reason in shortened(each.reasons, LISTED_MAX)]
    return lines


def _table(table: Table, after: str = "") -> list[str]:
    lines = [f"## {markdown(table.title)}", "", *table_lines(table)]
    if table.rows:
        return [*lines, *(["", after] if after else [])]
    return [*lines, after or "None."]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    """A list that is opened by a click, where there is one."""
    listed = bullets(title, lines)[2:]
    return (
        [f"<details><summary>{len(lines)}: {markdown(title)}</summary>", "", *listed, "", "</details>"]
        if listed
        else []
    )


def _environment(contents: Contents) -> list[str]:
    lines = ["<details><summary>Environment</summary>", ""]
    for heading, facts in contents.facts.items():
        lines += [f"- {markdown(heading)}: " + "; ".join(markdown(f"{fact.name} {fact.value}") for fact in facts)]
    lines += [f"- {markdown(' '.join(filter(None, (each.name, each.version))))}" for each in contents.servers]
    return [*lines, "", "</details>"]


def _fenced(text: str) -> str:
    """In a block of code only its end means anything, and that is at the start of a line."""
    return visible(" ".join(text.split("\n"))).replace("```", "`` `")
