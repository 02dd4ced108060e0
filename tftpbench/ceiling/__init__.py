"""The ceiling: what the bare kernel does with the datagrams of a cell, where there is neither TFTP nor a file.

    exchange.py     what is exchanged, by which sockets, and one measurement of it
    calibration.py  which arrangement of sockets is the fastest here
    limits.py       a survey of this machine

The only caller of the native probe. It knows nothing of scenarios, servers or results. Called by the runner and the
command line.
"""

from tftpbench.ceiling.calibration import calibrate, candidates
from tftpbench.ceiling.exchange import FOR_EVER_US, QUICK, Arrangement, Ceiling, CeilingCell, Effort, measure
from tftpbench.ceiling.limits import Limit, limits, usual_cells

__all__ = [
    "FOR_EVER_US",
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
