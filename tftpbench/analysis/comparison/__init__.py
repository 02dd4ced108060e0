"""Two runs side by side: how many times the blocks of A does B move, for each server in each cell that both have.

    differences.py  pairs of trials, ratios and verdicts; what the runs don't have in common: cells, servers, method
    result.py       two runs in, a Comparison out: its sentence, its frame, its document

It measures nothing and changes no run. It must never call a cell faster or slower that the interval, or the correction
for how many cells are judged, leaves open; and it never hides what could not be compared.
"""

from tftpbench.analysis.comparison.result import WITHIN, Comparison, compare, document

__all__ = ["WITHIN", "Comparison", "compare", "document"]
