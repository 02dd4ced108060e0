"""Leaves in a lock the hashes of files that Linux can use: `python -m tests.packaging.lock PYLOCK LOCK...`.

Each LOCK is a requirements file with hashes, PYLOCK the same resolution in the form of PEP 751, which names the file of
each hash. Kept are source distributions, and wheels for any system or for the two processors that tftpbench is
built for. So a lock is half as long. Called by `make lock`.
"""

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_USABLE = re.compile(
    r"-(?:py3|py2\.py3|cp3\d+)-(?:none|abi3|cp3\d+)-(?:any|\S*(?:manylinux|musllinux)\S*_(?:x86_64|aarch64))\.whl$"
)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def usable(pylock: dict[str, Any]) -> Iterator[str]:
    """The hashes of what Linux can use."""
    for package in pylock["packages"]:
        if "sdist" in package:
            yield package["sdist"]["hashes"]["sha256"]
        for wheel in package.get("wheels", ()):
            if _USABLE.search(wheel["url"]):
                yield wheel["hashes"]["sha256"]


def shortened(lock: str, kept: set[str]) -> str:
    """The lock with these hashes only, where a package has any of them."""
    written = []
    for block in re.split(r"(?m)^(?=[a-z0-9])", lock):
        hashes = _HASH.findall(block)
        left = [each for each in hashes if each in kept] or hashes
        lines = " \\\n    ".join(f"--hash=sha256:{each}" for each in left)
        head, found, rest = block.partition("--hash=")
        tail = rest[rest.rindex("--hash=") :] if "--hash=" in rest else rest
        after = tail.partition("\n")[2]
        written.append(f"{head}{lines}\n{after}" if found else block)
    return "".join(written)


def main() -> None:
    """Write each LOCK anew."""
    pylock, *locks = (Path(name) for name in sys.argv[1:])
    kept = set(usable(tomllib.loads(pylock.read_text(encoding="utf-8"))))
    for lock in locks:
        lock.write_text(shortened(lock.read_text(encoding="utf-8"), kept), encoding="utf-8")


if __name__ == "__main__":
    main()
