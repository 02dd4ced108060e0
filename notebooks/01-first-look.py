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
# # Epoll, or a thread per transfer?
#
# The first question that tftpbench was made for. One server answers all transfers from one thread, the other
# starts a thread for each; everything else in them is the same code. Run all cells, then put a run of your own
# in the place of the recorded one.

# %%
import os

import tftpbench
from tftpbench import plots

# A recorded run. Yours: tftpbench.load_runs("../results/*-concurrency")[-1]
run = tftpbench.load_run(os.environ.get("TFTPBENCH_RUN", "../results/reference/concurrency"))
run

# %% [markdown]
# ## The answer
# A ratio of blocks per second, measured in interleaved trials of one run. The interval says how sure it is: it
# comes from the pairs of trials, and a run with fewer than six pairs shows a range and no interval.

# %%
answer = tftpbench.answer(run)
print(answer.sentence)

# %%
shown = ["label", "contender", "data_pps", "ratio", "low", "high", "n", "server_cpu_ns_per_block", "valid", "trials"]
answer.to_frame()[shown].round(2)

# %% [markdown]
# ## How it looks
# Every dot is a trial. A band is the 95 % interval of the median. Hollow crosses are trials whose figures are
# not true (the last section says why); no line uses them.

# %%
plots.throughput(run.trials)

# %% [markdown]
# ## How sure
# Each row is one comparison with its interval. Where an interval crosses 1, the run does not show a difference.

# %%
plots.forest(answer.ratios, axis=f"blocks per second against {answer.reference}")

# %% [markdown]
# ## Why
# Both servers do the same protocol work, so what differs is what a block costs, and how long a request waits
# before the server turns to it. CPU time counts every thread that the server ever had.

# %%
plots.cpu_per_block(run.trials)

# %%
cells = run.valid.groupby(["operation", "concurrency", "contender"], observed=True)
waits_ms = cells.first_response_ns_p50.median() / 1e6
waits_ms.unstack().astype(float).round(2).rename_axis(columns="first answer, ms")

# %% [markdown]
# ## Can it be trusted?
# Trials that must not be used, with the reason; then the log ratios in the order in which they were measured. A
# slope there would mean that the machine changed while it was measured, and that the figures are about the
# machine.

# %%
run.trials.loc[run.trials.verdict != "valid", ["trial", "contender", "operation", "concurrency", "verdict_reason"]]

# %%
plots.pairs(run.trials)
