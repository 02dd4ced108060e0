"""Running a scenario: every cell on every server, interleaved, each trial saved as it ends.

    plan.py       which server is measured on what, in which order
    files.py      which files clients ask for, and what these must hold
    session.py    a fresh server and the load on it
    trial.py      one trial, from a fresh server to a row of results
    rows.py       that row
    validity.py   what makes a trial's figures untrue
    findings.py   what a server did wrong
    starts.py     which servers do not start, and are left out
    ceilings.py   beside the trials: raw UDP throughput for the same datagrams, and the rate of a full generator
    search.py     the search between two loads, by a controller of RFC 9971, and a second opinion of its bounds
    capacity.py   what a server can bear: ramp, bounds, and what is measured there
    capacity_trials.py   the same on real servers: its trials, and the document of its result
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
    LoadProgressed,
    RecoveryAwaited,
    RunFinished,
    RunStarted,
    SearchFinished,
    SearchStarted,
    ServerLeftOut,
    TrialFinished,
    TrialStarted,
)
from tftpbench.measure.files import copied_boots, only_of_the_first, target_files
from tftpbench.measure.plan import Contender, Plan, Skipped, Trial, contenders, networked, on_hosts, options_asked
from tftpbench.measure.rows import udp_columns
from tftpbench.measure.runner import RunInterrupted, RunReport, Until
from tftpbench.measure.search import second_opinion
from tftpbench.measure.session import (
    Bench,
    Counted,
    Tools,
    compared_uploads,
    how_lost,
    load_config,
    run_watched,
    server_of,
)
from tftpbench.measure.starts import LeftOut

__all__ = [
    "Bench",
    "CeilingUnknown",
    "Contender",
    "CopyStarted",
    "Counted",
    "Event",
    "LeftOut",
    "LoadProgressed",
    "Pinning",
    "Plan",
    "Probes",
    "RecoveryAwaited",
    "RunFinished",
    "RunInterrupted",
    "RunReport",
    "RunStarted",
    "SearchFinished",
    "SearchStarted",
    "ServerLeftOut",
    "Skipped",
    "Tools",
    "Trial",
    "TrialFinished",
    "TrialStarted",
    "Until",
    "compared_uploads",
    "contenders",
    "copied_boots",
    "how_lost",
    "load_config",
    "networked",
    "on_hosts",
    "only_of_the_first",
    "options_asked",
    "pin",
    "run_watched",
    "second_opinion",
    "server_of",
    "target_files",
    "udp_columns",
]
