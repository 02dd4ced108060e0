"""What a run says in the end: the answer to the scenario's question, thresholds, a table, and what was left out.

    answer.py    rows and scenario in, an Answer out
    lines.py     a line per server and cell: medians and ratios
    remarks.py   what servers did wrong, and what could not be judged
    sentence.py  the one sentence
    text.py      an Answer for people
    document.py  an Answer for programs (--json)

Pure: it reads no file and measures nothing. An invalid trial is told of and never used; under six pairs there is a
range and no verdict. Called by the command line.
"""

from tftpbench.summary.answer import Answer, summarise
from tftpbench.summary.document import document
from tftpbench.summary.lines import Line, Quantiles
from tftpbench.summary.text import render

__all__ = ["Answer", "Line", "Quantiles", "document", "render", "summarise"]
