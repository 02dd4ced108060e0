import numpy as np
import pytest

from tftpbench.analysis import false_alarms

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
