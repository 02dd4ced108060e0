"""Scenarios: one question, asked as a matrix of cells, written in YAML (docs/scenario-format.md).

A Scenario that exists is valid: ranges, names, thresholds and the product of its matrix have been checked
when the file was read, and nobody checks again. It must never touch a server, a socket or a result; whether
a server can do a cell is the manifest's business. Called by the runner and the command line.
"""

from tftpbench.scenario.cell import BLKSIZE_DEFAULT, WINDOWSIZE_DEFAULT, Cell, Client, Placement
from tftpbench.scenario.files import bundled_scenarios, load_scenario
from tftpbench.scenario.gate import CONTROL_EVERY, Gate
from tftpbench.scenario.model import BEST_OF_AXES, ORDER, SCHEMA, Matrix, Scenario, from_document

__all__ = [
    "BEST_OF_AXES",
    "BLKSIZE_DEFAULT",
    "CONTROL_EVERY",
    "ORDER",
    "SCHEMA",
    "WINDOWSIZE_DEFAULT",
    "Cell",
    "Client",
    "Gate",
    "Matrix",
    "Placement",
    "Scenario",
    "bundled_scenarios",
    "from_document",
    "load_scenario",
]
