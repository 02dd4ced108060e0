"""The gate's two pictures: a budget in each row of the forest, and pairs beside pairs of equal code."""

import warnings
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from tests.unit.gate.gate_results import CELL, every, gate
from tests.unit.plots import plot_frames as frames
from tftpbench import plots
from tftpbench.model.errors import PlotError
from tftpbench.render.gate_figures import save_figures

# Drawing takes seconds on a machine that does other things too.
pytestmark = pytest.mark.timeout(120)

RESULTS = every()


def marks(axes: Axes, marker: str) -> list[Line2D]:
    return [line for line in axes.lines if line.get_marker() == marker]


def points(lines: list[Line2D]) -> dict[float, float]:
    """By pair: the ratio."""
    return {float(x): float(y) for line in lines for x, y in np.asarray(line.get_xydata())}


def subtitle(plot: plots.Plot) -> str:
    return " ".join(plot.figure.texts[1].get_text().split())


def bounded(low: Sequence[float] = (np.nan, 0.95), high: Sequence[float] = (1.05, np.nan)) -> pd.DataFrame:
    return frames.ratios().assign(budget_low=low, budget_high=high)


def test_each_row_of_a_forest_is_shaded_as_far_as_it_passes() -> None:
    plot = plots.forest(bounded())
    axes = plot.figure.axes[0]
    left, right = axes.get_xlim()
    extents = [bar.get_extents().transformed(axes.transData.inverted()) for bar in axes.patches]
    shaded = [(round((each.y0 + each.y1) / 2), each.x0, each.x1) for each in extents]
    assert [each[0] for each in shaded] == [0, 1]
    assert [each[1:] for each in shaded] == [pytest.approx((left, 1.05)), pytest.approx((0.95, right))]
    assert "shaded: within the row's budget" in subtitle(plot)
    assert plot.data["budget_high"].tolist()[0] == 1.05


def test_a_forest_reaches_as_far_as_its_budgets() -> None:
    axes = plots.forest(bounded(high=[3.0, np.nan])).figure.axes[0]
    assert axes.get_xlim()[1] > 3


def test_a_row_without_a_budget_and_one_that_is_nonsense_are_not_shaded() -> None:
    unbounded = plots.forest(bounded(low=[np.nan, np.nan], high=[-1.0, np.inf]))
    assert "shaded" not in subtitle(unbounded)
    plain = plots.forest(frames.ratios())
    assert len(unbounded.figure.axes[0].collections) == len(plain.figure.axes[0].collections)
    assert "budget_low" not in plain.data.columns


@pytest.mark.parametrize(
    ("verdict", "colour", "name"),
    [
        ("regressed", "#d55e00", "orange"),
        ("suspected", "#e69f00", "amber"),
        ("inconclusive", "#cc79a7", "pink"),
        ("invalid", "#666666", "grey"),
        ("pass", "#000000", "black"),
        ("improved", "#0072b2", "blue"),
    ],
)
def test_a_forest_knows_the_verdicts_of_the_gate(verdict: str, colour: str, name: str) -> None:
    plot = plots.forest(frames.ratios().assign(verdict=verdict))
    assert {to_hex(str(line.get_color())) for line in marks(plot.figure.axes[0], "o")} == {colour}
    assert f"{name}: {verdict}" in subtitle(plot)


def test_pairs_stand_in_the_order_done_filled_where_the_base_was_first() -> None:
    result = gate(pairs=6)
    frame = result.to_frame()
    frame = frame[frame["metric"] == "data_pps"]
    plot = plots.gate_pairs(frame.sample(frac=1, random_state=1))
    [axes] = plot.figure.axes
    assert axes.get_yscale() == "log"
    assert axes.get_title(loc="left") == "blocks per second"
    usable = frame[frame["valid"]]
    heads = usable[usable["compared"] == "head"].set_index("pair")
    assert points(marks(axes, "o")) == heads["ratio"].to_dict()
    filled = [line for line in marks(axes, "o") if line.get_markerfacecolor() != "white"]
    assert points(filled) == heads[heads["base_first"]]["ratio"].to_dict()
    controls = usable[usable["compared"] == "control"].set_index("pair")
    assert points(marks(axes, "s")) == controls["ratio"].to_dict()
    assert set(points(marks(axes, "x"))) == {2}
    assert len(plot.data) == len(frame)
    assert plot.alt.startswith("Pairs: head / base, in the order done: blocks per second 0.")
    assert "(6 pairs)" in plot.alt


def test_the_budget_is_dashed_where_the_frame_has_it() -> None:
    frame = gate(pairs=6).to_frame()
    frame = frame[frame["metric"].isin(["data_pps", "server_cpu_s_per_mib"])]
    ends = {"data_pps": 0.95, "server_cpu_s_per_mib": 1.05}
    plot = plots.gate_pairs(frame.assign(budget_ratio=frame["metric"].map(ends)))
    dashed = [[line for line in axes.lines if line.get_linestyle() == "--"] for axes in plot.figure.axes]
    assert [float(np.asarray(line.get_ydata())[0]) for [line] in dashed] == [1.05, 0.95]
    assert "dashed: where the budget ends" in subtitle(plot)
    without = plots.gate_pairs(frame)
    assert "dashed" not in subtitle(without)
    assert not [line for axes in without.figure.axes for line in axes.lines if line.get_linestyle() == "--"]


def test_panels_are_named_by_cell_where_there_are_several() -> None:
    plot = plots.gate_pairs(RESULTS["cells"].to_frame())
    assert len(plot.figure.axes) == 8
    assert "the first 8 of 14 panels" in subtitle(plot)
    assert plot.figure.axes[0].get_title(loc="left") == f"CPU time per MiB\n{CELL}"


def test_the_key_speaks_only_of_what_is_there() -> None:
    frame = gate(pairs=6).to_frame()
    some = frame[(frame["compared"] == "head") & frame["valid"]]
    assert subtitle(plots.gate_pairs(some)) == "filled: base was loaded first, hollow: it was not"


@pytest.mark.parametrize("ratio", [None, np.nan, np.inf, 0, -1, "no number"])
def test_pairs_without_a_ratio_are_one_line(ratio: object) -> None:
    frame = gate(pairs=6).to_frame()
    with pytest.raises(PlotError, match=r"^gate_pairs: no pair has a ratio[^\n]*$"):
        plots.gate_pairs(frame.assign(ratio=pd.Series([ratio] * len(frame), dtype=object)))


@pytest.mark.parametrize("column", ["cell", "cell_key", "metric", "compared", "pair", "ratio", "base_first", "valid"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(PlotError, match=f"needs the columns {column}"):
        plots.gate_pairs(gate(pairs=6).to_frame().drop(columns=column))


def test_no_pairs_are_one_line() -> None:
    with pytest.raises(PlotError, match="the frame is empty"):
        plots.gate_pairs(RESULTS["empty"].to_frame())


def test_a_single_nonsense_ratio_does_not_spoil_the_others() -> None:
    frame = gate(pairs=6).to_frame()
    ratios = frame["ratio"].to_numpy(copy=True)
    ratios[0] = np.inf
    plot = plots.gate_pairs(frame.assign(ratio=ratios))
    assert len(plot.data) == len(frame) - 1
    assert plot.svg


@pytest.mark.parametrize("name", [name for name in RESULTS if name != "empty"])
def test_every_gate_with_figures_is_drawn_whole_and_without_warnings(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        written = save_figures(RESULTS[name], tmp_path)
    assert [path.name for path in written] == [
        f"{stem}.{kind}" for stem in ("forest", "pairs") for kind in ("png", "svg", "csv")
    ]
    for path in written:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
    assert pd.read_csv(tmp_path / "forest.csv")["ratio"].notna().all()


def test_what_is_gated_is_in_the_picture_of_pairs_and_nothing_else(tmp_path: Path) -> None:
    save_figures(RESULTS["memory"], tmp_path)
    drawn = pd.read_csv(tmp_path / "pairs.csv")
    assert list(dict.fromkeys(drawn["metric"])) == [each.metric for each in RESULTS["memory"].gated]
    assert set(drawn["budget_ratio"].round(2)) == {0.95, 1.02, 1.05, 1.1}


def test_too_few_pairs_are_drawn_as_a_range(tmp_path: Path) -> None:
    save_figures(RESULTS["failure"], tmp_path)
    forest = pd.read_csv(tmp_path / "forest.csv")
    assert forest[["lowest", "highest"]].notna().all(axis=None)
    save_figures(RESULTS["pass"], tmp_path)
    assert pd.read_csv(tmp_path / "forest.csv")[["lowest", "highest"]].isna().all(axis=None)


def test_labels_tell_cells_apart_by_what_differs(tmp_path: Path) -> None:
    save_figures(RESULTS["cells"], tmp_path)
    labels = pd.read_csv(tmp_path / "forest.csv")["label"].tolist()
    assert labels[:2] == ["CPU time per MiB, read, 10 at once", "CPU time per MiB, write, 100 at once"]
    assert len(set(labels)) == len(labels)


def test_absurd_figures_are_left_out_and_are_no_crash(tmp_path: Path) -> None:
    result = gate(pairs=6)
    huge = tuple(replace(each, ratio=1e308, low=1e-308, high=1.7e308) for each in result.judgements)
    written = save_figures(replace(result, judgements=huge), tmp_path)
    assert {path.stem for path in written} <= {"forest", "pairs"}
    assert "pairs" in {path.stem for path in written}
