"""Measuring a server that runs already: it is read, written to only where that is allowed, and never stopped."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tftpbench
from tests.loopback.manifests import bundled, tiny, written
from tftpbench import cli

SCENARIO = """\
schema: tftpbench.scenario/1
name: target
description: Is it running?
servers: [epoll]
matrix: {operation: [read, write], concurrency: 3, file_size: 4KiB}
transfers: 20
distinct_files: 2
trials: 1
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    (folder / "boot.0").write_bytes(bytes(range(256)) * 37 + b"end")
    return folder


@pytest.fixture
def running(tmp_path: Path, root: Path) -> Iterator[tftpbench.Server]:
    with tftpbench.Server(str(bundled(tmp_path, "threads")), root, write=True) as server:
        yield server


def run(folder: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code of a run, and its rows in the scenario's order."""
    path = folder / "target.yaml"
    path.write_text(SCENARIO)
    code = cli.exit_code(["run", str(path), "--quiet", "--out", str(folder / "out"), *arguments])
    files = (folder / "out").glob("*/trials.jsonl")
    rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return code, sorted(rows, key=lambda row: row["trial"])


def test_its_file_is_read_over_and_over_and_nothing_is_written(
    tmp_path: Path, root: Path, running: tftpbench.Server
) -> None:
    address = f"127.0.0.1:{running.port}"
    code, rows = run(tmp_path, "--target", address, "--target-file", "boot.0")
    assert code == 0
    assert [(row["server"], row["operation"], row["verdict"]) for row in rows] == [(address, "read", "valid")]
    size = (root / "boot.0").stat().st_size
    assert (rows[0]["file_size_bytes"], rows[0]["bytes_verified"]) == (size, 20 * size)
    assert rows[0]["server_cpu_s"] is None
    assert [path.name for path in root.iterdir()] == ["boot.0"]
    manifest = json.loads(next((tmp_path / "out").glob("*/manifest.json")).read_text())
    assert manifest["servers"][address]["model"] == "running already"
    assert manifest["scenario"]["servers"] == [f"tftp://{address}/boot.0"]


def test_with_leave_to_write_it_is_read_and_written_and_every_byte_is_compared(
    tmp_path: Path, root: Path, running: tftpbench.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code, rows = run(tmp_path, "--target", f"127.0.0.1:{running.port}", "--target-write")
    assert code == 0, capsys.readouterr().err
    assert [(row["operation"], row["bytes_verified"], row["content_mismatches"]) for row in rows] == [
        ("read", 20 * 4096, 0),
        ("write", 20 * 4096, 0),
    ]
    names = {path.name for path in root.iterdir()} - {"boot.0"}
    assert len(names) == 2 + 20
    assert all(name.startswith("tftpbench-") for name in names)


def test_it_is_compared_with_servers_of_ours_on_files_of_the_same_size(
    tmp_path: Path, root: Path, running: tftpbench.Server
) -> None:
    arguments = ["--target", f"127.0.0.1:{running.port}", "--target-file", "boot.0", "-s", "epoll"]
    code, rows = run(tmp_path, *arguments)
    assert code == 0
    reads = [row for row in rows if row["operation"] == "read"]
    assert {row["file_size_bytes"] for row in reads} == {(root / "boot.0").stat().st_size}
    assert {row["server"] for row in reads} == {"epoll", f"127.0.0.1:{running.port}"}


def test_it_goes_on_afterwards(tmp_path: Path, running: tftpbench.Server) -> None:
    assert run(tmp_path, "--target", f"127.0.0.1:{running.port}", "--target-file", "boot.0")[0] == 0
    assert running.usage().threads


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target-file", "absent"], "has no file 'absent' to read: it said ERROR 1"),
        ([], "--target needs a file to read"),
        (["--target-file", "boot.0", "--target-write"], "not both"),
        (["--target-file", ""], "--target-file is ''; allowed: the name of one file"),
    ],
)
def test_what_can_not_be_asked_of_it_is_one_line(
    tmp_path: Path, running: tftpbench.Server, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    code, rows = run(tmp_path, "--target", f"127.0.0.1:{running.port}", *arguments)
    assert (code, rows) == (2, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_another_machine_needs_leave(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--target", "192.0.2.1:69", "--target-file", "f") == (2, [])
    assert "192.0.2.1:69 is another machine than this one; allow it with --allow-remote" in capsys.readouterr().err


def test_a_target_option_without_a_target_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--target-write") == (2, [])
    assert "--target-file and --target-write go with --target HOST:PORT" in capsys.readouterr().err


def test_a_server_that_takes_no_uploads_is_a_finding(tmp_path: Path, root: Path) -> None:
    with tftpbench.Server(str(tiny(tmp_path, "ok")), root) as server:
        code, rows = run(tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-write")
    assert code == 0
    read, write = rows
    assert read["verdict"] == "invalid"
    assert read["server_findings"][0]["text"].startswith("took 0 of the 2 files that are to be read")
    assert write["verdict"] == "valid"
    assert [(each["kind"], each["count"]) for each in write["server_findings"]] == [("refused", 20)]


def test_a_server_that_keeps_files_in_memory_gets_them_by_upload(tmp_path: Path) -> None:
    path = bundled(tmp_path, "epoll")
    # It takes uploads only with the words for writing, which its readers' files need, too.
    text = path.read_text().replace(", '--write'", "")
    path.write_text(f"{text}\nargv_write: [--write]\nstore: memory")
    code, rows = run(tmp_path, "-s", str(path))
    assert code == 0
    assert [(row["operation"], row["completed"], row["bytes_verified"]) for row in rows] == [
        ("read", 20, 20 * 4096),
        ("write", 20, 20 * 4096),
    ]
    assert all(row["server_findings"] == [] and row["content_mismatches"] == 0 for row in rows)


def test_uploads_that_do_not_come_back_are_told(tmp_path: Path, root: Path) -> None:
    argv = [
        sys.executable,
        str(Path(__file__).with_name("misbehaving_server.py")),
        "forgets",
        "{host}",
        "{port}",
        "{root}",
    ]
    path = written(tmp_path, "forgets", argv, "answer", "{operations: [read, write]}")
    with tftpbench.Server(str(path), root) as server:
        _, rows = run(
            tmp_path, "--target", f"127.0.0.1:{server.port}", "--target-write", "--set", "matrix.operation=write"
        )
    (row,) = rows
    assert (row["completed"], row["bytes_verified"]) == (20, 0)
    assert [(each["kind"], each["count"]) for each in row["server_findings"]] == [("not_read_back", 20)]
