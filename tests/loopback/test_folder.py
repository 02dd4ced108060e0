"""Folders of ours are gone when their maker is, however it went, and nothing else is."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.loopback.machine import until
from tftpbench.host.server import TemporaryFolder, remover

ROOT = Path(__file__).parents[2]


def maker(folder: Path, *lines: str) -> "subprocess.Popen[str]":
    """A process that has made a folder below `folder`, printed its path, and waits."""
    script = [
        "import signal, sys; from pathlib import Path; import tftpbench",
        "from tftpbench.host.server import TemporaryFolder",
        "place = Path(sys.argv[1])",
        *lines,
        "print(made.path, flush=True); signal.pause()",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(script), str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


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
def test_a_folder_is_gone_when_its_maker_was_killed(tmp_path: Path, number: int) -> None:
    process = maker(tmp_path, "made = TemporaryFolder('ours-', place)", "(made.path / 'f').write_bytes(bytes(1 << 20))")
    path = path_of(process)
    assert (path / "f").exists()
    end(process, number)
    until(lambda: not path.exists(), "the folder outlived its maker")


def test_a_folder_that_is_let_go_of_is_gone(tmp_path: Path) -> None:
    made = TemporaryFolder("ours-", tmp_path)
    path = made.path
    del made
    assert not path.exists()


def test_what_links_lead_to_stays(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").write_text("precious")
    process = maker(
        tmp_path,
        "made = TemporaryFolder('ours-', place)",
        "(made.path / 'folder').symlink_to(place / 'other')",
        "(made.path / 'file').symlink_to(place / 'other' / 'file')",
    )
    path = path_of(process)
    end(process, signal.SIGKILL)
    until(lambda: not path.exists(), "the folder outlived its maker")
    assert (other / "file").read_text() == "precious"


@pytest.mark.parametrize("is_link", [False, True])
def test_another_folder_of_its_name_stays(tmp_path: Path, is_link: bool) -> None:
    process = maker(tmp_path, "made = TemporaryFolder('ours-', place)")
    path = path_of(process)
    path.rename(tmp_path / "moved")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("precious")
    if is_link:
        path.symlink_to(tmp_path / "other")
    else:
        (tmp_path / "other").rename(path)
    (removing,) = removers(process.pid, path)
    end(process, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{removing}/cmdline").exists(), "the remover did not end")
    assert (path / "file").read_text() == "precious"
    assert (tmp_path / "moved").is_dir(), "it is known by its name, too"


def removers(parent: int, path: Path) -> list[int]:
    from tftpbench.host.server.supervisor import descendants

    found = [pid for pid in descendants(parent) if str(path) in Path(f"/proc/{pid}/cmdline").read_text().split("\0")]
    assert all(remover.__file__ in Path(f"/proc/{pid}/cmdline").read_text() for pid in found)
    return found


def test_signals_for_the_maker_do_not_end_the_remover(tmp_path: Path) -> None:
    process = maker(tmp_path, "made = TemporaryFolder('ours-', place)")
    path = path_of(process)
    (removing,) = removers(process.pid, path)
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


def test_a_program_that_is_killed_leaves_nothing_of_its_server(tmp_path: Path) -> None:
    process = maker(
        tmp_path,
        "server = tftpbench.Server('epoll', write=True)",
        "server.start()",
        "made = server._folder",
        "(made.path / 'root' / 'upload').write_bytes(bytes(1 << 20))",
    )
    path = path_of(process)
    assert (path / "root" / "upload").exists()
    end(process, signal.SIGKILL)
    until(lambda: not path.exists(), "the server's folder outlived the program")
