"""What a run says in the end: the answer to the scenario's question, thresholds, a table, and what was left out.

    answer.py    rows and scenario in, an Answer out
    stored.py    the same from a run's folder, and for programs (--json)
    lines.py     a line per server and cell: first figures and ratios
    remarks.py   what servers did wrong, and what could not be judged
    sentence.py  the sentences that answer

Pure but for stored.py, which reads run folders; it measures nothing. An invalid trial is named and never used; under
six pairs there is a range and no verdict.
"""

from tftpbench.analysis.summary.answer import Answer, JudgedEverywhere, LeftOut, judgements, summarise
from tftpbench.analysis.summary.lines import Line
from tftpbench.analysis.summary.stored import answer_of, document, placement_of, scenario_of

__all__ = [
    "Answer",
    "JudgedEverywhere",
    "LeftOut",
    "Line",
    "answer_of",
    "document",
    "judgements",
    "placement_of",
    "scenario_of",
    "summarise",
]
