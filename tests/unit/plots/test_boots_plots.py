"""What the plots of machines draw: when so many were up, response beside service time, and what never ended."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from tests.unit.plots import plot_frames as frames
from tftpbench import plots
from tftpbench.model.errors import PlotError


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_a_machine_counts_from_when_the_first_was_to_start_at_the_median_of_trials() -> None:
    data = plots.machines_up(frames.boots(machines=200)).data
    epoll = data[data["contender"] == "epoll"]
    # machine k of trial t is up after k + t ms, t from 0 to 2
    assert epoll["machines"].tolist() == list(range(1, 201))
    assert np.allclose(epoll["s"], (epoll["machines"] + 1) / 1000)
    assert set(epoll["trials"]) == {3}


def test_a_curve_ends_at_its_last_machine_and_none_that_gave_up_is_in_it() -> None:
    plot = plots.machines_up(frames.boots(machines=200, lost=20))
    threads = plot.data[plot.data["contender"] == "threads"]
    assert threads["machines"].max() == 180
    assert set(threads["asked"]) == {200}
    assert plot.alt.endswith("epoll 200 of 200 after 201 ms, threads 180 of 200 after 361 ms.")


def test_a_trial_in_which_fewer_came_up_pulls_the_median_to_never_and_not_to_its_own_end() -> None:
    boots = frames.boots(["epoll"], machines=100)
    boots["outcome"] = boots["outcome"].astype("string")
    boots.loc[(boots["trial"] > 1) & (boots["machine"] >= 40), "outcome"] = "late"
    assert plots.machines_up(boots).data["machines"].max() == 40


def test_the_wire_is_a_dashed_line_to_where_all_its_bytes_are_through() -> None:
    plot = plots.machines_up(frames.boots(machines=200), wire_bytes=1_000_000)
    wire = plot.data[plot.data["contender"].isna()]
    assert wire.iloc[-1][["machines", "s"]].tolist() == [200, 1.6]  # 200 * 8 Mb at 1 Gb/s
    axes = plot.figure.axes[0]
    assert "wire, 1 Gb/s" in texts(axes)
    upright = [line for line in axes.lines if np.array_equal(line.get_xdata(), [1.6, 1.6])]
    assert len(upright) == 1
    assert "wire, 1 Gb/s" not in texts(plots.machines_up(frames.boots()).figure.axes[0])


def test_machines_of_a_mix_stand_in_one_panel_and_storms_in_one_each() -> None:
    storm = frames.boots(machines=100).assign(machines_asked=100, over_ns=0)
    profile = pd.Categorical(np.where(storm["machine"] % 10 < 8, "uefi-grub", "pi4"))
    mixed = storm.assign(boot=profile, mix="8 uefi-grub : 2 pi4")
    [axes] = plots.machines_up(mixed).figure.axes
    assert axes.get_title(loc="left") == "100 machines of 8 uefi-grub : 2 pi4 at once"
    larger = frames.boots(machines=200).assign(machines_asked=200, over_ns=0, boot="uefi-grub", trial=7)
    both = pd.concat([storm.assign(boot="uefi-grub"), larger]).astype({"contender": storm["contender"].dtype})
    titles = [axes.get_title(loc="left") for axes in plots.machines_up(both).figure.axes]
    assert titles == ["100 machines of uefi-grub at once", "200 machines of uefi-grub at once"]


@pytest.mark.parametrize(("wire_bytes", "scale"), [(1_000_000, "linear"), (100_000_000, "log")])
def test_times_that_lie_far_apart_stand_on_a_logarithmic_axis(wire_bytes: int, scale: str) -> None:
    assert plots.machines_up(frames.boots(), wire_bytes).figure.axes[0].get_xscale() == scale


def test_percentiles_are_of_the_whole_cohort_and_a_curve_goes_on_at_never() -> None:
    plot = plots.response_times(frames.cohort(lost=30), "boot")
    threads = plot.data[(plot.data["contender"] == "threads") & (plot.data["kind"] == "response")]
    ended = threads[np.isfinite(threads["value_ns"])]
    assert ended.iloc[-1][["percentile", "value_ns"]].tolist() == pytest.approx([96.95, 970 * 2e6])
    assert threads[np.isinf(threads["value_ns"])]["percentile"].tolist() == pytest.approx([97.05, 99.95])
    labels = [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert labels[-1] == "never"
    assert "never at" in plot.alt


def test_where_all_ended_there_is_no_never() -> None:
    plot = plots.response_times(frames.cohort(), "boot")
    assert np.isfinite(plot.data["value_ns"]).all()
    assert "never" not in [label.get_text() for label in plot.figure.axes[0].get_yticklabels()]
    assert {"epoll", "epoll, service"} <= set(texts(plot.figure.axes[0]))


def test_what_never_ended_at_all_is_nothing_to_draw() -> None:
    with pytest.raises(PlotError, match="no boot came to its end"):
        plots.response_times(frames.cohort().assign(value_ns=np.inf, count=5), "boot")


def test_offered_is_what_started_and_what_was_shed_and_in_flight_stands_on_its_own_scale() -> None:
    plot = plots.arrivals(frames.intervals())
    threads = plot.data[plot.data["contender"] == "threads"]
    assert set(threads[threads["kind"] == "offered"]["value"]) == {200}
    assert set(threads[threads["kind"] == "achieved"]["value"]) == {150}
    assert threads[threads["kind"] == "in_flight"]["value"].max() == 179
    rates, in_flight = plot.figure.axes
    assert rates.get_ylim()[1] > 200 > in_flight.get_ylim()[1]
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == ["starts a second", "in flight at once"]


def test_machines_in_flight_are_those_that_started_and_have_not_ended() -> None:
    boots = frames.boots(["epoll"], machines=200, trials=1)
    shed = boots["machine"] >= 150
    boots = boots.assign(actual_start_ns=boots["actual_start_ns"].mask(shed), end_ns=boots["end_ns"].mask(shed))
    plot = plots.arrivals(boots.assign(intended_start_ns=boots["intended_start_ns"] + boots["machine"] * 1_000_000))
    found = {kind: rows["value"] for kind, rows in plot.data.groupby("kind")}
    width_s = plot.data["s"].min()
    assert found["offered"].sum() * width_s == pytest.approx(200)
    assert found["achieved"].sum() * width_s == pytest.approx(150)
    assert found["in_flight"].iloc[-1] == 0
    assert 0 < found["in_flight"].max() <= 150
    assert "machines in flight" in plot.title


@pytest.mark.parametrize("lost", [0, 1, 20, 199])
@pytest.mark.parametrize("wire_bytes", [None, 1, 1_000_000, 100_000_000])
def test_no_label_lies_on_a_curve(lost: int, wire_bytes: int | None) -> None:
    assert frames.overlaps(plots.machines_up(frames.boots(lost=lost), wire_bytes).figure) == []
    assert frames.overlaps(plots.response_times(frames.cohort(lost=lost)).figure) == []
    assert frames.overlaps(plots.arrivals(frames.boots(lost=lost)).figure) == []
