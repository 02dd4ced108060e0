"""Which server is meant: by name, with a variant, by path, or a running one by address."""

import re
from pathlib import Path

from tftpbench.host.target import SCHEME, Target, parse_target
from tftpbench.model.errors import ManifestError, suggest
from tftpbench.model.manifest import BUNDLED, Manifest, load_manifest


def bundled_manifests() -> dict[str, Manifest]:
    """The manifests that come with tftpbench, by name."""
    loaded = [load_manifest(path) for path in _bundled_paths().values()]
    return {each.name: each for each in loaded}


def manifest(name_or_path: str) -> Manifest:
    """A bundled manifest by name, or one from a path (anything with a slash or .yaml)."""
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        return load_manifest(Path(name_or_path))
    known = _bundled_paths()
    if name_or_path in known:
        return load_manifest(known[name_or_path])
    hint = suggest(name_or_path, known, f"; allowed: {', '.join(known)}, or the path of a server.yaml")
    raise ManifestError(f"no server is called {name_or_path!r}{hint}")


def choose(entry: str) -> tuple[Manifest | Target, str | None]:
    """Server and variant of an entry of a scenario's `servers`: name, name@variant, path, path@variant or tftp://."""
    if entry.startswith(SCHEME):
        return parse_target(entry), None
    return choose_manifest(entry)


def choose_manifest(entry: str) -> tuple[Manifest, str | None]:
    """The same, where only a server that can be started will do."""
    name, at, variant = entry.rpartition("@") if re.search(r"@[a-z_]+$", entry) else (entry, "", "")
    chosen = manifest(name)
    if variant == "as_shipped" and chosen.as_shipped is None:
        return chosen, None  # it has no limit to lift: as it ships is how it is measured anyway
    if at and variant not in chosen.variants:
        allowed = ", ".join(f"{chosen.name}@{known}" for known in chosen.variants) or chosen.name
        raise ManifestError(f"{chosen.name} has no variant {variant!r}; allowed: {allowed}")
    return chosen, variant or None


def _bundled_paths() -> dict[str, Path]:
    """Folder name to server.yaml; a bundled manifest's name is its folder's."""
    return {path.parent.name: path for path in sorted(BUNDLED.glob("*/server.yaml"))}
