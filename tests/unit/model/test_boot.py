"""Boot files: the requests that follow from them, and the one line that a mistake gives."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tftpbench.model.boot import (
    FILE_MAX_BYTES,
    MACHINE_VARIABLES,
    STEPS_MAX,
    Boot,
    BootFile,
    Step,
    _Client,
    _Request,
    boot_facts,
    bundled_boots,
    files,
    load_boot,
    mapped,
    shares,
)
from tftpbench.model.errors import BootError
from tftpbench.model.workload import Profiles

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENTED = ("uefi", "uefi-grub", "uefi-ipxe", "bios-pxelinux", "uboot", "pi4")
LESS_CERTAIN = ("wds", "cisco-phone", "polycom-phone", "ios-image")

TEXT = """\
schema: tftpbench.boot/1
name: small
description: A client that asks twice.
certainty: less certain
sources: {seen: a capture}
names: {loader: boot.img}
sizes: {"{loader}": 10KiB}
clients:
  rom:
    source: seen
    options: [blksize 1468, tsize 0]
    probe: {error: 8, text: enough}
    waits: 1s x 3
    nack: gap
steps:
  - {get: "{loader}", stop: oack}
  - {get: "{loader}"}
  - {get: "conf/{mac-}", miss: expected}
"""


def write(folder: Path, old: str = "", new: str = "", name: str = "small.yaml") -> Path:
    assert old in TEXT
    path = folder / name
    path.write_text(TEXT.replace(old, new, 1) if old else TEXT, encoding="utf-8")
    return path


def faults(path: Path) -> list[str]:
    """The lines, without the folder."""
    with pytest.raises(BootError) as error:
        load_boot(path)
    return [line.removeprefix(f"{path.parent}/") for line in str(error.value).splitlines()]


def wire(step: Step) -> str:
    return ", ".join(f"{name} {value}" for name, value in step.options)


def of(boot: Boot, client: str, ends: str = "whole") -> Step:
    named = zip(boot.steps, boot.step_clients, strict=True)
    return next(step for step, name in named if name == client and step.ends == ends)


def test_a_file_becomes_its_requests_in_order(tmp_path: Path) -> None:
    boot = load_boot(write(tmp_path))
    probe, read, miss = boot.steps
    assert read == Step(
        operation="read", name="boot.img", options=(("blksize", "1468"), ("tsize", "0")), size_bytes=10240, file=0,
        ends="whole", stop_after=0, stop_code=0, stop_text="", think_ns=0, waits_ns=(10**9,) * 3,
        reading_waits_ns=(10**9,) * 3, then="give_up", restarts_max=0, nack="gap",
    )  # fmt: skip
    assert (probe.ends, probe.stop_after, probe.stop_code, probe.stop_text) == ("stop", 0, 8, "enough")
    assert [step.stop_acks for step in boot.steps] == [False] * 3
    acks = load_boot(write(tmp_path, "text: enough", "text: enough, acks: true")).steps
    assert [step.stop_acks for step in acks] == [True, False, False], "only where it stops"
    assert (probe.file, probe.size_bytes) == (read.file, read.size_bytes)
    assert (miss.ends, miss.name, miss.size_bytes, miss.file) == ("missing", "conf/{mac-}", None, -1)
    assert boot_facts(shares([(boot, 1)])) == (3, 1, 1, 10240, 7)


def test_an_ack_before_a_stop_makes_no_other_boot_and_recorded_runs_know_their_profiles(tmp_path: Path) -> None:
    older, newer = write(tmp_path), write(tmp_path, "text: enough", "text: enough, acks: true", "newer.yaml")
    assert load_boot(older).steps != load_boot(newer).steps
    assert Profiles().hash(str(older)) == Profiles().hash(str(newer)) == "6c94de6ffb1f8639"
    assert Profiles().hash(str(write(tmp_path, "text: enough", "text: enough!"))) != "6c94de6ffb1f8639"


def test_ours_are_the_clients_that_are_documented_and_those_that_are_less_so() -> None:
    known = {name: load_boot(name) for name in bundled_boots()}
    assert {name: boot.name for name, boot in known.items()} == {name: name for name in known}
    assert {*DOCUMENTED, *LESS_CERTAIN} <= set(known)
    kernels = {name for name in known if name.endswith("-kernel")}
    assert {name for name, boot in known.items() if boot.certainty == "less certain"} == set(LESS_CERTAIN)
    assert set(known) - kernels == {*DOCUMENTED, *LESS_CERTAIN}
    for boot in known.values():
        assert set(boot.step_sources) <= set(boot.sources), "each request names where it is from"
        assert len(boot.step_sources) == len(boot.step_clients) == len(boot.steps)


@pytest.mark.parametrize(
    ("name", "requests", "whole", "misses"),
    [
        ("uefi", 2, 1, 0),
        ("uefi-grub", 22, 3, 17),
        ("uefi-ipxe", 4, 2, 1),
        ("bios-pxelinux", 13, 3, 10),
        ("uboot", 14, 4, 10),
        ("pi4", 29, 11, 9),
    ],
)
def test_each_documented_client_asks_as_often_as_its_source_says(
    name: str, requests: int, whole: int, misses: int
) -> None:
    boot = load_boot(name)
    assert boot_facts(shares([(boot, 1)]))[:3] == (requests, whole, misses)


@pytest.mark.parametrize(
    ("name", "client", "ends", "options"),
    [
        ("uefi", "firmware", "stop", "tsize 0, blksize 1468, windowsize 4"),
        ("uefi", "firmware", "whole", "blksize 1468, windowsize 4"),
        ("uefi-grub", "shim", "whole", "blksize 512, windowsize 4"),
        ("uefi-grub", "grub", "whole", "blksize 1024, tsize 0"),
        ("uefi-ipxe", "ipxe", "whole", "blksize 1432, tsize 0"),
        ("uefi-grub", "grub", "stop", "blksize 1024, tsize 0"),
        ("bios-pxelinux", "rom", "whole", "blksize 1432, tsize 0"),
        ("bios-pxelinux", "pxelinux", "whole", "tsize 0, blksize 1408"),
        ("uboot", "uboot", "whole", "timeout 5, blksize 1468"),
        ("pi4", "pi", "stop", "tsize 0, blksize 1468"),
        ("cisco-phone", "phone", "whole", ""),
    ],
)
def test_options_stand_in_the_order_of_the_wire(name: str, client: str, ends: str, options: str) -> None:
    assert wire(of(load_boot(name), client, ends)) == options


@pytest.mark.parametrize(
    ("name", "client", "count", "first_ms", "last_ms", "whole_ms", "reading_ms", "nack"),
    [
        ("uefi", "firmware", 6, 4000, 4000, 24_000, 24_000, "block"),
        ("uefi-grub", "grub", 40, 400, 1180, 31_600, 33_620, "none"),
        ("uefi-ipxe", "ipxe", 6, 250, 8000, 15_750, 15_750, "block"),
        # 31 entries of 55 ms: 2 2 3 3 4 5 6 7 9 10 12 15 18 21 26 31 37 44 53 64 77 92 110 132 159 191 229 255 x 4
        ("bios-pxelinux", "pxelinux", 31, 110, 14_025, 2382 * 55, 2382 * 55, "block"),
        ("uboot", "uboot", 11, 5000, 5000, 55_000, 55_000, "gap"),
    ],
)
def test_timers_and_habits_are_the_clients_own(
    name: str, client: str, count: int, first_ms: int, last_ms: int, whole_ms: int, reading_ms: int, nack: str
) -> None:
    step = of(load_boot(name), client)
    waits = [wait // 10**6 for wait in step.waits_ns]
    assert (len(waits), waits[0], waits[-1], sum(waits)) == (count, first_ms, last_ms, whole_ms)
    assert (sum(step.reading_waits_ns) // 10**6, step.nack) == (reading_ms, nack)


def test_the_waits_of_pxelinux_are_its_table() -> None:
    table = [2, 2, 3, 3, 4, 5, 6, 7, 9, 10, 12, 15, 18, 21, 26, 31, 37, 44, 53, 64, 77, 92, 110, 132, 159, 191, 229]
    assert of(load_boot("bios-pxelinux"), "pxelinux").waits_ns == tuple(55_000_000 * n for n in [*table, *[255] * 4])


def test_a_silent_grub_never_sends_again_while_it_reads_and_a_pi_boots_again() -> None:
    assert len(of(load_boot("uefi-grub"), "grub").reading_waits_ns) == 1
    pi = of(load_boot("pi4"), "pi")
    assert (pi.then, pi.restarts_max > 0) == ("restart_boot", True)
    ends = {(step.stop_code, step.stop_text) for step in load_boot("pi4").steps if step.ends == "stop"}
    assert ends == {(0, "Early terminate")}


def test_an_address_is_looked_for_in_eight_lengths_longest_first() -> None:
    asked = [step.name for step in load_boot("bios-pxelinux").steps]
    at = asked.index("pxelinux.cfg/01-{mac-}")
    assert asked[at + 1 : at + 10] == [
        *(f"pxelinux.cfg/{{ip_hex[{length}]}}" for length in range(8, 0, -1)), "pxelinux.cfg/default",
    ]  # fmt: skip


def test_names_can_be_mapped_and_sizes_follow() -> None:
    boot = load_boot("uefi-grub")
    other = mapped(boot, {"loader": "pxelinux.0", "folder": "efi/boot"})
    assert [step.name for step in other.steps[:2]] == ["pxelinux.0"] * 2
    assert other.steps[0].size_bytes == boot.steps[0].size_bytes
    assert other.steps[-1].name == "/efi/boot/grub.cfg"
    assert other.names == {"loader": "pxelinux.0", "grub": "grubx64.efi", "folder": "efi/boot"}
    assert mapped(other, {"folder": "grub", "loader": "shimx64.efi"}).steps == boot.steps


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"lodaer": "x"}, "--map lodaer=x: the boot uefi has no name 'lodaer'; did you mean 'loader'?"),
        ({"loader": "../x"}, "--map loader=../x: is '../x', which leaves the root; allowed: a name without .."),
        ({"loader": "//x"}, "--map loader=//x: is '//x', which is no name of a file; allowed: folders and a file"),
        ({"loader": "a\0b"}, "--map loader=a\\u0000b: is 'a\\x00b', which has a character that can't be printed"),
        ({"loader": ""}, "--map loader=: is '', which is no name of a file"),
        ({"loader": "{what}"}, "--map loader={what}: has the variable {what}; allowed: {n}, {mac}"),
        ({"loader": "{mac"}, "--map loader={mac: has a brace without its other one"),
        ({"loader": "x" * 500}, "makes a request of 5"),
        ({"loader": "\udc80"}, "has a character that can't be printed"),
    ],
)
def test_a_name_that_cannot_be_asked_for_is_refused(names: Mapping[str, str], said: str) -> None:
    with pytest.raises(BootError) as error:
        mapped(load_boot("uefi"), names)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_files_are_numbered_over_a_mix_and_equal_names_are_one_file() -> None:
    parts = shares([(load_boot("uefi-grub"), 8), (load_boot("uefi-ipxe"), 2)])
    assert [(part.name, part.weight) for part in parts] == [("uefi-grub", 8), ("uefi-ipxe", 2)]
    numbers: dict[str, set[int]] = {}
    for step in [*parts[0].steps, *parts[1].steps]:
        if step.ends == "missing":
            assert step.file == -1
        else:
            numbers.setdefault(step.name, set()).add(step.file)
    assert sorted(number for found in numbers.values() for number in found) == list(range(len(numbers)))
    # GRUB's names start with the root's slash.
    assert [(file.name, file.file) for file in files(parts)] == [
        ("shimx64.efi", 0), ("grubx64.efi", 1), ("grub/grub.cfg", 2), ("snponly.efi", 3), ("boot.ipxe", 4),
    ]  # fmt: skip


def test_ours_can_all_be_mixed_and_a_mix_has_the_mean() -> None:
    everything = shares([(load_boot(name), 1) for name in bundled_boots()])
    assert len({file.file for file in files(everything)}) == len(files(everything)) > 20
    requests, whole, misses, size, blocks = boot_facts(shares([(load_boot("uefi"), 3), (load_boot("uefi-ipxe"), 1)]))
    assert (requests, whole, misses) == ((3 * 2 + 4) / 4, (3 * 1 + 2) / 4, 1 / 4)
    assert (size, blocks) == ((4 * 440320 + 800) / 4, (4 * 300 + 1) / 4)


def test_what_is_written_need_not_be_in_the_root() -> None:
    boot = load_boot("polycom-phone")
    written = [step for step in boot.steps if step.operation == "write"]
    assert [step.name for step in written] == ["{mac}-boot.log", "{mac}-app.log"]
    assert {file.operation for file in files(shares([(boot, 1)]))} == {"read"}


def test_one_name_with_two_sizes_is_refused(tmp_path: Path) -> None:
    large = load_boot(write(tmp_path, "10KiB", "20KiB", "large.yaml"))
    with pytest.raises(BootError, match=r"^boot\.img is 10 KiB in small and 20 KiB in small; map one of them"):
        shares([(load_boot(write(tmp_path)), 1), (large, 1)])
    absent = load_boot(write(tmp_path, "conf/{mac-}", "snponly.efi", "absent.yaml"))
    with pytest.raises(BootError, match=r"^snponly\.efi is 430 KiB in uefi and absent in small; map one of them"):
        shares([(load_boot("uefi"), 1), (absent, 1)])


def test_names_of_options_are_the_same_in_large_letters(tmp_path: Path) -> None:
    large, small = load_boot(write(tmp_path, "blksize 1468", "BLKSIZE 1468")), load_boot(write(tmp_path))
    assert [step.blocks for step in large.steps] == [step.blocks for step in small.steps]


def test_blocks_are_those_of_the_wire(tmp_path: Path) -> None:
    sized = write(tmp_path, '{"{loader}": 10KiB}', '{"{loader}": 1468}')
    assert [step.blocks for step in load_boot(sized).steps] == [0, 2, 0], "a full block is followed by an empty one"
    stopped = write(tmp_path, "stop: oack", "stop: 3")
    step = load_boot(stopped).steps[0]
    assert (step.ends, step.stop_after, step.blocks, step.bytes) == ("stop", 3, 3, 3 * 1468)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("boot/1", "boot/2", "small.yaml:1:1: schema: is 'tftpbench.boot/2'; allowed: tftpbench.boot/1"),
        ("name: small", "name: Small", "2:1: name: is 'Small'; allowed: small letters, digits and -, at most 40"),
        ("certainty: less certain", "certainty: sure", "4:1: certainty: is 'sure'; allowed: documented, less certain"),
        ("nack: gap", "nack: gaps", "14:5: clients.rom.nack: is 'gaps'; allowed: gap, block, none"),
        ("    nack: gap\n", "", "9:3: clients.rom.nack: is missing; allowed: gap, block, none"),
        ("waits:", "wait:", "13:5: clients.rom.wait: unknown key; did you mean 'waits'?"),
        ("1s x 3", "0s", "13:5: clients.rom.waits: has a wait beyond what is allowed; allowed: 1ms to 1h each"),
        ("1s x 3", "2h", "has a wait beyond what is allowed; allowed: 1ms to 1h each"),
        ("1s x 3", "1s x 2000", "has more than 1000 waits"),
        ("1s x 3", "3", "clients.rom.waits: is '3'; allowed: 1ms to 1h each, as in 4s x 6"),
        ("1s x 3", "[]", "has a wait beyond what is allowed"),
        ("blksize 1468", "blksize 7", "11:5: clients.rom.options: has blksize 7; allowed: blksize from 8 to 65464"),
        ("blksize 1468", "blksise 1468", "has the option 'blksise'; did you mean 'blksize'?"),
        ("blksize 1468", "blksize", "has 'blksize', which is no option with its value; allowed: a list of options"),
        ("blksize 1468", "BLKSIZE 7", "has blksize 7; allowed: blksize from 8 to 65464"),
        ("blksize 1468", "TSIZE 0", "has tsize twice; RFC 2347 allows each once"),
        ("blksize 1468", "tsize 1", "has tsize 1; allowed: 0 to read, {size} to write"),
        ("blksize 1468", "tsize 0", "has tsize twice; RFC 2347 allows each once"),
        ("tsize 0", '"tsize {size}"', "has the option tsize {size}; allowed: tsize 0 with get, tsize {size} with put"),
        ("text: enough", "text: enough, acks: 1", "12:37: clients.rom.probe.acks: is 1; allowed: true, false"),
        ("error: 8", "error: 5", "12:13: clients.rom.probe.error: is 5; allowed: 0, 8"),
        (
            "    nack: gap",
            "    nack: gap\n    then: restart_boot",
            "rom.restarts: is 0 with then: restart_boot",
        ),
        ("source: seen", "source: sene", "10:5: clients.rom.source: is 'sene'; did you mean 'seen'?"),
        ("10KiB", "5GiB", "7:9: sizes.{loader}: is 5368709120; allowed: 0 to 4GiB"),
        ("10KiB", "ten", "7:9: sizes.{loader}: is 'ten'; allowed: bytes as a number"),
        ('{"{loader}": 10KiB}', "{}", "16:6: steps[0].get: has no size; allowed: one in sizes for boot.img"),
        ('{"{loader}": 10KiB}', '{"{loader}": 10KiB, other: 1}', "7:28: sizes.other: is asked for by no step: other"),
        ("conf/{mac-}", "conf/{mac_}", "18:6: steps[2].get: has the variable {mac_}; did you mean 'mac'?"),
        ("conf/{mac-}", "conf/{ip_hex[9]}", "has the variable {ip_hex[9]}"),
        ("conf/{mac-}", "conf/{mac", "has a brace without its other one"),
        ("conf/{mac-}", "../{mac-}", "steps[2].get: is '../{mac-}', which leaves the root; allowed: a name without .."),
        ("conf/{mac-}", r"a\\..\\b", "which leaves the root"),
        ("conf/{mac-}", "//etc/passwd", "which is no name of a file; allowed: folders and a file with one / between"),
        ("conf/{mac-}", r"a\0b", "which is in no name and in no text"),
        ("conf/{mac-}", r"a\nb", "which has a character that can't be printed"),
        ("conf/{mac-}", "x" * 255, ""),
        ("conf/{mac-}", "\u00e4" * 128, "can be a name of 256 bytes; allowed: 255 at most"),
        ("text: enough", f"text: {'x' * 49}", "; allowed: text, at most 48 characters of ASCII"),
        ("tsize 0]", f"tsize 0, {', '.join(f'x{n} 1' for n in range(15))}]", "has 17 options; allowed: 16 at most"),
        ("conf/{mac-}", "boot.img", "steps[2].miss: is expected, but boot.img is there: it has a size"),
        ("boot.img", "../boot.img", "steps[0].get: is '../boot.img', which leaves the root"),
        ("boot.img", '"{oops}.img"', "6:9: names.loader: has the variable {oops}; allowed: {n}, {mac}"),
        ("miss: expected", "miss: maybe", "steps[2].miss: is 'maybe'; allowed: expected"),
        ("miss: expected", "put: b", "18:5: steps[2]: is not clear; allowed: exactly one of get and put"),
        ("miss: expected", "miss: expected, stop: 1", "steps[2].stop: stands beside miss; allowed: one of the two"),
        ('get: "conf/{mac-}", ', 'put: "{n}", ', "steps[2].put: has miss or stop; allowed: those with get"),
        ("stop: oack", "stop: 0", "16:23: steps[0].stop: is 0; allowed: oack, or the number of a DATA block"),
        ("stop: oack", "think: 2h", "steps[0].think: is '2h'; allowed: 0s to 1h"),
        ("stop: oack", "think: 2", "steps[0].think: is '2', without a unit; did you mean '2s'?"),
        ("stop: oack", "as: ram", "16:23: steps[0].as: is 'ram'; did you mean 'rom'?"),
        ("    probe: {error: 8, text: enough}\n", "", "15:23: steps[0].stop: needs a client that says how it stops"),
        (
            "names:",
            "after: nothing\nnames:",
            "6:1: after: no boot is called 'nothing'; allowed: the name",
        ),
        ("names:", "after: ./gone.yaml\nnames:", "6:1: after: no boot is called './gone.yaml'; allowed"),
        ("names:", "after: uefi-grb\nnames:", "6:1: after: no boot is called 'uefi-grb'; did you mean 'uefi-grub'?"),
        ("names:", "after: ./small.yaml\nnames:", "6:1: after: './small.yaml' makes a loop; allowed: a boot that does"),
    ],
)
def test_a_mistake_is_one_line_with_its_place_and_what_is_allowed(
    old: str, new: str, said: str, tmp_path: Path
) -> None:
    if not said:  # the longest name that there may be
        assert load_boot(write(tmp_path, old, new)).steps
        return
    lines = faults(write(tmp_path, old, new))
    # The same of several requests is said at each.
    assert len({re.sub(r"^\S+ steps\[\d\]", "", line) for line in lines}) == 1, lines
    assert any(said in line for line in lines), lines


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "nack: gap", "nack: gap\n    colour: red")
    text = path.read_text(encoding="utf-8").replace("conf/{mac-}", "conf/{mcc}").replace("source: seen", "source: s")
    path.write_text(text.replace("small", "Small"), encoding="utf-8")
    places = [line.split(": ")[0].removeprefix("small.yaml:") for line in faults(path)]
    assert places == ["2:1", "15:5", "19:6"], faults(path)


@pytest.mark.parametrize(("length", "wrong"), [(2, "a loop"), (9, "a chain of more than 5")])
def test_boots_that_come_after_each_other_without_end_are_refused(length: int, wrong: str, tmp_path: Path) -> None:
    for number in range(length):
        write(tmp_path, "names:", f"after: ./b{(number + 1) % length}.yaml\nnames:", f"b{number}.yaml")
    [line] = faults(tmp_path / "b0.yaml")
    assert f"makes {wrong}; allowed: a boot that does not come after this one" in line


def test_what_comes_first_keeps_its_lines_and_what_comes_after_its_own(tmp_path: Path) -> None:
    write(tmp_path, name="first.yaml")
    text = """\
schema: tftpbench.boot/1
name: second
description: More.
certainty: less certain
after: ./first.yaml
names: {loader: other.img}
sizes: {more: 1}
clients: {late: {source: seen, waits: 1s, nack: none}}
steps:
  - {get: more, as: late}
  - {get: most, as: rom}
"""
    path = tmp_path / "second.yaml"
    path.write_text(text, encoding="utf-8")
    assert faults(path) == ["second.yaml:11:6: steps[4].get: has no size; allowed: one in sizes for most"]
    path.write_text(text.replace("  - {get: most, as: rom}\n", ""), encoding="utf-8")
    boot = load_boot(path)
    assert [step.name for step in boot.steps] == ["other.img", "other.img", "conf/{mac-}", "more"]
    assert boot.step_clients == ("rom", "rom", "rom", "late"), "the first file has one client, and need not name it"
    write(tmp_path, "nack: gap", "nack: never", "first.yaml")
    assert faults(path)[0].startswith("first.yaml:14:5: clients.rom.nack: is 'never'")


@pytest.mark.parametrize(
    ("new", "said"),
    [
        ("\n".join([TEXT, *['  - {get: "{loader}"}'] * 10_000]), "is larger than 64 KiB"),
        ("\n".join([TEXT, *["  - {get: a, miss: expected}"] * (STEPS_MAX - 2)]), "steps: are 1001 requests; allowed"),
        ("\n".join([TEXT, *['  - {get: "{ip_hex[8..1]}", miss: expected}'] * 200]), "steps: are 1001 requests"),
        (f'{TEXT}\n  - {{get: "{"{ip_hex[8..1]}" * 20}", miss: expected}}', f"stands for {8**20} names; allowed: 1000"),
        (TEXT.replace("10KiB", f'10KiB, "{"{ip_hex[1..8]}" * 20}": 1'), f"stands for {8**20} names"),
        (TEXT.replace("a capture", "*a").replace("sources:", "a: &a [x]\nsources:"), "a: unknown key"),
        ("x: &x [a, b, c, d, e, f, g, h]\n" + "".join(
            f"y{n}: &{'yzuvw'[n]} [{', '.join(['*' + 'xyzuv'[n]] * 8)}]\n" for n in range(5)
        ) + TEXT, "holds more than 20000 values, aliases counted"),
        ("a: &a [*a]\n" + TEXT, "is nested deeper than 20"),
        ("", "the file is empty; allowed: a mapping of keys to values"),
        ("steps: []\n", "steps: is []; allowed: a list of 1 to 1000 requests"),
    ],
)  # fmt: skip
def test_a_file_without_bounds_is_refused_before_any_work(new: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "small.yaml"
    path.write_text(new, encoding="utf-8")
    assert FILE_MAX_BYTES == 65536
    assert any(said in line for line in faults(path)), faults(path)


def test_a_boot_that_is_not_there_is_said_with_those_that_are() -> None:
    for name, said in (
        ("uefi-grb", "no boot is called 'uefi-grb'; did you mean 'uefi-grub'?"),
        ("zx81", "no boot is called 'zx81'; allowed: a file, or bios-pxelinux, "),
        ("./gone", "gone: there is no such file"),
        ("a\0b.yaml", "a\\u0000b.yaml: is no name of a file"),
    ):
        with pytest.raises(BootError) as error:
            load_boot(name)
        assert str(error.value).startswith(said)


def test_the_page_lists_every_boot_with_its_certainty() -> None:
    page = (DOCS / "boots.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([a-z0-9-]+)` \| .* \| (documented|less certain) \|$", page, re.MULTILINE))
    assert listed == {name: load_boot(name).certainty for name in bundled_boots()}


def test_the_page_has_every_key_of_the_format() -> None:
    page = (DOCS / "boots.md").read_text(encoding="utf-8")
    for heading, model in (("Keys", BootFile), ("Keys of a client", _Client), ("Keys of a step", _Request)):
        section = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", page, re.MULTILINE | re.DOTALL)
        assert section is not None
        cells = re.findall(r"^\| ([^|]+) \|", section[1], re.MULTILINE)
        listed = [key for cell in cells for key in re.findall(r"`(\w+)`", cell)]
        assert listed == [field.alias or name for name, field in model.model_fields.items()]
    variables = {name.partition("[")[0] for name in re.findall(r"`\{([^}]+)\}`", page.partition("### Variables")[2])}
    assert variables == set(MACHINE_VARIABLES)
