"""Servers under test, as their manifests describe them (docs/manifest-format.md).

A manifest is data: how to find a server, what it can do, which command starts it. No Python code names a
server, and nothing here starts one; only the version command is run, briefly. Called by the runner and the
command line.

    manifest.py   the keys of a server.yaml, and the command that follows from them
    presence.py   is it on this machine, and may it run?
    target.py     a server that is running already
    choice.py     by name, name@variant, path or tftp://
"""

from tftpbench.servers.choice import bundled_manifests, choose, choose_manifest, manifest
from tftpbench.servers.manifest import (
    OPTIONS,
    PLACEHOLDERS,
    SCHEMA,
    Capabilities,
    Fetch,
    Find,
    Manifest,
    Variant,
    load_manifest,
)
from tftpbench.servers.presence import Found, Missing, peers_folder
from tftpbench.servers.target import Target

__all__ = [
    "OPTIONS",
    "PLACEHOLDERS",
    "SCHEMA",
    "Capabilities",
    "Fetch",
    "Find",
    "Found",
    "Manifest",
    "Missing",
    "Target",
    "Variant",
    "bundled_manifests",
    "choose",
    "choose_manifest",
    "load_manifest",
    "manifest",
    "peers_folder",
]
