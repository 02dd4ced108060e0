"""Recorded runs keep their keys, figures and answers, whatever came into scenarios and formats since."""

import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from tests.fixtures.unpacked import RUN
from tftpbench.analysis.comparison import compare
from tftpbench.analysis.summary import answer_of, scenario_of
from tftpbench.model.axes import AXES
from tftpbench.model.keys import Added, key_fields, stable_key, with_implied
from tftpbench.model.values import DurationNs
from tftpbench.model.workload import Client
from tftpbench.store import load_run, tables

ROOT = Path(__file__).parents[3]
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
    for name in ("error_code", "machine", "step", *added):
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
