"""The wheel works in an empty folder, and what `make` says and refuses in a copy with a pretended compiler."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tftpbench import __version__ as VERSION  # noqa: N812  # a constant here

WHEELS = sorted((Path(__file__).parents[2] / "dist").glob("tftpbench-*.whl"))

if not WHEELS:
    pytest.skip("no wheel in dist/: make wheel", allow_module_level=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel: that is all an installation does to it."""
    place = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(WHEELS[-1]) as wheel:
        wheel.extractall(place)
    return place


def tftpbench(installed: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "tftpbench", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=25, check=False)


def test_it_runs_a_bundled_scenario_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    done = tftpbench(installed, tmp_path, "run", "concurrency", "--quick", "--set", "matrix.concurrency=[3]")
    assert done.returncode in {0, 6}, done.stderr  # 6: the machine was too busy for its figures to be used
    assert "epoll.failed == 0" in done.stdout
    [folder] = (tmp_path / "results").iterdir()
    assert folder.name.endswith("-concurrency")
    rows = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    assert {row["server"] for row in rows} == {"epoll", "threads"}
    assert all(row["completed"] and not row["failed"] and not row["content_mismatches"] for row in rows)


def test_it_holds_every_bundled_scenario_manifest_and_launcher_and_no_source(installed: Path) -> None:
    root = Path(__file__).parents[2]
    bundled = {path.relative_to(installed / "tftpbench/_bundled") for path in installed.rglob("_bundled/*/**/*.*")}
    wanted = [path for kind in ("scenarios", "servers", "boots") for path in (root / kind).rglob("*.*")]
    expected = {path.relative_to(root) for path in wanted if path.suffix in {".yaml", ".py", ".js", ".sh"}}
    assert {path for path in bundled if "__pycache__" not in path.parts} == expected
    assert not list(installed.rglob("*.rs"))


def test_it_is_itself_and_not_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import tftpbench; print(tftpbench.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)


ROOT = Path(__file__).parents[2]
PYTHON = """\
case "$*" in
*"-m venv"*) mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$(dirname "$0")/maturin" .venv/bin/maturin;;
esac
"""
MATURIN = f"""\
case $1 in
develop) echo "Requirement already satisfied: pip"; echo "Installed tftpbench" >&2;;
build) mkdir -p dist; echo wheel > dist/tftpbench-{VERSION}-cp311-cp311-linux_x86_64.whl;;
esac
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A small clone of git, with what the Makefile reads, and stubs before all other programs in PATH."""
    if not shutil.which("make") or not shutil.which("git"):
        pytest.skip("make or git is not here; get them: apt install make git")
    folder, stubs = tmp_path / "clone", tmp_path / "stubs"
    stubs.mkdir()
    for name, text in {"python3": PYTHON, "maturin": MATURIN, "cargo": "", "cc": ""}.items():
        program(stubs / name, text)
    for name in ("crates", "servers"):
        (folder / name).mkdir(parents=True)
    for name in (
        "Makefile",
        "pyproject.toml",
        "Cargo.toml",
        "Cargo.lock",
        "CHANGELOG.md",
        "requirements.lock",
        ".gitignore",
    ):
        shutil.copy(ROOT / name, folder)
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}", encoding="utf-8")
    path.chmod(0o755)


def git(folder: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=30).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message=x")


def make(folder: Path, *words: str) -> tuple[int, list[str]]:
    """Exit code, and the lines that are not make's own."""
    names = {"GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "GIT_", "BASE"))}
    environment |= dict.fromkeys(names, "a@example.org")
    environment["PATH"] = f"{folder.parent / 'stubs'}:{environment['PATH']}"
    done = subprocess.run(
        ["make", *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith("make: ***")]


def test_setup_says_in_five_lines_what_it_does_how_long_and_what_is_next(clone: Path) -> None:
    code, lines = make(clone, "setup")
    assert code == 0
    assert len(lines) == 5, lines
    assert "three minutes" in lines[1]
    assert lines[2].startswith("The program is .venv/bin/tftpbench.")
    assert lines[3].endswith(".venv/bin/tftpbench run smoke")
    assert make(clone, "setup") == (0, lines[2:]), "nothing is built twice"


def test_setup_shows_what_went_wrong(clone: Path) -> None:
    program(clone.parent / "stubs/maturin", "echo 'error: linker `cc` not found' >&2; exit 1")
    code, lines = make(clone, "setup")
    assert code == 2
    assert lines[-1] == "error: linker `cc` not found"
    assert not (clone / ".venv/.core").exists()


def test_a_gate_without_a_release_says_which_revision_to_name(clone: Path) -> None:
    named = "make gate: no release is tagged here, so name the revision to compare with: make gate BASE="
    assert make(clone, "gate") == (2, [f"{named}HEAD~1"])
    (clone / "Cargo.toml").write_text("changed", encoding="utf-8")
    assert make(clone, "gate") == (2, [f"{named}HEAD"])
    assert make(clone, "gate", "BASE=nope")[1] == [
        "make gate: nope is no revision of this repository; name one: make gate BASE=HEAD~1"
    ]


def test_a_release_is_a_tag_a_wheel_the_sources_and_their_checksums(clone: Path) -> None:
    code, lines = make(clone, "release")
    assert code == 0, lines
    assert git(clone, "cat-file", "-t", f"v{VERSION}").strip() == "tag"
    sources, wheel = f"tftpbench-{VERSION}.tar.gz", f"tftpbench-{VERSION}-cp311-cp311-linux_x86_64.whl"
    assert sorted(os.listdir(clone / "dist")) == sorted(["SHA256SUMS", sources, wheel])
    assert lines[-1].startswith(f"To publish it: git push origin v{VERSION}")
    sums = (clone / "dist/SHA256SUMS").read_text(encoding="utf-8")
    assert re.findall(r"^[0-9a-f]{64}  (.*)$", sums, re.MULTILINE) == sorted([wheel, sources])
    packed = subprocess.run(["tar", "tzf", f"dist/{sources}"], cwd=clone, capture_output=True, text=True, check=True)
    assert f"tftpbench-{VERSION}/pyproject.toml" in packed.stdout.splitlines()
    assert git(clone, "status", "--porcelain") == ""
    assert make(clone, "release") == (
        2, [f"make release: the tag v{VERSION} is there already; raise version in pyproject.toml and Cargo.toml"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        (
            "CHANGELOG.md",
            f"## {VERSION}\n",
            "## Unreleased\n",
            f"no section of this version; write one: ## {VERSION}",
        ),
        (
            "Cargo.toml",
            f'version = "{VERSION}"',
            'version = "9.9.9"',
            f"Cargo.toml has another version than .*{VERSION}",
        ),
    ],
)
def test_a_release_is_refused_before_anything_is_built(clone: Path, file: str, old: str, new: str, why: str) -> None:
    text = (clone / file).read_text(encoding="utf-8")
    assert old in text
    (clone / file).write_text(text.replace(old, new), encoding="utf-8")
    commit(clone)
    code, (line,) = make(clone, "release")
    assert code == 2
    assert re.fullmatch(rf"make release: .*{why}", line), line
    assert git(clone, "tag") == ""
    assert not (clone / ".venv").exists()


def test_a_release_is_of_what_is_committed(clone: Path) -> None:
    (clone / "new").touch()
    code, (line,) = make(clone, "release")
    assert code == 2
    assert line == "make release: there are changes that are not committed; commit or remove them (git status)"
    assert git(clone, "tag") == ""
