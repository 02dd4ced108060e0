"""Whole runs from the command line, with real servers, real transfers and real interruptions."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.loopback import machine
from tests.loopback.machine import bundled, tiny
from tftpbench import measure
from tftpbench.host.roots import PREFIX
from tftpbench.host.server import ServerProcess
from tftpbench.host.server_host import LocalServerHost
from tftpbench.measure import ServerLeftOut, Tools
from tftpbench.model.manifest import Manifest
from tftpbench.model.scenario_files import load_scenario
from tftpbench.render.schema import json_schema
from tftpbench.store import load_run, recording

# A busy machine needs many times as long as a quiet one; a hang is found all the same.
PATIENCE_S = 100
pytestmark = pytest.mark.timeout(2 * PATIENCE_S)


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


BROKEN = "cannot open the configuration"


def many_trials(folder: Path, *modes: str, **changes: object) -> Path:
    """A scenario of five cells with a trial each, whose transfers are over at once."""
    matrix = {"operation": "read", "concurrency": [1, 2, 3, 4, 5], "file_size": 512}
    servers = [tiny(folder, mode) for mode in modes]
    return write_scenario(
        folder, servers, **{"matrix": matrix, "transfers": 5, "trials": 1, "thresholds": [], **changes}
    )


@pytest.fixture(autouse=True)
def _started() -> Iterator[None]:
    """Whatever a test starts and does not end, a failing one above all, ends here."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell lets its background jobs ignore Ctrl-C; what is started here must obey it.
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
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def rows(folder: Path) -> list[dict[str, Any]]:
    paths = list((folder / "results").glob("*/trials.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        threading.Event().wait(0.01)


def descendants(pid: int) -> list[int]:
    from tftpbench.host.server.supervisor import descendants as below

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
    assert {row["verdict"] for row in found} == {"valid"}
    assert all(row["completed"] == 30 for row in found)
    assert all(row["bytes_verified"] == 30 * 16 * 1024 for row in found)
    assert all(row["server_rss_bytes_ready"] > 0 and row["server_threads_max"] >= 1 for row in found)
    known = [row for row in found if row["ceiling_data_pps"] is not None]  # a probe that lost datagrams tells nothing
    assert all(row["ceiling_ratio"] == pytest.approx(row["data_pps"] / row["ceiling_data_pps"]) for row in known)
    assert out.strip().startswith("With ")
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
        trials=1,
        thresholds=[],
    )
    for name in ("one", "two"):
        assert done(tmp_path, "run", str(scenario), "--seed", "11", "--quiet", "--out", f"results/{name}")[0] == 0
    first, second = (
        next((tmp_path / "results" / name).glob("*/trials.jsonl")).read_text().splitlines() for name in ("one", "two")
    )
    first, second = ([json.loads(line)["trial"] for line in lines] for lines in (first, second))
    assert first == second


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [tiny(tmp_path, "ok")], transfers=3, thresholds=[])
    code, out, err = done(tmp_path, "run", str(scenario), "--quick", "--json", "--quiet")
    assert code == 0, err
    document = json.loads(out)
    assert [row["server"] for row in document["trials"]] == ["ok"]
    assert document["skipped"] == ["ok, write, 3 at once, 16 KiB: has no write"]
    assert err == ""


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (
            "exits",
            "exits: ended with exit code 3 before it was ready; its last log line: cannot open the configuration",
        ),
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
        trials=1,
        client={"timeout": "1s", "retries": 1},
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


def folder_of(pid: int) -> Path:
    """The folder for roots of a run: its remover's command line names it."""
    found: list[Path] = []

    def is_found() -> bool:
        for child in descendants(pid):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                found.extend(Path(word) for word in words if Path(word).name.startswith(PREFIX))
        return bool(found)

    until(is_found, "no remover was started")
    return found[0]


def server_of(pid: int) -> list[int]:
    """A run's supervisor and all that is below it, once its server has been started."""
    found: list[int] = []

    def is_found() -> bool:
        with contextlib.suppress(OSError):
            for child in descendants(pid):
                if "supervisor.py" in Path(f"/proc/{child}/cmdline").read_text() and (below := descendants(child)):
                    found[:] = [child, *below]
        return bool(found)

    until(is_found, "no server was started")
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_keeps_finished_trials_and_resume_goes_on(tmp_path: Path, number: int) -> None:
    scenario = many_trials(tmp_path, "ok", transfers=None, duration="300ms")
    process = tftpbench(tmp_path, "run", str(scenario), "--seed", "1")
    until(lambda: rows(tmp_path), "no trial was finished")
    roots = folder_of(process.pid)
    tree = server_of(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert not any(map(runs, tree))
    assert not roots.exists()
    finished = rows(tmp_path)
    assert 1 <= len(finished) < 5
    folder = next((tmp_path / "results").iterdir())
    assert f"go on with: tftpbench run --resume results/{folder.name}" in err
    code, out, err = done(tmp_path, "run", "--resume", f"results/{folder.name}")
    assert code == 0, out + err
    assert rows(tmp_path)[: len(finished)] == finished
    assert sorted(row["trial"] for row in rows(tmp_path)) == [1, 2, 3, 4, 5]


def test_a_killed_run_loses_one_trial_at_most_and_leaves_neither_server_nor_root(tmp_path: Path) -> None:
    scenario = many_trials(tmp_path, "forks", transfers=None, duration="300ms")
    process = tftpbench(tmp_path, "run", str(scenario), "--seed", "1")
    until(lambda: rows(tmp_path), "no trial was finished")
    roots = folder_of(process.pid)
    tree = server_of(process.pid)
    assert roots.exists()
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    until(lambda: not any(map(runs, tree)), "the server outlived the run")
    until(lambda: not roots.exists(), "the roots outlived the run")
    finished = rows(tmp_path)
    folder = next((tmp_path / "results").iterdir())
    code, out, err = done(tmp_path, "run", str(scenario), "--resume", f"results/{folder.name}")
    assert code == 0, out + err
    assert rows(tmp_path)[: len(finished)] == finished
    assert len(rows(tmp_path)) == 5


def test_a_run_whose_terminal_is_closed_ends_and_leaves_nothing(tmp_path: Path) -> None:
    if shutil.which("setsid") is None:
        pytest.skip("no setsid(1) on this machine")
    scenario = many_trials(tmp_path, "ok", transfers=None, duration="300ms")
    ours, theirs = os.openpty()
    command = ["setsid", "--ctty", sys.executable, "-m", "tftpbench", "run", str(scenario), "--seed", "1"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        until(lambda: rows(tmp_path), "no trial was finished")
        roots, tree = folder_of(process.pid), server_of(process.pid)
    finally:
        os.close(ours)  # the kernel sends SIGHUP to whoever has the terminal
        process.wait(PATIENCE_S)
    until(lambda: not any(map(runs, tree)), "the server outlived the run")
    until(lambda: not roots.exists(), "the roots outlived the run")
    assert process.returncode >= 0, "it was not killed, but ended by itself"
    assert 1 <= len(rows(tmp_path)) < 5


def test_a_run_that_was_started_by_nohup_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    scenario = many_trials(tmp_path, "ok")
    words = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", sys.executable, "-c", machine.PROGRAM, "run", str(scenario)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        words, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    _STARTED.append(process)
    until(lambda: rows(tmp_path), "no trial was finished")
    process.send_signal(signal.SIGHUP)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert len(rows(tmp_path)) == 5, err
    assert process.returncode == 0, err


def test_a_gate_that_is_killed_leaves_no_root(tmp_path: Path) -> None:
    path = str(bundled(tmp_path, "epoll"))
    process = tftpbench(tmp_path, "gate", "ab", "--base", path, "--head", path, "--quiet")
    roots, tree = folder_of(process.pid), server_of(process.pid)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    until(lambda: not any(map(runs, tree)), "the server outlived the gate")
    until(lambda: not roots.exists(), "the roots outlived the gate")


def test_resume_on_a_run_of_another_scenario_is_one_line(tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, [tiny(tmp_path, "ok")], transfers=3, thresholds=[])
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
    assert "served         20 of 20 transfers\n" in out
    assert "1.91 MiB compared, 0 transfers with wrong bytes" in out
    code, out, _ = done(tmp_path, "load", target, "--write", "new-{n}", "--size", "1KiB", "--transfers", "5", "--json")
    found = json.loads(out)
    assert (code, found["completed"], found["bytes_verified"], found["content_mismatches"]) == (0, 5, 5 * 1024, 0)
    assert found["read_back"] == {"files": 5, "compared": 5}
    assert sorted(path.name for path in (tmp_path / "root").glob("new-*")) == [f"new-{n}" for n in range(5)]
    code, out, _ = done(tmp_path, "load", target, "--read", "absent", "--transfers", "5")
    assert code == 3
    assert "0 of 5 transfers, 5 failed" in out
    assert "ERROR 1 (file not found): 5 times" in out
    (tmp_path / "other").write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    assert done(tmp_path, "load", target, "--read", "file", "--verify-against", "other", "--transfers", "2")[0] == 3
    server.send_signal(signal.SIGTERM)
    _, err = server.communicate(timeout=PATIENCE_S)
    assert server.returncode == 0, err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_load_that_is_interrupted_reports_what_it_saw(tmp_path: Path, number: int) -> None:
    (tmp_path / "file").write_bytes(os.urandom(1000))
    server = tftpbench(tmp_path, "serve", "epoll", "--root", ".", "--port", "0")
    assert server.stdout is not None
    port = server.stdout.readline().split()[2]
    load = tftpbench(tmp_path, "load", f"127.0.0.1:{port}", "--read", "file", "--duration", "20s", "--json")
    until(
        lambda: caught(load.pid, number),
        "no handler",
    )
    load.send_signal(number)
    out, errors = load.communicate(timeout=PATIENCE_S)
    assert load.returncode == 130, errors
    assert json.loads(out)["failed"] == 0
    server.send_signal(signal.SIGINT if number == signal.SIGTERM else number)
    server.communicate(timeout=PATIENCE_S)
    assert server.returncode == 0


def caught(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal (proc_pid_status(5), SigCgt)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(mask >> (number - 1) & 1)


def test_a_server_that_does_not_start_is_left_out_after_the_second_time_and_told_once(tmp_path: Path) -> None:
    scenario = many_trials(tmp_path, "exits", "ok")
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert code == 0, out + err
    assert [row["server"] for row in rows(tmp_path)].count("exits") == 2
    assert [row["verdict"] for row in rows(tmp_path) if row["server"] == "ok"] == ["valid"] * 5
    assert out.count(BROKEN) == 1
    assert (
        "Left out:\n  exits: did not start in 2 trials (3 more were not tried): ended with exit code 3 before it was "
        f"ready; its last log line: {BROKEN}\n" in out
    )
    assert out.strip().startswith("ok served every transfer up to 5 at once "), "it is compared with no other"
    assert "left out from here on: exits: did not start again, 3 trials are not done\n" in err
    folder = next((tmp_path / "results").iterdir())
    run = load_run(folder)
    assert run.problems == ()
    Draft202012Validator(json_schema("manifest")).validate(run.manifest)
    assert [each["not_done"] for each in run.manifest["left_out"]] == [3]
    code, _, err = done(tmp_path, "report", f"results/{folder.name}", "--format", "junit")
    assert code == 0, err


def test_a_server_that_hangs_costs_two_waits_and_not_one_for_each_trial(
    tmp_path: Path,
) -> None:
    starts: list[str] = []

    class Impatient(LocalServerHost):
        def server(self, manifest: Manifest, **options: Any) -> ServerProcess:
            starts.append(manifest.name)
            return ServerProcess(manifest, ready_timeout_s=0.3 if manifest.name == "silent" else PATIENCE_S, **options)

    events: list[measure.Event] = []
    scenario = load_scenario(str(many_trials(tmp_path, "silent", "ok")))
    report = recording.run(scenario, seed=1, out=tmp_path, tools=Tools(host=Impatient()), on_event=events.append)
    assert (starts.count("silent"), starts.count("ok"), len(report.rows)) == (2, 5, 7)
    (left_out,) = (event.left_out for event in events if isinstance(event, ServerLeftOut))
    assert (left_out.server, left_out.not_done) == ("silent", 3)
    assert "printed no READY line in time" in left_out.reason


def test_where_no_server_is_left_the_run_ends_and_says_so(tmp_path: Path) -> None:
    scenario = many_trials(tmp_path, "exits", "wrong-port")
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert code == 6, "nothing could be judged"
    assert len(rows(tmp_path)) == 4
    assert out.strip().startswith("No answer: no server could be started.")
    assert err.rstrip().endswith("did not start again, 3 trials are not done; no server is left, so the run ends")


def test_a_server_that_starts_again_when_a_run_goes_on_is_measured(tmp_path: Path) -> None:
    scenario = many_trials(tmp_path, "exits", "ok")
    done(tmp_path, "run", str(scenario), "--seed", "1", "--quiet")
    finished = rows(tmp_path)
    folder = next((tmp_path / "results").iterdir())
    tiny(tmp_path, "ok").replace(tmp_path / "mended")
    manifest = tmp_path / "exits" / "server.yaml"
    manifest.write_text((tmp_path / "mended").read_text().replace("name: ok", "name: exits"))
    tiny(tmp_path, "ok")
    code, out, err = done(tmp_path, "run", "--resume", f"results/{folder.name}", "--quiet")
    assert code == 0, out + err
    assert rows(tmp_path)[: len(finished)] == finished
    assert [row["trial"] for row in sorted(rows(tmp_path), key=lambda row: row["trial"])] == [*range(1, 11)]
    assert load_run(folder).manifest["left_out"] == []
    assert [row["verdict"] for row in rows(tmp_path)[len(finished) :]] == ["valid"] * 3


def test_a_quick_run_fails_where_a_server_serves_nothing_and_says_what_it_did_not_judge(tmp_path: Path) -> None:
    scenario = many_trials(tmp_path, "exits", "ok", thresholds=["failed == 0", "data_pps > 1e12"])
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "1", "--quick")
    assert code == 3, out + err
    last = out.rstrip().splitlines()[-1]
    assert last.startswith("Nothing was served by exits (read, ")
    assert last.endswith("Quick run: no speed, ratio or generator limit was judged.")
    assert "ok (read" not in last
    code, out, err = done(tmp_path, "run", str(scenario), "-s", str(tmp_path / "ok"), "--quick", "--json", "--out", "o")
    assert code == 0, out + err
    document = json.loads(out)
    assert document["quick"]
    assert {each["threshold"] for each in document["thresholds"]} == {"failed == 0"}
    [folder] = (tmp_path / "o").iterdir()
    page = done(tmp_path, "report", str(folder), "--format", "md", "--out", "-")[1]
    assert "Quick run: no speed, ratio or generator limit was judged" in page


def test_work_that_the_time_limit_cut_off_is_the_tests_doing_and_no_failure(tmp_path: Path) -> None:
    work: dict[str, Any] = {"transfers": 200, "trials": 1, "time_limit": "300ms", "thresholds": []}
    work["matrix"] = {"operation": "read", "concurrency": 1, "file_size": "8MiB"}
    scenario = write_scenario(tmp_path, [bundled(tmp_path, "epoll")], **work)
    done(tmp_path, "run", str(scenario), "--quiet")
    [row] = rows(tmp_path)
    [finding] = row["server_findings"]
    assert finding["kind"] == "unfinished"
    assert re.fullmatch(rf"{row['completed']} of 200 done in \d+(\.\d+)? m?s", finding["text"]), finding
    assert (row["failed"], row["timed_out"], row["interrupted"], row["in_flight_max"]) == (0, 0, 1, 1)
