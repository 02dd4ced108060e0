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
# # Latency: who waits, and how long?
#
# A rate hides who was passed over. Percentiles come from merged histograms of all valid trials; they are never
# averaged.

# %%
import os

import tftpbench
from tftpbench import plots

run = tftpbench.load_run(os.environ.get("TFTPBENCH_RUN", "../results/reference/concurrency"))
cell = {"operation": "read", "concurrency": 100}
run

# %% [markdown]
# ## The spectrum of a block's round trip
# It is that of a block: the wait for a transfer's first answer is not in it. To the right, each step is a tenth as
# frequent. A line ends where fewer than ten samples are left. The load is a closed loop: a client that waits asks for
# nothing, so a stall is counted once for each client that it hits, and not for those who would have come meanwhile.

# %%
plots.latency_spectrum(run.spectrum("block_rtt", **cell), "Block round trip")

# %%
for contender in run.valid.contender.cat.categories:
    rtt = run.latency("block_rtt", contender=contender, **cell)
    p50_us, p99_us = rtt.percentile(50) / 1e3, rtt.percentile(99) / 1e3
    print(f"{contender}: p50 {p50_us:.0f} us, p99 {p99_us:.0f} us, {rtt.count} blocks")

# %% [markdown]
# ## Whole transfers
# The share of transfers that took longer than so much (both axes logarithmic: tails are at the bottom).

# %%
transfers = run.transfers.query("operation == @cell['operation'] and concurrency == @cell['concurrency']")
plots.transfer_times(transfers, ccdf=True)

# %% [markdown]
# ## Over time
# A healthy server gives one even band. Stripes are stalls; a second band at the client's timeout is a datagram that
# was lost, or answered later than the client waits.

# %%
plots.latency_heatmap(transfers)

# %% [markdown]
# ## The worst clients
# The slowest transfers, and what happened to them.

# %%
transfers.assign(duration_ms=(transfers.end_ns - transfers.actual_start_ns) / 1e6).nlargest(10, "duration_ms")[
    ["trial", "contender", "duration_ms", "retransmissions", "outcome"]
]

# %%
plots.fairness(run.trials)
