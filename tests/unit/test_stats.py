"""Paired ratios."""

import numpy as np
import pytest

from tftpbench import stats


def test_equal_trials_have_the_ratio_one_and_no_difference() -> None:
    ratio = stats.paired_ratio([5.0, 7, 9, 11, 13, 15], [5.0, 7, 9, 11, 13, 15])
    assert (ratio.ratio, ratio.low, ratio.high, ratio.n, ratio.differs) == (1, 1, 1, 6, False)


def test_a_constant_factor_is_found_whatever_the_machine_drifts() -> None:
    drift = np.linspace(1, 10, 20)
    ratio = stats.paired_ratio(list(1.6 * drift), list(drift))
    assert ratio.ratio == pytest.approx(1.6)
    assert ratio.differs


def test_under_six_pairs_there_is_a_range_but_no_interval_and_no_verdict() -> None:
    ratio = stats.paired_ratio([2, 3, 4, 5, 6], [1, 1, 1, 1, 1])
    assert (ratio.low, ratio.high, ratio.differs) == (None, None, None)
    assert ratio.n == 5
    assert ratio.lowest == pytest.approx(2)
    assert ratio.highest == pytest.approx(6)


def test_one_wild_pair_does_not_move_the_ratio() -> None:
    calm = [1.0] * 9
    assert stats.paired_ratio([2.0] * 9 + [2000.0], [*calm, 1.0]).ratio == pytest.approx(2)


def test_the_trimmed_mean_drops_a_fifth_at_each_end() -> None:
    assert stats.trimmed_mean(np.array([-100.0, 1, 2, 3, 100])) == 2
    assert stats.trimmed_mean(np.array([1.0, 2, 6])) == 3  # a fifth of three is none


def test_one_seed_gives_one_interval_and_swapping_sides_mirrors_it() -> None:
    dice = np.random.default_rng(7)
    a, b = list(dice.lognormal(0.1, 0.2, 12)), list(dice.lognormal(0, 0.2, 12))
    assert stats.paired_ratio(a, b) == stats.paired_ratio(a, b)
    assert stats.paired_ratio(a, b, seed=1) != stats.paired_ratio(a, b, seed=2)
    there, back = stats.paired_ratio(a, b), stats.paired_ratio(b, a)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.low is not None
    assert back.high is not None
    assert there.low * back.high == pytest.approx(1, rel=0.02)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    dice = np.random.default_rng(2019)
    held = 0
    for _ in range(200):
        noise = dice.normal(np.log(1.3), 0.1, 12)
        ratio = stats.paired_ratio(list(np.exp(noise)), [1.0] * 12)
        assert ratio.low is not None
        assert ratio.high is not None
        held += ratio.low <= 1.3 <= ratio.high
    # A percentile bootstrap of 12 pairs covers somewhat less than 95 %.
    assert 170 <= held <= 199


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [-1.0]), ([float("nan")], [1.0])]
)
def test_what_has_no_ratio_is_refused(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs need|positive, finite"):
        stats.paired_ratio(a, b)
