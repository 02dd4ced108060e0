"""Which cores each side gets."""

import pytest

from tftpbench.host.pinning import pin
from tftpbench.model.workload import Placement


@pytest.mark.parametrize(
    ("server", "generator", "allowed", "expected", "phrase"),
    [
        (1, 1, [0, 1], ((1,), (0,), ()), "on separate cores"),
        (1, 1, [0, 1, 2, 3], ((3,), (0,), (1, 2)), "on separate cores"),
        (2, 1, [4, 5, 6, 9], ((6, 9), (4,), (5,)), "on separate cores"),
        (1, 1, [5], ((5,), (5,), ()), "on one core"),
        (2, 1, [0, 1], ((0, 1), (0, 1), ()), "on the same 2 cores"),
        ("all", "all", [0, 1, 2], ((0, 1, 2), (0, 1, 2), ()), "on the same 3 cores"),
        ("all", 1, [0, 1, 2], ((0, 1, 2), (0,), ()), "on the same 3 cores"),
        (1, "all", [0, 1], ((1,), (0, 1), ()), "on the same 2 cores"),
        ("all", "all", [0], ((0,), (0,), ()), "on one core"),
    ],
)
def test_server_and_generator_get_cores_of_their_own_where_there_are_enough(
    server: object, generator: object, allowed: list[int], expected: tuple[object, ...], phrase: str
) -> None:
    placement = Placement.model_validate({"server_cpus": server, "generator_cpus": generator})
    pinning = pin(placement, allowed)
    assert (pinning.server, pinning.generator, pinning.spare) == expected
    assert pinning.phrase == phrase
    assert pinning.separate is (phrase == "on separate cores")


def test_the_cores_of_this_machine_are_used_unless_told() -> None:
    assert pin(Placement()).server
