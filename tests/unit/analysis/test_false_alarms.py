import numpy as np
import pandas as pd
import pytest

from tftpbench.analysis import false_alarms
from tftpbench.analysis.false_alarms import alarm_rates
from tftpbench.model.errors import PlotError
from tftpbench.plots.false_alarms import alarm_rates as draw_alarm_rates
from tftpbench.plots.false_alarms import noise

QUIET = np.random.default_rng(1).lognormal(12, 0.01, 60).tolist()


def test_equal_trials_give_ratios_around_one() -> None:
    ratios = false_alarms.null_ratios(QUIET, 7, draws=200)
    assert len(ratios) == 200
    assert {ratio.n for ratio in ratios} == {7}
    assert np.median([ratio.ratio for ratio in ratios]) == pytest.approx(1, abs=0.002)


def test_a_drift_of_the_machine_is_no_alarm() -> None:
    drifting = [value * 1.02**place for place, value in enumerate(QUIET)]
    rates = false_alarms.alarm_rates(drifting, losses=[0], pairs=[12], draws=200)
    assert rates.fraction.item() < 0.1


def test_a_large_loss_is_always_seen_and_a_small_one_seldom() -> None:
    rates = false_alarms.alarm_rates(QUIET, losses=[0, 0.001, 0.05], pairs=[12], draws=200).set_index("loss")
    assert rates.fraction[0.05] == 1
    assert rates.fraction[0] <= rates.fraction[0.001] < 0.5
    assert (rates.alarms <= rates.draws).all()


def test_what_is_drawn_is_drawn_again() -> None:
    assert false_alarms.null_ratios(QUIET, 6, draws=5) == false_alarms.null_ratios(QUIET, 6, draws=5)


@pytest.mark.parametrize("pairs", [5, 31])
def test_too_few_pairs_are_refused(pairs: int) -> None:
    with pytest.raises(ValueError, match="60 trials are 30 pairs"):
        false_alarms.null_ratios(QUIET, pairs)


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
    assert plot.figure.axes[0].get_ylabel() == "blocks per second"


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
