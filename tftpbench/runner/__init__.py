"""Running a scenario: every cell on every server, interleaved, each trial saved as it ends.

    order.py       who is measured on what, in which order
    placement.py   which cores each side gets
    roots.py       the folders that servers serve
    files.py       which files clients ask for, and what these must hold
    session.py     a fresh server and the load on it
    trial.py       one trial, from a fresh server to a row of results
    rows.py        that row
    starts.py      which servers do not start, and are left out
    ceilings.py    what the bare kernel does with the same datagrams, measured beside the trials
    loop.py        the run: folder, resume, Ctrl-C
    events.py      what a run tells while it goes on

The runner prints nothing, and names no server. Called by the command line and by `tftpbench.run`.
"""

from tftpbench.runner.ceilings import Probes
from tftpbench.runner.events import (
    CeilingUnknown,
    CopyStarted,
    Event,
    RunFinished,
    RunStarted,
    ServerLeftOut,
    TrialFinished,
    TrialStarted,
)
from tftpbench.runner.loop import RunInterrupted, RunReport, recorded, run
from tftpbench.runner.order import Contender, Plan, Skipped, Trial, contenders, options_asked, plan
from tftpbench.runner.placement import Pinning, pin
from tftpbench.runner.session import Tools
from tftpbench.runner.starts import LeftOut

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
    "plan",
    "recorded",
    "run",
]
