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
# # Capacity and cost
#
# How many transfers at once a server holds, what each block costs it, and what was lost on the way. With many
# servers: the landscape of those that were there.

# %%
import os

import tftpbench
from tftpbench import plots

run = tftpbench.load_run(os.environ.get("TFTPBENCH_RUN", "../results/reference/landscape"))
trials = run.trials[run.trials.blksize == run.trials.blksize.min()]
run

# %% [markdown]
# ## Scaling
# What a server moves at so many transfers at once, relative to its own rate at the fewest. Level or rising is good.

# %%
plots.scaling(trials)

# %%
plots.throughput(trials)

# %% [markdown]
# ## What a block costs
# CPU time of all its processes and threads, per DATA block. On one core, a million divided by this is the most
# that it could ever move.

# %%
plots.cpu_per_block(trials)

# %% [markdown]
# ## Memory
# The proportional share (PSS) of all its processes at its highest, less what it had before the first transfer,
# for each transfer at once.

# %%
held = run.valid.assign(
    kib_per_transfer=(run.valid.server_pss_bytes_max - run.valid.server_pss_bytes_ready) / 1024 / run.valid.concurrency
)
held.groupby(["contender", "concurrency"], observed=True).kib_per_transfer.median().unstack().astype(float).round(1)

# %% [markdown]
# ## What was sent again, dropped or never answered
# Datagrams dropped at the server's socket and at the generator's, datagrams sent again, and transfers that
# were never answered.

# %%
plots.loss(trials)
