"""System calls of real servers under a real strace: plausible, the same again, and nothing is left behind."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.loopback.manifests import bundled, tiny
from tftpbench.gate.syscalls import Counted, SyscallsUnknown, count, per_block, unavailable
from tftpbench.host import generator
from tftpbench.host.presence import locate
from tftpbench.host.roots import roots
from tftpbench.host.server import supervisor
from tftpbench.measure import Contender, Tools, Trial, pin
from tftpbench.measure.files import target_files
from tftpbench.measure.session import Bench
from tftpbench.model.manifest import load_manifest
from tftpbench.model.scenario import from_document
from tftpbench.model.workload import Cell

TRANSFERS = 30
BLOCKS = TRANSFERS * 9  # 4 KiB are eight whole blocks and an empty one that ends them (RFC 1350 section 6)

Count = Callable[[Path, str, int], Counted]


@pytest.fixture(autouse=True)
def _strace() -> None:
    reason = unavailable()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def counted() -> Iterator[Count]:
    """Counts a pass on the server of a server.yaml; whatever was started for it is gone afterwards."""

    def once(path: Path, operation: str, transfers: int) -> Counted:
        cell, contender = cell_of(operation), Contender(load_manifest(path), None, locate(load_manifest(path)))
        with target_files([contender], allow_remote=False) as files, roots([cell], 1, generator.write_contents) as base:
            bench = Bench(base, files, pin(cell.placement), 1, Tools())
            return count(Trial(1, 1, 1, cell, contender), bench, transfers)

    before = supervisor.descendants(os.getpid())
    yield once
    assert set(supervisor.descendants(os.getpid())) <= set(before)


def cell_of(operation: str) -> Cell:
    document = {
        "schema": "tftpbench.scenario/1",
        "name": "syscalls",
        "description": "How many?",
        "servers": ["threads"],
        "matrix": {"operation": [operation], "concurrency": [3], "file_size": "4KiB"},
        "transfers": 10,
        "distinct_files": 2,
        "trials": 1,
    }
    (cell,) = from_document(document, "test").cells()
    # A traced server on a busy machine is slow; clients wait long enough.
    return replace(cell, client=cell.client.model_copy(update={"timeout_ns": 10_000_000_000}))


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("name", ["threads", "epoll"])
def test_every_block_costs_a_few_calls(tmp_path: Path, counted: Count, name: str, operation: str) -> None:
    path = bundled(tmp_path, name)
    idle = counted(path, operation, 0)
    loaded = counted(path, operation, TRANSFERS)
    assert (idle.blocks, loaded.blocks) == (0, BLOCKS)
    # Batches of three at best, each with a wait, a receive and a send; nine blocks bear the calls for their file.
    assert 0.3 < per_block(loaded, idle) < 12


def test_a_thread_for_each_transfer_makes_the_same_calls_again(tmp_path: Path, counted: Count) -> None:
    path = bundled(tmp_path, "threads")
    idle = counted(path, "read", 0)
    first, second = (per_block(counted(path, "read", TRANSFERS), idle) for _ in range(2))
    assert first == pytest.approx(second, rel=0.05)


def test_a_server_that_goes_on_in_a_child_is_counted_on(tmp_path: Path, counted: Count) -> None:
    path = tiny(tmp_path, "daemon")
    assert per_block(counted(path, "read", TRANSFERS), counted(path, "read", 0)) > 2, "a send and a receive each"


def test_a_server_that_is_deaf_to_sigterm_is_counted_and_ended(tmp_path: Path, counted: Count) -> None:
    assert counted(tiny(tmp_path, "ignores-sigterm"), "read", TRANSFERS).blocks == BLOCKS


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("exits", r"^under strace, exits: ended with exit code 3 before .*: cannot open the configuration$"),
        ("wrong-pid", r"^under strace, wrong-pid: its READY line names process 1, "),
    ],
)
def test_a_server_that_does_not_start_under_strace_is_one_line(
    tmp_path: Path, counted: Count, mode: str, said: str
) -> None:
    with pytest.raises(SyscallsUnknown, match=said) as raised:
        counted(tiny(tmp_path, mode), "read", TRANSFERS)
    assert "\n" not in str(raised.value)


def test_a_command_that_does_not_exist_is_one_line(tmp_path: Path, counted: Count) -> None:
    path = tiny(tmp_path, "ok")
    path.write_text(path.read_text().replace(f"argv: ['{sys.executable}'", "argv: ['/nowhere/tftpd'"))
    with pytest.raises(SyscallsUnknown, match="/nowhere/tftpd"):
        counted(path, "read", TRANSFERS)
