"""From a document to a pydantic model, or to the one line that says what is wrong with it.

pydantic finds the mistakes; this file only words them. It must never raise anything but the document's own
error.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from tftpbench.model.errors import suggest
from tftpbench.model.yaml import Document, Key, KeyPath

Model = TypeVar("Model", bound=BaseModel)
SHOWN_MAX = 60


class Strict(BaseModel):
    """A part of a document: unknown keys are errors, values don't change, aliases and names both build it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


@dataclass(frozen=True)
class Allowed:
    """Metadata of a field: the words that follow "allowed:" when its value is wrong."""

    text: str


class KeyFault(ValueError):
    """Raised by a validator of several keys together: which of them to blame, and why."""

    def __init__(self, path: KeyPath, message: str) -> None:
        super().__init__(message)
        self.path = path


def parse(document: Document, model: type[Model]) -> Model:
    """The model of a document; raises the document's error with one line about its first mistake."""
    try:
        return model.model_validate(document.data)
    except ValidationError as error:
        faults = [cast("dict[str, Any]", fault) for fault in error.errors()]
        worded = [_worded(document, model, fault) for fault in faults if not _is_echo(fault, faults)]
        raise document.fault(min(worded)[1]) from None


def _is_echo(fault: dict[str, Any], faults: list[dict[str, Any]]) -> bool:
    """A list is also "too short" when an item of it is wrong: the item is to blame."""
    loc = fault["loc"]
    return any(len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in faults)


def _worded(document: Document, model: type[BaseModel], fault: dict[str, Any]) -> tuple[tuple[bool, int, int], str]:
    """What to sort by, and the line: origin, key, what is wrong, what is allowed.

    What is missing comes last: it is often there, misspelt.
    """
    cause = fault.get("ctx", {}).get("error")
    loc = tuple(part for part in fault["loc"] if not _is_tag(part))
    path: KeyPath = (*loc, *cause.path) if isinstance(cause, KeyFault) else loc
    origin = document.origin(path)
    key = _dotted(path)
    if origin.source.startswith(f"--set {key}="):
        key = ""  # it has just been said
    return (
        fault["type"] == "missing",
        origin.line,
        origin.column,
    ), f"{origin}: {key + ': ' if key else ''}{_wrong(model, path, fault, cause)}"


def _is_tag(part: Key) -> bool:
    """The validator's name of the choice among several forms of a value: "<list>" is in no file."""
    return isinstance(part, str) and part.startswith("<")


def _wrong(model: type[BaseModel], path: KeyPath, fault: dict[str, Any], cause: object) -> str:
    if fault["type"] == "extra_forbidden":
        return _unknown_key(model, path)
    allowed = _allowed(model, path)
    if fault["type"] == "missing":
        message = "is missing"
    elif cause is not None:
        message = str(cause)
    elif fault["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        message, allowed = f"is {_shown(fault['input'])}", "a mapping of keys to values"
    elif allowed:
        message = f"is {_shown(fault['input'])}"
    else:
        message, allowed = f"is {_shown(fault['input'])}", fault["msg"]
    return message if not allowed or "allowed:" in message else f"{message}; allowed: {allowed}"


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    parent = _model_at(model, path[:-1])
    siblings = [_name(name, field) for name, field in parent.model_fields.items()]
    word = str(path[-1])
    hint = suggest(word, siblings)
    if not hint:
        elsewhere = [key for key in _all_keys(model) if key.rpartition(".")[2] == word]
        hint = f"; did you mean {elsewhere[0]!r}?" if elsewhere else ""
    return f"unknown key{hint}; allowed: {', '.join(siblings)}"


def _allowed(model: type[BaseModel], path: KeyPath) -> str:
    names = [part for part in path if isinstance(part, str)]
    for name, field in _model_at(model, tuple(names[:-1])).model_fields.items():
        if names and _name(name, field) == names[-1]:
            return next((item.text for item in field.metadata if isinstance(item, Allowed)), "")
    return ""


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        for name, field in model.model_fields.items():
            inner = _inner_model(field)
            if _name(name, field) == part and inner is not None:
                model = inner
                break
    return model


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + _name(name, field)
        inner = _inner_model(field)
        if inner is not None:
            yield from _all_keys(inner, f"{prefix}{_name(name, field)}.")


def _inner_model(field: FieldInfo) -> type[BaseModel] | None:
    return next(
        (item for item in _parts(field.annotation) if isinstance(item, type) and issubclass(item, BaseModel)), None
    )


def _parts(annotation: object) -> Iterator[object]:
    """A type, and the types it is made of."""
    yield annotation
    for inner in (getattr(annotation, "__origin__", None), *getattr(annotation, "__args__", ())):
        if inner is not None and inner is not annotation:
            yield from _parts(inner)


def _name(name: str, field: FieldInfo) -> str:
    return field.alias or name


def _dotted(path: KeyPath) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."
