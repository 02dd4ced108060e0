# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What could a gate see here?
#
# Before a comparison may stop a merge, two things have to be known of the machine that it runs on: how much
# equal code differs from itself, and how large a loss has to be to be seen. Both come from one recording of a
# single server, over and over (`tftpbench run noise`).

# %%
import os

import tftpbench
from tftpbench import plots
from tftpbench.analysis import false_alarms

# A recorded run. Yours: tftpbench.load_runs("../results/*-noise")[-1]
run = tftpbench.load_run(os.environ.get("TFTPBENCH_RUN", "../results/reference/noise"))
run

# %% [markdown]
# ## The noise
# Equal work, equal code. What moves here is the machine. Neighbours are more alike than trials that lie far
# apart, which is why trials are interleaved and compared in pairs.

# %%
plots.noise(run.trials, "data_pps")

# %%
plots.noise(run.trials, "server_cpu_ns_per_block")

# %% [markdown]
# ## False alarms, and what is seen
# Neighbouring trials are made pairs, and chance calls one of the two the head. Loss 0 is the truth, so every
# "slower" there is a false alarm; the others show how often a head that is really slower by so much would be
# caught. All of it speaks of this recording. An alarm is an interval that lies below 1 as a whole.

# %%
values = run.valid.sort_values("order").data_pps.tolist()
rates = false_alarms.alarm_rates(values, losses=[0, 0.01, 0.02, 0.03, 0.05, 0.1], pairs=[7, 12, 18])
rates.round(3)

# %%
plots.alarm_rates(rates)

# %% [markdown]
# ## The same for CPU time
# CPU per block repeats better than a rate on most machines. It is turned round, so that slower is less here,
# too.

# %%
per_cpu_s = (1e9 / run.valid.sort_values("order").server_cpu_ns_per_block).tolist()
plots.alarm_rates(false_alarms.alarm_rates(per_cpu_s, losses=[0, 0.01, 0.02, 0.03, 0.05, 0.1], pairs=[7, 12, 18]))
