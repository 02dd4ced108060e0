"""The entry of a bundled server: options in, one frozen configuration out."""

import inspect
import re
import resource
from dataclasses import fields

import pytest

from tftpbench import cli, serve
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
        "--memory-max 9 --blksize-max 1428 --windowsize-max 16 --window-max 9000 --timeout 0.5 --retries 2 --busy-poll 50 "
        "--grace 1.5 "
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


def test_a_server_that_is_not_told_takes_what_the_open_files_allow(monkeypatch: pytest.MonkeyPatch) -> None:
    def limit(hard: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, hard))

    limit(1 << 20)
    assert (serve.default_max_transfers("epoll"), serve.default_max_transfers("threads")) == (16384, 4096)
    limit(4096)
    assert (serve.default_max_transfers("epoll"), serve.default_max_transfers("threads")) == (3840, 1920)
    assert serve.default_max_transfers("epoll", sockets="per-transfer", workers=2) == 1278
    limit(-1)
    assert serve.default_max_transfers("epoll") == 16384
