"""Servers that misbehave are the finding: the reason lands in the row, nothing stays behind, the matrix goes on."""

import json
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.manifests import written
from tftpbench import cli

SERVER = Path(__file__).with_name("misbehaving_server.py")
TRANSFERS = 30
RFC_2348 = "RFC 2348, Blocksize Option Specification"
# Nothing here lasts as long, on a busy machine either: a run that goes on to its time limit of ten minutes does.
pytestmark = pytest.mark.timeout(120)
# An answer comes in time on a busy machine, and nothing is repeated; what is lost on purpose is waited for once.
PATIENT = {"timeout": "3s", "retries": 3, "backoff": "constant"}
# 30 transfers that are lost, 5 at a time, take 4.5 s. Where an answer comes first, it comes within that time.
SHORT = {"timeout": "250ms", "retries": 2, "backoff": "constant"}


def manifest(folder: Path, mode: str) -> Path:
    argv = [sys.executable, str(SERVER), mode, "{host}", "{port}", "{root}"]
    return written(folder, mode, argv, "answer", "{operations: [read], options: [blksize]}")


def run(folder: Path, *modes: str, **changes: object) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and each server's row."""
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "misbehaving",
        "description": "What does each do wrong?",
        "servers": [str(manifest(folder, mode)) for mode in modes],
        "matrix": {"operation": "read", "concurrency": 5, "file_size": "4KiB", "blksize": 1024},
        "transfers": TRANSFERS,
        "distinct_files": 2,
        "client": PATIENT,
        "trials": 1,
        **changes,
    }
    document = {key: value for key, value in document.items() if value is not None}
    path = folder / "misbehaving.yaml"
    path.write_text(json.dumps(document))  # JSON is YAML
    code = cli.exit_code(["run", str(path), "--quiet", "--out", str(folder / "out")])
    (trials,) = (folder / "out").glob("*/trials.jsonl")
    rows = [json.loads(line) for line in trials.read_text().splitlines()]
    return code, {row["server"]: row for row in rows}


def found(row: dict[str, Any]) -> dict[str, tuple[int, str]]:
    return {each["kind"]: (each["count"], each["text"]) for each in row["server_findings"]}


def is_servers_fault(row: dict[str, Any]) -> bool:
    """Whether a trial is invalid for what its server did. A busy machine makes it invalid in other words."""
    reason = row["verdict_reason"] or ""
    return any(word in reason for word in ("contents", "died", "server", "do not add up"))


@pytest.mark.parametrize(
    ("mode", "client", "kind", "count", "text"),
    [
        ("refuses", PATIENT, "refused", TRANSFERS, "refused 30 of 30 transfers (ERROR 0, not defined)"),
        ("breaks", PATIENT, "failed", TRANSFERS, "broke off 30 of 30 transfers (ERROR 0, not defined)"),
        (
            "overgrants",
            PATIENT,
            "failed",
            TRANSFERS,
            f"broke off 30 of 30 transfers (protocol fault: option_above_asked, {RFC_2348})",
        ),
        ("endless", PATIENT, "wrong_bytes", TRANSFERS, "wrong bytes in 30 of 30 transfers"),
        ("endless", PATIENT, "failed", TRANSFERS, "broke off 30 of 30 transfers (longer than expected)"),
        ("silent", SHORT, "silent", TRANSFERS, "never answered 30 of 30 transfers"),
        ("stalls", SHORT, "timed_out", TRANSFERS, "fell silent in 30 of 30 transfers"),
        ("lies", PATIENT, "wrong_bytes", TRANSFERS, "wrong bytes in 30 of 30 transfers"),
        ("lowers", PATIENT, "not_granted", 1, "granted blksize 600 where 1024 was asked for"),
        ("unresponsive", SHORT, "unresponsive", 1, "answered no new request after the load"),
        ("dies", PATIENT, "died", 1, "died with SIGSEGV; it said nothing"),
    ],
)
def test_each_fault_has_its_name(
    tmp_path: Path, mode: str, client: dict[str, object], kind: str, count: int, text: str
) -> None:
    code, rows = run(tmp_path, mode, client=client)
    assert code == 0, "a server that fails is a finding, not an error of the run"
    assert found(rows[mode])[kind] == (count, text)


@pytest.mark.parametrize("mode", ["dies", "refuses"])
def test_a_server_beside_one_that_fails_has_its_figures(tmp_path: Path, mode: str) -> None:
    code, rows = run(tmp_path, mode, "ok")
    assert code == 0
    assert (found(rows["ok"]), rows["ok"]["completed"]) == ({}, TRANSFERS)
    assert not is_servers_fault(rows["ok"])
    assert is_servers_fault(rows[mode]) == (mode == "dies")


def test_a_file_that_never_ends_is_cut_off_at_once_even_where_nothing_is_compared(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "endless", verify="off")
    row = rows["endless"]
    assert (row["failed"], row["content_mismatches"], row["bytes_verified"]) == (TRANSFERS, TRANSFERS, 0)
    assert [fault["kind"] for fault in row["protocol_faults"]] == ["longer_than_expected"]


def test_a_protocol_fault_is_in_the_row_with_an_example_and_its_rfc(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "overgrants")
    (fault,) = rows["overgrants"]["protocol_faults"]
    assert (fault["kind"], fault["count"]) == ("option_above_asked", TRANSFERS)
    assert fault["rfc_section"] == RFC_2348
    assert fault["example"].startswith("OACK blksize=1025 [15 bytes: 0006")


def test_a_server_that_passes_clients_over_is_unfair(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "unfair", "ok")
    assert "unfair" in found(rows["unfair"])
    assert rows["unfair"]["fairness"] > 10
    assert not is_servers_fault(rows["unfair"])


def test_a_server_that_stops_answering_is_found_even_where_its_clients_would_wait_longer(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "unresponsive", transfers=None, duration="2s", client={"timeout": "1s", "retries": 20})
    row = rows["unresponsive"]
    assert (row["timed_out"], row["interrupted"]) == (5, 0)
    kinds = found(row)
    assert "unresponsive" in kinds
    assert sum(count for kind, (count, _) in kinds.items() if kind in {"silent", "timed_out"}) == 5


def test_a_load_that_nobody_answers_is_cut_off_at_its_time_limit(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "silent", time_limit="300ms", client={"timeout": "1h"})
    row = rows["silent"]
    assert (row["started"], row["interrupted"], row["duration_s"]) == (5, 5, 0.3)
    assert found(row) == {"unfinished": (5, "0 of 30 done in 300 ms")}, "the test was too short to blame the server"


def test_what_a_server_sends_twice_shows_in_the_amplification(tmp_path: Path) -> None:
    _, rows = run(tmp_path, "ok")
    # 4 KiB in 4 blocks and an empty one: each has 4 bytes before it and an ACK of 4; a request and an OACK come first.
    assert rows["ok"]["amplification"] == pytest.approx((4096 + 5 * 8 + 40) / 4096, abs=0.01)


def test_a_port_that_somebody_has_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        path = manifest(tmp_path, "ok")
        path.write_text(f"{path.read_text()}\nfixed_port: {port}")
        arguments = ["--set", "matrix.operation=read", "--out", str(tmp_path / "out")]
        assert cli.exit_code(["run", "smoke", "--server", str(path), *arguments]) == 2, "said before the first trial"
    (line,) = capsys.readouterr().err.splitlines()
    assert f"ok: could not be measured: UDP port {port} is taken by " in line
    assert line.endswith(f"; stop that, or measure it as it runs with --target 127.0.0.1:{port}")
