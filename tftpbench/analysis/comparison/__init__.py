"""Two runs side by side: how many times the blocks of A does B move, for each server in each cell that both have.

    compared.py     two runs in, a Comparison out
    cells.py        pairs of trials, ratios and verdicts
    differences.py  what the runs don't have in common: cells, servers, machine, method
    result.py       the Comparison itself, and its sentence
    document.py     a Comparison for programs

It measures nothing and changes no run. It must never call a cell faster or slower that the interval, or the correction
for how many cells are judged, leaves open; and it never hides what could not be compared.
"""

from tftpbench.analysis.comparison.compared import WITHIN, compare
from tftpbench.analysis.comparison.document import document
from tftpbench.analysis.comparison.result import Comparison

__all__ = ["WITHIN", "Comparison", "compare", "document"]
