"""A server that runs already, as an entry of a scenario."""

import pytest

from tftpbench.host.choice import choose
from tftpbench.host.target import Target, target_entries
from tftpbench.model.errors import ManifestError, UsageError


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
