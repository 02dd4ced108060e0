"""How often the gate gives a false alarm on this machine, and which injected faults it finds.

run.py          the whole self-test
faults.py       servers made worse on purpose, by fault.c
resampling.py   gates drawn from recorded pairs, thousands of times
"""
