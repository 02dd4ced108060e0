"""One server under test as a process: started, observed, and ended with everything it ever started.

A `ServerProcess` starts a manifest's command under a keeper (see `tftpbench.launch`), returns from `start` only when
the server has been seen to answer, tells what it uses, and ends it for certain. It never sleeps in the hope
that something is ready by then, never names a server, and prints nothing. Called by the runner and by the public API.

    keeper.py     the harness's end of the keeper: start, messages, stop
    ready.py      has it answered, and was it really this server?
    sockets.py    which UDP sockets belong to a process, their buffers and drops
    usage.py      CPU, memory, threads, descriptors: one look, or maxima over a trial
"""

from tftpbench.process.keeper import Ended
from tftpbench.process.server import READY_TIMEOUT_S, STOP_GRACE_S, Buffers, ServerProcess
from tftpbench.process.usage import Sampler, Samples, Usage

__all__ = ["READY_TIMEOUT_S", "STOP_GRACE_S", "Buffers", "Ended", "Sampler", "Samples", "ServerProcess", "Usage"]
