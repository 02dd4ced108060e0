"""Plots of frames that hold little, nothing or nonsense, and plots as files and in pages: PNG, SVG, CSV."""

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
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

import tftpbench
from tests.unit.plots import plot_frames as frames
from tftpbench import plots
from tftpbench.model.errors import PlotError
from tftpbench.model.metrics import METRICS

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
