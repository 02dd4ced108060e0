"""The entry of a bundled server: options in, one frozen configuration out."""

import inspect
import os
import re
import resource
from dataclasses import fields, replace
from typing import Any

import pytest

from tftpbench import _core, cli, serve
from tftpbench.serve import ServeConfig


def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, ServeConfig]:
    seen: list[tuple[str, ServeConfig]] = []
    monkeypatch.setattr(serve, "serve", lambda name, config, *_: seen.append((name, config)))
    assert serve.main(arguments) == 0
    return seen[0]


def test_only_the_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(monkeypatch, "epoll", "--root", "/srv") == ("epoll", ServeConfig(root="/srv"))


def test_every_option_reaches_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (
        "threads --root /srv --host ::1 --port 6969 --max-transfers 7 --write --overwrite --store memory "
        "--memory-max 9 --blksize-max 1428 --windowsize-max 16 --window-max 9000 --timeout 0.5 --retries 2 "
        "--busy-poll 50 --grace 1.5 "
        "--sockets per-transfer --batch 1 --workers 2 "
        "--log-packets --receive-buffer 1000 --send-buffer 2000"
    )
    _, config = served(monkeypatch, *text.split())
    assert config == ServeConfig(
        root="/srv",
        host="::1",
        port=6969,
        max_transfers=7,
        write=True,
        overwrite=True,
        store="memory",
        memory_max_bytes=9,
        blksize_max=1428,
        windowsize_max=16,
        window_max_bytes=9000,
        timeout_s=0.5,
        retries=2,
        busy_poll_us=50,
        sockets="per-transfer",
        batch=1,
        workers=2,
        grace_s=1.5,
        log_packets=True,
        receive_buffer_bytes=1000,
        send_buffer_bytes=2000,
    )
    assert all(getattr(config, each.name) != each.default for each in fields(config)), "an option was left untested"


def test_what_the_system_refuses_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(serve, "serve", refuse)
    assert serve.main(["epoll", "--root", "/srv"]) == 2
    assert re.fullmatch(r"tftpbench: error: epoll: .*Address already in use\n", capsys.readouterr().err)


def test_tftpbench_serve_has_the_same_options() -> None:
    options = set(inspect.signature(cli.serve.serve).parameters) - {"name"}
    assert options == {serve._option(each.name).replace("-", "_") for each in fields(ServeConfig)}


def limited(monkeypatch: pytest.MonkeyPatch, files: int, threads: int = resource.RLIM_INFINITY) -> None:
    hard = {resource.RLIMIT_NOFILE: files, resource.RLIMIT_NPROC: threads}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, hard[kind]))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def test_a_server_that_is_not_told_takes_what_the_limits_allow_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def room(name: str, **options: Any) -> int:
        config = ServeConfig(root="/srv", **options)
        transfers = serve.default_max_transfers(name, config)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        needed = [_core.open_files(name, replace(config, max_transfers=transfers + more)) for more in (0, 1)]
        assert files < 0 or needed[0] <= files, "the server would refuse this"
        assert files < 0 or needed[1] > files or transfers == serve.MAX_TRANSFERS[name], "one more fits"
        return transfers

    for files in (1 << 20, resource.RLIM_INFINITY):
        limited(monkeypatch, files)
        assert (room("epoll"), room("threads")) == (16384, 4096)
    assert capsys.readouterr().err == ""
    limited(monkeypatch, 256)
    assert 100 < room("epoll") < 256
    said = capsys.readouterr().err
    assert re.fullmatch(
        r"tftpbench: epoll: room for \d+ transfers at once, not 16384: "
        r"the limit is 256 open files \(ulimit -Hn \d+\)\n",
        said,
    )
    assert (room("threads"), room("epoll", sockets="per-transfer")) == (94, 62)
    limited(monkeypatch, 4096)
    assert room("epoll") > 3800
    assert room("epoll", workers=64) < room("epoll", workers=2)


def test_a_limit_of_threads_bounds_the_server_of_threads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limited(monkeypatch, 1 << 20, threads=100)
    assert serve.default_max_transfers("threads", ServeConfig(root="/srv")) == 92
    assert (
        "room for 92 transfers at once, not 4096: the limit is 100 threads (ulimit -u 4104" in capsys.readouterr().err
    )
    assert serve.default_max_transfers("epoll", ServeConfig(root="/srv")) == 16384


@pytest.mark.parametrize(
    ("name", "files", "workers", "mend"),
    [
        ("epoll", 80, 1, "--max-transfers 5"),
        ("threads", 80, 1, "--max-transfers 6"),
        ("epoll", 256, 100, "fewer --workers"),
        ("epoll", 3, 1, "fewer --workers"),
    ],
)
def test_a_server_that_has_room_for_a_few_transfers_alone_does_not_start(
    monkeypatch: pytest.MonkeyPatch, name: str, files: int, workers: int, mend: str
) -> None:
    limited(monkeypatch, files)
    with pytest.raises(
        OSError, match=r"the limit of \d+ open files leaves room for \d transfers .*ulimit -Hn"
    ) as error:
        serve.default_max_transfers(name, ServeConfig(root="/srv", workers=workers))
    assert mend in str(error.value)
    assert "\n" not in str(error.value)
