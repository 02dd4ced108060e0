"""A packed run reads as the run that it was made of, within the same bounds, and is never written to.

Recorded runs keep keys, figures and answers for ever.
"""

import json
import lzma
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import Field

import tftpbench
from tests.unit.builders import BOOTS, INTERVALS, RUN, TRANSFERS, create, hlog, row, save
from tests.unit.builders import RUN as FIXTURE
from tftpbench.analysis.comparison import compare
from tftpbench.analysis.summary import answer_of, scenario_of
from tftpbench.model.axes import AXES
from tftpbench.model.errors import ResultsError, ResultsWarning
from tftpbench.model.keys import Added, key_fields, stable_key, with_implied
from tftpbench.model.metrics import LATENCY_KINDS
from tftpbench.model.values import DurationNs
from tftpbench.model.workload import Client
from tftpbench.store import Run, RunFolder, load_run, recording, tables
from tftpbench.store import format as form
from tftpbench.store.pack import pack

ROOT = Path(__file__).parents[3]
PACKED_FILES = [
    "answer.txt", "intervals.parquet", "latency.parquet", "manifest.json", "server.log", "transfers.parquet",
    "trials.jsonl.xz",
]  # fmt: skip
ADDED = ("merged_trials", "closed_loop_starts", "relative_times")  # to the manifest, when a run is packed


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
    assert {name: value for name, value in packed.manifest.items() if name in ADDED} == {
        "merged_trials": [[1, 3]], "closed_loop_starts": True, "relative_times": True,
    }  # fmt: skip
    left = {name: value for name, value in packed.manifest.items() if name not in ("schema", *ADDED)}
    assert left | {"schema": form.SCHEMA} == load_run(FIXTURE).manifest
    assert tftpbench.compare(FIXTURE, packed.path).rows


def test_intended_starts_of_a_closed_loop_are_told_from_the_ends_of_others(tmp_path: Path) -> None:
    packed = pack(FIXTURE, tmp_path / "packed")
    assert "intended_start_ns" not in pq.read_schema(packed.path / "transfers.parquet").names
    assert packed.transfers.equals(load_run(FIXTURE).transfers)
    assert packed.transfers["intended_start_ns"].gt(0).any()
    table = pq.read_table(packed.path / "transfers.parquet")
    beyond = table.set_column(table.column_names.index("number"), "number", pa.array([99] * table.num_rows))
    for altered, said in (
        (table.drop_columns(["number"]), "it has rows without number"),
        (beyond, "it has transfers that no other one made room for"),
    ):
        pq.write_table(altered, packed.path / "transfers.parquet")
        with pytest.warns(ResultsWarning, match=said):
            assert len(load_run(packed.path).transfers) == 0


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


RECORDED: dict[str, Any] = json.loads((ROOT / "tests/fixtures/recorded.json").read_text(encoding="utf-8"))


def _folder(name: str) -> Path:
    return RUN if name == "tests/fixtures/run-1" else ROOT / name


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_keeps_its_keys(name: str) -> None:
    run = load_run(_folder(name))
    scenario = scenario_of(run)
    assert run.manifest["keys"]["method_key"] == RECORDED[name]["method_key"]
    assert set(RECORDED[name]["cells"]) <= {cell.key for cell in scenario.cells()}
    assert run.trials.groupby("cell_key", observed=True).size().to_dict() == RECORDED[name]["cells"]


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_run_keeps_its_answer(name: str) -> None:
    frame = answer_of(load_run(_folder(name))).to_frame()
    names = ["contender", "label", "data_pps", "ratio", "low", "high"]
    found = frame[names].astype(object).where(frame[names].notna(), None).to_numpy().tolist()
    assert [row[:2] for row in found] == [row[:2] for row in RECORDED[name]["lines"]]
    for ours, theirs in zip(found, RECORDED[name]["lines"], strict=True):
        assert [value for value in ours[2:] if value is not None] == pytest.approx(
            [value for value in theirs[2:] if value is not None], rel=1e-8
        )


@pytest.mark.parametrize("name", ["results/reference/concurrency", "tests/fixtures/run-1"])
def test_a_recorded_run_can_be_compared(name: str) -> None:
    found = compare(_folder(name), _folder(name))
    assert len(found.to_frame())
    assert not found.left_out


class Later(Client):
    """A client with a field that schema 1 did not have; older runs did not pause, and today's usual is another."""

    pause_ns: Annotated[DurationNs, Added(0)] = Field(default=5_000_000, alias="pause")


def test_a_later_field_is_hashed_only_where_it_differs_from_what_older_runs_implied() -> None:
    before = stable_key({"client": key_fields(Client())})
    assert stable_key({"client": key_fields(Later.model_validate({"pause": "0ms"}))}) == before
    assert stable_key({"client": key_fields(Later())}) != before
    assert key_fields(Later.model_validate({"pause": "1ms"}))["pause"] == "1ms"


def test_a_document_that_lacks_a_later_field_has_the_value_that_it_implied() -> None:
    older, newer = Client().model_dump(mode="json"), Later().model_dump(mode="json")
    assert Later.model_validate(with_implied(older, Later)).pause_ns == 0
    assert Later.model_validate(with_implied(newer, Later)).pause_ns == 5_000_000
    assert with_implied(newer, Later) == newer


def test_the_manifest_is_read() -> None:
    manifest = load_run(RUN).manifest
    assert (manifest["schema"], manifest["seed"], manifest["trials_planned"]) == ("tftpbench.run/1", 1, 4)
    assert manifest["keys"] == {"method_key": "9462c1dc534b5efd", "host_key": "61ea0afe1ae7340e"}


def test_trials_are_read_to_the_same_figures() -> None:
    run = load_run(RUN)
    trials = run.trials
    assert run.problems == ()
    assert trials["trial"].tolist() == [1, 2, 4, 3]
    assert trials["order"].tolist() == [1, 2, 3, 4]
    assert trials["contender"].tolist() == ["epoll", "threads", "threads", "epoll"]
    assert trials["verdict"].tolist() == ["valid", "valid", "invalid", "valid"]
    assert trials["verdict_reason"].dropna().tolist() == ["the host took 9.1% of the cores' time"]
    assert run.valid["trial"].tolist() == [1, 2, 3]
    assert trials["started_at"].iloc[0].isoformat() == "2026-11-24T17:31:58.168000+00:00"
    assert trials["data_pps"].tolist() == [45036.65984111066, 34334.508527261314, 33200.03519203731, 76402.07355227621]
    assert trials["transfer_ns_max"].tolist() == [514559, 474111, 640511, 246911]
    assert trials["ceiling_data_pps"].isna().all()
    assert trials["cell_key"].unique().tolist() == ["b63d2007b070d7c9"]
    assert trials["protocol_faults"].tolist() == [[], [], [], []]
    first = trials.iloc[0]
    counters = [int(first[name]) for name in ("started", "completed", "failed", "timed_out", "interrupted")]
    assert counters == [12, 12, 0, 0, 0]


def test_transfers_and_intervals_are_read_to_the_same_figures() -> None:
    run = load_run(RUN)
    transfers = run.transfers
    assert len(transfers) == 48
    first = {name: transfers[name].iloc[0] for name in transfers.columns}
    added = [name for name, axis in AXES.items() if axis.added]  # of a closed loop, by a version that knew no other
    for name in ("error_code", "machine", "step", "host", *added):
        assert transfers[name].isna().all()
        del first[name]
    assert first == {
        "trial": 1,
        "contender": "epoll",
        "operation": "read",
        "concurrency": 2,
        "file_size_bytes": 2048,
        "blksize": 512,
        "windowsize": 1,
        "verdict": "valid",
        "intended_start_ns": 0,
        "actual_start_ns": 37796,
        "first_response_ns": 229585,
        "end_ns": 548638,
        "bytes": 2048,
        "retransmissions": 0,
        "outcome": "completed",
        "number": 0,
    }
    ends = transfers.groupby("trial")["end_ns"].sum()
    assert ends.to_dict() == {1: 11399915, 2: 13314532, 3: 6388554, 4: 14204461}
    assert run.intervals["trial"].tolist() == [1, 2, 4, 3]
    assert run.intervals["blocks"].tolist() == [60] * 4
    assert run.intervals["interval"].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("kind", "contender", "expected"),
    [
        ("block_rtt", "epoll", (96, 12927, 51391)),
        ("block_rtt", "threads", (48, 26431, 93119)),
        ("transfer", "epoll", (24, 118591, 514559)),
        ("transfer", "threads", (12, 229119, 474111)),
        ("first_response", "epoll", (24, 23551, 204799)),
        ("first_response", "threads", (12, 76543, 272639)),
    ],
)
def test_histograms_are_read_to_the_same_figures(kind: str, contender: str, expected: tuple[int, int, int]) -> None:
    latency = load_run(RUN).latency(kind, contender=contender)
    count, median_ns, max_ns = expected
    assert latency.count == count
    assert latency.percentile(50) == median_ns
    assert latency.percentile(99) == latency.max_ns == max_ns


def test_an_invalid_trial_is_merged_only_when_asked_for() -> None:
    assert load_run(RUN).latency("block_rtt", valid_only=False, server="threads").count == 96


def test_it_shows_its_answer() -> None:
    assert "threads moves 0.76x the blocks of epoll at 2 concurrent reads" in load_run(RUN)._repr_html_()


def test_a_time_that_is_never_is_infinite_in_frames() -> None:
    rows = [
        {"trial": 1, "server": "epoll", "response_ns_p99": 5, "response_ns_p99_is_never": False},
        {"trial": 2, "server": "epoll", "response_ns_p99": None, "response_ns_p99_is_never": True},
        {"trial": 3, "server": "epoll"},
    ]
    values = tables.trials(rows, ["epoll"])["response_ns_p99"]
    assert values[:2].tolist() == [5.0, float("inf")]
    assert values.isna().tolist() == [False, False, True]
