"""What base and head may be, and the manifests that follow; nothing is started."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.builders import contender, scenario
from tftpbench.gate.result import Side
from tftpbench.gate.sides import describe, refuse_unfit, side, takes_like
from tftpbench.host.presence import Found, locate
from tftpbench.measure import Contender
from tftpbench.model.errors import ManifestError, ServerMissing, UsageError
from tftpbench.model.manifest import Manifest, load_manifest

TEXT = """\
schema: tftpbench.server/1
name: mine
homepage: https://example.org
license: MIT
model: one thread
capabilities: {operations: [read], options: [blksize]}
argv: ["{program}", "--port={port}", "{root}"]
find: {program: ./tftpd}
get: ask for it
variants:
  spinning: {argv: ["{program}", "--spin", "{port}", "{root}"], busy_polls: true}
  scripted: {argv: [node, "{port}", "{root}"]}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A manifest, its program beside it, and another build of that elsewhere."""
    (tmp_path / "server.yaml").write_text(TEXT, encoding="utf-8")
    (tmp_path / "new").mkdir()
    for path in (tmp_path / "tftpd", tmp_path / "new/tftpd"):
        program(path)
    return tmp_path / "server.yaml"


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


def manifest(of: Contender) -> Manifest:
    assert isinstance(of.server, Manifest)
    return of.server


def command(of: Contender) -> list[str]:
    return manifest(of).command("127.0.0.2", 4069, "/srv", 116, write=False, variant=of.variant)


def test_a_manifest_is_chosen_by_name_path_folder_and_variant(mine: Path) -> None:
    assert side("threads").name == "threads"
    assert side("epoll@unbatched").name == "epoll@unbatched"
    for entry in (str(mine), str(mine.parent)):
        assert command(side(entry)) == [f"{mine.parent}/tftpd", "--port=4069", "/srv"]


def test_two_sides_may_be_the_same_manifest() -> None:
    assert side("threads").name == side("threads").name


@pytest.mark.parametrize("entry", ["tftp://127.0.0.1:69/boot.0", "tftp://127.0.0.1:{port}"])
def test_a_server_that_runs_already_is_refused(entry: str) -> None:
    with pytest.raises(ManifestError, match=r"the gate starts its servers itself; allowed: a manifest's name"):
        side(entry)


def test_an_executable_takes_the_place_of_its_manifests_program(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = mine.parent / "new/tftpd"
    assert command(side(str(new), str(mine)))[0] == str(new)
    monkeypatch.chdir(mine.parent)
    assert command(side("new/tftpd", "server.yaml"))[0] == str(new), "and where tftpbench is run, it does not matter"
    monkeypatch.setenv("PATH", str(new.parent))
    assert command(side("tftpd", "server.yaml"))[0] == str(new)


def test_a_link_to_an_executable_stays_a_link(mine: Path) -> None:
    """A python in an environment is one, and what it leads to knows nothing of the environment."""
    link = mine.parent / "link"
    link.symlink_to(mine.parent / "new/tftpd")
    assert command(side(str(link), str(mine)))[0] == str(link)


def test_a_python_takes_the_place_of_the_one_that_would_be_found(tmp_path: Path) -> None:
    python = program(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    found = side(str(python), "threads@as_shipped")
    assert (found.name, command(found)[0]) == ("threads@as_shipped", str(python))
    assert isinstance(found.found, Found)
    assert (found.found.executable, found.found.version[:10]) == (str(python), "tftpbench ")


def test_an_executable_alone_is_refused_with_what_to_add(mine: Path) -> None:
    with pytest.raises(UsageError, match=r"new/tftpd: is an executable, .*; add --as NAME"):
        side(str(mine.parent / "new/tftpd"))


@pytest.mark.parametrize("entry", ["threads", "server.yaml", "absent/tftpd", "new"])
def test_what_is_no_executable_is_not_started_as_something(
    mine: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(mine.parent)
    with pytest.raises(UsageError, match="is no executable file, so it can't be started as mine"):
        side(entry, "mine")


def test_an_executable_that_its_manifest_would_not_start_is_refused(mine: Path) -> None:
    with pytest.raises(ManifestError, match=r"the command in .* has no \{program\}, so .*new/tftpd would not be"):
        side(str(mine.parent / "new/tftpd"), f"{mine}@scripted")


@pytest.mark.parametrize("like", ["unheard-of", "threads@fast", "tftp://127.0.0.1:69"])
def test_a_wrong_as_is_a_manifest_error(mine: Path, like: str) -> None:
    with pytest.raises(ManifestError, match="allowed"):
        side(str(mine.parent / "new/tftpd"), like)


def test_only_an_executable_takes_an_as(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert takes_like(str(mine.parent / "new/tftpd"))
    program(mine.parent / "threads")
    monkeypatch.setenv("PATH", str(mine.parent))
    no = ["threads", "threads@as_shipped", str(mine), str(mine.parent), "tftpd {port} {root}", "absent", "tftp://[::1]"]
    assert [entry for entry in no if takes_like(entry)] == []


def test_a_command_becomes_a_server_of_its_programs_name(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine.parent)
    found = side("new/tftpd --listen '{host} {port}' --max {concurrency} {root}")
    assert (found.name, found.variant) == ("tftpd", None)
    assert command(found) == [f"{mine.parent}/new/tftpd", "--listen", "127.0.0.2 4069", "--max", "116", "/srv"]
    assert manifest(found).cannot("write", 1428, 16, options=("tsize", "timeout", "rollover")) is None
    assert manifest(found).cannot(ipv6=True) == "has no IPv6"


@pytest.mark.parametrize(
    ("called", "name"),
    [("TFTP Server (new).bin", "tftp-server-new-bin"), ("x" * 60, "x" * 40), ("_-", "server"), ("+é+", "server")],
)
def test_any_program_has_a_name_that_results_can_bear(tmp_path: Path, called: str, name: str) -> None:
    path = program(tmp_path / called)
    found = side(f"'{path}' {{port}} {{root}}")
    assert (found.name, command(found)[0]) == (name, str(path))


def test_a_command_is_looked_for_in_path_before_fetched_servers(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = mine.parent / "peers/tftpd/bin"
    fetched.mkdir(parents=True)
    program(fetched / "tftpd")
    monkeypatch.setenv("TFTPBENCH_PEERS", str(mine.parent / "peers"))
    monkeypatch.setenv("PATH", str(mine.parent / "new"))
    assert command(side("tftpd {port} {root}"))[0] == str(mine.parent / "new/tftpd")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("sh -p {port}", r"argv: has no \{root\}, so the server can't know which files to serve"),
        ("sh {port} {root} {prt}", r"argv: has the placeholder \{prt\}; did you mean 'port'\?"),
        ("sh '{port} {root}", "can't be split into words: no closing quotation"),
        ("{python} -m x {port} {root}", r"starts with \{python\}; allowed: a program in PATH"),
        ("sh --root {root}", r"as a command it has no \{port\}; allowed: a manifest's name, .* with --as NAME; or"),
        ("'' {port} {root}", "find.program: is ''; allowed: the name or path of a program"),
        ("thraeds", "no server is called 'thraeds'; did you mean 'threads'?.* or an executable with --as NAME"),
        ("absent/server.yaml", "there is no such file"),
        ("threads@fast", "threads has no variant 'fast'; allowed: threads@as_shipped"),
    ],
)
def test_an_unclear_entry_is_one_line_that_says_what_is_allowed(entry: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        side(entry)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("entry", ["absent-tftpd {port} {root}", "/nowhere/absent-tftpd {port} {root}"])
def test_a_command_whose_program_is_not_here_is_missing(entry: str) -> None:
    with pytest.raises(ServerMissing, match=r"^absent-tftpd: .*absent-tftpd was not found; get it: install it, or"):
        side(entry)


def test_a_manifest_whose_server_is_not_here_says_how_to_get_it(mine: Path) -> None:
    (mine.parent / "tftpd").unlink()
    with pytest.raises(ServerMissing, match=r"^mine: \./tftpd was not found; get it: ask for it$"):
        side(str(mine))


@pytest.mark.parametrize("absent", [True, False])
def test_a_server_that_never_sleeps_is_refused(mine: Path, absent: bool) -> None:
    if absent:
        (mine.parent / "tftpd").unlink()
    with pytest.raises(UsageError, match=r"^mine@spinning: polls without ever sleeping, so its CPU time says nothing"):
        side(f"{mine}@spinning")


def test_a_side_is_described_as_it_was_typed_and_found(mine: Path) -> None:
    found = replace(side(str(mine)), found=Found("mine 1.2", "/bin/mine"))
    argv = ("{program}", "--port={port}", "{root}")
    assert describe(found, "./x") == Side("./x", "mine", "mine 1.2", argv, "one thread")
    shipped = side("threads@as_shipped")
    assert "--max-transfers" not in describe(shipped, "threads@as_shipped").argv


def test_sides_that_can_do_all_cells_are_let_through() -> None:
    refuse_unfit(contender("one"), contender("two"), scenario().cells())


def test_a_cell_that_a_side_can_not_do_names_both() -> None:
    cells = scenario(matrix={"operation": ["read"], "concurrency": [10], "file_size": 1024, "windowsize": [1, 4]})
    able = contender("one", options=["windowsize"])
    with pytest.raises(
        UsageError, match=r"^head \(two\) does not know windowsize, which the cell 'read, 10 .* windowsize 4' needs; "
    ):
        refuse_unfit(able, contender("two"), cells.cells())
    with pytest.raises(UsageError, match=r"^base \(two\) does not know windowsize"):
        refuse_unfit(contender("two"), able, cells.cells())


def test_what_clients_ask_for_beside_is_needed_too() -> None:
    asked = scenario(client={"tsize": True}).cells()
    with pytest.raises(UsageError, match=r"^base \(one\) does not know tsize"):
        refuse_unfit(contender("one"), contender("two"), asked)


def test_another_executable_leaves_the_manifest_as_it_was(mine: Path) -> None:
    old = load_manifest(mine)
    new = old.with_executable(mine.parent / "new/tftpd")
    assert old.command("h", 1, "/r", 9, write=False)[0] == f"{mine.parent}/tftpd"
    assert locate(new) == Found("unknown", str(mine.parent / "new/tftpd"))
    assert (new.source, new.name) == (old.source, old.name)


def test_an_executable_that_is_gone_is_missing_and_never_another(mine: Path) -> None:
    gone = load_manifest(mine).with_executable(mine.parent / "absent")
    assert not isinstance(locate(gone), Found)


def test_a_wrapper_comes_before_the_command_and_the_outermost_first(mine: Path) -> None:
    old = load_manifest(mine)
    inner = old.wrapped(["strace", "-f"])
    outer = inner.wrapped(["nice"])
    words = [f"{mine.parent}/tftpd", "--port=1", "/r"]
    assert old.command("h", 1, "/r", 9, write=False) == words
    assert inner.command("h", 1, "/r", 9, write=False) == ["strace", "-f", *words]
    assert outer.command("h", 1, "/r", 9, write=False) == ["nice", "strace", "-f", *words]
    assert outer.command("h", 1, "/r", 9, write=False, handover=7) == ["nice", "strace", "-f", *words]
    assert outer.argv_of(None) == old.argv_of(None), "results show the server's own command"


def test_a_wrapper_and_an_executable_go_together(mine: Path) -> None:
    new = mine.parent / "new/tftpd"
    wrapped = load_manifest(mine).with_executable(new).wrapped(["nice"])
    assert wrapped.command("h", 1, "/r", 9, write=False)[:2] == ["nice", str(new)]


def test_more_variables_are_added_to_a_copy_and_win(mine: Path) -> None:
    mine.write_text(TEXT + 'env: {KEPT: "{port}", CHANGED: old}\n')
    old = load_manifest(mine)
    new = old.with_executable(mine.parent / "new/tftpd").with_env({"CHANGED": "new", "ROOT": "{root}"})
    assert new.environment("h", 1, "/r", 9) == {"KEPT": "1", "CHANGED": "new", "ROOT": "/r"}
    assert old.environment("h", 1, "/r", 9) == {"KEPT": "1", "CHANGED": "old"}
    assert new.command("h", 1, "/r", 9, write=False)[0] == str(mine.parent / "new/tftpd")
