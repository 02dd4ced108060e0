"""Writing run folders: what is written is read, and a kill at any moment loses no finished trial.

Histograms are read, merged and bounded as the format says.
"""

import errno
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram

from tests.loopback.peer import peer, serve_bytes
from tests.unit.builders import BOOTS, INTERVALS, TRANSFERS, create, row, save
from tftpbench.host.generator import LoadConfig, run_load
from tftpbench.model.errors import ResultsError, ResultsWarning
from tftpbench.model.metrics import COLUMNS, LATENCY_KINDS, OUTCOMES
from tftpbench.store import Latency, RunFolder, load_run, load_runs

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
from tests.unit import builders as tests
folder = tests.create(sys.argv[1])
for trial in range(1, 100_000):
    tests.save(folder, trial)
    print(trial, flush=True)
"""


def test_a_kill_at_any_moment_loses_no_finished_trial(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
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


# As the native generator records: 64 ns to an hour, three significant figures.
LOWEST_NS, HIGHEST_NS, FIGURES = 64, 3_600_000_000_000, 3


def encoded(values: Iterable[int], lowest: int = 1, highest: int = HIGHEST_NS, figures: int = FIGURES) -> str:
    histogram = HdrHistogram(lowest, highest, figures)
    for value in values:
        histogram.record_value(value)
    return str(histogram.encode().decode("ascii"))


def nearest_rank(values: Iterable[int], p: float) -> int:
    ordered = sorted(values)
    return ordered[max(1, math.ceil(round(p * len(ordered) / 100, 9))) - 1]


@pytest.mark.parametrize("bounds", [(1, 10**10, 3), (LOWEST_NS, HIGHEST_NS, FIGURES), (1000, 10**9, 2)])
def test_buckets_are_those_of_the_library(bounds: tuple[int, int, int]) -> None:
    values = [int(value) for value in np.random.default_rng(1).lognormal(13, 3, 5000)] + [1, bounds[0], bounds[1] - 1]
    histogram = HdrHistogram(*bounds)
    for value in values:
        histogram.record_value(value)
    expected = {
        histogram.get_highest_equivalent_value(histogram.get_value_from_index(index)): histogram.counts[index]
        for index in range(histogram.counts_len)
        if histogram.counts[index]
    }
    latency = Latency.of([histogram.encode().decode("ascii")])
    assert dict(zip(latency.values_ns.tolist(), latency.counts.tolist(), strict=True)) == expected
    assert latency.count == histogram.get_total_count()
    assert latency.max_ns == histogram.get_highest_equivalent_value(histogram.get_max_value())


@pytest.mark.parametrize("p", [0, 0.1, 50, 66.7, 90, 99, 99.9, 99.99, 100])
def test_a_percentile_is_the_nearest_rank(p: float) -> None:
    values = range(1, 1001)  # each in a bucket of its own
    assert Latency.of([encoded(values)]).percentile(p) == nearest_rank(values, p)


def test_a_rank_that_is_whole_is_not_rounded_up() -> None:
    assert 99.9 / 100 * 1000 > 999  # in floats
    assert Latency.of([encoded(range(1, 1001))]).percentile(99.9) == 999


@pytest.mark.parametrize("p", [-1, 100.1, math.nan, math.inf])
def test_what_is_no_percentile_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="is no percentile; allowed: 0 to 100"):
        Latency.of([encoded([1])]).percentile(p)


def test_a_merged_histogram_is_that_of_all_values_and_no_mean_of_percentiles() -> None:
    one, other = Latency.of([encoded([100] * 99)]), Latency.of([encoded([9000])])
    merged = one.merge(other, one)
    assert (merged.count, one.count, other.count) == (199, 99, 1)
    assert merged.percentile(99) == 100
    assert merged.percentile(100) == merged.max_ns == pytest.approx(9000, rel=0.001)
    same = Latency.of([encoded([100] * 99), encoded([9000]), encoded([100] * 99)])
    assert same.to_frame().equals(merged.to_frame())


def test_histograms_of_different_bounds_are_merged_value_by_value() -> None:
    fine, coarse = encoded([10**6] * 3), encoded([10**6] * 2 + [5], LOWEST_NS)
    merged = Latency.of([fine, coarse])
    assert merged.count == 6
    assert merged.percentile(0) == LOWEST_NS - 1
    assert merged.percentile(99) == pytest.approx(10**6, rel=0.001)


def test_a_frame_has_a_row_per_bucket_that_holds_something() -> None:
    frame = Latency.of([encoded([7, 7, 7, 1_000_000])]).to_frame()
    assert list(frame.columns) == ["value_ns", "count", "cumulative", "percentile"]
    assert frame["value_ns"].tolist() == [7, 1_000_447]
    assert frame["count"].tolist() == [3, 1]
    assert frame["cumulative"].tolist() == [3, 4]
    assert frame["percentile"].tolist() == [75.0, 100.0]


def test_nothing_recorded_has_no_percentile() -> None:
    for empty in (Latency.of([]), Latency.of([encoded([])])):
        assert (empty.count, empty.max_ns) == (0, 0)
        assert math.isnan(empty.percentile(50))
        assert len(empty.to_frame()) == 0
        assert repr(empty) == "Latency(0 values)"
        assert empty.merge(Latency.of([encoded([5])])).percentile(50) == 5


def test_it_shows_itself() -> None:
    latency = Latency.of([encoded([1000] * 99 + [10**6])])
    assert repr(latency) == "Latency(100 values, p50 1 us, p90 1 us, p99 1 us, p99.9 1 ms, max 1 ms)"
    assert "<td" in latency._repr_html_()


@pytest.mark.parametrize("text", ["", "HISTnonsense", "äöü", encoded([1, 2, 3])[:-12]])
def test_what_is_no_histogram_is_one_line(text: str) -> None:
    with pytest.raises(ResultsError, match=r"^can't be read: .+"):
        Latency.of([text])


def test_a_latency_is_never_changed() -> None:
    latency = Latency.of([encoded([1])])
    with pytest.raises(ValueError, match="read-only"):
        latency.counts[0] = 2


def test_histograms_of_the_native_generator_come_through_unchanged() -> None:
    """Written in Rust, read in Python: the same counts, its own percentiles, and those of the raw times."""
    size = 2_000
    asked = {"operation": "read", "name": "f-{n}", "file_size_bytes": size, "concurrency": 4, "transfers": 200}
    with peer(serve_bytes(bytes(size))) as server:
        result = run_load(LoadConfig(host="127.0.0.1", port=server.port, **asked))  # type: ignore[arg-type]
    figures, table = result.figures, result.transfers
    assert figures["completed"] == 200
    histograms = {kind: Latency.of(_tagged(result.latency_hlog, kind)) for kind in LATENCY_KINDS}
    percents = {"p50": 50, "p95": 95, "p99": 99, "p999": 99.9, "max": 100}
    named = [name for name in COLUMNS if name.partition("_ns_")[0] in LATENCY_KINDS]
    # Those of boots are not there: none were made.
    reported = {name: value for name in named if "never" not in name and (value := figures.get(name)) is not None}
    assert len(reported) == 15
    for name, value in reported.items():
        kind, _, percent = name.partition("_ns_")
        assert histograms[kind].percentile(percents[percent]) == value, name
    raw = {
        "transfer": table["end_ns"] - table["actual_start_ns"],
        "first_response": table["first_response_ns"] - table["actual_start_ns"],
        "response": table["end_ns"] - table["intended_start_ns"],
        "service": table["end_ns"] - table["actual_start_ns"],
    }
    for kind, times in raw.items():
        latency = histograms[kind]
        assert latency.count == times.size
        for p in (0, 50, 90, 99, 100):
            exact = nearest_rank(times.tolist(), p)
            # A bucket goes by its highest value: never less than the raw one, and at most 0.1 % or 64 ns more.
            assert exact <= latency.percentile(p) <= exact + max(exact / 1000, LOWEST_NS)
    # The first block answers the request: its time is in first_response.
    assert histograms["block_rtt"].count == 200 * (size // 512) - (figures["block_rtt_left_out"] or 0)


def _tagged(log: str, kind: str) -> list[str]:
    return [line.rpartition(",")[2] for line in log.splitlines() if line.startswith(f"Tag={kind},")]
