"""From a document to a pydantic model, or to the lines that say what is wrong with it, one for each mistake.

pydantic finds the mistakes; this file only words them. It must never raise anything but the document's own
error.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, Self, TypeVar, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from tftpbench.model.errors import nearest, suggest
from tftpbench.model.yaml import Document, Key, KeyPath, Origin

Model = TypeVar("Model", bound=BaseModel)
SHOWN_MAX = 60
# More lines than fit a screen are not read before the first ones are mended.
MISTAKES_MAX = 20
# The validation context of a document whose wrong keys were taken out: none of them is missing.
INCOMPLETE: dict[str, Any] = {"is_incomplete": True}


class Strict(BaseModel):
    """A part of a document: unknown keys are errors, values don't change, aliases and names both build it."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Checked(Strict):
    """One whose keys must also fit together: all that `_faults` finds of that is raised at once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        raise_all(self._faults())
        return self

    @abstractmethod
    def _faults(self) -> "Iterator[KeyFault]":
        """What does not fit, each with its key."""


@dataclass(frozen=True)
class Allowed:
    """Metadata of a field: the words that follow "allowed:" when its value is wrong."""

    text: str


class KeyFault(ValueError):
    """Raised by a validator of several keys together: which of them to blame, and why; `about` are the others."""

    def __init__(self, path: KeyPath, message: str, about: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.path = path
        self.about = frozenset((*about, *map(str, path[:1])))


class KeyFaults(ValueError):
    """Raised by a validator for all that it found; `raise_all` makes it."""

    def __init__(self, faults: Iterable[KeyFault]) -> None:
        super().__init__()
        self.faults = tuple(faults)


def raise_all(faults: Iterable[KeyFault]) -> None:
    """Raises KeyFaults where there are any."""
    found = KeyFaults(faults)
    if found.faults:
        raise found


@dataclass(frozen=True)
class _Mistake:
    """One line of an error, worded only where it is shown: thousands would take seconds, most of it for suggestions.

    `same`: equal for mistakes that are one, as of a --set that reaches several matrices.
    """

    kind: str
    origin: Origin
    path: KeyPath
    same: object
    word: Callable[[], str]
    about: frozenset[str] = frozenset()

    @cached_property
    def text(self) -> str:
        return self.word()

    @property
    def is_missing(self) -> bool:
        return self.kind == "missing"

    @property
    def order(self) -> tuple[bool, int, int]:
        """By its place. What is missing comes last: it is often there, misspelt."""
        return self.is_missing, self.origin.line, self.origin.column

    def __str__(self) -> str:
        key = dotted(self.path)
        if self.origin.is_set and len(str(self.origin)) > SHOWN_MAX:  # what is wrong in it stands in the text
            return f"--set {key}: {self.text}"
        is_said = not key or self.origin.source.startswith(f"--set {key}=")
        return f"{self.origin}: {self.text}" if is_said else f"{self.origin}: {key}: {self.text}"


def parse(document: Document, model: type[Model]) -> Model:
    """The model of a document; raises the document's error with a line for each mistake, at most MISTAKES_MAX."""
    found = [
        _Mistake("", origin, path, (origin, path, text), lambda text=text: text)  # type: ignore[misc]
        for path, origin, text in document.mistakes
    ]
    try:
        made = model.model_validate(document.data)
    except ValidationError as error:
        shown = _mistakes(document, model, error)
        found += shown + _between_keys(document, model, shown)
    if not found:
        return made
    unique: dict[object, _Mistake] = {}
    for each in sorted(found, key=lambda each: each.order):
        unique.setdefault(each.same, each)
    lines = [str(each) for each in list(unique.values())[:MISTAKES_MAX]]
    more = len(unique) - len(lines)
    raise document.fault(*lines, *([f"{document.source}: and {more} more"] if more else []))


def _mistakes(document: Document, model: type[BaseModel], error: ValidationError) -> list[_Mistake]:
    faults = [cast("dict[str, Any]", fault) for fault in error.errors(include_url=False)]
    # A list is also "too short" when an item of it is wrong: the item is to blame.
    blamed = {fault["loc"][:length] for fault in faults for length in range(len(fault["loc"]))}
    found = [
        each for fault in faults if fault["loc"] not in blamed or not fault["loc"]
        for each in _of_fault(document, model, fault)
    ]  # fmt: skip
    lacking = {each.path[:-1] for each in found if each.is_missing}
    unknown = [each for each in found if each.kind == "extra_forbidden" and each.path[:-1] in lacking]
    suggested = {(*each.path[:-1], word) for each in unknown[:MISTAKES_MAX] for word in _suggested([each])}
    return [each for each in found if not (each.is_missing and each.path in suggested)]


def _of_fault(document: Document, model: type[BaseModel], fault: dict[str, Any]) -> Iterator[_Mistake]:
    """The key, what is wrong, what is allowed."""
    cause = fault.get("ctx", {}).get("error")
    loc = tuple(part for part in fault["loc"] if not _is_tag(part))
    for each in cause.faults if isinstance(cause, KeyFaults) else (cause,):
        path: KeyPath = (*loc, *each.path) if isinstance(each, KeyFault) else loc
        about = each.about if isinstance(each, KeyFault) else frozenset()
        same = (document.written(path), fault["type"], str(each))
        word = partial(_wrong, model, path, fault, each)
        yield _Mistake(fault["type"], document.origin(path), path, same, word, about)


def _suggested(mistakes: Iterable[_Mistake]) -> list[str]:
    """The keys that the first unknown ones may stand for: no others are shown."""
    unknown = [each for each in mistakes if each.kind == "extra_forbidden"][:MISTAKES_MAX]
    return [word for each in unknown for word in re.findall(r"^unknown key; did you mean '(?:\w+\.)*(\w+)'", each.text)]


def _between_keys(document: Document, model: type[BaseModel], found: list[_Mistake]) -> list[_Mistake]:
    """The mistakes that show only where each key by itself is right: without the keys that are wrong.

    What is about such a key is a consequence of its mistake.
    """
    data = {key: _copied(value) for key, value in document.data.items()}
    if not all(_taken_out(data, model, each.path) for each in found[: 10 * MISTAKES_MAX]):
        return []
    try:
        model.model_validate(data, context=INCOMPLETE)
    except ValidationError as error:
        wrong = {*(str(part) for each in found for part in each.path[:1]), *_suggested(found)}
        return [each for each in _mistakes(document, model, error) if each.about and wrong.isdisjoint(each.about)]
    return []


def _copied(value: object) -> Any:
    """Its mappings and lists anew; whatever else a caller put into them as it is."""
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return [_copied(each) for each in value] if isinstance(value, (list, tuple)) else value


def _taken_out(data: dict[str, Any], model: type[BaseModel], path: KeyPath) -> bool:
    """Whether the outermost key of the path that may be left out was, or else the innermost has a stand-in."""
    inner: Any = data
    places: list[tuple[dict[str, Any], KeyPath]] = []
    for place, part in enumerate(path):
        if isinstance(inner, dict) and isinstance(part, str):
            places.append((inner, path[: place + 1]))
        is_there = isinstance(inner, dict) or (isinstance(inner, list) and isinstance(part, int) and part < len(inner))
        inner = (inner.get(part) if isinstance(inner, dict) else inner[part]) if is_there else None
    for mapping, key in places:
        known = _field_at(model, key)
        if known is None or not known.is_required():
            mapping.pop(str(key[-1]), None)
            return True
    for mapping, key in reversed(places):
        known = _field_at(model, key)
        if known is not None and (stand_in := _stand_in(known.annotation)) is not None:
            mapping[str(key[-1])] = stand_in
            return True
    return False


def _field_at(model: type[BaseModel], path: KeyPath) -> FieldInfo | None:
    fields = _model_at(model, path[:-1]).model_fields.items()
    return next((field for name, field in fields if (_name(name, field),) == path[-1:]), None)


def _stand_in(annotation: Any) -> object:
    """The least value that a required key of this type allows, None where that is not known."""
    if annotation in (str, int):
        return "x" if annotation is str else 1
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = annotation.model_fields.items()
        return {_name(name, each): _stand_in(each.annotation) for name, each in fields if each.is_required()}
    first = next(iter(get_args(annotation)), None)
    if get_origin(annotation) is Literal:
        return first
    inner = None if first is None else _stand_in(first)
    return [inner] if get_origin(annotation) is tuple and inner is not None else inner


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
    is_said = not allowed or "allowed:" in message or "did you mean" in message
    return message if is_said else f"{message}; allowed: {allowed}"


def _unknown_key(model: type[BaseModel], path: KeyPath) -> str:
    parent = _model_at(model, path[:-1])
    siblings = [_name(name, field) for name, field in parent.model_fields.items()]
    word = str(path[-1])
    if nearest(word, siblings) is None:
        elsewhere = {key.rpartition(".")[2]: key for key in reversed(list(_all_keys(model)))}
        if (near := nearest(word, elsewhere)) is not None:
            return f"unknown key; did you mean {elsewhere[near]!r}?"
    return f"unknown key{suggest(word, siblings)}"


def _allowed(model: type[BaseModel], path: KeyPath) -> str:
    field = _field_at(model, tuple(part for part in path if isinstance(part, str)))
    return next((item.text for item in field.metadata if isinstance(item, Allowed)), "") if field else ""


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    for part in path:
        field = _field_at(model, (part,))
        model = (_inner_model(field) if field else None) or model
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


def dotted(path: KeyPath) -> str:
    """A path as people write it: "matrix.concurrency[1]"."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "..."
