"""Machines that boot, on real sockets: runs of the bundled servers, a server that drops one, a target that lacks files.

What the generator sends for each step is the generator's to test; here it is plans, roots, findings and files.
"""

import json
import re
import signal
import struct
from pathlib import Path
from typing import Any

import pytest

import tftpbench
from benches.capacity import case
from tests.loopback.machine import bundled, runs, until
from tests.loopback.peer import RRQ, Address, Answer, Peer, data, error, opcode, peer
from tests.loopback.test_kills import lines
from tests.loopback.test_run import PATIENCE_S, done, folder_of, rows, server_of, write_scenario
from tests.loopback.test_run import tftpbench as started
from tftpbench import cli
from tftpbench.host.generator import machine_name
from tftpbench.model.metrics import BOOT_COLUMNS
from tftpbench.store import load_run
from tftpbench.store.tables import CELL

pytestmark = pytest.mark.timeout(2 * PATIENCE_S)
MACHINES = 20
# A probe, a miss, a file of each machine's own and an upload, by clients that repeat soon.
PROFILE = """\
schema: tftpbench.boot/1
name: small
description: A machine of a test.
certainty: less certain
sources: {test: this test}
names: {loader: loader.efi}
sizes: {"{loader}": 3000, "/cfg/{mac-}.cfg": 700}
clients:
  one:
    source: test
    options: [tsize 0, blksize 1400]
    waits: 500ms x 3
    nack: gap
    probe: {error: 8, text: User aborted the transfer}
steps:
  - {get: "{loader}", as: one, stop: oack}
  - {get: "{loader}", as: one}
  - {get: "/cfg/{uuid}.cfg", as: one, miss: expected}
  - {get: "/cfg/{mac-}.cfg", as: one}
"""
TWO = "  two: {source: test, options: ['tsize {size}', blksize 1400], waits: 500ms x 3, nack: gap}\nsteps:"
UPLOADING = PROFILE.replace("700}", '700, "logs/{serial}.log": 1500}').replace("steps:", TWO) + (
    '  - {put: "logs/{serial}.log", as: two}\n'
)


def profile(folder: Path, text: str = PROFILE) -> Path:
    path = folder / "small.yaml"
    path.write_text(text)
    return path


def storm(folder: Path, boot: Path | str, servers: list[Path], **changes: object) -> Path:
    matrix = {"boot": str(boot), "machines": MACHINES, "over": "0s"}
    usual: dict[str, object] = {"matrix": matrix, "transfers": None, "deadline": "20s", "thresholds": []}
    path = write_scenario(folder, servers, **{**usual, **changes})
    given = {name: value for name, value in json.loads(path.read_text()).items() if value is not None}
    path.write_text(json.dumps(given))
    return path


def test_both_bundled_servers_boot_all_machines_from_roots_made_of_the_plan(tmp_path: Path) -> None:
    servers = [bundled(tmp_path, name) for name in ("epoll", "threads")]
    scenario = storm(tmp_path, profile(tmp_path, UPLOADING), servers, thresholds=["booted == 20"], trials=1)
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert code == 0, out + err
    found = rows(tmp_path)
    assert [(row["machines"], row["booted"], row["misses"]) for row in found] == [(MACHINES, MACHINES, MACHINES)] * 2
    assert [row["misses_unanswered"] for row in found] == [0, 0]
    # The upload of each is compared in the root, every other byte as it comes.
    assert [row["bytes_verified"] for row in found] == [MACHINES * (3000 + 700 + 1500)] * 2
    assert [row["content_mismatches"] for row in found] == [0, 0]
    assert all(row["server_findings"] == [] for row in found)
    assert [row["in_flight_max"] for row in found] <= [MACHINES] * 2
    run = load_run(next((tmp_path / "results").iterdir()))
    assert len(run.boots) == 2 * MACHINES
    assert set(run.boots.columns) == {"trial", *CELL, *BOOT_COLUMNS}
    assert run.boots["boot"].unique().tolist() == ["small"]
    assert run.boots["outcome"].unique().tolist() == ["booted"]
    assert sorted(run.boots["machine"][run.boots["trial"] == 1]) == [*range(MACHINES)]
    assert run.latency("boot", valid_only=False).count == 2 * MACHINES
    assert run.latency("miss", valid_only=False).count == 2 * MACHINES
    assert run.problems == ()


def test_a_bundled_profile_boots(tmp_path: Path) -> None:
    scenario = storm(tmp_path, "uefi-grub", [bundled(tmp_path, "epoll")], trials=1)
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert code == 0, out + err
    (row,) = rows(tmp_path)
    assert (row["booted"], row["boots_failed"]) == (MACHINES, 0)
    assert (row["operation"], row["blksize"], row["file_size_bytes"]) == (None, None, None)
    assert row["ceiling_data_pps"] is None


@pytest.mark.parametrize("boot", ["uefi", "bios-pxelinux", "uefi-ipxe"])
def test_a_boot_takes_as_many_datagrams_of_a_server_as_a_search_at_a_known_rate_counts(
    boot: str, tmp_path: Path
) -> None:
    """benches/capacity.py: answers to requests, of which misses and probes are some, and blocks."""
    scenario = storm(tmp_path, boot, [bundled(tmp_path, "epoll")], trials=5)
    code, out, err = done(tmp_path, "run", str(scenario), "--seed", "1")
    assert code == 0, out + err
    found = rows(tmp_path)
    assert [row["booted"] for row in found] == [MACHINES] * 5
    exact = [row for row in found if row["retransmissions"] == row["restarts"] == 0]
    if not exact:
        pytest.skip("clients repeated something in each trial: this machine is too busy to count what they need")
    wanted = MACHINES * case(boot, 1.0).datagrams_per_s
    assert [row["datagrams_received"] for row in exact] == [wanted] * len(exact)


def dropping(files: dict[str, bytes], dropped: str) -> Answer:
    """A server of these files in blocks of 512 bytes, which answers no request for `dropped`."""
    reading: dict[Address, bytes] = {}

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        if opcode(datagram) == RRQ:
            name = datagram[2:].split(b"\0")[0].decode()
            if name == dropped:
                return
            if name not in files:
                self.send(error(1, b"File not found"), address)
                return
            reading[address] = files[name]
            block = 1
        elif opcode(datagram) == 4 and address in reading:
            block = struct.unpack("!H", datagram[2:4])[0] + 1
        else:
            return
        contents = reading[address]
        if (block - 1) * 512 <= len(contents):
            self.send(data(block, contents[(block - 1) * 512 :][:512]), address)

    return answer


def files_of(machines: int) -> dict[str, bytes]:
    own = {machine_name("/cfg/{mac-}.cfg", number): b"own" * 100 for number in range(machines)}
    return {"loader.efi": bytes(range(256)) * 4, **own}


def load(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    code = cli.exit_code(["load", *arguments, "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out else {}, captured.err


def test_a_machine_that_a_server_drops_is_named_by_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = profile(tmp_path)
    with peer(dropping(files_of(MACHINES), machine_name("/cfg/{mac-}.cfg", 3))) as server:
        asked = (f"127.0.0.1:{server.port}", "--boot", str(path), "--machines", str(MACHINES), "--over", "200ms")
        code, found, err = load(capsys, *asked)
        assert code == 3, err
        assert (found["machines"], found["booted"], found["boots_failed"]) == (MACHINES, MACHINES - 1, 1)
        assert found["stopped"] == ["1 machine stopped at /cfg/{mac-}.cfg: no answer"]
        assert (found["boot_ns_p50_is_never"], found["boot_ns_p99_is_never"]) == (False, True)
        assert found["failures"] is True
        assert cli.exit_code(["load", *asked]) == 3
    text = capsys.readouterr().out
    assert f"127.0.0.1:{server.port}, boot small, {MACHINES} machines within 200 ms, even spread" in text
    assert re.search(r"booted +19 of 20 machines, 1 failed\n", text)
    assert re.search(r"up +half after \d.*, 99 % never, the last never\n", text)
    assert "Machines:\n  1 machine stopped at /cfg/{mac-}.cfg: no answer\n" in text


def test_a_target_is_asked_for_each_file_once_and_lacking_ones_are_listed_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = profile(tmp_path)
    files = files_of(MACHINES)
    files["pxelinux.0"] = files.pop("loader.efi")
    del files[machine_name("/cfg/{mac-}.cfg", 0)]
    with peer(dropping(files, "")) as server:
        target = f"127.0.0.1:{server.port}"
        code, _, err = load(capsys, target, "--boot", str(path))
        own = machine_name("/cfg/{mac-}.cfg", 0)
        assert code == 2
        assert (
            f"{target} lacks 2 of the 2 files that small asks for: loader.efi, {own} (each machine asks for its own "
            "/cfg/{mac-}.cfg, these are machine 0's); put them there, or name others with --map (its names: tftpbench "
            "boots show small)" in err
        )
        asked = [datagram for datagram in server.received if opcode(datagram) == RRQ]
        assert len(asked) == 2, "each once, and no load"
        files[own] = b"own"
        code, found, err = load(capsys, target, "--boot", str(path), "--map", "loader=pxelinux.0")
        assert code == 0, err
        assert (found["machines"], found["booted"]) == (1, 1)


def test_what_a_target_serves_to_all_machines_is_compared_with_a_first_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless each machine has files of its own, of which no copy tells what they must hold."""
    shared = profile(tmp_path, PROFILE.replace("/cfg/{mac-}.cfg", "/cfg/all.cfg"))
    served = {"loader.efi": b"x" * 3000, "/cfg/all.cfg": b"y" * 700}
    spoilt = 2  # the copy, and the first machine's

    def answer(self: Peer, datagram: bytes, address: Address) -> None:
        nonlocal spoilt
        if opcode(datagram) == RRQ and datagram[2:].startswith(b"/cfg/all.cfg"):
            spoilt -= 1
            if spoilt < 0:
                served["/cfg/all.cfg"] = b"z" * 700
        right(self, datagram, address)

    right = dropping(served, "")
    with peer(answer) as server:
        asked = (f"127.0.0.1:{server.port}", "--boot", str(shared), "-c", "1", "-n", "3")
        code, found, err = load(capsys, *asked)
    assert code == 3, err
    assert (found["booted"], found["boots_failed"]) == (1, 2)
    assert found["stopped"] == ["2 machines stopped at /cfg/all.cfg: wrong bytes"]
    with peer(dropping(files_of(1), "")) as server:
        cli.exit_code(["load", f"127.0.0.1:{server.port}", "--boot", str(profile(tmp_path))])
    captured = capsys.readouterr()
    assert "not compared: each machine of small has files of its own, which may differ: /cfg/{mac-}.cfg" in (
        captured.out
    )
    assert "only machine 0's" not in captured.err, "there is no other"


def test_where_each_machine_has_files_of_its_own_it_is_said_whose_were_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with peer(dropping(files_of(1), "")) as server:
        target = f"127.0.0.1:{server.port}"
        code = cli.exit_code(["load", target, "--boot", str(profile(tmp_path)), "--machines", "3"])
    captured = capsys.readouterr()
    assert code == 3
    assert "Of /cfg/{mac-}.cfg only machine 0's was looked for: the next machine asks for" in captured.err
    assert f"{machine_name('/cfg/{mac-}.cfg', 1)}, and stops there where that is not served" in captured.err
    assert "2 machines stopped at /cfg/{mac-}.cfg: refused" in captured.out


def test_a_file_that_was_to_be_absent_and_is_served_is_a_finding_and_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = profile(tmp_path, PROFILE.replace("/cfg/{mac-}.cfg", "/cfg/all.cfg"))
    files = {"loader.efi": b"x" * 900, "/cfg/all.cfg": b"y" * 700}
    files |= {machine_name("/cfg/{uuid}.cfg", number): b"menu" for number in range(2)}
    with peer(dropping(files, "")) as server:
        asked = (f"127.0.0.1:{server.port}", "--boot", str(path), "--machines", "3")
        code, found, err = load(capsys, *asked)
    assert code == 0, err
    assert (found["booted"], found["misses"], found["failures"]) == (3, 1, False)
    assert found["stopped"] == ["2 machines were served /cfg/{uuid}.cfg, which the profile expects to be absent"]


def test_a_run_measures_a_running_server_with_its_own_files(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "cfg").mkdir(parents=True)
    (root / "pxelinux.0").write_bytes(b"loader" * 1000)
    (root / "cfg" / "all.cfg").write_bytes(b"all")
    path = profile(tmp_path, PROFILE.replace("{mac-}", "all"))
    scenario = storm(tmp_path, path, [bundled(tmp_path, "epoll")], trials=1)
    with tftpbench.Server("threads", root) as server:
        target = f"127.0.0.1:{server.port}"
        code, out, err = done(tmp_path, "run", str(scenario), "--target", target)
        assert code == 2
        assert f"{target} lacks 1 of the 2 files that small asks for: loader.efi; put them there, or name others" in err
        code, out, err = done(tmp_path, "run", str(scenario), "--target", target, "--map", "loader=pxelinux.0")
        assert code == 0, out + err
        code, out, err = done(tmp_path, "run", str(scenario), "--target", target, "--target-file", "pxelinux.0")
        assert code == 2
        assert "--target-file and --target-write are of transfers" in err
    (row,) = rows(tmp_path)
    asks = load_run(next((tmp_path / "results").iterdir())).manifest["scenario"]["asks"]
    assert asks[str(path)]["bytes"] == 6000 + 3, "of the files that are there"
    assert (row["server"], row["booted"], row["content_mismatches"]) == (target, MACHINES, 0)
    assert row["bytes_verified"] == MACHINES * (6000 + 3)


def test_ctrl_c_ends_a_load_of_machines_with_what_it_found(tmp_path: Path) -> None:
    path = profile(tmp_path)
    silent_for = machine_name("/cfg/{mac-}.cfg", 3)
    with peer(dropping(files_of(MACHINES), silent_for)) as server:
        asked = ["--boot", str(path), "--machines", str(MACHINES), "--over", "100s", "--json"]
        load = started(tmp_path, "load", f"127.0.0.1:{server.port}", *asked)
        until(lambda: len(server.received) > 40, "no machine came", PATIENCE_S)
        load.send_signal(signal.SIGINT)
        out, err = load.communicate(timeout=PATIENCE_S)
    assert load.returncode == 130, err
    found = json.loads(out)
    assert 0 < found["machines"] < MACHINES
    assert found["machines"] == found["booted"] + found["boots_failed"] + found["boots_interrupted"]
    assert found["boots_failed"] or not found["boot_ns_max_is_never"], "what was cut off is not never"
    assert found["failures"] is True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_storm_that_is_cut_off_keeps_its_finished_trials_and_goes_on(tmp_path: Path, number: int) -> None:
    path = profile(tmp_path, PROFILE.replace("as: one}", "as: one, think: 100ms}"))
    matrix = {"boot": str(path), "machines": [5, 6, 7], "over": "1s"}
    scenario = storm(tmp_path, path, [bundled(tmp_path, "epoll")], matrix=matrix, trials=2)
    process = started(tmp_path, "run", str(scenario), "--seed", "1")
    until(lambda: rows(tmp_path), "no trial was finished", PATIENCE_S)
    roots, tree = folder_of(process.pid), server_of(process.pid)
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if number == signal.SIGINT else -number), err
    until(lambda: not any(map(runs, tree)), "a server outlived the run")
    until(lambda: not roots.exists(), "the roots outlived the run")
    finished = lines(tmp_path)
    assert 1 <= len(finished) < 6
    folder = next(path for path in (tmp_path / "results").iterdir() if not path.name.startswith("."))
    code, out, err = done(tmp_path, "run", "--resume", f"results/{folder.name}")
    assert code == 0, out + err
    assert lines(tmp_path)[: len(finished)] == finished
    run = load_run(folder)
    assert sorted(run.trials["trial"]) == [1, 2, 3, 4, 5, 6]
    assert run.boots.groupby("trial")["machine"].count().sum() == 2 * (5 + 6 + 7)
    assert run.problems == ()
