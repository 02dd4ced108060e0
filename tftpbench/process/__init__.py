"""One server under test as a process: started, observed, and ended with everything it ever started.

A `ServerProcess` starts a manifest's command under a keeper (see `tftpbench.launch`), returns from `start` only when
the server has been seen to answer, tells what it uses, and ends it for certain. It never sleeps in the hope
that something is ready by then, never names a server, and prints nothing. Called by the runner and by the public API.

    keeper.py     the harness's end of the keeper: start, messages, stop
    ready.py      has it answered, and was it really this server?
    sockets.py    which UDP sockets belong to a process, their buffers and drops
    handover.py   uploads that a server keeps in memory, mapped here too
    running.py    a server that somebody else started
    request.py    requests as bytes, ERRORs in words
    download.py   a plain client: the copy of a running server's file
    counter.py    CPU time and context switches over every process that ever was
    folder.py     a temporary folder that is gone even after kill -9
    usage.py      one look at all that it uses, and the most of many
    sampler.py    looks while a load runs, for less than 1 % of a core
"""

from tftpbench.process.download import CopyFailed, describe_options, download
from tftpbench.process.folder import TemporaryFolder
from tftpbench.process.handover import Handover, Upload
from tftpbench.process.keeper import Ended
from tftpbench.process.ready import answers
from tftpbench.process.request import Options, request
from tftpbench.process.running import RunningServer
from tftpbench.process.sampler import Sampler
from tftpbench.process.server import READY_TIMEOUT_S, STOP_GRACE_S, Buffers, ServerProcess
from tftpbench.process.sockets import udp_drops_host
from tftpbench.process.usage import Samples, Usage

__all__ = [
    "READY_TIMEOUT_S",
    "STOP_GRACE_S",
    "Buffers",
    "CopyFailed",
    "Ended",
    "Handover",
    "Options",
    "RunningServer",
    "Sampler",
    "Samples",
    "ServerProcess",
    "TemporaryFolder",
    "Upload",
    "Usage",
    "answers",
    "describe_options",
    "download",
    "request",
    "udp_drops_host",
]
