"""Running a scenario: every cell on every server, interleaved, each trial saved as it ends.

    plan.py       which server is measured on what, in which order
    files.py      which files clients ask for, and what these must hold
    session.py    a fresh server and the load on it
    trial.py      one trial, from a fresh server to a row of results
    rows.py       that row
    validity.py   what makes a trial's figures untrue
    findings.py   what a server did wrong
    starts.py     which servers do not start, and are left out
    ceilings.py   raw loopback UDP throughput for the same datagrams, measured beside the trials
    runner.py     the run: folder, resume, Ctrl-C
    events.py     the events that a run emits

The runner prints nothing, and names no server.
"""

from tftpbench.host.pinning import Pinning, pin
from tftpbench.measure.ceilings import Probes
from tftpbench.measure.events import (
    CeilingUnknown,
    CopyStarted,
    Event,
    RunFinished,
    RunStarted,
    ServerLeftOut,
    TrialFinished,
    TrialStarted,
)
from tftpbench.measure.plan import Contender, Plan, Skipped, Trial, contenders, options_asked
from tftpbench.measure.runner import RunInterrupted, RunReport
from tftpbench.measure.session import Tools
from tftpbench.measure.starts import LeftOut

__all__ = [
    "CeilingUnknown",
    "Contender",
    "CopyStarted",
    "Event",
    "LeftOut",
    "Pinning",
    "Plan",
    "Probes",
    "RunFinished",
    "RunInterrupted",
    "RunReport",
    "RunStarted",
    "ServerLeftOut",
    "Skipped",
    "Tools",
    "Trial",
    "TrialFinished",
    "TrialStarted",
    "contenders",
    "options_asked",
    "pin",
]
