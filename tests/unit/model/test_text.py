"""Text on its way in and out: YAML, sizes and durations as they are read, errors, and others' text made harmless."""

import csv
import io
import json
import re
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree as ET

import pandas as pd
import pytest

from tftpbench.model import errors, units, yaml
from tftpbench.model.errors import UsageError
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
from tftpbench.model.keys import stable_key


def fault(folder: Path, content: bytes) -> str:
    path = folder / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        yaml.read(path, UsageError)
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{folder}/")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "file.yaml:1:1: the file is empty; allowed: a mapping of keys to values"),
        (b"[1]", "file.yaml:1:1: the file is a list; allowed: a mapping of keys to values"),
        (b"a: 1\n\tb: 2", "file.yaml:2:1: is not YAML: found character '\\t' that cannot start any token"),
        (b"a: 1\nb: [1", "file.yaml:2:6: is not YAML"),
        (b"a: 1\n---\nb: 2", "file.yaml:2:1: is not YAML"),
        (b"\xff\xfe", "file.yaml: byte 0 is not UTF-8"),
        (b"a: \x00", "file.yaml: is not YAML: character"),
        (b"? [1]\n: 2", "file.yaml:1:3: a key is a list or a mapping; allowed: a word"),
        (b"a: !!python/object/apply:os.system [ls]", "file.yaml:1:4: has the tag"),
        (b"a: !!int x", "file.yaml:1:4: 'x' is no value of type 'int'"),
        (b"a: " + b"9" * 5000, "file.yaml:1:4: '9999"),
        (b"a: &a [*a]", "file.yaml:1:4: is nested deeper than 20"),
        (b"a: " + b"[" * 5000, "file.yaml: is nested too deeply"),
        (b"#" * 300_000, "file.yaml: is larger than 256 KiB"),
    ],
    ids=lambda value: value[:12].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_is_no_honest_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    assert fault(tmp_path, content).startswith(said)


def test_of_a_key_that_is_written_twice_the_first_counts_and_the_second_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\nb: {c: 2, c: [3]}\na: 4\n")
    document = yaml.read(path, UsageError)
    document.assign("d={e: 5, e: 6}")
    assert document.data == {"a": 1, "b": {"c": 2}, "d": {"e": 5}}
    assert [(key, str(origin).removeprefix(f"{tmp_path}/"), text) for key, origin, text in document.mistakes] == [
        (("b", "c"), "file.yaml:2:11", "is written twice"),
        (("a",), "file.yaml:3:1", "is written twice"),
        (("d", "e"), "--set d={e: 5, e: 6}", "is written twice"),
    ]


def test_aliases_of_aliases_stop_at_a_limit(tmp_path: Path) -> None:
    bomb = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert "the file holds more than 20000 values, aliases counted" in fault(tmp_path, bomb.encode())


def test_plain_words_are_what_they_look_like(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: off\nb: 1:30\nc: 010\nd: true\ne: ~\nf: 1e3\ng: 2026-01-01\nh: no\ni: '7'\n", encoding="utf-8")
    assert yaml.read(path, UsageError).data == {
        "a": "off",
        "b": "1:30",
        "c": 10,
        "d": True,
        "e": None,
        "f": 1000.0,
        "g": "2026-01-01",
        "h": "no",
        "i": "7",
    }


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path, said in [(tmp_path / "absent.yaml", "there is no such file"), (tmp_path, "is no regular file")]:
        with pytest.raises(UsageError, match=said):
            yaml.read(path, UsageError)


@pytest.mark.parametrize(
    ("text", "size"),
    [(512, 512), ("512", 512), ("64KiB", 65536), ("10MiB", 10_485_760), ("10MB", 10**7), ("1.5 kB", 1500), ("0", 0)],
)
def test_a_size_is_read_in_bytes(text: str | int, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize(
    ("text", "duration_ns"),
    [("200ms", 200_000_000), ("1.5s", 1_500_000_000), ("2min", 120 * 10**9), ("1h", 3600 * 10**9), ("7us", 7000)],
)
def test_a_duration_is_read_in_nanoseconds(text: str, duration_ns: int) -> None:
    assert units.parse_duration_ns(text) == duration_ns


@pytest.mark.parametrize("text", ["", "s", "-1s", "1 parsec", "1e3s", "1s2ms", "٣s", "9" * 30 + "s"])
def test_what_is_no_duration_is_refused_and_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number with a unit"):
        units.parse_duration_ns(text)


def test_a_duration_without_a_unit_is_asked_about() -> None:
    with pytest.raises(ValueError, match=r"is ' 1\.5', without a unit; did you mean '1\.5s'\?$"):
        units.parse_duration_ns(" 1.5")


@pytest.mark.parametrize("text", ["64 kib", "1.2.3B", "MiB", "-5"])
def test_what_is_no_size_is_refused_and_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: bytes as a number"):
        units.parse_bytes(text)


def test_large_sizes_lose_no_byte() -> None:
    assert units.parse_bytes("9007199254740993") == 2**53 + 1


@pytest.mark.parametrize("duration_ns", [0, 1, 999, 1000, 1500, 200_000_000, 90 * 10**9, 123_456_789_012])
def test_a_duration_survives_being_written_and_read(duration_ns: int) -> None:
    assert units.parse_duration_ns(units.duration_text(duration_ns)) == duration_ns


def test_people_read_three_digits_and_a_unit() -> None:
    assert [units.format_bytes(size) for size in (0, 512, 1500, 65536, 10_485_760)] == [
        "0 B",
        "512 B",
        "1500 B",
        "64 KiB",
        "10 MiB",
    ]
    assert [units.format_duration(span) for span in (0, 950, 12_345_678, 999_999_999, 1.5e9, 185e9)] == [
        "0 ns",
        "950 ns",
        "12.3 ms",
        "1 s",
        "1.5 s",
        "3 min 5 s",
    ]
    assert units.format_rate(131_072, "data") == "131 k data/s"
    assert units.format_rate(12.5) == "12.5 /s"


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (131_072, "131 k"), (2.5e6, "2.5 M")])
def test_a_count_is_written_without_a_unit(count: float, text: str) -> None:
    assert units.format_count(count) == text


@pytest.mark.parametrize(
    ("text", "per_s", "written"),
    [("50/s", 50, "50/s"), ("3/min", 0.05, "0.05/s"), ("7 / min", 7 / 60, "7/min"), ("1/h", 1 / 3600, "1/h"),
     ("0.001/s", 0.001, "0.001/s"), ("1000000/s", 1e6, "1000000/s"), ("33.333/s", 33.333, "33.333/s")],
)  # fmt: skip
def test_a_rate_is_read_in_events_a_second_and_survives_being_written(text: str, per_s: float, written: str) -> None:
    assert units.parse_rate_per_s(text) == per_s
    assert units.rate_text(per_s) == written
    assert units.parse_rate_per_s(written) == per_s


@pytest.mark.parametrize("text", ["", "50", "50/", "/s", "-1/s", "1e9/s", "50/day", "50 per s", "0.0001/s"])
def test_what_is_no_rate_is_refused_and_says_what_is(text: str) -> None:
    with pytest.raises(ValueError, match="allowed: a number a second, minute or hour"):
        units.parse_rate_per_s(text)


@pytest.mark.parametrize("of", ["ns", "us", "s", "bytes", "bytes/s", "1/s", "share", ""])
@pytest.mark.parametrize("value", [1e18, 1e300, 1.7e308, float("inf"), float("nan"), -1e300, 5e-324])
def test_no_figure_is_too_large_to_be_written_or_long(value: float, of: str) -> None:
    assert 0 < len(units.format_figure(value, of)) <= 400
    assert abs(value) < 1 or len(units.format_figure(value, of)) < 20


def test_a_span_of_days_is_written_in_hours() -> None:
    assert [units.format_duration(hours * 3600e9) for hours in (24, 240, 1e6, 1e200)] == [
        "1440 min", "240 h", "1000000 h", "1e+200 h",
    ]  # fmt: skip


ALL = [
    error
    for error in vars(errors).values()
    if isinstance(error, type) and issubclass(error, Exception) and not issubclass(error, Warning)
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: error.__name__)
def test_the_tree_in_the_docstring_is_the_tree(error: type[errors.TftpbenchError]) -> None:
    assert issubclass(error, errors.TftpbenchError)
    line = next(line for line in str(errors.__doc__).splitlines() if re.search(rf"\b{error.__name__}\b", line))
    code = re.search(rf"{error.__name__} +(\d)", line)
    if code is not None:
        assert error.exit_code == int(code[1])
    else:
        assert error.exit_code == error.__base__.exit_code  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("word", "near"),
    [("--rate", None), ("rum", "run"), ("cat", None), ("epol", "epoll"), ("smok", "smoke"), ("--wrte", "--write")],
)
def test_only_a_word_that_is_much_alike_is_suggested_and_then_no_list_of_all(word: str, near: str | None) -> None:
    known = ["--write", "run", "epoll", "smoke"]
    assert errors.suggest(word, known) == (f"; did you mean {near!r}?" if near else f"; allowed: {', '.join(known)}")
    assert errors.suggest(word, known, "!") == (f"; did you mean {near!r}?" if near else "!")


def test_a_key_does_not_depend_on_the_order_of_its_fields() -> None:
    assert stable_key({"a": 1, "b": [2, None]}) == stable_key({"b": [2, None], "a": 1}) == "cc243773f70c3dff"
    assert stable_key({"a": 1}) != stable_key({"a": 2})


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
