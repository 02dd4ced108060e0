"""A packed run reads as the run that it was made of, within the same bounds, and is never written to."""

import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import tftpbench
from tests.fixtures.unpacked import RUN as FIXTURE
from tests.unit.store.run_folder import BOOTS, INTERVALS, TRANSFERS, create, hlog, row, save
from tftpbench.model.errors import ResultsError, ResultsWarning
from tftpbench.model.metrics import LATENCY_KINDS
from tftpbench.store import Run, RunFolder, load_run, recording, tables
from tftpbench.store import format as form
from tftpbench.store.pack import pack

ROOT = Path(__file__).parents[3]
PACKED_FILES = [
    "answer.txt", "intervals.parquet", "latency.parquet", "manifest.json", "server.log", "transfers.parquet",
    "trials.jsonl.xz",
]  # fmt: skip


def whole(out: Path) -> Path:
    """Two contenders, two cells; one trial invalid, one with nothing recorded, one kind in two lines of a log."""
    with create(out, trials_planned=6, servers={"threads": {}, "epoll": {}}) as folder:
        save(folder, 2, hlog(block_rtt=[100] * 9, transfer=[10**6]) + hlog(block_rtt=[101, 7]), data_pps=1.0)
        save(folder, 1, hlog(block_rtt=[9000], transfer=[10**6]), data_pps=2.0)
        save(folder, 3, hlog(block_rtt=[10**9]), verdict="invalid")
        save(folder, 4, hlog(block_rtt=[7]), concurrency=10, cell_key="d", data_pps=3.0)
        save(folder, 5, "", data_pps=1.0)
        save(folder, 6, hlog(block_rtt=[8, 9]), server="threads", data_pps=1.0)
    (folder.path / "answer.txt").write_text("what it said\nand more\n")
    return folder.path


def recorded(run: Run, kind: str, **cell: Any) -> list[list[int]] | str:
    try:
        found = run.latency(kind, valid_only=False, **cell)
    except ResultsError as error:
        return str(error).removeprefix(f"{run.path}: ")
    return [found.values_ns.tolist(), found.counts.tolist()]


def test_it_has_seven_files_and_reads_as_before(tmp_path: Path) -> None:
    run = load_run(whole(tmp_path))
    packed = pack(run.path, tmp_path / "packed")
    assert sorted(path.name for path in packed.path.iterdir()) == PACKED_FILES
    assert (packed.is_packed, run.is_packed) == (True, False)
    assert packed.rows == run.rows
    assert packed.problems == run.problems == ()
    assert packed.transfers.equals(run.transfers)
    assert packed.intervals.equals(run.intervals)
    assert packed._repr_html_() == run._repr_html_().replace(run.name, "packed")
    for kind in LATENCY_KINDS:
        for trial in range(1, 7):
            assert recorded(packed, kind, trial=trial) == recorded(run, kind, trial=trial)
        assert recorded(packed, kind) == recorded(run, kind)
    assert packed.spectrum("block_rtt", concurrency=3).equals(run.spectrum("block_rtt", concurrency=3))
    assert (packed.path / "server.log").read_text().startswith("==> trials/2/server.log <==\nlog\n==> trials/1/")


def test_the_golden_run_answers_as_before(tmp_path: Path) -> None:
    packed = pack(FIXTURE, tmp_path / "packed", merge=True)
    assert tftpbench.answer(packed) == tftpbench.answer(load_run(FIXTURE))
    assert recorded(packed, "block_rtt") == recorded(load_run(FIXTURE), "block_rtt")
    left = {name: value for name, value in packed.manifest.items() if name not in ("schema", "merged_trials")}
    assert left | {"schema": form.SCHEMA} == load_run(FIXTURE).manifest
    assert tftpbench.compare(FIXTURE, packed.path).rows


def test_it_reads_its_tables_with_any_word_of_an_outcome_and_newer_columns(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        folder.write_trial_files(1, TRANSFERS | {"newer": np.array([1, 2])}, INTERVALS, "", b"")
        folder.append_trial(row(1, data_pps=1.0))
        save(folder, 2, data_pps=1.0)
    packed = pack(folder.path, tmp_path / "packed")
    assert packed.transfers.equals(load_run(folder.path).transfers)
    assert packed.transfers["newer"].isna().tolist() == [False, False, True, True]


def test_it_keeps_the_machines_of_the_trials_that_have_some(tmp_path: Path) -> None:
    with create(tmp_path) as folder:
        save(folder, 1, data_pps=1.0)
        folder.write_trial_files(2, TRANSFERS, INTERVALS, "", b"", BOOTS)
        folder.append_trial(row(2, boot="uefi-grub", data_pps=1.0))
    packed = pack(folder.path, tmp_path / "packed")
    assert packed.boots.equals(load_run(folder.path).boots)
    assert packed.boots["trial"].tolist() == [2, 2]
    assert packed.absent == load_run(folder.path).absent


def test_merged_histograms_are_asked_for_together(tmp_path: Path) -> None:
    run = load_run(whole(tmp_path))
    packed = pack(run.path, tmp_path / "packed", merge=True)
    assert packed.manifest["merged_trials"] == [[2, 1, 5]]
    assert pq.read_table(packed.path / "latency.parquet").column("trial").unique().to_pylist() == [2, 3, 4, 6]
    for kind in LATENCY_KINDS:
        assert recorded(packed, kind) == recorded(run, kind)
        assert recorded(packed, kind, contender="epoll", cell_key="c") == recorded(
            run, kind, contender="epoll", cell_key="c"
        )
    with pytest.raises(ResultsError, match=r"packed: the histograms of the trials 2, 1, 5 were merged when the run"):
        packed.latency("block_rtt", trial=1)


def test_without_its_tables_it_says_what_was_not_kept(tmp_path: Path) -> None:
    packed = pack(whole(tmp_path), tmp_path / "packed", histograms_only=True)
    assert [path.name for path in sorted(packed.path.iterdir())] == [
        "answer.txt", "latency.parquet", "manifest.json", "trials.jsonl.xz",
    ]  # fmt: skip
    assert packed.absent == tuple(
        f"6 trials have no {name}.parquet, kept without" for name in ("transfers", "intervals")
    )
    with pytest.warns(ResultsWarning, match="6 trials have no transfers"):
        assert len(packed.transfers) == 0
    (packed.path / "latency.parquet").unlink()
    assert "6 trials have no latency.hlog, kept without" in load_run(packed.path).absent
    with pytest.raises(ResultsError, match=r"packed: 6 trials have no latency\.hlog$"):
        load_run(packed.path).latency("block_rtt", valid_only=False)


def test_littles_law_is_judged_in_it(tmp_path: Path) -> None:
    """As test_load_run has it: nine transfers in flight by the rate, four by the times."""
    starts = np.repeat(np.arange(110) * 10_000_000, 4)
    transfers = {name: np.full(starts.size, -1) for name in TRANSFERS} | {
        "intended_start_ns": starts, "actual_start_ns": starts, "end_ns": starts + 10_000_000,
        "bytes": np.full(starts.size, 512), "outcome": np.zeros(starts.size, np.int64),
    }  # fmt: skip
    figures = {"duration_s": 1.0, "goodput_bytes_per_s": 9 * 51200.0, "transfer_ns_max": 10_000_000, "data_pps": 1.0}
    with create(tmp_path) as folder:
        folder.write_trial_files(1, transfers, INTERVALS, "", b"")
        folder.append_trial(row(1, **figures, concurrency=4, file_size_bytes=512))
    with pytest.raises(ResultsError, match="is not whole: trial 1 is invalid"), pytest.warns(ResultsWarning):
        pack(folder.path, tmp_path / "refused")
    with create(tmp_path / "good") as folder:
        folder.write_trial_files(1, transfers, INTERVALS, "", b"")
        folder.append_trial(
            row(1, **figures | {"goodput_bytes_per_s": 4 * 51200.0}, concurrency=4, file_size_bytes=512)
        )
    packed = pack(folder.path, tmp_path / "packed")
    path = packed.path / "trials.jsonl.xz"
    path.write_bytes(lzma.compress(lzma.decompress(path.read_bytes()).replace(b"204800.0", b"460800.0")))
    with pytest.warns(ResultsWarning, match="trial 1 is invalid: rate and transfer time speak of 9 transfers in"):
        assert load_run(packed.path).rows[0]["verdict"] == "invalid"


def test_it_is_never_resumed(tmp_path: Path) -> None:
    packed = pack(FIXTURE, tmp_path / "packed")
    said = rf"{packed.path}: is a packed run, which can't be resumed; start a new run$"
    before = {path: path.read_bytes() for path in packed.path.iterdir()}
    with pytest.raises(ResultsError, match=said):
        RunFolder.open_for_resume(packed.path)
    scenario, seed, _ = recording.recorded(packed.path)
    with pytest.raises(ResultsError, match=said):
        recording.run(scenario, seed=seed, resume=packed.path)
    assert {path: path.read_bytes() for path in packed.path.iterdir()} == before


def test_what_can_not_be_packed_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    source = whole(tmp_path / "from")
    out = tmp_path / "out"
    packed = pack(source, out / "packed")
    for run, folder, said in (
        (source, packed.path, "packed: is there already; choose another name"),
        (packed.path, out / "again", "packed: is packed already"),
    ):
        with pytest.raises(ResultsError, match=said):
            pack(run, folder)
    (source / "trials/4/latency.hlog").unlink()
    with pytest.raises(ResultsError, match=r"1 of 6 trials have no latency\.hlog; leave its folder as it is"):
        pack(source, out / "other")
    (source / "trials/4/latency.hlog").write_text("Tag=block_rtt,0,1,1,HISTnonsense\n")
    with pytest.raises(ResultsError, match="can't be read"):
        pack(source, out / "other")
    assert [path.name for path in out.iterdir()] == ["packed"]


def latency_of(folder: Path, **columns: list[Any]) -> None:
    given = {"trial": [2], "kind": ["block_rtt"], "step_ns": [7], "count": [1], **columns}
    pq.write_table(pa.table({name: values for name, values in given.items() if values}), folder / "latency.parquet")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"step_ns": [0]}, "a histogram in it has a bucket without a value or a count"),
        ({"count": [-1]}, "a histogram in it has a bucket without a value or a count"),
        ({"step_ns": [2**62]}, "a histogram in it goes to 4611686018427387904; allowed: 7200000000000"),
        ({"count": [2**53 + 2]}, "its histograms count more than 9007199254740992"),
        ({"step_ns": [None]}, "it has rows without step_ns"),
        ({"kind": []}, "it has rows without kind"),
        ({"trial": [[2]]}, ".+"),
        ({"count": ["many"]}, ".+"),
        (
            {"trial": [2, 1, 2], "kind": ["block_rtt"] * 3, "step_ns": [7] * 3, "count": [1] * 3},
            "a histogram in it is there twice",
        ),
    ],
)
def test_what_is_no_histogram_is_one_line(tmp_path: Path, columns: dict[str, list[Any]], said: str) -> None:
    packed = pack(whole(tmp_path), tmp_path / "packed")
    latency_of(packed.path, **columns)
    with pytest.raises(ResultsError, match=rf"packed: latency\.parquet can't be read: {said}$"):
        load_run(packed.path).latency("block_rtt", trial=2)


@pytest.mark.parametrize(
    ("name", "limit"), [("ROWS_MAX", "rows"), ("COLUMNS_MAX", "columns"), ("SIZE_MAX_BYTES", "bytes unpacked")]
)
def test_a_packed_file_is_held_to_what_it_says_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limit: str
) -> None:
    packed = pack(whole(tmp_path), tmp_path / "packed")
    monkeypatch.setattr(tables, name, 1)
    with pytest.raises(ResultsError, match=rf"latency\.parquet can't be read: it has \d+ {limit}; allowed: 1 at most"):
        load_run(packed.path).latency("block_rtt")
    with pytest.warns(ResultsWarning, match=rf"packed: transfers\.parquet can't be read: it has \d+ {limit}"):
        assert len(load_run(packed.path).transfers) == 0


def test_all_histograms_of_a_packed_run_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = pack(whole(tmp_path), tmp_path / "packed")
    monkeypatch.setattr("tftpbench.store.trial_files.HISTOGRAMS_MAX", 1)
    with pytest.raises(ResultsError, match="it holds more than 1 histograms"):
        load_run(packed.path).latency("block_rtt")


def test_rows_of_a_trial_that_lie_apart_are_refused(tmp_path: Path) -> None:
    packed = pack(whole(tmp_path), tmp_path / "packed")
    table = pq.read_table(packed.path / "transfers.parquet")
    pq.write_table(table.take([0, 2, 1, 3]), packed.path / "transfers.parquet")
    with pytest.warns(ResultsWarning, match="the rows of a trial are not together; left out"):
        assert len(load_run(packed.path).transfers) == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "its end is missing"),
        (b"it is no xz file, but text", "Input format not supported by decoder"),
        (lzma.compress(b"{}\n" * 1000)[:-4], "its end is missing"),
        (lzma.compress(b"x", preset=9), "Memory usage limit exceeded"),
        (lzma.compress(bytes(form.TRIALS_MAX_BYTES + 1)), "it is larger than 128 MiB unpacked"),
    ],
    ids=["empty", "other", "cut", "memory", "bomb"],
)
def test_rows_are_unpacked_within_bounds(tmp_path: Path, content: bytes, said: str) -> None:
    packed = pack(FIXTURE, tmp_path / "packed")
    (packed.path / "trials.jsonl.xz").write_bytes(content)
    with pytest.raises(ResultsError, match=rf"trials\.jsonl\.xz: can't be read: {said}$"):
        _ = load_run(packed.path).rows


@pytest.mark.parametrize("merged", [None, [1], [[]], [["1"]], [[1, 1]], [[1], [1]], [[True, 2]]])
def test_a_manifest_with_groups_that_are_none_is_one_line(tmp_path: Path, merged: object) -> None:
    packed = pack(FIXTURE, tmp_path / "packed")
    (packed.path / "manifest.json").write_text(json.dumps({"schema": form.PACKED_SCHEMA, "merged_trials": merged}))
    with pytest.raises(ResultsError, match=r"manifest\.json: merged_trials (is no list of lists|holds what is no)"):
        load_run(packed.path)


def test_the_command_packs_and_says_how_small(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tftpbench.store.pack",
        str(FIXTURE),
        str(tmp_path / "packed"),
        "--histograms-only",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert f"{tmp_path / 'packed'}: 4 files, 0.01 MB" in done.stdout
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 1
    assert (
        again.stderr
        == f"python -m tftpbench.store.pack: {tmp_path / 'packed'}: is there already; choose another name\n"
    )


def test_a_packed_run_without_its_rows_is_not_an_empty_run(tmp_path: Path) -> None:
    packed = pack(whole(tmp_path), tmp_path / "packed")
    (packed.path / "trials.jsonl.xz").unlink()
    with pytest.raises(ResultsError, match=r"trials\.jsonl\.xz: is not there"):
        _ = load_run(packed.path).rows
