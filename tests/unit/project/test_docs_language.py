"""Documents are short to read: lines that fit a screen, sentences of few words, the first result early.

Code blocks are left out, and tables and lines of links alone may be long. What a table says is held to short sentences,
too, unless the code writes it (`tftpbench.render.reference`).
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tftpbench.render import reference

ROOT = Path(__file__).parents[3]
WORDS_MAX = 25
LINE_MAX = 100
FIRST_RESULT_LINE_MAX = 60
PAGES = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in
         (ROOT / "docs").glob("*.md"))]  # fmt: skip

_FENCE = re.compile(r" *(```|~~~)")
_ITEM = re.compile(r" *(?:[-*+]|\d+\.) +|#+ +|> ?")
_IMAGE = re.compile(r"!\[[^]]*\]\([^)]*\)")
_LINK = re.compile(r"\[([^]]*)\](?:\([^)]*\)|\[[^]]*\])")
_CODE = re.compile(r"(`+).+?\1")
# What ends a sentence: a mark, then what closes with it, then a space. "0.93" and "pair.py" have none.
_END = re.compile(r"(?<=[.!?])[*_\"')\]]*(?:\s+|$)")


def prose(text: str) -> str:
    """The text with its code blocks as empty lines, so that lines keep their numbers."""
    lines, fence = [], ""
    for line in text.splitlines():
        mark = _FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1] == fence:
            fence = ""
        else:
            lines.append("" if fence else line)
            continue
        lines.append("")
    return "\n".join(lines)


def paragraphs(text: str) -> Iterator[str]:
    """Each paragraph, item of a list, heading and cell of a table in one line."""
    part: list[str] = []
    for line in [*prose(text).splitlines(), ""]:
        is_cell = line.lstrip().startswith("|")
        begins = not line.strip() or is_cell or _ITEM.match(line)
        if begins and part:
            yield " ".join(part)
            part = []
        if is_cell:
            yield from (cell.strip() for cell in re.split(r"(?<!\\)\|", line) if cell.strip())
        elif line.strip():
            part.append(_ITEM.sub("", line, count=1).strip() if begins else line.strip())
            if line.startswith("#"):
                yield part.pop()


def sentences(text: str) -> Iterator[str]:
    """Sentences without markup; what stands in backticks is one word."""
    for paragraph in paragraphs(text):
        plain = _LINK.sub(r"\1", _IMAGE.sub("", _CODE.sub("code", paragraph)))
        yield from (sentence for sentence in _END.split(plain) if sentence.strip())


def words(sentence: str) -> int:
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def long_lines(text: str) -> list[str]:
    """Lines beyond the limit that could be broken: no code, no table, no link alone."""
    found = [(number, line) for number, line in enumerate(prose(text).splitlines(), 1) if len(line) > LINE_MAX]
    return [
        f"{number}: {line}"
        for number, line in found
        if not line.lstrip().startswith("|")
        and _LINK.sub("", _IMAGE.sub("", _ITEM.sub("", line, count=1))).strip(" .,")
    ]


def long_sentences(text: str) -> list[str]:
    return [f"{words(each)} words: {each}" for each in sentences(text) if words(each) > WORDS_MAX]


def without_tables_of_the_code(name: str, text: str) -> str:
    for (page, _), table in reference.tables().items():
        if name == f"docs/{page}":
            text = text.replace(table, "")
    return text


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md"])
def test_lines_fit_a_screen(name: str) -> None:
    assert long_lines((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", PAGES)
def test_sentences_are_short(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert long_sentences(without_tables_of_the_code(name, text)) == []


def test_the_first_result_comes_early() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    (first,) = (number for number, line in enumerate(lines, 1) if line.startswith("With 1000 reads"))
    assert first <= FIRST_RESULT_LINE_MAX


def test_sentences_are_split_where_a_reader_stops() -> None:
    text = (
        "# A heading\nOne `x. y` is 0.93 of [two words](https://a.b/c.md).\nIt goes\non (so!) **here.** Last?\n"
        "- an item\n  of two lines\n- another one\n\n```\nno. prose. here.\n```\n| a cell | more. cells |\n"
    )
    assert list(sentences(text)) == [
        "A heading", "One code is 0.93 of two words.", "It goes on (so!", "**here.", "Last?",
        "an item of two lines", "another one", "a cell", "more.", "cells",
    ]  # fmt: skip
    assert words("- 0.9 and `code` — 3 %") == 4


def test_what_is_too_long_is_found() -> None:
    assert long_sentences("Word " * 26 + "\n") == ["26 words: " + ("Word " * 26).strip()]
    assert long_sentences("| " + "word " * 26 + "| b |\n") != []
    assert long_sentences("word " * 13 + "end. " + "word " * 13 + "\n") == []
    assert long_lines("a" * 101) == [f"1: {'a' * 101}"]
    assert long_lines(f"| {'a' * 101} |\n```\n{'b' * 101}\n```\n[c](https://{'c' * 101})\n") == []


@pytest.mark.parametrize("name", [*PAGES, "CHANGELOG.md", "results/reference/README.md"])
def test_links_lead_to_a_file_and_to_a_heading(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
        path, _, heading = target.partition("#")
        found = (page.parent / path) if path else page
        assert "://" in target or found.exists(), target
        assert not heading or heading in _anchors(found.read_text(encoding="utf-8")), target


def _anchors(text: str) -> set[str]:
    """What headings are linked by, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_architecture_names_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w./-]+\.(?:py|rs|toml|md))`", text))
    folders = ("tftpbench", "crates", "servers", "tests", "docs")
    files = {f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*.*")}
    files |= {f"/{path.name}" for path in ROOT.iterdir()}
    assert len(named) > 40
    samples = re.compile(r"\b(?:NAME|FORM)\.")
    assert [name for name in sorted(named) if not samples.search(name) and not _is_there(name, files)] == []


def _is_there(name: str, files: set[str]) -> bool:
    return any(file.endswith(f"/{name}") for file in files)
