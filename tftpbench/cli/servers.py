"""``tftpbench servers``: who could be measured here."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tftpbench.servers import Found, Manifest, Missing


def servers(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> int:
    """List every manifest: model, options, version found, or why not and how to get it."""
    from concurrent.futures import ThreadPoolExecutor

    from tftpbench.servers import bundled_manifests

    manifests = list(bundled_manifests().values())
    with ThreadPoolExecutor() as pool:  # each asks a program for its version, and some are slow to start
        found = list(pool.map(lambda manifest: manifest.locate(), manifests))
    described = [_describe(manifest, here) for manifest, here in zip(manifests, found, strict=True)]
    if json_:
        typer.echo(json.dumps({"servers": described}, ensure_ascii=False))
    else:
        _print_table(described)
    return 0


def _describe(manifest: "Manifest", found: "Found | Missing") -> dict[str, object]:
    from tftpbench.servers import Found

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
        "homepage": manifest.homepage,
        "manifest": str(manifest.source),
    }


def _print_table(described: list[dict[str, object]]) -> None:
    """Blocks of two lines: models and reasons are sentences, which columns would squeeze."""
    width = max((len(str(each["name"])) for each in described), default=0)
    for each in described:
        state = each["version"] if each["missing"] is None else f"not found: {each['missing']}; get it: {each['get']}"
        can = (
            f"{_words(each['operations'])}; {_words(each['options']) or 'no options'}{'; IPv6' if each['ipv6'] else ''}"
        )
        typer.echo(f"{str(each['name']).ljust(width)}  {each['model']}")
        typer.echo(f"{' ' * width}  {can}")
        typer.echo(f"{' ' * width}  {state}")


def _words(value: object) -> str:
    return " ".join(str(word) for word in value) if isinstance(value, list) else ""
