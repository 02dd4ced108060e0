"""A run of schema number 1, written once and never renewed: every later version must read it to the same figures."""

import pytest

from tests.fixtures.unpacked import RUN
from tftpbench.model.axes import AXES
from tftpbench.store import frames, load_run


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
    values = frames.trials(rows, ["epoll"])["response_ns_p99"]
    assert values[:2].tolist() == [5.0, float("inf")]
    assert values.isna().tolist() == [False, False, True]
