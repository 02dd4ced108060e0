"""The ceiling: raw loopback UDP throughput for the same datagrams as a cell's, with neither TFTP nor a file.

    exchange.py     what is exchanged, by which sockets, and one measurement of it
    calibration.py  which arrangement of sockets is the fastest here
    survey.py       a survey of this machine

It must never know scenarios, servers or results.
"""

from tftpbench.host.ceiling.calibration import calibrate, candidates
from tftpbench.host.ceiling.exchange import NEVER_SLEEP_US, QUICK, Arrangement, Ceiling, CeilingCell, Effort, measure
from tftpbench.host.ceiling.survey import Limit, limits, usual_cells

__all__ = [
    "NEVER_SLEEP_US",
    "QUICK",
    "Arrangement",
    "Ceiling",
    "CeilingCell",
    "Effort",
    "Limit",
    "calibrate",
    "candidates",
    "limits",
    "measure",
    "usual_cells",
]
