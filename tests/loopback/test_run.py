"""Whole runs from the command line, with real servers, real transfers and real interruptions."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback import machine
from tests.loopback.manifests import bundled, tiny


def write_scenario(folder: Path, servers: list[Path], **changes: object) -> Path:
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "loopback",
        "description": "Does it work from end to end?",
        "servers": [str(path) for path in servers],
        "matrix": {"operation": ["read", "write"], "concurrency": [3], "file_size": "16KiB"},
        "transfers": 30,
        "distinct_files": 2,
        "trials": 2,
        "thresholds": ["failed == 0", "timed_out == 0", "content_mismatches == 0"],
        **changes,
    }
    path = folder / "loopback.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    return path


@pytest.fixture(autouse=True)
def _started() -> Iterator[None]:
    """Whatever a test starts and does not end, a failing one above all, ends here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts its background jobs deaf to Ctrl-C; what is started here must hear it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    while _STARTED:
        process = _STARTED.pop()
        if process.poll() is None:
            process.kill()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


_STARTED: "list[subprocess.Popen[str]]" = []


def tftpbench(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", machine.PROGRAM, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _STARTED.append(process)
    return process


def done(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = tftpbench(folder, *arguments)
    out, err = process.communicate(timeout=25)
    return process.returncode, out, err


def rows(folder: Path) -> list[dict[str, Any]]:
    paths = list((folder / "results").glob("*/trials.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def until(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def descendants(pid: int) -> list[int]:
    from tftpbench.launch import descendants as below

    return below(pid)


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_run_answers_with_real_transfers_and_every_byte_checked(tmp_path: Path) -> None:
    servers = [bundled(tmp_path, "epoll"), bundled(tmp_path, "threads")]
    scenario = write_scenario(tmp_path, servers)
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "7")
    found = rows(tmp_path)
    assert code == 0, out + err
    assert len(found) == 8
    assert all(row["completed"] == 30 for row in found)
    assert all(row["bytes_verified"] == 30 * 16 * 1024 for row in found)
    assert all(row["server_rss_bytes_ready"] > 0 and row["server_threads_max"] >= 1 for row in found)
    assert all(row["ceiling_ratio"] == pytest.approx(row["data_pps"] / row["ceiling_data_pps"]) for row in found)
    assert out.strip().startswith(("threads moves", "No answer"))
    assert "✓ content_mismatches == 0" in out
    assert f"Repeat: tftpbench run {scenario} --seed 7" in out
    assert "[8/8] " in err
    assert "\x1b[" not in out + err


def test_one_seed_is_one_order(tmp_path: Path) -> None:
    scenario = write_scenario(
        tmp_path,
        [tiny(tmp_path, "ok")],
        matrix={"operation": "read", "concurrency": [1, 2, 3], "file_size": 512},
        transfers=3,
    )
    for name in ("one", "two"):
        assert done(tmp_path, "run", str(scenario), "--seed", "11", "--quiet", "--out", f"results/{name}")[0] == 0
    first, second = (
        next((tmp_path / "results" / name).glob("*/trials.jsonl")).read_text().splitlines() for name in ("one", "two")
    )
    first, second = ([json.loads(line)["trial"] for line in lines] for lines in (first, second))
    assert first == second


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [tiny(tmp_path, "ok")], transfers=3)
    code, out, err = done(tmp_path, "run", str(scenario), "--quick", "--json", "--quiet")
    assert code == 0, err
    document = json.loads(out)
    assert [row["server"] for row in document["trials"]] == ["ok"]
    assert document["skipped"] == ["ok, write, 3 at once, 16 KiB: ok has no write"]
    assert err == ""


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("exits", "exits: ended with exit code 3 before it was ready; its last words: cannot open the configuration"),
        ("dies", "dies: died with SIGSEGV"),
        ("wrong-port", "wrong-port: its READY line names port 9"),
    ],
)
def test_a_server_that_fails_is_a_finding_and_the_others_are_measured(tmp_path: Path, mode: str, said: str) -> None:
    scenario = write_scenario(
        tmp_path,
        [tiny(tmp_path, "ok"), tiny(tmp_path, mode)],
        matrix={"operation": "read", "concurrency": 1, "file_size": 512},
        transfers=3,
        thresholds=[],
        client={"timeout": "50ms", "retries": 1},
    )
    code, out, err = done(tmp_path, "run", str(scenario))
    assert code == 0, out + err
    reasons = {row["server"]: row["verdict_reason"] for row in rows(tmp_path)}
    assert reasons[mode].startswith(said)
    assert reasons["ok"] is None
    assert "Traceback" not in err


def test_a_missed_threshold_is_exit_code_3(tmp_path: Path) -> None:
    one = {"operation": "read", "concurrency": 1, "file_size": 512}
    scenario = write_scenario(tmp_path, [tiny(tmp_path, "ok")], matrix=one, transfers=3, thresholds=["started > 1000"])
    code, out, _ = done(tmp_path, "run", str(scenario), "--quiet")
    assert code == 3
    assert "✗ started > 1000" in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_finished_trials_and_resume_goes_on(tmp_path: Path, number: int) -> None:
    one = {"operation": "read", "concurrency": 1, "file_size": 512}
    scenario = write_scenario(
        tmp_path, [tiny(tmp_path, "ok")], matrix=one, transfers=None, duration="300ms", trials=4, thresholds=[]
    )
    process = tftpbench(tmp_path, "run", str(scenario), "--seed", "1")
    until(lambda: rows(tmp_path), "no trial was finished")
    until(lambda: descendants(process.pid), "no server was started")
    family = descendants(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert not any(map(runs, family))
    finished = rows(tmp_path)
    assert 1 <= len(finished) < 4
    folder = next((tmp_path / "results").iterdir())
    assert f"go on with: tftpbench run --resume results/{folder.name}" in err
    code, out, err = done(tmp_path, "run", "--resume", f"results/{folder.name}")
    assert code == 0, out + err
    assert rows(tmp_path)[: len(finished)] == finished
    assert [row["trial"] for row in rows(tmp_path)] == [1, 2, 3, 4]


def test_a_killed_run_loses_one_trial_at_most_and_leaves_no_server(tmp_path: Path) -> None:
    one = {"operation": "read", "concurrency": 1, "file_size": 512}
    scenario = write_scenario(
        tmp_path, [tiny(tmp_path, "family")], matrix=one, transfers=None, duration="300ms", trials=3, thresholds=[]
    )
    process = tftpbench(tmp_path, "run", str(scenario), "--seed", "1")
    until(lambda: rows(tmp_path), "no trial was finished")
    until(lambda: len(descendants(process.pid)) >= 3, "no server was started")
    family = descendants(process.pid)
    process.kill()
    process.communicate(timeout=20)
    until(lambda: not any(map(runs, family)), "the server outlived the run")
    finished = rows(tmp_path)
    folder = next((tmp_path / "results").iterdir())
    code, out, err = done(tmp_path, "run", str(scenario), "--resume", f"results/{folder.name}")
    assert code == 0, out + err
    assert rows(tmp_path)[: len(finished)] == finished
    assert len(rows(tmp_path)) == 3


def test_resume_on_a_run_of_another_scenario_is_one_line(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [tiny(tmp_path, "ok")], transfers=3)
    assert done(tmp_path, "run", str(scenario), "--quick", "--quiet")[0] == 0
    folder = next((tmp_path / "results").iterdir())
    code, _, err = done(tmp_path, "run", str(scenario), "--resume", f"results/{folder.name}")
    assert code == 2
    assert err.startswith(f"tftpbench: error: results/{folder.name}: was made with another version of 'loopback'")
    assert err.count("\n") == 1


def test_a_results_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [tiny(tmp_path, "ok")], transfers=3)
    (tmp_path / "file").write_text("in the way")
    code, _, err = done(tmp_path, "run", str(scenario), "--out", "file")
    assert code == 2
    assert err.startswith("tftpbench: error: file: can't be written")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["epoll", "threads"])
def test_serve_and_load_work_together(tmp_path: Path, name: str) -> None:
    (tmp_path / "root").mkdir()
    contents = os.urandom(100_000)
    (tmp_path / "root" / "file").write_bytes(contents)
    server = tftpbench(tmp_path, "serve", name, "--root", "root", "--port", "0", "--write")
    assert server.stdout is not None
    word, host, port, pid = server.stdout.readline().split()
    assert (word, int(pid)) == ("READY", server.pid)
    target = f"{host}:{port}"
    code, out, _ = done(
        tmp_path,
        "load",
        target,
        "--read",
        "file",
        "--verify-against",
        "root/file",
        "--transfers",
        "20",
        "--blksize",
        "1428",
    )
    assert code == 0
    assert "20 completed, 0 failed, 0 timed out, 0 interrupted" in out
    assert "1.91 MiB compared, 0 transfers with wrong bytes" in out
    code, out, _ = done(tmp_path, "load", target, "--write", "new-{n}", "--size", "1KiB", "--transfers", "5", "--json")
    found = json.loads(out)
    assert (code, found["completed"], found["bytes_verified"], found["content_mismatches"]) == (0, 5, 5 * 1024, 0)
    assert found["read_back"] == {"files": 5, "compared": 5}
    assert sorted(path.name for path in (tmp_path / "root").glob("new-*")) == [f"new-{n}" for n in range(5)]
    code, out, _ = done(tmp_path, "load", target, "--read", "absent", "--transfers", "5")
    assert code == 3
    assert "0 completed, 5 failed" in out
    assert "ERROR 1 (file not found): 5 times" in out
    (tmp_path / "other").write_bytes(contents[:-1] + b"?")
    assert done(tmp_path, "load", target, "--read", "file", "--verify-against", "other", "--transfers", "2")[0] == 3
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=20)
    assert server.returncode == 0, err


def test_a_load_that_is_interrupted_reports_what_it_saw(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1000))
    server = tftpbench(tmp_path, "serve", "epoll", "--root", ".", "--port", "0")
    assert server.stdout is not None
    port = server.stdout.readline().split()[2]
    load = tftpbench(tmp_path, "load", f"127.0.0.1:{port}", "--read", "file", "--duration", "20s", "--json")
    until(
        lambda: caught(load.pid, signal.SIGTERM),
        "no handler",
    )
    load.send_signal(signal.SIGTERM)
    out, errors = load.communicate(timeout=20)
    assert load.returncode == 130, errors
    assert json.loads(out)["failed"] == 0
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=20)
    assert server.returncode == 0


def caught(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal (proc_pid_status(5), SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(mask >> (number - 1) & 1)
