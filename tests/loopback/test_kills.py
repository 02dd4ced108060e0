"""A run that is killed again and again at random moments, and goes on each time, loses nothing that was finished."""

import contextlib
import json
import random
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.machine import runs, until
from tests.loopback.manifests import tiny
from tests.loopback.test_run import PATIENCE_S, tftpbench, write_scenario
from tftpbench.host.roots import PREFIX
from tftpbench.host.server.supervisor import descendants
from tftpbench.store import load_run

# A process needs about a second to its first trial, and each trial takes a tenth of one.
MOMENT_S = 1.5
TRIALS_EACH = 4


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_five_times_is_complete_in_the_end(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, kills=5, seed=random.randrange(2**32))


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_twenty_times_is_complete_in_the_end(tmp_path: Path) -> None:
    killed_again_and_again(tmp_path, kills=20, seed=random.randrange(2**32))


def killed_again_and_again(folder: Path, kills: int, seed: int) -> None:
    """Kill it `kills` times, then let it end, and look whether everything is there once."""
    print(f"seed {seed}")  # shown when it fails
    rng = random.Random(seed)
    one = {"operation": "read", "concurrency": 1, "file_size": 512}
    trials = kills * TRIALS_EACH
    scenario = write_scenario(
        folder, [tiny(folder, "ok")], matrix=one, transfers=2, trials=trials, thresholds=[], distinct_files=1
    )
    finished: list[str] = []
    for _ in range(kills):
        process = started(folder, scenario)
        kill_at_some_moment(process, folder, rng)
        now = lines(folder)
        assert now[: len(finished)] == finished, "a finished trial was lost, or altered"
        finished = now
    process = started(folder, scenario)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out + err
    assert lines(folder)[: len(finished)] == finished
    is_complete(folder, trials)


def started(folder: Path, scenario: Path) -> "subprocess.Popen[str]":
    """A first start, or one that goes on where there is a run."""
    known = [path for path in (folder / "results").glob("*") if not path.name.startswith(".")]
    going_on = ["--resume", str(known[0])] if known else [str(scenario), "--seed", "1"]
    return tftpbench(folder, "run", *going_on)


def kill_at_some_moment(process: "subprocess.Popen[str]", folder: Path, rng: random.Random) -> None:
    """SIGKILL: while it starts, while it measures, or while it writes what it has measured."""
    before = len(lines(folder))
    if rng.random() < 0.7:
        until(lambda: len(lines(folder)) > before or process.poll() is not None, "no trial was finished", PATIENCE_S)
        moment_s = rng.uniform(0, MOMENT_S / 5)
    else:
        moment_s = rng.uniform(0, MOMENT_S)
    threading.Event().wait(moment_s)
    tree = descendants(process.pid)
    roots = [root for pid in tree for root in words(pid) if Path(root).name.startswith(PREFIX)]
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    until(lambda: not any(map(runs, tree)), "a process outlived the run")
    assert not any(Path(root).exists() for root in roots), "the roots outlived the run"


def words(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return []


def lines(folder: Path) -> list[str]:
    """The whole lines of trials.jsonl."""
    text = "".join(path.read_text() for path in (folder / "results").glob("[!.]*/trials.jsonl"))
    return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def is_complete(folder: Path, trials: int) -> None:
    (path,) = (folder / "results").glob("[!.]*")
    rows: list[dict[str, Any]] = [json.loads(line) for line in lines(folder)]
    assert sorted(row["trial"] for row in rows) == [*range(1, trials + 1)], "each once"
    assert all(row["started"] == 2 for row in rows)
    assert sorted(int(each.name) for each in (path / "trials").iterdir()) == [*range(1, trials + 1)]
    run = load_run(path)
    assert run.problems == ()
    assert len(run.transfers) == 2 * trials
    assert run.problems == ()
