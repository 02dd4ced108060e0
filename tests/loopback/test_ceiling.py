"""The bare exchange for real, and the command that surveys the machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tftpbench import cli
from tftpbench.host.ceiling import QUICK, CeilingCell, calibrate, measure

MS = 1_000_000


@pytest.mark.parametrize("operation", ["read", "write"])
def test_the_chosen_arrangement_moves_datagrams_in_fresh_runs(operation: str) -> None:
    cell = CeilingCell(operation=operation, flows=5, windowsize=4)  # type: ignore[arg-type]
    chosen = calibrate(cell, effort=QUICK)
    found = measure(cell, chosen, warm_up_ns=10 * MS, window_ns=30 * MS)
    assert found.arrangement == chosen
    assert found.data_pps > 0


@pytest.fixture
def two_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [CeilingCell(operation="read", flows=3), CeilingCell(operation="write", flows=3, windowsize=64)]
    monkeypatch.setattr("tftpbench.host.ceiling.usual_cells", lambda *_, **__: tuple(cells))


@pytest.mark.usefixtures("two_cells")
def test_the_survey_prints_a_line_per_cell_and_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(["ceiling", "--quick", "--seed", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Raw loopback UDP throughput, without TFTP and files, on ")
    assert "read, 3 at once" in out
    assert "write, 3 at once, windowsize 64" in out
    assert "answering socket" in out
    assert "lowest to highest" not in out, "of one trial"


@pytest.mark.usefixtures("two_cells")
def test_a_cell_that_stood_still_is_marked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tftpbench.cli.ceiling.STALLED_PPS", 10**9)
    assert cli.exit_code(["ceiling", "--quick", "--trials", "2"]) == 0
    out = capsys.readouterr().out
    assert "lowest to highest" in out
    assert re.search(r"^ *read, 3 at once +[0-9.]+( k| M)?\* ", out, re.MULTILINE)
    assert "* stalled, and no ceiling: " in out


@pytest.mark.usefixtures("two_cells")
def test_the_survey_for_programs_names_its_columns_as_a_run_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.exit_code(["ceiling", "--quick", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "tftpbench.ceiling/1"
    assert [each["windowsize"] for each in document["ceilings"]] == [1, 64]
    for each in document["ceilings"]:
        assert {"operation", "concurrency", "blksize", "windowsize", "busy_poll_us", "arrangement"} <= set(each)
        assert each["lowest"] <= each["ceiling_data_pps"] <= each["highest"]
        assert len(each["trials"]) == 1


def test_ctrl_c_ends_the_survey_with_one_line() -> None:
    # A shell lets its background jobs ignore Ctrl-C; what is started here must obey it.
    obeys = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)"
    command = [sys.executable, "-c", f"{obeys}; from tftpbench.cli import main; main(['ceiling'])"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # It holds sockets as soon as it measures, and is then past its imports.
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not _has_sockets(process.pid):
            assert process.poll() is None
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err == "tftpbench: error: interrupted\n"


def _has_sockets(pid: int) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        return any(os.readlink(f"{folder}/{name}").startswith("socket:") for name in os.listdir(folder))
    except OSError:
        return False
