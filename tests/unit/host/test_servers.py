"""Manifests: what is read, what a lie gives, and how a server is found, fetched and started."""

import errno
import importlib.metadata
import os
import re
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from tftpbench.cli.servers import _fetch as fetch_servers
from tftpbench.host import fetch, presence
from tftpbench.host.choice import bundled_manifests, choose
from tftpbench.host.network.broker import Refused
from tftpbench.host.presence import Found, Missing, locate
from tftpbench.host.server.readiness import HERE, Place, wait_for_line
from tftpbench.host.server.sockets import UdpSocket
from tftpbench.host.target import Target, target_entries
from tftpbench.model.errors import FetchError, ManifestError, ServerNotReady, UsageError
from tftpbench.model.manifest import Fetch, Manifest, load_manifest

TEXT = """\
schema: tftpbench.server/1
name: mine
homepage: https://example.org
license: MIT
model: one thread
capabilities: {operations: [read], options: [blksize]}
argv: ["{python}", "{folder}/serve.py", "{host}", "{port}", "{root}", "--max={concurrency}"]
argv_write: ["--write"]
find: {python_module: json}
version: ["{python}", "-c", "print(); print('mine 1.2'); print('more')"]
get: pip install mine
"""


def load(folder: Path, old: str = "", new: str = "") -> Manifest:
    assert old in TEXT
    (folder / "server.yaml").write_text(TEXT.replace(old, new) if old else TEXT, encoding="utf-8")
    return load_manifest(folder / "server.yaml")


def test_a_command_has_its_places_filled_and_words_for_writing_added(tmp_path: Path) -> None:
    manifest = load(tmp_path)
    command = manifest.command("127.0.0.1", 4069, Path("/srv/{x}"), 116, write=False)
    assert command == [sys.executable, f"{tmp_path}/serve.py", "127.0.0.1", "4069", "/srv/{x}", "--max=116"]
    assert manifest.command("127.0.0.1", 4069, "/srv", 116, write=True)[-1] == "--write"
    assert manifest.source == tmp_path / "server.yaml"


def test_words_for_a_handover_are_added_with_its_descriptor(tmp_path: Path) -> None:
    manifest = load(tmp_path, "find:", 'argv_handover: ["--memory", "--to={handover}"]\nfind:')
    command = manifest.command("h", 1, "/r", 9, write=True, handover=7)
    assert command[-3:] == ["--write", "--memory", "--to=7"]
    assert manifest.command("h", 1, "/r", 9, write=True)[-1] == "--write"


def test_a_variant_replaces_the_command(tmp_path: Path) -> None:
    manifest = load(tmp_path, "get:", 'as_shipped: {argv: [mine, "{port}", "{root}"]}\nget:')
    assert manifest.command("::1", 1, "/r", 9, write=True, variant="as_shipped") == ["mine", "1", "/r", "--write"]
    with pytest.raises(ManifestError, match="has no variant 'tuned'; allowed: as_shipped"):
        manifest.command("::1", 1, "/r", 9, write=False, variant="tuned")


def test_a_manifest_may_have_any_number_of_variants_and_tells_which_busy_poll(tmp_path: Path) -> None:
    spinning = '  spinning: {argv: [spin, "{port}", "{root}"], busy_polls: true}'
    other = '  other: {argv: [other, "{port}", "{root}"]}'
    manifest = load(tmp_path, "get:", f"variants:\n{spinning}\n{other}\nget:")
    assert list(manifest.variants) == ["spinning", "other"]
    assert manifest.command("::1", 1, "/r", 9, write=False, variant="other") == ["other", "1", "/r"]
    assert [manifest.busy_polls(name) for name in (None, "spinning", "other")] == [False, True, False]
    with pytest.raises(ManifestError, match="has no variant 'tuned'; allowed: spinning, other"):
        manifest.busy_polls("tuned")
    # what is measured as it ships is no variant of its own
    assert choose(f"{tmp_path}/server.yaml@other")[1] == "other"
    assert choose(f"{tmp_path}/server.yaml@as_shipped")[1] is None


def test_a_server_that_is_there_tells_its_version(tmp_path: Path) -> None:
    assert locate(load(tmp_path)) == Found("mine 1.2", sys.executable)


def test_a_fetched_program_goes_before_one_in_path_and_a_path_starts_at_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFTPBENCH_PEERS", str(tmp_path / "peers"))
    for place in (tmp_path / "peers/mine/bin/sh", tmp_path / "build/sh"):
        place.parent.mkdir(parents=True)
        place.write_text("#!/bin/sh\n")
        place.chmod(0o755)
    fetched = load(tmp_path, "python_module: json", "program: sh")
    assert locate(fetched) == Found("mine 1.2", str(tmp_path / "peers/mine/bin/sh"))
    built = load(tmp_path, "python_module: json", "program: ./build/sh")
    assert locate(built) == Found("mine 1.2", str(tmp_path / "build/sh"))


def test_a_fetched_environment_goes_before_the_one_of_tftpbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFTPBENCH_PEERS", str(tmp_path / "peers"))
    python = tmp_path / "peers/mine/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho its own\n")
    python.chmod(0o755)
    manifest = load(tmp_path, "get:", "fetch: {pypi: [mine]}\nget:")
    assert locate(manifest) == Found("its own", str(python))
    assert manifest.command("h", 1, "/r", 1, write=False)[0] == str(python)
    comes_with_tftpbench = load(tmp_path)
    assert locate(comes_with_tftpbench) == Found("mine 1.2", sys.executable)


def test_tftpy_comes_with_tftpbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFTPBENCH_PEERS", str(tmp_path / "none"))
    version = importlib.metadata.version("tftpy")
    assert locate(bundled_manifests()["tftpy"]) == Found(f"tftpy {version}", sys.executable)


def test_variables_have_their_places_filled_too(tmp_path: Path) -> None:
    manifest = load(tmp_path, "get:", 'env: {LIMIT: "{concurrency}", PLACE: "{folder}/x"}\nget:')
    assert manifest.environment("h", 1, "/r", 9) == {"LIMIT": "9", "PLACE": f"{tmp_path}/x"}


def test_a_server_that_needs_root_is_missing_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    needy = load(tmp_path, "get:", "privileges: it changes its root directory\nget:")
    assert locate(needy) == Missing("needs root: it changes its root directory", "run tftpbench as root")
    monkeypatch.setattr(presence, "_may_bind_low_ports", lambda: False)
    monkeypatch.setattr(presence, "_first_free_port", lambda: 1024)
    low = load(tmp_path, "get:", "fixed_port: 69\nget:")
    assert locate(low) == Missing(
        "can listen on UDP port 69 only, which needs root or CAP_NET_BIND_SERVICE", "run tftpbench as root"
    )
    monkeypatch.setattr(presence, "_may_bind_low_ports", lambda: True)
    assert isinstance(locate(low), Found)


def test_a_program_is_found_by_path_and_named_in_its_command(tmp_path: Path) -> None:
    manifest = load(tmp_path, "python_module: json", "program: sh")
    manifest = load(
        tmp_path,
        "find: {python_module: json}",
        "find: {program: sh}\nas_shipped: {argv: ['{program}', '{port}', '{root}']}",
    )
    found = locate(manifest)
    assert isinstance(found, Found)
    assert manifest.command("h", 1, "/r", 1, write=False, variant="as_shipped")[0] == found.executable


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("python_module: json", "python_module: no_such.module", "Python module no_such.module was not found"),
        ("python_module: json", "program: no-such-program", "no-such-program was not found"),
        ("print(); print('mine 1.2'); print('more')", "print('oops'); exit(3)", "ended with 3, saying 'oops'"),
        ("print(); print('mine 1.2'); print('more')", "pass", "ended with 0, saying ''"),
        ('version: ["{python}"', 'version: ["/no/such/program"', "can't be run: No such file or directory"),
    ],
)
def test_a_server_that_is_not_there_says_why_and_how_to_get_it(tmp_path: Path, old: str, new: str, reason: str) -> None:
    missing = locate(load(tmp_path, old, new))
    assert isinstance(missing, Missing)
    assert reason in missing.reason
    assert "\n" not in missing.reason
    assert missing.get == "pip install mine"


def test_a_version_command_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "VERSION_TIMEOUT_S", 0.05)
    missing = locate(load(tmp_path, "print(); print('mine 1.2'); print('more')", "import signal; signal.pause()"))
    assert isinstance(missing, Missing)
    assert "did not end within 0.05 s" in missing.reason


def test_a_cell_beyond_a_server_says_what_it_lacks(tmp_path: Path) -> None:
    manifest = load(tmp_path)
    assert manifest.cannot(operation="read", blksize=1428, windowsize=1) is None
    assert manifest.cannot(operation="write") == "has no write"
    assert manifest.cannot(windowsize=4) == "does not know windowsize"
    assert manifest.cannot(options=["tsize"]) == "does not know tsize"
    assert manifest.cannot(ipv6=True) == "has no IPv6"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("model:", "modell:", "server.yaml:5:1: modell: unknown key; did you mean 'model'?"),
        ("[read]", "[reed]", "server.yaml:6:29: capabilities.operations[0]: is 'reed'; allowed: a list of read, write"),
        (
            "{port}",
            "{ports}",
            "server.yaml:7:1: argv: has the placeholder {ports}; did you mean 'port'?",
        ),
        ('"{port}", ', "", "server.yaml:7:1: argv: has no {port}; allowed: a word with {port}, or fixed_port"),
        ('"{root}", ', "", "server.yaml:7:1: argv: has no {root}, so the server can't know which files to serve; all"),
        ('["--write"]', '["{program}"]', "server.yaml:8:1: argv_write: has {program}, but find names none; allowed"),
        ('["--write"]', '["{handover}"]', "server.yaml:8:1: argv_write: has the placeholder {handover}; allowed"),
        (
            "get:",
            "argv_handover: [-m]\nget:",
            "server.yaml:11:1: argv_handover: has no {handover}; allowed: a word with",
        ),
        ("python_module: json", "", "server.yaml:9:1: find: is not clear; allowed: exactly one of program and python_"),
        ("get: pip install mine\n", "", "server.yaml:1:1: get: is missing; allowed: one line of text"),
        ("get:", "ready: soon\nget:", "server.yaml:11:1: ready: is 'soon'; allowed: line, answer"),
        ("get:", "fixed_port: 0\nget:", "server.yaml:11:1: fixed_port: is 0; allowed: 1 to 65535, or null"),
        ("name: mine", "name: My Server", "server.yaml:2:1: name: is 'My Server'; allowed: small letters, digits"),
        (
            "get:",
            "fetch: {pypi: [a], go: b}\nget:",
            "server.yaml:11:1: fetch: is not clear; allowed: exactly one of",
        ),
        (
            "get:",
            "fetch: {npm: [--evil]}\nget:",
            "server.yaml:11:15: fetch.npm[0]: is '--evil'; allowed: a list of",
        ),
        (
            "get:",
            "variants: {Big: {argv: [a]}}\nget:",
            "server.yaml:11:12: variants.Big.[key]: is 'Big'; allowed: String should match pattern '^[a-z_]+$'",
        ),
        (
            "get:",
            "variants: {as_shipped: {argv: [a, '{port}', '{root}']}}\nget:",
            "server.yaml:11:12: variants.as_shipped: is a key of its own; allowed: as_shipped beside variants",
        ),
        (
            "get:",
            "variants: {big: {argv: [a, '{root}']}}\nget:",
            "server.yaml:11:18: variants.big.argv: has no {port}; allowed: a word with {port}, or fixed_port",
        ),
        (
            "get:",
            "variants: {big: {argv: [a, '{port}', '{root}'], busy_polls: 1}}\nget:",
            "server.yaml:11:49: variants.big.busy_polls: is 1; allowed: true, false",
        ),
        ("server/1", "server/2", "server.yaml:1:1: schema: is 'tftpbench.server/2'; allowed: tftpbench.server/1"),
    ],
)
def test_a_manifest_that_lies_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ManifestError) as error:
        load(tmp_path, old, new)
    assert str(error.value).removeprefix(f"{tmp_path}/").startswith(said)
    assert "\n" not in str(error.value)


def test_a_manifest_tells_all_its_mistakes_a_line_each(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as error:
        load(tmp_path, "get:", "capabilites: 3\nready: soon\nenv: {A: '{pyton}'}\nfetch: {debian: []}\nget:")
    assert [line.removeprefix(f"{tmp_path}/").partition(";")[0] for line in str(error.value).splitlines()] == [
        "server.yaml:11:1: capabilites: unknown key",
        "server.yaml:12:1: ready: is 'soon'",
        "server.yaml:13:1: env: has the placeholder {pyton}",
        "server.yaml:14:9: fetch.debian: is []",
    ]


@pytest.mark.parametrize("name", sorted(bundled_manifests()))
def test_no_command_of_a_server_throws_its_standard_error_away(name: str) -> None:
    manifest = bundled_manifests()[name]
    commands = [manifest.argv, *(variant.argv for variant in manifest.variants.values())]
    launchers = [path.read_text(encoding="utf-8") for path in manifest.source.parent.glob("launch.*")]
    for text in (*map(" ".join, commands), *launchers):
        thrown_away = re.search(r"2>|&>|>&|devnull|\bdisable\(logging\.(ERROR|CRITICAL)\)", text, re.IGNORECASE)
        assert thrown_away is None, f"{name}: {thrown_away} in {text}"


def test_a_file_cannot_say_where_it_lies(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="_source: unknown key"):
        load(tmp_path, "get:", "_source: /elsewhere\nget:")


def test_the_template_for_a_server_of_ones_own_is_a_manifest() -> None:
    template = load_manifest(Path(__file__).parents[3] / "docs/my-server.yaml")
    assert list(template.variants) == ["as_shipped"]
    assert isinstance(locate(template), Missing)


def test_bundled_manifests_are_called_as_their_folders() -> None:
    bundled = bundled_manifests()
    assert {"epoll", "threads", "tftpy"} <= set(bundled)
    assert {name: manifest.source.parent.name for name, manifest in bundled.items()} == {name: name for name in bundled}


def test_results_tell_a_bundled_manifest_from_one_of_the_users(tmp_path: Path) -> None:
    assert bundled_manifests()["epoll"].origin == "servers/epoll/server.yaml"
    assert load(tmp_path).origin == f"{tmp_path}/server.yaml"


def test_a_name_a_path_and_a_variant_choose_a_server(tmp_path: Path) -> None:
    load(tmp_path)
    assert choose("tftpy")[0].name == "tftpy"
    assert choose("tftpy@as_shipped")[1] == "as_shipped"
    assert choose(str(tmp_path / "server.yaml"))[0].name == "mine"
    assert choose(f"{tmp_path}/")[0].name == "mine"
    with pytest.raises(ManifestError, match=r"no server is called 'tftpi'; did you mean 'tftpy'\?"):
        choose("tftpi")
    with pytest.raises(ManifestError, match="tftpy has no variant 'tuned'; allowed: tftpy@as_shipped"):
        choose("tftpy@tuned")


APT = """\
case " $* " in
*" update "*) echo updated >> {calls};;
*" -s install "*) printf 'Inst libx (1)\\nInst served (2)\\nConf served\\n';;
*" download "*) echo "$*" | sed 's/.* download/download/' >> {calls}; touch served.deb libx.deb;;
esac
"""
UNPACK = """\
case $2 in
*served.deb) mkdir -p $3/usr/sbin $3/bin; printf '#!/bin/sh\\necho served $LD_LIBRARY_PATH\\n' > $3/usr/sbin/served
    chmod +x $3/usr/sbin/served; cp $3/usr/sbin/served $3/bin/other;;
*libx.deb) mkdir -p $3/usr/lib/{triplet} $3/lib/{triplet};;
esac
"""


@pytest.fixture
def clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs are found first."""
    folder = tmp_path / "clients"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}")
    (folder / name).chmod(0o755)


def output(path: Path) -> str:
    with os.popen(str(path)) as pipe:
        return pipe.read().strip()


def test_debian_packages_are_unpacked_with_the_libraries_that_are_missing(tmp_path: Path, clients: Path) -> None:
    calls, folder = tmp_path / "calls", tmp_path / "peers/mine"
    program(clients, "apt-get", APT.format(calls=calls))
    program(clients, "dpkg-deb", UNPACK.format(triplet="x86_64-linux-gnu"))
    assert fetch.fetch(folder, Fetch(debian=("served",)))
    assert calls.read_text().splitlines() == ["updated", "download served libx"]
    assert sorted(path.name for path in (folder / "bin").iterdir()) == ["other", "served"]
    libraries = output(folder / "bin/served").removeprefix("served ").split(":")
    assert [Path(place).resolve() for place in libraries] == [
        folder / "usr/lib/x86_64-linux-gnu",
        folder / "lib/x86_64-linux-gnu",
    ]
    assert output(folder / "bin/other").startswith("served ")


def test_without_libraries_a_program_is_a_link_to_what_was_unpacked(tmp_path: Path, clients: Path) -> None:
    program(
        clients,
        "apt-get",
        APT.format(calls=tmp_path / "calls").replace("touch served.deb libx.deb", "touch served.deb"),
    )
    program(clients, "dpkg-deb", UNPACK.format(triplet="none"))
    fetch.fetch(tmp_path / "peers/mine", Fetch(debian=("served",)))
    assert (tmp_path / "peers/mine/bin/served").is_symlink()
    assert output(tmp_path / "peers/mine/bin/served") == "served"


def test_what_is_there_is_not_fetched_again_unless_something_else_is_wanted(tmp_path: Path, clients: Path) -> None:
    calls, folder = tmp_path / "calls", tmp_path / "peers/mine"
    program(clients, "go", f'echo "$* $GOBIN" >> {calls}')
    assert fetch.fetch(folder, Fetch(go="example.org/x@v1"))
    assert not fetch.fetch(folder, Fetch(go="example.org/x@v1"))
    assert fetch.fetch(folder, Fetch(go="example.org/x@v2"))
    assert calls.read_text().splitlines() == [f"install example.org/x@v{n} {folder}/bin" for n in (1, 2)]


def test_each_client_installs_into_the_peers_folder_alone(tmp_path: Path, clients: Path) -> None:
    calls = tmp_path / "calls"
    for name in ("cargo", "npm"):
        program(clients, name, f'echo {name} "$*" >> {calls}')
    fetch.fetch(tmp_path / "peers/a", Fetch(cargo="x@1"))
    fetch.fetch(tmp_path / "peers/b", Fetch(npm=("y@1",)))
    cargo, npm = calls.read_text().splitlines()
    assert f"--root {tmp_path}/peers/a x@1" in cargo
    assert f"--prefix {tmp_path}/peers/b" in npm
    assert "--ignore-scripts" in npm


def test_an_environment_that_is_only_half_made_is_not_left(tmp_path: Path) -> None:
    folder = tmp_path / "peers/mine"
    with pytest.raises(FetchError, match=r"-m failed: ERROR"):
        fetch.fetch(folder, Fetch(pypi=("no/such/requirement",)))
    assert not folder.exists(), "half an environment would be found, and fail"


def test_a_peer_stays_where_its_renewal_fails(tmp_path: Path, clients: Path) -> None:
    folder = tmp_path / "peers/mine"
    program(clients, "go", 'mkdir -p "$GOBIN"; echo one > "$GOBIN/served"')
    fetch.fetch(folder, Fetch(go="example.org/x@v1"))
    program(clients, "go", "exit 1")
    with pytest.raises(FetchError):
        fetch.fetch(folder, Fetch(go="example.org/x@v2"))
    assert (folder / "bin/served").read_text() == "one\n"


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FetchError, match="name another place with TFTPBENCH_PEERS"):
        fetch.fetch(tmp_path / "file/peers/mine", Fetch(go="example.org/x@v1"))


def test_a_client_that_fails_is_one_line_with_the_last_line_of_its_output(tmp_path: Path, clients: Path) -> None:
    program(clients, "npm", "echo 'npm error code E404'; echo; exit 1")
    with pytest.raises(FetchError, match=r"^npm install failed: npm error code E404$"):
        fetch.fetch(tmp_path / "peers/mine", Fetch(npm=("y",)))
    assert not (tmp_path / "peers/mine").exists()


def test_a_client_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    with pytest.raises(FetchError, match=r"^needs cargo, which is not here$"):
        fetch.fetch(tmp_path / "peers/mine", Fetch(cargo="x"))


def test_lists_of_packages_are_renewed_when_they_are_old(tmp_path: Path, clients: Path) -> None:
    calls = tmp_path / "calls"
    program(clients, "apt-get", APT.format(calls=calls))
    program(clients, "dpkg-deb", "true")
    for name in ("a", "b"):
        fetch.fetch(tmp_path / f"peers/{name}", Fetch(debian=("served",)))
    os.utime(tmp_path / "peers/.apt/renewed", (0, 0))
    fetch.fetch(tmp_path / "peers/c", Fetch(debian=("served",)))
    assert [line for line in calls.read_text().splitlines() if line == "updated"] == ["updated"] * 2


def test_all_are_fetched_but_those_that_fail_which_the_last_line_names_with_the_reason(
    tmp_path: Path, clients: Path
) -> None:
    program(clients, "go", "true")
    program(clients, "npm", "echo 'npm error code E404'; exit 1")
    wanted = [
        fetch.Wanted("a", tmp_path / "peers/a", Fetch(go="example.org/a@v1"), "go install a"),
        fetch.Wanted("b", tmp_path / "peers/b", Fetch(npm=("b",)), "npm install b"),
    ]
    said: list[str] = []
    assert fetch.fetch_all("servers", wanted, said.append) == 1
    assert sorted(said[:-1]) == [
        f"a: fetched into {tmp_path}/peers/a",
        "b: not fetched: npm install failed: npm error code E404; get it: npm install b",
    ]
    assert said[-1] == "1 of 2 servers fetched; not b: npm install failed: npm error code E404"


def fetchable(folder: Path, name: str, source: str) -> Manifest:
    place = folder / name
    place.mkdir()
    text = (Path(__file__).parents[3] / "docs/my-server.yaml").read_text(encoding="utf-8")
    text = re.sub(r"(?m)^(name|fetch):.*\n", "", text) + f"name: {name}\nfetch: {source}\n"
    (place / "server.yaml").write_text(text, encoding="utf-8")
    return load_manifest(place)


def test_fetching_all_fails_where_none_is_here_and_fetching_by_name_where_one_is_not(
    tmp_path: Path, clients: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TFTPBENCH_PEERS", str(tmp_path / "peers"))
    program(clients, "go", "true")
    program(clients, "npm", "exit 1")
    good, bad = fetchable(tmp_path, "good", "{go: a@v1}"), fetchable(tmp_path, "bad", "{npm: [b]}")
    assert not fetch_servers([good, bad], asked=False)
    assert fetch_servers([bad], asked=False)
    assert fetch_servers([good, bad], asked=True)
    capsys.readouterr()
    assert not fetch_servers([bundled_manifests()["tftpy"], good], asked=True)
    assert capsys.readouterr().err.splitlines() == [
        "tftpy: is here already",
        f"good: is here already: {tmp_path}/peers/good",
        "1 of 1 servers fetched",
    ]


@pytest.mark.parametrize(
    ("entry", "target"),
    [
        ("tftp://127.0.0.1", Target("127.0.0.1", 69, None)),
        ("tftp://127.0.0.1:6969", Target("127.0.0.1", 6969, None)),
        ("tftp://192.0.2.1:70/boot/x%20y.0", Target("192.0.2.1", 70, "boot/x y.0")),
        ("tftp://[::1]:6969/f", Target("::1", 6969, "f")),
        ("tftp://[fe80::1%25eth0]:6969/f", Target("fe80::1%eth0", 6969, "f")),
        ("tftp://[fe80::1%eth0]", Target("fe80::1%eth0", 69, None)),
        ("tftp://[fe80::1%25]", Target("fe80::1%25", 69, None)),
        ("tftp://[fe80::1%25br-lan.2]:70", Target("fe80::1%br-lan.2", 70, None)),
    ],
)
def test_a_url_names_address_port_and_file(entry: str, target: Target) -> None:
    assert choose(entry) == (target, None)
    assert choose(target.entry) == (target, None)


@pytest.mark.parametrize(
    "entry",
    ["tftp://", "tftp://127.0.0.1:0/f", "tftp://127.0.0.1:70000/f", "tftp://user@127.0.0.1/f", "tftp://::1/f"],
)
def test_what_is_no_such_url_is_one_line(entry: str) -> None:
    with pytest.raises(ManifestError, match=r"allowed: tftp://ADDRESS:PORT/FILE, as in tftp://127\.0\.0\.1:69/boot\.0"):
        choose(entry)


@pytest.mark.parametrize("file", ["", "x%7Bn%7D", "%00"])
def test_a_slash_without_one_file_behind_it_is_no_leave_to_write(file: str) -> None:
    with pytest.raises(ManifestError, match="names no file to read"):
        choose(f"tftp://127.0.0.1/{file}")


def test_a_name_is_no_address() -> None:
    with pytest.raises(ManifestError, match="'server' is no IP address"):
        choose("tftp://server/f")


def test_a_server_with_a_file_to_read_is_not_written_to() -> None:
    assert (
        Target("::1", 69, "f").cannot("write", 512, 1)
        == "serves one file to read; for uploads, give --target-write in place of --target-file"
    )
    assert Target("::1", 69, "f").cannot("read", 1468, 64) is None
    assert Target("::1", 69, None).cannot("write", 512, 1) is None


def test_boots_name_their_files_themselves_and_transfers_need_one() -> None:
    assert target_entries("127.0.0.1:6969", None, False, boots=True) == ["tftp://127.0.0.1:6969"]
    with pytest.raises(UsageError, match="--target-file and --target-write are of transfers"):
        target_entries("127.0.0.1:6969", "boot.0", False, boots=True)
    with pytest.raises(UsageError, match="--target needs a file to read"):
        target_entries("127.0.0.1:6969", None, False)
    with pytest.raises(UsageError, match=r"target_file and target_write are of transfers: .*; map gives them other"):
        target_entries("127.0.0.1:6969", None, True, boots=True, prefix="", dash="_")


class Announced:
    """A server of one process, this one, that has said it is ready on port 69."""

    ready = ("127.0.0.1", 69, os.getpid())

    def process_tree(self) -> list[int]:
        return [os.getpid()]

    def receive(self, _: float) -> bool:
        return False


def bound(address: str, port: int = 69) -> UdpSocket:
    """Such a row of /proc/net/udp."""
    packed = ip_address(address).packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    return UdpSocket(port, 1, 0, b"".join(b"%08X" % int.from_bytes(word, sys.byteorder) for word in words))


@pytest.mark.parametrize(
    ("place", "looks", "is_fit"),
    [
        (Place(proc="/elsewhere"), [["127.0.0.1"]], False),
        (Place(proc="/elsewhere"), [["::1", "127.0.0.53"]], False),
        (Place(proc="/elsewhere"), [["::ffff:127.0.0.1"]], False),
        (Place(proc="/elsewhere"), [["10.255.255.1"]], True),
        (Place(proc="/elsewhere"), [["0.0.0.0"]], True),
        (Place(proc="/elsewhere"), [["127.0.0.1"], ["127.0.0.1", "10.255.255.1"]], True),  # missed at first
        (Place(proc="/elsewhere"), [[]], True),  # proc shows nothing
        (HERE, [["127.0.0.1"]], True),
    ],
)
def test_a_ready_server_that_its_network_does_not_reach_is_not_ready(
    place: Place, looks: list[list[str]], is_fit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [[bound(address) for address in rows] + [bound("10.255.255.1", 70)] for rows in looks]
    monkeypatch.setattr("tftpbench.host.server.readiness.owns_port", lambda *_: True)
    monkeypatch.setattr(
        "tftpbench.host.server.readiness.udp_sockets", lambda _: left.pop(0) if len(left) > 1 else left[0]
    )
    announced: Any = Announced()
    if is_fit:
        assert wait_for_line(announced, "10.255.255.1", time.monotonic(), place) == 69
        return
    with pytest.raises(ServerNotReady, match=r"^listens on loopback, and not on 10\.255\.255\.1, .*; allowed: --set "):
        wait_for_line(announced, "10.255.255.1", time.monotonic(), place)


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("user namespaces", errno.ENOSPC, "user namespaces: no more than user.max_user_namespaces allows"),
        ("network namespaces", errno.ENOSPC, "network namespaces: no more than user.max_net_namespaces allows"),
        ("user namespaces", errno.EPERM, "user namespaces: Operation not permitted"),
        ("a veth pair", errno.ENOSPC, "a veth pair: No space left on device"),
    ],
)
def test_a_limit_of_namespaces_is_named(what: str, error: int, said: str) -> None:
    assert str(Refused(what, OSError(error, os.strerror(error)))) == said
