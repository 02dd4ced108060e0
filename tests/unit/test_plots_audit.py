import numpy as np
import pandas as pd
import pytest

from tftpbench.analysis.false_alarms import alarm_rates
from tftpbench.model.errors import PlotError
from tftpbench.plots.false_alarms import alarm_rates as draw_alarm_rates
from tftpbench.plots.false_alarms import noise

VALUES = np.random.default_rng(2).lognormal(12.2, 0.02, 40)


def trials(**changes: object) -> pd.DataFrame:
    rows = {"contender": "epoll", "order": range(40, 0, -1), "data_pps": VALUES, "operation": "read", "concurrency": 10}
    return pd.DataFrame(rows | {"server_cpu_ns_per_block": 4000.0, "verdict": "valid"} | changes)


def test_trials_stand_in_the_order_done_with_their_median_and_spread() -> None:
    plot = noise(trials())
    assert plot.data["order"].tolist() == list(range(1, 41))
    assert plot.data["data_pps"].tolist() == VALUES[::-1].tolist()
    spread = np.median(np.abs(VALUES / np.median(VALUES) - 1))
    assert f"epoll ± {100 * spread:.1f} %" in plot.alt
    assert plot.figure.axes[0].get_ylabel() == "1/s"


def test_times_are_written_as_times() -> None:
    axes = noise(trials(), "server_cpu_ns_per_block").figure.axes[0]
    assert axes.yaxis.get_major_formatter()(4000, 0) == "4 us"


def test_invalid_trials_are_left_out_and_none_but_them_is_an_error() -> None:
    verdicts = ["invalid"] * 10 + ["valid"] * 30
    assert len(noise(trials(verdict=verdicts)).data) == 30
    with pytest.raises(PlotError, match="no valid trial"):
        noise(trials(verdict="invalid"))


def test_rates_are_drawn_as_given_one_line_per_number_of_pairs() -> None:
    rates = alarm_rates(VALUES.tolist(), losses=[0, 0.05], pairs=[7, 12], draws=50)
    plot = draw_alarm_rates(rates)
    drawn = [np.asarray(line.get_ydata()).tolist() for line in plot.figure.axes[0].lines]
    assert [heights for heights in drawn if heights in rates.groupby("pairs")["fraction"].agg(list).tolist()] == [
        ours["fraction"].tolist() for _, ours in rates.groupby("pairs")
    ]
    assert "false alarms: " in plot.alt
    with pytest.raises(PlotError, match="empty"):
        draw_alarm_rates(rates[:0])
