"""What is kept in git stays small: a checkout is for people, and recorded runs are kept packed."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES_MAX = 600
BYTES_MAX = 9_000_000
MEND = 'keep recorded runs in the packed form (docs/results-format.md, "A packed run")'


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so which files are tracked is not known")
    try:
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("git is not here; get it: apt install git")
    if done.returncode:
        pytest.skip(f"git does not list this checkout: {done.stderr.decode().strip()}")
    return [ROOT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]


def test_the_repository_stays_under_its_bounds() -> None:
    sizes = [path.lstat().st_size for path in tracked() if path.exists() or path.is_symlink()]
    assert 100 < len(sizes) < FILES_MAX, MEND
    assert 1_000_000 < sum(sizes) < BYTES_MAX, MEND


def test_every_reference_run_is_packed() -> None:
    runs = [path.parent for path in (ROOT / "results/reference").glob("*/manifest.json")]
    assert len(runs) >= 7
    for run in runs:
        assert (run / "trials.jsonl.xz").is_file(), run
        assert len(list(run.rglob("*"))) <= 7, run
