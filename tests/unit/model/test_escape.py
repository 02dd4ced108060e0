"""Text that others wrote, made harmless for a terminal, a line, Markdown, XML and CSV."""

import csv
import io
import json
import sys
import unicodedata
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from tftpbench.model.escape import (  # fmt: skip
    JSON_ESCAPES,
    LINE_MAX,
    csv_cell,
    csv_frame,
    document_text,
    markdown,
    one_line,
    visible,
    visible_line,
    xml,
)

EVERY = "".join(map(chr, range(sys.maxunicode + 1)))


def test_nothing_that_moves_turns_or_hides_text_is_left() -> None:
    shown = visible(EVERY)
    left = {character for character in shown if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}}
    assert left == {"\t", "\n"}
    assert all(f"\\u{code:04x}" in shown for code in (0x1B, 0x7F, 0x9B, 0x202E, 0x2066, 0x200F, 0xFEFF, 0xD800, 0xDFFF))
    words = "Straße 服务器 🚀 é"
    assert visible(words) == words


def test_twice_is_once() -> None:
    assert visible(visible(EVERY)) == visible(EVERY)


@pytest.mark.parametrize("text", ["\x9b31m", "\u202e", "\U000e0041", "\x7f\xad", "\ud800", "plain é"])
def test_a_document_of_json_means_the_same_afterwards(text: str) -> None:
    for shown in (visible, document_text):
        assert json.loads(shown(json.dumps({text: [text]}, ensure_ascii=False))) == {text: [text]}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_an_encoding_lacks_is_an_escape_of_json(encoding: str) -> None:
    text = json.dumps("é 服 🚀 \ud800", ensure_ascii=False)
    assert json.loads(text.encode(encoding, JSON_ESCAPES).decode(encoding)) == "é 服 🚀 \ud800"


def test_one_line_is_one_line_of_bounded_length_that_keeps_its_end() -> None:
    assert one_line("first\n  second\x1b") == "first second\\u001b"
    assert one_line("two  spaces") == "two  spaces"
    long = one_line("start " + "x" * 10_000_000 + " end; allowed: that")
    assert len(long) < LINE_MAX + 100
    assert long.startswith("start xxx")
    assert long.endswith("xxx end; allowed: that")
    assert "characters left out" in long
    assert visible_line("a\nb\t\r") == "a\\nb\t\\u000d"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_cell_of_csv_is_never_a_formula(start: str) -> None:
    assert str(csv_cell(f"{start}cmd|' /C calc'!A0")).startswith("'")
    frame = pd.DataFrame({"a": [f"{start}1", None], f"{start}b": [-1.5, 2.0]})
    rows = list(csv.reader(io.StringIO(csv_frame(frame))))
    assert rows[0][1].startswith("'")
    assert rows[1][0].startswith("'")
    assert rows[2][0] == ""


def test_figures_of_csv_stay_figures() -> None:
    frame = pd.DataFrame({
        "n": [-1, 2], "x": [-0.5, float("nan")], "words": pd.Categorical(["a", "b"]), "text": ["plain", "a=b"],
        "big": pd.array([2**62 + 1, None], dtype="Int64"), "yes": [True, False],
    })  # fmt: skip
    assert csv_frame(frame) == frame.to_csv(index=False)
    assert [csv_cell(value) for value in (-1, -1.5, None, True)] == [-1, -1.5, None, True]


def test_raw_html_in_markdown_is_text() -> None:
    assert markdown("<img src=x onerror=y> & `code` | cell") == "&lt;img src=x onerror=y&gt; &amp; \\`code\\` \\| cell"


def test_xml_holds_what_xml_can_hold() -> None:
    element = ET.Element("a", b=xml(EVERY))
    element.text = xml(EVERY)
    assert ET.fromstring(ET.tostring(element)).text is not None
