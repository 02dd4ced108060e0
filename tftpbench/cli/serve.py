"""``tftpbench serve``: a bundled server in the foreground."""

from pathlib import Path
from typing import Annotated

import typer

from tftpbench.serve import (
    BATCH,
    GRACE_S,
    MEMORY_MAX_BYTES,
    RECEIVE_BUFFER_BYTES,
    RETRIES,
    TIMEOUT_S,
    WINDOW_MAX_BYTES,
    WINDOWSIZE_MAX,
)


def serve(
    name: Annotated[str, typer.Argument(metavar="epoll|threads", help="Which bundled server.")],
    root: Annotated[Path, typer.Option(help="Folder to serve; nothing outside it is ever reachable.")],
    host: Annotated[
        str, typer.Option(help="Address to bind; 0.0.0.0 or :: for all, fe80::1%eth0 for a link.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to bind; 0 picks a free one.")] = 69,
    write: Annotated[bool, typer.Option("--write", help="Allow uploads.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Allow uploads to replace existing files.")] = False,
    store: Annotated[str, typer.Option(help="disk, or memory: uploads are never written.")] = "disk",
    memory_max: Annotated[
        int, typer.Option(min=0, help="Bytes that the memory store may take, the cost of each file included.")
    ] = MEMORY_MAX_BYTES,
    max_transfers: Annotated[
        int,
        typer.Option(min=0, help="Transfers at once, 0 for 16384 (epoll) or 4096 (threads); more get an ERROR."),
    ] = 0,
    blksize_max: Annotated[int, typer.Option(min=8, max=65464, help="Largest blksize granted.")] = 65464,
    windowsize_max: Annotated[
        int, typer.Option(min=1, max=65535, help="Largest windowsize granted; see --window-max.")
    ] = WINDOWSIZE_MAX,
    window_max: Annotated[
        int, typer.Option(min=8, max=4294967295, help="Largest window granted, in bytes: windowsize times blksize.")
    ] = WINDOW_MAX_BYTES,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until the first retransmission.")] = TIMEOUT_S,
    retries: Annotated[
        int, typer.Option(min=0, help="Timeouts without progress before a transfer is given up.")
    ] = RETRIES,
    busy_poll: Annotated[int, typer.Option(min=0, help="Microseconds to poll before sleeping.")] = 0,
    sockets: Annotated[
        str, typer.Option(metavar="shared|per-transfer", help="epoll only: a few for all transfers, or one each.")
    ] = "shared",
    batch: Annotated[
        int, typer.Option(min=1, max=64, help="epoll only: messages to a system call; 1: a call for each datagram.")
    ] = BATCH,
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="epoll only: threads, each with a loop and sockets of its own.")
    ] = 1,
    grace: Annotated[float, typer.Option(min=0, help="Seconds for transfers in flight after SIGTERM.")] = GRACE_S,
    log_packets: Annotated[bool, typer.Option("--log-packets", help="Print every datagram, with a hex dump.")] = False,
    receive_buffer: Annotated[
        int, typer.Option(min=0, help="Socket receive buffer in bytes; 0: the kernel's.")
    ] = RECEIVE_BUFFER_BYTES,
    send_buffer: Annotated[int, typer.Option(min=0, help="Socket send buffer in bytes; 0: the kernel's.")] = 0,
) -> int:
    """Serve a folder until Ctrl-C or SIGTERM; prints READY host port pid."""
    from tftpbench.model.errors import UsageError
    from tftpbench.serve import ServeConfig, announce
    from tftpbench.serve import serve as serve_until_stopped

    config = ServeConfig(
        root=str(root),
        host=host,
        port=port,
        max_transfers=max_transfers,
        write=write,
        overwrite=overwrite,
        store=store,
        memory_max_bytes=memory_max,
        blksize_max=blksize_max,
        windowsize_max=windowsize_max,
        window_max_bytes=window_max,
        timeout_s=timeout,
        retries=retries,
        busy_poll_us=busy_poll,
        sockets=sockets,
        batch=batch,
        workers=workers,
        grace_s=grace,
        log_packets=log_packets,
        receive_buffer_bytes=receive_buffer,
        send_buffer_bytes=send_buffer,
    )
    try:
        counters = serve_until_stopped(name, config, announce)
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {error}") from error
    if said := ", ".join(f"{counter} {value}" for counter, value in counters.items() if value):
        typer.echo(said, err=True)
    return 0
