"""From a document to a `MarTable`, with pydantic's findings in our own words and key paths."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from hatch_mar.errors import Problem
from hatch_mar.project.document import ENVIRONMENT, Document, KeyPath, read_scalar
from hatch_mar.project.suggestion import did_you_mean
from hatch_mar.project.table import (
    ArchiveTable,
    ExampleTable,
    ExtraTable,
    MarTable,
    SystemTable,
    WeightsTable,
    WheelTable,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

TABLES: Mapping[str, type[BaseModel]] = {
    "archive": ArchiveTable,
    "wheel": WheelTable,
    "system": SystemTable,
    "weights": WeightsTable,
    "examples": ExampleTable,
    "extra-files": ExtraTable,
}
EXPECTED = {
    "string_type": "a string",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "an array",
    "dict_type": "a table",
    "model_type": "a table",
}
"""What a pydantic error type says should have been there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Valid:
    """What of a document can be worked with."""

    table: MarTable
    broken: frozenset[str] = frozenset()
    """Top-level keys that are wrong, or hold something wrong."""
    kept: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of broken arrays with right entries: which entries of the author's the table has."""


def validate(document: Document, problems: list[Problem]) -> Valid:
    """Return the valid part of `document`: whole tables, and of arrays the entries that are right.

    Everything wrong goes to `problems`; the rest of a project can still be looked at.
    """
    _read_numbers_of_variables(document)
    values = copy.deepcopy(document.values)
    try:
        return Valid(table=MarTable.model_validate(values))
    except ValidationError as error:
        errors = error.errors(include_url=False)
    problems.extend(_problems(document, errors))
    broken = {str(_path_in(values, each)[0]) for each in errors}
    kept = dict(_right_entries(values, errors))
    right = {key: value for key, value in values.items() if key not in broken}
    right |= {key: [values[key][index] for index in entries] for key, entries in kept.items()}
    return Valid(table=MarTable.model_validate(right), broken=frozenset(broken), kept=kept)


def _right_entries(
    values: Mapping[str, Any], errors: list[ErrorDetails]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the broken arrays that have right entries, with the indices of those."""
    wrong: dict[str, set[str | int]] = {}
    for key, *inner in _places(values, errors):
        wrong.setdefault(str(key), set()).update(inner[:1] or ["all"])
    for key, entries in wrong.items():
        value = values.get(key)
        if isinstance(value, list) and "all" not in entries:
            right = tuple(index for index in range(len(value)) if index not in entries)
            if right:
                yield key, right


def known_keys(model: type[BaseModel]) -> list[str]:
    """Return the keys of one table as authors write them."""
    return [str(field.alias) for field in model.model_fields.values()]


def _read_numbers_of_variables(document: Document) -> None:
    """Turn text from the environment into numbers where the table wants one."""
    try:
        MarTable.model_validate(copy.deepcopy(document.values))
    except ValidationError as error:
        for each in error.errors(include_url=False):
            path = _path_in(document.values, each)
            if isinstance(each["input"], str) and document.origin(path).file == ENVIRONMENT:
                container: Any = document.values
                for step in path[:-1]:
                    container = container[step]
                container[path[-1]] = read_scalar(each["input"])


def _problems(document: Document, errors: list[ErrorDetails]) -> Iterator[Problem]:
    """Yield one problem per place: the branches of a union complain together."""
    for path, found in _places(document.values, errors).items():
        origin = document.origin(path)
        yield Problem(origin.file, origin.key, _message(path, found))


def _places(
    values: Mapping[str, Any], errors: list[ErrorDetails]
) -> dict[KeyPath, list[ErrorDetails]]:
    """Return the errors by their places, without branches of a union that fitted less far."""
    places: dict[KeyPath, list[ErrorDetails]] = {}
    for error in errors:
        places.setdefault(_path_in(values, error), []).append(error)
    return {
        path: found
        for path, found in places.items()
        if not any(longer[: len(path)] == path and longer != path for longer in places)
    }


def _message(path: KeyPath, found: list[ErrorDetails]) -> str:
    first = found[0]
    if first["type"] == "extra_forbidden":
        table = TABLES.get(str(path[0]), MarTable) if len(path) > 1 else MarTable
        return f"unknown key{did_you_mean(str(path[-1]), known_keys(table))}"
    if first["type"] == "missing":
        return "is required"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "literal_error":
        choices = [choice.strip("'") for choice in _choices(first["ctx"]["expected"])]
        hint = did_you_mean(str(first["input"]), choices)
        return f"{first['input']!r} is not one of {', '.join(choices)}{hint}"
    expected = list(dict.fromkeys(EXPECTED.get(each["type"], "") for each in found))
    if all(expected):
        return f"must be {' or '.join(expected)}, not {first['input']!r}"
    message = next(each["msg"] for each in found if each["type"] not in EXPECTED)
    return f"{first['input']!r}: {message[:1].lower()}{message[1:]}"


def _choices(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _path_in(values: Mapping[str, Any], error: ErrorDetails) -> KeyPath:
    """Return an error's place without pydantic's own steps, such as the branch of a union."""
    path: list[str | int] = []
    value: Any = values
    steps = error["loc"]
    for position, step in enumerate(steps):
        missing = error["type"] == "missing" and position == len(steps) - 1
        if isinstance(value, Mapping) and (step in value or missing):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            value = value[step]
        else:
            continue
        path.append(step)
    return tuple(path)
