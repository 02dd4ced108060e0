"""The exceptions that tftpbench raises, and the exit code that each of them means.

    TftpbenchError                1  an internal error, unless a subclass says otherwise
    ├── UsageError                2  a command line or a file that can't be followed
    │   ├── ScenarioError
    │   ├── ManifestError
    │   ├── BootError                a boot profile is wrong, or there is none of that name
    │   ├── ThresholdError
    │   ├── FetchError               a third-party server that can't be fetched
    │   ├── ResultsError             results that can't be written or read
    │   └── PlotError                nothing that could be drawn, or a file that can't be
    ├── ServerError               2  a server under test that can't be had; in a trial it is a finding
    │   ├── ServerMissing
    │   ├── ServerNotReady
    │   ├── ServerDied
    │   └── ServerHostLost       3  the host that it runs on can't be reached any more
    ├── LoadError                 2  our own generator can't run here (open files, bad address)
    ├── HostsError                3  load hosts that can't be reached, run another tftpbench, or were lost
    ├── CeilingError              2  the ceiling can't be measured here
    └── NotComparable             5
        └── BaselineMissing          no stored run to compare with

    ResultsWarning (a UserWarning)   what is not whole in a run that is loaded all the same

A message is one line that names the file, key or server and the mend; what of it others wrote is escaped, and a word of
200 kB is shortened. A file with several mistakes has a line for each, given as arguments of their own. A fault of a
server is data, never an exception.
"""

import difflib
from collections.abc import Iterable

from tftpbench.model.escape import one_line


class TftpbenchError(Exception):
    """The root of all errors that tftpbench raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(one_line, self.args))


class UsageError(TftpbenchError):
    """What the user typed or wrote can't be followed."""

    exit_code = 2


class ScenarioError(UsageError):
    """A scenario file, or a --set, is wrong."""


class ManifestError(UsageError):
    """A server.yaml is wrong, or there is no server of that name."""


class BootError(UsageError):
    """A boot profile is wrong, or there is none of that name."""


class ThresholdError(UsageError):
    """A threshold can't be understood."""


class FetchError(UsageError):
    """A package client is missing, or did not deliver."""


class ResultsError(UsageError):
    """A run folder can't be written or read."""


class PlotError(UsageError):
    """A frame holds nothing that could be drawn, or a plot can't be saved."""


class ServerError(TftpbenchError):
    """A server under test can't do its part. The runner turns it into a row of the results."""

    exit_code = 2


class ServerMissing(ServerError):
    """The server isn't installed."""


class ServerNotReady(ServerError):
    """The server started and never answered."""


class ServerDied(ServerError):
    """The server ended by itself."""


class ServerHostLost(ServerError):
    """The host that servers under test run on was lost; the message is its name and why."""

    exit_code = 3


class LoadError(TftpbenchError):
    """Our own load generator can't run as asked; the message names the number that is needed."""

    exit_code = 2


class HostsError(TftpbenchError):
    """A load host, or what carries calls to it, can't be reached, differs, or was lost in a trial; names the host."""

    exit_code = 3


class CeilingError(TftpbenchError):
    """The ceiling can't be measured here. In a run it is a warning, never a lost trial."""

    exit_code = 2


class NotComparable(TftpbenchError):
    """Two runs differ in what was done, how it was measured, or where."""

    exit_code = 5


class BaselineMissing(NotComparable):
    """What should be the baseline is absent, no run, or a run without a figure; the message says how to make one."""


class ResultsWarning(UserWarning):
    """Part of a run can't be read, or breaks an invariant: the rest is loaded, and `Run.problems` lists it."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that may have been meant."""
    bare = {each.lstrip("-"): each for each in known}  # the dashes of two options make them no more alike
    name = word.lstrip("-")
    # --rate is no --write, which would overwrite files: one letter of four may be wrong, and one of three.
    near = difflib.get_close_matches(name, list(bare), n=1, cutoff=0.66 if len(name) == 3 else 0.75)
    return bare[near[0]] if near else None


def suggest(word: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """The end of an error message: "; did you mean 'epoll'?", else `otherwise`, all known words unless it is given."""
    words = list(known)
    if (near := nearest(word, words)) is not None:
        return f"; did you mean {near!r}?"
    return f"; allowed: {', '.join(words)}" if otherwise is None else otherwise


def nothing_listens(where: str) -> str:
    """What an ICMP port unreachable in answer to a request means, as the middle of a sentence."""
    return f"nothing listens on {where} (ICMP port unreachable): start the server, or correct the address"
