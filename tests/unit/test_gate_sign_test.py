"""The sign test that may be looked at after every pair: what decides, and how often nothing does."""

import numpy as np
import pytest

from tftpbench.gate.sign_test import p_values


@pytest.mark.parametrize(
    ("worse", "better", "is_certain"),
    [(10, 0, False), (11, 0, True), (14, 1, False), (15, 1, True), (0, 30, False), (30, 30, False)],
)
def test_eleven_pairs_to_none_or_fifteen_to_one_are_certain_at_one_in_a_thousand(
    worse: int, better: int, is_certain: bool
) -> None:
    signs = np.array([-1] * better + [1] * worse)
    assert (p_values(signs)[-1] < 0.001) == is_certain


def test_pairs_that_say_nothing_change_nothing_and_what_was_certain_stays_so() -> None:
    signs = np.array([0, 1, 0, 1, -1, 0, -1])
    found = p_values(signs)
    assert found[0] == 1.0
    assert (np.diff(found) <= 0).all()
    assert found[-1] == pytest.approx(1 / 1.9**2)


def test_looked_at_after_each_of_a_hundred_pairs_it_errs_as_seldom_as_it_promises() -> None:
    signs = np.random.default_rng(1).choice([-1, 1], size=(20_000, 100))
    for error in (0.05, 0.01, 0.001):
        share = float((p_values(signs)[:, -1] < error).mean())
        assert 0 < share <= error
