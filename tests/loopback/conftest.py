"""What holds for all tests with real servers: a busy machine spoils no trial of theirs (see machine.py)."""

import pytest


@pytest.fixture(autouse=True)
def _any_machine(any_machine: None) -> None:
    """Asks for it in each test."""
