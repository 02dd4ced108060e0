"""``tftpbench servers``: what can be measured here, and how to get what is missing."""

import re
from typing import TYPE_CHECKING, Annotated

import typer

from tftpbench.cli import options, output
from tftpbench.model.escape import visible_line
from tftpbench.render.terminal import print_table

if TYPE_CHECKING:
    from tftpbench.host.presence import Found, Missing
    from tftpbench.model.manifest import Manifest

_VERSION_MAX = 20  # of a text without a number


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

    Of servers that are named, it says all: what they can do, how they are started, and how to get what is not here.
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
        output.print_json([{"servers": described}])
    elif names:
        for manifest, each in zip(manifests, described, strict=True):
            _print_details(manifest, each)
    else:
        _print_table(described)
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
        "state": "here" if gone is None else _state(gone),
        "missing": gone.reason if gone else None,
        "get": gone.get if gone else None,
        "can_fetch": manifest.fetch is not None,
        "homepage": manifest.homepage,
        "manifest": str(manifest.source),
    }


def _state(gone: "Missing") -> str:
    from tftpbench.host.presence import AS_ROOT, NOT_FOUND

    if gone.get == AS_ROOT:
        return "needs root"
    return "not here" if gone.reason.endswith(NOT_FOUND) else "can't be run"


def _print_table(described: list[dict[str, object]]) -> None:
    from tftpbench.model.programs import typed

    rows = [[visible_line(str(cell)) for cell in (each["name"], _here(each), each["model"])] for each in described]
    # One line a server, also at 80 columns, where only the model is shortened: all about one is printed for its name.
    columns: dict[str, dict[str, object]] = {
        name: {"no_wrap": True, "min_width": max(len(row[place]) for row in rows)}
        for place, name in enumerate(("server", "here"))
    }
    print_table({**columns, "model": {"no_wrap": True, "overflow": "ellipsis"}}, rows)
    gone = [each for each in described if each["state"] == "not here"]
    fetched = [str(each["name"]) for each in gone if each["can_fetch"]]
    others = [str(each["name"]) for each in gone if not each["can_fetch"]]
    for start, names in (
        (f"{typed(['tftpbench', 'servers', '--fetch'])} gets", fetched),
        ("To be got by hand:", others),
    ):
        if names:
            typer.echo(f"{start} {', '.join(names)}.")
    typer.echo(f"All about one: {typed(['tftpbench', 'servers'])} NAME")


def _here(described: dict[str, object]) -> str:
    """The number in what the version command printed, or in a few words why it can't be run."""
    if described["missing"] is None:
        text = str(described["version"])
        number = re.search(r"\d+(\.\d+)+", text)
        return number[0] if number else text[:_VERSION_MAX]
    return str(described["state"])


def _print_details(manifest: "Manifest", described: dict[str, object]) -> None:
    """What a look at one server is for: what it does, how it is started or got, its limits, where it comes from."""
    from tftpbench.model.programs import typed

    fetch = f"{typed(['tftpbench', 'servers', '--fetch', manifest.name])}, or: " if manifest.fetch else ""
    able, variants = manifest.capabilities, {name: " ".join(each.argv) for name, each in manifest.variants.items()}
    lines = {
        "here": re.split(r"\s+Copyright", str(described["version"]))[0] if described["version"] else "",
        "not here": str(described["missing"] or ""),
        "to get it": f"{fetch if described['state'] == 'not here' else ''}{described['get'] or ''}",
        "model": manifest.model,
        "does": f"{' '.join(able.operations)}{' IPv6' if able.ipv6 else ''}; "
        f"options: {' '.join(able.options) or 'none'}",
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
