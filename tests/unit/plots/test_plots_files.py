"""Plots as files and in pages: PNG, SVG, CSV."""

import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest

from tests.unit.plots import plot_frames as frames
from tftpbench import plots
from tftpbench.model.errors import PlotError
from tftpbench.model.metrics import METRICS

NAMES = [f"server-{number}@as_shipped" for number in range(20)]
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
        lambda: plots.throughput(frames.trials(NAMES, operations=("read", "write"))),
        lambda: plots.pairs(frames.trials(NAMES, concurrencies=range(1, 9))),
        lambda: plots.loss(frames.trials(NAMES, concurrencies=range(1, 9))),
        lambda: plots.latency_spectrum(frames.latency(NAMES, cells=8), "Block round trip"),
        lambda: plots.transfer_times(pd.concat([frames.transfers(NAMES, concurrency=c) for c in range(1, 9)])),
        lambda: plots.latency_heatmap(frames.transfers(NAMES, each=20_000)),
        lambda: plots.forest(frames.ratios([f"{name}, read, 64 KiB" for name in NAMES * 10])),
    ],
    ids=["throughput", "pairs", "loss", "spectrum", "times", "heatmap", "forest"],
)
def test_twenty_contenders_in_eight_cells_stay_small(draw: "type[plots.Plot]") -> None:
    assert len(draw().svg) < LARGE_KB * 1000  # type: ignore[call-arg]
