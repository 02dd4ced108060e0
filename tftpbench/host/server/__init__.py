"""One server under test as a process: started, observed, and ended with everything it ever started.

A `ServerProcess` starts a manifest's command under a supervisor, returns from `start` only when the server has been
seen to answer, tells what it uses, and ends it for certain. It never sleeps in the hope that something is ready by
then, never names a server, and prints nothing.

    process.py           one fresh server, from its command to its certain end
    supervisor.py        the process above a server: starts it, watches it, ends it
    client.py            the harness's end of a supervisor: start, messages, stop, CPU time and context switches
    readiness.py         has it answered, and was it really this server?
    external.py          a running server, which was not started here
    sockets.py           which UDP sockets belong to a process, their buffers and drops
    uploads.py           uploads that a server keeps in memory, mapped here too
    messages.py          requests as bytes, ERRORs in words
    plain_client.py      a plain client: the copy of a running server's file
    usage.py             one look at all that it uses, and the most of many
    sampler.py           readings where a measured window opens and closes, and looks while a load runs
    temporary_folder.py  a temporary folder that is gone even after kill -9
    remover.py           the process that removes it
"""

from tftpbench.host.server.client import Ended
from tftpbench.host.server.external import RunningServer
from tftpbench.host.server.messages import Options, request
from tftpbench.host.server.plain_client import (
    COPY_BYTES_MAX,
    TRIES,
    CopyFailed,
    NothingListens,
    Refused,
    describe_options,
    download,
)
from tftpbench.host.server.process import READY_TIMEOUT_S, STOP_GRACE_S, Buffers, NoNetwork, ServerProcess
from tftpbench.host.server.readiness import PortTaken, answers, is_taken
from tftpbench.host.server.sampler import EdgeReader, Sampler
from tftpbench.host.server.sockets import UdpCounts, program_at, udp_drops_host, udp_strays_host
from tftpbench.host.server.temporary_folder import TemporaryFolder
from tftpbench.host.server.uploads import Handover, Upload
from tftpbench.host.server.usage import Samples, Usage

__all__ = [
    "COPY_BYTES_MAX",
    "READY_TIMEOUT_S",
    "STOP_GRACE_S",
    "TRIES",
    "Buffers",
    "CopyFailed",
    "EdgeReader",
    "Ended",
    "Handover",
    "NoNetwork",
    "NothingListens",
    "Options",
    "PortTaken",
    "Refused",
    "RunningServer",
    "Sampler",
    "Samples",
    "ServerProcess",
    "TemporaryFolder",
    "UdpCounts",
    "Upload",
    "Usage",
    "answers",
    "describe_options",
    "download",
    "is_taken",
    "program_at",
    "request",
    "udp_drops_host",
    "udp_strays_host",
]
