"""Fetching, with package clients of a few lines in place of the real ones: what they are asked, what comes of it."""

import os
import re
import sys
from pathlib import Path

import pytest

from tftpbench.cli.servers import _fetch as fetch_servers
from tftpbench.host import fetch
from tftpbench.host.choice import bundled_manifests
from tftpbench.model.errors import FetchError
from tftpbench.model.manifest import Fetch, Manifest, load_manifest

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
