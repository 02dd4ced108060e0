"""What the plots draw: axes, marks, and the data that stands behind them; of little, nothing or nonsense, too.

And plots as files and in pages: PNG, SVG, CSV.
"""

import functools
import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import FillBetweenPolyCollection, QuadMesh
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D
from matplotlib.text import Text

import tftpbench
from tests.unit.plots import plot_frames as frames
from tftpbench import plots
from tftpbench.analysis import stats
from tftpbench.model.errors import PlotError
from tftpbench.model.metrics import METRICS
from tftpbench.plots import style


def texts(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def line_through(axes: Axes, x: list[float], y: list[float]) -> Line2D:
    """The one line with this data; the test fails where there is none."""
    wanted = np.column_stack([x, y])
    points = [(line, np.asarray(line.get_xydata())) for line in axes.lines]
    found = [line for line, there in points if there.shape == wanted.shape and np.allclose(there, wanted)]
    assert len(found) == 1
    return found[0]


def test_throughput_goes_through_medians_of_valid_trials() -> None:
    trials = frames.trials()
    trials.loc[(trials["contender"] == "threads") & (trials["round"] == 7), "verdict"] = "invalid"
    axes = plots.throughput(trials).figure.axes[0]
    # rounds 1 to 7 have the median 4, rounds 1 to 6 have 3.5
    line_through(axes, [3, 10, 100], [100_007, 100_014, 100_104])
    line_through(axes, [3, 10, 100], [(100_003.5 + c) / 2 for c in (3, 10, 100)])


def test_throughput_has_a_tick_for_each_concurrency_on_a_log2_axis_and_begins_at_zero() -> None:
    plot = plots.throughput(frames.trials())
    axes = plot.figure.axes[0]
    plot.figure.draw_without_rendering()
    assert axes.get_xscale() == "log"
    assert axes.xaxis.get_transform().base == 2  # type: ignore[attr-defined]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["3", "10", "100"]
    assert axes.get_xlabel() == "transfers in flight at once (concurrency)"
    assert axes.get_ylabel() == METRICS["data_pps"].words
    assert axes.get_ylim()[0] == 0
    assert "40 k" in [label.get_text() for label in axes.get_yticklabels()]


def test_bands_are_the_bootstrap_interval_of_the_median_and_the_data_holds_them() -> None:
    plot = plots.throughput(frames.trials())
    medians = plot.data[plot.data["mark"] == "median"]
    expected = stats.median_interval([100_003.0 + number for number in range(1, 8)])
    row = medians.iloc[0]
    assert (row["low"], row["high"]) == expected
    assert set(medians["bounds"]) == {"95 % interval"}
    bands = [each for each in plot.figure.axes[0].collections if isinstance(each, FillBetweenPolyCollection)]
    heights = bands[0].get_paths()[0].get_extents()
    assert heights.y0 == row["low"]
    assert "95 % bootstrap interval" in subtitle(plot)


def test_under_six_trials_there_are_bars_of_the_range_and_no_band() -> None:
    plot = plots.throughput(frames.trials(rounds=5))
    medians = plot.data[plot.data["mark"] == "median"]
    assert set(medians["bounds"]) == {"range"}
    assert medians["low"].iloc[0] == 100_004
    assert medians["high"].iloc[0] == 100_008
    assert "range of fewer than 6" in subtitle(plot)
    assert "interval" not in subtitle(plot)


def test_invalid_trials_are_hollow_crosses_that_no_line_goes_through() -> None:
    trials = frames.trials()
    trials.loc[0, "verdict"] = "invalid"
    trials.loc[0, "data_pps"] = 1.0
    plot = plots.throughput(trials)
    cross = line_through(plot.figure.axes[0], [3], [1])
    assert cross.get_marker() == "X"
    assert cross.get_markerfacecolor() == "none"
    assert plot.data.loc[plot.data["mark"] == "median", "low"].min() > 1
    assert "1 invalid trial" in subtitle(plot)


def test_the_ceiling_is_dashed_where_it_is_known() -> None:
    trials = frames.trials()
    trials.loc[trials["concurrency"] == 10, "ceiling_data_pps"] = 400_000.0
    plot = plots.throughput(trials)
    line = line_through(plot.figure.axes[0], [10], [400_000])
    assert line.get_linestyle() == "--"
    assert "ceiling" in texts(plot.figure.axes[0])
    assert "ceiling" not in texts(plots.throughput(frames.trials()).figure.axes[0])


def test_each_operation_and_option_has_a_panel_and_one_scale() -> None:
    both = frames.trials(operations=("read", "write"))
    large = frames.trials().assign(blksize=1468, operation="read")
    large["contender"] = large["contender"].astype(both["contender"].dtype)
    plot = plots.throughput(pd.concat([both.assign(operation=both["operation"].astype(str)), large]))
    titles = [axes.get_title(loc="left") for axes in plot.figure.axes]
    assert titles == ["read, 64 KiB", "read, 64 KiB, blksize 1468", "write, 64 KiB"]
    assert len({axes.get_ylim() for axes in plot.figure.axes}) == 1


def test_of_many_panels_the_first_eight_are_drawn_and_the_picture_says_so() -> None:
    many = pd.concat([frames.trials(concurrencies=(3,)).assign(blksize=512 * size) for size in range(1, 11)])
    plot = plots.throughput(many)
    assert len(plot.figure.axes) == 8
    assert "the first 8 of 10 cells" in subtitle(plot)


def test_a_contender_has_one_colour_and_marker_in_every_plot_even_where_another_is_missing() -> None:
    names = ("a", "b", "c")
    some = frames.trials(names).query("contender != 'a'")
    found = set()
    for plot in (plots.throughput(frames.trials(names)), plots.fairness(some), plots.cpu_per_block(some)):
        swatch = key_of(plot.figure.axes[0])["c"]
        found.add((to_hex(swatch.get_color()), swatch.get_marker()))
    assert len(found) == 1


def test_fifty_contenders_look_different_from_one_another() -> None:
    looks = plots.style.looks([str(number) for number in range(50)])
    assert len(set(looks.values())) == 50


def test_any_metric_stands_against_any_axis_that_has_numbers() -> None:
    sizes = [frames.trials(concurrencies=(3,), operations=("read", "write")).assign(file_size_bytes=size)
             for size in (1024, 65536)]  # fmt: skip
    plot = plots.against(pd.concat(sizes), "server_cpu_ns_per_block", "file_size_bytes")
    plot.figure.draw_without_rendering()
    axes = plot.figure.axes
    assert [each.get_title(loc="left") for each in axes] == ["read, 3 at once", "write, 3 at once"]
    assert [label.get_text() for label in axes[1].get_xticklabels()] == ["1 KiB", "64 KiB"]
    assert axes[1].get_xlabel() == "size of each file (file size)"
    line_through(axes[0], [1024, 65536], [4004, 4004])
    assert plots.against(frames.trials(), "fairness", is_log=True).figure.axes[0].get_yscale() == "log"
    with pytest.raises(PlotError, match="no metric is called 'data_pp'; did you mean 'data_pps'"):
        plots.against(frames.trials(), "data_pp")
    with pytest.raises(
        PlotError, match="axis is 'operation'; allowed: machines_asked, concurrency, rate_per_s, over_ns, file_size"
    ):
        plots.against(frames.trials(), axis="operation")


def test_cpu_per_block_is_written_as_durations() -> None:
    plot = plots.cpu_per_block(frames.trials())
    plot.figure.draw_without_rendering()
    axes = plot.figure.axes[0]
    assert axes.get_ylabel() == "CPU time per block"
    assert "2 us" in [label.get_text() for label in axes.get_yticklabels()]
    line_through(axes, [3, 10, 100], [4004, 4004, 4004])


def test_fairness_is_logarithmic_with_a_line_at_one() -> None:
    plot = plots.fairness(frames.trials())
    axes = plot.figure.axes[0]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 1
    assert any(np.array_equal(line.get_ydata(), [1, 1]) for line in axes.lines)
    assert set(plot.data["mark"]) == {"trial", "median"}


def test_scaling_is_relative_to_the_smallest_concurrency_of_the_same_contender() -> None:
    plot = plots.scaling(frames.trials())
    medians = plot.data[plot.data["mark"] == "median"].set_index(["contender", "concurrency"])["scaling"]
    assert medians[("threads", 3.0)] == 1
    assert medians[("threads", 100.0)] == pytest.approx(100_104 / 100_007)


def test_the_spectrum_is_drawn_on_nines_and_ends_where_ten_samples_remain() -> None:
    plot = plots.latency_spectrum(frames.latency(), "Block round trip")
    axes = plot.figure.axes[0]
    plot.figure.draw_without_rendering()
    epoll = plot.data[plot.data["contender"] == "epoll"]
    # 100,000 samples in buckets of 100: the last bucket has none beyond it, the one before has 100
    assert epoll["percentile"].max() == 99.9
    assert epoll["value_ns"].max() == 999_000
    assert axes.get_xscale() == axes.get_yscale() == "log"
    ticks = dict(zip(axes.get_xticks(), [label.get_text() for label in axes.get_xticklabels()], strict=True))
    assert ticks == {1: "0", 2: "50", 10: "90", 100: "99", 1000: "99.9"}
    assert axes.get_ylabel() == "block round trip"
    assert "100 us" in [label.get_text() for label in axes.get_yticklabels()]
    # bucket k ends at percentile (k + 1) / 10 and (k + 1) us
    assert epoll["value_ns"].to_numpy() == pytest.approx(epoll["percentile"].to_numpy() * 10_000)
    assert "100000 samples" in subtitle(plot)


def test_buckets_of_several_rows_are_added_before_percentiles_are_read() -> None:
    halves = pd.concat([frames.latency().assign(count=50)] * 2)
    pd.testing.assert_frame_equal(plots.latency_spectrum(halves).data, plots.latency_spectrum(frames.latency()).data)


def test_the_ecdf_is_the_share_of_completed_transfers_of_valid_trials() -> None:
    transfers = frames.transfers()
    transfers["outcome"] = transfers["outcome"].cat.add_categories(["failed"])
    transfers.loc[transfers["end_ns"] - transfers["actual_start_ns"] > 100_000_000, "outcome"] = "failed"
    plot = plots.transfer_times(transfers)
    epoll = plot.data[plot.data["contender"] == "epoll"]
    assert epoll["transfers"].iloc[0] == 100
    assert epoll.set_index("duration_ns")["share"][50_000_000.0] == 0.5
    assert epoll["share"].max() == 1
    assert plot.figure.axes[0].get_xscale() == "log"
    assert plot.figure.axes[0].get_xlabel() == "duration of a transfer"


def test_the_ccdf_is_logarithmic_and_ends_where_ten_transfers_remain() -> None:
    plot = plots.transfer_times(frames.transfers(), ccdf=True)
    epoll = plot.data[plot.data["contender"] == "epoll"]
    assert epoll["share"].min() == pytest.approx(10 / 200)
    assert epoll["duration_ns"].max() == 190_000_000
    assert plot.figure.axes[0].get_yscale() == "log"


def test_the_heat_map_counts_every_transfer_once_in_bins_that_all_panels_share() -> None:
    plot = plots.latency_heatmap(frames.transfers())
    assert plot.data.groupby("contender")["transfers"].sum().to_dict() == {"epoll": 200, "threads": 200}
    meshes = [each for axes in plot.figure.axes for each in axes.collections if isinstance(each, QuadMesh)]
    assert all(mesh.get_rasterized() for mesh in meshes[:2])
    epoll, threads = plot.figure.axes[:2]
    assert (epoll.get_xlim(), epoll.get_ylim()) == (threads.get_xlim(), threads.get_ylim())
    # Each trial counts from its own first start.
    assert plot.data["from_s"].min() < 0.01


def test_of_several_cells_the_heat_map_draws_the_one_with_most_transfers_at_once() -> None:
    plot = plots.latency_heatmap(pd.concat([frames.transfers(), frames.transfers(concurrency=100, each=50)]))
    assert plot.data["transfers"].sum() == 100
    assert "100 at once" in subtitle(plot)
    assert "2 cells" in subtitle(plot)


def test_pairs_are_ratios_of_a_round_with_the_estimate_of_stats_and_who_went_first() -> None:
    trials = frames.trials(concurrencies=(10,))
    plot = plots.pairs(trials)
    expected = stats.paired_ratio([1.0] * 7, [2.0] * 7)
    assert set(plot.data["ratio"]) == {0.5}
    assert plot.data["estimate"].iloc[0] == pytest.approx(expected.ratio)
    assert plot.data["place"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    order = trials.pivot_table(index="round", columns="contender", values="order", observed=True)
    assert plot.data["reference_first"].tolist() == (order["epoll"] < order["threads"]).tolist()
    assert plot.figure.axes[0].get_yscale() == "log"
    fills = {to_hex(line.get_markerfacecolor()) for line in plot.figure.axes[0].lines if line.get_marker() == "s"}
    assert "#ffffff" in fills
    assert plot.figure.axes[0].get_xlabel() == "pairs, in the order done"


def test_pairs_need_both_trials_of_a_round_to_be_valid() -> None:
    trials = frames.trials(concurrencies=(10,))
    trials.loc[(trials["round"] == 3) & (trials["contender"] == "epoll"), "verdict"] = "invalid"
    assert sorted(plots.pairs(trials).data["round"]) == [1, 2, 4, 5, 6, 7]
    assert set(plots.pairs(trials, reference="threads").data["ratio"].round(6)) == {2.0}
    with pytest.raises(PlotError, match="no contender is called 'absent'; there are: epoll, threads"):
        plots.pairs(trials, reference="absent")


def test_of_one_pair_the_axis_has_one_whole_number() -> None:
    trials = frames.trials(concurrencies=(10,))
    figure = plots.pairs(trials[trials["round"] == 1]).figure
    axis = figure.axes[0].xaxis
    low, high = figure.axes[0].get_xlim()
    assert [tick for tick in axis.get_majorticklocs() if low <= tick <= high] == [1]


def test_what_leads_to_a_name_is_grey_and_dotted_and_no_line_of_its_own_that_goes_on_level() -> None:
    trials = frames.trials(concurrencies=(10, 100, 1000))
    trials.loc[trials["concurrency"] > 10, "verdict"] = "invalid"
    axes = plots.throughput(trials).figure.axes[0]
    beside = [line for line in axes.lines if line.get_transform() == axes.transAxes]
    leaders = [line for line in beside if float(np.asarray(line.get_xdata())[0]) < 1]
    assert leaders
    assert {(to_hex(line.get_color()), line.get_linestyle()) for line in leaders} == {(to_hex(style.GREY), ":")}


def test_the_forest_is_logarithmic_with_the_budget_shaded_and_ranges_hollow() -> None:
    plot = plots.forest(frames.ratios(), budget=0.05, axis="data_pps / that of epoll")
    axes = plot.figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "data_pps / that of epoll"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["read, 10 at once", "read, 100 at once"]
    assert axes.patches[0].get_extents().transformed(axes.transData.inverted()).intervalx == pytest.approx(
        [1 / 1.05, 1.05]
    )
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert [to_hex(line.get_markerfacecolor()) for line in marks] == ["#d55e00", "#ffffff"]
    assert texts(axes) == ["0.500 (0.450 to 0.550)  n=7", "0.800  n=5"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert "within 5 % of 1" in subtitle(plot)


@pytest.mark.parametrize("budget", [-1, 0, 1, float("nan")])
def test_a_budget_is_a_share(budget: float) -> None:
    with pytest.raises(PlotError, match="allowed: over 0 and under 1"):
        plots.forest(frames.ratios(), budget=budget)


def test_losses_are_per_thousand_started_and_what_is_not_known_is_not_zero() -> None:
    plot = plots.loss(frames.trials())
    data = plot.data.groupby(["kind", "contender"])["per_1000"].sum()
    assert data[("retransmissions", "threads")] == pytest.approx(10)
    assert data[("udp_drops_server", "threads")] == pytest.approx(5)
    resent, _, ours, unanswered = plot.figure.axes
    assert texts(resent) == ["0", "10"]
    assert texts(ours) == ["0", "0"]
    assert texts(unanswered) == ["not known"], "of no server, so it is said once"
    some = frames.trials()
    some["unanswered"] = some["unanswered"].mask(some["contender"] == "epoll", 1)
    assert texts(plots.loss(some).figure.axes[3]) == ["1", "not known"]
    assert plot.title == "Sent again, dropped, unanswered, per 1000 transfers"
    asked = "per 1000 of all transfers that the server was asked for; the shades say at which concurrency; sums over "
    assert subtitle(plot).startswith(asked)
    assert plot.alt.endswith("threads 10 (retransmissions), threads 5 (udp_drops_server).")


def test_a_loss_counts_in_invalid_trials_too() -> None:
    trials = frames.trials(concurrencies=(3,), rounds=1).assign(verdict="invalid")
    assert plots.loss(trials).data["count"].sum() == 15


def test_names_at_the_right_keep_their_order_and_their_distance() -> None:
    places = plots.style.spread([0.5, 0.9, 0.5, 0.51], 0.1)
    assert places[0] < places[2] < places[3] < places[1]
    assert np.diff(sorted(places)).min() == pytest.approx(0.1)
    assert plots.style.spread([0.0, 0.0, 2.0], 0.1) == pytest.approx([0, 0.1, 1])


def subtitle(plot: plots.Plot) -> str:
    return plot.figure.texts[1].get_text().replace("\n", " ")


def key_of(axes: Axes) -> dict[str, Line2D]:
    """Each name at the right with its swatch."""
    swatches = [line for line in axes.lines if line.get_markevery() == [1]]
    return dict(zip(texts(axes)[-len(swatches) :], swatches, strict=True))


@pytest.mark.parametrize("is_log", [False, True])
def test_what_is_never_stands_above_all_figures_and_is_named(is_log: bool) -> None:
    rates, p99 = [50.0, 200.0, 500.0], [1e6, 3e6, np.inf]
    rows = pd.DataFrame(
        {"contender": "epoll", "rate_per_s": rates, "concurrency": 500, "response_ns_p99": p99, "verdict": "valid"}
    )
    plot = plots.against(rows, "response_ns_p99", "rate_per_s", is_log=is_log)
    medians = plot.data[plot.data["mark"] == "median"].set_index("rate_per_s")["response_ns_p99"]
    assert medians.to_dict() == dict(zip(rates, p99, strict=True))
    assert plot.alt.endswith("medians at 500: epoll never.")
    [axes] = plot.figure.axes[:1]
    plot.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "never"
    assert frames.overlaps(plot.figure) == []
    highest = max(float(y) for line in axes.lines for y in np.asarray(line.get_ydata()))
    assert 3e6 < highest <= axes.get_ylim()[1], "the mark is inside the picture"
    half = plots.against(pd.concat([rows, rows.assign(response_ns_p99=5e6)]), "response_ns_p99", "rate_per_s")
    ends = half.data[(half.data["mark"] == "median") & (half.data["rate_per_s"] == 500)]
    assert ends["response_ns_p99"].tolist() == [np.inf], "between a figure and never"


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


Draw = Callable[[pd.DataFrame], plots.Plot]
# Each plot, a frame for it, and the columns whose figures it draws.
PLOTS: dict[str, tuple[Draw, Callable[..., pd.DataFrame], tuple[str, ...]]] = {
    "throughput": (plots.throughput, frames.trials, ("data_pps",)),
    "cpu_per_block": (plots.cpu_per_block, frames.trials, ("server_cpu_ns_per_block",)),
    "fairness": (plots.fairness, frames.trials, ("fairness",)),
    "scaling": (plots.scaling, frames.trials, ("data_pps",)),
    "pairs": (plots.pairs, frames.trials, ("data_pps",)),
    "loss": (plots.loss, frames.trials, ("started",)),
    "spectrum": (plots.latency_spectrum, frames.latency, ("value_ns", "count")),
    "times": (plots.transfer_times, frames.transfers, ("end_ns",)),
    "ccdf": (lambda frame: plots.transfer_times(frame, ccdf=True), frames.transfers, ("end_ns",)),
    "heatmap": (plots.latency_heatmap, frames.transfers, ("end_ns",)),
    "forest": (plots.forest, frames.ratios, ("ratio",)),
    "machines up": (lambda frame: plots.machines_up(frame, wire_bytes=1e6), frames.boots, ("end_ns",)),
    "response": (plots.response_times, frames.cohort, ("value_ns", "count")),
    "arrivals": (plots.arrivals, frames.intervals, ("in_flight", "started")),
}
NAMES = (
    "$\\frac{1}{0}$",
    "<script>alert(1)</script>&amp;",
    "_hidden",
    "a\nb\x00\x1b[31m",
    "x" * 200,
    "服务器 🚀",
    "$5 and $6",
    "",
    "\\$",
)
every_plot = pytest.mark.parametrize("name", PLOTS)


@every_plot
def test_an_empty_frame_is_one_line(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    with pytest.raises(PlotError, match=r"^[^\n]+ is empty[^\n]+$"):
        draw(frame()[:0])


@every_plot
def test_a_missing_column_is_named(name: str) -> None:
    draw, frame, columns = PLOTS[name]
    with pytest.raises(PlotError, match=columns[0]):
        draw(frame().drop(columns=columns[0]))
    with pytest.raises(PlotError, match="needs the columns"):
        draw(pd.DataFrame())


@every_plot
@pytest.mark.parametrize("nothing", [None, np.nan, np.inf, pd.NA, "no number"])
def test_a_column_without_a_known_figure_is_one_line(name: str, nothing: object) -> None:
    draw, frame, columns = PLOTS[name]
    with pytest.raises(PlotError, match=r"^[^\n]+$"):
        draw(frame().assign(**{columns[0]: pd.Series([nothing] * len(frame()), dtype=object)}))


@every_plot
@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, 0, -5.0])
def test_a_single_nonsense_figure_does_not_spoil_the_others(name: str, nothing: float) -> None:
    draw, frame, columns = PLOTS[name]
    some = frame()
    figures = some[columns[0]].astype("float64").to_numpy(copy=True)
    figures[0] = nothing
    plot = draw(some.assign(**{columns[0]: figures}))
    assert np.isfinite(plot.data.select_dtypes("number").to_numpy(dtype=float, na_value=0)).any()
    assert plot.svg


@pytest.mark.parametrize("name", ["throughput", "cpu_per_block", "fairness", "scaling"])
def test_trials_that_are_all_invalid_are_shown_as_such(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    if name == "scaling":
        with pytest.raises(PlotError):
            draw(frame().assign(verdict="invalid"))
        return
    plot = draw(frame().assign(verdict="invalid"))
    assert set(plot.data["mark"]) == {"invalid trial"}
    assert "epoll (invalid)" in [text.get_text() for text in plot.figure.axes[0].texts]
    assert "none of them valid" in plot.alt


@pytest.mark.parametrize("name", ["pairs", "times", "heatmap", "machines up", "arrivals"])
def test_what_needs_valid_trials_says_that_there_are_none(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    with pytest.raises(PlotError, match="valid trial"):
        draw(frame().assign(verdict="invalid"))


@every_plot
def test_one_contender_is_drawn_or_said_to_be_alone(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    if name == "pairs":
        with pytest.raises(PlotError, match="of epoll and of another"):
            draw(frame(["epoll"]))
        return
    assert draw(frame(["epoll"])).svg


@pytest.mark.parametrize("name", ["throughput", "cpu_per_block", "fairness", "scaling", "loss"])
def test_one_trial_is_drawn(name: str) -> None:
    plot = PLOTS[name][0](frames.trials(["epoll"], [3], rounds=1))
    assert plot.svg
    assert "to" not in plot.figure.texts[1].get_text().split()


def test_one_transfer_is_drawn_and_has_no_far_end() -> None:
    one = frames.transfers(["epoll"], each=1)
    assert plots.transfer_times(one).data["share"].tolist() == [1]
    assert plots.latency_heatmap(one).data["transfers"].tolist() == [1]
    with pytest.raises(PlotError, match="10 transfers"):
        plots.transfer_times(one, ccdf=True)


def test_a_histogram_of_one_bucket_has_a_spectrum_only_where_enough_lie_beyond() -> None:
    with pytest.raises(PlotError, match="10 samples"):
        plots.latency_spectrum(frames.latency(["epoll"])[:1])


def test_a_frame_may_be_plain_objects_without_verdict_or_categories() -> None:
    trials = frames.trials().drop(columns=["verdict", "operation"]).astype({"contender": object, "concurrency": object})
    assert set(plots.throughput(trials).data["contender"]) == {"epoll", "threads"}


@every_plot
def test_the_frame_that_was_given_is_left_as_it_was(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    given = frame()
    draw(given)
    pd.testing.assert_frame_equal(given, frame())


@every_plot
def test_names_are_shown_as_they_are_and_run_as_nothing(name: str) -> None:
    draw, frame, _ = PLOTS[name]
    plot = draw(frame(NAMES))
    root = ET.fromstring(plot.svg)
    assert plot.png
    assert "script" not in {each.tag.rpartition("}")[2] for each in root.iter()}
    words = " ".join("".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text"))
    shown = {"_hidden", "$5 and $6", "服务器"}
    if name == "pairs":  # its reference, the first name, is in the title
        shown -= {"$5 and $6"}
    assert [each for each in shown if each not in words] == []


@every_plot
@pytest.mark.parametrize("names", [["epoll", "threads"], ["y" * 200, "x" * 200], [f"server-{n}" for n in range(20)]])
def test_no_text_leaves_the_picture_or_is_too_small_to_read(name: str, names: list[str]) -> None:
    draw, frame, _ = PLOTS[name]
    figure = draw(frame(names)).figure
    figure.set_dpi(plots.plot.PNG_DPI)
    with plots.style.applied():
        renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
        figure.draw(renderer)
        drawn = figure.get_tightbbox(renderer)
    width, height = figure.get_size_inches()
    assert drawn.x0 >= 0
    assert drawn.y0 >= 0
    assert drawn.x1 <= width
    assert drawn.y1 <= height
    assert frames.overlaps(figure) == []
    assert min(float(text.get_fontsize()) for text in figure.findobj(Text)) >= 9


@functools.cache
def recorded(run: str) -> pd.DataFrame:
    return tftpbench.load_run(Path(__file__).parents[3] / "results/reference" / run).trials


@pytest.mark.parametrize("run", ["ceiling", "concurrency", "peers"])
@pytest.mark.parametrize("name", ["throughput", "cpu_per_block", "fairness", "scaling", "pairs", "loss"])
def test_no_label_of_a_recorded_run_lies_on_a_curve_or_on_another(run: str, name: str) -> None:
    assert frames.overlaps(PLOTS[name][0](recorded(run)).figure) == []


def test_a_label_among_curves_would_be_seen() -> None:
    figure = plots.throughput(frames.trials()).figure
    figure.axes[0].text(10, frames.BASE_PPS, "ceiling")
    assert frames.overlaps(figure) == ["'ceiling' on a curve"]


TWENTY = [f"server-{number}@as_shipped" for number in range(20)]
LARGE_KB = 300


def test_a_saved_plot_is_png_svg_and_the_csv_behind_it(tmp_path: Path) -> None:
    plot = plots.throughput(frames.trials())
    png, svg, csv = plot.save(tmp_path / "figure.1")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure.1.csv", "figure.1.png", "figure.1.svg"]
    assert struct.unpack(">I", png.read_bytes()[16:20]) == (1440,)
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"
    pd.testing.assert_frame_equal(pd.read_csv(csv), plot.data, check_dtype=False)


@pytest.mark.parametrize("name", ["x.png", "x.svg", "x.CSV"])
def test_a_path_with_an_end_is_that_one_file(name: str, tmp_path: Path) -> None:
    plot = plots.loss(frames.trials())
    assert plot.save(tmp_path / name) == (tmp_path / name,)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    content = (tmp_path / name).read_bytes()
    assert content.startswith({"x.png": b"\x89PNG", "x.svg": b"<?xml", "x.CSV": b"contender,"}[name])


def test_another_kind_of_picture_is_one_line_that_names_those_that_can_be_had(tmp_path: Path) -> None:
    with pytest.raises(PlotError, match=r"x\.pdf: can't be written as \.pdf; allowed: \.png, \.svg, \.csv, or no end"):
        plots.loss(frames.trials()).save(tmp_path / "x.pdf")
    assert not list(tmp_path.iterdir())


def test_a_plot_that_can_not_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "figure.svg").mkdir()
    with pytest.raises(PlotError, match=r"figure\.svg: can't be written: \S[^\n]*$"):
        plots.loss(frames.trials()).save(tmp_path / "figure")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(PlotError, match="No such file"):
        plots.loss(frames.trials()).save(tmp_path / "absent" / "figure")


def test_equal_frames_give_equal_files() -> None:
    first, second = plots.pairs(frames.trials()), plots.pairs(frames.trials())
    assert first.svg == second.svg
    assert first.png == second.png


def test_an_svg_for_a_page_is_one_element_whose_text_is_text_and_that_styles_nothing_else() -> None:
    plot = plots.throughput(frames.trials())
    assert plot.svg.startswith("<svg ")
    assert "<style" not in plot.svg
    assert "<metadata" not in plot.svg
    root = ET.fromstring(plot.svg)
    assert (root.get("role"), root.get("aria-label")) == ("img", plot.alt)
    words = {"".join(each.itertext()).strip() for each in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"epoll", "threads", METRICS["data_pps"].words, plot.title} <= words


def test_ids_of_two_plots_in_one_page_differ_and_refer_to_what_is_there() -> None:
    one, two = plots.throughput(frames.trials()).svg, plots.latency_heatmap(frames.transfers()).svg
    for svg in (one, two):
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert ids
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:url\(|href=")#([\w-]+)', svg)) == set(ids)
    assert not set(re.findall(r'\bid="([^"]+)"', one)) & set(re.findall(r'\bid="([^"]+)"', two))


def test_a_plot_shows_itself_in_jupyter_on_white() -> None:
    plot = plots.forest(frames.ratios())
    assert plot._repr_png_().startswith(b"\x89PNG")
    assert "background:#fff" in plot._repr_html_()


def test_settings_of_the_user_change_no_plot_and_plots_change_no_settings() -> None:
    expected = plots.loss(frames.trials()).svg
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "black", "svg.fonttype": "path", "figure.dpi": 300}):
        before = dict(mpl.rcParams)
        assert plots.loss(frames.trials()).svg == expected
        assert dict(mpl.rcParams) == before


def test_no_window_system_is_asked_for() -> None:
    script = "import sys, tftpbench.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.throughput(frames.trials(TWENTY, operations=("read", "write"))),
        lambda: plots.pairs(frames.trials(TWENTY, concurrencies=range(1, 9))),
        lambda: plots.loss(frames.trials(TWENTY, concurrencies=range(1, 9))),
        lambda: plots.latency_spectrum(frames.latency(TWENTY, cells=8), "Block round trip"),
        lambda: plots.transfer_times(pd.concat([frames.transfers(TWENTY, concurrency=c) for c in range(1, 9)])),
        lambda: plots.latency_heatmap(frames.transfers(TWENTY, each=20_000)),
        lambda: plots.forest(frames.ratios([f"{name}, read, 64 KiB" for name in TWENTY * 10])),
    ],
    ids=["throughput", "pairs", "loss", "spectrum", "times", "heatmap", "forest"],
)
def test_twenty_contenders_in_eight_cells_stay_small(draw: "type[plots.Plot]") -> None:
    assert len(draw().svg) < LARGE_KB * 1000  # type: ignore[call-arg]
