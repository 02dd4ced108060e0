"""What a run says in the end: the answer to the scenario's question, thresholds, a table, and what was left out.

    answer.py    rows and scenario in, an Answer out
    sentence.py  the one sentence
    text.py      an Answer for people
    document.py  an Answer for programs (--json)

Pure: it reads no file and measures nothing. An invalid trial is told of and never used; under six pairs there is a
range and no verdict. Called by the command line.
"""

from tftpbench.summary.answer import Answer, Line, Quantiles, summarise
from tftpbench.summary.document import document
from tftpbench.summary.text import render

__all__ = ["Answer", "Line", "Quantiles", "document", "render", "summarise"]
