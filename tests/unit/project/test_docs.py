"""Documents: short to read, in words that a stranger can guess; and what the README promises is there."""

import re
import statistics
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tftpbench import load_run
from tftpbench.analysis import summary
from tftpbench.host.choice import bundled_manifests
from tftpbench.model.scenario import from_document
from tftpbench.render import answer as rendered
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


FOLDERS = ("tftpbench", "crates", "servers", "scenarios", "tests", "benches", "notebooks", "docs")
WORDED = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "Makefile", "action.yml")
SUFFIXES = {".py", ".pyi", ".rs", ".md", ".toml", ".yaml", ".yml", ".j2", ".js", ".css", ".sh", ".c", ".json", ""}
# What was recorded stays as it was, and what reads it has to know the old words.
LEFT_OUT = ("tests/fixtures/", "docs/schema/gate-1.json", "tests/unit/project/test_docs.py", "crates/fuzz/target/")
MAY: dict[str, set[str]] = {
    "lanes?": {"tftpbench/host/ceiling.py"},
    "deaf": {
        "tftpbench/measure/findings.py",
        "tftpbench/analysis/summary/remarks.py",
        "docs/results-format.md",
        "tests/unit/analysis/test_summary.py",
    },
    "blocks.jsonl": {"tftpbench/gate/document.py", "tftpbench/gate/folder.py"},
}
# A word, as a regular expression that is held against whole words, and what to write in its place.
INSTEAD = {
    r"_?told": "text, described, said in a plain word of what it is",
    r"gravest|_?graver": "the most severe",
    r"dice": "rng",
    r"rehears\w*": "pilot, resampling",
    r"keeper\w*|_heir|_hear": "supervisor",
    r"last words": "last log line",
    r"famil(y|ies) of (processes|the server)|whole family": "process tree",
    r"laws\.py|tftpbench\.laws": "invariants",
    r"did_you_mean|spelling\.py": "suggest",
    r"deaf": "unresponsive",
    r"cr(y|ies) wolf": "false-alarm rate",
    r"bare kernel|kernel alone": "raw loopback UDP throughput for the same datagrams, ceiling",
    r"lanes?": "SharedSocket",
    r"let_go|lay_out|stretch(es)?": "release, encode_run, DatagramRun",
    r"crew|hurry": "threads, abort",
    r"a_message": "max_segments",
    r"go_on|unasked|wholly": "resume_unfinished, receives_since_poll, complete",
    r"take_farewell|farewell": "take_error",
    r"FOR_EVER_US|SURPRISE|among_many": "NEVER_SLEEP_US, ALPHA, resampled",
    r"pin nobody|who runs already": "external servers are not pinned, a running server",
    r"nobody|anybody|everybody|somebody": "name the person, or the thing",
    r"our patience": "when retries ran out",
    r"_is_uneven|Uneven": "control_differs, ArmFailed",
    r"blocks\.jsonl": "pairs.jsonl",
}


def texts() -> Iterator[tuple[str, str]]:
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    for path in [*files, *(ROOT / page for page in WORDED)]:
        name = str(path.relative_to(ROOT))
        is_ours = path.suffix in SUFFIXES and path.is_file() and not path.is_symlink()
        if is_ours and "__pycache__" not in name and "_bundled" not in name and not name.startswith(LEFT_OUT):
            yield name, path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("word", INSTEAD)
def test_a_word_that_has_a_plainer_one_is_not_used(word: str) -> None:
    pattern = re.compile(rf"(?<![\w-])(?:{word})(?![\w-])", re.IGNORECASE if word.islower() else 0)
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in texts()
        if name not in MAY.get(word, set())
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"write {INSTEAD[word]}:\n" + "\n".join(found[:20]) + f"\n{len(found)} in all"


REFERENCE = ROOT / "results/reference/landscape"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_address_stands_in_pyproject_alone() -> None:
    """Until there is one, README and recipes say ADDRESS, and OWNER where GitHub wants the last two parts of it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "ADDRESS")
    action = "/".join(address.split("/")[-2:]) if "/" in address else "OWNER/tftpbench"
    release = f"v{project['version']}"
    assert f"git clone {address} tftpbench" in README
    wanted = {"ci.md": action, "ci/github-pull-request.yml": action, "ci/gitlab-ci.yml": f"git+{address}"}
    for name, source in wanted.items():
        text = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert re.findall(r"(?:uses: |TFTPBENCH: \")(\S*(?:tftpbench|ADDRESS)\S*@[^\s\"]+)", text) == [
            f"{source}@{release}"
        ]


def test_it_names_the_servers_that_need_root_and_no_others() -> None:
    (paragraph,) = (part for part in README.split("\n\n") if part.startswith("Two servers need root"))
    needy = {name for name, each in bundled_manifests().items() if each.privileges or (each.fixed_port or 1024) < 1024}
    assert set(re.findall(r"`([a-z-]+)`", paragraph)) == needy
    assert len(needy) == 2


def test_no_page_says_that_a_registry_has_it() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        assert not re.search(r"(?i)pip install tftpbench|\bpypi\b(?!`)", page.read_text(encoding="utf-8")), page


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference run yet")
def test_its_landscape_is_the_reference_run() -> None:
    for line in landscape(REFERENCE):
        assert line in README.splitlines(), f"renew it: {line}"


def test_its_first_result_is_a_run_that_is_kept() -> None:
    (block,) = re.findall(r"```\n(With 1000 reads .*?)```", README, re.DOTALL)
    answer = summary.answer_of(load_run(REFERENCE.parent / "concurrency"))
    said = rendered.text(answer, "", "", width=100)
    sentence, _, rest = block.partition("\n\n")
    assert " ".join(sentence.split()) == answer.sentence
    assert [line for line in rest.splitlines() if line not in said.splitlines()] == []


def landscape(folder: Path) -> list[str]:
    """The rows of the README's table, from a run: ratios to the first server at blksize 512, the fastest first."""
    run = load_run(folder)
    scenario = from_document(run.manifest["scenario"], str(folder))
    rows = run.rows
    skipped = [(each["server"], each["cell_key"], each["reason"]) for each in run.manifest["skipped"]]
    found = summary.summarise(scenario, list(run.manifest["servers"]), rows, "", skipped).lines
    lines = {(line.server, line.cell.concurrency): line for line in found if line.cell.blksize == 512}
    servers = sorted({server for server, _ in lines}, key=lambda server: -(lines[server, 100].figures["data_pps"] or 0))
    return [_row(server, run.manifest["servers"][server]["model"], lines, rows) for server in servers]


def _row(server: str, model: str, lines: dict[tuple[str, int], summary.Line], rows: list[dict[str, Any]]) -> str:
    ratios = [_ratio(lines[server, concurrency]) for concurrency in (3, 10, 100, 1000)]
    cpu_ns = lines[server, 100].figures["server_cpu_ns_per_block"]
    cell = lines[server, 1000].cell.key
    shares = [_lost(row) for row in rows if row["server"] == server and row["cell_key"] == cell]
    lost = statistics.median(shares)
    cpu = f"{cpu_ns / 1000:.1f}" if cpu_ns else "-"
    return f"| {server} | {model} | {' | '.join(ratios)} | {cpu} | {f'{lost:.0%}' if lost else 'none'} |"


def _ratio(line: summary.Line) -> str:
    if line.ratio is None:
        data_pps = line.figures["data_pps"]
        return f"{data_pps / 1000:.0f} k/s" if data_pps else "-"
    if line.ratio.low is None or line.ratio.high is None:
        return f"{line.ratio.ratio:.2f} (of {line.ratio.n})"
    return f"{line.ratio.ratio:.2f} ({line.ratio.low:.2f} to {line.ratio.high:.2f})"


def _lost(row: dict[str, Any]) -> float:
    kinds = {"silent", "timed_out", "refused", "failed"}
    lost = sum(each["count"] for each in row["server_findings"] if each["kind"] in kinds)
    return float(lost / row["started"]) if row.get("started") else 1.0


@pytest.mark.parametrize("page", ["README.md", "docs/how-many.md"])
def test_what_is_shown_of_a_storm_is_what_the_recorded_run_said(page: str) -> None:
    said = " ".join((ROOT / "results/reference/answers.txt").read_text(encoding="utf-8").split())
    text = (ROOT / page).read_text(encoding="utf-8")
    shown = re.search(r"With 5000 machines of uefi-grub at once, epoll has.*?none gave up\.", text, re.DOTALL)
    assert shown is not None
    assert " ".join(shown[0].replace("\n> ", " ").split()) in said
    rows = re.findall(
        r"^  (?:epoll|threads|dnsmasq|tftpd-hpa) .* of 15,000 .*|^  epoll +all 15,000 .*", text, re.MULTILINE
    )
    assert all(" ".join(row.split()) in said for row in rows)
    assert len(rows) == (4 if page == "README.md" else 0)
