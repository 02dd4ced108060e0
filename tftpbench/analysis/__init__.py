"""From rows of results to answers: statistics, the answer of one run, the comparison of two.

Pure, but for reading run folders through `tftpbench.store`. It must never measure.
"""
