"""What holds for all tests with real servers: a busy machine spoils no trial of theirs (see machine.py)."""

from collections.abc import Iterator

import pytest

from tests.loopback.peer import Place
from tftpbench.host.network import Network, NetworkRefused


@pytest.fixture(autouse=True)
def _any_machine(any_machine: None) -> None:
    """Asks for it in each test."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """A server's own network, with packet sockets. Skips where this machine makes none."""
    try:
        made = Network()
    except NetworkRefused as error:
        pytest.skip(f"this machine makes no network namespaces: {error}")
    with made:
        if made.packet_refusal:
            pytest.skip(f"packet sockets are refused: {made.packet_refusal}")
        yield made


@pytest.fixture
def over_rings(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers listen in that network, and what `placed` loads goes over rings."""
    monkeypatch.setattr(Place, "network", network)
