"""The real clients that interop tests ask for, and a line at the end that says which of them were here."""

from collections.abc import Callable

import pytest

from tests.interop.clients import Gone, Here, look

_ASKED = pytest.StashKey[dict[str, Here | Gone]]()


@pytest.fixture(scope="session")
def client(pytestconfig: pytest.Config) -> Callable[[str], Here]:
    """client(name), a name in clients.PROGRAMS, is a program of this machine; it skips with the reason without it."""
    asked = pytestconfig.stash.setdefault(_ASKED, {})

    def find(name: str) -> Here:
        found = asked[name] = look(name)
        if isinstance(found, Gone):
            pytest.skip(found.reason)
        return found

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    asked = config.stash.get(_ASKED, {})
    if not asked:
        return
    here = [f"{name} {found.version}" for name, found in asked.items() if isinstance(found, Here)]
    gone = [name for name, found in asked.items() if isinstance(found, Gone)]
    line = f"real clients: {', '.join(here) or 'none'}"
    terminalreporter.write_line(line + (f"; not here: {', '.join(gone)} (make peers)" if gone else ""))
