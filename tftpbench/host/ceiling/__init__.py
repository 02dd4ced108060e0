"""The ceiling: what the bare kernel does with the datagrams of a cell, where there is neither TFTP nor a file.

    exchange.py     what is exchanged, by which sockets, and one measurement of it
    calibration.py  which arrangement of sockets is the fastest here
    limits.py       a survey of this machine

The only caller of the native probe. It knows nothing of scenarios, servers or results.
"""

from tftpbench.host.ceiling.calibration import calibrate, candidates
from tftpbench.host.ceiling.exchange import FOR_EVER_US, QUICK, Arrangement, Ceiling, CeilingCell, Effort, measure
from tftpbench.host.ceiling.limits import Limit, limits, usual_cells

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
