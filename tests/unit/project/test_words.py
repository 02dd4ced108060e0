"""Words that a stranger can't guess stay out of code, messages and docs: each has a plainer one, named beside it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("tftpbench", "crates", "servers", "scenarios", "tests", "benches", "notebooks", "docs")
PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "Makefile", "action.yml")
SUFFIXES = {".py", ".pyi", ".rs", ".md", ".toml", ".yaml", ".yml", ".j2", ".js", ".css", ".sh", ".c", ".json", ""}
# What was recorded stays as it was, and what reads it has to know the old words.
LEFT_OUT = ("tests/fixtures/", "docs/schema/gate-1.json", "tests/unit/project/test_words.py", "crates/fuzz/target/")
MAY: dict[str, set[str]] = {
    "lanes?": {"tftpbench/host/ceiling/exchange.py"},
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
    for path in [*files, *(ROOT / page for page in PAGES)]:
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
