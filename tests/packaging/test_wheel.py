"""The wheel, installed elsewhere, works in an empty folder: it brings its scenarios, manifests and native core."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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
