"""``tftpbench compare``: what is typed, what is said, and the exit code."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.unit.builders import made, said


@pytest.fixture
def runs(tmp_path: Path) -> tuple[str, str]:
    a = made(tmp_path / "a", {"epoll": 100_000, "threads": 50_000})
    b = made(tmp_path / "b", {"epoll": 108_000, "threads": 50_000}, seed=2)
    return str(a), str(b)


def test_the_text_is_the_default_and_the_exit_code_0(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    code, out, err = said(capsys, "compare", *runs)
    assert (code, err) == (0, "")
    assert out.startswith("B against A in 2 comparisons: faster in 1, the same within 5 % in 1. Largest difference ")
    assert "difference that is certain: epoll, read, 100 at once, 64 KiB: B is 1.08 times as fast as A " in out


def test_what_counts_as_the_same_can_be_widened(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    _, out, _ = said(capsys, "compare", *runs, "--within", "12.5%")
    assert out.startswith("B against A in 2 comparisons: the same within 12.5 % in 2. Largest difference seen, ")


def test_every_format_tells_the_same(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    _, text, _ = said(capsys, "compare", *runs)
    _, markdown, _ = said(capsys, "compare", *runs, "-f", "md")
    _, document, _ = said(capsys, "compare", *runs, "-f", "json")
    _, table, _ = said(capsys, "compare", *runs, "-f", "csv")
    parsed = json.loads(document)
    rows = list(csv.DictReader(io.StringIO(table)))
    assert text.splitlines()[0] == parsed["sentence"]
    assert markdown.splitlines()[0] == f"**{parsed['sentence']}**"
    assert [row["verdict"] for row in rows] == [cell["verdict"] for cell in parsed["cells"]] == ["faster", "same"]
    assert [float(row["ratio"]) for row in rows] == [cell["ratio"] for cell in parsed["cells"]]
    assert sum(line.startswith("| read, 100 at once, 64 KiB | ") for line in markdown.splitlines()) == 2


def test_it_is_written_to_a_file_and_nothing_is_printed(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "out.md"
    path.write_text("older")
    assert said(capsys, "compare", *runs, "-f", "md", "-o", str(path)) == (0, "", "")
    assert path.read_text().startswith("**B against A")


def test_nothing_in_common_is_exit_code_5_and_a_line_for_each_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = made(tmp_path / "a", {"epoll": 1.0}), made(tmp_path / "b", {"threads": 1.0})
    code, out, err = said(capsys, "compare", str(a), str(b))
    assert (code, out) == (5, "")
    assert [line.removeprefix("tftpbench: error: ") for line in err.splitlines()] == [
        f"{a} (A) and {b} (B) can't be compared:",
        "epoll: only in A",
        "threads: only in B",
    ]


def test_a_run_that_is_not_whole_is_in_the_notes_and_not_as_a_warning_of_python(
    capsys: pytest.CaptureFixture[str], runs: tuple[str, str]
) -> None:
    trials = Path(runs[0]) / "trials.jsonl"
    trials.write_text(trials.read_text() + "{torn")
    code, out, err = said(capsys, "compare", *runs)
    assert (code, err) == (0, "")
    assert "A: trials.jsonl:17: the last line is torn" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["."], "compare needs RUN_B, as in: tftpbench compare "),
        (["/nowhere", "/nowhere"], "/nowhere: is no run folder"),
        (["a", "b", "--within", "5"], "--within is '5'; allowed: 0% to under 100%, as in 5%"),
        (["a", "b", "--within", "-1%"], "--within is '-1%'"),
        (["a", "b", "--within", "nan%"], "--within is 'nan%'"),
        (["a", "b", "--within", "much"], "--within is 'much'"),
        (["a", "b", "--within", "100%"], "within is 1.0; allowed: a number from 0 to under 1"),
        (["a", "b", "-f", "html"], "--format is 'html'; allowed: text, md, json, csv"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, out, err = said(capsys, "compare", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("tftpbench: error: ")
    assert expected in err
    assert err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(capsys: pytest.CaptureFixture[str], runs: tuple[str, str]) -> None:
    code, _, err = said(capsys, "compare", *runs, "-o", "/nowhere/out")
    assert code == 2
    assert err.startswith("tftpbench: error: /nowhere/out: can't be written: No such file or directory")
    assert err.count("\n") == 1
