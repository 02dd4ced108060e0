"""Sections as Markdown for GitHub. Whatever a section holds is text there, and never markup."""

from collections.abc import Iterable, Sequence

from tftpbench.model.escape import markdown, markdown_block
from tftpbench.render.sections import Checks, Listing, Mark, Paragraph, Section, Table, shortened, unmarked

SIGNS: dict[Mark, str] = {"good": "✅", "bad": "❌", "unclear": "❔", "": ""}
# GitHub refuses a comment of more than 65,536 characters; of a longer list the number of further lines is given.
LISTED_MAX = 20


def written(sections: Sequence[Section]) -> str:
    """The sections that have something to say, an empty line between them; no last line end."""
    blocks = [_block(section) for section in sections]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def table_lines(table: Table) -> list[str]:
    """The table's lines and notes, without its title; none where it has no row."""
    if not table.rows:
        return []
    signs = table.marks or unmarked(len(table.rows))
    return [
        row(heading.title for heading in table.headings),
        "|" + "|".join(" ---: " if heading.is_figure else " --- " for heading in table.headings) + "|",
        *(
            row(f"{SIGNS[mark]} {value.text}".strip() if place == 0 else value.text for place, value in enumerate(each))
            for mark, each in zip(signs, table.rows, strict=True)
        ),
        *(["", *map(markdown_block, table.notes)] if table.notes else []),
    ]


def row(texts: Iterable[str]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(markdown, texts)) + " |"


def bullets(title: str, lines: Sequence[str], most: int = LISTED_MAX) -> list[str]:
    """A list under a title; nothing where it is empty."""
    return (
        [f"**{markdown(title)}**", "", *(f"- {markdown_block(line)}" for line in shortened(lines, most))]
        if lines
        else []
    )


def _block(section: Section) -> list[str]:
    if isinstance(section, Paragraph):
        strong = "**" if section.is_answer else ""
        return ["<br>".join(f"{strong}{markdown(line)}{strong}" for line in section.lines)]
    if isinstance(section, Listing):
        return bullets(section.title.rstrip(":"), section.lines, section.most)
    if isinstance(section, Checks):
        lines = []
        for mark, text, reasons in section.entries:
            lines.append(f"- {SIGNS[mark]} {markdown(text)}")
            lines += [f"  - {markdown_block(reason)}" for reason in shortened(reasons, LISTED_MAX)]
        return lines
    return table_lines(section)
