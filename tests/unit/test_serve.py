"""The entry of a bundled server: options in, one frozen configuration out."""

import os
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest

from tftpbench import _core, cli, serve
from tftpbench.host.choice import bundled_manifests
from tftpbench.serve import ServeConfig


def served(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[str, ServeConfig]:
    seen: list[tuple[str, ServeConfig]] = []
    monkeypatch.setattr(serve, "serve", lambda name, config, *_: seen.append((name, config)))
    assert serve.main(arguments) == 0
    return seen[0]


def test_only_the_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert served(monkeypatch, "epoll", "--root", "/srv") == ("epoll", ServeConfig(root="/srv"))


def test_defaults_are_those_of_the_native_half() -> None:
    """But for max_transfers, which is chosen by the server and the machine."""
    ours = {each.name: each.default for each in fields(ServeConfig) if each.name not in ("root", "max_transfers")}
    assert _core.serve_defaults() == ours


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


def test_tftpbench_serve_hands_its_words_on_and_takes_port_69(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, ServeConfig]] = []

    def remember(name: str, config: ServeConfig, *_: object) -> dict[str, int]:
        seen.append((name, config))
        return {"completed": 2, "failed": 0}

    monkeypatch.setattr(serve, "serve", remember)
    assert cli.exit_code(["serve", "threads", "--root", "/srv", "--write", "--retries", "2"]) == 0
    assert cli.exit_code(["serve", "--port=0", "epoll", "--root=/srv"]) == 0
    assert seen == [
        ("threads", ServeConfig(root="/srv", port=69, write=True, retries=2)),
        ("epoll", ServeConfig(root="/srv")),
    ]
    assert capsys.readouterr() == ("", 2 * "completed 2\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--root /srv", "{name} needs epoll|threads; see: {program} --help"),
        ("epoll --root /srv --bogus", "{name} has no option --bogus; see: {program} --help"),
        ("epoll --root /srv --port", "--port needs a value"),
        ("epoll --root /srv --port x", "--port is 'x'; allowed: a whole number, 0 to 65535"),
        ("epoll --root /srv --port 65536", "--port is '65536'; allowed: a whole number, 0 to 65535"),
        (
            "epoll --root /srv --timeout nan",
            "--timeout is 'nan'; allowed: 1ms or more, as in 500ms",
        ),
        ("epoll --root /srv --window-max 7B", "--window-max is '7B'; allowed: {window}, as in 64KiB"),
        ("epoll --root /srv --store tape", "--store is 'tape'; allowed: disk, memory"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    entries: dict[str, Callable[[list[str]], int]] = {
        "python -m tftpbench.serve": serve.main,
        "tftpbench serve": lambda words: cli.exit_code(["serve", *words]),
    }
    for program, entry in entries.items():
        name, window = program.removeprefix("tftpbench "), "8B to 4294967295B"
        line = f"tftpbench: error: {said.format(program=program, name=name, window=window)}\n"
        assert (entry(words.split()), *capsys.readouterr()) == (2, "", line)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("epol --root /srv", "no bundled server is called 'epol'; did you mean 'epoll'?"),
        ("epoll --root /srv --por 1", "serve has no option --por; did you mean '--port'?"),
    ],
)
def test_a_misspelt_word_is_asked_about(capsys: pytest.CaptureFixture[str], words: str, said: str) -> None:
    assert (cli.exit_code(["serve", *words.split()]), capsys.readouterr().err) == (2, f"tftpbench: error: {said}\n")


def test_times_and_sizes_have_units_and_a_number_alone_means_what_it_did() -> None:
    def config(words: str) -> ServeConfig:
        parsed = vars(serve._parser("x", 0).parse_args(["epoll", "--root", "/srv", *words.split()]))
        return ServeConfig(**{name: value for name, value in parsed.items() if name not in {"name", "handover"}})

    typed = config("--timeout 1.5s --grace 2min --busy-poll 2ms --window-max 1.5KiB --memory-max 1GiB")
    assert typed == config("--timeout 1.5 --grace 120 --busy-poll 2000 --window-max 1536 --memory-max 1073741824")
    assert (typed.timeout_s, typed.busy_poll_us, typed.window_max_bytes) == (1.5, 2000, 1536)


def options() -> Iterator[tuple[str, serve.Option, Any]]:
    """Name as typed, description, and default of every option; None where there is no default."""
    for each in fields(ServeConfig):
        yield serve.option_name(each.name), each.metadata["option"], None if each.default is MISSING else each.default


def rows() -> list[str]:
    """The table of options in docs/serve.md, as it must be."""
    lines = []
    for name, option, default in options():
        words = f"{name} {option.metavar}" if not isinstance(default, bool) else name
        value = (
            "none, it is required" if default is None else "off" if default is False else f"`{option.shown(default)}`"
        )
        words = words.replace("|", "\\|")  # else it is a column
        lines.append(f"| `{words}` | {'`69`' if name == '--port' else value} |")
    return lines


def test_every_option_and_default_is_in_the_help_and_in_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs/serve.md").read_text(encoding="utf-8")
    assert "\n".join(rows()) in page, "renew it:\n" + "\n".join(rows())
    assert f"| blocks in a window | {ServeConfig.windowsize_max} |" in page
    assert f"| {ServeConfig.window_max_bytes >> 10} KiB |" in page
    assert f"`--memory-max` bytes ({ServeConfig.memory_max_bytes >> 30} GiB by default)" in page
    for name, transfers in serve.MAX_TRANSFERS.items():
        limits = " ".join(bundled_manifests()[name].caps.values())
        assert f"{transfers} at once by default" in limits
        assert f"at most {ServeConfig.windowsize_max} blocks and {ServeConfig.window_max_bytes >> 10} KiB" in limits
    assert "serves {epoll:,} (epoll) or {threads:,} (threads) transfers".format(**serve.MAX_TRANSFERS) in page
    assert cli.exit_code(["serve", "epoll", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for name, option, default in options():
        assert f" {name} {option.metavar} " in said or (f" {name} " in said and isinstance(default, bool))
        assert default in (None, False) or f"default: {69 if name == '--port' else option.shown(default)}" in said


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
