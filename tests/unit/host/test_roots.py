"""Folders that servers serve."""

import os
from pathlib import Path

import pytest

from tests.unit.builders import scenario
from tftpbench.host.roots import PREFIX, file_system, room_needed_bytes, roots
from tftpbench.model.errors import UsageError
from tftpbench.model.workload import Cell


def write(path: Path, seed: int, file: int, size: int) -> None:
    path.write_bytes(bytes([seed, file]) * (size // 2))


def cell(operation: str = "read", **changes: object) -> Cell:
    matrix = {"operation": operation, "concurrency": 10, "file_size": 1024}
    return scenario(matrix=matrix, distinct_files=3, **changes).cells()[0]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_read_cell_finds_its_files_and_a_write_cell_an_empty_folder(tmp_path: Path) -> None:
    with roots([cell()], 7, write, [tmp_path]) as made:
        with made.fresh(cell()) as root:
            assert names(root) == ["f-0", "f-1", "f-2"]
            assert (root / "f-2").read_bytes() == bytes([7, 2]) * 512
        with made.fresh(cell("write")) as root:
            assert names(root) == []
            assert root.stat().st_mode & 0o777 == 0o777, "a server that gave up root can still write"


def test_each_trial_has_a_root_of_its_own_that_is_gone_afterwards(tmp_path: Path) -> None:
    with roots([cell()], 7, write, [tmp_path]) as made:
        with made.fresh(cell()) as first:
            pass
        with made.fresh(cell()) as second:
            assert first != second
            assert not first.exists()
    assert names(tmp_path) == []


def test_contents_are_written_once_for_all_trials(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(path: Path, seed: int, file: int, size: int) -> None:
        calls.append(file)
        write(path, seed, file, size)

    with roots([cell()], 7, counted, [tmp_path]) as made:
        for _ in range(3):
            with made.fresh(cell()):
                pass
    assert calls == [0, 1, 2]


def test_a_file_that_a_server_altered_is_whole_again_for_the_next_trial(tmp_path: Path) -> None:
    with roots([cell()], 7, write, [tmp_path]) as made:
        with made.fresh(cell()) as root:
            (root / "f-1").write_bytes(b"spoilt")
        with made.fresh(cell()) as root:
            assert (root / "f-1").read_bytes() == bytes([7, 1]) * 512


def test_an_error_in_a_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), roots([cell()], 7, write, [tmp_path]) as made, made.fresh(cell()):
        raise RuntimeError
    assert names(tmp_path) == []


def test_what_a_killed_run_left_is_swept_and_what_a_living_one_uses_is_not(tmp_path: Path) -> None:
    stale = tmp_path / f"{PREFIX}{os.getuid()}-stale"
    stale.mkdir()
    (stale / "f-0").write_bytes(b"left")
    foreign = tmp_path / "not-ours"
    foreign.mkdir()
    with roots([cell()], 7, write, [tmp_path]) as living:
        assert not stale.exists()
        with roots([cell()], 7, write, [tmp_path]):
            assert living.base.exists()
    assert names(tmp_path) == ["not-ours"]


def test_a_full_disk_is_one_line_that_names_the_place_and_the_mend(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with (
        roots([cell()], 7, full, [tmp_path]) as made,
        pytest.raises(UsageError, match=r"3 files of 1 KiB can't be written: No space left on device; free some"),
        made.fresh(cell()),
    ):
        pass


def test_no_place_to_write_is_one_line() -> None:
    with pytest.raises(UsageError, match="set TMPDIR"), roots([cell()], 7, write, []):
        pass


def test_the_room_needed_counts_contents_of_all_sizes_and_the_largest_trials_uploads() -> None:
    both = scenario(
        matrix={"operation": ["read", "write"], "concurrency": [1, 2], "file_size": [1000, 5000]},
        distinct_files=3,
        duration=None,
        transfers=10,
    )
    assert room_needed_bytes(both.cells()) == 3 * (1000 + 5000) + 10 * 5000


def test_the_file_system_of_a_folder_is_named() -> None:
    assert file_system(Path("/proc/self")) == "proc"
