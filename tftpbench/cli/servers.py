"""``tftpbench servers``: what can be measured here, and how to get what is missing."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options
from tftpbench.model.escape import visible_line
from tftpbench.render.terminal import print_table

if TYPE_CHECKING:
    from tftpbench.host.presence import Found, Missing
    from tftpbench.model.manifest import Manifest

_FOLDED: dict[str, object] = {"overflow": "fold"}
_COLUMNS: dict[str, dict[str, object]] = {
    "server": {"no_wrap": True},
    "model": _FOLDED,
    "does": _FOLDED,
    "options": _FOLDED,
    "version": _FOLDED,
}


def servers(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERVER",
            autocompletion=options.server_names,
            help="Only these servers: names, or paths of manifests.",
        ),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="First download the servers that can be, into a folder of tftpbench's own.")
    ] = False,
    json_: options.Json = False,
) -> int:
    """List the servers that can be measured, with versions found.

    Of a server that is not here, it says why not and how to get it.
    """
    from concurrent.futures import ThreadPoolExecutor

    from tftpbench.host.choice import bundled_manifests, choose_manifest
    from tftpbench.host.presence import locate

    manifests = [choose_manifest(name)[0] for name in names] if names else list(bundled_manifests().values())
    failed = fetch and _fetch(manifests, asked=bool(names))
    with ThreadPoolExecutor() as pool:  # each asks a program for its version, and some are slow to start
        found = list(pool.map(locate, manifests))
    described = [_describe(manifest, here) for manifest, here in zip(manifests, found, strict=True)]
    if json_:
        typer.echo(json.dumps({"servers": described}, ensure_ascii=False))
    else:
        _print_table(described)
        for each in manifests if names else ():
            _print_details(each)
    return 2 if failed else 0


EXAMPLES = ("tftpbench servers", "tftpbench servers --fetch tftp-now")


def _fetch(manifests: list["Manifest"], asked: bool) -> bool:
    """Whether it failed: one that was `asked` for by name is not here now, or of all that can be fetched none is."""
    from tftpbench.host.fetch import Wanted, fetch_all

    def say(line: str) -> None:
        typer.echo(visible_line(line), err=True)

    missing = 0
    for each in manifests if asked else ():
        if each.fetch is None:
            here = each.executable() is not None
            missing += not here
            say(f"{each.name}: {'is here already' if here else f'cannot be fetched; get it: {each.get}'}")
    wanted = [Wanted(each.name, each.peer, each.fetch, each.get) for each in manifests if each.fetch]
    failed = fetch_all("servers", wanted, say) if wanted else 0
    return missing + failed > 0 if asked else failed == len(wanted)


def _describe(manifest: "Manifest", found: "Found | Missing") -> dict[str, object]:
    from tftpbench.host.presence import Found

    here = found if isinstance(found, Found) else None
    gone = None if isinstance(found, Found) else found
    return {
        "name": manifest.name,
        "model": manifest.model,
        "operations": list(manifest.capabilities.operations),
        "options": list(manifest.capabilities.options),
        "ipv6": manifest.capabilities.ipv6,
        "variants": list(manifest.variants),
        "version": here.version if here else None,
        "missing": gone.reason if gone else None,
        "get": gone.get if gone else None,
        "can_fetch": manifest.fetch is not None,
        "homepage": manifest.homepage,
        "manifest": str(manifest.source),
    }


def _print_table(described: list[dict[str, object]]) -> None:
    from tftpbench.model.programs import typed

    print_table(_COLUMNS, map(_row, described))
    for each in described:
        if each["missing"] is not None:
            fetch = typed(["tftpbench", "servers", "--fetch", str(each["name"])])
            fetched = f" (or: {fetch})" if each["can_fetch"] else ""
            typer.echo(visible_line(f"To get {each['name']}: {each['get']}{fetched}"))


def _row(described: dict[str, object]) -> list[str]:
    does = f"{_words(described['operations'])}{' IPv6' if described['ipv6'] else ''}"
    here = str(described["version"]) if described["missing"] is None else f"- {described['missing']}"
    cells = described["name"], described["model"], does, _words(described["options"]) or "none", here
    return [visible_line(str(cell)) for cell in cells]


def _print_details(manifest: "Manifest") -> None:
    """What a look at one server is for: how it is started, its limits, and where it comes from."""
    variants = {name: " ".join(variant.argv) for name, variant in manifest.variants.items()}
    lines = {
        "homepage": manifest.homepage,
        "licence": manifest.license,
        "started as": " ".join(manifest.argv),
        "to write": " ".join(manifest.argv_write),
        "as shipped": variants.pop("as_shipped", "the same"),
        **{f"@{name}": command for name, command in variants.items()},
        **manifest.caps,
        "manifest": str(manifest.source),
    }
    typer.echo(f"\n{manifest.name}")
    width = max(map(len, lines))
    for name, text in lines.items():
        if text:
            typer.echo(f"  {name.ljust(width)}  {visible_line(text)}")


def _words(value: object) -> str:
    return " ".join(str(word) for word in value) if isinstance(value, list) else ""
