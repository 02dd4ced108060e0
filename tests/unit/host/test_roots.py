"""Folders that servers serve."""

import os
from pathlib import Path

import pytest

from tests.unit.builders import scenario
from tftpbench.host.generator import machine_name
from tftpbench.host.roots import PREFIX, file_system, machines_max, machines_of, room_needed_bytes, roots
from tftpbench.model.boot import Share
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


BOOT = """\
schema: tftpbench.boot/1
name: small
description: A machine of a test.
certainty: less certain
sources: {test: this test}
sizes: {loader.efi: 3000, "/cfg/{mac-}.cfg": 700}
clients: {one: {source: test, options: [blksize 1400], waits: 500ms x 3, nack: gap}}
steps:
  - {get: loader.efi, as: one}
  - {get: absent.efi, as: one, miss: expected}
  - {get: "/cfg/{mac-}.cfg", as: one}
"""
UPLOADING = BOOT.replace("700}", '700, "logs/{serial}.log": 1500}') + '  - {put: "logs/{serial}.log", as: one}\n'


def boots(folder: Path, text: str = BOOT, **matrix: object) -> Cell:
    path = folder / "small.yaml"
    path.write_text(text)
    asked = {"boot": str(path), "machines": 3, **matrix}
    given = {name: value for name, value in asked.items() if value is not None}
    return scenario(matrix=given, duration="1s" if "rate" in matrix else None).cells()[0]


def test_a_root_of_boots_holds_every_name_that_a_machine_asks_for_and_no_absent_one(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def counted(path: Path, seed: int, file: int, size: int) -> None:
        calls.append((file, size))
        write(path, seed, file, size)

    cell = boots(tmp_path)
    with roots([cell], 7, counted, [tmp_path]) as made, made.fresh(cell) as root:
        assert names(root) == ["cfg", "loader.efi"]
        assert names(root / "cfg") == [f"{machine_name('{mac-}', number)}.cfg" for number in range(3)]
        assert len({path.stat().st_ino for path in (root / "cfg").iterdir()}) == 1, "one contents, many names"
        assert root.stat().st_mode & 0o777 == 0o755
    assert calls == [(0, 3000), (1, 700)]
    assert room_needed_bytes([cell]) == 3700


def test_where_a_boot_uploads_the_server_may_write_into_folders_that_are_there(tmp_path: Path) -> None:
    cell = boots(tmp_path, UPLOADING)
    with roots([cell], 7, write, [tmp_path]) as made, made.fresh(cell) as root:
        assert names(root) == ["cfg", "loader.efi", "logs"]
        assert names(root / "logs") == []
        assert [(root / name).stat().st_mode & 0o777 for name in ("", "logs")] == [0o777] * 2
    assert room_needed_bytes([cell]) == 3700 + 3 * 1500


def test_machines_of_a_rate_have_files_too_and_in_a_mix_each_those_of_its_own_profile(tmp_path: Path) -> None:
    assert machines_max(boots(tmp_path, machines=None, rate="50/s")) >= 50
    poisson = machines_max(boots(tmp_path, machines=None, rate="50/s", arrivals="poisson"))
    assert 100 < poisson < 150, "eight standard deviations"
    ramp = [{"ramp": "0/s..10/s", "for": "10s"}, {"burst": 7}]
    assert machines_max(boots(tmp_path, machines=None, shape=ramp)) == 58
    parts = [Share(name, weight, ()) for name, weight in (("one", 8), ("two", 2))]
    assert machines_of(parts, 10) == [[0, 1, 3, 4, 5, 6, 8, 9], [2, 7]]


def test_a_full_disk_is_said_of_machines_too(tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")  # the native core's have no more than a text

    said = r"the files of 3 machines \(3 machines of .*\), 3700 B, can't be written: No space .*, or lower machines$"
    cell = boots(tmp_path)
    with roots([cell], 7, full, [tmp_path]) as made, pytest.raises(UsageError, match=said), made.fresh(cell):
        pass


@pytest.mark.parametrize("other", ["loader.efi/x", "{n}"])
def test_names_that_can_not_both_be_there_are_no_matter_of_room(other: str, tmp_path: Path) -> None:
    """Only with the variables filled in is it known: machine 0 asks for 0."""
    text = BOOT.replace("sizes: {", f'sizes: {{"{other}": 1, "0": 2, ') + f'  - {{get: "{other}"}}\n  - {{get: "0"}}\n'
    cell = boots(tmp_path, text)
    said = "two of the files of its boots have the name '"
    with (
        roots([cell], 7, write, [tmp_path]) as made,
        pytest.raises(UsageError, match=said) as error,
        made.fresh(cell),
    ):
        pass
    assert "free some space" not in str(error.value)


def test_in_a_mix_the_files_of_all_machines_are_there_whichever_boots_first(tmp_path: Path) -> None:
    """Also where it is not known how many boot: so many at once, for a time."""
    mix = []
    for name, weight in (("one", 8), ("two", 2)):
        path = tmp_path / f"{name}.yaml"
        path.write_text(BOOT.replace("{mac-}", "all").replace("loader.efi", f"{name}.efi"))
        mix.append({"boot": str(path), "weight": weight})
    (cell,) = scenario(matrix={"mix": mix, "concurrency": 3}).cells()
    with roots([cell], 7, write, [tmp_path]) as made, made.fresh(cell) as root:
        assert names(root) == ["cfg", "one.efi", "two.efi"]


def test_how_many_machines_need_files_must_be_known(tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(BOOT)
    (cell,) = scenario(matrix={"boot": str(path), "concurrency": 3}).cells()
    with pytest.raises(UsageError, match="how many machines boot is not known before, and each has files of its own"):
        room_needed_bytes([cell])
    path.write_text(BOOT.replace("{mac-}", "all"))
    assert room_needed_bytes(scenario(matrix={"boot": str(path), "concurrency": 3}).cells()) == 3700


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
