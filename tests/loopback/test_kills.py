"""Kills at random moments: no finished trial is lost, and folders of ours are gone when their maker is."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.loopback.machine import runs, tiny, until
from tests.loopback.test_run import PATIENCE_S, tftpbench, write_scenario
from tftpbench.host.roots import PREFIX
from tftpbench.host.server import TemporaryFolder, remover
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


ROOT = Path(__file__).parents[2]


class Maker(Protocol):
    def __call__(self, *lines: str) -> "subprocess.Popen[str]": ...


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[Maker]:
    """Starts a process that makes a folder below `tmp_path` with `lines`, prints its path, and waits."""
    with contextlib.ExitStack() as started:

        def start(*lines: str) -> "subprocess.Popen[str]":
            script = [
                "import signal, sys; from pathlib import Path; import tftpbench",
                "from tftpbench.host.server import TemporaryFolder",
                "place = Path(sys.argv[1])",
                *lines,
                "print(made.path, flush=True); signal.pause()",
            ]
            words = [sys.executable, "-c", "\n".join(script), str(tmp_path)]
            process = started.enter_context(subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True))
            started.callback(process.kill)
            return process

        yield start


def path_of(process: "subprocess.Popen[str]") -> Path:
    assert process.stdout is not None
    with process.stdout as stream:
        return Path(stream.readline().strip())


def end(process: "subprocess.Popen[str]", number: int) -> None:
    process.send_signal(number)
    process.wait(20)


def test_a_folder_is_gone_when_it_is_no_longer_needed(tmp_path: Path) -> None:
    with TemporaryFolder("ours-", tmp_path) as made:
        (made.path / "below").mkdir()
        (made.path / "below" / "file").write_text("x")
    assert list(tmp_path.iterdir()) == []
    made.remove()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_folder_is_gone_when_its_maker_was_killed(maker: Maker, number: int) -> None:
    process = maker("made = TemporaryFolder('ours-', place)", "(made.path / 'f').write_bytes(bytes(1 << 20))")
    path = path_of(process)
    assert (path / "f").exists()
    end(process, number)
    until(lambda: not path.exists(), "the folder outlived its maker")


def test_a_folder_that_is_let_go_of_is_gone(tmp_path: Path) -> None:
    made = TemporaryFolder("ours-", tmp_path)
    path = made.path
    del made
    assert not path.exists()


def test_what_links_lead_to_stays(tmp_path: Path, maker: Maker) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("precious")
    process = maker(
        "made = TemporaryFolder('ours-', place)",
        "(made.path / 'folder').symlink_to(place / 'other')",
        "(made.path / 'file').symlink_to(place / 'other' / 'file')",
    )
    path = path_of(process)
    end(process, signal.SIGKILL)
    until(lambda: not path.exists(), "the folder outlived its maker")
    assert (other / "file").read_text() == "precious"


@pytest.mark.parametrize("is_link", [False, True])
def test_another_folder_of_its_name_stays(tmp_path: Path, maker: Maker, is_link: bool) -> None:
    process = maker("made = TemporaryFolder('ours-', place)")
    path = path_of(process)
    path.rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("precious")
    if is_link:
        path.symlink_to(tmp_path / "other")
    else:
        (tmp_path / "other").rename(path)
    removing = remover_of(process.pid, path)
    end(process, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{removing}/cmdline").exists(), "the remover did not end")
    assert (path / "file").read_text() == "precious"
    assert (tmp_path / "moved").is_dir(), "it is known by its name, too"


def remover_of(parent: int, path: Path) -> int:
    """Its command line is empty for a moment after its start: the kernel writes it after it has closed the pipes."""
    found: list[int] = []

    def is_found() -> bool:
        found[:] = [pid for pid in descendants(parent) if {str(path), remover.__file__} <= {*words(pid)}]
        return bool(found)

    until(is_found, "no remover was started")
    (pid,) = found
    return pid


def test_signals_for_the_maker_do_not_end_the_remover(maker: Maker) -> None:
    process = maker("made = TemporaryFolder('ours-', place)")
    path = path_of(process)
    removing = remover_of(process.pid, path)
    ignored = 1 << signal.SIGINT - 1 | 1 << signal.SIGTERM - 1 | 1 << signal.SIGHUP - 1
    until(lambda: status(removing, "SigIgn") & ignored == ignored, "it does not ignore them")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(removing, number)
    end(process, signal.SIGKILL)
    until(lambda: not path.exists(), "the folder outlived its maker")


def status(pid: int, name: str) -> int:
    """A mask of signals (proc_pid_status(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith(f"{name}:"))


def test_a_program_that_is_killed_leaves_nothing_of_its_server(maker: Maker) -> None:
    process = maker(
        "server = tftpbench.Server('epoll', write=True)",
        "server.start()",
        "made = server._folder",
        "(made.path / 'root' / 'upload').write_bytes(bytes(1 << 20))",
    )
    path = path_of(process)
    assert (path / "root" / "upload").exists()
    end(process, signal.SIGKILL)
    until(lambda: not path.exists(), "the server's folder outlived the program")
