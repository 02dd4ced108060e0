"""Writing run folders: what is written is read, and a kill at any moment loses no finished trial."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.unit.store.run_folder import BOOTS, INTERVALS, TRANSFERS, create, row, save
from tftpbench.model.errors import ResultsError, ResultsWarning
from tftpbench.model.metrics import COLUMNS, OUTCOMES
from tftpbench.store import RunFolder, load_run, load_runs

ROOT = Path(__file__).parents[3]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    with create(tmp_path, scenario={"name": "smoke"}) as folder:
        save(folder, 1, started_at="2026-01-02T12:00:00.500+00:00", data_pps=1.5, failed=0, extra=3)
        save(folder, 2, started_at="2026-01-02T12:00:02+00:00", data_pps=float("nan"), verdict="invalid")
    run = load_run(folder.path)
    assert run.path.name == "20260102T120000Z-smoke"
    assert run.manifest == {"schema": "tftpbench.run/1", "seed": 7, "scenario": {"name": "smoke"}}
    assert list(run.trials.columns) == [*COLUMNS, "extra", "contender"]
    assert run.trials["trial"].tolist() == [1, 2]
    assert run.trials["failed"].isna().tolist() == [False, True]
    assert run.trials["data_pps"].isna().tolist() == [False, True]
    assert str(run.trials["started_at"].dtype).startswith("datetime64")
    assert run.trials["verdict"].tolist() == ["valid", "invalid"]
    assert run.valid["trial"].tolist() == [1]
    assert run.problems == ()


def test_transfers_and_intervals_carry_their_trial_and_lose_no_digit(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        save(folder, 1)
        save(folder, 2)
    run = load_run(folder.path)
    assert run.transfers["trial"].tolist() == [1, 1, 2, 2]
    assert run.transfers["bytes"].tolist()[:2] == [2**53 + 1, 0]
    assert run.transfers["end_ns"].tolist()[1] == 2**60
    assert run.transfers["first_response_ns"].isna().tolist()[:2] == [False, True]
    assert run.transfers["error_code"].isna().all()
    assert run.transfers["outcome"].tolist()[:2] == ["completed", "timed_out"]
    assert str(run.transfers["outcome"].dtype) == "category"
    assert run.transfers["number"].tolist()[:2] == [0, 1]
    assert run.intervals["interval"].tolist() == [0, 1, 0, 1]
    assert run.intervals["blocks"].tolist() == [4, 5, 4, 5]
    assert (folder.path / "trials" / "1" / "server.log").read_bytes() == b"log\n"


def test_outcomes_may_be_given_as_words(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        words = {**TRANSFERS, "outcome": np.array([OUTCOMES[1], OUTCOMES[3]])}
        folder.write_trial_files(1, words, INTERVALS, "", b"")
        folder.append_trial(row(1))
    assert load_run(folder.path).transfers["outcome"].tolist() == ["failed", "interrupted"]


def test_machines_are_kept_with_their_profile_and_words_where_machines_boot(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        folder.write_trial_files(1, TRANSFERS, INTERVALS, "", b"", BOOTS)
        folder.append_trial(row(1, mix="1 pi4 : 1 uefi-grub", data_pps=1.0))
        save(folder, 2, data_pps=1.0)
    run = load_run(folder.path)
    boots = run.boots
    assert boots[["trial", "machine"]].to_numpy().tolist() == [[1, 0], [1, 1]]
    assert boots["boot"].tolist() == ["pi4", "uefi-grub"], "of the machine, not of the cell"
    assert boots["end_ns"][0] == 2**53 + 1
    assert boots[["end_ns", "actual_start_ns", "failed_step"]].isna().all(axis=1).tolist() == [False, True]
    assert boots["outcome"].tolist() == ["failed", "shed"]
    assert boots["reason"].tolist() == ["no answer", ""]
    assert run.absent == ()
    file = folder.path / "trials" / "1" / "boots.parquet"
    file.write_bytes(b"PAR1 no table PAR1")
    broken = load_run(folder.path)
    with pytest.warns(ResultsWarning, match=r"trials/1/boots\.parquet can't be read: .*; left out"):
        assert len(broken.boots) == 0
    assert any("boots.parquet" in problem for problem in broken.problems)
    file.unlink()
    assert "1 trial has no boots.parquet, kept without" in load_run(folder.path).absent


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    folders = [create(tmp_path) for _ in range(3)]
    assert [folder.path.name for folder in folders] == [
        "20260102T120000Z-smoke",
        "20260102T120000Z-smoke-2",
        "20260102T120000Z-smoke-3",
    ]
    assert sorted(os.listdir(tmp_path)) == sorted(folder.path.name for folder in folders)
    assert [run.path for run in load_runs(f"{tmp_path}/*-smoke*")] == [folder.path for folder in folders]
    for folder in folders:
        folder.close()


def test_a_torn_last_line_is_dropped_with_a_note_and_the_rest_goes_on(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        save(folder, 1)
        save(folder, 2)
    whole = (folder.path / "trials.jsonl").read_bytes()
    first = len(whole.splitlines(keepends=True)[0])
    for kept in (first, first + 1, (first + len(whole)) // 2, len(whole) - 1):
        (folder.path / "trials.jsonl").write_bytes(whole[:kept])
        run = load_run(folder.path)
        if kept > first:
            with pytest.warns(ResultsWarning, match=r"trials\.jsonl:2: the last line is torn; its trial is left out"):
                _ = run.trials
        assert run.trials["trial"].tolist() == [1]
        assert any("is torn" in problem for problem in run.problems) == (kept > first)
    with RunFolder.open_for_resume(folder.path) as again:
        assert [done["trial"] for done in again.finished_trials()] == [1]
        assert "the last line was torn" in again.notes[0]
        save(again, 2)
        assert [done["trial"] for done in again.finished_trials()] == [1, 2]
    assert (folder.path / "trials.jsonl").read_bytes() == whole


def test_files_that_a_kill_left_are_replaced_or_dropped(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        folder.write_trial_files(1, TRANSFERS, INTERVALS, "", b"killed before its line")
        (folder.path / "trials" / ".unfinished-2").mkdir()
    with RunFolder.open_for_resume(folder.path) as again:
        assert again.finished_trials() == []
        save(again, 1)
    assert sorted(os.listdir(folder.path / "trials")) == ["1"]
    assert (folder.path / "trials" / "1" / "server.log").read_bytes() == b"log\n"
    assert again.notes == []


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
import run_folder as tests
folder = tests.create(sys.argv[1])
for trial in range(1, 100_000):
    tests.save(folder, trial)
    print(trial, flush=True)
"""


def test_a_kill_at_any_moment_loses_no_finished_trial(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as writer:
        assert writer.stdout is not None
        finished = [int(writer.stdout.readline()) for _ in range(3)]
        writer.kill()
        finished += [int(line) for line in writer.stdout if line.endswith("\n")]
    (run,) = load_runs(f"{tmp_path}/*-smoke")
    trials = run.trials["trial"].tolist()
    assert trials == list(range(1, len(trials) + 1))
    assert len(trials) >= len(finished)
    assert run.transfers["trial"].value_counts().to_dict() == dict.fromkeys(trials, 2)
    with RunFolder.open_for_resume(run.path) as again:
        save(again, len(trials) + 1)
        assert not list((run.path / "trials").glob(".*"))


def test_one_run_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        with pytest.raises(ResultsError, match="is being written by another run"):
            RunFolder.open_for_resume(folder.path)
        assert load_run(folder.path).trials.empty  # reading is free
    RunFolder.open_for_resume(folder.path).close()


def test_a_disk_that_fills_up_loses_no_finished_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with create(tmp_path) as folder:
        save(folder, 1)
        pwrite = os.pwrite
        room = iter([40, 0])

        def full(stream: int, content: memoryview, offset: int) -> int:
            size = next(room)
            if size == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return pwrite(stream, content[:size], offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(ResultsError) as error:
                save(folder, 2)
        assert f"{folder.path}: can't be written: No space left on device; free some space" in str(error.value)
        save(folder, 3)
    assert load_run(folder.path).trials["trial"].tolist() == [1, 3]


def test_a_disk_that_is_full_before_the_files_leaves_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with create(tmp_path) as folder, monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResultsError, match="No space left on device"):
            folder.write_trial_files(1, TRANSFERS, INTERVALS, "", b"")
        assert os.listdir(folder.path / "trials") == []


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError) as error:
        create(tmp_path / "file")
    assert str(error.value).startswith(f"{tmp_path}/file: can't be written: ")
    assert "--out" in str(error.value)
    with pytest.raises(ResultsError, match="can't be written"):
        create(Path("/proc/none"))


def test_what_a_run_learns_on_its_way_joins_its_manifest_and_stays(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "smoke", {"seed": 7}) as folder:
        folder.amend("ceilings", [1])
        folder.amend("ceilings", [1, 2])
    with RunFolder.open_for_resume(folder.path) as again:
        assert again.manifest == {"schema": "tftpbench.run/1", "seed": 7, "ceilings": [1, 2]}
    assert not list(folder.path.glob(".unfinished*"))


def test_a_name_that_is_no_utf_8_survives_in_the_manifest(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.yaml")
    with RunFolder.create(tmp_path, "smoke", {"argv": ["run", odd]}) as folder:
        assert load_run(folder.path).manifest["argv"] == ["run", odd]


def test_a_row_is_columns_in_order_plain_values_and_no_nan(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        folder.append_trial(row(1, extra=np.int64(5), data_pps=np.float64("inf"), fairness=np.float64(1.5)))
    line = (folder.path / "trials.jsonl").read_text()
    stored = json.loads(line)
    assert list(stored) == [*COLUMNS, "extra"]
    assert (stored["extra"], stored["data_pps"], stored["fairness"], stored["failed"]) == (5, None, 1.5, None)


def test_columns_that_are_missing_are_our_fault(tmp_path: Path) -> None:
    with create(tmp_path) as folder, pytest.raises(ValueError, match=r"intervals\.parquet needs the columns blocks"):
        folder.write_trial_files(1, TRANSFERS, {}, "", b"")
