"""Two runs side by side."""

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import tftpbench
from tests.unit.builders import FACTS, Cells, made
from tftpbench.analysis import comparison
from tftpbench.analysis.comparison import Comparison
from tftpbench.analysis.comparison.differences import judged
from tftpbench.host.machine import host_keys
from tftpbench.model.errors import NotComparable, ResultsError, UsageError
from tftpbench.render import markdown
from tftpbench.render.comparison import sections
from tftpbench.render.plain import plain

TWO: Cells = [{"concurrency": 10}, {"concurrency": 1000}]


def edited(path: Path, changes: Mapping[int, Mapping[str, object]]) -> Path:
    """Some trials, by number, with other values."""
    rows = [json.loads(line) for line in (path / "trials.jsonl").read_text().splitlines()]
    text = "".join(f"{json.dumps({**row, **changes.get(row['trial'], {})})}\n" for row in rows)
    (path / "trials.jsonl").write_text(text)
    return path


def verdicts(found: Comparison) -> list[str]:
    return list(found.to_frame()["verdict"])


def test_what_b_moves_is_a_multiple_of_a_with_interval_and_verdict(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 100_000, "threads": 50_000}, TWO)
    b = made(tmp_path / "b", {"epoll": 120_000, "threads": 50_000}, TWO, seed=2)
    found = tftpbench.compare(a, str(b))
    cells = found.to_frame()
    assert list(cells.columns) == [
        *(
            "cell_key",
            "contender",
            "label",
            "operation",
            *("machines_asked", "boot", "mix"),
            "concurrency",
            "rate_per_s",
            "arrivals",
            *("over_ns", "spread", "shape"),
            "file_size_bytes",
            "blksize",
            "windowsize",
        ),
        *("a_data_pps", "b_data_pps", "ratio", "low", "high", "lowest", "highest", "n", "p_holm", "verdict"),
        *("cpu_ratio", "cpu_low", "cpu_high"),
    ]
    assert list(cells["label"].unique()) == ["read, 10 at once, 64 KiB", "read, 1000 at once, 64 KiB"]
    assert list(cells["contender"]) == ["epoll", "threads"] * 2
    assert verdicts(found) == ["faster", "same", "faster", "same"]
    epoll = cells.iloc[0]
    assert epoll["ratio"] == pytest.approx(1.2, rel=0.02)
    assert epoll["lowest"] <= epoll["low"] < epoll["ratio"] < epoll["high"] <= epoll["highest"]
    assert epoll["b_data_pps"] / epoll["a_data_pps"] == pytest.approx(1.2, rel=0.02)
    assert (epoll["n"], epoll["cpu_ratio"]) == (8, pytest.approx(1 / 1.2))
    start = "B against A in 4 comparisons: faster in 2, the same within 5 % in 2. Largest difference that is certain: "
    assert found.sentence.startswith(f"{start}epoll, read, 10")
    assert "at once, 64 KiB: B is 1.2" in found.sentence
    assert " times as fast as A (95 % interval 1." in found.sentence
    assert ", 8 pairs)." in found.sentence
    assert (found.warnings, found.left_out) == ((), ())


def test_what_starts_by_a_schedule_is_not_compared_by_what_it_moves(tmp_path: Path) -> None:
    """A server that loses its slowest machines would move its blocks in less time."""
    cells: Cells = [{"concurrency": 10}, {"concurrency": 10, "rate_per_s": 50.0}]
    sides = [made(tmp_path / name, {"epoll": rate}, cells) for name, rate in (("a", 1e5), ("b", 2e5))]
    found = comparison.compare(*sides)
    assert len(found.rows) == 1
    assert found.left_out == (
        "epoll, read, 50/s, 64 KiB: its load follows a schedule, so no speed is compared; see the times of each run",
    )
    for side in sides:
        edited(side, {number: {"machines_asked": 100, "over_ns": 0} for number in range(1, 17)})
    with pytest.raises(NotComparable, match="its load follows a schedule"):
        comparison.compare(*sides)


def test_a_run_against_itself_is_the_same_everywhere(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 9e4, "threads@tuned": 5e4}, TWO)
    copy = shutil.copytree(a, tmp_path / "copy")
    for other in (a, copy):
        found = comparison.compare(a, other)
        assert verdicts(found) == ["same"] * 4
        assert (found.to_frame()["ratio"] == 1).all()
        assert found.notes == ("A and B are the same run",)


def test_a_quick_run_is_not_compared(tmp_path: Path) -> None:
    quick = {"name": "made", "duration": "200ms", "trials": 8, "quick": True}
    a = made(tmp_path / "a", {"epoll": 9e4})
    b = made(tmp_path / "b", {"epoll": 5e4}, scenario=quick)
    for sides in ((a, b), (b, a)):
        with pytest.raises(NotComparable, match=r"/b: not comparable: a quick run judges no speed; measure it without"):
            comparison.compare(*sides)


def test_runs_of_different_times_are_said_to_be_open_to_drift(tmp_path: Path) -> None:
    found = comparison.compare(made(tmp_path / "a", {"epoll": 1.0}), made(tmp_path / "b", {"epoll": 1.0}, seed=2))
    assert any("not interleaved" in note and "in one run" in note for note in found.notes)


@pytest.mark.parametrize("seed", range(6))
def test_swapping_the_runs_mirrors_every_verdict(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = [f"s{number}" for number in range(6)]
    rates = {name: 1e5 * float(np.exp(rng.normal(0, 0.06))) for name in names}
    a = made(tmp_path / "a", dict.fromkeys(names, 1e5), TWO, noise=0.03, seed=seed)
    b = made(tmp_path / "b", rates, TWO, noise=0.03, seed=seed + 100)
    there, back = comparison.compare(a, b, within=0.04), comparison.compare(b, a, within=0.04)
    opposite = {"faster": "slower", "slower": "faster"}
    assert [opposite.get(each, each) for each in verdicts(there)] == verdicts(back)
    ours, theirs = there.to_frame(), back.to_frame()
    for one, other in (("ratio", "ratio"), ("low", "high"), ("lowest", "highest"), ("cpu_low", "cpu_high")):
        assert list(ours[one]) == pytest.approx(list(1 / theirs[other]))
    assert list(ours["p_holm"]) == pytest.approx(list(theirs["p_holm"]))
    assert list(ours["a_data_pps"]) == list(theirs["b_data_pps"])
    assert there.counts["faster"] == back.counts["slower"]


@pytest.mark.parametrize(
    ("times", "noise", "within", "verdict"),
    [
        (1.20, 0.01, 0.05, "faster"),
        (0.80, 0.01, 0.05, "slower"),
        (1.00, 0.01, 0.05, "same"),
        (1.02, 0.001, 0.05, "same"),  # sure, and too small to matter
        (1.02, 0.001, 0.01, "faster"),
        (0.96, 0.001, 0.05, "same"),
        (1.03, 0.06, 0.05, "can't tell"),
        (1.00, 0.30, 0.05, "can't tell"),
    ],
)
def test_a_verdict_needs_the_interval_on_one_side(
    tmp_path: Path, times: float, noise: float, within: float, verdict: str
) -> None:
    a = made(tmp_path / "a", {"epoll": 1e5}, noise=noise)
    b = made(tmp_path / "b", {"epoll": 1e5 * times}, noise=noise, seed=5)
    found = comparison.compare(a, b, within=within)
    assert verdicts(found) == [verdict]


def test_under_six_pairs_nobody_can_tell_however_large_the_difference(tmp_path: Path) -> None:
    found = comparison.compare(
        made(tmp_path / "a", {"epoll": 1.0}, rounds=5), made(tmp_path / "b", {"epoll": 9.0}, rounds=9)
    )
    cell = found.to_frame().iloc[0]
    assert (cell["verdict"], cell["n"]) == ("can't tell", 5)
    assert cell[["low", "high", "p_holm", "cpu_low"]].isna().all()
    assert "(range of 5: " in found.sentence
    assert found.sentence.endswith("): can't tell.")


def test_one_sure_cell_of_many_must_be_surer(tmp_path: Path) -> None:
    """An interval that excludes 1 is enough for one cell, and no longer where thirty are judged."""
    a = made(tmp_path / "a", {"epoll": 1e5}, rounds=7, noise=0.1, seed=3)
    b = made(tmp_path / "b", {"epoll": 1.3e5}, rounds=7, noise=0.1, seed=4)
    alone = comparison.compare(a, b).to_frame().iloc[0]
    assert (alone["verdict"], alone["low"] > 1) == ("faster", True)
    others = [{"concurrency": number} for number in range(1, 30)]
    quiet = [made(tmp_path / name, {"epoll": 1e5}, others, rounds=7, noise=0.1, seed=number)
             for number, name in enumerate(("c", "d"), start=20)]  # fmt: skip
    for one, more in zip((a, b), quiet, strict=True):
        with (one / "trials.jsonl").open("a") as file:
            for line in (more / "trials.jsonl").read_text().splitlines():
                file.write(json.dumps({**json.loads(line), "trial": 1000 + json.loads(line)["trial"]}) + "\n")
    among = comparison.compare(a, b).to_frame().set_index("concurrency").loc[100]
    assert (among["ratio"], among["low"]) == (alone["ratio"], alone["low"])
    assert (among["verdict"], among["p_holm"] > alone["p_holm"]) == ("can't tell", True)


def test_pairs_are_valid_trials_of_one_round_that_know_the_figure(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1e5}, rounds=12, noise=0)
    b = made(tmp_path / "b", {"epoll": 2e5}, rounds=12, noise=0)
    edited(a, {1: {"verdict": "invalid", "data_pps": 1e9}, 2: {"data_pps": None}, 3: {"data_pps": float("nan")}})
    edited(b, {4: {"data_pps": 0.0}, 5: {"data_pps": float("inf")}, 6: {"round": None}, 12: {"round": 13}})
    cell = comparison.compare(a, b).to_frame().iloc[0]
    assert (cell["n"], cell["ratio"]) == (5, pytest.approx(2))
    assert (cell["a_data_pps"], cell["b_data_pps"]) == (1e5, 2e5)


def test_medians_are_of_the_paired_rounds_and_trials_without_a_partner_are_noted(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1e5}, rounds=7, noise=0)
    b = made(tmp_path / "b", {"epoll": 1.2e5}, rounds=40, noise=0)
    edited(b, {number: {"data_pps": 9e4} for number in range(8, 41)})
    found = comparison.compare(a, b)
    cell = found.to_frame().iloc[0]
    assert (cell["a_data_pps"], cell["b_data_pps"], cell["ratio"]) == (1e5, 1.2e5, pytest.approx(1.2))
    assert "epoll, read, 100 at once, 64 KiB: 33 of B's 40 valid trials have no partner in A" in found.notes
    assert not any("of A's" in note for note in found.notes)


def test_valid_trials_that_do_not_know_the_figure_are_not_counted_as_if_they_did(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, rounds=7, row={"data_pps": None})
    with pytest.raises(NotComparable, match=r"\(valid, with data_pps: 0 of 7 in A and 7 of 7 in B\)"):
        comparison.compare(a, made(tmp_path / "b", {"epoll": 1.0}, rounds=7))


def test_cpu_time_that_nobody_knows_has_no_ratio(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1e5}, row={"server_cpu_ns_per_block": None})
    b = made(tmp_path / "b", {"epoll": 1e5}, seed=2)
    found = comparison.compare(a, b)
    assert found.to_frame()[["cpu_ratio", "cpu_low", "cpu_high"]].isna().all(axis=None)
    assert json.loads(json.dumps(comparison.document(found), allow_nan=False))["cells"][0]["cpu_ratio"] is None


def test_cells_and_servers_of_one_run_are_left_out_by_name(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0, "tftpy": 1.0}, [{}, {"concurrency": 1000}, {"blksize": 1468}])
    b = made(tmp_path / "b", {"threads": 1.0, "epoll": 1.0}, [{}, {"concurrency": 300}])
    found = comparison.compare(a, b)
    assert list(found.to_frame()["contender"]) == ["epoll"]
    assert found.left_out == (
        "tftpy: only in A",
        "read, 1000 at once, 64 KiB: only in A; the nearest of B differs in concurrency (1000 in A, 300 in B)",
        "read, 100 at once, 64 KiB, blksize 1468: only in A; the nearest of B differs in blksize (1468 in A, 512 in B)",
        "threads: only in B",
        "read, 300 at once, 64 KiB: only in B; the nearest of A differs in concurrency (100 in A, 300 in B)",
    )


def test_cells_with_the_same_to_tell_share_a_line(tmp_path: Path) -> None:
    cells = [{"concurrency": number} for number in (1, 2, 3, 4, 5)]
    a = made(tmp_path / "a", {"epoll": 1.0}, [*cells, *({**cell, "operation": "write"} for cell in cells)])
    b = made(tmp_path / "b", {"epoll": 1.0}, cells)
    assert comparison.compare(a, b).left_out == (
        (
            "write, 1 at once, 64 KiB; and 4 others: only in A; "
            "the nearest of B differs in operation (write in A, read in B)"
        ),
    )


def test_a_cell_without_a_trial_or_a_pair_of_one_server_is_told(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0, "threads": 1.0}, TWO)
    b = made(tmp_path / "b", {"epoll": 1.0, "threads": 1.0}, TWO)
    edited(a, {number: {"verdict": "invalid", "verdict_reason": "x"} for number in range(2, 33, 4)})
    lines = [json.loads(line) for line in (b / "trials.jsonl").read_text().splitlines()]
    kept = [each for each in lines if (each["server"], each["concurrency"]) != ("threads", 1000)]
    (b / "trials.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in kept))
    assert comparison.compare(a, b).left_out == (
        "threads, read, 1000 at once, 64 KiB: no trial in B",
        (
            "threads, read, 10 at once, 64 KiB: no round has a valid trial with data_pps in both "
            "(valid, with data_pps: 0 of 8 in A and 8 of 8 in B)"
        ),
    )


def test_runs_over_different_networks_are_never_mixed(tmp_path: Path) -> None:
    def over(network: str, sockets: str) -> dict[str, Any]:
        return {"name": "made", "placement": {"network": network}, "client": {"sockets": sockets}}

    old = made(tmp_path / "old", {"epoll": 1.0})
    loopback = made(tmp_path / "loopback", {"epoll": 1.0}, scenario=over("loopback", "auto"))
    rings = made(tmp_path / "rings", {"epoll": 1.0}, scenario=over("namespace", "ring"))
    sockets = made(tmp_path / "sockets", {"epoll": 1.0}, scenario=over("namespace", "shared"))
    comparison.compare(old, loopback)
    with pytest.raises(
        NotComparable, match=r"old was measured over loopback, and .*rings in network namespaces with r"
    ):
        comparison.compare(old, rings)
    with pytest.raises(NotComparable, match=r"with sockets, and .*rings in network namespaces with rings, so their"):
        comparison.compare(sockets, rings)


@pytest.mark.parametrize(("hosts", "count"), [(3, 3), (["a", "b"], 2)])
def test_runs_from_other_numbers_of_load_hosts_are_not_comparable(tmp_path: Path, hosts: object, count: int) -> None:
    def of(name: str, **generators: object) -> Path:
        asked = {"name": "made", "client": {}, **({"generators": generators} if generators else {})}
        return made(tmp_path / name, {"epoll": 1.0}, scenario=asked)

    here, one, several = of("here"), of("one", hosts=1), of("several", hosts=hosts)
    comparison.compare(here, one)
    comparison.compare(several, several)
    with pytest.raises(NotComparable, match=rf"here was .* loopback, and .*several from {count} load hosts, so their"):
        comparison.compare(here, several)


def test_runs_from_unlike_load_hosts_are_told(tmp_path: Path) -> None:
    def of(name: str, *cpus: int) -> Path:
        folder = made(tmp_path / name, {"epoll": 1.0})
        manifest = json.loads((folder / "manifest.json").read_text())
        machines = {f"b{number}": {"cpus": count} for number, count in enumerate(cpus)}
        manifest["placement"] = {**manifest.get("placement", {}), "load_hosts": list(machines)}
        manifest |= {"load_hosts": machines}
        manifest["keys"] = {**manifest.get("keys", {}), "load_hosts_key": host_keys(machines.values())}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    assert comparison.compare(of("a", 4, 8), of("alike", 8, 4)).warnings == ()
    (said,) = comparison.compare(tmp_path / "a", of("b", 4, 4)).warnings
    assert said == "the load hosts are not alike (load_hosts_key differs): cpus (4 and 8 in A, 4 in B)"


def test_a_cell_of_a_comparison_says_from_how_many_load_hosts_it_was_measured(tmp_path: Path) -> None:
    old, new = made(tmp_path / "old", {"epoll": 1.0}), made(tmp_path / "new", {"epoll": 1.0}, row={"load_hosts": 1})
    assert not comparison.compare(old, new).left_out
    several = made(tmp_path / "several", {"epoll": 1.0}, row={"load_hosts": 3})
    assert comparison.compare(several, several).rows[0].label.endswith(", from 3 load hosts")


def test_scenarios_of_other_names_are_compared_where_the_work_is_equal(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, scenario={"name": "first"})
    found = comparison.compare(a, made(tmp_path / "b", {"epoll": 1.0}, scenario={"name": "second"}))
    assert verdicts(found) == ["same"]
    assert (found.a.scenario, found.b.scenario) == ("first", "second")
    assert "A is a run of first, B of second: only equal work is compared" in found.notes


@pytest.mark.parametrize(
    ("manifest", "warned"),
    [
        (
            {"keys": {"method_key": "m", "host_key": "other"}, "machine": {**FACTS, "cpus": 4, "hostname": "x"}},
            "the machines are not alike (host_key differs): cpus (2 in A, 4 in B)",
        ),
        (
            {"keys": {"method_key": "m", "host_key": "other"}},
            "the machines are not alike (host_key differs): their manifests do not say how",
        ),
        (
            {
                "keys": {"method_key": "other", "host_key": "h"},
                "scenario": {"name": "made", "duration": "3s", "trials": 8},
            },
            "the runs were not measured the same way (method_key differs): duration (1s in A, 3s in B)",
        ),
        (
            {"keys": {"method_key": "other", "host_key": "h"}, "build": {"tftpbench": "0.2.0"}},
            "in the order of trials or the estimator, as versions of tftpbench do (0.1.0 in A, 0.2.0 in B)",
        ),
    ],
)
def test_another_machine_or_method_is_warned_of_with_both_values(
    tmp_path: Path, manifest: dict[str, Any], warned: str
) -> None:
    found = comparison.compare(made(tmp_path / "a", {"epoll": 1.0}), made(tmp_path / "b", {"epoll": 1.0}, **manifest))
    assert len(found.warnings) == 1
    assert warned in found.warnings[0]


def test_manifests_that_say_nothing_are_warned_of(tmp_path: Path) -> None:
    nothing: dict[str, Any] = {"keys": None, "machine": 7, "scenario": None, "servers": {}, "build": []}
    a, b = made(tmp_path / "a", {"s": 1.0}, **nothing), made(tmp_path / "b", {"s": 1.0}, seed=2, **nothing)
    found = comparison.compare(a, b)
    assert verdicts(found) == ["same"]
    assert found.warnings == (
        "whether the machines are alike is not known: A and B have no host_key",
        "whether the runs were measured the same way is not known: A and B have no method_key",
    )


def test_a_key_that_one_run_lacks_is_said_to_lack_with_what_differs_anyway(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, keys={"method_key": None}, machine={**FACTS, "cpus": 4})
    assert comparison.compare(a, made(tmp_path / "b", {"epoll": 1.0})).warnings == (
        "whether the machines are alike is not known: A has no host_key; cpus (4 in A, 2 in B)",
        "whether the runs were measured the same way is not known: A has no method_key",
    )


@pytest.mark.parametrize(
    ("commit", "expected_end"),
    [
        ("b" * 40, "as commits of tftpbench do (aaaaaaaaa in A, bbbbbbbbb in B)"),
        (None, "as commits of tftpbench do (aaaaaaaaa in A, none in B)"),
        ("a" * 40, "(method_key differs): their manifests do not say how"),
    ],
)
def test_methods_of_one_version_of_tftpbench_are_told_apart_by_commit(
    tmp_path: Path, commit: str | None, expected_end: str
) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, build={"tftpbench": "0.1.0", "git_commit": "a" * 40})
    build = {"tftpbench": "0.1.0", "git_commit": commit}
    b = made(tmp_path / "b", {"epoll": 1.0}, build=build, keys={"method_key": "other", "host_key": "h"})
    (warning,) = comparison.compare(a, b).warnings
    assert warning.endswith(expected_end)
    assert "0.1.0" not in warning


def test_a_server_of_another_version_is_noted(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"tftpy": 1.0}, servers={"tftpy": {"version": "0.8.2"}})
    b = made(tmp_path / "b", {"tftpy": 1.0}, servers={"tftpy": {"version": "0.9"}}, build={"tftpbench": "0.1.1"})
    notes = comparison.compare(a, b).notes
    assert "tftpy: version (0.8.2 in A, 0.9 in B)" in notes
    assert "tftpbench itself: tftpbench (0.1.0 in A, 0.1.1 in B)" in notes


def test_a_run_that_was_cut_off_is_compared_as_far_as_it_came_and_said_to_be(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, rounds=7, trials_planned=20)
    with (a / "trials.jsonl").open("a") as file:
        file.write('{"trial": 8, "cell_key')
    with pytest.warns(tftpbench.ResultsWarning, match="torn"):
        found = comparison.compare(a, made(tmp_path / "b", {"epoll": 1.0}))
    assert found.to_frame()["n"][0] == 7
    assert any(note.startswith("A: 7 of 20 planned trials") for note in found.notes)


def test_nothing_in_common_is_not_comparable_and_says_why(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0})
    other_work = made(tmp_path / "work", {"epoll": 1.0}, [{"file_size_bytes": 1 << 20}])
    other_server = made(tmp_path / "server", {"threads": 1.0})
    all_invalid = made(tmp_path / "invalid", {"epoll": 1.0}, row={"verdict": "invalid", "verdict_reason": "x"})
    empty = made(tmp_path / "empty", {"epoll": 1.0}, rounds=0)
    (tmp_path / "bare").mkdir()
    shutil.copy(empty / "manifest.json", tmp_path / "bare")
    for other, why in (
        (other_work, "only in A; the nearest of B differs in file_size_bytes (64 KiB in A, 1 MiB in B)"),
        (other_server, "can't be compared:\nepoll: only in A\nthreads: only in B"),
        (
            all_invalid,
            "no round has a valid trial with data_pps in both (valid, with data_pps: 8 of 8 in A and 0 of 8 in B)",
        ),
        (empty, f"{empty} has no finished trial"),
        (tmp_path / "bare", f"{tmp_path / 'bare'} has no finished trial"),
    ):
        with pytest.raises(NotComparable) as raised:
            comparison.compare(a, other)
        assert why in str(raised.value)
        with pytest.raises(NotComparable):
            comparison.compare(other, a)


def test_client_settings_that_only_the_manifest_holds_are_named(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, row={"cell_key": "1"})
    slow = {"name": "made", "client": {"timeout": "5s", "tsize": True}, "duration": "1s", "trials": 8}
    b = made(tmp_path / "b", {"epoll": 1.0}, row={"cell_key": "2"}, scenario=slow)
    with pytest.raises(
        NotComparable, match=r"client.timeout \(1s in A, 5s in B\), client.tsize \(none in A, True in B\)"
    ):
        comparison.compare(a, b)
    with pytest.raises(NotComparable, match=r"client.timeout \(5s in A, 1s in B\)"):
        comparison.compare(b, a)


def test_a_row_that_does_not_say_what_its_work_was_goes_by_its_key(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, row={"file_size_bytes": None, "cell_key": "abc"})
    found = comparison.compare(a, a)
    assert list(found.to_frame()["label"]) == ["cell abc"]
    assert "epoll, cell abc" in found.sentence


def test_keys_of_two_versions_are_told_apart_from_other_work(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, row={"cell_key": "1"})
    with pytest.raises(NotComparable, match="a cell of B looks the same but has another cell_key"):
        comparison.compare(a, made(tmp_path / "b", {"epoll": 1.0}, row={"cell_key": "2"}))


def test_what_is_no_run_is_a_results_error(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0})
    for other in (tmp_path, tmp_path / "nowhere", a / "manifest.json"):
        with pytest.raises(ResultsError):
            comparison.compare(a, other)


def test_a_run_that_may_not_be_read_is_a_results_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0})

    def denied(path: Path, _: int) -> bytes:  # root, who often runs this, may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("tftpbench.store.format.read_regular", denied)
    with pytest.raises(ResultsError, match="can't be read: Permission denied"):
        comparison.compare(a, a)


@pytest.mark.parametrize("within", [-0.01, 1, 1.5, float("nan"), float("inf"), "5%", None, True, [0.05], "5\n" * 99])
def test_what_counts_as_the_same_is_a_share(tmp_path: Path, within: Any) -> None:
    with pytest.raises(ValueError, match="allowed: a number from 0 to under 1") as raised:
        comparison.compare(tmp_path, tmp_path, within=within)
    assert isinstance(raised.value, UsageError)  # so that the command line ends with 2
    assert "\n" not in str(raised.value)


def test_ratios_are_what_a_forest_plot_takes(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, TWO)
    ratios = comparison.compare(a, made(tmp_path / "b", {"epoll": 2.0}, TWO)).ratios
    assert set(ratios.columns) == {"label", "ratio", "low", "high", "n", "verdict", "lowest", "highest"}
    assert list(ratios["label"]) == ["epoll, read, 10 at once, 64 KiB", "epoll, read, 1000 at once, 64 KiB"]


def test_the_document_is_plain_json_with_the_columns_as_keys(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 1.0}, rounds=3)
    found = comparison.compare(a, made(tmp_path / "b", {"epoll": 1.0}, rounds=3, seed=2))
    document = json.loads(json.dumps(comparison.document(found), allow_nan=False))
    assert document["schema"] == "tftpbench.comparison/1"
    assert document["a"] == {"path": str(a), "scenario": "made", "method_key": "m", "host_key": "h"}
    assert list(document["cells"][0]) == list(found.to_frame().columns)
    assert document["cells"][0]["low"] is None
    assert document["verdicts"] == {"faster": 0, "slower": 0, "same": 0, "can't tell": 1}
    assert document["sentence"] == found.sentence


def test_what_a_run_may_hold_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|*"
    a = made(tmp_path / "a", {evil: 1.0}, scenario={"name": evil})
    found = comparison.compare(a, made(tmp_path / "b", {evil: 1.0}, seed=2))
    html, comment = found._repr_html_(), markdown.written(sections(found))
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "<script" not in comment
    assert "&lt;script&gt;" in comment
    rows = [line for line in comment.splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1
    assert found.sentence in repr(found)


def test_names_neither_move_the_terminal_nor_turn_the_text_nor_call_anybody(tmp_path: Path) -> None:
    evil = "x\x1b[31m\u202e @octocat [a](b)"
    a = made(tmp_path / "a", {evil: 1.0, "epoll@tuned": 1.0}, scenario={"name": evil})
    found = comparison.compare(a, made(tmp_path / "b", {evil: 1.0, "epoll@tuned": 1.0}, seed=2))
    for written in (plain(sections(found)), markdown.written(sections(found)), found._repr_html_()):
        assert not {"\x1b", "\u202e"} & set(written)
        assert re.search(r"x\\+u001b", written)
        assert "epoll@tuned" in written
    assert "@octocat" not in markdown.written(sections(found))
    assert "@\u200boctocat \\[a\\](b)" in markdown.written(sections(found))


def test_the_text_has_sentence_warnings_table_and_what_was_left_out(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"epoll": 100_000, "threads": 50_000, "gone": 1.0}, noise=0)
    b = made(tmp_path / "b", {"epoll": 150_000, "threads": 50_000}, noise=0, keys={"method_key": "m", "host_key": "x"})
    text = plain(sections(comparison.compare(a, b)))
    assert text.splitlines()[0].startswith("B against A in 2 comparisons: faster in 1, the same within 5 % in 1.")
    assert [block.splitlines()[0] for block in text.split("\n\n")[1:]] == [
        "Warnings:",
        "  server   A data/s  B data/s              B over A  CPU/block  verdict",
        "Left out:",
        "Notes:",
        f"A: {a}",
    ]
    table = text.split("\n\n")[2].splitlines()
    assert table[1:] == [
        "read, 100 at once, 64 KiB",
        "  epoll       100 k     150 k  1.50x (1.50 to 1.50)      0.67x  faster",
        "  threads      50 k      50 k  1.00x (1.00 to 1.00)      1.00x  same",
    ]


def test_nobody_is_called_faster_by_noise_more_often_than_promised() -> None:
    """Families of eight cells of equal servers: in one of twenty may any cell have a verdict, within chance."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(100):
        a, b = (
            {
                (str(cell), "epoll"): [
                    {"round": number, "verdict": "valid", "data_pps": float(rate)}
                    for number, rate in enumerate(np.exp(rng.normal(0, 0.1, 7)), start=1)
                ]
                for cell in range(8)
            }
            for _ in "AB"
        )
        wrong += any(each.verdict in {"faster", "slower"} for each in judged(a, b, 0.05))
    assert wrong <= 11  # more happen once in 200 times; uncorrected it would be about 50


def test_the_verdicts_and_servers_are_categories_in_order(tmp_path: Path) -> None:
    a = made(tmp_path / "a", {"zeta": 1.0, "alpha": 1.0})
    cells = comparison.compare(a, a).to_frame()
    assert list(cells["contender"].cat.categories) == ["zeta", "alpha"]
    assert list(cells["verdict"].cat.categories) == ["faster", "slower", "same", "can't tell"]
    assert isinstance(cells["ratio"].dtype, type(pd.Series([0.5]).dtype))


def test_conditions_that_differ_are_named_and_those_that_pass_only_by_their_effect(tmp_path: Path) -> None:
    def run(name: str, governor: str, steal: str, effect: str) -> Path:
        conditions = [
            {"id": "cpu.governor", "found": governor, "effect": "ok" if governor == "performance" else "costs"},
            {"id": "cpu.steal", "found": steal, "effect": effect},
            {"id": "cpu.clock", "found": "hidden", "effect": "not known" if name == "a" else "ok"},
        ]
        return made(tmp_path / name, {"one": 100.0}, conditions=conditions)

    a = run("a", "performance", "0 %", "ok")
    found = comparison.compare(a, run("b", "powersave", "0.1 %", "ok")).warnings
    assert found == ("cpu.governor differs: ok, performance in A; costs, powersave in B",)
    found = comparison.compare(a, run("c", "performance", "9 %", "spoils")).warnings
    assert found == ("cpu.steal differs: ok, 0 % in A; spoils, 9 % in B",)
    assert comparison.compare(a, made(tmp_path / "old", {"one": 100.0})).warnings == ()
